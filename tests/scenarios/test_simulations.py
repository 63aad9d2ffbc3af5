"""Simulations over HTTP: what past usage would have cost, held against a twin that lived through it that way."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tallystick.api import wire
from tallystick.api.simulations import Simulate, show, wish_of
from tallystick.core import ids, limits
from tallystick.core.times import parse_instant
from tallystick.flows import simulate as flow
from tallystick.store import organizations
from tallystick.store.db import Database
from tests.audit import organization_id, select
from tests.conftest import MakeOrganization, Organization, Server, beside_the_server, open_one
from tests.scenarios.wire import everything, refusal
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    every,
    hard_limit,
    invoices_of,
    open_shop,
    overage,
    own_id,
    set_clock,
    subscribe,
    track,
    track_batch,
)

START = "2025-01-15T10:00:00Z"
NOW = "2025-04-20T12:00:00Z"
GRADUATED = {
    "model": "graduated",
    "tiers": [{"upTo": "100", "unitAmount": "0.013"}, {"upTo": None, "unitAmount": "0.0071"}],
}
OpenAt = Callable[[str], Organization]


def simulate(shop: Organization, **asked: Any) -> Json:
    body = {"start": START, "end": NOW, **asked}
    answer = shop.http.post(f"{API}/simulations", json=body)
    assert answer.status_code == 201, answer.text
    report: Json = answer.json()
    hold_together(report)
    assert done(shop.http.get(f"{API}/simulations/{report['id']}")) == report
    return report


def put(price: Json | None = None, plan: str = "pro", feature: str = "api_calls", **more: Any) -> Json:
    return {"planCode": plan, "featureCode": feature, **more} | ({"price": price} if price else {})


def per_unit(amount: str) -> Json:
    return {"model": "per_unit", "unitAmount": amount}


AMOUNTS = ("oldAmount", "newAmount", "difference")


def hold_together(report: Json) -> None:
    """Every sum of a report is the sum of its parts."""
    people = report["customers"]
    for each in (*people, *report["totals"]):
        parts = [*each["features"], *(each[name] for name in ("base", "planMinimum") if each[name])]
        for name in AMOUNTS:
            assert each[name] == sum(part[name] for part in parts)
        assert each["difference"] == each["newAmount"] - each["oldAmount"]
    for total in report["totals"]:
        held = [each for each in people if each["currency"] == total["currency"]]
        for name in (*AMOUNTS, "periods", "openPeriods"):
            assert total[name] == sum(each[name] for each in held)
        assert total["customers"] == len(held) == total["winners"] + total["losers"] + total["same"]
    for name in ("winners", "losers", "same", "periods", "openPeriods"):
        assert report[name] == sum(total[name] for total in report["totals"])
    differences = [each["difference"] for each in people]
    assert differences == sorted(differences)


def of(report: Json, customer: str) -> Json:
    (found,) = [each for each in report["customers"] if each["customerId"] == customer]
    result: Json = found
    return result


def new_amounts(report: Json) -> dict[str, int]:
    return {each["customerId"]: each["newAmount"] for each in report["customers"]}


def usage_invoiced(shop: Organization, customer: str) -> int:
    """What all lines say of usage, those of the invoice to come included."""
    said = [line for each in invoices_of(shop, customer) for line in each["lineItems"]]
    for each in done(shop.http.get(f"{API}/subscriptions?customerId={customer}"))["data"]:
        if each["status"] == "active":
            said += done(shop.http.get(f"{API}/subscriptions/{each['id']}/upcoming-invoice"))["lineItems"]
    return sum(line["amount"] for line in said if line["lineType"] == "feature_overage")


# Twins ----------------------------------------------------------------------------------------------------

PEOPLE: dict[str, Json] = {
    "ada": {},
    "bob": {"timezone": "Asia/Kathmandu"},
    "cleo": {"timezone": "America/Los_Angeles"},
    "dora": {},
    "idle": {},
}
COMES, LEAVES = "2025-02-08T10:00:00Z", "2025-03-04T12:34:56.789Z"
LATE = "ada-10"


def instant(text: str) -> datetime:
    found = parse_instant(text)
    assert found is not None
    return found


def usage() -> list[tuple[datetime, Json]]:
    """What everybody uses, in order: every nineteen hours somebody something."""
    found = []
    for number in range(116):
        at = instant(START) + number * timedelta(hours=19, minutes=7, milliseconds=11)
        name = ("ada", "bob", "cleo", "dora")[number % 4]
        if (name == "cleo" and at < instant(COMES)) or (name == "dora" and at >= instant(LEAVES)):
            continue
        event: Json = {
            "featureCode": "api_calls",
            "customerId": name,
            "eventId": f"{name}-{number // 4}",
            "value": number * 7 % 53 + 0.25,
            "timestamp": at.isoformat(),
            "properties": [{"property": "region", "value": f"r{number % 9}"}],
        }
        found.append((at, event))
    return found


def live(shop: Organization, plan: str = "pro", **more: Any) -> None:
    """Three months: three periods of most, somebody who comes and somebody who goes, and an event that is late."""
    for name in ("ada", "bob", "dora", "idle"):
        subscribe(shop, name, plan, customer=PEOPLE[name], **more)
    waiting = usage()
    for moment in (
        COMES,
        "2025-02-14T12:00:00Z",
        LEAVES,
        "2025-03-14T12:00:00Z",
        "2025-04-14T12:00:00Z",
        NOW,
    ):
        set_clock(shop, moment)
        if moment == COMES:
            subscribe(shop, "cleo", plan, customer=PEOPLE["cleo"], **more)
        happened = [event for at, event in waiting if at < instant(moment) and event["eventId"] != LATE]
        waiting = [each for each in waiting if each[1] not in happened]
        if happened:
            assert track_batch(shop, happened)["failed"] == []
        if moment == LEAVES:
            held = done(shop.http.get(f"{API}/subscriptions/active?customerId=dora"))
            done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
    ((_, late),) = waiting
    assert track_batch(shop, [late])["failed"] == []


def offer(shop: Organization, calls: Json, regions: Json, *, code: str = "pro", **more: Any) -> None:
    if not done(shop.http.get(f"{API}/features"))["data"]:
        add_feature(shop)
        add_feature(
            shop, "regions", eventCode="api_calls", aggregation="unique", aggregationProperty="region"
        )
    add_plan(shop, code, promises={"api_calls": calls, "regions": regions}, **more)


REGIONS = overage("0.40", included=2)


@pytest.mark.parametrize(
    ("terms", "change"),
    [
        ({"includedAmount": 100, "price": GRADUATED}, {"price": GRADUATED}),
        (overage("0.0007"), {"price": per_unit("0.0007"), "includedAmount": "0"}),
        (
            {"includedAmount": 100, "price": per_unit("0.02"), "minimumAmount": "3", "maximumAmount": "4.5"},
            {"overage": {"enabled": True, "unitPriceDecimal": "0.02"}, "minimumAmount": "3", "maximumAmount": "4.5"},
        ),
        ({"unlimited": True}, {"unlimited": True}),
        (
            {"price": {"model": "percentage", "basisPoints": "290", "fixedAmount": "0.30", "freeEvents": 1}},
            {"price": {"model": "percentage", "basisPoints": "290", "fixedAmount": "0.30", "freeEvents": 1}, "includedAmount": 0},
        ),
        (
            {"includedAmount": 100, "price": {"model": "package", "packageSize": "50", "packageAmount": "0.99"}},
            {"price": {"model": "package", "packageSize": "50", "packageAmount": "0.99"}},
        ),
    ],
    ids=["graduated", "included", "bounds", "unlimited", "percentage", "package"],
)  # fmt: skip
def test_a_price_that_had_been_so_from_the_beginning_costs_what_is_simulated(
    open_at: OpenAt, terms: Json, change: Json
) -> None:
    """Closed periods and open ones, who left, who came later, what arrived late: all as the twin's invoices say."""
    shop, twin = open_at(START), open_at(START)
    offer(shop, overage("0.011", included=100), REGIONS)
    offer(twin, terms, REGIONS)
    live(shop)
    live(twin)
    report = simulate(shop, planFeatures=[put(**change)])
    for name in PEOPLE:
        assert of(report, name)["oldAmount"] == usage_invoiced(shop, name), name
        assert of(report, name)["newAmount"] == usage_invoiced(twin, name), name
        assert of(report, name)["base"] is None
    assert (report["periods"], report["openPeriods"]) == (17, 4)
    assert report["winners"] + report["losers"] > 2
    assert [each["featureCode"] for each in of(report, "ada")["features"]] == ["api_calls", "regions"]
    unchanged = of(report, "ada")["features"][1]
    assert unchanged["difference"] == 0 < unchanged["oldAmount"]


