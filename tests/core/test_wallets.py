"""What holds of every wallet, whatever happens to it: told by a ledger that only ever adds and takes away.

Stories are random sequences of what can happen to a wallet; a pencil that knows nothing of our wallets keeps the books
beside them, in fractions.
"""

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tallystick.core.money import ZERO
from tallystick.core.wallet_news import news_of
from tallystick.core.wallets import (
    POOLS,
    Account,
    Cause,
    Crossing,
    Model,
    Movement,
    Wallet,
    adjusted,
    balances,
    bought,
    carried_over,
    crossings,
    included_balance,
    opened,
    settled,
    turned,
    usage,
)
from tests.core.prepaid import Step, Story, begin, live, read_step
from tests.literals import D

CREDITS, BALANCE = Model.CREDITS, Model.BALANCE

# Stories ---------------------------------------------------------------------------------------------------

amounts = st.one_of(
    st.integers(0, 300).map(Decimal),
    st.decimals(0, 500, places=2),
    st.decimals(D("0.000000000001"), 10, places=12),
)
grants = st.one_of(st.just(ZERO), st.integers(0, 1_000).map(Decimal))
steps = st.one_of(
    st.tuples(st.sampled_from(["use", "use", "use", "buy", "give", "take", "refund"]), amounts),
    st.tuples(st.just("turn"), grants),
    st.tuples(st.just("settle"), st.just(ZERO)),
)
stories = st.lists(steps, max_size=14)
models = st.sampled_from(Model)


@st.composite
def lives(draw: st.DrawFn) -> Story:
    return live(begin(draw(models), draw(grants), overdraft=draw(st.booleans())), draw(stories))


# The ledger ------------------------------------------------------------------------------------------------


@given(lives())
def test_the_ledger_sums_to_zero(life: Story) -> None:
    assert sum(balances(life.movements).values(), ZERO) == 0
    assert all(each.amount > 0 and each.source != each.target for each in life.movements)


@given(lives())
def test_a_pool_is_what_was_moved_into_it_less_what_was_moved_out(life: Story) -> None:
    found = balances(life.movements)
    wallet = life.wallet
    assert found.get(wallet.pool, ZERO) == wallet.plan
    assert found.get(Account.PURCHASED_CREDITS, ZERO) == wallet.purchased
    assert found.get(Account.HELD, ZERO) == wallet.held
    assert {each for each in found if each in POOLS} <= {wallet.pool, Account.PURCHASED_CREDITS}


@given(lives())
def test_no_movement_stays_inside_the_wallet(life: Story) -> None:
    """Value comes from somewhere or goes somewhere; plan credits never become purchased ones."""
    for each in life.movements:
        assert (each.source in POOLS) is not (each.target in POOLS)


@given(models, grants, st.booleans(), stories)
def test_a_wallet_is_what_a_pencil_says(
    model: Model, included: Decimal, overdraft: bool, story: list[Step]
) -> None:
    """The rules once more, in fractions, as the documentation says them."""
    overdraft = overdraft and model is BALANCE
    life = live(begin(model, included, overdraft=overdraft), story)
    plan, stays, spent = Fraction(included), Fraction(0), Fraction(0)
    for what, amount in story:
        some = Fraction(amount)
        if what in ("use", "take"):
            if some and some > plan + stays and not (overdraft and what == "use"):
                continue
            first = some if model is BALANCE else min(some, plan)
            plan, stays = plan - first, stays - (some - first)
            spent += some if what == "use" else 0
        elif what in ("buy", "give", "refund"):
            if model is BALANCE:
                plan += some
            else:
                stays += some
        else:
            plan = some  # at the end of a period the pool is empty, or new
    assert (Fraction(life.wallet.plan), Fraction(life.wallet.purchased)) == (plan, stays)
    assert Fraction(life.spent) == spent


@given(lives())
def test_what_was_used_is_the_sum_of_what_the_events_cost(life: Story) -> None:
    used = [each.amount for each in life.movements if each.cause is Cause.USAGE]
    assert sum(used, ZERO) == life.spent


# Spending --------------------------------------------------------------------------------------------------


@given(models, grants, st.booleans(), stories)
def test_a_pool_never_goes_below_zero_unless_overdraft_is_allowed(
    model: Model, included: Decimal, overdraft: bool, story: list[Step]
) -> None:
    life = begin(model, included, overdraft=overdraft)
    for what, amount in story:
        life.step(what, amount)
        assert life.wallet.purchased >= 0
        assert life.wallet.plan >= 0 or life.overdraft


