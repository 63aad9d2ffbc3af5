"""What a plan promises of each feature, in versions."""

from typing import Any

from tallystick.api import features
from tallystick.api.operations import Call, Reply
from tallystick.api.plan_shapes import (
    AddPlanFeature,
    PlanFeatureOut,
    RemovedPlanFeature,
    UpdatePlanFeature,
)
from tallystick.api.plan_terms import terms_spec
from tallystick.api.plan_views import show_terms
from tallystick.api.plans import find_plan, plan_operation
from tallystick.core import ids
from tallystick.core.catalog import Feature
from tallystick.flows import publish_catalog


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
        plan=await find_plan(call),
        feature=feature,
        spec=terms_spec(call.body),
        now=call.now,
        new=new,
    )
    return Reply(show_terms(terms, live=call.live), 201 if new else 200)


async def remove_feature(call: Call[None]) -> Reply:
    feature = await features.by_id(call, call.path["featureId"])
    await publish_catalog.withdraw(
        call.conn,
        organization_id=call.organization.id,
        plan=await find_plan(call),
        feature_id=feature.id,
        now=call.now,
    )
    return Reply(RemovedPlanFeature(id=ids.show(ids.FEATURE, feature.id), livemode=call.live))


OPERATIONS = (
    plan_operation(
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
    plan_operation(
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
    plan_operation(
        "removeFeature",
        "DELETE",
        "/plans/{id}/features/{featureId}",
        "End a promise from the next period on",
        remove_feature,
        RemovedPlanFeature,
        errors=("plan_not_found", "feature_not_found"),
    ),
)
