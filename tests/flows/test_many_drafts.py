"""More drafts than are judged at length in one go: each is stored once and answered in its place, or refused alone."""

from collections.abc import Callable, Sequence

import pytest

from tallystick.app import wall
from tallystick.core.events import UsageEvent
from tallystick.core.limits import ROWS_AT_LENGTH_MAX
from tallystick.core.rows import Table
from tallystick.errors import Problem
from tallystick.flows.batcher import Batcher
from tallystick.flows.books import Books
from tallystick.flows.drafts import Accepted, Draft, Outcome, drafted
from tallystick.flows.ingest import ingest
from tallystick.store.db import CONNECTION, Database, connect
from tests.audit import audit, count_events, organization_id
from tests.conftest import MakeOrganization, Organization, beside_the_server
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


Told = list[Sequence[Outcome]]


def told_by_the_batcher(shop: Organization, database_url: str, drafts: Sequence[Sequence[Draft]]) -> Told:
    """One after the other, as a server takes them."""

    async def act(_: Database) -> Told:
        batcher = Batcher(database_url, Books(), wall)
        batcher.start()
        try:
            return [await batcher.submit(organization_id(shop), each) for each in drafts]
        finally:
            await batcher.stop()

    return beside_the_server(database_url, act)


def told_at_once(shop: Organization, database_url: str, drafts: Sequence[Sequence[Draft]]) -> Told:
    """However many they are, as an import takes them."""

    async def act(_: Database) -> Told:
        books = Books()
        async with await connect(database_url, CONNECTION) as conn:
            return [await ingest(conn, books, organization_id(shop), each, wall=wall()) for each in drafts]

    return beside_the_server(database_url, act)


@pytest.mark.parametrize("tell", [told_by_the_batcher, told_at_once])
@pytest.mark.parametrize(
    "strangers",
    [(), (0,), (COUNT // 2,), (5, ROWS_AT_LENGTH_MAX, COUNT - 2)],
    ids=["nobody strange", "the first", "one within", "some"],
)
def test_each_is_stored_once_and_answered_in_its_place(
    make_organization: MakeOrganization,
    database_url: str,
    strangers: Sequence[int],
    tell: Callable[[Organization, str, Sequence[Sequence[Draft]]], Told],
) -> None:
    shop = make_organization()
    open_shop(shop, "ada")
    sent = events(strangers)
    third = COUNT // 3
    whole = drafted(sent, range(COUNT), api_key_id=None, header="h")
    of_two_requests = Table.joined(
        Draft,
        [
            drafted(Table.of(UsageEvent, sent[:third]), range(third), api_key_id=None, header="h"),
            [Draft(each, None, "h", nth) for nth, each in enumerate(sent[third:], third)],
        ],
    )
    first, again = tell(shop, database_url, [whole, of_two_requests])
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


@pytest.mark.parametrize("guilty", [3, ROWS_AT_LENGTH_MAX + 4, COUNT - 5])
@pytest.mark.parametrize(
    "strangers", [(), (5,), (COUNT - 2,)], ids=["in short", "at length", "at length later"]
)
def test_what_the_database_refuses_stands_alone(
    make_organization: MakeOrganization, database_url: str, guilty: int, strangers: Sequence[int]
) -> None:
    """Wherever it is among those who share its commit."""
    shop = make_organization()
    open_shop(shop, "ada")
    sent = [
        UsageEvent(
            "api_calls", customer_of(place, strangers), key=f"k{place}\0" if place == guilty else f"k{place}"
        )
        for place in range(COUNT)
    ]
    (told,) = told_by_the_batcher(
        shop, database_url, [drafted(sent, range(COUNT), api_key_id=None, header="h")]
    )
    refused = {place: each.code for place, each in enumerate(told) if isinstance(each, Problem)}
    assert refused == {guilty: "internal_error", **dict.fromkeys(strangers, "customer_not_found")}
    assert count_events(database_url, shop) == COUNT - len(refused)
    audit(database_url, shop)
