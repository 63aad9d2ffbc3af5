"""What an event costs where usage is prepaid: credits or money a unit, over every feature the event feeds.

It is paid as it arrives, by the terms and from the pool of the period that is open then, whenever it happened.
"""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from tallystick.core.catalog import Terms
from tallystick.core.money import RATE_SCALE, ZERO
from tallystick.core.pricing import PerUnit
from tallystick.core.wallets import Model


@dataclass(frozen=True, slots=True)
class Share:
    """What one of the features costs, in the wallet's unit."""

    feature_id: UUID
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Spend:
    """What an event costs, and which wallet pays it.

    `period_index` is the period the wallet must stand in by now, filled with `included`; None once the subscription
    has ended, whose wallet is filled no more.
    """

    subscription_id: UUID
    period_index: int | None
    included: Decimal
    overdraft: bool
    shares: tuple[Share, ...]

    @property
    def cost(self) -> Decimal:
        """The sum over the features the event feeds (ruling 6)."""
        return sum((each.cost for each in self.shares), ZERO)


def unit_cost(terms: Terms, model: Model) -> Decimal:
    """What one unit takes of the wallet: credits, or rate units of the balance. Exact."""
    if model is Model.CREDITS:
        return Decimal(terms.credits_per_unit or 0)
    assert isinstance(terms.price, PerUnit)  # a balance plan takes no other
    return terms.price.unit_amount * RATE_SCALE
