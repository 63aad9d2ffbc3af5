"""Usage that arrives after its period was billed: what it costs is what it would have cost on time."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import Organization, Server, open_one
from tests.literals import at
from tests.scenarios.proving import (
    events_of,
    evidence_of,
    explained,
    late_events,
    usage_of,
    verified,
    verify,
)
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    every,
    invoices_of,
    overage,
    pay,
    promise,
    refused,
    set_clock,
    subscribe,
    track,
    track_batch,
)

OPENED = "2025-01-15T10:00:00Z"
POLICIES = ("next_period", "current_period", "ignore")

# On time and late, for every policy, meter and price -------------------------------------------------------

METERS: dict[str, Json] = {
    "sum": {},
    "count": {"aggregation": "count"},
    "max": {"aggregation": "max"},
    "latest": {"aggregation": "latest"},
    "unique": {"aggregation": "unique", "aggregationProperty": "user"},
}


def steps(model: str, *tiers: tuple[Any, ...]) -> Json:
    names = ("upTo", "unitAmount", "flatAmount")
    return {"price": {"model": model, "tiers": [dict(zip(names, tier, strict=False)) for tier in tiers]}}


def per_unit(amount: str, **more: Any) -> Json:
    return {"price": {"model": "per_unit", "unitAmount": amount}, **more}


def percentage(points: str, **more: Any) -> Json:
    return {"price": {"model": "percentage", "basisPoints": points, **more}}


PRICES: dict[str, Json] = {
    "per_unit": per_unit("0.375", includedAmount=2),
    "graduated": steps("graduated", ("3", "1.505"), ("20", "0.75", "2"), (None, "0.25")),
    "volume": steps("volume", ("3", "2"), ("20", "1.105", "1"), (None, "0.3")),  # gets cheaper
    "package": {"price": {"model": "package", "packageSize": "4", "packageAmount": "3.35", "freeUnits": "1"}},
    "minimum": per_unit("2.505", minimumAmount="9.99"),
    "maximum": per_unit("1.005", maximumAmount="12.50", includedAmount=1),
    "dated": steps("graduated", ("3", "1"), (None, "0.5")),  # dearer from 25 January on
    "free_events": percentage("290", fixedAmount="0.30", minAmount="0.50", maxAmount="1.50", freeEvents=1),
    "free_amount": percentage("1000", freeAmount="20"),
}
DATED = {**steps("graduated", ("3", "2"), (None, "1.505")), "validFrom": "2025-01-25T00:00:00Z"}
FEATURES: dict[str, tuple[str, str, str]] = {
    f"{policy}_{meter}_{price}": (policy, meter, price)
    for policy in POLICIES
    for meter in METERS
    for price in PRICES
    if meter == "sum" or not price.startswith("free")
}

# When it happened, how much, who, and when it came if not at once. Periods end on the 14th, 18:15 UTC.
USED: tuple[tuple[str, str, str, str | None], ...] = (
    ("2025-01-16T00:00Z", "5", "u1", None),
    ("2025-01-20T06:30Z", "2.5", "u2", None),
    ("2025-02-01T12:00Z", "12", "u1", None),
    ("2025-01-18T00:00Z", "7", "u3", "2025-02-16T00:00Z"),  # late by one period
    ("2025-02-20T00:00Z", "1", "u3", None),
    ("2025-01-15T10:00Z", "1.25", "u1", "2025-03-20T00:00Z"),  # the very first instant, late by two
    ("2025-02-14T18:15Z", "40", "u2", "2025-03-20T00:00Z"),  # two of one period, at once
    ("2025-03-01T00:00Z", "0.5", "u3", "2025-03-20T00:00Z"),
    ("2025-03-25T00:00Z", "9", "u5", "2025-04-16T00:00Z"),  # nothing else was used in its period
    ("2025-04-20T00:00Z", "30", "u1", None),
    ("2025-04-25T00:00Z", "3", "u2", None),
    ("2025-02-14T18:14:59.999Z", "4", "u4", "2025-05-20T00:00Z"),  # the very last instant, late by many
    ("2025-01-17T00:00Z", "0.001", "u1", "2025-05-20T00:00Z"),  # its period is rated for the fourth time
    ("2025-04-30T00:00Z", "2", "u2", "2025-05-20T00:00Z"),  # newer than what was newest
)
LATE = {f"e{place}" for place, used in enumerate(USED) if used[3] is not None}
PERIODS = (
    "2025-01-15T10:00Z",
    "2025-02-14T18:15Z",
    "2025-03-14T18:15Z",
    "2025-04-14T18:15Z",
    "2025-05-14T18:15Z",
)

Amounts = dict[tuple[str, int], int]
"""By feature and usage period."""


@dataclass
class Lived:
    shop: Organization
    late: list[Json]  # every invoice, oldest first
    proofs: dict[str, Json] = field(default_factory=dict)  # of the late customer's lines
    billed: dict[str, Amounts] = field(default_factory=dict)  # by customer
    seen: dict[str, Json] = field(default_factory=dict)  # each invoice as it was when it was first looked at
    frozen: dict[str, Any] = field(default_factory=dict)  # and its evidence


def note(lived: Lived) -> None:
    """Remember how the late customer's invoices look today."""
    for invoice in invoices_of(lived.shop, "late"):
        if invoice["id"] not in lived.seen:
            lived.seen[invoice["id"]] = invoice
            lived.frozen[invoice["id"]] = evidence_of(lived.shop, invoice)


