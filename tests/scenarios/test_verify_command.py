"""`tallystick verify`, beside a running server: what it says, to people and to programs, and its exit codes."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tallystick.cli.processes import Processes
from tallystick.core import ids
from tallystick.flows.verify_all import Report, Wanted, verify_all
from tallystick.store.db import PROOF_CONNECTION, connect
from tests import story
from tests.audit import organization_id, select
from tests.conftest import PROGRAM, Organization, Server, open_one
from tests.shop import API, every


@pytest.fixture(scope="module")
def shop(server: Server, database_url: str) -> Iterator[Organization]:
    made = open_one(database_url, server.base_url, clock=story.OPENED)
    story.live(made)
    yield made
    made.http.close()


def verify(server: Server, *words: str) -> "subprocess.CompletedProcess[str]":
    """As an operator types it, on the data directory that the server is using."""
    where = (
        ["--database-url", server.database_url]
        if server.database_url
        else ["--data-dir", str(server.data_dir)]
    )
    return subprocess.run(
        [str(PROGRAM), "verify", "--workers", "1", *words, *where],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def document(done: "subprocess.CompletedProcess[str]", code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def changed(database_url: str, change: Any, restore: Any, *params: object) -> Iterator[None]:
    """Behind the server's back, and back again."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        assert conn.execute(change, params).rowcount == 1
        try:
            yield
        finally:
            assert conn.execute(restore, params).rowcount == 1


@pytest.mark.parametrize("workers", ["1", "3"])
def test_all_of_an_organization_is_verified(shop: Organization, server: Server, workers: str) -> None:
    done = verify(server, "--all", "--organization", shop.id, "--json", "--workers", workers)
    found = document(done)
    assert (found["status"], found["differences"]) == ("verified", [])
    assert (found["invoices"]["looked"], found["invoices"]["different"]) == (8, 0)
    (chain,) = found["chains"]
    assert (chain["organizationId"], chain["differences"]) == (shop.id, [])
    assert chain["events"] > found["invoices"]["events"] / 4 > 0
    assert found["eventsPerSecond"] > 0


def test_without_all_only_invoices_are_looked_at(shop: Organization, server: Server) -> None:
    found = document(verify(server, "--organization", shop.id, "--json"))
    assert (found["status"], found["invoices"]["looked"], found["chains"]) == ("verified", 8, [])


def test_people_are_told_in_a_sentence(shop: Organization, server: Server) -> None:
    done = verify(server, "--all", "--organization", shop.id)
    chain, verdict = done.stdout.splitlines()
    assert chain.startswith(f"The chain of {shop.id} is unbroken: position ")
    assert verdict.startswith("verified: 8 invoices, 0 of them different; ")
    assert done.returncode == 0


def test_a_difference_is_said_and_is_the_exit_code(
    shop: Organization, server: Server, database_url: str
) -> None:
    ((event,),) = select(
        database_url,
        """SELECT e.id FROM events e JOIN customers c ON c.id = e.customer_id
            WHERE c.organization_id = %s AND c.external_id = 'ada' AND e.event_key = 'request_10'""",
        organization_id(shop),
    )
    shown = ids.show(ids.EVENT, event)
    change = "UPDATE events SET value = value {} 1 WHERE id = %s"
    with changed(database_url, change.format("+"), change.format("-"), event):
        done = verify(server, "--all", "--organization", shop.id, "--json")
        found = document(done, code=1)
        assert found["status"] == "different"
        (wrong,) = found["differences"]
        assert wrong["invoiceNumber"] == "INV-0003"
        assert all(each["lineId"].startswith("inl_") for each in wrong["differences"])
        ((said,),) = [each["differences"] for each in found["chains"]]
        assert said.startswith(f"the event {shown} was changed since it was stored: batch ")

        told = verify(server, "--organization", shop.id)
        assert told.returncode == 1
        assert f"INV-0003 ({wrong['invoiceId']}) is different:" in told.stdout
        assert f"  the event {shown} was changed since it was stored: batch " in told.stdout
        assert told.stdout.splitlines()[-1].startswith("different: 8 invoices, 1 of them different;")

        one = document(verify(server, "--invoice", wrong["invoiceId"], "--json"), code=1)
        assert one["differences"] == [wrong]
        assert [each["differences"] for each in one["chains"]] == [[said]]
        other = every(shop, f"{API}/invoices")
        innocent = next(each["id"] for each in other if each["id"] != wrong["invoiceId"])
        assert document(verify(server, "--invoice", innocent, "--json"))["invoices"]["looked"] == 1
    assert document(verify(server, "--all", "--organization", shop.id, "--json"))["status"] == "verified"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--invoice", "inv_1"],
        ["--invoice", "inv_01m7ys45fnf23rygeta42ye1tx"],
        ["--organization", "org_01m7ys45fnf23rygeta42ye1tx"],
        ["--organization", "inv_01m7ys45fnf23rygeta42ye1tx"],
        ["--all", "--invoice", "inv_01m7ys45fnf23rygeta42ye1tx"],
        ["--all", "--workers", "0"],
        ["--all", "--workers", "many"],
        ["--everything"],
    ],
)
def test_what_is_not_understood_is_exit_code_2(server: Server, words: list[str]) -> None:
    done = verify(server, *words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Error" in done.stderr


class Looks:
    """How often something came back."""

    count = 0

    def expect(self, events: int) -> None: ...

    def looked(self, events: int) -> None:
        self.count += 1


def test_long_lines_are_cut_into_slices_and_come_out_the_same(shop: Organization, database_url: str) -> None:
    """The same invoices, read in slices of a few events, by several processes."""
    looks = Looks()

    async def act() -> Report:
        async with await connect(database_url, PROOF_CONNECTION) as conn:
            with Processes(database_url, 2) as processes:
                wanted = Wanted(organization_id=organization_id(shop), chains=False)
                return await verify_all(conn, processes.do, wanted, looks, at_once=8, slice_events=5)

    report = asyncio.run(act())
    assert (report.invoices, report.wrong) == (8, [])
    assert looks.count > 100
