"""A connection that rests lets others work."""

import asyncio
import time

from tallystick.store import db
from tallystick.store.db import PROOF_CONNECTION

TAKES_S = 0.1


def test_it_rests_for_nine_times_as_long_as_a_statement_took(database_url: str) -> None:
    async def act() -> float:
        async with db.unhurried(await db.connect(database_url, PROOF_CONNECTION)) as conn:
            began = time.monotonic()
            cursor = await conn.execute("SELECT 'done' FROM pg_sleep(%s)", (TAKES_S,))
            rested = time.monotonic() - began
            assert await cursor.fetchone() == ("done",), "and answers as ever"
            return rested

    assert asyncio.run(act()) >= 10 * TAKES_S * 0.99  # a clock's grain
