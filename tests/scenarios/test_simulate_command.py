"""`tallystick simulate`: the report of the API, as tables for people and as one document for programs."""

import contextlib
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tallystick.api import wire
from tests.conftest import PROGRAM, Organization, Server, open_one
from tests.scenarios.wire import Json
from tests.shop import API, add_plan, done, every, open_shop, overage, set_clock, subscribe, track

SPAN = ("--start", "2025-01-15", "--end", "2025-03-20T00:00:00Z")
GRADUATED = {
    "model": "graduated",
    "tiers": [{"upTo": "500", "unitAmount": "0.02"}, {"upTo": None, "unitAmount": "0.0033"}],
}
PRICED = ("--plan", "pro", "--feature", "api_calls", "--price")


@pytest.fixture(scope="module")
def shop(server: Server, database_url: str) -> Iterator[Organization]:
    """Thirty customers, each of whom uses a hundred more than the one before."""
    made = open_one(database_url, server.base_url, clock="2025-01-15T10:00:00Z")
    open_shop(made, terms=overage("0.01", included=100))
    add_plan(made, "team", price=9900, promises={"api_calls": overage("0.001")})
    for number in range(30):
        subscribe(made, f"customer_{number:02}[b]")
    set_clock(made, "2025-02-01T00:00:00Z")
    for number in range(30):
        done(track(made, f"customer_{number:02}[b]", value=100 * number))
    set_clock(made, "2025-03-20T00:00:00Z")
    yield made
    made.http.close()


def run(shop: Organization, database_url: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAM), "simulate", "--organization", shop.id, "--database-url", database_url, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_says_what_the_api_says(shop: Organization, database_url: str, tmp_path: Path) -> None:
    ran = run(shop, database_url, *PRICED, json.dumps(GRADUATED), *SPAN, "--json")
    assert ran.returncode == 0, ran.stderr
    report: Json = wire.parse(ran.stdout.encode())
    body = {
        "planFeatures": [{"planCode": "pro", "featureCode": "api_calls", "price": GRADUATED}],
        "start": SPAN[1],
        "end": SPAN[3],
    }
    answered = done(shop.http.post(f"{API}/simulations", json=body))
    for name in ("id", "createdAt"):
        assert report.pop(name) is not None and answered.pop(name) is not None
    assert report == answered
    assert (report["winners"], report["losers"], report["same"]) == (16, 12, 2)
    assert report["start"] == "2025-01-15T00:00:00.000Z"
    file = tmp_path / "price.json"
    file.write_text(json.dumps(GRADUATED))
    from_file = run(shop, database_url, *PRICED[:-1], "--price-file", str(file), *SPAN, "--json")
    assert wire.parse(from_file.stdout.encode())["totals"] == report["totals"]


def test_people_see_the_biggest_winners_and_losers_each_with_a_bar(
    shop: Organization, database_url: str
) -> None:
    ran = run(shop, database_url, *PRICED, json.dumps(GRADUATED), *SPAN)
    assert ran.returncode == 0, ran.stderr
    less, more = ran.stdout.split("Who would pay more")
    assert "Who would pay less: 16" in less
    assert "and 6 more" in less
    rows = [line.split() for line in less.splitlines() if "[b]" in line]
    assert [row[0] for row in rows] == [f"customer_{number}[b]" for number in range(29, 19, -1)]
    assert rows[0][1:4] == ["$28.00", "$17.59", "−$10.41"]
    lengths = [row[4].count("█") for row in rows]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1] > 0
    assert ": 12" in more
    assert "and 2 more" in more
    newest = next(iter(every(shop, f"{API}/simulations")))
    assert ran.stderr.strip() == f"90 usage periods, 30 of them still open; the report is {newest['id']}"
    (total,) = newest["totals"]
    assert "All customers in USD: 30" in more
    assert "16 would pay less, 12 more, 2 the same" in more
    together = next(line for line in more.splitlines() if "together" in line).split()
    assert together[1:3] == [f"${Decimal(total[name]) / 100:,.2f}" for name in ("oldAmount", "newAmount")]


