"""Up to ten thousand events in one request: each is judged alone, in order, and a slice at a time is stored."""

from collections.abc import Iterator

import httpx
import pytest

from tallystick.core import limits
from tests.audit import audit, count_events
from tests.conftest import MakeOrganization, Organization
from tests.shop import API, Json, done, hard_limit, open_shop, refused

OPENED = "2026-03-10T09:00:00Z"
BULK = f"{API}/usage/events/bulk"


@pytest.fixture
def shop(make_organization: MakeOrganization, database_url: str) -> Iterator[Organization]:
    made = make_organization(clock=OPENED)
    open_shop(made, "ada", "bob")
    yield made
    audit(database_url, made)


def events(count: int, **more: object) -> list[Json]:
    return [
        {"customerId": "ada", "featureCode": "api_calls", "eventId": f"k{number}", "value": 1, **more}
        for number in range(count)
    ]


def send(shop: Organization, sent: list[Json], header: str | None = None) -> httpx.Response:
    headers = {} if header is None else {"Idempotency-Key": header}
    return shop.http.post(BULK, json={"events": sent}, headers=headers, timeout=60)


def test_one_poisoned_event_in_ten_thousand_is_refused_alone(shop: Organization, database_url: str) -> None:
    sent = events(limits.EVENTS_PER_BULK_MAX)
    sent[4_321] = {**sent[4_321], "properties": {"a": "b\0c"}}
    sent[9_999] = {"customerId": "nobody", "featureCode": "api_calls"}
    sent[5_000] = sent[4_999]  # the slice before has it
    answer = done(send(shop, sent, "h"))
    assert (answer["object"], len(answer["successful"])) == ("usage_event_batch", 9_997)
    assert [(each["index"], each["code"]) for each in answer["failed"]] == [
        (4_321, "validation_error"),
        (5_000, "duplicate"),
        (9_999, "customer_not_found"),
    ]
    assert [each["eventId"] for each in answer["successful"]] == [
        each["eventId"] for index, each in enumerate(sent) if index not in (4_321, 5_000, 9_999)
    ]
    assert count_events(database_url, shop) == 9_997
    assert done(send(shop, sent, "h")) == answer, "the same request again gets the same answer"
    assert count_events(database_url, shop) == 9_997


def test_a_limit_is_reached_in_the_order_of_the_events(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization(clock=OPENED)
    open_shop(shop, "ada", terms=hard_limit(1_500))
    answer = done(send(shop, events(2_000)))
    assert len(answer["successful"]) == 1_500
    assert [each["index"] for each in answer["failed"]] == list(range(1_500, 2_000))
    assert {each["code"] for each in answer["failed"]} == {"included_limit_reached"}
    audit(database_url, shop)


@pytest.mark.parametrize("count", [0, limits.EVENTS_PER_BULK_MAX + 1])
def test_a_bulk_holds_1_to_10000_events(shop: Organization, database_url: str, count: int) -> None:
    refused(send(shop, events(count)), 400, "validation_error")
    assert count_events(database_url, shop) == 0


def test_a_bulk_may_be_larger_than_other_requests_and_is_bounded_too(shop: Organization) -> None:
    long = {"properties": {f"name{number}": "x" * 1_000 for number in range(50)}}
    answer = send(shop, [{**each, **long} for each in events(100)])
    assert len(answer.request.content) > limits.BODY_BYTES_MAX
    assert len(done(answer)["successful"]) == 100
    body = b'{"events": ["' + b"x" * limits.BULK_BODY_BYTES_MAX + b'"]}'
    refused(shop.http.post(BULK, content=body, timeout=60), 413, "payload_too_large")
