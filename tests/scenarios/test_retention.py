"""Months of events, out of the database and back: what stays provable meanwhile, and what says that it is not.

The business of `story` on a database of its own: a month leaves with everybody's events, and here nobody else has any.
"""

import asyncio
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection, AsyncCursor

from tallystick.app import wall
from tallystick.core import ids
from tallystick.core.retention import COLUMNS, OWNER, Month
from tallystick.flows import archive_events
from tallystick.flows.archive_events import NotArchived
from tallystick.flows.settle_late import settle_due
from tallystick.flows.sort_months import make_ahead, sort_default
from tallystick.providers import month_files
from tallystick.store import archives, citus, health, migrate, months
from tallystick.store.archives import Archived
from tallystick.store.db import CONNECTION, INGEST_CONNECTION, Conn, connect
from tests import story
from tests.audit import audit, organization_id, select
from tests.citus.cluster import database_beside
from tests.conftest import PROGRAM, Organization, beside_the_server, is_citus, open_one, private_dir, serving
from tests.literals import at
from tests.scenarios.test_docs import blocks, reads
from tests.shop import (
    API,
    add_feature,
    add_plan,
    done,
    every,
    hard_limit,
    invoices_of,
    promise,
    refused,
    set_clock,
    subscribe,
    track,
)

T = TypeVar("T")
JANUARY, FEBRUARY = "events-2025-01.parquet", "events-2025-02.parquet"
PARTITION = "regexp_replace(tableoid::regclass::text, '_[0-9]{6,}$', '')"  # not its shard, where it has any
FIRST_KEPT = Month(at("2025-03-01").date())


class Silent:
    def begin(self, what: str, events: int) -> None: ...

    def advance(self, events: int) -> None: ...


def older() -> int:
    """So many months back that February 2025 may leave, and March not."""
    now = wall()
    return (now.year - FIRST_KEPT.first.year) * 12 + now.month - FIRST_KEPT.first.month


@dataclass
class Business:
    database_url: str
    shop: Organization
    folder: Path
    sent: dict[str, str] = field(default_factory=dict)  # ids of events by key

    def tallystick(self, *words: str, code: int = 0) -> str:
        ran = subprocess.run(
            [str(PROGRAM), *words, "--database-url", self.database_url],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ran.returncode == code, f"{ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout or ran.stderr

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.tallystick(*words, "--json", code=code))

    def do(
        self,
        act: Callable[[Conn], Awaitable[T]],
        *,
        cursors: type[AsyncCursor[Any]] | None = None,
        **options: Any,
    ) -> T:
        async def inside() -> T:
            async with await connect(self.database_url, CONNECTION | options) as conn:
                conn.cursor_factory = cursors or conn.cursor_factory
                return await act(conn)

        return asyncio.run(inside())

    def archive(self, *, keep: bool = False, **options: Any) -> list[Archived]:
        return self.do(
            lambda conn: archive_events.archive(
                conn, older_than=older(), to=self.folder, now=wall(), progress=Silent(), keep=keep
            ),
            **options,
        )

    def restore(self, *names: str, folder: Path | None = None, **options: Any) -> None:
        for name in names:
            self.do(partial(back, path=(folder or self.folder) / name), **options)

    def gone(self) -> list[Archived]:
        return self.do(archives.every)

    def counted(self) -> int:
        return int(self.select("SELECT count(*) FROM events")[0][0])

    def select(self, query: Any, *params: object) -> list[tuple[Any, ...]]:
        return select(self.database_url, query, *params)


async def back(conn: Conn, path: Path) -> Archived:
    return await archive_events.restore(conn, path, progress=Silent())


@pytest.fixture(scope="module")
def own_database(database_url: str) -> Iterator[str]:
    if is_citus(database_url):
        with database_beside(database_url, "retention_here") as own:
            migrate.migrate(own)
            migrate.spread(own)
            yield own
        return
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS retention_here WITH (FORCE)")
        conn.execute("CREATE DATABASE retention_here")
    own = psycopg.conninfo.make_conninfo(database_url, dbname="retention_here")
    migrate.migrate(own)
    yield own


