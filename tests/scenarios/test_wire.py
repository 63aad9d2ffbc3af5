"""The wire: who may call, how a repeat is answered, which version speaks, how lists are paged."""

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tallystick.api import openapi
from tallystick.core import ids
from tests.conftest import MakeOrganization, Organization, Server, free_port, open_one, private_dir
from tests.scenarios.wire import Json, json_of, refusal
from tests.shop import API, add_customer, add_feature, done, open_shop, track

CONTRACT = Path(__file__).parents[2] / "contract/openapi.json"
CUSTOMERS = f"{API}/customers"
CURRENT, ENVELOPED = "2026-08-27", "2026-07-11"


@pytest.fixture(scope="module")
def shop(server: Server, database_url: str) -> Iterator[Organization]:
    made = open_one(database_url, server.base_url)
    open_shop(made, "ada")
    yield made
    made.http.close()


@pytest.fixture(scope="module")
def second(server: Server, database_url: str) -> Iterator[Server]:
    """Another server process on the same database."""
    folder = private_dir("tallystick-second-")
    port = free_port()
    other = Server(f"http://127.0.0.1:{port}", port, folder / "data", database_url)
    other.data_dir.mkdir()
    other.start()
    yield other
    other.stop()


# Who calls -------------------------------------------------------------------------------------------------


def make_key(shop: Organization, **more: Any) -> Json:
    return done(shop.http.post(f"{API}/api-keys", json={"name": "Another", **more}))


def calling(server: Server, secret: str) -> httpx.Client:
    return httpx.Client(base_url=server.base_url, headers={"x-api-key": secret}, timeout=30)


EVENT = {"customerId": "ada", "featureCode": "api_calls"}


@pytest.mark.parametrize("header", ["x-api-key", "X-API-KEY", "authorization"])
def test_a_key_is_a_header_or_a_bearer_token(server: Server, shop: Organization, header: str) -> None:
    value = f"Bearer {shop.api_key}" if header == "authorization" else shop.api_key
    with httpx.Client(base_url=server.base_url, headers={header: value}) as caller:
        assert caller.get(CUSTOMERS).status_code == 200
        assert caller.post(f"{API}/usage/events", json=EVENT).status_code == 201
    assert httpx.get(
        server.base_url + CUSTOMERS, headers={"authorization": f"bearer {shop.api_key}"}
    ).is_success


@pytest.mark.parametrize(
    "wrong", ["", "x", "ck_", "sk_live_1", "ck_sandbox_" + "a" * 43, "rk_sandbox_" + "a" * 43, "ck_" + "x" * 5000]
)  # fmt: skip
def test_a_wrong_key_is_401(server: Server, wrong: str) -> None:
    with calling(server, wrong) as caller:
        refusal(caller.get(CUSTOMERS), 401, "unauthorized")
        refusal(caller.post(f"{API}/usage/events", json=EVENT), 401, "unauthorized")
        refusal(caller.post(f"{API}/usage/events/batch", json={"events": [EVENT]}), 401, "unauthorized")


def test_a_key_is_exact(server: Server, shop: Organization) -> None:
    for other in (
        shop.api_key + "x",
        shop.api_key[:-1],
        shop.api_key.swapcase(),
        shop.api_key.replace("ck_", "rk_"),
    ):
        with calling(server, other) as caller:
            refusal(caller.get(CUSTOMERS), 401, "unauthorized")


def test_an_expired_key_is_401(server: Server, shop: Organization, database_url: str) -> None:
    made = make_key(shop)
    identity = ids.read(ids.API_KEY, made["id"])
    with calling(server, made["apiKey"]) as caller:
        assert caller.get(CUSTOMERS).is_success
        assert caller.post(f"{API}/usage/events", json=EVENT).is_success
    fresh = make_key(shop)
    with psycopg.connect(database_url, autocommit=True) as conn:
        for each in (identity, ids.read(ids.API_KEY, fresh["id"])):
            conn.execute(
                "UPDATE api_keys SET expires_at = now() - %s WHERE id = %s", (timedelta(seconds=1), each)
            )
    for secret in (made["apiKey"], fresh["apiKey"]):
        with calling(server, secret) as caller:
            refusal(caller.get(CUSTOMERS), 401, "unauthorized")
    with calling(server, fresh["apiKey"]) as caller:
        refusal(caller.post(f"{API}/usage/events", json=EVENT), 401, "unauthorized")


