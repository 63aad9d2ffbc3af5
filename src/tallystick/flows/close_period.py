"""Close a usage period: measure, rate, make lines with their evidence, invoice, and open the next.

The lines are made under one snapshot, so the chain's head, the events and the rollups are seen at one moment;
they are written in a transaction of its own, which locks the subscription and begins anew when it is no longer
what the lines were made for. (Writing under the snapshot would fail whenever an event or another invoice got in
between.) A repeat is a no-op: what is closed already is not due. The unique index on (subscription, period, type)
is the last judge.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count, takewhile
from uuid import UUID

from tallystick.core import evidence
from tallystick.core.catalog import Catalogue, Feature, minimum_over
from tallystick.core.evidence import Basis, PlanPeriod
from tallystick.core.invoicing import (
    Line,
    Part,
    base_line,
    number,
    overdraft_line,
    plan_minimum_line,
    subtotal,
    usage_lines,
)
from tallystick.core.limits import DUE_AFTER
from tallystick.core.meters import LatePolicy
from tallystick.core.money import text
from tallystick.core.subscriptions import Status, Step, move, periods_per_invoice
from tallystick.core.times import Period, boundary
from tallystick.errors import must
from tallystick.flows import settle_late
from tallystick.flows.books import load_catalogue
from tallystick.flows.fill_wallets import key_of, turn_wallets
from tallystick.flows.rate_period import (
    Known,
    Listed,
    UsagePeriod,
    bases,
    digest_events,
    rate_each,
    read_ahead,
)
from tallystick.flows.settle_late import Findings, look, still_so
from tallystick.flows.subscribe import base_evidence, billing_period, grace_of, paid_until
from tallystick.store import catalog, customers, db, invoices, late, organizations, subscriptions, wallets
from tallystick.store.catalog import Plan, PlanPrice
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
    unproved: Mapping[int, Basis]  # which of them list events, and by what they were measured
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
    await _turn_wallets(
        database, organization_id=organization_id, subscription_ids=[subscription_id], now=now
    )
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
            reads = await read_for(conn, organization, [subscription])
            prepared = await prepare(conn, reads, subscription, now)
            await prove(conn, [prepared])
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


async def close_set(
    database: Database,
    *,
    organization_id: UUID,
    subscription_ids: Sequence[UUID],
    now: datetime,
    in_order: bool = False,
) -> list[Closed]:
    """Close what is due among many subscriptions of one organization: set-based, in one transaction (ruling 33).

    Left out are those with something late, those that end, and those that changed meanwhile: `close_period` has them
    one by one. With `in_order` nothing that follows one of these is closed, so that all are numbered in order of id.
    """
    await _turn_wallets(database, organization_id=organization_id, subscription_ids=subscription_ids, now=now)
    async with database.transaction(snapshot=True) as conn:
        organization = await organizations.get(conn, organization_id=organization_id)
        assert organization is not None
        found = await subscriptions.of_ids(
            conn, organization_id=organization_id, subscription_ids=subscription_ids
        )
        due = [each for each in found if each.closes_at is not None and each.closes_at <= now]
        late_customers = await late.among(conn, customer_ids=[each.customer_id for each in due])

        def is_plain(each: Subscription) -> bool:
            return each.customer_id not in late_customers and not _ends(each)

        plain = list(takewhile(is_plain, due) if in_order else filter(is_plain, due))
        reads = await read_for(conn, organization, plain, ahead=True)
        prepared = [await prepare(conn, reads, each, now, late=False) for each in plain]
        await prove(conn, prepared)
    if not prepared:
        return []
    async with database.transaction() as conn:
        locked = {
            each.id: each
            for each in await subscriptions.of_ids(
                conn,
                organization_id=organization_id,
                subscription_ids=[each.subscription.id for each in prepared],
                lock=True,
            )
        }

        def is_same(each: Prepared) -> bool:
            return locked.get(each.subscription.id) == each.subscription

        same = list(takewhile(is_same, prepared) if in_order else filter(is_same, prepared))
        return await write_set(conn, organization, same, now)


async def _turn_wallets(
    database: Database, *, organization_id: UUID, subscription_ids: Sequence[UUID], now: datetime
) -> None:
    """Before anything is prepared: what prepaid usage overdrew in a period that is over must stand for good."""
    async with database.transaction() as conn:
        behind = await subscriptions.with_wallet_to_turn(
            conn, organization_id=organization_id, subscription_ids=subscription_ids, now=now
        )
        if behind:
            organization = await organizations.get(conn, organization_id=organization_id)
            assert organization is not None
            await turn_wallets(conn, organization=organization, closing=behind, now=now)


Alike = tuple[UUID, int, Period, str]
"""Plan, usage period and zone: who has these in common is rated by the very same bases."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What a close reads and many closes share; one made for a set has the folds read ahead."""

    organization: Organization
    offered: Catalogue
    position: int
    customers: Mapping[UUID, Customer]
    plans: Mapping[UUID, Plan]
    prices: Mapping[UUID, PlanPrice]
    overdrawn: Mapping[UUID, Decimal]  # by subscription, in rate units
    rated_by: Mapping[Alike, Sequence[tuple[Feature, Basis]]]
    known: Known


