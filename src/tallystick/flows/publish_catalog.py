"""Publish features, meters, plans, prices and promises. What is published is superseded, never edited.

Each ends by moving the organization's version, so that ingest in every process works from the new catalogue.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from uuid import UUID

from tallystick.core.catalog import Feature, FeatureType, Terms, promised
from tallystick.core.limits import AMOUNT_MINOR_MAX
from tallystick.core.meters import Aggregation, Filter, LatePolicy, Meter
from tallystick.core.pricing import Percentage, PerUnit, Price
from tallystick.core.wallets import Model
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.store import catalog, db, usage
from tallystick.store.catalog import Plan, PlanPrice
from tallystick.store.db import Conn, new_id


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """How a usage feature is measured, as asked for."""

    event_code: str
    aggregation: Aggregation
    property_name: str | None
    filters: tuple[Filter, ...]
    late_policy: LatePolicy


async def feature_by_code(conn: Conn, *, organization_id: UUID, code: str) -> Feature:
    for feature in await catalog.features(conn, organization_id=organization_id):
        if feature.code == code:
            return feature
    raise Problem("feature_not_found", f"There is no feature {code!r}.")


async def newest_meter(conn: Conn, *, organization_id: UUID, feature_id: UUID) -> Meter | None:
    found = [
        meter
        for _, meter in await catalog.meters(conn, organization_id=organization_id)
        if meter.feature_id == feature_id
    ]
    return found[-1] if found else None


async def create_feature(
    conn: Conn, *, organization_id: UUID, feature: Feature, meter: MeterSpec | None, now: datetime
) -> Meter | None:
    if not await catalog.insert_feature(conn, organization_id=organization_id, feature=feature):
        raise Problem("feature_already_exists", f"A feature {feature.code!r} already exists.", param="code")
    if feature.type is not FeatureType.USAGE or meter is None:
        await db.bump(conn, organization_id=organization_id)
        return None
    return await _publish_meter(conn, organization_id, feature, meter, version=1, now=now)


async def change_feature(
    conn: Conn, *, organization_id: UUID, feature: Feature, meter: MeterSpec | None, now: datetime
) -> Meter | None:
    """Rename freely; a meter that differs becomes a new version, counting from each customer's next period."""
    await catalog.update_feature(conn, organization_id=organization_id, feature=feature)
    old = await newest_meter(conn, organization_id=organization_id, feature_id=feature.id)
    if old is None or meter is None or meter == spec_of(old):
        await db.bump(conn, organization_id=organization_id)
        return old
    if meter.aggregation not in (Aggregation.SUM, Aggregation.COUNT) and await _is_prepaid(
        conn, organization_id, feature.id, now
    ):
        raise InvalidRequest(
            FieldError("aggregation", "a prepaid plan has this feature: its meter must be a sum or a count")
        )
    if meter.aggregation is not Aggregation.SUM and await _taken_a_share_of(
        conn, organization_id, feature.id, now
    ):
        raise InvalidRequest(
            FieldError("aggregation", "a plan takes a percentage of this feature: its meter must be a sum")
        )
    return await _publish_meter(conn, organization_id, feature, meter, version=old.version + 1, now=now)


async def _taken_a_share_of(conn: Conn, organization_id: UUID, feature_id: UUID, now: datetime) -> bool:
    """Whether a plan prices the feature by a percentage, now or from a later day on."""
    found = await _promises_of(conn, organization_id, feature_id, now)
    return any(isinstance(each.price, Percentage) for each in found)


async def _is_prepaid(conn: Conn, organization_id: UUID, feature_id: UUID, now: datetime) -> bool:
    """Whether a prepaid plan has the feature, now or from a later day on."""
    prepaid = {each.plan_id for each in await catalog.granting(conn, organization_id=organization_id)}
    found = await _promises_of(conn, organization_id, feature_id, now)
    return any(each.plan_id in prepaid for each in found)


async def _promises_of(conn: Conn, organization_id: UUID, feature_id: UUID, now: datetime) -> list[Terms]:
    """What plans promise of a feature, now or from a later day on."""
    terms = [
        each
        for each in await catalog.terms(conn, organization_id=organization_id)
        if each.feature_id == feature_id
    ]
    ruling = [each for promised in by_plan(terms, now).values() for each in promised]
    return ruling + [each for each in terms if each.valid_from > now and not each.removed]


