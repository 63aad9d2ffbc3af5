"""Plans, their prices and what they promise (behaviour.md §4)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from tallystick.api import features, wire
from tallystick.api.features import Deleted
from tallystick.api.operations import Call, Operation, Page, Reply, whole
from tallystick.api.plan_shapes import (
    AddPlanFeature,
    AddPrice,
    CreatePlan,
    Overage,
    OverageIn,
    PlanFeatureItem,
    PlanFeatureOut,
    PlanOut,
    PlanPriceItem,
    PlanPriceOut,
    RemovedPlanFeature,
    SetVisibility,
    UpdatePlan,
    UpdatePlanFeature,
    UpdatePrice,
)
from tallystick.api.wire import MISSING
from tallystick.core import ids, limits, price_shapes
from tallystick.core.catalog import Feature, Minimum, Terms
from tallystick.core.meters import number
from tallystick.core.money import fits, from_rate, text, to_rate
from tallystick.core.price_shapes import model_of
from tallystick.core.pricing import PerUnit, Price, unit_amount
from tallystick.core.times import parse_instant, show_instant
from tallystick.errors import FieldError, InvalidRequest
from tallystick.flows import publish_catalog
from tallystick.flows.publish_catalog import TermsSpec
from tallystick.store import catalog
from tallystick.store.catalog import Plan, PlanPrice
from tallystick.store.db import new_id


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


def _show_terms(terms: Terms, *, live: bool) -> PlanFeatureOut:
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


def _show_price(price: PlanPrice, *, live: bool) -> PlanPriceOut:
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


async def _show(call: Call[Any], plans: list[Plan]) -> list[PlanOut]:
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


async def _find(call: Call[Any]) -> Plan:
    """By public id or by code."""
    given = call.path["id"]
    identity = ids.read(ids.PLAN, given) or ids.read("plan", given)
    return await publish_catalog.find_plan(
        call.conn, organization_id=call.organization.id, plan_id=identity, code=given
    )


async def _answer(call: Call[Any], plan: Plan, status: int = 200) -> Reply:
    return Reply((await _show(call, [plan]))[0], status)


async def create(call: Call[CreatePlan]) -> Reply:
    body = call.body
    if body.plan_group_id is not None:
        raise InvalidRequest(FieldError("planGroupId", "plan groups are not offered by this server yet"))
    wire.bounded_metadata(body.metadata)
    plan = Plan(
        id=new_id(),
        code=body.code,
        name=body.name,
        description=body.description,
        consumption_model=body.consumption_model or "metered",
        is_public=body.is_public,
        is_free=body.is_free,
        block_on_exhaustion=body.block_on_exhaustion,
        sort_order=0,
        metadata=body.metadata,
        created_at=call.now,
        updated_at=call.now,
        included_balance=body.included_balance,
        included_credits=body.included_credits,
    )
    publish_catalog.check_plan_grants(plan)
    minimum = _amount("minimumAmount", body.minimum_amount)
    await publish_catalog.create_plan(call.conn, organization_id=call.organization.id, plan=plan)
    if minimum is not None:
        await _set_minimum(call, plan, minimum)
    return await _answer(call, plan, 201)


async def get(call: Call[None]) -> Reply:
    return await _answer(call, await _find(call))


async def list_all(call: Call[None]) -> Reply:
    found = await catalog.plans(
        call.conn, organization_id=call.organization.id, include_private=call.flag("includePrivate")
    )
    return Reply(whole(await _show(call, found)))


async def update(call: Call[UpdatePlan]) -> Reply:
    wire.bounded_metadata(call.body.metadata)
    plan = await _find(call)
    changes = {
        name: value
        for name in ("name", "description", "metadata", "is_public", "included_balance", "included_credits")
        if (value := getattr(call.body, name)) is not MISSING
    }
    plan = replace(plan, **changes, updated_at=call.now)
    publish_catalog.check_plan_grants(plan)
    await publish_catalog.change_plan(call.conn, organization_id=call.organization.id, plan=plan)
    if call.body.minimum_amount is not MISSING:
        await _set_minimum(call, plan, _amount("minimumAmount", call.body.minimum_amount))
    return await _answer(call, plan)


async def _set_minimum(call: Call[Any], plan: Plan, amount: Decimal | None) -> None:
    await publish_catalog.set_minimum(
        call.conn, organization_id=call.organization.id, plan=plan, amount=amount, now=call.now
    )


async def set_visibility(call: Call[SetVisibility]) -> Reply:
    plan = replace(await _find(call), is_public=call.body.is_public, updated_at=call.now)
    await catalog.update_plan(call.conn, organization_id=call.organization.id, plan=plan)
    return await _answer(call, plan)


async def delete(call: Call[None]) -> Reply:
    plan = await _find(call)
    await publish_catalog.delete_plan(
        call.conn, organization_id=call.organization.id, plan=plan, now=call.now
    )
    return Reply(Deleted(id=ids.show(ids.PLAN, plan.id), object="plan", livemode=call.live))


async def add_price(call: Call[AddPrice]) -> Reply:
    body = call.body
    for name, given in (
        ("trialDays", body.trial_days),
        ("marketPrices", body.market_prices),
        ("inheritsFromPriceId", body.inherits_from_price_id),
    ):
        if given:
            raise InvalidRequest(FieldError(name, "is not offered by this server yet"))
    wire.bounded_metadata(body.metadata)
    plan = await _find(call)
    publish_catalog.check_grants(
        plan.consumption_model,
        included_balance=body.included_balance,
        included_credits=body.included_credits,
    )
    price = await publish_catalog.add_price(
        call.conn,
        organization_id=call.organization.id,
        plan=plan,
        price=PlanPrice(
            id=new_id(),
            plan_id=plan.id,
            billing_interval=body.billing_interval,
            amount_minor=body.price,
            is_default=body.is_default,
            trial_days=0,
            included_balance=body.included_balance,
            included_credits=body.included_credits,
            metadata=body.metadata or {},
            archived_at=None,
            created_at=call.now,
            updated_at=call.now,
        ),
    )
    return Reply(_show_price(price, live=call.live), 201)


async def _find_price(call: Call[Any]) -> PlanPrice:
    return await publish_catalog.find_price(
        call.conn,
        organization_id=call.organization.id,
        plan=await _find(call),
        price_id=ids.read(ids.PLAN_PRICE, call.path["priceId"]),
    )


async def update_price(call: Call[UpdatePrice]) -> Reply:
    """A new amount reaches those who hold the price at their next renewal. Metadata merges by key."""
    price = await _find_price(call)
    body = call.body
    if isinstance(body.trial_days, int) and body.trial_days:
        raise InvalidRequest(FieldError("trialDays", "is not offered by this server yet"))
    if isinstance(body.price, int):
        price = replace(price, amount_minor=body.price)
    if isinstance(body.metadata, dict):
        price = replace(price, metadata={**price.metadata, **body.metadata})
        wire.bounded_metadata(price.metadata)
    grants = {
        name: value
        for name in ("included_balance", "included_credits")
        if (value := getattr(body, name)) is not MISSING
    }
    if grants:
        price = replace(price, **grants)
        publish_catalog.check_grants(
            (await _find(call)).consumption_model,
            included_balance=price.included_balance,
            included_credits=price.included_credits,
        )
    price = replace(price, updated_at=call.now)
    await publish_catalog.change_price(call.conn, organization_id=call.organization.id, price=price)
    if body.is_default is True:
        price = await publish_catalog.make_default(
            call.conn, organization_id=call.organization.id, price=price
        )
    return Reply(_show_price(price, live=call.live))


async def make_default(call: Call[None]) -> Reply:
    price = await publish_catalog.make_default(
        call.conn, organization_id=call.organization.id, price=await _find_price(call)
    )
    return Reply(_show_price(price, live=call.live))


async def delete_price(call: Call[None]) -> Reply:
    """Nobody can choose it any more; who holds it keeps it."""
    price = await _find_price(call)
    await catalog.archive_price(
        call.conn, organization_id=call.organization.id, price_id=price.id, now=call.now
    )
    return Reply(Deleted(id=ids.show(ids.PLAN_PRICE, price.id), object="plan_price", livemode=call.live))


def terms_spec(body: AddPlanFeature | UpdatePlanFeature) -> TermsSpec:
    overage = body.overage or OverageIn()
    if body.included_amount is not None and not (fits(body.included_amount) and body.included_amount >= 0):
        raise InvalidRequest(FieldError("includedAmount", "must be 0 or more, with at most 20 and 12 digits"))
    exact = None
    if overage.unit_price_decimal is not None:
        exact = number(overage.unit_price_decimal)
        if exact is None or exact < 0 or overage.unit_price_decimal != overage.unit_price_decimal.strip():
            raise InvalidRequest(
                FieldError("overage.unitPriceDecimal", "must be an amount in major units such as 0.0007")
            )
    rate = overage.unit_price if overage.unit_price is not None else body.overage_unit_price
    if exact is not None and rate is not None and from_rate(rate) != exact:
        raise InvalidRequest(FieldError("overage.unitPrice", "disagrees with overage.unitPriceDecimal"))
    if exact is None and rate is not None:
        exact = from_rate(rate)
    charges = overage.enabled if overage.enabled is not None else body.overage_enabled
    price: Price | None = None if exact is None else PerUnit(exact)
    if body.price is not None:
        if exact is not None:
            raise InvalidRequest(
                FieldError("overage.unitPrice", "and price say the same thing twice: send one")
            )
        if charges is False:
            raise InvalidRequest(FieldError("overage.enabled", "is false, yet there is a price"))
        price, charges = price_shapes.parse(body.price), True
    return TermsSpec(
        enabled=body.enabled,
        included=body.included_amount,
        unlimited=body.unlimited,
        overage_enabled=charges,
        price=price,
        price_field="overage.unitPrice" if body.price is None else "price",
        minimum=_amount("minimumAmount", body.minimum_amount),
        maximum=_amount("maximumAmount", body.maximum_amount),
        credits_per_unit=body.credits_per_unit,
        pricing_mode=body.pricing_mode,
        margin_bps=_margin(body.margin),
        valid_from=_instant("validFrom", body.valid_from),
    )


def _margin(given: int | None) -> int | None:
    if given is not None and not 0 <= given <= limits.MARGIN_BPS_MAX:
        raise InvalidRequest(FieldError("margin", f"must be 0 to {limits.MARGIN_BPS_MAX} basis points"))
    return given


def _amount(name: str, given: Any) -> Decimal | None:
    if given is None:
        return None
    amount = price_shapes.decimal_of(given)
    if amount is None:
        raise InvalidRequest(FieldError(name, 'must be an amount in major units, such as "50"'))
    return amount


def _instant(name: str, given: str | None) -> datetime | None:
    if given is None:
        return None
    at = parse_instant(given)
    if at is None:
        raise InvalidRequest(FieldError(name, "must be an ISO 8601 date and time"))
    return at


async def add_feature(call: Call[AddPlanFeature]) -> Reply:
    body = call.body
    return await _promise(call, await features.by_id(call, body.feature_id), new=True)


async def update_feature(call: Call[UpdatePlanFeature]) -> Reply:
    """A new version: what is better for the customer counts now, what is worse from the next period."""
    return await _promise(call, await features.by_id(call, call.path["featureId"]), new=False)


async def _promise(call: Call[Any], feature: Feature, *, new: bool) -> Reply:
    terms = await publish_catalog.promise(
        call.conn,
        organization_id=call.organization.id,
        plan=await _find(call),
        feature=feature,
        spec=terms_spec(call.body),
        now=call.now,
        new=new,
    )
    return Reply(_show_terms(terms, live=call.live), 201 if new else 200)


async def remove_feature(call: Call[None]) -> Reply:
    feature = await features.by_id(call, call.path["featureId"])
    await publish_catalog.withdraw(
        call.conn,
        organization_id=call.organization.id,
        plan=await _find(call),
        feature_id=feature.id,
        now=call.now,
    )
    return Reply(RemovedPlanFeature(id=ids.show(ids.FEATURE, feature.id), livemode=call.live))


def _plan(
    name: str, method: str, path: str, summary: str, handler: Any, returns: Any, **more: Any
) -> Operation:
    return Operation(
        name=f"plans.{name}",
        method=method,
        path=path,
        summary=summary,
        resource="plan",
        handler=handler,
        returns=returns,
        errors=more.pop("errors", ("plan_not_found",)),
        **more,
    )


OPERATIONS = (
    _plan(
        "create",
        "POST",
        "/plans",
        "Create a plan",
        create,
        PlanOut,
        body=CreatePlan,
        status=201,
        also=(("POST", "/plans/manage"),),
        errors=("duplicate",),
    ),
    _plan(
        "list",
        "GET",
        "/plans",
        "List public plans, or all with includePrivate",
        list_all,
        Page[PlanOut],
        query=("includePrivate",),
        errors=(),
    ),
    _plan("get", "GET", "/plans/{id}", "Get a plan by id or code", get, PlanOut),
    _plan(
        "update",
        "PATCH",
        "/plans/{id}",
        "Change a plan's name, description, metadata or visibility",
        update,
        PlanOut,
        body=UpdatePlan,
        also=(("PUT", "/plans/{id}/manage"),),
    ),
    _plan(
        "delete",
        "DELETE",
        "/plans/{id}",
        "Stop offering a plan; who holds it keeps it",
        delete,
        Deleted,
        also=(("DELETE", "/plans/{id}/manage"),),
    ),
    _plan(
        "setVisibility",
        "PUT",
        "/plans/{id}/visibility",
        "Show or hide a plan",
        set_visibility,
        PlanOut,
        body=SetVisibility,
    ),
    _plan(
        "addPrice",
        "POST",
        "/plans/{id}/prices",
        "Add a base price for an interval",
        add_price,
        PlanPriceOut,
        body=AddPrice,
        status=201,
        errors=("plan_not_found", "duplicate"),
    ),
    _plan(
        "updatePrice",
        "PATCH",
        "/plans/{id}/prices/{priceId}",
        "Change a base price from the next renewal on",
        update_price,
        PlanPriceOut,
        body=UpdatePrice,
        also=(("PUT", "/plans/{id}/prices/{priceId}"),),
        errors=("plan_not_found", "price_not_found"),
    ),
    _plan(
        "deletePrice",
        "DELETE",
        "/plans/{id}/prices/{priceId}",
        "Stop offering a price; who holds it keeps it",
        delete_price,
        Deleted,
        errors=("plan_not_found", "price_not_found"),
    ),
    _plan(
        "setDefaultPrice",
        "PUT",
        "/plans/{id}/prices/{priceId}/default",
        "Make a price the default",
        make_default,
        PlanPriceOut,
        errors=("plan_not_found", "price_not_found"),
    ),
    _plan(
        "addFeature",
        "POST",
        "/plans/{id}/features",
        "Promise a feature in a plan",
        add_feature,
        PlanFeatureOut,
        body=AddPlanFeature,
        status=201,
        errors=("plan_not_found", "feature_not_found", "feature_already_exists"),
    ),
    _plan(
        "updateFeature",
        "PATCH",
        "/plans/{id}/features/{featureId}",
        "Change what a plan promises: better now, worse from the next period",
        update_feature,
        PlanFeatureOut,
        body=UpdatePlanFeature,
        also=(("PUT", "/plans/{id}/features/{featureId}"),),
        errors=("plan_not_found", "feature_not_found"),
    ),
    _plan(
        "removeFeature",
        "DELETE",
        "/plans/{id}/features/{featureId}",
        "End a promise from the next period on",
        remove_feature,
        RemovedPlanFeature,
        errors=("plan_not_found", "feature_not_found"),
    ),
)
