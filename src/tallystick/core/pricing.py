"""Prices: from a quantity to an exact amount, with its reasoning.

A price is a tagged union; `rate` answers with components whose exact sum is the charge, in major units.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tallystick.core.money import ZERO, text
from tallystick.errors import Broken


@dataclass(frozen=True, slots=True)
class PerUnit:
    unit_amount: Decimal  # major units


Price = PerUnit


@dataclass(frozen=True, slots=True)
class Component:
    """One explained part of a charge: quantity × unit_amount = amount, exactly."""

    label: str
    quantity: Decimal
    unit_amount: Decimal

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.unit_amount

    def to_json(self) -> dict[str, str]:
        return {
            "label": self.label,
            "quantity": text(self.quantity),
            "unitAmount": text(self.unit_amount),
            "amount": text(self.amount),
        }


def rate(price: Price, quantity: Decimal) -> tuple[Component, ...]:
    """What `quantity` billable units cost under `price`."""
    return (Component("usage", quantity, price.unit_amount),) if quantity else ()


def total(components: tuple[Component, ...]) -> Decimal:
    return sum((component.amount for component in components), ZERO)


def to_json(price: Price) -> dict[str, str]:
    return {"model": "per_unit", "unitAmount": text(price.unit_amount)}


def from_json(stored: Mapping[str, Any]) -> Price:
    match stored:
        case {"model": "per_unit", "unitAmount": str() as amount}:
            return PerUnit(Decimal(amount))
    raise Broken(f"unknown price: {stored!r}")
