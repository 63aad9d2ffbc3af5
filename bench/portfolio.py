"""A month of a business, through the flows of the server: what lies in the tables when the periods end."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from psycopg import AsyncConnection

from tallystick.core import price_shapes
from tallystick.core.catalog import Feature, FeatureType
from tallystick.core.events import NO_PROPERTIES, UsageEvent
from tallystick.core.meters import Aggregation, LatePolicy
from tallystick.flows.books import Books
from tallystick.flows.drafts import Accepted, Draft
from tallystick.flows.ingest import ingest
from tallystick.flows.open_organization import open_organization
from tallystick.flows.publish_catalog import (
    MeterSpec,
    TermsSpec,
    add_price,
    create_feature,
    create_plan,
    promise,
)
from tallystick.flows.subscribe import Wish, activate, subscribe
from tallystick.store import customers, db
from tallystick.store.catalog import Plan, PlanPrice
from tallystick.store.customers import Customer
from tallystick.store.db import INGEST_CONNECTION, Conn, Database, new_id, new_ids
from tallystick.store.organizations import Organization
from tallystick.store.subscriptions import Subscription

MIDNIGHT: Final = datetime(2026, 1, 1, tzinfo=UTC)
MORNING: Final = MIDNIGHT + timedelta(hours=9, minutes=30)
NIGHT: Final = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)
CLOSES_AT: Final = datetime(2026, 2, 1, tzinfo=UTC)

EVENTS_PER_COMMIT: Final = 2_000
LANES: Final = 2  # while PostgreSQL stores one batch the next is decided, as in the server

_TIERS: Final = [{"upTo": "100", "unitAmount": "0.05"}, {"upTo": None, "unitAmount": "0.02"}]
PRICES: Final[tuple[dict[str, object], ...]] = (
    {"model": "per_unit", "unitAmount": "0.0137"},
    {"model": "graduated", "tiers": _TIERS},
    {"model": "package", "packageSize": "10", "packageAmount": "0.4"},
    {"model": "volume", "tiers": _TIERS},
)
_PROPERTIES: Final = tuple({"region": f"region_{number}", "path": "/v1/things"} for number in range(8))
PERCENTAGE: Final[dict[str, object]] = {"model": "percentage", "basisPoints": "290", "fixedAmount": "0.3"}


@dataclass(frozen=True, slots=True)
class Size:
    subscriptions: int
    features: int
    events_per_feature: int
    percentage: bool
    keyed: bool = False  # each event has a key and two properties, as most senders' have

    @property
    def events(self) -> int:
        return self.subscriptions * self.features * self.events_per_feature

    @property
    def lines(self) -> int:
        """One for each feature, and the next month's base."""
        return self.subscriptions * (self.features + 1)


async def subscribe_everybody(database: Database, size: Size) -> UUID:
    """One organization, one plan. Half began at midnight, as every later period does, and half in the morning:
    the ragged hour of these is read from the events."""
    async with database.transaction() as conn:
        organization, _ = await open_organization(
            conn, name="Bench", mode="sandbox", timezone="UTC", clock=None, wall=MIDNIGHT
        )
        plan = await _publish(conn, organization, size)
        for first, began in enumerate((MIDNIGHT, MORNING)[: size.subscriptions]):
            subscription = await _subscribe(conn, organization, plan, customer_name(first), began)
            await _copy(
                conn, subscription, [customer_name(n) for n in range(first + 2, size.subscriptions, 2)]
            )
        await db.bump(conn, organization_id=organization.id)
    return organization.id


async def use_everything(
    conninfo: str, organization_id: UUID, size: Size, stored: Callable[[int], None]
) -> None:
    """Every event in the order of a busy month, customers in turn, taken in as the server takes it."""
    books, batches = Books(), _batches(size)

    async def lane() -> None:
        async with await AsyncConnection.connect(conninfo, **INGEST_CONNECTION) as conn:
            for now, drafts in batches:
                outcomes = await ingest(conn, books, organization_id, drafts, wall=now)
                refused = [each for each in outcomes if not isinstance(each, Accepted)]
                if refused:
                    raise refused[0]
                stored(len(drafts))

    async with asyncio.TaskGroup() as group:
        for _ in range(LANES):
            group.create_task(lane())


def customer_name(number: int) -> str:
    return f"bench_{number:05d}"


def _feature_code(number: int) -> str:
    return f"feature_{number}"


