"""Charge what is owed: the provider is asked outside any transaction, with a key that never charges twice."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tallystick.core.subscriptions import Status
from tallystick.core.times import local_day
from tallystick.errors import Problem, must
from tallystick.flows.subscribe import activate, first_invoice
from tallystick.providers.payments import Card, Challenge, Charged, Declined, Payments, SavedCard
from tallystick.store import catalog, db, invoices, organizations, payments, subscriptions
from tallystick.store.db import Database, new_id
from tallystick.store.organizations import Organization
from tallystick.store.payments import PaymentMethod, Transaction
from tallystick.store.subscriptions import Subscription


@dataclass(frozen=True, slots=True)
class Checkout:
    """What the checkout page shows."""

    organization: Organization
    subscription: Subscription
    plan_name: str
    amount_minor: int
    billing_interval: str

    @property
    def is_open(self) -> bool:
        return self.subscription.state is Status.PENDING_PAYMENT


async def find_checkout(database: Database, *, token: str) -> Checkout:
    """By the secret in the address."""
    async with database.reading() as conn:
        subscription = await subscriptions.by_checkout(conn, token=token)
        if subscription is None or subscription.price_id is None:
            raise Problem("not_found", "This checkout link is not valid, or no longer.")
        organization = await organizations.get(conn, organization_id=subscription.organization_id)
        plan = await catalog.plan(
            conn, organization_id=subscription.organization_id, plan_id=subscription.plan_id
        )
        price = await catalog.price(
            conn, organization_id=subscription.organization_id, price_id=subscription.price_id
        )
    assert organization is not None and plan is not None and price is not None
    return Checkout(organization, subscription, plan.name, price.amount_minor, price.billing_interval)


async def pay_checkout(
    database: Database, provider: Payments, checkout: Checkout, card: Card, *, now: datetime
) -> Charged | Declined | Challenge:
    """Charge the first base price; when it succeeds the subscription is active and its first invoice paid."""
    if not checkout.is_open:
        raise Problem("invalid_subscription_status", "This checkout is already completed.")
    answer = await provider.charge_card(
        card,
        amount_minor=checkout.amount_minor,
        currency=checkout.subscription.currency,
        key=f"checkout:{checkout.subscription.id}",
        today=local_day(now, checkout.subscription.timezone),
    )
    if not isinstance(answer, Challenge):
        await _settle_checkout(database, provider, checkout, answer, now=now)
    return answer


async def confirm_checkout(
    database: Database,
    provider: Payments,
    checkout: Checkout,
    *,
    challenge: str,
    agreed: bool,
    now: datetime,
) -> Charged | Declined:
    """Go on after 3-D Secure."""
    if not checkout.is_open:
        raise Problem("invalid_subscription_status", "This checkout is already completed.")
    answer = await provider.confirm(
        challenge,
        agreed=agreed,
        amount_minor=checkout.amount_minor,
        currency=checkout.subscription.currency,
        key=f"checkout:{checkout.subscription.id}",
        today=local_day(now, checkout.subscription.timezone),
    )
    await _settle_checkout(database, provider, checkout, answer, now=now)
    return answer


async def _settle_checkout(
    database: Database, provider: Payments, checkout: Checkout, answer: Charged | Declined, *, now: datetime
) -> None:
    organization = checkout.organization
    async with database.transaction() as conn:
        subscription = await subscriptions.get(
            conn,
            organization_id=organization.id,
            subscription_id=checkout.subscription.id,
            lock=True,
        )
        must(subscription is not None, "a checkout has a subscription", checkout=checkout.subscription.id)
        assert subscription is not None
        invoice_id = None
        # When somebody else finished or ended it meanwhile, the attempt is recorded all the same: money that was
        # taken is never unseen. The same charge heard twice has the same reference, and is one row.
        if isinstance(answer, Charged) and subscription.state is Status.PENDING_PAYMENT:
            await payments.save_method(
                conn,
                organization_id=organization.id,
                method=_method(provider, subscription.customer_id, answer.card, now),
            )
            subscription = await activate(conn, organization=organization, subscription=subscription, now=now)
            invoice_id = await first_invoice(
                conn, organization=organization, subscription=subscription, now=now
            )
        await payments.record(
            conn,
            organization_id=organization.id,
            transaction=transaction_of(
                provider,
                answer,
                customer_id=subscription.customer_id,
                invoice_id=invoice_id,
                amount_minor=checkout.amount_minor,
                currency=subscription.currency,
                reason="first_subscription_payment",
                now=now,
            ),
        )
        if invoice_id is not None:  # last: the invoice's number locked the organization before the head
            await db.bump(conn, organization_id=organization.id, customer_id=subscription.customer_id)


async def collect_payment(
    database: Database, provider: Payments, *, organization_id: UUID, invoice_id: UUID, now: datetime
) -> bool | None:
    """Charge an outstanding invoice to the saved card. None when there was nothing to do.

    A crash between the charge and its record is harmless: the promise stays, and the provider, asked again
    with the same key, answers with the same charge. A declined charge leaves the invoice outstanding.
    """
    async with database.reading() as conn:
        invoice = await invoices.get(conn, organization_id=organization_id, invoice_id=invoice_id)
        if invoice is None or invoice.status != "outstanding":
            return None
        method = await payments.default_method(conn, customer_id=invoice.customer_id)
    answer: Charged | Declined
    if method is None:
        answer = Declined(f"none_{secrets.token_hex(8)}", "no_payment_method", "No card is saved.")
    else:
        answer = await provider.charge_saved(
            card_of(method),
            amount_minor=invoice.total,
            currency=invoice.currency,
            key=f"invoice:{invoice.id}",
            today=local_day(now, "UTC"),
        )
    async with database.transaction() as conn:
        claimed = await invoices.claim_collection(conn, invoice_id=invoice.id, now=now)
        if not claimed and not isinstance(answer, Charged):
            return None
        await payments.record(
            conn,
            organization_id=organization_id,
            transaction=transaction_of(
                provider,
                answer,
                customer_id=invoice.customer_id,
                invoice_id=invoice.id,
                amount_minor=invoice.total,
                currency=invoice.currency,
                reason="recurring_billing" if invoice.invoice_type == "recurring" else "overage",
                now=now,
            ),
        )
        if claimed and isinstance(answer, Charged):
            await invoices.set_status(conn, invoice_id=invoice.id, status="paid", now=now)
    return isinstance(answer, Charged) if claimed else None


def card_of(method: PaymentMethod) -> SavedCard:
    """As the provider knows it."""
    return SavedCard(method.token, method.brand, method.last4, method.exp_month, method.exp_year)


def _method(provider: Payments, customer_id: UUID, card: SavedCard, now: datetime) -> PaymentMethod:
    must(len(card.last4) == 4, "only the last digits of a card are kept")
    return PaymentMethod(
        id=new_id(),
        customer_id=customer_id,
        provider=provider.name,
        token=card.token,
        brand=card.brand,
        last4=card.last4,
        exp_month=card.exp_month,
        exp_year=card.exp_year,
        is_default=True,
        created_at=now,
    )


def transaction_of(
    provider: Payments,
    answer: Charged | Declined,
    *,
    customer_id: UUID,
    invoice_id: UUID | None,
    amount_minor: int,
    currency: str,
    reason: str,
    now: datetime,
) -> Transaction:
    paid = isinstance(answer, Charged)
    return Transaction(
        id=new_id(),
        customer_id=customer_id,
        invoice_id=invoice_id,
        provider=provider.name,
        provider_reference=answer.reference,
        status="succeeded" if paid else "failed",
        gross_amount=amount_minor,
        subtotal=amount_minor,
        tax=0,
        currency=currency,
        reason=reason,
        failure_code=None if isinstance(answer, Charged) else answer.code,
        failure_message=None if isinstance(answer, Charged) else answer.message,
        paid_at=now if paid else None,
        created_at=now,
        updated_at=now,
    )
