"""Subscribe a customer to a plan, activate when it is paid, cancel now or at the period's end."""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from tallystick.core import ids
from tallystick.core.catalog import INTERVALS
from tallystick.core.invoicing import base_line, subtotal
from tallystick.core.limits import DUE_AFTER, GRACE_LIVE
from tallystick.core.money import from_minor, text
from tallystick.core.subscriptions import Status, Step, move, periods_per_invoice
from tallystick.core.times import Anchor, Period, boundary, local_day, period, show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem, must
from tallystick.flows.fill_wallets import end_wallet, open_wallet
from tallystick.flows.publish_catalog import find_plan, find_price
from tallystick.store import catalog, customers, db, invoices, late, subscriptions, wallets
from tallystick.store.catalog import Plan, PlanPrice
from tallystick.store.customers import Customer
from tallystick.store.db import Conn, new_id
from tallystick.store.organizations import Organization
from tallystick.store.subscriptions import Subscription

FIRST_INVOICE = -1
"""The period index of the invoice that closes no period: the first base charge."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller asked for."""

    plan_id: UUID | None
    plan_code: str | None
    price_id: UUID | None = None
    billing_interval: str | None = None
    name: str | None = None
    success_url: str | None = None
    cancel_at_period_end: bool = False


async def subscribe(
    conn: Conn, *, organization: Organization, customer: Customer, wish: Wish, now: datetime
) -> tuple[Subscription, bool]:
    """A new subscription, or the open one that already waits for this payment; the flag says it is new.

    Free plans are active at once; paid ones wait for the checkout (behaviour.md §5.3).
    """
    plan = await find_plan(conn, organization_id=organization.id, plan_id=wish.plan_id, code=wish.plan_code)
    price = None if plan.is_free else await price_for(conn, organization, plan, wish)
    if wish.cancel_at_period_end and price is not None and price.billing_interval == "one_time":
        raise InvalidRequest(
            FieldError("cancelAtPeriodEnd", "needs an interval: what is bought once does not end")
        )
    await customers.lock(conn, organization_id=organization.id, customer_id=customer.id)
    existing = await subscriptions.live_of_customer(
        conn, organization_id=organization.id, customer_id=customer.id, lock=True
    )
    if existing is not None:
        if existing.state is not Status.PENDING_PAYMENT:
            raise Problem("already_has_active_subscription")
        if price is not None and existing.price_id == price.id and existing.plan_id == plan.id:
            return existing, False
        # The wallets before the version, as whoever pays from them takes them.
        await wallets.of_customer(conn, customer_id=customer.id, lock=True)
        await end(conn, subscription=existing, reason="replaced", now=now)
    subscription = Subscription(
        id=new_id(),
        organization_id=organization.id,
        customer_id=customer.id,
        plan_id=plan.id,
        price_id=price.id if price else None,
        name=wish.name or plan.name,
        description=None,
        status=Status.PENDING_PAYMENT if price else Status.DRAFT,
        billing_interval=price.billing_interval if price else None,
        currency=organization.currency,
        timezone=customer.timezone or organization.timezone,
        zones=[],
        anchor_at=None,
        anchor_day=None,
        period_index=0,
        period_start=None,
        period_end=None,
        closes_at=None,
        cancel_at=None,
        cancel_requested_at=now if wish.cancel_at_period_end else None,
        cancel_reason=None,
        ended_at=None,
        checkout_token=secrets.token_urlsafe(32) if price else None,
        success_url=wish.success_url,
        close_failure=None,
        created_at=now,
        updated_at=now,
    )
    must(await subscriptions.insert(conn, subscription), "the customer is locked", customer=customer.id)
    if price is None:
        subscription = await activate(conn, organization=organization, subscription=subscription, now=now)
        await db.bump(conn, organization_id=organization.id, customer_id=customer.id)
    elif wish.cancel_at_period_end:
        await subscriptions.update(conn, subscription)
    return subscription, True


