"""Money: one rounding door, exact everywhere else."""

import decimal
import threading
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import money
from tallystick.core.money import fits, from_minor, from_rate, plain, text, to_minor, to_rate
from tests.literals import D

LARGEST = D("9" * 20 + "." + "9" * 12)
"""The biggest number a caller may send."""

allowed = st.builds(
    lambda digits, places, minus: Decimal((int(minus), tuple(map(int, str(digits))), -places)),
    st.integers(0, 10**32 - 1),
    st.integers(12, 12),
    st.booleans(),
)
"""Every number with at most 20 digits before the point and 12 after it."""


@pytest.mark.parametrize(
    ("exact", "currency", "minor"),
    [
        ("0", "USD", 0),
        ("0.004999999999", "USD", 0),
        ("0.005", "USD", 1),  # the half goes up
        ("0.015", "USD", 2),  # and not to the even neighbour
        ("0.025", "USD", 3),
        ("-0.005", "USD", -1),  # away from zero: a refund mirrors its charge
        ("32.258064516129", "USD", 3226),  # 50 × 20/31
        ("29.00", "USD", 2900),
        ("0.4999", "JPY", 0),
        ("0.5", "JPY", 1),
        ("1000", "CLP", 1000),
        ("1000", "EUR", 100_000),
    ],
)
def test_an_amount_is_rounded_half_up_to_the_minor_unit(exact: str, currency: str, minor: int) -> None:
    assert to_minor(D(exact), currency) == minor


def test_rounding_happens_once_at_the_line_and_not_per_unit() -> None:
    tenth_of_a_cent = D("0.001")
    assert to_minor(tenth_of_a_cent * 1000, "USD") == 100
    assert to_minor(tenth_of_a_cent, "USD") * 1000 == 0  # what rounding each unit would have billed


def test_rounding_twice_would_give_another_answer() -> None:
    exact = D("0.0149")
    assert to_minor(exact, "USD") == 1
    assert to_minor(exact.quantize(D("0.001"), decimal.ROUND_HALF_UP), "USD") == 2


@given(st.integers(-(10**18), 10**18), st.sampled_from(sorted(money.CURRENCIES)))
def test_minor_units_survive_the_way_there_and_back(minor: int, currency: str) -> None:
    assert to_minor(from_minor(minor, currency), currency) == minor


@given(allowed, st.sampled_from(["USD", "JPY"]))
def test_rounding_moves_an_amount_by_half_a_minor_unit_at_most(exact: Decimal, currency: str) -> None:
    off_by = abs(from_minor(to_minor(exact, currency), currency) - exact)
    assert off_by * 2 <= from_minor(1, currency)


@pytest.mark.parametrize(
    ("major", "rate"),
    [("1.00", 10_000), ("0.01", 100), ("0.001", 10), ("0.0001", 1), ("0.00005", 1), ("0.00004", 0)],
)
def test_the_rate_scale_has_ten_thousand_to_one(major: str, rate: int) -> None:
    assert to_rate(D(major)) == rate


@given(st.integers(0, 10**15))
def test_a_rate_survives_the_way_there_and_back(rate: int) -> None:
    assert to_rate(from_rate(rate)) == rate


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("0.000", "0"),
        ("0E+30", "0"),
        ("1E+3", "1000"),
        ("2.50", "2.5"),
        ("-2.50", "-2.5"),
        ("1E-12", "0.000000000001"),
        ("100", "100"),
        ("9" * 20 + "." + "9" * 12, "9" * 20 + "." + "9" * 12),
    ],
)
def test_a_decimal_is_shown_without_exponent_or_idle_zeros(number: str, shown: str) -> None:
    assert text(D(number)) == shown
    assert str(plain(D(number))) in (shown, str(D(shown)))


@given(allowed)
def test_text_and_plain_change_the_spelling_and_never_the_number(number: Decimal) -> None:
    assert Decimal(text(number)) == number == plain(number)
    assert text(plain(number)) == text(number)
    assert "E" not in text(number)


@given(allowed, st.integers(0, 6))
def test_equal_numbers_have_one_text_however_they_were_written(number: Decimal, zeros: int) -> None:
    assert text(number) == text(number * Decimal(1).scaleb(zeros).scaleb(-zeros))


@pytest.mark.parametrize(
    ("number", "ok"),
    [
        ("0", True),
        ("0E+999999", True),  # zero, whatever its exponent
        ("1E+19", True),
        ("99999999999999999999", True),  # 20 digits
        ("100000000000000000000", False),  # 21
        ("1E+20", False),
        ("0.000000000001", True),  # 12 places
        ("0.0000000000001", False),  # 13
        ("0.1000000000000000000000", True),  # idle zeros are no places
        ("1E+999999999", False),
        ("1E-999999999", False),
        ("-99999999999999999999.999999999999", True),
        ("NaN", False),
        ("sNaN", False),
        ("Infinity", False),
        ("-Infinity", False),
    ],
)
def test_twenty_digits_before_the_point_and_twelve_after_it_fit(number: str, ok: bool) -> None:
    assert fits(D(number)) is ok


@given(allowed)
def test_every_number_within_the_limits_fits(number: Decimal) -> None:
    assert fits(number)


@given(allowed, st.integers(1, 9), st.integers(13, 40))
def test_a_digit_too_far_behind_the_point_never_fits(number: Decimal, digit: int, place: int) -> None:
    assert not fits(number + Decimal(digit).scaleb(-place))


def test_the_biggest_numbers_are_multiplied_and_summed_without_rounding() -> None:
    with decimal.localcontext() as context:
        context.traps[decimal.Inexact] = True
        context.traps[decimal.Rounded] = True
        product = LARGEST * LARGEST
        assert product == D(int("9" * 32) ** 2).scaleb(-24)
        whole = sum((product for _ in range(100_000)), money.ZERO)
        assert whole == product * 100_000
        assert to_minor(product, "JPY") > 0


@given(allowed, allowed, st.lists(allowed, max_size=20))
def test_no_product_or_sum_of_allowed_numbers_is_rounded(
    quantity: Decimal, price: Decimal, more: list[Decimal]
) -> None:
    with decimal.localcontext() as context:
        context.traps[decimal.Inexact] = True
        sum((each * price for each in more), quantity * price)


def test_the_context_is_as_wide_in_every_thread() -> None:
    seen: list[tuple[int, str]] = []

    def look() -> None:
        context = decimal.getcontext()
        seen.append((context.prec, context.rounding))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    here = decimal.getcontext()
    assert seen == [(120, decimal.ROUND_HALF_UP)] == [(here.prec, here.rounding)]