@pytest.mark.parametrize("interval", ["monthly", "quarterly"])
def test_a_plan_that_everybody_had_been_on_costs_what_is_simulated_with_its_base(
    open_at: OpenAt, interval: str
) -> None:
    shop, twin = open_at(START), open_at(START)
    offer(shop, overage("0.011", included=100), REGIONS, interval=interval)
    offer(twin, overage("0.011", included=100), REGIONS, interval=interval)
    for each in (shop, twin):
        offer(each, overage("0.004"), REGIONS, code="team", price=900, interval="yearly")
        team = done(each.http.get(f"{API}/plans/team"))
        done(
            each.http.post(
                f"{API}/plans/{team['id']}/prices", json={"billingInterval": interval, "price": 4900}
            )
        )
    live(shop)
    live(twin, plan="team", billingInterval=interval)
    report = simulate(shop, planCode="team")
    for name in PEOPLE:
        for which, lived in (("oldAmount", shop), ("newAmount", twin)):
            bases = [
                line["amount"]
                for each in invoices_of(lived, name)
                for line in each["lineItems"]
                if line["lineType"] == "plan_base"
            ]
            assert of(report, name)["base"][which] == sum(bases)
            assert of(report, name)[which] == sum(bases) + usage_invoiced(lived, name)
    assert of(report, "idle")["outcome"] == "pays_more"
    assert report["asked"]["planCode"] == "team"


