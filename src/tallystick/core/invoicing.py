"""Invoices: from terms and usage to lines; each line is rounded once, here, and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from tallystick.core import evidence
from tallystick.core.adjustments import Rated
from tallystick.core.evidence import Basis, PlanPeriod
from tallystick.core.money import RATE_SCALE, ZERO, from_minor, text, to_minor
from tallystick.core.pricing import Components, minus, unit_amount
from tallystick.core.times import Period, local_day


class Part(StrEnum):
    """What a line says of a usage period."""

    USAGE = "usage"
    MINIMUM = "minimum"
    PLAN_MINIMUM = "plan_minimum"
    DIFFERENCE = "difference"
    OVERDRAFT = "overdraft"


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
    part: Part | None = None
    subscription_id: UUID | None = None  # with `usage_period`: the usage period it speaks of
    usage_period: int | None = None
    id: UUID | None = None  # where something must refer to it before it is issued


@dataclass(frozen=True, slots=True)
class Billed:
    """What the lines of one feature and period have said so far."""

    amount: int = 0
    used: Decimal = ZERO
    billable: Decimal = ZERO
    components: Components = ()
    position: int = 0  # of the chain, when usage was last put on a line


def base_line(plan_name: str, amount_minor: int, currency: str, proof: Mapping[str, Any]) -> Line:
    return Line(
        line_type="plan_base",
        charge_type="advance",
        description=plan_name,
        quantity=Decimal(1),
        unit_amount=from_minor(amount_minor, currency),
        amount=amount_minor,
        evidence=proof,
    )


def purchase_line(description: str, amount_minor: int, currency: str, proof: Mapping[str, Any]) -> Line:
    """Credits or a top-up, paid before they are of use."""
    return Line(
        line_type="one_time",
        charge_type="standard",
        description=description,
        quantity=Decimal(1),
        unit_amount=from_minor(amount_minor, currency),
        amount=amount_minor,
        evidence=proof,
    )


def usage_lines(
    basis: Basis,
    rated: Rated,
    *,
    feature_id: UUID,
    feature_name: str,
    unit: str,
    currency: str,
    subscription_id: UUID | None = None,
) -> list[Line]:
    """A line for each stretch, if any of them costs something, and one that lifts them to the minimum.

    A stretch that was used and costs nothing is told beside one that does: together they speak of all the usage,
    so that what is late can be told from it.
    """
    lines = []
    several = len(rated.charges) > 1
    billed = any(charge.billable or charge.exact for charge in rated.charges)
    for charge, amount in zip(rated.charges, charges_in_money(rated, currency), strict=True):
        if not billed or not (charge.used or charge.billable or charge.exact):
            continue
        included = charge.included or ZERO
        free = "all of it" if charge.included is None else text(included)
        said = (
            f"{feature_name}: {text(charge.used)} {unit} used, {free} included, "
            f"{text(charge.billable)} billed"
        )
        lines.append(
            Line(
                line_type="feature_overage",
                charge_type="standard",
                description=f"{said}, {_days(charge.span, basis.timezone)}" if several else said,
                quantity=charge.billable,
                unit_amount=unit_amount(charge.terms.price),
                amount=amount,
                feature_id=feature_id,
                feature_name=feature_name,
                included=included,
                used=charge.used,
                overage=charge.billable,
                evidence=evidence.of_charge(basis, charge),
                part=Part.USAGE,
                subscription_id=subscription_id,
                usage_period=basis.index,
            )
        )
    if rated.true_up is not None:
        lines.append(
            Line(
                line_type="feature_overage",
                charge_type="true_up",
                description=f"{feature_name}: up to the minimum of {text(rated.charges[-1].terms.minimum or ZERO)}",
                quantity=Decimal(1),
                unit_amount=rated.true_up.amount,
                amount=true_up_in_money(rated, currency),
                feature_id=feature_id,
                feature_name=feature_name,
                evidence=evidence.of_minimum(basis, rated, rated.true_up),
                part=Part.MINIMUM,
                subscription_id=subscription_id,
                usage_period=basis.index,
            )
        )
    return lines


def in_money(rated: Rated, currency: str) -> int:
    """What a rated period comes to, each of its lines rounded by itself, in minor units."""
    return sum(charges_in_money(rated, currency)) + true_up_in_money(rated, currency)


def charges_in_money(rated: Rated, currency: str) -> list[int]:
    """Each stretch rounded by itself, half up; yet together they never pass the maximum by a cent."""
    amounts: list[int] = []
    for charge in rated.charges:
        amount = to_minor(charge.exact, currency)
        if amount > 0 and charge.terms.maximum is not None:
            amount = min(amount, max(0, to_minor(charge.terms.maximum, currency) - sum(amounts)))
        amounts.append(amount)
    return amounts


def true_up_in_money(rated: Rated, currency: str) -> int:
    """What the usage lines, as they were rounded, lack of the minimum: so the whole never passes it by a cent."""
    if rated.true_up is None:
        return 0
    return max(0, to_minor(rated.exact, currency) - sum(charges_in_money(rated, currency)))


def difference_line(
    basis: Basis,
    rated: Rated,
    billed: Billed,
    *,
    feature_id: UUID,
    feature_name: str,
    unit: str,
    currency: str,
    after: int,
    policy: str,
) -> Line | None:
    """What a period that was rated again now says beyond what its lines said; None when nobody would notice."""
    now = in_money(rated, currency)
    amount, billable = now - billed.amount, rated.billable - billed.billable
    if not amount and not billable:
        return None
    used = rated.used - billed.used
    rates = {unit_amount(charge.terms.price) for charge in rated.charges}
    return Line(
        line_type="feature_overage",
        charge_type="standard",
        description=(
            f"{feature_name}: {text(used)} {unit} reported late for {_days(basis.period, basis.timezone)}, "
            f"{text(billable)} billed"
        ),
        quantity=billable,
        unit_amount=rates.pop() if len(rates) == 1 else ZERO,
        amount=amount,
        feature_id=feature_id,
        feature_name=feature_name,
        included=ZERO,
        used=used,
        overage=billable,
        evidence=evidence.of_difference(
            basis,
            rated,
            now_minor=now,
            before_minor=billed.amount,
            components=minus(rated.components, billed.components),
            after=after,
            policy=policy,
        ),
        part=Part.DIFFERENCE,
        usage_period=basis.index,
    )


def plan_minimum_line(
    lived: PlanPeriod, *, minimum: Decimal, features_minor: int, before_minor: int, currency: str
) -> Line | None:
    """What lifts a plan's usage of a period to its minimum, beyond what was lifted before; None when nothing does.

    Taken back, it is negative: usage that came late has filled some of it.
    """
    wanted = max(0, to_minor(minimum, currency) - features_minor)
    if wanted == before_minor:
        return None
    amount = wanted - before_minor
    return Line(
        line_type="feature_overage",
        charge_type="true_up",
        description=f"Up to the plan's minimum of {text(minimum)} for {_days(lived.period, lived.timezone)}",
        quantity=Decimal(1),
        unit_amount=from_minor(amount, currency),
        amount=amount,
        evidence=evidence.of_plan_minimum(
            lived, minimum=minimum, features_minor=features_minor, before_minor=before_minor
        ),
        part=Part.PLAN_MINIMUM,
        usage_period=lived.index,
    )


def overdraft_line(lived: PlanPeriod, *, overdrawn: Decimal, currency: str) -> Line:
    """What usage took beyond the balance of a period; `overdrawn` in rate units, as the ledger has it."""
    exact = overdrawn / RATE_SCALE
    return Line(
        line_type="balance_overage",
        charge_type="standard",
        description=f"Usage beyond the balance, {_days(lived.period, lived.timezone)}",
        quantity=Decimal(1),
        unit_amount=exact,
        amount=to_minor(exact, currency),
        evidence=evidence.of_overdraft(lived, overdrawn=overdrawn),
        part=Part.OVERDRAFT,
        usage_period=lived.index,
    )


def _days(span: Period, zone: str) -> str:
    """The local days a span touches, first to last."""
    first, last = local_day(span.start, zone), local_day(span.end - timedelta(microseconds=1), zone)
    return first.isoformat() if first == last else f"{first.isoformat()} to {last.isoformat()}"


def subtotal(lines: Sequence[Line]) -> int:
    return sum(line.amount for line in lines)


def number(prefix: str, count: int) -> str:
    """The public invoice number: INV-0043."""
    return f"{prefix}-{count:04d}"
