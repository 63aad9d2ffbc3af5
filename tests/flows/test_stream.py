"""Any number of events as lines: each is answered alone, in order, as soon as it is on disk."""

import asyncio
import gzip
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import psycopg
import pytest

from tallystick.api.bodies import ClientGone
from tallystick.api.stream_route import Answer
from tallystick.core import ids, limits
from tests.audit import audit, count_events
from tests.conftest import MakeOrganization, Organization, Server, serving
from tests.scenarios.prepaid import open_prepaid
from tests.shop import (
    API,
    Json,
    add_feature,
    done,
    hard_limit,
    open_shop,
    own_id,
    post_event,
    refused,
    subscribe,
    track_batch,
)

OPENED = "2026-03-10T09:00:00Z"
STREAM = f"{API}/usage/events/stream"


@pytest.fixture
def shop(make_organization: MakeOrganization, database_url: str) -> Iterator[Organization]:
    made = make_organization(clock=OPENED)
    open_shop(made, "ada", "bob")
    yield made
    audit(database_url, made)


def event(key: str | None = None, customer: str = "ada", **more: object) -> Json:
    return {"customerId": customer, "featureCode": "api_calls", "eventId": key, "value": 1, **more}


def spelled(*lines: Any) -> bytes:
    """A line each: text as it stands, anything else as JSON."""
    return b"".join(
        (each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines
    )


def read(answer: bytes) -> list[Json]:
    assert answer.endswith(b"\n") or not answer
    return [json.loads(line) for line in answer.splitlines()]


def send(shop: Organization, content: bytes | Iterable[bytes], **headers: str) -> list[Json]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = shop.http.post(STREAM, content=content, headers=named, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert ids.read(ids.REQUEST, answer.headers["x-request-id"]) is not None
    return read(answer.content)


def told(answers: Iterable[Json]) -> list[tuple[int, str]]:
    """(line, what became of it) of each."""
    return [(each["line"], each["error"]["code"] if "error" in each else "stored") for each in answers]


class Wire:
    """A connection that says what it is told to, when it is told to, and reads lines of the answer in between."""

    def __init__(self, shop: Organization, path: str = STREAM) -> None:
        url = httpx.URL(shop.base_url)
        self.socket = socket.create_connection((url.host, url.port or 80), timeout=10)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {shop.api_key}\r\ntransfer-encoding: chunked\r\n\r\n"
        self.socket.sendall(head.encode())
        self.answer = self.socket.makefile("rb")
        self.head = b""

    def say(self, content: bytes) -> None:
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(content), content))

    def lines(self) -> list[Json]:
        """The next chunk of the answer; none at its end."""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self.answer.readline()
        length = int(self.answer.readline(), 16)
        return read(self.answer.read(length + 2)[:-2])

    def close(self) -> None:
        self.answer.close()
        self.socket.close()


@contextmanager
def wire(shop: Organization) -> Iterator[Wire]:
    made = Wire(shop)
    try:
        yield made
    finally:
        made.close()


def test_every_line_is_answered_alone_and_in_order(shop: Organization, database_url: str) -> None:
    sent = spelled(
        event("a"),
        b"",
        b"{",
        b" \t\r",
        event("a"),
        event("b", "nobody"),
        event(value=-1),
        b"[1]",
        b'\xff"',
        event("b", "bob"),
    )
    answers = send(shop, sent + json.dumps(event()).encode())  # the last line needs no newline
    assert told(answers) == [
        (1, "stored"),
        (3, "invalid_json"),
        (5, "duplicate"),
        (6, "customer_not_found"),
        (7, "validation_error"),
        (8, "validation_error"),
        (9, "invalid_json"),
        (10, "stored"),
        (11, "stored"),
    ]
    assert [each["status"] for each in answers] == [201, 400, 409, 404, 400, 400, 400, 201, 201]
    first, last = answers[0], answers[-1]
    assert first == {"line": 1, "status": 201, "id": first["id"], "eventId": "a"}
    assert last == {"line": 11, "status": 201, "id": last["id"], "eventId": None}
    assert done(shop.http.get(f"{API}/usage/events/{first['id']}"))["eventId"] == "a"
    assert answers[2]["error"]["details"]["id"] == first["id"]
    assert answers[4]["error"]["details"] == [{"field": "value", "message": "must be 0 or more"}]
    assert count_events(database_url, shop) == 3


