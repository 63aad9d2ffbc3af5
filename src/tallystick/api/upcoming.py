"""What a customer owes right now: the open period as its close would bill it, by the same code."""

from dataclasses import replace
from datetime import datetime

from tallystick.api.invoices import LineOut, show_line
from tallystick.api.operations import Call, Operation, Reply
from tallystick.api.subscriptions import find_subscription
from tallystick.api.wire import Out
from tallystick.core import ids
from tallystick.core.limits import FUTURE_MAX
from tallystick.core.times import show_instant
from tallystick.errors import Problem
from tallystick.flows.close_period import prepare, read_for
from tallystick.store import db


class UpcomingInvoice(Out, kw_only=True):
    subscription_id: str
    customer_id: str
    invoice_type: str
    currency: str
    subtotal: int
    tax_amount: int = 0
    total: int
    period_start: str
    period_end: str
    closes_at: str
    usage_until: str
    line_items: list[LineOut]
    object: str = "upcoming_invoice"
    livemode: bool


async def upcoming(call: Call[None]) -> Reply:
    async with db.one_moment(call.conn):
        subscription = await find_subscription(call)
        if subscription.closes_at is None:
            raise Problem("subscription_not_active", "This subscription has no invoice to come.")
        reads = await read_for(call.conn, call.organization, [subscription])
        prepared = await prepare(call.conn, reads, subscription, call.now)
    return Reply(
        UpcomingInvoice(
            subscription_id=ids.show(ids.SUBSCRIPTION, subscription.id),
            customer_id=prepared.customer.reference,
            invoice_type=prepared.kind,
            currency=subscription.currency,
            subtotal=prepared.total,
            total=prepared.total,
            period_start=show_instant(prepared.covered.start),
            period_end=show_instant(prepared.covered.end),
            closes_at=show_instant(subscription.closes_at),
            usage_until=show_instant(min(_counted_until(call), prepared.closing.end)),
            line_items=[show_line(replace(line, id=None), subscription.currency) for line in prepared.lines],
            livemode=call.live,
        )
    )


def _counted_until(call: Call[None]) -> datetime:
    """Clients' clocks differ: what lies a little ahead is accepted, and counted as the close will count it."""
    return max(call.now, call.wall) + FUTURE_MAX


OPERATIONS = (
    Operation(
        name="subscriptions.upcomingInvoice",
        method="GET",
        path="/subscriptions/{id}/upcoming-invoice",
        summary="What the customer owes right now: the open period as its close would bill it",
        resource="subscription",
        returns=UpcomingInvoice,
        handler=upcoming,
        errors=("subscription_not_found", "subscription_not_active"),
    ),
)
