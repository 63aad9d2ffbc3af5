"""Prepaid plans over HTTP: credits and balances through months, each lived with the books audited afterwards."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.audit import let_time_pass, organization_id, select
from tests.conftest import Organization
from tests.literals import D
from tests.scenarios.purses import (
    balance_shop,
    billed,
    cancel,
    consumption,
    credits_shop,
    everything_prepaid,
    fill,
    ledger_of,
    pools,
    proved,
    sell_credits,
    told_of,
    unit_price,
    wallet_of,
)
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    invoices_of,
    overage,
    pay,
    promise,
    refused,
    set_clock,
    subscribe,
    track,
    track_batch,
)

OpenAt = Callable[[str], Organization]
OPENED = "2025-01-15T10:00:00Z"


def took(answer: Any) -> Json:
    found: Json = done(answer)["consumption"]
    return found


# Credits ---------------------------------------------------------------------------------------------------


def test_credits_through_three_periods(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 100)
    assert pools(database_url, shop) == (100, 0)
    assert took(track(shop, feature="lookup", value=3)) == consumption("3", "97")
    assert took(track(shop, feature="document", value=2)) == consumption("40", "57")
    error = refused(track(shop, feature="document", value=3), 402, "insufficient_credits")
    assert error["details"] == {"required": 60, "remaining": 57}
    assert took(track(shop, feature="lookup", value=57)) == consumption("57", "0", blocked=True)
    refused(track(shop, feature="lookup"), 402, "insufficient_credits")
    assert took(track(shop, feature="lookup", value=0)) == consumption("0", "0", blocked=True)
    sell_credits(shop, 30)
    assert took(track(shop, feature="lookup", value=10)) == consumption("10", "20")

    set_clock(shop, "2025-02-15T00:00:00Z")
    assert pools(database_url, shop) == (100, 20)
    assert took(track(shop, feature="document", value=4)) == consumption("80", "40")
    assert took(track(shop, feature="lookup", value=25)) == consumption("25", "15")
    assert pools(database_url, shop) == (0, 15)
    set_clock(shop, "2025-03-15T00:00:00Z")
    assert took(track(shop, feature="lookup", value=1)) == consumption("1", "114")
    set_clock(shop, "2025-04-15T00:00:00Z")
    assert pools(database_url, shop) == (100, 15)

    _, purchase, *_ = invoices_of(shop, "ada")
    bought = {"invoiceId": purchase["id"], "invoiceNumber": purchase["invoiceNumber"]}
    granted = {"credits": 100, "reason": "period_reset"}
    low = {"thresholdCredits": 10, "periodCredits": 100}
    assert told_of(database_url, shop) == [
        ("credits.granted", {"credits": 100, "reason": "subscription_started"}),
        ("credits.low", {"remainingCredits": 0, **low}),
        ("credits.depleted", {"remainingCredits": 0}),
        ("credits.purchased", {"credits": 30, "creditPackName": "30 credits", **bought}),
        ("credits.granted", granted),
        ("credits.granted", granted),
        ("credits.expired", {"expiredCredits": 99}),
        ("credits.granted", granted),
    ]
    assert billed(shop) == [
        ("recurring", [("plan_base", 2900)]),
        ("credit_purchase", [("one_time", 30)]),
        *[("recurring", [("plan_base", 2900)])] * 3,
    ], "usage was paid with credits"


def test_fractions_of_a_credit_are_kept_and_shown_toward_zero(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 1)
    assert took(track(shop, feature="lookup", value=0.4)) == consumption("0.4", "0.6")
    refused(track(shop, feature="lookup", value=0.7), 402, "insufficient_credits")
    assert took(track(shop, feature="lookup", value=0.6)) == consumption("0.6", "0", blocked=True)
    assert pools(database_url, shop) == (0, 0)


def test_credits_that_were_bought_survive_cancellation_and_come_along(
    open_at: OpenAt, database_url: str
) -> None:
    """Worked example credits.cancel_reactivate: 10 and 20 are left, then 0 and 20, then 200 and 20."""
    shop = open_at(OPENED)
    credits_shop(shop, 200)
    done(track(shop, feature="lookup", value=190))
    sell_credits(shop, 20)
    assert pools(database_url, shop) == (10, 20)
    assert cancel(shop, immediate=True)["status"] == "canceled"
    assert pools(database_url, shop) == (0, 20)
    assert told_of(database_url, shop)[-1] == ("credits.expired", {"expiredCredits": 10})
    refused(track(shop, feature="lookup"), 404, "no_active_subscription")
    set_clock(shop, "2025-02-01T00:00:00Z")
    told = done(shop.http.post(f"{API}/subscriptions", json={"customerId": "ada", "planCode": "pro"}))
    pay(told["checkoutUrl"])
    assert pools(database_url, shop) == (200, 20)
    assert [each for each in ledger_of(database_url, shop) if each[0] == "carry"] == [("carry", 0, D(20))] * 2
    assert took(track(shop, feature="document", value=11)) == consumption("220", "0", blocked=True)


# A balance -------------------------------------------------------------------------------------------------


def test_a_balance_is_the_base_price_and_what_is_overdrawn_is_invoiced_at_the_renewal(
    open_at: OpenAt, database_url: str
) -> None:
    """Worked example balance.overage_12_of_10: included 10.00, spent 12.00, invoiced 2.00."""
    shop = open_at(OPENED)
    balance_shop(shop, None)
    assert pools(database_url, shop) == (100_000, 0)
    assert took(track(shop, feature="call", value=950)) == consumption("95000", "5000", "balance")
    assert took(track(shop, feature="call", value=250)) == consumption("25000", "-20000", "balance")
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert pools(database_url, shop) == (100_000, 0)
    assert billed(shop) == [
        ("recurring", [("plan_base", 1000)]),
        ("recurring", [("plan_base", 1000), ("balance_overage", 200)]),
    ]
    (line,) = (each for each in invoices_of(shop, "ada")[1]["lineItems"] if each["lineType"] != "plan_base")
    assert (line["quantityDecimal"], line["unitAmountDecimal"], line["amount"]) == ("1", "2", 200)
    proved(shop)
    set_clock(shop, "2025-03-15T00:00:00Z")
    assert billed(shop)[2:] == [("recurring", [("plan_base", 1000)])], "once"
    assert told_of(database_url, shop) == [
        ("balance.low", {"currentBalance": 5000, "thresholdBalance": 10_000, "currency": "USD"}),
        ("balance.depleted", {"currentBalance": -20_000, "currency": "USD"}),
    ]


@pytest.mark.parametrize(("used", "cents"), [(1000.4, 0), (1000.49, 0), (1000.5, 1), (1001, 1), (1001.5, 2)])
def test_an_overdraft_is_rounded_once_half_up(open_at: OpenAt, used: float, cents: int) -> None:
    shop = open_at(OPENED)
    balance_shop(shop)
    done(track(shop, feature="call", value=used))
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert billed(shop)[1] == ("recurring", [("plan_base", 1000), ("balance_overage", cents)])
    proved(shop)


def test_a_plan_that_blocks_never_goes_below_zero(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    balance_shop(shop, 500, blocks=True)
    assert took(track(shop, feature="call", value=3)) == consumption("300", "200", "balance")
    error = refused(track(shop, feature="call", value=2.01), 402, "insufficient_balance")
    assert error["details"] == {"required": 201, "remaining": 200}
    assert took(track(shop, feature="call", value=2)) == consumption("200", "0", "balance", blocked=True)
    refused(track(shop, feature="call", value=0.000001), 402, "insufficient_balance")
    fill(shop, 500)
    assert took(track(shop, feature="call", value=1)) == consumption("100", "49900", "balance")
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert pools(database_url, shop) == (500, 0), "a top-up is gone at the reset"
    assert billed(shop)[1:] == [("balance_topup", [("one_time", 500)]), ("recurring", [("plan_base", 1000)])]


def test_units_smaller_than_a_rate_unit_are_never_lost(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    balance_shop(shop, 10)
    add_feature(shop, "byte")
    promise(shop, {"id": "pro"}, "byte", **unit_price("0.0000007"))
    for _ in range(3):
        done(track(shop, feature="byte", value=1))
    assert took(track(shop, feature="byte", value=1)) == consumption("0.007", "9.972", "balance")
    assert pools(database_url, shop) == (D("9.972"), 0)


# Long intervals, weeks, lifetimes --------------------------------------------------------------------------


def test_a_yearly_balance_is_filled_monthly_and_its_overdraft_invoiced_monthly(
    open_at: OpenAt, database_url: str
) -> None:
    shop = open_at(OPENED)
    balance_shop(shop, None, price=12_000, interval="yearly")
    assert pools(database_url, shop) == (100_000, 0), "a twelfth of 120.00"
    done(track(shop, feature="call", value=1200))
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert pools(database_url, shop) == (100_000, 0)
    done(track(shop, feature="call", value=1000))  # all of it, and no more
    set_clock(shop, "2025-12-20T00:00:00Z")
    assert billed(shop) == [
        ("recurring", [("plan_base", 12_000)]),
        ("overage", [("balance_overage", 200)]),
    ]
    done(track(shop, feature="call", value=1003))
    set_clock(shop, "2026-01-15T00:00:00Z")
    assert billed(shop)[2:] == [("recurring", [("plan_base", 12_000), ("balance_overage", 3)])]
    proved(shop)
    resets = [each for each in ledger_of(database_url, shop) if each[0] == "reset"]
    assert resets == [("reset", index, D(100_000)) for index in range(1, 13)]


def test_credits_of_a_quarter_are_granted_every_month(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 100, price=29_700, interval="quarterly")
    for month in ("02", "03", "04"):
        done(track(shop, feature="lookup", value=60))
        set_clock(shop, f"2025-{month}-15T00:00:00Z")
        assert pools(database_url, shop) == (100, 0)
    assert billed(shop) == [("recurring", [("plan_base", 29_700)])] * 2


def test_a_weekly_balance_is_filled_every_seven_days(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    balance_shop(shop, None, price=2500, interval="weekly")
    assert pools(database_url, shop) == (250_000, 0)
    done(track(shop, feature="call", value=2600))
    set_clock(shop, "2025-01-22T00:00:00Z")
    assert wallet_of(database_url, shop)["period"] == 1
    assert pools(database_url, shop) == (250_000, 0)
    assert billed(shop) == [
        ("recurring", [("plan_base", 2500)]),
        ("recurring", [("plan_base", 2500), ("balance_overage", 100)]),
    ]


def test_a_lifetime_grants_what_its_price_says_every_month(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    balance_shop(shop, 5_000, price=29_900, interval="one_time")
    done(track(shop, feature="call", value=60))
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert pools(database_url, shop) == (5_000, 0)
    assert billed(shop) == [("recurring", [("plan_base", 29_900)]), ("overage", [("balance_overage", 10)])]


# Free plans ------------------------------------------------------------------------------------------------


def test_a_free_plan_of_credits(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    plan = credits_shop(shop, 10, price=None)
    assert (plan["includedCredits"], plan["isFree"]) == (10, True)
    done(track(shop, feature="lookup", value=10))
    refused(track(shop, feature="lookup"), 402, "insufficient_credits")
    set_clock(shop, "2025-02-14T23:59:59Z")
    refused(track(shop, feature="lookup"), 402, "insufficient_credits")
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert took(track(shop, feature="lookup")) == consumption("1", "9")
    assert billed(shop) == []
    assert pools(database_url, shop) == (9, 0)


def test_a_free_balance_blocks_whatever_the_plan_says_and_a_raise_waits_for_the_reset(
    open_at: OpenAt, database_url: str
) -> None:
    """Worked examples balance.free_plan and balance.free_plan_raise."""
    shop = open_at("2025-01-20T10:00:00Z")
    balance_shop(shop, 1_000_000, price=None, blocks=False)
    assert took(track(shop, feature="call", value=10_000)) == consumption(
        "1000000", "0", "balance", blocked=True
    )
    refused(track(shop, feature="call"), 402, "insufficient_balance")
    done(shop.http.patch(f"{API}/plans/pro", json={"includedBalance": 1_500_000}))
    set_clock(shop, "2025-02-19T23:59:59Z")
    refused(track(shop, feature="call"), 402, "insufficient_balance")
    set_clock(shop, "2025-02-20T00:00:00Z")
    assert pools(database_url, shop) == (1_500_000, 0)
    assert billed(shop) == []


def test_a_grant_that_a_price_changes_reaches_its_holders_at_the_next_reset(
    open_at: OpenAt, database_url: str
) -> None:
    shop = open_at(OPENED)
    plan = credits_shop(shop, 100)
    (price,) = done(shop.http.get(f"{API}/plans/{plan['id']}"))["prices"]
    done(track(shop, feature="lookup", value=1))
    done(shop.http.patch(f"{API}/plans/{plan['id']}/prices/{price['id']}", json={"includedCredits": 7}))
    assert took(track(shop, feature="lookup", value=1)) == consumption("1", "98")
    subscribe(shop, "bob")
    assert pools(database_url, shop, "bob") == (7, 0)
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert pools(database_url, shop) == (7, 0)


# Lazily ----------------------------------------------------------------------------------------------------


def test_usage_comes_first_after_two_idle_periods(open_at: OpenAt, database_url: str) -> None:
    """No close has run: the first touch turns the wallet, and the closes that follow find it turned."""
    shop = open_at(OPENED)
    balance_shop(shop, 100_000, "ada", "bob")
    done(track(shop, feature="call", value=1100))
    let_time_pass(database_url, shop, "2025-03-20T00:00:00Z")
    assert took(track(shop, feature="call", value=1)) == consumption("100", "99900", "balance")
    assert wallet_of(database_url, shop)["period"] == 2
    set_clock(shop, "2025-04-15T00:00:00Z")
    assert billed(shop) == [
        ("recurring", [("plan_base", 1000)]),
        ("recurring", [("plan_base", 1000), ("balance_overage", 100)]),
        ("recurring", [("plan_base", 1000)]),
        ("recurring", [("plan_base", 1000)]),
    ]
    assert billed(shop, "bob") == [("recurring", [("plan_base", 1000)])] * 4
    assert pools(database_url, shop) == pools(database_url, shop, "bob") == (100_000, 0)
    proved(shop)


def test_a_refused_event_may_be_the_first_touch(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 10)
    done(track(shop, feature="lookup", value=4))
    let_time_pass(database_url, shop, "2025-02-20T00:00:00Z")
    error = refused(track(shop, feature="document"), 402, "insufficient_credits")
    assert error["details"] == {"required": 20, "remaining": 10}
    assert took(track(shop, feature="lookup", value=10)) == consumption("10", "0", blocked=True)
    set_clock(shop, "2025-02-21T00:00:00Z")
    assert [each[:2] for each in ledger_of(database_url, shop)] == [
        ("grant", 0),
        ("usage", 0),
        ("expiry", 0),
        ("reset", 1),
        ("usage", 1),
    ]


# The end ---------------------------------------------------------------------------------------------------


def test_an_immediate_cancellation_invoices_what_is_overdrawn(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    balance_shop(shop)
    done(track(shop, feature="call", value=1234))
    set_clock(shop, "2025-01-20T00:00:00Z")
    assert cancel(shop, immediate=True)["status"] == "canceled"
    assert pools(database_url, shop) == (0, 0)
    refused(track(shop, feature="call"), 404, "no_active_subscription")
    set_clock(shop, "2025-03-20T00:00:00Z")
    assert billed(shop) == [
        ("recurring", [("plan_base", 1000)]),
        ("overage", [("balance_overage", 234)]),
    ]
    proved(shop)
    inside = {"feature": "call", "timestamp": "2025-01-16T00:00:00Z"}
    refused(track(shop, value=1, **inside), 402, "insufficient_balance")
    assert len(billed(shop)) == 2, "an ended subscription owes nothing new"


def test_a_canceled_balance_keeps_its_number_and_is_not_filled_again(
    open_at: OpenAt, database_url: str
) -> None:
    shop = open_at(OPENED)
    balance_shop(shop)
    done(track(shop, feature="call", value=400))
    cancel(shop, immediate=True)
    assert pools(database_url, shop) == (60_000, 0)
    refused(track(shop, feature="call"), 404, "no_active_subscription")
    set_clock(shop, "2025-04-20T00:00:00Z")
    assert pools(database_url, shop) == (60_000, 0)
    assert billed(shop) == [("recurring", [("plan_base", 1000)])]
    assert [each[0] for each in ledger_of(database_url, shop)] == ["grant", "usage"]


def test_a_scheduled_cancellation_lets_usage_go_on_and_fills_nothing_after(
    open_at: OpenAt, database_url: str
) -> None:
    shop = open_at(OPENED)
    balance_shop(shop, 100_000, "ada", "bob")
    assert cancel(shop)["status"] == "active"
    cancel(shop, "bob")
    done(track(shop, feature="call", value=1050))
    done(track(shop, "bob", feature="call", value=50))
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert billed(shop) == [
        ("recurring", [("plan_base", 1000)]),
        ("overage", [("balance_overage", 50)]),
    ]
    assert pools(database_url, shop) == (0, 0)
    assert pools(database_url, shop, "bob") == (95_000, 0)
    assert billed(shop, "bob") == [("recurring", [("plan_base", 1000)])]
    refused(track(shop, feature="call"), 404, "no_active_subscription")
    proved(shop)


def test_a_scheduled_cancellation_takes_plan_credits_and_leaves_bought_ones(
    open_at: OpenAt, database_url: str
) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 100)
    sell_credits(shop, 30)
    cancel(shop)
    set_clock(shop, "2025-02-16T00:00:00Z")
    assert pools(database_url, shop) == (0, 30)
    assert told_of(database_url, shop)[-1] == ("credits.expired", {"expiredCredits": 100})


# Timestamps ------------------------------------------------------------------------------------------------


def test_what_happened_before_the_subscription_touches_nothing(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 10)
    event = done(track(shop, feature="lookup", value=1000, timestamp="2025-01-15T09:59:59.999Z"))
    assert "consumption" not in event
    assert pools(database_url, shop) == (10, 0)
    set_clock(shop, "2025-02-20T00:00:00Z")
    (late,) = done(shop.http.get(f"{API}/usage/late-events", params={"customerId": "ada"}))["data"]
    assert (late["id"], late["status"]) == (event["id"], "decided")
    assert [each["rule"] for each in late["decisions"]] == ["before_subscription"]
    assert billed(shop) == [("recurring", [("plan_base", 2900)])] * 2


def test_what_happened_in_an_old_period_is_paid_now_and_never_billed_late(
    open_at: OpenAt, database_url: str
) -> None:
    shop = open_at(OPENED)
    balance_shop(shop)
    set_clock(shop, "2025-02-20T00:00:00Z")
    answer = track(shop, feature="call", value=1100, timestamp="2025-01-20T00:00:00Z")
    assert took(answer) == consumption("110000", "-10000", "balance")
    assert done(shop.http.get(f"{API}/usage/late-events", params={"customerId": "ada"}))["data"] == []
    set_clock(shop, "2025-03-15T00:00:00Z")
    assert billed(shop) == [
        ("recurring", [("plan_base", 1000)]),
        ("recurring", [("plan_base", 1000)]),
        ("recurring", [("plan_base", 1000), ("balance_overage", 100)]),
    ]
    proved(shop)


def test_what_happened_in_an_ended_life_is_paid_by_what_it_left(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 100)
    sell_credits(shop, 30)
    set_clock(shop, "2025-01-20T00:00:00Z")
    cancel(shop, immediate=True)
    inside = {"feature": "lookup", "timestamp": "2025-01-16T00:00:00Z"}
    refused(track(shop, value=31, **inside), 402, "insufficient_credits")
    assert took(track(shop, value=10, **inside)) == consumption("10", "20")
    refused(track(shop, feature="lookup", timestamp="2025-01-20T00:00:00Z"), 404, "no_active_subscription")


# Several features, and what changes ------------------------------------------------------------------------


def test_one_event_pays_for_every_feature_it_feeds(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    add_feature(shop, "pages", eventCode="scan")
    add_feature(shop, "scans", eventCode="scan", aggregation="count")
    eu = [{"property": "region", "operator": "equals", "value": "eu"}]
    add_feature(shop, "eu_pages", eventCode="scan", filters=eu)
    add_feature(shop, "elsewhere", eventCode="scan")  # in no plan
    promises: dict[str, Json] = {
        "pages": {"creditsPerUnit": 2},
        "scans": {"creditsPerUnit": 5},
        "eu_pages": {"creditsPerUnit": 1},
    }
    add_plan(shop, model="credits", grants={"includedCredits": 100}, promises=promises)
    subscribe(shop, "ada")
    assert took(track(shop, feature="scan", value=4)) == consumption("13", "87")
    assert took(track(shop, feature="scan", value=4, properties={"region": "eu"})) == consumption("17", "70")
    error = refused(track(shop, feature="scan", value=33), 402, "insufficient_credits")
    assert error["details"] == {"required": 71, "remaining": 70}
    assert pools(database_url, shop) == (70, 0)


@pytest.mark.parametrize(("new", "now", "next_"), [(3, 3, 3), (9, 5, 9)], ids=["better", "worse"])
def test_credits_per_unit_change_on_a_live_plan(open_at: OpenAt, new: int, now: int, next_: int) -> None:
    shop = open_at(OPENED)
    add_feature(shop, "lookup")
    promises: dict[str, Json] = {"lookup": {"creditsPerUnit": 5}}
    add_plan(shop, model="credits", grants={"includedCredits": 100}, promises=promises)
    subscribe(shop, "ada")
    set_clock(shop, "2025-01-25T00:00:00Z")
    done(shop.http.patch(f"{API}/plans/pro/features/lookup", json={"creditsPerUnit": new}))
    assert took(track(shop, feature="lookup"))["deducted"] == now
    subscribe(shop, "bob")
    assert took(track(shop, "bob", feature="lookup"))["deducted"] == new
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert took(track(shop, feature="lookup"))["deducted"] == next_


@pytest.mark.parametrize(
    ("new", "now", "next_"), [("0.005", 50, 50), ("0.03", 100, 300)], ids=["better", "worse"]
)
def test_a_unit_price_changes_on_a_live_plan(open_at: OpenAt, new: str, now: int, next_: int) -> None:
    shop = open_at(OPENED)
    balance_shop(shop)
    set_clock(shop, "2025-01-25T00:00:00Z")
    done(shop.http.patch(f"{API}/plans/pro/features/call", json=unit_price(new)))
    assert took(track(shop, feature="call"))["deducted"] == now
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert took(track(shop, feature="call"))["deducted"] == next_


def test_a_feature_added_to_a_live_plan_can_be_paid_for_at_once(open_at: OpenAt) -> None:
    shop = open_at(OPENED)
    balance_shop(shop)
    add_feature(shop, "image")
    refused(track(shop, feature="image"), 403, "feature_not_in_plan")
    promise(shop, {"id": "pro"}, "image", **unit_price("0.05"))
    assert took(track(shop, feature="image", value=2)) == consumption("1000", "99000", "balance")


# AI models -------------------------------------------------------------------------------------------------


def ai_shop(shop: Organization, included: int = 100_000, **more: Any) -> None:
    """`chat` is priced by tokens with a fifth on top, `call` by units."""
    balance_shop(shop, included, **more)
    add_feature(shop, "chat")
    promise(shop, {"id": "pro"}, "chat", pricingMode="ai_model", margin=2000)


def tokens(model: str = "claude-sonnet-4-5", put_in: int = 1000, out: int = 500, **more: Any) -> Json:
    return {"feature": "chat", "model": model, "inputTokens": put_in, "outputTokens": out, **more}


def test_an_ai_call_takes_what_its_tokens_cost_and_the_margin(open_at: OpenAt, database_url: str) -> None:
    """$3 and $15 per million: 30 + 75, and 21 on top. The seeds' own example."""
    shop = open_at("2026-01-15T10:00:00Z")
    ai_shop(shop)
    event = done(track(shop, **tokens()))
    assert (event["value"], event["consumption"]) == (1500, consumption("126", "99874", "balance"))
    assert took(track(shop, **tokens("anthropic/claude-sonnet-4-5"))) == consumption(
        "126", "99748", "balance"
    )
    # 2,000 fresh, 7,000 read from the cache and 1,000 written to it: 60 + 300 + 21 + 38, and 84 on top
    cached = tokens(put_in=10_000, out=2_000, cacheReadTokens=7_000, cacheWriteTokens=1_000)
    assert took(track(shop, **cached)) == consumption("503", "99245", "balance")
    assert took(track(shop, **tokens(put_in=0, out=0))) == consumption("0", "99245", "balance")
    assert took(track(shop, **tokens(put_in=1, out=0))) == consumption("2", "99243", "balance"), "up, twice"
    assert pools(database_url, shop) == (99_243, 0)


