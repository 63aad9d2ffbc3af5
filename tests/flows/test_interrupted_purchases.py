"""A process may die at any moment of a purchase: it is charged once and credited once, whoever goes on with it."""

import multiprocessing
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tallystick.app import wall
from tallystick.core import ids
from tallystick.flows.answer_once import hash_key
from tallystick.flows.purchase import BuyPack, TopUp, Wish, complete, finish_pending, promise
from tallystick.providers.payments import Charged, Declined, SavedCard
from tallystick.providers.sandbox import Sandbox
from tallystick.store import organizations
from tallystick.store.db import Conn, Database
from tallystick.store.purchases import Purchase
from tests.audit import select
from tests.conftest import MakeOrganization, Organization, Server, beside_the_server, serving
from tests.scenarios.prepaid import add_pack, books_balance, buy, ledger, open_prepaid, told, top_up, wallet
from tests.shop import API, Json, add_feature, done, every, invoices_of, own_id, pay, subscribe

KEY = "the key of the request"
FILLED = 100_000
KILLS = 4
ANSWERS_WITHIN_S = 30


class Bank(Sandbox):
    """The sandbox bank with a book of its own, which outlives whoever asked it."""

    def __init__(self, book: Path, dies: str | None = None) -> None:
        self._book = book
        self._dies = dies

    async def charge_saved(
        self, card: SavedCard, *, amount_minor: int, currency: str, key: str, today: date
    ) -> Charged | Declined:
        if self._dies == "before the charge":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await super().charge_saved(
            card, amount_minor=amount_minor, currency=currency, key=key, today=today
        )
        with self._book.open("a") as book:
            book.write(f"{key} {amount_minor} {currency} {today} {answer.reference}\n")
        if self._dies == "after the charge":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def begin(database_url: str, organization_id: UUID, subscription_id: UUID, bank: Bank, dies: str) -> None:
    """What a server does with the request, until it dies."""

    async def act(database: Database) -> None:
        async with database.transaction() as conn:
            promised = await promised_in(conn, organization_id, subscription_id, TopUp(700))
        await complete(database, bank, promised, wall=wall())
        assert dies == "after the settlement"
        os.kill(os.getpid(), signal.SIGKILL)

    beside_the_server(database_url, act)


async def promised_in(conn: Conn, organization_id: UUID, subscription_id: UUID, wish: Wish) -> Purchase:
    organization = await organizations.get(conn, organization_id=organization_id)
    assert organization is not None
    return await promise(
        conn,
        organization=organization,
        subscription_id=subscription_id,
        wish=wish,
        request_key=hash_key(KEY),
        now=organization.simulated_time or wall(),
        wall=wall(),
    )


@pytest.fixture
def shop(make_organization: MakeOrganization) -> Organization:
    made = make_organization(clock="2026-03-31T23:00:00Z")
    add_feature(made)
    open_prepaid(made, balance=FILLED)
    return made


def own(shop: Organization, held: Json) -> tuple[UUID, UUID]:
    return own_id(ids.ORGANIZATION, shop.id), own_id(ids.SUBSCRIPTION, held["id"])


MOMENTS = ("before the charge", "after the charge", "after the settlement")


