"""Rate limits: each key has its own, the answers say how it stands, and a refused request does nothing."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tallystick import settings
from tallystick.api.rate_limits import RateLimits
from tallystick.core.limits import EVENTS_PER_BATCH_MAX, RATE_BUCKETS_KEPT_MAX, RATE_BURST_MAX, RATE_LIMIT_MAX
from tallystick.core.throttle import NANOSECONDS, Throttle
from tallystick.errors import Problem
from tests.audit import count_events
from tests.conftest import PROGRAM, Organization, Server, open_one, serving
from tests.scenarios.wire import Json, refusal
from tests.shop import API, done, open_shop, track

PER_SECOND, AT_ONCE = 1, 4
CUSTOMERS, TRACK, BATCH = f"{API}/customers", f"{API}/usage/events", f"{API}/usage/events/batch"
EVENT = {"customerId": "ada", "featureCode": "api_calls"}
TELLING = {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}
ROUTES = [
    ("POST", TRACK, EVENT),
    ("POST", BATCH, {"events": [EVENT]}),
    ("GET", CUSTOMERS, None),
    ("POST", CUSTOMERS, {"email": "a@b.c"}),
    ("POST", f"{API}/usage/check", EVENT),
]


LIMITS = {"TALLYSTICK_RATE_LIMIT": str(PER_SECOND), "TALLYSTICK_RATE_BURST": str(AT_ONCE)}


@pytest.fixture(scope="module")
def server_with_limits(database_url: str) -> Iterator[Server]:
    with serving(database_url, environment=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def pair_with_limits(database_url: str) -> Iterator[Server]:
    with serving(database_url, workers=2, environment=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def shop(server: Server, database_url: str) -> Iterator[Organization]:
    """Made through a server without limits."""
    made = open_one(database_url, server.base_url)
    open_shop(made, "ada")
    yield made
    made.http.close()


def another_key(shop: Organization) -> str:
    secret: str = done(shop.http.post(f"{API}/api-keys", json={"name": "Another"}))["apiKey"]
    return secret


@pytest.fixture
def caller(server_with_limits: Server, shop: Organization) -> Iterator[httpx.Client]:
    """With a key that nobody has used yet."""
    key = {"x-api-key": another_key(shop)}
    with httpx.Client(base_url=server_with_limits.base_url, headers=key, timeout=30) as made:
        yield made


def until_refused(
    caller: httpx.Client, method: str = "GET", path: str = CUSTOMERS, body: Json | None = None, **more: str
) -> list[httpx.Response]:
    """The same request again and again; the last answer is the first 429."""
    answers: list[httpx.Response] = []
    while not answers or answers[-1].status_code != 429:
        assert len(answers) < 10 * AT_ONCE, "nothing is ever refused"
        answers.append(caller.request(method, path, json=body, headers=more))
    return answers


def told(answer: httpx.Response) -> dict[str, int]:
    return {name: int(answer.headers[name]) for name in TELLING}


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_one_request_too_many_is_refused_and_every_answer_says_how_the_key_stands(
    caller: httpx.Client, method: str, path: str, body: Json | None
) -> None:
    *passed, refused = until_refused(caller, method, path, body)
    assert len(passed) >= AT_ONCE
    assert all(each.is_success for each in passed), [each.text for each in passed]
    assert told(passed[0]) == {
        "ratelimit-limit": AT_ONCE,
        "ratelimit-remaining": AT_ONCE - 1,
        "ratelimit-reset": 1,
    }
    assert told(passed[-1])["ratelimit-remaining"] == 0
    assert not any("retry-after" in each.headers for each in passed)
    refusal(refused, 429, "rate_limited")
    assert int(refused.headers["retry-after"]) == 1
    assert told(refused)["ratelimit-limit"] == AT_ONCE
    assert told(refused)["ratelimit-remaining"] == 0
    assert 1 <= told(refused)["ratelimit-reset"] <= AT_ONCE


def test_a_refused_request_does_nothing(caller: httpx.Client, shop: Organization, database_url: str) -> None:
    before = count_events(database_url, shop), people(shop)
    *tracked, _ = until_refused(caller, "POST", TRACK, EVENT)
    *batches, _ = until_refused(caller, "POST", BATCH, {"events": [EVENT] * 3})
    *created, _ = until_refused(caller, "POST", CUSTOMERS, {"email": "a@b.c"})
    after = count_events(database_url, shop), people(shop)
    assert after == (before[0] + len(tracked) + 3 * len(batches), before[1] + len(created))


def people(shop: Organization) -> int:
    return len(done(shop.http.get(CUSTOMERS, params={"limit": "100"}))["data"])


def test_what_one_key_uses_up_another_still_has(
    caller: httpx.Client, server_with_limits: Server, shop: Organization
) -> None:
    until_refused(caller)
    other = {"x-api-key": another_key(shop)}
    answer = caller.get(CUSTOMERS, headers=other)
    assert (answer.status_code, told(answer)["ratelimit-remaining"]) == (200, AT_ONCE - 1)


@pytest.mark.parametrize(("method", "path", "body"), ROUTES[:3])
def test_whoever_waits_as_long_as_they_were_told_is_let_through(
    caller: httpx.Client, method: str, path: str, body: Json | None
) -> None:
    refused = until_refused(caller, method, path, body)[-1]
    time.sleep(int(refused.headers["retry-after"]))
    assert caller.request(method, path, json=body).is_success


def test_hot_and_ordinary_routes_draw_on_one_limit(caller: httpx.Client) -> None:
    began = time.monotonic()
    passed = 0
    for _ in range(3 * AT_ONCE):
        passed += caller.post(TRACK, json=EVENT).is_success
        passed += caller.get(CUSTOMERS).is_success
    assert AT_ONCE <= passed <= AT_ONCE + PER_SECOND * (time.monotonic() - began)


def test_a_batch_is_one_request(caller: httpx.Client) -> None:
    answer = caller.post(BATCH, json={"events": [EVENT] * EVENTS_PER_BATCH_MAX})
    assert len(done(answer)["successful"]) == EVENTS_PER_BATCH_MAX
    assert told(answer)["ratelimit-remaining"] == AT_ONCE - 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", f"{CUSTOMERS}/nobody", None, 404),
        ("POST", TRACK, {**EVENT, "customerId": "nobody"}, 404),
        ("POST", BATCH, {"events": "many"}, 400),
        ("POST", CUSTOMERS, {"email": "nobody"}, 400),
    ],
)
def test_a_request_that_is_wrong_counts_and_its_answer_tells_too(
    caller: httpx.Client, method: str, path: str, body: Json | None, status: int
) -> None:
    *wrong, _ = until_refused(caller, method, path, body)
    assert {each.status_code for each in wrong} == {status}
    assert told(wrong[0])["ratelimit-remaining"] == AT_ONCE - 1


@pytest.mark.parametrize(("method", "path", "body"), ROUTES[:3])
@pytest.mark.parametrize(
    ("prefix", "version"), [("/api", None), (API, "2026-05-01"), (API, "2026-07-11"), (API, "2026-08-27")]
)
def test_older_callers_are_refused_in_a_shape_they_know(
    caller: httpx.Client, method: str, path: str, body: Json | None, prefix: str, version: str | None
) -> None:
    headers = {} if version is None else {"commet-version": version}
    refused = until_refused(caller, method, path.replace(API, prefix), body, **headers)[-1]
    refusal(refused, 429, "rate_limited")
    flat = refused.json()
    assert (flat["success"], flat["code"], flat["details"]) == (False, "rate_limited", None)
    assert "try again in 1 s" in flat["message"]
    assert {"retry-after", *TELLING} <= set(refused.headers)
    assert ("deprecation" in refused.headers) is (prefix == "/api")


def test_who_is_not_known_is_not_counted_and_told_nothing(server_with_limits: Server) -> None:
    wrong = {"x-api-key": "ck_sandbox_" + "a" * 43}
    with httpx.Client(base_url=server_with_limits.base_url, headers=wrong) as stranger:
        for _ in range(2 * AT_ONCE):
            for answer in (
                stranger.get(CUSTOMERS),
                stranger.post(TRACK, json=EVENT),
            ):
                refusal(answer, 401, "unauthorized")
                assert not TELLING & set(answer.headers)


def test_what_needs_no_key_has_no_limit(server_with_limits: Server) -> None:
    for path in ("/health/live", "/metrics", "/api/openapi.json"):
        for _ in range(2 * AT_ONCE):
            answer = httpx.get(server_with_limits.base_url + path)
            assert answer.status_code == 200
            assert not TELLING & set(answer.headers)


def test_a_limit_that_is_off_is_not_mentioned(shop: Organization) -> None:
    answers = [track(shop) for _ in range(2 * AT_ONCE)]
    answers += [shop.http.get(CUSTOMERS) for _ in range(2 * AT_ONCE)]
    assert all(each.is_success for each in answers)
    assert not any(TELLING & set(each.headers) for each in answers)


def test_processes_share_the_limit_between_them(pair_with_limits: Server, shop: Organization) -> None:
    """Connections are dealt out by the kernel, so many of them meet both processes."""
    key = {"x-api-key": another_key(shop)}
    began = time.monotonic()
    answers = [httpx.get(f"{pair_with_limits.base_url}{API}/customers", headers=key) for _ in range(40)]
    within_s = time.monotonic() - began
    assert {told(each)["ratelimit-limit"] for each in answers} == {AT_ONCE // 2}
    passed = sum(each.is_success for each in answers)
    assert AT_ONCE <= passed <= AT_ONCE + PER_SECOND * within_s


# What a process remembers, and what an operator may say ------------------------------------------------


def test_a_bucket_that_is_full_again_is_forgotten() -> None:
    now = 5 * NANOSECONDS
    held = RateLimits(Throttle(per_second=1, burst=2), lambda: now)
    for each in range(1_000):
        held.admit(UUID(int=each), [])
    assert len(held) == 1_000
    now += NANOSECONDS // 2
    held.admit(UUID(int=0), [])
    now += NANOSECONDS // 2
    held.admit(UUID(int=5_000), [])
    assert len(held) == 2
    with pytest.raises(Problem):
        for _ in range(2):
            held.admit(UUID(int=0), [])


def test_there_are_never_more_buckets_than_may_be_kept() -> None:
    held = RateLimits(Throttle(per_second=1, burst=1), lambda: NANOSECONDS)
    for each in range(RATE_BUCKETS_KEPT_MAX + 10):
        held.admit(UUID(int=each), [])
    assert len(held) == RATE_BUCKETS_KEPT_MAX
    held.admit(UUID(int=0), [])  # the first was let off
    with pytest.raises(Problem):
        held.admit(UUID(int=RATE_BUCKETS_KEPT_MAX), [])


@pytest.mark.parametrize(
    ("said", "rate", "burst"),
    [
        ({}, 0, 0),
        ({"TALLYSTICK_RATE_LIMIT": "0"}, 0, 0),
        ({"TALLYSTICK_RATE_LIMIT": "50"}, 50, 100),
        ({"TALLYSTICK_RATE_LIMIT": "50", "TALLYSTICK_RATE_BURST": "1"}, 50, 1),
        ({"TALLYSTICK_RATE_LIMIT": str(RATE_LIMIT_MAX)}, RATE_LIMIT_MAX, RATE_BURST_MAX),
    ],
)
def test_the_burst_is_twice_the_rate_unless_told_otherwise(
    said: dict[str, str], rate: int, burst: int, tmp_path: Path
) -> None:
    found = settings.load(said, dotenv=tmp_path / "none")
    assert (found.rate_limit, found.rate_burst) == (rate, burst)


@pytest.mark.parametrize("wrong", ["-1", "1.5", "ten", "٣", str(RATE_BURST_MAX + 1), "9" * 5000])
@pytest.mark.parametrize("name", ["TALLYSTICK_RATE_LIMIT", "TALLYSTICK_RATE_BURST"])
def test_a_limit_that_is_no_number_is_refused_by_name(name: str, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(settings.BadSetting, match=name):
        settings.load({"TALLYSTICK_RATE_LIMIT": "10", name: wrong}, dotenv=tmp_path / "none")


def test_a_burst_of_nothing_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    environment = {**os.environ, "TALLYSTICK_RATE_LIMIT": "10", "TALLYSTICK_RATE_BURST": "0"}
    tried = subprocess.run(
        [str(PROGRAM), "serve"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert tried.returncode == 1
    assert "TALLYSTICK_RATE_BURST must be a whole number from 1" in tried.stderr