async def read_for(
    conn: Conn, organization: Organization, held: Sequence[Subscription], *, ahead: bool = False
) -> Reads:
    """All that preparing these asks for, under the snapshot of `conn`; folds too, when read `ahead`."""
    offered = await load_catalogue(conn, organization.id)
    position = await db.head_position(conn, organization_id=organization.id)
    alike = {_alike(each): each for each in held}
    rated_by = {of: bases(offered, _lived(each), position=position) for of, each in alike.items()}
    known: Known = {}
    if ahead:
        wanted = [(each.customer_id, basis) for each in held for _, basis in rated_by[_alike(each)]]
        known = await read_ahead(conn, wanted)
    return Reads(
        organization,
        offered,
        position,
        await customers.of_ids(
            conn, organization_id=organization.id, customer_ids={each.customer_id for each in held}
        ),
        await catalog.plans_of_ids(
            conn, organization_id=organization.id, plan_ids={each.plan_id for each in held}
        ),
        await catalog.prices_of_ids(
            conn,
            organization_id=organization.id,
            price_ids={each.price_id for each in held if each.price_id is not None},
        ),
        await wallets.overdrawn(
            conn, [(key_of(each), each.period_index) for each in held if each.plan_id in offered.prepaid]
        ),
        rated_by,
        known,
    )


def _open_period(subscription: Subscription) -> Period:
    start, end = subscription.period_start, subscription.period_end
    must(start is not None and end is not None, "an active subscription has a period", id=subscription.id)
    assert start is not None and end is not None
    return Period(start, end)


def _alike(subscription: Subscription) -> Alike:
    period = _open_period(subscription)
    return subscription.plan_id, subscription.period_index, period, subscription.timezone


def _lived(subscription: Subscription) -> UsagePeriod:
    return UsagePeriod(
        subscription.id,
        subscription.customer_id,
        subscription.plan_id,
        subscription.period_index,
        _open_period(subscription),
        subscription.timezone,
    )


