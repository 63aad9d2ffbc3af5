"""Closes and settlements cut short after each statement, or two at once: what is billed is what one quiet run bills.

A crash is real: another connection terminates the backend, or the process "dies" just after the commit. While these
tests run, they hold the sweeper's lock, as a process that sweeps would: nobody else settles what they look at.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncCursor

from tallystick.app import wall
from tallystick.core import ids
from tallystick.flows.close_period import close_period
from tallystick.flows.settle_late import settle_due, settle_late
from tallystick.store import health, late
from tallystick.store.db import Conn, Database, rows
from tests.audit import ask, audit, let_time_pass, organization_id, select
from tests.conftest import PROGRAM, MakeOrganization, Organization, beside_the_server
from tests.literals import at
from tests.scenarios.proving import late_events, usage_of, verified, verify
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    every,
    invoices_of,
    own_id,
    pay,
    promise,
    set_clock,
    track_batch,
)

OPENED, FIRST, LATER, SECOND, THIRD = (
    f"2025-{day}T00:00:00Z" for day in ("01-15", "02-15", "02-20", "03-15", "04-15")
)
POLICIES = ("next_period", "current_period", "ignore")
SWEEP_LOCK = 0x7461_6C6C_7973_7765
CROWD = 24


@pytest.fixture(scope="module", autouse=True)
def nobody_sweeps(database_url: str) -> Iterator[None]:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("SELECT pg_advisory_lock(%s)", (SWEEP_LOCK,))
        yield


# A connection that is cut ----------------------------------------------------------------------------------


class Mortal(Database):
    """After the `last`-th statement of a writing transaction the backend is terminated; None: never.

    One statement more than there are: it commits, and the caller never learns.
    """

    def __init__(self, conninfo: str, *, last: int | None = None) -> None:
        super().__init__(conninfo, size=4)
        self.last = last
        self.statements = 0

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Conn]:
        async with super().transaction(snapshot=snapshot) as conn:
            if snapshot:
                yield conn
                return
            usual, conn.cursor_factory = conn.cursor_factory, _counting(self, conn.cursor_factory)
            try:
                yield conn
            finally:
                conn.cursor_factory = usual
        if self.last is not None and self.last == self.statements + 1:
            raise psycopg.OperationalError("the process died after its commit")

    async def count(self, conn: Conn) -> None:
        self.statements += 1
        if self.statements == self.last:
            async with await psycopg.AsyncConnection.connect(self.conninfo, autocommit=True) as other:
                await other.execute("SELECT pg_terminate_backend(%s::int, 5000)", (conn.info.backend_pid,))


def _counting(mortal: Mortal, usual: type[AsyncCursor[Any]]) -> type[AsyncCursor[Any]]:
    async def execute(self: AsyncCursor[Any], *args: Any, **named: Any) -> Any:
        found = await usual.execute(self, *args, **named)
        await mortal.count(self.connection)
        return found

    async def executemany(self: AsyncCursor[Any], *args: Any, **named: Any) -> None:
        await usual.executemany(self, *args, **named)
        await mortal.count(self.connection)

    return type("Counting", (usual,), {"execute": execute, "executemany": executemany})


class Gated(Database):
    """Stops between having looked and writing, until the gate is opened."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(conninfo, size=4)
        self.looked = asyncio.Event()
        self.gate = asyncio.Event()

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[Conn]:
        if not snapshot:
            self.looked.set()
            await self.gate.wait()
        async with super().transaction(snapshot=snapshot) as conn:
            yield conn


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Any]:
    await database.open()
    try:
        yield database
    finally:
        await database.close()


# The scene ------------------------------------------------------------------------------------------------


def open_shop(shop: Organization) -> None:
    """One event feeds a meter of each policy."""
    plan = add_plan(shop)
    for policy in POLICIES:
        add_feature(shop, policy, eventCode="request", lateEventPolicy=policy)
        price = {
            "model": "graduated",
            "tiers": [{"upTo": "10", "unitAmount": "1"}, {"upTo": None, "unitAmount": "0.5"}],
        }
        promise(shop, plan, policy, price=price)


