"""Twenty years of real commits, in three time zones: what we measure is what a plain fold over the file says.

The fold below shares nothing with the program: json, Decimal and zoneinfo. Every (customer, calendar month) of
both must agree to the last digit, for a count, a sum and a number of distinct repositories. `TALLYSTICK_SHARED`
names a folder whose `data/commits.ndjson.gz` is the whole file; without it only the slice in the tree is lived.

The last three years are also lived through in the order in which their commits arrived, some of them years late, under
each policy for what is late: what was billed is what a plain fold says that policy bills.
"""

import asyncio
import gzip
import json
import os
import subprocess
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tallystick.app import wall
from tallystick.core import ids
from tallystick.core.meters import Meter
from tallystick.core.times import Period, first_instant
from tallystick.flows import reconcile
from tallystick.flows.measure_usage import measure_usage
from tallystick.flows.verify import verify_invoice
from tallystick.flows.verify_chain import verify_chain
from tallystick.flows.verify_line import Outcome
from tallystick.store import catalog, customers, invoices, organizations
from tallystick.store.db import Conn, Database
from tests import shop
from tests.audit import ask, audit, broken, select
from tests.conftest import PROGRAM, MakeOrganization, Organization

SLICE = Path(str(files("tallystick.cli") / "sample_commits.ndjson.gz"))
WHOLE = Path(os.environ.get("TALLYSTICK_SHARED", "/nowhere")) / "data" / "commits.ndjson.gz"
ZONES = ("Europe/Paris", "America/Los_Angeles", "Asia/Kathmandu")
METERS = ("commits_made", "lines_changed", "repositories_touched")
MEASURED: tuple[dict[str, str], ...] = (
    {"aggregation": "count"},
    {"aggregation": "sum"},
    {"aggregation": "unique", "aggregationProperty": "repository"},
)

Month = tuple[int, int]


@dataclass
class Plain:
    """What some rows amount to, kept in the plainest way."""

    count: int = 0
    total: Decimal = Decimal(0)
    repositories: set[str] = field(default_factory=set)

    def add(self, row: dict[str, Any]) -> None:
        self.count += 1
        self.total += Decimal(row["value"])
        self.repositories |= {each["value"] for each in row["properties"] if each["property"] == "repository"}

    def quantities(self) -> tuple[Decimal, ...]:
        return Decimal(self.count), self.total, Decimal(len(self.repositories))


def rows_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line, parse_float=Decimal) for line in lines if line.strip()]


def folded(rows: Iterable[dict[str, Any]], zone: str) -> dict[tuple[str, Month], Plain]:
    where = ZoneInfo(zone)
    months: defaultdict[tuple[str, Month], Plain] = defaultdict(Plain)
    for row in rows:
        local = datetime.fromisoformat(row["timestamp"]).astimezone(where)
        months[row["customerId"], (local.year, local.month)].add(row)
    return dict(months)


