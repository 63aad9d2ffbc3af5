"""What an event costs where usage is prepaid: credits or money a unit, over every feature the event feeds.

It is paid as it arrives, by the terms and from the pool of the period that is open then, whenever it happened.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from tallystick.core.catalog import Terms
from tallystick.core.events import AiCall, UsageEvent
from tallystick.core.money import RATE_SCALE, ZERO, text
from tallystick.core.pricing import PerUnit
from tallystick.core.tokens import TokenCharge
from tallystick.core.wallets import Model
from tallystick.errors import FieldError, InvalidRequest, Problem


class Share(NamedTuple):
    """What one of the features costs, in the wallet's unit."""

    feature_id: UUID
    cost: Decimal
    tokens: TokenCharge | None = None  # of an AI call


class Spend(NamedTuple):
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
        return (
            self.shares[0].cost if len(self.shares) == 1 else sum((each.cost for each in self.shares), ZERO)
        )


PriceTokens = Callable[[AiCall, int, datetime], TokenCharge]
"""What an AI call costs with a margin in basis points, when it happened; raises model_not_found."""


def share_of(
    event: UsageEvent,
    feature_id: UUID,
    terms: Terms,
    model: Model,
    quantity: Decimal,
    *,
    occurred_at: datetime,
    price_tokens: PriceTokens,
) -> Share:
    """What the event costs of one feature; refuses tokens where units are priced, units where tokens are, and units that
    a property makes negative: a wallet is not filled by usage."""
    if terms.margin_bps is None:
        if event.call is not None:
            raise Problem(
                "pricing_mode_mismatch",
                f"{event.feature!r} is priced by value; send `value`, not tokens.",
                param="model",
            )
        if quantity < 0:
            raise InvalidRequest(
                FieldError("properties", f"count {text(quantity)} units: prepaid usage cannot be negative")
            )
        return Share(feature_id, quantity * unit_cost(terms, model))
    if event.call is None:
        raise Problem(
            "pricing_mode_mismatch",
            f"{event.feature!r} is priced by the tokens of a model; send `model` and token counts, not `value`.",
            param="value",
        )
    tokens = price_tokens(event.call, terms.margin_bps, occurred_at)
    return Share(feature_id, Decimal(tokens.cost.total), tokens)


def unit_cost(terms: Terms, model: Model) -> Decimal:
    """What one unit takes of the wallet: credits, or rate units of the balance. Exact."""
    if model is Model.CREDITS:
        return Decimal(terms.credits_per_unit or 0)
    assert isinstance(terms.price, PerUnit)  # a balance plan takes no other
    return terms.price.unit_amount * RATE_SCALE
