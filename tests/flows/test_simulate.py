"""Simulations in the hour of grace, when periods that are over or have begun still wait for a close."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tallystick.api import wire
from tallystick.api.simulations import Simulate, SimulatedCustomer, wish_of
from tallystick.core import ids
from tallystick.flows import subscribe
from tallystick.flows.simulate import simulate
from tallystick.store import organizations, subscriptions
from tallystick.store.simulations import Simulation
from tests.conftest import MakeOrganization
from tests.flows.test_live_grace import HOUR, MINUTE, Life, hold, lived
from tests.shop import add_plan, overage, own_id

DEARER = {
    "planFeatures": [{"planCode": "pro", "featureCode": "api_calls", "price": {"model": "per_unit", "unitAmount": "0.03"}}]
}  # fmt: skip


async def asked(life: Life, now: datetime, **what: Any) -> tuple[int, int, int, int, int]:
    """(periods, of them open, old, new, new base) of the one customer there is; the report is undone."""
    async with life.database.transaction(snapshot=True) as conn:
        organization = await organizations.get(conn, organization_id=life.organization_id)
        assert organization is not None
        body = {"start": life.began.isoformat(), "end": now.isoformat(), **what}
        made = await simulate(
            conn, organization=organization, wish=wish_of(wire.read(body, Simulate), organization), now=now
        )
        (told,) = customers_of(made)
        await conn.execute("DELETE FROM simulations WHERE id = %s", (made.id,))
    base = told["base"]["newAmount"] if told["base"] else 0
    return told["periods"], told["openPeriods"], told["oldAmount"], told["newAmount"], base


def customers_of(made: Simulation) -> Sequence[dict[str, Any]]:
    assert made.customers is not None
    for each in made.customers:
        wire.read(each, SimulatedCustomer)
    return made.customers


async def pay_first(life: Life) -> None:
    """The base of the first period, as the checkout would have charged it."""
    async with life.database.transaction() as conn:
        organization = await organizations.get(conn, organization_id=life.organization_id)
        held = await subscriptions.get(
            conn, organization_id=life.organization_id, subscription_id=life.subscription_id
        )
        assert organization is not None and held is not None
        await subscribe.first_invoice(conn, organization=organization, subscription=held, now=life.began)


def test_a_period_that_has_begun_is_looked_at_while_the_one_before_waits_out_its_grace(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """And so is the base it begins with, though no invoice says it yet; the close changes nothing of that."""
    shop = make_organization(mode="live")
    subscription_id = own_id(ids.SUBSCRIPTION, hold(shop))
    add_plan(shop, "team", price=100, promises={"api_calls": overage("0.05")})

    async def act() -> list[tuple[int, ...]]:
        async with lived(database_url, shop, subscription_id) as life:
            await pay_first(life)
            end, now = life.ends[0], life.ends[0] + 40 * MINUTE
            await life.use(150, happened=end - HOUR, now=now)
            await life.use(130, happened=end + MINUTE, now=now)
            told: list[tuple[int, ...]] = []
            for moment in (end - MINUTE, end, now):
                told.append(await asked(life, moment, **DEARER))
                told.append(await asked(life, moment, planCode="team"))
            assert await life.close(end + HOUR)
            told.append(await asked(life, end + HOUR, **DEARER))
            told.append(await asked(life, end + HOUR, planCode="team"))
            return told

    one, both = (1, 1, 50, 150, 0), (2, 2, 80, 240, 0)
    one_base, both_bases = (1, 1, 2950, 850, 100), (2, 2, 5880, 1600, 200)
    assert (
        asyncio.run(act())
        == [
            *(one, one_base),
            *(one, one_base),  # the next begins here, and nothing of it lies before
            *(both, both_bases),
            *((2, 1, *both[2:]), (2, 1, *both_bases[2:])),
        ]
    )


def test_the_rest_of_a_subscription_that_was_canceled_in_its_grace_has_no_base_on_either_side(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization(mode="live")
    subscription_id = own_id(ids.SUBSCRIPTION, hold(shop))
    add_plan(shop, "team", price=100, promises={"api_calls": overage("0.05")})

    async def act() -> list[tuple[int, ...]]:
        async with lived(database_url, shop, subscription_id) as life:
            await pay_first(life)
            end, canceled = life.ends[0], life.ends[0] + 40 * MINUTE
            await life.use(150, happened=end - HOUR, now=canceled)
            await life.use(130, happened=end + MINUTE, now=canceled)
            async with life.database.transaction() as conn:
                organization = await organizations.get(conn, organization_id=life.organization_id)
                held = await subscriptions.get(
                    conn, organization_id=life.organization_id, subscription_id=subscription_id, lock=True
                )
                assert organization is not None and held is not None
                await subscribe.cancel(
                    conn,
                    organization=organization,
                    subscription=held,
                    reason=None,
                    immediate=True,
                    now=canceled,
                )
            told: list[tuple[int, ...]] = [await asked(life, canceled + MINUTE, planCode="team")]
            while await life.close(end + HOUR):
                told.append(await asked(life, end + HOUR, planCode="team"))
            return told

    amounts = (2900 + 50 + 30, 100 + 5 * 150 + 5 * 130, 100)
    assert asyncio.run(act()) == [(2, 2, *amounts), (2, 1, *amounts), (2, 0, *amounts)]