async def price_for(conn: Conn, organization: Organization, plan: Plan, wish: Wish) -> PlanPrice:
    """The price that was wished for, else the default one. Raises Problem."""
    if wish.price_id is not None:
        price = await find_price(conn, organization_id=organization.id, plan=plan, price_id=wish.price_id)
        if wish.billing_interval not in (None, price.billing_interval):
            raise InvalidRequest(FieldError("billingInterval", "is not the interval of priceId"))
        return price
    if wish.billing_interval is not None and wish.billing_interval not in INTERVALS:
        raise InvalidRequest(FieldError("billingInterval", f"must be one of {', '.join(INTERVALS)}"))
    for price in await catalog.prices(conn, organization_id=organization.id, plan_ids=[plan.id]):
        if price.billing_interval == wish.billing_interval or (
            wish.billing_interval is None and price.is_default
        ):
            return price
    raise Problem("no_prices_configured", f"The plan {plan.code!r} has no matching price.")


async def activate(
    conn: Conn, *, organization: Organization, subscription: Subscription, now: datetime
) -> Subscription:
    """Period 0 begins now, where the customer lives now. The caller moves the version when all else is written
    (`db.bump`): from that commit on the customer's events are accepted."""
    customer = await customers.find(
        conn, organization_id=organization.id, reference=ids.show(ids.CUSTOMER, subscription.customer_id)
    )
    must(customer is not None, "a subscription has a customer", subscription=subscription.id)
    assert customer is not None
    zone = customer.timezone or organization.timezone
    anchor = Anchor(now, local_day(now, zone), subscription.billing_interval == "weekly")
    first = period(anchor, 0, zone)
    active = replace(
        subscription,
        status=move(subscription.state, Step.ACTIVATE),
        timezone=zone,
        anchor_at=anchor.at,
        anchor_day=anchor.day,
        period_index=0,
        period_start=first.start,
        period_end=first.end,
        closes_at=first.end + grace_of(organization),
        checkout_token=None if subscription.price_id is None else subscription.checkout_token,
        updated_at=now,
    )
    if subscription.cancel_requested_at is not None:
        active = replace(active, cancel_at=paid_until(active))
    await subscriptions.update(conn, active)
    await open_wallet(conn, organization=organization, subscription=active, now=now)
    return active


async def first_invoice(
    conn: Conn, *, organization: Organization, subscription: Subscription, now: datetime
) -> UUID:
    """The base of the first billing period, in advance, paid by the charge that activated it."""
    price = await _held_price(conn, subscription)
    plan = await catalog.plan(conn, organization_id=organization.id, plan_id=subscription.plan_id)
    must(plan is not None and price is not None, "a paid subscription has a plan and a price")
    assert plan is not None and price is not None
    covered = billing_period(subscription, 0)
    line = base_line(
        plan.name, price.amount_minor, subscription.currency, base_evidence(price, covered, subscription)
    )
    invoice_id = new_id()
    await invoices.issue(
        conn,
        invoices.Draft(
            id=invoice_id,
            organization_id=organization.id,
            customer_id=subscription.customer_id,
            subscription_id=subscription.id,
            status="paid",
            invoice_type="recurring",
            currency=subscription.currency,
            subtotal=subtotal([line]),
            tax=0,
            period_index=FIRST_INVOICE,
            period_start=covered.start,
            period_end=covered.end,
            issued_at=now,
            due_at=now + DUE_AFTER,
            collect_at=None,
            plan_name=plan.name,
            created_at=now,
        ),
        [line],
    )
    return invoice_id


async def _held_price(conn: Conn, subscription: Subscription) -> PlanPrice | None:
    if subscription.price_id is None:
        return None
    return await catalog.price(
        conn, organization_id=subscription.organization_id, price_id=subscription.price_id
    )


def grace_of(organization: Organization) -> timedelta:
    """Between a period's end and its invoice (ruling 2)."""
    if organization.grace_s is not None:
        return timedelta(seconds=organization.grace_s)
    return GRACE_LIVE if organization.live else timedelta(0)


