"""Simulations: what usage that was lived would have cost otherwise, part by part, and who would gain by it.

Every amount is there twice: as its lines round it, in minor units, and exactly, in major units. Sums are sums of
what lines say, so the totals of a report are those of the invoices it tells of.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from tallystick.core import ids
from tallystick.core.money import ZERO, text


class Outcome(StrEnum):
    PAYS_LESS = "pays_less"
    PAYS_MORE = "pays_more"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Cost:
    """What something comes to: `minor` as its lines are rounded, `exact` in major units before that."""

    minor: int
    exact: Decimal

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.minor + other.minor, self.exact + other.exact)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.minor - other.minor, self.exact - other.exact)


NOTHING: Final = Cost(0, ZERO)


@dataclass(frozen=True, slots=True)
class Compared:
    """What the same usage came to as it was lived, and comes to under the simulated terms."""

    old: Cost = NOTHING
    new: Cost = NOTHING

    @property
    def difference(self) -> Cost:
        return self.new - self.old

    @property
    def outcome(self) -> Outcome:
        """As the customer sees it: what no line shows, nobody pays."""
        difference = self.difference.minor
        return Outcome.SAME if not difference else Outcome.PAYS_LESS if difference < 0 else Outcome.PAYS_MORE

    def __add__(self, other: "Compared") -> "Compared":
        return Compared(self.old + other.old, self.new + other.new)

    def to_json(self) -> dict[str, Any]:
        return {
            "oldAmount": self.old.minor,
            "newAmount": self.new.minor,
            "difference": self.difference.minor,
            "oldAmountDecimal": text(self.old.exact),
            "newAmountDecimal": text(self.new.exact),
            "differenceDecimal": text(self.difference.exact),
        }


class Beside(StrEnum):
    """What is paid beside features."""

    BASE = "base"  # in advance, where a simulation is about a plan
    PLAN_MINIMUM = "planMinimum"  # what lifts a plan's usage to it


Part = UUID | Beside
Costs = Mapping[Part, Cost]  # by feature, and what is beside them
Parts = Mapping[Part, Compared]


def compare(old: Costs, new: Costs) -> Parts:
    """Part by part; what is not on one side costs nothing there."""
    return {
        part: Compared(old.get(part, NOTHING), new.get(part, NOTHING)) for part in dict.fromkeys([*old, *new])
    }


def added(one: Parts, other: Parts) -> Parts:
    return {
        part: one.get(part, Compared()) + other.get(part, Compared())
        for part in dict.fromkeys([*one, *other])
    }


def whole(parts: Parts) -> Compared:
    return sum(parts.values(), Compared())


@dataclass(slots=True)
class Account:
    """What one customer pays in one currency, both ways, over all periods that were looked at."""

    customer_id: UUID
    reference: str
    currency: str
    periods: int = 0
    open_periods: int = 0  # of `periods`
    parts: Parts = field(default_factory=dict)

    def add(self, parts: Parts, *, is_open: bool) -> None:
        self.parts = added(self.parts, parts)
        self.periods += 1
        self.open_periods += is_open

    @property
    def total(self) -> Compared:
        return whole(self.parts)


@dataclass(frozen=True, slots=True)
class Total:
    """All customers of one currency together."""

    currency: str
    customers: int
    winners: int  # who would pay less
    losers: int
    same: int
    periods: int
    open_periods: int
    parts: Parts

    @property
    def total(self) -> Compared:
        return whole(self.parts)


def totals(accounts: Iterable[Account]) -> list[Total]:
    """By currency, in the order of their names."""
    by_currency: dict[str, list[Account]] = {}
    for account in accounts:
        by_currency.setdefault(account.currency, []).append(account)
    return [_total(currency, held) for currency, held in sorted(by_currency.items())]


def _total(currency: str, accounts: Sequence[Account]) -> Total:
    outcomes = [account.total.outcome for account in accounts]
    parts: Parts = {}
    for account in accounts:
        parts = added(parts, account.parts)
    return Total(
        currency=currency,
        customers=len(accounts),
        winners=outcomes.count(Outcome.PAYS_LESS),
        losers=outcomes.count(Outcome.PAYS_MORE),
        same=outcomes.count(Outcome.SAME),
        periods=sum(account.periods for account in accounts),
        open_periods=sum(account.open_periods for account in accounts),
        parts=parts,
    )


def ranked(accounts: Iterable[Account]) -> list[Account]:
    """Who would save most first, who would pay most more last."""
    return sorted(accounts, key=lambda each: (each.total.difference.minor, each.reference, each.currency))


def show_total(total: Total, codes: Mapping[UUID, str]) -> dict[str, Any]:
    return {
        "currency": total.currency,
        **total.total.to_json(),
        "customers": total.customers,
        "winners": total.winners,
        "losers": total.losers,
        "same": total.same,
        "periods": total.periods,
        "openPeriods": total.open_periods,
        **_show_parts(total.parts, codes),
    }


def show_account(account: Account, codes: Mapping[UUID, str]) -> dict[str, Any]:
    return {
        "customerId": account.reference,
        "currency": account.currency,
        **account.total.to_json(),
        "outcome": account.total.outcome.value,
        "periods": account.periods,
        "openPeriods": account.open_periods,
        **_show_parts(account.parts, codes),
    }


def _show_parts(parts: Parts, codes: Mapping[UUID, str]) -> dict[str, Any]:
    beside = {part.value: parts[part].to_json() if part in parts else None for part in Beside}
    features = {codes[part]: (part, compared) for part, compared in parts.items() if isinstance(part, UUID)}
    return {
        **beside,
        "features": [
            {"featureCode": code, "featureId": ids.show(ids.FEATURE, part), **compared.to_json()}
            for code, (part, compared) in sorted(features.items())
        ],
    }
