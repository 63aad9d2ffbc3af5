"""What a call of an AI model costs: tokens of four kinds, each at its price per million (behaviour.md §8).

Prices are exact Decimals of major units (3 = $3.00 a million). What is deducted is a whole number of rate units
(10000 = $1.00): each of the four costs is rounded up, then the margin. The exact amounts are kept beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from tallystick.core.limits import TOKENS_PER_EVENT_MAX
from tallystick.core.money import ZERO, to_rate_up
from tallystick.errors import FieldError, InvalidRequest, must

_EACH: Final = Decimal("0.000001")
"""A price names a million tokens; this is one of them."""
_BASIS_POINT: Final = Decimal("0.0001")


class TokenCounts(NamedTuple):
    """The tokens of one call. What was read from and written to a cache is part of `input`."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0

    @property
    def fresh(self) -> int:
        """Input that no cache knew of: what the input price is for."""
        return self.input - self.cache_read - self.cache_write

    @property
    def total(self) -> int:
        """The value of the event that reports them."""
        return self.input + self.output


COUNT_FIELDS: Final = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens")


def read_counts(raw: Mapping[str, object]) -> TokenCounts:
    """The token counts of a parsed body. Raises InvalidRequest with every guilty field."""
    errors: list[FieldError] = []
    counts = []
    for place, name in enumerate(COUNT_FIELDS):
        given = raw.get(name)
        if given is None:
            if place < 2:
                errors.append(FieldError(name, "is required with `model`"))
            counts.append(0)
        elif isinstance(given, bool) or not isinstance(given, int):  # True is an int to Python only
            errors.append(FieldError(name, "must be a whole number"))
        elif not 0 <= given <= TOKENS_PER_EVENT_MAX:
            errors.append(FieldError(name, f"must be 0 to {TOKENS_PER_EVENT_MAX}"))
        else:
            counts.append(given)
    if not errors and counts[2] + counts[3] > counts[0]:
        guilty = COUNT_FIELDS[3] if counts[3] > counts[2] else COUNT_FIELDS[2]
        errors.append(
            FieldError(guilty, "cacheReadTokens and cacheWriteTokens are part of inputTokens, and exceed it")
        )
    if errors:
        raise InvalidRequest(*errors)
    return TokenCounts(*counts)


class Rates(NamedTuple):
    """Major units per million tokens. A cache without a price of its own is priced as input."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None


class Step(NamedTuple):
    """The rates of a call with more than `above` input tokens: of all of its tokens, not only those beyond."""

    above: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class TokenPrices:
    base: Rates
    steps: tuple[Step, ...] = ()  # by `above`, ascending

    def for_input(self, tokens: int) -> Rates:
        """The rates of a call with so many input tokens, cached ones included."""
        for step in reversed(self.steps):
            if tokens > step.above:
                return step.rates
        return self.base


class ModelPrice(NamedTuple):
    """A model's prices at an instant, and whose they are. What an event's cost is computed by."""

    model: str  # provider/model, or the name an organization gave its own
    prices: TokenPrices
    source: str  # "genai-prices 0.2.3", or the id of the organization's override
    valid_from: datetime | None = None  # None: since ever


@dataclass(frozen=True, slots=True)
class Override:
    """What an organization says a model costs, in place of the catalogue, from an instant on."""

    id: UUID
    model: str
    prices: TokenPrices
    valid_from: datetime
    valid_until: datetime | None  # excluded; None: for ever
    created_at: datetime

    def __contains__(self, at: datetime) -> bool:
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)


class ExactCost(NamedTuple):
    """Major units, not rounded anywhere."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    margin: Decimal

    @property
    def subtotal(self) -> Decimal:
        return self.input + self.output + self.cache_read + self.cache_write

    @property
    def total(self) -> Decimal:
        return self.subtotal + self.margin


class TokenCost(NamedTuple):
    """Rate units: `subtotal` is the sum of the four, `total` is `subtotal` and `margin`."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    subtotal: int
    margin: int
    total: int
    exact: ExactCost


def cost(counts: TokenCounts, rates: Rates, margin_bps: int) -> TokenCost:
    """What the tokens cost at these rates, with the seller's margin in basis points on top (ruling 23)."""
    must(
        counts.fresh >= 0 <= margin_bps, "cached tokens are part of the input", counts=counts, bps=margin_bps
    )
    exact_input = counts.fresh * rates.input * _EACH
    exact_output = counts.output * rates.output * _EACH
    exact_read = exact_write = ZERO
    if counts.cache_read:
        exact_read = (
            counts.cache_read * (rates.input if rates.cache_read is None else rates.cache_read) * _EACH
        )
    if counts.cache_write:
        exact_write = (
            counts.cache_write * (rates.input if rates.cache_write is None else rates.cache_write) * _EACH
        )
    exact_margin = (exact_input + exact_output + exact_read + exact_write) * margin_bps * _BASIS_POINT
    costs = (
        to_rate_up(exact_input),
        to_rate_up(exact_output),
        to_rate_up(exact_read),
        to_rate_up(exact_write),
    )
    subtotal = sum(costs)
    margin = -(-subtotal * margin_bps // 10_000)  # upwards, like the costs
    return TokenCost(
        *costs,
        subtotal,
        margin,
        subtotal + margin,
        ExactCost(exact_input, exact_output, exact_read, exact_write, exact_margin),
    )


@dataclass(frozen=True, slots=True)
class TokenCharge:
    """All that is kept of an event's cost: enough to compute it again when every price has changed."""

    model: str  # as the caller named it
    priced_as: str  # as the price names it
    counts: TokenCounts
    rates: Rates  # the step that applied
    margin_bps: int
    cost: TokenCost
    source: str
    valid_from: datetime | None

    @property
    def holds(self) -> bool:
        """Whether the costs are what the tokens cost at the rates kept with them."""
        return self.cost == cost(self.counts, self.rates, self.margin_bps)


def charge(model: str, counts: TokenCounts, found: ModelPrice, margin_bps: int) -> TokenCharge:
    """What a call of `model` costs at the price that was found for it."""
    rates = found.prices.for_input(counts.input)
    return TokenCharge(
        model=model,
        priced_as=found.model,
        counts=counts,
        rates=rates,
        margin_bps=margin_bps,
        cost=cost(counts, rates, margin_bps),
        source=found.source,
        valid_from=found.valid_from,
    )
