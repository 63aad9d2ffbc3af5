"""Events that arrived after their period had been billed, and what was decided of each."""

from tallystick.api.customers import find as find_customer
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.usage import named
from tallystick.api.wire import Out
from tallystick.core import ids
from tallystick.core.times import show_instant
from tallystick.store import late
from tallystick.store.late import LateEvent


class LateDecision(Out, kw_only=True):
    """`rule`: next_period, current_period, ignore, before_subscription, outside_subscription or not_counted."""

    rule: str
    outcome: str
    feature_code: str | None = None
    subscription_id: str | None = None
    period_index: int | None = None
    period_start: str | None = None
    period_end: str | None = None
    invoice_id: str | None = None
    line_id: str | None = None


class LateEventOut(Out, kw_only=True):
    id: str
    customer_id: str
    ts: str
    received_at: str
    status: str
    decisions: list[LateDecision]
    object: str = "late_event"
    livemode: bool


async def list_all(call: Call[None]) -> Reply:
    limit, before = call.page(ids.EVENT)
    reference = call.query.get("customerId")
    customer_id = None if reference is None else (await find_customer(call, reference)).id
    found = await late.page(
        call.conn,
        organization_id=call.organization.id,
        customer_id=customer_id,
        before=before,
        limit=limit + 1,
    )
    names = await named(call, {each.customer_id for each in found})
    shown = [_show(each, names[each.customer_id], live=call.live) for each in found]
    return Reply(page_of(shown, limit, lambda each: each.id))


def _show(event: LateEvent, reference: str, *, live: bool) -> LateEventOut:
    return LateEventOut(
        id=ids.show(ids.EVENT, event.event_id),
        customer_id=reference,
        ts=show_instant(event.occurred_at),
        received_at=show_instant(event.received_at),
        status="decided" if event.due_at is None else "pending",
        decisions=[
            LateDecision(
                rule=each["rule"],
                outcome=each["outcome"],
                feature_code=each.get("featureCode"),
                subscription_id=each.get("subscriptionId"),
                period_index=each.get("periodIndex"),
                period_start=each.get("periodStart"),
                period_end=each.get("periodEnd"),
                invoice_id=each.get("invoiceId"),
                line_id=each.get("lineId"),
            )
            for each in event.decisions
        ],
        livemode=live,
    )


OPERATIONS = (
    Operation(
        name="usage.listLateEvents",
        method="GET",
        path="/usage/late-events",
        summary="Events that arrived after their period was billed, with the rule that decided and where the money went",
        resource="usage",
        returns=Page[LateEventOut],
        handler=list_all,
        query=("limit", "cursor", "customerId"),
        errors=("customer_not_found",),
    ),
)
