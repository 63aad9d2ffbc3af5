"""Each price model, on its edges: what is owed, and how the charge explains itself."""

import pytest

from tallystick.core.pricing import (
    Component,
    Flat,
    Graduated,
    Percentage,
    PerUnit,
    Price,
    Volume,
    minus,
    rate,
    total,
    unit_amount,
    units,
)
from tests.core.offers import events, owed, package, percentage, said, tiers
from tests.literals import D

CLIMBING = Graduated(tiers("100: 1", "500: 0.75", "∞: 0.5"))
CLIMBING_WITH_FLATS = Graduated(tiers("100: 1 + 5", "500: 0.75 + 20", "∞: 0.5 + 50"))
BULK = Volume(tiers("100: 1", "500: 0.75", "∞: 0.5"))
BULK_WITH_FLATS = Volume(tiers("100: 1 + 5", "500: 0.75 + 20", "∞: 0.5 + 50"))
PACKS = package("1000", "25")
PACKS_AFTER_FREE = package("1000", "25", free="200")
SMALLEST = "0.000000000001"


@pytest.mark.parametrize(
    ("unit", "used", "expected"),
    [
        ("0.01", "0", "0"),
        ("0.01", "1", "0.01"),
        ("0.0007", "3.5", "0.00245"),  # nothing is rounded here
        ("0.000000000001", SMALLEST, "0.000000000000000000000001"),
        ("0", "1000", "0"),
        ("99999999999999999999", "99999999999999999999", "9999999999999999999800000000000000000001"),
    ],
)
def test_per_unit_every_unit_costs_the_same(unit: str, used: str, expected: str) -> None:
    assert owed(PerUnit(D(unit)), used) == D(expected)


@pytest.mark.parametrize("used", ["0", SMALLEST, "1", "1000000"])
def test_flat_is_owed_once_however_much_is_used(used: str) -> None:
    assert owed(Flat(D("49.99")), used) == D("49.99")


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ("0", "0"),
        (SMALLEST, SMALLEST),
        ("1", "1"),
        ("100", "100"),  # the last unit of tier 1
        ("100.000000000001", "100.00000000000075"),
        ("100.5", "100.375"),  # half a unit beyond "up to 100" is in tier 2
        ("101", "100.75"),
        ("500", "400"),  # the last unit of tier 2
        ("500.5", "400.25"),
        ("600", "450"),
        ("1000000", "500150"),
    ],
)
def test_graduated_each_slice_costs_its_own_tiers_rate(used: str, expected: str) -> None:
    assert owed(CLIMBING, used) == D(expected)


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ("0", "0"),  # no tier is entered
        (SMALLEST, "5.000000000001"),
        ("100", "105"),
        ("100.5", "125.375"),  # 100 + 5, then 0.375 + 20
        ("500", "425"),
        ("500.000000000001", "475.0000000000005"),
        ("600", "525"),
    ],
)
def test_graduated_every_tier_that_is_entered_adds_its_flat_amount(used: str, expected: str) -> None:
    assert owed(CLIMBING_WITH_FLATS, used) == D(expected)


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ("0", "0"),
        ("1", "1"),
        ("100", "100"),
        ("100.000000000001", "75.00000000000075"),  # the whole quantity, cheaper: the cliff
        ("100.5", "75.375"),
        ("101", "75.75"),
        ("500", "375"),
        ("500.5", "250.25"),
        ("1000000", "500000"),
    ],
)
def test_volume_the_whole_quantity_costs_the_rate_of_the_tier_it_lands_in(used: str, expected: str) -> None:
    assert owed(BULK, used) == D(expected)


@pytest.mark.parametrize(
    ("used", "expected"),
    [("0", "0"), (SMALLEST, "5.000000000001"), ("100", "105"), ("100.5", "95.375"), ("600", "350")],
)
def test_volume_only_the_tier_it_lands_in_adds_its_flat_amount(used: str, expected: str) -> None:
    assert owed(BULK_WITH_FLATS, used) == D(expected)


@pytest.mark.parametrize("model", [Graduated, Volume])
@pytest.mark.parametrize(
    ("asked", "used", "expected"),
    [
        (False, "0", "0"),
        (True, "0", "5"),  # the first tier's, and no other
        (True, SMALLEST, "5.000000000001"),  # once, not twice
        (True, "100", "105"),
    ],
)
def test_the_first_flat_amount_is_owed_for_nothing_only_where_the_price_says_so(
    model: type[Graduated | Volume], asked: bool, used: str, expected: str
) -> None:
    steps = tiers("100: 1 + 5", "∞: 0.5 + 20")
    assert owed(model(steps, charge_flat_at_zero=asked), used) == D(expected)


