"""Usage: check, set, and reading events back. Tracking itself is `ingest_routes.py` (behaviour.md §6)."""

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, to_builtins

from tallystick.api import events as shown_events
from tallystick.api.customers import find as find_customer
from tallystick.api.events import UsageEventOut
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import ids, limits
from tallystick.core.events import StoredEvent, decode
from tallystick.core.money import ZERO, fits, plain, text, to_rate
from tallystick.core.pricing import unit_amount
from tallystick.core.times import show_instant
from tallystick.core.wallets import Model
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows import check_usage, set_usage
from tallystick.flows.check_usage import Checked
from tallystick.store import ai_costs, catalog, customers, events
from tallystick.store.organizations import Organization

Reference = Annotated[str, Meta(min_length=1, max_length=limits.CUSTOMER_REFERENCE_CHARS_MAX)]
Code = Annotated[str, Meta(pattern=r"^[a-z0-9_]+$(?!\n)", min_length=1, max_length=limits.CODE_CHARS_MAX)]


class CheckUsage(In, kw_only=True):
    """What track takes, under the name of a feature. Without `properties` so many units of that feature are meant;
    a feature priced by AI tokens is asked with `model` and tokens in place of `quantity`."""

    feature_code: Code
    customer_id: Reference | None = None
    external_id: Reference | None = None
    quantity: Decimal | None = None
    timestamp: str | None = None
    properties: Any = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


class SetUsage(In, kw_only=True):
    feature_code: Code
    customer_id: Reference | None = None
    external_id: Reference | None = None
    value: Decimal
    reason: Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)] | None = None


class _Check(Out, kw_only=True, tag_field="consumptionModel"):
    allowed: bool
    subscription_status: str
    feature_code: str
    quantity: Decimal
    reason: str | Maybe = MISSING
    message: str | Maybe = MISSING
    object: str = "usage_check"
    livemode: bool


class MeteredCheck(_Check, kw_only=True, tag="metered"):
    current: Decimal
    remaining: Decimal
    unlimited: bool
    included: Decimal
    overage_enabled: bool
    overage_unit_price: int | None


class CreditsCheck(_Check, kw_only=True, tag="credits"):
    """Integers toward zero, and exact."""

    credits_per_unit: int
    estimated_credits: int
    estimated_credits_decimal: str
    plan_credits: int
    purchased_credits: int
    total_credits: int
    total_credits_decimal: str


class BalanceCheck(_Check, kw_only=True, tag="balance"):
    """Rate units (10000 = 1.00), integers toward zero, and exact; `unitPriceDecimal` in major units. Where tokens are
    priced no unit has a price, and nothing is estimated without them."""

    unit_price: int
    unit_price_decimal: str
    estimated_amount: int
    estimated_amount_decimal: str
    current_balance: int
    current_balance_decimal: str
    block_on_exhaustion: bool
    currency: str


UsageCheck = MeteredCheck | CreditsCheck | BalanceCheck


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


async def check(call: Call[CheckUsage]) -> Reply:
    """A dry run: would this much be accepted now? Records nothing."""
    given = {
        name: value
        for name, value in to_builtins(call.body, builtin_types=(Decimal,)).items()
        if value is not None
    }
    event = decode(given)
    if event.value <= 0 and event.call is None:
        raise InvalidRequest(FieldError("quantity", "must be a number above 0"))
    checked = await check_usage.check_usage(
        call.conn,
        call.services.books,
        organization_id=call.organization.id,
        event=event,
        with_properties=bool(call.body.properties),
        wall=call.wall,
    )
    return Reply(_show_check(checked, call.organization))


def _show_check(checked: Checked, organization: Organization) -> UsageCheck:
    refusal = checked.refusal
    asked: dict[str, Any] = {
        "allowed": refusal is None,
        "subscription_status": checked.status.value,
        "feature_code": checked.feature.code,
        "quantity": plain(checked.quantity),
        "reason": MISSING if refusal is None else refusal.code,
        "message": MISSING if refusal is None else refusal.message,
        "livemode": organization.live,
    }
    terms, funds, cost = checked.terms, checked.funds, checked.cost or ZERO
    if funds is None:
        access = checked.access
        assert access is not None
        return MeteredCheck(
            **asked,
            current=plain(access.used),
            remaining=plain(access.remaining),
            unlimited=terms.unlimited,
            included=plain(terms.included),
            overage_enabled=terms.overage_enabled,
            overage_unit_price=to_rate(unit_amount(terms.price)) if terms.overage_enabled else None,
        )
    wallet = funds.wallet
    if funds.model is Model.CREDITS:
        return CreditsCheck(
            **asked,
            credits_per_unit=terms.credits_per_unit or 0,
            estimated_credits=int(cost),
            estimated_credits_decimal=text(cost),
            plan_credits=int(wallet.plan),
            purchased_credits=int(wallet.purchased),
            total_credits=int(wallet.remaining),
            total_credits_decimal=text(wallet.remaining),
        )
    if checked.cost is None and refusal is None:
        asked["message"] = "Send `model` and its tokens to have the cost of a call estimated."
    price = ZERO if terms.margin_bps is not None else unit_amount(terms.price)
    return BalanceCheck(
        **asked,
        unit_price=to_rate(price),
        unit_price_decimal=text(price),
        estimated_amount=int(cost),
        estimated_amount_decimal=text(cost),
        current_balance=int(wallet.plan),
        current_balance_decimal=text(wallet.plan),
        block_on_exhaustion=not funds.overdraft,
        currency=organization.currency,
    )


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
    event = await events.get(
        call.conn, organization_id=call.organization.id, event_id=call.identity(ids.EVENT, "id", "not_found")
    )
    if event is None:
        raise Problem("not_found", "There is no such event.")
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
        name="usage.check",
        method="POST",
        path="/usage/check",
        summary="Would this much usage be accepted now?",
        resource="usage",
        body=CheckUsage,
        returns=UsageCheck,
        handler=check,
        writes=False,
        renames=_FEATURE,
        errors=(*_ERRORS, "pricing_mode_mismatch", "model_not_found"),
    ),
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
