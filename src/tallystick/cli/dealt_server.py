"""A server that accepts nobody itself: its connections are dealt to it."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from tallystick.api.short_cut import ShortCutProtocol


class DealtServer(uvicorn.Server):
    """Connections come over `dealt`, a socket between two processes. It says so with a byte when it serves, and with one
    for each connection that is over."""

    def __init__(self, config: uvicorn.Config, dealt: socket.socket) -> None:
        super().__init__(config)
        self._dealt = dealt
        self._unsaid = 0
        self._opening: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._dealt, self._take)
        self._say(1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop.remove_reader(self._dealt)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        self._say(0)  # what there was no room for
        return await super().on_tick(counter)

    def _say(self, more: int) -> None:
        self._unsaid += more
        if self._unsaid:
            with suppress(OSError):
                self._unsaid -= self._dealt.send(bytes(self._unsaid))

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while True:
                said, files, _, _ = socket.recv_fds(self._dealt, 1, 1)
                if not said:  # whoever dealt is gone; that ends this process, too
                    self._loop.remove_reader(self._dealt)
                    return
                for each in files:
                    opening = self._loop.create_task(self._open(socket.socket(fileno=each)))
                    self._opening.add(opening)
                    opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # whoever knocked is gone
            connection.close()
            self._say(1)

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes one for each connection that it accepts."""
        made = _Dealt(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=self._loop,
        )
        made.tell = lambda: self._say(1)
        return made


class _Dealt(ShortCutProtocol):
    """Tells when it is over, and at once: a process that seems full to whoever deals is dealt nothing."""

    tell: Callable[[], None]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.tell()
