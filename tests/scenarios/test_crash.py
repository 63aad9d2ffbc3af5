"""Whatever is killed, whenever: what was acknowledged is there, once, and the books balance."""

import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from shutil import rmtree
from typing import Any

import httpx
import pytest

from tallystick.store.embedded import Embedded, embedded_postgres
from tests.audit import audit, stored_keys
from tests.conftest import Organization, Server, free_port, open_one, private_dir
from tests.shop import API, Json, add_feature, add_plan, done, hard_limit, overage, subscribe

CUSTOMERS = ("ada", "bob", "carl")
CLIENTS = 4
KILLS = ["server", "postgres"] * 5 + ["both"] * 2
ANSWERS_WITHIN_S = 30


@dataclass
class House:
    """A server with a data directory of its own, and the PostgreSQL in it."""

    server: Server
    postgres: Embedded
    database_url: str
    shop: Organization


@pytest.fixture
def house() -> Iterator[House]:
    folder = private_dir("tallystick-crash-")
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}", port, folder / "data", None)
    server.start()
    try:
        with embedded_postgres(server.data_dir) as postgres:  # only to look where it is
            database_url = postgres.conninfo
            shop = open_one(database_url, server.base_url)
        add_feature(shop, "api_calls")
        add_feature(shop, "exports")
        add_plan(shop, promises={"api_calls": overage("0.01", included=10), "exports": hard_limit(10**9)})
        for customer in CUSTOMERS:
            subscribe(shop, customer)
        yield House(server, postgres, database_url, shop)
        shop.http.close()
    finally:
        if server.process is not None:
            server.stop()
        rmtree(folder, ignore_errors=True)


@dataclass
class Call:
    """One request as its sender keeps it: to be sent again, with the same keys, until it is answered."""

    events: list[Json]
    header: str
    single: bool
    told: list[Json] = field(default_factory=list)  # what was answered as successful

    def send(self, http: httpx.Client, header: str | None = None) -> httpx.Response:
        path, body = ("events", self.events[0]) if self.single else ("events/batch", {"events": self.events})
        return http.post(f"{API}/usage/{path}", json=body, headers={"Idempotency-Key": header or self.header})


def an_event(key: str) -> Json:
    """What happened follows from its key, so whoever sends it sends the same."""
    dice = random.Random(key)
    event: Json = {
        "featureCode": dice.choice(("api_calls", "api_calls", "exports")),
        "customerId": dice.choice(CUSTOMERS),
        "eventId": key,
        "value": dice.randrange(1, 1000) / 8,
    }
    if dice.random() < 0.5:
        event["properties"] = {"region": dice.choice(("eu", "us")), "note": "naïve 🦉"}
    if dice.random() < 0.3:
        event["timestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")
    return event


class Client:
    """Sends keyed events, one after the other; some keys are everybody's, some are sent on purpose again."""

    def __init__(self, number: int, seed: int, house: House) -> None:
        self.name = f"c{number}"
        self.dice = random.Random(f"{seed} {number}")
        self.http = httpx.Client(
            base_url=house.server.base_url,
            headers={"x-api-key": house.shop.api_key},
            timeout=ANSWERS_WITHIN_S,
        )
        self.acknowledged: set[str] = set()
        self.calls: list[Call] = []
        self.troubles = 0
        self.made = 0

    def work(self, over: threading.Event) -> None:
        with self.http:
            while not over.is_set():
                call = self._next_call()
                self._send_until_answered(call)
                self.calls.append(call)
                time.sleep(self.dice.random() * 0.03)

    def _next_call(self) -> Call:
        single = self.dice.random() < 0.7
        keys = [self._next_key() for _ in range(1 if single else self.dice.randrange(2, 30))]
        return Call([an_event(key) for key in keys], f"{self.name}-call-{len(self.calls)}", single)

    def _next_key(self) -> str:
        chance = self.dice.random()
        self.made += 1
        if chance < 0.2:
            return f"shared-{self.made // 3}"
        if chance < 0.3 and self.acknowledged:
            return f"{self.name}-{self.dice.randrange(self.made)}"
        return f"{self.name}-{self.made}"

    def _send_until_answered(self, call: Call) -> None:
        limit = time.monotonic() + ANSWERS_WITHIN_S
        while True:
            assert time.monotonic() < limit, f"no answer to {call.header}"
            with suppress(httpx.TransportError):
                answer = call.send(self.http)
                if answer.status_code != 503:
                    break
            self.troubles += 1
            time.sleep(0.02)
        body: Any = answer.json()
        if call.single:
            assert answer.status_code in (201, 409), answer.text
            successful, failed = ([body], []) if answer.status_code == 201 else ([], [body])
        else:
            assert answer.status_code == 200, answer.text
            successful, failed = body["successful"], body["failed"]
        assert all(each["code"] in ("duplicate", "unavailable") for each in failed), failed
        for each in failed:
            assert each["code"] != "duplicate" or each["details"]["identical"] is True, each
        if any(each["code"] == "unavailable" for each in failed):
            self._send_until_answered(call)
            return
        call.told = successful
        self.acknowledged |= {event["eventId"] for event in call.events}