async def prepare(
    conn: Conn, reads: Reads, subscription: Subscription, now: datetime, *, late: bool = True
) -> Prepared:
    """The invoice of the open period: its usage, what is late from before, and the next base in advance.

    Its usage lines have no digests yet (`prove`): who only wants to know what is owed needs none.
    """
    organization = reads.organization
    closing = _open_period(subscription)
    customer, plan = reads.customers[subscription.customer_id], reads.plans[subscription.plan_id]
    ends = _ends(subscription)
    zone = customer.timezone or organization.timezone
    after = after_close(subscription, zone, grace_of(organization), now)
    base = [] if ends else _next_base(reads, after, plan.name)
    used = await _used(conn, reads, subscription) if closing.start < closing.end else []
    if subscription.id in reads.overdrawn:
        used.append((_overdraft(reads, subscription), None))
    findings = await look(conn, organization, customer_id=subscription.customer_id) if late else None
    news = [] if findings is None else findings.news
    late_lines = [(line, None) for each in news for line in each.by(LatePolicy.NEXT_PERIOD)]
    marks = [] if findings is None else findings.waiting
    lines = [*((line, None) for line in base), *used, *late_lines]
    return Prepared(
        subscription=subscription,
        after=after,
        organization=organization,
        customer=customer,
        plan_name=plan.name,
        closing=closing,
        position=reads.position,
        lines=[line for line, _ in lines],
        unproved={place: basis for place, (_, basis) in enumerate(lines) if basis is not None},
        kind="recurring" if base else "overage",
        covered=billing_period(after, after.period_index) if base else closing,
        ends=ends,
        findings=findings,
        on_time=[mark.event_id for mark, _ in marks if mark.occurred_at in closing],
    )


async def _used(conn: Conn, reads: Reads, subscription: Subscription) -> list[tuple[Line, Basis | None]]:
    """Lines for each feature whose usage of the period costs something, with the basis of those that list events."""
    lived, currency = _lived(subscription), subscription.currency
    lines: list[tuple[Line, Basis | None]] = []
    wanted = reads.rated_by[_alike(subscription)]
    for each in await rate_each(conn, subscription.customer_id, wanted, reads.known):
        for line in usage_lines(
            each.basis,
            each.rated,
            feature_id=each.feature.id,
            feature_name=each.feature.name,
            unit=each.feature.unit_name or "units",
            currency=currency,
            subscription_id=subscription.id,
        ):
            lines.append((line, each.basis if line.part is Part.USAGE else None))
    minimum = minimum_over(reads.offered.minimums.get(subscription.plan_id, ()), lived.span)
    lifted = None
    if minimum is not None:
        lifted = plan_minimum_line(
            PlanPeriod(lived.index, lived.span, lived.timezone, reads.position),
            minimum=minimum,
            features_minor=subtotal([line for line, _ in lines]),
            before_minor=0,
            currency=currency,
        )
    if lifted is not None:
        lines.append((replace(lifted, subscription_id=subscription.id), None))
    return lines


def _overdraft(reads: Reads, subscription: Subscription) -> Line:
    """What a balance was overdrawn by in the period: usage beyond what was paid for beforehand."""
    lived = _lived(subscription)
    line = overdraft_line(
        PlanPeriod(lived.index, lived.span, lived.timezone, reads.position),
        overdrawn=reads.overdrawn[subscription.id],
        currency=subscription.currency,
    )
    return replace(line, subscription_id=subscription.id)


async def prove(conn: Conn, prepared: Sequence[Prepared]) -> None:
    """Give each usage line the digest of its events, all of a set in one statement where their meters allow it.

    What the events say must be what the rollups said: a number that cannot be proved is not billed.
    """
    places = [(each, place, basis) for each in prepared for place, basis in each.unproved.items()]
    listed = [
        Listed(
            each.subscription.customer_id,
            basis,
            evidence.frozen_span((each.lines[place].evidence or {})["span"]),
        )
        for each, place, basis in places
    ]
    for (each, place, basis), asked, behind in zip(
        places, listed, await digest_events(conn, listed), strict=True
    ):
        proof = each.lines[place].evidence or {}
        if basis.meter.adds_up or asked.span.start == basis.period.start:
            must(
                text(behind.quantity) == proof["used"],
                "the rollups say what the events say",
                feature=each.lines[place].feature_name,
                rollups=proof["used"],
                events=text(behind.quantity),
            )
        kept = {**proof, "events": {"count": behind.count, "digest": behind.digest}}
        each.lines[place] = replace(each.lines[place], evidence=kept)


