"""What is offered: features, plans, and the terms a plan gives for a feature over a period."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from tallystick.core.meters import Meter
from tallystick.core.pricing import Price
from tallystick.core.times import Period


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

    @property
    def stops_at_included(self) -> bool:
        """A feature without overage is a hard limit (behaviour.md §0.1, 11)."""
        return not self.unlimited and not self.overage_enabled


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that ingest must know of an organization's offer, in one value."""

    features: Mapping[str, Feature]  # by code
    meters: Mapping[str, tuple[Meter, ...]]  # by event code, every version
    versions: Mapping[UUID, tuple[tuple[datetime, Meter], ...]]  # by feature, in order
    plans: Mapping[UUID, Mapping[UUID, tuple[Terms, ...]]]  # plan → feature → versions in order


def terms_over(versions: Sequence[Terms], period: Period) -> Terms | None:
    """The terms a period is lived under: those at its start, bettered by what came later within it.

    What is better for the customer counts now, what is worse waits for the next period (behaviour.md §4.3).
    None when the plan did not have the feature at all.
    """
    before = [each for each in versions if each.valid_from <= period.start]
    during = [each for each in versions if period.start < each.valid_from < period.end]
    current = before[-1] if before else None
    if current is not None and current.removed:
        current = None
    for newer in during:
        if newer.removed:
            continue
        current = newer if current is None else _bettered(current, newer)
    return current


def _bettered(current: Terms, newer: Terms) -> Terms:
    """`current` with everything in which `newer` is kinder."""
    cheaper = newer.overage_enabled and newer.price.unit_amount < current.price.unit_amount
    return replace(
        current,
        id=newer.id if cheaper else current.id,
        version=newer.version if cheaper else current.version,
        enabled=current.enabled or newer.enabled,
        included=max(current.included, newer.included),
        unlimited=current.unlimited or newer.unlimited,
        price=newer.price if cheaper else current.price,
    )
