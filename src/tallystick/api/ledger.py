"""The ledger: every movement of credits and of balances, as it was written (behaviour.md §12)."""

from typing import Any
from uuid import UUID

from msgspec import field

from tallystick.api.customers import find as find_customer
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.subscriptions import find_subscription
from tallystick.api.wire import Out
from tallystick.core import ids
from tallystick.core.money import text
from tallystick.core.times import show_instant
from tallystick.core.wallets import Cause
from tallystick.store import wallets
from tallystick.store.customers import Customer
from tallystick.store.wallets import Entry


class LedgerEntry(Out, kw_only=True):
    """An amount that left one account and came to another: in credits, or in rate units of a balance.

    `batch` is the commit whose events were paid for, `invoiceId` what was paid, `eventId` the voided event,
    `reservationId` what was set aside for.
    """

    id: str
    subscription_id: str
    customer_id: str
    period_index: int
    source: str = field(name="from")
    target: str = field(name="to")
    amount: int
    amount_decimal: str
    cause: str
    reason: str | None
    batch: int | None
    invoice_id: str | None
    event_id: str | None
    reservation_id: str | None
    created_at: str
    object: str = "ledger_entry"
    livemode: bool


def show(entry: Entry, *, customer: str, live: bool) -> LedgerEntry:
    return LedgerEntry(
        id=ids.show(ids.LEDGER_ENTRY, entry.id),
        subscription_id=ids.show(ids.SUBSCRIPTION, entry.subscription_id),
        customer_id=customer,
        period_index=entry.period_index,
        source=entry.source,
        target=entry.target,
        amount=int(entry.amount),
        amount_decimal=text(entry.amount),
        cause=entry.cause,
        reason=entry.reason,
        batch=entry.batch,
        invoice_id=_reference(entry, ids.INVOICE, Cause.PURCHASE, Cause.TOPUP),
        event_id=_reference(entry, ids.EVENT, Cause.REFUND),
        reservation_id=_reference(entry, ids.RESERVATION, Cause.HOLD, Cause.RELEASE),
        created_at=show_instant(entry.created_at),
        livemode=live,
    )


def _reference(entry: Entry, prefix: str, *causes: Cause) -> str | None:
    return ids.show(prefix, entry.reference) if entry.reference and entry.cause in causes else None


async def of_customer(call: Call[None]) -> Reply:
    return await _listed(call, await find_customer(call, call.path["id"]), None)


async def of_subscription(call: Call[None]) -> Reply:
    subscription = await find_subscription(call)
    customer = await find_customer(call, ids.show(ids.CUSTOMER, subscription.customer_id))
    return await _listed(call, customer, subscription.id)


async def _listed(call: Call[Any], customer: Customer, subscription_id: UUID | None) -> Reply:
    limit, before = call.page(ids.LEDGER_ENTRY)
    found = await wallets.ledger(
        call.conn,
        customer_id=customer.id,
        subscription_id=subscription_id,
        before=before,
        limit=limit + 1,
    )
    shown = [show(each, customer=customer.reference, live=call.live) for each in found]
    return Reply(page_of(shown, limit, lambda each: str(each.id)))


OPERATIONS = (
    Operation(
        name="subscriptions.ledger",
        method="GET",
        path="/subscriptions/{id}/ledger",
        summary="Every movement of a subscription's credits or balance, newest first",
        resource="subscription",
        returns=Page[LedgerEntry],
        handler=of_subscription,
        query=("limit", "cursor"),
        errors=("subscription_not_found",),
    ),
    Operation(
        name="customers.ledger",
        method="GET",
        path="/customers/{id}/ledger",
        summary="Every movement of a customer's credits and balances, newest first",
        resource="customer",
        returns=Page[LedgerEntry],
        handler=of_customer,
        query=("limit", "cursor"),
        errors=("customer_not_found",),
    ),
)
