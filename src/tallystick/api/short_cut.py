"""uvicorn's protocol with a short cut: the request of a hot route goes from the parser to its handler, with no ASGI between.

Only what is plain takes it: HTTP/1.1, POST to the very path, a Content-Length within the route's limit, no Expect. All
else goes uvicorn's own way, on the same connection and in order.
"""

import asyncio
import logging
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tallystick.api.connections import Connection
from tallystick.api.http import Api, Hot
from tallystick.api.rate_limits import Headers

log = logging.getLogger("tallystick.api")

STATE: Final = "tallystick.hot_routes"
"""Where the application's lifespan leaves its routes for the protocol, as uvicorn hands it on."""


def routes(api: Api) -> dict[bytes, "ShortCut"]:
    return {path.encode(): ShortCut(api, path, hot) for path, hot in api.hot.items()}


class ShortCut:
    """A hot route by the path that names it."""

    def __init__(self, api: Api, path: str, hot: Hot) -> None:
        self.body_bytes_max = hot.body_bytes_max
        self.answer = partial(api.answer, hot, path)


class ShortCutProtocol(Connection):
    def on_message_begin(self) -> None:
        """What a request is described by is put together only for those that go uvicorn's way."""
        self.head_begins()
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        route = self._route()
        if route is None:
            self._go_uvicorns_way()
            return
        self.head_ends()
        before = self.cycle
        exchange: Any = _Exchange(self, route, self.headers, keep_alive=self.parser.should_keep_alive())
        self.cycle = exchange
        if before is None or before.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:  # it came before the last one was answered, and waits for that
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """What answers by the short cut is waited for by its connection, and need not be counted among the server's tasks."""
        if isinstance(cycle, _Exchange):
            self.loop.create_task(cycle.run_asgi(app))
        else:
            super()._start_asgi_task(cycle, app)

    def _route(self) -> ShortCut | None:
        found: ShortCut | None = self.app_state[STATE].get(self.url)
        if (
            found is None
            or self.parser.get_method() != b"POST"
            or self.expect_100_continue
            or self.parser.get_http_version() != "1.1"
            or self.parser.should_upgrade()
        ):
            return None
        length = b""
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name == b"transfer-encoding":
                return None
        return found if length.isdigit() and int(length) <= found.body_bytes_max else None

    def _go_uvicorns_way(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()


class _Exchange:
    """A request and its answer, to the protocol what uvicorn's own cycle is."""

    __slots__ = (
        "_arrived",
        "_headers",
        "_protocol",
        "_route",
        "body",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    def __init__(
        self, protocol: ShortCutProtocol, route: ShortCut, headers: Headers, *, keep_alive: bool
    ) -> None:
        self._protocol, self._route, self._headers = protocol, route, headers
        self._arrived: asyncio.Future[None] | None = None
        self.body = bytearray()
        self.more_body = True
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = keep_alive

    @property
    def message_event(self) -> "_Exchange":
        return self

    def set(self) -> None:
        """More of the body is there, or nobody who would send it."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def run_asgi(self, _: object) -> None:
        protocol = self._protocol
        try:
            while self.more_body and not self.disconnected:
                protocol.flow.resume_reading()
                self._arrived = protocol.loop.create_future()
                await self._arrived
            if self.more_body:  # whoever hangs up before the request is complete has asked for nothing
                return
            status, headers, answer = await self._route.answer(self._headers, bytes(self.body))
            if protocol.flow.write_paused and not self.disconnected:
                await protocol.flow.drain()
        except Exception as error:
            log.error("an answer could not be made", exc_info=error)
            protocol.transport.close()
            return
        if self.disconnected or protocol.transport.is_closing():
            return
        lines = [STATUS_LINE[status]]
        for name, value in (*protocol.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        protocol.transport.write(b"".join((*lines, b"\r\n", answer)))
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()
