"""Every price, configured over HTTP, used, and billed by the test clock; the preview and the upcoming invoice agree."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tallystick.app import wall
from tests.conftest import MakeOrganization, Organization, Server, open_one
from tests.literals import at
from tests.scenarios.proving import events_of, evidence_of, explained, preview, usage_of, verified
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    invoices_of,
    open_shop,
    promise,
    set_clock,
    subscribe,
    track,
    track_batch,
)

OPENED = "2025-01-15T10:00:00Z"
FIRST_USE = at("2025-01-15T18:00Z")
CLOSE = "2025-02-14T18:15:00Z"  # midnight in Kathmandu
TICK = timedelta(milliseconds=1)
D = Decimal


def tiers(model: str, *steps: tuple[Any, ...], **more: Any) -> Json:
    """A price of steps: (upTo, unitAmount, flatAmount)."""
    names = ("upTo", "unitAmount", "flatAmount")
    return {"model": model, "tiers": [dict(zip(names, step, strict=False)) for step in steps], **more}


def per_unit(amount: str) -> Json:
    return {"model": "per_unit", "unitAmount": amount}


def package(size: str, amount: str, **more: Any) -> Json:
    return {"model": "package", "packageSize": size, "packageAmount": amount, **more}


def percentage(points: str, **more: Any) -> Json:
    return {"model": "percentage", "basisPoints": points, **more}


@dataclass(frozen=True)
class Case:
    """A price, what was used under it, and what an accountant makes of that."""

    price: Json
    sent: tuple[Any, ...]  # values, or (value, properties)
    used: str
    components: tuple[tuple[str, str, str], ...]  # label, quantity, unit amount; without the true-up
    cents: int  # of all lines
    billed: str | None = None  # units; None: all that was used
    terms: Json = field(default_factory=dict)  # beside the price
    meter: Json = field(default_factory=dict)
    true_up: int | None = None  # cents of the line that lifts it to the minimum
    unit: str = "0"  # the line's one rate, where there is one
    dropped: int = 0  # events that were stored and do not count


THREE = tiers("graduated", ("100", "1"), ("500", "0.75"), (None, "0.5"))
VOLUME = tiers("volume", ("100000", "0.1", "20"), (None, "0.07", "100"))
BOUNDED = percentage("290", minAmount="0.30", maxAmount="10")
UNIQUE = {"aggregation": "unique", "aggregationProperty": "user"}
EU = {"filters": [{"property": "region", "operator": "equals", "value": "eu"}]}


def users(*names: str) -> tuple[Any, ...]:
    return tuple((1, {"user": each}) for each in names)


CASES: dict[str, Case] = {
    # One rate.
    "per_unit": Case(per_unit("0.02"), (100, 50), "150", (("usage", "150", "0.02"),), 300, unit="0.02"),
    "per_unit_included": Case(
        per_unit("0.1"), (10_000, 25_000), "35000",
        (("included", "10000", "0"), ("usage", "25000", "0.1")), 250_000,
        billed="25000", terms={"includedAmount": 10_000}, unit="0.1",
    ),
    "per_unit_all_included": Case(
        per_unit("0.1"), (60, 40), "100", (), 0, billed="0", terms={"includedAmount": 100}
    ),
    "per_unit_tiny": Case(
        per_unit("0.0007"), (12_350,), "12350", (("usage", "12350", "0.0007"),), 865, unit="0.0007"
    ),
    "per_unit_below_a_cent": Case(
        per_unit("0.0007"), (7,), "7", (("usage", "7", "0.0007"),), 0, unit="0.0007"
    ),
    "free_of_charge": Case(per_unit("0"), (7,), "7", (("usage", "7", "0"),), 0),
    # A fixed amount.
    "flat": Case(
        {"model": "flat", "amount": "19.99"}, (3, 4), "7",
        (("usage", "7", "0"), ("flat amount", "1", "19.99")), 1999,
    ),
    "flat_unused": Case({"model": "flat", "amount": "19.99"}, (), "0", (("flat amount", "1", "19.99"),), 1999),
    "flat_included": Case(
        {"model": "flat", "amount": "5"}, (10,), "10",
        (("included", "4", "0"), ("usage", "6", "0"), ("flat amount", "1", "5")), 500,
        billed="6", terms={"includedAmount": 4},
    ),
    # Each slice at its own rate.
    "graduated": Case(
        THREE, (250, 350), "600",
        (("tier 1: up to 100", "100", "1"), ("tier 2: 100 to 500", "400", "0.75"), ("tier 3: above 500", "100", "0.5")),
        45_000,
    ),
    "graduated_on_the_step": Case(THREE, (100,), "100", (("tier 1: up to 100", "100", "1"),), 10_000),
    "graduated_above_the_step": Case(
        THREE, (100, 0.5), "100.5", (("tier 1: up to 100", "100", "1"), ("tier 2: 100 to 500", "0.5", "0.75")), 10_038
    ),
    "graduated_included": Case(
        THREE, (600,), "600",
        (("included", "50", "0"), ("tier 1: up to 100", "100", "1"), ("tier 2: 100 to 500", "400", "0.75"), ("tier 3: above 500", "50", "0.5")),
        42_500, billed="550", terms={"includedAmount": 50},
    ),
    "graduated_flat": Case(
        tiers("graduated", ("10", "0", "5"), (None, "0.1", "2")), (15,), "15",
        (("tier 1: up to 10", "10", "0"), ("tier 1: up to 10, flat amount", "1", "5"),
         ("tier 2: above 10", "5", "0.1"), ("tier 2: above 10, flat amount", "1", "2")), 750,
    ),
    "graduated_flat_unused": Case(tiers("graduated", ("10", "0", "5"), (None, "1")), (), "0", (), 0),
    "graduated_flat_at_zero": Case(
        tiers("graduated", ("10", "0", "5"), (None, "1"), chargeFlatAtZero=True), (), "0",
        (("tier 1: up to 10, flat amount", "1", "5"),), 500,
    ),
    # The whole quantity at the rate of the tier it lands in.
    "volume": Case(
        VOLUME, (150_000,), "150000",
        (("tier 2: above 100000", "150000", "0.07"), ("tier 2: above 100000, flat amount", "1", "100")), 1_060_000,
    ),
    "volume_on_the_step": Case(
        VOLUME, (100_000,), "100000",
        (("tier 1: up to 100000", "100000", "0.1"), ("tier 1: up to 100000, flat amount", "1", "20")), 1_002_000,
    ),
    "volume_above_the_step": Case(
        VOLUME, (100_000, 0.5), "100000.5",
        (("tier 2: above 100000", "100000.5", "0.07"), ("tier 2: above 100000, flat amount", "1", "100")), 710_004,
    ),
    "volume_unused": Case(VOLUME, (), "0", (), 0),
    "volume_included": Case(
        tiers("volume", ("100", "1"), (None, "0.5")), (150,), "150",
        (("included", "50", "0"), ("tier 1: up to 100", "100", "1")), 10_000, billed="100", terms={"includedAmount": 50},
    ),
    # By the package.
    "package": Case(package("1000", "25"), (3200,), "3200", (("packages of 1000", "4", "25"),), 10_000),
    "package_exactly": Case(package("1000", "25"), (1000, 2000), "3000", (("packages of 1000", "3", "25"),), 7500),
    "package_begun": Case(package("1000", "25"), (3000, 0.001), "3000.001", (("packages of 1000", "4", "25"),), 10_000),
    "package_free": Case(
        package("1000", "25", freeUnits="500"), (1500,), "1500",
        (("free units", "500", "0"), ("packages of 1000", "1", "25")), 2500,
    ),
    "package_all_free": Case(package("1000", "25", freeUnits="500"), (500,), "500", (("free units", "500", "0"),), 0),
    "package_included": Case(
        package("10", "3", freeUnits="5"), (40,), "40",
        (("included", "20", "0"), ("free units", "5", "0"), ("packages of 10", "2", "3")), 600,
        billed="20", terms={"includedAmount": 20},
    ),
    # A share of each event's amount.
    "percentage": Case(
        percentage("290"), (100, 50.5), "150.5", (("2.9% of the amount", "150.5", "0.029"),), 436
    ),
    "percentage_bounded": Case(
        BOUNDED, (10, 100, 500), "610",
        (("2.9% of the amount", "100", "0.029"), ("events at the minimum fee", "1", "0.3"), ("events at the maximum fee", "1", "10")),
        1320,
    ),
    "percentage_fixed": Case(
        percentage("290", fixedAmount="0.30"), (100, 100, 20), "220",
        (("2.9% of the amount", "220", "0.029"), ("fixed amount per event", "3", "0.3")), 728,
    ),
    "percentage_free_events": Case(
        percentage("1000", freeEvents=2), (100, 200, 300, 50), "650",
        (("free of charge", "300", "0"), ("10% of the amount", "350", "0.1")), 3500,
    ),
    "percentage_free_amount": Case(
        percentage("1000", freeAmount="150", fixedAmount="1"), (100, 200, 300), "600",
        (("free of charge", "150", "0"), ("10% of the amount", "450", "0.1"), ("fixed amount per event", "2", "1")), 4700,
    ),
    "percentage_unused": Case(BOUNDED, (), "0", (), 0),
    # At least, and at most.
    "minimum": Case(
        per_unit("0.5"), (30,), "30", (("usage", "30", "0.5"),), 5000, terms={"minimumAmount": "50"}, true_up=3500, unit="0.5"
    ),
    "minimum_unused": Case(per_unit("0.5"), (), "0", (), 5000, terms={"minimumAmount": "50"}, true_up=5000),
    "minimum_all_included": Case(
        per_unit("0.5"), (5,), "5", (), 5000, billed="0",
        terms={"minimumAmount": "50", "includedAmount": 10}, true_up=5000,
    ),
    "minimum_reached": Case(
        per_unit("0.5"), (100,), "100", (("usage", "100", "0.5"),), 5000, terms={"minimumAmount": "50"}, unit="0.5"
    ),
    "minimum_of_tiers": Case(
        THREE, (40,), "40", (("tier 1: up to 100", "40", "1"),), 5000, terms={"minimumAmount": "50"}, true_up=1000
    ),
    "minimum_and_half_a_cent": Case(  # what is on the two lines is what was agreed, not a cent more
        per_unit("0.005"), (2001,), "2001", (("usage", "2001", "0.005"),), 2000,
        terms={"minimumAmount": "20"}, true_up=999, unit="0.005",
    ),
    "maximum": Case(
        per_unit("0.5"), (300,), "300", (("usage", "300", "0.5"), ("down to the maximum", "1", "-100")), 5000,
        terms={"maximumAmount": "50"}, unit="0.5",
    ),
    "maximum_not_reached": Case(
        per_unit("0.5"), (30,), "30", (("usage", "30", "0.5"),), 1500, terms={"maximumAmount": "50"}, unit="0.5"
    ),
    "maximum_of_packages": Case(
        package("10", "7"), (45,), "45", (("packages of 10", "5", "7"), ("down to the maximum", "1", "-5")), 3000,
        terms={"maximumAmount": "30"},
    ),
    "between_both": Case(
        BOUNDED, (1000, 1000, 1000), "3000", (("events at the maximum fee", "3", "10"), ("down to the maximum", "1", "-5")),
        2500, terms={"minimumAmount": "5", "maximumAmount": "25"},
    ),
    "below_both": Case(
        BOUNDED, (10,), "10", (("events at the minimum fee", "1", "0.3"),), 500,
        terms={"minimumAmount": "5", "maximumAmount": "25"}, true_up=470,
    ),
    # Whatever is measured.
    "counted": Case(
        THREE, (7,) * 120, "120", (("tier 1: up to 100", "100", "1"), ("tier 2: 100 to 500", "20", "0.75")), 11_500,
        meter={"aggregation": "count"},
    ),
    "distinct": Case(
        tiers("volume", ("2", "10"), (None, "8")), (*users("u1", "u2", "u1", "u3"), (1, {"user": " "}), (1, {})), "3",
        (("tier 2: above 2", "3", "8"),), 2400, meter=UNIQUE, dropped=2,
    ),
    "largest": Case(
        package("10", "4"), (12, 31, 7), "31", (("packages of 10", "4", "4"),), 1600, meter={"aggregation": "max"}
    ),
    "newest": Case(
        per_unit("2"), (12, 31, 7), "7", (("usage", "7", "2"),), 1400, meter={"aggregation": "latest"}, unit="2"
    ),
    "newest_is_nothing": Case(per_unit("2"), (12, 0), "0", (), 0, meter={"aggregation": "latest"}),
    "newest_of_a_property": Case(
        tiers("graduated", ("5", "3"), (None, "1")),
        ((1, {"seats": "4"}), (1, {"seats": "8"}), (1, {"seats": "many"}), (1, {})), "8",
        (("tier 1: up to 5", "5", "3"), ("tier 2: above 5", "3", "1")), 1800,
        meter={"aggregation": "latest", "aggregationProperty": "seats"}, dropped=2,
    ),
    "filtered": Case(
        percentage("1000"), ((5, {"region": "eu"}), (7, {"region": "us"}), (11, {"region": "eu"}), (13, {})), "16",
        (("10% of the amount", "16", "0.1"),), 160, meter=EU, dropped=2,
    ),
}  # fmt: skip


@dataclass
class Lived:
    """The organization after its close: the invoice, what it was to be, and what was sent."""

    shop: Organization
    invoice: Json
    upcoming: Json
    sent: dict[str, list[Json]]
    proofs: dict[str, Json]

    def lines(self, name: str) -> list[Json]:
        return usage_of(self.invoice, name)


def event(customer: str, feature: str, place: int, given: Any) -> Json:
    """The `place`-th event of a feature, half an hour after the one before."""
    value, properties = given if isinstance(given, tuple) else (given, {})
    return {
        "customerId": customer,
        "featureCode": feature,
        "eventId": f"{feature}_{place}",
        "value": value,
        "timestamp": (FIRST_USE + place * timedelta(minutes=30)).isoformat(),
        "properties": properties,
    }


def send(shop: Organization, events: list[Json]) -> None:
    for start in range(0, len(events), 100):
        assert track_batch(shop, events[start : start + 100])["failed"] == []


@pytest.fixture(scope="module")
def lived(server: Server, database_url: str) -> Iterator[Lived]:
    """All cases in one plan, held by one customer in Kathmandu, over one period. Half the events come backwards."""
    shop = open_one(database_url, server.base_url, clock=OPENED)
    plan = add_plan(shop)
    sent: dict[str, list[Json]] = {}
    for name, case in CASES.items():
        add_feature(shop, name, **case.meter)
        shown = promise(shop, plan, name, price=case.price, **case.terms)
        assert as_asked(shown["price"], case.price), shown
        sent[name] = [event("ada", name, place, given) for place, given in enumerate(case.sent)]
    subscribe(shop, "ada", customer={"timezone": "Asia/Kathmandu"})
    set_clock(shop, "2025-01-25T00:00:00Z")
    every_event = [each for events in sent.values() for each in events]
    send(shop, every_event[::2] + every_event[1::2][::-1])
    set_clock(shop, (at(CLOSE) - TICK).isoformat())
    held = done(shop.http.get(f"{API}/subscriptions/active?customerId=ada"))
    upcoming = done(shop.http.get(f"{API}/subscriptions/{held['id']}/upcoming-invoice"))
    set_clock(shop, CLOSE)
    invoice = invoices_of(shop, "ada")[-1]
    yield Lived(shop, invoice, upcoming, sent, evidence_of(shop, invoice))
    shop.http.close()


def as_asked(shown: Any, asked: Any) -> bool:
    """Whether what is shown holds all that was asked for, numbers as numbers."""
    match asked:
        case dict():
            return all(as_asked(shown[name], each) for name, each in asked.items())
        case list():
            return len(shown) == len(asked) and all(map(as_asked, shown, asked))
        case str() if asked[:1].isdigit():
            return Decimal(shown) == Decimal(asked)
    return bool(shown == asked)


@pytest.mark.parametrize("name", CASES)
def test_a_price_is_billed_as_an_accountant_would(lived: Lived, name: str) -> None:
    case = CASES[name]
    found = lived.lines(name)
    assert sum(line["amount"] for line in found) == case.cents
    billed = case.used if case.billed is None else case.billed
    usage = [line for line in found if line["chargeType"] == "standard"]
    if not case.components:
        assert usage == []
    else:
        (line,) = usage
        assert (line["usedDecimal"], line["quantityDecimal"]) == (case.used, billed)
        assert (line["overageDecimal"], line["unitAmountDecimal"]) == (billed, case.unit)
        assert line["includedDecimal"] == str(case.terms.get("includedAmount", 0))
        assert line["amount"] == case.cents - (case.true_up or 0)
        proof = lived.proofs[line["id"]]
        told = [(each["label"], each["quantity"], each["unitAmount"]) for each in proof["components"]]
        assert told == list(case.components)
        assert sum(D(each["units"]) for each in proof["components"]) == D(case.used)
        assert as_asked(proof["price"], case.price)
    lifted = [(line["amount"], line["description"]) for line in found if line["chargeType"] == "true_up"]
    if case.true_up is None:
        assert lifted == []
    else:
        assert lifted == [(case.true_up, f"{name}: up to the minimum of {case.terms['minimumAmount']}")]


@pytest.mark.parametrize("name", CASES)
def test_the_preview_says_exactly_what_the_invoice_says(lived: Lived, name: str) -> None:
    case = CASES[name]
    counted = [each["value"] for each in lived.sent[name] if not case.dropped or in_eu(each)]
    asked: Json = {"amounts": counted} if case.price["model"] == "percentage" else {"quantity": case.used}
    for ours, theirs in (
        ("included", "includedAmount"),
        ("minimum", "minimumAmount"),
        ("maximum", "maximumAmount"),
    ):
        if theirs in case.terms:
            asked[ours] = case.terms[theirs]
    said = preview(lived.shop, case.price, **asked)
    found = lived.lines(name)
    parts = [part for line in found for part in lived.proofs[line["id"]]["components"]]
    if found:
        assert without_what_is_free(said["components"]) == without_what_is_free(parts)
    assert said["totalMinor"] == sum(line["amount"] for line in found) == case.cents
    assert said["currency"] == lived.invoice["currency"]


def without_what_is_free(parts: list[Json]) -> list[Json]:
    """A minimum alone says nothing of what was included; the preview does."""
    return [each for each in parts if D(each["unitAmount"])]


def in_eu(sent: Json) -> bool:
    return bool(sent["properties"].get("region") == "eu")


def test_the_upcoming_invoice_is_the_invoice(lived: Lived) -> None:
    upcoming, invoice = lived.upcoming, lived.invoice
    assert upcoming["lineItems"] == [
        {name: value for name, value in line.items() if name != "id"} for line in invoice["lineItems"]
    ]
    for name in ("invoiceType", "currency", "subtotal", "total", "periodStart", "periodEnd", "customerId"):
        assert upcoming[name] == invoice[name], name
    assert upcoming["closesAt"] == invoice["issueDate"] == "2025-02-14T18:15:00.000Z"
    assert upcoming["usageUntil"] == upcoming["closesAt"]
    assert lived.invoice["total"] == 2900 + sum(case.cents for case in CASES.values())


def test_the_upcoming_invoice_says_until_when_usage_is_in_it(make_organization: MakeOrganization) -> None:
    """A client's clock may be ahead of ours: what it reports is accepted, and counted."""
    shop = make_organization()
    open_shop(shop, "ada")
    (held,) = done(shop.http.get(f"{API}/subscriptions?customerId=ada"))["data"]
    ahead = wall() + timedelta(minutes=50)
    done(track(shop, value=100, timestamp=ahead.isoformat()))
    upcoming = done(shop.http.get(f"{API}/subscriptions/{held['id']}/upcoming-invoice"))
    assert [
        line["usedDecimal"] for line in upcoming["lineItems"] if line["lineType"] == "feature_overage"
    ] == ["100"]
    assert ahead < datetime.fromisoformat(upcoming["usageUntil"]) < ahead + timedelta(minutes=15)


