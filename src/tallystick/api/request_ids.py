"""Ids of requests: no row has one, so they are counted from a random place, which is cheaper than the ids of rows."""

import secrets
from collections.abc import Callable
from itertools import count
from typing import Final

from tallystick.core import ids
from tallystick.store.db import new_id


def request_ids() -> Callable[[], str]:
    """Ids that all begin with the moment of the first, and as no other process's do; the last six characters count."""
    head = ids.show(ids.REQUEST, new_id())[:-6]
    numbers = count(secrets.randbits(30))
    return lambda: head + ids.last_six(next(numbers))


new_request_id: Final = request_ids()