def subscribe(shop: Organization, customers: list[str]) -> dict[str, UUID]:
    made = [{"id": each, "email": f"{each}@example.com"} for each in customers]
    assert not done(shop.http.post(f"{API}/customers/batch", json={"customers": made}))["failed"]
    held: dict[str, UUID] = {}
    for customer in customers:
        body = {"customerId": customer, "planCode": "pro"}
        told = done(shop.http.post(f"{API}/subscriptions", json=body))
        pay(told["checkoutUrl"])
        held[customer] = own_id(ids.SUBSCRIPTION, told["id"])
    return held


def use(shop: Organization, customers: list[str], value: int, happened: str) -> None:
    for start in range(0, len(customers), 100):
        sent = [
            {"customerId": each, "featureCode": "request", "value": value, "timestamp": happened}
            for each in customers[start : start + 100]
        ]
        assert track_batch(shop, sent)["failed"] == []


Scene = tuple[Organization, dict[str, UUID]]


def a_second_month(
    shop: Organization, customers: list[str], *, late: list[str] | None = None
) -> dict[str, UUID]:
    """8 were used in January and billed; 5 of January came late, of some at least, and 3 are of February."""
    open_shop(shop)
    held = subscribe(shop, customers)
    use(shop, customers, 8, "2025-01-20T00:00:00Z")
    set_clock(shop, LATER)
    use(shop, customers if late is None else late, 5, "2025-01-21T00:00:00Z")
    use(shop, customers if late is None else late, 1, "2025-01-01T00:00:00Z")  # before they had subscribed
    use(shop, customers, 3, LATER)
    return held


def customer_id(shop: Organization, customer: str) -> UUID:
    return own_id(ids.CUSTOMER, done(shop.http.get(f"{API}/customers/{customer}"))["id"])


def books(database_url: str, identities: list[UUID]) -> list[Json]:
    """All that closes and settlements wrote of each customer; ids are told as places in what is listed."""

    async def act(conn: Conn) -> list[Json]:
        return [await _books(conn, each) for each in identities]

    return ask(database_url, act)


async def _books(conn: Conn, identity: UUID) -> Json:
    invoices = await rows(
        conn,
        """SELECT id, invoice_type, status, subtotal, total, period_index, period_start, period_end, issued_at
             FROM invoices WHERE customer_id = %s ORDER BY number""",
        (identity,),
    )
    lines = await rows(
        conn,
        """SELECT i.id, l.id, l.line_type, l.charge_type, l.description, l.quantity, l.unit_amount, l.amount, l.included,
                  l.used, l.overage, l.usage_period, l.part, l.evidence
             FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
            WHERE i.customer_id = %s ORDER BY i.number, l.position""",
        (identity,),
    )
    closed = await rows(
        conn,
        """SELECT period_index, period_start, period_end, position, closed_at, timezone
             FROM closed_periods WHERE customer_id = %s ORDER BY period_end""",
        (identity,),
    )
    late = await rows(
        conn,
        """SELECT occurred_at, received_at, due_at, decisions FROM late_events
            WHERE customer_id = %s ORDER BY event_id""",
        (identity,),
    )
    held = await rows(
        conn,
        """SELECT status, period_index, period_start, period_end, closes_at, cancel_at, ended_at
             FROM subscriptions WHERE customer_id = %s ORDER BY id""",
        (identity,),
    )
    wallets = await rows(
        conn,
        """SELECT model, period_index, plan, purchased, held, refill, told_low
             FROM wallets WHERE customer_id = %s ORDER BY subscription_id""",
        (identity,),
    )
    ledger = await rows(
        conn,
        """SELECT period_index, source, target, amount, cause, created_at
             FROM ledger_entries WHERE customer_id = %s ORDER BY id""",
        (identity,),
    )
    told = await rows(
        conn,
        """SELECT type, data - 'customerId' - 'subscriptionId' FROM domain_events
            WHERE customer_id = %s ORDER BY id""",
        (identity,),
    )
    places = {ids.show(ids.INVOICE, each[0]): place for place, each in enumerate(invoices)}
    places |= {ids.show(ids.INVOICE_LINE, each[1]): place for place, each in enumerate(lines)}

    def evidence(kept: Any) -> Any:
        if isinstance(kept, dict) and "events" in kept:
            return {**kept, "events": kept["events"]["count"]}
        return kept

    def decision(told: Json) -> Json:
        links = {name: places.get(told.get(name) or "") for name in ("invoiceId", "lineId")}
        return {name: value for name, value in told.items() if name != "subscriptionId"} | links

    return {
        "invoices": [each[1:] for each in invoices],
        "lines": [
            (places[ids.show(ids.INVOICE, each[0])], *each[2:-1], evidence(each[-1])) for each in lines
        ],
        "closed": closed,
        "late": [(*each[:-1], [decision(one) for one in each[-1]]) for each in late],
        "subscriptions": held,
        "wallets": wallets,
        "ledger": ledger,
        "told": told,
    }


