"""Money is an integer of minor units with a currency; exact amounts are Decimals of major units; one door between."""

from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Final

from tallystick.core.limits import FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX

ZERO: Final = Decimal(0)
RATE_SCALE: Final = Decimal(10_000)
"""The wire's integer prices: 10000 = 1.00 of the currency (behaviour.md §0.2)."""

CURRENCIES: Final = frozenset(
    [
        "USD",
        "ARS",
        "BRL",
        "CLP",
        "COP",
        "PEN",
        "UYU",
        "PYG",
        "BOB",
        "MXN",
        "CAD",
        "EUR",
        "GBP",
        "JPY",
        "CNY",
        "KRW",
        "HKD",
        "SGD",
        "TWD",
        "INR",
        "THB",
    ]
)
_ZERO_DECIMAL: Final = frozenset({"CLP", "PYG", "JPY", "KRW"})


def exponent(currency: str) -> int:
    """How many digits follow the point: 2 for USD, 0 for JPY."""
    return 0 if currency in _ZERO_DECIMAL else 2


def to_minor(exact: Decimal, currency: str) -> int:
    """Round once, half up, here, at the invoice line; everything before this stays exact."""
    return int(exact.scaleb(exponent(currency)).to_integral_value(ROUND_HALF_UP))


def from_minor(minor: int, currency: str) -> Decimal:
    return Decimal(minor).scaleb(-exponent(currency))


def to_rate(exact: Decimal) -> int:
    """An exact price in the wire's integer rate scale; half up where it does not fit (ruling 18)."""
    return int((exact * RATE_SCALE).to_integral_value(ROUND_HALF_UP))


def to_rate_up(exact: Decimal) -> int:
    """A component of an AI event's cost in the integer rate scale, upwards: the one rounding that is not at an
    invoice line (ruling 23). The exact amount is kept beside it."""
    return int((exact * RATE_SCALE).to_integral_value(ROUND_CEILING))


def from_rate(rate: int) -> Decimal:
    return plain(Decimal(rate) / RATE_SCALE)


@lru_cache(maxsize=4096)
def plain(number: Decimal) -> Decimal:
    """The same number without exponent or trailing zeros: 1E+3 → 1000, 2.50 → 2.5, -0 → 0."""
    if not number:
        return ZERO
    number = number.normalize()
    return number.quantize(Decimal(1)) if number.as_tuple().exponent > 0 else number  # type: ignore[operator]


@lru_cache(maxsize=4096)
def text(number: Decimal) -> str:
    """A decimal for the wire and for people: never an exponent, never a trailing zero."""
    return format(plain(number), "f")


def fits(number: Decimal) -> bool:
    """Finite, at most 20 digits before the point and 12 after it (ruling 8)."""
    if not number.is_finite():
        return False
    if not number:
        return True
    if number.adjusted() >= INTEGER_DIGITS_MAX:
        return False
    digits, exp = number.as_tuple()[1:]
    if not isinstance(exp, int) or exp >= -FRACTION_DIGITS_MAX:
        return True
    beyond = -FRACTION_DIGITS_MAX - exp
    return len(digits) > beyond and not any(digits[-beyond:])
