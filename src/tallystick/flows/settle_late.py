"""Late usage is a difference (decision 8): rate closed periods again, and bill what they now say beyond their lines.

By each meter's policy, `next_period` puts the difference on the customer's next invoice, `current_period` on an
adjustment invoice of its own period, `ignore` bills nothing. Issued invoices never change. Every late event keeps
which rule fired and where its money went.

Like a close, it looks under one snapshot and writes in a transaction of its own, which locks the closed periods
and starts anew when they are no longer what was looked at.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from tallystick.core import evidence, ids
from tallystick.core.catalog import Catalogue, minimum_over
from tallystick.core.events import StoredEvent
from tallystick.core.evidence import PlanPeriod
from tallystick.core.invoicing import Billed, Line, Part, difference_line, plan_minimum_line, subtotal
from tallystick.core.limits import DUE_AFTER, LATE_PER_CLAIM
from tallystick.core.meters import LatePolicy, in_force
from tallystick.core.money import ZERO
from tallystick.core.times import show_instant
from tallystick.errors import Problem
from tallystick.flows.books import load_catalogue
from tallystick.flows.measure_usage import contribution
from tallystick.flows.rate_period import Listed, RatedFeature, UsagePeriod, digest_events, rate_features
from tallystick.store import archives, db, events, invoices, late, organizations, subscriptions
from tallystick.store.archives import Archived
from tallystick.store.db import Conn, Database, new_id
from tallystick.store.invoices import InvoiceLine
from tallystick.store.late import WITH_THE_NEXT_INVOICE, ClosedPeriod, LateEvent
from tallystick.store.organizations import Organization
from tallystick.store.subscriptions import Subscription

log = logging.getLogger("tallystick.late")

Decision = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Novelty:
    """What one closed period says beyond its lines, by feature; None where nobody would notice."""

    period: ClosedPeriod
    subscription: Subscription
    lines_seen: int
    lines: dict[UUID, tuple[LatePolicy, Line | None]] = field(default_factory=dict)
    minimum: "PlanMinimum | None" = None

    def by(self, policy: LatePolicy) -> list[Line]:
        """The lines this policy places when all of them are billed; what the plan's minimum now asks more or less
        goes with those of the period itself, if there are any: their invoice is the last to be numbered."""
        found = self.of(policy)
        at_once = bool(self.of(LatePolicy.CURRENT_PERIOD))
        if at_once is (policy is LatePolicy.CURRENT_PERIOD):
            found += self.lifted([line for _, line in self.lines.values() if line is not None])
        return found

    def of(self, policy: LatePolicy) -> list[Line]:
        return [line for ruled_by, line in self.lines.values() if ruled_by is policy and line is not None]

    def lifted(self, news: list[Line]) -> list[Line]:
        """What the plan's minimum asks more or less once these lines are billed."""
        line = self.minimum.line(self.period, self.subscription.currency, news) if self.minimum else None
        return [] if line is None else [line]


@dataclass(frozen=True, slots=True)
class PlanMinimum:
    """What a plan asks for the usage of a period, and what the period's lines have said of it."""

    amount: Decimal
    features_said: int
    said: int
    position: int

    def line(self, period: ClosedPeriod, currency: str, news: list[Line]) -> Line | None:
        found = plan_minimum_line(
            PlanPeriod(period.period_index, period.span, period.timezone, self.position),
            minimum=self.amount,
            features_minor=self.features_said + subtotal(news),
            before_minor=self.said,
            currency=currency,
        )
        return found and replace(found, id=new_id(), subscription_id=period.subscription_id)


@dataclass(frozen=True, slots=True)
class Findings:
    """All that is late with one customer, as seen at one position of the chain."""

    position: int
    news: list[Novelty]
    waiting: list[tuple[LateEvent, StoredEvent]]
    offered: Catalogue
    held: list[Subscription]
    out_of_reach: list[ClosedPeriod] = field(default_factory=list)
    """Their events are archived: they are not rated again, and what came late for them waits."""
    needs: list[Archived] = field(default_factory=list)


