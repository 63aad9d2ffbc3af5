"""Good requests over odd connections: in chunks, in pieces, sent ahead, asked to go on, the last of their connection."""

import json
from collections.abc import Iterator

import pytest

from tests.conftest import Organization, Server, open_one
from tests.scenarios.wire import CHUNKED, Wire, chunked, head
from tests.shop import API, open_shop

TRACK = f"{API}/usage/events"


@pytest.fixture(scope="module")
def shop(server: Server, database_url: str) -> Iterator[Organization]:
    made = open_one(database_url, server.base_url, clock="2026-03-20T12:00:00Z")
    open_shop(made, "ada")
    yield made
    made.http.close()


def event(key: str) -> bytes:
    return json.dumps({"customerId": "ada", "featureCode": "api_calls", "eventId": key}).encode()


def test_a_body_in_chunks_is_the_body(shop: Organization, wire: Wire) -> None:
    sent = event("in chunks")
    wire.socket.sendall(head(shop, "POST", TRACK, *CHUNKED) + chunked(*(bytes([each]) for each in sent)))
    status, _, body = wire.answer()
    assert (status, json.loads(body)["eventId"]) == (201, "in chunks")
    wire.socket.sendall(head(shop, "POST", f"{API}/usage/check", *CHUNKED))
    for part in (b'{"customerId": "ada", ', b'"featureCode": "api_calls"}'):
        wire.socket.sendall(b"%x\r\n%s\r\n" % (len(part), part))
    wire.socket.sendall(b"0\r\n\r\n")
    status, _, body = wire.answer()
    assert (status, json.loads(body)["allowed"]) == (200, True)


@pytest.mark.parametrize("path", [TRACK, f"{TRACK}?with=a_query", f"{API}/features"])
def test_a_request_may_come_a_byte_at_a_time(shop: Organization, wire: Wire, path: str) -> None:
    body = event(f"bytes {path}") if path != f"{API}/features" else b""
    for byte in head(shop, "POST" if body else "GET", path, f"content-length: {len(body)}") + body:
        wire.socket.sendall(bytes([byte]))
    assert wire.answer()[0] == (201 if body else 200)


def test_who_wants_to_be_asked_to_go_on_is_asked(shop: Organization, wire: Wire) -> None:
    body = event("go on")
    wire.socket.sendall(head(shop, "POST", TRACK, f"content-length: {len(body)}", "expect: 100-continue"))
    assert [wire.reader.readline(), wire.reader.readline()] == [b"HTTP/1.1 100 Continue\r\n", b"\r\n"]
    wire.socket.sendall(body)
    assert wire.answer()[0] == 201


@pytest.mark.parametrize(("version", "wish"), [("1.1", "connection: close"), ("1.0", "accept: */*")])
def test_a_connection_ends_where_the_caller_says_so(
    shop: Organization, wire: Wire, version: str, wish: str
) -> None:
    body = event(f"last of {version}")
    sent = head(shop, "POST", TRACK, f"content-length: {len(body)}", wish) + body
    wire.socket.sendall(sent.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1))
    status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (201, "close")
    assert wire.reader.read() == b""


def test_requests_sent_ahead_are_answered_in_their_order(shop: Organization, wire: Wire) -> None:
    sent = b""
    for number in range(5):
        body = event(f"ahead {number}")
        sent += head(shop, "POST", TRACK, f"content-length: {len(body)}") + body
        sent += head(shop, "GET", f"{API}/nothing/{number}")
    wire.socket.sendall(sent)
    for number in range(5):
        status, _, answer = wire.answer()
        assert (status, json.loads(answer)["eventId"]) == (201, f"ahead {number}")
        status, _, answer = wire.answer()
        assert status == 404
        assert f"/nothing/{number}" in json.loads(answer)["message"]
