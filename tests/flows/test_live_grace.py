"""A live organization has no test clock, so its hour of grace is lived through by handing `now` to the flows."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from tallystick.app import wall
from tallystick.core import ids
from tallystick.core.events import UsageEvent
from tallystick.core.times import add_months, first_instant
from tallystick.flows.books import Books
from tallystick.flows.close_period import close_period
from tallystick.flows.ingest import Accepted, Draft, ingest
from tallystick.flows.subscribe import activate, cancel
from tallystick.store import customers, db, invoices, organizations, subscriptions
from tallystick.store.db import Conn, Database
from tallystick.store.organizations import Organization as LiveOrganization
from tests.audit import organization_id
from tests.conftest import MakeOrganization, Organization
from tests.shop import API, add_customer, add_feature, add_plan, done, overage, own_id


def hold(shop: Organization) -> str:
    add_feature(shop)
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
