"""The hot routes, `POST /usage/events`, `…/batch` and `…/bulk`, as plain ASGI: little Python, one wait for the commit."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from tallystick.api import events, problems, usual_events, versions, wire
from tallystick.api.callers import Caller, Callers, encode, fields_of
from tallystick.api.rate_limits import Headers
from tallystick.core import ids, limits
from tallystick.core.events import UsageEvent, decode
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.batcher import Batcher
from tallystick.flows.drafts import Accepted, Draft, Outcome, accepted, drafted, refused
from tallystick.store.organizations import Organization

Read = Callable[[object], UsageEvent]


class IngestRoutes:
    """Decodes, waits for the batcher, renders."""

    def __init__(self, batcher: Batcher, callers: Callers) -> None:
        self._batcher = batcher
        self._callers = callers

    async def track(
        self, headers: Any, body: bytes, answer_headers: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        """One event: 201 when it is stored, the original answer when it is a replay."""
        caller = await self._callers.find(headers, answer_headers, legacy=legacy, writes=True)
        event = usual_events.read_one(body)
        if event is None:
            try:
                event = decode(wire.parse(body))
            except Problem:
                await self._callers.catch_up(caller)
                raise
        draft = Draft(event, caller.key.id, caller.header)
        (outcome,) = await self._batcher.submit(caller.key.organization_id, [draft])
        if isinstance(outcome, Problem):
            if outcome.code == "unauthorized":
                self._callers.unauthorized(headers)
            raise outcome
        organization, version = self._callers.answered(caller)
        shown = events.show(outcome.event, outcome.reference, live=organization.live)
        return 201, encode(shown, version, organization)

    async def track_batch(
        self, headers: Any, body: bytes, answer_headers: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        """Up to 100 events, each judged alone: 200 with what was stored and what was not, and why."""
        return await self._track_many(headers, body, answer_headers, limits.EVENTS_PER_BATCH_MAX, legacy)

    async def track_bulk(
        self, headers: Any, body: bytes, answer_headers: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        """The same for up to 10,000, a slice after the other; those of a slice are committed together."""
        return await self._track_many(headers, body, answer_headers, limits.EVENTS_PER_BULK_MAX, legacy)

    async def _track_many(
        self, headers: Any, body: bytes, answer_headers: Headers, most: int, legacy: bool
    ) -> tuple[int, bytes]:
        caller = await self._callers.find(headers, answer_headers, legacy=legacy, writes=True)
        items = usual_events.read(body)
        if items is not None and 1 <= len(items) <= most:
            outcomes = await self.store_all(caller, items, headers, read=None)
        else:
            outcomes = await self.store_all(caller, _items(wire.parse(body), most), headers)
        wrong = refused(outcomes)
        sent = _as_sent(body).events if wrong else ()
        organization, version = self._callers.answered(caller)
        bare = versions.is_bare(version)
        answer = _BatchAnswer(
            successful=_shown(accepted(outcomes), bare=bare, live=organization.live),
            failed=[
                _Failed(
                    index=index,
                    error=f"{each.code}: {each.message}",
                    code=each.code,
                    param=versions.field_name(each.param, version),
                    details=problems.details(each, version=version),
                    data=sent[index] if bare else wire.parse(bytes(sent[index])),
                )
                for index, each in wrong.items()
            ],
            livemode=organization.live,
        )
        return 200, _encode_batch(answer, version, organization)

    async def store_all(
        self, caller: Caller, items: Sequence[Any], headers: Any, read: Read | None = decode
    ) -> Sequence[Outcome]:
        """What became of each item, in order, a slice after the other; `read` makes an event of one, if it is none yet."""
        slices: list[Sequence[Outcome]] = []
        for start in range(0, len(items), limits.EVENTS_PER_SLICE):
            part = items[start : start + limits.EVENTS_PER_SLICE]
            try:
                if read is None:
                    slices.append(await self._submit(caller, part, range(start, start + len(part))))
                else:
                    stored = await self.store(caller, dict(enumerate(part, start)), read)
                    slices.append([*stored.values()])
            except Problem as problem:
                if not slices:
                    raise
                slices.append([problem] * (len(items) - start))  # what is stored must be answered so
                break
        outcomes = slices[0] if len(slices) == 1 else [*chain.from_iterable(slices)]
        self._all_or_nothing(outcomes, headers)
        return outcomes

    async def store(
        self, caller: Caller, items: Mapping[int, Any], read: Read = decode
    ) -> dict[int, Outcome]:
        """What became of each, by its place among all that came with it; a Problem stays what it is.

        Raises Problem when there is no room: nothing is stored then.
        """
        outcomes: dict[int, Outcome] = {}
        events: dict[int, UsageEvent] = {}
        for index, item in items.items():
            try:
                if isinstance(item, Problem):
                    raise item
                events[index] = read(item)
            except Problem as problem:
                outcomes[index] = problem
        if events:
            stored = await self._submit(caller, [*events.values()], [*events])
            outcomes.update(zip(events, stored, strict=True))
        else:
            await self._callers.catch_up(caller)
        return {index: outcomes[index] for index in items}

    async def _submit(
        self, caller: Caller, events: Sequence[UsageEvent], places: Sequence[int]
    ) -> Sequence[Outcome]:
        """Of each event, which has its place in the request."""
        drafts = drafted(events, places, api_key_id=caller.key.id, header=caller.header)
        return await self._batcher.submit(caller.key.organization_id, drafts)

    def refuse_revoked(self, outcomes: Iterable[Outcome], headers: Any) -> None:
        """A revoked key is not the events' fault: it is the request that failed."""
        for each in outcomes:
            if isinstance(each, Problem) and each.code == "unauthorized":
                self._callers.unauthorized(headers)
                raise each

    def _all_or_nothing(self, outcomes: Sequence[Outcome], headers: Any) -> None:
        """A database that is away is not the events' fault either."""
        wrong = [*refused(outcomes).values()]
        self.refuse_revoked(wrong, headers)
        if wrong and len(wrong) == len(outcomes) and all(each.code == "unavailable" for each in wrong):
            raise wrong[0]


