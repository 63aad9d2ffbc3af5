"""Twenty years of real commits, in three time zones: what we measure is what a plain fold over the file says.

The fold below shares nothing with the program: json, Decimal and zoneinfo. Every (customer, calendar month) of
both must agree to the last digit, for a count, a sum and a number of distinct repositories. `TALLYSTICK_SHARED`
names a folder whose `data/commits.ndjson.gz` is the whole file; without it only the slice in the tree is lived.

The last three years are also lived through in the order in which their commits arrived, some of them years late, under
each policy for what is late: what was billed is what a plain fold says that policy bills.
"""

import asyncio
import json
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from importlib.resources import files
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
from tests.scenarios.commits import (
    BEGAN,
    MEASURED,
    METERS,
    MONTHS,
    WHOLE,
    ZONES,
    Plain,
    billed,
    differences,
    folds,
    live,
    rows_of,
    three_years,
)

SLICE = Path(str(files("tallystick.cli") / "sample_commits.ndjson.gz"))
BUSIEST = 40

Month = tuple[int, int]


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
    arrivals = three_years(WHOLE, BUSIEST)
    organization = make_organization(clock=BEGAN.isoformat())
    zones = live(organization, arrivals)
    expected, rules, late = folds(arrivals, zones)
    wrong = differences(expected, billed(database_url, organization))
    assert not wrong, f"{len(wrong)} of {len(expected)}\n" + "\n".join(wrong[:20])

    listed = list(shop.every(organization, f"{shop.API}/usage/late-events"))
    assert {each["status"] for each in listed} == {"decided"}
    keys = dict(
        select(
            database_url,
            "SELECT id, event_key FROM events WHERE customer_id IN (SELECT id FROM customers WHERE organization_id = %s)",
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
