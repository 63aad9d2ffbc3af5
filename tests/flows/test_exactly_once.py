"""Each event counts once: whoever repeats it, however it is spelled, and whoever races for its key."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from tallystick.core import ids
from tallystick.core.proof import key_hash
from tests.audit import audit, count_events, organization_id, select, stored_keys
from tests.conftest import MakeOrganization, Organization, Server, free_port, private_dir
from tests.shop import (
    API,
    Json,
    add_customer,
    add_feature,
    done,
    open_shop,
    overage,
    own_id,
    post_event,
    promise,
    refused,
    set_clock,
    track,
    track_batch,
)

OPENED = "2026-03-10T09:00:00Z"
NOW = "2026-03-10T12:00:00Z"
TS = "2026-03-10T11:30:00.000Z"


@pytest.fixture
def shop(make_organization: MakeOrganization, database_url: str) -> Iterator[Organization]:
    """Open for business; when the test is over, the books must balance."""
    made = make_organization(clock=OPENED)
    open_shop(made, "ada", "bob")
    set_clock(made, NOW)
    yield made
    audit(database_url, made)


def used(shop: Organization, customer: str = "ada", feature: str = "api_calls") -> Decimal:
    body = done(shop.http.get(f"{API}/feature-access/{feature}?customerId={customer}"))
    return Decimal(str(body["consumption"]["unitsUsed"]))


# One by one ----------------------------------------------------------------------------------------------


def test_the_same_key_again_is_told_which_event_was_counted(shop: Organization) -> None:
    first = done(track(shop, key="k", value=3, timestamp=TS))
    error = refused(track(shop, key="k", value=3, timestamp=TS), 409, "duplicate")
    assert error["type"] == "conflict_error"
    assert error["param"] == "eventId"
    assert error["details"] == {
        "identical": True,
        "id": first["id"],
        "ts": TS,
    }
    assert used(shop) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"value": 4, "timestamp": TS},
        {"value": 3, "timestamp": "2026-03-10T11:30:00.001Z"},
        {"value": 3},  # the time is left to us now
        {"value": 3, "timestamp": TS, "properties": {"region": "eu"}},
        {"value": 3, "timestamp": TS, "feature": "storage"},
    ],
)
def test_the_same_key_with_other_content_is_a_duplicate_that_is_not_identical(
    shop: Organization, other: Json
) -> None:
    add_feature(shop, "storage")
    promise(shop, done(shop.http.get(f"{API}/plans/pro")), "storage", unlimited=True)
    first = done(track(shop, key="k", value=3, timestamp=TS))
    details = refused(track(shop, key="k", **other), 409, "duplicate")["details"]
    assert (details["identical"], details["id"], details["ts"]) == (False, first["id"], TS)
    assert used(shop) == 3


@pytest.mark.parametrize(
    ("sent", "again"),
    [
        ({"value": 3}, {"value": 3.0}),
        ({"value": 3}, {"quantity": 3}),
        ({}, {"value": 1}),
        ({"timestamp": TS}, {"ts": "2026-03-10T12:30:00+01:00"}),
        ({"properties": {"a": "1", "b": "2"}}, {"properties": {"b": "2", "a": "1"}}),
        (
            {"properties": {"region": "eu"}},
            {"properties": [{"property": "region", "value": "eu"}]},
        ),
        ({}, {"properties": []}),
    ],
)
def test_another_spelling_of_the_same_content_is_identical(
    shop: Organization, sent: Json, again: Json
) -> None:
    done(track(shop, key="k", **sent))
    assert refused(track(shop, key="k", **again), 409, "duplicate")["details"]["identical"] is True


@pytest.mark.parametrize("headers", [(None, None), (None, "h"), ("h", None), ("h", "i")])
def test_a_repeat_is_told_by_the_row_of_its_key(
    shop: Organization, database_url: str, headers: tuple[str | None, str | None]
) -> None:
    """So the event is not looked at, and nobody sees that it is not what it was."""
    first = done(track(shop, key="k", value=3, header=headers[0]))
    change = "UPDATE events SET value = %s WHERE id = %s"
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(change, (99, own_id(ids.EVENT, first["id"])))
        again = refused(track(shop, key="k", value=3, header=headers[1]), 409, "duplicate")["details"]
        conn.execute(change, (3, own_id(ids.EVENT, first["id"])))
    assert again == {"identical": True, "id": first["id"], "ts": first["ts"]}


def test_an_event_from_before_ids_were_marked_is_read(shop: Organization, database_url: str) -> None:
    first = own_id(ids.EVENT, done(track(shop, key="k", value=3, timestamp=TS))["id"])
    unmarked = UUID(int=ids.marked(first.int, 0))
    swap = """WITH keys AS (UPDATE event_keys SET event_id = %(new)s WHERE event_id = %(old)s)
        UPDATE events SET id = %(new)s WHERE id = %(old)s"""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(swap, {"old": first, "new": unmarked})
        again = refused(track(shop, key="k", value=3, timestamp=TS), 409, "duplicate")["details"]
        other = refused(track(shop, key="k", value=4, timestamp=TS), 409, "duplicate")["details"]
        conn.execute(swap, {"old": unmarked, "new": first})
    assert again["id"] == other["id"] == ids.show(ids.EVENT, unmarked)
    assert (again["identical"], other["identical"]) == (True, False)


def test_a_key_belongs_to_one_customer(shop: Organization) -> None:
    first, second = done(track(shop, "ada", "k")), done(track(shop, "bob", "k"))
    assert first["id"] != second["id"]
    assert [used(shop, "ada"), used(shop, "bob")] == [Decimal(1), Decimal(1)]


def test_a_key_belongs_to_one_organization(
    shop: Organization, make_organization: MakeOrganization, database_url: str
) -> None:
    other = make_organization(clock=OPENED)
    open_shop(other, "ada")
    assert done(track(shop, key="k"))["id"] != done(track(other, key="k"))["id"]
    audit(database_url, other)


@pytest.mark.parametrize("first", ["eventId", "idempotencyKey", "customerEventId"])
@pytest.mark.parametrize("again", ["eventId", "idempotencyKey", "customerEventId"])
def test_a_key_is_a_key_however_its_field_is_called(shop: Organization, first: str, again: str) -> None:
    done(post_event(shop, {"feature": "api_calls", "customerId": "ada", first: "k"}))
    error = refused(
        post_event(shop, {"feature": "api_calls", "customerId": "ada", again: "k"}), 409, "duplicate"
    )
    assert error["param"] == again
    assert error["details"]["identical"] is True


@pytest.mark.parametrize("spelling", ["featureCode", "feature", "eventType", "metricKey"])
def test_a_feature_is_a_feature_however_its_field_is_called(shop: Organization, spelling: str) -> None:
    done(track(shop, key="k"))
    body = {spelling: "api_calls", "customerId": "ada", "eventId": "k"}
    assert refused(post_event(shop, body), 409, "duplicate")["details"]["identical"] is True


@pytest.mark.parametrize(
    "fields",
    [
        ("customerId", "own"),
        ("externalId", "own"),
        ("customerId", "public"),
        ("externalId", "public"),
    ],
)
def test_a_customer_is_a_customer_by_either_id(shop: Organization, fields: tuple[str, str]) -> None:
    customer = done(shop.http.get(f"{API}/customers/ada"))
    names = {"own": "ada", "public": customer["id"]}
    done(track(shop, key="k"))
    body = {"feature": "api_calls", fields[0]: names[fields[1]], "eventId": "k"}
    assert refused(post_event(shop, body), 409, "duplicate")["details"]["identical"] is True
    assert used(shop) == 1


def test_both_ids_of_one_customer_agree_and_those_of_two_do_not(shop: Organization) -> None:
    ada, bob = (done(shop.http.get(f"{API}/customers/{name}")) for name in ("ada", "bob"))
    body = {"feature": "api_calls", "externalId": "ada", "eventId": "k"}
    refused(post_event(shop, {**body, "customerId": bob["id"]}), 400, "validation_error")
    done(post_event(shop, {**body, "customerId": ada["id"]}))
    refused(track(shop, key="k"), 409, "duplicate")


def test_without_a_key_nothing_is_a_repeat(shop: Organization) -> None:
    seen = {done(track(shop, value=2, timestamp=TS))["id"] for _ in range(3)}
    assert len(seen) == 3
    assert used(shop) == 6


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"feature": "not_there_yet"}, "feature_not_found"),
        ({"customer": "nobody"}, "customer_not_found"),
        ({"customer": "carl"}, "no_active_subscription"),
        ({"value": -1}, "validation_error"),
        ({"timestamp": "2100-01-01T00:00:00Z"}, "validation_error"),
    ],
)
def test_a_refused_event_leaves_its_key_free(shop: Organization, wrong: Json, code: str) -> None:
    add_customer(shop, "carl")
    answer = track(shop, **{"customer": "ada", "key": "k", **wrong})
    assert answer.json()["code"] == code
    done(track(shop, key="k"))
    refused(track(shop, key="k"), 409, "duplicate")


def test_an_unknown_feature_is_accepted_under_the_same_key_once_it_exists(shop: Organization) -> None:
    refused(track(shop, key="k", feature="storage", header="h"), 404, "feature_not_found")
    add_feature(shop, "storage")
    refused(track(shop, key="k", feature="storage", header="h"), 403, "feature_not_in_plan")
    promise(shop, done(shop.http.get(f"{API}/plans/pro")), "storage", unlimited=True)
    assert done(track(shop, key="k", feature="storage", header="h"))["eventId"] == "k"
    assert used(shop, feature="storage") == 1


def test_a_repeat_is_a_repeat_even_where_a_new_event_would_be_refused(shop: Organization) -> None:
    """The key comes before the feature, the plan and the subscription (ruling 11)."""
    first = done(track(shop, key="k", header="h"))
    held = done(shop.http.get(f"{API}/subscriptions/active?customerId=ada"))
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
    refused(track(shop, key="new"), 404, "no_active_subscription")
    assert refused(track(shop, key="k"), 409, "duplicate")["details"]["id"] == first["id"]
    assert done(track(shop, key="k", header="h")) == first


# The Idempotency-Key header -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k", None])
def test_the_same_header_and_content_get_the_original_answer(shop: Organization, key: str | None) -> None:
    properties = {"region": "eu", "a": "2", "longer_name": "1", "B": ""}
    answers = [
        track(shop, key=key, header="h", value=3, timestamp=TS, properties=properties) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert used(shop) == 3


@pytest.mark.parametrize("key", ["k", None])
def test_a_replay_is_the_original_even_when_the_clock_has_moved(shop: Organization, key: str | None) -> None:
    first = done(track(shop, key=key, header="h"))
    done(shop.http.post(f"{API}/test-clock", json={"advanceDays": 1}))
    assert done(track(shop, key=key, header="h")) == first


def test_the_same_header_with_other_content_under_an_event_key_is_a_duplicate(shop: Organization) -> None:
    first = done(track(shop, key="k", header="h", value=3))
    details = refused(track(shop, key="k", header="h", value=4), 409, "duplicate")["details"]
    assert (details["identical"], details["id"]) == (False, first["id"])


def test_another_header_with_the_same_event_key_is_a_duplicate(shop: Organization) -> None:
    done(track(shop, key="k", header="h"))
    assert refused(track(shop, key="k", header="g"), 409, "duplicate")["details"]["identical"] is True
    assert refused(track(shop, key="k"), 409, "duplicate")["details"]["identical"] is True


def test_without_an_event_key_a_header_stands_for_one_content(shop: Organization) -> None:
    done(track(shop, header="h", value=3))
    refused(track(shop, header="h", value=4), 409, "idempotency_key_mismatch")
    done(track(shop, header="g", value=4))
    assert used(shop) == 7


def test_a_header_and_an_event_key_of_the_same_text_do_not_meet(shop: Organization) -> None:
    seen = {done(track(shop, header="same"))["id"], done(track(shop, key="same"))["id"]}
    assert len(seen) == 2
    assert used(shop) == 2


# Batches --------------------------------------------------------------------------------------------------


def event(key: str | None = None, **more: Any) -> Json:
    body = {"feature": "api_calls", "customerId": "ada", **more}
    return body if key is None else {**body, "idempotencyKey": key}


def failures(answer: Json) -> dict[int, str]:
    return {each["index"]: each["code"] for each in answer["failed"]}


def test_inside_a_batch_the_first_wins(shop: Organization) -> None:
    sent = [
        event("a", value=1),
        event("b", value=10),
        event("a", value=100),
        event("b", value=10),
        event("a"),
    ]
    answer = track_batch(shop, sent)
    assert [each["value"] for each in answer["successful"]] == [1, 10]
    assert failures(answer) == {2: "duplicate", 3: "duplicate", 4: "duplicate"}
    a, b = answer["successful"]
    told = [(each["details"]["id"], each["details"]["identical"]) for each in answer["failed"]]
    assert told == [(a["id"], False), (b["id"], True), (a["id"], True)]
    assert used(shop) == 11


def test_a_batch_repeated_with_its_header_is_answered_as_it_was(shop: Organization) -> None:
    sent = [event(f"k{number}", value=number) for number in range(40)]
    first = track_batch(shop, sent, header="h")
    assert (len(first["successful"]), first["failed"]) == (40, [])
    assert track_batch(shop, sent, header="h") == first
    assert failures(track_batch(shop, sent, header="g")) == dict.fromkeys(range(40), "duplicate")
    assert failures(track_batch(shop, sent)) == dict.fromkeys(range(40), "duplicate")
    assert used(shop) == sum(range(40))


def test_a_batch_without_event_keys_is_known_by_its_header_and_the_place_in_it(shop: Organization) -> None:
    sent = [event(value=number) for number in (1, 1, 2)]
    first = track_batch(shop, sent, header="h")
    assert len({each["id"] for each in first["successful"]}) == 3
    assert track_batch(shop, sent, header="h") == first
    longer = track_batch(shop, [*sent, event(value=5)], header="h")
    assert longer["successful"][:3] == first["successful"]
    assert failures(track_batch(shop, [event(value=7)], header="h")) == {0: "idempotency_key_mismatch"}
    assert used(shop) == 9


@pytest.mark.parametrize("key", ["k", None])
def test_a_batch_that_was_judged_in_short_is_known_when_it_is_judged_at_length(
    shop: Organization, key: str | None
) -> None:
    """A stranger in a batch has all of it looked at one by one."""
    sent = [event(None if key is None else f"{key}{number}", value=number) for number in range(5)]
    first = track_batch(shop, sent, header="h")
    again = track_batch(shop, [*sent, event("new") | {"customerId": "stranger"}], header="h")
    assert again["successful"] == first["successful"] and failures(again) == {5: "customer_not_found"}
    assert track_batch(shop, sent, header="h") == first
    assert used(shop) == sum(range(5))


def test_what_is_wrong_in_a_batch_fails_alone(shop: Organization) -> None:
    add_customer(shop, "carl")
    done(track(shop, key="old"))
    sent: list[Any] = [
        event("a"),
        event("b", feature="nothing"),
        event("c", customerId="nobody"),
        event("d", customerId="carl"),
        event("e", value=-1),
        event("f", value="7"),
        "not an event",
        event("old"),
        event("a"),
        {"customerId": "ada"},
        event("g", timestamp="yesterday"),
        event("h", value=2),
    ]
    answer = track_batch(shop, sent)
    assert [each["eventId"] for each in answer["successful"]] == ["a", "h"]
    told = [(each["index"], each["code"], each["param"]) for each in answer["failed"]]
    assert told == [
        (1, "feature_not_found", "featureCode"),
        (2, "customer_not_found", "customerId"),
        (3, "no_active_subscription", None),
        (4, "validation_error", "value"),
        (5, "validation_error", "value"),
        (6, "validation_error", None),
        (7, "duplicate", "idempotencyKey"),
        (8, "duplicate", "idempotencyKey"),
        (9, "validation_error", "featureCode"),
        (10, "validation_error", "timestamp"),
    ]
    assert all(each["data"] == sent[each["index"]] for each in answer["failed"])
    assert all(each["error"].startswith(f"{each['code']}: ") for each in answer["failed"])
    assert used(shop) == 4


def test_in_a_batch_too_a_refused_event_leaves_its_key_to_a_later_one(shop: Organization) -> None:
    answer = track_batch(shop, [event("k", feature="nothing"), event("k", value=5), event("k", value=5)])
    assert [each["value"] for each in answer["successful"]] == [5]
    assert failures(answer) == {0: "feature_not_found", 2: "duplicate"}


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_holds_1_to_100_events(shop: Organization, database_url: str, count: int) -> None:
    answer = shop.http.post(f"{API}/usage/events/batch", json={"events": [event()] * count})
    refused(answer, 400, "validation_error")
    assert count_events(database_url, shop) == 0


# At once --------------------------------------------------------------------------------------------------


def at_once(count: int, act: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    """`count` threads begin together; the answers in their order."""
    ready = threading.Barrier(count)

    def begin(number: int) -> httpx.Response:
        ready.wait(30)
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def sender(base_url: str, shop: Organization) -> httpx.Client:
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    return httpx.Client(base_url=base_url, headers={"x-api-key": shop.api_key}, timeout=60, limits=limits)


@pytest.fixture(scope="module")
def second_server(server: Server, database_url: str) -> Iterator[Server]:
    """Another process on the same database."""
    folder: Path = private_dir("tallystick-second-")
    port = free_port()
    running = Server(f"http://127.0.0.1:{port}", port, folder / "data", database_url)
    running.start()
    yield running
    running.stop()
    rmtree(folder, ignore_errors=True)


def test_of_64_at_once_one_is_stored(shop: Organization, database_url: str) -> None:
    with sender(shop.base_url, shop) as http:
        for key in ("a", "b", "c"):
            body = {"featureCode": "api_calls", "customerId": "ada", "eventId": key, "timestamp": TS}
            answers = at_once(64, partial(lambda body, _: http.post(f"{API}/usage/events", json=body), body))
            assert sorted(answer.status_code for answer in answers) == [201] + [409] * 63
            stored = next(answer.json()["id"] for answer in answers if answer.is_success)
            refusals = [answer.json()["error"] for answer in answers if not answer.is_success]
            assert {error["code"] for error in refusals} == {"duplicate"}
            assert {error["details"]["id"] for error in refusals} == {stored}
    assert stored_keys(database_url, shop) == {"a": 1, "b": 1, "c": 1}


def test_of_64_at_once_with_one_header_all_get_the_same_answer(
    shop: Organization, database_url: str, second_server: Server
) -> None:
    body = {"featureCode": "api_calls", "customerId": "ada", "value": 2}
    with sender(shop.base_url, shop) as here, sender(second_server.base_url, shop) as there:
        answers = at_once(
            64,
            lambda number: (here, there)[number % 2].post(
                f"{API}/usage/events", json=body, headers={"Idempotency-Key": "h"}
            ),
        )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert count_events(database_url, shop) == 1


def test_two_servers_racing_for_the_same_keys_store_each_once(
    shop: Organization, database_url: str, second_server: Server
) -> None:
    """Both send the same keys, singly and in batches that overlap and run in opposite directions."""
    keys = [f"k{number}" for number in range(120)]
    stored: list[str] = []

    def send(number: int) -> None:
        order = keys if number % 4 < 2 else keys[::-1]
        base_url = (shop.base_url, second_server.base_url)[number % 2]
        with sender(base_url, shop) as http:
            for start in range(0, len(order), 15):
                body = [
                    event(key, customerId=("ada", "bob")[int(key[1:]) % 2])
                    for key in order[start : start + 15]
                ]
                if number < 4:
                    answer = done(http.post(f"{API}/usage/events/batch", json={"events": body}))
                    stored.extend(each["eventId"] for each in answer["successful"])
                    assert set(failures(answer).values()) <= {"duplicate"}
                    continue
                for each in body:
                    single = http.post(f"{API}/usage/events", json=each)
                    assert single.status_code in (201, 409), single.text
                    if single.is_success:
                        stored.append(each["idempotencyKey"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))
    assert sorted(stored) == sorted(keys)
    assert stored_keys(database_url, shop) == dict.fromkeys(keys, 1)
    assert audit(database_url, shop) == len(keys)


METERS: tuple[Json, ...] = (
    {},
    {"aggregation": "count"},
    {"aggregation": "max"},
    {"aggregation": "unique", "aggregationProperty": "region"},
    {"filters": [{"property": "region", "operator": "equals", "value": "eu"}]},
)


def test_a_meter_that_is_born_while_events_pour_in_counts_every_one_of_them(
    shop: Organization, database_url: str, second_server: Server
) -> None:
    """Before it exists they are backfilled, afterwards they are counted, and between the two none is lost."""
    plan = done(shop.http.get(f"{API}/plans/pro"))
    enough = threading.Event()
    sent = [0] * 6

    def pour(number: int) -> None:
        base_url = (shop.base_url, second_server.base_url)[number % 2]
        with sender(base_url, shop) as http:
            while not enough.is_set():
                body = [event(value=2), event(customerId="bob", value=3, properties={"region": "eu"})]
                answer = done(http.post(f"{API}/usage/events/batch", json={"events": body}))
                assert answer["failed"] == []
                sent[number] += 1

    with ThreadPoolExecutor(6) as pool:
        pouring = [pool.submit(pour, number) for number in range(6)]
        try:
            for number, meter in enumerate(METERS):
                before = sum(sent)
                while sum(sent) < before + 20 and not any(each.done() for each in pouring):
                    enough.wait(0.005)
                add_feature(shop, f"born_{number}", eventCode="api_calls", **meter)
                promise(shop, plan, f"born_{number}", **overage("0.01"))
            shop.http.patch(f"{API}/features/born_1", json={"aggregation": "sum"})
        finally:
            enough.set()
        for each in pouring:
            each.result()
    rounds = sum(sent)
    assert audit(database_url, shop) == rounds * 2
    totals = [[int(used(shop, who, f"born_{number}")) for who in ("ada", "bob")] for number in range(5)]
    assert totals == [[2 * rounds, 3 * rounds], [rounds, rounds], [2, 3], [0, 1], [0, 3 * rounds]]


def test_what_is_stored_is_what_was_sent(shop: Organization, database_url: str) -> None:
    """To the last digit and the last character; the chain would tell otherwise, too."""
    sent = [
        event("é\u200b 🦉", value=12345678901234567890),
        event("tab\there", properties={"name": "zoë", "a b": ""}),
        event("old", timestamp="1999-12-31T23:59:59.999999Z", properties={"region": "e\u0301u"}),
        event("zero", value=0),
    ]
    answer = track_batch(shop, sent)
    assert answer["failed"] == []
    raw = '{"feature": "api_calls", "customerId": "ada", "eventId": "tiny", "value": 0.000000000001}'
    tiny = done(
        shop.http.post(f"{API}/usage/events", content=raw, headers={"content-type": "application/json"})
    )
    assert tiny["valueDecimal"] == "0.000000000001"
    found = select(
        database_url,
        "SELECT event_key, value, id FROM events WHERE customer_id IN (SELECT id FROM customers WHERE organization_id = %s) ORDER BY id",
        organization_id(shop),
    )
    assert [each[0] for each in found] == [each["idempotencyKey"] for each in sent] + ["tiny"]
    assert [each[1] for each in found] == [12345678901234567890, 1, 1, 0, Decimal("0.000000000001")]
    assert [each[2] for each in found[:4]] == [own_id("evt", each["id"]) for each in answer["successful"]]


# Two keys, one hash --------------------------------------------------------------------------------------


def test_two_keys_with_one_hash_are_two_events(shop: Organization, database_url: str) -> None:
    """128 bits do not collide by themselves, so the key table is told that they did."""
    first = done(track(shop, key="one", value=3))
    event_id = own_id(ids.EVENT, first["id"])

    def move(key: str) -> None:
        with psycopg.connect(database_url, autocommit=True) as conn:
            found = conn.execute(
                "SELECT customer_id FROM event_keys WHERE event_id = %s", (event_id,)
            ).fetchone()
            assert found is not None
            place = UUID(bytes=key_hash(found[0], key))
            conn.execute("UPDATE event_keys SET key_hash = %s WHERE event_id = %s", (place, event_id))

    move("other")
    second = done(track(shop, key="other", value=4))
    assert second["id"] != first["id"]
    error = refused(track(shop, key="other", value=4), 409, "duplicate")
    assert error["details"]["id"] == second["id"]
    move("third")
    answer = track_batch(
        shop, [event("new"), event("third", value=5), event("third", value=5), event("last")]
    )
    new, third, last = answer["successful"]
    assert [new["eventId"], third["eventId"], last["eventId"]] == ["new", "third", "last"]
    assert [each["details"]["id"] for each in answer["failed"]] == [third["id"]]
    assert used(shop) == 14
    move("one")  # where its key belongs, for the audit
