"""Subscriptions: a customer holding a plan (behaviour.md §5)."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta

from tallystick.api.access import customer_reference
from tallystick.api.customers import find as find_customer
from tallystick.api.features import Name, Text
from tallystick.api.operations import Call, Operation, Page, Reply, whole
from tallystick.api.plan_shapes import Interval
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import ids, limits
from tallystick.core.catalog import FeatureType
from tallystick.core.money import plain, text, to_rate
from tallystick.core.pricing import unit_amount
from tallystick.core.subscriptions import USABLE, Status
from tallystick.core.times import days_between, index_at, show_instant
from tallystick.core.wallets import Model
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows import check_access, subscribe
from tallystick.flows.check_access import Access, Funds
from tallystick.store import catalog, customers, subscriptions
from tallystick.store.catalog import Plan
from tallystick.store.subscriptions import Subscription

Reference = Annotated[str, Meta(min_length=1, max_length=limits.CUSTOMER_REFERENCE_CHARS_MAX)]


class CreateSubscription(In, kw_only=True):
    customer_id: Reference | None = None
    external_id: Reference | None = None
    plan_id: str | None = None
    plan_code: str | None = None
    billing_interval: Interval | None = None
    price_id: str | None = None
    name: Name | None = None
    success_url: Annotated[str, Meta(pattern=r"^https?://", max_length=2000)] | None = None
    cancel_at_period_end: bool = False
    skip_trial: bool = False
    provider: str | None = None
    start_date: str | None = None
    initial_seats: dict[str, int] | None = None
    prepaid_periods: int = 1
    offer_id: str | None = None
    promo_code: str | None = None
    custom_trial_days: int | None = None
    card_promotion_id: str | None = None


class CancelSubscription(In, kw_only=True):
    reason: Text | None = None
    immediate: bool = False


class PlanRef(Out, kw_only=True):
    id: str
    name: str
    base_price: int


class CurrentPeriod(Out, kw_only=True):
    start: str
    end: str
    days_remaining: int


class Cancellation(Out, kw_only=True):
    scheduled_at: str
    reason: str | None
    effective_at: str


class FeatureUsage(Out, kw_only=True):
    current: Decimal
    included: Decimal
    overage_quantity: Decimal
    overage_unit_price: int | Maybe = MISSING
    unlimited: bool


class SubscriptionFeature(Out, kw_only=True):
    code: str
    name: str
    type: str
    enabled: bool | Maybe = MISSING
    usage: FeatureUsage | Maybe = MISSING


class CreditsOut(Out, kw_only=True):
    """What remains in both pools, what the plan grants each period, and what of the rest was purchased: integers
    toward zero, and exact."""

    remaining: int
    remaining_decimal: str
    included: int
    purchased: int
    purchased_decimal: str


class BalanceOut(Out, kw_only=True):
    """In rate units (10000 = 1.00), integers toward zero, and exact."""

    remaining: int
    remaining_decimal: str
    included: int
    currency: str


class SubscriptionSummary(Out, kw_only=True):
    id: str
    customer_id: str
    plan: PlanRef
    name: str
    description: str | None
    status: str
    billing_interval: str | None
    trial_ends_at: str | None = None
    current_period: CurrentPeriod | None
    cancellation: Cancellation | None
    cancel_at_period_end: bool
    scheduled_plan_change: None = None
    start_date: str
    end_date: str | None
    billing_day_of_month: int | None
    next_billing_date: str | None
    checkout_url: str | None
    created_at: str
    updated_at: str
    offer_applications: list[Any] = []
    pause: None = None
    price_id: str | None
    checkout_provider: str | None | Maybe = MISSING
    consumption_model: str | None | Maybe = MISSING
    features: list[SubscriptionFeature] | Maybe = MISSING
    credits: CreditsOut | None | Maybe = MISSING
    balance: BalanceOut | None | Maybe = MISSING
    canceled_at: str | Maybe = MISSING
    object: str = "subscription"
    livemode: bool


def show(
    call: Call[Any], subscription: Subscription, *, reference: str, plan_name: str, base_price: int
) -> SubscriptionSummary:
    anchor = subscription.anchor
    zone = subscription.timezone
    current = None
    if anchor is not None and subscription.state in USABLE:
        covered = subscribe.billing_period(subscription, max(0, index_at(anchor, call.now, zone)))
        current = CurrentPeriod(
            start=show_instant(covered.start),
            end=show_instant(covered.end),
            days_remaining=max(0, days_between(call.now, covered.end, zone)),
        )
    cancellation = None
    if subscription.cancel_at is not None and subscription.cancel_requested_at is not None:
        cancellation = Cancellation(
            scheduled_at=show_instant(subscription.cancel_requested_at),
            reason=subscription.cancel_reason,
            effective_at=show_instant(subscription.cancel_at),
        )
    ends: datetime | None = subscription.ended_at or subscription.cancel_at
    open_checkout = subscription.state is Status.PENDING_PAYMENT and subscription.checkout_token is not None
    renews = current is not None and ends is None and subscription.price_id is not None
    return SubscriptionSummary(
        id=ids.show(ids.SUBSCRIPTION, subscription.id),
        customer_id=reference,
        plan=PlanRef(id=ids.show(ids.PLAN, subscription.plan_id), name=plan_name, base_price=base_price),
        name=subscription.name,
        description=subscription.description,
        status=subscription.status,
        billing_interval=subscription.billing_interval,
        current_period=current,
        cancellation=cancellation,
        cancel_at_period_end=subscription.cancel_at is not None,
        start_date=show_instant(subscription.anchor_at or subscription.created_at),
        end_date=show_instant(ends) if ends else None,
        billing_day_of_month=anchor.day.day if anchor is not None and not anchor.weekly else None,
        next_billing_date=current.end
        if renews and current is not None and subscription.billing_interval != "one_time"
        else None,
        checkout_url=f"{call.base_url}/checkout/{subscription.checkout_token}" if open_checkout else None,
        created_at=show_instant(subscription.created_at),
        updated_at=show_instant(subscription.updated_at),
        price_id=ids.show(ids.PLAN_PRICE, subscription.price_id) if subscription.price_id else None,
        livemode=call.live,
    )


async def _summary(call: Call[Any], subscription: Subscription) -> SubscriptionSummary:
    return (await _shown_with_plan(call, subscription))[0]


async def _shown_with_plan(call: Call[Any], subscription: Subscription) -> tuple[SubscriptionSummary, Plan]:
    public = ids.show(ids.CUSTOMER, subscription.customer_id)
    customer = await customers.find(call.conn, organization_id=call.organization.id, reference=public)
    plan = await catalog.plan(call.conn, organization_id=call.organization.id, plan_id=subscription.plan_id)
    price = (
        await catalog.price(call.conn, organization_id=call.organization.id, price_id=subscription.price_id)
        if subscription.price_id
        else None
    )
    assert customer is not None and plan is not None
    shown = show(
        call,
        subscription,
        reference=customer.reference,
        plan_name=plan.name,
        base_price=price.amount_minor if price else 0,
    )
    return shown, plan


async def _detail(call: Call[Any], subscription: Subscription) -> SubscriptionSummary:
    shown, plan = await _shown_with_plan(call, subscription)
    shown.consumption_model = plan.consumption_model
    holding = None
    if subscription.state in USABLE:
        holding = await check_access.held(
            call.conn,
            call.services.books,
            organization_id=call.organization.id,
            reference=ids.show(ids.CUSTOMER, subscription.customer_id),
            now=call.now,
        )
    if holding is not None:
        funds = await check_access.funds_of(call.conn, holding)
    else:
        funds = await check_access.funds_left(call.conn, call.services.books, subscription)
    shown.credits = _credits(funds)
    shown.balance = _balance(funds, call.organization.currency)
    found = await check_access.every_access(call.conn, holding, funds) if holding is not None else []
    shown.features = [_feature(each) for each in found]
    return shown


def _credits(funds: Funds | None) -> CreditsOut | None:
    if funds is None or funds.model is not Model.CREDITS:
        return None
    wallet = funds.wallet
    return CreditsOut(
        remaining=int(wallet.remaining),
        remaining_decimal=text(wallet.remaining),
        included=int(funds.included),
        purchased=int(wallet.purchased),
        purchased_decimal=text(wallet.purchased),
    )


def _balance(funds: Funds | None, currency: str) -> BalanceOut | None:
    if funds is None or funds.model is not Model.BALANCE:
        return None
    return BalanceOut(
        remaining=int(funds.wallet.plan),
        remaining_decimal=text(funds.wallet.plan),
        included=int(funds.included),
        currency=currency,
    )


def _feature(access: Access) -> SubscriptionFeature:
    item = SubscriptionFeature(
        code=access.feature.code, name=access.feature.name, type=access.feature.type.value
    )
    if access.feature.type is not FeatureType.USAGE:
        item.enabled = access.terms.enabled
        return item
    priced = access.terms.overage_enabled and access.terms.margin_bps is None
    item.usage = FeatureUsage(
        current=plain(access.used),
        included=plain(access.terms.included),
        overage_quantity=plain(access.overage) if access.terms.overage_enabled else Decimal(0),
        overage_unit_price=to_rate(unit_amount(access.terms.price)) if priced else MISSING,
        unlimited=access.terms.unlimited,
    )
    return item


async def create(call: Call[CreateSubscription]) -> Reply:
    body = call.body
    for name, given in (
        ("startDate", body.start_date),
        ("initialSeats", body.initial_seats),
        ("offerId", body.offer_id),
        ("promoCode", body.promo_code),
        ("customTrialDays", body.custom_trial_days),
        ("cardPromotionId", body.card_promotion_id),
        ("prepaidPeriods", None if body.prepaid_periods == 1 else body.prepaid_periods),
    ):
        if given:
            raise InvalidRequest(FieldError(name, "is not offered by this server yet"))
    reference = body.customer_id or body.external_id
    if reference is None:
        raise InvalidRequest(FieldError("customerId", "is required"))
    if (body.plan_id is None) == (body.plan_code is None):
        raise InvalidRequest(FieldError("planCode", "exactly one of planId and planCode is required"))
    plan_id = _id(ids.PLAN, body.plan_id, "plan_not_found")
    subscription, new = await subscribe.subscribe(
        call.conn,
        organization=call.organization,
        customer=await find_customer(call, reference),
        wish=subscribe.Wish(
            plan_id=plan_id,
            plan_code=body.plan_code,
            price_id=_id(ids.PLAN_PRICE, body.price_id, "price_not_found"),
            billing_interval=body.billing_interval,
            name=body.name,
            success_url=body.success_url,
            cancel_at_period_end=body.cancel_at_period_end,
        ),
        now=call.now,
    )
    shown = await _summary(call, subscription)
    shown.checkout_provider = call.services.payments.name if shown.checkout_url else None
    return Reply(shown, 201 if new else 200)


def _id(prefix: str, text: str | None, missing: str) -> UUID | None:
    if text is None:
        return None
    found = ids.read(prefix, text)
    if found is None:
        raise Problem(missing)
    return found


async def find_subscription(call: Call[Any], *, lock: bool = False) -> Subscription:
    found = await subscriptions.get(
        call.conn,
        organization_id=call.organization.id,
        subscription_id=call.identity(ids.SUBSCRIPTION, "id", "subscription_not_found"),
        lock=lock,
    )
    if found is None:
        raise Problem("subscription_not_found")
    return found


async def get(call: Call[None]) -> Reply:
    return Reply(await _detail(call, await find_subscription(call)))


async def get_active(call: Call[None]) -> Reply:
    """The customer's live subscription, or null."""
    customer = await find_customer(call, customer_reference(call))
    found = await subscriptions.live_of_customer(
        call.conn, organization_id=call.organization.id, customer_id=customer.id
    )
    if found is None or found.state not in USABLE | {Status.PAUSED, Status.PENDING_PAYMENT}:
        return Reply(None)
    return Reply(await _detail(call, found))


