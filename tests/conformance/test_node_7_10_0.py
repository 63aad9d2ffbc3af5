"""@commet/node 7.10.0 (API version 2026-07-11): envelopes, `feature`, `idempotencyKey`, PUT for updates."""

import re
from typing import Any

import pytest

Story = dict[str, Any]
INSTANT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


def data(story: Story, step: str) -> Any:
    """A singular answer's data, out of its envelope."""
    answer = story[step]
    assert answer["success"] is True
    return answer["data"]


def refusal(story: Story, step: str) -> Any:
    error = story[step]
    assert "answered" not in error, error
    return error


# --- catalogue ---


def test_a_feature_comes_back_as_it_was_defined(node_story: Story) -> None:
    feature = data(node_story, "featureUsage")
    assert feature["object"] == "feature"
    assert feature["livemode"] is False
    assert (feature["code"], feature["name"], feature["type"]) == ("api_calls", "API calls", "usage")
    assert feature["unitName"] == "call"
    assert feature["description"] is None
    assert INSTANT.match(feature["createdAt"])


def test_a_second_feature_with_the_same_code_is_refused(node_story: Story) -> None:
    error = refusal(node_story, "featureTwice")
    assert (error["statusCode"], error["code"], error["type"]) == (
        409,
        "feature_already_exists",
        "conflict_error",
    )


def test_features_list_is_the_catalogue(node_story: Story) -> None:
    assert data(node_story, "featureUpdated")["description"] == "One per request"
    assert data(node_story, "feature") == data(node_story, "featureUpdated")
    assert {feature["code"] for feature in data(node_story, "features")} == {
        "sso",
        "api_calls",
        "emails_sent",
    }


def test_a_plan_carries_its_price_and_features(node_story: Story) -> None:
    plan = data(node_story, "planByCode")
    assert plan == data(node_story, "planById")
    assert plan["object"] == "plan"
    assert (plan["code"], plan["consumptionModel"], plan["isFree"]) == ("pro", "metered", False)
    [price] = plan["prices"]
    assert (price["billingInterval"], price["price"], price["isDefault"]) == ("monthly", 2900, True)
    assert price["introOffer"] is None
    features = {feature["code"]: feature for feature in plan["features"]}
    assert set(features) == {"sso", "api_calls"}
    assert features["sso"]["enabled"] is True
    assert features["api_calls"]["includedAmount"] == 1000
    assert features["api_calls"]["unlimited"] is False
    assert (
        features["api_calls"]["overage"].items()
        >= {"enabled": True, "model": "per_unit", "unitPrice": 100}.items()
    )


def test_parts_of_a_plan_call_themselves_plan(node_story: Story) -> None:
    price = data(node_story, "price")
    assert price["object"] == "plan"
    assert price["planId"] == data(node_story, "planCreated")["id"]
    assert (price["price"], price["trialDays"], price["introOffer"]) == (2900, 0, None)
    feature = data(node_story, "planFeatureUsage")
    assert feature["object"] == "plan"
    assert feature["featureId"] == data(node_story, "featureUsage")["id"]
    assert feature["overage"]["enabled"] is True
    assert feature["overage"]["unitPrice"] == 100
    assert feature["pricingMode"] == "fixed"


def test_a_hidden_plan_is_listed_only_on_request(node_story: Story) -> None:
    assert data(node_story, "planHidden")["isPublic"] is False
    assert [plan["code"] for plan in data(node_story, "plansWhileHidden")] == []
    assert [plan["code"] for plan in data(node_story, "plansWithPrivate")] == ["pro"]
    assert data(node_story, "planShown")["isPublic"] is True


def test_an_unknown_plan_is_not_found(node_story: Story) -> None:
    error = refusal(node_story, "planUnknown")
    assert (error["statusCode"], error["code"], error["type"]) == (404, "plan_not_found", "not_found_error")


# --- customers ---


def test_the_callers_id_is_kept_beside_ours(node_story: Story) -> None:
    customer = data(node_story, "customer")
    assert customer["object"] == "customer"
    assert customer["id"].startswith("cus_")
    assert (customer["externalId"], customer["email"]) == ("user_123", "ada@example.com")
    assert "billingEmail" not in customer


def test_creating_a_known_customer_changes_nothing(node_story: Story) -> None:
    assert data(node_story, "customerAgain") == data(node_story, "customer")


def test_both_ids_name_the_same_customer(node_story: Story) -> None:
    assert data(node_story, "customerById") == data(node_story, "customer")
    assert data(node_story, "customerByOwnId") == data(node_story, "customer")


def test_an_update_changes_only_what_was_sent(node_story: Story) -> None:
    before, after = data(node_story, "customer"), data(node_story, "customerUpdated")
    assert after["fullName"] == "Countess of Lovelace"
    assert {key: after[key] for key in ("id", "externalId", "email", "createdAt")} == {
        key: before[key] for key in ("id", "externalId", "email", "createdAt")
    }


