"""How often somebody may call: a token bucket, in whole numbers and without a clock.

A bucket is one number: the instant at which it will be full again. Whoever takes from it moves that instant
away by what one request costs, and may do so until it lies further ahead than a full bucket reaches. A bucket
whose instant has passed is full, so forgetting it changes nothing.

Instants are counted in ticks, `per_second` of them to a nanosecond: then a request costs a whole number of
ticks, whatever the rate and however many processes share it, and nothing is ever rounded into a bucket.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

NANOSECONDS: Final = 1_000_000_000
NEVER_USED: Final = 0
"""A bucket nobody has taken from: full since the clock began."""


class Taken(NamedTuple):
    """The bucket after one request asked for its share, and what the caller is told of it."""

    full_at: int
    remaining: int  # requests that would be let through now
    full_in_s: int
    retry_after_s: int | None  # None: it was let through

    @property
    def refused(self) -> bool:
        return self.retry_after_s is not None


@dataclass(frozen=True, slots=True)
class Throttle:
    """So many requests a second, and so many at once; each of the processes that share it allows its part."""

    per_second: int
    burst: int
    shared_by: int = 1

    @property
    def holds(self) -> int:
        """Whole requests in a full bucket: a process that allowed less than one would allow nothing."""
        return max(1, self.burst // self.shared_by)

    def take(self, full_at: int, now_ns: int) -> Taken:
        """One request at `now_ns`, of a clock that never goes back. A refused one takes nothing."""
        cost = self.shared_by * NANOSECONDS
        room = max(self.burst, self.shared_by) * NANOSECONDS
        now = now_ns * self.per_second
        before = max(full_at, now)
        after = before + cost
        excess = after - now - room
        if excess > 0:
            return Taken(full_at, 0, self._seconds(before - now), self._seconds(excess))
        return Taken(after, (room - (after - now)) // cost, self._seconds(after - now), None)

    def is_full(self, full_at: int, now_ns: int) -> bool:
        return full_at <= now_ns * self.per_second

    def _seconds(self, ticks: int) -> int:
        """Rounded up: who waits that long has waited long enough."""
        return -(-ticks // (self.per_second * NANOSECONDS))
