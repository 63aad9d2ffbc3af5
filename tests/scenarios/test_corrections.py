"""Corrections: what was reported wrongly is taken back or replaced; the events stay, the invoices stay, money follows."""

from decimal import Decimal
from typing import Any

import pytest

from tests.audit import audit
from tests.conftest import MakeOrganization, Organization
from tests.shop import (
    API,
    Json,
    add_customer,
    add_feature,
    add_plan,
    done,
    hard_limit,
    overage,
    refused,
    set_clock,
    subscribe,
)

METERS: dict[str, Json] = {
    "calls": {},
    "requests": {"aggregation": "count", "eventCode": "calls"},
    "people": {"aggregation": "unique", "aggregationProperty": "user", "eventCode": "calls"},
    "peak": {"aggregation": "max", "eventCode": "calls"},
    "level": {"aggregation": "latest", "eventCode": "calls"},
    "from_eu": {
        "eventCode": "calls",
        "filters": [{"property": "region", "operator": "equals", "value": "eu"}],
    },
}


@pytest.fixture
def shop(make_organization: MakeOrganization) -> Organization:
    made = make_organization(clock="2026-01-10T09:00:00Z")
    for code, meter in METERS.items():
        add_feature(made, code, **meter)
    add_plan(made, promises={code: overage("0.01") for code in METERS})
    add_customer(made, "ada")
    subscribe(made, "ada")
    return made


def track(shop: Organization, value: int, when: str, *, user: str = "u1", region: str = "eu") -> str:
    body = {
        "customerId": "ada",
        "featureCode": "calls",
        "value": value,
        "timestamp": when,
        "properties": {"user": user, "region": region},
    }
    found: str = done(shop.http.post(f"{API}/usage/events", json=body))["id"]
    return found


def void(shop: Organization, event: str, **body: Any) -> Json:
    return done(shop.http.request("DELETE", f"{API}/usage/events/{event}", json=body))


def used(shop: Organization) -> dict[str, Decimal]:
    found = done(shop.http.get(f"{API}/feature-access?customerId=ada"))["data"]
    return {each["code"]: Decimal(str(each["consumption"]["unitsUsed"])) for each in found}


def invoices(shop: Organization) -> list[Json]:
    listed = done(shop.http.get(f"{API}/invoices?customerId=ada"))["data"]
    return [done(shop.http.get(f"{API}/invoices/{each['id']}")) for each in reversed(listed)]


def lines(invoice: Json, feature: str) -> list[int]:
    return [each["amount"] for each in invoice["lineItems"] if each["featureName"] == feature]


def every_invoice_verifies(shop: Organization) -> None:
    for invoice in invoices(shop):
        report = done(shop.http.post(f"{API}/invoices/{invoice['id']}/verify"))
        assert (report["status"], report["firstDifference"]) == ("verified", None)


def correct(shop: Organization, **body: Any) -> Json:
    given = {"customerId": "ada", "featureCode": "calls", **body}
    return done(shop.http.post(f"{API}/usage/corrections", json=given))


def test_an_event_taken_back_counts_no_more_and_is_kept(shop: Organization, database_url: str) -> None:
    set_clock(shop, "2026-01-12T00:00:00Z")
    track(shop, 5, "2026-01-11T10:00:00Z", user="u1")
    wrong = track(shop, 70, "2026-01-11T10:30:00Z", user="u2")
    track(shop, 3, "2026-01-11T11:00:00Z", user="u1", region="us")
    assert used(shop) == {"calls": 78, "requests": 3, "people": 2, "peak": 70, "level": 3, "from_eu": 75}
    taken = void(shop, wrong, reason="a test run")
    assert taken["voided"] is True
    assert used(shop) == {"calls": 8, "requests": 2, "people": 1, "peak": 5, "level": 3, "from_eu": 5}
    assert done(shop.http.get(f"{API}/usage/events/{wrong}"))["voided"] is True
    newest = done(shop.http.get(f"{API}/usage/events"))["data"][0]
    assert (newest["kind"], newest["voids"], newest["reason"]) == ("void", wrong, "a test run")
    audit(database_url, shop)


def test_taking_it_back_twice_changes_nothing_more(shop: Organization) -> None:
    set_clock(shop, "2026-01-12T00:00:00Z")
    wrong = track(shop, 70, "2026-01-11T10:30:00Z")
    assert void(shop, wrong) == void(shop, wrong)
    assert used(shop)["calls"] == 0
    the_void = done(shop.http.get(f"{API}/usage/events"))["data"][0]["id"]
    refused(shop.http.request("DELETE", f"{API}/usage/events/{the_void}", json={}), 400, "validation_error")


def test_the_newest_value_steps_back_to_the_one_before(shop: Organization) -> None:
    set_clock(shop, "2026-01-13T00:00:00Z")
    track(shop, 5, "2026-01-11T10:00:00Z")
    newest = track(shop, 9, "2026-01-12T10:00:00Z")
    assert used(shop)["level"] == 9
    void(shop, newest)
    assert [used(shop)[each] for each in ("level", "peak")] == [Decimal(5), Decimal(5)]


