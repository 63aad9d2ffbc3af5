"""Prices: from a quantity to an exact amount, with its reasoning.

A price is a tagged union; `rate` answers with components whose exact sum is the charge, in major units, and whose
units sum to the quantity. Nothing here is rounded: money is made at the invoice line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final, assert_never

from tallystick.core.money import ZERO, text

_PERCENT_PER_BASIS_POINT: Final = Decimal("0.01")
_SHARE_PER_BASIS_POINT: Final = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class PerUnit:
    """Every unit costs the same."""

    unit_amount: Decimal


@dataclass(frozen=True, slots=True)
class Flat:
    """A fixed amount a period, however much is used, nothing included."""

    amount: Decimal


@dataclass(frozen=True, slots=True)
class Tier:
    """A step that ends at `up_to`, itself included; None: it has no end."""

    up_to: Decimal | None
    unit_amount: Decimal = ZERO
    flat_amount: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Graduated:
    """Each slice of the quantity at its own tier's rate, and the flat amount of every tier entered."""

    tiers: tuple[Tier, ...]
    charge_flat_at_zero: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """The whole quantity at the rate of the tier it lands in, and that tier's flat amount."""

    tiers: tuple[Tier, ...]
    charge_flat_at_zero: bool = False


@dataclass(frozen=True, slots=True)
class Package:
    """Sold by the package: one that is begun is paid whole. Free units come first."""

    size: Decimal
    amount: Decimal
    free_units: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Percentage:
    """A share of each event's amount (major units), with a fixed amount and bounds for each event's whole fee.

    The first `free_events` cost nothing; of what follows, the first `free_amount` is not charged, and an event
    that it covers whole costs nothing either.
    """

    basis_points: Decimal
    fixed_amount: Decimal = ZERO
    min_amount: Decimal | None = None
    max_amount: Decimal | None = None
    free_events: int = 0
    free_amount: Decimal = ZERO


Price = PerUnit | Flat | Graduated | Volume | Package | Percentage


@dataclass(frozen=True, slots=True)
class Component:
    """One explained part of a charge: quantity × unit_amount = amount, exactly.

    `units` is how much of the usage this part answers for: the quantity itself for a rate, the units inside for
    packages, nothing for a flat amount.
    """

    label: str
    quantity: Decimal
    unit_amount: Decimal
    units: Decimal = ZERO

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.unit_amount

    def to_json(self) -> dict[str, str]:
        return {
            "label": self.label,
            "quantity": text(self.quantity),
            "unitAmount": text(self.unit_amount),
            "amount": text(self.amount),
            "units": text(self.units),
        }


Components = tuple[Component, ...]


def rate(price: Price, quantity: Decimal, amounts: Sequence[Decimal] = ()) -> Components:
    """What `quantity` billable units cost under `price`.

    A percentage is folded event by event: it wants `amounts`, one per event in the order they happened, and their
    sum is the quantity.
    """
    match price:
        case PerUnit():
            return _units("usage", quantity, price.unit_amount) if quantity else ()
        case Flat():
            return (*_units("usage", quantity, ZERO), Component("flat amount", Decimal(1), price.amount))
        case Graduated():
            return _graduated(price, quantity)
        case Volume():
            return _volume(price, quantity)
        case Package():
            return _packages(price, quantity)
        case Percentage():
            return _percentage(price, amounts)
    assert_never(price)


def total(components: Components) -> Decimal:
    return sum((component.amount for component in components), ZERO)


def units(components: Components) -> Decimal:
    return sum((component.units for component in components), ZERO)


def minus(components: Components, earlier: Components) -> Components:
    """What `components` say beyond `earlier`: equal parts meet, and what is left of each is kept."""
    left: dict[tuple[str, Decimal], tuple[Decimal, Decimal]] = {}
    for sign, parts in ((1, components), (-1, earlier)):
        for part in parts:
            key = (part.label, part.unit_amount)
            quantity, covered = left.get(key, (ZERO, ZERO))
            left[key] = (quantity + sign * part.quantity, covered + sign * part.units)
    return tuple(
        Component(label, quantity, unit_amount, covered)
        for (label, unit_amount), (quantity, covered) in left.items()
        if quantity or covered
    )


