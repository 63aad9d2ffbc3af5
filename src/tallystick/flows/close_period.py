"""Close a usage period: measure, rate, make lines with their evidence, invoice, and open the next.

The lines are made under one snapshot, so the chain's head, the events and the rollups are seen at one moment;
they are written in a transaction of its own, which locks the subscription and begins anew when it is no longer
what the lines were made for. (Writing under the snapshot would fail whenever an event or another invoice got in
between.) A repeat is a no-op: what is closed already is not due. The unique index on (subscription, period, type)
is the last judge.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tallystick.core import ids, pricing
from tallystick.core.catalog import FeatureType, Terms, terms_over
from tallystick.core.invoicing import Charge, Line, base_line, charge, number, subtotal, usage_line
from tallystick.core.limits import DUE_AFTER
from tallystick.core.meters import Meter, in_force
from tallystick.core.money import text
from tallystick.core.proof import set_digest
from tallystick.core.subscriptions import Status, Step, move, periods_per_invoice
from tallystick.core.times import Period, boundary, show_instant
from tallystick.errors import must
from tallystick.flows.books import load_catalogue
from tallystick.flows.measure_usage import EventSet, event_set, measure_usage
from tallystick.flows.subscribe import base_evidence, billing_period, grace_of, paid_until
from tallystick.store import catalog, customers, db, invoices, organizations, subscriptions
from tallystick.store.db import Conn, Database, new_id
from tallystick.store.organizations import Organization
from tallystick.store.subscriptions import Subscription


@dataclass(frozen=True, slots=True)
class Closed:
    """What a close did: perhaps an invoice, perhaps the end of the subscription."""

    subscription_id: UUID
    period_index: int
    customer_name: str
    invoice_id: UUID | None
    invoice_number: str | None
    total: int
    ended: bool

    @property
    def outcome(self) -> str:
        return "canceled" if self.ended else "invoiced" if self.invoice_id else "no_charge"


async def close_period(
    database: Database, *, organization_id: UUID, subscription_id: UUID, now: datetime
) -> Closed | None:
    """Close the open period of one subscription if it is due at `now`; None when there is nothing to close."""
    while True:
        async with database.transaction(snapshot=True) as conn:
            subscription = await subscriptions.get(
                conn, organization_id=organization_id, subscription_id=subscription_id
            )
            if subscription is None or subscription.closes_at is None or subscription.closes_at > now:
                return None
            organization = await organizations.get(conn, organization_id=organization_id)
            must(organization is not None, "a subscription has an organization", subscription=subscription_id)
            assert organization is not None
            closing = _open_period(subscription)
            used = (
                await usage_lines(conn, organization, subscription, closing)
                if closing.start < closing.end
                else []
            )
        async with database.transaction() as conn:
            locked = await subscriptions.get(
                conn, organization_id=organization_id, subscription_id=subscription_id, lock=True
            )
            if locked == subscription:
                return await _close(conn, organization, subscription, used, now)


def _open_period(subscription: Subscription) -> Period:
    start, end = subscription.period_start, subscription.period_end
    assert start is not None and end is not None
    return Period(start, end)


async def _close(
    conn: Conn, organization: Organization, subscription: Subscription, used: list[Line], now: datetime
) -> Closed:
    closing = _open_period(subscription)
    canceled = subscription.state is Status.CANCELED
    ends = canceled or (subscription.cancel_at is not None and subscription.cancel_at <= closing.end)
    customer = await customers.find(
        conn,
        organization_id=organization.id,
        reference=ids.show(ids.CUSTOMER, subscription.customer_id),
    )
    plan = await catalog.plan(conn, organization_id=organization.id, plan_id=subscription.plan_id)
    assert customer is not None and plan is not None

    zone = customer.timezone or organization.timezone
    after = (
        _ended(subscription, now) if ends else _next_period(subscription, zone, grace_of(organization), now)
    )
    lines = [] if ends else await _next_base(conn, after, plan.name)
    kind = "recurring" if lines else "overage"
    covered = billing_period(after, after.period_index) if lines else closing
    lines += used

    invoice_id = invoice_number = None
    total = subtotal(lines)
    if lines:
        invoice_id = new_id()
        count = await invoices.issue(
            conn,
            invoices.Draft(
                id=invoice_id,
                organization_id=organization.id,
                customer_id=customer.id,
                subscription_id=subscription.id,
                status="outstanding" if total > 0 else "paid",
                invoice_type=kind,
                currency=subscription.currency,
                subtotal=total,
                tax=0,
                period_index=subscription.period_index,
                period_start=covered.start,
                period_end=covered.end,
                issued_at=now,
                due_at=now + DUE_AFTER,
                collect_at=now if total > 0 else None,
                plan_name=plan.name,
                created_at=now,
            ),
            lines,
        )
        invoice_number = number(organization.invoice_prefix, count)
    await subscriptions.update(conn, after)
    if after.status != subscription.status or after.timezone != subscription.timezone:
        await db.bump(conn, organization_id=organization.id, customer_id=customer.id)
    return Closed(
        subscription.id,
        subscription.period_index,
        customer.full_name or customer.reference,
        invoice_id,
        invoice_number,
        total,
        ends,
    )


async def _next_base(conn: Conn, opened: Subscription, plan_name: str) -> list[Line]:
    """The base of a billing period, in advance, when the usage period just opened begins one."""
    length = periods_per_invoice(opened.billing_interval)
    if opened.price_id is None or length is None or opened.period_index % length:
        return []
    price = await catalog.price(conn, organization_id=opened.organization_id, price_id=opened.price_id)
    assert price is not None
    covered = billing_period(opened, opened.period_index)
    return [base_line(plan_name, price.amount_minor, opened.currency, base_evidence(price, covered, opened))]


async def usage_lines(
    conn: Conn, organization: Organization, subscription: Subscription, closing: Period
) -> list[Line]:
    """A line for each feature whose usage of the period costs something."""
    offered = await load_catalogue(conn, organization.id)
    features = {feature.id: feature for feature in offered.features.values()}
    position = await db.head_position(conn, organization_id=organization.id)
    lines = []
    for feature_id, versions in offered.plans.get(subscription.plan_id, {}).items():
        feature = features[feature_id]
        terms = terms_over(versions, closing)
        if feature.type is not FeatureType.USAGE or terms is None or not terms.enabled:
            continue
        meter = in_force(offered.versions[feature_id], closing.start)
        usage = await measure_usage(conn, customer_id=subscription.customer_id, meter=meter, span=closing)
        charged = charge(terms, usage)
        if not charged.billable:
            continue
        behind = await event_set(conn, customer_id=subscription.customer_id, meter=meter, span=closing)
        must(
            behind.fold.quantity == usage.quantity,
            "the rollups say what the events say",
            feature=feature.code,
            rollups=text(usage.quantity),
            events=text(behind.fold.quantity),
        )
        lines.append(
            usage_line(
                charged,
                terms,
                feature_name=feature.name,
                unit=feature.unit_name or "units",
                currency=subscription.currency,
                evidence=_evidence(subscription, closing, terms, meter, charged, behind, position),
            )
        )
    return lines


def _evidence(
    subscription: Subscription,
    closing: Period,
    terms: Terms,
    meter: Meter,
    charged: Charge,
    behind: EventSet,
    position: int,
) -> dict[str, Any]:
    """All that is needed to derive the line again from raw events, and to notice when they are not the same."""
    return {
        "price": {
            "id": ids.show(ids.PLAN_FEATURE, terms.id),
            "version": terms.version,
            **pricing.to_json(terms.price),
        },
        "meter": {
            "id": ids.show(ids.METER, meter.id),
            "version": meter.version,
            "eventCode": meter.event_code,
            "aggregation": meter.aggregation.value,
            "aggregationProperty": meter.property_name,
            "filters": [
                {"property": each.property_name, "operator": each.operator.value, "value": each.value}
                for each in meter.filters
            ],
        },
        "period": {
            "index": subscription.period_index,
            "start": show_instant(closing.start),
            "end": show_instant(closing.end),
            "timezone": subscription.timezone,
        },
        "instants": [closing.start.isoformat(), closing.end.isoformat()],
        "included": None if charged.included is None else text(charged.included),
        "used": text(charged.used),
        "overage": text(charged.billable),
        "components": [component.to_json() for component in charged.components],
        "exact": text(charged.exact),
        "events": {"count": len(behind.leaves), "digest": set_digest(behind.leaves)},
        "chainPosition": position,
    }


def _ended(subscription: Subscription, now: datetime) -> Subscription:
    """Closed for good, unless it was canceled after this period: then the short rest is closed next."""
    if subscription.state is Status.CANCELED:
        end, ended_at = subscription.period_end, subscription.ended_at
        if end is not None and ended_at is not None and end < ended_at:
            index = subscription.period_index + 1
            return replace(
                subscription,
                period_index=index,
                period_start=end,
                period_end=ended_at,
                closes_at=now,
                updated_at=now,
            )
        return replace(subscription, closes_at=None, updated_at=now)
    return replace(
        subscription,
        status=move(subscription.state, Step.CANCEL),
        closes_at=None,
        ended_at=subscription.cancel_at,
        updated_at=now,
    )


def _next_period(subscription: Subscription, zone: str, grace: timedelta, now: datetime) -> Subscription:
    """The next period follows by arithmetic; a new zone of the customer counts from here on.

    With the boundaries moves the end of what is paid, and so a cancellation that waits for it.
    """
    index = subscription.period_index + 1
    opened = replace(subscription, period_index=index)
    if zone != subscription.timezone:
        zones = [*(subscription.zones or [(0, subscription.timezone)]), (index + 1, zone)]
        opened = replace(opened, timezone=zone, zones=zones)
        if opened.cancel_at is not None:
            opened = replace(opened, cancel_at=paid_until(opened))
    assert opened.anchor is not None
    end = boundary(opened.anchor, index + 1, zone)
    return replace(
        opened,
        period_start=subscription.period_end,
        period_end=end,
        closes_at=end + grace,
        updated_at=now,
    )