def test_an_unknown_customer_is_not_found(node_story: Story) -> None:
    error = refusal(node_story, "customerUnknown")
    assert (error["statusCode"], error["code"]) == (404, "customer_not_found")


def test_a_batch_of_customers_succeeds_in_part(node_story: Story) -> None:
    batch = data(node_story, "customerBatch")
    assert batch["object"] == "customer"
    assert [made["externalId"] for made in batch["successful"]] == ["user_201", "user_203"]
    [failed] = batch["failed"]
    assert failed["index"] == 1
    assert failed["data"]["id"] == "user_202"
    assert isinstance(failed["error"], str)


def test_an_idempotency_key_repeats_the_answer_and_refuses_another_body(node_story: Story) -> None:
    assert data(node_story, "customerOnceRetried") == data(node_story, "customerOnce")
    error = refusal(node_story, "customerOnceChanged")
    assert (error["statusCode"], error["code"]) == (409, "idempotency_key_mismatch")


def test_pages_of_customers_tile_the_list(node_story: Story) -> None:
    pages = node_story["customerPages"]
    assert [len(page["data"]) for page in pages] == [2, 2]
    assert [page["hasMore"] for page in pages] == [True, False]
    assert "nextCursor" not in pages[-1]
    emails = [customer["email"] for page in pages for customer in page["data"]]
    assert sorted(emails) == [
        "ada@example.com",
        "alan@example.com",
        "brian@example.com",
        "grace@example.com",
    ]
    assert [customer["externalId"] for customer in data(node_story, "customersFiltered")] == ["user_203"]


# --- subscription ---


def test_nobody_has_a_subscription_yet(node_story: Story) -> None:
    assert node_story["activeBeforeAny"] == {"success": True, "data": None}


def test_a_paid_plan_waits_for_its_checkout(node_story: Story) -> None:
    pending = data(node_story, "pending")
    assert pending["object"] == "subscription"
    assert pending["status"] == "pending_payment"
    assert pending["checkoutUrl"].startswith("http")
    assert pending["plan"]["name"] == "Pro"
    assert pending["discount"] is None
    again = data(node_story, "pendingAgain")
    assert (again["id"], again["checkoutUrl"]) == (pending["id"], pending["checkoutUrl"])


def test_before_payment_there_is_nothing_to_meter_against(node_story: Story) -> None:
    error = refusal(node_story, "trackedUnpaid")
    assert (error["statusCode"], error["code"]) == (404, "no_active_subscription")


def test_the_first_payment_activates_the_subscription(node_story: Story) -> None:
    assert node_story["paid"] == 303
    active = data(node_story, "active")
    assert active["id"] == data(node_story, "pending")["id"]
    assert active["status"] == "active"
    assert active["billingInterval"] == "monthly"
    assert active["currentPeriod"]["start"].startswith("2026-01-15T10:00")
    assert active["currentPeriod"]["end"] == "2026-02-15T00:00:00.000Z"
    assert active["cancelAtPeriodEnd"] is False
    assert data(node_story, "subscription")["id"] == active["id"]
    assert [each["id"] for each in data(node_story, "subscriptions")] == [active["id"]]


def test_a_second_subscription_is_refused(node_story: Story) -> None:
    error = refusal(node_story, "subscribedTwice")
    assert (error["statusCode"], error["code"]) == (409, "already_has_active_subscription")


def test_the_first_invoice_is_the_base_price_paid(node_story: Story) -> None:
    [invoice] = data(node_story, "invoicesAtStart")
    assert (invoice["total"], invoice["status"], invoice["invoiceType"]) == (2900, "paid", "recurring")
    [transaction] = data(node_story, "transactionsAtStart")
    assert transaction["object"] == "transaction"
    assert (transaction["status"], transaction["grossAmount"]) == ("succeeded", 2900)
    assert transaction["invoiceId"] == invoice["id"]


def test_a_free_plan_is_active_at_once_and_stops_at_its_limit(node_story: Story) -> None:
    free = data(node_story, "freeSubscription")
    assert (free["status"], free["checkoutUrl"]) == ("active", None)
    error = refusal(node_story, "freeBeyondLimit")
    assert (error["statusCode"], error["code"], error["type"]) == (
        402,
        "included_limit_reached",
        "billing_error",
    )
    assert {key: error["details"][key] for key in ("current", "included", "remaining")} == {
        "current": 8,
        "included": 10,
        "remaining": 2,
    }
    check = data(node_story, "freeCheckBeyondLimit")
    assert (check["allowed"], check["reason"]) == (False, "included_limit_reached")
    assert data(node_story, "freeUpToLimit")["value"] == 2
    assert data(node_story, "invoicesOfFreeCustomer") == []