def test_a_refused_line_says_what_a_batch_says(shop: Organization) -> None:
    sent = [event("a"), event("a", value=2), event("b", "nobody"), event(feature="x"), 7]
    streamed = [each["error"] for each in send(shop, spelled(*sent)) if "error" in each]
    batched = track_batch(shop, sent)["failed"]
    assert len(streamed) == len(batched) - 1, "the first is a repeat by now"
    for one, other in zip(streamed, batched[1:], strict=True):
        assert other["error"] == f"{one.pop('code')}: {one.pop('message')}"
        assert one == {name: other[name] for name in ("param", "details")}


def test_slices_are_no_borders(shop: Organization, database_url: str) -> None:
    """As many lines as may be sent before any answer is read, with a bad one and a repeat, in pieces that end anywhere."""
    count = 10_000
    sent = [event(f"k{number}") for number in range(count)]
    sent[4_321] = {}
    sent[8_765] = sent[3]
    body = spelled(*sent)
    answers = send(shop, (body[at : at + 99_991] for at in range(0, len(body), 99_991)))
    expected = ["stored"] * count
    expected[4_321], expected[8_765] = "validation_error", "duplicate"
    assert told(answers) == list(enumerate(expected, 1))
    assert count_events(database_url, shop) == count - 2


def test_a_repeated_stream_gets_the_same_answers(shop: Organization, database_url: str) -> None:
    sent = spelled(event("a"), b"", event(), event("b", "nobody"), event())
    answers = send(shop, sent, idempotency_key="h")
    assert told(answers) == [(1, "stored"), (3, "stored"), (4, "customer_not_found"), (5, "stored")]
    assert send(shop, sent, idempotency_key="h") == answers
    assert count_events(database_url, shop) == 3
    assert [each for _, each in told(send(shop, sent, idempotency_key="i"))] == [
        "duplicate",
        "stored",
        "customer_not_found",
        "stored",
    ]


def test_a_line_has_the_place_that_an_event_has_in_a_batch(shop: Organization) -> None:
    sent = [event(), event("b"), event()]
    batched = track_batch(shop, sent, "h")["successful"]
    streamed = send(shop, spelled(*sent), idempotency_key="h")
    assert [each["id"] for each in streamed] == [each["id"] for each in batched]


def test_what_is_complete_is_answered_while_the_stream_is_open(shop: Organization) -> None:
    with wire(shop) as open_:
        for number in range(1, 4):
            open_.say(spelled(event(f"k{number}")) + b'{"customerId"')
            assert told(open_.lines()) == [(2 * number - 1, "stored")]
            open_.say(b': "nobody", "featureCode": "api_calls"}\n')
            assert told(open_.lines()) == [(2 * number, "customer_not_found")]
        assert open_.head.startswith(b"HTTP/1.1 200 ")
        open_.say(json.dumps(event("last")).encode())
        open_.socket.sendall(b"0\r\n\r\n")
        assert told(open_.lines()) == [(7, "stored")]
        assert open_.lines() == []


def test_a_connection_cut_in_a_line_leaves_the_complete_ones(shop: Organization, database_url: str) -> None:
    with wire(shop) as cut:
        cut.say(spelled(event("a"), event("b")) + json.dumps(event("c")).encode())
        assert told(cut.lines()) == [(1, "stored"), (2, "stored")]
    assert told(send(shop, spelled(event("a"), event("b"), event("c")))) == [
        (1, "duplicate"),
        (2, "duplicate"),
        (3, "stored"),
    ]
    assert count_events(database_url, shop) == 3


def test_a_line_that_is_too_long_is_skipped_to_its_newline(shop: Organization, database_url: str) -> None:
    longest = json.dumps(event("fits")).encode().ljust(limits.STREAM_LINE_BYTES_MAX)
    long = b'{"x": "' + b"x" * 40 * limits.STREAM_LINE_BYTES_MAX + b'"}'
    answers = send(shop, spelled(event("a"), long, longest, longest + b" ", event("b")) + long)
    assert told(answers) == [
        (1, "stored"),
        (2, "payload_too_large"),
        (3, "stored"),
        (4, "payload_too_large"),
        (5, "stored"),
        (6, "payload_too_large"),
    ]
    assert count_events(database_url, shop) == 3


