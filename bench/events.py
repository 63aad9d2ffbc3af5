"""What is said to the server and what must come back: one talk for single events, one for batches."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple, Protocol
from urllib.parse import SplitResult, urlsplit

import msgspec

from tallystick.core.limits import EVENTS_PER_BATCH_MAX

CUSTOMERS: Final = 1000
FEATURE: Final = "api_calls"
VERSION: Final = "2026-08-27"
SINGLE_PATH: Final = "/api/v1/usage/events"
BATCH_PATH: Final = "/api/v1/usage/events/batch"
BULK_PATH: Final = "/api/v1/usage/events/bulk"
CHECK_PATH: Final = "/api/v1/usage/check"
REPEAT_EVERY: Final = 10  # one event in ten was sent before
REQUESTS_PER_BATCH: Final = 10  # in a mix: one request in ten is a batch


class Crowd(NamedTuple):
    """Customers that hold one plan: `bench_0001`, `bench_0002` …"""

    prefix: str = "bench"
    size: int = CUSTOMERS

    @property
    def names(self) -> list[str]:
        return [f"{self.prefix}_{number:04d}" for number in range(1, self.size + 1)]

    def customer_of(self, lane: int, number: int) -> int:
        """An event's customer follows from its number, so that a repeat needs no memory of what was sent."""
        return (lane * 37 + number * 17) % self.size + 1

    def customers_of(self, lane: int, numbers: Iterable[int]) -> list[int]:
        """Of many at once, for a third of the time."""
        first, size = lane * 37, self.size
        return [(first + number * 17) % size + 1 for number in numbers]


SPREAD: Final = Crowd()


class Judged(NamedTuple):
    stored: int
    repeated: int


_STORED: Final = Judged(1, 0)
_REPEATED: Final = Judged(0, 1)


class Talk(Protocol):
    """One connection's side of the conversation: it never has more than one request open."""

    def request(self) -> bytes: ...

    def judge(self, status: int, body: bytes) -> Judged | None:
        """The outcome of the last request, or None when the answer is not the expected one."""


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    api_key: str = ""
    repeats: bool = True  # False: a server without memory, which can tell no duplicate
    crowd: Crowd = SPREAD
    random_keys: bool = False  # keys without any order, as UUIDs; otherwise a name and a number that grows
    properties: bool = False  # two of them on each event

    @property
    def address(self) -> SplitResult:
        return urlsplit(self.url)


_PROPERTIES: Final = (
    b',"properties":[{"property":"region","value":"region_%d"},{"property":"path","value":"/v1/things"}]'
)
_ODD: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835  # the golden ratio's digits: multiples of it lie everywhere
_KEY_MASK: Final = (1 << 128) - 1


def _event_template(target: Target, prefix: str, lane: int) -> bytes:
    """Two numbers are left open: the customer's, and what `_in_keys` makes of the event's."""
    key = b"%032x" if target.random_keys else b"%b-%03d-%%09d" % (prefix.encode(), lane)
    return b'{"customerId":"%b_%%04d","featureCode":"%b","value":1,"eventId":"%b"%b}' % (
        target.crowd.prefix.encode(),
        FEATURE.encode(),
        key,
        _PROPERTIES % (lane % 8) if target.properties else b"",
    )


def _in_keys(target: Target, prefix: str, lane: int) -> Callable[[list[int]], list[int]] | None:
    """What stands in the events' keys: their numbers, or what follows from them, so that a repeat needs no memory."""
    if not target.random_keys:
        return None
    start = Random(f"{prefix}-{lane}").getrandbits(128)
    return lambda numbers: [(start + number) * _ODD & _KEY_MASK for number in numbers]


def _request_template(target: Target, path: str, prefix: str, lane: int, body: bytes, length: int) -> bytes:
    """Everything but the numbers, which have a fixed width: the length of the body is known beforehand."""
    head = (
        f"POST {target.address.path.rstrip('/')}{path} HTTP/1.1\r\nhost: {target.address.netloc}\r\n"
        f"x-api-key: {target.api_key}\r\ncommet-version: {VERSION}\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\nidempotency-key: {prefix}-{lane:03d}-"
    )
    return head.encode().replace(b"%", b"%%") + b"%09d\r\n\r\n" + body


