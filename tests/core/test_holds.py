"""What is set aside is neither made nor lost: whatever is held, given back, spent, or overtaken by a new period."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.money import ZERO
from tallystick.core.wallets import (
    Account,
    Cause,
    Model,
    Movement,
    Wallet,
    balances,
    bought,
    hold,
    opened,
    released,
    settled,
    turned,
    usage,
)

amounts = st.integers(0, 400).map(Decimal) | st.decimals(0, 300, places=3)
steps = st.lists(
    st.tuples(st.sampled_from(["hold", "hold", "release", "use", "buy", "turn"]), amounts), max_size=16
)


@st.composite
def lives(draw: st.DrawFn) -> tuple[Wallet, list[Movement]]:
    """A wallet after a random life, in which nobody overdraws, and all that moved."""
    wallet, moved = opened(draw(st.sampled_from(Model)), 0, draw(amounts))
    for what, amount in draw(steps):
        more: list[Movement] = []
        match what:
            case "hold" if wallet.covers(amount):
                wallet, more = hold(wallet, amount)
            case "release":
                wallet, more = released(wallet, amount)
            case "use" if wallet.covers(amount):
                spent = wallet.spent(amount)
                wallet, more = spent, usage(wallet, spent)
            case "buy" if amount:
                wallet, more = bought(wallet, amount)
            case "turn":
                wallet, more = turned(wallet, wallet.period_index + 1, amount)
        moved += more
    return wallet, moved


@given(lives())
def test_every_account_is_what_was_moved(life: tuple[Wallet, list[Movement]]) -> None:
    wallet, moved = life
    found = balances(moved)
    assert sum(found.values(), ZERO) == 0
    kept = {wallet.pool: wallet.plan, Account.PURCHASED_CREDITS: wallet.purchased, Account.HELD: wallet.held}
    assert {account: found.get(account, ZERO) for account in kept} == kept
    assert min(wallet.plan, wallet.purchased, wallet.held, wallet.held_purchased) >= 0
    assert wallet.held_purchased <= wallet.held


@given(lives(), amounts)
def test_what_is_held_and_given_back_leaves_everything_as_it_was(
    life: tuple[Wallet, list[Movement]], amount: Decimal
) -> None:
    wallet, _ = life
    if wallet.covers(amount):
        held, out = hold(wallet, amount)
        assert (held.remaining, held.held) == (wallet.remaining - amount, wallet.held + amount)
        back, home = released(held, amount)
        assert (back.remaining, back.held) == (wallet.remaining, wallet.held)
        assert sum(each.amount for each in out) == sum(each.amount for each in home) == amount


@given(lives(), amounts)
def test_no_more_comes_back_than_is_held(life: tuple[Wallet, list[Movement]], amount: Decimal) -> None:
    wallet, _ = life
    after, moved = released(wallet, amount)
    assert sum((each.amount for each in moved), ZERO) == min(amount, wallet.held)
    assert after.remaining + after.held == wallet.remaining + wallet.held


@given(lives())
def test_purchased_credits_are_never_lost_to_a_reset(life: tuple[Wallet, list[Movement]]) -> None:
    """What was bought and is set aside as a period ends is still there when it is given back."""
    wallet, _ = life
    if wallet.model is Model.CREDITS:
        freed, _ = released(turned(wallet, wallet.period_index + 1, ZERO)[0], wallet.held)
        assert freed.purchased == wallet.purchased + wallet.held_purchased
        assert freed.plan == 0


@given(lives(), amounts)
def test_a_new_period_holds_as_much_as_it_reaches(
    life: tuple[Wallet, list[Movement]], included: Decimal
) -> None:
    wallet, _ = life
    after, moved = turned(wallet, wallet.period_index + 1, included)
    emptied, _ = settled(wallet)
    assert after.held == min(wallet.held, emptied.purchased + included)
    assert after.remaining + after.held == emptied.purchased + included
    held_anew = [each for each in moved if each.cause is Cause.HOLD]
    assert all(each.period_index == after.period_index for each in held_anew)
