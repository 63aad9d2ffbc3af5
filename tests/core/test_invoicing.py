"""Lines: exact quantities and whole money, each rounded once; late usage is a line of what is new."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.adjustments import Rated, Usage, rate_period
from tallystick.core.catalog import Terms
from tallystick.core.evidence import frozen_components
from tallystick.core.invoicing import (
    Billed,
    Line,
    Part,
    base_line,
    difference_line,
    in_money,
    number,
    subtotal,
    usage_lines,
)
from tallystick.core.money import ZERO, to_minor
from tallystick.core.pricing import Flat, Graduated, PerUnit, Volume, total, units
from tallystick.core.times import Period
from tests.core.any_price import promises, quantities, usage
from tests.core.offers import (
    CALLS,
    FEBRUARY,
    basis_of,
    events,
    percentage,
    rated,
    rated_in_turn,
    said,
    terms,
    tiers,
)
from tests.literals import D, P

DOLLAR = PerUnit(D(1))
CURRENCIES = st.sampled_from(["USD", "JPY"])


def lines_of(found: Rated, *, currency: str = "USD", zone: str = "UTC") -> list[Line]:
    return usage_lines(
        basis_of(found, zone),
        found,
        feature_id=CALLS,
        feature_name="API calls",
        unit="units",
        currency=currency,
    )


def line_for_what_is_new(
    found: Rated, told: Billed, *, currency: str = "USD", policy: str = "next_period"
) -> Line | None:
    return difference_line(
        basis_of(found),
        found,
        told,
        feature_id=CALLS,
        feature_name="API calls",
        unit="units",
        currency=currency,
        after=told.position,
        policy=policy,
    )


def billed(lines: Sequence[Line]) -> Billed:
    """What these lines said, read back from what was stored of them."""
    stored = [json.loads(json.dumps(line.evidence)) for line in lines]
    return Billed(
        amount=subtotal(lines),
        used=sum((line.used or ZERO for line in lines), ZERO),
        billable=sum((line.overage or ZERO for line in lines), ZERO),
        components=tuple(part for proof in stored for part in frozen_components(proof)),
        position=max((proof["chainPosition"] for proof in stored), default=0),
    )


def test_a_usage_line_keeps_exact_quantities_and_whole_money() -> None:
    (line,) = lines_of(rated(terms("100", price=PerUnit(D("0.0007"))), "120.5"))
    assert (line.used, line.included, line.overage, line.quantity) == (
        D("120.5"),
        D(100),
        D("20.5"),
        D("20.5"),
    )
    assert (line.unit_amount, line.amount) == (D("0.0007"), 1)  # 0.01435
    assert line.description == "API calls: 120.5 units used, 100 included, 20.5 billed"
    assert (line.line_type, line.charge_type, line.part, line.usage_period) == (
        "feature_overage",
        "standard",
        Part.USAGE,
        1,
    )
    assert subtotal([line, line]) == 2


@pytest.mark.parametrize(
    ("promised", "used"),
    [
        (terms("100", price=DOLLAR), "0"),
        (terms("100", price=DOLLAR), "100"),
        (terms("100", overage=False), "150"),
        (terms(unlimited=True, price=DOLLAR), "150"),
        (terms(price=DOLLAR, minimum="0", maximum="5"), "0"),
    ],
)
def test_what_costs_nothing_has_no_line(promised: Terms, used: str) -> None:
    assert lines_of(rated(promised, used)) == []


@pytest.mark.parametrize(
    ("promised", "used", "cents"),
    [
        (terms(price=PerUnit(D(0))), "5", 0),  # billed at nothing is billed
        (terms("100", price=Flat(D(49))), "0", 4900),
        (terms("9", price=Graduated(tiers("∞: 1 + 5"), charge_flat_at_zero=True)), "3", 500),
        (terms(price=DOLLAR, maximum="0"), "5", 0),
        (terms(price=PerUnit(D("0.001"))), "4", 0),  # four tenths of a cent
    ],
)
def test_what_is_billed_or_costs_something_has_one(promised: Terms, used: str, cents: int) -> None:
    (line,) = lines_of(rated(promised, used))
    assert line.amount == cents


@pytest.mark.parametrize(
    ("exact", "currency", "minor"),
    [
        ("0.005", "USD", 1),  # half up
        ("0.0049", "USD", 0),
        ("2.675", "USD", 268),  # a float would say 267
        ("0.5", "JPY", 1),
        ("0.49", "JPY", 0),
        ("1234.5", "JPY", 1235),
    ],
)
def test_a_line_is_rounded_once_half_up(exact: str, currency: str, minor: int) -> None:
    (line,) = lines_of(rated(terms(price=PerUnit(D(exact))), "1"), currency=currency)
    assert line.amount == minor


def test_the_lift_to_the_minimum_is_a_line_of_its_own() -> None:
    found = rated(terms("10", price=DOLLAR, minimum="50"), "30")
    usage_line, minimum = lines_of(found)
    assert (usage_line.amount, usage_line.charge_type, usage_line.part) == (2000, "standard", Part.USAGE)
    assert (minimum.amount, minimum.charge_type, minimum.part) == (3000, "true_up", Part.MINIMUM)
    assert minimum.line_type == "feature_overage"
    assert minimum.description == "API calls: up to the minimum of 50"
    assert (minimum.quantity, minimum.unit_amount) == (D(1), D(30))
    assert (minimum.used, minimum.included, minimum.overage) == (None, None, None)  # it bills no usage


def test_a_minimum_is_due_where_nothing_was_used() -> None:
    (line,) = lines_of(rated(terms("10", price=DOLLAR, minimum="50"), "3"))
    assert (line.amount, line.charge_type) == (5000, "true_up")


def test_each_stretch_has_a_line_that_names_its_days() -> None:
    found = rated_in_turn(
        [(terms("10", price=PerUnit(D("0.01"))), "30"), (terms("10", price=PerUnit(D("0.02"))), "80")]
    )
    one, two = lines_of(found)
    assert one.description == ("API calls: 30 units used, 10 included, 20 billed, 2026-02-01 to 2026-02-14")
    assert two.description == ("API calls: 50 units used, 0 included, 50 billed, 2026-02-15 to 2026-02-28")
    assert [(line.unit_amount, line.amount) for line in (one, two)] == [(D("0.01"), 20), (D("0.02"), 100)]


@pytest.mark.parametrize(
    ("span", "zone", "days"),
    [
        ("2026-02-01/2026-02-02", "UTC", "2026-02-01"),
        ("2026-02-01/2026-02-01T00:00:00.000001Z", "UTC", "2026-02-01"),
        ("2026-02-01/2026-02-02T00:00:00.000001Z", "UTC", "2026-02-01 to 2026-02-02"),
        ("2026-02-01T05:00Z/2026-02-15T05:00Z", "America/New_York", "2026-02-01 to 2026-02-14"),
        ("2026-02-01/2026-02-15", "America/New_York", "2026-01-31 to 2026-02-14"),
    ],
)
def test_days_are_those_of_the_customers_zone(span: str, zone: str, days: str) -> None:
    stretch: Period = P(span)
    promised = terms(price=DOLLAR)
    found = rate_period(
        [(stretch, promised, Usage(D(1))), (Period(stretch.end, FEBRUARY.end), promised, Usage(D(2)))]
    )
    assert lines_of(found, zone=zone)[0].description.endswith(f", {days}")


@pytest.mark.parametrize(
    ("promised", "shown"),
    [
        (terms(price=PerUnit(D("0.0007"))), "0.0007"),
        (terms(price=Graduated(tiers("∞: 0.0007"))), "0"),
        (terms(price=percentage("2.9")), "0"),
        (terms(price=Flat(D(49))), "0"),
    ],
)
def test_a_line_shows_one_rate_or_none(promised: Terms, shown: str) -> None:
    (line,) = lines_of(rated(promised, events("100")))
    assert line.unit_amount == D(shown)


def test_two_half_cents_on_two_lines_are_two_cents() -> None:
    """Each line is rounded by itself, so its arithmetic can be checked by itself."""
    promised = terms(price=PerUnit(D("0.005")))
    found = rated_in_turn([(promised, "1"), (promised, "2")])
    assert (found.exact, in_money(found, "USD"), subtotal(lines_of(found))) == (D("0.01"), 2, 2)


def test_a_base_line_is_the_plans_price() -> None:
    line = base_line("Pro", 9900, "USD", {"plan": "pro"})
    assert (line.amount, line.unit_amount, line.quantity, line.charge_type) == (9900, D(99), D(1), "advance")


@pytest.mark.parametrize(("count", "shown"), [(1, "INV-0001"), (43, "INV-0043"), (12345, "INV-12345")])
def test_invoice_numbers(count: int, shown: str) -> None:
    assert number("INV", count) == shown


# What comes late is billed as the difference.


def closed_then(promised: Terms, on_time: str, in_all: str) -> tuple[list[Line], Line | None]:
    lines = lines_of(rated(promised, on_time))
    return lines, line_for_what_is_new(rated(promised, in_all), billed(lines))


@pytest.mark.parametrize(
    ("promised", "on_time", "in_all", "amount", "billable"),
    [
        (terms(price=DOLLAR), "10", "13", 300, "3"),
        (terms("10", price=DOLLAR), "12", "15", 300, "3"),
        (terms("10", price=DOLLAR), "8", "15", 500, "5"),  # two of the seven were still included
        (terms(price=PerUnit(D("0.004"))), "1", "2", 1, "1"),  # 0.004 was 0 cents, 0.008 is 1
        (terms(price=PerUnit(D("0.004"))), "2", "3", 0, "1"),  # 0.008 and 0.012 are both 1 cent
        (terms(price=Graduated(tiers("10: 1", "∞: 0.5"))), "10", "20", 500, "10"),
        (terms(price=DOLLAR), "13", "10", -300, "-3"),  # a total that was corrected downwards
        (
            terms(price=Volume(tiers("10: 1", "∞: 0.5"))),
            "10",
            "11",
            -450,
            "1",
        ),  # it now lands in the cheap tier
        (terms(price=DOLLAR, maximum="12"), "10", "15", 200, "5"),
        (terms(price=DOLLAR, maximum="10"), "10", "15", 0, "5"),  # told, though it costs nothing more
        (terms(price=DOLLAR, minimum="50"), "10", "15", 0, "5"),  # what lifted to the minimum pays for it
        (terms(price=DOLLAR, minimum="50"), "10", "60", 1000, "50"),
    ],
)
def test_late_usage_is_billed_as_a_difference(
    promised: Terms, on_time: str, in_all: str, amount: int, billable: str
) -> None:
    lines, late = closed_then(promised, on_time, in_all)
    assert late is not None
    assert (late.amount, late.quantity, late.overage) == (amount, D(billable), D(billable))
    assert subtotal([*lines, late]) == in_money(rated(promised, in_all), "USD")


@pytest.mark.parametrize(
    ("promised", "on_time", "in_all"),
    [
        (terms(price=DOLLAR), "10", "10"),
        (terms("10", price=DOLLAR), "3", "9"),  # late, and still included
        (terms(unlimited=True, price=DOLLAR), "3", "900"),
        (terms("5", overage=False), "3", "900"),
    ],
)
def test_where_nobody_would_notice_there_is_no_line(promised: Terms, on_time: str, in_all: str) -> None:
    assert closed_then(promised, on_time, in_all)[1] is None


def test_a_difference_says_what_it_is() -> None:
    _, late = closed_then(terms("10", price=PerUnit(D("0.25"))), "12", "15.5")
    assert late is not None
    assert late.description == ("API calls: 3.5 units reported late for 2026-02-01 to 2026-02-28, 3.5 billed")
    assert (late.used, late.included, late.unit_amount) == (D("3.5"), D(0), D("0.25"))
    assert (late.line_type, late.charge_type, late.part, late.usage_period) == (
        "feature_overage",
        "standard",
        Part.DIFFERENCE,
        1,
    )
    proof: Any = late.evidence
    assert (proof["amountNow"], proof["amountBefore"], proof["afterPosition"]) == (138, 50, 7)
    assert (proof["policy"], proof["part"]) == ("next_period", "difference")
    assert said(frozen_components(proof)) == ["usage: 3.5 × 0.25 = 0.875"]


def test_a_difference_to_a_minimum_shows_both_lifts() -> None:
    _, late = closed_then(terms(price=DOLLAR, minimum="50"), "10", "15")
    assert late is not None and late.evidence is not None
    assert said(frozen_components(late.evidence)) == [
        "usage: 5 × 1 = 5",
        "up to the minimum: 1 × 35 = 35",
        "up to the minimum: -1 × 40 = -40",
    ]


def test_a_difference_over_several_rates_shows_none() -> None:
    dear, cheap = terms(price=DOLLAR), terms(price=PerUnit(D("0.1")))
    before, after = (
        rated_in_turn([(dear, early), (cheap, in_all)]) for early, in_all in (("10", "20"), ("11", "21"))
    )
    late = line_for_what_is_new(after, billed(lines_of(before)))
    assert late is not None
    assert (late.amount, late.unit_amount) == (100, D(0))  # it came to the dear one


def test_what_came_late_to_an_early_stretch_moves_the_tiers_of_the_next() -> None:
    promised = terms(price=Graduated(tiers("10: 1", "∞: 0.5")))
    before, after = (
        rated_in_turn([(promised, early), (promised, in_all)]) for early, in_all in (("5", "10"), ("8", "13"))
    )
    late = line_for_what_is_new(after, billed(lines_of(before)))
    assert late is not None and late.evidence is not None
    assert late.amount == 150  # three units more, and all ten of the first tier were used before
    assert said(frozen_components(late.evidence)) == ["tier 2: above 10: 3 × 0.5 = 1.5"]


Told = tuple[list[Terms], list[tuple[int, Decimal, int]]]


@st.composite
def told_in_steps(draw: st.DrawFn) -> Told:
    """Terms that take turns, and events in the order they happened: in which turn, how much, told at which close."""
    turns = [draw(promises()) for _ in range(draw(st.integers(1, 3)))]
    places = st.tuples(st.integers(0, len(turns) - 1), quantities, st.integers(0, 3))
    return turns, sorted(draw(st.lists(places, max_size=8)), key=lambda each: each[0])


def as_known(told: Told, close: int) -> Rated:
    """The period as it is rated when all that was told until some close is known."""
    turns, happened = told
    return rated_in_turn(
        (promised, usage([much for when, much, step in happened if when <= turn and step <= close]))
        for turn, promised in enumerate(turns)
    )


def lines_in_steps(told: Told, currency: str) -> list[Line]:
    lines = lines_of(as_known(told, 0), currency=currency)
    for close in (1, 2, 3):
        late = line_for_what_is_new(as_known(told, close), billed(lines), currency=currency)
        lines += [late] if late else []
    return lines


@given(told_in_steps(), CURRENCIES)
def test_lines_come_to_what_a_period_comes_to(told: Told, currency: str) -> None:
    found = as_known(told, 3)
    lines = lines_of(found, currency=currency)
    assert subtotal(lines) == in_money(found, currency)
    off_by = abs(subtotal(lines) - to_minor(found.exact, currency))
    assert off_by <= (len(lines) + 1) // 2  # half a minor unit a line, and half for the whole
    assert sum((line.overage or ZERO for line in lines), ZERO) == found.billable


@given(told_in_steps(), CURRENCIES)
def test_closing_in_steps_bills_what_closing_once_would(told: Told, currency: str) -> None:
    lines = lines_in_steps(told, currency)
    found = as_known(told, 3)
    assert subtotal(lines) == in_money(found, currency)
    assert sum((line.overage or ZERO for line in lines), ZERO) == found.billable


@given(told_in_steps(), st.permutations([0, 1, 2, 3]), CURRENCIES)
def test_the_order_in_which_late_usage_arrives_changes_no_total(
    told: Told, order: list[int], currency: str
) -> None:
    turns, happened = told
    otherwise = (turns, [(when, much, order[step]) for when, much, step in happened])
    assert subtotal(lines_in_steps(told, currency)) == subtotal(lines_in_steps(otherwise, currency))


@given(told_in_steps(), CURRENCIES)
def test_asked_again_a_period_has_nothing_more_to_say(told: Told, currency: str) -> None:
    lines = lines_in_steps(told, currency)
    assert line_for_what_is_new(as_known(told, 3), billed(lines), currency=currency) is None


@given(told_in_steps(), CURRENCIES)
def test_the_parts_of_every_line_answer_for_its_usage_and_its_amount(told: Told, currency: str) -> None:
    """Of a difference, the parts are what is new exactly; its amount is what is new in whole money."""
    for line in lines_in_steps(told, currency):
        assert line.evidence is not None
        parts = frozen_components(line.evidence)
        assert units(parts) == (line.used or ZERO)
        if line.part is not Part.DIFFERENCE:
            rounding = 1 if line.part is Part.MINIMUM else 0  # it takes what the rounded usage lines lack
            assert abs(to_minor(total(parts), currency) - line.amount) <= rounding
            assert D(line.evidence["exact"]) == total(parts)


@given(told_in_steps(), CURRENCIES)
def test_after_a_difference_the_lines_have_told_every_part(told: Told, currency: str) -> None:
    lines = lines_of(as_known(told, 0), currency=currency)
    before = billed(lines)
    late = line_for_what_is_new(as_known(told, 3), before, currency=currency)
    if late is not None:
        found, now = as_known(told, 3), billed([*lines, late])
        assert (now.used, now.billable, total(now.components)) == (found.used, found.billable, found.exact)
