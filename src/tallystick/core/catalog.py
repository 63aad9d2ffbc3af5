"""What is offered: features, plans, and the terms a plan gives for a feature over a period."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from tallystick.core.meters import Meter
from tallystick.core.money import ZERO
from tallystick.core.pricing import Flat, Graduated, Package, Percentage, PerUnit, Price, Volume
from tallystick.core.times import Period
from tallystick.core.wallets import Prepaid


class FeatureType(StrEnum):
    BOOLEAN = "boolean"
    USAGE = "usage"
    SEATS = "seats"
    QUOTA = "quota"


INTERVALS: Final = ("weekly", "monthly", "quarterly", "semiannual", "yearly", "one_time")


@dataclass(frozen=True, slots=True)
class Feature:
    id: UUID
    code: str
    name: str
    type: FeatureType
    description: str | None
    unit_name: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Terms:
    """One version of what a plan promises of a feature: never edited, only superseded."""

    id: UUID
    plan_id: UUID
    feature_id: UUID
    version: int
    enabled: bool
    included: Decimal
    unlimited: bool
    overage_enabled: bool
    price: Price
    valid_from: datetime
    removed: bool = False
    minimum: Decimal | None = None  # major units a period, topped up to
    maximum: Decimal | None = None  # major units a period, capped at
    pinned: bool = False  # valid_from was asked for: it counts from that very instant, better or worse
    credits_per_unit: int | None = None  # of a credits plan
    margin_bps: int | None = (
        None  # of a balance plan: its units are AI tokens, at their price and this share more
    )

    @property
    def pricing_mode(self) -> str:
        return "fixed" if self.margin_bps is None else "ai_model"

    @property
    def stops_at_included(self) -> bool:
        """A feature without overage is a hard limit (behaviour.md §0.1, 11)."""
        return not self.unlimited and not self.overage_enabled


@dataclass(frozen=True, slots=True)
class Minimum:
    """The least a plan's usage costs a period, from a moment on; None: nothing any more. Major units."""

    valid_from: datetime
    amount: Decimal | None


def minimum_over(versions: Sequence[Minimum], period: Period) -> Decimal | None:
    """What was asked at the period's start, or less if it was lowered within it: like terms, worse waits."""
    before = [each.amount for each in versions if each.valid_from <= period.start]
    during = [each.amount for each in versions if period.start < each.valid_from < period.end]
    asked = [before[-1] if before else None, *during]
    return None if None in asked else min(each for each in asked if each is not None)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that ingest must know of an organization's offer, in one value."""

    features: Mapping[str, Feature]  # by code
    meters: Mapping[str, tuple[Meter, ...]]  # by event code, every version
    versions: Mapping[UUID, tuple[tuple[datetime, Meter], ...]]  # by feature, in order
    plans: Mapping[UUID, Mapping[UUID, tuple[Terms, ...]]]  # plan → feature → versions in order
    minimums: Mapping[UUID, tuple[Minimum, ...]] = field(default_factory=dict)  # by plan, versions in order
    prepaid: Mapping[UUID, Prepaid] = field(default_factory=dict)  # by plan; no other is paid beforehand


Stretch = tuple[Period, Terms]


def stretches(versions: Sequence[Terms], period: Period) -> tuple[Stretch, ...]:
    """The terms a period is lived under, each with the part of it they rule; what is removed rules nothing.

    Terms at the period's start are bettered by what came later within it: what is better for the customer counts
    now, what is worse waits for the next period (behaviour.md §4.3). A version with a `validFrom` of its own
    begins a stretch at that instant.
    """
    found: list[Stretch] = []
    start, current = period.start, None
    for version in sorted(versions, key=lambda each: (each.valid_from, each.version)):
        if version.valid_from >= period.end:
            break
        if version.valid_from <= period.start:
            current = None if version.removed else version
        elif version.pinned:
            if current is not None and start < version.valid_from:
                found.append((Period(start, version.valid_from), current))
            start, current = version.valid_from, None if version.removed else version
        elif not version.removed:
            current = version if current is None else _bettered(current, version)
    if current is not None:
        found.append((Period(start, period.end), current))
    return tuple(found)


