"""commet-sdk 9.7.0 (API version 2026-08-27): bare objects, `feature_code`, `event_id`, PATCH for updates."""

from typing import Any

import pytest

Story = dict[str, Any]


@pytest.fixture
def told(python_story: Story) -> Story:
    """What the SDK made of each answer."""
    answers: Story = python_story["told"]
    return answers


def refusal(told: Story, step: str) -> Any:
    error = told[step]
    assert "answered" not in error, error
    return error


def part(whole: Story, expected: Story) -> Story:
    return {key: whole[key] for key in expected}


def test_every_answer_names_its_request(python_story: Story) -> None:
    answers = python_story["answers"]
    assert {answer["version"] for answer in answers} == {"2026-08-27"}
    assert all(answer["request_id"] for answer in answers)
    assert len({answer["request_id"] for answer in answers}) == len(answers)


# --- catalogue ---


def test_a_feature_comes_back_as_it_was_defined(told: Story) -> None:
    expected = {
        "object": "feature",
        "livemode": False,
        "code": "api_calls",
        "name": "API calls",
        "type": "usage",
        "unit_name": "call",
        "description": None,
    }
    assert part(told["feature_usage"], expected) == expected
    assert told["feature_updated"]["description"] == "One per request"
    assert told["feature"] == told["feature_updated"]
    assert {feature["code"] for feature in told["features"]["data"]} == {"sso", "api_calls", "emails_sent"}
    assert told["features"]["has_more"] is False


def test_a_plan_carries_its_price_and_features(told: Story) -> None:
    plan = told["plan_by_code"]
    assert plan == told["plan_by_id"]
    assert plan["metadata"] == {"tier": "paid"}
    [price] = plan["prices"]
    expected = {
        "id": told["price"]["id"],
        "billing_interval": "monthly",
        "price": 2900,
        "is_default": True,
        "offer_id": None,
        "inherits_from_price_id": None,
        "market_prices": [],
        "regional_prices": [],
    }
    assert part(price, expected) == expected
    features = {feature["code"]: feature for feature in plan["features"]}
    assert features["sso"]["enabled"] is True
    assert features["api_calls"]["included_amount"] == 1000
    assert features["api_calls"]["overage"] == {"enabled": True, "model": "per_unit", "unit_price": 100}
    assert plan["exchange_rates"] == []


def test_parts_of_a_plan_have_names_of_their_own(told: Story) -> None:
    assert told["price"]["object"] == "plan_price"
    assert told["price"]["plan_id"] == told["plan_created"]["id"]
    assert told["plan_feature_usage"]["object"] == "plan_feature"
    assert told["plan_feature_usage"]["overage"] == {"enabled": True, "unit_price": 100}
    assert told["plan_feature_usage"]["feature_id"] == told["feature_usage"]["id"]


def test_changing_a_plan_answers_the_whole_plan(told: Story) -> None:
    assert told["plan_updated"]["description"] == "For teams"
    assert (told["plan_hidden"]["object"], told["plan_hidden"]["is_public"]) == ("plan", False)
    assert told["plans_while_hidden"]["data"] == []
    assert [plan["code"] for plan in told["plans_with_private"]["data"]] == ["pro"]
    assert told["plan_shown"]["is_public"] is True


# --- customers ---


def test_creating_a_known_customer_changes_nothing(told: Story) -> None:
    customer = told["customer"]
    expected = {
        "object": "customer",
        "external_id": "user_123",
        "email": "ada@example.com",
        "full_name": "Ada Lovelace",
        "metadata": {"source": "signup"},
    }
    assert part(customer, expected) == expected
    assert customer["id"].startswith("cus_")
    assert told["customer_again"] == customer
    assert told["customer_by_id"] == customer
    assert told["customer_by_own_id"] == customer


def test_an_update_changes_only_what_was_sent(told: Story) -> None:
    changed = {"full_name", "updated_at"}
    before, after = told["customer"], told["customer_updated"]
    assert after["full_name"] == "Countess of Lovelace"
    assert {key: after[key] for key in after.keys() - changed} == {
        key: before[key] for key in before.keys() - changed
    }


def test_a_batch_of_customers_succeeds_in_part(told: Story) -> None:
    batch = told["customer_batch"]
    assert batch["object"] == "customer_batch"
    assert [made["external_id"] for made in batch["successful"]] == ["user_201", "user_203"]
    [failed] = batch["failed"]
    assert (failed["index"], failed["data"]["id"]) == (1, "user_202")