@pytest.mark.parametrize("name", CASES)
def test_each_line_lists_the_events_it_bills(lived: Lived, name: str) -> None:
    case = CASES[name]
    for line in lived.lines(name):
        listed, summary = events_of(lived.shop, lived.invoice, line, limit=7)
        told = explained(lived.shop, lived.invoice, line)
        if line["chargeType"] == "true_up":
            assert (listed, told["eventsKept"], told["eventsDropped"]) == ([], 0, [])
            continue
        keys = [each["eventId"] for each in listed]
        assert len(keys) == len(case.sent) - case.dropped
        assert keys == [each["eventId"] for each in lived.sent[name] if each["eventId"] in keys]
        assert (summary["events"], summary["quantity"]) == (len(keys), case.used)
        assert sum(each["events"] for each in told["eventsDropped"]) == case.dropped


def test_all_of_it_verifies(lived: Lived) -> None:
    base, invoice = verified(lived.shop, "ada")
    assert invoice == lived.invoice
    assert [line["lineType"] for line in base["lineItems"]] == ["plan_base"]


PERIOD = (
    "The usage period runs from 2025-01-15T10:00:00.000Z up to, not including, 2025-02-14T18:15:00.000Z, "
    "as days are counted in Asia/Kathmandu."
)


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        (
            "per_unit_included",
            [
                "Usage is the sum of value over events named per_unit_included (meter version 1).",
                "2 events counted; none was left out.",
                "They amount to 35000, of which 10000 are included and 25000 are billed.",
                "Included: 10000 × 0 USD = 0 USD.",
                "Usage: 25000 × 0.1 USD = 2500 USD.",
                "Together that is exactly 2500.00 USD.",
            ],
        ),
        (
            "graduated_above_the_step",
            [
                "Usage is the sum of value over events named graduated_above_the_step (meter version 1).",
                "2 events counted; none was left out.",
                "They amount to 100.5, of which 0 are included and 100.5 are billed.",
                "Tier 1: up to 100: 100 × 1 USD = 100 USD.",
                "Tier 2: 100 to 500: 0.5 × 0.75 USD = 0.375 USD.",
                "Together that is 100.375 USD, rounded once, half up, to 100.38 USD.",
            ],
        ),
        (
            "distinct",
            [
                "Usage is the number of distinct values of user over events named distinct (meter version 1).",
                "4 events counted; left out: 2 because user is missing or blank.",
                "They amount to 3, of which 0 are included and 3 are billed.",
                "Tier 2: above 2: 3 × 8 USD = 24 USD.",
                "Together that is exactly 24.00 USD.",
            ],
        ),
        (
            "filtered",
            [
                "Usage is the sum of value over events named filtered (meter version 1) with region equals 'eu'.",
                "2 events counted; left out: 1 because region is 'us'; the filter wants equals 'eu'; "
                "1 because region is missing; the filter wants equals 'eu'.",
                "They amount to 16, of which 0 are included and 16 are billed.",
                "10% of the amount: 16 × 0.1 USD = 1.6 USD.",
                "Together that is exactly 1.60 USD.",
            ],
        ),
        (
            "newest_of_a_property",
            [
                "Usage is the newest seats over events named newest_of_a_property (meter version 1).",
                "2 events counted; left out: 1 because seats is 'many', which is no number; "
                "1 because seats is missing or blank.",
                "They amount to 8, of which 0 are included and 8 are billed.",
                "Tier 1: up to 5: 5 × 3 USD = 15 USD.",
                "Tier 2: above 5: 3 × 1 USD = 3 USD.",
                "Together that is exactly 18.00 USD.",
            ],
        ),
        (
            "maximum",
            [
                "Usage is the sum of value over events named maximum (meter version 1).",
                "1 event counted; none was left out.",
                "They amount to 300, of which 0 are included and 300 are billed.",
                "Usage: 300 × 0.5 USD = 150 USD.",
                "Down to the maximum: 1 × -100 USD = -100 USD.",
                "Together that is exactly 50.00 USD.",
            ],
        ),
    ],
)
def test_a_line_is_explained_in_sentences(lived: Lived, name: str, sentences: list[str]) -> None:
    (line,) = lived.lines(name)
    assert explained(lived.shop, lived.invoice, line)["sentences"] == [PERIOD, *sentences]


