"""More drafts than are judged at length in one go: each is stored once and answered in its place."""

from collections.abc import Sequence

import pytest

from tallystick.app import wall
from tallystick.core.events import UsageEvent
from tallystick.core.limits import ROWS_AT_LENGTH_MAX
from tallystick.core.rows import Table
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.drafts import Accepted, Draft, Outcome, drafted
from tallystick.flows.ingest import ingest
from tallystick.store.db import CONNECTION, Database, connect
from tests.audit import audit, count_events, organization_id
from tests.conftest import MakeOrganization, beside_the_server
from tests.shop import open_shop

COUNT = 2 * ROWS_AT_LENGTH_MAX + 300
REPEATED = {place: place - 7 for place in range(9, COUNT, 10)} | {COUNT - 1: 0}
"""One in ten has the key of another, and the last one that of the first."""


def customer_of(place: int, strangers: Sequence[int]) -> str:
    return "stranger" if place in strangers else "ada"


def events(strangers: Sequence[int]) -> list[UsageEvent]:
    return [
        UsageEvent("api_calls", customer_of(place, strangers), key=f"k{REPEATED.get(place, place)}")
        for place in range(COUNT)
    ]


@pytest.mark.parametrize(
    "strangers",
    [(), (0,), (COUNT // 2,), (5, ROWS_AT_LENGTH_MAX, COUNT - 2)],
    ids=["nobody strange", "the first", "one within", "some"],
)
def test_each_is_stored_once_and_answered_in_its_place(
    make_organization: MakeOrganization, database_url: str, strangers: Sequence[int]
) -> None:
    shop = make_organization()
    open_shop(shop, "ada")
    sent = events(strangers)
    third = COUNT // 3

    async def act(_: Database) -> list[Sequence[Outcome]]:
        """Twice; the second time in parts, as several requests bring them."""
        books = Books()
        async with await connect(database_url, CONNECTION) as conn:
            return [
                await ingest(conn, books, organization_id(shop), drafts, wall=wall())
                for drafts in (
                    drafted(sent, range(COUNT), api_key_id=None, header="h"),
                    Table.joined(
                        Draft,
                        [
                            drafted(
                                Table.of(UsageEvent, sent[:third]), range(third), api_key_id=None, header="h"
                            ),
                            [Draft(each, None, "h", nth) for nth, each in enumerate(sent[third:], third)],
                        ],
                    ),
                )
            ]

    first, again = beside_the_server(database_url, act)
    stored: dict[str | None, Accepted] = {}
    for place, (event, outcome, told) in enumerate(zip(sent, first, again, strict=True)):
        if place in strangers:
            assert isinstance(outcome, Problem) and outcome.code == "customer_not_found"
            assert isinstance(told, Problem) and told.code == "customer_not_found"
        elif event.key in stored:
            for each in (outcome, told):
                assert isinstance(each, Problem) and each.code == "duplicate"
        else:
            assert isinstance(outcome, Accepted) and outcome.event.key == event.key
            assert told == outcome._replace(replayed=True)
            stored[event.key] = outcome
    assert count_events(database_url, shop) == len(stored)
    audit(database_url, shop)
