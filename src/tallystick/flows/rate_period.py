"""Rate one usage period of one subscription: every feature of its plan, from the rollups or from raw events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tallystick.core.adjustments import Rated, Usage, rate_period
from tallystick.core.catalog import Catalogue, Feature, FeatureType, Stretch, stretches
from tallystick.core.evidence import Basis
from tallystick.core.meters import Measured, fold, in_force
from tallystick.core.pricing import Percentage, Price
from tallystick.core.proof import leaf
from tallystick.core.times import Period
from tallystick.flows.measure_usage import contribution, measure_usage
from tallystick.store import events
from tallystick.store.db import Conn


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


Ruled = Mapping[UUID, tuple[Stretch, ...]]
"""The terms a period is lived under, by feature."""

Readings = dict[tuple[UUID, Period, bool], Usage]
"""Usage by meter and span, event by event or not: what was read already of one customer, under one snapshot."""


async def rate_features(
    conn: Conn, offered: Catalogue, lived: UsagePeriod, *, position: int
) -> list[RatedFeature]:
    """What each usage feature of the plan costs over the period, measured through the rollups."""
    return await rate_ruled(conn, offered, lived, ruling(offered, lived), position=position)


def ruling(offered: Catalogue, lived: UsagePeriod) -> Ruled:
    """What the plan promises of each usage feature over the period, where it is switched on."""
    usage = {each.id for each in offered.features.values() if each.type is FeatureType.USAGE}
    found = {
        feature_id: tuple(each for each in stretches(versions, lived.span) if each[1].enabled)
        for feature_id, versions in offered.plans.get(lived.plan_id, {}).items()
        if feature_id in usage
    }
    return {feature_id: terms for feature_id, terms in found.items() if terms}


async def rate_ruled(
    conn: Conn,
    offered: Catalogue,
    lived: UsagePeriod,
    ruled: Ruled,
    *,
    position: int,
    readings: Readings | None = None,
) -> list[RatedFeature]:
    """What the period's usage costs under these terms, whoever promised them."""
    features: Mapping[UUID, Feature] = {feature.id: feature for feature in offered.features.values()}
    found = []
    for feature_id, terms in ruled.items():
        meter = in_force(offered.versions[feature_id], lived.span.start)
        basis = Basis(meter, terms, lived.index, lived.span, lived.timezone, position)
        rated = await rate_basis(conn, lived.customer_id, basis, {} if readings is None else readings)
        found.append(RatedFeature(features[feature_id], basis, rated))
    return found


async def rate_basis(conn: Conn, customer_id: UUID, basis: Basis, readings: Readings) -> Rated:
    rows = []
    for span, terms in basis.stretches:
        until = Period(basis.period.start, span.end)
        reading = (basis.meter.id, until, isinstance(terms.price, Percentage))
        if reading not in readings:
            readings[reading] = await _read(conn, customer_id, basis, until, terms.price)
        rows.append((span, terms, readings[reading]))
    return rate_period(rows)


async def _read(conn: Conn, customer_id: UUID, basis: Basis, span: Period, price: Price) -> Usage:
    if isinstance(price, Percentage):
        behind = await event_set(conn, customer_id=customer_id, basis=basis, span=span)
        return as_usage(behind.measured, basis)
    return Usage((await measure_usage(conn, customer_id=customer_id, meter=basis.meter, span=span)).quantity)


def as_usage(measured: tuple[Measured, ...], basis: Basis) -> Usage:
    return Usage(fold(basis.meter, measured).quantity, tuple(each.quantity for each in measured))


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
        if measured is not None:
            leaves.append(leaf(event))
            parts.append((event.occurred_at, measured))
    parts.sort(
        key=lambda each: (each[0], each[1].quantity)
    )  # of one instant, the order of arrival decides nothing
    return EventSet(tuple(measured for _, measured in parts), tuple(leaves))