def _batches(size: Size) -> Iterator[tuple[datetime, list[Draft]]]:
    """Rounds: in each, every customer uses every feature once, somewhen within it."""
    each_lasts = (NIGHT - MORNING) / size.events_per_feature
    pairs = [
        (customer, feature) for customer in range(size.subscriptions) for feature in range(size.features)
    ]
    for turn in range(size.events_per_feature):
        begins = MORNING + turn * each_lasts
        for start in range(0, len(pairs), EVENTS_PER_COMMIT):
            yield (
                begins + each_lasts,
                [
                    Draft(
                        UsageEvent(
                            _feature_code(feature),
                            customer_name(customer),
                            Decimal(1 + (customer + feature + turn) % 9),
                            key=f"request_{turn}_{customer}_{feature}" if size.keyed else None,
                            occurred_at=begins + each_lasts * ((customer * 31 + feature * 7) % 101) / 101,
                            properties=_PROPERTIES[turn % len(_PROPERTIES)] if size.keyed else NO_PROPERTIES,
                        )
                    )
                    for customer, feature in pairs[start : start + EVENTS_PER_COMMIT]
                ],
            )


async def _publish(conn: Conn, organization: Organization, size: Size) -> Plan:
    mix = (*PRICES, PERCENTAGE) if size.percentage else PRICES
    plan = Plan(
        id=new_id(),
        code="bench",
        name="Bench",
        description=None,
        consumption_model="metered",
        is_public=True,
        is_free=False,
        block_on_exhaustion=None,
        sort_order=0,
        metadata=None,
        created_at=MIDNIGHT,
        updated_at=MIDNIGHT,
    )
    price = PlanPrice(
        id=new_id(),
        plan_id=plan.id,
        billing_interval="monthly",
        amount_minor=2_900,
        is_default=True,
        trial_days=0,
        included_balance=None,
        included_credits=None,
        metadata={},
        archived_at=None,
        created_at=MIDNIGHT,
        updated_at=MIDNIGHT,
    )
    await create_plan(conn, organization_id=organization.id, plan=plan)
    await add_price(conn, organization_id=organization.id, plan=plan, price=price)
    for number in range(size.features):
        code = _feature_code(number)
        feature = Feature(new_id(), code, code, FeatureType.USAGE, None, "units", MIDNIGHT, MIDNIGHT)
        meter = MeterSpec(code, Aggregation.SUM, None, (), LatePolicy.NEXT_PERIOD)
        terms = TermsSpec(overage_enabled=True, price=price_shapes.parse(mix[number % len(mix)]))
        await create_feature(
            conn, organization_id=organization.id, feature=feature, meter=meter, now=MIDNIGHT
        )
        await promise(
            conn,
            organization_id=organization.id,
            plan=plan,
            feature=feature,
            spec=terms,
            now=MIDNIGHT,
            new=True,
        )
    return plan


async def _subscribe(
    conn: Conn, organization: Organization, plan: Plan, name: str, now: datetime
) -> Subscription:
    customer = Customer(
        id=new_id(),
        external_id=name,
        email=f"{name}@example.com",
        full_name=None,
        tax_document=None,
        timezone=None,
        address=None,
        metadata=None,
        created_at=now,
        updated_at=now,
    )
    await customers.insert(conn, organization_id=organization.id, customer=customer)
    held, _ = await subscribe(
        conn, organization=organization, customer=customer, wish=Wish(plan.id, None), now=now
    )
    return await activate(conn, organization=organization, subscription=held, now=now)


async def _copy(conn: Conn, first: Subscription, names: list[str]) -> None:
    """The same rows under other names: whatever activation leaves, they have it too."""
    given = {
        "customer": first.customer_id,
        "subscription": first.id,
        "names": names,
        "customers": new_ids(len(names)),
        "subscriptions": new_ids(len(names)),
    }
    await conn.execute(
        """INSERT INTO customers
           SELECT made.* FROM unnest(%(names)s::text[], %(customers)s::uuid[]) AS t (name, id)
             JOIN customers c ON c.id = %(customer)s
            CROSS JOIN LATERAL jsonb_populate_record(c, jsonb_build_object(
                  'id', t.id, 'external_id', name, 'email', name || '@example.com')) AS made""",
        given,
    )
    await conn.execute(
        """INSERT INTO subscriptions
           SELECT made.* FROM unnest(%(customers)s::uuid[], %(subscriptions)s::uuid[]) AS t (customer, id)
             JOIN subscriptions s ON s.id = %(subscription)s
            CROSS JOIN LATERAL jsonb_populate_record(s, jsonb_build_object(
                  'id', t.id, 'customer_id', customer, 'checkout_token', t.id)) AS made""",
        given,
    )