@given(grants, grants, amounts)
def test_plan_credits_burn_first(included: Decimal, purchased: Decimal, cost: Decimal) -> None:
    before = Wallet(CREDITS, 0, plan=included, purchased=purchased)
    assume(before.covers(cost))
    after = before.spent(cost)
    assert after.plan == 0 or after.purchased == before.purchased
    assert before.remaining - after.remaining == cost
    assert [each.source for each in usage(before, after)] == [
        pool
        for pool, gone in (
            (Account.PLAN_CREDITS, before.plan - after.plan),
            (Account.PURCHASED_CREDITS, before.purchased - after.purchased),
        )
        if gone
    ]


@given(models, grants, grants, st.lists(amounts, max_size=12), st.data())
def test_what_is_deducted_is_the_same_however_events_interleave_and_batches_are_cut(
    model: Model, included: Decimal, extra: Decimal, costs: list[Decimal], data: st.DataObject
) -> None:
    """As long as it all fits: order and batches decide nothing about the sums, nor about what is told."""

    def start() -> Wallet:
        wallet, _ = opened(model, 0, included + sum(costs, ZERO))
        return bought(wallet, extra)[0] if extra else wallet

    one_by_one = start()
    for cost in costs:
        assert one_by_one.covers(cost)
        one_by_one = one_by_one.spent(cost)
    posted = usage(start(), one_by_one)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(costs)))) | {0, len(costs)})
    shuffled = data.draw(st.permutations(costs))
    wallet, moved = start(), list[Movement]()
    told: list[Crossing] = []
    for first, last in pairwise(cuts):
        before = wallet
        for cost in shuffled[first:last]:
            wallet = wallet.spent(cost)
        wallet, crossed = crossings(before, wallet)
        moved += usage(before, wallet)
        told += crossed
    assert (wallet.plan, wallet.purchased) == (one_by_one.plan, one_by_one.purchased)
    assert sum((each.amount for each in moved), ZERO) == sum(costs, ZERO)
    assert balances(moved) == balances(posted)
    assert told == crossings(start(), one_by_one)[1]


@given(lives(), amounts)
def test_an_event_that_does_not_fit_takes_nothing(life: Story, cost: Decimal) -> None:
    before, moved = life.wallet, len(life.movements)
    if life.use(cost):
        assert life.overdraft or before.covers(cost) or not cost
        assert before.remaining - life.wallet.remaining == cost
    else:
        assert (life.wallet, len(life.movements)) == (before, moved)
        assert cost > before.remaining


# Periods ---------------------------------------------------------------------------------------------------


@given(lives(), grants, st.integers(1, 40))
def test_a_reset_restores_exactly_what_is_included(life: Story, included: Decimal, later: int) -> None:
    before = life.wallet
    after, moved = turned(before, before.period_index + later, included)
    assert (after.plan, after.purchased, after.held) == (included, before.purchased, before.held)
    assert after.period_index == before.period_index + later
    assert (after.refill, after.told_low) == (included, False)
    sums = balances(moved)
    assert sums.get(before.pool, ZERO) == included - before.plan
    assert sums.get(Account.EXPIRED, ZERO) == max(before.plan, ZERO)
    assert sums.get(Account.INVOICED, ZERO) == -max(-before.plan, ZERO)
    assert sums.get(Account.GRANTED, ZERO) == -included


@given(lives(), grants)
def test_what_a_period_leaves_behind_is_booked_in_it_and_the_grant_in_the_next(
    life: Story, included: Decimal
) -> None:
    index = life.wallet.period_index
    _, moved = turned(life.wallet, index + 3, included)
    assert {
        (each.cause, each.period_index) for each in moved if each.cause in (Cause.EXPIRY, Cause.OVERDRAFT)
    } <= {(Cause.EXPIRY, index), (Cause.OVERDRAFT, index)}
    assert [each.period_index for each in moved if each.cause is Cause.RESET] == [index + 3] * bool(included)


@given(lives(), grants, st.integers(0, 5))
def test_a_wallet_never_goes_back(life: Story, included: Decimal, earlier: int) -> None:
    assert turned(life.wallet, life.wallet.period_index - earlier, included) == (life.wallet, [])


@given(lives(), grants)
def test_turning_twice_is_turning_once(life: Story, included: Decimal) -> None:
    once, _ = turned(life.wallet, life.wallet.period_index + 1, included)
    assert turned(once, once.period_index, included) == (once, [])


@given(lives(), grants)
def test_settled_before_or_not_a_wallet_turns_to_the_same(life: Story, included: Decimal) -> None:
    index = life.wallet.period_index + 1
    first, moved = settled(life.wallet)
    assert first.plan == 0
    assert settled(first) == (first, [])
    later, more = turned(first, index, included)
    assert (later, moved + more) == turned(life.wallet, index, included)