# --- metering ---


def test_an_event_is_answered_in_the_words_of_this_version(node_story: Story) -> None:
    event = data(node_story, "tracked")
    assert event["object"] == "usage_event"
    assert event["id"].startswith("evt_")
    assert event["organizationId"]
    assert (event["feature"], event["idempotencyKey"]) == ("api_calls", "req_1")
    assert event["customerId"] == "user_123"
    assert event["value"] == 700
    assert event["ts"] == "2026-01-15T10:30:00.000Z"
    assert [(each["property"], each["value"]) for each in event["properties"]] == [
        ("endpoint", "/v1/convert")
    ]
    assert {"featureCode", "eventId"}.isdisjoint(event)


@pytest.mark.parametrize(("step", "identical"), [("trackedTwice", True), ("trackedTwiceChanged", False)])
def test_a_key_counts_once(node_story: Story, step: str, identical: bool) -> None:
    error = refusal(node_story, step)
    assert (error["statusCode"], error["code"], error["type"]) == (409, "duplicate", "conflict_error")
    assert error["param"] == "idempotencyKey"
    assert error["details"]["identical"] is identical
    assert data(node_story, "tracked")["id"] in error["details"].values()


def test_a_retried_call_gets_its_first_answer(node_story: Story) -> None:
    assert data(node_story, "trackedOnceRetried") == data(node_story, "trackedOnce")


def test_value_defaults_to_one(node_story: Story) -> None:
    assert data(node_story, "trackedByPublicId")["value"] == 1


def test_check_tells_what_would_happen(node_story: Story) -> None:
    check = data(node_story, "check")
    expected = {
        "allowed": True,
        "consumptionModel": "metered",
        "feature": "api_calls",
        "quantity": 100,
        "current": 700,
        "remaining": 300,
        "unlimited": False,
        "included": 1000,
        "overageEnabled": True,
        "overageUnitPrice": 100,
    }
    assert {key: check[key] for key in expected} == expected
    assert "featureCode" not in check


@pytest.mark.parametrize(
    ("step", "current", "overage"), [("accessWithin", 700, 0), ("accessBeyond", 1250, 250)]
)
def test_access_is_flat(node_story: Story, step: str, current: int, overage: int) -> None:
    access = data(node_story, step)
    expected = {
        "object": "feature",
        "code": "api_calls",
        "name": "API calls",
        "type": "usage",
        "allowed": True,
        "current": current,
        "included": 1000,
        "overageQuantity": overage,
        "overageUnitPrice": 100,
        "unlimited": False,
        "overageEnabled": True,
    }
    assert {key: access[key] for key in expected} == expected
    assert {"consumption", "usage"}.isdisjoint(access)


def test_can_use_says_whether_the_next_unit_costs(node_story: Story) -> None:
    within, beyond = data(node_story, "canUseWithin"), data(node_story, "canUseBeyond")
    assert (within["allowed"], within["willBeCharged"]) == (True, False)
    assert (beyond["allowed"], beyond["willBeCharged"]) == (True, True)


def test_access_lists_every_feature_of_the_plan(node_story: Story) -> None:
    listed = {access["code"]: access for access in data(node_story, "accessList")}
    assert set(listed) == {"sso", "api_calls"}
    assert (listed["sso"]["type"], listed["sso"]["allowed"], listed["sso"]["enabled"]) == (
        "boolean",
        True,
        True,
    )


def test_set_adjusts_by_the_difference(node_story: Story) -> None:
    adjustment = data(node_story, "set")
    expected = {
        "object": "usage_event",
        "feature": "api_calls",
        "previousValue": 1201,
        "value": 1250,
        "adjustment": 49,
        "reason": "recount",
        "idempotencyKey": None,
    }
    assert {key: adjustment[key] for key in expected} == expected


@pytest.mark.parametrize(("step", "field"), [("valueNegative", "value"), ("featureMalformed", "feature")])
def test_a_wrong_field_is_named(node_story: Story, step: str, field: str) -> None:
    error = refusal(node_story, step)
    assert error["name"] == "CommetValidationError"
    assert list(error["validationErrors"]) == [field]


@pytest.mark.parametrize(
    ("step", "status", "code", "type_"),
    [
        ("featureUnknown", 404, "feature_not_found", "not_found_error"),
        ("featureNotInPlan", 403, "feature_not_in_plan", "billing_error"),
        ("trackedForNobody", 404, "customer_not_found", "not_found_error"),
        ("keyUnknown", 401, "unauthorized", "authentication_error"),
        ("invoiceUnknown", 404, "invoice_not_found", "not_found_error"),
    ],
)
def test_a_refusal_has_its_name(node_story: Story, step: str, status: int, code: str, type_: str) -> None:
    error = refusal(node_story, step)
    assert error["name"] == "CommetAPIError"
    assert (error["statusCode"], error["code"], error["type"]) == (status, code, type_)


