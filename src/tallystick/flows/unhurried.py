"""Work that nobody waits for, in a process that serves others: small pieces, with rests between them."""

import asyncio
import time
from typing import Final

LEISURELY: Final = 9  # times as long as a piece took: a tenth of a core
SOON: Final = 2
_REST_MAX_S: Final = 0.02  # a piece that took long has waited for its turn, most of all


async def rest_after(began: float, *, times: int = LEISURELY) -> None:
    """Let others be served so many times as long, after a piece that was begun at that `time.monotonic()`."""
    await asyncio.sleep(min(times * (time.monotonic() - began), _REST_MAX_S))