def squeezed(*members: bytes) -> bytes:
    return b"".join(map(gzip.compress, members))


def test_gzip_of_one_or_several_members(shop: Organization, database_url: str) -> None:
    lines = spelled(*(event(f"k{number}") for number in range(3_000)))
    for sent in (squeezed(lines), squeezed(lines[:77_777], b"", lines[77_777:])):
        answers = send(shop, sent, content_encoding="gzip")
        assert [each["line"] for each in answers] == list(range(1, 3_001))
        assert count_events(database_url, shop) == 3_000
    assert (
        send(shop, b"", content_encoding="gzip") == send(shop, squeezed(b""), content_encoding="gzip") == []
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda sent: sent[:-9], "ends early"),
        (lambda sent: sent[:-8] + b"\0" * 8, "is broken"),
        (lambda sent: sent + b"no gzip", "is broken"),
    ],
)
def test_gzip_that_is_spoiled_ends_the_stream_with_a_word(
    shop: Organization, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    lines = spelled(*(event(f"k{number}") for number in range(5_000)))
    *answers, last = send(shop, spoil(squeezed(lines)), content_encoding="gzip")
    assert last["error"] == {
        "code": "validation_error",
        "message": f"Content-Encoding: the gzip of the body {reason}",
        "param": "Content-Encoding",
        "details": [{"field": "Content-Encoding", "message": f"the gzip of the body {reason}"}],
    }
    assert set(last) == {"error"}
    assert told(answers) == [(number, "stored") for number in range(1, len(answers) + 1)]
    assert len(answers) > 4_000
    stored = [each["error"]["code"] for each in send(shop, lines) if "error" in each]
    assert stored == ["duplicate"] * len(answers), "what was answered is stored, and nothing else"


def test_a_refusal_before_the_first_answer_is_an_ordinary_one(shop: Organization, server: Server) -> None:
    def ask(content: bytes = spelled(event("a")), **headers: str) -> httpx.Response:
        named = {"x-api-key": shop.api_key} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return httpx.post(server.base_url + STREAM, content=content, headers=named)

    assert "Content-Encoding" in refused(ask(content_encoding="br"), 400, "validation_error")["message"]
    refused(ask(b"no gzip", content_encoding="gzip"), 400, "validation_error")
    refused(ask(idempotency_key="k" * 256), 400, "validation_error")
    refused(ask(commet_version="new"), 400, "validation_error")
    refused(ask(x_api_key="ck_sandbox_guess"), 401, "unauthorized")
    reader = done(shop.http.post(f"{API}/api-keys", json={"name": "r", "permissions": {"usage": ["read"]}}))
    refused(ask(x_api_key=reader["apiKey"]), 403, "forbidden")
    assert refused(shop.http.put(STREAM), 405, "method_not_allowed")


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_key_that_ends_midway_ends_the_stream(shop: Organization, database_url: str, end: str) -> None:
    made = done(shop.http.post(f"{API}/api-keys", json={"name": "soon gone"}))
    other = Organization(shop.id, made["apiKey"], shop.http, shop.base_url)
    if end == "expired":
        with psycopg.connect(database_url) as conn:
            soon = "UPDATE api_keys SET expires_at = now() + interval '1 second' WHERE id = %s"
            conn.execute(soon, [own_id(ids.API_KEY, made["id"])])
    with wire(other) as open_:
        open_.say(spelled(event("a")))
        assert told(open_.lines()) == [(1, "stored")]
        if end == "expired":
            time.sleep(1.1)
        else:
            done(shop.http.delete(f"{API}/api-keys/{made['id']}"))
        open_.say(spelled(event("b")))
        (last,) = open_.lines()
        assert (set(last), last["error"]["code"]) == ({"error"}, "unauthorized")
        assert open_.lines() == []
    assert count_events(database_url, shop) == 1


def test_a_slice_waits_for_room_in_the_queue(shop: Organization, database_url: str) -> None:
    full = limits.ROWS_QUEUED_MAX // limits.EVENTS_PER_SLICE
    nothing = [event(customer="nobody")] * limits.EVENTS_PER_SLICE
    with psycopg.connect(database_url) as blocker, ThreadPoolExecutor(full + 1) as clients:
        blocker.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        filling = [
            clients.submit(shop.http.post, f"{API}/usage/events/bulk", json={"events": nothing})
            for _ in range(full)
        ]
        while rows_waiting(shop) < limits.ROWS_QUEUED_MAX:
            time.sleep(0.02)
        refused(post_event(shop, event("a")), 503, "unavailable")
        stream = clients.submit(send, shop, spelled(event("a"), b"{", event("b")))
        time.sleep(0.3)
        assert not stream.done()
        blocker.rollback()
        assert told(stream.result()) == [(1, "stored"), (2, "invalid_json"), (3, "stored")]
        assert [len(done(each.result())["failed"]) for each in filling] == [len(nothing)] * full


def rows_waiting(shop: Organization) -> float:
    (found,) = re.findall(
        r"^tallystick_ingest_rows_waiting(?:{.*})? (.+)$", shop.http.get("/metrics").text, re.M
    )
    return float(found)


def test_a_hard_limit_is_reached_in_the_order_of_the_lines(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization(clock=OPENED)
    open_shop(shop, "ada", terms=hard_limit(1_500))
    answers = send(shop, spelled(*(event(f"k{number}") for number in range(2_000))))
    assert told(answers) == [
        (line, "stored" if line <= 1_500 else "included_limit_reached") for line in range(1, 2_001)
    ]
    audit(database_url, shop)


def test_a_prepaid_event_tells_what_it_took(make_organization: MakeOrganization, database_url: str) -> None:
    shop = make_organization(clock=OPENED)
    add_feature(shop)
    open_prepaid(shop, credits=5)
    subscribe(shop, "ada", "credits")
    answers = send(shop, spelled(event("a", value=3), event("b", value=3), event("c", value=2)))
    assert told(answers) == [(1, "stored"), (2, "insufficient_credits"), (3, "stored")]
    assert [answers[at]["consumption"]["remaining"] for at in (0, 2)] == [2, 0]
    assert answers[0]["consumption"] == done(post_event(shop, event("d", value=0)))["consumption"] | {
        "deducted": 3,
        "deductedDecimal": "3",
        "remaining": 2,
        "remainingDecimal": "2",
        "blocked": False,
    }
    audit(database_url, shop)


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_UNREAD_S_MAX", 0)
    dropped: list[bool] = []

    async def nobody_reads(_: object) -> None:
        await asyncio.Event().wait()

    scope = {"type": "http", "state": {"abort": lambda: dropped.append(True)}}
    with pytest.raises(ClientGone):
        asyncio.run(Answer(scope, nobody_reads, []).end())
    assert dropped == [True]


def test_a_server_that_stops_says_so_and_waits_for_no_more(database_url: str, shop: Organization) -> None:
    with (
        serving(database_url) as other,
        wire(replace(shop, base_url=other.base_url)) as line,
        ThreadPoolExecutor(1) as aside,
    ):
        line.say(spelled(event("a")) + b'{"half": ')
        assert told(line.lines()) == [(1, "stored")]
        stopped = aside.submit(other.stop)
        (end,) = line.lines()
        assert (end["error"]["code"], "line" in end) == ("unavailable", False)
        assert line.lines() == []
        stopped.result()
    assert count_events(database_url, shop) == 1


def test_both_prefixes_and_an_empty_stream(shop: Organization) -> None:
    assert send(shop, b"") == send(shop, b"\n\n \n") == []
    older = shop.http.post("/api/usage/events/stream", content=spelled(event("a"), event("a")))
    assert told(read(older.content)) == [(1, "stored"), (2, "duplicate")]
    assert older.headers["deprecation"] == "true"


def test_a_stream_is_one_request_to_the_rate_limit(database_url: str, shop: Organization) -> None:
    with serving(
        database_url, environment={"TALLYSTICK_RATE_LIMIT": "1", "TALLYSTICK_RATE_BURST": "1"}
    ) as slow:
        headers = {"x-api-key": shop.api_key}
        sent = spelled(*(event(f"k{number}") for number in range(2_500)))
        answer = httpx.post(slow.base_url + STREAM, content=sent, headers=headers, timeout=30)
        assert (answer.headers["ratelimit-remaining"], len(read(answer.content))) == ("0", 2_500)
        for _ in range(2):
            again = httpx.post(slow.base_url + STREAM, content=b"", headers=headers)
        refused(again, 429, "rate_limited")