@given(st.lists(st.tuples(amounts, grants), max_size=8), grants)
def test_what_is_overdrawn_is_invoiced_once_and_never_more_than_was_used(
    periods: list[tuple[Decimal, Decimal]], included: Decimal
) -> None:
    life = begin(BALANCE, included, overdraft=True)
    expected, granted = [], included
    for index, (cost, next_grant) in enumerate(periods):
        life.use(cost)
        if cost > granted:
            expected.append((index, cost - granted))
        life.keep(turned(life.wallet, index + 1, next_grant))
        granted = next_grant
    invoiced = [(each.period_index, each.amount) for each in life.movements if each.cause is Cause.OVERDRAFT]
    assert invoiced == expected
    assert sum((amount for _, amount in invoiced), ZERO) <= life.spent


# By hand ---------------------------------------------------------------------------------------------------


@given(lives(), st.decimals(-600, 600, places=3))
def test_an_adjustment_moves_exactly_what_it_says_or_nothing(life: Story, amount: Decimal) -> None:
    changed = adjusted(life.wallet, amount)
    if changed is None:
        assert amount < 0
        assert -amount > life.wallet.remaining
        return
    after, moved = changed
    assert after.remaining == life.wallet.remaining + amount
    assert balances(moved).get(Account.ADJUSTED, ZERO) == -amount
    assert after.plan >= min(life.wallet.plan, ZERO)
    if life.model is CREDITS and amount > 0:
        assert after.plan == life.wallet.plan, "given credits stay: they are not the plan's"


@given(grants, grants, grants)
def test_credits_that_come_along_are_neither_made_nor_lost(
    left: Decimal, purchased: Decimal, included: Decimal
) -> None:
    """The customer subscribes again: what was bought once is there, the old plan's credits are not."""
    assume(purchased)
    old = settled(Wallet(CREDITS, 7, plan=left, purchased=purchased))[0]
    new, _ = opened(CREDITS, 0, included)
    (emptied, gone), (filled, come) = carried_over(old, new)
    assert emptied.remaining == 0
    assert (filled.plan, filled.purchased) == (included, purchased)
    assert balances([*gone, *come]).get(Account.CARRIED) == 0


@given(lives(), st.integers(1, 500).map(Decimal))
def test_credits_that_were_bought_stay_and_a_top_up_is_gone_at_the_next_reset(
    life: Story, amount: Decimal
) -> None:
    after, _ = bought(life.wallet, amount)
    assert after.remaining == life.wallet.remaining + amount
    later, _ = turned(after, after.period_index + 1, D(5))
    assert later.remaining == (5 if life.model is BALANCE else after.purchased + 5)


# What is told ----------------------------------------------------------------------------------------------

TOLD: Final[list[tuple[str, list[str], list[str]]]] = [
    ("well above", ["use 449"], []),
    ("one above a tenth", ["use 449", "use 0.999"], []),
    ("a tenth exactly", ["use 450"], ["low"]),
    ("low is told once", ["use 450", "use 1", "use 1"], ["low"]),
    ("the last one", ["use 450", "use 50"], ["low", "depleted"]),
    ("all at once", ["use 500"], ["low", "depleted"]),
    ("nothing costs nothing", ["use 500", "use 0"], ["low", "depleted"]),
    ("anew after a reset", ["use 500", "turn 500", "use 499"], ["low", "depleted", "low"]),
    ("purchased ones count", ["buy 100", "use 500"], []),
    ("a pack is no refill", ["use 460", "buy 100", "use 110", "use 30"], ["low", "depleted"]),
    ("depleted again after a pack", ["use 500", "buy 5", "use 5"], ["low", "depleted", "depleted"]),
    ("what is refused crosses nothing", ["use 501", "use 440"], []),
    ("a plan without credits is never low", ["turn 0", "buy 5", "use 5"], ["depleted"]),
]


@pytest.mark.parametrize(("what", "story", "told"), TOLD, ids=[each[0] for each in TOLD])
def test_what_is_told_of_credits(what: str, story: list[str], told: list[str]) -> None:
    assert live(begin(CREDITS, D(500)), [read_step(each) for each in story]).told == told, what


