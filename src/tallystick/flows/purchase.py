"""Sell credits and top up balances: promised first, charged outside any transaction, settled once.

    promise    what is bought, for how much and from which card: a pending purchase, under the request's key
    charge     with the purchase's id as the provider's key, so that asking again is the same charge
    settle     invoice, wallet, transaction and news, or that it was declined; under the purchase's lock

Whoever finds it pending goes on with it: the same request sent again, or the sweep. So a purchase is charged once
and credited once, wherever a process dies.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, assert_never
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from tallystick.core import ids
from tallystick.core.invoicing import number, purchase_line
from tallystick.core.limits import DUE_AFTER, PURCHASE_RETRY_AFTER, PURCHASES_PER_CLAIM
from tallystick.core.money import RATE_SCALE, from_minor, plain, text
from tallystick.core.subscriptions import Status
from tallystick.core.times import index_at, local_day, period
from tallystick.core.wallet_news import purchase_news
from tallystick.core.wallets import Model, Wallet, bought
from tallystick.errors import FieldError, InvalidRequest, Problem, must
from tallystick.flows.books import load_prepaid
from tallystick.flows.collect_payment import card_of, transaction_of
from tallystick.flows.fill_wallets import hold_wallet, key_of, post_and_tell
from tallystick.providers.payments import Charged, Declined, Payments
from tallystick.store import (
    catalog,
    credit_packs,
    customers,
    domain_events,
    invoices,
    organizations,
    payments,
    purchases,
    subscriptions,
)
from tallystick.store.db import Conn, Database, new_id
from tallystick.store.domain_events import DomainEvent
from tallystick.store.organizations import Organization
from tallystick.store.purchases import Purchase
from tallystick.store.subscriptions import Subscription
from tallystick.store.wallets import Posting

log = logging.getLogger("tallystick.purchase")

_BUYING: Final = frozenset({Status.ACTIVE, Status.TRIALING})
"""Who owes nothing may buy (behaviour.md §5.2, §5.5)."""

_INVOICE_TYPES: Final = {Model.CREDITS: "credit_purchase", Model.BALANCE: "balance_topup"}


@dataclass(frozen=True, slots=True)
class BuyPack:
    pack_id: UUID


@dataclass(frozen=True, slots=True)
class TopUp:
    amount_minor: int


Wish = BuyPack | TopUp


async def promise(
    conn: Conn,
    *,
    organization: Organization,
    subscription_id: UUID,
    wish: Wish,
    request_key: bytes | None,
    now: datetime,
    wall: datetime,
) -> Purchase:
    """A pending purchase, or the one that this request made before, whatever has become of it."""
    made = await _made_before(conn, organization, subscription_id, wish, request_key)
    if made is not None:
        return made
    subscription = await subscriptions.get(
        conn, organization_id=organization.id, subscription_id=subscription_id
    )
    if subscription is None:
        raise Problem("subscription_not_found")
    order = await _order(conn, organization, subscription, wish)
    if subscription.state not in _BUYING or subscription.is_over(now):
        raise Problem("subscription_not_active")
    method = None
    if order.amount_minor:
        method = await payments.default_method(conn, customer_id=subscription.customer_id)
        if method is None:
            raise Problem("no_payment_method")
    purchase = Purchase(
        id=new_id(),
        organization_id=organization.id,
        customer_id=subscription.customer_id,
        subscription_id=subscription.id,
        request_key=request_key,
        status="pending",
        kind=order.model,
        credit_pack_id=wish.pack_id if isinstance(wish, BuyPack) else None,
        description=order.name,
        quantity=order.quantity,
        amount_minor=order.amount_minor,
        currency=subscription.currency,
        payment_method_id=method.id if method else None,
        retry_at=wall + PURCHASE_RETRY_AFTER,
        invoice_id=None,
        failure_code=None,
        failure_message=None,
        created_at=now,
        updated_at=now,
    )
    if await purchases.insert(conn, purchase):
        return purchase
    made = await _made_before(conn, organization, subscription_id, wish, request_key)
    must(made is not None, "who was first has the key", subscription=subscription_id)
    assert made is not None
    return made


async def _made_before(
    conn: Conn, organization: Organization, subscription_id: UUID, wish: Wish, request_key: bytes | None
) -> Purchase | None:
    if request_key is None:
        return None
    made = await purchases.by_key(conn, organization_id=organization.id, request_key=request_key)
    if made is None:
        return None
    match wish:
        case BuyPack(pack_id):
            same = made.credit_pack_id == pack_id
        case TopUp(amount_minor):
            same = made.model is Model.BALANCE and made.amount_minor == amount_minor
        case _:
            assert_never(wish)
    if not same or made.subscription_id != subscription_id:
        raise Problem("idempotency_key_mismatch")
    return made


class _Order(NamedTuple):
    model: Model
    quantity: Decimal
    amount_minor: int
    name: str


async def _order(conn: Conn, organization: Organization, subscription: Subscription, wish: Wish) -> _Order:
    """What it comes to at today's price, on a plan that has a use for it."""
    prepaid = (await load_prepaid(conn, organization.id)).get(subscription.plan_id)
    model = prepaid.model if prepaid else "metered"
    match wish:
        case BuyPack(pack_id):
            pack = await credit_packs.get(conn, organization_id=organization.id, pack_id=pack_id)
            if pack is None or not pack.is_active:
                raise Problem("credit_pack_not_found", param="creditPackId")
            if model is not Model.CREDITS:
                why = f"credits are sold to plans of credits, and this subscription's plan is {model}"
                raise InvalidRequest(FieldError("creditPackId", why))
            return _Order(model, Decimal(pack.credits), pack.price_minor, pack.name)
        case TopUp(amount_minor):
            if model is not Model.BALANCE:
                why = f"a plan of a balance is topped up, and this subscription's plan is {model}"
                raise InvalidRequest(FieldError("amount", why))
            rate_units = plain(from_minor(amount_minor, subscription.currency) * RATE_SCALE)
            return _Order(model, rate_units, amount_minor, "Balance top-up")
    assert_never(wish)


