"""Any price and any usage within our limits: what the laws are tried on.

Numbers are mostly small and on a coarse grid, so that tiers, packages and bounds are met exactly and often; some are
as long as our limits allow.
"""

from decimal import Decimal

from hypothesis import strategies as st

from tallystick.core.adjustments import Usage
from tallystick.core.catalog import Terms
from tallystick.core.money import ZERO
from tallystick.core.pricing import Flat, Graduated, Package, Percentage, PerUnit, Price, Tier, Volume
from tests.core.offers import terms

coarse = st.integers(0, 60).map(lambda halves: Decimal(halves) / 2)
fine = st.integers(0, 10**6).map(lambda digits: Decimal(digits).scaleb(-4))
wild = st.integers(0, 10**32 - 1).map(lambda digits: Decimal(digits).scaleb(-12))
amounts = st.one_of(coarse, fine, wild)
sizes = amounts.filter(bool)
quantities = st.one_of(coarse, coarse, fine, wild)

per_unit = st.builds(PerUnit, amounts)
flat = st.builds(Flat, amounts)


@st.composite
def _tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    ends = sorted(draw(st.lists(st.one_of(coarse.filter(bool), sizes), max_size=4, unique=True)))
    return tuple(Tier(end, draw(amounts), draw(amounts)) for end in (*ends, None))


graduated = st.builds(Graduated, _tiers(), st.booleans())
volume = st.builds(Volume, _tiers(), st.booleans())
packages = st.builds(Package, sizes, amounts, amounts)


@st.composite
def _percentages(draw: st.DrawFn) -> Percentage:
    points = draw(st.integers(0, 10**6).map(lambda digits: Decimal(digits).scaleb(-2)))
    bounds = sorted((draw(amounts), draw(amounts)))
    least, most = draw(st.booleans()), draw(st.booleans())
    return Percentage(
        points,
        draw(amounts),
        bounds[0] if least else None,
        bounds[1] if most else None,
        draw(st.integers(0, 4)),
        draw(amounts),
    )


percentages = _percentages()
by_quantity: st.SearchStrategy[Price] = st.one_of(per_unit, flat, graduated, volume, packages)
prices: st.SearchStrategy[Price] = st.one_of(by_quantity, percentages)
never_cheaper: st.SearchStrategy[Price] = st.one_of(per_unit, flat, graduated, packages)
"""The models under which more usage never costs less; a volume price may."""

events = st.lists(quantities, max_size=7)


def usage(amounts_in_order: list[Decimal]) -> Usage:
    return Usage(sum(amounts_in_order, ZERO), tuple(amounts_in_order))


usages = events.map(usage)


@st.composite
def promises(draw: st.DrawFn, priced: st.SearchStrategy[Price] = prices, *, bounded: bool = True) -> Terms:
    """Terms that a plan may have: nothing is included under a percentage, a minimum is no more than its maximum."""
    price = draw(priced)
    bounds = sorted((draw(amounts), draw(amounts)))
    least, most = bounded and draw(st.booleans()), bounded and draw(st.booleans())
    return terms(
        "0" if isinstance(price, Percentage) else str(draw(quantities)),
        price=price,
        unlimited=draw(st.sampled_from([False, False, False, True])),
        minimum=str(bounds[0]) if least else None,
        maximum=str(bounds[1]) if most else None,
    )


@st.composite
def lives(
    draw: st.DrawFn, *promised: st.SearchStrategy[Terms], corrected: bool = False
) -> list[tuple[Terms, Usage]]:
    """Terms that take turns in a period, each with the usage since its start. `corrected`: a total may be lowered."""
    story: list[Decimal] = []
    found = []
    for each in promised:
        story += draw(events)
        if corrected and draw(st.booleans()):
            story.append(-min(sum(story, ZERO), draw(quantities)))
        found.append((draw(each), usage(story)))
    return found