def test_the_tables_fit_a_narrow_terminal(shop: Organization, database_url: str) -> None:
    """Names and numbers are whole at eighty columns."""
    words = (*PRICED, json.dumps(GRADUATED), *SPAN, "--to-plan", "pro")
    command = [str(PROGRAM), "simulate", "--organization", shop.id, "--database-url", database_url, *words]
    shown, terminal = pty.openpty()
    surroundings = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, env=surroundings) as running:
        os.close(terminal)
        said = b""
        with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
            while chunk := os.read(shown, 4096):
                said += chunk
        os.close(shown)
        _, complaint = running.communicate(timeout=60)
    assert running.returncode == 0, complaint
    text = said.decode()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for each in (
        "customer_29[b]",
        "as it was",
        "simulated",
        "difference",
        "base price",
        "api_calls",
        "together",
    ):
        assert each in text


def test_another_plan_and_some_customers(shop: Organization, database_url: str) -> None:
    words = ("--to-plan", "team", "--customer", "customer_00[b]", "--customer", "customer_29[b]", *SPAN)
    ran = run(shop, database_url, *words, "--json")
    assert ran.returncode == 0, ran.stderr
    report = wire.parse(ran.stdout.encode())
    assert [(each["customerId"], each["difference"]) for each in report["customers"]] == [
        ("customer_29[b]", 3 * 7000 - 2800 + 290),
        ("customer_00[b]", 3 * 7000),
    ]
    assert "base price" in run(shop, database_url, *words).stdout
    both = run(
        shop,
        database_url,
        *words,
        "--feature",
        "api_calls",
        "--price",
        '{"model": "flat", "amount": 1}',
        "--json",
    )
    changed = wire.parse(both.stdout.encode())
    assert changed["asked"]["planFeatures"][0]["planCode"] == changed["asked"]["planCode"] == "team"
    assert {each["features"][0]["newAmount"] for each in changed["customers"]} == {300}
    percent = ('{"model": "percentage", "basisPoints": 100}', "--included", "0")
    assert run(shop, database_url, *PRICED, *percent, *SPAN, "--json").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*PRICED, '{"model": "guess"}', *SPAN), "planFeatures[0].price.model: must be one of"),
        (("--plan", "gone", *PRICED[2:], '{"model": "flat", "amount": "1"}', *SPAN), "there is no plan 'gone'"),
        (("--to-plan", "team", "--customer", "[/x]", *SPAN), "there is no customer '[/x]'"),
        (("--to-plan", "team", "--start", "2025-01-15", "--end", "2025-04-01"), "end: lies in the future"),
        (("--to-plan", "team", "--start", "2024-01-15", "--end", "2024-04-01"), "nothing to simulate"),
        (("--to-plan", "team", "--start", "then", "--end", "2024-04-01"), "start: must be an ISO 8601 date"),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_is_exit_code_1_and_leaves_nothing(
    shop: Organization, database_url: str, words: tuple[str, ...], said: str
) -> None:
    before = list(every(shop, f"{API}/simulations"))
    ran = run(shop, database_url, *words)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert list(every(shop, f"{API}/simulations")) == before


@pytest.mark.parametrize(
    "words",
    [
        (),
        SPAN,
        ("--to-plan", "team", "--start", "2025-01-15"),
        (*PRICED, "{", *SPAN),
        (*PRICED[:-1], *SPAN),
        ("--plan", "pro", *SPAN),
        ("--plan", "pro", "--to-plan", "team", *SPAN),
        ("--feature", "api_calls", "--price", "{}", *SPAN),
        ("--to-plan", "team", "--included", "5", *SPAN),
        (*PRICED, "{}", "--price-file", __file__, *SPAN),
        (*PRICED[:-1], "--price-file", __file__, *SPAN),
        (*PRICED[:-1], "--price-file", f"{__file__}.none", *SPAN),
    ],
)
def test_a_command_that_makes_no_sense_is_exit_code_2(
    shop: Organization, database_url: str, words: tuple[str, ...]
) -> None:
    ran = run(shop, database_url, *words)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
