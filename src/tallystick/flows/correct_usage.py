"""Correct what was reported: take events back, put others in their place, and take a correction back.

Nothing is edited. A void is an event of its own, a copy of the one it takes back, stored and notched like any
other; its key makes sure that an event is taken back once. Rollups of the touched hours are folded anew from raw
events while they are held. Issued invoices never change: what a closed period now says differently is settled by
each meter's policy, as late usage is.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from psycopg import Rollback

from tallystick.core import ids
from tallystick.core.catalog import Catalogue
from tallystick.core.events import StoredEvent, UsageEvent
from tallystick.core.invoicing import Line
from tallystick.core.limits import CORRECTED_EVENTS_MAX
from tallystick.core.meters import Aggregation, LatePolicy, Meter, fold
from tallystick.core.proof import void_hash
from tallystick.core.times import Period, hour_of
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.books import Books, load_catalogue
from tallystick.flows.close_period import prepare, read_for
from tallystick.flows.drafts import Accepted, Draft
from tallystick.flows.ingest import ingest
from tallystick.flows.measure_usage import contribution
from tallystick.flows.refund_voided import refund_voided
from tallystick.flows.settle_late import NeedsArchive, look
from tallystick.flows.subscribe import grace_of
from tallystick.store import (
    archives,
    corrections,
    db,
    event_keys,
    events,
    key_generations,
    late,
    storing,
    subscriptions,
    usage,
    wallets,
)
from tallystick.store.corrections import Correction
from tallystick.store.db import Conn, new_id, new_ids
from tallystick.store.event_keys import Looked
from tallystick.store.organizations import Organization
from tallystick.store.places import bunches
from tallystick.store.sheets import Shares, Sheet, StaleVersion
from tallystick.store.usage import HourPlace

_HOUR: Final = timedelta(hours=1)
_ATTEMPTS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Touched:
    """What a correction changes of one closed period: the line that will say so, and where it will stand."""

    subscription_id: UUID
    index: int
    period: Period
    policy: LatePolicy
    line: Line
    currency: str


@dataclass(frozen=True, slots=True)
class Impact:
    """What a correction does to money: closed periods' differences, and what the open period comes to."""

    touched: list[Touched]
    upcoming_before: int | None
    upcoming_after: int | None
    currency: str | None


@dataclass(frozen=True, slots=True)
class Corrected:
    correction: Correction
    impact: Impact


async def void_event(
    conn: Conn, organization: Organization, *, event_id: UUID, reason: str | None, now: datetime
) -> StoredEvent:
    """Take one event back; taking back what was taken back changes nothing."""
    event = await events.get(conn, organization_id=organization.id, event_id=event_id)
    if event is None:
        raise await not_there(conn, organization, event_id)
    if event.voids is not None:
        raise InvalidRequest(FieldError("id", "is a void; revert the correction, or report the event again"))
    if event.voided is None:
        await _void(conn, organization, [event], reason=reason, now=now)
        event = await events.get(conn, organization_id=organization.id, event_id=event_id) or event
    return event


async def not_there(conn: Conn, organization: Organization, event_id: UUID) -> Problem:
    """That there is no such event, and in which file it may be: months keep between which ids their events lay."""
    may_hold = await archives.may_hold(conn, organization_id=organization.id, event_id=event_id)
    if not may_hold:
        return Problem("not_found", "There is no such event.")
    return Problem(
        "not_found",
        "There is no such event here. It may be one of the "
        + ", or of the ".join(each.words for each in may_hold)
        + ": an event must be in the database to be read or taken back.",
        details={"archived": [{"month": str(each.month), "file": each.file_name} for each in may_hold]},
    )


async def replace_range(
    conn: Conn,
    books: Books,
    organization: Organization,
    *,
    customer_id: UUID,
    event_code: str,
    span: Period,
    replacements: Sequence[UsageEvent],
    reason: str | None,
    dry_run: bool,
    now: datetime,
    wall: datetime,
) -> Corrected:
    """Take back every event of a code in a span and store others instead; all or nothing.

    A dry run does all of it, looks at what the invoices would say, and undoes it.
    """
    archived = await archives.of_organization(conn, organization_id=organization.id)
    if touched := archives.touching(archived, span):
        raise NeedsArchive(touched)
    before = await _upcoming(conn, organization, customer_id, now)
    async with conn.transaction():
        old = await events.in_span(
            conn, customer_id=customer_id, feature=event_code, span=span, limit=CORRECTED_EVENTS_MAX + 1
        )
        if len(old) > CORRECTED_EVENTS_MAX:
            raise InvalidRequest(
                FieldError(
                    "start", f"more than {CORRECTED_EVENTS_MAX} events lie in the span; correct a shorter one"
                )
            )
        if not old and not replacements:
            raise InvalidRequest(FieldError("start", "no event lies in the span, and none is put there"))
        done = await _apply(
            conn,
            books,
            organization,
            customer_id,
            event_code,
            span,
            old,
            replacements,
            reason,
            None,
            now,
            wall,
        )
        corrected = Corrected(done, await _impact(conn, organization, customer_id, span, before, now))
        if dry_run:
            raise Rollback
    return corrected


