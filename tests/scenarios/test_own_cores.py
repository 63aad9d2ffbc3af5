"""As many server processes as cores, and a PostgreSQL of our own: each keeps to a core, its ingest's connection with it."""

import os
import signal
import sys
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from tests.conftest import Server, free_port
from tests.scenarios.witnesses import CUSTOMERS, House, a_house, until
from tests.shop import API

CORES = sorted(os.sched_getaffinity(0))[:2] if sys.platform == "linux" else []

pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="two cores are needed, and a system that tells them")


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    """For us and whomever we start."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, before)


def test_each_process_keeps_to_its_core_and_its_connection_with_it() -> None:
    with a_house(workers=2) as house:
        first, second = house.server.serving()
        assert _cores_of([first, second]) == [[CORES[0]], [CORES[1]]]
        assert sorted(_cores_of(_storing(house, 2))) == [[CORES[0]], [CORES[1]]]
        os.kill(first, signal.SIGKILL)
        until(lambda: len(house.server.serving()) == 2 and first not in house.server.serving(), "replaced")
        until(lambda: _cores_of(house.server.serving()) == [[CORES[1]], [CORES[0]]], "it has that core")


def test_the_operator_may_say_no() -> None:
    with a_house(workers=2, environment={"TALLYSTICK_OWN_CORES": "no"}) as house:
        assert _cores_of([*house.server.serving(), *_storing(house, 2)]) == [CORES] * 4


def test_one_process_has_the_machine() -> None:
    with a_house(workers=1) as house:
        assert house.server.process is not None
        assert _cores_of([house.server.process.pid, *_storing(house, 1)]) == [CORES] * 2


def test_beside_a_postgresql_of_others_nobody_is_bound(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    data = tmp_path_factory.mktemp("cores") / "data"
    server = Server(f"http://127.0.0.1:{port}", port, data, database_url, workers=2)
    server.start()
    try:
        assert _cores_of(server.serving()) == [CORES] * 2
    finally:
        server.stop()


def _storing(house: House, connections: int) -> list[int]:
    """PostgreSQL's processes that store what comes in over so many connections of ours, one for each process of the server."""
    callers = [
        httpx.Client(base_url=house.server.base_url, headers={"x-api-key": house.shop.api_key})
        for _ in range(connections)
    ]
    for number, caller in enumerate(callers):
        event = {"featureCode": "api_calls", "customerId": CUSTOMERS[0], "eventId": f"core-{number}"}
        assert caller.post(f"{API}/usage/events", json=event).status_code == 201
    for caller in callers:
        caller.close()
    with psycopg.connect(house.database_url) as conn:
        found = conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%WITH numbered AS%' AND pid <> pg_backend_pid()"
        ).fetchall()
    assert len(found) == connections
    return [pid for (pid,) in found]


def _cores_of(processes: list[int]) -> list[list[int]]:
    return [sorted(os.sched_getaffinity(pid)) for pid in processes]
