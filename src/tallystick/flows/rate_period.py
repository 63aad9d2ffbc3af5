"""Rate one usage period of one subscription: every feature of its plan, from the rollups or from raw events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tallystick.core.adjustments import Rated, Usage, rate_period
from tallystick.core.catalog import Catalogue, Feature, FeatureType, Stretch, stretches
from tallystick.core.evidence import Basis
from tallystick.core.meters import Measured, Total, fold, in_force
from tallystick.core.pricing import Percentage
from tallystick.core.proof import leaf, set_digest
from tallystick.core.times import Period, whole_hours
from tallystick.flows.measure_usage import contribution, measure_usage
from tallystick.store import digesting, events, usage
from tallystick.store.db import Conn
from tallystick.store.digesting import Digested, ToDigest


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


Known = dict[tuple[UUID, UUID, Period], Total]
"""Folds that were read already, by customer, meter and span."""

Ruled = Mapping[UUID, tuple[Stretch, ...]]
"""The terms of a period, by feature: where it has none, it is not rated."""


async def rate_features(
    conn: Conn,
    offered: Catalogue,
    lived: UsagePeriod,
    *,
    position: int,
    known: Known | None = None,
    ruled: Ruled | None = None,
) -> list[RatedFeature]:
    """What each usage feature of the plan costs over the period, measured through the rollups; by other terms than
    it was lived under, when they are given."""
    return await rate_each(
        conn, lived.customer_id, bases(offered, lived, position=position, ruled=ruled), known
    )


async def rate_each(
    conn: Conn, customer_id: UUID, wanted: Sequence[tuple[Feature, Basis]], known: Known | None = None
) -> list[RatedFeature]:
    return [
        RatedFeature(feature, basis, await rate_basis(conn, customer_id, basis, known))
        for feature, basis in wanted
    ]


def ruling(offered: Catalogue, lived: UsagePeriod) -> Ruled:
    """What the plan promises of each usage feature over the period, where it is switched on; prepaid usage is paid."""
    if lived.plan_id in offered.prepaid:
        return {}
    usage_features = {each.id for each in offered.features.values() if each.type is FeatureType.USAGE}
    found = {
        feature_id: tuple(each for each in stretches(versions, lived.span) if each[1].enabled)
        for feature_id, versions in offered.plans.get(lived.plan_id, {}).items()
        if feature_id in usage_features
    }
    return {feature_id: terms for feature_id, terms in found.items() if terms}


def bases(
    offered: Catalogue, lived: UsagePeriod, *, position: int, ruled: Ruled | None = None
) -> list[tuple[Feature, Basis]]:
    """What each usage feature of the plan is rated by."""
    features: Mapping[UUID, Feature] = {feature.id: feature for feature in offered.features.values()}
    found = []
    for feature_id, terms in (ruling(offered, lived) if ruled is None else ruled).items():
        meter = in_force(offered.versions[feature_id], lived.span.start)
        basis = Basis(meter, terms, lived.index, lived.span, lived.timezone, position)
        found.append((features[feature_id], basis))
    return found


async def read_ahead(conn: Conn, wanted: Sequence[tuple[UUID, Basis]]) -> Known:
    """The folds that rating these will ask for, in two statements; what they cannot say is asked one by one."""
    asked = [
        (customer_id, basis.meter, Period(basis.period.start, span.end))
        for customer_id, basis in wanted
        for span, terms in basis.stretches
        if basis.meter.reads_all and not isinstance(terms.price, Percentage)
    ]
    found = await usage.folds(
        conn, [usage.Asked(customer_id, meter, *whole_hours(span)) for customer_id, meter, span in asked]
    )
    return {
        (customer_id, meter.id, span): each
        for (customer_id, meter, span), each in zip(asked, found, strict=True)
    }


async def rate_basis(conn: Conn, customer_id: UUID, basis: Basis, known: Known | None = None) -> Rated:
    rows = []
    for span, terms in basis.stretches:
        until = Period(basis.period.start, span.end)
        measured = (known or {}).get((customer_id, basis.meter.id, until))
        if isinstance(terms.price, Percentage):
            used = as_usage(
                (await event_set(conn, customer_id=customer_id, basis=basis, span=until)).measured, basis
            )
        else:
            if measured is None:
                measured = await measure_usage(conn, customer_id=customer_id, meter=basis.meter, span=until)
                if known is not None:
                    known[customer_id, basis.meter.id, until] = measured
            used = Usage(measured.quantity)
        rows.append((span, terms, used))
    return rate_period(rows)


def as_usage(measured: tuple[Measured, ...], basis: Basis) -> Usage:
    return Usage(fold(basis.meter, measured).quantity, tuple(each.quantity for each in measured))


@dataclass(frozen=True, slots=True)
class Listed:
    """The events a line lists, of which it is to keep the digest."""

    customer_id: UUID
    basis: Basis
    span: Period
    after: int = 0


async def digest_events(conn: Conn, listed: Sequence[Listed]) -> list[Digested]:
    """What the evidence of lines keeps of their events; digested where they lie if the meter allows it.

    The snapshot of `conn` stands at the position of every basis.
    """
    in_place = [place for place, each in enumerate(listed) if each.basis.meter.reads_all]
    asked = [
        ToDigest(each.customer_id, each.basis.meter, each.span, each.after)
        for each in (listed[place] for place in in_place)
    ]
    found: dict[int, Digested | None] = dict(
        zip(in_place, await digesting.digests(conn, asked) if asked else (), strict=True)
    )
    return [found.get(place) or await _digest_one_by_one(conn, each) for place, each in enumerate(listed)]


async def _digest_one_by_one(conn: Conn, listed: Listed) -> Digested:
    behind = await event_set(
        conn, customer_id=listed.customer_id, basis=listed.basis, span=listed.span, after=listed.after
    )
    quantity = fold(listed.basis.meter, behind.measured).quantity
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