def _items(raw: Any, most: int) -> list[Any]:
    items = raw.get("events") if isinstance(raw, dict) else None
    if not isinstance(items, list):
        raise InvalidRequest(FieldError("events", "must be a list of events"))
    if not 1 <= len(items) <= most:
        raise InvalidRequest(FieldError("events", f"must hold 1 to {most} events, not {len(items)}"))
    return items


class _Failed(wire.Out, kw_only=True):
    index: int
    error: str
    code: str
    param: str | None
    details: Any
    data: Any


class _Sent(msgspec.Struct):
    """A batch of which few events are looked at, to be told which were refused."""

    events: list[msgspec.Raw]


_as_sent: Final = msgspec.json.Decoder(_Sent).decode


class _BatchAnswer(wire.Out, kw_only=True):
    successful: list[events.UsageEventOut] | msgspec.Raw
    failed: list[_Failed]
    object: str = "usage_event_batch"
    livemode: bool


def _shown(taken: Sequence[Accepted], *, bare: bool, live: bool) -> list[events.UsageEventOut] | msgspec.Raw:
    written = events.encode_all(taken, live=live) if bare else None
    return events.show_all(taken, live=live) if written is None else written


def _encode_batch(answer: _BatchAnswer, version: str, organization: Organization) -> bytes:
    if versions.is_bare(version):
        return wire.encode(answer)
    assert not isinstance(answer.successful, msgspec.Raw)  # as `_shown` does it for this version
    organization_id = ids.show(ids.ORGANIZATION, organization.id)
    fields = fields_of(answer)
    fields["successful"] = [
        versions.speak(each, version, organization_id=organization_id)["data"] for each in answer.successful
    ]
    return wire.encode({"success": True, "data": fields})
