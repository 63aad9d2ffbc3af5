"""Wallets: what a prepaid subscription may still spend, and every movement of it.

A wallet is the sums of a ledger. Whatever changes it here says so in movements from one account to another, so the
ledger sums to zero by construction and a pool is what was moved into it less what was moved out (ruling 23).
Credits are counted in credits, a balance in rate units: 10000 = 1.00 of the currency. Exact, never rounded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from tallystick.core.money import RATE_SCALE, ZERO, from_minor
from tallystick.core.times import MONTHS

LOW_SHARE: Final = Decimal("0.1")
"""A pool is low when no more than this share of its last refill remains (behaviour.md §12, §13)."""


class Model(StrEnum):
    """How a prepaid plan counts."""

    CREDITS = "credits"
    BALANCE = "balance"


class Account(StrEnum):
    """The pools of a wallet, and where value comes from and goes to."""

    PLAN_CREDITS = "plan_credits"
    PURCHASED_CREDITS = "purchased_credits"
    BALANCE = "balance"
    HELD = "held"

    GRANTED = "granted"
    SOLD = "sold"
    ADJUSTED = "adjusted"
    USED = "used"
    EXPIRED = "expired"
    INVOICED = "invoiced"
    CARRIED = "carried"


POOLS: Final = frozenset({Account.PLAN_CREDITS, Account.PURCHASED_CREDITS, Account.BALANCE, Account.HELD})


class Cause(StrEnum):
    """Why value moved."""

    USAGE = "usage"
    GRANT = "grant"
    RESET = "reset"
    EXPIRY = "expiry"
    PURCHASE = "purchase"
    TOPUP = "topup"
    ADJUSTMENT = "adjustment"
    REFUND = "refund"
    OVERDRAFT = "overdraft"
    CARRY = "carry"
    HOLD = "hold"
    RELEASE = "release"


class Movement(NamedTuple):
    """An amount that left one account and came to another."""

    source: Account
    target: Account
    amount: Decimal
    cause: Cause
    period_index: int  # of the usage period whose wallet it changed


@dataclass(frozen=True, slots=True)
class Prepaid:
    """What a plan grants beforehand each usage period, by price; None: to those who hold the free plan."""

    model: Model
    overdraft: bool  # usage goes on below zero, and what was overdrawn is invoiced at the period's end
    included: Mapping[UUID | None, Decimal]

    def grants(self, price_id: UUID | None) -> Decimal:
        return self.included.get(price_id, ZERO)


def included_balance(*, given: int | None, base_minor: int, currency: str, interval: str | None) -> Decimal:
    """What a period's balance is filled with, in rate units: what the price says, else the base price of as much time.

    A one-time price is paid once and its periods come for ever: it grants what it says, else nothing (ruling 25).
    """
    if given is not None:
        return Decimal(given)
    months = 1 if interval == "weekly" else MONTHS.get(interval or "")
    if months is None:
        return ZERO
    return (from_minor(base_minor, currency) * RATE_SCALE / months).to_integral_value(ROUND_DOWN)


class Wallet(NamedTuple):
    """`plan` is the pool each period fills anew: the plan's credits, or the balance. `purchased` credits stay."""

    model: Model
    period_index: int
    plan: Decimal = ZERO
    purchased: Decimal = ZERO
    held: Decimal = ZERO  # by reservations: neither there to be spent nor gone
    held_purchased: Decimal = ZERO  # of that, what came from purchased credits
    refill: Decimal = ZERO  # what the pool stood at after it was last filled
    told_low: bool = False  # since then

    @property
    def remaining(self) -> Decimal:
        return self.plan + self.purchased

    @property
    def pool(self) -> Account:
        """Where the plan's own grant lies."""
        return Account.PLAN_CREDITS if self.model is Model.CREDITS else Account.BALANCE

    @property
    def lasting(self) -> Account:
        """Where goes what somebody paid for or was given."""
        return Account.PURCHASED_CREDITS if self.model is Model.CREDITS else Account.BALANCE

    def covers(self, cost: Decimal) -> bool:
        return cost <= self.remaining

    def pays(self, cost: Decimal, *, overdraft: bool) -> bool:
        """Whether usage of that cost is accepted: all of it is there, or may be owed; what is free always is."""
        return not cost or overdraft or self.covers(cost)

    def spent(self, cost: Decimal) -> "Wallet":
        """Plan credits first, then purchased ones; a balance may be overdrawn. Whether it may is asked before."""
        if self.model is Model.BALANCE:
            return self._replace(plan=self.plan - cost)
        from_plan = min(cost, self.plan)
        return self._replace(plan=self.plan - from_plan, purchased=self.purchased - (cost - from_plan))