def test_revoking_a_key_stops_it_at_once_in_every_process(
    server: Server, second: Server, shop: Organization
) -> None:
    made = make_key(shop)
    callers = [calling(each, made["apiKey"]) for each in (server, second)]
    batch = {"events": [EVENT, EVENT]}
    for caller in callers:
        for _ in range(3):
            assert caller.post(f"{API}/usage/events", json=EVENT).status_code == 201
        assert len(done(caller.post(f"{API}/usage/events/batch", json=batch))["successful"]) == 2
    done(shop.http.delete(f"{API}/api-keys/{made['id']}"))
    before = used(shop)
    for caller in [*callers, *callers]:
        refusal(caller.post(f"{API}/usage/events", json=EVENT), 401, "unauthorized")
        refusal(caller.post(f"{API}/usage/events/batch", json=batch), 401, "unauthorized")
        refusal(caller.get(CUSTOMERS), 401, "unauthorized")
        refusal(caller.post(CUSTOMERS, json={"email": "a@b.c"}), 401, "unauthorized")
    assert used(shop) == before
    for caller in callers:
        caller.close()


def test_a_revoked_key_is_gone_from_the_list_and_cannot_be_revoked_again(shop: Organization) -> None:
    made = make_key(shop)
    address = f"{API}/api-keys/{made['id']}"
    done(shop.http.delete(address))
    assert made["id"] not in {each["id"] for each in done(shop.http.get(f"{API}/api-keys"))["data"]}
    refusal(shop.http.delete(address), 404, "api_key_not_found")


def used(shop: Organization) -> float:
    access = done(shop.http.get(f"{API}/feature-access/api_calls", params={"customerId": "ada"}))
    found: float = access["consumption"]["unitsUsed"]
    return found


def test_a_restricted_key_may_do_what_it_says_and_nothing_else(server: Server, shop: Organization) -> None:
    made = make_key(shop, permissions={"usage": ["read", "write"], "customer": ["read"]})
    assert made["apiKey"].startswith("rk_sandbox_")
    with calling(server, made["apiKey"]) as caller:
        assert caller.post(f"{API}/usage/events", json=EVENT).status_code == 201
        assert caller.get(f"{API}/usage/events").status_code == 200
        assert caller.get(CUSTOMERS).status_code == 200
        refusal(caller.post(CUSTOMERS, json={"email": "a@b.c"}), 403, "forbidden")
        for method, path in (
            ("GET", "/invoices"),
            ("GET", "/plans"),
            ("POST", "/features"),
            ("GET", "/subscriptions"),
            ("GET", "/transactions"),
            ("GET", "/test-clock"),
            ("POST", "/api-keys"),
            ("GET", "/api-keys"),
            ("DELETE", f"/api-keys/{made['id']}"),
        ):
            refusal(caller.request(method, API + path, content=b"{}"), 403, "forbidden")


def test_a_key_that_may_only_read_usage_cannot_write_it(server: Server, shop: Organization) -> None:
    made = make_key(shop, permissions={"usage": ["read"]})
    before = used(shop)
    with calling(server, made["apiKey"]) as caller:
        assert caller.get(f"{API}/usage/events").status_code == 200
        assert caller.post(f"{API}/usage/check", json=EVENT).status_code == 200  # a dry run writes nothing
        refusal(caller.post(f"{API}/usage/events", json=EVENT), 403, "forbidden")
        refusal(caller.post(f"{API}/usage/events/batch", json={"events": [EVENT]}), 403, "forbidden")
        refusal(caller.put(f"{API}/usage", json={**EVENT, "value": 5}), 403, "forbidden")
    assert used(shop) == before


def test_a_restricted_key_cannot_make_a_stronger_one(server: Server, shop: Organization) -> None:
    made = make_key(shop, permissions={"api_key": ["read", "write"], "usage": ["read"]})
    with calling(server, made["apiKey"]) as caller:
        for permissions in (None, {"usage": ["read", "write"]}, {"plan": ["read"]}):
            body = {"name": "Stronger", "permissions": permissions}
            refusal(caller.post(f"{API}/api-keys", json=body), 403, "forbidden")
        assert caller.post(
            f"{API}/api-keys", json={"name": "Weaker", "permissions": {"usage": ["read"]}}
        ).is_success


def test_a_secret_is_shown_once(shop: Organization) -> None:
    made = make_key(shop)
    listed = shop.http.get(f"{API}/api-keys").text
    assert made["apiKey"] not in listed
    assert made["prefix"] in listed


