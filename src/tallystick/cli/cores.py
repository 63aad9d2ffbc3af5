"""Server processes with a core each, where they are as many as the cores and PostgreSQL is our own (decision 0032)."""

import os
import sys

from tallystick.settings import Settings


def here() -> list[int]:
    """The cores that we may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


def own_cores(found: Settings) -> bool:
    """Whether each server process is to keep to a core of its own, and with it what PostgreSQL does for its lanes: they are
    as many as the cores, and whoever is bound to none runs where there is room."""
    fits = found.database_url is None and found.workers > 1 and len(here()) == found.workers
    return fits and found.own_cores is not False
