"""As many server processes as cores, and a PostgreSQL of our own: each keeps to a core, and what it stores and checks by."""

import os
import signal
import sys
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from tallystick import settings
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


def test_each_process_keeps_to_its_core_and_its_connections_with_it() -> None:
    with a_house(workers=2) as house:
        first, second = house.server.serving()
        assert [_cores_of(first), _cores_of(second)] == [[CORES[0]], [CORES[1]]]
        assert _cores_of_connections(house) == sorted([[CORES[0]], [CORES[1]]] * 2)
        os.kill(first, signal.SIGKILL)
        until(lambda: first not in house.server.serving() and len(house.server.serving()) == 2, "replaced")
        until(
            lambda: [_cores_of(each) for each in house.server.serving()] == [[CORES[1]], [CORES[0]]], "bound"
        )


def test_the_operator_may_say_no() -> None:
    with a_house(workers=2, environment={"TALLYSTICK_OWN_CORES": "no"}) as house:
        assert [_cores_of(each) for each in house.server.serving()] == [CORES] * 2
        assert _cores_of_connections(house) == []


def test_one_process_has_the_machine() -> None:
    with a_house(workers=1) as house:
        assert house.server.process is not None
        assert _cores_of(house.server.process.pid) == CORES
        assert _cores_of_connections(house) == []


def test_beside_a_postgresql_of_others_nobody_is_bound(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    data = tmp_path_factory.mktemp("cores") / "data"
    server = Server(f"http://127.0.0.1:{port}", port, data, database_url, workers=2)
    server.start()
    try:
        assert [_cores_of(each) for each in server.serving()] == [CORES] * 2
    finally:
        server.stop()


def test_anything_but_auto_and_no_is_refused() -> None:
    with pytest.raises(settings.BadSetting, match="TALLYSTICK_OWN_CORES must be auto or no, not 'maybe'"):
        settings.load({"TALLYSTICK_OWN_CORES": "maybe"})


def _cores_of_connections(house: House) -> list[list[int]]:
    """Of PostgreSQL's processes that are bound to a core, once each process of the server has stored and was asked."""
    callers = [
        httpx.Client(base_url=house.server.base_url, headers={"x-api-key": house.shop.api_key})
        for _ in range(2)
    ]
    usage = {"customerId": CUSTOMERS[0], "featureCode": "api_calls"}
    for caller in callers:
        assert caller.post(f"{API}/usage/events", json=usage).status_code == 201
        assert caller.post(f"{API}/usage/check", json={**usage, "quantity": 1}).status_code == 200
    for caller in callers:
        caller.close()
    with psycopg.connect(house.database_url) as conn:
        found = conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall()
    cores = [_cores_of(pid) for (pid,) in found]
    return sorted(each for each in cores if len(each) == 1)


def _cores_of(process: int) -> list[int]:
    return sorted(os.sched_getaffinity(process))
