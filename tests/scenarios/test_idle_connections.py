"""A connection on which nothing is asked is closed after a while, and no sooner: not between questions, nor during an answer."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.types import Receive, Scope, Send

from tallystick.api.connections import Connection

IDLE_S = 0.4
LONG_S = 3 * IDLE_S
ENDS_WITHIN_S = 30

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/long":
        await asyncio.sleep(LONG_S)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/") -> None:
    writer.write(f"GET {path} HTTP/1.1\r\nhost: here\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")


async def seconds_until_closed(reader: asyncio.StreamReader) -> float:
    began = asyncio.get_running_loop().time()
    assert await asyncio.wait_for(reader.read(), ENDS_WITHIN_S) == b""
    return asyncio.get_running_loop().time() - began


def on_a_connection(talk: Talk) -> None:
    async def act() -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            lifespan="off",
            log_config=None,
            timeout_keep_alive=IDLE_S,  # type: ignore[arg-type]
        )
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            try:
                await talk(reader, writer)
            finally:
                writer.close()
                server.should_exit = True
                await serving

    asyncio.run(act())


def test_a_connection_that_is_idle_is_closed() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader, writer)
        assert await seconds_until_closed(reader) > IDLE_S / 2

    on_a_connection(talk)


def test_a_connection_that_is_used_now_and_then_stays() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(12):
            await ask(reader, writer)
            await asyncio.sleep(IDLE_S / 4)
        await ask(reader, writer)
        assert await seconds_until_closed(reader) > IDLE_S / 2

    on_a_connection(talk)


def test_an_answer_that_takes_longer_is_given_and_idleness_counted_from_then_on() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ask(reader, writer)
        await ask(reader, writer, "/long")
        assert await seconds_until_closed(reader) > IDLE_S / 2

    on_a_connection(talk)