# Repeats ---------------------------------------------------------------------------------------------------


def create(shop: Organization, key: str, **body: Any) -> httpx.Response:
    return shop.http.post(CUSTOMERS, json={"email": "a@b.c", **body}, headers={"Idempotency-Key": key})


def customers(shop: Organization) -> int:
    return len(done(shop.http.get(CUSTOMERS, params={"limit": "100"}))["data"])


def test_a_repeated_request_for_a_key_makes_no_second_one_and_keeps_no_secret(
    shop: Organization, database_url: str
) -> None:
    headers = {"Idempotency-Key": "make-a-key-once"}
    first = shop.http.post("/api/v1/api-keys", json={"name": "Once"}, headers=headers)
    assert first.status_code == 201
    again = shop.http.post("/api/v1/api-keys", json={"name": "Once"}, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "duplicate")
    named = [each for each in shop.http.get("/api/v1/api-keys").json()["data"] if each["name"] == "Once"]
    assert len(named) == 1
    with psycopg.connect(database_url) as conn:
        kept = conn.execute(
            "SELECT count(*) FROM idempotency_keys WHERE body LIKE '%ck_sandbox_%'"
        ).fetchone()
    assert kept == (0,)


def test_a_repeat_is_answered_as_the_first_was_and_does_nothing(make_organization: MakeOrganization) -> None:
    shop = make_organization()
    first, again = create(shop, "one"), create(shop, "one")
    assert (first.status_code, first.content) == (again.status_code, again.content) == (201, first.content)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert customers(shop) == 1


def test_the_order_of_fields_does_not_matter_to_a_repeat(make_organization: MakeOrganization) -> None:
    shop = make_organization()
    spellings = ['{"email": "a@b.c", "fullName": "Ada"}', '{"fullName":"Ada",\n"email":"a@b.c"}']
    answers = [
        shop.http.post(CUSTOMERS, content=each.encode(), headers={"Idempotency-Key": "k"})
        for each in spellings
    ]
    assert answers[0].content == answers[1].content
    assert customers(shop) == 1


def test_the_same_key_for_another_request_is_a_mismatch(make_organization: MakeOrganization) -> None:
    shop = make_organization()
    done(create(shop, "k", metadata={"n": 0.5}))
    refusal(create(shop, "k", metadata={"n": 0.25}), 409, "idempotency_key_mismatch")
    refusal(create(shop, "k", metadata={"n": "0.5"}), 409, "idempotency_key_mismatch")
    headers = {"Idempotency-Key": "k"}
    body = {"name": "Calls", "code": "calls", "type": "usage"}
    refusal(shop.http.post(f"{API}/features", json=body, headers=headers), 409, "idempotency_key_mismatch")
    assert customers(shop) == 1
    assert done(shop.http.get(f"{API}/features"))["data"] == []


def test_a_refused_request_is_judged_anew(make_organization: MakeOrganization) -> None:
    shop = make_organization()
    refusal(create(shop, "k", email="nobody"), 400, "validation_error")
    assert create(shop, "k").status_code == 201
    headers = {"Idempotency-Key": "later"}
    body = {"customerId": "ada", "planCode": "pro"}
    refusal(shop.http.post(f"{API}/subscriptions", json=body, headers=headers), 404, "customer_not_found")
    open_shop(shop)
    add_customer(shop, "ada")
    assert shop.http.post(f"{API}/subscriptions", json=body, headers=headers).status_code == 201


