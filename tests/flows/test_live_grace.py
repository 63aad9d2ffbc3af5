"""A live organization has no test clock, so its hour of grace is lived through by handing `now` to the flows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from tallystick.app import wall
from tallystick.core import ids
from tallystick.core.events import UsageEvent
from tallystick.core.times import add_months, first_instant
from tallystick.flows.books import Books
from tallystick.flows.close_period import close_period
from tallystick.flows.drafts import Accepted, Draft
from tallystick.flows.ingest import ingest
from tallystick.flows.settle_late import settle_due
from tallystick.flows.subscribe import activate, cancel
from tallystick.store import customers, db, invoices, organizations, subscriptions
from tallystick.store.db import Conn, Database
from tallystick.store.organizations import Organization as LiveOrganization
from tests.audit import organization_id
from tests.conftest import MakeOrganization, Organization
from tests.scenarios.proving import late_events, usage_of, verified
from tests.shop import API, Json, add_customer, add_feature, add_plan, done, overage, own_id


def hold(shop: Organization, policy: str = "next_period") -> str:
    add_feature(shop, lateEventPolicy=policy)
    add_plan(shop, promises={"api_calls": overage("0.01", included=100)})
    add_customer(shop, "ada")
    body = {"customerId": "ada", "planCode": "pro"}
    found: str = done(shop.http.post(f"{API}/subscriptions", json=body))["id"]
    return found


async def begin(conn: Conn, organization: LiveOrganization, subscription_id: UUID, now: datetime) -> None:
    """As if it had been paid at `now`."""
    waiting = await subscriptions.get(
        conn, organization_id=organization.id, subscription_id=subscription_id, lock=True
    )
    assert waiting is not None
    await activate(conn, organization=organization, subscription=waiting, now=now)
    await db.bump(conn, organization_id=organization.id, customer_id=waiting.customer_id)


def test_a_cancellation_in_the_hour_of_grace_bills_both_periods(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """The period that is over has its own allowance; what was used after it is billed by itself, without a base."""
    shop = make_organization(mode="live")
    subscription_id = own_id(ids.SUBSCRIPTION, hold(shop))
    began = wall() + timedelta(minutes=1)
    ends = first_instant(add_months(began.date(), 1), "UTC")
    canceled_at = ends + timedelta(minutes=40)

    async def act() -> list[tuple[str, list[tuple[str, Decimal | None, int]]]]:
        database = Database(database_url, size=4)
        await database.open()
        try:
            async with database.transaction() as conn:
                organization = await organizations.get(conn, organization_id=organization_id(shop))
                assert organization is not None and organization.live
                await begin(conn, organization, subscription_id, began)
            async with database.reading() as conn:
                for happened, value in ((began + timedelta(days=3), 150), (ends + timedelta(minutes=5), 130)):
                    event = UsageEvent("api_calls", "ada", Decimal(value), occurred_at=happened)
                    (outcome,) = await ingest(
                        conn, Books(), organization.id, [Draft(event)], wall=canceled_at
                    )
                    assert isinstance(outcome, Accepted)
            async with database.transaction() as conn:
                held = await subscriptions.get(
                    conn, organization_id=organization.id, subscription_id=subscription_id, lock=True
                )
                assert held is not None
                await cancel(
                    conn,
                    organization=organization,
                    subscription=held,
                    reason=None,
                    immediate=True,
                    now=canceled_at,
                )
            due = ends + timedelta(hours=1)
            for moment in (due - timedelta(seconds=1), due, due, due):
                await close_period(
                    database, organization_id=organization.id, subscription_id=subscription_id, now=moment
                )
            async with database.reading() as conn:
                customer = await customers.find(conn, organization_id=organization.id, reference="ada")
                assert customer is not None
                issued = await invoices.page(
                    conn,
                    organization_id=organization.id,
                    before=None,
                    limit=10,
                    customer_id=customer.id,
                    subscription_id=None,
                    status=None,
                )
                return [
                    (
                        each.period_end.isoformat(),
                        [
                            (line.line_type, line.used, line.amount)
                            for line in await invoices.lines(conn, invoice_id=each.id)
                        ],
                    )
                    for each in reversed(issued)
                ]
        finally:
            await database.close()

    assert asyncio.run(act()) == [
        (ends.isoformat(), [("feature_overage", Decimal(150), 50)]),
        (canceled_at.isoformat(), [("feature_overage", Decimal(130), 30)]),
    ]


def test_a_move_in_the_hour_of_grace_counts_for_the_period_that_has_just_begun(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization(mode="live")
    subscription_id = own_id(ids.SUBSCRIPTION, hold(shop))
    began = wall()
    first, second, third = (first_instant(add_months(began.date(), months), "UTC") for months in (1, 2, 3))

    async def act() -> list[tuple[datetime | None, datetime | None, str]]:
        database = Database(database_url, size=4)
        await database.open()
        seen = []

        async def close(moment: datetime) -> None:
            await close_period(
                database, organization_id=organization_id(shop), subscription_id=subscription_id, now=moment
            )
            async with database.reading() as conn:
                held = await subscriptions.get(
                    conn, organization_id=organization_id(shop), subscription_id=subscription_id
                )
                assert held is not None
                seen.append((held.period_start, held.period_end, held.timezone))

        try:
            async with database.transaction() as conn:
                organization = await organizations.get(conn, organization_id=organization_id(shop))
                assert organization is not None
                await begin(conn, organization, subscription_id, began)
            await close(first + timedelta(minutes=59))
            await asyncio.to_thread(
                shop.http.patch, f"{API}/customers/ada", json={"timezone": "Asia/Kathmandu"}
            )
            await close(first + timedelta(hours=1))
            await close(second + timedelta(hours=1))
        finally:
            await database.close()
        return seen

    ahead = timedelta(hours=5, minutes=45)
    assert asyncio.run(act()) == [
        (began, first, "UTC"),
        (first, second - ahead, "Asia/Kathmandu"),
        (second - ahead, third - ahead, "Asia/Kathmandu"),
    ]


@dataclass
class Life:
    """A live subscription from its first instant on; time is what each act is told."""

    database: Database
    organization_id: UUID
    subscription_id: UUID
    began: datetime

    @property
    def ends(self) -> tuple[datetime, ...]:
        return tuple(first_instant(add_months(self.began.date(), month), "UTC") for month in (1, 2, 3))

    async def use(self, value: int, *, happened: datetime, now: datetime) -> None:
        event = UsageEvent("api_calls", "ada", Decimal(value), occurred_at=happened)
        async with self.database.reading() as conn:
            (outcome,) = await ingest(conn, Books(), self.organization_id, [Draft(event)], wall=now)
        assert isinstance(outcome, Accepted)

    async def close(self, now: datetime) -> bool:
        """Whether something was closed."""
        return (
            await close_period(
                self.database,
                organization_id=self.organization_id,
                subscription_id=self.subscription_id,
                now=now,
            )
            is not None
        )

    async def settle(self, now: datetime) -> int:
        """How many adjustments that made."""
        return len(await settle_due(self.database, wall=now, organization_id=self.organization_id))


@asynccontextmanager
async def lived(database_url: str, shop: Organization, subscription_id: UUID) -> AsyncIterator[Life]:
    database = Database(database_url, size=4)
    await database.open()
    began = wall() + timedelta(minutes=1)
    try:
        async with database.transaction() as conn:
            organization = await organizations.get(conn, organization_id=organization_id(shop))
            assert organization is not None and organization.live
            await begin(conn, organization, subscription_id, began)
        yield Life(database, organization.id, subscription_id, began)
    finally:
        await database.close()


def used(shop: Organization) -> list[tuple[str, list[tuple[str, int]]]]:
    """(type, [(used, cents)]) of each invoice, oldest first."""
    return [
        (each["invoiceType"], [(line["usedDecimal"], line["amount"]) for line in usage_of(each)])
        for each in verified(shop, "ada")
    ]


MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.mark.parametrize("policy", ["next_period", "current_period", "ignore"])
@pytest.mark.parametrize("close_is_held_up", [False, True])
def test_what_comes_within_the_hour_is_on_time_whatever_the_policy(
    make_organization: MakeOrganization, database_url: str, policy: str, close_is_held_up: bool
) -> None:
    """It looks late when it comes; the close counts it and takes the mark away."""
    shop = make_organization(mode="live")
    subscription_id = own_id(ids.SUBSCRIPTION, hold(shop, policy))

    async def act() -> list[Json]:
        async with lived(database_url, shop, subscription_id) as life:
            end = life.ends[0]
            await life.use(150, happened=life.began + 3 * HOUR, now=life.began + 3 * HOUR)
            await life.use(20, happened=end - MINUTE, now=end + 5 * MINUTE)
            await life.use(3, happened=life.began, now=end + 59 * MINUTE)
            await life.use(1000, happened=end, now=end + 59 * MINUTE)  # of the next period
            waiting = await asyncio.to_thread(late_events, shop, "ada")
            assert await life.settle(end + 59 * MINUTE) == 0
            assert not await life.close(end + HOUR - timedelta(microseconds=1))
            held_until = end + (5 * HOUR if close_is_held_up else HOUR)
            if close_is_held_up:  # they have waited long enough, and there is no invoice yet
                assert await life.settle(end + 4 * HOUR) == 0
            assert await life.close(held_until)
            assert await life.settle(end + 6 * HOUR) == 0
            return waiting

    waiting = asyncio.run(act())
    assert [(each["status"], each["decisions"]) for each in waiting] == [("pending", [])] * 2
    assert late_events(shop, "ada") == []
    assert used(shop) == [("recurring", [("173", 73)])]


@pytest.mark.parametrize("policy", ["next_period", "current_period", "ignore"])
def test_what_comes_after_the_hour_is_late(
    make_organization: MakeOrganization, database_url: str, policy: str
) -> None:
    """What is to be billed at once waits an hour for more of its kind."""
    shop = make_organization(mode="live")
    subscription_id = own_id(ids.SUBSCRIPTION, hold(shop, policy))

    async def act() -> list[int]:
        async with lived(database_url, shop, subscription_id) as life:
            first, second, _ = life.ends
            await life.use(150, happened=life.began + HOUR, now=life.began + HOUR)
            assert await life.close(first + HOUR)
            came = first + HOUR + MINUTE
            await life.use(20, happened=first - MINUTE, now=came)
            made = [await life.settle(came + HOUR - timedelta(microseconds=1))]
            await life.use(4, happened=first - HOUR, now=came + 30 * MINUTE)
            made.append(await life.settle(came + HOUR))
            made.append(await life.settle(came + 2 * HOUR))
            assert await life.close(second + HOUR)
            made.append(await life.settle(second + 3 * HOUR))
            return made

    made = asyncio.run(act())
    assert made == ([0, 1, 0, 0] if policy == "current_period" else [0, 0, 0, 0])
    told = used(shop)
    assert told[0] == ("recurring", [("150", 50)])
    assert (
        told[1:]
        == {
            "next_period": [("recurring", [("24", 24)])],
            "current_period": [("adjustment", [("24", 24)]), ("recurring", [])],
            "ignore": [("recurring", [])],
        }[policy]
    )
    outcome = "ignored" if policy == "ignore" else "billed"
    decided = [
        (each["status"], one["rule"], one["outcome"])
        for each in late_events(shop, "ada")
        for one in each["decisions"]
    ]
    assert decided == [("decided", policy, outcome)] * 2
