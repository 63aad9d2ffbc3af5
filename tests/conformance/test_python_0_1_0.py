"""commet-sdk 0.1.0, from before API versions: `/api`, `billingEmail`, `externalId`, flat errors, batches."""

from typing import Any

import httpx
import pytest

from .world import MakeOrganization, Server

Story = dict[str, Any]


def data(story: Story, step: str) -> Any:
    answer = story[step]
    assert answer["success"] is True
    return answer["data"]


def refusal(story: Story, step: str) -> Any:
    error = story[step]
    assert "answered" not in error, error
    return error


def test_a_customer_has_a_billing_email_and_the_callers_id(first_story: Story) -> None:
    customer = data(first_story, "customer")
    assert customer["id"].startswith("cus_")
    assert (customer["external_id"], customer["billing_email"]) == ("user_123", "ada@example.com")
    assert data(first_story, "customer_again")["id"] == customer["id"]
    assert data(first_story, "customer_again")["full_name"] == "Ada Lovelace"
    assert data(first_story, "customer_by_id") == customer
    assert data(first_story, "customer_updated")["billing_email"] == "countess@example.com"


def test_a_batch_of_customers_succeeds_in_part(first_story: Story) -> None:
    batch = data(first_story, "customer_batch")
    assert [made["external_id"] for made in batch["successful"]] == ["user_456", "user_458"]
    assert [failed["index"] for failed in batch["failed"]] == [1]


def test_customers_are_listed_in_pages(first_story: Story) -> None:
    assert [each["external_id"] for each in data(first_story, "customers_filtered")] == ["user_456"]
    first, last = first_story["customers_first_page"], first_story["customers_last_page"]
    assert (len(first["data"]), first["has_more"]) == (2, True)
    assert (len(last["data"]), last["has_more"]) == (1, False)


def test_plans_are_read_by_code(first_story: Story) -> None:
    assert data(first_story, "plan")["code"] == "pro"
    assert [plan["code"] for plan in data(first_story, "plans")] == ["pro"]


def test_a_subscription_is_found_by_the_callers_id(first_story: Story) -> None:
    assert data(first_story, "active_before_any") is None
    pending = data(first_story, "pending")
    assert pending["status"] == "pending_payment"
    assert first_story["paid"] == 303
    active = data(first_story, "active")
    assert (active["id"], active["status"]) == (pending["id"], "active")
    assert data(first_story, "active_in_context")["id"] == pending["id"]
    assert first_story["canceled"]["success"] is True


def test_an_event_is_answered_in_the_words_of_its_day(first_story: Story) -> None:
    event = data(first_story, "tracked")
    assert (event["feature"], event["idempotency_key"], event["value"]) == ("api_calls", "req_1", 5)
    assert event["customer_id"] == "user_123"
    assert data(first_story, "tracked_in_context")["feature"] == "storage_gb"


def test_a_key_counts_once(first_story: Story) -> None:
    error = refusal(first_story, "tracked_twice")
    assert (error["name"], error["status_code"], error["code"]) == ("CommetAPIError", 409, "duplicate")
    assert error["details"]["identical"] is False


def test_an_identical_call_under_the_same_key_is_a_retry(first_story: Story) -> None:
    assert data(first_story, "tracked_stamped_retried") == data(first_story, "tracked_stamped")


def test_a_batch_refuses_item_by_item(first_story: Story) -> None:
    batch = data(first_story, "batch")
    assert [(event["feature"], event["value"]) for event in batch["successful"]] == [
        ("api_calls", 1),
        ("api_calls", 2),
        ("storage_gb", 0.5),
    ]
    failed = {failure["index"]: failure for failure in batch["failed"]}
    assert {index: failure["code"] for index, failure in failed.items()} == {
        2: "duplicate",
        3: "duplicate",
        4: "feature_not_found",
        6: "customer_not_found",
    }
    assert failed[2]["error"].startswith("duplicate: ")
    assert failed[2]["data"]["idempotency_key"] == "batch_1"


def test_a_batch_holds_a_hundred_events(first_story: Story) -> None:
    assert len(data(first_story, "batch_full")["successful"]) == 100
    assert refusal(first_story, "batch_beyond_limit")["name"] == "CommetValidationError"


def test_features_answers_access_when_asked_for_a_customer(first_story: Story) -> None:
    access = data(first_story, "access")
    used = 5 + 5 + 1 + 2
    expected = {
        "code": "api_calls",
        "allowed": True,
        "current": used,
        "included": 1000,
        "remaining": 1000 - used,
        "overage": 0,
        "unlimited": False,
    }
    assert {key: access[key] for key in expected} == expected
    assert data(first_story, "access_check") == {"allowed": True}
    assert data(first_story, "access_can_use")["allowed"] is True
    assert data(first_story, "access_can_use")["will_be_charged"] is False
    assert {each["code"] for each in data(first_story, "access_list")} == {"api_calls", "storage_gb"}


def test_a_wrong_field_is_named(first_story: Story) -> None:
    error = refusal(first_story, "value_negative")
    assert error["name"] == "CommetValidationError"
    assert list(error["validation_errors"]) == ["value"]


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        ("feature_unknown", 404, "feature_not_found"),
        ("customer_unknown", 404, "customer_not_found"),
        ("key_unknown", 401, "unauthorized"),
    ],
)
def test_a_refusal_has_its_name(first_story: Story, step: str, status: int, code: str) -> None:
    error = refusal(first_story, step)
    assert (error["name"], error["status_code"], error["code"]) == ("CommetAPIError", status, code)


def test_only_the_old_prefix_says_that_it_will_go(
    server: Server, make_organization: MakeOrganization
) -> None:
    key = {"x-api-key": make_organization().api_key}
    old = httpx.get(f"{server.base_url}/api/plans", headers=key)
    new = httpx.get(f"{server.base_url}/api/v1/plans", headers=key)
    assert old.headers["deprecation"] == "true"
    assert "sunset" in old.headers
    assert "/api/v1/plans" in old.headers["link"]
    assert {"deprecation", "sunset", "link"}.isdisjoint(new.headers)