async def complete(database: Database, provider: Payments, purchase: Purchase, *, wall: datetime) -> Purchase:
    """Charge and settle a pending purchase; one that is settled is answered as it is."""
    if purchase.status != "pending":
        return purchase
    answer = await _charge(database, provider, purchase)
    async with database.transaction() as conn:
        held = await purchases.held(conn, purchase_id=purchase.id)
        if held.status != "pending":
            return held
        organization = await organizations.get(conn, organization_id=held.organization_id)
        assert organization is not None
        now = organization.simulated_time or wall
        invoice_id = None
        if not isinstance(answer, Declined):
            invoice_id = await _deliver(conn, organization, held, now)
        if answer is not None:
            await payments.record(
                conn,
                organization_id=organization.id,
                transaction=transaction_of(
                    provider,
                    answer,
                    customer_id=held.customer_id,
                    invoice_id=invoice_id,
                    amount_minor=held.amount_minor,
                    currency=held.currency,
                    reason="one_time_payment",
                    now=now,
                ),
            )
        settled = replace(
            held,
            status="declined" if isinstance(answer, Declined) else "paid",
            retry_at=None,
            invoice_id=invoice_id,
            failure_code=answer.code if isinstance(answer, Declined) else None,
            failure_message=answer.message if isinstance(answer, Declined) else None,
            updated_at=now,
        )
        await purchases.settle(conn, settled)
    return settled


async def _charge(database: Database, provider: Payments, purchase: Purchase) -> Charged | Declined | None:
    """None: there was nothing to charge. Everything the provider is told was frozen with the promise."""
    if purchase.payment_method_id is None:
        return None
    async with database.reading() as conn:
        method = await payments.method(conn, method_id=purchase.payment_method_id)
    assert method is not None  # the purchase refers to it
    return await provider.charge_saved(
        card_of(method),
        amount_minor=purchase.amount_minor,
        currency=purchase.currency,
        key=f"purchase:{purchase.id}",
        today=local_day(purchase.created_at, "UTC"),
    )