def kill_postgres(postgres: Embedded) -> None:
    pid = postgres.pid()
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for_another_postgres(postgres: Embedded, before: int | None) -> None:
    limit = time.monotonic() + ANSWERS_WITHIN_S
    while postgres.pid() in (None, before):
        assert time.monotonic() < limit, "nobody started PostgreSQL again"
        time.sleep(0.02)


def strike(house: House, what: str) -> None:
    """Kill, and see it serve again; only the server itself needs somebody to start it."""
    server, before = house.server, house.postgres.pid()
    assert server.process is not None
    if what in ("postgres", "both"):
        kill_postgres(house.postgres)
    if what in ("server", "both"):
        server.stop(signal.SIGKILL)
        server.start()
    if what in ("postgres", "both"):
        wait_for_another_postgres(house.postgres, before)
    server.wait_until_ready()


def test_what_was_acknowledged_is_there_once_whatever_was_killed(house: House) -> None:
    seed = int(os.environ.get("TALLYSTICK_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"TALLYSTICK_TEST_SEED={seed}")
    dice = random.Random(seed)
    clients = [Client(number, seed, house) for number in range(CLIENTS)]
    over = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        working = deque(pool.submit(client.work, over) for client in clients)
        try:
            for what in KILLS:
                time.sleep(0.1 + dice.random() * 0.5)
                assert not any(each.done() for each in working), [
                    each.exception(0) for each in working if each.done()
                ]
                strike(house, what)
            time.sleep(0.3)
        finally:
            over.set()
        for each in working:
            each.result()

    acknowledged = set().union(*(client.acknowledged for client in clients))
    calls = [call for client in clients for call in client.calls]
    print(f"{len(calls)} calls, {sum(client.troubles for client in clients)} sent again")
    assert sum(client.troubles for client in clients) > 0
    assert stored_keys(house.database_url, house.shop) == dict.fromkeys(acknowledged, 1)
    assert audit(house.database_url, house.shop) == len(acknowledged)
    told = [event["eventId"] for call in calls for event in call.told]
    assert len(told) == len(set(told))  # of those who sent a key, one was told that it was theirs
    assert set(told) == acknowledged

    with httpx.Client(
        base_url=house.server.base_url, headers={"x-api-key": house.shop.api_key}, timeout=30
    ) as http:
        for call in dice.sample(calls, min(300, len(calls))):  # the same again: the same answer
            again = call.send(http)
            if call.single:
                assert again.status_code == (201 if call.told else 409), again.text
                assert not call.told or again.json() == call.told[0]
            else:
                assert done(again)["successful"] == call.told
        keys = sorted(acknowledged)
        for start in range(0, len(keys), 100):  # and without what told the repeat from a duplicate
            call = Call([an_event(key) for key in keys[start : start + 100]], f"late-{start}", single=False)
            answer = done(call.send(http))
            assert answer["successful"] == []
            assert {each["code"] for each in answer["failed"]} == {"duplicate"}
            assert all(each["details"]["identical"] for each in answer["failed"])
    assert audit(house.database_url, house.shop) == len(acknowledged)
