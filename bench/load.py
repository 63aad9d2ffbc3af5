"""The load generator: keep-alive connections, closed-loop or paced, cheap enough to share two cores with a server."""

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

import msgspec
import uvloop

from bench.events import Talk, Target

WARM_UP_S: Final = 1.0
ANSWER_TIMEOUT_S: Final = 30.0
SAMPLES_MAX: Final = 3


class Load(msgspec.Struct, frozen=True, rename="camel"):
    """What one measured stretch of load came to; everything before the warm-up ended is left out."""

    connections: int
    seconds: float
    requests_per_s: float
    events_per_s: float  # as expected: stored and repeated
    stored_per_s: float
    p50_ms: float
    p99_ms: float
    generator_cpu: float  # share of one core that the load generator took
    events: int  # as expected, from the first request on, warm-up included
    errors: int  # from the first request on, warm-up included
    error_samples: list[str]


@dataclass(slots=True)
class _Run:
    counted_from: int
    until: int
    gap_s: float = 0.0  # between two requests of a connection; none: the next leaves when the answer is there
    latencies: list[int] = field(default_factory=list)
    stored: int = 0
    repeated: int = 0
    events: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    samples: list[str] = field(default_factory=list)

    def error(self, kind: str, sample: str) -> None:
        if kind not in self.errors and len(self.samples) < SAMPLES_MAX:
            self.samples.append(f"{kind}: {sample}")
        self.errors[kind] += 1


class _Lane(asyncio.Protocol):
    """One connection. The next request leaves in the same turn of the loop in which the answer arrived, or when it
    is due; one that is due while an answer is outstanding leaves right after it.
    """

    transport: asyncio.Transport

    def __init__(self, run: _Run, talk: Talk) -> None:
        self.run, self.talk = run, talk
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.partial = b""
        self.sent_at = 0
        self.due = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class, only by behaviour

    def begin(self, delay_s: float) -> None:
        self.due = time.perf_counter_ns() + int(delay_s * 1e9)
        asyncio.get_running_loop().call_later(delay_s, self.send)

    def send(self) -> None:
        request = self.talk.request()
        self.sent_at = time.perf_counter_ns()
        self.transport.write(request)

    def _send_when_due(self, now: int) -> None:
        self.due += int(self.run.gap_s * 1e9)
        if self.due > now:
            asyncio.get_running_loop().call_later((self.due - now) / 1e9, self.send)
        else:
            self.send()
            self.sent_at = self.due  # it had to wait for the answer before, and that time is its own too

    def data_received(self, data: bytes) -> None:
        if self.partial:
            data = self.partial + data
        head_ends = data.find(b"\r\n\r\n")
        if head_ends < 0:
            self.partial = data
            return
        body_from = head_ends + 4
        length = _content_length(data, head_ends)
        if length is None:
            self.run.error("answer without content-length", data[:300].decode(errors="replace"))
            self.transport.abort()
            return
        if len(data) < body_from + length:
            self.partial = data
            return
        self.partial = b""
        self._answered(int(data[9:12]), data[body_from:], time.perf_counter_ns())

    def _answered(self, status: int, body: bytes, now: int) -> None:
        run = self.run
        judged = self.talk.judge(status, body)
        if judged is None:
            run.error(f"unexpected {status}", body[:500].decode(errors="replace"))
        else:
            run.events += judged.stored + judged.repeated
            if run.counted_from <= now < run.until:
                run.latencies.append(now - self.sent_at)
                run.stored += judged.stored
                run.repeated += judged.repeated
        if now >= run.until:
            self._finish()
        elif run.gap_s:
            self._send_when_due(now)
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.run.error("connection lost", repr(exc))
            self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _content_length(data: bytes, head_ends: int) -> int | None:
    """Servers write the name in lower case; the slow path is for the ones that do not."""
    at = data.find(b"\r\ncontent-length:", 0, head_ends)
    if at < 0:
        at = data[:head_ends].lower().find(b"\r\ncontent-length:")
    if at < 0:
        return 0 if data[9:12] == b"204" else None
    ends = data.find(b"\r", at + 17)
    return int(data[at + 17 : ends])


def percentile(ordered: list[int], share: float) -> float:
    """Nearest rank, in milliseconds; not a number when nothing was measured."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6 if ordered else float("nan")


async def _connect(target: Target, lane: _Lane) -> None:
    where = target.address
    tls = where.scheme == "https"
    port = where.port or (443 if tls else 80)
    await asyncio.get_running_loop().create_connection(
        lambda: lane, where.hostname or "", port, ssl=tls or None
    )


async def _drive(
    target: Target,
    talk_of: Callable[[int], Talk],
    connections: int,
    seconds: float,
    requests_per_s: float | None,
) -> Load:
    run = _Run(0, 0, connections / requests_per_s if requests_per_s else 0.0)
    lanes = [_Lane(run, talk_of(number)) for number in range(connections)]
    for lane in lanes:
        await _connect(target, lane)
    run.counted_from = time.perf_counter_ns() + int(WARM_UP_S * 1e9)
    run.until = run.counted_from + int(seconds * 1e9)
    cpu_before, began = time.process_time(), time.perf_counter()
    for number, lane in enumerate(lanes):
        lane.begin(run.gap_s * number / connections)
    _, silent = await asyncio.wait(
        [lane.done for lane in lanes], timeout=WARM_UP_S + seconds + ANSWER_TIMEOUT_S
    )
    cpu = (time.process_time() - cpu_before) / (time.perf_counter() - began)
    for lane in lanes:
        if lane.done in silent:
            run.error("no answer", f"within {ANSWER_TIMEOUT_S:.0f} s after the end")
            lane.done.cancel()
        lane.transport.abort()
    ordered = sorted(run.latencies)
    return Load(
        connections=connections,
        seconds=seconds,
        requests_per_s=len(ordered) / seconds,
        events_per_s=(run.stored + run.repeated) / seconds,
        stored_per_s=run.stored / seconds,
        p50_ms=percentile(ordered, 0.50),
        p99_ms=percentile(ordered, 0.99),
        generator_cpu=cpu,
        events=run.events,
        errors=run.errors.total(),
        error_samples=run.samples,
    )


def drive(
    target: Target,
    talk_of: Callable[[int], Talk],
    *,
    connections: int,
    seconds: float,
    requests_per_s: float | None = None,
) -> Load:
    """Keep `connections` requests open for the warm-up and then `seconds`, each connection its own talk.

    With `requests_per_s`, so many leave in even steps over all connections; fewer where answers do not keep up.
    """

    async def until_told() -> Load:
        # An exception raised by a signal inside a callback would end one connection, not the program.
        task = asyncio.ensure_future(_drive(target, talk_of, connections, seconds, requests_per_s))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    before = signal.getsignal(signal.SIGTERM)
    try:
        return uvloop.run(until_told())
    except asyncio.CancelledError:
        sys.exit(143)
    finally:
        signal.signal(signal.SIGTERM, before)  # the loop has put the default in its place