async def revert(
    conn: Conn,
    books: Books,
    organization: Organization,
    *,
    correction: Correction,
    reason: str | None,
    dry_run: bool,
    now: datetime,
    wall: datetime,
) -> Corrected:
    """Take a correction back: its events are voided, and what it had voided is stored again, without keys."""
    before = await _upcoming(conn, organization, correction.customer_id, now)
    span = Period(correction.span_start, correction.span_end)
    added = await _of(conn, organization, correction.added)
    restored = [
        UsageEvent(
            feature=event.feature,
            customer=ids.show(ids.CUSTOMER, event.customer_id),
            value=event.value,
            occurred_at=event.occurred_at,
            properties=event.properties,
        )
        for event in await _of(conn, organization, correction.voided)
    ]
    async with conn.transaction():
        done = await _apply(
            conn,
            books,
            organization,
            correction.customer_id,
            correction.event_code,
            span,
            [each for each in added if each.voided is None],
            restored,
            reason,
            correction.id,
            now,
            wall,
        )
        corrected = Corrected(
            done, await _impact(conn, organization, correction.customer_id, span, before, now)
        )
        if dry_run:
            raise Rollback
    return corrected


async def _of(conn: Conn, organization: Organization, shown: Sequence[str]) -> list[StoredEvent]:
    found = []
    for each in shown:
        identity = ids.read(ids.EVENT, each)
        event = (
            None
            if identity is None
            else await events.get(conn, organization_id=organization.id, event_id=identity)
        )
        if event is not None:
            found.append(event)
        elif identity is not None:
            raise await not_there(conn, organization, identity)
    return found


async def _apply(
    conn: Conn,
    books: Books,
    organization: Organization,
    customer_id: UUID,
    event_code: str,
    span: Period,
    old: Sequence[StoredEvent],
    new: Sequence[UsageEvent],
    reason: str | None,
    reverts: UUID | None,
    now: datetime,
    wall: datetime,
) -> Correction:
    # Wallets before the head, as everybody: voids come to it first, and replacements may be paid from one.
    await wallets.of_customer(conn, customer_id=customer_id, lock=True)
    if old:
        await _void(conn, organization, old, reason=reason, now=now)
    outcomes = (
        await ingest(conn, books, organization.id, [Draft(each) for each in new], wall=wall) if new else []
    )
    added: list[str] = []
    for place, outcome in enumerate(outcomes):
        if not isinstance(outcome, Accepted):
            raise _refused(outcome, place)
        added.append(ids.show(ids.EVENT, outcome.event.id))
    correction = Correction(
        id=new_id(),
        organization_id=organization.id,
        customer_id=customer_id,
        event_code=event_code,
        span_start=span.start,
        span_end=span.end,
        reason=reason,
        voided=[ids.show(ids.EVENT, each.id) for each in old],
        added=added,
        reverts=reverts,
        created_at=now,
    )
    if not await corrections.insert(conn, correction):
        raise Problem("duplicate", "This correction was reverted already.")
    return correction


def _refused(problem: Problem, place: int) -> Problem:
    """Why a replacement cannot be stored, with its place in the request."""
    return Problem(
        problem.code, f"events[{place}]: {problem.message}", param=f"events[{place}]", details=problem.details
    )


async def _void(
    conn: Conn, organization: Organization, old: Sequence[StoredEvent], *, reason: str | None, now: datetime
) -> None:
    for _ in range(_ATTEMPTS_MAX):
        try:
            async with conn.transaction():
                await _void_once(conn, organization, old, reason=reason, now=now)
                return
        except StaleVersion:  # the catalogue moved while we read it
            continue
    raise Problem("unavailable", "The catalogue keeps changing; try again.", retry_after_s=1)


