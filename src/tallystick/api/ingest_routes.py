"""The hot routes, `POST /usage/events` and `…/batch`, as plain ASGI: little Python, one wait for the commit."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from tallystick.api import auth, events, problems, versions, wire
from tallystick.api.auth import Keyring
from tallystick.api.rate_limits import Headers, RateLimits
from tallystick.core import ids, limits
from tallystick.core.events import UsageEvent, decode
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.batcher import Batcher
from tallystick.flows.books import Books
from tallystick.flows.drafts import Accepted, Draft, Outcome
from tallystick.store.db import Database
from tallystick.store.organizations import ApiKey, Organization

_HEADERS: Final = {b"x-api-key", b"authorization", b"commet-version", b"idempotency-key"}


class _Caller(NamedTuple):
    key: ApiKey
    version: str | None  # that the request names; None: the organization's pin decides
    header: str | None  # the Idempotency-Key


class IngestRoutes:
    """Decodes, waits for the batcher, renders. What it knows of an organization stands in its book: whatever was
    judged a moment ago was judged by a book that is up to date."""

    def __init__(
        self,
        database: Database,
        books: Books,
        batcher: Batcher,
        keyring: Keyring,
        wall: Callable[[], datetime],
        rate_limits: RateLimits | None,
    ) -> None:
        self._database = database
        self._books = books
        self._batcher = batcher
        self._keyring = keyring
        self._wall = wall
        self._rate_limits = rate_limits

    async def track(
        self, headers: Any, body: bytes, answer_headers: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        """One event: 201 when it is stored, the original answer when it is a replay."""
        caller = await self._caller(headers, answer_headers, legacy)
        try:
            event = decode(wire.parse(body))
        except Problem:
            await self._catch_up(caller)
            raise
        draft = Draft(event, api_key_id=caller.key.id, header=caller.header)
        (outcome,) = await self._batcher.submit(caller.key.organization_id, [draft])
        if isinstance(outcome, Problem):
            if outcome.code == "unauthorized":
                self._keyring.forget(auth.secret_in(headers) or "")
            raise outcome
        organization, version = self._answered(caller)
        shown = events.show(outcome.event, outcome.reference, live=organization.live)
        return 201, _encode(shown, version, organization)

    async def track_batch(
        self, headers: Any, body: bytes, answer_headers: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        """Up to 100 events, each judged alone: 200 with what was stored and what was not, and why."""
        caller = await self._caller(headers, answer_headers, legacy)
        items = _items(wire.parse(body))
        outcomes: list[Outcome | None] = [None] * len(items)
        drafts: list[Draft] = []
        places: list[int] = []
        for index, item in enumerate(items):
            try:
                event: UsageEvent = decode(item)
            except Problem as problem:
                outcomes[index] = problem
                continue
            drafts.append(Draft(event, api_key_id=caller.key.id, header=caller.header, index=index))
            places.append(index)
        if drafts:
            for index, outcome in zip(
                places, await self._batcher.submit(caller.key.organization_id, drafts), strict=True
            ):
                outcomes[index] = outcome
        else:
            await self._catch_up(caller)
        self._all_or_nothing(outcomes, headers)
        organization, version = self._answered(caller)
        answer = _BatchAnswer(
            successful=[
                events.show(each.event, each.reference, live=organization.live)
                for each in outcomes
                if isinstance(each, Accepted)
            ],
            failed=[
                _Failed(
                    index=index,
                    error=f"{each.code}: {each.message}",
                    code=each.code,
                    param=versions.field_name(each.param, version),
                    details=problems.details(each, version=version),
                    data=items[index],
                )
                for index, each in enumerate(outcomes)
                if isinstance(each, Problem)
            ],
            livemode=organization.live,
        )
        return 200, _encode_batch(answer, version, organization)

    def _all_or_nothing(self, outcomes: list[Outcome | None], headers: Any) -> None:
        """A revoked key, or a database that is away, is not the events' fault: it is the request that failed."""
        refused = [each for each in outcomes if isinstance(each, Problem)]
        for problem in refused:
            if problem.code == "unauthorized":
                self._keyring.forget(auth.secret_in(headers) or "")
                raise problem
        if len(refused) == len(outcomes) and all(each.code == "unavailable" for each in refused):
            raise refused[0]

    async def _caller(self, headers: Any, answer_headers: Headers, legacy: bool) -> _Caller:
        found = {name: value for name, value in headers if name in _HEADERS}
        wall = self._wall()
        key = await self._keyring.find(auth.secret_in(found.items()), wall=wall)
        if self._rate_limits is not None:
            self._rate_limits.admit(key.id, answer_headers)
        auth.permit(key, "usage", writes=True)
        if self._books.seen(key.organization_id) is None:
            async with self._database.reading() as conn:
                await self._books.known(conn, key.organization_id)
        given = found.get(b"commet-version")
        version = versions.asked_for(given.decode("latin-1") if given is not None else None, legacy=legacy)
        header = found.get(b"idempotency-key")
        if header is not None and not 0 < len(header) <= limits.IDEMPOTENCY_KEY_CHARS_MAX:
            raise InvalidRequest(
                FieldError("Idempotency-Key", f"must be 1 to {limits.IDEMPOTENCY_KEY_CHARS_MAX} characters")
            )
        return _Caller(key, version, header.decode("latin-1") if header is not None else None)

    async def _catch_up(self, caller: _Caller) -> None:
        """What is refused before the batcher sees it was judged by no book: see to it that its pin is no old one."""
        if caller.version is None:
            async with self._database.reading() as conn:
                await self._books.current(conn, caller.key.organization_id)

    def _answered(self, caller: _Caller) -> tuple[Organization, str]:
        """Whose answer it is, and the version it speaks."""
        book = self._books.seen(caller.key.organization_id)
        assert book is not None  # there since `_caller`
        return book.organization, caller.version or versions.pin_of(book.organization.api_version)

    def pin_of_caller(self, headers: Any) -> str:
        """What a refusal speaks when its request names no version, as far as we know whose it is."""
        key = self._keyring.known(auth.secret_in(headers))
        book = self._books.seen(key.organization_id) if key is not None else None
        return versions.pin_of(book.organization.api_version if book is not None else None)


