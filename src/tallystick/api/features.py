"""Features and their meters (behaviour.md §3)."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from tallystick.api import access
from tallystick.api.operations import Call, Operation, Page, Reply, whole
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import ids, limits
from tallystick.core.catalog import Feature, FeatureType
from tallystick.core.meters import Aggregation, Filter, LatePolicy, Meter, Operator
from tallystick.core.times import show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows import publish_catalog
from tallystick.flows.publish_catalog import MeterSpec
from tallystick.store import catalog
from tallystick.store.db import new_id

Code = Annotated[str, Meta(pattern=r"^[a-z0-9_]+$(?!\n)", min_length=1, max_length=limits.CODE_CHARS_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
Text = Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]
PropertyName = Annotated[str, Meta(min_length=1, max_length=limits.PROPERTY_NAME_CHARS_MAX)]


class FilterIn(In, kw_only=True):
    property: PropertyName
    operator: Literal["equals", "not_equals", "greater_than", "less_than", "contains"]
    value: Annotated[str, Meta(max_length=limits.PROPERTY_VALUE_CHARS_MAX)]


Filters = Annotated[list[FilterIn], Meta(max_length=limits.FILTERS_PER_METER_MAX)]
AggregationName = Literal["sum", "count", "unique", "max", "latest"]
Policy = Literal["next_period", "current_period", "ignore"]


class CreateFeature(In, kw_only=True):
    name: Name
    code: Code
    type: Literal["boolean", "usage", "seats", "quota"]
    description: Text | None = None
    unit_name: Name | None = None
    event_code: Code | None = None
    aggregation: AggregationName | None = None
    aggregation_property: PropertyName | None = None
    filters: Filters | None = None
    late_event_policy: Policy | None = None


class UpdateFeature(In, kw_only=True):
    name: Name | Maybe = MISSING
    description: Text | None | Maybe = MISSING
    unit_name: Name | None | Maybe = MISSING
    event_code: Code | Maybe = MISSING
    aggregation: AggregationName | Maybe = MISSING
    aggregation_property: PropertyName | None | Maybe = MISSING
    filters: Filters | Maybe = MISSING
    late_event_policy: Policy | Maybe = MISSING


class FeatureOut(Out, kw_only=True):
    id: str
    name: str
    code: str
    type: str
    description: str | None
    unit_name: str | None
    event_code: str | Maybe = MISSING
    aggregation: str | Maybe = MISSING
    aggregation_property: str | None | Maybe = MISSING
    filters: list[FilterIn] | Maybe = MISSING
    late_event_policy: str | Maybe = MISSING
    meter_version: int | Maybe = MISSING
    created_at: str
    updated_at: str
    object: str = "feature"
    livemode: bool


class Deleted(Out, kw_only=True):
    id: str
    deleted: bool = True
    object: str
    livemode: bool


def show(feature: Feature, meter: Meter | None, *, live: bool) -> FeatureOut:
    shown = FeatureOut(
        id=ids.show(ids.FEATURE, feature.id),
        name=feature.name,
        code=feature.code,
        type=feature.type.value,
        description=feature.description,
        unit_name=feature.unit_name,
        created_at=show_instant(feature.created_at),
        updated_at=show_instant(feature.updated_at),
        livemode=live,
    )
    if meter is not None:
        shown.event_code = meter.event_code
        shown.aggregation = meter.aggregation.value
        shown.aggregation_property = meter.property_name
        shown.filters = [
            FilterIn(property=each.property_name, operator=each.operator.value, value=each.value)
            for each in meter.filters
        ]
        shown.late_event_policy = meter.late_policy.value
        shown.meter_version = meter.version
    return shown


def _meter(body: CreateFeature | UpdateFeature, old: MeterSpec) -> MeterSpec:
    """What was asked for over what was there; UNIQUE needs to know of which property."""

    def asked(value: Any, before: Any) -> Any:
        return before if value is MISSING or value is None else value

    spec = MeterSpec(
        event_code=asked(body.event_code, old.event_code),
        aggregation=Aggregation(asked(body.aggregation, old.aggregation)),
        property_name=old.property_name
        if body.aggregation_property is MISSING
        else body.aggregation_property,
        filters=old.filters
        if body.filters is MISSING or body.filters is None
        else tuple(Filter(each.property, Operator(each.operator), each.value) for each in body.filters),
        late_policy=LatePolicy(asked(body.late_event_policy, old.late_policy)),
    )
    if spec.aggregation is Aggregation.UNIQUE and spec.property_name is None:
        raise InvalidRequest(FieldError("aggregationProperty", "is required to count distinct values"))
    if spec.aggregation is Aggregation.COUNT and spec.property_name is not None:
        raise InvalidRequest(FieldError("aggregationProperty", "means nothing when events are counted"))
    return spec


async def create(call: Call[CreateFeature]) -> Reply:
    body = call.body
    if body.type in ("seats", "quota"):
        raise InvalidRequest(FieldError("type", f"{body.type} features are not offered by this server yet"))
    plain = MeterSpec(body.code, Aggregation.SUM, None, (), LatePolicy.NEXT_PERIOD)
    if body.type != "usage" and _meter(body, plain) != plain:
        raise InvalidRequest(FieldError("aggregation", "only usage features are measured"))
    feature = Feature(
        id=new_id(),
        code=body.code,
        name=body.name,
        type=FeatureType(body.type),
        description=body.description,
        unit_name=body.unit_name,
        created_at=call.now,
        updated_at=call.now,
    )
    meter = await publish_catalog.create_feature(
        call.conn,
        organization_id=call.organization.id,
        feature=feature,
        meter=_meter(body, plain) if body.type == "usage" else None,
        now=call.now,
    )
    return Reply(show(feature, meter, live=call.live), 201)


async def _find(call: Call[Any]) -> Feature:
    return await publish_catalog.feature_by_code(
        call.conn, organization_id=call.organization.id, code=call.path["code"]
    )


async def get(call: Call[None]) -> Reply:
    """The catalogue's feature; with a customer, what older clients mean by it: that customer's access."""
    if "customerId" in call.query or "externalId" in call.query:
        return await access.get(call)
    feature = await _find(call)
    meter = await publish_catalog.newest_meter(
        call.conn, organization_id=call.organization.id, feature_id=feature.id
    )
    return Reply(show(feature, meter, live=call.live))


async def list_all(call: Call[None]) -> Reply:
    if "customerId" in call.query or "externalId" in call.query:
        return await access.list_all(call)
    meters = {
        meter.feature_id: meter
        for _, meter in await catalog.meters(call.conn, organization_id=call.organization.id)
    }
    found = await catalog.features(call.conn, organization_id=call.organization.id)
    return Reply(whole([show(each, meters.get(each.id), live=call.live) for each in found]))


async def update(call: Call[UpdateFeature]) -> Reply:
    feature = await _find(call)
    body = call.body
    changes = {
        name: value
        for name in ("name", "description", "unit_name")
        if (value := getattr(body, name)) is not MISSING
    }
    feature = replace(feature, **changes, updated_at=call.now)
    meter_fields = ("event_code", "aggregation", "aggregation_property", "filters", "late_event_policy")
    asked = any(getattr(body, name) is not MISSING for name in meter_fields)
    old = await publish_catalog.newest_meter(
        call.conn, organization_id=call.organization.id, feature_id=feature.id
    )
    if asked and old is None:
        raise InvalidRequest(FieldError("aggregation", "only usage features are measured"))
    meter = await publish_catalog.change_feature(
        call.conn,
        organization_id=call.organization.id,
        feature=feature,
        meter=_meter(body, publish_catalog.spec_of(old)) if asked and old is not None else None,
        now=call.now,
    )
    return Reply(show(feature, meter, live=call.live))


async def delete(call: Call[None]) -> Reply:
    feature = await publish_catalog.delete_feature(
        call.conn, organization_id=call.organization.id, code=call.path["code"]
    )
    return Reply(Deleted(id=ids.show(ids.FEATURE, feature.id), object="feature", livemode=call.live))


async def by_id(call: Call[Any], text: str) -> Feature:
    """A feature named by public id, or by code."""
    identity = ids.read(ids.FEATURE, text)
    for feature in await catalog.features(call.conn, organization_id=call.organization.id):
        if feature.id == identity or feature.code == text:
            return feature
    raise Problem("feature_not_found", f"There is no feature {text!r}.", param="featureId")


OPERATIONS = (
    Operation(
        name="features.create",
        method="POST",
        path="/features",
        summary="Define a feature and, for usage, how it is measured",
        resource="feature",
        body=CreateFeature,
        returns=FeatureOut,
        handler=create,
        status=201,
        also=(("POST", "/features/manage"),),
        errors=("feature_already_exists",),
    ),
    Operation(
        name="features.list",
        method="GET",
        path="/features",
        summary="List features",
        resource="feature",
        returns=Page[FeatureOut],
        handler=list_all,
        query=("customerId",),
        errors=("customer_not_found",),  # with a customer it is what older clients mean: access
    ),
    Operation(
        name="features.get",
        method="GET",
        path="/features/{code}",
        summary="Get a feature",
        resource="feature",
        returns=FeatureOut,
        handler=get,
        query=("customerId",),
        errors=("customer_not_found", "feature_not_found", "no_active_subscription", "feature_not_in_plan"),
    ),
    Operation(
        name="features.update",
        method="PATCH",
        path="/features/{code}",
        summary="Rename a feature; a changed meter counts from each customer's next period",
        resource="feature",
        body=UpdateFeature,
        returns=FeatureOut,
        handler=update,
        also=(("PUT", "/features/{code}/manage"), ("PUT", "/features/{code}")),
        errors=("feature_not_found",),
    ),
    Operation(
        name="features.delete",
        method="DELETE",
        path="/features/{code}",
        summary="Delete a feature that was never promised or used",
        resource="feature",
        returns=Deleted,
        handler=delete,
        also=(("DELETE", "/features/{code}/manage"),),
        errors=("feature_not_found", "feature_in_use"),
    ),
)
