"""Features, meters, plans, their prices and what they promise of each feature."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from tallystick.core import price_shapes
from tallystick.core.catalog import Feature, FeatureType, Minimum, Terms
from tallystick.core.meters import Aggregation, Filter, LatePolicy, Meter, Operator
from tallystick.store.db import Conn, rows

_FEATURE = "id, code, name, type, description, unit_name, created_at, updated_at"
_PLAN = (
    "id, code, name, description, consumption_model, is_public, is_free, block_on_exhaustion, "
    "sort_order, metadata, created_at, updated_at, included_balance, included_credits"
)
_PRICE = (
    "id, plan_id, billing_interval, amount_minor, is_default, trial_days, included_balance, "
    "included_credits, metadata, archived_at, created_at, updated_at"
)


@dataclass(frozen=True, slots=True)
class Plan:
    id: UUID
    code: str
    name: str
    description: str | None
    consumption_model: str | None
    is_public: bool
    is_free: bool
    block_on_exhaustion: bool | None
    sort_order: int
    metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    included_balance: int | None = None  # of a free plan, which has no price to name it
    included_credits: int | None = None


@dataclass(frozen=True, slots=True)
class PlanPrice:
    id: UUID
    plan_id: UUID
    billing_interval: str
    amount_minor: int
    is_default: bool
    trial_days: int
    included_balance: int | None
    included_credits: int | None
    metadata: dict[str, Any]
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime


def _feature(found: Any) -> Feature:
    return Feature(found[0], found[1], found[2], FeatureType(found[3]), *found[4:])


async def insert_feature(conn: Conn, *, organization_id: UUID, feature: Feature) -> bool:
    """False when the code is taken."""
    cursor = await conn.execute(
        """INSERT INTO features (id, organization_id, code, name, type, description, unit_name, created_at, updated_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (organization_id, code) DO NOTHING""",
        (
            feature.id,
            organization_id,
            feature.code,
            feature.name,
            feature.type,
            feature.description,
            feature.unit_name,
            feature.created_at,
            feature.updated_at,
        ),
    )
    return cursor.rowcount == 1


async def features(conn: Conn, *, organization_id: UUID) -> list[Feature]:
    found = await rows(
        conn, f"SELECT {_FEATURE} FROM features WHERE organization_id = %s ORDER BY id", (organization_id,)
    )
    return [_feature(each) for each in found]


async def update_feature(conn: Conn, *, organization_id: UUID, feature: Feature) -> None:
    await conn.execute(
        """UPDATE features SET name = %s, description = %s, unit_name = %s, updated_at = %s
            WHERE id = %s AND organization_id = %s""",
        (
            feature.name,
            feature.description,
            feature.unit_name,
            feature.updated_at,
            feature.id,
            organization_id,
        ),
    )


async def feature_in_use(conn: Conn, *, organization_id: UUID, feature_id: UUID) -> bool:
    """Whether any plan ever promised it or any usage was counted for it: history must stay readable."""
    found = await rows(
        conn,
        """SELECT EXISTS (SELECT FROM plan_features WHERE organization_id = %(organization)s AND feature_id = %(feature)s)
               OR EXISTS (SELECT FROM usage_hours u JOIN meters m ON m.id = u.meter_id
                           WHERE m.organization_id = %(organization)s AND m.feature_id = %(feature)s)""",
        {"organization": organization_id, "feature": feature_id},
    )
    return bool(found[0][0])


async def delete_feature(conn: Conn, *, organization_id: UUID, feature_id: UUID) -> None:
    await conn.execute(
        "DELETE FROM features WHERE id = %s AND organization_id = %s", (feature_id, organization_id)
    )


async def insert_meter(conn: Conn, *, organization_id: UUID, meter: Meter, valid_from: datetime) -> None:
    await conn.execute(
        """INSERT INTO meters (id, organization_id, feature_id, version, event_code, aggregation,
                               aggregation_property, filters, late_event_policy, valid_from)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            meter.id,
            organization_id,
            meter.feature_id,
            meter.version,
            meter.event_code,
            meter.aggregation,
            meter.property_name,
            Jsonb([[each.property_name, each.operator, each.value] for each in meter.filters]),
            meter.late_policy,
            valid_from,
        ),
    )


