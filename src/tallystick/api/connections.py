"""How long a caller may take to say what they want, and how long its head may be: uvicorn bounds neither.

A connection that never completes its request costs an open file for as long as it stays; enough of them, and nobody
else gets in.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tallystick.core import limits


class Connection(HttpToolsProtocol):
    """uvicorn's connection; one that keeps us waiting in the middle of a request is closed.

    `scope["state"]["abort"]()` drops it at once: uvicorn itself closes only after all is sent that was said, which is
    never where the other end does not read. `scope["state"]["leaving"]` is set when the server is to stop: who answers for
    long comes to an end then.

    A request that comes whole, as most do, needs no timer, and neither does an answer: one that runs sees, when it is due,
    since when nothing was asked.
    """

    head_within_s: float = limits.HEAD_WITHIN_S
    body_silent_s: float = limits.BODY_SILENT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._in_head = self._in_body = False
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Event | None = None
        self._idle_since: float | None = None
        self._wait(self.head_within_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > limits.HEAD_BYTES_MAX:
            self.send_400_response("The head of the request is too large.")
        elif self._in_head and self._timer is None:
            self._wait(self.head_within_s)
        elif self._in_body:
            self._wait(self.body_silent_s)  # anew with each piece

    def on_message_begin(self) -> None:
        self.head_begins()
        super().on_message_begin()
        self._leaving = self._leaving or asyncio.Event()
        self.scope["state"] |= {"abort": self.transport.abort, "leaving": self._leaving}

    def on_headers_complete(self) -> None:
        self.head_ends()
        super().on_headers_complete()

    def head_begins(self) -> None:
        self._in_head, self._head_bytes = True, 0

    def head_ends(self) -> None:
        self._in_head, self._in_body = False, True
        self._stop_waiting()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn does it, but for the timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._see_whether_idle_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        idle_s = 0.0 if self._idle_since is None else self.loop.time() - self._idle_since
        if idle_s < self.timeout_keep_alive:
            self._see_whether_idle_in(self.timeout_keep_alive - idle_s)
        else:
            super().timeout_keep_alive_handler()

    def _see_whether_idle_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """Something is asked: the timer goes on."""
        self._idle_since = None

    def shutdown(self) -> None:
        if self._leaving is not None:
            self._leaving.set()
        super().shutdown()

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self._give_up, seconds)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, seconds: float) -> None:
        if self.flow.read_paused:  # it is we who do not listen: an answer before this one is not finished
            self._wait(seconds)
        else:
            self.transport.close()