@pytest.fixture(scope="module")
def lived(server: Server, database_url: str) -> Iterator[Lived]:
    """Three customers use the same: one tells it late, one at once, and one never tells what the first tells late."""
    shop = open_one(database_url, server.base_url, clock=OPENED)
    plan = add_plan(shop)
    for name, (policy, meter, price) in FEATURES.items():
        add_feature(shop, name, eventCode="request", lateEventPolicy=policy, **METERS[meter])
        promise(shop, plan, name, **PRICES[price])
        if price == "dated":
            done(shop.http.patch(f"{API}/plans/{plan['id']}/features/{name}", json=DATED))
    for customer in ("late", "punctual", "without"):
        subscribe(shop, customer, customer={"timezone": "Asia/Kathmandu"})
    story = Lived(shop, [])
    arrivals: defaultdict[str, list[Json]] = defaultdict(list)
    for place, (happened, value, user, came) in enumerate(USED):
        told = {
            "featureCode": "request",
            "eventId": f"e{place}",
            "value": float(value),
            "timestamp": happened,
            "properties": {"user": user},
        }
        arrivals[happened].append({**told, "customerId": "punctual"})
        arrivals[came or happened].append({**told, "customerId": "late"})
        if came is None:
            arrivals[happened].append({**told, "customerId": "without"})
    for moment in sorted(arrivals, key=at):
        set_clock(shop, moment)
        note(story)
        assert track_batch(shop, arrivals[moment])["failed"] == []
    set_clock(shop, "2025-06-20T00:00:00Z")
    note(story)
    for customer in ("late", "punctual", "without"):
        amounts: defaultdict[tuple[str, int], int] = defaultdict(int)
        for invoice in invoices_of(shop, customer):
            proofs = evidence_of(shop, invoice)
            for line in usage_of(invoice):
                amounts[line["featureName"], proofs[line["id"]]["period"]["index"]] += line["amount"]
            if customer == "late":
                story.late.append(invoice)
                story.proofs |= proofs
        story.billed[customer] = {key: amount for key, amount in amounts.items() if amount}
    yield story
    shop.http.close()


def of_feature(amounts: Amounts, name: str) -> dict[int, int]:
    return {index: amount for (feature, index), amount in amounts.items() if feature == name}


@pytest.mark.parametrize("name", FEATURES)
def test_late_or_on_time_it_costs_the_same(lived: Lived, name: str) -> None:
    """Period by period, to the cent; and what is ignored is as if it had never been told."""
    expected = "without" if FEATURES[name][0] == "ignore" else "punctual"
    assert of_feature(lived.billed["late"], name) == of_feature(lived.billed[expected], name)


def test_being_late_was_worth_a_test(lived: Lived) -> None:
    """Everywhere the late events do cost something."""
    told, untold = lived.billed["punctual"], lived.billed["without"]
    assert [name for name in FEATURES if of_feature(told, name) == of_feature(untold, name)] == []


def test_what_was_issued_never_changed(lived: Lived) -> None:
    assert lived.seen == {each["id"]: each for each in lived.late}
    assert lived.frozen == {each["id"]: evidence_of(lived.shop, each) for each in lived.late}


@pytest.mark.parametrize("customer", ["late", "punctual", "without"])
def test_all_invoices_verify(lived: Lived, customer: str) -> None:
    for invoice in invoices_of(lived.shop, customer):
        verify(lived.shop, invoice)


def test_adjustments_are_of_the_closed_period_and_of_one_policy(lived: Lived) -> None:
    for invoice in lived.late:
        news = [line for line in usage_of(invoice) if lived.proofs[line["id"]]["part"] == "difference"]
        policies = {FEATURES[line["featureName"]][0] for line in news}
        if invoice["invoiceType"] == "adjustment":
            assert policies == {"current_period"}
            assert news == invoice["lineItems"]
            index = {lived.proofs[line["id"]]["period"]["index"] for line in news}
            (number,) = index
            assert (at(invoice["periodStart"]), at(invoice["periodEnd"])) == (
                at(PERIODS[number]),
                at(PERIODS[number + 1]),
            )
        else:
            assert policies <= {"next_period"}


def test_every_late_event_has_one_decision_for_each_feature(lived: Lived) -> None:
    told = late_events(lived.shop, "late")
    assert [each["id"] for each in told] == [
        each["id"]
        for each in reversed(list(every(lived.shop, f"{API}/usage/events?customerId=late")))
        if each["eventId"] in LATE
    ]
    assert late_events(lived.shop, "punctual") == late_events(lived.shop, "without") == []
    invoices = {each["id"]: each for each in lived.late}
    lines = {line["id"]: line for each in lived.late for line in each["lineItems"]}
    for each in told:
        assert each["status"] == "decided"
        assert sorted(decision["featureCode"] for decision in each["decisions"]) == sorted(FEATURES)
        index = sum(at(start) <= at(each["ts"]) for start in PERIODS) - 1
        for decision in each["decisions"]:
            policy = FEATURES[decision["featureCode"]][0]
            assert decision["rule"] == policy
            assert (decision["periodIndex"], at(decision["periodStart"])) == (index, at(PERIODS[index]))
            assert decision["outcome"] in (("ignored",) if policy == "ignore" else ("billed", "no_charge"))
            if decision["outcome"] != "billed":
                assert (decision["invoiceId"], decision["lineId"]) == (None, None)
                continue
            invoice, line = invoices[decision["invoiceId"]], lines[decision["lineId"]]
            assert line in invoice["lineItems"]
            assert line["featureName"] == decision["featureCode"]
            assert lived.proofs[line["id"]]["period"]["index"] == index
            assert each["id"] in [one["id"] for one in events_of(lived.shop, invoice, line)[0]]
            if policy == "current_period":
                assert (invoice["invoiceType"], invoice["issueDate"]) == ("adjustment", each["receivedAt"])
            else:
                closes = [start for start in PERIODS if at(start) > at(each["receivedAt"])]
                closing = at(closes[0]) if closes else at("2025-06-14T18:15Z")
                assert (invoice["invoiceType"], at(invoice["issueDate"])) == ("recurring", closing)