def test_pages_of_customers_tile_the_list(told: Story) -> None:
    pages = told["customer_pages"]
    assert [(len(page["data"]), page["has_more"]) for page in pages] == [(2, True), (1, False)]
    emails = {customer["email"] for page in pages for customer in page["data"]}
    assert emails == {"ada@example.com", "brian@example.com", "grace@example.com"}
    assert [customer["external_id"] for customer in told["customers_filtered"]["data"]] == ["user_203"]


# --- subscription ---


def test_a_paid_plan_waits_for_its_checkout(told: Story) -> None:
    assert told["active_before_any"] is None
    pending = told["pending"]
    assert (pending["object"], pending["status"]) == ("subscription", "pending_payment")
    assert pending["checkout_url"].startswith("http")
    assert pending["offer_applications"] == []
    assert refusal(told, "tracked_unpaid")["code"] == "no_active_subscription"


def test_the_first_payment_activates_the_subscription(told: Story) -> None:
    assert told["paid"] == 303
    active = told["active"]
    assert active["id"] == told["pending"]["id"]
    expected = {
        "status": "active",
        "billing_interval": "monthly",
        "consumption_model": "metered",
        "credits": None,
        "balance": None,
        "cancellation": None,
        "cancel_at_period_end": False,
        "pause": None,
        "price_id": told["price"]["id"],
    }
    assert part(active, expected) == expected
    assert active["plan"] == {"id": told["plan_created"]["id"], "name": "Pro", "base_price": 2900}
    assert active["current_period"]["end"] == "2026-02-15T00:00:00.000Z"
    features = {feature["code"]: feature for feature in active["features"]}
    assert features["sso"]["enabled"] is True
    usage = {"current": 0, "included": 1000, "overage_quantity": 0, "overage_unit_price": 100}
    assert part(features["api_calls"]["usage"], usage) == usage
    assert told["subscription"] == active
    assert [each["id"] for each in told["subscriptions"]["data"]] == [active["id"]]
    assert refusal(told, "subscribed_twice")["code"] == "already_has_active_subscription"


# --- metering ---


def test_an_event_is_answered_in_current_words(told: Story) -> None:
    expected = {
        "object": "usage_event",
        "feature_code": "api_calls",
        "event_id": "req_1",
        "customer_id": "user_123",
        "value": 700.5,
        "ts": "2026-01-15T10:30:00.000Z",
        "properties": [{"property": "endpoint", "value": "/v1/convert"}],
        "consumption": None,
    }
    assert part(told["tracked"], expected) == expected
    assert told["tracked"]["id"].startswith("evt_")


@pytest.mark.parametrize(("step", "identical"), [("tracked_twice", True), ("tracked_twice_changed", False)])
def test_a_key_counts_once(told: Story, step: str, identical: bool) -> None:
    error = refusal(told, step)
    expected = {"status_code": 409, "code": "duplicate", "type": "conflict_error", "param": "eventId"}
    assert part(error, expected) == expected
    assert error["details"]["identical"] is identical
    assert told["tracked"]["id"] in error["details"].values()


def test_a_retried_call_gets_its_first_answer(told: Story) -> None:
    assert told["tracked_once_retried"] == told["tracked_once"]


def test_an_event_without_a_key_or_a_time_is_taken_as_of_now(told: Story) -> None:
    assert told["tracked_plainly"]["event_id"] is None
    assert told["tracked_plainly"]["ts"].startswith("2026-01-15T10:00")


def test_check_tells_what_would_happen(told: Story) -> None:
    expected = {
        "object": "usage_check",
        "allowed": True,
        "subscription_status": "active",
        "consumption_model": "metered",
        "feature_code": "api_calls",
        "quantity": 100,
        "current": 700.5,
        "remaining": 299.5,
        "unlimited": False,
        "included": 1000,
        "overage_enabled": True,
        "overage_unit_price": 100,
    }
    assert part(told["check"], expected) == expected