def spec_of(meter: Meter) -> MeterSpec:
    return MeterSpec(
        meter.event_code, meter.aggregation, meter.property_name, meter.filters, meter.late_policy
    )


async def _publish_meter(
    conn: Conn, organization_id: UUID, feature: Feature, spec: MeterSpec, *, version: int, now: datetime
) -> Meter:
    meter = Meter(
        id=new_id(),
        feature_id=feature.id,
        feature_code=feature.code,
        version=version,
        event_code=spec.event_code,
        aggregation=spec.aggregation,
        property_name=spec.property_name,
        filters=spec.filters,
        late_policy=spec.late_policy,
    )
    await catalog.insert_meter(conn, organization_id=organization_id, meter=meter, valid_from=now)
    await db.bump(conn, organization_id=organization_id)  # from here on ingest waits for this transaction
    # The events that were there before it are folded, so that it can be priced from its first period.
    await usage.backfill(conn, organization_id=organization_id, meter=meter)
    return meter


async def delete_feature(conn: Conn, *, organization_id: UUID, code: str) -> Feature:
    feature = await feature_by_code(conn, organization_id=organization_id, code=code)
    if await catalog.feature_in_use(conn, organization_id=organization_id, feature_id=feature.id):
        raise Problem("feature_in_use", f"A plan or recorded usage refers to {code!r}.")
    await catalog.delete_feature(conn, organization_id=organization_id, feature_id=feature.id)
    await db.bump(conn, organization_id=organization_id)
    return feature


async def create_plan(conn: Conn, *, organization_id: UUID, plan: Plan) -> None:
    if not await catalog.insert_plan(conn, organization_id=organization_id, plan=plan):
        raise Problem("duplicate", f"A plan {plan.code!r} already exists.", param="code")
    await db.bump(conn, organization_id=organization_id)


async def change_plan(conn: Conn, *, organization_id: UUID, plan: Plan) -> None:
    await catalog.update_plan(conn, organization_id=organization_id, plan=plan)
    await db.bump(conn, organization_id=organization_id)


async def set_minimum(
    conn: Conn, *, organization_id: UUID, plan: Plan, amount: Decimal | None, now: datetime
) -> None:
    """The least the plan's usage costs a period; lowered it counts at once, raised from the next period on."""
    if plan.is_free and amount:
        raise InvalidRequest(FieldError("minimumAmount", "a free plan asks nothing"))
    if plan.consumption_model in tuple(Model) and amount:
        raise InvalidRequest(
            FieldError("minimumAmount", "usage of a prepaid plan is paid as it comes, from what is granted")
        )
    await catalog.lock_plan(conn, organization_id=organization_id, plan_id=plan.id)
    await catalog.insert_minimum(
        conn, organization_id=organization_id, plan_id=plan.id, amount=amount or None, valid_from=now
    )
    await db.bump(conn, organization_id=organization_id)


async def find_plan(conn: Conn, *, organization_id: UUID, plan_id: UUID | None, code: str | None) -> Plan:
    """A plan that can still be chosen, by id or code."""
    plan = await catalog.plan(conn, organization_id=organization_id, plan_id=plan_id, code=code)
    if plan is None or await catalog.plan_is_deleted(conn, plan_id=plan.id):
        raise Problem("plan_not_found")
    return plan


async def delete_plan(conn: Conn, *, organization_id: UUID, plan: Plan, now: datetime) -> None:
    """Nobody can choose it any more; who holds it keeps it."""
    await catalog.delete_plan(conn, organization_id=organization_id, plan_id=plan.id, now=now)
    await db.bump(conn, organization_id=organization_id)


