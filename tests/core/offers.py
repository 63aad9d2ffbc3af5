"""Terms, meters and customers for the tests of the pure room, with everything that does not matter filled in."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from tallystick.core.catalog import Catalogue, Feature, FeatureType, Terms
from tallystick.core.meters import Aggregation, Meter
from tallystick.core.pricing import PerUnit
from tallystick.core.subscriptions import Life, Standing, Status
from tallystick.core.times import Anchor, local_day
from tests.literals import U, at

PLAN, CALLS, SEARCH, SUBSCRIPTION, CUSTOMER = U(1), U(2), U(3), U(4), U(5)
LONG_AGO = at("2020-01-01")


def terms(
    included: str = "0",
    *,
    overage: bool = False,
    unit: str = "0",
    unlimited: bool = False,
    enabled: bool = True,
    removed: bool = False,
    version: int = 1,
    valid_from: datetime = LONG_AGO,
) -> Terms:
    return Terms(
        id=U(1000 + version),
        plan_id=PLAN,
        feature_id=CALLS,
        version=version,
        enabled=enabled,
        included=Decimal(included),
        unlimited=unlimited,
        overage_enabled=overage,
        price=PerUnit(Decimal(unit)),
        valid_from=valid_from,
        removed=removed,
    )


def feature(code: str = "api_calls", kind: str = "usage") -> Feature:
    return Feature(CALLS, code, code, FeatureType(kind), None, None, LONG_AGO, LONG_AGO)


def meter(aggregation: str = "sum", *, event_code: str = "api_calls", version: int = 1) -> Meter:
    property_name = "user_id" if aggregation == "unique" else None
    return Meter(
        U(2000 + version), CALLS, "api_calls", version, event_code, Aggregation(aggregation), property_name
    )


def catalogue(
    promised: Sequence[Terms] = (), *, measured: Meter | None = None, kind: str = "usage"
) -> Catalogue:
    """One feature, `api_calls`, with one meter, in one plan."""
    measured = measured or meter()
    usage = kind == "usage"
    return Catalogue(
        features={"api_calls": feature(kind=kind)},
        meters={measured.event_code: (measured,)} if usage else {},
        versions={CALLS: ((LONG_AGO, measured),)} if usage else {},
        plans={PLAN: {CALLS: tuple(promised)}} if promised else {},
    )


def life(
    start: str = "2026-01-15T10:00Z",
    end: str | None = None,
    *,
    status: Status = Status.ACTIVE,
    zone: str = "UTC",
) -> Life:
    begins = at(start)
    return Life(
        SUBSCRIPTION,
        PLAN,
        status,
        Anchor(begins, local_day(begins, zone), weekly=False),
        zone,
        at(end) if end else None,
    )


def standing(current: Life | None = None, *past: Life) -> Standing:
    return Standing(CUSTOMER, "ada", current, past)
