"""Twenty years of real commits, in three time zones: what we measure is what a plain fold over the file says.

The fold below shares nothing with the program: json, Decimal and zoneinfo. Every (customer, calendar month) of
both must agree to the last digit, for a count, a sum and a number of distinct repositories. `TALLYSTICK_SHARED`
names a folder whose `data/commits.ndjson.gz` is the whole file; without it only the slice in the tree is lived.
"""

import asyncio
import gzip
import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tallystick.core import ids
from tallystick.core.meters import Meter
from tallystick.core.times import Period, first_instant
from tallystick.flows.measure_usage import measure_usage
from tallystick.store import catalog, customers
from tallystick.store.db import Database
from tests import shop
from tests.conftest import PROGRAM, MakeOrganization, Organization

SLICE = Path(str(files("tallystick.cli") / "sample_commits.ndjson.gz"))
WHOLE = Path(os.environ.get("TALLYSTICK_SHARED", "/nowhere")) / "data" / "commits.ndjson.gz"
ZONES = ("Europe/Paris", "America/Los_Angeles", "Asia/Kathmandu")
METERS = ("commits_made", "lines_changed", "repositories_touched")

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
    meters: tuple[dict[str, str], ...] = (
        {"aggregation": "count"},
        {"aggregation": "sum"},
        {"aggregation": "unique", "aggregationProperty": "repository"},
    )
    for code, meter in zip(METERS, meters, strict=True):
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