def test_the_same_key_at_once_has_one_effect(make_organization: MakeOrganization, server: Server) -> None:
    shop = make_organization()
    callers = 8
    gate = threading.Barrier(callers)

    def call(number: int) -> httpx.Response:
        with calling(server, shop.api_key) as caller:
            caller.get("/health/live")
            gate.wait()
            return caller.post(CUSTOMERS, json={"email": "a@b.c"}, headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(callers) as threads:
        answers = list(threads.map(call, range(callers)))
    assert customers(shop) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    bodies = {answer.content for answer in answers if answer.status_code == 201}
    assert len(bodies) == 1
    for answer in answers:
        if answer.status_code == 409:
            refusal(answer, 409, "idempotency_in_progress")
            assert int(answer.headers["retry-after"]) >= 1
    assert create(shop, "race").content in bodies


def test_an_update_is_repeated_too(make_organization: MakeOrganization) -> None:
    shop = make_organization()
    add_customer(shop, "ada")
    headers = {"Idempotency-Key": "rename"}
    first = shop.http.patch(f"{CUSTOMERS}/ada", json={"fullName": "Ada"}, headers=headers)
    done(shop.http.patch(f"{CUSTOMERS}/ada", json={"fullName": "Countess"}))
    again = shop.http.patch(f"{CUSTOMERS}/ada", json={"fullName": "Ada"}, headers=headers)
    assert first.content == again.content
    assert done(shop.http.get(f"{CUSTOMERS}/ada"))["fullName"] == "Countess"


# Versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "version", "bare"),
    [
        (API, None, True),
        (API, CURRENT, True),
        (API, "2026-07-24", True),  # the first bare one
        (API, "2026-07-23", False),
        (API, ENVELOPED, False),
        (API, "2026-05-25", False),
        (API, "2030-01-01", True),
        ("/api", None, False),
        ("/api", CURRENT, True),
        ("/api", ENVELOPED, False),
    ],
)
def test_the_header_decides_the_shape_of_an_answer(
    shop: Organization, path: str, version: str | None, bare: bool
) -> None:
    headers = {} if version is None else {"Commet-Version": version}
    one = json_of(shop.http.get(f"{path}/customers/ada", headers=headers))
    many = json_of(shop.http.get(f"{path}/customers", headers=headers))
    event = json_of(shop.http.post(f"{path}/usage/events", json=EVENT, headers=headers))
    batch = json_of(shop.http.post(f"{path}/usage/events/batch", json={"events": [EVENT]}, headers=headers))
    none = shop.http.get(f"{path}/customers/nobody", headers=headers)
    if bare:
        assert (one["object"], one["externalId"]) == ("customer", "ada")
        assert set(many) >= {"object", "data", "hasMore"}
        assert (event["object"], event["featureCode"]) == ("usage_event", "api_calls")
        assert batch["successful"][0]["featureCode"] == "api_calls"
    else:
        assert (one["success"], one["data"]["externalId"]) == (True, "ada")
        assert (many["success"], many["hasMore"]) == (True, False)
        assert (event["success"], event["data"]["feature"]) == (True, "api_calls")
        assert (batch["success"], batch["data"]["successful"][0]["feature"]) == (True, "api_calls")
    refusal(none, 404, "customer_not_found")  # in every version nested and flat


def test_nothing_active_is_null_in_either_shape(shop: Organization) -> None:
    add_customer(shop, "idle")
    who = {"customerId": "idle"}
    assert json_of(shop.http.get(f"{API}/subscriptions/active", params=who)) is None
    legacy = shop.http.get("/api/subscriptions/active", params=who)
    assert json_of(legacy) == {"success": True, "data": None}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/customers"), ("GET", "/customers/nobody"), ("POST", "/customers"), ("POST", "/usage/events"), ("POST", "/usage/events/batch")],
)  # fmt: skip
def test_only_the_old_prefix_says_that_it_is_old(shop: Organization, method: str, path: str) -> None:
    old = shop.http.request(method, f"/api{path}", content=b"{}")
    assert old.headers["deprecation"] == "true"
    assert old.headers["sunset"].endswith(" GMT")
    assert old.headers["link"] == f'</api/v1{path}>; rel="successor-version"'
    for headers in ({}, {"commet-version": ENVELOPED}):
        current = shop.http.request(method, API + path, content=b"{}", headers=headers)
        assert not {"deprecation", "sunset", "link"} & set(current.headers)


def test_the_oldest_callers_use_their_own_names(shop: Organization) -> None:
    made = json_of(
        shop.http.post("/api/customers", json={"billingEmail": "old@example.com", "externalId": "old"})
    )
    assert (made["data"]["billingEmail"], "email" in made["data"]) == ("old@example.com", False)
    refused = shop.http.post(
        "/api/usage/events", json={"customerId": "old", "feature": "A B", "idempotencyKey": 5}
    )
    error = refusal(refused, 400, "validation_error")
    assert [each["field"] for each in error["details"]] == ["feature", "idempotencyKey"]


# Lists -----------------------------------------------------------------------------------------------------


def pages(shop: Organization, path: str, limit: int, **query: str) -> list[Json]:
    """Every page, each with a cursor exactly when more follows."""
    found: list[Json] = []
    asked = {"limit": str(limit), **query}
    while True:
        page = json_of(shop.http.get(f"{API}/{path}", params=asked))
        assert page["object"] == "list"
        assert ("nextCursor" in page) is page["hasMore"]
        assert len(page["data"]) <= limit
        found.append(page)
        if not page["hasMore"]:
            return found
        assert len(page["data"]) == limit
        asked["cursor"] = page["nextCursor"]