@pytest.mark.parametrize(
    ("step", "used", "overage"), [("access_within", 700.5, 0), ("access_beyond", 1250, 250)]
)
def test_access_nests_its_consumption(told: Story, step: str, used: float, overage: float) -> None:
    access = told[step]
    assert (access["object"], access["type"], access["allowed"]) == ("feature_access", "usage", True)
    consumption = access["consumption"]
    expected = {"model": "metered", "units_used": used, "included_units": 1000, "unlimited": False}
    assert part(consumption, expected) == expected
    assert (consumption["overage"]["enabled"], consumption["overage"]["units"]) == (True, overage)
    price = consumption["overage"]["unit_price"]
    assert (price["amount"], price["currency"].lower(), price["scale"]) == (100, "usd", 10000)
    assert consumption["period"]["end"] == "2026-02-15T00:00:00.000Z"


def test_access_lists_every_feature_of_the_plan(told: Story) -> None:
    assert {access["code"] for access in told["access_list"]["data"]} == {"sso", "api_calls"}
    assert (told["access_boolean"]["type"], told["access_boolean"]["enabled"]) == ("boolean", True)


@pytest.mark.parametrize(
    ("step", "field"), [("value_negative", "value"), ("feature_malformed", "featureCode")]
)
def test_a_wrong_field_is_named(told: Story, step: str, field: str) -> None:
    error = refusal(told, step)
    assert (error["name"], error["status_code"]) == ("CommetValidationError", 400)
    assert error["type"] == "validation_error"
    assert list(error["validation_errors"]) == [field]


@pytest.mark.parametrize(
    ("step", "status", "code", "type_"),
    [
        ("feature_unknown", 404, "feature_not_found", "not_found_error"),
        ("feature_not_in_plan", 403, "feature_not_in_plan", "billing_error"),
        ("feature_twice", 409, "feature_already_exists", "conflict_error"),
        ("tracked_for_nobody", 404, "customer_not_found", "not_found_error"),
        ("customer_unknown", 404, "customer_not_found", "not_found_error"),
        ("plan_unknown", 404, "plan_not_found", "not_found_error"),
        ("key_unknown", 401, "unauthorized", "authentication_error"),
        ("process_billing", 410, "endpoint_deprecated", "not_found_error"),
    ],
)
def test_a_refusal_has_its_name(told: Story, step: str, status: int, code: str, type_: str) -> None:
    error = refusal(told, step)
    expected = {"name": "CommetAPIError", "status_code": status, "code": code, "type": type_}
    assert part(error, expected) == expected
    assert error["request_id"]


# --- a month later ---


def test_the_clock_moves_in_one_run(told: Story) -> None:
    assert told["clock_before"]["now"].startswith("2026-01-15T10:00")
    run = told["advanced"]
    assert (run["object"], run["failed_deadline_count"], run["error"]) == ("test_clock_run", 0, None)
    assert run["target_time"].startswith("2026-02-15T10:00")
    after = told["clock_after"]
    assert after["now"] == after["simulated_time"] == run["target_time"]
    assert after["latest_run"]["id"] == run["id"]
    assert after["latest_run"]["status"] == "completed"
    assert after["latest_run"]["completed_deadline_count"] == len(after["latest_run"]["items"])
    assert "billing_cycle" in {item["kind"] for item in after["latest_run"]["items"]}
    assert refusal(told, "clock_backwards")["code"] == "validation_error"


def test_the_renewal_bills_the_next_base_and_the_usage_beyond_the_allowance(told: Story) -> None:
    assert sorted(invoice["total"] for invoice in told["invoices"]["data"]) == [2900, 3150]
    assert len(told["invoices_paid"]["data"]) == 2
    assert len({invoice["invoice_number"] for invoice in told["invoices"]["data"]}) == 2
    renewal = told["renewal_invoice"]
    expected = {
        "invoice_type": "recurring",
        "status": "paid",
        "subtotal": 3150,
        "discount_amount": 0,
        "credit_applied": 0,
        "tax_amount": 0,
        "total": 3150,
        "plan_name": "Pro",
        "subscription_id": told["active"]["id"],
    }
    assert part(renewal, expected) == expected
    lines = {line["line_type"]: line for line in renewal["line_items"]}
    assert set(lines) == {"plan_base", "feature_overage"}
    base = {"quantity": 1, "unit_amount": 2900, "amount": 2900}
    assert part(lines["plan_base"], base) == base
    overage = {
        "feature_name": "API calls",
        "quantity": 250,
        "unit_amount": 100,
        "amount": 250,
        "included_amount": 1000,
        "used_amount": 1250,
        "overage_amount": 250,
    }
    assert part(lines["feature_overage"], overage) == overage


