"""From usage to a charge, in one written order.

1. Included units leave the quantity. 2. The price rates the rest. 3. The maximum caps the period. 4. The minimum
tops it up. A price that changes inside a period is rated cumulatively and subtracted, so that its tier counters
carry on: each stretch costs what its own price says of all usage until its end, less what that price says of the
usage before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from tallystick.core.catalog import Terms
from tallystick.core.money import ZERO
from tallystick.core.pricing import Component, Components, Percentage, minus, rate, total
from tallystick.core.times import Period
from tallystick.errors import must


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used from a period's start to some moment. `amounts`, one an event, only where a percentage asks."""

    quantity: Decimal
    amounts: tuple[Decimal, ...] = ()


NOTHING_USED = Usage(ZERO)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one stretch of a period costs: exact, explained, not yet money."""

    span: Period
    terms: Terms
    used: Decimal
    included: Decimal | None  # what was left of it when the stretch began; None: unlimited
    billable: Decimal
    components: Components

    @property
    def exact(self) -> Decimal:
        return total(self.components)


@dataclass(frozen=True, slots=True)
class Rated:
    """What a feature costs over a period: a charge for each stretch, and what lifts them to the minimum."""

    charges: tuple[Charge, ...]
    true_up: Component | None = None

    @property
    def exact(self) -> Decimal:
        return sum((charge.exact for charge in self.charges), self.true_up.amount if self.true_up else ZERO)

    @property
    def used(self) -> Decimal:
        return sum((charge.used for charge in self.charges), ZERO)

    @property
    def billable(self) -> Decimal:
        return sum((charge.billable for charge in self.charges), ZERO)

    @property
    def components(self) -> Components:
        parts = tuple(part for charge in self.charges for part in charge.components)
        return (*parts, self.true_up) if self.true_up else parts


def rate_period(stretches: Sequence[tuple[Period, Terms, Usage]]) -> Rated:
    """Rate the stretches of one period; each comes with the usage from the period's start to its own end.

    A minimum is due whole for every period that was begun, as the base price is.
    """
    charges: list[Charge] = []
    before = NOTHING_USED
    running = held_back = ZERO
    for place, (span, terms, usage) in enumerate(stretches):
        parts = _cumulative(terms, usage)
        if place:
            parts = minus(parts, _cumulative(terms, before))
        cap = _capped(terms, running, held_back, total(parts))
        parts = (*parts, *cap)
        charges.append(
            Charge(
                span,
                terms,
                used=usage.quantity - before.quantity,
                included=None if terms.unlimited else max(ZERO, terms.included - before.quantity),
                billable=_billable(terms, usage.quantity)
                - (_billable(terms, before.quantity) if place else ZERO),
                components=parts,
            )
        )
        running += total(parts)
        held_back -= total(cap)
        before = usage
    return Rated(tuple(charges), _true_up(charges, running))


def _billable(terms: Terms, quantity: Decimal) -> Decimal:
    """What the price is asked about: usage beyond the included units, where the plan charges for it."""
    return max(ZERO, quantity - terms.included) if terms.overage_enabled and not terms.unlimited else ZERO


def _cumulative(terms: Terms, usage: Usage) -> Components:
    used = max(ZERO, usage.quantity)
    billable = _billable(terms, used)
    free = used - billable
    parts = (Component("unlimited" if terms.unlimited else "included", free, ZERO, free),) if free else ()
    if terms.unlimited or not terms.overage_enabled:
        return parts
    if isinstance(terms.price, Percentage):
        events = sum(usage.amounts, ZERO)
        must(events == usage.quantity, "a percentage sees every event", events=events, used=usage.quantity)
        return rate(terms.price, used, usage.amounts)
    return (*parts, *rate(terms.price, billable))


def _capped(terms: Terms, running: Decimal, held_back: Decimal, amount: Decimal) -> Components:
    """What the maximum holds back of a stretch.

    A stretch can take back what came before it: a cheaper volume tier was reached, or a total was corrected. What
    was never charged because of the maximum is then the first to go.
    """
    if amount < 0 and held_back:
        return (Component("above the maximum before", Decimal(1), min(held_back, -amount)),)
    if terms.maximum is None:
        return ()
    allowed = max(ZERO, terms.maximum - running)
    return (Component("down to the maximum", Decimal(1), allowed - amount),) if amount > allowed else ()


def _true_up(charges: Sequence[Charge], running: Decimal) -> Component | None:
    minimum = charges[-1].terms.minimum if charges else None
    if minimum is None or running >= minimum:
        return None
    return Component("up to the minimum", Decimal(1), minimum - running)