def test_a_late_ai_call_costs_what_it_cost_then(open_at: OpenAt) -> None:
    """The model's price fell at the end of April 2026: from 2 and 6 dollars to 1.25 and 2.5."""
    shop = open_at("2026-04-15T10:00:00Z")
    ai_shop(shop)
    set_clock(shop, "2026-05-20T00:00:00Z")
    before = took(track(shop, **tokens("x-ai/grok-4.20", timestamp="2026-04-29T23:59:59Z")))
    after = took(track(shop, **tokens("x-ai/grok-4.20", timestamp="2026-05-01T00:00:00Z")))
    assert (before["deducted"], after["deducted"]) == (60, 32)  # 20 + 30, and 10; 13 + 13, and 6


def test_a_model_nobody_knows_is_refused_with_names_like_it(open_at: OpenAt, database_url: str) -> None:
    shop = open_at("2026-01-15T10:00:00Z")
    ai_shop(shop)
    before = everything_prepaid(database_url, shop)
    error = refused(track(shop, **tokens("claude-sonet-4-5")), 404, "model_not_found")
    assert "claude-sonnet-4-5" in error["details"]["nearest"]
    assert error["details"]["model"] == "claude-sonet-4-5"
    assert everything_prepaid(database_url, shop) == before


def test_a_batch_of_calls_and_units(open_at: OpenAt, database_url: str) -> None:
    shop = open_at("2026-01-15T10:00:00Z")
    ai_shop(shop, 500, blocks=True)
    who = {"customerId": "ada"}
    sent: list[Json] = [
        {
            **who,
            "featureCode": "chat",
            "model": "claude-sonnet-4-5",
            "inputTokens": 1000,
            "outputTokens": 500,
        },
        {**who, "featureCode": "call", "value": 3, "eventId": "a"},
        {**who, "featureCode": "call", "value": 1, "eventId": "a"},
        {**who, "featureCode": "chat", "model": "nothing-of-the-sort", "inputTokens": 1, "outputTokens": 1},
        {**who, "featureCode": "chat", "value": 5},
        {**who, "featureCode": "call", "model": "gpt-4o", "inputTokens": 1, "outputTokens": 1},
        {**who, "featureCode": "call", "value": 1},
        {**who, "featureCode": "call", "value": 0.74, "eventId": "b"},
    ]
    answer = track_batch(shop, sent)
    assert [(each["index"], each["code"]) for each in answer["failed"]] == [
        (2, "duplicate"),
        (3, "model_not_found"),
        (4, "pricing_mode_mismatch"),
        (5, "pricing_mode_mismatch"),
        (6, "insufficient_balance"),
    ]
    assert [each["consumption"] for each in answer["successful"]] == [
        consumption("126", "374", "balance"),
        consumption("300", "74", "balance"),
        consumption("74", "0", "balance", blocked=True),
    ]
    assert ledger_of(database_url, shop) == [("grant", 0, D(500)), ("usage", 0, D(500))], "one posting"
    assert told_of(database_url, shop) == [
        ("balance.low", {"currentBalance": 0, "thresholdBalance": 50, "currency": "USD"}),
        ("balance.depleted", {"currentBalance": 0, "currency": "USD"}),
    ]


