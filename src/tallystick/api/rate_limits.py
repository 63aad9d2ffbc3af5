"""How often each API key may call this process (behaviour.md §1.8). Nothing of it exists while the limit is off."""

from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

from tallystick.core.limits import RATE_BUCKETS_KEPT_MAX
from tallystick.core.throttle import NEVER_USED, Throttle
from tallystick.errors import Problem

Headers = list[tuple[bytes, bytes]]


class RateLimits:
    """A bucket for each key that called lately; one that is full again is forgotten."""

    def __init__(self, throttle: Throttle, clock_ns: Callable[[], int]) -> None:
        self._throttle = throttle
        self._clock_ns = clock_ns
        self._limit = str(throttle.holds).encode()
        self._buckets: OrderedDict[UUID, int] = OrderedDict()  # the one that was last taken from comes last

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(self, key_id: UUID, headers: Headers) -> None:
        """Count one request. The answer's `headers` tell how the key stands, also when this raises 429."""
        now = self._clock_ns()
        taken = self._throttle.take(self._buckets.get(key_id, NEVER_USED), now)
        headers += (
            (b"ratelimit-limit", self._limit),
            (b"ratelimit-remaining", str(taken.remaining).encode()),
            (b"ratelimit-reset", str(taken.full_in_s).encode()),
        )
        if taken.refused:
            raise Problem(
                "rate_limited",
                f"Too many requests with this API key; try again in {taken.retry_after_s} s.",
                retry_after_s=taken.retry_after_s,
            )
        self._buckets[key_id] = taken.full_at
        self._buckets.move_to_end(key_id)
        self._forget(now)

    def _forget(self, now: int) -> None:
        """Buckets are full again about in the order they were taken from: look at the oldest until one is not.
        Beyond the most that are kept, the oldest goes as it is, to its key's advantage."""
        while (
            self._throttle.is_full(next(iter(self._buckets.values())), now)
            or len(self._buckets) > RATE_BUCKETS_KEPT_MAX
        ):
            self._buckets.popitem(last=False)
