"""Corrections: void an event, replace a range, see beforehand what it would do to money, take it back."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from tallystick.api import events as shown_events
from tallystick.api.customers import find as find_customer
from tallystick.api.events import UsageEventOut
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.usage import named
from tallystick.api.wire import In, Out
from tallystick.core import ids, limits
from tallystick.core.catalog import FeatureType
from tallystick.core.events import UsageEvent, decode
from tallystick.core.times import Period, parse_instant, show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows import correct_usage
from tallystick.flows.correct_usage import Corrected
from tallystick.flows.publish_catalog import feature_by_code, newest_meter
from tallystick.store import corrections
from tallystick.store.corrections import Correction

Reason = Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]


class VoidEvent(In, kw_only=True):
    reason: Reason | None = None


class Correct(In, kw_only=True):
    """Every event of the feature's code in [start, end) is taken back, and `events` are stored instead."""

    customer_id: str
    feature_code: str
    start: str
    end: str
    events: list[Any] = []
    reason: Reason | None = None
    dry_run: bool = False


class Revert(In, kw_only=True):
    reason: Reason | None = None
    dry_run: bool = False


class TouchedPeriod(Out, kw_only=True):
    subscription_id: str
    period_index: int
    period_start: str
    period_end: str
    feature_name: str | None
    rule: str
    description: str
    amount: int
    currency: str


class ImpactOut(Out, kw_only=True):
    closed_periods: list[TouchedPeriod]
    upcoming_before: int | None
    upcoming_after: int | None
    currency: str | None


class CorrectionOut(Out, kw_only=True):
    id: str | None
    customer_id: str
    event_code: str
    start: str
    end: str
    reason: str | None
    voided: list[str]
    added: list[str]
    reverts: str | None
    created_at: str
    dry_run: bool = False
    impact: ImpactOut | None = None
    object: str = "usage_correction"
    livemode: bool


async def void(call: Call[VoidEvent]) -> Reply:
    event = await correct_usage.void_event(
        call.conn,
        call.organization,
        event_id=call.identity(ids.EVENT, "id", "not_found"),
        reason=call.body.reason,
        now=call.now,
    )
    names = await named(call, {event.customer_id})
    shown: UsageEventOut = shown_events.show(event, names[event.customer_id], live=call.live)
    return Reply(shown)


async def correct(call: Call[Correct]) -> Reply:
    body = call.body
    customer = await find_customer(call, body.customer_id)
    feature = await feature_by_code(call.conn, organization_id=call.organization.id, code=body.feature_code)
    meter = await newest_meter(call.conn, organization_id=call.organization.id, feature_id=feature.id)
    if feature.type is not FeatureType.USAGE or meter is None:
        raise InvalidRequest(FieldError("featureCode", f"{body.feature_code!r} has no usage"))
    span = _span(body, call.now)
    done = await correct_usage.replace_range(
        call.conn,
        call.services.books,
        call.organization,
        customer_id=customer.id,
        event_code=meter.event_code,
        span=span,
        replacements=_replacements(body, meter.event_code, customer.reference, span),
        reason=body.reason,
        dry_run=body.dry_run,
        now=call.now,
        wall=call.wall,
    )
    return Reply(
        _show_done(call, done, customer.reference, dry_run=body.dry_run), 200 if body.dry_run else 201
    )


def _span(body: Correct, now: datetime) -> Period:
    start, end = parse_instant(body.start), parse_instant(body.end)
    for name, at in (("start", start), ("end", end)):
        if at is None:
            raise InvalidRequest(FieldError(name, "must be an ISO 8601 date and time"))
    assert start is not None and end is not None
    if start >= end:
        raise InvalidRequest(FieldError("end", "must lie after start"))
    if end > now:
        raise InvalidRequest(FieldError("end", f"lies in the future; it is {show_instant(now)}"))
    return Period(start, end)


def _replacements(body: Correct, event_code: str, reference: str, span: Period) -> list[UsageEvent]:
    if len(body.events) > limits.CORRECTED_EVENTS_MAX:
        raise InvalidRequest(FieldError("events", f"at most {limits.CORRECTED_EVENTS_MAX} at once"))
    found: list[UsageEvent] = []
    errors: list[FieldError] = []
    for place, raw in enumerate(body.events):
        where = f"events[{place}]"
        if not isinstance(raw, dict):
            errors.append(FieldError(where, "must be an object"))
            continue
        try:
            event = decode({"featureCode": event_code, "customerId": reference, **raw})
        except InvalidRequest as wrong:
            errors.append(FieldError(f"{where}.{wrong.param or ''}".rstrip("."), wrong.message))
            continue
        if event.feature != event_code or event.customer != reference:
            errors.append(FieldError(where, "belongs to another feature or customer than the correction"))
        elif event.occurred_at is None or event.occurred_at not in span:
            errors.append(FieldError(f"{where}.timestamp", "must lie within the span that is corrected"))
        found.append(event)
    if errors:
        raise InvalidRequest(*errors)
    return found


