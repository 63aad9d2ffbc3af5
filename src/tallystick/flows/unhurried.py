"""Work that nobody waits for, in a process that serves others: small pieces, with rests between them."""

import asyncio
import time
from typing import Final

_RESTS: Final = 9  # times as long: a tenth of a core
_REST_MAX_S: Final = 0.02  # a piece that took long has waited for its turn, most of all


async def rest_after(began: float) -> None:
    """Let others be served, after a piece that was begun at that `time.monotonic()`."""
    await asyncio.sleep(min(_RESTS * (time.monotonic() - began), _REST_MAX_S))
