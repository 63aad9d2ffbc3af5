"""Credits and balances through the official SDKs: Python 9.7.0 in full, Node 7.10.0 in the words of its version."""

from typing import Any

import pytest

Story = dict[str, Any]


@pytest.fixture
def told(prepaid_story: Story) -> Story:
    """What the Python SDK made of each answer."""
    answers: Story = prepaid_story["told"]
    return answers


def part(whole: Story, expected: Story) -> Story:
    return {key: whole[key] for key in expected}


def test_a_plan_of_credits_says_what_it_grants_and_what_a_unit_burns(told: Story) -> None:
    plan = told["credits_plan_whole"]
    assert (plan["consumption_model"], plan["block_on_exhaustion"]) == ("credits", None)
    assert [price["included_credits"] for price in plan["prices"]] == [100]
    assert told["credits_price"]["included_balance"] is None
    expected = {"credits_per_unit": 10, "pricing_mode": "fixed", "margin": None}
    assert part(told["credits_feature"], expected) == expected


def test_a_plan_of_a_balance_says_what_it_grants_and_what_a_unit_costs(told: Story) -> None:
    plan = told["balance_plan_whole"]
    assert (plan["consumption_model"], plan["block_on_exhaustion"]) == ("balance", True)
    assert [price["included_balance"] for price in plan["prices"]] == [50_000]
    assert (told["balance_price"]["included_balance"], told["balance_price_updated"]["included_balance"]) == (
        10_000,
        50_000,
    )
    assert told["balance_feature"]["overage"] == {"enabled": True, "unit_price": 5000}
    expected = {"credits_per_unit": None, "pricing_mode": "ai_model", "margin": 2000}
    assert part(told["balance_ai_feature"], expected) == expected


def test_a_wallet_is_full_when_the_first_payment_is_there(told: Story) -> None:
    ada, grace = told["ada_begins"], told["grace_begins"]
    assert (ada["status"], ada["balance"]) == ("active", None)
    assert ada["credits"] == {"remaining": 100, "included": 100, "purchased": 0}
    assert (grace["status"], grace["credits"]) == ("active", None)
    assert grace["balance"] == {"remaining": 50_000, "included": 50_000, "currency": "USD"}


@pytest.mark.parametrize(
    ("step", "model", "deducted", "remaining"),
    [
        ("ada_tracked", "credits", 25, 75),
        ("ada_fits_now", "credits", 80, 60),
        ("grace_tracked", "balance", 20_000, 30_000),
        ("grace_fits_now", "balance", 250_000, 24_910),
    ],
)
def test_each_event_tells_what_it_took(
    told: Story, step: str, model: str, deducted: int, remaining: int
) -> None:
    consumption = {"model": model, "deducted": deducted, "remaining": remaining, "blocked": False}
    assert told[step]["consumption"] == consumption


def test_tokens_are_an_event_of_so_many_and_cost_what_the_model_costs(told: Story) -> None:
    event = told["grace_tokens"]
    assert event["value"] == 1500
    assert event["consumption"]["deducted"] == 30_000 - event["consumption"]["remaining"] > 0


def test_check_tells_what_would_happen_to_the_credits(told: Story) -> None:
    expected = {
        "consumption_model": "credits",
        "allowed": True,
        "quantity": 7,
        "reason": None,
        "credits_per_unit": 10,
        "estimated_credits": 70,
        "plan_credits": 75,
        "purchased_credits": 0,
        "total_credits": 75,
    }
    assert part({"reason": None} | told["ada_check"], expected) == expected
    beyond = {"allowed": False, "reason": "insufficient_credits", "estimated_credits": 80}
    assert part(told["ada_check_beyond"], beyond) == beyond


def test_check_tells_what_would_happen_to_the_balance(told: Story) -> None:
    expected = {
        "consumption_model": "balance",
        "allowed": True,
        "quantity": 2,
        "unit_price": 5000,
        "estimated_amount": 10_000,
        "current_balance": told["grace_tokens"]["consumption"]["remaining"],
        "block_on_exhaustion": True,
        "currency": "USD",
    }
    assert part(told["grace_check"], expected) == expected
    beyond = {"allowed": False, "reason": "insufficient_balance", "estimated_amount": 250_000}
    assert part(told["grace_check_beyond"], beyond) == beyond
    tokens = {"allowed": True, "unit_price": 0, "estimated_amount": 0}
    assert part(told["grace_check_tokens"], tokens) == tokens


@pytest.mark.parametrize(
    ("step", "code"), [("ada_beyond", "insufficient_credits"), ("grace_beyond", "insufficient_balance")]
)
def test_what_was_said_to_be_too_much_is_refused(told: Story, step: str, code: str) -> None:
    error = told[step]
    expected = {"name": "CommetAPIError", "status_code": 402, "code": code, "type": "billing_error"}
    assert part(error, expected) == expected
    assert error["details"]["required"] > error["details"]["remaining"]