# Told in full ---------------------------------------------------------------------------------------------

IN_JANUARY = "2025-01-20T00:00:00Z"
AFTER_ONE = "2025-02-16T00:00:00Z"
SECOND_CLOSE, THIRD_CLOSE = "2025-03-15T00:00:00Z", "2025-04-15T00:00:00Z"
TWO_TIERS = steps("graduated", ("100", "1"), (None, "0.5"))


def open_shop(shop: Organization, terms: Json, policy: str = "next_period", **more: Any) -> Json:
    """`ada` holds the plan `pro`, in UTC; what she holds."""
    add_feature(shop, lateEventPolicy=policy, **more)
    add_plan(shop, promises={"api_calls": terms})
    return subscribe(shop, "ada")


def use(shop: Organization, value: Any, when: str = IN_JANUARY, **more: Any) -> Json:
    return done(track(shop, value=value, timestamp=when, **more))


def settle(shop: Organization, now: str) -> None:
    """The clock stands still, and whatever need not wait for an invoice is settled."""
    set_clock(shop, now)


def bills(shop: Organization) -> list[tuple[str, str, list[int]]]:
    """(type, date of issue, amounts of the usage lines), oldest first."""
    return [
        (each["invoiceType"], each["issueDate"][:10], [line["amount"] for line in usage_of(each)])
        for each in verified(shop, "ada")
    ]


def fate(shop: Organization) -> list[tuple[str, str, int | None]]:
    """(rule, outcome, period) of each late event's decisions, in the order they arrived."""
    told = late_events(shop, "ada")
    assert {each["status"] for each in told} <= {"decided"}
    return [(one["rule"], one["outcome"], one["periodIndex"]) for each in told for one in each["decisions"]]


def test_a_difference_is_told_on_the_next_invoice(open_at: Any) -> None:
    shop = open_at(OPENED)
    held = open_shop(shop, TWO_TIERS)
    use(shop, 80)
    set_clock(shop, AFTER_ONE)
    use(shop, 5, "2025-02-15T12:00:00Z", key="in_time")
    stored = use(shop, 40, "2025-01-31T12:00:00Z", key="late")
    (waiting,) = late_events(shop, "ada")
    assert (waiting["id"], waiting["ts"]) == (stored["id"], "2025-01-31T12:00:00.000Z")
    assert (waiting["receivedAt"], waiting["status"], waiting["decisions"]) == (
        "2025-02-16T00:00:00.000Z",
        "pending",
        [],
    )
    set_clock(shop, "2025-03-14T23:59:59.999Z")
    assert late_events(shop, "ada") == [waiting]
    upcoming = done(shop.http.get(f"{API}/subscriptions/{held['id']}/upcoming-invoice"))
    set_clock(shop, SECOND_CLOSE)
    assert bills(shop) == [
        ("recurring", "2025-01-15", []),
        ("recurring", "2025-02-15", [8000]),
        ("recurring", "2025-03-15", [500, 3000]),
    ]
    invoice = invoices_of(shop, "ada")[-1]
    now, news = usage_of(invoice)
    assert upcoming["total"] == invoice["total"] == 2900 + 500 + 3000
    assert upcoming["lineItems"] == [
        {name: value for name, value in line.items() if name != "id"} for line in invoice["lineItems"]
    ]
    assert [each["eventId"] for each in events_of(shop, invoice, now)[0]] == ["in_time"]
    listed, summary = events_of(shop, invoice, news)
    assert [each["eventId"] for each in listed] == ["late"]
    assert (summary["events"], summary["quantity"], summary["firstAt"]) == (1, "40", waiting["ts"])
    assert news["description"] == "api_calls: 40 units reported late for 2025-01-15 to 2025-02-14, 40 billed"
    assert (news["quantityDecimal"], news["usedDecimal"], news["chargeType"]) == ("40", "40", "standard")
    assert explained(shop, invoice, news)["sentences"] == [
        "The usage period runs from 2025-01-15T10:00:00.000Z up to, not including, 2025-02-15T00:00:00.000Z, "
        "as days are counted in UTC.",
        "Usage is the sum of value over events named api_calls (meter version 1).",
        "1 event counted; none was left out.",
        "They arrived after the period had been billed, so the period was rated again: it now comes to 110.00 "
        "USD, and its lines had said 80.00 USD. The meter's policy is next period.",
        "Tier 1: up to 100: 20 × 1 USD = 20 USD.",
        "Tier 2: above 100: 20 × 0.5 USD = 10 USD.",
        "The line is the difference: 30.00 USD.",
    ]
    (decided,) = late_events(shop, "ada")
    assert decided == {
        **waiting,
        "status": "decided",
        "decisions": [
            {
                "rule": "next_period",
                "outcome": "billed",
                "featureCode": "api_calls",
                "subscriptionId": held["id"],
                "periodIndex": 0,
                "periodStart": "2025-01-15T10:00:00.000Z",
                "periodEnd": "2025-02-15T00:00:00.000Z",
                "invoiceId": invoice["id"],
                "lineId": news["id"],
            }
        ],
    }


