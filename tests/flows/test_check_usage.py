"""Checks at a moment that nothing has touched yet: they see what the next touch will find, and change nothing."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tallystick.app import wall
from tallystick.core import ids
from tallystick.core.events import UsageEvent
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.check_usage import Ask, Checked, check_usage
from tallystick.flows.drafts import Accepted, Draft
from tallystick.flows.ingest import ingest
from tallystick.store.db import Conn, Database, rows
from tests.audit import organization_id
from tests.conftest import MakeOrganization, Organization, beside_the_server
from tests.shop import API, add_feature, add_plan, done, own_id, subscribe, track


@pytest.fixture
def shop(make_organization: MakeOrganization) -> Organization:
    """By the wall's time; ada has 30 credits a month, and a call burns 3."""
    shop = make_organization()
    add_feature(shop)
    promises = {"api_calls": {"creditsPerUnit": 3}}
    add_plan(shop, "free", price=None, promises=promises, model="credits", grants={"includedCredits": 30})
    subscribe(shop, "ada", "free")
    return shop


def at(database_url: str, shop: Organization, later: timedelta, calls: int) -> tuple[Checked, bool]:
    """What a check says when so much time has gone by, and whether the event is accepted then."""
    event = UsageEvent("api_calls", "ada", Decimal(calls))

    async def act(database: Database) -> tuple[Checked, bool]:
        when = wall() + later
        async with database.reading() as conn:
            before = await stored(conn, shop)
            (checked,) = await check_usage(
                conn, Books(), organization_id(shop), [Ask(event, with_properties=False)], wall=when
            )
            assert await stored(conn, shop) == before
            (outcome,) = await ingest(conn, Books(), organization_id(shop), [Draft(event)], wall=when)
        assert isinstance(checked, Checked)
        return checked, isinstance(outcome, Accepted)

    return beside_the_server(database_url, act)


async def stored(conn: Conn, shop: Organization) -> list[Any]:
    return await rows(
        conn,
        "SELECT period_index, plan, purchased, held FROM wallets WHERE organization_id = %s",
        (organization_id(shop),),
    )


@pytest.mark.parametrize(
    ("days", "calls", "credits", "accepted"),
    [
        (0, 1, 0, False),
        (32, 10, 30, True),
        (32, 11, 30, False),
        (400, 10, 30, True),  # many periods have gone by, and one grant is there
    ],
)
def test_a_period_that_nobody_touched_yet_has_its_grant(
    shop: Organization, database_url: str, days: int, calls: int, credits: int, accepted: bool
) -> None:
    done(track(shop, value=10))
    checked, taken = at(database_url, shop, timedelta(days=days), calls)
    assert checked.funds is not None
    assert checked.funds.wallet.remaining == credits
    assert (checked.refusal is None, taken) == (accepted, accepted)


@pytest.mark.parametrize(("seconds", "credits"), [(0, 6), (61, 30)])
def test_what_was_not_settled_in_time_is_there_again(
    shop: Organization, database_url: str, seconds: int, credits: int
) -> None:
    body = {"customerId": "ada", "featureCode": "api_calls", "quantity": 8, "expiresIn": 60}
    done(shop.http.post(f"{API}/usage/reservations", json=body))
    checked, taken = at(database_url, shop, timedelta(seconds=seconds), 10)
    assert checked.funds is not None
    assert checked.funds.wallet.remaining == credits
    assert (checked.refusal is None, taken) == (credits == 30, credits == 30)


@pytest.mark.parametrize("held", [False, True])
def test_what_a_book_remembers_answers_nobody_once_it_has_changed(
    shop: Organization, database_url: str, *, held: bool
) -> None:
    """With something set aside there is more to read after the wallets, and the version once more."""
    if held:
        body = {"customerId": "ada", "featureCode": "api_calls", "quantity": 1}
        done(shop.http.post(f"{API}/usage/reservations", json=body))
    made = done(shop.http.post(f"{API}/api-keys", json={"name": "soon gone"}))
    event = UsageEvent("api_calls", "ada", Decimal(2))
    ask = Ask(event, with_properties=False, api_key_id=own_id(ids.API_KEY, made["id"]))

    async def act(database: Database) -> list[Checked | Problem]:
        books = Books()
        async with database.reading() as conn:
            before = await check_usage(conn, books, organization_id(shop), [ask], wall=wall())
            done(shop.http.delete(f"{API}/api-keys/{made['id']}"))
            return before + await check_usage(conn, books, organization_id(shop), [ask], wall=wall())

    before, after = beside_the_server(database_url, act)
    assert isinstance(before, Checked)
    assert before.cost == 6
    assert before.refusal is None
    assert isinstance(after, Problem)
    assert after.code == "unauthorized"
