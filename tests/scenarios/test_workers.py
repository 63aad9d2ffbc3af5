"""Several server processes on one address: work is shared, the dead are replaced, nobody outlives the parent."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import Organization, Server, free_port, open_one, private_dir
from tests.scenarios.witnesses import connections, until
from tests.shop import API, add_customer, add_feature, add_plan, done


@pytest.fixture
def pair(database_url: str) -> Iterator[Server]:
    folder = private_dir("tallystick-workers-")
    port = free_port()
    running = Server(f"http://127.0.0.1:{port}", port, folder / "data", database_url, workers=2)
    running.start()
    yield running
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_connections_are_dealt_evenly(pair: Server) -> None:
    """Four callers use the whole machine, whoever came and went before them."""
    until(lambda: len(pair.serving()) == 2, "two processes serve")
    first, second = pair.serving()

    def has(pid: int) -> int:
        return connections(pid, pair.port)

    def opened(count: int) -> dict[int, list[httpx.Client]]:
        """Clients with a connection each, by the process that has it."""
        held: dict[int, list[httpx.Client]] = {first: [], second: []}
        for _ in range(count):
            there = has(first)
            client = httpx.Client(base_url=pair.base_url)
            assert client.get("/health/live").status_code == 200
            held[first if has(first) > there else second].append(client)
        return held

    def close(clients: list[httpx.Client], pid: int, left: int) -> None:
        for client in clients:
            client.close()
        until(lambda: has(pid) == left, "their connections are over")
        time.sleep(0.1)  # until that is known to whoever deals

    until(lambda: has(first) + has(second) == 0, "whoever waited for it to serve is gone")
    some = opened(16)
    assert [len(each) for each in some.values()] == [8, 8]
    close(some[second][:6], second, 2)
    more = opened(6)
    assert [len(each) for each in more.values()] == [0, 6]
    close(some[first], first, 0)
    last = opened(8)
    assert [len(each) for each in last.values()] == [8, 0]
    for held in (some, more, last):
        for client in (*held[first], *held[second]):
            client.close()


def test_a_killed_process_is_replaced_and_nothing_is_lost(
    pair: Server, database_url: str, request: pytest.FixtureRequest
) -> None:
    shop = open_one(database_url, pair.base_url)
    request.addfinalizer(shop.http.close)
    add_feature(shop)
    add_plan(shop, price=None, promises={"api_calls": {"unlimited": True}})
    add_customer(shop, "ada")
    done(shop.http.post(f"{API}/subscriptions", json={"customerId": "ada", "planCode": "pro"}))
    victim = pair.serving()[0]

    def send(number: int) -> None:
        until(lambda: _taken(shop, f"e-{number}"), "every event gets through in the end")
        if number == 100:
            os.kill(victim, signal.SIGKILL)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(400)))
    until(lambda: len(pair.serving()) == 2 and victim not in pair.serving(), "the dead one is replaced")
    usage = done(shop.http.get(f"{API}/feature-access/api_calls?customerId=ada"))
    assert usage["consumption"]["unitsUsed"] == 400


def _taken(shop: Organization, event_id: str) -> bool:
    """Whether it is stored, now or by an earlier try; only a dead process's silence is a reason to try again."""
    event = {"customerId": "ada", "featureCode": "api_calls", "eventId": event_id}
    try:
        answer = httpx.post(
            f"{shop.base_url}{API}/usage/events", json=event, headers={"x-api-key": shop.api_key}, timeout=30
        )
    except httpx.TransportError:
        return False
    assert answer.status_code in (201, 409), answer.text
    return True


def test_no_process_outlives_a_killed_parent(pair: Server) -> None:
    until(lambda: len(pair.serving()) == 2, "two processes serve")
    serving = pair.serving()
    pair.stop(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in serving), "they end with it")
    pair.start()  # on the same port
    assert httpx.get(f"{pair.base_url}/health/ready").status_code == 200