def amounts(shop: Organization, customer: str) -> list[tuple[str, list[tuple[str, int]]]]:
    """(type, [(feature, cents)]) of each invoice, every one of which must verify."""
    return [
        (each["invoiceType"], [(line["featureName"], line["amount"]) for line in usage_of(each)])
        for each in verified(shop, customer)
    ]


def numbered_without_gaps(database_url: str, shop: Organization) -> None:
    query = "SELECT number FROM invoices WHERE organization_id = %s ORDER BY number"
    numbers = [each[0] for each in select(database_url, query, organization_id(shop))]
    assert numbers == list(range(1, len(numbers) + 1))


# Cut short -------------------------------------------------------------------------------------------------

Act = Callable[[Database, Organization, UUID, UUID], Awaitable[object]]


async def close(database: Database, shop: Organization, subscription: UUID, _: UUID) -> object:
    return await close_period(
        database, organization_id=organization_id(shop), subscription_id=subscription, now=at(SECOND)
    )


async def settle(database: Database, shop: Organization, _: UUID, customer: UUID) -> object:
    return await settle_late(
        database, organization_id=organization_id(shop), customer_id=customer, now=at(LATER)
    )


@dataclass
class Crowd:
    """Customers with the same past; the first of them met no crash, each other one died after a statement more."""

    names: list[str]
    identities: list[UUID]
    statements: int


def die_after_each(database_url: str, shop: Organization, held: dict[str, UUID], act: Act) -> Crowd:
    """Let it die after its first statement, its second, …, its commit, each time with a customer of their own.

    What was cut short is done again.
    """
    identities = {each: customer_id(shop, each) for each in held}

    async def run() -> int:
        quiet, *others = held
        statements = await attempt(quiet, None)
        assert len(others) > statements, "too few customers to crash with"
        for last, customer in enumerate(others[: statements + 1], start=1):
            with pytest.raises(psycopg.OperationalError):
                await attempt(customer, last)
            await attempt(customer, None)
            await attempt(customer, None)  # and once more, for whoever is not sure
        return statements

    async def attempt(customer: str, last: int | None) -> int:
        async with opened(Mortal(database_url, last=last)) as database:
            await act(database, shop, held[customer], identities[customer])
            found: int = database.statements
            return found

    statements = asyncio.run(run())
    names = list(held)[: statements + 2]
    return Crowd(names, [identities[each] for each in names], statements)


def same_books(database_url: str, shop: Organization, crowd: Crowd) -> None:
    quiet, *others = books(database_url, crowd.identities)
    for place, found in enumerate(others, start=1):
        assert found == quiet, f"after {place} of {crowd.statements} statements"
    numbered_without_gaps(database_url, shop)


@pytest.mark.parametrize("ends", [False, True])
def test_a_close_may_die_after_any_statement(
    make_organization: MakeOrganization, database_url: str, ends: bool
) -> None:
    shop = make_organization(clock=OPENED)
    customers = [f"customer_{place}" for place in range(CROWD)]
    held = a_second_month(shop, customers)
    if ends:
        for each in done(shop.http.get(f"{API}/subscriptions"))["data"]:
            done(shop.http.post(f"{API}/subscriptions/{each['id']}/cancel", json={}))
    crowd = die_after_each(database_url, shop, held, close)
    assert crowd.statements >= 10
    same_books(database_url, shop, crowd)
    set_clock(shop, THIRD)
    same_books(database_url, shop, crowd)
    news = [("next_period", 300), ("current_period", 300), ("ignore", 300), ("next_period", 350)]
    expected: list[Any] = [("recurring", []), ("recurring", [(policy, 800) for policy in POLICIES])]
    expected += [("overage" if ends else "recurring", news), ("adjustment", [("current_period", 350)])]
    for customer in (crowd.names[0], crowd.names[1], crowd.names[-1]):
        assert amounts(shop, customer) == expected + ([] if ends else [("recurring", [])])
    audit(database_url, shop)


