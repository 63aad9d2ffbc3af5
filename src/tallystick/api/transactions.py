"""Transactions: one row per payment attempt (behaviour.md §17)."""

from typing import Any, Final

from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.wire import MISSING, Maybe, Out
from tallystick.core import ids
from tallystick.core.times import show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.store import payments
from tallystick.store.payments import Transaction

STATUSES: Final = ("pending", "succeeded", "failed", "refunded", "disputed")


class PaymentContext(Out, kw_only=True):
    reason: str
    payment_link_id: None = None
    recovery: None = None


class TransactionOut(Out, kw_only=True):
    payment_context: PaymentContext | None
    id: str
    invoice_id: str | None
    gross_amount: int | None
    subtotal: int | None
    tax_amount: int | None
    presentment_amount: int | None
    currency: str
    provider: str
    payment_method: str | None
    sub_payment_method: str | None
    status: str
    customer_email: str | None
    customer_name: str | None
    failure_code: str | None
    failure_message: str | None
    paid_at: str | None
    created_at: str
    updated_at: str
    available_at: str | None | Maybe = MISSING
    object: str = "transaction"
    livemode: bool


def show(transaction: Transaction, *, live: bool) -> TransactionOut:
    return TransactionOut(
        payment_context=PaymentContext(reason=transaction.reason),
        id=ids.show(ids.TRANSACTION, transaction.id),
        invoice_id=ids.show(ids.INVOICE, transaction.invoice_id) if transaction.invoice_id else None,
        gross_amount=transaction.gross_amount,
        subtotal=transaction.subtotal,
        tax_amount=transaction.tax,
        presentment_amount=transaction.gross_amount,
        currency=transaction.currency,
        provider=transaction.provider,
        payment_method="card",
        sub_payment_method="credit_card",
        status=transaction.status,
        customer_email=transaction.customer_email,
        customer_name=transaction.customer_name,
        failure_code=transaction.failure_code,
        failure_message=transaction.failure_message,
        paid_at=show_instant(transaction.paid_at) if transaction.paid_at else None,
        created_at=show_instant(transaction.created_at),
        updated_at=show_instant(transaction.updated_at),
        livemode=live,
    )


async def get(call: Call[None]) -> Reply:
    found = await payments.get(
        call.conn,
        organization_id=call.organization.id,
        transaction_id=call.identity(ids.TRANSACTION, "id", "transaction_not_found"),
    )
    if found is None:
        raise Problem("transaction_not_found")
    shown = show(found, live=call.live)
    shown.available_at = None
    return Reply(shown)


async def list_all(call: Call[Any]) -> Reply:
    limit, before = call.page(ids.TRANSACTION)
    status = call.query.get("status")
    if status is not None and status not in STATUSES:
        raise InvalidRequest(FieldError("status", f"must be one of {', '.join(STATUSES)}"))
    found = await payments.page(
        call.conn,
        organization_id=call.organization.id,
        before=before,
        limit=limit + 1,
        status=status,
        email=call.query.get("customerEmail"),
    )
    return Reply(page_of([show(each, live=call.live) for each in found], limit, lambda each: str(each.id)))


OPERATIONS = (
    Operation(
        name="transactions.list",
        method="GET",
        path="/transactions",
        summary="List payment attempts, newest first",
        resource="transaction",
        returns=Page[TransactionOut],
        handler=list_all,
        query=("limit", "cursor", "status", "customerEmail"),
    ),
    Operation(
        name="transactions.get",
        method="GET",
        path="/transactions/{id}",
        summary="Get one payment attempt",
        resource="transaction",
        returns=TransactionOut,
        handler=get,
        errors=("transaction_not_found",),
    ),
)