# Repeats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["credits", "balance"])
def test_a_repeat_never_deducts_twice_and_is_never_told_that_it_does_not_fit(
    open_at: OpenAt, database_url: str, model: str
) -> None:
    shop = open_at(OPENED)
    if model == "credits":
        credits_shop(shop, 10)
    else:
        balance_shop(shop, 1_000, blocks=True)
    feature = "lookup" if model == "credits" else "call"
    first = done(track(shop, key="k", feature=feature, value=10, header="h"))
    assert first["consumption"]["blocked"] is True
    before = everything_prepaid(database_url, shop)
    again = track(shop, key="k", feature=feature, value=10, header="h")
    assert (again.status_code, again.json()) == (201, first)
    for value in (10, 1, 0):
        refused(track(shop, key="k", feature=feature, value=value), 409, "duplicate")
    refused(track(shop, key="k", feature=feature, value=11, header="h"), 409, "duplicate")
    failed = track_batch(
        shop, [{"customerId": "ada", "featureCode": feature, "value": 10, "eventId": "k"}] * 3
    )["failed"]
    assert [each["code"] for each in failed] == ["duplicate"] * 3
    assert everything_prepaid(database_url, shop) == before
    # a keyless request is known by its header
    set_clock(shop, "2025-02-15T00:00:00Z")
    keyless = done(track(shop, feature=feature, value=4, header="without a key"))
    assert done(track(shop, feature=feature, value=4, header="without a key")) == keyless
    assert pools(database_url, shop)[0] == (6 if model == "credits" else 600)