async def _void_once(
    conn: Conn, organization: Organization, old: Sequence[StoredEvent], *, reason: str | None, now: datetime
) -> None:
    version = await db.version(conn, organization_id=organization.id)
    generation = await key_generations.current(conn)
    places = [void_hash(each.customer_id, each.id) for each in old]
    older = [Looked(each, [event.customer_id for event in old], places) for each in range(generation)]
    if await event_keys.held_before(conn, generation, older):
        raise _taken_back()
    offered = await load_catalogue(conn, organization.id)
    hours = _hours(offered, old)
    # In the order of `ingest`: wallets, counters, the rollups that its one statement adds to, the head. Whatever else
    # counts does so while it holds the head.
    await refund_voided(conn, organization, old, now=now)
    await _forget_counters(conn, hours)
    added_to = [
        place for place, meter in hours.items() if meter.adds_up or meter.aggregation is Aggregation.UNIQUE
    ]
    await usage.lock_hours(conn, added_to)
    voids = [
        each._replace(
            id=bunches.place(identity, each.customer_id, hour_of(each.occurred_at)),
            received_at=now,
            key=None,
            reason=reason,
            voids=each.id,
            voided=None,
            draw=None,
        )
        for each, identity in zip(old, new_ids(len(old)), strict=True)
    ]
    done = await storing.insert(
        conn,
        Sheet(voids, places, [None] * len(old), Shares()),
        organization_id=organization.id,
        version=version,
        generation=generation,
        received_at=now,
    )
    if done.repeats:
        raise _taken_back()
    await events.mark_voided(conn, places=old, number=done.number)
    for place, meter in hours.items():
        await _fold_anew(conn, place, meter, done.number)
    await late.mark(
        conn,
        organization_id=organization.id,
        customers=[each.customer_id for each in voids],
        events=[each.id for each in voids],
        occurred=[each.occurred_at for each in voids],
        received_at=now,
        due_at=now + grace_of(organization),
    )


def _taken_back() -> Problem:
    return Problem("duplicate", "One of the events was taken back by somebody else meanwhile.")


def _hours(offered: Catalogue, old: Sequence[StoredEvent]) -> dict[HourPlace, Meter]:
    """Every rollup that any of these events counted in."""
    found: dict[HourPlace, Meter] = {}
    for event in old:
        for meter in offered.meters.get(event.feature, ()):
            if contribution(meter, event) is not None:
                found[HourPlace(event.customer_id, meter.id, hour_of(event.occurred_at))] = meter
    return found


async def _fold_anew(conn: Conn, place: HourPlace, meter: Meter, number: int) -> None:
    found = await events.in_span(
        conn,
        customer_id=place.customer_id,
        feature=meter.event_code,
        span=Period(place.hour, place.hour + _HOUR),
    )
    measured = [each for event in found if (each := contribution(meter, event)) is not None]
    await usage.rewrite_hour(conn, place, fold(meter, measured), meter=meter, number=number)


async def _forget_counters(conn: Conn, hours: Mapping[HourPlace, Meter]) -> None:
    features: defaultdict[UUID, set[UUID]] = defaultdict(set)
    for place, meter in hours.items():
        features[place.customer_id].add(meter.feature_id)
    await usage.recounting(conn, customers=features)
    for customer_id in sorted(features):
        await usage.forget_counters(conn, customer_id=customer_id, feature_ids=list(features[customer_id]))


async def _impact(
    conn: Conn,
    organization: Organization,
    customer_id: UUID,
    span: Period,
    before: tuple[int, str] | None,
    now: datetime,
) -> Impact:
    findings = await look(conn, organization, customer_id=customer_id)
    if findings is not None and any(
        each.period_start < span.end and each.period_end > span.start for each in findings.out_of_reach
    ):
        raise NeedsArchive(findings.needs)
    touched = [
        Touched(
            novelty.period.subscription_id,
            novelty.period.period_index,
            novelty.period.span,
            policy,
            replace(line, id=None),
            novelty.subscription.currency,
        )
        for novelty in (findings.news if findings is not None else [])
        for policy in (LatePolicy.NEXT_PERIOD, LatePolicy.CURRENT_PERIOD)
        for line in novelty.by(policy)
    ]
    after = await _upcoming(conn, organization, customer_id, now)
    return Impact(
        touched,
        before[0] if before else None,
        after[0] if after else None,
        after[1] if after else None,
    )


async def _upcoming(
    conn: Conn, organization: Organization, customer_id: UUID, now: datetime
) -> tuple[int, str] | None:
    """What the customer's open period comes to, as its close would bill it."""
    held = await subscriptions.of_customer(conn, organization_id=organization.id, customer_id=customer_id)
    for subscription in reversed(held):
        if subscription.closes_at is not None:
            reads = await read_for(conn, organization, [subscription])
            return (await prepare(conn, reads, subscription, now)).total, subscription.currency
    return None
