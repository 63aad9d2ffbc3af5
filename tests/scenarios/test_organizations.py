"""Organizations as an operator changes them: what was changed is so at once, in every process that serves."""

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tallystick.api import versions
from tallystick.flows.open_organization import change_organization
from tallystick.store.db import Database
from tests.audit import count_events, organization_id
from tests.conftest import PROGRAM, MakeOrganization, Organization, Server, beside_the_server, serving
from tests.scenarios.wire import Json, json_of, refusal
from tests.shop import API, done, open_shop, set_clock, subscribe, track

CUSTOMERS, TRACK, BATCH = f"{API}/customers", f"{API}/usage/events", f"{API}/usage/events/batch"
EVENT = {"customerId": "ada", "featureCode": "api_calls"}
ENVELOPED, BARE = "2026-07-11", "2026-07-24"


@pytest.fixture(scope="module")
def pair(database_url: str) -> Iterator[Server]:
    """Two more processes on the server's database."""
    with serving(database_url, workers=2) as running:
        yield running


@pytest.fixture
def shop(make_organization: MakeOrganization) -> Organization:
    made = make_organization()
    open_shop(made, "ada")
    return made


def tallystick(database_url: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAM), "organizations", *words, "--database-url", database_url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


Change = Callable[..., None]


@pytest.fixture
def change(shop: Organization, database_url: str) -> Change:
    def act(**changes: str | None) -> None:
        async def inside(database: Database) -> None:
            async with database.transaction() as conn:
                await change_organization(conn, organization_id=organization_id(shop), changes=changes)

        beside_the_server(database_url, inside)

    return act


def shape(answer: httpx.Response) -> str:
    body = json_of(answer)
    assert answer.is_success, body
    return "envelope" if "success" in body else "bare"


def asked(caller: httpx.Client, **headers: str) -> list[httpx.Response]:
    """Every kind of route: both hot ones, what is read, what is written."""
    return [
        caller.post(TRACK, json=EVENT, headers=headers),
        caller.post(BATCH, json={"events": [EVENT, {}]}, headers=headers),
        caller.post(BATCH, json={"events": [{}]}, headers=headers),
        caller.get(CUSTOMERS, headers=headers),
        caller.get(f"{CUSTOMERS}/ada", headers=headers),
        caller.post(f"{API}/usage/check", json=EVENT, headers=headers),
        caller.post(CUSTOMERS, json={"email": "a@b.c"}, headers=headers),
    ]


def shapes(caller: httpx.Client, **headers: str) -> set[str]:
    return {shape(each) for each in asked(caller, **headers)}


# Pinned versions -------------------------------------------------------------------------------------------


def test_a_pinned_organization_is_answered_in_its_version_unless_a_request_names_another(
    shop: Organization, change: Change
) -> None:
    assert shapes(shop.http) == {"bare"}
    change(api_version=ENVELOPED)
    assert shapes(shop.http) == {"envelope"}
    event = json_of(shop.http.post(TRACK, json=EVENT))["data"]
    assert (event["feature"], event["organizationId"]) == ("api_calls", shop.id)
    assert shapes(shop.http, **{"commet-version": versions.CURRENT}) == {"bare"}
    assert shapes(shop.http, **{"commet-version": BARE}) == {"bare"}
    assert shapes(shop.http, **{"commet-version": "2026-05-01"}) == {"envelope"}
    change(api_version=BARE)
    assert shapes(shop.http) == {"bare"}
    assert shapes(shop.http, **{"commet-version": ENVELOPED}) == {"envelope"}


def test_the_old_prefix_speaks_as_ever(shop: Organization, change: Change) -> None:
    change(api_version=BARE)
    for answer in (shop.http.get("/api/customers"), shop.http.post("/api/usage/events", json=EVENT)):
        assert shape(answer) == "envelope"


def test_a_pin_shows_at_once_in_every_process(
    server: Server, pair: Server, shop: Organization, change: Change
) -> None:
    """Each client keeps its connection, and so its process; the kernel deals them out."""
    key = {"x-api-key": shop.api_key}
    callers = [httpx.Client(base_url=each.base_url, headers=key) for each in (server, *[pair] * 12)]
    for version, expected in ((ENVELOPED, "envelope"), (None, "bare"), (ENVELOPED, "envelope")):
        change(api_version=version)
        with ThreadPoolExecutor(len(callers)) as threads:
            found = list(threads.map(shapes, callers))
        assert found == [{expected}] * len(callers)
    for caller in callers:
        caller.close()


FIRST: dict[str, Callable[[Organization], httpx.Response]] = {
    "stores": lambda shop: track(shop),
    "stores many": lambda shop: shop.http.post(BATCH, json={"events": [EVENT]}),
    "stores nothing": lambda shop: shop.http.post(BATCH, json={"events": [{}]}),
    "repeats": lambda shop: track(shop, key="e-1", header="once"),
    "reads": lambda shop: shop.http.get(CUSTOMERS),
}


@pytest.mark.parametrize("request_that", FIRST)
def test_the_very_first_answer_after_a_change_knows_of_it(
    shop: Organization, change: Change, request_that: str
) -> None:
    ask = FIRST[request_that]
    assert shape(ask(shop)) == "bare"
    change(api_version=ENVELOPED)
    assert shape(ask(shop)) == "envelope"
    change(api_version=None)
    assert shape(ask(shop)) == "bare"


