"""What befalls a server that goes on: nothing acknowledged is lost, nothing counts twice, and nobody has to restart it.

Whole servers that are killed are in `test_crash`, a full disk in `test_disk_full`, a poisoned event among ten thousand
in `flows/test_bulk`.
"""

import asyncio
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from tallystick.api.connections import Connection
from tallystick.app import wall
from tallystick.core import limits
from tallystick.store.db import Ids
from tallystick.store.embedded_cluster import processes_in
from tests.audit import audit, organization_id, select, stored_keys
from tests.conftest import Organization, Server, free_port
from tests.scenarios.witnesses import (
    ANSWERS_WITHIN_S,
    CUSTOMERS,
    House,
    a_house,
    a_shop,
    connections,
    kill_postgres,
    pouring,
    stored_once,
    until,
    wait_for_another_postgres,
)
from tests.shop import API, GOOD_CARD, Json, add_customer, done, pay

SEED = 20_260_314
PAUSED_S = 5.0  # ten only take longer
HALF_OPEN_MAX = 10_000
HEAD = b"POST /api/v1/usage/events HTTP/1.1\r\nHost: here\r\nContent-Type: appl"


@contextmanager
def open_files(soft: int) -> Iterator[None]:
    """So many for this process, and for what it starts meanwhile."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@pytest.fixture(scope="module")
def building() -> Iterator[House]:
    """Two server processes and their PostgreSQL, started by somebody with the usual limit of open files."""
    with ExitStack() as stack:
        with open_files(1024):
            house = stack.enter_context(a_house(workers=2))
        yield house


@pytest.fixture
def house(building: House) -> Iterator[House]:
    """The same for everybody, and still what it was afterwards, with a shop of one's own."""
    assert building.server.process is not None
    server = building.server.process.pid
    shop = a_shop(building.database_url, building.server.base_url)
    yield House(building.server, building.postgres, building.database_url, shop)
    shop.http.close()
    assert building.server.process.poll() is None
    assert building.server.process.pid == server


def test_what_is_killed_is_brought_back(house: House) -> None:
    with pouring(house.server.base_url, house.shop, SEED) as clients:
        for worker, postgres in ((True, False), (False, True), (True, True)):
            time.sleep(0.4)
            victim, before = house.server.serving()[0], house.postgres.pid()
            if worker:
                os.kill(victim, signal.SIGKILL)
            if postgres:
                kill_postgres(house.postgres)
                wait_for_another_postgres(house.postgres, before)
            if worker:
                until(partial(_two_others, house.server, victim), "the dead one is replaced")
            house.server.wait_until_ready()
        time.sleep(0.4)
    assert sum(client.troubles for client in clients) > 0
    stored_once(house.database_url, house.shop, clients)


def _two_others(server: Server, gone: int) -> bool:
    serving = server.serving()
    return len(serving) == 2 and gone not in serving


@contextmanager
def paused(house: House) -> Iterator[None]:
    """Nothing of PostgreSQL moves: neither its parent, which would note the rest, nor what it had begun."""
    parent = house.postgres.pid()
    assert parent is not None
    stopped = [parent]
    os.kill(parent, signal.SIGSTOP)
    stopped += [each for each in processes_in(house.postgres.home / "cluster") if each != parent]
    try:
        for each in stopped[1:]:
            os.kill(each, signal.SIGSTOP)
        yield
    finally:
        for each in reversed(stopped):
            os.kill(each, signal.SIGCONT)


