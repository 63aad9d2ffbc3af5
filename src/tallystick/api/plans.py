"""Plans, by id or by code (behaviour.md §4)."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from tallystick.api import wire
from tallystick.api.features import Deleted
from tallystick.api.operations import Call, Operation, Page, Reply, whole
from tallystick.api.plan_shapes import (
    CreatePlan,
    PlanOut,
    SetVisibility,
    UpdatePlan,
)
from tallystick.api.plan_terms import amount_of
from tallystick.api.plan_views import show_plans
from tallystick.api.wire import MISSING
from tallystick.core import ids
from tallystick.errors import FieldError, InvalidRequest
from tallystick.flows import publish_catalog
from tallystick.store import catalog
from tallystick.store.catalog import Plan
from tallystick.store.db import new_id


async def find_plan(call: Call[Any]) -> Plan:
    """By public id or by code."""
    given = call.path["id"]
    identity = ids.read(ids.PLAN, given) or ids.read("plan", given)
    return await publish_catalog.find_plan(
        call.conn, organization_id=call.organization.id, plan_id=identity, code=given
    )


async def _answer(call: Call[Any], plan: Plan, status: int = 200) -> Reply:
    return Reply((await show_plans(call, [plan]))[0], status)


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
    minimum = amount_of("minimumAmount", body.minimum_amount)
    await publish_catalog.create_plan(call.conn, organization_id=call.organization.id, plan=plan)
    if minimum is not None:
        await _set_minimum(call, plan, minimum)
    return await _answer(call, plan, 201)


async def get(call: Call[None]) -> Reply:
    return await _answer(call, await find_plan(call))


async def list_all(call: Call[None]) -> Reply:
    found = await catalog.plans(
        call.conn, organization_id=call.organization.id, include_private=call.flag("includePrivate")
    )
    return Reply(whole(await show_plans(call, found)))


async def update(call: Call[UpdatePlan]) -> Reply:
    wire.bounded_metadata(call.body.metadata)
    plan = await find_plan(call)
    changes = {
        name: value
        for name in ("name", "description", "metadata", "is_public", "included_balance", "included_credits")
        if (value := getattr(call.body, name)) is not MISSING
    }
    plan = replace(plan, **changes, updated_at=call.now)
    publish_catalog.check_plan_grants(plan)
    await publish_catalog.change_plan(call.conn, organization_id=call.organization.id, plan=plan)
    if call.body.minimum_amount is not MISSING:
        await _set_minimum(call, plan, amount_of("minimumAmount", call.body.minimum_amount))
    return await _answer(call, plan)


async def _set_minimum(call: Call[Any], plan: Plan, amount: Decimal | None) -> None:
    await publish_catalog.set_minimum(
        call.conn, organization_id=call.organization.id, plan=plan, amount=amount, now=call.now
    )


async def set_visibility(call: Call[SetVisibility]) -> Reply:
    plan = replace(await find_plan(call), is_public=call.body.is_public, updated_at=call.now)
    await catalog.update_plan(call.conn, organization_id=call.organization.id, plan=plan)
    return await _answer(call, plan)


async def delete(call: Call[None]) -> Reply:
    plan = await find_plan(call)
    await publish_catalog.delete_plan(
        call.conn, organization_id=call.organization.id, plan=plan, now=call.now
    )
    return Reply(Deleted(id=ids.show(ids.PLAN, plan.id), object="plan", livemode=call.live))


def plan_operation(
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
    plan_operation(
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
    plan_operation(
        "list",
        "GET",
        "/plans",
        "List public plans, or all with includePrivate",
        list_all,
        Page[PlanOut],
        query=("includePrivate",),
        errors=(),
    ),
    plan_operation("get", "GET", "/plans/{id}", "Get a plan by id or code", get, PlanOut),
    plan_operation(
        "update",
        "PATCH",
        "/plans/{id}",
        "Change a plan's name, description, metadata or visibility",
        update,
        PlanOut,
        body=UpdatePlan,
        also=(("PUT", "/plans/{id}/manage"),),
    ),
    plan_operation(
        "delete",
        "DELETE",
        "/plans/{id}",
        "Stop offering a plan; who holds it keeps it",
        delete,
        Deleted,
        also=(("DELETE", "/plans/{id}/manage"),),
    ),
    plan_operation(
        "setVisibility",
        "PUT",
        "/plans/{id}/visibility",
        "Show or hide a plan",
        set_visibility,
        PlanOut,
        body=SetVisibility,
    ),
)