class NeedsArchive(Problem):
    """Closed periods cannot be rated again: their events are archived. The message names the files."""

    def __init__(self, needs: Sequence[Archived]) -> None:
        super().__init__(
            "validation_error",
            f"This needs {'; '.join(each.words for each in needs)}. "
            "`tallystick retention restore` puts a month back.",
            details={"needs": [{"month": str(each.month), "file": each.file_name} for each in needs]},
        )


async def look(conn: Conn, organization: Organization, *, customer_id: UUID) -> Findings | None:
    """What there is to settle, under the snapshot of `conn`; None when nothing is late."""
    touched = await late.touched(conn, customer_id=customer_id)
    marked = await late.undecided(conn, customer_id=customer_id)
    if not touched and not marked:
        return None
    offered = await load_catalogue(conn, organization.id)
    position = await db.head_position(conn, organization_id=organization.id)
    held = await subscriptions.of_customer(conn, organization_id=organization.id, customer_id=customer_id)
    by_id = {each.id: each for each in held}
    archived = await archives.of_organization(conn, organization_id=organization.id)
    out_of_reach = [each for each in touched if archives.touching(archived, each.span)]
    needs = {each for period in out_of_reach for each in archives.touching(archived, period.span)}
    news = [
        await _rate_again(conn, offered, period, by_id[period.subscription_id], position)
        for period in touched
        if period not in out_of_reach
    ]
    marked = [each for each in marked if not any(each.occurred_at in period.span for period in out_of_reach)]
    stored = await events.at(conn, {each.event_id: (customer_id, each.occurred_at) for each in marked})
    return Findings(
        position,
        news,
        [(each, stored[each.event_id]) for each in marked],
        offered,
        held,
        out_of_reach,
        sorted(needs, key=lambda each: each.month),
    )


async def _rate_again(
    conn: Conn, offered: Catalogue, period: ClosedPeriod, subscription: Subscription, position: int
) -> Novelty:
    lived = UsagePeriod(
        period.subscription_id,
        period.customer_id,
        period.plan_id,
        period.period_index,
        period.span,
        period.timezone,
    )
    lines = await invoices.lines_of_period(
        conn, subscription_id=period.subscription_id, index=period.period_index
    )
    found = Novelty(period, subscription, len(lines))
    for each in await rate_features(conn, offered, lived, position=position):
        policy = each.basis.meter.late_policy
        line = None
        if policy is not LatePolicy.IGNORE:
            said = [line for line in lines if line.feature_id == each.feature.id]
            line = await _difference(conn, period, subscription.currency, each, said, policy)
        found.lines[each.feature.id] = (policy, line)
    minimum = minimum_over(offered.minimums.get(period.plan_id, ()), period.span)
    if minimum is None:
        return found
    lifted = sum(line.amount for line in lines if line.part == Part.PLAN_MINIMUM)
    features = sum(line.amount for line in lines if line.part != Part.PLAN_MINIMUM)
    return replace(found, minimum=PlanMinimum(minimum, features, lifted, position))


async def _difference(
    conn: Conn,
    period: ClosedPeriod,
    currency: str,
    again: RatedFeature,
    said: list[InvoiceLine],
    policy: LatePolicy,
) -> Line | None:
    billed = billed_so_far(said)
    line = difference_line(
        again.basis,
        again.rated,
        billed,
        feature_id=again.feature.id,
        feature_name=again.feature.name,
        unit=again.feature.unit_name or "units",
        currency=currency,
        after=billed.position,
        policy=policy.value,
    )
    if line is None:
        return None
    listed = Listed(period.customer_id, again.basis, period.span, billed.position)
    (behind,) = await digest_events(conn, [listed])
    proof = {**(line.evidence or {}), "events": {"count": behind.count, "digest": behind.digest}}
    return replace(line, id=new_id(), subscription_id=period.subscription_id, evidence=proof)


def billed_so_far(lines: list[InvoiceLine]) -> Billed:
    """What the lines of one feature and period have said."""
    told = [line for line in lines if line.part in (Part.USAGE, Part.DIFFERENCE)]
    return Billed(
        amount=sum(line.amount for line in lines),
        used=sum((line.used or ZERO for line in told), ZERO),
        billable=sum((line.overage or ZERO for line in told), ZERO),
        components=tuple(
            part for line in lines if line.evidence for part in evidence.frozen_components(line.evidence)
        ),
        position=max((line.evidence["chainPosition"] for line in told if line.evidence), default=0),
    )