async def add_price(conn: Conn, *, organization_id: UUID, plan: Plan, price: PlanPrice) -> PlanPrice:
    """The first price of a plan is its default; a later one takes the default over when it says so."""
    if plan.is_free:
        raise InvalidRequest(FieldError("price", "a free plan has no price"))
    await catalog.lock_plan(conn, organization_id=organization_id, plan_id=plan.id)
    others = await catalog.prices(conn, organization_id=organization_id, plan_ids=[plan.id])
    price = replace(price, is_default=price.is_default or not others)
    if price.is_default:
        await catalog.clear_default_price(conn, organization_id=organization_id, plan_id=plan.id)
    if not await catalog.insert_price(conn, organization_id=organization_id, price=price):
        raise Problem(
            "duplicate", f"The plan already has a {price.billing_interval} price.", param="billingInterval"
        )
    await db.bump(conn, organization_id=organization_id)
    return price


async def change_price(conn: Conn, *, organization_id: UUID, price: PlanPrice) -> None:
    """A new amount reaches its holders at their next renewal, a new grant at their next reset."""
    await catalog.update_price(conn, organization_id=organization_id, price=price)
    await db.bump(conn, organization_id=organization_id)


def check_grants(
    plan_model: str | None, *, included_balance: int | None, included_credits: int | None
) -> None:
    """What a plan or a price may grant beforehand is said by the plan's model."""
    for name, given, model in (
        ("includedBalance", included_balance, Model.BALANCE),
        ("includedCredits", included_credits, Model.CREDITS),
    ):
        if given is None:
            continue
        if plan_model != model:
            raise InvalidRequest(FieldError(name, f"belongs to a {model} plan"))
        if not 0 <= given <= AMOUNT_MINOR_MAX:
            raise InvalidRequest(FieldError(name, f"must be 0 to {AMOUNT_MINOR_MAX}"))


def check_plan_grants(plan: Plan) -> None:
    """The same of a plan: only a free one has no price to say it."""
    check_grants(
        plan.consumption_model,
        included_balance=plan.included_balance,
        included_credits=plan.included_credits,
    )
    for name, given in (
        ("includedBalance", plan.included_balance),
        ("includedCredits", plan.included_credits),
    ):
        if given is not None and not plan.is_free:
            raise InvalidRequest(FieldError(name, "of a plan that is paid for is said by each of its prices"))


async def find_price(conn: Conn, *, organization_id: UUID, plan: Plan, price_id: UUID | None) -> PlanPrice:
    price = (
        None
        if price_id is None
        else await catalog.price(conn, organization_id=organization_id, price_id=price_id)
    )
    if price is None or price.plan_id != plan.id or price.archived_at is not None:
        raise Problem("price_not_found")
    return price


async def make_default(conn: Conn, *, organization_id: UUID, price: PlanPrice) -> PlanPrice:
    await catalog.lock_plan(conn, organization_id=organization_id, plan_id=price.plan_id)
    await catalog.clear_default_price(conn, organization_id=organization_id, plan_id=price.plan_id)
    await catalog.make_price_default(conn, organization_id=organization_id, price_id=price.id)
    return replace(price, is_default=True)


@dataclass(frozen=True, slots=True)
class TermsSpec:
    """What to promise of a feature; None leaves what was promised before."""

    enabled: bool | None = None
    included: Decimal | None = None
    unlimited: bool | None = None
    overage_enabled: bool | None = None
    price: Price | None = None
    price_field: str = "price"  # what the caller calls it
    minimum: Decimal | None = None  # major units a period
    maximum: Decimal | None = None
    credits_per_unit: int | None = None
    pricing_mode: str | None = None
    margin_bps: int | None = None
    valid_from: datetime | None = (
        None  # None: now, where it is better for the customer; else from the next period
    )


