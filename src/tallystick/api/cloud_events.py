"""`POST /events`: usage as CloudEvents 1.0, one, a batch, or one in binary mode. 204 means: stored and counted.

A CloudEvent that was counted before is dropped, as CloudEvents has it; with other content it is a conflict.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from tallystick.api import wire
from tallystick.api.callers import Callers
from tallystick.api.ingest_routes import IngestRoutes
from tallystick.api.rate_limits import Headers
from tallystick.core import limits
from tallystick.core.cloud_events import in_its_words, read
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.drafts import is_repeat

ONE: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
JSON: Final = "application/json"
"""With `ce-` headers the data of one event, else one event or a list of them."""
_PREFIX: Final = b"ce-"


class CloudEventsRoute:
    def __init__(self, ingest: IngestRoutes, callers: Callers) -> None:
        self._ingest = ingest
        self._callers = callers

    async def receive(
        self, headers: Any, body: bytes, answer_headers: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        """204 when all is stored, now or before. Raises Problem: of one event its own, of a batch one that lists them."""
        caller = await self._callers.find(headers, answer_headers, legacy=legacy, writes=True)
        sent = _sent(headers, body)
        items = sent if isinstance(sent, list) else [sent]
        outcomes = await self._ingest.store_all(caller, items, headers, read)
        refused = {
            index: in_its_words(each)
            for index, each in enumerate(outcomes)
            if isinstance(each, Problem) and not is_repeat(each)
        }
        if refused:
            raise of_a_batch(refused, of=len(items)) if items is sent else refused[0]
        return 204, b""


def _sent(headers: Any, body: bytes) -> Any:
    """One event, or a list of them, as parsed JSON."""
    given = next((value for name, value in headers if name == b"content-type"), b"").decode("latin-1")
    kind = given.partition(";")[0].strip().lower()
    if kind in (JSON, ""):
        found = attributes(headers)
        if found:
            return found | {"data": wire.parse(body)}
    if kind not in (ONE, BATCH, JSON):
        raise InvalidRequest(
            FieldError("Content-Type", f"must be {ONE}, {BATCH} or {JSON}, not {given or 'absent'}")
        )
    sent = wire.parse(body)
    if kind != JSON and isinstance(sent, list) != (kind == BATCH):
        one_or_all = "a list of events" if kind == BATCH else "one event, a JSON object"
        raise InvalidRequest(FieldError("", f"the body of {kind} is {one_or_all}"))
    if isinstance(sent, list) and len(sent) > limits.EVENTS_PER_BULK_MAX:
        raise InvalidRequest(
            FieldError("", f"a batch holds up to {limits.EVENTS_PER_BULK_MAX} events, not {len(sent)}")
        )
    return sent


def attributes(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, object]:
    """What the headers of a request in binary mode say, each unquoted and percent-decoded."""
    found: dict[str, object] = {}
    for name, value in headers:
        if name.startswith(_PREFIX):
            if len(value) > 1 and value[:1] == value[-1:] == b'"':
                value = re.sub(rb"\\(.)", rb"\1", value[1:-1])
            attribute = name.removeprefix(_PREFIX).decode("latin-1")
            try:
                found[attribute] = unquote_to_bytes(value).decode()
            except UnicodeDecodeError:
                raise InvalidRequest(FieldError(attribute, "must be percent-encoded UTF-8")) from None
    return found


def of_a_batch(refused: Mapping[int, Problem], *, of: int) -> Problem:
    """Some of a batch are refused. Where trying again helps one of them, the whole is to be tried again."""
    again = next((each for each in refused.values() if each.kind.retryable), None)
    index, first = next(iter(refused.items()))
    return Problem(
        "validation_error" if again is None else again.code,
        f"{of - len(refused)} of {of} events are stored, the others are listed in details; sending the batch again "
        f"counts nothing twice. The first, at index {index}: {first.message}",
        details=[
            {"index": index, "code": each.code, "message": each.message, "field": each.param}
            for index, each in refused.items()
        ],
        retry_after_s=None if again is None else again.retry_after_s,
    )