def test_both_together_are_the_plan_with_its_price_put_otherwise(open_at: OpenAt) -> None:
    shop, twin = open_at(START), open_at(START)
    for each, price in ((shop, "0.004"), (twin, "0.006")):
        offer(each, overage("0.011"), REGIONS)
        offer(each, overage(price, included=10), REGIONS, code="team", price=4900)
    live(shop)
    live(twin, plan="team")
    report = simulate(shop, planCode="team", planFeatures=[put(per_unit("0.006"), "team")])
    assert {
        name: of(report, name)["newAmount"] - of(report, name)["base"]["newAmount"] for name in PEOPLE
    } == {name: usage_invoiced(twin, name) for name in PEOPLE}


# The same, and otherwise -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lived(server: Server, database_url: str) -> Iterator[Organization]:
    """Three months are over; whoever simulates changes nothing of them."""
    shop = open_one(database_url, server.base_url, clock=START)
    offer(shop, overage("0.011", included=100), REGIONS)
    live(shop)
    yield shop
    shop.http.close()


def test_the_same_terms_change_nothing(lived: Organization) -> None:
    for asked in (
        {"planFeatures": [put(per_unit("0.011"))]},
        {"planFeatures": [put(per_unit("0.011"), includedAmount="100.0"), put(feature="regions", **REGIONS)]},
        {"planCode": "pro"},
    ):
        report = simulate(lived, **asked)
        assert (report["winners"], report["losers"], report["same"]) == (0, 0, 5)
        assert {each["outcome"] for each in report["customers"]} == {"same"}
        assert {each["differenceDecimal"] for each in report["customers"]} == {"0"}
        assert report["totals"][0]["oldAmount"] == report["totals"][0]["newAmount"] > 0


def test_nothing_is_kept_but_the_report(lived: Organization, database_url: str) -> None:
    def tables() -> list[tuple[Any, ...]]:
        return select(
            database_url,
            """SELECT (SELECT count(*) FROM invoices WHERE organization_id = %(id)s),
                      (SELECT count(*) FROM plan_features WHERE organization_id = %(id)s),
                      (SELECT count(*) FROM closed_periods WHERE organization_id = %(id)s),
                      (SELECT count(*) FROM changes WHERE organization_id = %(id)s),
                      (SELECT version FROM organization_heads WHERE organization_id = %(id)s),
                      (SELECT array_agg(s ORDER BY id) FROM subscriptions s WHERE organization_id = %(id)s)::text,
                      (SELECT count(*) FROM limit_counters)""".replace(
                "%(id)s", f"'{organization_id(lived)}'"
            ),
        )

    before, counted = everything(lived), tables()
    report = simulate(lived, planFeatures=[put(GRADUATED)])
    after = everything(lived)
    assert after.pop("simulations")[1:] == before.pop("simulations")
    assert (after, tables()) == (before, counted)
    assert report["createdAt"] == NOW.replace("Z", ".000Z")


def test_a_report_is_found_again_and_lists_leave_customers_out(lived: Organization) -> None:
    made = [simulate(lived, planFeatures=[put(per_unit(f"0.0{number}"))]) for number in range(1, 4)]
    found = list(every(lived, f"{API}/simulations"))
    assert [each["id"] for each in found[:3]] == [each["id"] for each in reversed(made)]
    for each, report in zip(found, reversed(made), strict=False):
        assert each == {name: value for name, value in report.items() if name != "customers"}
    page = done(lived.http.get(f"{API}/simulations?limit=2"))
    assert page["hasMore"] and page["nextCursor"] == page["data"][-1]["id"]