def test_a_difference_is_an_invoice_of_its_own_period(open_at: Any) -> None:
    shop = open_at(OPENED)
    held = open_shop(shop, TWO_TIERS, "current_period")
    use(shop, 80)
    set_clock(shop, AFTER_ONE)
    before = invoices_of(shop, "ada")
    use(shop, 40, "2025-01-31T12:00:00Z")
    settle(shop, AFTER_ONE)
    *issued, adjustment = verified(shop, "ada")
    assert issued == before
    assert (adjustment["invoiceType"], adjustment["status"], adjustment["total"]) == (
        "adjustment",
        "paid",
        3000,
    )
    assert (adjustment["periodStart"], adjustment["periodEnd"], adjustment["issueDate"]) == (
        "2025-01-15T10:00:00.000Z",
        "2025-02-15T00:00:00.000Z",
        "2025-02-16T00:00:00.000Z",
    )
    assert (adjustment["subscriptionId"], adjustment["planName"]) == (held["id"], "pro")
    paid = [each for each in every(shop, f"{API}/transactions") if each["invoiceId"] == adjustment["id"]]
    assert [(each["status"], each["grossAmount"]) for each in paid] == [("succeeded", 3000)]
    (line,) = adjustment["lineItems"]
    (told,) = late_events(shop, "ada")
    (decision,) = told["decisions"]
    assert (decision["invoiceId"], decision["lineId"]) == (adjustment["id"], line["id"])
    assert (decision["rule"], decision["outcome"], decision["periodIndex"]) == ("current_period", "billed", 0)
    set_clock(shop, SECOND_CLOSE)
    assert bills(shop)[-1] == ("recurring", "2025-03-15", [])


def test_what_is_ignored_is_stored_and_said_and_not_billed(open_at: Any) -> None:
    shop = open_at(OPENED)
    open_shop(shop, TWO_TIERS, "ignore")
    use(shop, 80)
    set_clock(shop, AFTER_ONE)
    stored = use(shop, 40, "2025-01-31T12:00:00Z")
    settle(shop, AFTER_ONE)
    (told,) = late_events(shop, "ada")
    assert (told["id"], told["status"]) == (stored["id"], "decided")
    assert fate(shop) == [("ignore", "ignored", 0)]
    set_clock(shop, SECOND_CLOSE)
    assert bills(shop) == [
        ("recurring", "2025-01-15", []),
        ("recurring", "2025-02-15", [8000]),
        ("recurring", "2025-03-15", []),
    ]
    assert stored in list(every(shop, f"{API}/usage/events?customerId=ada"))


@pytest.mark.parametrize("policy", ["next_period", "current_period"])
def test_a_volume_that_gets_cheaper_is_a_credit(open_at: Any, policy: str) -> None:
    shop = open_at(OPENED)
    held = open_shop(shop, steps("volume", ("100", "1"), (None, "0.5")), policy)
    use(shop, 90)
    set_clock(shop, AFTER_ONE)
    use(shop, 20)
    set_clock(shop, "2025-03-14T23:59:59.999Z")
    upcoming = done(shop.http.get(f"{API}/subscriptions/{held['id']}/upcoming-invoice"))
    set_clock(shop, SECOND_CLOSE)
    *_, last = verified(shop, "ada")
    if policy == "next_period":
        assert (last["invoiceType"], last["total"], last["status"]) == ("recurring", 2900 - 3500, "paid")
        assert upcoming["total"] == last["total"]
        (credit,) = usage_of(last)
    else:
        assert (last["invoiceType"], last["total"], upcoming["total"]) == ("recurring", 2900, 2900)
        adjustment = invoices_of(shop, "ada")[-2]
        assert (adjustment["invoiceType"], adjustment["total"], adjustment["status"]) == (
            "adjustment",
            -3500,
            "paid",
        )
        (credit,) = usage_of(adjustment)
        assert not [
            each for each in every(shop, f"{API}/transactions") if each["invoiceId"] == adjustment["id"]
        ]
    assert (credit["amount"], credit["quantityDecimal"]) == (-3500, "20")
    assert fate(shop) == [(policy, "billed", 0)]


@dataclass(frozen=True)
class Story:
    """What was used in January, on time and late; what each invoice says of it, and what was decided."""

    terms: Json
    on_time: tuple[Any, ...]
    late: tuple[Any, ...]  # one after each close
    bills: tuple[list[int], ...]  # usage lines of January's close, and of the closes after each that was late
    outcomes: tuple[str, ...]
    meter: Json = field(default_factory=dict)
    before: bool = False  # the late ones happened before what was on time
    monthly: tuple[int, ...] = ()  # lines of a month in which nothing is used


STORIES: dict[str, Story] = {
    "within_what_is_included": Story(overage("0.01", included=100), (60,), (40,), ([], []), ("no_charge",)),
    "beyond_what_is_included": Story(
        overage("0.01", included=100), (60,), (40, 30), ([], [], [30]), ("no_charge", "billed")
    ),
    "late_twice": Story(TWO_TIERS, (80,), (40, 60), ([8000], [3000], [3000]), ("billed", "billed")),
    "nothing_on_time": Story(TWO_TIERS, (), (150,), ([], [12_500]), ("billed",)),
    "a_package_not_full": Story(
        {"price": {"model": "package", "packageSize": "1000", "packageAmount": "25"}},
        (900,), (50, 51), ([2500], [0], [2500]), ("billed", "billed"),
    ),
    "free_events_go_to_the_first": Story(  # 50 came first, after all: it is free, and 100 is not
        percentage("1000", freeEvents=1), (100,), (50,), ([0], [1000]), ("billed",), before=True
    ),
    "a_minimum_swallows_it": Story(
        per_unit("1", minimumAmount="50"), (10,), (20, 100), ([1000, 4000], [0], [8000]), ("billed", "billed"),
        monthly=(5000,),
    ),
    "a_maximum_swallows_it": Story(
        per_unit("1", maximumAmount="50"), (30,), (30, 10), ([3000], [2000], [0]), ("billed", "billed")
    ),
    "a_flat_amount_is_due_once": Story(
        {"price": {"model": "flat", "amount": "20"}}, (1,), (5,), ([2000], [0]), ("billed",), monthly=(2000,)
    ),
    "not_the_largest": Story(per_unit("1"), (30,), (20, 45), ([3000], [], [1500]), ("no_charge", "billed"), {"aggregation": "max"}),
    "not_the_newest": Story(per_unit("1"), (30,), (20,), ([3000], []), ("no_charge",), {"aggregation": "latest"}, before=True),
    "a_newer_one_is_less": Story(per_unit("1"), (30,), (20,), ([3000], [-1000]), ("billed",), {"aggregation": "latest"}),
    "unlimited": Story({"unlimited": True}, (30,), (20,), ([], []), ("no_charge",)),
    "worth_nothing": Story(per_unit("1"), (30,), (0,), ([3000], []), ("no_charge",)),
}  # fmt: skip


