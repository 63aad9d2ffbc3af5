"""`tallystick import`: bad lines are refused alone, a second run changes nothing, exit codes can be trusted."""

import gzip
import json
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from tests import shop
from tests.conftest import PROGRAM, MakeOrganization, Organization
from tests.scenarios.importing import event, run, summary, used


def test_bad_lines_are_refused_alone_with_their_number_and_reason(
    organization: Organization, database_url: str, tmp_path: Path
) -> None:
    lines = [
        event(eventId="a", value=2),
        "",
        "{not json",
        event(eventId="b", value=-1),
        event(eventId="c", customerId="nobody"),
        event(eventId="d", feature="unheard_of"),
        event(eventId="a", value=3),
        "[1, 2]",
        '{"feature":"api_calls","customerId":"ada","eventId":"e","value":0.10,"timestamp":"2026-01-15T10:00:00Z"}',
        event(eventId="a", value=2),
    ]
    file, refused = tmp_path / "events.ndjson", tmp_path / "refused.ndjson"
    file.write_text("\n".join(lines))
    done = run(file, organization, database_url, "--json", "--refused", str(refused))
    found = summary(done, code=1)
    assert (found["stored"], found["alreadyThere"], found["refused"]) == (2, 1, 6)
    assert found["refusedByCode"] == {
        "validation_error": 2,
        "invalid_json": 1,
        "customer_not_found": 1,
        "feature_not_found": 1,
        "duplicate": 1,
    }
    notes = [json.loads(line) for line in refused.read_text().splitlines()]
    assert [(note["line"], note["code"]) for note in notes] == [
        (3, "invalid_json"),
        (4, "validation_error"),
        (5, "customer_not_found"),
        (6, "feature_not_found"),
        (7, "duplicate"),
        (8, "validation_error"),
    ]
    assert notes[0]["data"] == "{not json"
    assert notes[1]["data"] == json.loads(lines[3])
    assert used(organization) == Decimal("2.1")


def test_rows_without_keys_are_counted_once_however_often_the_file_is_read(
    organization: Organization, database_url: str, tmp_path: Path
) -> None:
    """Two equal rows are two events; the same row spelled otherwise is the same content, its third time."""
    alike = json.dumps(
        {"quantity": 5, "ts": "2026-01-15T11:00:00+01:00", "customerId": "ada", "eventType": "api_calls"}
    )
    file = tmp_path / "events.ndjson.gz"
    with gzip.open(file, "wt") as out:
        out.write("\n".join([event(value=5), event(value=5), alike, event(value=7)]))
    first = summary(run(file, organization, database_url, "--json"))
    assert (first["stored"], first["alreadyThere"]) == (4, 0)
    second = summary(run(file, organization, database_url, "--json"))
    assert (second["stored"], second["alreadyThere"]) == (0, 4)
    assert used(organization) == 22


def test_customers_are_made_only_when_asked_for(
    organization: Organization, database_url: str, tmp_path: Path
) -> None:
    shop.add_customer(organization, "bob")
    file = tmp_path / "events.ndjson"
    names = ["ada", "bob", "new one/ü", "cus_made_up"]
    file.write_text("\n".join(event(customerId=name, eventId="k") for name in names))
    found = summary(run(file, organization, database_url, "--json"), code=1)
    assert found["refusedByCode"] == {"customer_not_found": 2, "no_active_subscription": 1}

    more = ("--json", "--create-customers", "--plan", "pro")
    found = summary(run(file, organization, database_url, *more), code=1)
    assert (found["stored"], found["alreadyThere"]) == (2, 1)
    assert (found["customersMade"], found["subscriptionsMade"]) == (1, 2)
    assert found["refusedByCode"] == {"customer_not_found": 1}
    listed = shop.done(organization.http.get(f"{shop.API}/customers"))["data"]
    assert {each["externalId"]: each["email"] for each in listed}["new one/ü"] == "new-one@import.invalid"
    held = shop.done(organization.http.get(f"{shop.API}/subscriptions"))["data"]
    assert {each["status"] for each in held} == {"active"}
    invoices = shop.done(organization.http.get(f"{shop.API}/invoices", params={"customerId": "bob"}))["data"]
    assert [(each["status"], each["total"]) for each in invoices] == [("paid", 2900)]


def test_a_live_organization_gives_away_free_plans_only(
    make_organization: MakeOrganization, database_url: str, tmp_path: Path
) -> None:
    live = make_organization(mode="live")
    shop.add_feature(live)
    shop.add_plan(live, "pro", promises={"api_calls": shop.overage("0.01")})
    shop.add_plan(live, "free", price=None, promises={"api_calls": shop.hard_limit(10)})
    file = tmp_path / "events.ndjson"
    file.write_text(event())
    refused = run(file, live, database_url, "--json", "--create-customers", "--plan", "pro")
    assert refused.returncode == 1
    assert "costs money" in refused.stderr
    assert shop.done(live.http.get(f"{shop.API}/customers"))["data"] == []
    found = summary(run(file, live, database_url, "--json", "--create-customers", "--plan", "free"))
    assert (found["stored"], found["customersMade"]) == (1, 1)


def test_a_damaged_file_keeps_what_was_whole_and_says_where_it_ends(
    organization: Organization, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "events.ndjson.gz"
    whole = gzip.compress("\n".join(event(eventId=str(number)) for number in range(5_000)).encode())
    file.write_bytes(whole[:-200])
    found = summary(run(file, organization, database_url, "--json"), code=1)
    assert found["damage"].startswith("The file is damaged after line ")
    assert 0 < found["stored"] < 5_000
    file.write_bytes(whole)
    again = summary(run(file, organization, database_url, "--json"))
    assert again["alreadyThere"] == found["stored"]
    assert used(organization) == 5_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["{there}/none.ndjson"],
        ["{file}", "--create-customers"],
        ["{file}", "--plan", "pro"],
        ["{file}", "--refused", "{file}"],
    ],
)
def test_a_command_that_makes_no_sense_is_exit_code_2(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text(event())
    filled = [each.format(there=tmp_path, file=file) for each in arguments]
    done = subprocess.run(
        [PROGRAM, "import", *filled], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert file.read_text() == event()
