"""What holds of every price, whatever its numbers: sentences an accountant would sign."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import product
from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tallystick.core.adjustments import Rated, Usage
from tallystick.core.catalog import Terms, is_kinder, stretches
from tallystick.core.money import ZERO
from tallystick.core.pricing import (
    Flat,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    Price,
    Tier,
    Volume,
    minus,
    rate,
    total,
    units,
)
from tests.core.any_price import (
    by_quantity,
    events,
    lives,
    never_cheaper,
    per_unit,
    percentages,
    prices,
    promises,
    quantities,
    usage,
    usages,
)
from tests.core.offers import FEBRUARY, owed, rated, rated_in_turn, terms, tiers
from tests.literals import D, at


def cost(price: Price, used: Usage) -> Decimal:
    return total(rate(price, used.quantity, used.amounts))


# A charge is the sum of its parts, and its parts are the usage.


@given(prices, usages)
def test_the_units_of_the_parts_are_the_units_that_were_used(price: Price, used: Usage) -> None:
    assert units(rate(price, used.quantity, used.amounts)) == used.quantity


@given(prices, usages)
def test_a_charge_is_what_a_pencil_says(price: Price, used: Usage) -> None:
    assert Fraction(cost(price, used)) == by_pencil(price, used)


def by_pencil(price: Price, used: Usage) -> Fraction:
    """Every price once more, in fractions, as its sentence in the documentation says it."""
    quantity = Fraction(used.quantity)
    match price:
        case PerUnit(unit):
            return quantity * Fraction(unit)
        case Flat(amount):
            return Fraction(amount)
        case Graduated(steps, at_zero):
            return sum(
                (
                    max(Fraction(0), min(quantity, end) - begin) * Fraction(tier.unit_amount)
                    + (Fraction(tier.flat_amount) if quantity > begin else 0)
                    for begin, end, tier in spans(steps, quantity)
                ),
                Fraction(steps[0].flat_amount) if at_zero and not quantity else Fraction(0),
            )
        case Volume(steps, at_zero):
            if not quantity and not at_zero:
                return Fraction(0)
            landed = next(tier for _, end, tier in spans(steps, quantity) if quantity <= end)
            return quantity * Fraction(landed.unit_amount) + Fraction(landed.flat_amount)
        case Package(size, amount, free):
            beyond = max(Fraction(0), quantity - Fraction(free))
            return -(-beyond // Fraction(size)) * Fraction(amount)
        case Percentage():
            return sum(fees(price, used.amounts), Fraction(0))


def spans(steps: Sequence[Tier], quantity: Fraction) -> list[tuple[Fraction, Fraction, Tier]]:
    ends = [Fraction(tier.up_to) if tier.up_to is not None else quantity + 1 for tier in steps]
    return list(zip([Fraction(0), *ends], ends, steps, strict=False))


def fees(price: Percentage, amounts: Sequence[Decimal]) -> list[Fraction]:
    left = Fraction(price.free_amount)
    found = []
    for place, each in enumerate(amounts):
        if place < price.free_events:
            continue
        amount = Fraction(each)
        charged = max(Fraction(0), amount - left)
        left = max(Fraction(0), left - amount)
        if amount and not charged:
            continue
        fee = charged * Fraction(price.basis_points) / 10_000 + Fraction(price.fixed_amount)
        if price.max_amount is not None:
            fee = min(fee, Fraction(price.max_amount))
        found.append(max(fee, Fraction(price.min_amount or 0)))
    return found


@given(lives(promises(), promises(), promises()))
def test_every_stretch_answers_for_the_usage_it_saw(turns: list[tuple[Terms, Usage]]) -> None:
    found = rated_in_turn(turns)
    for charge in found.charges:
        assert units(charge.components) == charge.used
        assert total(charge.components) == charge.exact
        assert charge.billable >= 0
        free = 0 if charge.included is None else min(charge.used, charge.included)
        assert charge.included is None or charge.used == free + charge.billable
    assert found.used == turns[-1][1].quantity
    assert total(found.components) == found.exact
    assert units(found.components) == found.used


@given(lives(promises(per_unit), promises(by_quantity), corrected=True))
def test_a_total_that_was_lowered_is_answered_for_as_well(turns: list[tuple[Terms, Usage]]) -> None:
    found = rated_in_turn(turns)
    assert units(found.components) == found.used == turns[-1][1].quantity
    assert total(found.components) == found.exact


# Bounds hold.


@given(promises(), usages)
def test_a_maximum_is_never_passed_and_a_minimum_always_reached(promised: Terms, used: Usage) -> None:
    found = rated(promised, used)
    assert promised.maximum is None or found.exact <= promised.maximum
    assert promised.minimum is None or found.exact >= promised.minimum


@st.composite
def split(
    draw: st.DrawFn,
    priced: st.SearchStrategy[Price] = prices,
    *,
    corrected: bool = False,
    bounded: bool = True,
) -> tuple[Rated, Rated]:
    """The same terms and usage, rated in one piece and in three."""
    promised = draw(promises(priced, bounded=bounded))
    turns = [(promised, used) for _, used in draw(lives(*[st.just(promised)] * 3, corrected=corrected))]
    return rated(*turns[-1]), rated_in_turn(turns)


@given(split())
def test_no_total_changes_where_a_period_is_cut(both: tuple[Rated, Rated]) -> None:
    whole, cut = both
    assert (cut.exact, cut.used, cut.billable) == (whole.exact, whole.used, whole.billable)


@given(split(by_quantity, corrected=True))
def test_nor_where_a_total_was_lowered_in_between(both: tuple[Rated, Rated]) -> None:
    whole, cut = both
    assert (cut.exact, cut.used, cut.billable) == (whole.exact, whole.used, whole.billable)


@given(split(bounded=False))
def test_the_parts_of_a_period_that_is_cut_are_the_parts_of_the_whole(both: tuple[Rated, Rated]) -> None:
    whole, cut = both
    assert minus(cut.components, whole.components) == ()


@given(promises(per_unit), promises(per_unit), events, events)
def test_a_unit_price_that_changes_prices_what_happened_under_it(
    first: Terms, then: Terms, early: list[Decimal], late: list[Decimal]
) -> None:
    assume(not first.unlimited and not then.unlimited)
    first, then = (
        terms(price=each.price) for each in (first, then)
    )  # nothing included, no bounds: each unit at the price of its day
    found = rated_in_turn([(first, usage(early)), (then, usage(early + late))])
    assert found.exact == cost(first.price, usage(early)) + cost(then.price, usage(late))


# More is not cheaper; under a volume price it may be.


@given(never_cheaper, quantities, quantities)
def test_more_usage_never_costs_less(price: Price, one: Decimal, other: Decimal) -> None:
    less, more = sorted((one, other))
    assert total(rate(price, less)) <= total(rate(price, more))


@given(promises(never_cheaper), quantities, quantities)
def test_nor_with_included_units_and_bounds(promised: Terms, one: Decimal, other: Decimal) -> None:
    less, more = sorted((one, other))
    assert rated(promised, Usage(less)).exact <= rated(promised, Usage(more)).exact


@given(percentages, events, quantities, st.integers(0, 7))
def test_one_event_more_never_makes_a_percentage_cheaper(
    price: Percentage, seen: list[Decimal], late: Decimal, place: int
) -> None:
    with_it = [*seen[:place], late, *seen[place:]]
    assert cost(price, usage(seen)) <= cost(price, usage(with_it))


def test_under_a_volume_price_one_unit_more_may_cost_less() -> None:
    """The known cliff, and what volume means: the 101st call reprices the first hundred."""
    price = Volume(tiers("100: 1", "∞: 0.5"))
    assert owed(price, "100") == 100
    assert owed(price, "101") == D("50.5")


def test_under_a_volume_price_more_included_may_cost_more() -> None:
    """The same cliff from the other side: 150 calls land in the cheap tier, 90 do not."""
    price = Volume(tiers("100: 1", "∞: 0.1"))
    assert rated(terms("0", price=price), "150").exact == 15
    assert rated(terms("60", price=price), "150").exact == 90


@given(promises(st.one_of(never_cheaper, percentages)), quantities, usages)
def test_more_included_never_costs_more(promised: Terms, more: Decimal, used: Usage) -> None:
    assume(not isinstance(promised.price, Percentage))
    included = promised.included + more
    kinder = terms(
        str(included),
        price=promised.price,
        unlimited=promised.unlimited,
        minimum=None if promised.minimum is None else str(promised.minimum),
        maximum=None if promised.maximum is None else str(promised.maximum),
    )
    assert rated(kinder, used).exact <= rated(promised, used).exact


# The order of things.


@given(st.one_of(by_quantity, percentages), events, st.randoms(use_true_random=False))
def test_the_order_of_equal_fees_changes_no_total(price: Price, seen: list[Decimal], chance: Random) -> None:
    if isinstance(price, Percentage):
        price = Percentage(price.basis_points, price.fixed_amount, price.min_amount, price.max_amount)
    shuffled = list(seen)
    chance.shuffle(shuffled)
    assert cost(price, usage(seen)) == cost(price, usage(shuffled))


@given(percentages, quantities, st.integers(0, 7))
def test_events_of_one_amount_may_come_in_any_order(price: Percentage, amount: Decimal, count: int) -> None:
    """What is free is free for the first of them, whichever they are."""
    free = min(count, price.free_events)
    assert cost(price, usage([amount] * count)) == cost(
        Percentage(
            price.basis_points,
            price.fixed_amount,
            price.min_amount,
            price.max_amount,
            free_amount=price.free_amount,
        ),
        usage([amount] * (count - free)),
    )


@given(prices, usages)
def test_a_charge_less_itself_is_nothing(price: Price, used: Usage) -> None:
    parts = rate(price, used.quantity, used.amounts)
    assert minus(parts, parts) == ()


@given(prices, usages, prices, usages)
def test_what_is_left_and_what_was_before_are_the_whole(
    price: Price, used: Usage, other: Price, before: Usage
) -> None:
    now = rate(price, used.quantity, used.amounts)
    earlier = rate(other, before.quantity, before.amounts)
    left = minus(now, earlier)
    assert total(left) == total(now) - total(earlier)
    assert units(left) == units(now) - units(earlier)
    assert minus((*left, *earlier), now) == ()


# A price that is called kinder is.


MODELS = (PerUnit, Flat, Graduated, Volume, Package, Percentage)
few = st.sampled_from([ZERO, D(1), D(2), D(3)])


@st.composite
def rivals(draw: st.DrawFn, models: Sequence[type[Price]] = MODELS) -> tuple[Price, Price]:
    """Two prices of one model that share most of their numbers, so that one is often kinder than the other."""
    ends = sorted(draw(st.lists(st.sampled_from([D(1), D(2), D(3)]), max_size=2, unique=True)))
    size = draw(st.sampled_from([D(1), D(2)]))
    model = draw(st.sampled_from(models))
    shared = [draw(few) for _ in range(6)]
    flags = [draw(st.booleans()) for _ in range(3)]

    def number(place: int) -> Decimal:
        return draw(st.one_of(st.just(shared[place]), few))

    def flag(place: int) -> bool:
        return draw(st.sampled_from([flags[place], flags[place], not flags[place]]))

    def price() -> Price:
        if model is PerUnit or model is Flat:
            return model(number(0))
        if model is Graduated or model is Volume:
            steps = tuple(
                Tier(end, number(2 * place), number(2 * place + 1)) for place, end in enumerate((*ends, None))
            )
            return model(steps, flag(0))
        if model is Package:
            return Package(draw(st.sampled_from([size, size, D(1)])), number(0), number(1))
        least, most = sorted((number(0), number(1)))
        return Percentage(
            number(2) * 2500,
            number(3),
            least if flag(0) else None,
            most if flag(1) else None,
            int(number(4)),
            number(5),
        )

    one, other = price(), price()
    return (other, one) if is_kinder(other, one) else (one, other)


halves = st.integers(0, 14).map(lambda count: D(count) / 2)


@settings(max_examples=1000)
@given(rivals(), st.lists(halves, max_size=5))
def test_a_kinder_price_never_costs_more(both: tuple[Price, Price], seen: list[Decimal]) -> None:
    newer, older = both
    assume(is_kinder(newer, older))
    for used in (usage([]), usage(seen)):
        assert cost(newer, used) <= cost(older, used)


def test_nor_does_any_of_the_small_world() -> None:
    """All prices of few numbers, against all the others, at every half unit up to beyond the last tier."""
    some = (ZERO, D(1), D(2))
    steps = [
        (Tier(D(2), *one), Tier(None, *two))
        for one in product(some[:2], some[:2])
        for two in product(some, some[:2])
    ]
    families: list[list[Price]] = [
        [PerUnit(each) for each in some],
        [Flat(each) for each in some],
        [Graduated(each, flag) for each in steps for flag in (False, True)],
        [Volume(each, flag) for each in steps for flag in (False, True)],
        [Package(size, amount, free) for size in (D(1), D(2)) for amount in some for free in some],
    ]
    used = [D(halves) / 2 for halves in range(7)]
    kinder = 0
    for family in families:
        costs = [[total(rate(each, quantity)) for quantity in used] for each in family]
        for (newer, new_costs), (older, old_costs) in product(zip(family, costs, strict=True), repeat=2):
            if is_kinder(newer, older):
                kinder += 1
                assert all(new <= old for new, old in zip(new_costs, old_costs, strict=True)), (newer, older)
    assert kinder > 900  # the world is not so small that nothing is kinder


@given(rivals())
def test_no_price_is_kinder_than_itself_and_no_two_than_each_other_at_a_difference(
    both: tuple[Price, Price],
) -> None:
    newer, older = both
    assert not is_kinder(newer, newer)
    if is_kinder(newer, older) and is_kinder(older, newer):
        for used in (usage([]), usage([D(1)]), usage([D(5), D(2)])):
            assert cost(newer, used) == cost(older, used)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Terms, Terms]:
    """What a plan promised at the first of February and since the fifteenth, under any model but volume."""
    newer, older = draw(rivals([each for each in MODELS if each is not Volume]))
    now, then = draw(promises(st.just(older))), draw(promises(st.just(newer)))
    return now, replace(then, version=2, valid_from=at("2026-02-15"), overage_enabled=draw(st.booleans()))


@settings(max_examples=500)
@given(changes(), st.lists(halves, max_size=5))
def test_a_change_that_nobody_dated_never_costs_more_in_its_period(
    change: tuple[Terms, Terms], seen: list[Decimal]
) -> None:
    ((span, promised),) = stretches(change, FEBRUARY)
    assert span == FEBRUARY
    assert rated(promised, usage(seen)).exact <= rated(change[0], usage(seen)).exact