CLOSES = ("2025-02-15", "2025-03-15", "2025-04-15")


@pytest.fixture(scope="module")
def told(server: Server, database_url: str) -> Iterator[Lived]:
    """Every story under every policy, each with a meter and events of its own."""
    shop = open_one(database_url, server.base_url, clock=OPENED)
    plan = add_plan(shop)
    sent: dict[str, list[Json]] = {close: [] for close in ("on time", *CLOSES)}

    def say(when: str, name: str, value: Any, happened: str) -> None:
        sent[when].append({"customerId": "ada", "featureCode": name, "value": value, "timestamp": happened})

    for policy in POLICIES:
        for story_name, story in STORIES.items():
            name = f"{policy}_{story_name}"
            add_feature(shop, name, lateEventPolicy=policy, **story.meter)
            promise(shop, plan, name, **story.terms)
            for value in story.on_time:
                say("on time", name, value, IN_JANUARY)
            for close, value in zip(CLOSES, story.late, strict=False):
                say(close, name, value, "2025-01-16T00:00:00Z" if story.before else "2025-01-31T00:00:00Z")
    subscribe(shop, "ada")
    assert track_batch(shop, sent["on time"])["failed"] == []
    for close in CLOSES:
        set_clock(shop, f"{close}T12:00:00Z")
        if sent[close]:
            assert track_batch(shop, sent[close])["failed"] == []
    set_clock(shop, "2025-05-15T00:00:00Z")
    yield Lived(shop, verified(shop, "ada"))
    shop.http.close()


def lines_of(lived: Lived, name: str, kind: str) -> list[tuple[str, list[int]]]:
    """(date of issue, amounts) of a feature on the invoices of a kind that speak of it."""
    found = [
        (each["issueDate"][:10], [line["amount"] for line in usage_of(each, name)])
        for each in lived.late
        if each["invoiceType"] == kind
    ]
    return [(issued, amounts) for issued, amounts in found if amounts]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("story_name", STORIES)
def test_what_late_usage_costs(told: Lived, story_name: str, policy: str) -> None:
    story, name = STORIES[story_name], f"{policy}_{story_name}"
    first, *rest = story.bills
    issued = [*CLOSES, "2025-05-15"]
    expected = {close: list(story.monthly) for close in issued}
    expected[issued[0]] = first
    if policy == "next_period":
        for close, news in zip(issued[1:], rest, strict=False):
            expected[close] = [*story.monthly, *news]
    adjusted = [(close, news) for close, news in zip(issued, rest, strict=False) if news]
    assert lines_of(told, name, "recurring") == [each for each in expected.items() if each[1]]
    assert lines_of(told, name, "adjustment") == (adjusted if policy == "current_period" else [])
    decided = [
        (one["rule"], one["outcome"], one["periodIndex"])
        for each in late_events(told.shop, "ada")
        for one in each["decisions"]
        if one["featureCode"] == name
    ]
    outcomes = story.outcomes if policy != "ignore" else ["ignored"] * len(story.late)
    assert decided == [(policy, outcome, 0) for outcome in outcomes]


# Where it belongs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_before_the_subscription_it_is_nobodys(open_at: Any, policy: str) -> None:
    shop = open_at(OPENED)
    open_shop(shop, per_unit("1"), policy)
    use(shop, 40, "2025-01-15T09:59:59.999Z")
    use(shop, 40, "2001-01-01T00:00:00Z")
    use(shop, 2, OPENED)  # the first instant is in
    set_clock(shop, AFTER_ONE)
    assert fate(shop) == [("before_subscription", "not_billed", None)] * 2
    assert [amounts for *_, amounts in bills(shop)] == [[], [200]]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("immediate", [False, True])
def test_after_the_end_there_is_no_next_invoice(open_at: Any, policy: str, immediate: bool) -> None:
    shop = open_at(OPENED)
    held = open_shop(shop, TWO_TIERS, policy)
    use(shop, 80)
    set_clock(shop, "2025-01-31T00:00:00Z")
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": immediate}))
    set_clock(shop, AFTER_ONE)
    assert [amounts for *_, amounts in bills(shop)] == [[], [8000]]
    refused(track(shop, value=40, timestamp="2025-02-15T00:00:00Z"), 404, "no_active_subscription")
    use(shop, 40)
    settle(shop, AFTER_ONE)
    use(shop, 40)
    set_clock(shop, THIRD_CLOSE)
    told = bills(shop)[2:]
    if policy == "ignore":
        assert told == []
        assert fate(shop) == [("ignore", "ignored", 0)] * 2
    else:
        assert [(kind, amounts) for kind, _, amounts in told] == [
            ("adjustment", [3000]),
            ("adjustment", [2000]),
        ]
        assert told[0][1] == "2025-02-16"
        assert fate(shop) == [(policy, "billed", 0)] * 2
    assert {each["status"] for each in invoices_of(shop, "ada")} == {"paid"}


