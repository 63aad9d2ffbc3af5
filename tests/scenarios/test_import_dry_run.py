"""`tallystick import --dry-run` tells what the import then does, and changes nothing."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString

from psycopg.sql import SQL, Identifier

from tests import shop
from tests.audit import organization_id, select
from tests.conftest import MakeOrganization, Organization
from tests.literals import at
from tests.scenarios.importing import run, summary
from tests.shop import Json

TALLIED = ("stored", "alreadyThere", "refused", "refusedByCode", "customersMade", "subscriptionsMade")
_TABLES: LiteralString = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
_TRIES = 3


def every_table(database_url: str) -> dict[str, Any]:
    """A digest of each table's rows."""
    query = SQL("SELECT count(*), md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {} t")
    return {
        name: select(database_url, query.format(Identifier(name)))[0]
        for (name,) in select(database_url, _TABLES)
    }


def rehearsed(file: Path, business: Organization, database_url: str, *more: str, code: int) -> Json:
    """A dry run that left every table as it was; the server's own sweeps may come between, but not each time."""
    for _ in range(_TRIES):
        before = every_table(database_url)
        found = summary(run(file, business, database_url, "--json", "--dry-run", *more), code)
        after = every_table(database_url)
        if after == before:
            return found
    raise AssertionError([name for name in after if after[name] != before.get(name)])


def a_business(make_organization: MakeOrganization) -> Organization:
    """Every way to be refused: limits that add up and ones that do not, wallets of both kinds, closed periods."""
    made = make_organization(clock="2026-01-10T12:00:00Z")
    shop.add_feature(made, "api_calls")
    shop.add_feature(made, "exports")
    shop.add_feature(made, "regions", aggregation="unique", aggregationProperty="region", eventCode="exports")
    shop.add_feature(made, "peak", aggregation="max")
    limits = {
        "api_calls": shop.overage("0.01"),
        "exports": shop.hard_limit(4_000),
        "regions": shop.hard_limit(3),
        "peak": shop.hard_limit(50),
    }
    shop.add_plan(made, "pro", promises=limits)
    shop.add_plan(
        made,
        "credits",
        model="credits",
        grants={"includedCredits": 5_000},
        promises={"api_calls": {"creditsPerUnit": 2}},
    )
    for customer, plan in (("ada", "pro"), ("bob", "pro"), ("cy", "credits")):
        shop.subscribe(made, customer, plan)
    shop.add_customer(made, "never")
    shop.done(shop.track(made, "ada", "there", value=7, timestamp="2026-01-10T12:00:00Z"))
    shop.done(shop.track(made, "bob", feature="exports", value=100, properties={"region": "eu"}))
    shop.done(made.http.post(f"{shop.API}/test-clock", json={"frozenTime": "2026-03-12T12:00:00Z"}))
    return made


def a_file(path: Path, count: int) -> None:
    """Several chunks, in which keys come again near and far, and limits are reached between two chunks."""
    begin = datetime(2026, 1, 5, tzinfo=UTC)
    lines: list[Json] = [{"customerId": "ada", "feature": "api_calls", "eventId": "there", "value": 7}]
    lines[0]["timestamp"] = "2026-01-10T12:00:00Z"
    lines.append({**lines[0], "value": 8})
    for number in range(count):
        event: Json = {
            "customerId": ("ada", "bob", "cy", "ada", "bob", "nobody", "new")[number % 7],
            "feature": ("api_calls", "exports", "peak", "api_calls", "unheard")[number % 5],
            "value": number % 90,
            "timestamp": (begin + timedelta(minutes=19 * number)).isoformat(),
        }
        if event["customerId"] == "cy":
            event["feature"] = "api_calls"
        if number % 3:
            event["eventId"] = f"k{number - (number % 11 == 0) * 7}"
        if event["feature"] == "exports":
            event["properties"] = {"region": f"r{number // (count // 6)}"}
        if number % 53 == 0:
            event["value"] = -1
        lines.append(event)
    lines += lines[100:200]  # keyed ones come again chunks later; a content without a key is another event
    lines.append({**lines[150], "eventId": "k148", "value": 89.5})
    path.write_text("\n".join(json.dumps(each) for each in lines))