class Singles:
    """One event per request: 2xx when it is new, 409 `duplicate` when it was sent before."""

    def __init__(self, target: Target, prefix: str, lane: int) -> None:
        event = _event_template(target, prefix, lane)
        self._template = _request_template(target, SINGLE_PATH, prefix, lane, event, len(event % (1, 1)))
        self._lane, self._repeats, self._random = lane, target.repeats, Random(lane)
        self._customer_of, self._in_keys = target.crowd.customer_of, _in_keys(target, prefix, lane)
        self._calls = self._sent = 0
        self._is_repeat = False

    def request(self) -> bytes:
        self._calls += 1
        self._is_repeat = self._repeats and self._calls % REPEAT_EVERY == 0
        if self._is_repeat:
            number = int(self._random.random() * self._sent)
        else:
            number = self._sent
            self._sent += 1
        in_key = number if self._in_keys is None else self._in_keys([number])[0]
        return self._template % (self._calls, self._customer_of(self._lane, number), in_key)

    def judge(self, status: int, body: bytes) -> Judged | None:
        if self._is_repeat:
            return _REPEATED if status == 409 and b'"duplicate"' in body else None
        return _STORED if 200 <= status < 300 else None


class _Refused(msgspec.Struct):
    error: str


class _BatchAnswer(msgspec.Struct):
    successful: list[msgspec.Raw]
    failed: list[_Refused]


_decode_batch = msgspec.json.Decoder(_BatchAnswer).decode


class Batches:
    """Many events per request: 200, the new ones in `successful`, the repeated ones in `failed`."""

    def __init__(self, target: Target, prefix: str, lane: int, *, events_per_batch: int) -> None:
        event = _event_template(target, prefix, lane)
        body = b'{"events":[' + b",".join([event] * events_per_batch) + b"]}"
        length = len(body % ((1, 1) * events_per_batch))
        path = BATCH_PATH if events_per_batch <= EVENTS_PER_BATCH_MAX else BULK_PATH
        self._template = _request_template(target, path, prefix, lane, body, length)
        self._lane, self._repeats, self._random = lane, target.repeats, Random(lane)
        self._customers_of, self._in_keys = target.crowd.customers_of, _in_keys(target, prefix, lane)
        self._size = events_per_batch
        self._calls = self._sent = self._repeated = 0

    def request(self) -> bytes:
        lane, fresh_from = self._lane, self._sent
        self._calls += 1
        numbers = list(range(fresh_from, fresh_from + self._size))
        self._repeated = 0
        if self._repeats and fresh_from:  # the first batch has nothing to repeat
            spread = range(REPEAT_EVERY - 1, self._size, REPEAT_EVERY)
            again = self._random.sample(range(fresh_from), len(spread))
            fresh = iter(range(fresh_from, fresh_from + self._size))
            numbers = [next(fresh) for _ in range(self._size - len(spread))]
            for at, number in zip(spread, again, strict=True):
                numbers.insert(at, number)
            self._repeated = len(spread)
        self._sent += self._size - self._repeated
        values = [self._calls] * (1 + 2 * self._size)
        values[1::2] = self._customers_of(lane, numbers)
        values[2::2] = numbers if self._in_keys is None else self._in_keys(numbers)
        return self._template % tuple(values)

    def judge(self, status: int, body: bytes) -> Judged | None:
        if status != 200:
            return None
        try:
            answer = _decode_batch(body)
        except msgspec.DecodeError:
            return None
        counts = Judged(len(answer.successful), len(answer.failed))
        as_sent = counts == (self._size - self._repeated, self._repeated)
        return counts if as_sent and all(one.error.startswith("duplicate") for one in answer.failed) else None


class Mixed:
    """Single events, and a batch in each round of `REQUESTS_PER_BATCH`; connections take turns with it."""

    def __init__(self, target: Target, prefix: str, lane: int, *, events_per_batch: int) -> None:
        self._single = Singles(target, f"{prefix}s", lane)
        self._batch = Batches(target, f"{prefix}b", lane, events_per_batch=events_per_batch)
        self._calls = lane
        self._said: Talk = self._single

    def request(self) -> bytes:
        self._calls += 1
        self._said = self._single if self._calls % REQUESTS_PER_BATCH else self._batch
        return self._said.request()

    def judge(self, status: int, body: bytes) -> Judged | None:
        return self._said.judge(status, body)


class Checks:
    """One question per request: would so much be accepted? It would."""

    def __init__(self, target: Target, lane: int) -> None:
        body = b'{"customerId":"%b_%%04d","featureCode":"%b","quantity":1}' % (
            target.crowd.prefix.encode(),
            FEATURE.encode(),
        )
        self._template = _request_template(target, CHECK_PATH, "check", lane, body, len(body % 1))
        self._lane, self._calls, self._customer_of = lane, 0, target.crowd.customer_of

    def request(self) -> bytes:
        self._calls += 1
        return self._template % (self._calls, self._customer_of(self._lane, self._calls))

    def judge(self, status: int, body: bytes) -> Judged | None:
        return Judged(0, 0) if status == 200 and b'"allowed":true' in body else None
