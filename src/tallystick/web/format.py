"""Numbers and dates as people read them."""

from tallystick.core.money import exponent, from_minor

_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "CAD": "CA$", "INR": "₹"}
_EVERY = {
    "weekly": "a week",
    "monthly": "a month",
    "quarterly": "a quarter",
    "semiannual": "every six months",
    "yearly": "a year",
    "one_time": "once",
}


def money(minor: int, currency: str) -> str:
    """1250 USD → $12.50."""
    return f"{_SIGNS.get(currency, currency + ' ')}{from_minor(minor, currency):,.{exponent(currency)}f}"


def every(interval: str) -> str:
    return _EVERY[interval]