OF_A_BALANCE: Final[list[tuple[str, list[str], list[str]]]] = [
    ("a tenth of the last refill", ["use 900000"], ["low"]),
    ("a top-up is a refill", ["use 900000", "buy 400000", "use 449999", "use 1"], ["low", "low"]),
    ("taken by hand is a refill", ["take 900000", "use 89999", "use 1"], ["low"]),
    ("below zero", ["use 1000001"], ["low", "depleted"]),
    ("further below", ["use 1000001", "use 1000000"], ["low", "depleted"]),
    ("a top-up of a debt", ["use 1500000", "buy 600000", "use 90000"], ["low", "depleted", "low"]),
]


@pytest.mark.parametrize(("what", "story", "told"), OF_A_BALANCE, ids=[each[0] for each in OF_A_BALANCE])
def test_what_is_told_of_a_balance(what: str, story: list[str], told: list[str]) -> None:
    life = live(begin(BALANCE, D(1_000_000), overdraft=True), [read_step(each) for each in story])
    assert life.told == told, what


@given(lives())
def test_low_is_told_at_most_once_a_refill(life: Story) -> None:
    """A pool that was filled n times is told low at most n times."""
    fills = {Cause.GRANT, Cause.RESET, Cause.TOPUP, Cause.ADJUSTMENT, Cause.REFUND}
    filled = sum(each.cause in fills for each in life.movements)
    assert life.told.count(Crossing.LOW) <= filled


def test_news_round_toward_zero_and_name_the_customer_as_the_caller_does() -> None:
    before = Wallet(BALANCE, 3, plan=D("1000"), refill=D("1005"))
    after, crossed = crossings(before, before.spent(D("1000.5")))
    told = news_of(after, [], crossed, subscription_id="sub_x", customer_id="ada", currency="EUR")
    whose = {"subscriptionId": "sub_x", "customerId": "ada"}
    assert told == [
        ("balance.low", {**whose, "currentBalance": 0, "thresholdBalance": 100, "currency": "EUR"}),
        ("balance.depleted", {**whose, "currentBalance": 0, "currency": "EUR"}),
    ]


def test_news_of_credits_as_a_period_turns() -> None:
    wallet, moved = turned(Wallet(CREDITS, 0, plan=D("120.5"), purchased=D(30)), 1, D(500))
    told = news_of(wallet, moved, subscription_id="sub_x", customer_id="ada", currency="USD")
    whose = {"subscriptionId": "sub_x", "customerId": "ada"}
    assert told == [
        ("credits.expired", {**whose, "expiredCredits": 120}),
        ("credits.granted", {**whose, "credits": 500, "reason": "period_reset"}),
    ]


def test_a_balance_that_is_filled_anew_is_no_news() -> None:
    wallet, moved = turned(Wallet(BALANCE, 0, plan=D(-5)), 1, D(500))
    assert news_of(wallet, moved, subscription_id="s", customer_id="a", currency="USD") == []


# What a balance plan grants --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "base", "given_", "currency", "expected"),
    [
        ("monthly", 2900, None, "USD", "290000"),
        ("weekly", 2500, None, "USD", "250000"),  # a week's base is a week's balance
        ("quarterly", 29700, None, "USD", "990000"),
        ("semiannual", 54000, None, "USD", "900000"),
        ("yearly", 12000, None, "USD", "100000"),
        ("yearly", 10000, None, "USD", "83333"),  # toward zero: never more than was paid
        ("monthly", 2900, None, "JPY", "29000000"),  # whole yen
        ("monthly", 2900, 5, "USD", "5"),
        ("monthly", 2900, 0, "USD", "0"),  # said so
        ("one_time", 29900, None, "USD", "0"),  # paid once, and its months never end
        ("one_time", 29900, 7, "USD", "7"),
        (None, 0, None, "USD", "0"),
    ],
)
def test_what_is_included_in_a_balance(
    interval: str | None, base: int, given_: int | None, currency: str, expected: str
) -> None:
    found = included_balance(given=given_, base_minor=base, currency=currency, interval=interval)
    assert found == D(expected)


@given(st.integers(0, 10**9), st.sampled_from([("monthly", 1), ("quarterly", 3), ("yearly", 12)]))
def test_the_months_of_an_interval_never_grant_more_than_its_base(
    base: int, interval: tuple[str, int]
) -> None:
    name, months = interval
    granted = included_balance(given=None, base_minor=base, currency="USD", interval=name)
    assert 0 <= base * 100 - granted * months < months


def test_numbers_as_large_and_as_small_as_events_may_have_stay_exact() -> None:
    huge, tiny = D("9" * 20), D("0.000000000001")
    life = begin(BALANCE, huge, overdraft=True)
    life.use(huge * 10 + tiny)
    assert life.wallet.plan == -huge * 9 - tiny
    life.keep(bought(life.wallet, tiny))
    assert life.wallet.plan == -huge * 9
