"""How plans, their prices and what they promise are shown."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tallystick.api.operations import Call
from tallystick.api.plan_shapes import (
    Overage,
    PlanFeatureItem,
    PlanFeatureOut,
    PlanOut,
    PlanPriceItem,
    PlanPriceOut,
)
from tallystick.api.wire import MISSING
from tallystick.core import ids, price_shapes
from tallystick.core.catalog import Feature, Minimum, Terms
from tallystick.core.money import text, to_rate
from tallystick.core.price_shapes import model_of
from tallystick.core.pricing import unit_amount
from tallystick.core.times import show_instant
from tallystick.flows import publish_catalog
from tallystick.store import catalog
from tallystick.store.catalog import Plan, PlanPrice


def _overage(terms: Terms) -> Overage:
    return Overage(
        enabled=terms.overage_enabled,
        model=model_of(terms.price) if terms.overage_enabled else None,
        unit_price=to_rate(unit_amount(terms.price)),
        unit_price_decimal=text(unit_amount(terms.price)),
    )


def _priced(terms: Terms) -> dict[str, Any]:
    """The price beyond what is included, whole; None where nothing is charged."""
    return {
        "price": price_shapes.to_json(terms.price) if terms.overage_enabled else None,
        "minimum_amount": None if terms.minimum is None else text(terms.minimum),
        "maximum_amount": None if terms.maximum is None else text(terms.maximum),
        "credits_per_unit": terms.credits_per_unit,
        "pricing_mode": terms.pricing_mode,
        "margin": terms.margin_bps,
    }


def show_terms(terms: Terms, *, live: bool) -> PlanFeatureOut:
    overage = _overage(terms)
    overage.model = MISSING
    return PlanFeatureOut(
        plan_id=ids.show(ids.PLAN, terms.plan_id),
        feature_id=ids.show(ids.FEATURE, terms.feature_id),
        enabled=terms.enabled,
        included_amount=int(terms.included),
        included_amount_decimal=text(terms.included),
        unlimited=terms.unlimited,
        overage=overage,
        **_priced(terms),
        version=terms.version,
        valid_from=show_instant(terms.valid_from),
        livemode=live,
    )


def _show_item(feature: Feature, terms: Terms) -> PlanFeatureItem:
    return PlanFeatureItem(
        code=feature.code,
        name=feature.name,
        type=feature.type.value,
        unit_name=feature.unit_name,
        enabled=terms.enabled,
        included_amount=int(terms.included),
        included_amount_decimal=text(terms.included),
        unlimited=terms.unlimited,
        overage=_overage(terms) if feature.type.value == "usage" else None,
        **_priced(terms),
    )


def show_price(price: PlanPrice, *, live: bool) -> PlanPriceOut:
    return PlanPriceOut(
        id=ids.show(ids.PLAN_PRICE, price.id),
        plan_id=ids.show(ids.PLAN, price.plan_id),
        billing_interval=price.billing_interval,
        price=price.amount_minor,
        is_default=price.is_default,
        trial_days=price.trial_days,
        included_balance=price.included_balance,
        included_credits=price.included_credits,
        metadata=price.metadata,
        created_at=show_instant(price.created_at),
        updated_at=show_instant(price.updated_at),
        livemode=live,
    )


async def show_plans(call: Call[Any], plans: list[Plan]) -> list[PlanOut]:
    organization_id = call.organization.id
    plan_ids = [plan.id for plan in plans]
    named = {
        feature.id: feature for feature in await catalog.features(call.conn, organization_id=organization_id)
    }
    promised = publish_catalog.by_plan(
        await catalog.terms(call.conn, organization_id=organization_id, plan_ids=plan_ids), call.now
    )
    minimums = await catalog.minimums(call.conn, organization_id=organization_id)
    prices: dict[UUID, list[PlanPrice]] = {}
    for price in await catalog.prices(call.conn, organization_id=organization_id, plan_ids=plan_ids):
        prices.setdefault(price.plan_id, []).append(price)
    return [
        PlanOut(
            id=ids.show(ids.PLAN, plan.id),
            name=plan.name,
            code=plan.code,
            description=plan.description,
            consumption_model=plan.consumption_model,
            is_public=plan.is_public,
            is_free=plan.is_free,
            block_on_exhaustion=plan.block_on_exhaustion,
            minimum_amount=_minimum(minimums.get(plan.id, ())),
            included_balance=plan.included_balance,
            included_credits=plan.included_credits,
            sort_order=plan.sort_order,
            metadata=plan.metadata,
            created_at=show_instant(plan.created_at),
            updated_at=show_instant(plan.updated_at),
            features=[_show_item(named[terms.feature_id], terms) for terms in promised.get(plan.id, ())],
            prices=[
                PlanPriceItem(
                    id=ids.show(ids.PLAN_PRICE, price.id),
                    billing_interval=price.billing_interval,
                    price=price.amount_minor,
                    is_default=price.is_default,
                    trial_days=price.trial_days,
                    included_balance=price.included_balance,
                    included_credits=price.included_credits,
                    metadata=price.metadata,
                )
                for price in prices.get(plan.id, ())
            ],
            livemode=call.live,
        )
        for plan in plans
    ]


def _minimum(versions: Sequence[Minimum]) -> str | None:
    return text(versions[-1].amount) if versions and versions[-1].amount is not None else None
