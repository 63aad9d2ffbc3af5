"""Close a usage period: measure, rate, make lines with their evidence, invoice, and open the next.

The lines are made under one snapshot, so the chain's head, the events and the rollups are seen at one moment;
they are written in a transaction of its own, which locks the subscription and begins anew when it is no longer
what the lines were made for. (Writing under the snapshot would fail whenever an event or another invoice got in
between.) A repeat is a no-op: what is closed already is not due. The unique index on (subscription, period, type)
is the last judge.
"""

import contextlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from uuid import UUID

from tallystick.core import evidence, ids
from tallystick.core.invoicing import Line, Part, base_line, number, subtotal, usage_lines
from tallystick.core.limits import DUE_AFTER
from tallystick.core.meters import LatePolicy, fold
from tallystick.core.money import text
from tallystick.core.proof import set_digest
from tallystick.core.subscriptions import Status, Step, move, periods_per_invoice
from tallystick.core.times import Period, boundary
from tallystick.errors import must
from tallystick.flows import settle_late
from tallystick.flows.books import load_catalogue
from tallystick.flows.rate_period import RatedFeature, UsagePeriod, event_set, rate_features
from tallystick.flows.settle_late import Findings, look, still_so
from tallystick.flows.subscribe import base_evidence, billing_period, grace_of, paid_until
from tallystick.store import catalog, customers, db, invoices, late, organizations, subscriptions
from tallystick.store.customers import Customer
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
    adjustments: list[UUID]  # invoices of earlier periods that this close made too

    @property
    def outcome(self) -> str:
        return "canceled" if self.ended else "invoiced" if self.invoice_id else "no_charge"


@dataclass(frozen=True, slots=True)
class Prepared:
    """An invoice as it would be made of one usage period, read under one snapshot and not yet written."""

    subscription: Subscription
    after: Subscription  # as the close leaves it
    organization: Organization
    customer: Customer
    plan_name: str
    closing: Period
    position: int
    lines: list[Line]
    kind: str
    covered: Period
    ends: bool
    findings: Findings | None
    on_time: list[UUID]  # marked late when they arrived, yet in time for this invoice

    @property
    def total(self) -> int:
        return subtotal(self.lines)


_OVERTAKEN_MAX = 10
"""Tries before we go on: what is judged after the period's end is marked as late, and found all the same."""


class _Overtaken(Exception):
    """Usage of the last period was stored since we looked, by somebody who judged that it was still open.

    No later close would find it. From the head's lock on (`db.bump`) nobody can store any more of that.
    """


async def close_period(
    database: Database, *, organization_id: UUID, subscription_id: UUID, now: datetime
) -> Closed | None:
    """Close the open period of one subscription if it is due at `now`; None when there is nothing to close."""
    for attempt in count():
        async with database.transaction(snapshot=True) as conn:
            subscription = await subscriptions.get(
                conn, organization_id=organization_id, subscription_id=subscription_id
            )
            if subscription is None or subscription.closes_at is None or subscription.closes_at > now:
                return None
            organization = await organizations.get(conn, organization_id=organization_id)
            must(organization is not None, "a subscription has an organization", subscription=subscription_id)
            assert organization is not None
            prepared = await prepare(conn, organization, subscription, now)
        with contextlib.suppress(_Overtaken):
            async with database.transaction() as conn:
                locked = await subscriptions.get(
                    conn, organization_id=organization_id, subscription_id=subscription_id, lock=True
                )
                if locked == subscription and (
                    prepared.findings is None or await still_so(conn, prepared.findings)
                ):
                    return await _write(conn, prepared, now, patient=attempt < _OVERTAKEN_MAX)
    return None


async def prepare(
    conn: Conn, organization: Organization, subscription: Subscription, now: datetime
) -> Prepared:
    """The invoice of the open period: its usage, what is late from before, and the next base in advance."""
    start, end = subscription.period_start, subscription.period_end
    must(start is not None and end is not None, "an active subscription has a period", id=subscription.id)
    assert start is not None and end is not None
    closing = Period(start, end)
    customer = await customers.find(
        conn,
        organization_id=organization.id,
        reference=ids.show(ids.CUSTOMER, subscription.customer_id),
    )
    plan = await catalog.plan(conn, organization_id=organization.id, plan_id=subscription.plan_id)
    assert customer is not None and plan is not None
    ends = subscription.state is Status.CANCELED or (
        subscription.cancel_at is not None and subscription.cancel_at <= end
    )
    zone = customer.timezone or organization.timezone
    after = (
        _ended(subscription, now) if ends else _next_period(subscription, zone, grace_of(organization), now)
    )
    position = await db.head_position(conn, organization_id=organization.id)
    base = [] if ends else await _next_base(conn, after, plan.name)
    used = await _used(conn, subscription, closing, position) if start < end else []
    findings = await look(conn, organization, customer_id=subscription.customer_id)
    news = [] if findings is None else findings.news
    late_lines = [line for each in news for line in each.by(LatePolicy.NEXT_PERIOD)]
    marks = [] if findings is None else findings.waiting
    return Prepared(
        subscription=subscription,
        after=after,
        organization=organization,
        customer=customer,
        plan_name=plan.name,
        closing=closing,
        position=position,
        lines=[*base, *used, *late_lines],
        kind="recurring" if base else "overage",
        covered=billing_period(after, after.period_index) if base else closing,
        ends=ends,
        findings=findings,
        on_time=[mark.event_id for mark, _ in marks if mark.occurred_at in closing],
    )