def test_a_refused_key_is_free_and_is_judged_anew(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 10)
    refused(track(shop, key="k", feature="lookup", value=11, header="h"), 402, "insufficient_credits")
    sell_credits(shop, 1)
    assert took(track(shop, key="k", feature="lookup", value=11, header="h")) == consumption(
        "11", "0", blocked=True
    )
    refused(track(shop, key="k", feature="lookup", value=1), 409, "duplicate")


def test_in_a_batch_a_key_that_was_refused_may_come_again_and_fit(open_at: OpenAt) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 10)
    who = {"customerId": "ada", "featureCode": "lookup", "eventId": "k"}
    answer = track_batch(shop, [{**who, "value": 11}, {**who, "value": 9}, {**who, "value": 9}])
    assert [(each["index"], each["code"]) for each in answer["failed"]] == [
        (0, "insufficient_credits"),
        (2, "duplicate"),
    ]
    assert [each["consumption"] for each in answer["successful"]] == [consumption("9", "1")]


def test_wallets_of_several_customers_in_one_batch(open_at: OpenAt, database_url: str) -> None:
    shop = open_at(OPENED)
    credits_shop(shop, 10, "ada", "bob", "eve")
    sent = [
        {"customerId": customer, "featureCode": "lookup", "value": value}
        for value in (4, 5, 2, 1)
        for customer in ("eve", "ada", "bob")
    ]
    answer = track_batch(shop, sent)
    assert [each["index"] for each in answer["failed"]] == [6, 7, 8]
    assert {pools(database_url, shop, each) for each in ("ada", "bob", "eve")} == {(D(0), D(0))}