@pytest.fixture(params=MOMENTS)
def interrupted(
    request: pytest.FixtureRequest, shop: Organization, database_url: str, tmp_path: Path
) -> tuple[Json, Path, str]:
    """A subscription, the bank's book, and when the process died that was asked to top it up."""
    held, book, dies = subscribe(shop, "ada", "balance"), tmp_path / "book", request.param
    book.touch()
    process = multiprocessing.get_context("spawn").Process(
        target=begin,
        args=(database_url, *own(shop, held), Bank(book, dies), dies),
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    settled = dies == "after the settlement"
    assert len(book.read_text().splitlines()) == (dies != "before the charge")
    assert wallet(database_url, held)[0] == FILLED + (70_000 if settled else 0)
    return held, book, dies


def sweep(database_url: str, bank: Bank, *, later: timedelta = timedelta(minutes=2)) -> None:
    async def act(database: Database) -> None:
        await finish_pending(database, bank, wall=wall() + later)

    beside_the_server(database_url, act)


def once(shop: Organization, database_url: str, held: Json, book: Path) -> None:
    """Charged once and credited once, and all that tells of it is there once."""
    asked = set(book.read_text().splitlines())
    assert len(asked) <= 1, "whoever asked the bank asked the very same"
    charged = [
        each for each in done(shop.http.get(f"{API}/transactions"))["data"] if each["grossAmount"] == 700
    ]
    assert [each["status"] for each in charged] == ["succeeded"]
    assert [each["invoiceType"] for each in invoices_of(shop, "ada")] == ["recurring", "balance_topup"]
    assert [each["cause"] for each in ledger(shop, held)] == ["grant", "topup"]
    assert [each["amount"] for each in told(shop, "balance.topped_up")] == [70_000]
    assert wallet(database_url, held)[0] == FILLED + 70_000
    books_balance(database_url, shop)


def test_the_same_request_goes_on_with_it(
    shop: Organization, database_url: str, interrupted: tuple[Json, Path, str]
) -> None:
    held, book, _ = interrupted
    for _ in range(2):
        assert done(top_up(shop, held, 700, KEY))["amount"] == 700
    sweep(database_url, Bank(book))
    once(shop, database_url, held, book)


def test_the_sweep_goes_on_with_it(
    shop: Organization, database_url: str, interrupted: tuple[Json, Path, str]
) -> None:
    """A month later by the organization's clock, on another day by the bank's: still the same charge."""
    held, book, dies = interrupted
    sweep(database_url, Bank(book), later=timedelta(seconds=30))
    assert wallet(database_url, held)[0] == FILLED + (70_000 if dies == MOMENTS[-1] else 0), "not so soon"
    done(shop.http.post(f"{API}/test-clock", json={"frozenTime": "2026-04-01T01:00:00Z"}))
    for _ in range(2):
        sweep(database_url, Bank(book))
    once(shop, database_url, held, book)
    assert done(top_up(shop, held, 700, KEY))["amount"] == 700
    once(shop, database_url, held, book)


def test_all_at_once_go_on_with_it(
    shop: Organization, database_url: str, interrupted: tuple[Json, Path, str]
) -> None:
    held, book, _ = interrupted

    def ask() -> None:
        while (answer := top_up(shop, held, 700, KEY)).status_code == 409:
            assert answer.json()["code"] == "idempotency_in_progress"
        assert done(answer)["amount"] == 700

    acts = [ask] * 4 + [lambda: sweep(database_url, Bank(book))] * 2
    with ThreadPoolExecutor(len(acts)) as pool:
        for each in [pool.submit(act) for act in acts]:
            each.result()
    once(shop, database_url, held, book)


def test_credits_of_a_subscription_that_ended_meanwhile_come_along(
    shop: Organization, database_url: str, tmp_path: Path
) -> None:
    """Who canceled, and began anew, while the charge was on its way has what they paid for."""
    old, pack = subscribe(shop, "ada", "credits"), add_pack(shop)
    bank = Bank(tmp_path / "book")

    async def promised(database: Database) -> Purchase:
        async with database.transaction() as conn:
            return await promised_in(conn, *own(shop, old), BuyPack(own_id(ids.CREDIT_PACK, pack["id"])))

    waiting = beside_the_server(database_url, promised)
    done(shop.http.post(f"{API}/subscriptions/{old['id']}/cancel", json={"immediate": True}))
    body = {"customerId": "ada", "planCode": "credits"}
    new = done(shop.http.post(f"{API}/subscriptions", json=body))
    pay(new["checkoutUrl"])
    beside_the_server(database_url, lambda database: complete(database, bank, waiting, wall=wall()))
    assert (wallet(database_url, old), wallet(database_url, new)) == ((0, 0), (100, 50))
    (news,) = told(shop, "credits.purchased")
    assert news["subscriptionId"] == old["id"]
    assert done(buy(shop, old, pack, KEY))["credits"] == 50
    assert wallet(database_url, new) == (100, 50)
    books_balance(database_url, shop)


def test_what_was_paid_for_stays_where_the_subscription_ended_for_good(
    shop: Organization, database_url: str, tmp_path: Path
) -> None:
    held, bank = subscribe(shop, "ada", "balance"), Bank(tmp_path / "book")

    async def promised(database: Database) -> Purchase:
        async with database.transaction() as conn:
            return await promised_in(conn, *own(shop, held), TopUp(700))

    waiting = beside_the_server(database_url, promised)
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
    beside_the_server(database_url, lambda database: complete(database, bank, waiting, wall=wall()))
    assert wallet(database_url, held)[0] == FILLED + 70_000
    books_balance(database_url, shop)


def test_whatever_is_killed_each_top_up_is_there_once(
    database_url: str, make_organization: MakeOrganization
) -> None:
    """Callers send again until they are answered, while their server is killed again and again."""
    seed = int(os.environ.get("TALLYSTICK_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"TALLYSTICK_TEST_SEED={seed}")
    dice = random.Random(seed)
    shop = make_organization()
    add_feature(shop)
    open_prepaid(shop, balance=FILLED)
    held = {name: subscribe(shop, name, "balance") for name in ("ada", "bob")}
    sent: dict[str, tuple[str, int]] = {}  # by key: for whom, how much
    troubles: list[str] = []
    over = threading.Event()

    def call(server: Server, number: int) -> None:
        own = random.Random(f"{seed} {number}")
        with httpx.Client(base_url=server.base_url, headers={"x-api-key": shop.api_key}) as http:
            caller = Organization(shop.id, shop.api_key, http, server.base_url)
            while not over.is_set():
                key, name, amount = f"{number}-{len(sent)}", own.choice(("ada", "bob")), own.randrange(1, 999)
                sent[key] = (name, amount)
                limit = time.monotonic() + ANSWERS_WITHIN_S
                while True:
                    assert time.monotonic() < limit, f"no answer to {key}"
                    with suppress(httpx.TransportError):
                        answer = top_up(caller, held[name], amount, key)
                        if answer.status_code not in (409, 503):
                            assert done(answer)["amount"] == amount
                            break
                    troubles.append(key)
                    time.sleep(0.02)

    with serving(database_url) as server, ThreadPoolExecutor(4) as pool:
        working = [pool.submit(call, server, number) for number in range(4)]
        try:
            for _ in range(KILLS):
                time.sleep(0.1 + dice.random() * 0.4)
                server.stop(signal.SIGKILL)
                server.start()
            time.sleep(0.2)
        finally:
            over.set()
        for each in working:
            each.result()

    assert troubles, "nobody was interrupted"
    print(f"{len(sent)} top-ups, {len(troubles)} times sent again")
    kept = select(
        database_url,
        "SELECT status, count(*) FROM purchases WHERE organization_id = %s GROUP BY 1",
        own_id(ids.ORGANIZATION, shop.id),
    )
    assert kept == [("paid", len(sent))]
    for name, subscription in held.items():
        asked = sorted(amount for whose, amount in sent.values() if whose == name)
        credited = [each for each in ledger(shop, subscription) if each["cause"] == "topup"]
        assert sorted(each["amount"] for each in credited) == [amount * 100 for amount in asked]
        billed = [each for each in invoices_of(shop, name) if each["invoiceType"] == "balance_topup"]
        assert {each["id"] for each in billed} == {each["invoiceId"] for each in credited}
        assert sorted(each["total"] for each in billed) == asked
        assert wallet(database_url, subscription)[0] == FILLED + 100 * sum(asked)
    charged = [each for each in every(shop, f"{API}/transactions") if each["invoiceId"] is not None]
    assert sum(each["grossAmount"] for each in charged) == 2 * 2900 + sum(
        amount for _, amount in sent.values()
    )
    books_balance(database_url, shop)