async def _write(conn: Conn, prepared: Prepared, now: datetime, *, patient: bool) -> Closed:
    """Everything a close makes a fact, under the lock of its subscription."""
    (closed,) = await write_set(conn, prepared.organization, [prepared], now)
    if (
        patient
        and prepared.after.status != prepared.subscription.status
        and await late.overtaken(
            conn,
            customer_id=prepared.subscription.customer_id,
            span=prepared.closing,
            position=prepared.position,
        )
    ):
        raise _Overtaken
    return closed


async def write_set(
    conn: Conn, organization: Organization, prepared: Sequence[Prepared], now: datetime
) -> list[Closed]:
    """The same for a set of one organization: few statements, all or nothing."""
    drafts = {place: _draft(each, now) for place, each in enumerate(prepared) if each.lines}
    counts = await invoices.issue_set(
        conn, organization.id, [(draft, prepared[place].lines) for place, draft in drafts.items()]
    )
    numbers = dict(zip(drafts, counts, strict=True))
    await late.close_set(conn, [_closed_period(each, now) for each in prepared])
    adjustments: dict[int, list[UUID]] = {}
    for place, each in enumerate(prepared):
        if each.findings is not None:
            home = drafts[place].id if place in drafts else new_id()
            adjustments[place] = await settle_late.write(
                conn, organization, each.findings, next_invoice=home, now=now
            )
            await late.forget(conn, customer_id=each.subscription.customer_id, event_ids=each.on_time)
    await late.wake(conn, customer_ids=[each.subscription.customer_id for each in prepared], now=now)
    await subscriptions.update_set(conn, [each.after for each in prepared])
    for each in prepared:
        before = each.subscription
        if each.after.status != before.status or each.after.timezone != before.timezone:
            await db.bump(conn, organization_id=organization.id, customer_id=before.customer_id)
    return [
        Closed(
            each.subscription.id,
            each.subscription.period_index,
            each.customer.full_name or each.customer.reference,
            drafts[place].id if place in drafts else None,
            number(organization.invoice_prefix, numbers[place]) if place in numbers else None,
            each.total,
            each.ends,
            adjustments.get(place, []),
        )
        for place, each in enumerate(prepared)
    ]


def _draft(prepared: Prepared, now: datetime) -> invoices.Draft:
    subscription, total = prepared.subscription, prepared.total
    return invoices.Draft(
        id=new_id(),
        organization_id=prepared.organization.id,
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
    )


def _closed_period(prepared: Prepared, now: datetime) -> late.ClosedPeriod:
    subscription = prepared.subscription
    return late.ClosedPeriod(
        subscription_id=subscription.id,
        period_index=subscription.period_index,
        organization_id=prepared.organization.id,
        customer_id=subscription.customer_id,
        plan_id=subscription.plan_id,
        timezone=subscription.timezone,
        period_start=prepared.closing.start,
        period_end=prepared.closing.end,
        position=prepared.position,
        closed_at=now,
    )


def _next_base(reads: Reads, opened: Subscription, plan_name: str) -> list[Line]:
    """The base of a billing period, in advance, when the usage period just opened begins one."""
    length = periods_per_invoice(opened.billing_interval)
    if opened.price_id is None or length is None or opened.period_index % length:
        return []
    price = reads.prices[opened.price_id]
    covered = billing_period(opened, opened.period_index)
    return [base_line(plan_name, price.amount_minor, opened.currency, base_evidence(price, covered, opened))]


def after_close(subscription: Subscription, zone: str, grace: timedelta, now: datetime) -> Subscription:
    """The subscription as the close of its open period leaves it."""
    return _ended(subscription, now) if _ends(subscription) else _next_period(subscription, zone, grace, now)


def _ends(subscription: Subscription) -> bool:
    """Whether no period follows the open one, but for the short rest of a subscription that was canceled in it."""
    return subscription.state is Status.CANCELED or (
        subscription.cancel_at is not None and subscription.cancel_at <= _open_period(subscription).end
    )


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
