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

    A request that comes whole, as most do, needs no timer.
    """

    head_within_s: float = limits.HEAD_WITHIN_S
    body_silent_s: float = limits.BODY_SILENT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._in_head = self._in_body = False
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Event | None = None
        self._wait(self.head_within_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
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
