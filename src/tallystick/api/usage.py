"""Usage: setting a total, and reading events back (behaviour.md §6). Tracking is `ingest_routes.py`, asking
beforehand `check_routes.py`."""

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta

from tallystick.api import events as shown_events
from tallystick.api.check_routes import Code, Reference
from tallystick.api.customers import find as find_customer
from tallystick.api.events import UsageEventOut
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.wire import In, Out
from tallystick.core import ids, limits
from tallystick.core.events import StoredEvent
from tallystick.core.money import fits, plain
from tallystick.core.times import show_instant
from tallystick.errors import FieldError, InvalidRequest
from tallystick.flows import set_usage
from tallystick.flows.correct_usage import not_there
from tallystick.store import ai_costs, catalog, customers, events


class SetUsage(In, kw_only=True):
    feature_code: Code
    customer_id: Reference | None = None
    external_id: Reference | None = None
    value: Decimal
    reason: Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)] | None = None


class UsageAdjustment(Out, kw_only=True):
    id: str
    value: Decimal
    previous_value: Decimal
    adjustment: Decimal
    customer_id: str
    reason: str | None
    ts: str
    created_at: str
    feature_code: str
    object: str = "usage_adjustment"
    livemode: bool


_FEATURE = {"feature": "featureCode", "eventType": "featureCode"}


def _reference(body: SetUsage) -> str:
    given = [each for each in (body.customer_id, body.external_id) if each is not None]
    if not given:
        raise InvalidRequest(FieldError("customerId", "is required"))
    if len(given) == 2 and given[0] != given[1]:
        raise InvalidRequest(FieldError("externalId", "disagrees with customerId"))
    return given[0]


async def put(call: Call[SetUsage]) -> Reply:
    body = call.body
    if not fits(body.value) or body.value < 0:
        raise InvalidRequest(FieldError("value", "must be a number of 0 or more"))
    adjusted = await set_usage.set_usage(
        call.conn,
        call.services.books,
        organization_id=call.organization.id,
        reference=_reference(body),
        feature_code=body.feature_code,
        value=body.value,
        reason=body.reason,
        key=None,
        now=call.now,
        wall=call.wall,
    )
    return Reply(
        UsageAdjustment(
            id=ids.show(ids.EVENT, adjusted.event.id),
            value=plain(body.value),
            previous_value=plain(adjusted.previous),
            adjustment=plain(adjusted.event.value),
            customer_id=adjusted.reference,
            reason=body.reason,
            ts=show_instant(adjusted.event.occurred_at),
            created_at=show_instant(adjusted.event.received_at),
            feature_code=body.feature_code,
            livemode=call.live,
        )
    )


async def named(call: Call[Any], customer_ids: set[UUID]) -> dict[UUID, str]:
    """How answers name these customers."""
    standings = await customers.standings(
        call.conn,
        organization_id=call.organization.id,
        references=[ids.show(ids.CUSTOMER, each) for each in customer_ids],
    )
    return {standing.customer_id: standing.reference for standing in standings.values()}


async def list_events(call: Call[None]) -> Reply:
    """The raw feed, newest arrival first."""
    limit, before = call.page(ids.EVENT)
    reference = call.query.get("customerId") or call.query.get("externalId")
    customer = await find_customer(call, reference) if reference else None
    feature = call.query.get("featureCode") or call.query.get("feature") or call.query.get("eventType")
    found: list[StoredEvent] = []
    upto, wanted = before, limit + 1
    while len(found) <= limit:
        seen = await events.window(
            call.conn, organization_id=call.organization.id, before=upto, events_min=wanted
        )
        if seen is None:
            break
        lowest, nothing_older = seen
        found += await events.between(
            call.conn,
            organization_id=call.organization.id,
            lowest=lowest,
            before=upto,
            customer_id=customer.id if customer else None,
            feature=feature,
            limit=limit + 1 - len(found),
        )
        if nothing_older:
            break
        upto, wanted = lowest, wanted * 4
    names = await named(call, {event.customer_id for event in found})
    shown = [shown_events.show(each, names[each.customer_id], live=call.live) for each in found]
    return Reply(page_of(shown, limit, lambda each: str(each.id)))


async def get_event(call: Call[None]) -> Reply:
    event_id = call.identity(ids.EVENT, "id", "not_found")
    event = await events.get(call.conn, organization_id=call.organization.id, event_id=event_id)
    if event is None:
        raise await not_there(call.conn, call.organization, event_id)
    names = await named(call, {event.customer_id})
    shown = shown_events.show(event, names[event.customer_id], live=call.live)
    costs = await ai_costs.of_event(call.conn, customer_id=event.customer_id, event_id=event.id)
    if costs:
        found = await catalog.features(call.conn, organization_id=call.organization.id)
        codes = {each.id: each.code for each in found}
        shown.ai_costs = [shown_events.show_cost(codes[each.feature_id], each.charge) for each in costs]
    return Reply(shown)


_ERRORS = (
    "customer_not_found",
    "no_active_subscription",
    "feature_not_found",
    "feature_not_in_plan",
    "feature_disabled",
)

OPERATIONS = (
    Operation(
        name="usage.set",
        method="PUT",
        path="/usage",
        summary="Set the current period's total; stores a signed adjustment",
        resource="usage",
        body=SetUsage,
        returns=UsageAdjustment,
        handler=put,
        renames=_FEATURE,
        errors=_ERRORS,
    ),
    Operation(
        name="usage.list",
        method="GET",
        path="/usage/events",
        summary="List raw events, newest first",
        resource="usage",
        returns=Page[UsageEventOut],
        handler=list_events,
        query=("limit", "cursor", "customerId", "featureCode"),
        errors=("customer_not_found",),
    ),
    Operation(
        name="usage.get",
        method="GET",
        path="/usage/events/{id}",
        summary="Get one raw event",
        resource="usage",
        returns=UsageEventOut,
        handler=get_event,
        errors=("not_found",),
    ),
)
