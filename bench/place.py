"""A server of our own with its catalogue and customers: where a load can begin at once."""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.request import urlopen

from psycopg import AsyncConnection

from bench import server
from bench.catalogue import METERED, Offer, prepare
from bench.events import Crowd, Target
from bench.month import say
from tallystick.app import wall
from tallystick.flows.open_organization import open_organization
from tallystick.store.db import CONNECTION


@dataclass(frozen=True, slots=True)
class Place:
    ours: server.Tallystick
    target: Target
    conninfo: str

    @property
    def roots(self) -> tuple[int, int]:
        """The server's process and PostgreSQL's."""
        return self.ours.pid, server.postmaster_of(self.conninfo)

    @property
    def filter_bytes(self) -> int:
        """Memory of the filters over frozen keys, in all of the server's processes together, as it says itself."""
        with urlopen(f"{self.ours.url}/metrics") as answer:
            for line in answer.read().decode().splitlines():
                name, _, value = line.partition(" ")
                if name == "tallystick_key_filter_bytes":
                    return int(float(value))
        return 0

    def of(self, offer: Offer) -> Target:
        """As `target`, for those who hold that plan."""
        return replace(self.target, crowd=offer.crowd)


@contextmanager
def own_place(
    *offers: Offer, workers: int, settings: Mapping[str, str] | None = None, cores: Collection[int] = ()
) -> Iterator[Place]:
    """In a directory that goes away. `settings` are PostgreSQL's, where they are not the usual ones. With `cores`, server and
    PostgreSQL keep to those."""
    with server.Tallystick(settings) as ours:
        say("starting a server in a directory of its own")
        ours.start(workers=workers, cores=cores)
        ours.wait_until_ready()
        conninfo = ours.conninfo
        api_key = asyncio.run(_api_key(conninfo))
        target = Target(ours.url, api_key, crowd=offers[0].crowd)
        say("preparing the catalogue and its customers")
        try:
            prepare(target, *offers)
            yield Place(ours, target, conninfo)
        except OSError:
            ours.must_live()  # its last words say more than a refused connection
            raise


async def _api_key(conninfo: str) -> str:
    """Of a new sandbox, as `tallystick organizations create` makes it."""
    async with await AsyncConnection.connect(conninfo, **CONNECTION) as conn, conn.transaction():
        _, key = await open_organization(
            conn, name="Bench", mode="sandbox", timezone="UTC", clock=None, wall=wall()
        )
    return key.secret


def crowded(offer: Offer, size: int) -> Offer:
    """The same plan, held by so many."""
    return replace(offer, crowd=Crowd(offer.crowd.prefix, size))


def metered(customers: int) -> Offer:
    return crowded(METERED, customers)