def test_a_settlement_may_die_after_any_statement(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization(clock=OPENED)
    held = a_second_month(shop, [f"customer_{place}" for place in range(CROWD)])
    crowd = die_after_each(database_url, shop, held, settle)
    assert crowd.statements >= 6
    same_books(database_url, shop, crowd)
    assert [each["status"] for each in late_events(shop, crowd.names[-1])] == ["pending", "decided"]
    set_clock(shop, THIRD)
    same_books(database_url, shop, crowd)
    for customer in (crowd.names[0], crowd.names[1], crowd.names[-1]):
        assert amounts(shop, customer) == [
            ("recurring", []),
            ("recurring", [(policy, 800) for policy in POLICIES]),
            ("adjustment", [("current_period", 350)]),
            (
                "recurring",
                [("next_period", 300), ("current_period", 300), ("ignore", 300), ("next_period", 350)],
            ),
            ("recurring", []),
        ]
    audit(database_url, shop)


# Two at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "acts", ["close close", "close settle", "settle settle", "settle close settle close"]
)
def test_two_at_once_do_it_once(make_organization: MakeOrganization, database_url: str, acts: str) -> None:
    """However they meet, every customer is billed as by one after the other."""
    shop = make_organization(clock=OPENED)
    held = a_second_month(shop, [f"customer_{place}" for place in range(8)])
    identities = {each: customer_id(shop, each) for each in held}

    async def run() -> None:
        async with opened(Database(database_url, size=12)) as database:
            both = {"close": close, "settle": settle}
            await asyncio.gather(
                *(
                    both[name](database, shop, held[each], identities[each])
                    for each in held
                    for name in acts.split()
                )
            )

    asyncio.run(run())
    set_clock(shop, THIRD)
    numbered_without_gaps(database_url, shop)
    february = [("next_period", 300), ("current_period", 300), ("ignore", 300)]
    for customer in held:
        told = amounts(shop, customer)
        assert [each for each in told if each[0] == "adjustment"] == [
            ("adjustment", [("current_period", 350)])
        ]
        assert [each for each in told if each[0] == "recurring"] == [
            ("recurring", []),
            ("recurring", [(policy, 800) for policy in POLICIES]),
            ("recurring", [*february, ("next_period", 350)]),
            ("recurring", []),
        ]
        assert {each["status"] for each in late_events(shop, customer)} == {"decided"}


