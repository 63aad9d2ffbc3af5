"""Rate one usage period of one subscription: every feature of its plan, from the rollups or from raw events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tallystick.core.adjustments import Rated, Usage, rate_period
from tallystick.core.catalog import Catalogue, Feature, FeatureType, stretches
from tallystick.core.evidence import Basis
from tallystick.core.meters import Measured, fold, in_force
from tallystick.core.pricing import Percentage
from tallystick.core.proof import leaf, set_digest
from tallystick.core.times import Period
from tallystick.flows.measure_usage import contribution, measure_usage
from tallystick.store import events
from tallystick.store.db import Conn
from tallystick.store.events import Digested


@dataclass(frozen=True, slots=True)
class UsagePeriod:
    """Which slice of whose time, lived under which plan."""

    subscription_id: UUID
    customer_id: UUID
    plan_id: UUID
    index: int
    span: Period
    timezone: str


@dataclass(frozen=True, slots=True)
class RatedFeature:
    feature: Feature
    basis: Basis
    rated: Rated


async def rate_features(
    conn: Conn, offered: Catalogue, lived: UsagePeriod, *, position: int, only: frozenset[UUID] | None = None
) -> list[RatedFeature]:
    """What each usage feature of the plan costs over the period, measured through the rollups."""
    features: Mapping[UUID, Feature] = {feature.id: feature for feature in offered.features.values()}
    found = []
    for feature_id, versions in offered.plans.get(lived.plan_id, {}).items():
        feature = features[feature_id]
        if feature.type is not FeatureType.USAGE or (only is not None and feature_id not in only):
            continue
        ruling = tuple(each for each in stretches(versions, lived.span) if each[1].enabled)
        if not ruling:
            continue
        meter = in_force(offered.versions[feature_id], lived.span.start)
        basis = Basis(meter, ruling, lived.index, lived.span, lived.timezone, position)
        found.append(RatedFeature(feature, basis, await rate_basis(conn, lived.customer_id, basis)))
    return found


async def rate_basis(conn: Conn, customer_id: UUID, basis: Basis) -> Rated:
    rows = []
    for span, terms in basis.stretches:
        until = Period(basis.period.start, span.end)
        if isinstance(terms.price, Percentage):
            usage = as_usage(
                (await event_set(conn, customer_id=customer_id, basis=basis, span=until)).measured, basis
            )
        else:
            measured = await measure_usage(conn, customer_id=customer_id, meter=basis.meter, span=until)
            usage = Usage(measured.quantity)
        rows.append((span, terms, usage))
    return rate_period(rows)


def as_usage(measured: tuple[Measured, ...], basis: Basis) -> Usage:
    return Usage(fold(basis.meter, measured).quantity, tuple(each.quantity for each in measured))


async def digest_events(
    conn: Conn, *, customer_id: UUID, basis: Basis, span: Period, after: int = 0
) -> Digested:
    """The events a line bills, as its evidence keeps them; digested where they lie if the meter allows it."""
    if basis.meter.reads_all:
        found = await events.digest(
            conn,
            customer_id=customer_id,
            meter=basis.meter,
            span=span,
            at_position=basis.position,
            after_position=after,
        )
        if found is not None:
            return found
    behind = await event_set(conn, customer_id=customer_id, basis=basis, span=span, after=after)
    quantity = fold(basis.meter, behind.measured).quantity
    return Digested(len(behind.leaves), quantity, set_digest(behind.leaves))


@dataclass(frozen=True, slots=True)
class EventSet:
    """The events a line bills, in the order they happened: what each adds, and the leaves that prove them."""

    measured: tuple[Measured, ...]
    leaves: tuple[bytes, ...]


async def event_set(conn: Conn, *, customer_id: UUID, basis: Basis, span: Period, after: int = 0) -> EventSet:
    """The events of a span that the chain had by the basis' position, and not yet at `after`."""
    leaves: list[bytes] = []
    parts: list[tuple[datetime, Measured]] = []
    found = events.stream_span(
        conn,
        customer_id=customer_id,
        feature=basis.meter.event_code,
        span=span,
        at_position=basis.position,
        after_position=after,
    )
    async for event in found:
        measured = contribution(basis.meter, event)
        if measured is None:
            continue
        leaves.append(leaf(event))
        if event.voids is None:
            parts.append((event.occurred_at, measured))
    parts.sort(
        key=lambda each: (each[0], each[1].quantity)
    )  # of one instant, the order of arrival decides nothing
    return EventSet(tuple(measured for _, measured in parts), tuple(leaves))
