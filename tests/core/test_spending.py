"""What an event costs where usage is prepaid: which terms price it, which wallet pays, and what is refused."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.admission import admit, admit_adjustment, insufficient
from tallystick.core.catalog import Catalogue, Terms
from tallystick.core.events import AiCall, UsageEvent, decode
from tallystick.core.meters import Aggregation, Filter, Meter, Operator
from tallystick.core.money import ZERO, from_rate
from tallystick.core.spending import unit_cost
from tallystick.core.subscriptions import Status
from tallystick.core.tokens import TokenCounts
from tallystick.core.wallets import Model, Wallet
from tallystick.errors import Problem
from tests.core.offers import (
    CALLS,
    SEARCH,
    SUBSCRIPTION,
    meter,
    standing,
)
from tests.core.prepaid import (
    NOW,
    call,
    cost,
    credit_terms,
    event,
    money_terms,
    offer,
    prepaid_life,
    priced,
    spend,
    token_terms,
)
from tests.literals import D, U, at


def refusal(*args: Any, **more: Any) -> Problem:
    with pytest.raises(Problem) as raised:
        spend(*args, **more)
    return raised.value


# What a unit costs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per_unit", "value", "expected"),
    [
        (1, "1", "1"),
        (20, "2", "40"),
        (3, "0.5", "1.5"),  # exact: fields of whole credits round, the wallet does not
        (10, "0", "0"),
        (7, "0.000000000001", "0.000000000007"),
        (10**9, "99999999999999999999", "99999999999999999999000000000"),
    ],
)
def test_credits_are_the_value_times_the_credits_of_a_unit(per_unit: int, value: str, expected: str) -> None:
    assert cost(event(value), offer(credit_terms(per_unit), model=Model.CREDITS)) == D(expected)


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("0.001", "1", "10"),
        ("0.0007", "1000", "7000"),
        ("0.000001", "3", "0.03"),  # less than a rate unit is kept, not rounded
        ("1", "0.333333333333", "3333.33333333"),
        ("0", "1000", "0"),
    ],
)
def test_money_is_the_value_times_the_unit_price_in_rate_units(unit: str, value: str, expected: str) -> None:
    assert cost(event(value), offer(money_terms(unit), model=Model.BALANCE)) == D(expected)


@given(
    st.lists(st.decimals(0, 1000, places=4), max_size=20),
    st.integers(1, 500),
)
def test_the_cost_of_many_events_is_the_cost_of_their_sum(values: list[Decimal], per_unit: int) -> None:
    """Nothing is rounded on the way: how usage is cut into events costs nobody anything."""
    offered = offer(credit_terms(per_unit), model=Model.CREDITS)
    each = [cost(event(str(value)), offered) for value in values]
    assert sum(each, ZERO) == cost(event(str(sum(values, ZERO))), offered)


def test_an_event_costs_the_sum_of_all_features_it_feeds() -> None:
    """A sum of values, a count of events, and one whose filter this event does not meet."""
    eu = (Filter("region", Operator.EQUALS, "eu"),)
    meters = (
        meter(),
        Meter(U(2010), SEARCH, "searches", 1, "api_calls", Aggregation.COUNT, None),
        Meter(U(2011), U(77), "eu", 1, "api_calls", Aggregation.SUM, None, eu),
    )
    promised = (
        credit_terms(2),
        replace(credit_terms(5), feature_id=SEARCH),
        replace(credit_terms(100), feature_id=U(77)),
    )
    offered = offer(*promised, model=Model.CREDITS, meters=meters)
    here = spend(event("3"), offered)
    assert here is not None
    assert [(each.feature_id, each.cost) for each in here.shares] == [(CALLS, D(6)), (SEARCH, D(5))]
    assert here.cost == 11
    assert cost(event("3", properties={"region": "eu"}), offered) == 311


def test_a_feature_that_is_switched_off_costs_nothing_while_another_is_on() -> None:
    meters = (meter(), Meter(U(2010), SEARCH, "searches", 1, "api_calls", Aggregation.SUM, None))
    off = replace(credit_terms(5, enabled=False), feature_id=SEARCH)
    assert cost(event("3"), offer(credit_terms(2), off, model=Model.CREDITS, meters=meters)) == 6


# Which terms -----------------------------------------------------------------------------------------------

CHANGES: Final = [
    ("worse waits", 2, 5, "2026-03-18", 2),
    ("better counts now", 5, 2, "2026-03-18", 2),
    ("worse in an earlier period counts", 2, 5, "2026-03-10", 5),
    ("worse at the very boundary counts", 2, 5, "2026-03-15", 5),
    ("what is yet to come does not count", 5, 2, "2026-03-21", 5),
]


@pytest.mark.parametrize(("what", "old", "new", "since", "expected"), CHANGES, ids=[x[0] for x in CHANGES])
def test_a_change_of_credits_per_unit(what: str, old: int, new: int, since: str, expected: int) -> None:
    versions = (credit_terms(old), credit_terms(new, version=2, valid_from=at(since)))
    if at(since) > NOW:
        versions = (versions[0], replace(versions[1], pinned=True))
    assert cost(event(), offer(*versions, model=Model.CREDITS)) == expected, what


@pytest.mark.parametrize(("what", "old", "new", "since", "expected"), CHANGES, ids=[x[0] for x in CHANGES])
def test_a_change_of_a_unit_price(what: str, old: int, new: int, since: str, expected: int) -> None:
    versions = (
        money_terms(str(from_rate(old))),
        money_terms(str(from_rate(new)), version=2, valid_from=at(since), pinned=at(since) > NOW),
    )
    assert cost(event(), offer(*versions, model=Model.BALANCE)) == expected, what


def test_a_lower_margin_counts_now_and_a_higher_one_waits() -> None:
    for margins, expected in (((2000, 1000), 116), ((1000, 2000), 116)):
        versions = (
            token_terms(margins[0]),
            token_terms(margins[1], version=2, valid_from=at("2026-03-18")),
        )
        assert cost(call(), offer(*versions, model=Model.BALANCE)) == expected


def test_the_terms_are_those_of_now_whenever_it_happened() -> None:
    """A late event is paid as it arrives, by the terms of the period that is open (ruling 21)."""
    versions = (credit_terms(2), credit_terms(5, version=2, valid_from=at("2026-03-01")))
    offered = offer(*versions, model=Model.CREDITS)
    found = spend(event(when="2026-01-20T00:00Z"), offered)
    assert found is not None
    assert (found.cost, found.period_index) == (D(5), 2)


def test_tokens_are_priced_as_of_when_they_were_used() -> None:
    later = at("2026-05-20")
    offered = offer(token_terms(2000), model=Model.BALANCE)
    assert cost(call(), offered) == 126
    assert cost(call(), offered, now=later) == 252
    assert cost(call("2026-04-30T23:59Z"), offered, now=later) == 126


# Which wallet ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "index"),
    [("2026-01-15T10:00Z", 0), ("2026-02-14T23:59Z", 0), ("2026-02-15T00:00Z", 1), ("2027-01-15T00:00Z", 12)],
)
def test_the_wallet_stands_in_the_period_of_now(now: str, index: int) -> None:
    found = spend(event(), offer(credit_terms(), model=Model.CREDITS), now=at(now))
    assert found is not None
    assert (found.subscription_id, found.period_index, found.included) == (SUBSCRIPTION, index, D(500))


def test_a_free_plan_grants_what_the_plan_says() -> None:
    held = standing(replace(prepaid_life(), price_id=None))
    found = spend(event(), offer(credit_terms(), model=Model.CREDITS), held)
    assert found is not None and found.included == 7


def test_a_price_that_is_unknown_grants_nothing() -> None:
    held = standing(replace(prepaid_life(), price_id=U(999)))
    found = spend(event(), offer(credit_terms(), model=Model.CREDITS), held)
    assert found is not None and found.included == 0


@pytest.mark.parametrize(
    ("status", "plan_allows", "allowed"),
    [
        (Status.ACTIVE, True, True),
        (Status.PAST_DUE, True, True),  # still accepted, accrues
        (Status.TRIALING, True, False),  # nothing is invoiced for a trial
        (Status.ACTIVE, False, False),
    ],
)
def test_who_may_overdraw(status: Status, plan_allows: bool, allowed: bool) -> None:
    offered = offer(money_terms(), model=Model.BALANCE, overdraft=plan_allows)
    found = spend(event(), offered, standing(prepaid_life(status=status)))
    assert found is not None and found.overdraft is allowed


def test_what_happened_before_the_first_period_touches_no_wallet() -> None:
    offered = offer(credit_terms(), model=Model.CREDITS)
    admitted = admit(
        event("5", "2026-01-15T09:59:59.999Z"),
        offered,
        standing(prepaid_life()),
        now=NOW,
        latest=NOW,
        price_tokens=priced,
    )
    assert (admitted.spend, admitted.late) == (None, True)
    assert admitted.contributions, "it is stored, and measured"


def test_an_ended_subscription_is_not_filled_again_and_owes_nothing_new() -> None:
    """Still accepted for moments inside its life (ruling 7), from what its wallet holds."""
    ended = prepaid_life(end="2026-02-20T00:00Z")
    offered = offer(money_terms(), model=Model.BALANCE, overdraft=True)
    found = spend(event(when="2026-02-19T00:00Z"), offered, standing(None, ended))
    assert found is not None
    assert (found.period_index, found.overdraft) == (None, False)
    assert (
        refusal(event(when="2026-02-20T00:00Z"), offered, standing(None, ended)).code
        == "no_active_subscription"
    )
    assert refusal(event(), offered, standing(None, ended)).code == "no_active_subscription"


# What is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "offered", "param"),
    [
        (call(), offer(money_terms(), model=Model.BALANCE), "model"),
        (call(), offer(credit_terms(), model=Model.CREDITS), "model"),
        (event("1500"), offer(token_terms(), model=Model.BALANCE), "value"),
    ],
)
def test_tokens_for_units_and_units_for_tokens_are_refused(
    sent: UsageEvent, offered: Catalogue, param: str
) -> None:
    problem = refusal(sent, offered)
    assert (problem.code, problem.param) == ("pricing_mode_mismatch", param)


def test_tokens_where_nothing_is_prepaid_are_refused() -> None:
    metered = replace(offer(money_terms(), model=Model.BALANCE), prepaid={})
    assert refusal(call(), metered).code == "pricing_mode_mismatch"


def test_a_model_nobody_knows_is_refused() -> None:
    assert (
        refusal(call(model="gpt-5000"), offer(token_terms(), model=Model.BALANCE)).code == "model_not_found"
    )


@pytest.mark.parametrize(
    ("promised", "code"),
    [
        (credit_terms(enabled=False), "feature_disabled"),
        (credit_terms(removed=True), "feature_not_in_plan"),
    ],
)
def test_what_the_plan_does_not_have_is_refused(promised: Terms, code: str) -> None:
    assert refusal(event(), offer(promised, model=Model.CREDITS)).code == code


def test_the_future_is_refused_before_anything_else() -> None:
    sent = event(when="2026-03-20T13:00:00.000001Z")
    assert refusal(sent, offer(token_terms(), model=Model.BALANCE)).param == "timestamp"


def test_a_total_cannot_be_set_where_usage_was_paid() -> None:
    with pytest.raises(Problem, match="validation_error"):
        admit_adjustment(
            event("-1"),
            meter(),
            offer(credit_terms(), model=Model.CREDITS),
            standing(prepaid_life()),
            now=NOW,
        )


def test_a_wallet_that_does_not_cover_says_what_is_there() -> None:
    credits_ = insufficient(Wallet(Model.CREDITS, 0, plan=D(1), purchased=D("2.50")), D("10.0"))
    assert (credits_.code, credits_.details) == (
        "insufficient_credits",
        {"required": D(10), "remaining": D("3.5")},
    )
    assert "10 credits" in str(credits_.message) and "3.5 remain" in str(credits_.message)
    balance = insufficient(Wallet(Model.BALANCE, 0, plan=D(-5)), D(1))
    assert (balance.code, balance.details) == ("insufficient_balance", {"required": D(1), "remaining": D(-5)})


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "gpt-4o"},
        {"model": "gpt-4o", "inputTokens": 5},
        {"inputTokens": 5, "outputTokens": 5},
        {"model": "gpt-4o", "inputTokens": 5, "outputTokens": 5, "value": 3},
        {"model": "gpt-4o", "inputTokens": -1, "outputTokens": 5},
        {"model": "gpt-4o", "inputTokens": D("1.5"), "outputTokens": 5},
        {"model": "gpt-4o", "inputTokens": 5, "outputTokens": 5, "cacheReadTokens": 6},
        {"model": "gpt-4o", "inputTokens": 5, "outputTokens": 5, "cacheReadTokens": 3, "cacheWriteTokens": 3},
        {"model": "", "inputTokens": 5, "outputTokens": 5},
        {"model": "x" * 201, "inputTokens": 5, "outputTokens": 5},
    ],
)
def test_a_call_that_cannot_be_is_refused_as_it_is_read(wrong: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="validation_error"):
        decode({"featureCode": "chat", "customerId": "ada", **wrong})


def test_a_call_is_an_event_whose_value_is_its_tokens() -> None:
    sent = {"model": "gpt-4o", "inputTokens": 5, "outputTokens": 6, "cacheReadTokens": 2}
    read = decode({"featureCode": "chat", "customerId": "ada", **sent})
    assert (read.value, read.call) == (D(11), AiCall("gpt-4o", TokenCounts(5, 6, 2, 0)))


def test_a_unit_of_a_feature_without_credits_costs_none() -> None:
    assert unit_cost(credit_terms(None), Model.CREDITS) == 0


def test_a_clock_behind_the_one_that_activated_the_customer_is_before_the_subscription() -> None:
    """Hosts differ by milliseconds; what seems to come before the beginning touches no wallet, as all that does."""
    early = prepaid_life().anchor.at - timedelta(milliseconds=200)
    assert spend(event("3"), offer(credit_terms(2), model=Model.CREDITS), now=early) is None
