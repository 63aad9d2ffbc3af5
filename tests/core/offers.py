"""Terms, prices, meters and customers for the tests of the pure room, with all that does not matter filled in."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from tallystick.core.adjustments import Rated, Usage, rate_period
from tallystick.core.catalog import Catalogue, Feature, FeatureType, Stretch, Terms
from tallystick.core.evidence import Basis
from tallystick.core.meters import Aggregation, Meter
from tallystick.core.money import ZERO, text
from tallystick.core.pricing import Components, Package, Percentage, PerUnit, Price, Tier, rate, total
from tallystick.core.subscriptions import Life, Standing, Status
from tallystick.core.times import Anchor, Period, local_day
from tests.literals import P, U, at

PLAN, CALLS, SEARCH, SUBSCRIPTION, CUSTOMER = U(1), U(2), U(3), U(4), U(5)
LONG_AGO = at("2020-01-01")
FEBRUARY, MARCH = P("2026-02-01/2026-03-01"), P("2026-03-01/2026-04-01")


def tiers(*steps: str) -> tuple[Tier, ...]:
    """The steps of a price: "100: 0.75 + 20" is 0.75 a unit up to 100, and 20 once; "∞" is where it ends."""
    found = []
    for step in steps:
        up_to, _, money = step.partition(":")
        unit, _, flat = money.partition("+")
        end = None if up_to.strip() == "∞" else Decimal(up_to)
        found.append(Tier(end, Decimal(unit.strip()), Decimal(flat.strip() or 0)))
    return tuple(found)


def package(size: str, amount: str, free: str = "0") -> Package:
    return Package(Decimal(size), Decimal(amount), Decimal(free))


def percentage(
    percent: str,
    *,
    fixed: str = "0",
    least: str | None = None,
    most: str | None = None,
    free_events: int = 0,
    free_amount: str = "0",
) -> Percentage:
    """Written in percent, as people say it; kept in basis points."""
    return Percentage(
        Decimal(percent) * 100,
        Decimal(fixed),
        None if least is None else Decimal(least),
        None if most is None else Decimal(most),
        free_events,
        Decimal(free_amount),
    )


def events(*amounts: str) -> Usage:
    """Usage that came in these events, one after the other."""
    each = tuple(Decimal(amount) for amount in amounts)
    return Usage(sum(each, ZERO), each)


def owed(price: Price, quantity: str) -> Decimal:
    return total(rate(price, Decimal(quantity)))


def said(components: Components) -> list[str]:
    """A charge as somebody would read it out."""
    return [
        f"{each.label}: {text(each.quantity)} × {text(each.unit_amount)} = {text(each.amount)}"
        for each in components
    ]


def terms(
    included: str = "0",
    *,
    overage: bool = False,
    unit: str = "0",
    price: Price | None = None,
    minimum: str | None = None,
    maximum: str | None = None,
    unlimited: bool = False,
    enabled: bool = True,
    removed: bool = False,
    pinned: bool = False,
    version: int = 1,
    valid_from: datetime = LONG_AGO,
) -> Terms:
    """What a plan promises; a `price` is one that is charged."""
    return Terms(
        id=U(1000 + version),
        plan_id=PLAN,
        feature_id=CALLS,
        version=version,
        enabled=enabled,
        included=Decimal(included),
        unlimited=unlimited,
        overage_enabled=overage or price is not None,
        price=PerUnit(Decimal(unit)) if price is None else price,
        valid_from=valid_from,
        removed=removed,
        minimum=None if minimum is None else Decimal(minimum),
        maximum=None if maximum is None else Decimal(maximum),
        pinned=pinned,
    )


def rated(promised: Terms, usage: Usage | str) -> Rated:
    """What February costs under one promise."""
    used = usage if isinstance(usage, Usage) else Usage(Decimal(usage))
    return rate_period([(FEBRUARY, promised, used)])


def rated_in_turn(promised: Iterable[tuple[Terms, Usage | str]]) -> Rated:
    """What February costs when its terms take turns; each with the usage since the first of the month."""
    shares = [
        (promise, used if isinstance(used, Usage) else Usage(Decimal(used))) for promise, used in promised
    ]
    step = (FEBRUARY.end - FEBRUARY.start) / max(1, len(shares))
    cuts = [FEBRUARY.start + step * each for each in range(len(shares))] + [FEBRUARY.end]
    return rate_period([(Period(cuts[each], cuts[each + 1]), *share) for each, share in enumerate(shares)])


def feature(code: str = "api_calls", kind: str = "usage") -> Feature:
    return Feature(CALLS, code, code, FeatureType(kind), None, None, LONG_AGO, LONG_AGO)


def meter(aggregation: str = "sum", *, event_code: str = "api_calls", version: int = 1) -> Meter:
    property_name = "user_id" if aggregation == "unique" else None
    return Meter(
        U(2000 + version), CALLS, "api_calls", version, event_code, Aggregation(aggregation), property_name
    )


def basis(*stretches: Stretch, zone: str = "UTC") -> Basis:
    """What February, the second period of somebody, is rated by."""
    return Basis(meter(), stretches, 1, FEBRUARY, zone, position=7)


def basis_of(found: Rated, zone: str = "UTC") -> Basis:
    return basis(*((charge.span, charge.terms) for charge in found.charges), zone=zone)


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
