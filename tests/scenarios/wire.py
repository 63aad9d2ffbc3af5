"""What every answer has to look like, and which connection it came over."""

import json
import socket
from typing import Any

import httpx

from tallystick.core import ids
from tallystick.errors import CODES
from tests.conftest import Organization, Server
from tests.shop import API, done

Json = dict[str, Any]


def json_of(answer: httpx.Response) -> Any:
    """The body, which must be JSON that any strict parser reads, beside the id of the request."""
    assert answer.headers["content-type"] == "application/json", answer.text
    assert ids.read(ids.REQUEST, answer.headers["x-request-id"]) is not None

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON: {answer.text}")

    return json.loads(answer.content, parse_constant=refuse)


def refusal(answer: httpx.Response, status: int, code: str, field: str | None = None) -> Json:
    """An error as behaviour.md §1.6 has it: nested, with flat copies; wrong fields are named with a reason."""
    body = json_of(answer)
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert (CODES[code].status, CODES[code].type) == (status, body["error"]["type"])
    assert body["success"] is False
    error: Json = body["error"]
    assert {name: body[name] for name in ("code", "message", "details")} == {
        name: error[name] for name in ("code", "message", "details")
    }
    assert error["message"]
    assert error["doc_url"].endswith(f"/errors/{code}.md")
    if code == "validation_error":
        assert error["details"], "a validation error names its fields"
        for each in error["details"]:
            assert set(each) == {"field", "message"}
            assert each["message"]
    if field is not None:
        assert field in [each["field"] for each in error["details"]], error["details"]
    return error


def line(answer: httpx.Response) -> Any:
    """The two ends of the connection an answer came over."""
    return answer.extensions["network_stream"].get_extra_info("client_addr")


def still_works(shop: Organization, after: httpx.Response) -> None:
    """The next request goes over the very same connection, and is answered."""
    following = shop.http.get(f"{API}/features")
    assert following.status_code == 200
    assert line(following) == line(after), "the connection was given up"


def everything(shop: Organization) -> Json:
    """All that can be read of an organization whose clock stands still."""
    lists = {
        path: done(shop.http.get(f"{API}/{path}", params={"limit": "100"}))["data"]
        for path in (
            "customers",
            "usage/events",
            "invoices",
            "transactions",
            "api-keys",
            "simulations",
            "domain-events",
            "ai/prices",
        )
    }
    lists |= {
        path: done(shop.http.get(f"{API}/{path}"))["data"]
        for path in ("features", "subscriptions", "credit-packs", "ai/aliases")
    }
    lists["plans"] = done(shop.http.get(f"{API}/plans", params={"includePrivate": "true"}))["data"]
    for key in lists["api-keys"]:
        del key["lastUsedAt"]
    for held in lists["subscriptions"]:
        entries = shop.http.get(f"{API}/subscriptions/{held['id']}/ledger", params={"limit": "100"})
        lists[f"ledger of {held['id']}"] = done(entries)["data"]
    clock = shop.http.get(f"{API}/test-clock")
    return lists | ({"clock": clock.json()} if clock.is_success else {})


class Wire:
    """A plain socket that speaks HTTP/1.1 by hand."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self.reader = self.socket.makefile("rb")

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.reader.readline().split()[1])
        headers = {}
        while (text := self.reader.readline().decode().strip()) != "":
            name, _, value = text.partition(": ")
            headers[name.lower()] = value
        return status, headers, self.reader.read(int(headers["content-length"]))

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


def head(shop: Organization, method: str, path: str, *lines: str) -> bytes:
    fields = [f"{method} {path} HTTP/1.1", "host: tallystick", f"x-api-key: {shop.api_key}", *lines]
    return "\r\n".join([*fields, "", ""]).encode()


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


CHUNKED = ("transfer-encoding: chunked", "content-type: application/json")