def test_what_was_billed_comes_back_on_the_next_invoice(shop: Organization, database_url: str) -> None:
    set_clock(shop, "2026-02-09T00:00:00Z")
    track(shop, 500, "2026-02-01T10:00:00Z")
    wrong = track(shop, 300, "2026-02-02T10:00:00Z", user="u2")
    set_clock(shop, "2026-02-11T00:00:00Z")
    issued = invoices(shop)
    assert lines(issued[-1], "calls") == [800]
    void(shop, wrong)
    set_clock(shop, "2026-03-11T00:00:00Z")
    *kept, newest = invoices(shop)
    assert kept == issued, "issued invoices never change"
    assert (lines(newest, "calls"), lines(newest, "requests"), lines(newest, "people")) == (
        [-300],
        [-1],
        [-1],
    )
    (late,) = done(shop.http.get(f"{API}/usage/late-events"))["data"]
    assert {each["outcome"] for each in late["decisions"]} <= {"billed", "no_charge"}
    every_invoice_verifies(shop)
    audit(database_url, shop)


def test_a_hard_limit_has_room_again(make_organization: MakeOrganization) -> None:
    shop = make_organization(clock="2026-01-10T09:00:00Z")
    add_feature(shop, "calls")
    add_plan(shop, promises={"calls": hard_limit(10)})
    add_customer(shop, "ada")
    subscribe(shop, "ada")
    event = done(
        shop.http.post(f"{API}/usage/events", json={"customerId": "ada", "featureCode": "calls", "value": 10})
    )
    body = {"customerId": "ada", "featureCode": "calls", "value": 4}
    refused(shop.http.post(f"{API}/usage/events", json=body), 402, "included_limit_reached")
    void(shop, event["id"])
    done(shop.http.post(f"{API}/usage/events", json=body))


def test_a_range_is_replaced_as_the_dry_run_said_and_taken_back(
    shop: Organization, database_url: str
) -> None:
    set_clock(shop, "2026-02-09T00:00:00Z")
    for day in range(1, 6):
        track(shop, 100, f"2026-02-0{day}T10:00:00Z", user=f"u{day}")
    set_clock(shop, "2026-02-12T00:00:00Z")
    issued = invoices(shop)
    assert lines(issued[-1], "calls") == [500]
    asked: Json = {
        "start": "2026-02-02T00:00:00Z",
        "end": "2026-02-05T00:00:00Z",
        "events": [
            {"timestamp": "2026-02-03T00:00:00Z", "value": 50, "properties": {"user": "u9", "region": "eu"}}
        ],
        "reason": "the collector sent everything twice",
    }
    foreseen = correct(shop, dryRun=True, **asked)
    assert (foreseen["id"], foreseen["dryRun"], len(foreseen["voided"])) == (None, True, 3)
    assert invoices(shop) == issued
    assert done(shop.http.get(f"{API}/usage/corrections"))["data"] == []
    amounts = {each["featureName"]: each["amount"] for each in foreseen["impact"]["closedPeriods"]}
    assert (amounts["calls"], amounts["requests"], amounts["people"]) == (-250, -2, -2)
    made = correct(shop, **asked)
    assert made["impact"] == foreseen["impact"]
    assert done(shop.http.get(f"{API}/usage/corrections/{made['id']}"))["added"] == made["added"]
    set_clock(shop, "2026-03-12T00:00:00Z")
    *kept, credited = invoices(shop)
    assert kept == issued
    assert {
        each["featureName"]: each["amount"] for each in credited["lineItems"] if each["featureName"]
    } == amounts
    taken_back = done(shop.http.post(f"{API}/usage/corrections/{made['id']}/revert", json={}))
    assert taken_back["reverts"] == made["id"]
    refused(shop.http.post(f"{API}/usage/corrections/{made['id']}/revert", json={}), 409, "duplicate")
    set_clock(shop, "2026-04-12T00:00:00Z")
    again = invoices(shop)[-1]
    assert {
        each["featureName"]: -each["amount"] for each in again["lineItems"] if each["featureName"]
    } == amounts
    every_invoice_verifies(shop)
    audit(database_url, shop)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"start": "2026-01-10T09:00:00Z", "end": "2026-01-11T09:00:00Z"}, "end"),  # the future
        ({"start": "2026-01-10T09:00:00Z", "end": "2026-01-10T09:00:00Z"}, "end"),
        ({"start": "soon", "end": "2026-01-10T09:00:00Z"}, "start"),
        (
            {"start": "2026-01-09T09:00:00Z", "end": "2026-01-10T08:00:00Z"},
            "start",
        ),  # nothing there, nothing put
        (
            {"start": "2026-01-09T09:00:00Z", "end": "2026-01-10T08:00:00Z", "events": [{"value": 1}]},
            "events[0].timestamp",
        ),
        (
            {
                "start": "2026-01-09T09:00:00Z",
                "end": "2026-01-10T08:00:00Z",
                "events": [{"value": -1, "timestamp": "2026-01-10T07:00:00Z"}, 5],
            },
            "events[0].value",
        ),
    ],
)
def test_a_wrong_correction_is_told_and_changes_nothing(shop: Organization, wrong: Json, field: str) -> None:
    body = {"customerId": "ada", "featureCode": "calls", **wrong}
    error = refused(shop.http.post(f"{API}/usage/corrections", json=body), 400, "validation_error")
    assert field in [each["field"] for each in error["details"]]
    assert done(shop.http.get(f"{API}/usage/corrections"))["data"] == []