async def _deliver(conn: Conn, organization: Organization, purchase: Purchase, now: datetime) -> UUID:
    """What was paid for goes into the wallet, with its invoice and its news; returns the invoice."""
    subscription = await subscriptions.get(
        conn, organization_id=organization.id, subscription_id=purchase.subscription_id, lock=True
    )
    assert subscription is not None
    home, wallet = await _home(conn, organization, subscription, now)
    filled, moved = bought(wallet, purchase.quantity)
    invoice_id, count = await _issue(conn, organization, subscription, purchase, now)
    await post_and_tell(
        conn, organization, [Posting(key_of(home), filled, moved, reference=invoice_id)], now=now
    )
    people = await customers.of_ids(
        conn, organization_id=organization.id, customer_ids={purchase.customer_id}
    )
    type_, data = purchase_news(
        purchase.model,
        purchase.quantity,
        subscription_id=ids.show(ids.SUBSCRIPTION, subscription.id),
        customer_id=people[purchase.customer_id].reference,
        invoice_id=ids.show(ids.INVOICE, invoice_id),
        invoice_number=number(organization.invoice_prefix, count),
        name=purchase.description,
        currency=purchase.currency,
    )
    happened = DomainEvent(type_, purchase.customer_id, data)
    await domain_events.record(conn, [happened], organization_id=organization.id, now=now)
    return invoice_id


async def _home(
    conn: Conn, organization: Organization, subscription: Subscription, now: datetime
) -> tuple[Subscription, Wallet]:
    """The wallet it was bought for. Credits of a subscription that was canceled while the charge was on its way go
    where its other credits went: to the customer's next one, if there is one by now."""
    wallet = await hold_wallet(conn, organization=organization, subscription=subscription, now=now)
    must(wallet is not None, "a prepaid subscription has a wallet", subscription=subscription.id)
    assert wallet is not None
    if wallet.model is Model.CREDITS and subscription.state is Status.CANCELED:
        following = await subscriptions.live_of_customer(
            conn, organization_id=organization.id, customer_id=subscription.customer_id
        )
        if following is not None:
            other = await hold_wallet(conn, organization=organization, subscription=following, now=now)
            if other is not None and other.model is Model.CREDITS:
                return following, other
    return subscription, wallet


async def _issue(
    conn: Conn, organization: Organization, subscription: Subscription, purchase: Purchase, now: datetime
) -> tuple[UUID, int]:
    """A paid invoice of its own, dated with the usage period it was bought in; its id and number."""
    plan = await catalog.plan(conn, organization_id=organization.id, plan_id=subscription.plan_id)
    anchor = subscription.anchor
    assert plan is not None and anchor is not None
    lived = period(anchor, index_at(anchor, now, subscription.timezone), subscription.timezone)
    line = purchase_line(purchase.description, purchase.amount_minor, purchase.currency, _evidence(purchase))
    invoice_id = new_id()
    count = await invoices.issue(
        conn,
        invoices.Draft(
            id=invoice_id,
            organization_id=organization.id,
            customer_id=purchase.customer_id,
            subscription_id=subscription.id,
            status="paid",
            invoice_type=_INVOICE_TYPES[purchase.model],
            currency=purchase.currency,
            subtotal=line.amount,
            tax=0,
            period_index=None,
            period_start=lived.start,
            period_end=lived.end,
            issued_at=now,
            due_at=now + DUE_AFTER,
            collect_at=None,
            plan_name=plan.name,
            created_at=now,
        ),
        [line],
    )
    return invoice_id, count


def _evidence(purchase: Purchase) -> Mapping[str, Any]:
    found = {
        "purchaseId": ids.show(ids.PURCHASE, purchase.id),
        "amount": text(from_minor(purchase.amount_minor, purchase.currency)),
        purchase.kind: text(purchase.quantity),
    }
    if purchase.credit_pack_id is not None:
        found["creditPackId"] = ids.show(ids.CREDIT_PACK, purchase.credit_pack_id)
    return found


async def finish_pending(database: Database, provider: Payments, *, wall: datetime) -> None:
    """Go on with what a crash, or a provider that did not answer, left behind. Raises only when the database is away."""
    async with database.reading() as conn:
        pending = await purchases.claim_pending(
            conn, wall=wall, again_at=wall + PURCHASE_RETRY_AFTER, limit=PURCHASES_PER_CLAIM
        )
    for each in pending:
        try:
            await complete(database, provider, each, wall=wall)
        except (psycopg.OperationalError, PoolTimeout):
            raise
        except Exception as error:  # one that cannot be settled does not stop the others
            log.exception("purchase %s could not be settled", each.id, exc_info=error)