def test_access_tells_how_far_a_wallet_reaches(told: Story) -> None:
    period = {"start": "2026-01-15T10:00:00.000Z", "end": "2026-02-15T00:00:00.000Z"}
    assert told["ada_access"]["consumption"] == {
        "model": "credits",
        "period": period,
        "units_used": 2.5,
        "credits_per_unit": 10,
        "credits_consumed": 25,
        "available_units": 7,
    }
    assert told["grace_access"]["consumption"] == {
        "model": "balance",
        "period": period,
        "units_used": 4,
        "spent": {"amount": 200, "currency": "USD"},
        "available_units": 5,
        "unit_price": {"amount": 5000, "currency": "USD", "scale": 10_000},
    }
    tokens = told["grace_access_tokens"]["consumption"]
    assert (tokens["units_used"], tokens["unit_price"], tokens["spent"]["amount"]) == (1500, None, 1)
    assert {each["code"] for each in told["grace_access_list"]["data"]} == {"api_calls", "chat"}


def test_a_pack_adds_credits_that_stay(told: Story) -> None:
    assert told["packs"]["data"][0]["description"] == "For a busy day"
    assert part(told["pack"], {"credits": 50, "price": 900}) == {"credits": 50, "price": 900}
    assert (told["bought"]["object"], told["bought"]["credits"]) == ("credit_grant", 50)
    given = {"object": "balance_transaction", "amount": 15, "new_balance": 140, "reason": "sorry"}
    assert part(told["given"], given) == given
    assert told["given_retried"] == told["given"]
    assert told["pack_deleted"]["deleted"] is True
    assert told["ada_after"]["credits"] == {"remaining": 60, "included": 100, "purchased": 60}
    assert told["ada_renewed"]["credits"] == {"remaining": 160, "included": 100, "purchased": 60}


def test_a_top_up_lasts_until_the_balance_begins_anew(told: Story) -> None:
    assert (told["topped_up"]["object"], told["topped_up"]["amount"]) == ("balance_topup", 2500)
    taken = {"amount": -5000, "new_balance": 274_910, "reason": "a mistake"}
    assert part(told["taken"], taken) == taken
    assert told["grace_after"]["balance"]["remaining"] == 24_910
    assert told["grace_renewed"]["balance"]["remaining"] == 50_000


@pytest.mark.parametrize(
    ("who", "extra", "total"), [("ada", "credit_purchase", 900), ("grace", "balance_topup", 2500)]
)
def test_what_was_bought_has_an_invoice_of_its_own(told: Story, who: str, extra: str, total: int) -> None:
    invoices = [
        (each["invoice_type"], each["total"], each["status"]) for each in told[f"{who}_invoices"]["data"]
    ]
    renewed = ("recurring", 2900, "paid")
    assert invoices == [renewed, (extra, total, "paid"), renewed]


def test_node_is_told_the_same_in_its_own_words(told: Story, node_prepaid_story: Story) -> None:
    node = {step: answer.get("data") for step, answer in node_prepaid_story.items()}
    assert node["creditsPrice"]["includedCredits"] == 100
    assert node["creditsFeature"]["creditsPerUnit"] == 10
    assert node["adaTracked"]["consumption"]["remaining"] == 75
    flat = {"type": "usage", "allowed": True, "current": 2.5, "remaining": 7}
    assert part(node["adaAccess"], flat) == flat
    assert node["adaCanUse"]["willBeCharged"] is False
    check = {"feature": "api_calls", "allowed": True, "estimatedCredits": 70, "totalCredits": 75}
    assert part(node["adaCheck"], check) == check
    assert node["adaCheckBeyond"]["reason"] == "insufficient_credits"
    assert node_prepaid_story["adaBeyond"]["code"] == "insufficient_credits"
    assert node["graceCheckBeyond"]["reason"] == "insufficient_balance"
    assert node_prepaid_story["graceBeyond"]["statusCode"] == 402
    assert node["graceTokens"]["consumption"]["deducted"] == told["grace_tokens"]["consumption"]["deducted"]
    for ours, theirs in (("adaAfter", "ada_after"), ("adaRenewed", "ada_renewed")):
        assert node[ours]["credits"].items() >= told[theirs]["credits"].items()
    for ours, theirs in (("graceAfter", "grace_after"), ("graceRenewed", "grace_renewed")):
        assert node[ours]["balance"].items() >= told[theirs]["balance"].items()
    for who in ("ada", "grace"):
        ours, theirs = node[f"{who}Invoices"], told[f"{who}_invoices"]["data"]
        assert [each["total"] for each in ours] == [each["total"] for each in theirs]