def test_in_the_last_period_it_goes_with_the_last_invoice(open_at: Any) -> None:
    """Late for January, told while the period that ends the subscription is still open."""
    shop = open_at(OPENED)
    held = open_shop(shop, per_unit("1"))
    set_clock(shop, AFTER_ONE)
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={}))
    use(shop, 40)
    settle(shop, "2025-02-17T00:00:00Z")
    assert len(bills(shop)) == 2
    set_clock(shop, THIRD_CLOSE)
    assert bills(shop)[-1] == ("overage", "2025-03-15", [4000])
    assert fate(shop) == [("next_period", "billed", 0)]


@pytest.mark.parametrize("policy", ["next_period", "current_period"])
def test_what_belongs_to_an_earlier_subscription_is_billed_by_its_plan(open_at: Any, policy: str) -> None:
    """And goes with the next invoice of the one that runs now."""
    shop = open_at(OPENED)
    first = open_shop(shop, TWO_TIERS, policy)
    add_plan(shop, "other", price=500, promises={"api_calls": per_unit("7")})
    use(shop, 80)
    set_clock(shop, "2025-01-31T00:00:00Z")
    done(shop.http.post(f"{API}/subscriptions/{first['id']}/cancel", json={"immediate": True}))
    set_clock(shop, "2025-02-03T00:00:00Z")
    body = {"customerId": "ada", "planCode": "other"}
    second = done(shop.http.post(f"{API}/subscriptions", json=body))
    pay(second["checkoutUrl"])
    use(shop, 1, "2025-02-03T00:00:00Z")
    use(shop, 40, "2025-01-30T23:59:59.999Z")  # the first one's last instant
    use(shop, 40, "2025-01-31T00:00:00Z")  # between the two
    use(shop, 40, "2025-02-02T23:59:59.999Z")
    use(shop, 40, "2025-01-15T09:00:00Z")  # before both
    set_clock(shop, "2025-03-03T00:00:00Z")
    told = [each for each in bills(shop) if each[2]]
    if policy == "next_period":
        assert told == [("overage", "2025-01-31", [8000]), ("recurring", "2025-03-03", [700, 3000])]
    else:
        assert told == [
            ("overage", "2025-01-31", [8000]),
            ("adjustment", "2025-02-03", [3000]),
            ("recurring", "2025-03-03", [700]),
        ]
    assert fate(shop) == [
        (policy, "billed", 0),
        ("outside_subscription", "not_billed", None),
        ("outside_subscription", "not_billed", None),
        ("before_subscription", "not_billed", None),
    ]
    decision = late_events(shop, "ada")[0]["decisions"][0]
    assert decision["subscriptionId"] == first["id"]
    home = done(shop.http.get(f"{API}/invoices/{decision['invoiceId']}"))
    assert home["subscriptionId"] == (second["id"] if policy == "next_period" else first["id"])


@pytest.mark.parametrize("policy", POLICIES)
def test_a_year_paid_in_advance_has_monthly_invoices_for_it(open_at: Any, policy: str) -> None:
    shop = open_at("2024-03-10T08:00:00Z")
    add_feature(shop, lateEventPolicy=policy)
    add_plan(shop, price=30_000, interval="yearly", promises={"api_calls": overage("0.10", included=100)})
    subscribe(shop, "ada")
    use(shop, 150, "2024-03-20T00:00:00Z")
    set_clock(shop, "2024-05-20T00:00:00Z")
    use(shop, 30, "2024-03-25T00:00:00Z")  # two months ago, over the limit
    use(shop, 30, "2024-04-25T00:00:00Z")  # within it
    set_clock(shop, "2024-07-01T00:00:00Z")
    use(shop, 90, "2024-04-30T00:00:00Z")  # now beyond
    set_clock(shop, "2025-03-10T00:00:00Z")
    told = bills(shop)
    assert told[0] == ("recurring", "2024-03-10", [])
    assert told[1] == ("overage", "2024-04-10", [500])
    assert told[-1] == ("recurring", "2025-03-10", [])
    assert (
        told[2:-1]
        == {
            "next_period": [("overage", "2024-06-10", [300]), ("overage", "2024-07-10", [200])],
            "current_period": [("adjustment", "2024-05-20", [300]), ("adjustment", "2024-07-01", [200])],
            "ignore": [],
        }[policy]
    )
    outcomes = ("ignored",) * 3 if policy == "ignore" else ("billed", "no_charge", "billed")
    assert fate(shop) == list(zip((policy,) * 3, outcomes, (0, 1, 1), strict=True))


# Whose it is, and which meter's -----------------------------------------------------------------------------


