"""The load generator: keep-alive connections, closed-loop or paced, cheap enough to share two cores with a server."""

import asyncio
import math
import signal
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

import msgspec
import uvloop

from bench.events import Talk, Target

WARM_UP_S: Final = 1.0
ANSWER_TIMEOUT_S: Final = 30.0
SAMPLES_MAX: Final = 3
GONE_AFTER_S: Final = 0.2
"""How long after a load the next may begin: until every process of the server knows that those connections are over, it
seems to have them, and is dealt fewer."""
_SECOND_NS: Final = 1_000_000_000
_TICK_S: Final = 0.001
"""The shortest wait for what is due: the loop's clock knows no shorter one, and would ask again and again."""


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
    generator_us: float  # processor time of the load generator for a request, warm-up included
    per_second: list[int]  # events as expected in each second that was measured
    events: int  # as expected, from the first request on, warm-up included
    stored: int  # those of them that were new
    errors: int  # from the first request on, warm-up included
    error_samples: list[str]

    def worst(self, seconds: int) -> float:
        """Events a second in the worst stretch of so many whole seconds; of all of it where it is no longer."""
        each = self.per_second[: int(self.seconds)]
        stretches = (sum(each[at : at + seconds]) / seconds for at in range(len(each) - seconds + 1))
        return min(stretches, default=self.events_per_s)


class Span(NamedTuple):
    """What happened since the last time somebody was told, while the load goes on."""

    began_s: float  # since the warm-up ended
    seconds: float
    latencies: "array[int]"  # nanoseconds, of each request
    events: int  # as expected
    errors: int


@dataclass(slots=True)
class _Run:
    counted_from: int
    until: int
    pace: "_Pace | None" = None  # none: the next request of a connection leaves when its answer is there
    latencies: "array[int]" = field(default_factory=lambda: array("q"))
    per_second: list[int] = field(default_factory=list)
    measured_stored: int = 0
    answers: int = 0
    stored: int = 0
    repeated: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    samples: list[str] = field(default_factory=list)

    def error(self, kind: str, sample: str) -> None:
        if kind not in self.errors and len(self.samples) < SAMPLES_MAX:
            self.samples.append(f"{kind}: {sample}")
        self.errors[kind] += 1


class _Pace:
    """Requests that are due at even steps: each leaves on the connection that has been free the longest, and where none is
    free, on the first that becomes so."""

    def __init__(self, requests_per_s: float, until: int) -> None:
        self._gap, self._until = _SECOND_NS / requests_per_s, until
        self._due: float = time.perf_counter_ns()
        self._free: deque[_Lane] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def freed(self, lane: "_Lane") -> None:
        has_waited = not self._free
        self._free.append(lane)
        self._send(has_waited=has_waited)

    def _send(self, *, has_waited: bool) -> None:
        """What is due. That our own clock is late is nobody's waiting."""
        now = time.perf_counter_ns()
        while self._free and self._due <= now:
            lane = self._free.popleft()
            if not lane.done.done():
                lane.send(due=int(self._due) if has_waited else None)
                self._due += self._gap
        if self._free and self._timer is None:
            wait_s = max((self._due - now) / _SECOND_NS, _TICK_S)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if time.perf_counter_ns() < self._until:
            self._send(has_waited=False)
            return
        while self._free:
            self._free.popleft().finish()


