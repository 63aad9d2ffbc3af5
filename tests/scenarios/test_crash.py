"""Whatever is killed, whenever: what was acknowledged is there, once, and the books balance."""

import os
import random
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.audit import audit
from tests.scenarios.witnesses import (
    Call,
    House,
    a_house,
    an_event,
    kill_postgres,
    pouring,
    stored_once,
    wait_for_another_postgres,
)
from tests.shop import done

KILLS = ["server", "postgres"] * 5 + ["both"] * 2


@pytest.fixture
def house() -> Iterator[House]:
    with a_house() as house:
        yield house


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
    with pouring(house.server.base_url, house.shop, seed) as clients:
        for what in KILLS:
            time.sleep(0.1 + dice.random() * 0.5)
            strike(house, what)
        time.sleep(0.3)

    calls = [call for client in clients for call in client.calls]
    print(f"{len(calls)} calls, {sum(client.troubles for client in clients)} sent again")
    assert sum(client.troubles for client in clients) > 0
    acknowledged = stored_once(house.database_url, house.shop, clients)

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