def test_an_event_may_have_three_fates(open_at: Any) -> None:
    """One policy decides at once, one waits for the invoice; nothing is decided twice."""
    shop = open_at(OPENED)
    plan = add_plan(shop)
    for policy in POLICIES:
        add_feature(shop, policy, eventCode="request", lateEventPolicy=policy)
        promise(shop, plan, policy, **per_unit("1"))
    subscribe(shop, "ada")
    set_clock(shop, AFTER_ONE)
    use(shop, 40, feature="request")
    settle(shop, AFTER_ONE)
    (waiting,) = late_events(shop, "ada")
    assert waiting["status"] == "pending"
    early = {each["featureCode"]: each for each in waiting["decisions"]}
    assert {name: each["outcome"] for name, each in early.items()} == {
        "current_period": "billed",
        "ignore": "ignored",
    }
    use(shop, 2, feature="request")
    settle(shop, "2025-02-17T00:00:00Z")
    set_clock(shop, SECOND_CLOSE)
    assert [(kind, amounts) for kind, _, amounts in bills(shop)[2:]] == [
        ("adjustment", [4000]),
        ("adjustment", [200]),
        ("recurring", [4200]),
    ]
    first, second = late_events(shop, "ada")
    late = {each["featureCode"]: each for each in first["decisions"]}
    assert {name: late[name] for name in early} == early
    assert [each["status"] for each in (first, second)] == ["decided", "decided"]
    assert late["next_period"]["invoiceId"] == invoices_of(shop, "ada")[-1]["id"]
    homes = {each["featureCode"]: each["lineId"] for each in second["decisions"]}
    assert homes["next_period"] == late["next_period"]["lineId"]
    assert homes["current_period"] != late["current_period"]["lineId"]


def test_what_no_meter_counts_is_said_to_count_for_none(open_at: Any) -> None:
    shop = open_at(OPENED)
    eu = [{"property": "region", "operator": "equals", "value": "eu"}]
    held = open_shop(shop, per_unit("1"), filters=eu)
    add_feature(shop, "storage")
    set_clock(shop, AFTER_ONE)
    refused(track(shop, feature="storage", timestamp=IN_JANUARY), 403, "feature_not_in_plan")
    refused(track(shop, feature="unheard_of", timestamp=IN_JANUARY), 404, "feature_not_found")
    use(shop, 40, properties={"region": "us"})
    use(shop, 40)
    use(shop, 2, properties={"region": "eu"})
    settle(shop, AFTER_ONE)
    assert [each["status"] for each in late_events(shop, "ada")] == ["decided", "decided", "pending"]
    set_clock(shop, SECOND_CLOSE)
    assert fate(shop) == [
        ("not_counted", "not_billed", None),
        ("not_counted", "not_billed", None),
        ("next_period", "billed", 0),
    ]
    assert bills(shop)[-1] == ("recurring", "2025-03-15", [200])
    told = explained(shop, invoices_of(shop, "ada")[-1], usage_of(invoices_of(shop, "ada")[-1])[0])
    assert (told["eventsKept"], sum(each["events"] for each in told["eventsDropped"])) == (1, 2)
    assert held["status"] == "active"


def test_a_plan_that_had_no_such_feature_then_bills_none(open_at: Any) -> None:
    """It happened under a plan without the feature, and is told under one that has it."""
    shop = open_at(OPENED)
    first = open_shop(shop, per_unit("1"))
    add_feature(shop, "storage")
    add_plan(shop, "other", promises={"storage": per_unit("1"), "api_calls": per_unit("1")})
    set_clock(shop, "2025-01-31T00:00:00Z")
    done(shop.http.post(f"{API}/subscriptions/{first['id']}/cancel", json={"immediate": True}))
    set_clock(shop, "2025-02-01T00:00:00Z")
    pay(
        done(shop.http.post(f"{API}/subscriptions", json={"customerId": "ada", "planCode": "other"}))[
            "checkoutUrl"
        ]
    )
    use(shop, 40, feature="storage")
    set_clock(shop, "2025-03-01T00:00:00Z")
    assert fate(shop) == [("not_counted", "not_billed", None)]
    assert [amounts for *_, amounts in bills(shop) if amounts] == []


def test_a_feature_that_left_the_plan_is_billed_for_when_it_was_there(open_at: Any) -> None:
    shop = open_at(OPENED)
    open_shop(shop, per_unit("1"))
    use(shop, 10)
    set_clock(shop, AFTER_ONE)
    done(shop.http.delete(f"{API}/plans/pro/features/api_calls"))
    use(shop, 5)
    set_clock(shop, "2025-03-16T00:00:00Z")
    refused(track(shop), 403, "feature_not_in_plan")
    use(shop, 7)
    set_clock(shop, THIRD_CLOSE)
    assert [amounts for *_, amounts in bills(shop)] == [[], [1000], [500], [700]]


def test_a_price_of_today_does_not_reach_back(open_at: Any) -> None:
    shop = open_at(OPENED)
    open_shop(shop, per_unit("1"))
    use(shop, 10)
    set_clock(shop, AFTER_ONE)
    for terms in (per_unit("0.5"), per_unit("9"), {"includedAmount": 1000}, {"unlimited": True}):
        done(shop.http.patch(f"{API}/plans/pro/features/api_calls", json=terms))
    use(shop, 5)
    set_clock(shop, SECOND_CLOSE)
    assert [amounts for *_, amounts in bills(shop)] == [[], [1000], [500]]


def test_a_policy_and_a_meter_are_those_of_the_period_it_happened_in(open_at: Any) -> None:
    shop = open_at(OPENED)
    open_shop(shop, per_unit("1"), "next_period")
    set_clock(shop, "2025-01-21T00:00:00Z")
    use(shop, 10)
    changed = {"lateEventPolicy": "current_period", "aggregation": "count"}
    done(shop.http.patch(f"{API}/features/api_calls", json=changed))
    set_clock(shop, AFTER_ONE)
    use(shop, 100, "2025-02-15T12:00:00Z")
    use(shop, 5)  # by the sum, and with the next invoice
    set_clock(shop, SECOND_CLOSE)
    use(shop, 50, "2025-02-16T12:00:00Z")  # by the count, and at once
    set_clock(shop, "2025-03-16T00:00:00Z")
    told = bills(shop)
    assert told[1:3] == [("recurring", "2025-02-15", [1000]), ("recurring", "2025-03-15", [100, 500])]
    assert told[3:] == [("adjustment", "2025-03-15", [100])]
    assert fate(shop) == [("next_period", "billed", 0), ("current_period", "billed", 1)]