# What is refused -------------------------------------------------------------------------------------------


def test_what_cannot_be_paid_moves_nothing(open_at: OpenAt, database_url: str) -> None:
    shop = open_at("2026-01-15T10:00:00Z")
    ai_shop(shop)
    before = everything_prepaid(database_url, shop)
    for body, status, code in (
        (tokens(feature="call"), 422, "pricing_mode_mismatch"),
        ({"feature": "chat", "value": 3}, 422, "pricing_mode_mismatch"),
        ({"feature": "chat"}, 422, "pricing_mode_mismatch"),
        (tokens(value=3), 400, "validation_error"),
        (tokens(cacheReadTokens=1001), 400, "validation_error"),
        (tokens(cacheReadTokens=501, cacheWriteTokens=500), 400, "validation_error"),
        (tokens(put_in=-1), 400, "validation_error"),
        (tokens() | {"outputTokens": None}, 400, "validation_error"),
        (tokens() | {"inputTokens": 1.5}, 400, "validation_error"),
        ({"feature": "call", "value": -1}, 400, "validation_error"),
        ({"feature": "image", "value": 1}, 404, "feature_not_found"),
    ):
        refused(track(shop, **body), status, code)
    set_total = {"customerId": "ada", "featureCode": "call", "value": 3}
    refused(shop.http.put(f"{API}/usage", json=set_total), 400, "validation_error")
    assert everything_prepaid(database_url, shop) == before