async def promise(
    conn: Conn,
    *,
    organization_id: UUID,
    plan: Plan,
    feature: Feature,
    spec: TermsSpec,
    now: datetime,
    new: bool,
) -> Terms:
    """Add a feature to a plan, or change what the plan promises of it: a new version either way."""
    await catalog.lock_plan(conn, organization_id=organization_id, plan_id=plan.id)
    versions = [
        each
        for each in await catalog.terms(conn, organization_id=organization_id, plan_ids=[plan.id])
        if each.feature_id == feature.id
    ]
    begins = spec.valid_from or now
    if begins < now:
        raise InvalidRequest(FieldError("validFrom", "lies in the past"))
    ruling = [each for each in versions if each.valid_from <= begins] or versions
    newest = max(ruling, key=lambda each: (each.valid_from, each.version), default=None)
    current = newest if newest is not None and not newest.removed else None
    if new and current is not None:
        raise Problem("feature_already_exists", f"The plan already has {feature.code!r}.", param="featureId")
    if not new and current is None:
        raise Problem("feature_not_found", f"The plan does not have {feature.code!r}.")
    terms = replace(
        revised(current or nothing_promised(plan.id, feature.id, now), spec),
        id=new_id(),
        version=versions[-1].version + 1 if versions else 1,
        removed=False,
        valid_from=begins,
        pinned=spec.valid_from is not None,
    )
    await check_terms(conn, organization_id, plan, feature, terms, asked=spec)
    if plan.consumption_model == Model.BALANCE and feature.type is FeatureType.USAGE:
        terms = replace(terms, overage_enabled=True)  # every unit is paid: that price, or what tokens cost
    await catalog.insert_terms(conn, organization_id=organization_id, terms=terms)
    await db.bump(conn, organization_id=organization_id)
    return terms


def nothing_promised(plan_id: UUID, feature_id: UUID, now: datetime) -> Terms:
    """What a feature is added to a plan with, where nothing else is said."""
    return Terms(
        id=new_id(),
        plan_id=plan_id,
        feature_id=feature_id,
        version=0,
        enabled=True,
        included=Decimal(0),
        unlimited=False,
        overage_enabled=False,
        price=PerUnit(Decimal(0)),
        valid_from=now,
    )


def revised(terms: Terms, spec: TermsSpec) -> Terms:
    """`terms` with what was asked for, and the rest as it was."""
    return replace(
        terms,
        enabled=terms.enabled if spec.enabled is None else spec.enabled,
        included=terms.included if spec.included is None else spec.included,
        unlimited=terms.unlimited if spec.unlimited is None else spec.unlimited,
        overage_enabled=terms.overage_enabled if spec.overage_enabled is None else spec.overage_enabled,
        price=terms.price if spec.price is None else spec.price,
        minimum=terms.minimum if spec.minimum is None else spec.minimum,
        maximum=terms.maximum if spec.maximum is None else spec.maximum,
        credits_per_unit=(terms.credits_per_unit if spec.credits_per_unit is None else spec.credits_per_unit),
        margin_bps=_margin(terms, spec),
    )


def _margin(terms: Terms, spec: TermsSpec) -> int | None:
    """Set where the units are AI tokens: what is asked for, else nothing on top of their price."""
    mode = spec.pricing_mode or terms.pricing_mode
    asked = spec.margin_bps if spec.margin_bps is not None else terms.margin_bps
    return (asked or 0) if mode == "ai_model" else None


async def check_terms(
    conn: Conn, organization_id: UUID, plan: Plan, feature: Feature, terms: Terms, *, asked: TermsSpec
) -> None:
    """What a plan cannot promise, whatever it promised before."""
    if plan.consumption_model in tuple(Model) and feature.type is FeatureType.USAGE:
        meter = await newest_meter(conn, organization_id=organization_id, feature_id=feature.id)
        _check_prepaid(Model(plan.consumption_model), terms, meter, asked)
        return
    for name, of_prepaid in (
        ("creditsPerUnit", asked.credits_per_unit is not None),
        ("pricingMode", terms.margin_bps is not None),
        ("margin", asked.margin_bps is not None),
    ):
        if of_prepaid:
            raise InvalidRequest(FieldError(name, "belongs to usage of a prepaid plan"))
    if plan.is_free and terms.overage_enabled:
        raise InvalidRequest(
            FieldError(
                asked.price_field if asked.price else "overage.enabled", "a free plan cannot have overage"
            )
        )
    if feature.type is not FeatureType.USAGE:
        for name, given in (
            (asked.price_field, asked.price),
            ("minimumAmount", asked.minimum),
            ("maximumAmount", asked.maximum),
        ):
            if given is not None:
                raise InvalidRequest(FieldError(name, f"a {feature.type} feature is not priced by usage"))
        return
    if (terms.minimum or terms.maximum is not None) and not terms.overage_enabled:
        name = "minimumAmount" if terms.minimum else "maximumAmount"
        raise InvalidRequest(FieldError(name, "needs a price: overage is off"))
    if terms.minimum is not None and terms.maximum is not None and terms.minimum > terms.maximum:
        raise InvalidRequest(FieldError("minimumAmount", "is more than maximumAmount"))
    if isinstance(terms.price, Percentage):
        if terms.included:
            raise InvalidRequest(
                FieldError(
                    "includedAmount", "goes with no percentage; use freeEvents or freeAmount in the price"
                )
            )
        meter = await newest_meter(conn, organization_id=organization_id, feature_id=feature.id)
        if meter is None or meter.aggregation is not Aggregation.SUM:
            raise InvalidRequest(
                FieldError(
                    "price.model", "a percentage is taken of amounts: the feature's meter must be a sum"
                )
            )