def test_pages_of_invoices_have_a_cursor(told: Story) -> None:
    page = told["invoices_first_page"]
    assert (len(page["data"]), page["has_more"]) == (1, True)
    assert page["next_cursor"]


def test_the_line_leads_back_to_its_events(told: Story) -> None:
    answer = told["events_of_line"]
    assert answer["status"] == 200
    assert sorted(event["value"] for event in answer["body"]["data"]) == [49.5, 500, 700.5]
    assert answer["body"]["hasMore"] is False


def test_the_renewal_is_collected(told: Story) -> None:
    transactions = told["transactions"]["data"]
    assert sorted(each["gross_amount"] for each in transactions) == [2900, 3150]
    assert {each["status"] for each in transactions} == {"succeeded"}
    assert {each["payment_context"]["reason"] for each in transactions} == {
        "first_subscription_payment",
        "recurring_billing",
    }
    assert told["transaction"]["id"] == transactions[0]["id"]


def test_the_new_period_starts_at_midnight(told: Story) -> None:
    period = told["renewed"]["current_period"]
    assert (period["start"], period["end"]) == ("2026-02-15T00:00:00.000Z", "2026-03-15T00:00:00.000Z")


def test_set_adjusts_the_new_period_by_the_difference(told: Story) -> None:
    expected = {
        "object": "usage_adjustment",
        "feature_code": "api_calls",
        "previous_value": 20,
        "value": 12,
        "adjustment": -8,
        "reason": "recount",
    }
    assert part(told["set"], expected) == expected
    assert told["access_after_set"]["consumption"]["units_used"] == 12


def test_a_cancellation_waits_for_the_period_and_can_be_taken_back(told: Story) -> None:
    canceled = told["canceled"]
    assert (canceled["status"], canceled["cancel_at_period_end"]) == ("active", True)
    assert canceled["cancellation"]["reason"] == "too_expensive"
    assert canceled["cancellation"]["effective_at"] == "2026-03-15T00:00:00.000Z"
    again = refusal(told, "canceled_twice")
    assert (again["status_code"], again["code"]) == (409, "already_scheduled")
    assert (told["uncanceled"]["status"], told["uncanceled"]["cancellation"]) == ("active", None)
    once_more = refusal(told, "uncanceled_twice")
    assert (once_more["status_code"], once_more["code"]) == (409, "not_scheduled_for_cancellation")


def test_a_key_is_shown_once_and_dies_when_deleted(told: Story) -> None:
    made = told["key_created"]
    assert made["api_key"].startswith("ck_sandbox_")
    assert made["id"] in {key["id"] for key in told["keys"]["data"]}
    assert [plan["code"] for plan in told["plans_by_second_key"]["data"]] == ["pro"]
    deleted = {"id": made["id"], "deleted": True}
    assert part(told["key_deleted"], deleted) == deleted
    assert refusal(told, "plans_by_deleted_key")["code"] == "unauthorized"


def test_credits_and_balances_are_filled_from_outside(told: Story) -> None:
    expected = {"name": "Fifty", "credits": 50, "price": 500, "description": None, "is_active": True}
    assert part(told["pack"], expected) == expected
    assert (told["pack_updated"]["price"], told["pack_updated"]["description"]) == (400, "fifty more")
    assert [(each["id"], each["currency"]) for each in told["packs"]["data"]] == [(told["pack"]["id"], "USD")]
    assert told["pack_twice"]["code"] == "duplicate"
    assert told["credits_bought"]["credits"] == 50
    assert told["credits_bought_again"] == told["credits_bought_once"]
    assert part(told["credits_taken"], {"amount": 0, "new_balance": 0, "reason": ""}) == {
        "amount": -120,
        "new_balance": 80,
        "reason": "an error",
    }
    assert told["credits_beyond"]["code"] == "insufficient_credits"
    assert told["topped_up_credits"]["code"] == "validation_error"
    assert told["topped_up"]["amount"] == 1000
    assert told["balance_given"]["new_balance"] == 200_500
    assert told["balance_beyond"]["code"] == "insufficient_balance"
    assert [each["invoice_type"] for each in told["purchases"]["data"]] == ["credit_purchase"] * 2 + [
        "recurring"
    ]
    assert [each["amount"] for each in told["purchase_invoice"]["line_items"]] == [400]
    assert told["pack_deleted"]["deleted"] is True
    assert told["pack_gone"]["code"] == "credit_pack_not_found"