def test_a_postgres_that_stands_still_is_waited_for_within_bounds(house: House) -> None:
    before = [_resident_bytes(pid) for pid in house.server.serving()]
    crowd = 2 * (limits.ROWS_QUEUED_MAX // limits.EVENTS_PER_SLICE) + 6  # too many for two processes
    with ThreadPoolExecutor(crowd) as pool, pouring(house.server.base_url, house.shop, SEED, 2) as clients:
        time.sleep(0.3)
        with paused(house):
            bulks = [pool.submit(_send_bulk, house.shop, number) for number in range(crowd)]
            over = time.monotonic() + PAUSED_S
            while time.monotonic() < over:
                alive = httpx.get(f"{house.server.base_url}/health/live", timeout=ANSWERS_WITHIN_S)
                assert alive.status_code == 200
                time.sleep(0.2)
            ready = httpx.get(f"{house.server.base_url}/health/ready", timeout=ANSWERS_WITHIN_S)
            assert ready.status_code == 503
            grown = [
                _resident_bytes(pid) - was for pid, was in zip(house.server.serving(), before, strict=True)
            ]
        house.server.wait_until_ready()
        refusals = sum(each.result() for each in bulks)
        time.sleep(0.3)
    assert refusals > 0, "more was sent than may wait"
    assert max(grown) < 200 * 1024 * 1024
    poured = {key for client in clients for key in client.acknowledged}
    bulk = {f"bulk-{number}-{index}" for number in range(crowd) for index in range(limits.EVENTS_PER_SLICE)}
    assert stored_keys(house.database_url, house.shop) == dict.fromkeys(poured | bulk, 1)
    assert audit(house.database_url, house.shop) == len(poured | bulk)


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _send_bulk(shop: Organization, number: int) -> int:
    """Until every event of it is answered as stored; how often the answer was "not now"."""
    events = [
        {"customerId": "ada", "featureCode": "api_calls", "eventId": f"bulk-{number}-{index}"}
        for index in range(limits.EVENTS_PER_SLICE)
    ]
    headers = {"x-api-key": shop.api_key, "Idempotency-Key": f"bulk-{number}"}
    with httpx.Client(base_url=shop.base_url, headers=headers, timeout=ANSWERS_WITHIN_S) as http:
        refusals = 0
        while (answer := http.post(f"{API}/usage/events/bulk", json={"events": events})).status_code == 503:
            assert answer.json()["code"] == "unavailable"
            assert int(answer.headers["Retry-After"]) > 0
            refusals += 1
            time.sleep(0.5)
    assert len(done(answer)["successful"]) == len(events), answer.text[:500]
    return refusals


def test_thousands_who_say_nothing_are_in_nobodys_way(house: House) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for pid in house.server.serving():
        soft = next(
            line.split()[3]
            for line in Path(f"/proc/{pid}/limits").read_text().splitlines()
            if line.startswith("Max open files")
        )
        assert int(soft) == hard, "the server takes all it may have"
    with open_files(hard), ExitStack() as stack:
        mute = [
            stack.enter_context(socket.create_connection(("127.0.0.1", house.server.port), ANSWERS_WITHIN_S))
            for _ in range(min(HALF_OPEN_MAX, hard - 500))
        ]
        for each in mute[::2]:
            each.sendall(HEAD)
        with pouring(house.server.base_url, house.shop, SEED) as clients:
            time.sleep(1.5)
        assert sum(client.troubles for client in clients) == 0
        until(lambda: _held(house.server) >= len(mute), "every one of them is held")
    until(lambda: _held(house.server) < len(mute) // 2, "and forgotten when it is gone")
    stored_once(house.database_url, house.shop, clients)


def _held(server: Server) -> int:
    return sum(connections(pid, server.port) for pid in server.serving())


class Hasty(Connection):
    head_within_s = body_silent_s = 0.2


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (b"", 0),
        (b"\r\n", 0),
        (HEAD, 0),
        (HEAD + b"ication/json\r\nContent-Length: 100\r\n\r\n{", 0),
        (b"GET / HTTP/1.1\r\n\r\nGET / HTT", 1),  # a connection that was kept, and half of the next head
    ],
)
def test_who_does_not_finish_a_request_is_let_go(said: bytes, answers: int) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def act() -> bytes:
        config = uvicorn.Config(answer, log_level="error")
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: Hasty(config, ServerState(), {}), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(said)
            heard = await asyncio.wait_for(reader.read(), ANSWERS_WITHIN_S)
            writer.close()
            return heard

    assert asyncio.run(act()).count(b"HTTP/1.1 200") == answers