async def meters(conn: Conn, *, organization_id: UUID) -> list[tuple[datetime, Meter]]:
    """Every version of every meter with the moment it became valid, in order of feature and version."""
    found = await rows(
        conn,
        """SELECT m.valid_from, m.id, m.feature_id, f.code, m.version, m.event_code, m.aggregation,
                  m.aggregation_property, m.filters, m.late_event_policy
             FROM meters m JOIN features f ON f.id = m.feature_id
            WHERE m.organization_id = %s ORDER BY m.feature_id, m.version""",
        (organization_id,),
    )
    return [
        (
            each[0],
            Meter(
                each[1],
                each[2],
                each[3],
                each[4],
                each[5],
                Aggregation(each[6]),
                each[7],
                tuple(Filter(name, Operator(operator), value) for name, operator, value in each[8]),
                LatePolicy(each[9]),
            ),
        )
        for each in found
    ]


async def insert_plan(conn: Conn, *, organization_id: UUID, plan: Plan) -> bool:
    """False when the code is taken."""
    cursor = await conn.execute(
        """INSERT INTO plans (id, organization_id, code, name, description, consumption_model, is_public, is_free,
                              block_on_exhaustion, sort_order, metadata, created_at, updated_at,
                              included_balance, included_credits)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (organization_id, code) WHERE deleted_at IS NULL DO NOTHING""",
        (
            plan.id,
            organization_id,
            plan.code,
            plan.name,
            plan.description,
            plan.consumption_model,
            plan.is_public,
            plan.is_free,
            plan.block_on_exhaustion,
            plan.sort_order,
            Jsonb(plan.metadata) if plan.metadata is not None else None,
            plan.created_at,
            plan.updated_at,
            plan.included_balance,
            plan.included_credits,
        ),
    )
    return cursor.rowcount == 1


async def plans(conn: Conn, *, organization_id: UUID, include_private: bool) -> list[Plan]:
    async with conn.cursor(row_factory=class_row(Plan)) as cursor:
        await cursor.execute(
            f"""SELECT {_PLAN} FROM plans
                 WHERE organization_id = %s AND deleted_at IS NULL AND (is_public OR %s)
                 ORDER BY sort_order, id""",
            (organization_id, include_private),
        )
        return await cursor.fetchall()


async def plan(
    conn: Conn, *, organization_id: UUID, plan_id: UUID | None = None, code: str | None = None
) -> Plan | None:
    """By id (deleted ones too: subscriptions go on) or by code."""
    async with conn.cursor(row_factory=class_row(Plan)) as cursor:
        await cursor.execute(
            f"""SELECT {_PLAN} FROM plans WHERE organization_id = %(organization)s
                   AND (id = %(id)s OR (code = %(code)s AND deleted_at IS NULL))""",
            {"organization": organization_id, "id": plan_id, "code": code},
        )
        return await cursor.fetchone()


async def plans_of_ids(conn: Conn, *, organization_id: UUID, plan_ids: set[UUID]) -> dict[UUID, Plan]:
    """Deleted ones too: subscriptions go on."""
    async with conn.cursor(row_factory=class_row(Plan)) as cursor:
        await cursor.execute(
            f"SELECT {_PLAN} FROM plans WHERE organization_id = %s AND id = ANY(%s)",
            (organization_id, list(plan_ids)),
        )
        return {each.id: each for each in await cursor.fetchall()}


async def plan_is_deleted(conn: Conn, *, plan_id: UUID) -> bool:
    found = await rows(conn, "SELECT deleted_at IS NOT NULL FROM plans WHERE id = %s", (plan_id,))
    return bool(found and found[0][0])


async def update_plan(conn: Conn, *, organization_id: UUID, plan: Plan) -> None:
    await conn.execute(
        """UPDATE plans SET name = %s, description = %s, is_public = %s, metadata = %s, updated_at = %s,
                  included_balance = %s, included_credits = %s
            WHERE id = %s AND organization_id = %s""",
        (
            plan.name,
            plan.description,
            plan.is_public,
            Jsonb(plan.metadata) if plan.metadata is not None else None,
            plan.updated_at,
            plan.included_balance,
            plan.included_credits,
            plan.id,
            organization_id,
        ),
    )