class _Lane(asyncio.Protocol):
    """One connection. The next request leaves in the same turn of the loop in which the answer arrived, or when the pace
    has one for it.
    """

    transport: asyncio.Transport

    def __init__(self, run: _Run, talk: Talk) -> None:
        self.run, self.talk = run, talk
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.partial = b""
        self.sent_at = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class, only by behaviour

    def send(self, due: int | None = None) -> None:
        """The next request. One that had to wait for a connection was `due` before, and that time is its own too."""
        request = self.talk.request()
        self.sent_at = due or time.perf_counter_ns()
        self.transport.write(request)

    def next(self) -> None:
        if self.run.pace is None:
            self.send()
        else:
            self.run.pace.freed(self)

    def data_received(self, data: bytes) -> None:
        if self.partial:
            data = self.partial + data
        head_ends = data.find(b"\r\n\r\n")
        if head_ends < 0:
            self.partial = data
            return
        at = data.find(b"\r\ncontent-length:", 0, head_ends)  # servers write it in lower case, nearly all
        length = int(data[at + 17 : data.find(b"\r", at + 17)]) if at > 0 else _odd_length(data, head_ends)
        if length is None:
            self.run.error("answer without content-length", data[:300].decode(errors="replace"))
            self.transport.abort()
            return
        body_from = head_ends + 4
        if len(data) < body_from + length:
            self.partial = data
            return
        if self.partial:
            self.partial = b""
        self._answered(int(data[9:12]), data[body_from:])

    def _answered(self, status: int, body: bytes) -> None:
        run, now = self.run, time.perf_counter_ns()
        run.answers += 1
        judged = self.talk.judge(status, body)
        if judged is None:
            run.error(f"unexpected {status}", body[:500].decode(errors="replace"))
        else:
            stored, repeated = judged
            run.stored += stored
            run.repeated += repeated
            if run.counted_from <= now < run.until:
                run.latencies.append(now - self.sent_at)
                run.measured_stored += stored
                run.per_second[(now - run.counted_from) // _SECOND_NS] += stored + repeated
        if now >= run.until:
            self.finish()
        else:
            self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.run.error("connection lost", repr(exc))
            self.finish()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


def _odd_length(data: bytes, head_ends: int) -> int | None:
    """Of an answer whose head does not say `content-length` in lower case."""
    at = data[:head_ends].lower().find(b"\r\ncontent-length:")
    if at < 0:
        return 0 if data[9:12] == b"204" else None
    return int(data[at + 17 : data.find(b"\r", at + 17)])


def percentile(ordered: Sequence[int], share: float) -> float:
    """Nearest rank, in milliseconds; not a number when nothing was measured."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6 if ordered else float("nan")


def ratio(ours: float, theirs: float) -> float:
    """Not a number where there is nothing to compare with: a window in which nothing was answered."""
    return ours / theirs if theirs else float("nan")


async def _connect(target: Target, lane: _Lane) -> None:
    where = target.address
    tls = where.scheme == "https"
    port = where.port or (443 if tls else 80)
    await asyncio.get_running_loop().create_connection(
        lambda: lane, where.hostname or "", port, ssl=tls or None
    )


def warm_up(seconds: float) -> float:
    """How long a load goes on before it is measured: no longer than the measuring itself."""
    return min(WARM_UP_S, seconds)


class Watch(NamedTuple):
    """Who is told how the load goes, every so many seconds; `told` is called in the loop and must be quick."""

    every_s: float
    told: Callable[[Span], None]


async def _watch(run: _Run, watch: Watch) -> None:
    """Spans follow each other without a gap; what is left at the end is in the `Load` alone."""
    seen = events = errors = 0
    began = run.counted_from
    await asyncio.sleep((began - time.perf_counter_ns()) / 1e9)
    while True:
        await asyncio.sleep((began - time.perf_counter_ns()) / 1e9 + watch.every_s)
        now, all_events, all_errors = time.perf_counter_ns(), sum(run.per_second), run.errors.total()
        watch.told(
            Span(
                began_s=(began - run.counted_from) / 1e9,
                seconds=(now - began) / 1e9,
                latencies=run.latencies[seen:],
                events=all_events - events,
                errors=all_errors - errors,
            )
        )
        seen, events, errors, began = len(run.latencies), all_events, all_errors, now


async def _drive(
    target: Target,
    talk_of: Callable[[int], Talk],
    connections: int,
    seconds: float,
    requests_per_s: float | None,
    watch: Watch | None,
) -> Load:
    run = _Run(0, 0)
    run.per_second = [0] * math.ceil(seconds)
    lanes = [_Lane(run, talk_of(number)) for number in range(connections)]
    for lane in lanes:
        await _connect(target, lane)
    warm_up_s = warm_up(seconds)
    run.counted_from = time.perf_counter_ns() + int(warm_up_s * 1e9)
    run.until = run.counted_from + int(seconds * 1e9)
    if watch is not None:
        watching = asyncio.ensure_future(_watch(run, watch))
    cpu_before, began = time.process_time(), time.perf_counter()
    if requests_per_s:
        run.pace = _Pace(requests_per_s, run.until)
    for lane in lanes:
        lane.next()
    _, silent = await asyncio.wait(
        [lane.done for lane in lanes], timeout=warm_up_s + seconds + ANSWER_TIMEOUT_S
    )
    cpu_s, took_s = time.process_time() - cpu_before, time.perf_counter() - began
    if watch is not None:
        watching.cancel()
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
        events_per_s=sum(run.per_second) / seconds,
        stored_per_s=run.measured_stored / seconds,
        p50_ms=percentile(ordered, 0.50),
        p99_ms=percentile(ordered, 0.99),
        generator_cpu=cpu_s / took_s,
        generator_us=1e6 * cpu_s / max(run.answers, 1),
        per_second=run.per_second,
        events=run.stored + run.repeated,
        stored=run.stored,
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
    watch: Watch | None = None,
) -> Load:
    """Keep `connections` requests open for the warm-up and then `seconds`, each connection its own talk.

    With `requests_per_s`, so many leave in even steps, on whichever connection is free; fewer where answers do not keep up.
    What one waits for a connection counts.
    """

    async def until_told() -> Load:
        # An exception raised by a signal inside a callback would end one connection, not the program.
        task = asyncio.ensure_future(_drive(target, talk_of, connections, seconds, requests_per_s, watch))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    before = signal.getsignal(signal.SIGTERM)
    try:
        return uvloop.run(until_told())
    except asyncio.CancelledError:
        sys.exit(143)
    finally:
        signal.signal(signal.SIGTERM, before)  # the loop has put the default in its place
        time.sleep(GONE_AFTER_S)