# --- a month later ---


def test_the_clock_moves_forward_and_then_stands(node_story: Story) -> None:
    before = data(node_story, "clockBefore")
    assert before["object"] == "test_clock"
    assert before["now"].startswith("2026-01-15T10:00")
    assert data(node_story, "advanced")["object"] == "test_clock"
    after = data(node_story, "clockAfter")
    assert after["isActive"] is True
    assert after["now"] == after["simulatedTime"]
    assert after["now"].startswith("2026-02-15T10:00")
    assert refusal(node_story, "clockBackwards")["name"] == "CommetValidationError"


def test_the_renewal_bills_the_next_base_and_the_usage_beyond_the_allowance(node_story: Story) -> None:
    invoices = data(node_story, "invoices")
    assert sorted(invoice["total"] for invoice in invoices) == [2900, 3150]
    assert {invoice["id"] for invoice in data(node_story, "invoicesOfSubscription")} == {
        invoice["id"] for invoice in invoices
    }
    renewal = data(node_story, "renewalInvoice")
    assert renewal["object"] == "invoice"
    assert (renewal["invoiceType"], renewal["status"]) == ("recurring", "paid")
    assert (renewal["subtotal"], renewal["taxAmount"], renewal["total"]) == (3150, 0, 3150)
    lines = {line["lineType"]: line for line in renewal["lineItems"]}
    assert set(lines) == {"plan_base", "feature_overage"}
    assert (lines["plan_base"]["quantity"], lines["plan_base"]["unitAmount"]) == (1, 2900)
    assert lines["plan_base"]["amount"] == 2900
    overage = {
        "featureName": "API calls",
        "quantity": 250,
        "unitAmount": 100,
        "amount": 250,
        "includedAmount": 1000,
        "usedAmount": 1250,
        "overageAmount": 250,
    }
    assert {key: lines["feature_overage"][key] for key in overage} == overage


def test_pages_of_invoices_have_a_cursor(node_story: Story) -> None:
    page = node_story["invoicesFirstPage"]
    assert len(page["data"]) == 1
    assert page["hasMore"] is True
    assert page["nextCursor"]


def test_the_line_leads_back_to_its_events(node_story: Story) -> None:
    answer = node_story["eventsOfLine"]
    assert answer["status"] == 200
    events = answer["body"]["data"]
    assert sorted(event["value"] for event in events) == [1, 49, 500, 700]
    assert data(node_story, "tracked")["id"] in {event["id"] for event in events}


def test_the_renewal_is_collected(node_story: Story) -> None:
    transactions = data(node_story, "transactions")
    assert sorted(each["grossAmount"] for each in transactions) == [2900, 3150]
    assert {each["status"] for each in transactions} == {"succeeded"}
    assert {each["customerEmail"] for each in transactions} == {"ada@example.com"}


def test_the_new_period_starts_at_midnight_with_a_full_allowance(node_story: Story) -> None:
    period = data(node_story, "renewed")["currentPeriod"]
    assert (period["start"], period["end"]) == ("2026-02-15T00:00:00.000Z", "2026-03-15T00:00:00.000Z")
    assert data(node_story, "accessAfterRenewal")["current"] == 0


def test_a_cancellation_waits_for_the_period_and_can_be_taken_back(node_story: Story) -> None:
    canceled = data(node_story, "canceled")
    assert (canceled["object"], canceled["status"]) == ("subscription", "active")
    assert canceled["cancelReason"] == "too_expensive"
    assert INSTANT.match(canceled["canceledAt"])
    assert canceled["scheduledCancellationDate"] == "2026-03-15T00:00:00.000Z"
    assert refusal(node_story, "canceledTwice")["code"] == "already_scheduled"
    assert data(node_story, "uncanceled")["status"] == "active"
    assert refusal(node_story, "uncanceledTwice")["code"] == "not_scheduled_for_cancellation"


def test_a_key_is_shown_once_and_dies_when_deleted(node_story: Story) -> None:
    made = data(node_story, "keyCreated")
    assert made["apiKey"].startswith("ck_sandbox_")
    listed = {key["id"]: key for key in data(node_story, "keys")}
    assert "apiKey" not in listed[made["id"]]
    assert {plan["code"] for plan in data(node_story, "plansBySecondKey")} == {"pro", "free"}
    deleted = data(node_story, "keyDeleted")
    assert (deleted["id"], deleted["deleted"]) == (made["id"], True)
    assert refusal(node_story, "plansByDeletedKey")["code"] == "unauthorized"