FREE = {"name": "n", "code": "n", "isFree": True}
PAID = {"name": "n", "code": "n"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**FREE, "consumptionModel": "credits", "includedBalance": 5}, "includedBalance"),
        ({**FREE, "consumptionModel": "balance", "includedCredits": 5}, "includedCredits"),
        ({**FREE, "consumptionModel": "metered", "includedCredits": 5}, "includedCredits"),
        ({**FREE, "includedBalance": 5}, "includedBalance"),
        ({**FREE, "consumptionModel": "credits", "includedCredits": -1}, "includedCredits"),
        ({**FREE, "consumptionModel": "credits", "includedCredits": 1.5}, "includedCredits"),
        ({**FREE, "consumptionModel": "credits", "includedCredits": "5"}, "includedCredits"),
        ({**FREE, "consumptionModel": "balance", "includedBalance": 10**30}, "includedBalance"),
        ({**PAID, "consumptionModel": "credits", "includedCredits": 5}, "includedCredits"),
        ({**PAID, "consumptionModel": "balance", "includedBalance": 5}, "includedBalance"),
        ({**PAID, "consumptionModel": "credits", "minimumAmount": "5"}, "minimumAmount"),
        ({**PAID, "consumptionModel": "balance", "minimumAmount": "5"}, "minimumAmount"),
        ({**PAID, "consumptionModel": "tokens"}, "consumptionModel"),
    ],
)
def test_a_plan_that_cannot_grant_what_it_says(open_at: OpenAt, body: Json, field: str) -> None:
    shop = open_at(OPENED)
    error = refused(shop.http.post(f"{API}/plans", json=body), 400, "validation_error")
    assert field in [each["field"] for each in error["details"]]
    assert done(shop.http.get(f"{API}/plans"))["data"] == []


