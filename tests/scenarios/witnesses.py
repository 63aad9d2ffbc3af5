"""Clients who pour events into a server that is being maltreated, and remember exactly what they were told."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import Any

import httpx

from tallystick.store.embedded import Embedded, embedded_postgres
from tests.audit import audit, stored_keys
from tests.conftest import Organization, Server, free_port, open_one, private_dir
from tests.shop import API, Json, add_feature, add_plan, hard_limit, overage, subscribe

CUSTOMERS = ("ada", "bob", "carl")
ANSWERS_WITHIN_S = 60
TODAY = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")  # also for what is sent again tomorrow


@dataclass
class House:
    """A server with a data directory of its own, and the PostgreSQL in it."""

    server: Server
    postgres: Embedded
    database_url: str
    shop: Organization


@contextmanager
def a_house(*, workers: int = 1, environment: dict[str, str] | None = None) -> Iterator[House]:
    folder = private_dir("tallystick-faults-")
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}", port, folder / "data", None, workers, environment or {})
    server.start()
    try:
        with embedded_postgres(server.data_dir) as postgres:  # only to look where it is
            database_url = postgres.conninfo
            shop = a_shop(database_url, server.base_url)
        yield House(server, postgres, database_url, shop)
        shop.http.close()
    finally:
        if server.process is not None:
            server.stop()
        rmtree(folder, ignore_errors=True)


def a_shop(database_url: str, base_url: str) -> Organization:
    """Two features, one of them limited, and customers who may use both."""
    shop = open_one(database_url, base_url)
    add_feature(shop, "api_calls")
    add_feature(shop, "exports")
    add_plan(shop, promises={"api_calls": overage("0.01", included=10), "exports": hard_limit(10**9)})
    for customer in CUSTOMERS:
        subscribe(shop, customer)
    return shop


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
        event["timestamp"] = TODAY
    return event


class Client:
    """Sends keyed events, one after the other; some keys are everybody's, some are sent on purpose again."""

    def __init__(self, number: int, seed: int, base_url: str, shop: Organization) -> None:
        self.name = f"c{number}"
        self.dice = random.Random(f"{seed} {number}")
        self.http = httpx.Client(
            base_url=base_url,
            headers={"x-api-key": shop.api_key},
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


@contextmanager
def pouring(base_url: str, shop: Organization, seed: int, count: int = 4) -> Iterator[list[Client]]:
    """Clients at work while the block runs; afterwards each has an answer to everything it sent."""
    clients = [Client(number, seed, base_url, shop) for number in range(count)]
    over = threading.Event()
    with ThreadPoolExecutor(count) as pool:
        working = [pool.submit(client.work, over) for client in clients]
        try:
            yield clients
        finally:
            over.set()
        for each in working:
            each.result()


def stored_once(database_url: str, shop: Organization, clients: Sequence[Client]) -> set[str]:
    """Nothing acknowledged is lost, nothing is there twice, and the books balance; returns the keys."""
    acknowledged = set[str]().union(*(client.acknowledged for client in clients))
    assert acknowledged
    assert stored_keys(database_url, shop) == dict.fromkeys(acknowledged, 1)
    assert audit(database_url, shop) == len(acknowledged)
    told = [event["eventId"] for client in clients for call in client.calls for event in call.told]
    assert len(told) == len(set(told))  # of those who sent a key, one was told that it was theirs
    assert set(told) == acknowledged
    return acknowledged


def kill_postgres(postgres: Embedded) -> None:
    pid = postgres.pid()
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for_another_postgres(postgres: Embedded, before: int | None) -> None:
    until(lambda: postgres.pid() not in (None, before), "somebody starts PostgreSQL again")


def connections(pid: int, port: int) -> int:
    """How many of those to that port a process has, as Linux tells."""
    rows = [each.split() for each in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    there = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"}
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we looked
            found += str(each.readlink()) in there
    return found


def until(true: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + ANSWERS_WITHIN_S
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.05)
