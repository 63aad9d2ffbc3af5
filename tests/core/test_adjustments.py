"""From usage to a charge: what is included, what the price says of the rest, the maximum, the minimum."""

from typing import Any

import pytest

from tallystick.core.adjustments import NOTHING_USED, Usage, rate_period
from tallystick.core.money import to_minor
from tallystick.core.pricing import Flat, Graduated, PerUnit, Price, Volume
from tallystick.errors import Broken
from tests.core.offers import events, package, percentage, rated, rated_in_turn, said, terms, tiers
from tests.literals import D

PENNY = PerUnit(D("0.01"))
DOLLAR = PerUnit(D(1))


@pytest.mark.parametrize(
    ("used", "included", "billable", "cents"),
    [
        ("0", "1000", "0", 0),
        ("999", "1000", "0", 0),
        ("1000", "1000", "0", 0),  # the last unit that is included
        ("1000.5", "1000", "0.5", 1),  # half a cent, rounded once, up
        ("1001", "1000", "1", 1),
        ("12500", "10000", "2500", 2500),
        ("-3", "0", "0", 0),  # an adjustment below nothing is no refund
    ],
)
def test_included_units_leave_the_quantity_before_it_is_priced(
    used: str, included: str, billable: str, cents: int
) -> None:
    (charge,) = rated(terms(included, price=PENNY), used).charges
    assert (charge.billable, charge.included) == (D(billable), D(included))
    assert to_minor(charge.exact, "USD") == cents


@pytest.mark.parametrize(
    ("price", "included", "used", "expected"),
    [
        # the first billed unit begins the first tier
        (Graduated(tiers("100: 1", "∞: 0.5")), "100", "100", "0"),
        (Graduated(tiers("100: 1", "∞: 0.5")), "100", "200", "100"),
        (Graduated(tiers("100: 1", "∞: 0.5")), "100", "250", "125"),
        (Volume(tiers("100: 1", "∞: 0.5")), "100", "200", "100"),
        (Volume(tiers("100: 1", "∞: 0.5")), "100", "200.5", "50.25"),
        (package("1000", "25"), "100", "1100", "25"),
        (package("1000", "25"), "100", "1100.5", "50"),
        (package("1000", "25", free="200"), "100", "300", "0"),  # included, then free, then bought
        (package("1000", "25", free="200"), "100", "301", "25"),
        # within what is included no tier is entered, unless the price wants its flat amount anyhow
        (Graduated(tiers("∞: 1 + 5")), "100", "100", "0"),
        (Graduated(tiers("∞: 1 + 5"), charge_flat_at_zero=True), "100", "100", "5"),
        (Volume(tiers("∞: 1 + 5")), "100", "100", "0"),
        (Volume(tiers("∞: 1 + 5"), charge_flat_at_zero=True), "100", "0", "5"),
        (Flat(D(49)), "100", "50", "49"),
        (Flat(D(49)), "100", "500", "49"),
    ],
)
def test_what_is_included_comes_before_tiers_packages_and_free_units(
    price: Price, included: str, used: str, expected: str
) -> None:
    assert rated(terms(included, price=price), used).exact == D(expected)


def test_a_charge_tells_what_was_included() -> None:
    (charge,) = rated(terms("100", price=Graduated(tiers("50: 1", "∞: 0.5"))), "170").charges
    assert said(charge.components) == [
        "included: 100 × 0 = 0",
        "tier 1: up to 50: 50 × 1 = 50",
        "tier 2: above 50: 20 × 0.5 = 10",
    ]
    assert (charge.used, charge.included, charge.billable, charge.exact) == (D(170), D(100), D(70), D(60))


def test_without_overage_nothing_is_billed() -> None:
    (charge,) = rated(terms("10", overage=False, unit="0.01"), "50").charges
    assert (charge.used, charge.billable, charge.exact) == (D(50), D(0), D(0))
    assert said(charge.components) == ["included: 50 × 0 = 0"]


@pytest.mark.parametrize("price", [PENNY, Flat(D(49)), percentage("2.9"), package("10", "1")])
def test_unlimited_use_costs_nothing_and_has_no_included_amount(price: Price) -> None:
    (charge,) = rated(terms(unlimited=True, price=price), events("1000000000", "5")).charges
    assert (charge.used, charge.billable, charge.exact) == (D(1_000_000_005), D(0), D(0))
    assert charge.included is None
    assert said(charge.components) == ["unlimited: 1000000005 × 0 = 0"]