def test_a_minimum_and_a_base_are_explained_too(lived: Lived) -> None:
    (line,) = [each for each in lived.lines("minimum") if each["chargeType"] == "true_up"]
    assert explained(lived.shop, lived.invoice, line)["sentences"] == [
        PERIOD,
        "Usage is the sum of value over events named minimum (meter version 1).",
        "Up to the minimum: 1 × 35 USD = 35 USD.",
        "Together that is exactly 35.00 USD.",
    ]
    base = lived.invoice["lineItems"][0]
    assert explained(lived.shop, lived.invoice, base)["text"] == (
        "The base price of pro, 29.00 USD, is charged in advance for the period from 2025-02-14T18:15:00.000Z "
        "to 2025-03-14T18:15:00.000Z (Asia/Kathmandu)."
    )


def test_an_upcoming_invoice_is_one_moment_while_events_pour_in(open_at: Any) -> None:
    """Its usage, its components and its amount are of the same instant, however many arrive meanwhile."""
    shop = open_at(OPENED)
    add_feature(shop)
    add_plan(shop, promises={"api_calls": {"price": per_unit("0.1")}})
    held = subscribe(shop, "ada")
    body = {"featureCode": "api_calls", "customerId": "ada", "value": 2}
    enough = threading.Event()

    def pour(_: int) -> int:
        sent = 0
        with httpx.Client(base_url=shop.base_url, headers={"x-api-key": shop.api_key}, timeout=30) as http:
            while not enough.is_set():
                assert (
                    done(http.post(f"{API}/usage/events/batch", json={"events": [body] * 10}))["failed"] == []
                )
                sent += 10
        return sent

    with ThreadPoolExecutor(3) as pool:
        pouring = [pool.submit(pour, number) for number in range(3)]
        try:
            seen = []
            for _ in range(30):
                told = done(shop.http.get(f"{API}/subscriptions/{held['id']}/upcoming-invoice"))
                for line in usage_of(told):
                    assert line["amount"] == int(line["usedDecimal"]) * 10
                    seen.append(int(line["usedDecimal"]))
        finally:
            enough.set()
        sent = sum(each.result() for each in pouring)
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
    set_clock(shop, "2025-02-15T00:00:00Z")
    (line,) = usage_of(invoices_of(shop, "ada")[-1])
    assert (line["usedDecimal"], line["amount"]) == (str(2 * sent), 20 * sent)


