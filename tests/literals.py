"""Short spellings for values, so that a test case is one line: D("0.5"), at("2026-01-31T23:59Z"), P("a/b")."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from tallystick.core.times import Period

D = Decimal


def at(text: str) -> datetime:
    """An instant, in UTC: a date alone is its midnight, no offset means UTC."""
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def P(text: str) -> Period:  # noqa: N802 — a literal, not a function
    """A period: its start, a slash, the start of the next."""
    start, _, end = text.partition("/")
    return Period(at(start), at(end))


def U(number: int) -> UUID:  # noqa: N802
    """An id that is easy to tell from another."""
    return UUID(int=number)