def test_a_head_without_end_is_not_read_to_the_end(house: House) -> None:
    piece = b"x: y\r\n" * 1_000
    with socket.create_connection(("127.0.0.1", house.server.port), ANSWERS_WITHIN_S) as endless:
        endless.sendall(HEAD + b"ication/json\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(20_000_000 // len(piece)):  # far more than lies between us unread
                endless.sendall(piece)


@pytest.mark.parametrize("path", ["usage/events", "usage/events/batch", "usage/events/bulk", "customers"])
@pytest.mark.parametrize("abruptly", [False, True], ids=["closed", "reset"])
def test_a_body_that_is_cut_short_was_never_sent(house: House, path: str, abruptly: bool) -> None:
    event: Json = {"customerId": "ada", "featureCode": "api_calls", "eventId": "cut"}
    customer: Json = {"id": "zoe", "email": "zoe@example.com"}
    body: Json = customer if path == "customers" else event if path == "usage/events" else {"events": [event]}
    request = house.shop.http.build_request("POST", f"{API}/{path}", json=body)
    with quiet(house.server):
        _cut_short(house.server, request, abruptly)
        if path == "customers":
            assert house.shop.http.get(f"{API}/customers/zoe").status_code == 404
        else:
            assert stored_keys(house.database_url, house.shop) == {}
        done(house.shop.http.send(request))
    assert audit(house.database_url, house.shop) == (path != "customers")


def test_a_payment_that_is_cut_short_was_never_made(house: House) -> None:
    add_customer(house.shop, "zoe")
    held = done(house.shop.http.post(f"{API}/subscriptions", json={"customerId": "zoe", "planCode": "pro"}))
    form = {"cardNumber": GOOD_CARD, "expiry": "12/49", "cvc": "123"}
    request = house.shop.http.build_request("POST", held["checkoutUrl"], data=form)
    where = f"{API}/subscriptions/{held['id']}"
    with quiet(house.server):
        _cut_short(house.server, request, abruptly=False)
        assert done(house.shop.http.get(where))["status"] == held["status"]
        pay(held["checkoutUrl"])
    assert done(house.shop.http.get(where))["status"] == "active"


@contextmanager
def quiet(server: Server) -> Iterator[None]:
    """Nothing happens that somebody would have to look after."""
    already = server.log_file.stat().st_size
    yield
    log = server.log_file.read_bytes()[already:]
    assert b"Traceback" not in log and b"ERROR" not in log, log.decode()


def _cut_short(server: Server, request: httpx.Request, abruptly: bool) -> None:
    """Once in the middle, and once where all is there but what was promised beyond it."""
    whole = request.read()
    headers = {**request.headers, "connection": "close"}
    for sent, promised in ((whole[: len(whole) // 2], len(whole)), (whole, len(whole) + 1)):
        headers["content-length"] = str(promised)
        head = [f"POST {request.url.raw_path.decode()} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        with socket.create_connection(("127.0.0.1", server.port), ANSWERS_WITHIN_S) as cut:
            cut.sendall("\r\n".join([*head, "", ""]).encode() + sent)
            time.sleep(0.05)  # so that it is read before it is cut
            if abruptly:
                cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_ids_go_up_whatever_the_clock_does() -> None:
    hour = 3_600 * 10**9
    times = iter([10 * hour, 10 * hour + 1, 9 * hour, 9 * hour + 5, 10 * hour + 2, 11 * hour])
    new_ids = Ids(lambda: next(times))
    made = [identity for count in (3, 5_000, 2, 5_000, 1, 2) for identity in new_ids(count)]
    assert all(one < next_one for one, next_one in pairwise(made))


SERVER = """
import sys
from datetime import timedelta
from pathlib import Path
import uvicorn
from tallystick.app import Application, wall
from tallystick.settings import Settings

port, database_url, ahead_s = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

def clock():
    return wall() + timedelta(seconds=int(ahead_s.read_text()))

settings = Settings(port=port, database_url=database_url, sweep_every_s=0.2)
uvicorn.run(Application(settings, clock), port=port, lifespan="on", log_level="warning")
"""


class Clock:
    """Of a server: so far ahead of ours (or behind) as was said last."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ahead"

    def put(self, ahead: timedelta) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(str(int(ahead.total_seconds())))
        beside.replace(self.file)


@pytest.fixture
def clocked(building: House, tmp_path: Path) -> Iterator[tuple[Server, Clock]]:
    """Another server on the same database, whose wall clock is ours to set; it begins three hours ago."""
    clock, port = Clock(tmp_path), free_port()
    clock.put(timedelta(hours=-3))
    server = Server(f"http://127.0.0.1:{port}", port, tmp_path / "data", building.database_url)
    command = [sys.executable, "-c", SERVER, str(port), building.database_url, str(clock.file)]
    with server.log_file.open("ab") as log:
        server.process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        server.wait_until_ready()
        yield server, clock
    finally:
        server.stop()


def test_a_clock_that_goes_back_an_hour_changes_nothing(
    building: House, clocked: tuple[Server, Clock]
) -> None:
    server, clock = clocked
    shop = a_shop(building.database_url, server.base_url)
    ends = select(
        building.database_url,
        "SELECT min(closes_at) FROM subscriptions WHERE organization_id = %s",
        organization_id(shop),
    )[0][0]
    over_the_end = ends - wall() + timedelta(minutes=10)
    hour = timedelta(hours=1)
    zoe = {"id": "zoe", "email": "zoe@example.com"}
    make_zoe = partial(shop.http.post, f"{API}/customers", json=zoe, headers={"Idempotency-Key": "zoe"})
    clock.put(timedelta())
    made = done(make_zoe())
    with pouring(server.base_url, shop, SEED) as clients:
        for ahead in (timedelta(), -hour, timedelta(), over_the_end, over_the_end - hour, over_the_end):
            clock.put(ahead)
            if ahead <= timedelta():
                assert done(make_zoe()) == made
            if ahead == over_the_end:
                until(lambda: _invoices(building, shop) >= 2 * len(CUSTOMERS), "the periods are closed")
            time.sleep(0.5)
    stored_once(building.database_url, shop, clients)
    late = "SELECT count(*) FROM late_events WHERE organization_id = %s"
    assert select(building.database_url, late, organization_id(shop)) > [(0,)], (
        "it was back in a closed period"
    )
    assert _invoices(building, shop) == 2 * len(CUSTOMERS)
    shop.http.close()
    assert "Traceback" not in server.log()


def _invoices(house: House, shop: Organization) -> int:
    found = select(
        house.database_url, "SELECT count(*) FROM invoices WHERE organization_id = %s", organization_id(shop)
    )
    return int(found[0][0])