async def _used(conn: Conn, subscription: Subscription, closing: Period, position: int) -> list[Line]:
    """Lines for each feature whose usage of the period costs something, with the digests of their events."""
    offered = await load_catalogue(conn, subscription.organization_id)
    lived = UsagePeriod(
        subscription.id,
        subscription.customer_id,
        subscription.plan_id,
        subscription.period_index,
        closing,
        subscription.timezone,
    )
    lines: list[Line] = []
    for each in await rate_features(conn, offered, lived, position=position):
        for line in usage_lines(
            each.basis,
            each.rated,
            feature_id=each.feature.id,
            feature_name=each.feature.name,
            unit=each.feature.unit_name or "units",
            currency=subscription.currency,
        ):
            whose = replace(line, subscription_id=subscription.id)
            lines.append(await _with_events(conn, subscription.customer_id, each, whose))
    return lines


async def _with_events(conn: Conn, customer_id: UUID, again: RatedFeature, line: Line) -> Line:
    proof = line.evidence or {}
    if line.part is not Part.USAGE:
        return line
    behind = await event_set(
        conn, customer_id=customer_id, basis=again.basis, span=evidence.frozen_span(proof["span"])
    )
    first = evidence.frozen_span(proof["span"]).start == again.basis.period.start
    if first or again.basis.meter.adds_up:
        counted = fold(again.basis.meter, behind.measured).quantity
        must(
            text(counted) == proof["used"],
            "the rollups say what the events say",
            feature=again.feature.code,
            rollups=proof["used"],
            events=text(counted),
        )
    return replace(
        line,
        evidence={**proof, "events": {"count": len(behind.leaves), "digest": set_digest(behind.leaves)}},
    )


async def _write(conn: Conn, prepared: Prepared, now: datetime, *, patient: bool) -> Closed:
    subscription, organization = prepared.subscription, prepared.organization
    total, invoice_id, invoice_number = prepared.total, new_id(), None
    if prepared.lines:
        issued = await invoices.issue(
            conn,
            invoices.Draft(
                id=invoice_id,
                organization_id=organization.id,
                customer_id=subscription.customer_id,
                subscription_id=subscription.id,
                status="outstanding" if total > 0 else "paid",
                invoice_type=prepared.kind,
                currency=subscription.currency,
                subtotal=total,
                tax=0,
                period_index=subscription.period_index,
                period_start=prepared.covered.start,
                period_end=prepared.covered.end,
                issued_at=now,
                due_at=now + DUE_AFTER,
                collect_at=now if total > 0 else None,
                plan_name=prepared.plan_name,
                created_at=now,
            ),
            prepared.lines,
        )
        invoice_number = number(organization.invoice_prefix, issued)
    await late.close(
        conn,
        late.ClosedPeriod(
            subscription_id=subscription.id,
            period_index=subscription.period_index,
            organization_id=organization.id,
            customer_id=subscription.customer_id,
            plan_id=subscription.plan_id,
            timezone=subscription.timezone,
            period_start=prepared.closing.start,
            period_end=prepared.closing.end,
            position=prepared.position,
            closed_at=now,
        ),
    )
    adjustments: list[UUID] = []
    if prepared.findings is not None:
        adjustments = await settle_late.write(
            conn, organization, prepared.findings, next_invoice=invoice_id, now=now
        )
        await late.forget(conn, customer_id=subscription.customer_id, event_ids=prepared.on_time)
    await late.wake(conn, customer_id=subscription.customer_id, now=now)
    after = prepared.after
    await subscriptions.update(conn, after)
    if after.status != subscription.status or after.timezone != subscription.timezone:
        await db.bump(conn, organization_id=organization.id, customer_id=subscription.customer_id)
    ended = after.status != subscription.status
    if (
        patient
        and ended
        and await late.overtaken(
            conn, customer_id=subscription.customer_id, span=prepared.closing, position=prepared.position
        )
    ):
        raise _Overtaken
    return Closed(
        subscription.id,
        subscription.period_index,
        prepared.customer.full_name or prepared.customer.reference,
        invoice_id if prepared.lines else None,
        invoice_number,
        total,
        prepared.ends,
        adjustments,
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
