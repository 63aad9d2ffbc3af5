"""The hot routes, `POST /usage/events` and `…/batch`, as plain ASGI: little Python, one wait for the commit."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from tallystick.api import auth, events, versions, wire
from tallystick.api.auth import Keyring
from tallystick.api.rate_limits import Headers, RateLimits
from tallystick.core import ids, limits
from tallystick.core.events import UsageEvent, decode
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.batcher import Batcher
from tallystick.flows.books import Books
from tallystick.flows.ingest import Accepted, Draft, Outcome
from tallystick.store import organizations
from tallystick.store.db import Database
from tallystick.store.organizations import ApiKey, Organization

_HEADERS: Final = {b"x-api-key", b"authorization", b"commet-version", b"idempotency-key"}


class IngestRoutes:
    """Decodes, waits for the batcher, renders. Knows organizations only as far as answers need."""

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
        self._organizations: dict[Any, Organization] = {}

    async def track(
        self, headers: Any, body: bytes, answer_headers: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        """One event: 201 when it is stored, the original answer when it is a replay."""
        key, organization, version, header = await self._caller(headers, answer_headers, legacy)
        draft = Draft(decode(wire.parse(body)), api_key_id=key.id, header=header)
        (outcome,) = await self._batcher.submit(organization.id, [draft])
        if isinstance(outcome, Problem):
            if outcome.code == "unauthorized":
                self._keyring.forget(auth.secret_in(headers) or "")
            raise outcome
        shown = events.show(outcome.event, outcome.reference, live=organization.live)
        return 201, _encode(shown, version, organization)

    async def track_batch(
        self, headers: Any, body: bytes, answer_headers: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        """Up to 100 events, each judged alone: 200 with what was stored and what was not, and why."""
        key, organization, version, header = await self._caller(headers, answer_headers, legacy)
        raw = wire.parse(body)
        items = raw.get("events") if isinstance(raw, dict) else None
        if not isinstance(items, list):
            raise InvalidRequest(FieldError("events", "must be a list of events"))
        if not 1 <= len(items) <= limits.EVENTS_PER_BATCH_MAX:
            raise InvalidRequest(
                FieldError("events", f"must hold 1 to {limits.EVENTS_PER_BATCH_MAX} events, not {len(items)}")
            )
        outcomes: list[Outcome | None] = [None] * len(items)
        drafts: list[Draft] = []
        places: list[int] = []
        for index, item in enumerate(items):
            try:
                event: UsageEvent = decode(item)
            except Problem as problem:
                outcomes[index] = problem
                continue
            drafts.append(Draft(event, api_key_id=key.id, header=header, index=index))
            places.append(index)
        if drafts:
            for index, outcome in zip(
                places, await self._batcher.submit(organization.id, drafts), strict=True
            ):
                outcomes[index] = outcome
        self._all_or_nothing(outcomes, headers)
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
                    param=_dialect(each.param, version),
                    details=each.details,
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
        problems = [each for each in outcomes if isinstance(each, Problem)]
        for problem in problems:
            if problem.code == "unauthorized":
                self._keyring.forget(auth.secret_in(headers) or "")
                raise problem
        if len(problems) == len(outcomes) and all(each.code == "unavailable" for each in problems):
            raise problems[0]

    async def _caller(
        self, headers: Any, answer_headers: Headers, legacy: bool
    ) -> tuple[ApiKey, Organization, str, str | None]:
        found = {name: value for name, value in headers if name in _HEADERS}
        wall = self._wall()
        key = await self._keyring.find(auth.secret_in(found.items()), wall=wall)
        if self._rate_limits is not None:
            self._rate_limits.admit(key.id, answer_headers)
        auth.permit(key, "usage", writes=True)
        organization = self._organizations.get(key.organization_id)
        if organization is None:
            async with self._database.reading() as conn:
                organization = await organizations.get(conn, organization_id=key.organization_id)
            if organization is None:
                raise Problem("unauthorized")
            self._organizations[key.organization_id] = organization
        given = found.get(b"commet-version")
        version = versions.resolve(
            given.decode("latin-1") if given is not None else None,
            pinned=organization.api_version,
            legacy=legacy,
        )
        header = found.get(b"idempotency-key")
        if header is not None and not 0 < len(header) <= limits.IDEMPOTENCY_KEY_CHARS_MAX:
            raise InvalidRequest(
                FieldError("Idempotency-Key", f"must be 1 to {limits.IDEMPOTENCY_KEY_CHARS_MAX} characters")
            )
        return key, organization, version, header.decode("latin-1") if header is not None else None


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


_dialect = versions.field_name