def test_a_percentage_is_taken_of_every_event_and_nothing_is_included() -> None:
    promised = terms(price=percentage("2.9", least="0.30", most="10"))
    (charge,) = rated(promised, events("10", "100", "500")).charges
    assert (charge.exact, charge.billable, charge.used) == (D("13.2"), D(610), D(610))


@pytest.mark.parametrize("usage", [Usage(D(100)), Usage(D(100), (D(60),)), Usage(D(100), (D(60), D(41)))])
def test_a_percentage_that_does_not_see_every_event_is_refused(usage: Usage) -> None:
    with pytest.raises(Broken, match="a percentage sees every event"):
        rated(terms(price=percentage("2.9")), usage)


@pytest.mark.parametrize(
    ("used", "usage_cents", "true_up_cents"),
    [
        ("0", 0, 50000),  # due whole, used or not
        ("3500", 35000, 15000),
        ("4999.9", 49999, 1),
        ("5000", 50000, None),  # reached: nothing to lift
        ("5000.1", 50001, None),
        ("9000", 90000, None),
    ],
)
def test_a_minimum_is_topped_up_to(used: str, usage_cents: int, true_up_cents: int | None) -> None:
    found = rated(terms(price=PerUnit(D("0.1")), minimum="500"), used)
    (charge,) = found.charges
    assert to_minor(charge.exact, "USD") == usage_cents
    assert (found.true_up and to_minor(found.true_up.amount, "USD")) == true_up_cents
    assert to_minor(found.exact, "USD") == usage_cents + (true_up_cents or 0)


def test_the_lift_to_the_minimum_is_a_part_of_its_own_and_no_part_of_any_charge() -> None:
    found = rated(terms("10", price=DOLLAR, minimum="50"), "30")
    assert said(found.components) == [
        "included: 10 × 0 = 0",
        "usage: 20 × 1 = 20",
        "up to the minimum: 1 × 30 = 30",
    ]
    assert found.true_up is not None
    assert (found.true_up.units, found.charges[0].exact) == (D(0), D(20))


@pytest.mark.parametrize(
    ("used", "expected", "above"),
    [
        ("0", "0", None),
        ("99.5", "99.5", None),
        ("100", "100", None),
        ("100.5", "100", "-0.5"),
        ("900", "100", "-800"),
    ],
)
def test_a_maximum_caps_the_period(used: str, expected: str, above: str | None) -> None:
    found = rated(terms(price=DOLLAR, maximum="100"), used)
    assert found.exact == D(expected)
    assert [part for part in said(found.components) if "maximum" in part] == (
        [] if above is None else [f"down to the maximum: 1 × {above} = {above}"]
    )


@pytest.mark.parametrize(
    ("minimum", "maximum", "used", "expected"),
    [
        ("50", "100", "20", "50"),
        ("50", "100", "70", "70"),
        ("50", "100", "150", "100"),
        ("100", "100", "20", "100"),
        ("100", "100", "150", "100"),
        ("0", "0", "150", "0"),
        ("0", "100", "0", "0"),
        (None, "0", "150", "0"),
    ],
)
def test_between_a_minimum_and_a_maximum(minimum: str | None, maximum: str, used: str, expected: str) -> None:
    assert rated(terms(price=DOLLAR, minimum=minimum, maximum=maximum), used).exact == D(expected)


@pytest.mark.parametrize(
    ("price", "usage"),
    [
        (Flat(D(150)), events("1")),
        (Graduated(tiers("10: 1 + 90", "∞: 5 + 90")), events("11")),
        (Volume(tiers("10: 1", "∞: 20")), events("11")),
        (package("1", "20"), events("11")),
        (percentage("50", fixed="10"), events("200", "100", "1")),
    ],
)
def test_every_model_is_capped_and_lifted(price: Price, usage: Usage) -> None:
    assert rated(terms(price=price), usage).exact > 100
    assert rated(terms(price=price, maximum="100"), usage).exact == 100
    assert rated(terms(price=price, minimum="1000"), usage).exact == 1000