@pytest.mark.parametrize("policy", ["next_period", "current_period"])
def test_late_usage_of_a_period_whose_price_changed(open_at: Any, policy: str) -> None:
    """The first stretch stayed within what is included; the difference lists only what was late, and says so much."""
    shop = open_at(OPENED)
    open_shop(shop, per_unit("1", includedAmount=100), policy)
    later = {**per_unit("2"), "validFrom": "2025-01-25T00:00:00Z"}
    done(shop.http.patch(f"{API}/plans/pro/features/api_calls", json=later))
    use(shop, 50)
    use(shop, 100, "2025-01-26T00:00:00Z")
    set_clock(shop, AFTER_ONE)
    assert bills(shop)[-1] == ("recurring", "2025-02-15", [0, 10_000])
    use(shop, 60, "2025-01-24T23:59:59.999Z", key="late")  # ten beyond at 1, and the others' fifty at 2
    set_clock(shop, SECOND_CLOSE)
    home = [each for each in verified(shop, "ada")[2:] if usage_of(each)][-1]
    (line,) = usage_of(home)
    assert line["amount"] == 11_000
    assert [each["eventId"] for each in events_of(shop, home, line)[0]] == ["late"]
    assert (line["usedDecimal"], line["quantityDecimal"]) == ("60", "60")


def test_a_limit_holds_for_late_usage_too(open_at: Any) -> None:
    shop = open_at(OPENED)
    open_shop(shop, {"includedAmount": 10, "overage": {"enabled": False}})
    use(shop, 6)
    set_clock(shop, AFTER_ONE)
    refused(track(shop, value=5, timestamp=IN_JANUARY), 402, "included_limit_reached")
    use(shop, 4)
    use(shop, 10, "2025-02-15T12:00:00Z")
    set_clock(shop, SECOND_CLOSE)
    assert fate(shop) == [("next_period", "no_charge", 0)]
    assert [amounts for *_, amounts in bills(shop)] == [[], [], []]


def test_late_events_are_paged_by_arrival_and_told_by_customer(open_at: Any) -> None:
    shop = open_at(OPENED)
    open_shop(shop, per_unit("1"))
    subscribe(shop, "bob")
    set_clock(shop, AFTER_ONE)
    sent = [
        {"customerId": customer, "featureCode": "api_calls", "timestamp": IN_JANUARY, "value": place}
        for place in range(6)
        for customer in ("ada", "bob")
    ]
    stored = [each["id"] for each in track_batch(shop, sent)["successful"]]
    for query, expected in (
        ("", stored),
        ("&customerId=ada", stored[::2]),
        ("&customerId=bob", stored[1::2]),
    ):
        found: list[str] = []
        cursor = ""
        while True:
            page = done(shop.http.get(f"{API}/usage/late-events?limit=4{query}{cursor}"))
            found += [each["id"] for each in page["data"]]
            assert {each["object"] for each in page["data"]} == {"late_event"}
            if not page["hasMore"]:
                break
            cursor = f"&cursor={page['nextCursor']}"
        assert found == expected[::-1]


def test_what_waits_goes_with_the_last_close_of_a_free_plan(open_at: Any) -> None:
    """It came while a free plan ran; that was canceled at once, and its last period is closed as any other."""
    shop = open_at(OPENED)
    first = open_shop(shop, per_unit("1"))
    add_plan(shop, "free", price=None, promises={"api_calls": {"includedAmount": 1000}})
    use(shop, 10)
    set_clock(shop, "2025-01-31T00:00:00Z")
    done(shop.http.post(f"{API}/subscriptions/{first['id']}/cancel", json={"immediate": True}))
    set_clock(shop, "2025-02-01T00:00:00Z")
    free = done(shop.http.post(f"{API}/subscriptions", json={"customerId": "ada", "planCode": "free"}))
    use(shop, 5)
    settle(shop, "2025-02-02T00:00:00Z")
    assert [each["status"] for each in late_events(shop, "ada")] == ["pending"]
    done(shop.http.post(f"{API}/subscriptions/{free['id']}/cancel", json={}))
    settle(shop, "2025-02-03T00:00:00Z")
    assert [(kind, amounts) for kind, _, amounts in bills(shop)] == [
        ("recurring", []),
        ("overage", [1000]),
        ("overage", [500]),
    ]
    assert fate(shop) == [("next_period", "billed", 0)]


def test_what_is_late_goes_with_the_invoice_of_a_free_plan(open_at: Any) -> None:
    shop = open_at(OPENED)
    first = open_shop(shop, per_unit("1"))
    add_plan(shop, "free", price=None, promises={"api_calls": {"includedAmount": 1000}})
    use(shop, 10)
    set_clock(shop, "2025-01-31T00:00:00Z")
    done(shop.http.post(f"{API}/subscriptions/{first['id']}/cancel", json={"immediate": True}))
    set_clock(shop, "2025-02-01T00:00:00Z")
    done(shop.http.post(f"{API}/subscriptions", json={"customerId": "ada", "planCode": "free"}))
    use(shop, 5)
    set_clock(shop, "2025-03-01T00:00:00Z")
    assert bills(shop)[-1] == ("overage", "2025-03-01", [500])
    assert fate(shop) == [("next_period", "billed", 0)]
