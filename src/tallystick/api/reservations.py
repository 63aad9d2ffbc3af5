"""Reservations: set aside what usage may cost, then settle what it did cost, or release it (ruling 27)."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta

from tallystick.api import events as shown_events
from tallystick.api.check_routes import Code, Reference
from tallystick.api.events import UsageEventOut
from tallystick.api.operations import Call, Operation, Reply
from tallystick.api.usage import named
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import ids, limits
from tallystick.core.events import UsageEvent, decode
from tallystick.core.money import text
from tallystick.core.times import show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows import reserve as flow
from tallystick.store import reservations
from tallystick.store.reservations import Reservation

_CALLED = {"value": "quantity", "outputTokens": "maxOutputTokens"}
"""What a reservation calls the fields of the event that would be."""
_EXPIRES_MAX = int(limits.RESERVATION_MAX.total_seconds())


class Reserve(In, kw_only=True):
    """A quantity, or a model with the tokens it is given and the most it may answer. `expiresIn` in seconds."""

    customer_id: Reference
    feature_code: Code
    quantity: Decimal | None = None
    model: str | None = None
    input_tokens: int | None = None
    max_output_tokens: int | None = None
    properties: Any = None
    expires_in: Annotated[int, Meta(ge=1, le=_EXPIRES_MAX)] = int(limits.RESERVATION_DEFAULT.total_seconds())


class Settle(In, kw_only=True):
    """What was used, as `usage.track` takes it; the event's key is the reservation's id."""

    value: Decimal | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    timestamp: str | None = None
    properties: Any = None
    allow_overrun: bool = False


class ReservationOut(Out, kw_only=True):
    """`amount` is what was set aside: credits, or rate units of the balance, whole toward zero and exact."""

    id: str
    customer_id: str
    subscription_id: str
    feature_code: str
    quantity: str | None
    model: str | None
    input_tokens: int | None
    max_output_tokens: int | None
    amount: int
    amount_decimal: str
    status: str
    expires_at: str
    event_id: str | None
    created_at: str
    updated_at: str
    event: UsageEventOut | Maybe = MISSING  # that settled it
    object: str = "usage_reservation"
    livemode: bool


def _show(made: Reservation, customer: str, *, live: bool) -> ReservationOut:
    return ReservationOut(
        id=ids.show(ids.RESERVATION, made.id),
        customer_id=customer,
        subscription_id=ids.show(ids.SUBSCRIPTION, made.subscription_id),
        feature_code=made.event_code,
        quantity=None if made.quantity is None else text(made.quantity),
        model=made.model,
        input_tokens=made.input_tokens,
        max_output_tokens=made.max_output_tokens,
        amount=int(made.amount),
        amount_decimal=text(made.amount),
        status=made.status,
        expires_at=show_instant(made.expires_at),
        event_id=ids.show(ids.EVENT, made.event_id) if made.event_id else None,
        created_at=show_instant(made.created_at),
        updated_at=show_instant(made.updated_at),
        livemode=live,
    )


async def _answer(call: Call[Any], made: Reservation, status: int = 200) -> Reply:
    names = await named(call, {made.customer_id})
    return Reply(_show(made, names[made.customer_id], live=call.live), status)


def _wanted(body: Reserve) -> UsageEvent:
    """The event that would be, were it all used."""
    raw: dict[str, object] = {"featureCode": body.feature_code, "customerId": body.customer_id}
    if body.model is not None or body.input_tokens is not None or body.max_output_tokens is not None:
        if body.quantity is not None:
            raise InvalidRequest(FieldError("quantity", "goes with no tokens: they are the quantity"))
        if body.max_output_tokens is None:
            raise InvalidRequest(FieldError("maxOutputTokens", "is required with `model`"))
        raw |= {"model": body.model, "inputTokens": body.input_tokens, "outputTokens": body.max_output_tokens}
    elif body.quantity is None:
        raise InvalidRequest(FieldError("quantity", "is required, or `model` with its tokens"))
    try:
        return decode({**raw, "value": body.quantity, "properties": body.properties})
    except InvalidRequest as wrong:
        raise InvalidRequest(
            *(FieldError(_CALLED.get(field, field), message) for field, message in wrong.errors)
        ) from None


async def create(call: Call[Reserve]) -> Reply:
    made = await flow.reserve(
        call.conn,
        call.services.books,
        organization=call.organization,
        wanted=_wanted(call.body),
        expires_in=timedelta(seconds=call.body.expires_in),
        now=call.now,
    )
    return await _answer(call, made, 201)


async def get(call: Call[None]) -> Reply:
    made = await reservations.get(
        call.conn,
        organization_id=call.organization.id,
        reservation_id=call.identity(ids.RESERVATION, "id", "reservation_not_found"),
    )
    if made is None:
        raise Problem("reservation_not_found")
    return await _answer(call, made)


async def settle(call: Call[Settle]) -> Reply:
    body = call.body
    reservation_id = call.identity(ids.RESERVATION, "id", "reservation_not_found")
    made = await reservations.get(
        call.conn, organization_id=call.organization.id, reservation_id=reservation_id
    )
    if made is None:
        raise Problem("reservation_not_found")
    used = decode(
        {
            "featureCode": made.event_code,
            "customerId": ids.show(ids.CUSTOMER, made.customer_id),
            "value": body.value,
            "model": body.model or made.model,
            "inputTokens": body.input_tokens,
            "outputTokens": body.output_tokens,
            "cacheReadTokens": body.cache_read_tokens,
            "cacheWriteTokens": body.cache_write_tokens,
            "timestamp": body.timestamp,
            "properties": body.properties,
        }
    )
    settled = await flow.settle(
        call.conn,
        call.services.books,
        organization=call.organization,
        reservation_id=reservation_id,
        used=used,
        allow_overrun=body.allow_overrun,
        now=call.now,
        wall=call.wall,
    )
    names = await named(call, {made.customer_id})
    shown = _show(settled.reservation, names[made.customer_id], live=call.live)
    shown.event = shown_events.show(settled.event.event, names[made.customer_id], live=call.live)
    return Reply(shown)


async def release(call: Call[None]) -> Reply:
    made = await flow.release(
        call.conn,
        organization=call.organization,
        reservation_id=call.identity(ids.RESERVATION, "id", "reservation_not_found"),
        now=call.now,
    )
    return await _answer(call, made)


_CLOSED = ("reservation_not_found", "reservation_not_open")
_SHORT = ("insufficient_credits", "insufficient_balance", "pricing_mode_mismatch", "model_not_found")
_FEATURE = ("feature_not_found", "feature_not_in_plan", "feature_disabled")

OPERATIONS = (
    Operation(
        name="usage.reserve",
        method="POST",
        path="/usage/reservations",
        summary="Set aside what usage may cost",
        resource="usage",
        body=Reserve,
        returns=ReservationOut,
        handler=create,
        errors=("customer_not_found", "no_active_subscription", *_FEATURE, *_SHORT),
    ),
    Operation(
        name="usage.getReservation",
        method="GET",
        path="/usage/reservations/{id}",
        summary="Get one reservation",
        resource="usage",
        returns=ReservationOut,
        handler=get,
        errors=("reservation_not_found",),
    ),
    Operation(
        name="usage.settleReservation",
        method="POST",
        path="/usage/reservations/{id}/settle",
        summary="Charge what was used, and give back the rest",
        resource="usage",
        body=Settle,
        returns=ReservationOut,
        handler=settle,
        errors=(*_CLOSED, "reservation_exceeded", *_FEATURE, *_SHORT),
    ),
    Operation(
        name="usage.releaseReservation",
        method="POST",
        path="/usage/reservations/{id}/release",
        summary="Give back all that was set aside",
        resource="usage",
        returns=ReservationOut,
        handler=release,
        errors=_CLOSED,
    ),
)