def test_nothing_to_rate_costs_nothing() -> None:
    found = rate_period([])
    assert (found.exact, found.used, found.billable, found.components) == (D(0), D(0), D(0), ())


# A price that changes within a period: each stretch is what its own price says of all usage so far, less what it
# says of the usage before it.


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        # a plain rate prices what happened under it
        ([(PENNY, "100"), (DOLLAR, "150")], ["1", "50"]),
        ([(DOLLAR, "100"), (DOLLAR, "100")], ["100", "0"]),
        # tier counters carry on: 80 of the first tier are used up
        (
            [(Graduated(tiers("100: 1", "∞: 0.5")), "80"), (Graduated(tiers("100: 2", "∞: 1")), "130")],
            ["80", "70"],
        ),
        ([(DOLLAR, "80"), (Graduated(tiers("100: 2", "∞: 1")), "130")], ["80", "70"]),
        ([(Graduated(tiers("100: 2", "∞: 1")), "80"), (DOLLAR, "130")], ["160", "50"]),
        # the flat amount of a tier that was entered before is not owed again
        ([(Graduated(tiers("∞: 1 + 5")), "80"), (Graduated(tiers("∞: 2 + 9")), "130")], ["85", "100"]),
        (
            [(Graduated(tiers("∞: 1 + 5"), True), "0"), (Graduated(tiers("∞: 1 + 5"), True), "10")],
            ["5", "10"],
        ),
        # the package that is begun is bought once
        ([(package("100", "25"), "80"), (package("100", "40"), "100")], ["25", "0"]),
        ([(package("100", "25"), "80"), (package("100", "40"), "101")], ["25", "40"]),
        ([(package("100", "25", free="50"), "40"), (package("100", "40", free="50"), "60")], ["0", "40"]),
        # the fixed amount of a period is owed once, at its first price
        ([(Flat(D(49)), "80"), (Flat(D(99)), "130")], ["49", "0"]),
        # a volume that lands in another tier reprices what the new price said of the whole
        (
            [(Volume(tiers("100: 1", "∞: 0.5")), "80"), (Volume(tiers("100: 1", "∞: 0.5")), "180")],
            ["80", "10"],
        ),
        (
            [(Volume(tiers("100: 1", "∞: 0.5")), "90"), (Volume(tiers("100: 1", "∞: 0.5")), "110")],
            ["90", "-35"],
        ),
        # three turns
        ([(DOLLAR, "10"), (PENNY, "20"), (DOLLAR, "30")], ["10", "0.1", "10"]),
    ],
)
def test_a_price_that_changes_within_a_period(turns: list[tuple[Price, str]], expected: list[str]) -> None:
    found = rated_in_turn([(terms(price=price), used) for price, used in turns])
    assert [charge.exact for charge in found.charges] == [D(each) for each in expected]
    assert found.exact == sum(D(each) for each in expected)


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        # (included, used until then), twice
        (("100", "60"), ("100", "120"), [("100", "60", "0"), ("40", "60", "20")]),
        (("100", "150"), ("100", "170"), [("100", "150", "50"), ("0", "20", "20")]),
        (("100", "60"), ("200", "120"), [("100", "60", "0"), ("140", "60", "0")]),
        (
            ("100", "60"),
            ("50", "120"),
            [("100", "60", "0"), ("0", "60", "60")],
        ),  # 60 are used up, 50 included
        (("100", "60"), ("80", "120"), [("100", "60", "0"), ("20", "60", "40")]),
    ],
)
def test_what_is_left_of_the_included_units_goes_into_the_next_stretch(
    first: tuple[str, str], then: tuple[str, str], expected: list[tuple[str, str, str]]
) -> None:
    found = rated_in_turn([(terms(included, price=DOLLAR), used) for included, used in (first, then)])
    assert [(charge.included, charge.used, charge.billable) for charge in found.charges] == [
        (D(left), D(used), D(billable)) for left, used, billable in expected
    ]
    assert (found.used, found.billable) == (D(then[1]), sum(D(each[2]) for each in expected))