def billing_period(subscription: Subscription, index: int) -> Period:
    """What the base charged at the start of usage period `index` covers; one-time covers only itself."""
    anchor = subscription.anchor
    assert anchor is not None
    length = periods_per_invoice(subscription.billing_interval) or 1
    first = index - index % length
    return Period(
        boundary(anchor, first, subscription.timezone),
        boundary(anchor, first + length, subscription.timezone),
    )


def paid_until(subscription: Subscription) -> datetime:
    """Where a scheduled cancellation takes effect: the end of what is paid."""
    return billing_period(subscription, subscription.period_index).end


def base_evidence(price: PlanPrice, covered: Period, subscription: Subscription) -> dict[str, object]:
    return {
        "priceId": ids.show(ids.PLAN_PRICE, price.id),
        "amount": text(from_minor(price.amount_minor, subscription.currency)),
        "period": {
            "start": show_instant(covered.start),
            "end": show_instant(covered.end),
            "timezone": subscription.timezone,
        },
    }


async def cancel(
    conn: Conn,
    *,
    organization: Organization,
    subscription: Subscription,
    reason: str | None,
    immediate: bool,
    now: datetime,
) -> Subscription:
    """At the end of what is paid; at once when asked, or when nothing is paid (behaviour.md §5.6)."""
    if subscription.state is Status.CANCELED:
        raise Problem("subscription_already_canceled")
    if subscription.billing_interval == "one_time" and subscription.state is not Status.PENDING_PAYMENT:
        raise Problem("one_time_subscription_not_cancelable")
    at_once = immediate or subscription.price_id is None or subscription.state is not Status.ACTIVE
    if at_once:
        # The wallet before the version: who pays from it holds it when they come to the head.
        await end_wallet(conn, organization=organization, subscription=subscription, now=now)
        ended = await end(conn, subscription=subscription, reason=reason, now=now)
        if subscription.period_start is None:
            return ended
        # What was used since the period began is still owed: the open period ends here and is closed as any other.
        # A period that is over and waits out its grace keeps its end; what came after it is closed next.
        last = ended
        if subscription.period_end is not None and now < subscription.period_end:
            last = replace(ended, period_end=now, closes_at=now + grace_of(organization))
        else:
            last = replace(ended, closes_at=subscription.closes_at)
        await subscriptions.update(conn, last)
        return last
    if subscription.cancel_at is not None:
        raise Problem("already_scheduled", "The cancellation is already scheduled.")
    scheduled = replace(
        subscription,
        cancel_at=paid_until(subscription),
        cancel_requested_at=now,
        cancel_reason=reason,
        updated_at=now,
    )
    await subscriptions.update(conn, scheduled)
    await db.bump(conn, organization_id=organization.id, customer_id=subscription.customer_id)
    return scheduled


async def uncancel(conn: Conn, *, subscription: Subscription, now: datetime) -> Subscription:
    if subscription.state is Status.CANCELED:
        raise Problem("subscription_already_canceled")
    if subscription.cancel_at is None:
        raise Problem("not_scheduled_for_cancellation")
    kept = replace(subscription, cancel_at=None, cancel_requested_at=None, cancel_reason=None, updated_at=now)
    await subscriptions.update(conn, kept)
    await db.bump(conn, organization_id=kept.organization_id, customer_id=kept.customer_id)
    return kept


async def end(conn: Conn, *, subscription: Subscription, reason: str | None, now: datetime) -> Subscription:
    """End it now. Unpaid invoices are voided."""
    ended = replace(
        subscription,
        status=move(subscription.state, Step.CANCEL),
        closes_at=None,
        cancel_reason=reason or subscription.cancel_reason,
        cancel_requested_at=subscription.cancel_requested_at or now,
        ended_at=now,
        updated_at=now,
    )
    await subscriptions.update(conn, ended)
    await invoices.void_unpaid(conn, subscription_id=subscription.id, now=now)
    await late.wake(conn, customer_ids=[subscription.customer_id], now=now)
    await db.bump(conn, organization_id=subscription.organization_id, customer_id=subscription.customer_id)
    return ended
