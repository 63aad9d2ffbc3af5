"""What a batch costs on a Citus cluster: by the one statement, and by the cluster's own form.

python -m bench.citus postgresql://…        the coordinator; `python -m tests.citus.cluster` makes a cluster
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

from tests.citus.batches import NOON, batch_of

from tallystick.app import wall
from tallystick.flows.open_organization import open_organization
from tallystick.store import citus_ingest, db, migrate, storing
from tallystick.store.db import INGEST_CONNECTION, connect, new_id, new_ids
from tallystick.store.sheets import Inserted

_TIMES = 15
Store = Callable[..., Awaitable[Inserted]]


async def _measure(url: str) -> None:
    async with await connect(url, INGEST_CONNECTION) as conn:
        async with conn.transaction():
            made, _ = await open_organization(
                conn, name="Bench", mode="sandbox", timezone="UTC", clock=None, wall=wall()
            )
        version = await db.version(conn, organization_id=made.id)
        meter = new_id()

        async def once(store: Store, customers: list[UUID], key: str) -> float:
            sheet = batch_of(customers, meter_id=meter, keys=[key])
            began = time.perf_counter()
            await store(
                conn,
                sheet,
                organization_id=made.id,
                version=version,
                generation=0,
                received_at=NOON,
                number=None,
            )
            return (time.perf_counter() - began) * 1000

        print(
            f"{'events, a customer each':>24} {'one statement':>16} {'own form':>12}   ms, median of {_TIMES}"
        )
        for count in (1, 10, 100, 1_000):
            customers = new_ids(count)
            told = []
            for form in (storing.in_one_statement, citus_ingest.insert):
                await once(form, customers, f"{form.__name__} warm")
                taken = [await once(form, customers, f"{form.__name__} {nth}") for nth in range(_TIMES)]
                told.append(statistics.median(taken))
            print(f"{count:>24} {told[0]:>16.1f} {told[1]:>12.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url")
    chosen = parser.parse_args()
    migrate.migrate(chosen.url)
    migrate.spread(chosen.url)
    asyncio.run(_measure(chosen.url))


if __name__ == "__main__":
    main()