def test_a_refusal_names_fields_as_the_pin_spells_them(shop: Organization, change: Change) -> None:
    wrong = {"customerId": "ada", "featureCode": "A B"}

    def told() -> list[Any]:
        one = refusal(shop.http.post(TRACK, json=wrong), 400, "validation_error")
        checked = refusal(shop.http.post(f"{API}/usage/check", json=wrong), 400, "validation_error")
        again = refusal(track(shop, key="taken"), 409, "duplicate")
        batch = json_of(shop.http.post(BATCH, json={"events": [wrong]}))
        (failed,) = batch.get("data", batch)["failed"]
        assert failed["details"] == one["details"]
        assert failed["param"] == one["param"]
        pages = {each["doc_url"].split("/")[-3] for each in (one, again, checked)}
        return [one["details"][0]["field"], checked["param"], again["param"], *pages]

    done(track(shop, key="taken"))
    assert told() == ["featureCode", "featureCode", "eventId", versions.CURRENT]
    change(api_version=ENVELOPED)
    assert told() == ["feature", "feature", "idempotencyKey", ENVELOPED]
    change(api_version=None)
    assert told() == ["featureCode", "featureCode", "eventId", versions.CURRENT]


def test_no_event_is_lost_or_doubled_while_the_pin_moves(
    shop: Organization, change: Change, database_url: str
) -> None:
    before = count_events(database_url, shop)
    with ThreadPoolExecutor(5) as threads:
        sending = [threads.submit(track, shop, key=f"e-{each}") for each in range(200)]
        for version in (ENVELOPED, None, ENVELOPED):
            change(api_version=version)
        assert {each.result().status_code for each in sending} == {201}
    assert count_events(database_url, shop) == before + 200
    assert shapes(shop.http) == {"envelope"}


def test_a_pin_that_no_version_has_is_the_current_one(shop: Organization, change: Change) -> None:
    """As after going back to a release that does not know it."""
    change(api_version="2026-07-12")
    assert shapes(shop.http) == {"bare"}
    error = refusal(shop.http.get(f"{CUSTOMERS}/nobody"), 404, "customer_not_found")
    assert f"/{versions.CURRENT}/" in error["doc_url"]


def test_an_operator_pins_a_version_and_lets_it_go(shop: Organization, database_url: str) -> None:
    for version, speaks in ((ENVELOPED, "envelope"), ("current", "bare")):
        ran = tallystick(database_url, "update", shop.id, "--api-version", version)
        assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
        assert version in ran.stderr
        assert shapes(shop.http) == {speaks}


@pytest.mark.parametrize("wrong", ["2026-07-12", "latest", "", "2026-7-11", "[/x]"])
def test_a_version_that_is_not_known_is_refused_with_those_that_are(
    shop: Organization, database_url: str, wrong: str
) -> None:
    ran = tallystick(database_url, "update", shop.id, "--api-version", wrong, "--name", "Changed")
    assert ran.returncode == 1
    assert all(each in ran.stderr for each in (repr(wrong), *versions.KNOWN, "current"))
    assert shapes(shop.http) == {"bare"}


# Names and time zones --------------------------------------------------------------------------------------


def test_a_new_time_zone_counts_from_the_next_period_on(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization(clock="2026-01-10T12:00:00Z")
    open_shop(shop)
    held = subscribe(shop, "ada")
    ran = tallystick(database_url, "update", shop.id, "--timezone", "America/New_York")
    assert ran.returncode == 0, ran.stderr
    assert period_end(shop, held) == "2026-02-10T00:00:00.000Z"
    set_clock(shop, "2026-02-10T01:00:00Z")
    assert period_end(shop, held) == "2026-03-10T04:00:00.000Z"


def test_grace_keeps_the_invoice_open_for_what_is_a_little_late(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization(clock="2026-01-10T12:00:00Z")
    open_shop(shop)
    assert tallystick(database_url, "update", shop.id, "--grace", "7200").returncode == 0
    subscribe(shop, "ada")
    issued = "/api/v1/invoices?customerId=ada"
    set_clock(shop, "2026-02-10T01:59:59Z")
    assert len(done(shop.http.get(issued))["data"]) == 1
    set_clock(shop, "2026-02-10T02:00:00Z")
    assert len(done(shop.http.get(issued))["data"]) == 2


def period_end(shop: Organization, held: Json) -> str:
    found: str = done(shop.http.get(f"{API}/subscriptions/{held['id']}"))["currentPeriod"]["end"]
    return found


def test_what_was_changed_is_listed(shop: Organization, database_url: str) -> None:
    told = ("[b]Ünïcode[/] & Sons", "Asia/Kathmandu", BARE)
    flags = ("--name", told[0], "--timezone", told[1], "--api-version", told[2])
    said = json.loads(tallystick(database_url, "update", shop.id, *flags, "--json").stdout)
    assert (said["name"], said["timezone"], said["apiVersion"]) == told
    listed = json.loads(tallystick(database_url, "list", "--json").stdout)
    assert [each for each in listed if each["organizationId"] == shop.id] == [said]
    table = tallystick(database_url, "list").stdout.splitlines()
    (row,) = [line for line in table if shop.id in line]
    assert all(each in row for each in (*told, "sandbox"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to change"),
        (["--name", "  "], "name"),
        (["--name", "n" * 201], "name"),
        (["--timezone", "Mars/Olympus"], "'Mars/Olympus' is not an IANA time zone"),
        (["--timezone", ""], "is not an IANA time zone"),
        (["--grace", "soon"], "not a number of seconds"),
        (["--grace", "604801"], "up to 604800"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    shop: Organization, database_url: str, options: list[str], said: str
) -> None:
    before = tallystick(database_url, "list", "--json").stdout
    ran = tallystick(database_url, "update", shop.id, *options)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert tallystick(database_url, "list", "--json").stdout == before


def test_an_organization_that_is_not_there_is_named(database_url: str) -> None:
    for nobody in ("org_00000000000000000000000000", "nobody", "[/x]"):
        ran = tallystick(database_url, "update", nobody, "--name", "Anybody")
        assert ran.returncode == 1
        assert f"there is no organization {nobody}" in ran.stderr