async def delete_plan(conn: Conn, *, organization_id: UUID, plan_id: UUID, now: datetime) -> None:
    await conn.execute(
        "UPDATE plans SET deleted_at = %s WHERE id = %s AND organization_id = %s",
        (now, plan_id, organization_id),
    )


async def insert_price(conn: Conn, *, organization_id: UUID, price: PlanPrice) -> bool:
    """False when the plan has a price for that interval already."""
    cursor = await conn.execute(
        """INSERT INTO plan_prices (id, organization_id, plan_id, billing_interval, amount_minor, is_default,
                                    trial_days, included_balance, included_credits, metadata, created_at, updated_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (plan_id, billing_interval) WHERE archived_at IS NULL DO NOTHING""",
        (
            price.id,
            organization_id,
            price.plan_id,
            price.billing_interval,
            price.amount_minor,
            price.is_default,
            price.trial_days,
            price.included_balance,
            price.included_credits,
            Jsonb(price.metadata),
            price.created_at,
            price.updated_at,
        ),
    )
    return cursor.rowcount == 1


async def prices(conn: Conn, *, organization_id: UUID, plan_ids: list[UUID]) -> list[PlanPrice]:
    """Prices that can be chosen, in order of making."""
    async with conn.cursor(row_factory=class_row(PlanPrice)) as cursor:
        await cursor.execute(
            f"""SELECT {_PRICE} FROM plan_prices
                 WHERE organization_id = %s AND plan_id = ANY(%s) AND archived_at IS NULL ORDER BY id""",
            (organization_id, plan_ids),
        )
        return await cursor.fetchall()


async def price(conn: Conn, *, organization_id: UUID, price_id: UUID) -> PlanPrice | None:
    async with conn.cursor(row_factory=class_row(PlanPrice)) as cursor:
        await cursor.execute(
            f"SELECT {_PRICE} FROM plan_prices WHERE id = %s AND organization_id = %s",
            (price_id, organization_id),
        )
        return await cursor.fetchone()


async def prices_of_ids(conn: Conn, *, organization_id: UUID, price_ids: set[UUID]) -> dict[UUID, PlanPrice]:
    """Archived ones too: who holds one keeps it."""
    async with conn.cursor(row_factory=class_row(PlanPrice)) as cursor:
        await cursor.execute(
            f"SELECT {_PRICE} FROM plan_prices WHERE organization_id = %s AND id = ANY(%s)",
            (organization_id, list(price_ids)),
        )
        return {each.id: each for each in await cursor.fetchall()}


async def update_price(conn: Conn, *, organization_id: UUID, price: PlanPrice) -> None:
    await conn.execute(
        """UPDATE plan_prices SET amount_minor = %s, included_balance = %s, included_credits = %s, metadata = %s,
                  updated_at = %s
            WHERE id = %s AND organization_id = %s""",
        (
            price.amount_minor,
            price.included_balance,
            price.included_credits,
            Jsonb(price.metadata),
            price.updated_at,
            price.id,
            organization_id,
        ),
    )


async def clear_default_price(conn: Conn, *, organization_id: UUID, plan_id: UUID) -> None:
    await conn.execute(
        "UPDATE plan_prices SET is_default = false WHERE organization_id = %s AND plan_id = %s AND is_default",
        (organization_id, plan_id),
    )


async def make_price_default(conn: Conn, *, organization_id: UUID, price_id: UUID) -> None:
    await conn.execute(
        "UPDATE plan_prices SET is_default = true WHERE id = %s AND organization_id = %s",
        (price_id, organization_id),
    )


async def archive_price(conn: Conn, *, organization_id: UUID, price_id: UUID, now: datetime) -> None:
    await conn.execute(
        """UPDATE plan_prices SET archived_at = %s, is_default = false
            WHERE id = %s AND organization_id = %s""",
        (now, price_id, organization_id),
    )