# A price that changes -------------------------------------------------------------------------------------

CHANGED = "2025-01-25T00:00:00.000Z"


@dataclass(frozen=True)
class Change:
    """A price from one instant on: what is used before and after, and a line for each stretch that was used."""

    before: Json
    after: Json
    used: tuple[tuple[Any, ...], tuple[Any, ...]]
    lines: tuple[tuple[str, str, str, str, int], ...]  # from, used, included, billed, cents
    parts: tuple[tuple[str, str, str], ...]  # of the last line: label, quantity, unit amount
    meter: Json = field(default_factory=dict)
    true_up: int = 0


def steps(first: str, rest: str, model: str = "graduated") -> Json:
    return tiers(model, ("100", first), (None, rest))


def priced(price: Json, **more: Any) -> Json:
    return {"price": price, **more}


EARLY, LATE = "2025-01-15", "2025-01-25"
CHANGES: dict[str, Change] = {
    "graduated": Change(  # the second price says 240 of 140 and 160 of 80
        priced(steps("1", "0.5")), priced(steps("2", "1")), ((50, 30), (60,)),
        ((EARLY, "80", "0", "80", 8000), (LATE, "60", "0", "60", 8000)),
        (("tier 1: up to 100", "20", "2"), ("tier 2: above 100", "40", "1")),
    ),
    "volume": Change(
        priced(steps("1", "0.5", "volume")), priced(steps("1", "0.6", "volume")), ((80,), (120,)),
        ((EARLY, "80", "0", "80", 8000), (LATE, "120", "0", "120", 4000)),
        (("tier 2: above 100", "200", "0.6"), ("tier 1: up to 100", "-80", "1")),
    ),
    "volume_falls": Change(  # all of it costs less than its first part did: that is what a volume price says
        priced(steps("1", "0.5", "volume")), priced(steps("1", "0.3", "volume")), ((80,), (120,)),
        ((EARLY, "80", "0", "80", 8000), (LATE, "120", "0", "120", -2000)),
        (("tier 2: above 100", "200", "0.3"), ("tier 1: up to 100", "-80", "1")),
    ),
    "package": Change(
        priced(package("1000", "25")), priced(package("1000", "20")), ((1500,), (700,)),
        ((EARLY, "1500", "0", "1500", 5000), (LATE, "700", "0", "700", 2000)),
        (("packages of 1000", "1", "20"),),
    ),
    "package_half_full": Change(
        priced(package("1000", "25")), priced(package("1000", "20")), ((1500,), (500,)),
        ((EARLY, "1500", "0", "1500", 5000), (LATE, "500", "0", "500", 0)),
        (("packages of 1000", "0", "20"),),
    ),
    "percentage": Change(
        priced(percentage("1000")), priced(percentage("2000")), ((100, 200), (300,)),
        ((EARLY, "300", "0", "300", 3000), (LATE, "300", "0", "300", 6000)),
        (("20% of the amount", "300", "0.2"),),
    ),
    "percentage_free_events": Change(
        priced(percentage("1000", freeEvents=2)), priced(percentage("2000", freeEvents=2)), ((100,), (200, 300)),
        ((EARLY, "100", "0", "100", 0), (LATE, "500", "0", "500", 6000)),
        (("free of charge", "200", "0"), ("20% of the amount", "300", "0.2")),
    ),
    "included": Change(  # twenty are left
        priced(per_unit("0.1"), includedAmount=50), priced(per_unit("0.2")), ((30,), (40,)),
        ((EARLY, "30", "50", "0", 0), (LATE, "40", "20", "20", 400)),
        (("included", "20", "0"), ("usage", "20", "0.2")),
    ),
    "included_used_up": Change(
        priced(per_unit("0.1"), includedAmount=50), priced(per_unit("0.2")), ((70,), (40,)),
        ((EARLY, "70", "50", "20", 200), (LATE, "40", "0", "40", 800)),
        (("usage", "40", "0.2"),),
    ),
    "flat": Change(  # the period's amount is due once
        priced({"model": "flat", "amount": "20"}), priced({"model": "flat", "amount": "30"}), ((1,), (2,)),
        ((EARLY, "1", "0", "1", 2000), (LATE, "2", "0", "2", 0)),
        (("usage", "2", "0"),),
    ),
    "maximum": Change(
        priced(per_unit("0.5"), maximumAmount="50"), priced(per_unit("1")), ((60,), (100,)),
        ((EARLY, "60", "0", "60", 3000), (LATE, "100", "0", "100", 2000)),
        (("usage", "100", "1"), ("down to the maximum", "1", "-80")),
    ),
    "maximum_and_half_a_cent": Change(  # 10.005 is on the first line as 10.01
        priced(per_unit("0.005"), maximumAmount="20"), priced(per_unit("1")), ((2001,), (100,)),
        ((EARLY, "2001", "0", "2001", 1001), (LATE, "100", "0", "100", 999)),
        (("usage", "100", "1"), ("down to the maximum", "1", "-90.005")),
    ),
    "minimum_and_half_a_cent": Change(
        priced(per_unit("0.005"), minimumAmount="30"), priced(per_unit("0.005")), ((2001,), (1001,)),
        ((EARLY, "2001", "0", "2001", 1001), (LATE, "1001", "0", "1001", 501)),
        (("usage", "1001", "0.005"),), true_up=1498,
    ),
    "minimum": Change(
        priced(per_unit("0.5"), minimumAmount="100"), priced(per_unit("0.4")), ((10,), (20,)),
        ((EARLY, "10", "0", "10", 500), (LATE, "20", "0", "20", 800)),
        (("usage", "20", "0.4"),), true_up=8700,
    ),
    "from_a_limit": Change(  # what a hard limit stopped at the included units goes on for money
        {"includedAmount": 10, "overage": {"enabled": False}}, priced(per_unit("0.1")), ((10,), (30,)),
        ((EARLY, "10", "10", "0", 0), (LATE, "30", "0", "30", 300)), (("usage", "30", "0.1"),),
    ),
    "largest": Change(
        priced(per_unit("1")), priced(per_unit("2")), ((10, 7), (25, 12)),
        ((EARLY, "10", "0", "10", 1000), (LATE, "15", "0", "15", 3000)),
        (("usage", "15", "2"),), {"aggregation": "max"},
    ),
    "largest_was_before": Change(
        priced(per_unit("1")), priced(per_unit("2")), ((10,), (7,)),
        ((EARLY, "10", "0", "10", 1000),), (("usage", "10", "1"),), {"aggregation": "max"},
    ),
    "distinct": Change(
        priced(per_unit("1")), priced(per_unit("2")), (users("u1", "u2"), users("u2", "u3", "u1")),
        ((EARLY, "2", "0", "2", 200), (LATE, "1", "0", "1", 200)),
        (("usage", "1", "2"),), UNIQUE,
    ),
    "newest": Change(  # a level of 10, then of 4: 10 at the old price, less six at the new one
        priced(per_unit("2")), priced(per_unit("3")), ((5, 10), (4,)),
        ((EARLY, "10", "0", "10", 2000), (LATE, "-6", "0", "-6", -1800)),
        (("usage", "-6", "3"),), {"aggregation": "latest"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def changed(server: Server, database_url: str) -> Iterator[Lived]:
    shop = open_one(database_url, server.base_url, clock=OPENED)
    plan = add_plan(shop)
    sent: dict[str, list[Json]] = {}
    for name, change in CHANGES.items():
        add_feature(shop, name, **change.meter)
        promise(shop, plan, name, **change.before)
        path = f"{API}/plans/{plan['id']}/features/{name}"
        later = done(shop.http.patch(path, json={**change.after, "validFrom": CHANGED}))
        assert (later["version"], later["validFrom"]) == (2, CHANGED)
    subscribe(shop, "ada")
    for part, start in enumerate((OPENED, CHANGED)):  # the instant of the change belongs to what begins there
        for name, change in CHANGES.items():
            for place, given in enumerate(change.used[part]):
                told = event("ada", name, place, given)
                told["eventId"] += "_early" if part == 0 else "_late"
                told["timestamp"] = (at(start) + place * timedelta(minutes=30)).isoformat()
                sent.setdefault(name, []).append(told)
    set_clock(shop, "2025-01-26T00:00:00Z")
    events = [each for events in sent.values() for each in events]
    send(shop, events[::-1])
    set_clock(shop, "2025-02-14T23:59:59.999Z")
    held = done(shop.http.get(f"{API}/subscriptions/active?customerId=ada"))
    upcoming = done(shop.http.get(f"{API}/subscriptions/{held['id']}/upcoming-invoice"))
    set_clock(shop, "2025-02-15T00:00:00Z")
    invoice = invoices_of(shop, "ada")[-1]
    yield Lived(shop, invoice, upcoming, sent, evidence_of(shop, invoice))
    shop.http.close()


DAYS = {EARLY: "2025-01-15 to 2025-01-24", LATE: "2025-01-25 to 2025-02-14"}
SPANS = {
    EARLY: ["2025-01-15T10:00:00+00:00", "2025-01-25T00:00:00+00:00"],
    LATE: ["2025-01-25T00:00:00+00:00", "2025-02-15T00:00:00+00:00"],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_price_from_a_day_on_makes_two_lines_that_count_on(changed: Lived, name: str) -> None:
    change = CHANGES[name]
    found = changed.lines(name)
    usage = [line for line in found if line["chargeType"] == "standard"]
    told = [
        (
            line["description"].rpartition(", ")[2][:10],
            line["usedDecimal"],
            line["includedDecimal"],
            line["quantityDecimal"],
            line["amount"],
        )
        for line in usage
    ]
    assert told == list(change.lines)
    for line, (start, used, *_) in zip(usage, change.lines, strict=True):
        assert line["description"].endswith(DAYS[start])
        proof = changed.proofs[line["id"]]
        assert proof["span"] == SPANS[start]
        keys = [each["eventId"] for each in events_of(changed.shop, changed.invoice, line)[0]]
        part = "_early" if start == EARLY else "_late"
        assert keys == [each["eventId"] for each in changed.sent[name] if each["eventId"].endswith(part)]
        assert sum(D(each["units"]) for each in proof["components"]) == D(used)
    proof = changed.proofs[usage[-1]["id"]]
    told_parts = {(each["label"], each["quantity"], each["unitAmount"]) for each in proof["components"]}
    assert told_parts == set(change.parts)
    assert [line["amount"] for line in found if line not in usage] == [change.true_up][: bool(change.true_up)]


def test_two_dated_lines_verify_and_were_foreseen(changed: Lived) -> None:
    assert verified(changed.shop, "ada")[-1] == changed.invoice
    assert changed.upcoming["lineItems"] == [
        {name: value for name, value in line.items() if name != "id"} for line in changed.invoice["lineItems"]
    ]
    cents = sum(line[-1] for change in CHANGES.values() for line in change.lines)
    lifted = sum(change.true_up for change in CHANGES.values())
    assert changed.upcoming["total"] == changed.invoice["total"] == 2900 + cents + lifted


def test_a_dated_line_says_that_its_tiers_count_on(changed: Lived) -> None:
    second = changed.lines("graduated")[1]
    assert explained(changed.shop, changed.invoice, second)["sentences"][2:] == [
        "1 event counted; none was left out.",
        "They amount to 60, of which 0 are included and 60 are billed.",
        "The price changed within the period; this line speaks of 2025-01-25T00:00:00.000Z to "
        "2025-02-15T00:00:00.000Z, and its tiers go on counting from what was used before.",
        "Tier 1: up to 100: 20 × 2 USD = 40 USD.",
        "Tier 2: above 100: 40 × 1 USD = 40 USD.",
        "Together that is exactly 80.00 USD.",
    ]


def test_a_price_may_change_twice_in_a_period_and_again_in_the_next(open_at: Any) -> None:
    shop = open_at(OPENED)
    add_feature(shop)
    plan = add_plan(shop, promises={"api_calls": priced(steps("1", "0.5"))})
    path = f"{API}/plans/{plan['id']}/features/api_calls"
    for moment, first, rest in (("2025-02-05", "3", "2"), ("2025-01-25", "2", "1"), ("2025-02-20", "1", "1")):
        done(shop.http.patch(path, json={"price": steps(first, rest), "validFrom": f"{moment}T00:00:00Z"}))
    subscribe(shop, "ada")
    set_clock(shop, "2025-02-14T00:00:00Z")
    for moment in ("2025-01-16", "2025-01-26", "2025-02-06", "2025-02-13"):
        done(track(shop, value=40, timestamp=f"{moment}T00:00:00Z"))
    set_clock(shop, "2025-03-14T00:00:00Z")
    for moment in ("2025-02-15", "2025-02-20"):
        done(track(shop, value=80, timestamp=f"{moment}T00:00:00Z"))
    set_clock(shop, "2025-03-15T00:00:00Z")
    _, first_month, second_month = verified(shop, "ada")
    told = [
        (line["description"][-24:], line["usedDecimal"], line["amount"]) for line in usage_of(first_month)
    ]
    assert told == [
        ("2025-01-15 to 2025-01-24", "40", 4000),  # 40 at 1
        ("2025-01-25 to 2025-02-04", "40", 8000),  # 40 at 2
        ("2025-02-05 to 2025-02-14", "80", 18000),  # 20 at 3, 60 at 2
    ]
    told = [
        (line["description"][-24:], line["usedDecimal"], line["amount"]) for line in usage_of(second_month)
    ]
    assert told == [
        ("2025-02-15 to 2025-02-19", "80", 24000),  # 80 at 3
        ("2025-02-20 to 2025-03-14", "80", 8000),
    ]


@pytest.mark.parametrize("moment", ["2025-02-15T00:00:00Z", "2025-03-01T00:00:00Z"])
def test_a_price_from_the_next_period_on_leaves_this_one_whole(open_at: Any, moment: str) -> None:
    shop = open_at(OPENED)
    add_feature(shop)
    plan = add_plan(shop, promises={"api_calls": priced(per_unit("1"))})
    path = f"{API}/plans/{plan['id']}/features/api_calls"
    done(shop.http.patch(path, json={"price": per_unit("0.5"), "validFrom": moment}))
    subscribe(shop, "ada")
    done(track(shop, value=10))
    set_clock(shop, "2025-03-10T00:00:00Z")
    done(track(shop, value=10))
    set_clock(shop, "2025-03-15T00:00:00Z")
    _, first, second = verified(shop, "ada")
    assert [(line["amount"], "2025" in line["description"]) for line in usage_of(first)] == [(1000, False)]
    (line,) = usage_of(second)
    assert (line["amount"], "2025" in line["description"]) == (500, moment == "2025-03-01T00:00:00Z")


# Better now, worse at the renewal -------------------------------------------------------------------------

PERIOD_AND_NEXT: dict[str, tuple[Json, Json, tuple[Any, ...], int, int]] = {
    # before, what it is changed to while the period runs, usage of each period, cents of this one and of the next
    "per_unit_cheaper": (priced(per_unit("2")), priced(per_unit("1")), (10,), 1000, 1000),
    "per_unit_dearer": (priced(per_unit("1")), priced(per_unit("2")), (10,), 1000, 2000),
    "flat_lower": (priced({"model": "flat", "amount": "20"}), priced({"model": "flat", "amount": "10"}), (1,), 1000, 1000),
    "flat_higher": (priced({"model": "flat", "amount": "10"}), priced({"model": "flat", "amount": "20"}), (1,), 1000, 2000),
    "graduated_cheaper": (priced(steps("2", "1")), priced(steps("2", "0.5")), (120,), 21_000, 21_000),
    "graduated_dearer": (priced(steps("2", "0.5")), priced(steps("2", "1")), (120,), 21_000, 22_000),
    "graduated_cheaper_and_dearer": (priced(steps("2", "1")), priced(steps("1", "1.5")), (120,), 22_000, 13_000),
    "graduated_other_steps": (  # cheaper here, but nobody can say of whom
        priced(steps("2", "1")), priced(tiers("graduated", ("50", "2"), (None, "1"))), (120,), 22_000, 17_000,
    ),
    "graduated_flat_lower": (
        priced(tiers("graduated", ("10", "1", "5"), (None, "1", "5"))),
        priced(tiers("graduated", ("10", "1", "4"), (None, "1", "5"))), (12,), 2100, 2100,
    ),
    "volume_cheaper": (priced(steps("2", "1", "volume")), priced(steps("1", "1", "volume")), (50,), 5000, 5000),
    "volume_dearer": (priced(steps("1", "1", "volume")), priced(steps("2", "1", "volume")), (50,), 5000, 10_000),
    "volume_of_graduated": (priced(steps("2", "1")), priced(steps("2", "1", "volume")), (120,), 22_000, 12_000),
    "graduated_of_per_unit": (priced(per_unit("2")), priced(steps("1", "1")), (10,), 2000, 1000),
    "package_cheaper": (priced(package("10", "5")), priced(package("10", "4")), (25,), 1200, 1200),
    "package_dearer": (priced(package("10", "4")), priced(package("10", "5")), (25,), 1200, 1500),
    "package_of_other_size": (priced(package("10", "5")), priced(package("20", "5")), (25,), 1500, 1000),
    "package_more_free": (priced(package("10", "5")), priced(package("10", "5", freeUnits="5")), (25,), 1000, 1000),
    "package_less_free": (priced(package("10", "5", freeUnits="5")), priced(package("10", "5")), (25,), 1000, 1500),
    "percentage_less": (priced(percentage("1000")), priced(percentage("500")), (100, 200), 1500, 1500),
    "percentage_more": (priced(percentage("500")), priced(percentage("1000")), (100, 200), 1500, 3000),
    "percentage_first_maximum": (priced(percentage("1000")), priced(percentage("1000", maxAmount="15")), (100, 200), 2500, 2500),
    "percentage_no_maximum": (priced(percentage("1000", maxAmount="15")), priced(percentage("1000")), (100, 200), 2500, 3000),
    "percentage_first_minimum": (priced(percentage("1000")), priced(percentage("1000", minAmount="15")), (100, 200), 3000, 3500),
    "percentage_more_free": (priced(percentage("1000")), priced(percentage("1000", freeEvents=1)), (100, 200), 2000, 2000),
    "percentage_less_free": (priced(percentage("1000", freeAmount="50")), priced(percentage("1000")), (100, 200), 2500, 3000),
    "percentage_cheaper_and_dearer": (
        priced(percentage("1000")), priced(percentage("500", fixedAmount="1")), (100, 200), 3000, 1700
    ),
    "included_more": (priced(steps("1", "1"), includedAmount=10), {"includedAmount": 20}, (50,), 3000, 3000),
    "included_less": (priced(steps("1", "1"), includedAmount=20), {"includedAmount": 10}, (50,), 3000, 4000),
    "unlimited": (priced(steps("1", "1")), {"unlimited": True}, (50,), 0, 0),
    "limited_again": (priced(steps("1", "1"), unlimited=True), {"unlimited": False}, (50,), 0, 5000),
    "minimum_lower": (priced(per_unit("1"), minimumAmount="50"), {"minimumAmount": "30"}, (10,), 3000, 3000),
    "minimum_higher": (priced(per_unit("1"), minimumAmount="30"), {"minimumAmount": "50"}, (10,), 3000, 5000),
    "minimum_gone": (priced(per_unit("1"), minimumAmount="30"), {"minimumAmount": "0"}, (10,), 1000, 1000),
    "minimum_first": (priced(per_unit("1")), {"minimumAmount": "30"}, (10,), 1000, 3000),
    "maximum_lower": (priced(per_unit("1"), maximumAmount="50"), {"maximumAmount": "30"}, (90,), 3000, 3000),
    "maximum_higher": (priced(per_unit("1"), maximumAmount="30"), {"maximumAmount": "50"}, (90,), 3000, 5000),
    "maximum_first": (priced(per_unit("1")), {"maximumAmount": "30"}, (90,), 3000, 3000),
    "dearer_but_more_included": (  # each half by its own rule
        priced(steps("1", "1"), includedAmount=10), priced(steps("2", "2"), includedAmount=20), (50,), 3000, 6000,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def renewed(server: Server, database_url: str) -> Iterator[tuple[Organization, list[Json]]]:
    """Every change made in the middle of a period in which all is used already; then the same usage once more."""
    shop = open_one(database_url, server.base_url, clock=OPENED)
    plan = add_plan(shop)
    for name, (before, *_) in PERIOD_AND_NEXT.items():
        add_feature(shop, name)
        promise(shop, plan, name, **before)
    subscribe(shop, "ada")

    def use(month: str) -> None:
        set_clock(shop, f"2025-{month}-20T00:00:00Z")
        sent = []
        for name, (*_, used, _, _) in PERIOD_AND_NEXT.items():
            for place, given in enumerate(used):
                told = {**event("ada", name, place, given), "timestamp": f"2025-{month}-19T0{place}:00:00Z"}
                sent.append({**told, "eventId": f"{name}_{month}_{place}"})
        send(shop, sent)

    use("01")
    for name, (_, after, *_) in PERIOD_AND_NEXT.items():
        done(shop.http.patch(f"{API}/plans/{plan['id']}/features/{name}", json=after))
    use("02")
    set_clock(shop, "2025-03-15T00:00:00Z")
    yield shop, invoices_of(shop, "ada")[1:]
    shop.http.close()


@pytest.mark.parametrize("name", PERIOD_AND_NEXT)
def test_what_is_better_counts_now_and_what_is_worse_from_the_renewal(
    renewed: tuple[Organization, list[Json]], name: str
) -> None:
    *_, now, then = PERIOD_AND_NEXT[name]
    told = [[line["amount"] for line in usage_of(invoice, name)] for invoice in renewed[1]]
    assert [sum(each) for each in told] == [now, then]
    for invoice in renewed[1]:
        assert len([each for each in usage_of(invoice, name) if each["chargeType"] == "standard"]) <= 1


def test_changed_promises_verify(renewed: tuple[Organization, list[Json]]) -> None:
    shop, invoices = renewed
    assert verified(shop, "ada")[1:] == invoices


# The preview alone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("currency", "minor", "total"), [("USD", 101, "1.005"), ("JPY", 1, "1.005"), ("EUR", 101, "1.005")]
)
def test_a_preview_rounds_as_its_currency_does(
    make_organization: Any, currency: str, minor: int, total: str
) -> None:
    said = preview(make_organization(), per_unit("0.335"), quantity="3", currency=currency)
    assert (said["total"], said["totalMinor"], said["currency"]) == (total, minor, currency)


def test_a_preview_tells_the_charge_from_what_lifts_it(make_organization: Any) -> None:
    said = preview(make_organization(), per_unit("0.5"), quantity=12, included=2, minimum="20")
    assert (said["subtotal"], said["total"], said["totalMinor"]) == ("5", "20", 2000)
    assert [
        (each["label"], each["quantity"], each["amount"], each["units"]) for each in said["components"]
    ] == [
        ("included", "2", "0", "2"),
        ("usage", "10", "5", "10"),
        ("up to the minimum", "1", "15", "0"),
    ]