async def list_all(call: Call[None]) -> Reply:
    status = call.query.get("status")
    if status is not None and status not in {each.value for each in Status}:
        raise InvalidRequest(FieldError("status", "is not a subscription status"))
    reference = call.query.get("customerId")
    customer = await find_customer(call, reference) if reference else None
    found = await subscriptions.matching(
        call.conn,
        organization_id=call.organization.id,
        customer_id=customer.id if customer else None,
        status=status,
    )
    return Reply(whole([await _summary(call, each) for each in found]))


async def cancel(call: Call[CancelSubscription]) -> Reply:
    subscription = await subscribe.cancel(
        call.conn,
        organization=call.organization,
        subscription=await find_subscription(call, lock=True),
        reason=call.body.reason,
        immediate=call.body.immediate,
        now=call.now,
    )
    return Reply(await _detail(call, subscription))


async def uncancel(call: Call[None]) -> Reply:
    subscription = await subscribe.uncancel(
        call.conn, subscription=await find_subscription(call, lock=True), now=call.now
    )
    return Reply(await _detail(call, subscription))


OPERATIONS = (
    Operation(
        name="subscriptions.create",
        method="POST",
        path="/subscriptions",
        summary="Subscribe a customer: free plans are active at once, paid ones answer a checkoutUrl",
        resource="subscription",
        body=CreateSubscription,
        returns=SubscriptionSummary,
        handler=create,
        status=201,
        errors=(
            "customer_not_found",
            "plan_not_found",
            "price_not_found",
            "no_prices_configured",
            "already_has_active_subscription",
        ),
    ),
    Operation(
        name="subscriptions.getActive",
        method="GET",
        path="/subscriptions/active",
        summary="The customer's live subscription, or null",
        resource="subscription",
        returns=SubscriptionSummary | None,
        handler=get_active,
        query=("customerId",),
        errors=("customer_not_found",),
    ),
    Operation(
        name="subscriptions.list",
        method="GET",
        path="/subscriptions",
        summary="List subscriptions, newest first",
        resource="subscription",
        returns=Page[SubscriptionSummary],
        handler=list_all,
        query=("customerId", "status"),
        errors=("customer_not_found",),
    ),
    Operation(
        name="subscriptions.get",
        method="GET",
        path="/subscriptions/{id}",
        summary="Get a subscription with its usage",
        resource="subscription",
        returns=SubscriptionSummary,
        handler=get,
        errors=("subscription_not_found",),
    ),
    Operation(
        name="subscriptions.cancel",
        method="POST",
        path="/subscriptions/{id}/cancel",
        summary="Cancel at the end of what is paid, or at once",
        resource="subscription",
        body=CancelSubscription,
        returns=SubscriptionSummary,
        handler=cancel,
        errors=(
            "subscription_not_found",
            "subscription_already_canceled",
            "already_scheduled",
            "one_time_subscription_not_cancelable",
        ),
    ),
    Operation(
        name="subscriptions.uncancel",
        method="POST",
        path="/subscriptions/{id}/uncancel",
        summary="Take back a scheduled cancellation",
        resource="subscription",
        returns=SubscriptionSummary,
        handler=uncancel,
        errors=(
            "subscription_not_found",
            "subscription_already_canceled",
            "not_scheduled_for_cancellation",
        ),
    ),
)