async def insert_terms(conn: Conn, *, organization_id: UUID, terms: Terms) -> None:
    await conn.execute(
        """INSERT INTO plan_features (id, organization_id, plan_id, feature_id, version, enabled, included, unlimited,
                                      overage_enabled, price, minimum, maximum, pinned, removed, valid_from,
                                      credits_per_unit, pricing_mode, margin_bps)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            terms.id,
            organization_id,
            terms.plan_id,
            terms.feature_id,
            terms.version,
            terms.enabled,
            terms.included,
            terms.unlimited,
            terms.overage_enabled,
            Jsonb(price_shapes.to_json(terms.price)),
            terms.minimum,
            terms.maximum,
            terms.pinned,
            terms.removed,
            terms.valid_from,
            terms.credits_per_unit,
            terms.pricing_mode,
            terms.margin_bps,
        ),
    )


async def terms(conn: Conn, *, organization_id: UUID, plan_ids: list[UUID] | None = None) -> list[Terms]:
    """Every version of every promise, in order of plan, feature and version."""
    found = await rows(
        conn,
        """SELECT id, plan_id, feature_id, version, enabled, included, unlimited, overage_enabled, price,
                  valid_from, removed, minimum, maximum, pinned, credits_per_unit, margin_bps
             FROM plan_features
            WHERE organization_id = %(organization)s AND (%(plans)s::uuid[] IS NULL OR plan_id = ANY(%(plans)s))
            ORDER BY plan_id, feature_id, version""",
        {"organization": organization_id, "plans": plan_ids},
    )
    return [
        Terms(
            id=each[0],
            plan_id=each[1],
            feature_id=each[2],
            version=each[3],
            enabled=each[4],
            included=each[5],
            unlimited=each[6],
            overage_enabled=each[7],
            price=price_shapes.from_json(each[8]),
            valid_from=each[9],
            removed=each[10],
            minimum=each[11],
            maximum=each[12],
            pinned=each[13],
            credits_per_unit=each[14],
            margin_bps=each[15],
        )
        for each in found
    ]


async def insert_minimum(
    conn: Conn, *, organization_id: UUID, plan_id: UUID, amount: Decimal | None, valid_from: datetime
) -> None:
    """A new version; the caller holds the plan."""
    await conn.execute(
        """INSERT INTO plan_minimums (plan_id, version, organization_id, amount, valid_from)
           SELECT %(plan)s, count(*) + 1, %(organization)s, %(amount)s, %(from)s FROM plan_minimums WHERE plan_id = %(plan)s""",
        {"plan": plan_id, "organization": organization_id, "amount": amount, "from": valid_from},
    )


async def minimums(conn: Conn, *, organization_id: UUID) -> dict[UUID, tuple[Minimum, ...]]:
    """By plan, every version in order."""
    found: dict[UUID, tuple[Minimum, ...]] = {}
    for plan_id, valid_from, amount in await rows(
        conn,
        "SELECT plan_id, valid_from, amount FROM plan_minimums WHERE organization_id = %s ORDER BY plan_id, version",
        (organization_id,),
    ):
        found[plan_id] = (*found.get(plan_id, ()), Minimum(valid_from, amount))
    return found


class Granting(NamedTuple):
    """A prepaid plan with one of its prices, or a free one with none."""

    plan_id: UUID
    model: str
    is_free: bool
    blocks: bool
    price_id: UUID | None
    billing_interval: str | None
    amount_minor: int
    included_balance: int | None
    included_credits: int | None


async def granting(conn: Conn, *, organization_id: UUID) -> list[Granting]:
    """Prepaid plans by each price, archived ones too: who holds one keeps it."""
    found = await rows(
        conn,
        """SELECT p.id, p.consumption_model, p.is_free, coalesce(p.block_on_exhaustion, false), r.id, r.billing_interval,
                  coalesce(r.amount_minor, 0), coalesce(r.included_balance, p.included_balance),
                  coalesce(r.included_credits, p.included_credits)
             FROM plans p LEFT JOIN plan_prices r ON r.plan_id = p.id
            WHERE p.organization_id = %s AND p.consumption_model IN ('credits', 'balance')""",
        (organization_id,),
    )
    return [Granting(*each) for each in found]


async def lock_plan(conn: Conn, *, organization_id: UUID, plan_id: UUID) -> None:
    """Changes of one plan's promises happen one after the other."""
    await conn.execute(
        "SELECT FROM plans WHERE id = %s AND organization_id = %s FOR NO KEY UPDATE",
        (plan_id, organization_id),
    )
