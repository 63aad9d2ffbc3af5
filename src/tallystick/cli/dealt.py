"""A server that accepts nobody itself: its connections are dealt to it."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn


class DealtServer(uvicorn.Server):
    """Connections come over `dealt`, a socket between two processes. It says so with a byte when it serves, and with one
    for each connection that is over."""

    def __init__(self, config: uvicorn.Config, dealt: socket.socket) -> None:
        super().__init__(config)
        self._dealt = dealt
        self._unsaid = 1  # that it serves
        self._has = 0
        self._opening: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._dealt, self._take)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop.remove_reader(self._dealt)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        over = self._has - len(self._opening) - len(self.server_state.connections)
        if over > 0:  # one that is about to be open may stand in both
            self._has -= over
            self._unsaid += over
        with suppress(BlockingIOError):
            self._unsaid -= self._dealt.send(bytes(self._unsaid)) if self._unsaid else 0
        return await super().on_tick(counter)

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while True:
                said, files, _, _ = socket.recv_fds(self._dealt, 1, 1)
                if not said:  # whoever dealt is gone; that ends this process, too
                    self._loop.remove_reader(self._dealt)
                    return
                for each in files:
                    self._has += 1
                    opening = self._loop.create_task(self._open(socket.socket(fileno=each)))
                    self._opening.add(opening)
                    opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # whoever knocked is gone
            connection.close()

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes one for each connection that it accepts."""
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=self._loop,
        )