def test_two_subscriptions_of_one_customer_do_not_both_bill_what_is_late(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """The canceled one has its last close still to come when the next one renews."""
    shop = make_organization(clock=OPENED)
    customers = [f"customer_{place}" for place in range(6)]
    first = a_second_month(shop, customers)
    for each in customers:
        path = f"{API}/subscriptions/{ids.show(ids.SUBSCRIPTION, first[each])}/cancel"
        done(shop.http.post(path, json={"immediate": True}))
    second: dict[str, UUID] = {}
    for each in customers:
        told = done(shop.http.post(f"{API}/subscriptions", json={"customerId": each, "planCode": "pro"}))
        pay(told["checkoutUrl"])
        second[each] = own_id(ids.SUBSCRIPTION, told["id"])

    async def run() -> None:
        async with opened(Database(database_url, size=12)) as database:
            await asyncio.gather(
                *(
                    close_period(
                        database, organization_id=organization_id(shop), subscription_id=each, now=at(THIRD)
                    )
                    for pair in zip(first.values(), second.values(), strict=True)
                    for each in pair
                )
            )

    asyncio.run(run())
    set_clock(shop, THIRD)
    for customer in customers:
        billed: dict[str, int] = dict.fromkeys(POLICIES, 0)
        for _, lines in amounts(shop, customer):
            for feature, cents in lines:
                billed[feature] += cents
        # 8 and 5 late of January, 3 of February, whose own period began when the second subscription did or before.
        assert billed == {"next_period": 1450, "current_period": 1450, "ignore": 1100}
        assert {each["status"] for each in late_events(shop, customer)} == {"decided"}


# What arrives in between -----------------------------------------------------------------------------------


IN_JANUARY, IN_FEBRUARY = "2025-01-22T00:00:00Z", "2025-03-01T00:00:00Z"


def cents(units: int) -> int:
    return min(units, 10) * 100 + max(0, units - 10) * 50


MOMENTS = [
    (happened, settled, others)
    for happened in (IN_JANUARY, IN_FEBRUARY)
    for settled in ("never", "before the close writes", "after the close wrote")
    for others in (False, True)
]
"""What comes is late of January or is of the closing February; a settlement looks in between; other things are late."""


@pytest.mark.parametrize("ends", [False, True], ids=["renews", "ends"])
@pytest.mark.parametrize("clock", [LATER, SECOND], ids=["judged before", "judged after"])
def test_what_arrives_while_a_close_is_being_written_is_billed_once(
    make_organization: MakeOrganization, database_url: str, clock: str, ends: bool
) -> None:
    """The close of February has looked, and has not written; what comes then was judged before its end or after."""
    shop = make_organization(clock=OPENED)
    stories = {f"customer_{place}": moment for place, moment in enumerate(MOMENTS)}
    held = a_second_month(
        shop, list(stories), late=[name for name, (*_, others) in stories.items() if others]
    )
    if ends:
        for each in held.values():
            path = f"{API}/subscriptions/{ids.show(ids.SUBSCRIPTION, each)}/cancel"
            done(shop.http.post(path, json={}))
    let_time_pass(database_url, shop, clock)

    async def live(customer: str, happened: str, settled: str) -> None:
        subscription, identity = held[customer], await asyncio.to_thread(customer_id, shop, customer)
        async with opened(Gated(database_url)) as closing, opened(Gated(database_url)) as settling:
            closes = asyncio.create_task(close(closing, shop, subscription, identity))
            await closing.looked.wait()
            await asyncio.to_thread(use, shop, [customer], 10, happened)
            if settled == "never":
                closing.gate.set()
                await closes
                return
            settles = asyncio.create_task(settle(settling, shop, subscription, identity))
            looked = asyncio.create_task(settling.looked.wait())
            await asyncio.wait([settles, looked], return_when=asyncio.FIRST_COMPLETED)
            looked.cancel()  # there may have been nothing to see
            if settled == "before the close writes":
                settling.gate.set()
                await settles
            closing.gate.set()
            await closes
            settling.gate.set()
            await settles

    for customer, (happened, settled, _) in stories.items():
        asyncio.run(live(customer, happened, settled))
    set_clock(shop, "2025-05-15T00:00:00Z")
    for customer, (happened, settled, others) in stories.items():
        billed: dict[str, int] = dict.fromkeys(POLICIES, 0)
        for _, lines in amounts(shop, customer):
            for feature, minor in lines:
                billed[feature] += minor
        january, february = 8 + 5 * others, 3
        expected = cents(january + 10 * (happened == IN_JANUARY))
        expected += cents(february + 10 * (happened == IN_FEBRUARY))
        story = (happened, settled, others)
        assert [billed[each] for each in POLICIES[:2]] == [expected, expected], story
        assert billed["ignore"] in (cents(8) + cents(3), cents(8) + cents(13)), story
        assert {each["status"] for each in late_events(shop, customer)} <= {"decided"}, story
    numbered_without_gaps(database_url, shop)
    audit(database_url, shop)


def test_late_events_pour_in_while_they_are_settled(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization(clock=OPENED)
    held = a_second_month(shop, ["ada"])["ada"]
    identity = customer_id(shop, "ada")
    sent = [0, 0]

    async def run() -> None:
        async with opened(Database(database_url, size=8)) as database:
            enough = asyncio.Event()

            async def pour(place: int, happened: str) -> None:
                while not enough.is_set():
                    await asyncio.to_thread(use, shop, ["ada"] * 3, 1, happened)
                    sent[place] += 3

            pouring = [
                asyncio.create_task(pour(0, IN_JANUARY)),
                asyncio.create_task(pour(1, IN_FEBRUARY)),
            ]
            try:
                for _ in range(3):
                    await asyncio.gather(*(settle(database, shop, held, identity) for _ in range(3)))
                await close(database, shop, held, identity)
                for _ in range(3):
                    await asyncio.gather(*(settle(database, shop, held, identity) for _ in range(3)))
            finally:
                enough.set()
            await asyncio.gather(*pouring)

    asyncio.run(run())
    set_clock(shop, "2025-05-15T00:00:00Z")
    january, february = 13 + sent[0], 3 + sent[1]
    expected = cents(january) + cents(february)
    used: dict[str, Decimal] = dict.fromkeys(POLICIES, Decimal(0))
    billed: dict[str, int] = dict.fromkeys(POLICIES, 0)
    for invoice in invoices_of(shop, "ada"):
        verify(shop, invoice)
        for line in usage_of(invoice):
            used[line["featureName"]] += Decimal(line["usedDecimal"])
            billed[line["featureName"]] += line["amount"]
    for policy in POLICIES[:2]:
        assert (used[policy], billed[policy]) == (Decimal(january + february), expected)
    assert {each["status"] for each in every_late_event(shop)} == {"decided"}
    audit(database_url, shop)


def every_late_event(shop: Organization) -> list[Json]:
    return list(every(shop, f"{API}/usage/late-events"))


def test_one_who_cannot_be_settled_does_not_stop_the_others(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """Somebody took a late event away, behind our back, before it was settled."""
    shop = make_organization(clock=OPENED)
    a_second_month(shop, ["ada", "bob", "eve"])
    with psycopg.connect(database_url, autocommit=True) as conn:
        gone = own_id(ids.EVENT, late_events(shop, "bob")[0]["id"])
        conn.execute(
            "DELETE FROM events WHERE customer_id = %s AND id = %s", (customer_id(shop, "bob"), gone)
        )
    set_clock(shop, "2025-02-21T00:00:00Z")
    kinds = {each: [one["invoiceType"] for one in invoices_of(shop, each)] for each in ("ada", "bob", "eve")}
    assert kinds == {
        "ada": ["recurring", "recurring", "adjustment"],
        "bob": ["recurring", "recurring"],
        "eve": ["recurring", "recurring", "adjustment"],
    }
    assert [each["status"] for each in late_events(shop, "bob")] == ["pending", "pending"]


def test_what_cannot_be_settled_is_shown_and_tried_again_once_an_hour(
    make_organization: MakeOrganization, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = make_organization(clock=OPENED)
    a_second_month(shop, ["ada"])
    ada, gone = customer_id(shop, "ada"), own_id(ids.EVENT, late_events(shop, "ada")[0]["id"])
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(
            "CREATE TEMP TABLE kept AS SELECT * FROM events WHERE customer_id = %s AND id = %s", (ada, gone)
        )
        conn.execute("DELETE FROM events WHERE customer_id = %s AND id = %s", (ada, gone))
        set_clock(shop, "2025-02-21T00:00:00Z")
        for _ in range(3):
            sweep(database_url)
        assert tries_of(ada, caplog) == 0, "the clock's run had tried"
        assert ada in dict(health.stuck_late_usage(database_url))
        words = [str(PROGRAM), "doctor", "--json", "--database-url", database_url]
        said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        (late_usage,) = [each for each in json.loads(said.stdout)["checks"] if each["name"] == "late usage"]
        assert (said.returncode, late_usage["ok"]) == (1, False)
        assert f"customer {ada}: " in late_usage["detail"]

        beside_the_server(database_url, forget_failures)
        assert ada not in dict(health.stuck_late_usage(database_url))
        for _ in range(2):
            sweep(database_url)
        assert tries_of(ada, caplog) == 1
        conn.execute("INSERT INTO events SELECT * FROM kept")
        sweep(database_url)
        assert {each["status"] for each in late_events(shop, "ada")} == {"pending"}
        beside_the_server(database_url, forget_failures)
        sweep(database_url)
    assert [each["invoiceType"] for each in invoices_of(shop, "ada")] == [
        "recurring",
        "recurring",
        "adjustment",
    ]
    assert ada not in dict(health.stuck_late_usage(database_url))


def tries_of(customer: UUID, caplog: pytest.LogCaptureFixture) -> int:
    said = f"the late usage of {customer} could not be settled"
    return sum(each.getMessage() == said for each in caplog.records)


def sweep(database_url: str) -> None:
    async def act(database: Database) -> None:
        await settle_due(database, wall=wall())

    beside_the_server(database_url, act)


async def forget_failures(database: Database) -> None:
    async with database.reading() as conn:
        await late.forget_failures(conn)