@pytest.fixture(scope="module")
def many(server: Server, database_url: str) -> Iterator[Organization]:
    made = open_one(database_url, server.base_url, clock="2026-01-15T10:00:00Z")
    open_shop(made, "ada", "bob")
    people = [{"id": f"user_{each}", "email": f"user_{each}@example.com"} for each in range(28)]
    done(made.http.post(f"{CUSTOMERS}/batch", json={"customers": people}))
    for each in range(10):
        done(track(made, "ada" if each % 2 else "bob", f"single_{each}"))
    events = [{"customerId": "ada" if each % 3 else "bob", "featureCode": "api_calls"} for each in range(50)]
    done(made.http.post(f"{API}/usage/events/batch", json={"events": events}))
    done(made.http.post(f"{API}/test-clock", json={"frozenTime": "2027-01-20T00:00:00Z"}))
    yield made
    made.http.close()


@pytest.mark.parametrize("path", ["customers", "invoices", "usage/events", "transactions", "api-keys"])
def test_pages_of_any_size_show_the_same_list_without_gaps_or_repeats(many: Organization, path: str) -> None:
    (whole,) = pages(many, path, 100)
    listed = [each["id"] for each in whole["data"]]
    assert len(set(listed)) == len(listed) > 0
    assert listed == sorted(listed, reverse=True), "newest first"
    for limit in (1, 7, 25, len(listed)) if len(listed) <= 100 else (7, 25):
        cut = pages(many, path, limit)
        assert [each["id"] for page in cut for each in page["data"]] == listed
        assert len(cut) == -(-len(listed) // limit)


def test_a_list_has_25_items_unless_told_otherwise(many: Organization) -> None:
    page = json_of(many.http.get(CUSTOMERS))
    assert (len(page["data"]), page["hasMore"]) == (25, True)


@pytest.mark.parametrize("limit", [1, 4, 100])
@pytest.mark.parametrize(
    ("path", "who"), [("usage/events", "ada"), ("usage/events", "bob"), ("invoices", "ada")]
)
def test_a_filtered_list_is_paged_like_any(many: Organization, path: str, who: str, limit: int) -> None:
    (whole,) = pages(many, path, 100)
    expected = [each["id"] for each in whole["data"] if each["customerId"] == who]
    found = [each["id"] for page in pages(many, path, limit, customerId=who) for each in page["data"]]
    assert found == expected
    assert expected


def test_what_arrives_while_a_list_is_read_moves_nothing(make_organization: MakeOrganization) -> None:
    shop = make_organization()
    for each in range(6):
        add_customer(shop, f"first_{each}")
    page = json_of(shop.http.get(CUSTOMERS, params={"limit": "3"}))
    seen = [each["externalId"] for each in page["data"]]
    add_customer(shop, "newcomer")
    rest = pages(shop, "customers", 3, cursor=page["nextCursor"])
    seen += [each["externalId"] for page in rest for each in page["data"]]
    assert seen == [f"first_{each}" for each in reversed(range(6))]


def test_a_list_without_pages_is_whole(many: Organization) -> None:
    for path in ("features", "plans", "subscriptions"):
        page = json_of(many.http.get(f"{API}/{path}"))
        assert (page["object"], page["hasMore"], "nextCursor" in page) == ("list", False, False)


# What every answer has -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
        ("GET", "/api/openapi.json"),
        ("GET", "/api/reference"),
        ("GET", "/checkout/nothing"),
        ("GET", "/checkout/success"),
        ("POST", "/checkout/nothing"),
        ("GET", "/nothing"),
        ("DELETE", "/health/live"),
        ("HEAD", "/health/live"),
        ("GET", CUSTOMERS),
        ("POST", f"{API}/usage/events"),
        ("GET", "/"),
    ],
)
def test_every_answer_names_its_request(shop: Organization, method: str, path: str) -> None:
    answers = [shop.http.request(method, path) for _ in range(2)]
    names = [ids.read(ids.REQUEST, each.headers["x-request-id"]) for each in answers]
    assert None not in names
    assert names[0] != names[1]
    assert answers[0].headers.get("content-type")
    assert len(answers[0].headers.get_list("x-request-id")) == 1


