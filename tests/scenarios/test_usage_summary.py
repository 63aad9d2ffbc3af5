"""Usage summaries: every number is what a plain fold over the raw events says, and what the invoice says.

The fold here shares nothing with the program: the events as the API lists them, Decimal, sets and comparisons.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise, product
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from tallystick.core import ids, limits
from tests.audit import audit
from tests.conftest import MakeOrganization, Organization, Server, open_one
from tests.scenarios.wire import refusal
from tests.shop import (
    API,
    Json,
    add_customer,
    add_feature,
    add_plan,
    done,
    every,
    hard_limit,
    invoices_of,
    overage,
    own_id,
    refused,
    set_clock,
    subscribe,
    track,
    track_batch,
)

OPENED = datetime(2026, 1, 15, 10, 20, tzinfo=UTC)
NOW = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
ZONES = [
    "UTC",
    "America/New_York",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
]
Properties = dict[str, str]


@dataclass(frozen=True)
class Raw:
    """An event as the API lists it."""

    at: datetime
    value: Decimal
    properties: Properties
    adjusts: bool


@dataclass(frozen=True)
class Way:
    """One way to measure: what the program is told, and the same said plainly."""

    meter: Json
    counts: Callable[[Properties], bool] = lambda _: True
    amount: Callable[[Raw], Decimal | None] = lambda event: event.value


def condition(name: str, operator: str, value: str) -> Json:
    return {"property": name, "operator": operator, "value": value}


def size_of(event: Raw) -> Decimal | None:
    given = event.properties.get("size", "")
    return Decimal(given) if given.replace(".", "", 1).replace("-", "", 1).isdigit() else None


WAYS: dict[str, Way] = {
    "calls": Way({}),
    "requests": Way({"aggregation": "count"}),
    "peak": Way({"aggregation": "max"}),
    "level": Way({"aggregation": "latest"}),
    "latest_size": Way({"aggregation": "latest", "aggregationProperty": "size"}, amount=size_of),
    "users": Way({"aggregation": "unique", "aggregationProperty": "user"}),
    "european": Way(
        {"filters": [condition("region", "contains", "eu")]}, lambda each: "eu" in each.get("region", "")
    ),
    "not_large": Way(
        {"aggregation": "count", "filters": [condition("size", "less_than", "10"), condition("region", "not_equals", "us")]},
        lambda each: each.get("size") in {"1", "2.5", "9.99", "-3"} and each.get("region") != "us",
    ),
    "bytes": Way({"aggregationProperty": "size"}, amount=size_of),
    "largest": Way(
        {"aggregation": "max", "aggregationProperty": "size", "filters": [condition("user", "not_equals", "u1")]},
        lambda each: each.get("user") != "u1",
        size_of,
    ),
    "american_users": Way(
        {"aggregation": "unique", "aggregationProperty": "user", "filters": [condition("region", "equals", "us")]},
        lambda each: each.get("region") == "us",
    ),
}  # fmt: skip


def fold(feature: str, events: Sequence[Raw]) -> tuple[str, int]:
    """The quantity as text, and how many events it is of."""
    way = WAYS[feature]
    aggregation = way.meter.get("aggregation", "sum")
    count, total, largest, latest, values = 0, Decimal(0), None, None, set[str]()
    for event in events:
        if event.adjusts:  # only sums and counts can be set
            if aggregation in ("sum", "count"):
                count, total = count + 1, total + event.value
            continue
        if not way.counts(event.properties):
            continue
        amount = Decimal(1) if aggregation in ("count", "unique") else way.amount(event)
        if amount is None:
            continue
        if aggregation == "unique":
            value = event.properties.get("user", "")
            if not value.strip():
                continue
            values.add(value)
        count, total = count + 1, total + amount
        largest = amount if largest is None else max(largest, amount)
        latest = (event.at, amount) if latest is None else max(latest, (event.at, amount))
    quantity = {
        "sum": total,
        "count": total,
        "unique": Decimal(len(values)),
        "max": largest or Decimal(0),
        "latest": latest[1] if latest else Decimal(0),
    }
    return shown(quantity[aggregation]), count


def shown(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def grouped(feature: str, events: Sequence[Raw], names: Sequence[str]) -> dict[tuple[str | None, ...], Any]:
    """Every group that has an event which counts."""
    groups: dict[tuple[str | None, ...], list[Raw]] = {}
    for event in events:
        groups.setdefault(tuple(event.properties.get(name) for name in names), []).append(event)
    folded = {group: fold(feature, members) for group, members in groups.items()}
    return {group: found for group, found in folded.items() if found[1]}


# A quarter of a customer's life --------------------------------------------------------------------------


@dataclass
class Lived:
    shop: Organization
    raw: dict[str, list[Raw]]  # by feature: its events, and the adjustments of its total


@pytest.fixture(scope="module")
def lived(server: Server, database_url: str) -> Iterator[Lived]:
    """Two periods closed and a third open; usage of every hour, early, late and corrected."""
    made = open_one(database_url, server.base_url, clock=OPENED.isoformat())
    for feature, way in WAYS.items():
        add_feature(made, feature, eventCode="call", **way.meter)
    add_plan(made, "pro", promises={feature: overage("0.01") for feature in WAYS})
    subscribe(made, "ada", customer={"timezone": "America/New_York"})
    chance = random.Random(20260115)
    for month in ("2026-02-20T09:00:00Z", NOW.isoformat()):
        set_clock(made, month)
        send(made, chance, 600)
        for feature in ("calls", "requests", "not_large", "bytes"):
            value = chance.randrange(0, 500)
            done(
                made.http.put(
                    f"{API}/usage", json={"customerId": "ada", "featureCode": feature, "value": value}
                )
            )
        take_back(made, chance)
    audit(database_url, made)
    yield Lived(made, listed(made, database_url))
    made.http.close()


def send(shop: Organization, chance: random.Random, count: int) -> None:
    """Events all over the time since activation, many of them on the edges of hours."""
    now = datetime.fromisoformat(done(shop.http.get(f"{API}/test-clock"))["now"])
    span = (now - OPENED) // timedelta(milliseconds=1)
    sent = []
    for _ in range(count):
        at = OPENED + timedelta(milliseconds=chance.randrange(span))
        if chance.random() < 0.3:
            at = at.replace(minute=chance.choice([0, 15, 30, 45]), second=0, microsecond=0)
        properties = {
            "user": chance.choice(["", " ", *(f"u{each}" for each in range(40))]),
            "region": chance.choice(["eu", "us", "eu-west", "EU"]),
            "size": chance.choice(["1", "2.5", "9.99", "10", "11", "lots", "-3"]),
        }
        for name in list(properties):
            if chance.random() < 0.15:
                del properties[name]
        sent.append(
            {
                "featureCode": "call",
                "customerId": "ada",
                "value": chance.randrange(10**6) / 2 ** chance.randrange(10),
                "timestamp": max(at, OPENED).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "properties": properties,
            }
        )
    for start in range(0, count, 100):
        assert not track_batch(shop, sent[start : start + 100])["failed"]


def take_back(shop: Organization, chance: random.Random) -> None:
    """Void some events here and there, and all of one hour."""
    stored = [each for each in every(shop, f"{API}/usage/events?customerId=ada") if counting(each)]
    hour = chance.choice(stored)["ts"][:13]
    for each in stored:
        if each["ts"].startswith(hour) or chance.random() < 0.04:
            done(shop.http.delete(f"{API}/usage/events/{each['id']}"))


def counting(event: Json) -> bool:
    return event["kind"] != "void" and not event.get("voided", False)


def listed(shop: Organization, database_url: str) -> dict[str, list[Raw]]:
    """What is stored, from the API; which total an adjustment corrects, the database alone says."""
    with psycopg.connect(database_url) as conn:
        adjusts: dict[Any, str] = dict(
            conn.execute("SELECT e.id, f.code FROM events e JOIN features f ON f.id = e.adjusts").fetchall()
        )
    raw: dict[str, list[Raw]] = {feature: [] for feature in WAYS}
    for each in every(shop, f"{API}/usage/events?customerId=ada"):
        if not counting(each):
            continue
        event = Raw(
            datetime.fromisoformat(each["ts"]),
            Decimal(each["valueDecimal"]),
            {pair["property"]: pair["value"] for pair in each["properties"]},
            each["kind"] == "adjustment",
        )
        for feature in [adjusts[own_id(ids.EVENT, each["id"])]] if event.adjusts else WAYS:
            raw[feature].append(event)
    return raw


def summary(shop: Organization, feature: str, customer: str = "ada", **query: str) -> Json:
    return done(
        shop.http.get(
            f"{API}/usage/summary", params={"customerId": customer, "featureCode": feature, **query}
        )
    )


def agrees(lived: Lived, feature: str, **query: str) -> Json:
    """Ask, and hold every number of the answer against the fold."""
    found = summary(lived.shop, feature, **query)
    names = query["groupBy"].split(",") if "groupBy" in query else []
    span = (found["start"], found["end"])

    def within(start: str, end: str) -> list[Raw]:
        first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
        return [each for each in lived.raw[feature] if first <= each.at < last]

    def same(part: Json, events: list[Raw]) -> None:
        assert (part["quantity"], part["events"]) == fold(feature, events), (part, query)

    def same_groups(groups: list[Json], events: list[Raw]) -> None:
        told = {
            tuple(each["group"][name] for name in names): (each["quantity"], each["events"])
            for each in groups
        }
        assert all(list(each["group"]) == names for each in groups)
        assert told == grouped(feature, events, names), query

    same(found["total"], within(*span))
    same_groups(found["groups"], within(*span)) if names else None
    for window in found["series"]:
        same(window, within(window["start"], window["end"]))
        if names:
            same_groups(window["groups"], within(window["start"], window["end"]))
        else:
            assert "groups" not in window
    return found


def tiles(found: Json) -> None:
    series = found["series"]
    assert (series[0]["start"], series[-1]["end"]) == (found["start"], found["end"])
    assert all(one["end"] == other["start"] for one, other in pairwise(series))


def label(instant: str, zone: str, window: str) -> str:
    """What the wall shows: the date and hour with its offset, the date, or the month."""
    local = datetime.fromisoformat(instant).astimezone(ZoneInfo(zone))
    return {"hour": f"{local:%Y-%m-%dT%H}", "day": f"{local:%Y-%m-%d}", "month": f"{local:%Y-%m}"}[window]


@pytest.mark.parametrize("feature", WAYS)
def test_the_current_period_is_what_is_shown_by_itself(lived: Lived, feature: str) -> None:
    found = agrees(lived, feature)
    access = done(lived.shop.http.get(f"{API}/feature-access/{feature}?customerId=ada"))["consumption"]
    assert {name: found[name] for name in ("start", "end")} == access["period"]
    assert Decimal(found["total"]["quantity"]) == Decimal(str(access["unitsUsed"]))
    assert (found["window"], found["groupBy"], found["groups"], found["series"]) == (None, [], [], [])
    assert (found["timezone"], found["customerId"], found["featureCode"]) == (
        "America/New_York",
        "ada",
        feature,
    )
    assert (found["object"], found["livemode"]) == ("usage_summary", False)
    assert found["aggregation"] == WAYS[feature].meter.get("aggregation", "sum")


@pytest.mark.parametrize(("feature", "zone", "window"), list(product(WAYS, ZONES, ["hour", "day", "month"])))
def test_every_window_is_what_a_plain_fold_says(lived: Lived, feature: str, zone: str, window: str) -> None:
    chance = random.Random(f"{feature} {zone} {window}")
    days = {"hour": 6, "day": 40, "month": 70}[window]
    start = OPENED + timedelta(minutes=chance.randrange(-3000, 60 * 24 * 40))
    end = start + timedelta(days=days, minutes=chance.randrange(60 * 24))
    found = agrees(
        lived, feature, start=wire(start), end=wire(end), window=window, timezone=zone, groupBy=chance.choice(["region", "region,size"])
    )  # fmt: skip
    tiles(found)
    for one, other in pairwise(found["series"]):
        last = wire(datetime.fromisoformat(one["end"]) - timedelta(milliseconds=1))
        assert label(one["start"], zone, window) == label(last, zone, window)
        assert label(other["start"], zone, window) != label(last, zone, window) or window == "hour"
    agrees(lived, feature, start=wire(start), end=wire(end), window=window, timezone=zone)


def wire(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("seed", range(60))
def test_any_span_grouped_or_not_is_what_a_plain_fold_says(lived: Lived, seed: int) -> None:
    chance = random.Random(seed)
    start = OPENED + timedelta(milliseconds=chance.randrange(-(10**9), 6 * 10**9))
    end = start + timedelta(
        milliseconds=chance.choice([1, 60_000, 3_600_000, chance.randrange(1, 6 * 10**9)])
    )
    if chance.random() < 0.3:
        start, end = (each.replace(minute=0, second=0, microsecond=0) for each in (start, end))
        end += timedelta(hours=1)
    query = {"start": wire(start), "end": wire(end)}
    for name, choices in (
        ("timezone", ZONES),
        ("groupBy", ["user", "region", "size,region", "user,region,size", "nothing"]),
        ("window", ["day", "month", "period"]),
    ):
        if chance.random() < 0.7:
            query[name] = chance.choice(choices)
    agrees(lived, chance.choice(list(WAYS)), **query)


def test_distinct_values_of_windows_do_not_add_up(lived: Lived) -> None:
    found = agrees(lived, "users", window="day", groupBy="region")
    assert sum(int(each["quantity"]) for each in found["series"]) > int(found["total"]["quantity"])
    assert sum(int(each["quantity"]) for each in found["groups"]) > int(found["total"]["quantity"])


def test_the_largest_groups_come_first_and_nothing_last(lived: Lived) -> None:
    found = agrees(lived, "calls", start=wire(OPENED), groupBy="region", window="month")
    quantities = [Decimal(each["quantity"]) for each in found["groups"]]
    assert quantities == sorted(quantities, reverse=True)
    order = [each["group"]["region"] for each in found["groups"]]
    assert None in order
    for window in found["series"]:
        here = [each["group"]["region"] for each in window["groups"]]
        assert here == [each for each in order if each in here]


def test_days_of_a_clock_change_are_longer_and_shorter(lived: Lived) -> None:
    query = {"start": "2026-03-07T05:00:00Z", "end": "2026-03-10T04:00:00Z", "timezone": "America/New_York"}
    days = agrees(lived, "calls", window="day", **query)["series"]
    assert [each["start"] for each in days] == [
        "2026-03-07T05:00:00.000Z",
        "2026-03-08T05:00:00.000Z",
        "2026-03-09T04:00:00.000Z",
    ]
    assert len(agrees(lived, "users", window="hour", **query)["series"]) == 24 + 23 + 24


def test_the_zone_is_the_customers_unless_told(lived: Lived, make_organization: MakeOrganization) -> None:
    assert summary(lived.shop, "calls")["timezone"] == "America/New_York"
    assert summary(lived.shop, "calls", timezone="Asia/Tokyo")["timezone"] == "Asia/Tokyo"
    made = make_organization(timezone="Asia/Kathmandu", clock=wire(NOW))
    add_feature(made)
    add_customer(made, "bob")
    assert summary(made, "api_calls", "bob")["timezone"] == "Asia/Kathmandu"


def test_without_a_subscription_the_last_30_days_are_shown(make_organization: MakeOrganization) -> None:
    made = make_organization(clock=wire(NOW))
    add_feature(made)
    add_feature(made, "users", aggregation="unique", aggregationProperty="user")
    add_customer(made, "bob")
    for feature in ("api_calls", "users"):
        found = summary(made, feature, "bob", window="day", groupBy="region")
        assert (found["start"], found["end"]) == ("2026-02-18T12:00:00.000Z", "2026-03-20T12:00:00.000Z")
        assert (found["total"], found["groups"], len(found["series"])) == (
            {"quantity": "0", "events": 0},
            [],
            31,
        )
        assert {(each["quantity"], each["events"]) for each in found["series"]} == {("0", 0)}
        found = summary(made, feature, "bob", end="2026-01-31T00:00:00Z")
        assert found["start"] == "2026-01-01T00:00:00.000Z"


def test_public_ids_and_older_spellings_work_too(lived: Lived) -> None:
    public = done(lived.shop.http.get(f"{API}/customers/ada"))["id"]
    expected = summary(lived.shop, "calls")
    assert summary(lived.shop, "calls", public) == expected
    answer = lived.shop.http.get(f"{API}/usage/summary", params={"externalId": "ada", "feature": "calls"})
    assert done(answer) == expected
    enveloped = lived.shop.http.get("/api/usage/summary", params={"externalId": "ada", "feature": "calls"})
    assert done(enveloped)["data"]["total"] == expected["total"]


# Invoices, versions, limits -------------------------------------------------------------------------------


def test_each_closed_period_is_what_its_line_used(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """Three months in a zone off the hour, every event on time, corrections included."""
    made = make_organization(clock=wire(OPENED), timezone="Asia/Kathmandu")
    for feature, way in WAYS.items():
        add_feature(made, feature, eventCode="call", **way.meter)
    add_plan(made, "pro", promises={feature: overage("0.01") for feature in WAYS})
    subscribe(made, "ada")
    chance = random.Random(7)
    for month in ("2026-02-14T00:00:00Z", "2026-03-14T00:00:00Z", "2026-04-14T00:00:00Z"):
        set_clock(made, month)
        now = datetime.fromisoformat(month)
        for _ in range(2):
            sent = [
                {
                    "featureCode": "call",
                    "customerId": "ada",
                    "value": chance.randrange(1000) / 4,
                    "timestamp": wire(now - timedelta(seconds=chance.randrange(27 * 86_400))),
                    "properties": {"user": f"u{chance.randrange(50)}", "region": chance.choice(["us", "eu"]), "size": "2.5"},
                }
                for _ in range(100)
            ]  # fmt: skip
            assert not track_batch(made, sent)["failed"]
        for feature, value in (("calls", 1234.5), ("requests", 77)):
            body = {"customerId": "ada", "featureCode": feature, "value": value}
            done(made.http.put(f"{API}/usage", json=body))
    set_clock(made, "2026-04-20T00:00:00Z")
    used: dict[tuple[str, str, str], str] = {}
    for invoice in invoices_of(made, "ada"):
        evidence = done(made.http.get(f"{API}/invoices/{invoice['id']}/evidence"))["lines"]
        for line, frozen in zip(invoice["lineItems"], evidence, strict=True):
            if line["lineType"] == "feature_overage":
                period = frozen["evidence"]["period"]
                used[line["featureName"], period["start"], period["end"]] = line["usedDecimal"]
    assert len(used) == 3 * len(WAYS)
    for (feature, start, end), quantity in used.items():
        assert summary(made, feature, start=start, end=end)["total"]["quantity"] == quantity
    for feature in WAYS:
        found = summary(made, feature, start=wire(OPENED), end="2026-04-20T00:00:00Z", window="period")
        by_period = {(each["start"], each["end"]): each["quantity"] for each in found["series"][:3]}
        assert by_period == {key[1:]: each for key, each in used.items() if key[0] == feature}
    audit(database_url, made)


def test_a_changed_meter_counts_from_the_next_period_here_as_well(
    make_organization: MakeOrganization,
) -> None:
    made = make_organization(clock="2026-01-10T00:00:00Z")
    for code, aggregation in (
        ("hits", {}),
        ("users", {"aggregation": "unique", "aggregationProperty": "user"}),
    ):
        add_feature(made, code, eventCode="call", **aggregation)
    add_plan(made, "pro", promises={"hits": overage("1"), "users": overage("1")})
    subscribe(made, "ada")

    def use(day: str, *users: tuple[str, str]) -> None:
        set_clock(made, f"2026-{day}T12:00:00Z")
        for user, region in users:
            done(track(made, feature="call", value=3, properties={"user": user, "region": region}))

    use("01-20", ("a", "eu"), ("b", "us"))
    for code in ("hits", "users"):
        body = {"filters": [condition("region", "equals", "eu")]}
        done(made.http.patch(f"{API}/features/{code}", json=body))
    use("01-25", ("c", "us"))
    use("02-20", ("a", "eu"), ("d", "us"), ("e", "eu"))
    span = {"start": "2026-01-01T00:00:00Z", "end": "2026-03-01T00:00:00Z"}
    found = summary(made, "hits", **span, window="month", groupBy="region")
    # January and the first nine days of February by the old version, the rest by the new one.
    assert found["total"] == {"quantity": "15", "events": 5}
    assert [each["quantity"] for each in found["series"]] == ["9", "6"]
    assert [(each["group"]["region"], each["quantity"]) for each in found["groups"]] == [
        ("eu", "9"),
        ("us", "6"),
    ]
    found = summary(made, "users", **span, window="period", groupBy="region")
    assert found["total"] == {"quantity": "4", "events": 5}, "a, b, c by the old version, a and e by the new"
    assert [each["quantity"] for each in found["series"]] == ["3", "2"]
    assert [(each["group"]["region"], each["quantity"]) for each in found["groups"]] == [
        ("eu", "2"),
        ("us", "2"),
    ]
    lines = [line for invoice in invoices_of(made, "ada") for line in invoice["lineItems"]]
    billed = {
        line["featureName"]: line["usedDecimal"] for line in lines if line["lineType"] == "feature_overage"
    }
    assert billed == {"hits": "9", "users": "3"}

    done(made.http.patch(f"{API}/features/hits", json={"aggregation": "count"}))
    set_clock(made, "2026-03-20T12:00:00Z")
    assert summary(made, "hits")["aggregation"] == "count"
    answer = made.http.get(f"{API}/usage/summary", params={"customerId": "ada", "featureCode": "hits", **span, "end": "2026-03-20T00:00:00Z"})  # fmt: skip
    error = refusal(answer, 400, "validation_error", "start")
    assert "2026-03-10T00:00:00.000Z" in error["message"]


def test_a_correction_is_no_maximum(make_organization: MakeOrganization, database_url: str) -> None:
    """It adjusted a sum; the maximum that the feature becomes knows nothing of it."""
    made = make_organization(clock="2026-01-10T00:00:00Z")
    add_feature(made)
    add_plan(made, "pro", promises={"api_calls": overage("1")})
    subscribe(made, "ada")
    done(track(made, value=3))
    set_clock(made, "2026-01-12T00:00:00Z")
    done(made.http.put(f"{API}/usage", json={"customerId": "ada", "featureCode": "api_calls", "value": 50}))
    done(made.http.patch(f"{API}/features/api_calls", json={"aggregation": "max"}))
    audit(database_url, made)
    assert summary(made, "api_calls")["total"] == {"quantity": "50", "events": 2}, (
        "a sum until the period ends"
    )
    set_clock(made, "2026-02-11T00:00:00Z")
    done(track(made, value=7))
    assert summary(made, "api_calls")["total"] == {"quantity": "7", "events": 1}
    audit(database_url, made)


def test_an_hour_that_was_emptied_begins_anew(make_organization: MakeOrganization, database_url: str) -> None:
    """What was voided is no maximum, no latest and no distinct value, even where nothing larger followed."""
    made = make_organization(clock="2026-01-10T12:00:00Z")
    ways = {"peak": "max", "level": "latest", "users": "unique"}
    for feature, aggregation in ways.items():
        add_feature(made, feature, eventCode="call", aggregation=aggregation, aggregationProperty="size")
    add_plan(made, "pro", promises={feature: overage("1") for feature in ways})
    subscribe(made, "ada")
    set_clock(made, "2026-01-11T12:00:00Z")
    at = {"timestamp": "2026-01-10T15:10:00Z"}
    event = done(track(made, feature="call", properties={"size": "5"}, **at))
    done(made.http.delete(f"{API}/usage/events/{event['id']}"))
    for feature in ways:
        assert summary(made, feature)["total"] == {"quantity": "0", "events": 0}
    done(track(made, feature="call", properties={"size": "-3"}, **at))
    totals = {feature: summary(made, feature)["total"]["quantity"] for feature in ways}
    assert totals == {"peak": "-3", "level": "-3", "users": "1"}
    audit(database_url, made)


def test_a_distinct_value_is_limited_once(make_organization: MakeOrganization, database_url: str) -> None:
    """A hard limit on distinct values: those that were met fit for ever, new ones until it is full."""
    made = make_organization(clock="2026-01-10T00:30:00Z")
    add_feature(made, "seats_used", aggregation="unique", aggregationProperty="user")
    add_plan(made, "pro", promises={"seats_used": hard_limit(3)})
    subscribe(made, "ada")

    def use(*users: str) -> list[int]:
        events = [
            {"featureCode": "seats_used", "customerId": "ada", "properties": {"user": user}} for user in users
        ]
        return [each["index"] for each in track_batch(made, events)["failed"]]

    assert use("a", "b", "a") == []
    set_clock(made, "2026-01-10T05:00:00Z")  # some of it lies in whole hours by now, some on the edge
    assert use("b", "c", "d", "a", "c") == [2]
    assert use("d", "e", "c") == [0, 1]
    assert summary(made, "seats_used")["total"]["quantity"] == "3"
    refused(track(made, feature="seats_used", properties={"user": "z"}), 402, "included_limit_reached")
    assert audit(database_url, made) == 8
    set_clock(made, "2026-02-11T00:00:00Z")  # what was met in January is new in the next period
    assert use("x") == []
    set_clock(made, "2026-02-11T05:00:00Z")
    assert use("a", "x", "b", "c") == [3]
    assert summary(made, "seats_used")["total"] == {"quantity": "3", "events": 4}
    assert audit(database_url, made) == 12


# What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"customerId": ""}, "customerId"),
        ({"featureCode": ""}, "featureCode"),
        *[({"start": each}, "start") for each in ("", "today", "2026-01-01", "2026-02-30T00:00:00Z", "1769900000000")],
        *[({"end": each}, "end") for each in ("", "tomorrow", "2026-13-01T00:00:00Z", "9999-12-31T23:59:59Z")],
        ({"start": "9001-01-01T00:00:00Z"}, "start"),
        ({"start": "2026-03-20T00:00:00Z", "end": "2026-03-20T00:00:00Z"}, "end"),
        ({"start": "2026-03-20T00:00:00Z", "end": "2026-03-19T00:00:00Z"}, "end"),
        ({"end": "2020-01-01T00:00:00Z"}, "end"),
        *[({"window": each}, "window") for each in ("", "week", "Day", "PERIOD")],
        *[({"timezone": each}, "timezone") for each in ("", "Mars/Olympus", "+02:00", "utc+1", "../etc/passwd")],
        *[({"groupBy": each}, "groupBy") for each in ("", ",", "a,", ",a", "a,b,c,d", "a,a", "n" * 101)],
        ({"start": "2020-01-01T00:00:00Z", "window": "day"}, "window"),
        ({"start": "1000-01-01T00:00:00Z", "window": "hour"}, "window"),
        ({"start": "1900-01-01T00:00:00Z", "window": "month"}, "window"),
        ({"start": "0001-01-01T00:00:00Z", "end": "0001-01-02T00:00:00Z", "window": "day", "timezone": "America/New_York"}, "start"),
        ({"featureCode": "sso"}, "featureCode"),
    ],
)  # fmt: skip
def test_a_bad_query_is_refused_by_name(lived: Lived, query: dict[str, str], field: str) -> None:
    if field == "featureCode" and query["featureCode"] == "sso":
        lived.shop.http.post(f"{API}/features", json={"name": "SSO", "code": "sso", "type": "boolean"})
    answer = lived.shop.http.get(
        f"{API}/usage/summary", params={"customerId": "ada", "featureCode": "calls", **query}
    )
    refusal(answer, 400, "validation_error", field)


def test_every_wrong_field_is_named_at_once(lived: Lived) -> None:
    query = {"start": "x", "end": "x", "window": "x", "timezone": "x", "groupBy": ","}
    error = refusal(lived.shop.http.get(f"{API}/usage/summary", params=query), 400, "validation_error")
    assert {each["field"] for each in error["details"]} == {"customerId", "featureCode", *query}


def test_what_is_not_there_is_404(lived: Lived) -> None:
    for query, code in (
        ({"customerId": "nobody"}, "customer_not_found"),
        ({"featureCode": "none"}, "feature_not_found"),
    ):
        asked = {"customerId": "ada", "featureCode": "calls", **query}
        refusal(lived.shop.http.get(f"{API}/usage/summary", params=asked), 404, code)


def test_periods_need_a_subscription(lived: Lived) -> None:
    add_customer(lived.shop, "carl")
    asked = {"customerId": "carl", "featureCode": "calls", "window": "period"}
    refusal(lived.shop.http.get(f"{API}/usage/summary", params=asked), 400, "validation_error", "window")


def test_since_for_ever_is_a_span(lived: Lived) -> None:
    for feature in ("calls", "users"):
        found = agrees(
            lived, feature, start="0001-01-01T00:00:00Z", end="8999-12-31T23:59:59Z", groupBy="user"
        )
        assert found["start"].endswith("01-01T00:00:00.000Z")


def test_limits_are_exact(lived: Lived, make_organization: MakeOrganization) -> None:
    hour = timedelta(hours=1)
    for count, status in ((limits.SUMMARY_WINDOWS_MAX, 200), (limits.SUMMARY_WINDOWS_MAX + 1, 400)):
        asked = {"start": wire(NOW - count * hour), "end": wire(NOW), "window": "hour", "timezone": "UTC"}
        asked |= {"customerId": "ada", "featureCode": "calls"}
        assert lived.shop.http.get(f"{API}/usage/summary", params=asked).status_code == status

    made = make_organization(clock=wire(NOW))
    add_feature(made)
    add_feature(made, "users", eventCode="api_calls", aggregation="unique", aggregationProperty="user")
    add_plan(made, "pro", promises={"api_calls": overage("1"), "users": overage("1")})
    subscribe(made, "ada")
    for start in range(0, limits.SUMMARY_GROUPS_MAX, 100):
        events = [
            {"customerId": "ada", "featureCode": "api_calls", "properties": {"user": f"u{start + each}"}}
            for each in range(100)
        ]
        assert not track_batch(made, events)["failed"]
    for feature in ("api_calls", "users"):
        assert len(summary(made, feature, groupBy="user")["groups"]) == limits.SUMMARY_GROUPS_MAX
    done(track(made, properties={"user": "one more"}))
    for feature in ("api_calls", "users"):
        for more in ({}, {"window": "day"}):
            asked = {"customerId": "ada", "featureCode": feature, "groupBy": "user", **more}
            refusal(made.http.get(f"{API}/usage/summary", params=asked), 400, "validation_error", "groupBy")
