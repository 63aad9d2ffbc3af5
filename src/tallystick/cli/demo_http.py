"""A caller of the public API with nothing but the standard library: what a client in any language does."""

import json
import time
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

_TIMEOUT_S: Final = 60.0
_READY_WITHIN_S: Final = 60.0
_ASK_EVERY_S: Final = 0.05


class Unexpected(Exception):
    """An answer that the demo did not count on."""


class Caller:
    """One kept-alive connection. `base_url` is where the server listens, with or without a key."""

    def __init__(self, base_url: str, api_key: str) -> None:
        address = urlsplit(base_url)
        self._connection = HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT_S)
        self._key = api_key

    def __enter__(self) -> "Caller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def wait_until_ready(self, given_up: Callable[[], bool]) -> None:
        limit = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < limit and not given_up():
            try:
                self._connection.request("GET", "/health/ready")
                answer = self._connection.getresponse()
                answer.read()
                if answer.status == 200:
                    return
            except (OSError, HTTPException):
                self._connection.close()
            time.sleep(_ASK_EVERY_S)
        raise Unexpected("the server did not become ready")

    def get(self, path: str, **query: str) -> Any:
        return self._call("GET", f"{path}?{urlencode(query)}" if query else path, None, ())

    def every(self, path: str, **query: str) -> list[Any]:
        """All pages of a list, joined."""
        found: list[Any] = []
        while True:
            page = self.get(path, limit="100", **query)
            found += page["data"]
            if not page["hasMore"]:
                return found
            query["cursor"] = page["nextCursor"]

    def post(self, path: str, body: Mapping[str, Any] | str, *, unless: Collection[str] = ()) -> Any:
        """What the API answered; None when it refused with one of the codes in `unless`. Text is JSON already."""
        return self._call("POST", path, body if isinstance(body, str) else json.dumps(body), unless)

    def submit(self, url: str, fields: Mapping[str, str]) -> None:
        """Fill in a form, as a browser does; being sent on to another page means that it was taken."""
        self._connection.request(
            "POST",
            urlsplit(url).path,
            urlencode(fields),
            {"content-type": "application/x-www-form-urlencoded"},
        )
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 303:
            raise Unexpected(f"POST {url} answered {answer.status}")

    def _call(self, method: str, path: str, body: str | None, unless: Collection[str]) -> Any:
        self._connection.request(
            method,
            f"/api/v1{path}",
            None if body is None else body.encode(),
            {"x-api-key": self._key, "content-type": "application/json"},
        )
        answer = self._connection.getresponse()
        document = json.loads(answer.read(), parse_float=Decimal)
        if answer.status < 300:
            return document
        error = document.get("error", document)
        if error.get("code") in unless:
            return None
        raise Unexpected(f"{method} {path} answered {answer.status}: {error}")