def test_a_request_that_is_repeated_with_its_key_is_simulated_once(lived: Organization) -> None:
    before = len(list(every(lived, f"{API}/simulations")))
    body = {"start": START, "end": NOW, "planFeatures": [put(GRADUATED)]}
    answers = [
        lived.http.post(f"{API}/simulations", json=body, headers={"Idempotency-Key": "once"})
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert len(list(every(lived, f"{API}/simulations"))) == before + 1


def test_only_some_customers(lived: Organization) -> None:
    whole = simulate(lived, planFeatures=[put(GRADUATED)])
    cleo = done(lived.http.get(f"{API}/customers/cleo"))
    some = simulate(lived, planFeatures=[put(GRADUATED)], customers=["ada", cleo["id"], "ada"])
    assert {each["customerId"]: each for each in some["customers"]} == {
        name: of(whole, name) for name in ("ada", "cleo")
    }
    assert some["asked"]["customers"] == ["ada", cleo["id"], "ada"]


@pytest.mark.parametrize(
    ("start", "end", "periods", "open_periods"),
    [
        ("2025-01-15", "2025-01-16", {"ada": 1, "bob": 1, "dora": 1, "idle": 1}, 0),
        # A period that is touched is looked at whole; its end is not of it.
        ("2025-02-14T23:59:59.999Z", "2025-02-15T00:00:00Z", {"ada": 1, "bob": 1, "cleo": 1, "dora": 1, "idle": 1}, 0),
        ("2025-02-15T00:00:00Z", "2025-02-15T00:00:00.001Z", {"ada": 1, "bob": 1, "cleo": 1, "dora": 1, "idle": 1}, 0),
        ("2025-02-14", "2025-02-15T00:00:00.001Z", {"ada": 2, "bob": 2, "cleo": 1, "dora": 2, "idle": 2}, 0),
        (LEAVES, "2025-03-08", {"ada": 1, "bob": 1, "cleo": 1, "idle": 1}, 0),
        ("2025-04-15", NOW, {"ada": 1, "bob": 1, "cleo": 1, "idle": 1}, 4),
    ],
)  # fmt: skip
def test_which_periods_are_looked_at(
    lived: Organization, start: str, end: str, periods: dict[str, int], open_periods: int
) -> None:
    report = simulate(lived, start=start, end=end, planFeatures=[put(GRADUATED)])
    assert {each["customerId"]: each["periods"] for each in report["customers"]} == periods
    assert report["openPeriods"] == open_periods


def test_amounts_are_rounded_line_by_line_with_the_exact_ones_beside_them(open_at: OpenAt) -> None:
    shop = open_at(START)
    open_shop(shop, "ada", terms=overage("0.001"))
    for month, value in (("01-20", 14), ("02-20", 15), ("03-20", 16)):
        set_clock(shop, f"2025-{month}T00:00:00Z")
        done(track(shop, value=value))
    set_clock(shop, NOW)
    report = simulate(shop, planFeatures=[put(per_unit("0.0011"))])
    told = of(report, "ada")
    assert (told["oldAmount"], told["oldAmountDecimal"]) == (1 + 2 + 2, "0.045")
    assert (told["newAmount"], told["newAmountDecimal"]) == (2 + 2 + 2, "0.0495")
    assert (told["difference"], told["differenceDecimal"]) == (1, "0.0045")
    assert (told["outcome"], report["losers"]) == ("pays_more", 1)


# Terms that change, plans that come and go ---------------------------------------------------------------


def test_what_a_price_was_in_each_period_is_what_it_is_compared_with(open_at: OpenAt) -> None:
    """Better at once, worse from the next period, at an instant of its own: the old amount is what was billed."""
    shop, twin = open_at(START), open_at(START)
    for each in (shop, twin):
        offer(each, overage("0.011", included=20), REGIONS)
        for name in ("ada", "bob"):
            subscribe(each, name)
    changes: list[tuple[str, Json]] = [
        ("2025-02-01T00:00:00Z", overage("0.010", included=20)),
        ("2025-03-01T00:00:00Z", overage("0.019", included=5)),
        ("2025-04-01T00:00:00Z", {"price": per_unit("0.025"), "validFrom": "2025-04-02T00:00:00Z"}),
    ]
    for moment, change in changes:
        for each in (shop, twin):
            set_clock(each, moment)
            done(track(each, "ada", value=77))
            done(track(each, "bob", value=10))
        done(shop.http.patch(f"{API}/plans/pro/features/api_calls", json=change))
    for each in (shop, twin):
        set_clock(each, "2025-04-03T00:00:00Z")
        done(track(each, "ada", value=50))
        set_clock(each, NOW)
        done(track(each, "bob", value=33.3))
    report = simulate(shop, planFeatures=[put(per_unit("0.011"), includedAmount=20)])
    for name in ("ada", "bob"):
        assert of(report, name)["oldAmount"] == usage_invoiced(shop, name)
        assert of(report, name)["newAmount"] == usage_invoiced(twin, name)
    assert of(report, "ada")["difference"] < 0
    kept = simulate(shop, planFeatures=[put(unlimited=False)])
    assert kept["same"] == 2
    assert kept["totals"][0]["oldAmount"] == report["totals"][0]["oldAmount"]


def test_a_plans_own_minimum_lifts_both_sides(open_at: OpenAt) -> None:
    """Of the plan that was lived under, lowered on the way; of the plan that is simulated, as it is now."""
    shop, twin, other = (open_at(START) for _ in range(3))
    for each, price in ((shop, "0.05"), (twin, "0.02"), (other, "0.05")):
        offer(each, overage(price), overage("0.10", included=1))
        offer(each, overage("0.03"), {"unlimited": True}, code="team", price=2900)
        for plan, minimum in (("pro", "9"), ("team", "7.77")):
            done(each.http.patch(f"{API}/plans/{plan}", json={"minimumAmount": minimum}))
    for each, plan in ((shop, "pro"), (twin, "pro"), (other, "team")):
        set_clock(each, "2025-01-17T00:00:00Z")
        for name in ("ada", "bob", "idle"):
            subscribe(each, name, plan)
        for day, value in (("2025-01-20", 90.5), ("2025-02-20", 200), ("2025-03-20", 10)):
            set_clock(each, f"{day}T00:00:00Z")
            done(track(each, "ada", value=value))
            done(track(each, "bob", value=2 * value))
        done(each.http.patch(f"{API}/plans/pro", json={"minimumAmount": "4"}))
        set_clock(each, NOW)
    priced = simulate(shop, planFeatures=[put(per_unit("0.02"))])
    planned = simulate(shop, planCode="team")
    for name in ("ada", "bob", "idle"):
        assert of(priced, name)["oldAmount"] == usage_invoiced(shop, name)
        assert of(priced, name)["newAmount"] == usage_invoiced(twin, name)
        base, moved = of(planned, name)["base"], of(planned, name)
        assert moved["oldAmount"] - base["oldAmount"] == usage_invoiced(shop, name)
        assert moved["newAmount"] - base["newAmount"] == usage_invoiced(other, name)
    assert of(priced, "idle")["planMinimum"]["oldAmount"] == of(priced, "idle")["oldAmount"] > 0
    assert of(priced, "ada")["planMinimum"]["difference"] > 0
    unasked = simulate(shop, planFeatures=[put(unlimited=False)])
    assert unasked["same"] == 3
    offer(shop, hard_limit(1), hard_limit(1), code="free", price=None)
    assert {each["planMinimum"]["newAmount"] for each in simulate(shop, planCode="free")["customers"]} == {0}


def test_what_was_taken_back_costs_nothing_on_either_side(open_at: OpenAt) -> None:
    shop = open_at(START)
    open_shop(shop, "ada")
    kept, wrong = (done(track(shop, value=value)) for value in (100, 11))
    set_clock(shop, "2025-02-20T00:00:00Z")
    done(shop.http.request("DELETE", f"{API}/usage/events/{wrong['id']}", json={"reason": "a test run"}))
    set_clock(shop, NOW)
    ada = of(simulate(shop, planFeatures=[put(per_unit("0.03"))]), "ada")
    assert (ada["oldAmount"], ada["newAmount"]) == (kept["value"], 3 * kept["value"])
    assert ada["oldAmount"] == usage_invoiced(shop, "ada")


def test_a_plan_and_a_feature_of_today_can_be_tried_on_usage_of_before(lived: Organization) -> None:
    """What usage would have cost on a plan that is made only now, and with a feature that no plan had."""
    made = len(done(lived.http.get(f"{API}/plans"))["data"])
    offer(lived, overage("0.02"), {"unlimited": True}, code=f"new_{made}", price=100)
    add_feature(lived, "largest", eventCode="api_calls", aggregation="max")
    report = simulate(
        lived,
        planCode=f"new_{made}",
        planFeatures=[put(per_unit("0.5"), f"new_{made}", "largest", maximumAmount="20")],
    )
    ada = of(report, "ada")
    features = {each["featureCode"]: each for each in ada["features"]}
    used = sum(event["value"] for _, event in usage() if event["customerId"] == "ada")
    assert features["api_calls"]["newAmountDecimal"] == str(Decimal(str(used)) * Decimal("0.02")).rstrip("0")
    assert features["regions"]["newAmount"] == 0 < features["regions"]["oldAmount"]
    assert features["largest"]["oldAmount"] == 0 < features["largest"]["newAmount"] <= 4 * 2000
    assert ada["base"] == {
        "oldAmount": 4 * 2900, "newAmount": 4 * 100, "difference": -4 * 2800,
        "oldAmountDecimal": "116", "newAmountDecimal": "4", "differenceDecimal": "-112",
    }  # fmt: skip


def test_a_plan_without_the_interval_is_simulated_with_its_default(open_at: OpenAt) -> None:
    """A base counts where its billing period begins, counted from the subscription's anchor."""
    shop = open_at(START)
    offer(shop, overage("0.01"), REGIONS)
    for code, interval, price in (
        ("by_week", "weekly", 700),
        ("by_quarter", "quarterly", 9000),
        ("once", "one_time", 50000),
    ):
        offer(shop, overage("0.01"), REGIONS, code=code, interval=interval, price=price)
    offer(shop, hard_limit(10), hard_limit(1), code="free", price=None)
    subscribe(shop, "ada")
    subscribe(shop, "bob", "free")
    subscribe(shop, "cleo", "by_week")
    set_clock(shop, NOW)
    bases = {
        plan: {
            name: tuple(of(report, name)["base"][each] for each in ("oldAmount", "newAmount"))
            for name in ("ada", "bob", "cleo")
        }
        for plan in ("pro", "by_week", "by_quarter", "once", "free")
        for report in [simulate(shop, planCode=plan)]
    }
    was = {"ada": 4 * 2900, "bob": 0, "cleo": 14 * 700}
    assert bases == {
        plan: {name: (was[name], amount) for name in was}
        for plan, amount in {"pro": 4 * 2900, "by_quarter": 2 * 9000, "once": 50000, "free": 0}.items()
    } | {"by_week": {"ada": (4 * 2900, 14 * 700), "bob": (0, 14 * 700), "cleo": (14 * 700, 14 * 700)}}


def test_a_plan_that_is_no_longer_offered_is_simulated_by_its_id(open_at: OpenAt) -> None:
    shop = open_at(START)
    open_shop(shop, "ada")
    plan = done(shop.http.get(f"{API}/plans/pro"))
    done(track(shop, value=100))
    set_clock(shop, NOW)
    done(shop.http.delete(f"{API}/plans/pro"))
    feature = done(shop.http.get(f"{API}/features/api_calls"))
    change = {"planId": plan["id"], "featureId": feature["id"], "price": per_unit("0.03")}
    assert new_amounts(simulate(shop, planFeatures=[change])) == {"ada": 300}
    body = {"start": START, "end": NOW, "planCode": "pro"}
    refusal(shop.http.post(f"{API}/simulations", json=body), 400, "validation_error", "planCode")


def test_a_free_plan_that_was_left_at_once_has_a_last_period_too(open_at: OpenAt) -> None:
    """Nothing was owed, so it was never closed; under a price it would have cost something."""
    shop = open_at(START)
    add_feature(shop)
    add_plan(shop, "free", price=None, promises={"api_calls": hard_limit(100)})
    add_plan(shop, promises={"api_calls": overage("0.01", included=10)})
    held = subscribe(shop, "ada", "free")
    done(track(shop, value=30))
    set_clock(shop, "2025-02-20T00:00:00Z")
    done(track(shop, value=50))
    set_clock(shop, "2025-02-21T00:00:00Z")
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
    set_clock(shop, NOW)
    ada = of(simulate(shop, planCode="pro"), "ada")
    assert (ada["periods"], ada["oldAmount"]) == (2, 0)
    assert ada["newAmount"] == 2 * 2900 + 20 + 40


def test_who_was_on_several_subscriptions_is_one_customer(open_at: OpenAt) -> None:
    shop = open_at(START)
    open_shop(shop)
    held = subscribe(shop, "ada")
    done(track(shop, value=100))
    set_clock(shop, "2025-02-01T00:00:00Z")
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
    set_clock(shop, "2025-02-03T00:00:00Z")
    subscribe(shop, "ada")
    done(track(shop, value=7))
    set_clock(shop, NOW)
    report = simulate(shop, planFeatures=[put(per_unit("0.02"))])
    ada = of(report, "ada")
    assert (ada["oldAmount"], ada["newAmount"], ada["periods"]) == (107, 214, 4)


def test_periods_that_wait_for_a_close_are_looked_at_as_they_will_be(
    open_at: OpenAt, database_url: str
) -> None:
    """The clock was not moved and nothing is closed, yet three periods have begun by then."""
    shop = open_at(START)
    open_shop(shop, "ada", "bob", terms=overage("0.01", included=10))
    for month, value in (("01-20", 30), ("02-20", 40), ("03-20", 50)):
        done(track(shop, value=value, timestamp=f"2025-{month}T00:00:00Z"))  # our own clock is years ahead
    held = done(shop.http.get(f"{API}/subscriptions/active?customerId=bob"))
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={}))
    asked = {"planCode": "pro", "planFeatures": [put(per_unit("0.02"))]}

    async def act(database: Database) -> Json:
        async with database.transaction(snapshot=True) as conn:
            organization = await organizations.get(conn, organization_id=organization_id(shop))
            assert organization is not None
            wish = wish_of(wire.read({"start": START, "end": NOW, **asked}, Simulate), organization)
            made = await flow.simulate(conn, organization=organization, wish=wish, now=instant(NOW))
            told: Json = wire.parse(wire.encode(show(made, live=False)))
            return told

    foreseen = beside_the_server(database_url, act)
    assert of(foreseen, "ada")["oldAmount"] == 4 * 2900 + 20 + 30 + 40
    assert (of(foreseen, "ada")["openPeriods"], of(foreseen, "bob")["openPeriods"]) == (4, 1)
    set_clock(shop, NOW)
    for event in every(shop, f"{API}/usage/late-events"):
        raise AssertionError(event)
    report = simulate(shop, **asked)
    for name in ("oldAmount", "newAmount", "periods", "base", "features"):
        assert [each[name] for each in report["customers"]] == [each[name] for each in foreseen["customers"]]