def _check_prepaid(model: Model, terms: Terms, meter: Meter | None, asked: TermsSpec) -> None:
    """A prepaid unit costs the same whenever it is used: nothing is included, and nothing depends on what came before."""
    wrong: list[FieldError] = []
    for name, given in (
        ("includedAmount", terms.included),
        ("unlimited", terms.unlimited),
        ("minimumAmount", terms.minimum),
        ("maximumAmount", terms.maximum),
    ):
        if given:
            wrong.append(
                FieldError(name, f"goes with no {model} plan: usage is paid from what the plan grants")
            )
    if model is Model.CREDITS:
        if not terms.credits_per_unit or terms.credits_per_unit < 0:
            wrong.append(FieldError("creditsPerUnit", "must be 1 or more: how many credits a unit burns"))
        if asked.price is not None or asked.overage_enabled:
            wrong.append(FieldError(asked.price_field, "a credits plan asks credits: use creditsPerUnit"))
        if asked.pricing_mode == "ai_model" or asked.margin_bps is not None:
            wrong.append(FieldError("pricingMode", "AI tokens are priced in money: use a balance plan"))
    else:
        if asked.credits_per_unit is not None:
            wrong.append(FieldError("creditsPerUnit", "a balance plan asks money: use overage.unitPrice"))
        if terms.margin_bps is None and asked.margin_bps is not None:
            wrong.append(FieldError("margin", 'goes with pricingMode "ai_model"'))
        if terms.margin_bps is not None and asked.price is not None:
            wrong.append(FieldError(asked.price_field, "tokens cost what their model costs, and the margin"))
        if not isinstance(terms.price, PerUnit):
            wrong.append(FieldError("price.model", "a balance plan prices each unit as it is used: per_unit"))
    if meter is None or not meter.adds_up:
        wrong.append(
            FieldError(
                "featureId",
                "prepaid usage is paid event by event: the feature's meter must be a sum or a count",
            )
        )
    if wrong:
        raise InvalidRequest(*wrong)


async def withdraw(conn: Conn, *, organization_id: UUID, plan: Plan, feature_id: UUID, now: datetime) -> None:
    """End a promise; who holds the plan keeps it until the next period."""
    await catalog.lock_plan(conn, organization_id=organization_id, plan_id=plan.id)
    versions = [
        each
        for each in await catalog.terms(conn, organization_id=organization_id, plan_ids=[plan.id])
        if each.feature_id == feature_id
    ]
    if not versions or versions[-1].removed:
        raise Problem("feature_not_found", "The plan does not have this feature.")
    last = versions[-1]
    await catalog.insert_terms(
        conn,
        organization_id=organization_id,
        terms=replace(last, id=new_id(), version=last.version + 1, removed=True, valid_from=now),
    )
    await db.bump(conn, organization_id=organization_id)


def by_plan(terms: list[Terms], now: datetime) -> dict[UUID, list[Terms]]:
    """The promise per plan and feature that a subscriber of today gets, without those that ended."""
    newest: dict[UUID, list[Terms]] = {}
    for (plan_id, _), each in groupby(terms, key=lambda each: (each.plan_id, each.feature_id)):
        last = promised(list(each), now)
        if last is not None:
            newest.setdefault(plan_id, []).append(last)
    return newest
