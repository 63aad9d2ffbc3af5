"""The calls the published guides show, body for body, over plain HTTP.

The guides write `feature`, `idempotencyKey` and either `customerId` or `externalId`. A body names no
version, so the answers use current names.
"""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from .shop import open_shop, subscribe
from .world import MakeOrganization, Organization, Server


@dataclass(frozen=True)
class Guide:
    """A shop with the two customers of the guides, and how to call it."""

    organization: Organization
    api: str

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.organization.http.post(f"{self.api}{path}", json=body)

    def used(self, customer: str, feature: str) -> float:
        answer = self.organization.http.get(
            f"{self.api}/feature-access/{feature}", params={"customerId": customer}
        )
        used: float = answer.json()["consumption"]["unitsUsed"]
        return used


@pytest.fixture
def guide(server: Server, make_organization: MakeOrganization) -> Guide:
    organization = make_organization()
    open_shop(organization, server)
    subscribe(organization, server, customer="user_123", email="one@example.com")
    subscribe(organization, server, customer="user_456", email="two@example.com")
    return Guide(organization, f"{server.base_url}/api/v1")


def test_track_a_single_event(guide: Guide) -> None:
    answer = guide.post("/usage/events", {"customerId": "user_123", "feature": "api_calls", "value": 1})
    assert answer.status_code == 201
    event = answer.json()
    assert (event["featureCode"], event["value"], event["eventId"]) == ("api_calls", 1, None)
    assert guide.used("user_123", "api_calls") == 1


@pytest.mark.parametrize("who", ["customerId", "externalId"])
def test_track_in_batches(guide: Guide, who: str) -> None:
    answer = guide.post(
        "/usage/events/batch",
        {
            "events": [
                {who: "user_123", "feature": "api_calls", "value": 1},
                {who: "user_456", "feature": "api_calls", "value": 3},
                {who: "user_123", "feature": "storage_gb", "value": 0.5},
            ]
        },
    )
    assert answer.status_code == 200
    batch = answer.json()
    assert batch["failed"] == []
    assert [(event["customerId"], event["featureCode"]) for event in batch["successful"]] == [
        ("user_123", "api_calls"),
        ("user_456", "api_calls"),
        ("user_123", "storage_gb"),
    ]
    assert guide.used("user_123", "api_calls") == 1
    assert guide.used("user_456", "api_calls") == 3
    assert guide.used("user_123", "storage_gb") == 0.5


@pytest.mark.parametrize("who", ["customerId", "externalId"])
def test_an_idempotency_key_counts_once_for_each_customer(guide: Guide, who: str) -> None:
    event = {who: "user_123", "feature": "api_calls", "value": 1, "idempotencyKey": "req_abc123"}
    first = guide.post("/usage/events", event)
    assert first.status_code == 201
    assert first.json()["eventId"] == "req_abc123"

    again = guide.post("/usage/events", event)
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "duplicate"

    assert guide.post("/usage/events", event | {who: "user_456"}).status_code == 201
    assert guide.used("user_123", "api_calls") == 1
    assert guide.used("user_456", "api_calls") == 1


def test_a_duplicate_fails_alone_in_its_batch(guide: Guide) -> None:
    event = {"externalId": "user_123", "feature": "api_calls", "value": 1, "idempotencyKey": "job_7845"}
    batch = guide.post(
        "/usage/events/batch", {"events": [event, event, event | {"idempotencyKey": "job_7846"}]}
    ).json()
    assert [stored["eventId"] for stored in batch["successful"]] == ["job_7845", "job_7846"]
    [failed] = batch["failed"]
    assert (failed["index"], failed["code"]) == (1, "duplicate")
    assert failed["details"]["identical"] is True
    assert guide.used("user_123", "api_calls") == 2


def test_more_than_a_hundred_events_are_refused_whole(guide: Guide) -> None:
    event = {"externalId": "user_123", "feature": "api_calls", "value": 1}
    answer = guide.post("/usage/events/batch", {"events": [event] * 101})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "validation_error"
    assert guide.used("user_123", "api_calls") == 0