@pytest.mark.parametrize("model", [Graduated, Volume])
def test_a_single_tier_is_a_unit_price(model: type[Graduated | Volume]) -> None:
    for used in ("0", "0.5", "1", "1000000"):
        assert owed(model(tiers("∞: 0.07")), used) == owed(PerUnit(D("0.07")), used)


@pytest.mark.parametrize(
    ("model", "used", "expected"),
    [
        (Graduated, "0.4", "2"),
        (Graduated, "0.50", "2"),
        (Graduated, "0.500000000001", "5"),  # both are entered
        (Volume, "0.4", "2"),
        (Volume, "0.50", "2"),
        (Volume, "0.500000000001", "3"),  # the second alone
    ],
)
def test_a_tier_may_end_between_whole_units(
    model: type[Graduated | Volume], used: str, expected: str
) -> None:
    assert owed(model(tiers("0.5: 0 + 2", "∞: 0 + 3")), used) == D(expected)


@pytest.mark.parametrize(
    ("used", "packages"),
    [
        ("0", 0),
        (SMALLEST, 1),  # one that is begun is paid whole
        ("999.5", 1),
        ("1000", 1),
        ("1000.000000000001", 2),
        ("3200", 4),
        ("99999999999999999999.999999999999", 10**17),
    ],
)
def test_package_one_that_is_begun_is_paid_whole(used: str, packages: int) -> None:
    assert owed(PACKS, used) == packages * 25


@pytest.mark.parametrize(
    ("used", "packages"),
    [("0", 0), ("199.5", 0), ("200", 0), ("200.000000000001", 1), ("1200", 1), ("1200.5", 2), ("3200", 3)],
)
def test_package_free_units_come_first(used: str, packages: int) -> None:
    assert owed(PACKS_AFTER_FREE, used) == packages * 25


@pytest.mark.parametrize(
    ("size", "used", "packages"),
    [
        ("0.5", "1", 2),
        ("0.3", "0.9", 3),  # a float would say 4
        ("0.3", "1", 4),
        ("3", "1", 1),
        ("0.000000000001", "1", 10**12),
        ("0.000000000003", "99999999999999999999.999999999999", 33333333333333333333333333333333),
        ("0.000000000007", "99999999999999999999.999999999999", 14285714285714285714285714285715),
    ],
)
def test_packages_of_any_size_are_counted_exactly(size: str, used: str, packages: int) -> None:
    assert owed(package(size, "1"), used) == packages


CARDS = percentage("2.9", least="0.30", most="10")
FEES = percentage("2.9", fixed="0.30")


@pytest.mark.parametrize(
    ("price", "amounts", "expected"),
    [
        (percentage("2.9"), [], "0"),
        (percentage("2.9"), ["100"], "2.9"),
        (percentage("2.9"), ["0"], "0"),
        (percentage("0.015"), ["0.01"], "0.0000015"),  # a basis point may be split
        (percentage("100"), ["12.34"], "12.34"),
        (percentage("0"), ["12.34"], "0"),
        # a fixed amount for each event, also one of nothing
        (FEES, ["100"], "3.2"),
        (FEES, ["100", "100"], "6.4"),
        (FEES, ["0"], "0.3"),
        (FEES, ["0", "0", "0"], "0.9"),
        # the bounds hold for each event's whole fee, the fixed amount within it
        (CARDS, ["10"], "0.3"),
        (CARDS, ["10.344827586206"], "0.3"),  # 0.299999999999974: still below
        (CARDS, ["10.344827586207"], "0.300000000000003"),  # just above
        (CARDS, ["100"], "2.9"),
        (CARDS, ["344.827586206896"], "9.999999999999984"),
        (CARDS, ["344.827586206897"], "10"),
        (CARDS, ["500"], "10"),
        (CARDS, ["10", "100", "500"], "13.2"),  # each for itself: 610 at once would be 10
        (CARDS, ["0"], "0.3"),
        (percentage("2.9", fixed="0.30", least="0.50"), ["5"], "0.5"),  # 0.145 + 0.30
        (percentage("2.9", fixed="0.30", least="0.50"), ["100"], "3.2"),
        (percentage("2.9", fixed="0.30", most="3"), ["100"], "3"),
        (percentage("2.9", fixed="0.30", most="0"), ["100"], "0"),
        (percentage("0", least="0.05", most="0.05"), ["1", "1000"], "0.1"),
        # the first events are free, whatever their size, also those of nothing
        (percentage("1", free_events=1), ["1000", "5"], "0.05"),
        (percentage("1", free_events=1), ["5", "1000"], "10"),
        (percentage("1", free_events=2), ["5", "1000"], "0"),
        (percentage("1", fixed="0.30", free_events=1), ["0", "100"], "1.3"),
        (percentage("1", least="0.30", free_events=1), ["1", "1"], "0.3"),
        # the first of the amount is not charged
        (percentage("1", free_amount="100"), ["60"], "0"),
        (percentage("1", free_amount="100"), ["60", "40"], "0"),
        (percentage("1", free_amount="100"), ["60", "50"], "0.1"),
        (percentage("1", free_amount="100"), ["60", "50", "7"], "0.17"),
        # an event that is covered whole costs nothing; one that is partly covered pays for itself
        (percentage("1", fixed="0.30", free_amount="100"), ["100"], "0"),
        (percentage("1", fixed="0.30", free_amount="100"), ["101"], "0.31"),
        (percentage("1", least="0.50", free_amount="100"), ["100"], "0"),
        (percentage("1", least="0.50", free_amount="100"), ["101"], "0.5"),
        (percentage("1", most="0.005", free_amount="100"), ["101"], "0.005"),
        (percentage("1", fixed="0.30", free_amount="100"), ["0"], "0.3"),  # nothing to cover
        # what a free event is worth is not taken from the free amount
        (percentage("1", free_events=1, free_amount="100"), ["70", "100", "1"], "0.01"),
        # a correction downwards costs nothing and makes nothing free
        (percentage("1", fixed="0.30", least="0.50"), ["-5"], "0"),
        (percentage("1"), ["-50", "100"], "1"),
        (percentage("1"), ["100", "-50", "100"], "2"),
        (percentage("1", free_amount="10"), ["-50", "100"], "0.9"),
    ],
)
def test_percentage_each_event_pays_for_itself(price: Percentage, amounts: list[str], expected: str) -> None:
    used = events(*amounts)
    parts = rate(price, used.quantity, used.amounts)
    assert total(parts) == D(expected)
    assert units(parts) == used.quantity