def terms_at(versions: Sequence[Terms], period: Period, at: datetime) -> Terms | None:
    """The terms that rule at an instant of a period; None when the plan does not have the feature then."""
    return ruling(stretches(versions, period), at)


def ruling(ruled: Sequence[Stretch], at: datetime) -> Terms | None:
    """Those of the stretch in which an instant lies."""
    return next((terms for span, terms in ruled if at in span), None)


def stops_throughout(ruled: Sequence[Stretch], period: Period) -> bool:
    """Whether all of a period is lived under hard limits, so that whatever was used in it has drawn on one."""
    lived = sum((span.end - span.start for span, _ in ruled), timedelta())
    return lived == period.end - period.start and all(
        terms.enabled and terms.stops_at_included for _, terms in ruled
    )


def promised(versions: Sequence[Terms], now: datetime) -> Terms | None:
    """What a subscriber of today gets; None when the promise has ended."""
    begun = [version for version in versions if version.valid_from <= now] or versions[:1]
    last = max(begun, key=lambda version: (version.valid_from, version.version))
    return None if last.removed else last


def _bettered(current: Terms, newer: Terms) -> Terms:
    """`current` with everything in which `newer` is kinder."""
    cheaper = newer.overage_enabled and is_kinder(newer.price, current.price)
    takes_all = current.overage_enabled and isinstance(
        current.price, Percentage
    )  # nothing is included (ruling 19)
    return replace(
        current,
        id=newer.id if cheaper else current.id,
        version=newer.version if cheaper else current.version,
        enabled=current.enabled or newer.enabled,
        included=current.included if takes_all else max(current.included, newer.included),
        unlimited=current.unlimited or newer.unlimited,
        price=newer.price if cheaper else current.price,
        minimum=_least(current.minimum, newer.minimum, none_is=ZERO),
        maximum=_least(current.maximum, newer.maximum, none_is=None),
        credits_per_unit=_cheaper(current.credits_per_unit, newer.credits_per_unit),
        margin_bps=_cheaper(current.margin_bps, newer.margin_bps),
    )


def _least(one: Decimal | None, other: Decimal | None, *, none_is: Decimal | None) -> Decimal | None:
    """The kinder of two bounds: no minimum is the least there is, no maximum the most."""
    if none_is is not None and (one is None or other is None):
        return None
    return min((each for each in (one, other) if each is not None), default=None)


def _cheaper(current: int | None, newer: int | None) -> int | None:
    """The lower of two, where both ask for something; what asks otherwise waits."""
    return current if current is None or newer is None else min(current, newer)


def is_kinder(newer: Price, older: Price) -> bool:
    """Whether `newer` can never cost more than `older` and sometimes costs less: it may count at once (§4.3).

    Prices of different models, or with other steps, cannot be told apart so simply: they wait for the renewal.
    """
    if newer == older:
        return False
    match newer, older:
        case PerUnit(), PerUnit():
            return newer.unit_amount <= older.unit_amount
        case Flat(), Flat():
            return newer.amount <= older.amount
        case (Graduated() | Volume(), Graduated() | Volume()):
            return (
                type(newer) is type(older)
                and newer.charge_flat_at_zero <= older.charge_flat_at_zero
                and [tier.up_to for tier in newer.tiers] == [tier.up_to for tier in older.tiers]
                and all(
                    new.unit_amount <= old.unit_amount and new.flat_amount <= old.flat_amount
                    for new, old in zip(newer.tiers, older.tiers, strict=True)
                )
            )
        case Package(), Package():
            return (
                newer.size == older.size
                and newer.amount <= older.amount
                and newer.free_units >= older.free_units
            )
        case Percentage(), Percentage():
            return (
                newer.basis_points <= older.basis_points
                and newer.fixed_amount <= older.fixed_amount
                and (newer.min_amount or ZERO) <= (older.min_amount or ZERO)
                and (
                    older.max_amount is None
                    or (newer.max_amount is not None and newer.max_amount <= older.max_amount)
                )
                and newer.free_events >= older.free_events
                and newer.free_amount >= older.free_amount
            )
    return False
