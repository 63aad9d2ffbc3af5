"""Invoices: from terms and usage to lines; each line is rounded once, here, and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from tallystick.core import pricing
from tallystick.core.catalog import Terms
from tallystick.core.meters import Fold, Usage
from tallystick.core.money import ZERO, from_minor, text, to_minor


@dataclass(frozen=True, slots=True)
class Line:
    """One line. Quantities and `unit_amount` (major units) are exact, `amount` is minor units."""

    line_type: str
    charge_type: str
    description: str
    quantity: Decimal
    unit_amount: Decimal
    amount: int
    feature_id: UUID | None = None
    feature_name: str | None = None
    included: Decimal | None = None
    used: Decimal | None = None
    overage: Decimal | None = None
    evidence: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """What a feature's usage over a period costs: exact, explained, not yet money."""

    used: Decimal
    included: Decimal | None  # None: unlimited
    billable: Decimal
    components: tuple[pricing.Component, ...]

    @property
    def exact(self) -> Decimal:
        return pricing.total(self.components)


def charge(terms: Terms, usage: Usage | Fold) -> Charge:
    """Included units leave the quantity before pricing; without overage nothing is billed."""
    used = usage.quantity
    if terms.unlimited:
        return Charge(used, None, ZERO, ())
    billable = max(ZERO, used - terms.included) if terms.overage_enabled else ZERO
    return Charge(used, terms.included, billable, pricing.rate(terms.price, billable))


def base_line(plan_name: str, amount_minor: int, currency: str, evidence: Mapping[str, Any]) -> Line:
    return Line(
        line_type="plan_base",
        charge_type="advance",
        description=plan_name,
        quantity=Decimal(1),
        unit_amount=from_minor(amount_minor, currency),
        amount=amount_minor,
        evidence=evidence,
    )


def usage_line(
    charged: Charge, terms: Terms, *, feature_name: str, unit: str, currency: str, evidence: Mapping[str, Any]
) -> Line:
    included = charged.included or ZERO
    return Line(
        line_type="feature_overage",
        charge_type="standard",
        description=(
            f"{feature_name}: {text(charged.used)} {unit} used, {text(included)} included, "
            f"{text(charged.billable)} billed"
        ),
        quantity=charged.billable,
        unit_amount=terms.price.unit_amount,
        amount=to_minor(charged.exact, currency),
        feature_id=terms.feature_id,
        feature_name=feature_name,
        included=included,
        used=charged.used,
        overage=charged.billable,
        evidence=evidence,
    )


def subtotal(lines: Sequence[Line]) -> int:
    return sum(line.amount for line in lines)


def number(prefix: str, count: int) -> str:
    """The public invoice number: INV-0043."""
    return f"{prefix}-{count:04d}"