@pytest.mark.parametrize(
    ("price", "used", "expected"),
    [
        (PerUnit(D("0.0007")), "3.5", ["usage: 3.5 × 0.0007 = 0.00245"]),
        (PerUnit(D("0.0007")), "0", []),
        (Flat(D("49")), "0", ["flat amount: 1 × 49 = 49"]),
        (Flat(D("49")), "7", ["usage: 7 × 0 = 0", "flat amount: 1 × 49 = 49"]),
        (
            CLIMBING_WITH_FLATS,
            "100.5",
            [
                "tier 1: up to 100: 100 × 1 = 100",
                "tier 1: up to 100, flat amount: 1 × 5 = 5",
                "tier 2: 100 to 500: 0.5 × 0.75 = 0.375",
                "tier 2: 100 to 500, flat amount: 1 × 20 = 20",
            ],
        ),
        (
            CLIMBING,
            "600",
            [
                "tier 1: up to 100: 100 × 1 = 100",
                "tier 2: 100 to 500: 400 × 0.75 = 300",
                "tier 3: above 500: 100 × 0.5 = 50",
            ],
        ),
        (
            Graduated(tiers("10: 0", "∞: 0.5 + 2")),  # a tier that is free is told all the same
            "12",
            [
                "tier 1: up to 10: 10 × 0 = 0",
                "tier 2: above 10: 2 × 0.5 = 1",
                "tier 2: above 10, flat amount: 1 × 2 = 2",
            ],
        ),
        (
            BULK_WITH_FLATS,
            "100.5",
            ["tier 2: 100 to 500: 100.5 × 0.75 = 75.375", "tier 2: 100 to 500, flat amount: 1 × 20 = 20"],
        ),
        (Volume(tiers("∞: 0.5")), "3", ["tier 1: any quantity: 3 × 0.5 = 1.5"]),
        (
            Volume(tiers("100: 1 + 5", "∞: 0.5"), charge_flat_at_zero=True),
            "0",
            ["tier 1: up to 100, flat amount: 1 × 5 = 5"],
        ),
        (PACKS, "3200", ["packages of 1000: 4 × 25 = 100"]),
        (PACKS_AFTER_FREE, "150", ["free units: 150 × 0 = 0"]),
        (PACKS_AFTER_FREE, "250", ["free units: 200 × 0 = 0", "packages of 1000: 1 × 25 = 25"]),
        (PACKS, "0", []),
    ],
)
def test_a_charge_reads_like_what_it_is(price: Price, used: str, expected: list[str]) -> None:
    assert said(rate(price, D(used))) == expected