def test_a_dry_run_tells_what_the_import_then_does(
    make_organization: MakeOrganization, database_url: str, tmp_path: Path
) -> None:
    business = a_business(make_organization)
    file = tmp_path / "events.ndjson"
    a_file(file, 5_000)
    notes = [tmp_path / "dry.ndjson", tmp_path / "done.ndjson"]
    told = rehearsed(file, business, database_url, "--refused", str(notes[0]), code=1)
    done = summary(run(file, business, database_url, "--json", "--refused", str(notes[1])), code=1)
    assert {name: told[name] for name in TALLIED} == {name: done[name] for name in TALLIED}
    assert {
        "duplicate",
        "customer_not_found",
        "feature_not_found",
        "validation_error",
        "included_limit_reached",
        "insufficient_credits",
    } <= told["refusedByCode"].keys()
    judged = [
        [
            (each["line"], each["code"], each["error"])
            for each in map(json.loads, note.read_text().splitlines())
        ]
        for note in notes
    ]
    assert judged[0] == judged[1]

    forecast = told["forecast"]
    assert folded(database_url, business, forecast) == [
        (each["featureCode"], each["events"], Decimal(each["value"])) for each in forecast["features"]
    ]
    assert forecast["late"] > 0
    assert forecast["customers"] == len(forecast["topCustomers"]) == 3

    again = rehearsed(file, business, database_url, code=1)
    assert (again["stored"], again["alreadyThere"]) == (0, done["stored"] + done["alreadyThere"])
    assert again["forecast"]["features"] == []


def folded(database_url: str, business: Organization, forecast: Json) -> list[tuple[Any, ...]]:
    """What is stored between the first and the last event that were foretold, but for what was there before."""
    return select(
        database_url,
        """SELECT feature_code, count(*), sum(value) FROM events
            WHERE customer_id IN (SELECT id FROM customers WHERE organization_id = %s) AND occurred_at BETWEEN %s AND %s
              AND event_key IS DISTINCT FROM 'there' AND properties IS DISTINCT FROM '{"region": "eu"}'
            GROUP BY 1 ORDER BY 1""",
        organization_id(business),
        at(forecast["first"]),
        at(forecast["last"]),
    )


def test_a_dry_run_supposes_the_customers_that_would_be_made(
    make_organization: MakeOrganization, database_url: str, tmp_path: Path
) -> None:
    business = a_business(make_organization)
    lines = [
        {"customerId": name, "feature": "api_calls", "value": 40, "eventId": f"{name} {number}"}
        for number in range(100)
        for name in ("new", "never", "cy", "cus_made_up")
    ]
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(json.dumps(each) for each in lines))
    more = ("--create-customers", "--plan", "credits")
    told = rehearsed(file, business, database_url, *more, code=1)
    assert (told["customersMade"], told["subscriptionsMade"]) == (1, 2)
    assert told["refusedByCode"]["insufficient_credits"] > 0
    done = summary(run(file, business, database_url, "--json", *more), code=1)
    assert {name: told[name] for name in TALLIED} == {name: done[name] for name in TALLIED}


def test_people_read_what_would_be_stored_of_whom_and_when(
    organization: Organization, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "events.csv"
    file.write_text(
        "customerId,eventId,timestamp,value\n"
        "ada,a,2026-01-11T10:00:00Z,2.5\nada,b,2026-01-14T10:00:00Z,0.25\nbob,c,2026-01-14T10:00:00Z,1\n"
    )
    done = run(file, organization, database_url, "--dry-run", "--set", "featureCode=api_calls")
    assert done.returncode == 1
    assert (
        "dry run, nothing was changed: 2 would be stored, 0 already there, 1 would be refused" in done.stderr
    )
    assert "1 customer_not_found" in done.stderr
    assert "from 2026-01-11T10:00:00.000Z to 2026-01-14T10:00:00.000Z" in done.stderr
    cells = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines()]
    assert ["", "api_calls", "2", "2.75", ""] in cells
    assert ["", "ada", "2", "api_calls 2.75", ""] in cells
