"""The base prices of a plan, one for each interval."""

from dataclasses import replace
from typing import Any

from tallystick.api import wire
from tallystick.api.features import Deleted
from tallystick.api.operations import Call, Reply
from tallystick.api.plan_shapes import (
    AddPrice,
    PlanPriceOut,
    UpdatePrice,
)
from tallystick.api.plan_views import show_price
from tallystick.api.plans import find_plan, plan_operation
from tallystick.api.wire import MISSING
from tallystick.core import ids
from tallystick.errors import FieldError, InvalidRequest
from tallystick.flows import publish_catalog
from tallystick.store import catalog
from tallystick.store.catalog import PlanPrice
from tallystick.store.db import new_id


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
    plan = await find_plan(call)
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
    return Reply(show_price(price, live=call.live), 201)


async def _find_price(call: Call[Any]) -> PlanPrice:
    return await publish_catalog.find_price(
        call.conn,
        organization_id=call.organization.id,
        plan=await find_plan(call),
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
            (await find_plan(call)).consumption_model,
            included_balance=price.included_balance,
            included_credits=price.included_credits,
        )
    price = replace(price, updated_at=call.now)
    await publish_catalog.change_price(call.conn, organization_id=call.organization.id, price=price)
    if body.is_default is True:
        price = await publish_catalog.make_default(
            call.conn, organization_id=call.organization.id, price=price
        )
    return Reply(show_price(price, live=call.live))


async def make_default(call: Call[None]) -> Reply:
    price = await publish_catalog.make_default(
        call.conn, organization_id=call.organization.id, price=await _find_price(call)
    )
    return Reply(show_price(price, live=call.live))


async def delete_price(call: Call[None]) -> Reply:
    """Nobody can choose it any more; who holds it keeps it."""
    price = await _find_price(call)
    await catalog.archive_price(
        call.conn, organization_id=call.organization.id, price_id=price.id, now=call.now
    )
    return Reply(Deleted(id=ids.show(ids.PLAN_PRICE, price.id), object="plan_price", livemode=call.live))


OPERATIONS = (
    plan_operation(
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
    plan_operation(
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
    plan_operation(
        "deletePrice",
        "DELETE",
        "/plans/{id}/prices/{priceId}",
        "Stop offering a price; who holds it keeps it",
        delete_price,
        Deleted,
        errors=("plan_not_found", "price_not_found"),
    ),
    plan_operation(
        "setDefaultPrice",
        "PUT",
        "/plans/{id}/prices/{priceId}/default",
        "Make a price the default",
        make_default,
        PlanPriceOut,
        errors=("plan_not_found", "price_not_found"),
    ),
)