Changed = tuple[Wallet, list[Movement]]


def opened(model: Model, index: int, included: Decimal) -> Changed:
    """A wallet as a subscription begins: filled for its first period."""
    return _filled(Wallet(model, index), included, Cause.GRANT)


def turned(wallet: Wallet, index: int, included: Decimal) -> Changed:
    """The wallet in another period: what was left expires, what was overdrawn is to be invoiced, the grant is new.

    It never goes back: asked for an earlier period than its own, it stays as it is (ruling 22).
    """
    if index <= wallet.period_index:
        return wallet, []
    emptied, movements = settled(wallet)
    filled, more = _filled(emptied._replace(period_index=index), included, Cause.RESET)
    # What reservations hold is held anew, as far as the new pool reaches (ruling 27).
    anew, held = hold(filled, min(wallet.held, max(filled.remaining, ZERO)))
    return anew, movements + more + held


def settled(wallet: Wallet) -> Changed:
    """The pool as its period leaves it: at zero, nothing held. Purchased credits stay."""
    wallet, movements = released(wallet, wallet.held)
    if wallet.plan > 0:
        movements += [Movement(wallet.pool, Account.EXPIRED, wallet.plan, Cause.EXPIRY, wallet.period_index)]
    elif wallet.plan < 0:
        movements += [
            Movement(Account.INVOICED, wallet.pool, -wallet.plan, Cause.OVERDRAFT, wallet.period_index)
        ]
    return wallet._replace(plan=ZERO), movements


def hold(wallet: Wallet, amount: Decimal) -> Changed:
    """Set aside what a reservation may come to, as spending would take it."""
    after = wallet.spent(amount)
    from_purchased = wallet.purchased - after.purchased
    moved = [each._replace(target=Account.HELD, cause=Cause.HOLD) for each in usage(wallet, after)]
    return (
        after._replace(held=wallet.held + amount, held_purchased=wallet.held_purchased + from_purchased),
        moved,
    )


def released(wallet: Wallet, amount: Decimal, *, newer: Decimal = ZERO) -> Changed:
    """Give back what was set aside: purchased credits first, for those would not expire.

    `newer`: what was set aside since by others. Where a new period's pool did not reach for all, the oldest hold less
    than they asked for, and nobody gives back what is another's (ruling 27).
    """
    amount = min(amount, max(wallet.held - newer, ZERO))
    purchased = min(amount, wallet.held_purchased)
    back = ((Account.PURCHASED_CREDITS, purchased), (wallet.pool, amount - purchased))
    after = wallet._replace(
        plan=wallet.plan + amount - purchased,
        purchased=wallet.purchased + purchased,
        held=wallet.held - amount,
        held_purchased=wallet.held_purchased - purchased,
    )
    return after, [
        Movement(Account.HELD, pool, moved, Cause.RELEASE, wallet.period_index)
        for pool, moved in back
        if moved
    ]


class Lapse(NamedTuple):
    """A reservation that was not settled in time: what it set aside, and what was set aside since by others."""

    amount: Decimal
    newer: Decimal


def lapsed(wallet: Wallet, lapses: Iterable[Lapse]) -> Changed:
    """The wallet without those, the oldest first."""
    movements: list[Movement] = []
    for each in lapses:
        wallet, back = released(wallet, each.amount, newer=each.newer)
        movements += back
    return wallet, movements


def _filled(wallet: Wallet, included: Decimal, cause: Cause) -> Changed:
    if not included:
        return wallet._replace(refill=ZERO, told_low=False), []
    return _in(wallet, wallet.pool, included, Account.GRANTED, cause)


