"""`POST /events`: what a client of OpenMeter sends is counted once, priced, and refused in its own words."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tallystick.api.cloud_events import attributes, of_a_batch
from tallystick.core import limits
from tallystick.errors import InvalidRequest, Problem
from tests.audit import audit, count_events
from tests.conftest import MakeOrganization, Organization
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    every,
    hard_limit,
    invoices_of,
    overage,
    refused,
    set_clock,
    subscribe,
    track,
)

OPENED = "2026-03-10T09:00:00Z"
ONE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


@pytest.fixture
def shop(make_organization: MakeOrganization, database_url: str) -> Iterator[Organization]:
    """`prompt` feeds a sum of the tokens of gpt models, `api_calls` a sum of values, `few` stops at two."""
    made = make_organization(clock=OPENED)
    only = [{"property": "model", "operator": "contains", "value": "gpt"}]
    add_feature(made, "tokens", eventCode="prompt", aggregationProperty="tokens", filters=only)
    add_feature(made)
    add_feature(made, "few")
    promises = {"tokens": overage("0.001"), "api_calls": overage("0.01"), "few": hard_limit(2)}
    add_plan(made, promises=promises)
    subscribe(made, "ada")
    yield made
    audit(database_url, made)


def event(number: int = 1, **more: Any) -> Json:
    return {
        "specversion": "1.0",
        "id": f"{number:05}",
        "source": "service-0",
        "type": "api_calls",
        "subject": "ada",
        **more,
    }


def send(shop: Organization, sent: Any, kind: str | None = None, **headers: str) -> httpx.Response:
    """As the content type says, or as a list or a single one has it."""
    kind = kind or (BATCH if isinstance(sent, list) else ONE)
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return shop.http.post(f"{API}/events", content=body, headers={"content-type": kind} | headers, timeout=60)


def stored(answer: httpx.Response) -> None:
    """204 and nothing more."""
    assert (answer.status_code, answer.content) == (204, b""), answer.text
    assert not {"content-type", "content-length"} & answer.headers.keys()


def kept(shop: Organization) -> list[Json]:
    return list(every(shop, f"{API}/usage/events?customerId=ada"))


def used(shop: Organization, feature: str = "api_calls") -> str:
    query = {"customerId": "ada", "featureCode": feature, "start": OPENED, "end": "2026-04-10T09:00:00Z"}
    return str(done(shop.http.get(f"{API}/usage/summary", params=query))["total"]["quantity"])


def test_an_event_is_stored_as_it_came(shop: Organization) -> None:
    data = {"value": 2.5, "ok": True, "at": {"b": [1], "a": None}}
    for number, kind in enumerate((ONE, "application/json", "Application/CloudEvents+JSON; charset=utf-8")):
        stored(send(shop, event(number, time="2026-03-10T10:00:00.5+01:00", data=data), kind))
    for one in kept(shop):
        assert (one["featureCode"], one["valueDecimal"]) == ("api_calls", "2.5")
        assert one["ts"] == "2026-03-10T09:00:00.500Z"
        assert {each["property"]: each["value"] for each in one["properties"]} == {
            "value": "2.5",
            "ok": "true",
            "at": '{"a":null,"b":[1]}',
        }
    assert {each["eventId"] for each in kept(shop)} == {f"9:service-0:{number:05}" for number in range(3)}


def test_a_repeat_is_dropped_and_a_conflict_is_told(shop: Organization, database_url: str) -> None:
    sent = event(data={"value": 3, "a": 1, "b": 2})
    for again in (sent, sent, sent | {"data": {"b": 2.0, "a": 1, "value": 3}}):
        stored(send(shop, again))
    stored(send(shop, [sent, sent]))
    error = refused(send(shop, event(data={"value": 4})), 409, "duplicate")
    assert (error["param"], error["details"]["identical"]) == ("id", False)
    assert (count_events(database_url, shop), used(shop)) == (1, "3")
    stored(send(shop, event(source="service-1", data={"value": 4})))
    assert used(shop) == "7", "an id belongs to its source"


def test_the_same_batch_from_many_at_once_counts_once(shop: Organization, database_url: str) -> None:
    sent = [event(number, data={"value": 2}) for number in range(50)]
    with ThreadPoolExecutor(8) as threads:
        for answer in threads.map(lambda _: send(shop, sent), range(24)):
            stored(answer)
    assert (count_events(database_url, shop), used(shop)) == (50, "100")


def test_a_key_that_track_has_taken_is_the_same_key(shop: Organization) -> None:
    done(track(shop, "ada", "9:service-0:00001"))
    stored(send(shop, event()))
    assert used(shop) == "1"


def test_a_client_may_be_known_by_its_public_id_too(shop: Organization) -> None:
    stored(send(shop, event(subject=done(shop.http.get(f"{API}/customers/ada"))["id"])))
    stored(send(shop, event()))
    assert used(shop) == "1"


def test_binary_mode(shop: Organization, database_url: str) -> None:
    headers = {f"ce-{name}": value for name, value in event(source="%E2%82%AC").items()}
    stored(send(shop, {"value": 2}, "application/json", **headers))
    stored(send(shop, event(source="€", data={"value": 2})))
    nothing = shop.http.post(f"{API}/events", headers=headers | {"ce-id": "other"})
    stored(nothing)
    assert (used(shop), count_events(database_url, shop)) == ("3", 2)
    bare = {name: value for name, value in headers.items() if name != "ce-subject"}
    assert refused(send(shop, {}, "application/json", **bare), 400, "validation_error")["param"] == "subject"
    odd = refused(send(shop, {}, "application/json", **headers | {"ce-type": "%ff"}), 400, "validation_error")
    assert odd["param"] == "type"


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        (b"plain", "plain"),
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        (b"%e2%82%ac", "€"),
        (b'"a \\"b\\" c"', 'a "b" c'),
        (b"100%", "100%"),
        (b"", ""),
    ],
)
def test_headers_of_the_binary_mode_are_decoded(given: bytes, read_as: str) -> None:
    assert attributes([(b"ce-source", given), (b"content-type", b"x")]) == {"source": read_as}


@pytest.mark.parametrize("value", [b"%C0%A0", b"%ff", b"\xff"])
def test_what_is_no_utf8_in_a_header_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        attributes([(b"ce-source", value)])
    assert refusal.value.param == "source"


def test_meters_read_the_data_and_the_invoice_bills_it(shop: Organization) -> None:
    prompts = [{"tokens": 1000, "model": "gpt-4o"}, {"tokens": "250.5", "model": "gpt-4o-mini"}]
    others = [{"tokens": 9999, "model": "llama"}, {"model": "gpt-4o"}]
    stored(
        send(shop, [event(number, type="prompt", data=each) for number, each in enumerate(prompts + others)])
    )
    stored(
        send(shop, [event(10 + number, data={"value": each}) for number, each in enumerate((0.1, 0.2, 99.7))])
    )
    assert (used(shop, "tokens"), used(shop)) == ("1250.5", "100")
    set_clock(shop, "2026-04-11T00:00:00Z")
    (invoice,) = [each for each in invoices_of(shop, "ada") if len(each["lineItems"]) > 1]
    billed = {each["featureName"]: each["amount"] for each in invoice["lineItems"] if each["featureName"]}
    assert billed == {"tokens": 125, "api_calls": 100}


def test_of_a_batch_what_is_good_is_stored_and_the_rest_is_listed(
    shop: Organization, database_url: str
) -> None:
    stored(send(shop, event(7, data={"value": 1})))
    sent: list[Any] = [event(number) for number in range(2_500)]
    sent[3] = "poison"
    sent[7] = event(7, data={"value": 2})
    sent[1_200] = event(1_200, subject="nobody")
    sent[1_201] = {**event(1_201), "subject": None, "type": "No Such"}
    sent[2_000] = sent[1_999]
    error = refused(send(shop, sent), 400, "validation_error")
    assert [(each["index"], each["code"], each["field"]) for each in error["details"]] == [
        (3, "validation_error", None),
        (7, "duplicate", "id"),
        (1_200, "customer_not_found", "subject"),
        (1_201, "validation_error", "type"),
    ]
    assert all(each["message"] for each in error["details"])
    assert error["message"].startswith("2496 of 2500 events are stored")
    assert count_events(database_url, shop) == 2_496
    refused(send(shop, sent), 400, "validation_error")
    assert count_events(database_url, shop) == 2_496, "sent again, nothing is counted twice"
    mended = [each for index, each in enumerate(sent) if index not in (3, 7, 1_200, 1_201)]
    stored(send(shop, mended))
    assert count_events(database_url, shop) == 2_496


def test_a_batch_of_which_some_may_be_tried_again_says_so() -> None:
    lost, wrong = Problem("unavailable", "Not now.", retry_after_s=1), Problem("duplicate", "No.", param="id")
    assert of_a_batch({4: wrong}, of=9).kind.status == 400
    told = of_a_batch({4: wrong, 7: lost}, of=9)
    assert (told.code, told.kind.status, told.retry_after_s) == ("unavailable", 503, 1)
    assert told.message.startswith("7 of 9 events are stored")
    assert told.details == [
        {"index": 4, "code": "duplicate", "message": "No.", "field": "id"},
        {"index": 7, "code": "unavailable", "message": "Not now.", "field": None},
    ]


def test_a_limit_refuses_what_is_beyond_it(shop: Organization) -> None:
    error = refused(send(shop, [event(each, type="few") for each in range(3)]), 400, "validation_error")
    assert [(each["index"], each["code"]) for each in error["details"]] == [(2, "included_limit_reached")]
    refused(send(shop, event(2, type="few")), 402, "included_limit_reached")


def test_the_size_of_a_batch(shop: Organization, database_url: str) -> None:
    stored(send(shop, []))
    many = [event(each) for each in range(limits.EVENTS_PER_BULK_MAX + 1)]
    refused(send(shop, many), 400, "validation_error")
    assert count_events(database_url, shop) == 0
    stored(send(shop, many[1:], "application/json"))
    assert count_events(database_url, shop) == limits.EVENTS_PER_BULK_MAX
    huge = b'["' + b"x" * limits.BULK_BODY_BYTES_MAX + b'"]'
    refused(send(shop, huge), 413, "payload_too_large")


WRONG: tuple[tuple[Json, int, str, str], ...] = (
    ({"subject": None}, 400, "validation_error", "subject"),
    ({"subject": "nobody"}, 404, "customer_not_found", "subject"),
    ({"type": "unknown"}, 404, "feature_not_found", "type"),
    ({"time": "2027-01-01T00:00:00Z"}, 400, "validation_error", "time"),
    ({"specversion": "0.3"}, 400, "validation_error", "specversion"),
    ({"data": {"value": -1}}, 400, "validation_error", "data.value"),
)


def test_a_refusal_names_the_attribute(shop: Organization) -> None:
    for wrong, status, code, param in WRONG:
        assert refused(send(shop, event(**wrong)), status, code)["param"] == param
    assert kept(shop) == []


def test_another_content_type_is_told_which_there_are(shop: Organization) -> None:
    for kind in ("text/plain", "application/cloudevents+avro", "application/xml"):
        error = refused(send(shop, event(), kind), 400, "validation_error")
        assert error["param"] == "Content-Type"
        assert all(each in error["message"] for each in (ONE, BATCH, "application/json"))
    assert kept(shop) == []


def test_a_body_is_what_its_content_type_says(shop: Organization) -> None:
    for sent, kind in (([event()], ONE), (event(), BATCH), (b"", BATCH), (b"7", "application/json")):
        refused(send(shop, sent, kind), 400, "validation_error")
    refused(send(shop, b"{", ONE), 400, "invalid_json")
    refused(shop.http.post(f"{API}/events"), 400, "validation_error")
    assert refused(shop.http.get(f"{API}/events"), 405, "method_not_allowed")
    assert shop.http.get(f"{API}/events").headers["allow"] == "POST"


def test_another_organizations_key_gets_nothing(
    shop: Organization, make_organization: MakeOrganization, database_url: str
) -> None:
    other = make_organization(clock=OPENED)
    stored(send(shop, event()))
    ours = done(shop.http.get(f"{API}/customers/ada"))["id"]
    for subject in ("ada", ours):
        refused(send(other, event(subject=subject)), 404, "customer_not_found")
        error = refused(send(other, [event(subject=subject)]), 400, "validation_error")
        assert [each["code"] for each in error["details"]] == ["customer_not_found"]
    nobody = httpx.post(f"{shop.base_url}{API}/events", json=event(2))
    refused(nobody, 401, "unauthorized")
    bearer = {"authorization": f"Bearer {shop.api_key}"}
    stored(httpx.post(f"{shop.base_url}{API}/events", json=event(3), headers=bearer))
    assert (count_events(database_url, shop), count_events(database_url, other)) == (2, 0)