def test_a_percentage_tells_apart_what_was_free_charged_and_bounded() -> None:
    price = percentage("2.9", fixed="0.30", least="0.50", most="10", free_events=1, free_amount="50")
    used = events("80", "120", "5", "1000", "0")  # free; 70 charged; at the minimum; at the maximum; nothing
    parts = rate(price, used.quantity, used.amounts)
    assert said(parts) == [
        "free of charge: 130 × 0 = 0",
        "2.9% of the amount: 70 × 0.029 = 2.03",
        "fixed amount per event: 1 × 0.3 = 0.3",
        "events at the minimum fee: 2 × 0.5 = 1",
        "events at the maximum fee: 1 × 10 = 10",
    ]
    assert [part.units for part in parts] == [D(130), D(70), D(0), D(5), D(1000)]


@pytest.mark.parametrize(
    ("price", "used", "inside"),
    [
        (CLIMBING_WITH_FLATS, "600", ["100", "0", "400", "0", "100", "0"]),
        (BULK_WITH_FLATS, "600", ["600", "0"]),
        (PACKS_AFTER_FREE, "1250", ["200", "1050"]),  # units, not the two packages
        (Flat(D("49")), "7", ["7", "0"]),
    ],
)
def test_each_part_says_for_how_much_of_the_usage_it_answers(
    price: Price, used: str, inside: list[str]
) -> None:
    parts = rate(price, D(used))
    assert [part.units for part in parts] == [D(each) for each in inside]
    assert units(parts) == D(used)


def test_a_component_shows_its_arithmetic() -> None:
    (part,) = rate(PerUnit(D("0.0007")), D("3.50"))
    assert part.to_json() == {
        "label": "usage",
        "quantity": "3.5",
        "unitAmount": "0.0007",
        "amount": "0.00245",
        "units": "3.5",
    }


def test_no_component_costs_nothing() -> None:
    assert (total(()), units(())) == (D(0), D(0))


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        ("0", "80", ["tier 1: up to 100: 80 × 1 = 80", "tier 1: up to 100, flat amount: 1 × 5 = 5"]),
        ("80", "100", ["tier 1: up to 100: 20 × 1 = 20"]),  # the flat amount was there before
        ("80", "80", []),
        (
            "80",
            "130",
            [
                "tier 1: up to 100: 20 × 1 = 20",
                "tier 2: 100 to 500: 30 × 0.75 = 22.5",
                "tier 2: 100 to 500, flat amount: 1 × 20 = 20",
            ],
        ),
        (
            "130",
            "80",
            [
                "tier 1: up to 100: -20 × 1 = -20",
                "tier 2: 100 to 500: -30 × 0.75 = -22.5",
                "tier 2: 100 to 500, flat amount: -1 × 20 = -20",
            ],
        ),
    ],
)
def test_equal_parts_meet_and_the_rest_of_each_is_left(before: str, after: str, left: list[str]) -> None:
    parts = minus(rate(CLIMBING_WITH_FLATS, D(after)), rate(CLIMBING_WITH_FLATS, D(before)))
    assert sorted(said(parts)) == sorted(left)


def test_a_volume_that_lands_in_another_tier_takes_the_first_one_back() -> None:
    parts = minus(rate(BULK_WITH_FLATS, D(120)), rate(BULK_WITH_FLATS, D(80)))
    assert sorted(said(parts)) == [
        "tier 1: up to 100, flat amount: -1 × 5 = -5",
        "tier 1: up to 100: -80 × 1 = -80",
        "tier 2: 100 to 500, flat amount: 1 × 20 = 20",
        "tier 2: 100 to 500: 120 × 0.75 = 90",
    ]
    assert (total(parts), units(parts)) == (D(25), D(40))


def test_parts_of_one_name_and_another_rate_stay_apart() -> None:
    one, other = Component("usage", D(5), D("0.10"), D(5)), Component("usage", D(5), D("0.2"), D(5))
    assert len(minus((one, other), ())) == 2
    assert minus((one,), (Component("usage", D(5), D("0.1"), D(5)),)) == ()  # 0.10 and 0.1 are one rate


def test_a_part_that_costs_nothing_is_left_where_it_covers_usage() -> None:
    free = Component("free units", D(3), D(0), D(3))
    assert minus((free,), ()) == (free,)


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        (PerUnit(D("0.0007")), "0.0007"),
        (Flat(D(49)), "0"),
        (CLIMBING, "0"),
        (BULK, "0"),
        (PACKS, "0"),
        (CARDS, "0"),
    ],
)
def test_a_line_shows_a_rate_only_where_one_prices_every_unit(price: Price, shown: str) -> None:
    assert unit_amount(price) == D(shown)
