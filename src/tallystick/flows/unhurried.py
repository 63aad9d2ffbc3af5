"""Work that nobody waits for, in a process that serves others: small pieces, with rests between them."""

import asyncio
import time
from collections.abc import Iterable
from typing import Final

LEISURELY: Final = 9  # times as long as a piece took: a tenth of a core
SOON: Final = 2
_REST_MAX_S: Final = 0.02  # a piece that took long has waited for its turn, most of all


async def rest_after(began: float, *, times: int = LEISURELY) -> None:
    """Let others be served so many times as long, after a piece that was begun at that `time.monotonic()`."""
    await asyncio.sleep(min(times * (time.monotonic() - began), _REST_MAX_S))


async def piece_by_piece(work: Iterable[object]) -> None:
    """Do work that stops after each piece, with a rest after each."""
    began = time.monotonic()
    for _ in work:
        await rest_after(began)
        began = time.monotonic()