@pytest.fixture(scope="module")
def business(own_database: str) -> Iterator[Business]:
    folder = private_dir("tallystick-archive-")
    with serving(own_database) as server:
        shop = open_one(own_database, server.base_url, clock=story.OPENED)
        story.live(shop)
        done(track(shop, key="march", value=2, timestamp="2025-03-19T00:00:00Z"))
        set_clock(shop, "2025-05-20T00:00:00Z")
        made = Business(own_database, shop, folder)
        listed = every(shop, f"{API}/usage/events?customerId=ada")
        made.sent = {each["eventId"]: each["id"] for each in listed if each["eventId"]}
        yield made
        shop.http.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def archived(business: Business) -> Iterator[Business]:
    """January and February have left; afterwards they are back, and the books balance."""
    assert [each.file_name for each in business.archive()] == [JANUARY, FEBRUARY]
    yield business
    business.restore(*(each.file_name for each in business.gone()))
    audit(business.database_url, business.shop)


def test_a_month_leaves_and_comes_back_and_every_invoice_verifies_throughout(business: Business) -> None:
    before = business.counted()
    listed = {each["month"]: each for each in business.json("retention")["months"]}
    assert listed["2025-01"]["archived"] is None
    assert listed["2025-01"]["neededBy"] == {"openPeriods": 0, "lateEvents": 0, "unratedPeriods": 0}
    words = ("retention", "archive", "--older-than", f"{older()}m", "--to", str(business.folder))
    assert "2 months would leave" in business.tallystick(*words, "--dry-run")
    assert business.counted() == before
    assert "2 months archived" in business.tallystick(*words, "--note", "a test")
    left = business.counted()
    assert left < before
    found = {each["month"]: each["archived"] for each in business.json("retention")["months"]}
    assert (found["2025-01"]["file"], found["2025-01"]["note"]) == (JANUARY, "a test")
    assert sum(each["events"] for each in found.values() if each) == before - left
    assert "0 months archived" in business.tallystick(*words)

    report = business.json("verify", "--all", code=3)
    assert (report["status"], report["differences"]) == ("not_verified", [])
    assert [each["file"] for each in report["needs"]] == [JANUARY, FEBRUARY]
    assert all(each["differences"] == [] for each in report["chains"])
    assert f"needs events of 2025-01, archived in {JANUARY} (sha256 {found['2025-01']['sha256']})" in (
        business.tallystick("verify", "--organization", business.shop.id, code=3)
    )
    whole = business.json("verify", "--all", "--archive", str(business.folder))
    assert (whole["status"], whole["needs"]) == ("verified", [])
    assert sum(each["events"] for each in whole["chains"]) == before
    assert business.json("reconcile")["offenders"] == 0
    beside = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tallystick_archive%%'"
    assert business.select(beside) == [(0,)]

    for name in (JANUARY, FEBRUARY):
        assert "are back" in business.tallystick("retention", "restore", str(business.folder / name))
    assert business.counted() == before
    assert business.json("verify", "--all")["status"] == "verified"
    audit(business.database_url, business.shop)