METADATA = """{
    "plan_intent": "pro",
    "camelCase": {"snake_case": [1, 0.1, 0.30000000000000004, 12345678901234567890.5, -5e-1, true, null, ""]},
    "Ünïcode 🎈": "日本", "": {"": []}, "big": 1000000000000000000000000000001, "small": 1e-30
}"""


def exactly(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def test_metadata_is_kept_as_it_came(shop: Organization) -> None:
    def kept(method: str, path: str, body: str) -> None:
        answer = shop.http.request(method, API + path, content=body.encode())
        assert answer.is_success, answer.text
        assert exactly(answer.content)["metadata"] == exactly(METADATA)

    kept("POST", "/customers", f'{{"email": "meta@example.com", "id": "meta", "metadata": {METADATA}}}')
    kept("GET", "/customers/meta", "")
    kept("PATCH", "/customers/meta", f'{{"metadata": {METADATA}}}')
    kept("POST", "/plans", f'{{"name": "Meta", "code": "meta", "metadata": {METADATA}}}')
    kept("GET", "/plans/meta", "")
    price = f'{{"billingInterval": "monthly", "price": 1, "metadata": {METADATA}}}'
    kept("POST", "/plans/meta/prices", price)


def test_properties_are_kept_as_they_came(shop: Organization) -> None:
    sent = {"user_id": "ada lovelace", "userId": "", "Ü": "日本 🎈\n"}
    stored = done(track(shop, "ada", properties=[{"property": name, "value": sent[name]} for name in sent]))
    read = done(shop.http.get(f"{API}/usage/events/{stored['id']}"))
    for event in (stored, read):
        assert {each["property"]: each["value"] for each in event["properties"]} == sent


def test_times_are_utc_with_milliseconds(shop: Organization) -> None:
    made = add_customer(shop, "timely")
    stored = done(track(shop, "ada", timestamp="2026-01-31T23:59:58.123456+02:00"))
    assert stored["ts"] == "2026-01-31T21:59:58.123Z"
    for each in (made["createdAt"], made["updatedAt"], stored["createdAt"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each)


def test_health(server: Server) -> None:
    for path, status in (("/health/live", "live"), ("/health/ready", "ready")):
        answer = httpx.get(server.base_url + path)
        assert answer.status_code == 200
        assert json_of(answer)["status"] == status


def test_metrics_are_read_by_prometheus_and_count_what_is_answered(
    server: Server, shop: Organization
) -> None:
    def count(operation: str, status: str) -> float:
        text = httpx.get(f"{server.base_url}/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "tallystick_requests_total"
            and sample.labels == {"operation": operation, "status": status}
        )

    before = count("usage.track", "201"), count("customers.get", "404")
    done(track(shop, "ada"))
    shop.http.get(f"{CUSTOMERS}/nobody")
    assert (count("usage.track", "201"), count("customers.get", "404")) == (before[0] + 1, before[1] + 1)


def test_metrics_tell_nothing_of_anybody(server: Server, shop: Organization) -> None:
    shop.http.get(f"{CUSTOMERS}/ada")
    text = httpx.get(f"{server.base_url}/metrics").text
    assert "ada" not in text
    assert shop.id not in text


def test_the_document_of_the_api_is_the_contract(server: Server) -> None:
    answer = httpx.get(f"{server.base_url}/api/openapi.json")
    assert json_of(answer)["openapi"].startswith("3.1")
    assert answer.content == openapi.rendered()
    if CONTRACT.is_file():
        assert answer.content == CONTRACT.read_bytes(), "run `make contract` and read the difference"


def test_the_reference_is_a_page_that_stands_alone(server: Server) -> None:
    answer = httpx.get(f"{server.base_url}/api/reference")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "/usage/events" in answer.text
    assert "<script" not in answer.text
    assert not re.search(r'(src|href)="https?://', answer.text)


def test_what_was_sent_is_no_markup_in_a_page(make_organization: MakeOrganization) -> None:
    shop = make_organization()
    add_feature(shop)
    name = "<script>alert(1)</script>"
    plan = done(shop.http.post(f"{API}/plans", json={"name": name, "code": "evil"}))
    done(
        shop.http.post(f"{API}/plans/{plan['id']}/prices", json={"billingInterval": "monthly", "price": 100})
    )
    add_customer(shop, "ada")
    held = done(shop.http.post(f"{API}/subscriptions", json={"customerId": "ada", "planCode": "evil"}))
    page = httpx.get(held["checkoutUrl"])
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert json.dumps(name)[1:-1] not in page.text
