"""Work that nobody waits for, in a process that serves others: small pieces, with rests between them."""

import asyncio
import time
from typing import Final

_RESTS: Final = 2  # times as long


async def rest_after(began: float) -> None:
    """Let others be served for twice as long as the piece took that was begun at that `time.monotonic()`."""
    await asyncio.sleep(_RESTS * (time.monotonic() - began))