def test_the_page_can_be_typed_from_top_to_bottom_and_answers_what_it_shows(business: Business) -> None:
    """`--older-than 12m` takes the first three months of 2025; nothing else of the story happened longer ago."""
    page = "docs/retention.md"
    ran = subprocess.run(
        ["bash", "-eu"],
        input="\n".join(blocks(page)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=business.folder,
        env=os.environ
        | {
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            "TALLYSTICK_DATABASE_URL": business.database_url,
        },
    )
    assert ran.returncode == 0, ran.stderr
    told = ran.stdout.splitlines()
    for shown in (line for block in blocks(page, "text") for line in block.splitlines()):
        assert any(reads(line, shown) for line in told), f"{shown}\n\n{ran.stdout}"
    business.restore(*(each.file_name for each in business.gone()), folder=business.folder / "archive")
    audit(business.database_url, business.shop)


def test_a_file_holds_every_column_of_every_event_exactly(archived: Business) -> None:
    columns = archived.select(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'events'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    assert {each[0] for each in columns} | {OWNER} == set(COLUMNS)
    january = archived.gone()[0]
    path = archived.folder / JANUARY
    facts = month_files.facts_of(path)
    assert (facts["month"], facts["events"]) == ("2025-01", str(january.events))
    assert facts["leaves_sha256"] == january.leaves.hex()
    read = [row for rows in month_files.read(path) for row in rows]
    assert [(each[0], each[1], each[2]) for each in read] == sorted(
        (each[0], each[1], each[2]) for each in read
    )
    archived.restore(JANUARY)
    in_other_words = {
        OWNER: "owner",
        "received_at": "coalesce(received_at, occurred_at)",
        "timed": "coalesce(timed, false)",
        "leaf": "uuid_send(leaf)",
    }
    said = {name: in_other_words.get(name, name) for name in COLUMNS}
    stored = archived.select(
        f"""SELECT {", ".join(f"{said[name]}::text" if kind.value == "text" else said[name] for name, kind in COLUMNS.items())}
              FROM events JOIN (SELECT id AS customer, organization_id AS owner FROM customers) c ON customer = customer_id
             WHERE occurred_at < '2025-02-01' ORDER BY customer_id, occurred_at, id"""
    )
    assert read == stored


def test_what_prepaid_and_limited_usage_left_behind_is_no_offence_and_verifies_with_its_files(
    business: Business,
) -> None:
    """Overdrawn in January, with a void and late usage; a hard limit that was reached: all of it raw no more."""
    shop = open_one(business.database_url, business.shop.base_url, clock="2025-01-15T10:00:00Z")
    add_feature(shop, "calls")
    plan = add_plan(shop, "paid", price=1000, model="balance")
    promise(shop, plan, "calls", overage={"unitPrice": 100})
    subscribe(shop, "ada", "paid")
    add_plan(shop, "limited", promises={"calls": hard_limit(50)})
    subscribe(shop, "bob", "limited")
    for number in range(12):
        done(track(shop, "ada", f"k{number}", feature="calls", value=100))
    story.take_back(shop, "ada", "k3")
    done(track(shop, "bob", "all", feature="calls", value=50))
    set_clock(shop, "2025-02-20T00:00:00Z")
    done(track(shop, "ada", "late", feature="calls", value=7, timestamp="2025-01-20T00:00:00Z"))
    set_clock(shop, "2025-05-20T00:00:00Z")
    asked = {line["lineType"] for each in invoices_of(shop, "ada") for line in each["lineItems"]}
    assert "balance_overage" in asked
    audit(business.database_url, shop)
    try:
        assert len(business.archive()) == 2
        assert business.json("reconcile")["offenders"] == 0
        words = ("verify", "--all", "--organization", shop.id)
        blind = business.json(*words, code=3)
        assert (blind["differences"], blind["invoices"]["notVerified"] > 0) == ([], True)
        assert business.json(*words, "--archive", str(business.folder))["status"] == "verified"
        with psycopg.connect(business.database_url, autocommit=True) as conn:
            conn.execute("UPDATE ledger_entries SET amount = amount + 5 WHERE cause = 'overdraft'")
            assert business.json(*words, code=1)["status"] == "different"
            conn.execute("UPDATE ledger_entries SET amount = amount - 5 WHERE cause = 'overdraft'")
    finally:
        business.restore(*(each.file_name for each in business.gone()))
    audit(business.database_url, shop)
    shop.http.close()


def test_a_repeat_of_an_archived_event_is_refused_as_a_repeat(archived: Business) -> None:
    sent = story.event("ada", "api_calls", at(story.OPENED), 3)
    error = refused(archived.shop.http.post(f"{API}/usage/events", json=sent), 409, "duplicate")
    assert error["details"]["identical"] is True
    assert error["details"]["id"] == archived.sent["api_calls_3"]
    assert at(error["details"]["ts"]) == at(sent["timestamp"]).replace(
        microsecond=at(sent["timestamp"]).microsecond // 1000 * 1000
    )
    again = track(archived.shop, "ada", header="h", value=3, timestamp="2025-01-20T00:00:00.001Z")
    assert refused(again, 409, "duplicate")["details"]["identical"] is None
    both = done(archived.shop.http.post(f"{API}/usage/events/batch", json={"events": [sent, sent]}))
    assert [each["code"] for each in both["failed"]] == ["duplicate", "duplicate"]


def test_what_is_archived_can_be_neither_taken_back_nor_corrected_and_says_where_it_is(
    archived: Business,
) -> None:
    path = f"{API}/usage/events/{archived.sent['api_calls_3']}"
    for answer in (archived.shop.http.delete(path), archived.shop.http.get(path)):
        error = refused(answer, 404, "not_found")
        assert {"month": "2025-01", "file": JANUARY} in error["details"]["archived"]
        assert JANUARY in error["message"]
    correction = {
        "customerId": "ada",
        "featureCode": "api_calls",
        "start": "2025-02-28T00:00:00Z",
        "end": "2025-03-02T00:00:00Z",
        "events": [],
    }
    error = refused(
        archived.shop.http.post(f"{API}/usage/corrections", json=correction), 400, "validation_error"
    )
    assert FEBRUARY in error["message"] and JANUARY not in error["message"]
    unknown = f"{API}/usage/events/{ids.show(ids.EVENT, UUID(int=0))}"
    assert refused(archived.shop.http.get(unknown), 404, "not_found").get("details") is None


def test_an_invoice_of_archived_events_is_neither_verified_nor_different(archived: Business) -> None:
    reports = [
        done(archived.shop.http.post(f"{API}/invoices/{each['id']}/verify"))
        for each in invoices_of(archived.shop, "ada")
    ]
    needing = [each for each in reports if each["needs"]]
    assert [needed["file"] for needed in needing[0]["needs"]] == [JANUARY, FEBRUARY]
    for each in needing:
        assert (each["status"], each["differences"], each["firstDifference"]) == ("not_verified", [], None)
    assert {line["status"] for each in needing for line in each["lines"]} == {"verified", "not_verified"}
    assert reports[-1]["status"] == "verified", "May needs neither"
    (line, *_) = (each["lineId"] for each in needing[0]["lines"] if each["needs"])
    path = f"{API}/invoices/{needing[0]['id']}/lines/{line}"
    explained = done(archived.shop.http.get(f"{path}/explain"))
    assert explained["eventsKept"] > 0 and JANUARY in explained["sentences"][-1]
    assert done(archived.shop.http.get(f"{path}/events"))["data"] == []


def test_what_was_taken_away_is_told_from_what_was_archived(archived: Business) -> None:
    """Without the file by number, with it by name; and a file that was changed is not taken for the one that was written."""
    with psycopg.connect(archived.database_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE aside AS SELECT * FROM events WHERE event_key = 'march'")
        conn.execute("DELETE FROM events WHERE event_key = 'march'")
        try:
            blind = archived.json("verify", "--all", code=1)
            told = [words for each in blind["chains"] for words in each["differences"]]
            assert any("events are not there, and" in each for each in told), told
            seeing = archived.json("verify", "--all", "--archive", str(archived.folder), code=1)
            told = [words for each in seeing["chains"] for words in each["differences"]]
            assert any(archived.sent["march"] in each and "is gone" in each for each in told), told
        finally:
            conn.execute("INSERT INTO events SELECT * FROM aside")
            conn.execute("DROP TABLE aside")
    path = archived.folder / JANUARY
    whole = path.read_bytes()
    path.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    try:
        assert "sha256" in archived.tallystick("verify", "--all", "--archive", str(archived.folder), code=1)
        with pytest.raises((NotArchived, month_files.FileError)):
            archived.restore(JANUARY)
        assert archived.gone()[0].file_name == JANUARY
    finally:
        path.write_bytes(whole)


def test_late_usage_of_an_archived_month_is_counted_and_waits_for_its_file(archived: Business) -> None:
    """It is stored and marked; nobody bills it from what is left of its period, and who looks is told what to restore."""
    shop = archived.shop
    before = len(invoices_of(shop, "bob"))
    done(track(shop, "bob", "very late", feature="tokens", value=9, timestamp="2025-02-01T00:00:00Z"))
    assert archived.select(f"SELECT {PARTITION} FROM events WHERE event_key = 'very late'") == [
        ("events_any",)
    ]
    settle(archived)
    ((_, why),) = health.stuck_late_usage(archived.database_url)
    assert JANUARY in why and FEBRUARY in why and "retention restore" in why
    set_clock(shop, "2025-06-20T00:00:00Z")  # a close must not stumble over it, nor bill it
    made = invoices_of(shop, "bob")[before:]
    assert [each["invoiceType"] for each in made] == ["recurring"]
    assert archived.json("verify", "--all", "--archive", str(archived.folder))["status"] == "verified"

    archived.restore(JANUARY, FEBRUARY)
    settle(archived)
    assert health.stuck_late_usage(archived.database_url) == []
    ((decisions,),) = archived.select(
        "SELECT l.decisions FROM late_events l JOIN events e ON e.id = l.event_id WHERE e.event_key = 'very late'"
    )
    assert {each["featureCode"]: each["outcome"] for each in decisions}["tokens"] in ("billed", "no_charge")


def settle(business: Business) -> None:
    """As the sweep does, once what failed is forgotten."""
    with psycopg.connect(business.database_url, autocommit=True) as conn:
        conn.execute("UPDATE late_events SET failure = NULL")
    beside_the_server(
        business.database_url,
        lambda database: settle_due(database, wall=wall(), organization_id=organization_id(business.shop)),
    )


def test_who_needs_a_month_keeps_it(business: Business) -> None:
    """An undecided late event holds every month of its period."""
    with psycopg.connect(business.database_url, autocommit=True) as conn:
        (customer,) = conn.execute("SELECT customer_id FROM events LIMIT 1").fetchone() or (None,)
        conn.execute(
            "INSERT INTO late_events VALUES (%s, %s, %s, '2025-02-10', now(), 'infinity')",
            (customer, UUID(int=7), organization_id(business.shop)),
        )
        try:
            assert business.archive() == []
            needed = {each["month"]: each["neededBy"] for each in business.json("retention")["months"]}
            assert needed["2025-01"]["lateEvents"] == needed["2025-02"]["lateEvents"] == 1
        finally:
            conn.execute("DELETE FROM late_events WHERE event_id = %s", (UUID(int=7),))
    now = {str(each.month): each for each in business.do(archive_events.overview)[0]}
    assert not any(each.needed.anybody for each in now.values())
    assert business.do(lambda conn: archives.needed(conn, Month.of(at("2025-06-10")))).open_periods >= 2


def test_killed_at_any_statement_a_month_is_stored_or_archived_and_never_both_or_neither(
    business: Business,
) -> None:
    before = business.counted()
    last = 0
    while len(business.gone()) < 2:
        last += 1
        with suppress(psycopg.OperationalError):
            business.archive(cursors=mortal(business.database_url, last))
        whole(business, before)
    assert last > 20
    last = 0
    while business.gone():
        last += 1
        for each in business.gone():
            with suppress(psycopg.OperationalError):
                business.restore(each.file_name, cursors=mortal(business.database_url, last))
            whole(business, before)
    audit(business.database_url, business.shop)


def whole(business: Business, before: int) -> None:
    gone = business.gone()
    stored = business.do(months.with_partition)
    assert not {each.month for each in gone} & stored
    assert business.counted() + sum(each.events for each in gone) == before
    for each in gone:
        assert month_files.sha256_of(business.folder / each.file_name) == each.sha256


def mortal(database_url: str, last: int) -> type[AsyncCursor[Any]]:
    """After its `last`-th statement the backend is terminated."""
    statements = 0

    class Mortal(AsyncCursor[Any]):
        async def execute(self, *args: Any, **named: Any) -> Any:
            nonlocal statements
            found = await super().execute(*args, **named)
            statements += 1
            if statements == last:
                async with await AsyncConnection.connect(database_url, autocommit=True) as other:
                    await other.execute(
                        "SELECT pg_terminate_backend(%s::int, 5000::bigint)",
                        (self.connection.info.backend_pid,),
                    )
            return found

    class OnCluster(Mortal, citus.Cursor): ...

    return OnCluster if is_citus(database_url) else Mortal


def test_a_month_that_something_comes_for_while_it_is_written_is_written_again(business: Business) -> None:
    """The event is in the file in the end, or the month stays: it never gets lost."""

    class Late(Silent):
        sent = 0

        def begin(self, what: str, events: int) -> None:
            if what == "2025-02: reading back" and self.sent < 1:
                self.sent += 1
                answer = threading.Thread(target=self.send)
                answer.start()
                answer.join()

        def send(self) -> None:
            done(track(business.shop, "ada", "meanwhile", timestamp="2025-02-02T00:00:00Z"))

    before = business.counted()
    late = Late()
    gone = business.do(
        lambda conn: archive_events.archive(
            conn, older_than=older(), to=business.folder, now=wall(), progress=late
        )
    )
    assert late.sent == 1
    assert business.counted() + sum(each.events for each in gone) == before + 1
    assert [each.file_name for each in gone] == [JANUARY], "its mark is undecided: February is needed again"
    assert not (business.folder / FEBRUARY).exists()
    business.restore(*(each.file_name for each in business.gone()))
    settle(business)
    audit(business.database_url, business.shop)


# Partitions -----------------------------------------------------------------------------------------------


def test_months_around_now_are_there_before_anything_happens_in_them(business: Business) -> None:
    present = Month.of(wall())
    assert {present.plus(each) for each in (-1, 0, 1, 2)} <= business.do(months.with_partition)
    later = at("2031-05-10T00:00:00Z")
    made = business.do(lambda conn: make_ahead(conn, now=later))
    assert [str(each) for each in made] == ["2031-04", "2031-05", "2031-06", "2031-07"]
    assert business.do(lambda conn: make_ahead(conn, now=later)) == []


def test_events_go_on_being_stored_while_months_get_partitions_under_them(business: Business) -> None:
    """A connection that planned its statements before stores, reads and refuses repeats by the same plans after."""
    shop, stop, sent = business.shop, threading.Event(), []

    def send() -> None:
        number = 0
        while not stop.is_set() or number < 20:
            done(
                track(
                    shop,
                    "ada",
                    f"moving_{number}",
                    timestamp=f"2024-0{number % 9 + 1}-05T00:00:00Z",
                )
            )
            sent.append(f"moving_{number}")
            number += 1

    sender = threading.Thread(target=send)
    sender.start()
    while len(sent) < 12 and sender.is_alive():
        stop.wait(0.01)
    made = business.do(sort_default)
    stop.set()
    sender.join()
    assert {str(each) for each in made} >= {f"2024-0{month}" for month in range(1, 10)}
    found = business.select(
        "SELECT event_key, count(*) FROM events WHERE event_key LIKE 'moving%%' GROUP BY 1"
    )
    assert dict(found) == dict.fromkeys(sent, 1)
    assert business.select(
        "SELECT to_regclass('events_unsorted')::text, to_regclass('events_sorted')::text"
    ) == [(None, None)]
    homes = business.select(
        f"SELECT DISTINCT {PARTITION} FROM events WHERE event_key LIKE 'moving%%' ORDER BY 1"
    )
    assert [each[0] for each in homes] == [f"events_2024_0{month}" for month in range(1, 10)]
    refused(track(shop, "ada", sent[-1]), 409, "duplicate")
    settle(business)
    audit(business.database_url, shop)


@pytest.mark.parametrize("options", [CONNECTION, INGEST_CONNECTION], ids=["custom", "generic"])
def test_a_customer_and_a_span_are_looked_for_in_their_month_alone(
    business: Business, options: dict[str, Any]
) -> None:
    business.do(sort_default)

    async def plan(conn: Conn) -> str:
        await conn.execute(
            """PREPARE span (uuid, timestamptz, timestamptz) AS SELECT * FROM events e
                WHERE e.customer_id = $1 AND e.occurred_at >= $2 AND e.occurred_at < $3"""
        )
        found = await conn.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE span ('{UUID(int=1)}', '2025-01-03+00', '2025-01-07+00')"
        )
        return json.dumps(await found.fetchall(), default=str)

    told = business.do(plan, **options)
    assert "events_2025_01" in told and "events_2025_02" not in told and "events_any" not in told


def test_without_pyarrow_it_says_what_to_install_before_anything_is_done(
    business: Business, tmp_path: Path
) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError")
    source = Path(archive_events.__file__).parents[2]
    ran = subprocess.run(
        [str(PROGRAM), "retention", "archive", "--older-than", "1m", "--to", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ
        | {"PYTHONPATH": f"{tmp_path}:{source}", "TALLYSTICK_DATABASE_URL": business.database_url},
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "tallystick[parquet]" in ran.stderr


def test_a_copy_leaves_everything_where_it_is(business: Business) -> None:
    set_clock(business.shop, "2025-08-20T00:00:00Z")  # nothing is undecided any more
    before = business.counted()
    copied = business.archive(keep=True)
    assert [each.file_name for each in copied][-2:] == [JANUARY, FEBRUARY]
    assert (business.counted(), business.gone()) == (before, [])
    with pytest.raises(NotArchived, match="is not archived"):
        business.restore(JANUARY)


def test_who_stores_events_is_not_kept_waiting_by_a_month_that_is_to_be_made(business: Business) -> None:
    """While somebody is in the default partition, making a month gives up soon, and the next sweep makes it."""
    later = at("2033-05-10T00:00:00Z")
    with psycopg.connect(business.database_url) as conn:
        conn.execute("LOCK TABLE events_any IN ROW EXCLUSIVE MODE")  # as an insert holds it
        began = time.monotonic()
        assert business.do(lambda other: make_ahead(other, now=later)) == []
        assert time.monotonic() - began < 5
        assert not {Month.of(later)} & business.do(months.with_partition)
    assert len(business.do(lambda other: make_ahead(other, now=later))) == 4