def test_free_events_and_free_amounts_carry_on() -> None:
    turns = [
        (terms(price=percentage("1", free_events=2)), events("1000")),
        (terms(price=percentage("2", free_events=2)), events("1000", "1000", "50")),
    ]
    assert [charge.exact for charge in rated_in_turn(turns).charges] == [D(0), D(1)]
    turns = [
        (terms(price=percentage("1", free_amount="100")), events("60")),
        (terms(price=percentage("2", free_amount="100")), events("60", "90")),
    ]
    assert [charge.exact for charge in rated_in_turn(turns).charges] == [D(0), D(1)]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        # all of it is unlimited, then it is not: what was used before is no part of what is charged now
        ([({"unlimited": True}, "500"), ({}, "600")], ["0", "100"]),
        ([({}, "500"), ({"unlimited": True}, "600")], ["500", "0"]),
        # a hard limit is lifted
        ([({"price": None, "included": "100"}, "100"), ({"included": "100"}, "130")], ["0", "30"]),
    ],
)
def test_limits_that_change_within_a_period(
    turns: list[tuple[dict[str, Any], str]], expected: list[str]
) -> None:
    found = rated_in_turn([(terms(**{"price": DOLLAR, **promise}), used) for promise, used in turns])
    assert [charge.exact for charge in found.charges] == [D(each) for each in expected]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        # (maximum, used until then), and what each stretch comes to
        ([("100", "60"), ("100", "130")], ["60", "40"]),
        ([("100", "130"), ("100", "150")], ["100", "0"]),
        ([("100", "130"), ("200", "150")], ["100", "20"]),  # what was held back is not charged later
        ([("100", "130"), (None, "150")], ["100", "20"]),
        ([("100", "80"), ("50", "150")], ["80", "0"]),  # what was charged is not given back
        ([(None, "80"), ("50", "150")], ["80", "0"]),
    ],
)
def test_a_maximum_caps_the_period_not_the_stretch(
    turns: list[tuple[str | None, str]], expected: list[str]
) -> None:
    found = rated_in_turn([(terms(price=DOLLAR, maximum=most), used) for most, used in turns])
    assert [charge.exact for charge in found.charges] == [D(each) for each in expected]


@pytest.mark.parametrize(
    ("price", "until_then", "in_all", "expected"),
    [
        (Volume(tiers("100: 2", "∞: 0.5")), "100", "101", ["100", "-49.5"]),  # 50.50, as at once
        (Volume(tiers("100: 2", "∞: 0.5")), "100", "300", ["100", "0"]),  # 150 at once, so the maximum
        (DOLLAR, "200", "150", ["100", "0"]),  # a total that was set lower, and is still above
        (DOLLAR, "200", "80", ["100", "-20"]),
    ],
)
def test_what_the_maximum_held_back_is_the_first_to_go(
    price: Price, until_then: str, in_all: str, expected: list[str]
) -> None:
    promised = terms(price=price, maximum="100")
    found = rated_in_turn([(promised, until_then), (promised, in_all)])
    assert [charge.exact for charge in found.charges] == [D(each) for each in expected]
    assert found.exact == rated(promised, in_all).exact


def test_a_charge_tells_what_the_maximum_held_back_before() -> None:
    promised = terms(price=DOLLAR, maximum="100")
    found = rated_in_turn([(promised, "200"), (promised, "80")])
    assert said(found.components) == [
        "usage: 200 × 1 = 200",
        "down to the maximum: 1 × -100 = -100",
        "usage: -120 × 1 = -120",
        "above the maximum before: 1 × 100 = 100",
    ]


@pytest.mark.parametrize(
    ("turns", "true_up"),
    [
        ([("50", "10"), ("50", "30")], "20"),
        ([(None, "10"), ("50", "30")], "20"),  # the terms the period ends with say it
        ([("50", "10"), (None, "30")], None),
        ([("50", "10"), ("50", "60")], None),
    ],
)
def test_a_minimum_is_for_the_period_not_for_the_stretch(
    turns: list[tuple[str | None, str]], true_up: str | None
) -> None:
    found = rated_in_turn([(terms(price=DOLLAR, minimum=least), used) for least, used in turns])
    assert (found.true_up and found.true_up.amount) == (true_up and D(true_up))


def test_a_stretch_without_usage_still_owes_what_a_period_owes() -> None:
    promised = terms(price=Flat(D(49)), minimum="60")
    found = rated_in_turn([(promised, NOTHING_USED), (promised, NOTHING_USED)])
    assert [charge.exact for charge in found.charges] == [D(49), D(0)]
    assert found.exact == 60