async def revert(call: Call[Revert]) -> Reply:
    correction = await _find(call)
    done = await correct_usage.revert(
        call.conn,
        call.services.books,
        call.organization,
        correction=correction,
        reason=call.body.reason,
        dry_run=call.body.dry_run,
        now=call.now,
        wall=call.wall,
    )
    names = await named(call, {correction.customer_id})
    shown = _show_done(call, done, names[correction.customer_id], dry_run=call.body.dry_run)
    return Reply(shown, 200 if call.body.dry_run else 201)


async def get(call: Call[None]) -> Reply:
    correction = await _find(call)
    names = await named(call, {correction.customer_id})
    return Reply(_show(call, correction, names[correction.customer_id]))


async def list_all(call: Call[None]) -> Reply:
    limit, before = call.page(ids.CORRECTION)
    reference = call.query.get("customerId")
    customer_id = None if reference is None else (await find_customer(call, reference)).id
    found = await corrections.page(
        call.conn,
        organization_id=call.organization.id,
        customer_id=customer_id,
        before=before,
        limit=limit + 1,
    )
    names = await named(call, {each.customer_id for each in found})
    shown = [_show(call, each, names[each.customer_id]) for each in found]
    return Reply(page_of(shown, limit, lambda each: str(each.id)))


async def _find(call: Call[Any]) -> Correction:
    found = await corrections.get(
        call.conn,
        organization_id=call.organization.id,
        correction_id=call.identity(ids.CORRECTION, "id", "not_found"),
    )
    if found is None:
        raise Problem("not_found", "There is no such correction.")
    return found


def _show(call: Call[Any], correction: Correction, reference: str) -> CorrectionOut:
    return CorrectionOut(
        id=ids.show(ids.CORRECTION, correction.id),
        customer_id=reference,
        event_code=correction.event_code,
        start=show_instant(correction.span_start),
        end=show_instant(correction.span_end),
        reason=correction.reason,
        voided=correction.voided,
        added=correction.added,
        reverts=ids.show(ids.CORRECTION, correction.reverts) if correction.reverts else None,
        created_at=show_instant(correction.created_at),
        livemode=call.live,
    )


def _show_done(call: Call[Any], done: Corrected, reference: str, *, dry_run: bool) -> CorrectionOut:
    shown = _show(call, done.correction, reference)
    if dry_run:  # nothing was stored: ids would name nothing
        shown.id, shown.added, shown.dry_run = None, [], True
    shown.impact = ImpactOut(
        closed_periods=[
            TouchedPeriod(
                subscription_id=ids.show(ids.SUBSCRIPTION, each.subscription_id),
                period_index=each.index,
                period_start=show_instant(each.period.start),
                period_end=show_instant(each.period.end),
                feature_name=each.line.feature_name,
                rule=each.policy.value,
                description=each.line.description,
                amount=each.line.amount,
                currency=each.currency,
            )
            for each in done.impact.touched
        ],
        upcoming_before=done.impact.upcoming_before,
        upcoming_after=done.impact.upcoming_after,
        currency=done.impact.currency,
    )
    return shown


_ERRORS = ("customer_not_found", "feature_not_found", "no_active_subscription", "duplicate")

OPERATIONS = (
    Operation(
        name="usage.void",
        method="DELETE",
        path="/usage/events/{id}",
        summary="Take an event back: it is kept, marked, and counts no more",
        resource="usage",
        body=VoidEvent,
        returns=UsageEventOut,
        handler=void,
        errors=("not_found",),
    ),
    Operation(
        name="usage.correct",
        method="POST",
        path="/usage/corrections",
        summary="Replace a customer's events of a span; `dryRun` shows every amount it would touch",
        resource="usage",
        body=Correct,
        returns=CorrectionOut,
        handler=correct,
        status=201,
        errors=_ERRORS,
    ),
    Operation(
        name="usage.listCorrections",
        method="GET",
        path="/usage/corrections",
        summary="List corrections, newest first",
        resource="usage",
        returns=Page[CorrectionOut],
        handler=list_all,
        query=("limit", "cursor", "customerId"),
        errors=("customer_not_found",),
    ),
    Operation(
        name="usage.getCorrection",
        method="GET",
        path="/usage/corrections/{id}",
        summary="Get a correction",
        resource="usage",
        returns=CorrectionOut,
        handler=get,
        errors=("not_found",),
    ),
    Operation(
        name="usage.revertCorrection",
        method="POST",
        path="/usage/corrections/{id}/revert",
        summary="Take a correction back",
        resource="usage",
        body=Revert,
        returns=CorrectionOut,
        handler=revert,
        status=201,
        errors=("not_found", "duplicate"),
    ),
)