@pytest.mark.parametrize(
    ("model", "change", "field"),
    [
        ("credits", {"includedBalance": 5}, "includedBalance"),
        ("credits", {"includedCredits": 5}, "includedCredits"),  # it is paid: its prices say
        ("balance", {"includedCredits": 5}, "includedCredits"),
        ("balance", {"minimumAmount": "5"}, "minimumAmount"),
        ("metered", {"includedBalance": 5}, "includedBalance"),
    ],
)
def test_a_plan_cannot_be_changed_to_grant_it(open_at: OpenAt, model: str, change: Json, field: str) -> None:
    shop = open_at(OPENED)
    plan = add_plan(shop, model=model)
    error = refused(shop.http.patch(f"{API}/plans/{plan['id']}", json=change), 400, "validation_error")
    assert field in [each["field"] for each in error["details"]]


@pytest.mark.parametrize(
    ("model", "grants", "field"),
    [
        ("metered", {"includedCredits": 5}, "includedCredits"),
        ("metered", {"includedBalance": 5}, "includedBalance"),
        ("credits", {"includedBalance": 5}, "includedBalance"),
        ("credits", {"includedCredits": -1}, "includedCredits"),
        ("balance", {"includedCredits": 5}, "includedCredits"),
        ("balance", {"includedBalance": -1}, "includedBalance"),
        ("balance", {"includedBalance": 0.5}, "includedBalance"),
    ],
)
def test_a_price_cannot_grant_it(open_at: OpenAt, model: str, grants: Json, field: str) -> None:
    shop = open_at(OPENED)
    paid = add_plan(shop, model=model)
    path = f"{API}/plans/{paid['id']}/prices"
    body = {"billingInterval": "yearly", "price": 5, **grants}
    error = refused(shop.http.post(path, json=body), 400, "validation_error")
    assert field in [each["field"] for each in error["details"]]
    (price,) = done(shop.http.get(f"{API}/plans/{paid['id']}"))["prices"]
    error = refused(shop.http.patch(f"{path}/{price['id']}", json=grants), 400, "validation_error")
    assert field in [each["field"] for each in error["details"]]


@pytest.mark.parametrize(
    ("model", "terms", "field"),
    [
        ("credits", {}, "creditsPerUnit"),
        ("credits", {"creditsPerUnit": 0}, "creditsPerUnit"),
        ("credits", {"creditsPerUnit": -2}, "creditsPerUnit"),
        ("credits", {"creditsPerUnit": 1.5}, "creditsPerUnit"),
        ("credits", {"creditsPerUnit": 1, "includedAmount": 5}, "includedAmount"),
        ("credits", {"creditsPerUnit": 1, "unlimited": True}, "unlimited"),
        ("credits", {"creditsPerUnit": 1, **overage("0.01")}, "overage.unitPrice"),
        ("credits", {"creditsPerUnit": 1, "pricingMode": "ai_model"}, "pricingMode"),
        ("credits", {"creditsPerUnit": 1, "minimumAmount": "5"}, "minimumAmount"),
        ("balance", {"creditsPerUnit": 1, **overage("0.01")}, "creditsPerUnit"),
        ("balance", {"margin": 5, **overage("0.01")}, "margin"),
        ("balance", {"pricingMode": "ai_model", "margin": -1}, "margin"),
        ("balance", {"pricingMode": "ai_model", **overage("0.01")}, "overage.unitPrice"),
        ("balance", {**overage("0.01", included=5)}, "includedAmount"),
        ("balance", {"overage": {"enabled": True}, "price": {"model": "flat", "amount": "5"}}, "price.model"),
        ("balance", {**overage("-0.01")}, "overage.unitPriceDecimal"),
        ("metered", {"creditsPerUnit": 1}, "creditsPerUnit"),
        ("metered", {"pricingMode": "ai_model", "margin": 5}, "pricingMode"),
    ],
)
def test_a_plan_cannot_promise_it(open_at: OpenAt, model: str, terms: Json, field: str) -> None:
    shop = open_at(OPENED)
    add_feature(shop, "call")
    plan = add_plan(shop, model=model)
    answer = shop.http.post(f"{API}/plans/{plan['id']}/features", json={"featureId": "call", **terms})
    error = refused(answer, 400, "validation_error")
    assert field in [each["field"] for each in error["details"]]
    assert done(shop.http.get(f"{API}/plans/{plan['id']}"))["features"] == []


