"""`tallystick demo`, whole and cut short: three months of real commits become invoices that add up."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as midnight
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tallystick.cli.demo_story import arrivals
from tests import shop
from tests.conftest import PROGRAM, Server, free_port, private_dir

STARTED = datetime(2024, 11, 1, 10, tzinfo=UTC)
INCLUDED = 10


@contextmanager
def a_room() -> Iterator[Path]:
    folder = private_dir("tallystick-demo-")
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


def command(data_dir: Path, *more: str) -> list[str]:
    return [str(PROGRAM), "demo", "--port", str(free_port()), "--data-dir", str(data_dir), *more]


def fill(data_dir: Path) -> dict[str, Any]:
    limited = {**os.environ, "TALLYSTICK_RATE_LIMIT": "1"}  # which is for others than the demo itself
    run = subprocess.run(
        command(data_dir, "--exit", "--json"),
        env=limited,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert run.returncode == 0, run.stderr
    document: dict[str, Any] = json.loads(run.stdout)
    return document


@dataclass
class Filled:
    data_dir: Path
    told: dict[str, Any]
    http: httpx.Client

    def every(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query: dict[str, str] = {"limit": "100"}
        while True:
            page = shop.done(self.http.get(f"{shop.API}{path}", params=query))
            found += page["data"]
            if not page["hasMore"]:
                return found
            query["cursor"] = page["nextCursor"]


@pytest.fixture(scope="module")
def filled() -> Iterator[Filled]:
    """The demo's data, served again by `tallystick serve`."""
    with a_room() as data_dir:
        told = fill(data_dir)
        port = free_port()
        server = Server(f"http://127.0.0.1:{port}", port, data_dir, None)
        server.start()
        with httpx.Client(
            base_url=server.base_url, headers={"x-api-key": told["apiKey"]}, timeout=30
        ) as http:
            yield Filled(data_dir, told, http)
        server.stop()


def test_every_commit_was_stored_or_stopped_at_a_limit(filled: Filled) -> None:
    told = filled.told
    assert told["sent"] == len(arrivals())
    assert list(told["refused"]) == ["included_limit_reached"]
    assert told["stored"] + told["refused"]["included_limit_reached"] == told["sent"]


def test_every_invoice_is_the_sum_of_its_lines(filled: Filled) -> None:
    invoices = filled.every("/invoices")
    assert len(invoices) == filled.told["invoices"] > 0
    assert sum(each["total"] for each in invoices) == filled.told["invoiced"]
    for each in invoices:
        lines = shop.done(filled.http.get(f"{shop.API}/invoices/{each['id']}"))["lineItems"]
        assert sum(line["amount"] for line in lines) == each["total"] == each["subtotal"]


def test_every_usage_line_lists_the_events_it_bills(filled: Filled) -> None:
    seen: Counter[str] = Counter()
    for invoice, line, evidence in usage_lines(filled):
        listed = filled.every(f"/invoices/{invoice['id']}/lines/{line['id']}/events")
        counted = evidence["meter"]["aggregation"] == "count"
        values = [Decimal(1) if counted else Decimal(str(each["value"])) for each in listed]
        assert sum(values) == Decimal(line["usedDecimal"])
        assert len({each["id"] for each in listed}) == len(listed) == evidence["events"]["count"]
        seen[line["featureName"]] += 1
    assert seen["Commits"] > 0
    assert seen["Changed lines"] > 0


def test_billed_commits_are_those_that_arrived_before_the_last_close(filled: Filled) -> None:
    """Counted here from the sample alone: months as they are where the customer lives.

    What came after its own month was closed is on the next invoice, as a difference.
    """
    zones = {
        each["customer"]: each["timezone"] for each in filled.told["customers"] if each["plan"] == "Team"
    }
    expected: Counter[tuple[str, datetime]] = Counter()
    for each in arrivals():
        if each.customer in zones:
            happened = datetime.fromisoformat(json.loads(each.text)["timestamp"])
            lived = months(zones[each.customer])
            for start, end in lived:
                if start <= happened < end and each.at < lived[-1][1]:
                    expected[each.customer, start] += 1
    billed: Counter[tuple[str, datetime]] = Counter()
    for invoice, line, evidence in usage_lines(filled):
        if line["featureName"] == "Commits":
            start = datetime.fromisoformat(evidence["instants"][0])
            billed[invoice["customerId"], start] += int(line["usedDecimal"])
    assert billed == {key: count for key, count in expected.items() if count > INCLUDED}


def test_while_it_is_served_there_is_no_second_one(filled: Filled) -> None:
    refused = subprocess.run(
        command(filled.data_dir, "--exit"), capture_output=True, text=True, check=False, timeout=60
    )
    assert refused.returncode == 1
    assert "Another Tallystick server" in refused.stderr


def test_a_demo_that_was_cut_short_goes_on_to_the_same_end(filled: Filled) -> None:
    with a_room() as data_dir:
        begun = [cut_short(data_dir, seconds) for seconds in (0.5, 1.5)]
        assert any(begun)
        last = fill(data_dir)
        again = fill(data_dir)
        assert (last["alreadyFilled"], again["alreadyFilled"], again["sent"]) == (False, True, 0)
        for told in (last, again):
            for name in ("invoices", "invoiced", "owed", "customers"):
                assert told[name] == filled.told[name]


def cut_short(data_dir: Path, seconds: float) -> bool:
    """Ctrl-C, so long after the server was ready; whether it had begun."""
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}", port, data_dir, None)
    arguments = [str(PROGRAM), "demo", "--port", str(port), "--data-dir", str(data_dir)]
    with (data_dir.parent / f"{data_dir.name}.log").open("ab") as log:
        server.process = subprocess.Popen(arguments, stdout=log, stderr=log)
    server.wait_until_ready()
    time.sleep(seconds)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 0, server.log()
    return "Cut short" in server.log()


def usage_lines(filled: Filled) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(invoice, line, its evidence) of whatever a closed month's usage was billed with."""
    for invoice in filled.every("/invoices"):
        path = f"{shop.API}/invoices/{invoice['id']}"
        kept = {
            each["lineId"]: each["evidence"]
            for each in shop.done(filled.http.get(f"{path}/evidence"))["lines"]
        }
        for line in shop.done(filled.http.get(path))["lineItems"]:
            if line["lineType"] == "feature_overage" and line["chargeType"] == "standard":
                yield invoice, line, kept[line["id"]]


def months(zone: str) -> list[tuple[datetime, datetime]]:
    """The first begins when the customer subscribed; the others at local midnight of the first."""
    firsts = [date(2024, 12, 1), date(2025, 1, 1), date(2025, 2, 1)]
    edges = [STARTED, *(datetime.combine(day, midnight.min, ZoneInfo(zone)) for day in firsts)]
    return [(start.astimezone(UTC), end.astimezone(UTC)) for start, end in pairwise(edges)]