def _in(wallet: Wallet, pool: Account, amount: Decimal, source: Account, cause: Cause) -> Changed:
    """What comes into a pool from outside; all but purchased credits fill it anew."""
    movement = Movement(source, pool, amount, cause, wallet.period_index)
    if pool is Account.PURCHASED_CREDITS:
        return wallet._replace(purchased=wallet.purchased + amount), [movement]
    plan = wallet.plan + amount
    return wallet._replace(plan=plan, refill=max(plan, ZERO), told_low=False), [movement]


def bought(wallet: Wallet, amount: Decimal) -> Changed:
    """A pack adds credits that stay; a top-up adds to the balance until its next reset."""
    cause = Cause.PURCHASE if wallet.model is Model.CREDITS else Cause.TOPUP
    return _in(wallet, wallet.lasting, amount, Account.SOLD, cause)


def adjusted(wallet: Wallet, amount: Decimal) -> Changed | None:
    """By hand, signed: added to what stays, taken as usage would be; None where that much is not there."""
    if amount >= 0:
        return (
            _in(wallet, wallet.lasting, amount, Account.ADJUSTED, Cause.ADJUSTMENT)
            if amount
            else (wallet, [])
        )
    if not wallet.covers(-amount):
        return None
    after = wallet.spent(-amount)
    taken = [each._replace(target=Account.ADJUSTED, cause=Cause.ADJUSTMENT) for each in usage(wallet, after)]
    if wallet.model is Model.BALANCE:
        after = after._replace(refill=after.plan, told_low=False)
    return after, taken


def refunded(wallet: Wallet, amount: Decimal) -> Changed:
    """What a voided event had taken comes back, and stays."""
    return _in(wallet, wallet.lasting, amount, Account.USED, Cause.REFUND)


def carried_over(old: Wallet, new: Wallet) -> tuple[Changed, Changed]:
    """Purchased credits of an ended subscription move to the customer's new one."""
    amount = old.purchased
    gone = Movement(Account.PURCHASED_CREDITS, Account.CARRIED, amount, Cause.CARRY, old.period_index)
    return (old._replace(purchased=ZERO), [gone]), _in(
        new, Account.PURCHASED_CREDITS, amount, Account.CARRIED, Cause.CARRY
    )


def usage(before: Wallet, after: Wallet) -> list[Movement]:
    """The posting of all that was spent between two states of one period: at most one movement a pool."""
    moved = (
        (before.pool, before.plan - after.plan),
        (Account.PURCHASED_CREDITS, before.purchased - after.purchased),
    )
    return [
        Movement(pool, Account.USED, amount, Cause.USAGE, after.period_index)
        for pool, amount in moved
        if amount
    ]


class Crossing(StrEnum):
    """What spending can bring about, as it is told."""

    LOW = "low"
    DEPLETED = "depleted"


def crossings(before: Wallet, after: Wallet) -> tuple[Wallet, list[Crossing]]:
    """What was crossed on the way down; low is told once a refill."""
    found = []
    threshold = before.refill * LOW_SHARE
    if before.refill and not before.told_low and after.remaining <= threshold:
        found.append(Crossing.LOW)
        after = after._replace(told_low=True)
    if before.remaining > 0 >= after.remaining:
        found.append(Crossing.DEPLETED)
    return after, found


def ample(wallet: Wallet) -> bool:
    """Whether usage is likely to be paid with no more than a subtraction: nothing is set aside, nothing soon to be told."""
    return not wallet.held and wallet.plan > 2 * wallet.refill * LOW_SHARE


def balances(movements: Iterable[Movement]) -> dict[Account, Decimal]:
    """What every account comes to by its movements; all together always zero."""
    found: dict[Account, Decimal] = {}
    for each in movements:
        found[each.source] = found.get(each.source, ZERO) - each.amount
        found[each.target] = found.get(each.target, ZERO) + each.amount
    return found


class Draw(NamedTuple):
    """What one event took of a wallet, and how that left it: as its answer tells."""

    model: Model
    deducted: Decimal
    remaining: Decimal
    blocked: bool  # nothing more would be accepted