# Refusals --------------------------------------------------------------------------------------------------


PERCENT = {"model": "percentage", "basisPoints": "290"}


@pytest.mark.parametrize(
    ("asked", "field", "reason"),
    [
        ({}, "planFeatures", "say what is to be otherwise"),
        ({"planFeatures": []}, "planFeatures", "say what is to be otherwise"),
        ({"planFeatures": [{}]}, "planFeatures[0].planCode", "required"),
        ({"planFeatures": [{"planCode": "pro"}]}, "planFeatures[0].featureCode", "required"),
        ({"planFeatures": [put()]}, "planFeatures[0].price", "say what is to be otherwise"),
        ({"planFeatures": [put(per_unit("1"), "gone")]}, "planFeatures[0].planCode", "no plan 'gone'"),
        ({"planFeatures": [put(per_unit("1"), feature="gone")]}, "planFeatures[0].featureCode", "no feature 'gone'"),
        ({"planFeatures": [put(per_unit("1"), feature="support")]}, "planFeatures[0].featureCode", "boolean"),
        ({"planFeatures": [put(per_unit("1"), planId="pln_1")]}, "planFeatures[0].planCode", "not both"),
        ({"planFeatures": [put(per_unit("1")), put(per_unit("2"))]}, "planFeatures[1]", "again"),
        ({"planFeatures": [put(per_unit("-1"))]}, "planFeatures[0].price.unitAmount", "0 or more"),
        ({"planFeatures": [put({"model": "guess"})]}, "planFeatures[0].price.model", "must be one of"),
        ({"planFeatures": [put({**per_unit("1"), "tiers": []})]}, "planFeatures[0].price.tiers", "not a field"),
        ({"planFeatures": [put(per_unit("1"), overage={"unitPrice": 5})]}, "planFeatures[0].overage.unitPrice", "twice"),
        ({"planFeatures": [put(includedAmount=-1)]}, "planFeatures[0].includedAmount", "0 or more"),
        ({"planFeatures": [put(minimumAmount="9", maximumAmount="8")]}, "planFeatures[0].minimumAmount", "more than"),
        ({"planFeatures": [put(overage={"enabled": False}, maximumAmount="8")]}, "planFeatures[0].maximumAmount", "needs a price"),
        ({"planFeatures": [put(PERCENT)]}, "planFeatures[0].includedAmount", "percentage"),
        ({"planFeatures": [put(PERCENT, feature="regions", includedAmount=0)]}, "planFeatures[0].price.model", "must be a sum"),
        ({"planFeatures": [put(per_unit("1"), "free")]}, "planFeatures[0].price", "free plan"),
        ({"planFeatures": [put(per_unit("1"))] * 101}, "planFeatures", "at most 100"),
        ({"planFeatures": [put(per_unit("1"), "empty")]}, "planFeatures", "nothing to simulate"),
        ({"planCode": "gone"}, "planCode", "no plan 'gone'"),
        ({"planId": "pln_00000000000000000000000000"}, "planId", "no plan 'pln_"),
        ({"planId": "pln_1", "planCode": "pro"}, "planCode", "not both"),
        ({"planCode": "unpriced"}, "planCode", "has no price"),
        ({"planCode": "pro", "planFeatures": [put(per_unit("1"), "empty")]}, "planFeatures[0].planCode", "'pro'"),
        ({"planCode": "pro", "customers": ["ada", "nobody", "cus_1"]}, "customers[1]", "no customer 'nobody'"),
        ({"planCode": "pro", "customers": []}, "customers", "names nobody"),
        ({"planCode": "pro", "customers": ["ada"] * 5001}, "customers", "at most"),
        ({"planCode": "pro", "start": NOW}, "end", "later than start"),
        ({"planCode": "pro", "start": NOW, "end": START}, "end", "later than start"),
        ({"planCode": "pro", "end": "2025-04-20T12:00:00.001Z"}, "end", "it is 2025-04-20T12:00:00.000Z"),
        ({"planCode": "pro", "end": "9999-12-31"}, "end", "future"),
        ({"planCode": "pro", "start": "2022-04-20T11:59:59Z"}, "start", "36 months"),
        ({"planCode": "pro", "start": "0001-01-01"}, "start", "36 months"),
        ({"planCode": "pro", "start": "0001-01-01T00:00:00+05:00"}, "start", "ISO 8601"),
        ({"planCode": "pro", "start": "soon"}, "start", "ISO 8601"),
        ({"planCode": "pro", "start": "2025-02-30"}, "start", "ISO 8601"),
        ({"planCode": "pro", "start": "2024-01-01", "end": START}, "start", "nothing to simulate"),
        ({"planCode": "pro", "end": "2025-02-01", "customers": ["cleo"]}, "start", "nothing to simulate"),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_is_refused_by_name_and_leaves_nothing(
    broad: Organization, asked: Json, field: str, reason: str
) -> None:
    before = everything(broad)
    answer = broad.http.post(f"{API}/simulations", json={"start": START, "end": NOW, **asked})
    error = refusal(answer, 400, "validation_error", field)
    (said,) = [each["message"] for each in error["details"] if each["field"] == field]
    assert reason in said
    assert everything(broad) == before


@pytest.fixture(scope="module")
def broad(lived: Organization) -> Organization:
    """With everything there is to name beside."""
    done(lived.http.post(f"{API}/features", json={"name": "Support", "code": "support", "type": "boolean"}))
    add_plan(lived, "free", price=None, promises={"api_calls": hard_limit(10)})
    add_plan(lived, "empty", promises={"api_calls": overage("1")})
    done(lived.http.post(f"{API}/plans", json={"name": "Unpriced", "code": "unpriced"}))
    return lived


def test_a_percentage_wants_the_meter_to_have_been_a_sum_all_the_time(open_at: OpenAt) -> None:
    shop = open_at(START)
    add_feature(shop, aggregation="count")
    add_plan(shop, promises={"api_calls": overage("0.01")})
    subscribe(shop, "ada")
    done(track(shop, value=20))
    set_clock(shop, "2025-02-20T00:00:00Z")
    done(shop.http.patch(f"{API}/features/api_calls", json={"aggregation": "sum"}))
    set_clock(shop, NOW)
    done(track(shop, value=30))
    body = {"start": START, "end": NOW, "planFeatures": [put(PERCENT)]}
    error = refusal(
        shop.http.post(f"{API}/simulations", json=body),
        400,
        "validation_error",
        "planFeatures[0].price.model",
    )
    assert "was count: choose a later start" in error["message"]
    assert new_amounts(simulate(shop, start="2025-03-15", planFeatures=[put(PERCENT)])) == {"ada": 87}


def test_more_than_a_simulation_holds_is_refused_with_what_to_narrow(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization(clock=START)
    open_shop(shop, "ada", "bob")
    held = done(shop.http.get(f"{API}/subscriptions/active?customerId=ada"))
    set_clock(shop, NOW)
    select(
        database_url,
        """WITH made AS (
               INSERT INTO closed_periods (subscription_id, period_index, organization_id, customer_id, plan_id, timezone,
                                           period_start, period_end, position, closed_at)
               SELECT s.id, 1000 + n, s.organization_id, s.customer_id, s.plan_id, 'UTC',
                      s.anchor_at + n * interval '1 second', s.anchor_at + (n + 1) * interval '1 second', 0, s.anchor_at
                 FROM subscriptions s, generate_series(1, %s) n WHERE s.id = %s RETURNING 1)
           SELECT count(*) FROM made""",
        limits.SIMULATION_PERIODS_MAX,
        own_id(ids.SUBSCRIPTION, held["id"]),
    )
    body = {"start": START, "end": NOW, "planCode": "pro"}
    error = refusal(shop.http.post(f"{API}/simulations", json=body), 400, "validation_error", "customers")
    assert "20,008 usage periods of 2 customers" in error["message"]
    assert "bring start and end closer together" in error["message"]
    assert simulate(shop, planCode="pro", customers=["bob"])["periods"] == 4
    assert simulate(shop, planCode="pro", start="2025-03-20")["periods"] == 4


def test_one_simulation_of_an_organization_at_a_time(lived: Organization, database_url: str) -> None:
    """More of them would hold connections that others need; who comes second is told to come again."""
    body = {"start": START, "end": NOW, "planFeatures": [put(GRADUATED)]}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: lived.http.post(f"{API}/simulations", json=body), range(24)))
    done_ones = [each for each in answers if each.status_code == 201]
    assert done_ones
    assert len({each.text.replace(each.json()["id"], "") for each in done_ones}) == 1
    for each in answers:
        if each.status_code != 201:
            refusal(each, 503, "unavailable")
            assert int(each.headers["retry-after"]) > 0


def test_usage_that_pours_in_meanwhile_is_in_all_of_a_report_or_in_nothing(open_at: OpenAt) -> None:
    """Both sides of a comparison see one moment: the same price never differs."""
    shop = open_at(START)
    open_shop(shop, "ada", "bob")
    over = threading.Event()

    def pour() -> int:
        sent = 0
        with httpx.Client(base_url=shop.base_url, headers={"x-api-key": shop.api_key}, timeout=30) as http:
            while not over.is_set():
                events = [{"featureCode": "api_calls", "customerId": name} for name in ("ada", "bob") * 10]
                assert done(http.post(f"{API}/usage/events/batch", json={"events": events}))["failed"] == []
                sent += 10
        return sent

    set_clock(shop, "2025-01-20T00:00:00Z")
    with ThreadPoolExecutor(1) as pool:
        pouring = pool.submit(pour)
        try:
            reports = [
                simulate(shop, end="2025-01-20T00:00:00Z", planFeatures=[put(per_unit("0.01"))])
                for _ in range(12)
            ]
        finally:
            over.set()
        sent = pouring.result()
    assert {each["same"] for each in reports} == {2}
    for each in reports:
        assert of(each, "ada")["oldAmount"] == of(each, "bob")["oldAmount"]
    last = simulate(shop, end="2025-01-20T00:00:00Z", planFeatures=[put(per_unit("0.01"))])
    assert of(last, "ada")["oldAmount"] == sent