async def still_so(conn: Conn, findings: Findings) -> bool:
    """Lock what was found; False when somebody settled some of it meanwhile."""
    if not await late.lock_closed(conn, [each.period for each in findings.news]):
        return False
    for each in findings.news:
        lines = await invoices.lines_of_period(
            conn, subscription_id=each.period.subscription_id, index=each.period.period_index
        )
        if len(lines) != each.lines_seen:
            return False
    return True


async def settle_late(
    database: Database, *, organization_id: UUID, customer_id: UUID, now: datetime
) -> list[UUID]:
    """Settle what need not wait for an invoice to come; the adjustment invoices that made.

    Raises NeedsArchive, with the rest settled, when something happened in a period whose events are archived.
    """
    while True:
        async with database.transaction(snapshot=True) as conn:
            organization = await organizations.get(conn, organization_id=organization_id)
            assert organization is not None
            findings = await look(conn, organization, customer_id=customer_id)
        if findings is None:
            return []
        async with database.transaction() as conn:
            held = await subscriptions.of_customer(
                conn, organization_id=organization_id, customer_id=customer_id, lock=True
            )  # whether an invoice is to come, and which periods are open: no close may say otherwise meanwhile
            if not (held == findings.held and await still_so(conn, findings)):
                continue
            made = await write(conn, organization, findings, next_invoice=None, now=now)
        if findings.needs:
            raise NeedsArchive(findings.needs)
        return made


async def settle_due(
    database: Database, *, wall: datetime, organization_id: UUID | None = None
) -> list[UUID]:
    """Settle all whose events have waited long enough by their own clock; the adjustment invoices that made.

    One that cannot be settled does not stop the others: it is noted, and passed over.
    """
    made: list[UUID] = []
    failed: list[UUID] = []
    while True:
        async with database.reading() as conn:
            due = await late.due(
                conn, now=wall, limit=LATE_PER_CLAIM, organization_id=organization_id, skipping=failed
            )
        for owner, customer_id, now in due:
            try:
                made += await settle_late(database, organization_id=owner, customer_id=customer_id, now=now)
            except (psycopg.OperationalError, PoolTimeout):
                raise
            except NeedsArchive as error:  # the operator is to put it back, or to leave it so
                failed.append(customer_id)
                log.warning("late usage of %s waits: %s", customer_id, error.message)
                async with database.reading() as conn:
                    await late.note_failure(conn, customer_id=customer_id, failure=error.message)
            except Exception as error:
                failed.append(customer_id)
                log.exception("the late usage of %s could not be settled", customer_id, exc_info=error)
                async with database.reading() as conn:
                    await late.note_failure(conn, customer_id=customer_id, failure=str(error))
        if len(due) < LATE_PER_CLAIM:
            return made


async def write(
    conn: Conn, organization: Organization, findings: Findings, *, next_invoice: UUID | None, now: datetime
) -> list[UUID]:
    """Issue adjustments, whose ids are the answer, and record what was decided of every event.

    `next_invoice` is the invoice that takes the `next_period` lines; without one they wait, unless no invoice of
    this customer is to come.
    """
    final = next_invoice is None and all(each.closes_at is None for each in findings.held)
    homes: dict[tuple[UUID, int, UUID | None], tuple[UUID, Line]] = {}
    made: list[UUID] = []
    for each in findings.news:
        own = each.of(LatePolicy.CURRENT_PERIOD)
        if final:
            own += each.of(LatePolicy.NEXT_PERIOD)
        if own:  # the minimum looks at what is billed by then, not at what still waits
            billed = own if next_invoice is None else [*own, *each.of(LatePolicy.NEXT_PERIOD)]
            own += each.lifted(billed)
        place = (each.period.subscription_id, each.period.period_index)
        if own:
            invoice_id = await _adjust(conn, organization, each, own, now)
            made.append(invoice_id)
            homes.update({(*place, line.feature_id): (invoice_id, line) for line in own})
        if next_invoice is not None:
            homes.update(
                {(*place, line.feature_id): (next_invoice, line) for line in each.by(LatePolicy.NEXT_PERIOD)}
            )
        if final or next_invoice is not None or not each.of(LatePolicy.NEXT_PERIOD):
            await late.rated_again(conn, each.period, position=findings.position)
    settled = final or next_invoice is not None
    for mark, event in findings.waiting:
        decisions, until = _decide(findings, mark, event, homes, settled=settled)
        await late.decide(
            conn, customer_id=mark.customer_id, event_id=mark.event_id, decisions=decisions, until=until
        )
    return made