@pytest.mark.parametrize(
    "meter",
    [
        {"aggregation": "unique", "aggregationProperty": "user"},
        {"aggregation": "max"},
        {"aggregation": "latest"},
    ],
)
def test_prepaid_usage_must_add_up(open_at: OpenAt, meter: Json) -> None:
    """What an event costs must not depend on the others, or it could not be paid as it comes."""
    shop = open_at(OPENED)
    add_feature(shop, "odd", **meter)
    add_feature(shop, "even")
    plan = add_plan(shop, model="credits")
    body = {"featureId": "odd", "creditsPerUnit": 1}
    refused(shop.http.post(f"{API}/plans/{plan['id']}/features", json=body), 400, "validation_error")
    promise(shop, plan, "even", creditsPerUnit=1)
    refused(shop.http.patch(f"{API}/features/even", json=meter), 400, "validation_error")


# Beside metered plans --------------------------------------------------------------------------------------


def test_prepaid_and_metered_customers_share_events_and_nothing_else(
    open_at: OpenAt, database_url: str
) -> None:
    shop = open_at(OPENED)
    balance_shop(shop, 1_000)
    add_plan(shop, "counted", price=2900, promises={"call": overage("0.5", included=1)})
    subscribe(shop, "bob", "counted")
    answer = track_batch(
        shop, [{"customerId": each, "featureCode": "call", "value": 3} for each in ("ada", "bob")]
    )
    assert [each.get("consumption") for each in answer["successful"]] == [
        consumption("300", "700", "balance"),
        None,
    ]
    set_clock(shop, "2025-02-15T00:00:00Z")
    assert billed(shop, "bob")[1] == ("recurring", [("plan_base", 2900), ("feature_overage", 100)])
    assert billed(shop)[1] == ("recurring", [("plan_base", 1000)])


def test_what_events_took_adds_up_to_what_was_posted(open_at: OpenAt, database_url: str) -> None:
    """A month of odd amounts, in singles and batches, some refused, some repeated: told = taken."""
    shop = open_at(OPENED)
    balance_shop(shop, 3_000, blocks=True)
    told = Decimal(0)
    for day in range(15, 30):
        sent = [
            {
                "customerId": "ada",
                "featureCode": "call",
                "value": ((day * 7 + place * 3) % 11) / 4,
                "eventId": f"{day * 7 % 13}-{place}",
            }
            for place in range(4)
        ]
        for each in track_batch(shop, sent)["successful"]:
            told += Decimal(each["consumption"]["deductedDecimal"])
    used = [amount for cause, _, amount in ledger_of(database_url, shop) if cause == "usage"]
    assert sum(used) == told == 3_000 - pools(database_url, shop)[0]
    assert told > 2_500


def test_a_property_cannot_fill_a_wallet(open_at: OpenAt, database_url: str) -> None:
    """Alone or with one that would pay for it in the same commit."""
    shop = open_at(OPENED)
    add_feature(shop, "traffic", aggregation="sum", aggregationProperty="mb")
    add_plan(
        shop,
        model="credits",
        grants={"includedCredits": 100},
        promises={"traffic": {"creditsPerUnit": 1}},
    )
    subscribe(shop, "ada")
    refund = {"customerId": "ada", "featureCode": "traffic", "properties": {"mb": "-1000"}}
    spend = {**refund, "properties": {"mb": "1001"}}
    for path in ("events", "check"):
        error = refused(shop.http.post(f"{API}/usage/{path}", json=refund), 400, "validation_error")
        assert error["details"][0]["field"] == "properties"
    failed = track_batch(shop, [refund, spend])["failed"]
    assert [each["code"] for each in failed] == ["validation_error", "insufficient_credits"]
    assert took(track(shop, feature="traffic", properties={"mb": "0"})) == consumption("0", "100")
    assert pools(database_url, shop) == (100, 0)


def test_what_an_ended_life_paid_comes_back_to_it(open_at: OpenAt, database_url: str) -> None:
    """Two balances have ended since; the event happened in the first of them."""
    shop = open_at(OPENED)
    balance_shop(shop, 10_000)
    set_clock(shop, "2025-01-16T00:00:00Z")
    cancel(shop, immediate=True)
    again = shop.http.post(f"{API}/subscriptions", json={"customerId": "ada", "planCode": "pro"})
    pay(done(again)["checkoutUrl"])
    set_clock(shop, "2025-01-18T00:00:00Z")
    cancel(shop, immediate=True)

    def left() -> list[Any]:
        return [
            each[0]
            for each in select(
                database_url,
                "SELECT plan FROM wallets WHERE organization_id = %s ORDER BY subscription_id",
                organization_id(shop),
            )
        ]

    event = done(track(shop, feature="call", value=10, timestamp="2025-01-15T12:00:00Z"))
    assert left() == [9_000, 10_000]
    done(shop.http.request("DELETE", f"{API}/usage/events/{event['id']}", json={}))
    assert left() == [10_000, 10_000]