def calendar_month(month: Month, zone: str) -> Period:
    year, number = month
    after = date(year + number // 12, number % 12 + 1, 1)
    return Period(first_instant(date(year, number, 1), zone), first_instant(after, zone))


async def measured(
    database_url: str, organization: Organization, wanted: Sequence[tuple[str, Month, str]]
) -> list[tuple[Decimal, ...]]:
    """Our side: every wanted (customer, month, zone) under each of the three meters."""
    database = Database(database_url)
    await database.open()
    organization_id = shop.own_id(ids.ORGANIZATION, organization.id)
    try:
        async with database.reading() as conn:
            found = {
                meter.feature_code: meter
                for _, meter in await catalog.meters(conn, organization_id=organization_id)
            }
            standings = await customers.standings(
                conn, organization_id=organization_id, references=list({who for who, _, _ in wanted})
            )
            meters: list[Meter] = [found[code] for code in METERS]
            answers = []
            for who, month, zone in wanted:
                span = calendar_month(month, zone)
                customer = standings[who].customer_id
                folds = [
                    await measure_usage(conn, customer_id=customer, meter=meter, span=span)
                    for meter in meters
                ]
                answers.append(tuple(fold.quantity for fold in folds))
            return answers
    finally:
        await database.close()


def open_shop(organization: Organization, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Three meters over one event, a plan with all of them, and two thirds of the customers with their zones.

    The last third is left to the import to make; it lives in the organization's own zone, Asia/Kathmandu.
    """
    for code, meter in zip(METERS, MEASURED, strict=True):
        shop.add_feature(organization, code, eventCode="commits", **meter)
    shop.add_plan(organization, "all", promises={code: {"unlimited": True} for code in METERS})
    zones = {
        name: ZONES[place % 3] for place, name in enumerate(dict.fromkeys(r["customerId"] for r in rows))
    }
    known = [
        {"id": name, "email": "somebody@example.com", "timezone": zone}
        for name, zone in zones.items()
        if zone != ZONES[2]
    ]
    for start in range(0, len(known), 100):
        batch = {"customers": known[start : start + 100]}
        assert not shop.done(organization.http.post(f"{shop.API}/customers/batch", json=batch))["failed"]
    return zones


def run_import(path: Path, organization: Organization, database_url: str, *more: str) -> dict[str, Any]:
    command = [
        str(PROGRAM),
        "import",
        str(path),
        "--organization",
        organization.id,
        "--database-url",
        database_url,
    ]
    run = subprocess.run(
        [*command, "--json", *more], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    summary: dict[str, Any] = json.loads(run.stdout)
    return summary


def expect(database_url: str, organization: Organization, rows: Sequence[dict[str, Any]]) -> None:
    """Every customer and month, as it is in each of the zones."""
    expected = {
        (who, month, zone): plain.quantities()
        for zone in ZONES
        for (who, month), plain in folded(rows, zone).items()
    }
    wanted = list(expected)
    answers = asyncio.run(measured(database_url, organization, wanted))
    wrong = [
        f"{key}: {answer} is not {expected[key]}"
        for key, answer in zip(wanted, answers, strict=True)
        if answer != expected[key]
    ]
    assert not wrong, "\n".join(wrong[:20])


def live_through(path: Path, organization: Organization, database_url: str) -> None:
    """Import, compare, import again, compare again."""
    rows = rows_of(path)
    zones = open_shop(organization, rows)
    newcomers = ("--create-customers", "--plan", "all")
    first = run_import(path, organization, database_url, *newcomers)
    assert (first["stored"], first["alreadyThere"], first["refused"]) == (len(rows), 0, 0)
    assert first["customersMade"] == sum(zone == ZONES[2] for zone in zones.values())
    assert first["subscriptionsMade"] == len(zones)
    expect(database_url, organization, rows)

    second = run_import(path, organization, database_url, *newcomers)
    assert (second["stored"], second["alreadyThere"], second["refused"]) == (0, len(rows), 0)
    assert (second["customersMade"], second["subscriptionsMade"]) == (0, 0)
    expect(database_url, organization, rows)


def test_three_months_of_commits_are_measured_as_a_plain_fold_says(
    make_organization: MakeOrganization, database_url: str
) -> None:
    live_through(SLICE, make_organization(timezone=ZONES[2]), database_url)


@pytest.mark.skipif(not WHOLE.is_file(), reason="TALLYSTICK_SHARED does not hold data/commits.ndjson.gz")
def test_the_whole_history_is_measured_as_a_plain_fold_says(
    make_organization: MakeOrganization, database_url: str
) -> None:
    live_through(WHOLE, make_organization(timezone=ZONES[2]), database_url)


# Three years in the order of arrival ------------------------------------------------------------------------

BEGAN = datetime(2023, 7, 1, 12, tzinfo=UTC)
MONTHS = 36
BUSIEST = 40
POLICIES = ("next_period", "current_period", "ignore")
AT_ONCE = timedelta(days=7)
"""What arrives within a week, and in no two usage periods, is sent together."""

PRICED: dict[str, dict[str, Any]] = {
    "commits_made": {
        "price": {"model": "package", "packageSize": "5", "packageAmount": "1.35"},
        "includedAmount": 10,
    },
    "lines_changed": {
        "price": {
            "model": "graduated",
            "tiers": [
                {"upTo": "1000", "unitAmount": "0.0035"},
                {"upTo": None, "unitAmount": "0.0007", "flatAmount": "0.50"},
            ],
        },
        "maximumAmount": "25",
    },
    "repositories_touched": {
        "price": {
            "model": "volume",
            "tiers": [{"upTo": "2", "unitAmount": "3"}, {"upTo": None, "unitAmount": "1.25"}],
        },
        "minimumAmount": "1",
    },
}


def owed(code: str, quantity: Decimal) -> tuple[Decimal, int]:
    """Billed units and cents, worked out once more by hand."""
    if code == "commits_made":
        billed = max(Decimal(0), quantity - 10)
        return billed, -(-int(billed) // 5) * 135
    if code == "lines_changed":
        exact = min(quantity, Decimal(1000)) * Decimal("0.0035")
        if quantity > 1000:
            exact += (quantity - 1000) * Decimal("0.0007") + Decimal("0.50")
        return quantity, int((min(exact, Decimal(25)) * 100).to_integral_value(ROUND_HALF_UP))
    exact = quantity * (3 if quantity <= 2 else Decimal("1.25"))
    return quantity, int(max(exact, Decimal(1)) * 100)


@dataclass(frozen=True)
class Arrival:
    at: datetime
    happened: datetime
    customer: str
    row: dict[str, Any]


@cache
def boundaries(zone: str) -> list[datetime]:
    """When each usage period begins: at once, and then at each first of a month where the customer lives."""
    firsts = [
        (BEGAN.year + month // 12, month % 12 + 1) for month in range(BEGAN.month, BEGAN.month + MONTHS)
    ]
    return [
        BEGAN,
        *(datetime(year, month, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC) for year, month in firsts),
    ]


def busiest(path: Path) -> list[Arrival]:
    """What arrived in the three years from the customers who sent most in them."""
    ends = min(boundaries(zone)[-1] for zone in ZONES)
    found = []
    for row in rows_of(path):
        (came,) = (each["value"] for each in row["properties"] if each["property"] == "received_at")
        arrival = Arrival(
            datetime.fromisoformat(came).astimezone(UTC),
            datetime.fromisoformat(row["timestamp"]).astimezone(UTC),
            row["customerId"],
            row,
        )
        if BEGAN <= arrival.at < ends:
            found.append(arrival)
    chosen = {name for name, _ in Counter(each.customer for each in found).most_common(BUSIEST)}
    return sorted((each for each in found if each.customer in chosen), key=lambda each: each.at)


def groups(arrivals: Sequence[Arrival]) -> Iterator[list[Arrival]]:
    edges = sorted({each for zone in ZONES for each in boundaries(zone)})

    def place(arrival: Arrival) -> tuple[int, int]:
        return bisect_right(edges, arrival.at), (arrival.at - BEGAN) // AT_ONCE

    for _, group in groupby(arrivals, key=place):
        yield list(group)


Said = dict[tuple[str, str, int], tuple[Decimal, int]]
"""Billed units and cents by customer, feature and usage period."""


def folds(
    arrivals: Sequence[Arrival], zones: Mapping[str, str]
) -> tuple[Said, Counter[str], dict[str, int | None]]:
    """What each policy bills; how many decisions there are by each rule; and each late commit's period (None: before them all)."""
    months: defaultdict[tuple[str, str, int], Plain] = defaultdict(Plain)
    late: dict[str, int | None] = {}
    for each in arrivals:
        starts = boundaries(zones[each.customer])
        index = bisect_right(starts, each.happened) - 1
        opened = bisect_right(starts, each.at) - 1
        if index < opened:
            late[each.row["idempotencyKey"]] = index if index >= 0 else None
        for policy in POLICIES:
            if index >= 0 and (policy != "ignore" or index >= opened):
                months[policy, each.customer, index].add(each.row)
    rules: Counter[str] = Counter()
    for before_or_in in late.values():
        if before_or_in is None:
            rules["before_subscription"] += 1
        else:
            rules.update(dict.fromkeys(POLICIES, len(METERS)))
    said: Said = {}
    for policy in POLICIES:
        for customer in zones:
            for index in range(MONTHS):
                plain = months.get((policy, customer, index), Plain())
                for code, quantity in zip(METERS, plain.quantities(), strict=True):
                    said[customer, f"{policy}_{code}", index] = owed(code, quantity)
    return said, rules, late


def billed(database_url: str, organization: Organization) -> Said:
    """Our side: what all lines of all invoices come to."""
    found = select(
        database_url,
        """SELECT c.external_id, l.feature_name, l.usage_period,
                  coalesce(sum(l.overage) FILTER (WHERE l.part <> 'minimum'), 0), sum(l.amount)::bigint
             FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id JOIN customers c ON c.id = i.customer_id
            WHERE i.organization_id = %s AND l.usage_period IS NOT NULL GROUP BY 1, 2, 3""",
        shop.own_id(ids.ORGANIZATION, organization.id),
    )
    return {(each[0], each[1], each[2]): (each[3], each[4]) for each in found}


def verify_all(database_url: str, organization: Organization) -> Counter[str]:
    """Every invoice, the whole chain, and the rules of the books; how many invoices there are of each type."""
    identity = shop.own_id(ids.ORGANIZATION, organization.id)

    async def act(conn: Conn) -> Counter[str]:
        owner = await organizations.get(conn, organization_id=identity)
        assert owner is not None
        seen: Counter[str] = Counter()
        before = None
        while page := await invoices.page(
            conn,
            organization_id=identity,
            before=before,
            limit=500,
            customer_id=None,
            subscription_id=None,
            status=None,
        ):
            for invoice in page:
                report = await verify_invoice(conn, owner, invoice)
                assert report.outcome is Outcome.VERIFIED, report.first_difference
                seen[invoice.invoice_type] += 1
            before = page[-1].id
        assert (await verify_chain(conn, owner)).differences == []
        assert broken(await reconcile.ask(conn, identity, wall=wall())) == {}
        return seen

    return ask(database_url, act)


@pytest.mark.skipif(not WHOLE.is_file(), reason="TALLYSTICK_SHARED does not hold data/commits.ndjson.gz")
def test_three_years_in_order_of_arrival_are_billed_as_each_policy_says(
    make_organization: MakeOrganization, database_url: str
) -> None:
    arrivals = busiest(WHOLE)
    zones = {
        name: ZONES[place % 3] for place, name in enumerate(dict.fromkeys(each.customer for each in arrivals))
    }
    organization = make_organization(clock=BEGAN.isoformat())
    plan = shop.add_plan(organization, price=100)
    for policy in POLICIES:
        for code, meter in zip(METERS, MEASURED, strict=True):
            name = f"{policy}_{code}"
            shop.add_feature(organization, name, eventCode="commits", lateEventPolicy=policy, **meter)
            shop.promise(organization, plan, name, **PRICED[code])
    for name, zone in zones.items():
        shop.subscribe(organization, name, customer={"timezone": zone})

    for group in groups(arrivals):
        shop.set_clock(organization, group[-1].at.isoformat())
        for start in range(0, len(group), 100):
            batch = [each.row for each in group[start : start + 100]]
            assert shop.track_batch(organization, batch)["failed"] == []
    last = max(boundaries(zone)[-1] for zone in ZONES)
    shop.set_clock(organization, last.isoformat())

    expected, rules, late = folds(arrivals, zones)
    told = billed(database_url, organization)
    wrong = [
        f"{key}: {told.get(key)} is not {owes}"
        for key, owes in expected.items()
        if told.get(key, (0, 0)) != owes
    ]
    assert not wrong, f"{len(wrong)} of {len(expected)}\n" + "\n".join(wrong[:20])
    assert set(told) <= set(expected)

    listed = list(shop.every(organization, f"{shop.API}/usage/late-events"))
    assert {each["status"] for each in listed} == {"decided"}
    keys = dict(
        select(
            database_url,
            "SELECT id, event_key FROM events WHERE organization_id = %s",
            shop.own_id(ids.ORGANIZATION, organization.id),
        )
    )
    indices = {
        keys[shop.own_id(ids.EVENT, each["id"])]: {one["periodIndex"] for one in each["decisions"]}
        for each in listed
    }
    assert indices == {key: {index} for key, index in late.items()}
    assert Counter(one["rule"] for each in listed for one in each["decisions"]) == rules
    assert sum(1 for index in late.values() if index is None) >= 10, "some are older than their subscription"

    invoiced = verify_all(database_url, organization)
    assert invoiced["recurring"] == BUSIEST * (MONTHS + 1)
    assert invoiced["adjustment"] > 100
    assert audit(database_url, organization) == len(arrivals)