async def _adjust(
    conn: Conn, organization: Organization, novelty: Novelty, lines: list[Line], now: datetime
) -> UUID:
    """An invoice of the closed period itself; a credit when what it says is less."""
    total, invoice_id = subtotal(lines), new_id()
    await invoices.issue(
        conn,
        invoices.Draft(
            id=invoice_id,
            organization_id=organization.id,
            customer_id=novelty.period.customer_id,
            subscription_id=novelty.period.subscription_id,
            status="outstanding" if total > 0 else "paid",
            invoice_type="adjustment",
            currency=novelty.subscription.currency,
            subtotal=total,
            tax=0,
            period_index=novelty.period.period_index,
            period_start=novelty.period.period_start,
            period_end=novelty.period.period_end,
            issued_at=now,
            due_at=now + DUE_AFTER,
            collect_at=now if total > 0 else None,
            plan_name=novelty.subscription.name,
            created_at=now,
        ),
        lines,
    )
    return invoice_id


def _decide(
    findings: Findings,
    mark: LateEvent,
    event: StoredEvent,
    homes: dict[tuple[UUID, int, UUID | None], tuple[UUID, Line]],
    *,
    settled: bool,
) -> tuple[list[Decision], datetime | None]:
    """What becomes of one event, feature by feature, and when to look again (None: never)."""
    novelty = next((each for each in findings.news if mark.occurred_at in each.period.span), None)
    if novelty is None:
        for each in findings.held:
            if (
                each.closes_at is not None
                and each.period_start is not None
                and mark.occurred_at >= each.period_start
            ):
                # Its period is still open: the close counts it and forgets the mark.
                return mark.decisions, WITH_THE_NEXT_INVOICE
        begun = any(
            each.anchor_at is not None and mark.occurred_at >= each.anchor_at for each in findings.held
        )
        rule = "outside_subscription" if begun else "before_subscription"
        return [{"rule": rule, "outcome": "not_billed"}], None
    decisions = {each["featureCode"]: each for each in mark.decisions}
    waits = False
    for feature_id, (policy, _) in novelty.lines.items():
        feature = next(each for each in findings.offered.features.values() if each.id == feature_id)
        meter = in_force(findings.offered.versions[feature_id], novelty.period.period_start)
        if (
            feature.code in decisions
            or meter.event_code != event.feature
            or contribution(meter, event) is None
        ):
            continue
        home = homes.get((novelty.period.subscription_id, novelty.period.period_index, feature_id))
        if policy is LatePolicy.NEXT_PERIOD and not settled:
            waits = True
            continue
        decisions[feature.code] = {
            "featureCode": feature.code,
            "rule": policy.value,
            "outcome": "ignored" if policy is LatePolicy.IGNORE else "billed" if home else "no_charge",
            "subscriptionId": ids.show(ids.SUBSCRIPTION, novelty.period.subscription_id),
            "periodIndex": novelty.period.period_index,
            "periodStart": show_instant(novelty.period.period_start),
            "periodEnd": show_instant(novelty.period.period_end),
            "invoiceId": ids.show(ids.INVOICE, home[0]) if home else None,
            "lineId": ids.show(ids.INVOICE_LINE, home[1].id) if home and home[1].id else None,
        }
    if waits:
        return list(decisions.values()), WITH_THE_NEXT_INVOICE
    return list(decisions.values()) or [{"rule": "not_counted", "outcome": "not_billed"}], None
