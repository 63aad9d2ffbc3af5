"""`POST /usage/events/stream`: events come as lines, and each is answered by a line once its slice is on disk.

Nothing more is read before a slice is answered: who sends faster than we store is held back by the connection
itself, and memory holds one piece of the body and one slice, however long the stream is.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from starlette.types import Message, Receive, Scope, Send

from tallystick.api import bodies, events, problems, versions, wire
from tallystick.api.bodies import ClientGone
from tallystick.api.callers import Caller, Callers
from tallystick.api.ingest_routes import IngestRoutes
from tallystick.api.rate_limits import Headers
from tallystick.api.wire import Maybe, Out
from tallystick.core import ids, limits
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.drafts import Outcome

NDJSON: Final = "application/x-ndjson"


class StreamRoute:
    """Reads a slice, has it stored, writes its answers, reads on."""

    def __init__(self, ingest: IngestRoutes, callers: Callers) -> None:
        self._ingest = ingest
        self._callers = callers

    async def answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        answer_headers: Headers,
        *,
        legacy: bool,
        request_id: str,
    ) -> None:
        """Raises what goes wrong before anything is answered; afterwards the last line tells it."""
        headers = scope["headers"]
        caller = await self._callers.find(headers, answer_headers, legacy=legacy, writes=True)
        answer = Answer(scope, send, answer_headers)
        arriving = _unless(scope["state"]["leaving"], receive)
        try:
            async for lines in _slices(_body(headers, arriving)):
                await answer.write(await self._store(caller, lines, headers))
        except ClientGone:
            raise
        except Exception as error:
            if not answer.begun:
                raise
            problem = problems.problem_of(error, request_id)
            _, version = self._callers.answered(caller)
            await answer.write([_Ended(error=_told(problem, version))])
        await answer.end()

    async def _store(self, caller: Caller, lines: "Sequence[_Line]", headers: Any) -> list[Out]:
        """The answers, in order. Raises Problem where the key is no longer good."""
        items = {line.number - 1: _parse(line.text) for line in lines}
        self._callers.refuse_expired(caller)
        outcomes = await self._submit(caller, items)
        self._ingest.refuse_revoked(outcomes.values(), headers)
        _, version = self._callers.answered(caller)
        return [_show(index + 1, outcome, version) for index, outcome in outcomes.items()]

    async def _submit(self, caller: Caller, items: Mapping[int, Any]) -> Mapping[int, Outcome]:
        """Waits while the queue has no room for the slice, within reason."""
        waited_s = 0
        while True:
            try:
                return await self._ingest.store(caller, items)
            except Problem as problem:
                if problem.retry_after_s is None:
                    raise
                if waited_s >= limits.STREAM_QUEUES_S_MAX:
                    return dict.fromkeys(items, problem)
                await asyncio.sleep(problem.retry_after_s)
                waited_s += problem.retry_after_s


def _unless(leaving: asyncio.Event, receive: Receive) -> Receive:
    """Receives until the server is to stop, and then raises Problem: what came before is answered."""

    async def received() -> Message:
        arriving, stopping = asyncio.ensure_future(receive()), asyncio.ensure_future(leaving.wait())
        try:
            await asyncio.wait((arriving, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not leaving.is_set():
                return arriving.result()
        finally:
            arriving.cancel()
            stopping.cancel()
        raise Problem(
            "unavailable", "The server is stopping; send again what was not answered.", retry_after_s=1
        )

    return received


def _body(headers: Any, receive: Receive) -> AsyncIterator[bytes]:
    encoding = next((value for name, value in headers if name == b"content-encoding"), b"identity").lower()
    if encoding not in (b"identity", b"gzip"):
        raise InvalidRequest(FieldError("Content-Encoding", "must be gzip, or absent"))
    found = bodies.pieces(receive)
    return bodies.inflated(found) if encoding == b"gzip" else found


class _Line(NamedTuple):
    number: int  # from 1; blank lines count
    text: bytes


class _Lines:
    """Cuts what arrives into lines. Of a line that is too long no more is kept than shows that it is."""

    def __init__(self) -> None:
        self._number = 0
        self._rest = b""

    def cut(self, piece: bytes) -> Iterator[_Line]:
        """The lines that `piece` completes, without the blank ones."""
        *ends, rest = piece.split(b"\n")
        for end in ends:
            self._number += 1
            text, self._rest = self._rest + end, b""
            if text and not text.isspace():
                yield _Line(self._number, text)
        self._rest += rest[: limits.STREAM_LINE_BYTES_MAX + 1 - len(self._rest)]


async def _slices(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[_Line]]:
    """So many lines as are stored together, or as there are. Others come in between, whatever the lines are like."""
    lines = _Lines()
    async for piece in pieces:
        found = lines.cut(piece)
        while taken := [*islice(found, limits.EVENTS_PER_SLICE)]:
            yield taken
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    if last := [*lines.cut(b"\n")]:  # at a proper end the last line needs no newline
        yield last


def _parse(text: bytes) -> Any:
    """What the line says, or the Problem that it does not."""
    if len(text) > limits.STREAM_LINE_BYTES_MAX:
        return Problem("payload_too_large", f"The line is longer than {limits.STREAM_LINE_BYTES_MAX} bytes.")
    try:
        return wire.parse(text, "line")
    except Problem as problem:
        return problem


class _Error(Out, kw_only=True):
    code: str
    message: str
    param: str | None
    details: Any


class _Stored(Out, kw_only=True):
    line: int
    status: int = 201
    id: str
    event_id: str | None
    consumption: events.Consumption | Maybe


class _Refused(Out, kw_only=True):
    line: int
    status: int
    error: _Error


class _Ended(Out, kw_only=True):
    """The last line of a stream that is not read to its end."""

    error: _Error


def _show(line: int, outcome: Outcome, version: str) -> Out:
    if isinstance(outcome, Problem):
        return _Refused(line=line, status=outcome.kind.status, error=_told(outcome, version))
    event = outcome.event
    return _Stored(
        line=line,
        id=ids.show(ids.EVENT, event.id),
        event_id=event.key,
        consumption=events.show_consumption(event.draw),
    )


def _told(problem: Problem, version: str) -> _Error:
    return _Error(
        code=problem.code,
        message=problem.message,
        param=versions.field_name(problem.param, version),
        details=problems.details(problem, version=version),
    )


class Answer:
    """The answer on its way: begun with its first line, given up where nobody reads it."""

    def __init__(self, scope: Scope, send: Send, headers: Headers) -> None:
        self._scope = scope
        self._send = send
        self._headers = headers
        self.begun = False

    async def write(self, lines: Sequence[Out]) -> None:
        if lines:
            await self._begin()
            await self._say(
                {"type": "http.response.body", "body": wire.encode_lines(lines), "more_body": True}
            )

    async def end(self) -> None:
        await self._begin()
        await self._say({"type": "http.response.body", "body": b""})

    async def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            headers = [(b"content-type", NDJSON.encode()), *self._headers]
            await self._say({"type": "http.response.start", "status": 200, "headers": headers})

    async def _say(self, message: Message) -> None:
        try:
            async with asyncio.timeout(limits.STREAM_UNREAD_S_MAX):
                await self._send(message)
        except TimeoutError:
            self._scope["state"]["abort"]()  # closing would wait for who does not read
            await asyncio.sleep(0)
            raise ClientGone from None