def _items(raw: Any) -> list[Any]:
    items = raw.get("events") if isinstance(raw, dict) else None
    if not isinstance(items, list):
        raise InvalidRequest(FieldError("events", "must be a list of events"))
    if not 1 <= len(items) <= limits.EVENTS_PER_BATCH_MAX:
        raise InvalidRequest(
            FieldError("events", f"must hold 1 to {limits.EVENTS_PER_BATCH_MAX} events, not {len(items)}")
        )
    return items


class _Failed(wire.Out, kw_only=True):
    index: int
    error: str
    code: str
    param: str | None
    details: Any
    data: Any


class _BatchAnswer(wire.Out, kw_only=True):
    successful: list[events.UsageEventOut]
    failed: list[_Failed]
    object: str = "usage_event_batch"
    livemode: bool


def _encode(shown: events.UsageEventOut, version: str, organization: Organization) -> bytes:
    if versions.is_bare(version):
        return wire.encode(shown)
    return wire.encode(
        versions.speak(shown, version, organization_id=ids.show(ids.ORGANIZATION, organization.id))
    )


def _encode_batch(answer: _BatchAnswer, version: str, organization: Organization) -> bytes:
    if versions.is_bare(version):
        return wire.encode(answer)
    organization_id = ids.show(ids.ORGANIZATION, organization.id)
    fields = msgspec.to_builtins(answer, builtin_types=(Decimal,))
    fields["successful"] = [
        versions.speak(each, version, organization_id=organization_id)["data"] for each in answer.successful
    ]
    return wire.encode({"success": True, "data": fields})
