"""A paced load: which connection a request leaves on, and from when its latency counts."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from bench.events import Judged, Target
from bench.load import drive

Answering = Callable[[int], Awaitable[None]]
"""Waits as long as the answer to this connection's request is to be late."""

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Said:
    """Each request names its connection."""

    def __init__(self, lane: int) -> None:
        self._lane = lane

    def request(self) -> bytes:
        return b"GET /%d HTTP/1.1\r\n\r\n" % self._lane

    def judge(self, status: int, body: bytes) -> Judged | None:
        return Judged(1, 0) if status == 200 else None


def test_what_a_late_answer_holds_up_leaves_on_another_connection() -> None:
    heard: Counter[int] = Counter()
    others_enough = asyncio.Event()

    async def late(lane: int) -> None:
        heard[lane] += 1
        if heard[1] == 20:
            others_enough.set()
        if lane == 0:
            await others_enough.wait()

    with served(late) as target:
        load = drive(target, Said, connections=2, seconds=0.5, requests_per_s=200)
    assert load.errors == 0
    assert heard[1] - heard[0] > 10, "the first one need not make up for what the second has sent"


def test_what_a_request_waits_for_a_connection_counts() -> None:
    async def late(_: int) -> None:
        await asyncio.sleep(0.02)

    with served(late) as target:
        load = drive(target, Said, connections=1, seconds=0.2, requests_per_s=1000)
    assert load.errors == 0
    assert load.p50_ms > 100, "each was answered within 20 ms, and due long before it was sent"


@contextmanager
def served(late: Answering) -> Iterator[Target]:
    """A server in a thread of its own, which answers each request when `late` is done."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await late(int(head.split()[1][1:]))
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(talk, "127.0.0.1"), loop).result()
        yield Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        loop.call_soon_threadsafe(server.close)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