def unit_amount(price: Price) -> Decimal:
    """The one rate of a uniform price; 0 where several apply (ruling 20)."""
    return price.unit_amount if isinstance(price, PerUnit) else ZERO


def _units(label: str, quantity: Decimal, unit_amount: Decimal) -> Components:
    return (Component(label, quantity, unit_amount, quantity),) if quantity else ()


def _once(label: str, amount: Decimal) -> Components:
    return (Component(label, Decimal(1), amount),) if amount else ()


def _range(number: int, lower: Decimal, tier: Tier) -> str:
    if tier.up_to is None:
        return f"tier {number}: above {text(lower)}" if lower else f"tier {number}: any quantity"
    return (
        f"tier {number}: {text(lower)} to {text(tier.up_to)}"
        if lower
        else f"tier {number}: up to {text(tier.up_to)}"
    )


def _graduated(price: Graduated, quantity: Decimal) -> Components:
    if quantity <= 0:
        return _at_zero(price)
    parts: list[Component] = []
    lower = ZERO
    for number, tier in enumerate(price.tiers, start=1):
        if quantity <= lower:
            break
        upper = quantity if tier.up_to is None else min(quantity, tier.up_to)
        name = _range(number, lower, tier)
        parts += _units(name, upper - lower, tier.unit_amount)
        parts += _once(f"{name}, flat amount", tier.flat_amount)
        lower = upper
    return tuple(parts)


def _volume(price: Volume, quantity: Decimal) -> Components:
    if quantity <= 0:
        return _at_zero(price)
    lower = ZERO
    for number, tier in enumerate(price.tiers, start=1):
        if tier.up_to is None or quantity <= tier.up_to:
            name = _range(number, lower, tier)
            return (
                *_units(name, quantity, tier.unit_amount),
                *_once(f"{name}, flat amount", tier.flat_amount),
            )
        lower = tier.up_to
    return ()


def _at_zero(price: Graduated | Volume) -> Components:
    if not price.charge_flat_at_zero:
        return ()
    first = price.tiers[0]
    return _once(f"{_range(1, ZERO, first)}, flat amount", first.flat_amount)


def _packages(price: Package, quantity: Decimal) -> Components:
    free = min(quantity, price.free_units)
    beyond = quantity - free
    count = (beyond / price.size).to_integral_value(ROUND_CEILING)
    bought = Component(f"packages of {text(price.size)}", count, price.amount, beyond)
    return (*_units("free units", free, ZERO), *((bought,) if count else ()))


def _percentage(price: Percentage, amounts: Sequence[Decimal]) -> Components:
    share = price.basis_points * _SHARE_PER_BASIS_POINT
    free = charged = at_min = at_max = ZERO
    fixed_count = min_count = max_count = 0
    allowance = price.free_amount
    for place, amount in enumerate(amounts):
        is_free = place < price.free_events or amount < 0  # a correction costs nothing and makes nothing free
        covered = amount if is_free else min(amount, allowance)
        if not is_free:
            allowance -= covered
        if covered == amount and (is_free or covered):
            free += amount
            continue
        fee = (amount - covered) * share + price.fixed_amount
        if price.min_amount is not None and fee < price.min_amount:
            min_count, at_min = min_count + 1, at_min + amount
        elif price.max_amount is not None and fee > price.max_amount:
            max_count, at_max = max_count + 1, at_max + amount
        else:
            free, charged, fixed_count = free + covered, charged + amount - covered, fixed_count + 1
    name = f"{text(price.basis_points * _PERCENT_PER_BASIS_POINT)}%"
    parts = [*_units("free of charge", free, ZERO), *_units(f"{name} of the amount", charged, share)]
    if price.fixed_amount and fixed_count:
        parts.append(Component("fixed amount per event", Decimal(fixed_count), price.fixed_amount))
    if min_count and price.min_amount is not None:
        parts.append(Component("events at the minimum fee", Decimal(min_count), price.min_amount, at_min))
    if max_count and price.max_amount is not None:
        parts.append(Component("events at the maximum fee", Decimal(max_count), price.max_amount, at_max))
    return tuple(parts)
