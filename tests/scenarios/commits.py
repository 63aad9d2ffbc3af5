"""The file of real commits, and its last three years in the order in which they arrived.

The folds here share nothing with the program: json, Decimal and zoneinfo. `TALLYSTICK_SHARED` names a folder whose
`data/commits.ndjson.gz` is the file. Tests live through it, and `python -m bench.commits` for every customer.
"""

import gzip
import json
import os
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tallystick.core import ids
from tests import shop
from tests.audit import select
from tests.conftest import Organization

WHOLE = Path(os.environ.get("TALLYSTICK_SHARED", "/nowhere")) / "data" / "commits.ndjson.gz"
ZONES = ("Europe/Paris", "America/Los_Angeles", "Asia/Kathmandu")
METERS = ("commits_made", "lines_changed", "repositories_touched")
MEASURED: tuple[dict[str, str], ...] = (
    {"aggregation": "count"},
    {"aggregation": "sum"},
    {"aggregation": "unique", "aggregationProperty": "repository"},
)


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


# Three years in the order of arrival ------------------------------------------------------------------------

BEGAN = datetime(2023, 7, 1, 12, tzinfo=UTC)
MONTHS = 36
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


def three_years(path: Path, busiest: int | None = None) -> list[Arrival]:
    """What arrived in the three years, from everybody or from the customers who sent most in them."""
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
    chosen = {name for name, _ in Counter(each.customer for each in found).most_common(busiest)}
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


def live(
    organization: Organization, arrivals: Sequence[Arrival], policies: Sequence[str] = POLICIES
) -> dict[str, str]:
    """Everybody subscribes when the three years begin, and sends what arrived as it arrived; who lives where.

    The one plan measures the commits three times over for each policy.
    """
    names = dict.fromkeys(each.customer for each in arrivals)
    zones = {name: ZONES[place % 3] for place, name in enumerate(names)}
    plan = shop.add_plan(organization, price=100)
    for policy in policies:
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
    return zones


def differences(expected: Said, told: Said) -> list[str]:
    """Where what was billed is not what the plain folds say."""
    wrong = [
        f"{key}: {told.get(key)} is not {owes}"
        for key, owes in expected.items()
        if told.get(key, (0, 0)) != owes
    ]
    return wrong + [f"{key}: {told[key]} was not asked for" for key in told.keys() - expected.keys()]
