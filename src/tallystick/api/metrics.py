"""What /metrics says of answers: how many, by operation and status, and how long they took.

They are counted in memory and told to Prometheus's client together, once a second: where several processes serve, it writes
each number that changes to a file, and an answer changes three.
"""

import asyncio
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram

METRICS_TYPE: Final = CONTENT_TYPE_LATEST
TOLD_EVERY_S: Final = 1.0


class Times(Histogram):
    """A histogram that observes many at once."""

    def observe_all(self, seconds: Sequence[float]) -> None:
        self._sum.inc(sum(seconds))
        for bucket, count in Tally(bisect_left(self._upper_bounds, each) for each in seconds).items():
            self._buckets[bucket].inc(count)


_REQUESTS: Final = Counter(
    "tallystick_requests_total", "Answers by operation and status", ["operation", "status"]
)
_SECONDS: Final = Times(
    "tallystick_request_seconds",
    "Time to answer, by operation",
    ["operation"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
_untold: Final[defaultdict[tuple[str, int], list[float]]] = defaultdict(list)


def count(operation: str, status: int, seconds: float) -> None:
    """One answer."""
    if not _untold:
        asyncio.get_running_loop().call_later(TOLD_EVERY_S, tell)
    _untold[operation, status].append(seconds)


def tell() -> None:
    """Whoever reads the metrics of this process from now on reads of every answer so far."""
    for (operation, status), seconds in _untold.items():
        _REQUESTS.labels(operation, str(status)).inc(len(seconds))
        _SECONDS.labels(operation).observe_all(seconds)
    _untold.clear()
