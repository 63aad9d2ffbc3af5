"""Wallets that live through stories, and the offers of prepaid plans: for the tests of the pure room."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from tallystick.core.admission import admit
from tallystick.core.catalog import Catalogue, Terms
from tallystick.core.events import AiCall, UsageEvent
from tallystick.core.meters import Meter
from tallystick.core.money import ZERO
from tallystick.core.spending import Spend
from tallystick.core.subscriptions import Life, Standing
from tallystick.core.tokens import ModelPrice, Rates, TokenCharge, TokenCounts, TokenPrices, charge
from tallystick.core.wallets import (
    Changed,
    Crossing,
    Model,
    Movement,
    Prepaid,
    Wallet,
    adjusted,
    bought,
    carried_over,
    crossings,
    opened,
    refunded,
    settled,
    turned,
    usage,
)
from tallystick.errors import Problem
from tests.core.offers import LONG_AGO, PLAN, feature, life, meter, standing, terms
from tests.literals import D, U, at

Step = tuple[str, Decimal]


@dataclass
class Story:
    """A wallet that lives through a story as ingest and the close would let it."""

    model: Model
    overdraft: bool  # a balance that may go below zero
    wallet: Wallet
    movements: list[Movement]
    spent: Decimal = ZERO
    refused: list[int] = field(default_factory=list)
    told: list[Crossing] = field(default_factory=list)

    def keep(self, changed: Changed) -> None:
        self.wallet, moved = changed
        self.movements += moved

    def use(self, cost: Decimal) -> bool:
        if cost and not self.overdraft and not self.wallet.covers(cost):
            return False
        before = self.wallet
        after, crossed = crossings(before, before.spent(cost))
        self.keep((after, usage(before, after)))
        self.spent += cost
        self.told += crossed
        return True

    def step(self, what: str, amount: Decimal) -> bool:
        """Whether it was done; what is refused leaves the wallet as it was."""
        if what == "use":
            return self.use(amount)
        if what in ("give", "take"):
            changed = adjusted(self.wallet, amount if what == "give" else -amount)
            if changed is None:
                return False
            self.keep(changed)
        elif what == "turn":
            self.keep(turned(self.wallet, self.wallet.period_index + 1, amount))
        elif what in ("settle", "end"):
            self.keep(settled(self.wallet))
        elif what == "again":  # the customer subscribes anew, and what was bought comes along
            new, granted = opened(self.model, 0, amount)
            (_, gone), (self.wallet, come) = carried_over(self.wallet, new)
            self.movements += [*granted, *gone, *come]
        elif amount:
            self.keep(bought(self.wallet, amount) if what == "buy" else refunded(self.wallet, amount))
        return True


def begin(model: Model, included: Decimal, *, overdraft: bool = False) -> Story:
    return Story(model, overdraft and model is Model.BALANCE, *opened(model, 0, included))


def live(held: Story, story: Sequence[Step]) -> Story:
    for place, (what, amount) in enumerate(story):
        before = held.wallet
        if not held.step(what, amount):
            held.refused.append(place)
            assert held.wallet == before
    return held


def read_step(step: str) -> Step:
    """ "use 5" and the like."""
    what, _, amount = step.partition(" ")
    return what, D(amount)


# Offers ----------------------------------------------------------------------------------------------------

NOW = at("2026-03-20T12:00Z")  # in the third period of who subscribed on 15 January
PRICE = U(50)
CALL = AiCall("gpt-4o", TokenCounts(1000, 500, 0, 0))


def credit_terms(per_unit: int | None = 1, **more: Any) -> Terms:
    return replace(terms(**more), credits_per_unit=per_unit)


def money_terms(unit: str = "0.001", **more: Any) -> Terms:
    return terms(overage=True, unit=unit, **more)


def token_terms(margin_bps: int = 2000, **more: Any) -> Terms:
    return replace(terms(overage=True, **more), margin_bps=margin_bps)


def offer(
    *promised: Terms, model: Model, overdraft: bool = False, meters: tuple[Meter, ...] = ()
) -> Catalogue:
    """A prepaid plan; each feature's terms, and a meter for each unless others are given."""
    measured = meters or (meter(),)
    by_feature: dict[Any, tuple[Terms, ...]] = {}
    for each in promised:
        by_feature[each.feature_id] = (*by_feature.get(each.feature_id, ()), each)
    versions: dict[Any, tuple[tuple[datetime, Meter], ...]] = {}
    for one in measured:
        versions[one.feature_id] = (*versions.get(one.feature_id, ()), (LONG_AGO, one))
    return Catalogue(
        features={"api_calls": feature()},
        meters={"api_calls": measured},
        versions=versions,
        plans={PLAN: by_feature},
        prepaid={PLAN: Prepaid(model, overdraft, {PRICE: D(500), None: D(7)})},
    )


def event(value: str = "1", when: str | None = None, **more: Any) -> UsageEvent:
    return UsageEvent("api_calls", "ada", D(value), occurred_at=at(when) if when else None, **more)


def priced(call: AiCall, margin_bps: int, at_: datetime) -> TokenCharge:
    """$3 and $15 per million tokens, from May 2026 on twice that; only one model is known."""
    if call.model != "gpt-4o":
        raise Problem("model_not_found")
    rates = Rates(D(3), D(15)) if at_ < at("2026-05-01") else Rates(D(6), D(30))
    return charge(call.model, call.counts, ModelPrice("gpt-4o", TokenPrices(rates), "test"), margin_bps)


def prepaid_life(start: str = "2026-01-15T10:00Z", end: str | None = None, **more: Any) -> Life:
    return replace(life(start, end, **more), price_id=PRICE)


def spend(
    sent: UsageEvent, offered: Catalogue, held: Standing | None = None, *, now: datetime = NOW
) -> Spend | None:
    admitted = admit(
        sent, offered, held or standing(prepaid_life()), now=now, latest=max(now, NOW), price_tokens=priced
    )
    assert admitted.limits == (), "a wallet is the only limit"
    return admitted.spend


def cost(sent: UsageEvent, offered: Catalogue, **more: Any) -> Decimal:
    found = spend(sent, offered, **more)
    assert found is not None
    return found.cost


def call(when: str | None = None, model: str = "gpt-4o") -> UsageEvent:
    return event("1500", when, call=CALL._replace(model=model))
