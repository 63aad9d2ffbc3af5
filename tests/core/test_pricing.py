"""Prices explain themselves, and their parts are the whole."""

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import pricing
from tallystick.core.invoicing import charge, number, subtotal, usage_line
from tallystick.core.meters import Fold
from tallystick.core.money import to_minor
from tallystick.core.pricing import PerUnit, rate, total
from tallystick.errors import Broken
from tests.core.offers import terms
from tests.literals import D

amounts = st.integers(0, 10**24 - 1).map(lambda digits: Decimal(digits).scaleb(-12))
quantities = st.integers(0, 10**32 - 1).map(lambda digits: Decimal(digits).scaleb(-12))


@given(quantities, amounts)
def test_the_components_of_a_charge_sum_to_it_exactly(quantity: Decimal, unit: Decimal) -> None:
    parts = rate(PerUnit(unit), quantity)
    assert total(parts) == quantity * unit
    assert sum(part.quantity for part in parts) == quantity


@given(quantities, quantities, amounts)
def test_more_usage_never_costs_less(one: Decimal, other: Decimal, unit: Decimal) -> None:
    price = PerUnit(unit)
    less, more = sorted((one, other))
    assert total(rate(price, less)) <= total(rate(price, more))


def test_nothing_used_needs_no_component() -> None:
    assert rate(PerUnit(D("0.01")), D(0)) == ()
    assert total(()) == 0


def test_a_component_shows_its_arithmetic() -> None:
    (part,) = rate(PerUnit(D("0.0007")), D("3.5"))
    assert part.to_json() == {
        "label": "usage",
        "quantity": "3.5",
        "unitAmount": "0.0007",
        "amount": "0.00245",
    }


@given(amounts)
def test_a_price_is_kept_as_text_and_comes_back_the_same(unit: Decimal) -> None:
    assert pricing.from_json(pricing.to_json(PerUnit(unit))) == PerUnit(unit)


@pytest.mark.parametrize(
    "stored", [{}, {"model": "volume"}, {"model": "per_unit"}, {"model": "per_unit", "unitAmount": 0.01}]
)
def test_a_price_nobody_wrote_is_not_guessed(stored: Mapping[str, object]) -> None:
    with pytest.raises(Broken):
        pricing.from_json(stored)


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
    charged = charge(terms(included=included, overage=True, unit="0.01"), Fold(1, D(used)))
    assert (charged.billable, charged.included) == (D(billable), D(included))
    assert to_minor(charged.exact, "USD") == cents


def test_without_overage_nothing_is_billed() -> None:
    charged = charge(terms(included="10", overage=False, unit="0.01"), Fold(1, D(50)))
    assert (charged.billable, charged.exact, len(charged.components)) == (D(0), D(0), 0)


def test_unlimited_use_costs_nothing_and_has_no_included_amount() -> None:
    charged = charge(terms(unlimited=True, overage=True, unit="0.01"), Fold(1, D(10**9)))
    assert (charged.used, charged.exact) == (D(10**9), D(0))
    assert charged.included is None


@given(quantities, quantities)
def test_used_units_are_included_ones_and_billed_ones(used: Decimal, included: Decimal) -> None:
    charged = charge(terms(included=str(included), overage=True, unit="1"), Fold(1, used))
    assert charged.billable + min(used, included) == used


def test_a_usage_line_keeps_exact_quantities_and_whole_money() -> None:
    promised = terms(included="100", overage=True, unit="0.0007")
    line = usage_line(
        charge(promised, Fold(7, D("120.5"))),
        promised,
        feature_name="API calls",
        unit="units",
        currency="USD",
        evidence={},
    )
    assert (line.used, line.included, line.overage, line.quantity) == (
        D("120.5"),
        D(100),
        D("20.5"),
        D("20.5"),
    )
    assert (line.unit_amount, line.amount) == (D("0.0007"), 1)  # 0.01435
    assert line.description == "API calls: 120.5 units used, 100 included, 20.5 billed"
    assert subtotal([line, line]) == 2


@pytest.mark.parametrize(("count", "shown"), [(1, "INV-0001"), (43, "INV-0043"), (12345, "INV-12345")])
def test_invoice_numbers(count: int, shown: str) -> None:
    assert number("INV", count) == shown
