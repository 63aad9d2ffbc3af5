"""What an operation is, and how one is carried out: the same way for every route but the hot ones."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from tallystick.api import auth, versions, wire
from tallystick.api.rate_limits import Headers, RateLimits
from tallystick.core import ids, limits
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.answer_once import Answer, answer_apart, answer_once
from tallystick.flows.books import Books
from tallystick.providers.payments import Payments
from tallystick.store import organizations
from tallystick.store.db import Conn, Database
from tallystick.store.organizations import ApiKey, Organization

B = TypeVar("B")


@dataclass(slots=True)
class Services:
    """What handlers reach the world through; made once per process by `app.py`."""

    database: Database
    books: Books
    payments: Payments
    wall: Callable[[], datetime]
    public_url: str | None
    used_keys: set[int]  # by the numbers of their ids; noted with the next sweep
    rate_limits: RateLimits | None


@dataclass(slots=True)
class Call(Generic[B]):
    """One request, decoded."""

    services: Services
    conn: Conn
    organization: Organization
    key: ApiKey
    version: str
    legacy: bool
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: B
    wall: datetime
    base_url: str
    request_id: str
    asked_once: str | None = None  # the Idempotency-Key

    @property
    def now(self) -> datetime:
        """The organization's clock."""
        return self.organization.simulated_time or self.wall

    @property
    def live(self) -> bool:
        return self.organization.live

    def identity(self, prefix: str, name: str, missing: str) -> UUID:
        """The id in the path; anything that is not one names nothing."""
        found = ids.read(prefix, self.path[name])
        if found is None:
            raise Problem(missing)
        return found

    def flag(self, name: str) -> bool:
        value = self.query.get(name)
        if value not in (None, "true", "false"):
            raise InvalidRequest(FieldError(name, "must be true or false"))
        return value == "true"

    def limit(self) -> int:
        """How many items of a list are wanted."""
        text = self.query.get("limit", str(limits.PAGE_SIZE))
        short = text.isascii() and text.isdecimal() and len(text) < 10
        if not short or not 1 <= int(text) <= limits.PAGE_SIZE_MAX:
            raise InvalidRequest(FieldError("limit", f"must be 1 to {limits.PAGE_SIZE_MAX}"))
        return int(text)

    def page(self, prefix: str) -> tuple[int, UUID | None]:
        """(limit, the id to go on before) from the query."""
        limit, cursor = self.limit(), self.query.get("cursor")
        before = None if cursor is None else ids.read(prefix, cursor)
        if cursor is not None and before is None:
            raise InvalidRequest(FieldError("cursor", "is not a cursor of this list"))
        return limit, before


@dataclass(frozen=True, slots=True)
class Reply:
    data: Any
    status: int = 200


class Page(wire.Out, Generic[B], kw_only=True):
    object: str = "list"
    data: list[B]
    has_more: bool
    next_cursor: str | wire.Maybe = wire.MISSING


def page_of(items: Sequence[Any], limit: int, cursor: Callable[[Any], str]) -> Page[Any]:
    """A page from `limit + 1` items; `cursor` names the item it ends with."""
    shown, more = list(items[:limit]), len(items) > limit
    return Page(data=shown, has_more=more, next_cursor=cursor(shown[-1]) if more else wire.MISSING)


def whole(items: Sequence[Any]) -> Page[Any]:
    """A list that has no pages."""
    return Page(data=list(items), has_more=False)


Handler = Callable[[Call[Any]], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row of the table: all there is to know about a route."""

    name: str  # as the official clients call it
    method: str
    path: str  # under /api/v1
    summary: str
    resource: str  # whose permission it needs
    returns: Any
    handler: Handler | None  # None: a route of its own answers, before the table is asked
    body: type[Any] | None = None
    status: int = 200
    query: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()  # of the query
    also: tuple[tuple[str, str], ...] = ()  # other (method, path) spellings of older clients
    errors: tuple[str, ...] = ()
    writes: bool | None = None
    after: Handler | None = None  # what follows the commit, and answers instead; on connections of its own
    apart: bool = False  # a write that waits for the world outside: transactions of its own, safe to repeat
    snapshot: bool = False  # a write that reads much, and must see one moment of it
    secret: bool = False  # the answer holds a secret, which is kept nowhere
    renames: Mapping[str, str] = field(default_factory=dict)  # older body field → current

    @property
    def changes(self) -> bool:
        return self.method != "GET" if self.writes is None else self.writes


ALIASES: Final[Mapping[str, str]] = {"billingEmail": "email", "seatType": "featureCode"}


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as the transport hands it over."""

    method: str
    path: str
    path_params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    legacy: bool
    base_url: str
    request_id: str

    def header(self, name: bytes) -> str | None:
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None


@dataclass(slots=True)
class Outgoing:
    """How the answer will be put, a refusal too: learnt on the way."""

    version: str
    headers: Headers


async def carry_out(
    operation: Operation, incoming: Incoming, outgoing: Outgoing, services: Services
) -> Answer:
    """Authenticate, decode, act (once per Idempotency-Key), encode."""
    wall, handler = services.wall(), operation.handler
    assert handler is not None  # what has none never comes here
    async with services.database.reading() as conn:
        key = await auth.look_up(conn, auth.secret_in(dict(incoming.headers)), wall=services.wall)
        services.used_keys.add(key.id.int)
        if services.rate_limits is not None:
            services.rate_limits.admit(key.id, outgoing.headers)
        asked_once = None if operation.method == "GET" else _idempotency_key(incoming)
        raw = None if operation.method == "GET" else wire.parse(incoming.body)
        call = await _call(operation, incoming, outgoing, services, conn, key, raw, wall)
        call.asked_once = asked_once
        if not operation.changes:
            return _encode(await handler(call), call)

    async def act(conn: Conn) -> Answer:
        call.conn = conn
        call.organization = await _organization(conn, key)  # its clock may have moved while we waited
        return _encode(await handler(call), call)

    request_hash = sha256(f"{incoming.method} {incoming.path}\n".encode() + wire.canonical(raw)).digest()
    if operation.apart:

        async def act_apart() -> Answer:
            return _encode(await handler(call), call)

        return await answer_apart(
            services.database,
            organization_id=key.organization_id,
            key=asked_once,
            request_hash=request_hash,
            wall=wall,
            act=act_apart,
        )
    answer = await answer_once(
        services.database,
        organization_id=key.organization_id,
        key=asked_once,
        request_hash=request_hash,
        wall=wall,
        act=act,
        secret=operation.secret,
        snapshot=operation.snapshot,
    )
    if operation.after is not None and not answer.replayed:
        return _encode(await operation.after(call), call)
    return answer


async def _organization(conn: Conn, key: ApiKey) -> Organization:
    organization = await organizations.get(conn, organization_id=key.organization_id)
    if organization is None:
        raise Problem("unauthorized")
    return organization


def _idempotency_key(incoming: Incoming) -> str | None:
    key = incoming.header(b"idempotency-key")
    if key is not None and not 0 < len(key) <= limits.IDEMPOTENCY_KEY_CHARS_MAX:
        raise InvalidRequest(
            FieldError("Idempotency-Key", f"must be 1 to {limits.IDEMPOTENCY_KEY_CHARS_MAX} characters")
        )
    return key


async def _call(
    operation: Operation,
    incoming: Incoming,
    outgoing: Outgoing,
    services: Services,
    conn: Conn,
    key: ApiKey,
    raw: Any,
    wall: datetime,
) -> Call[Any]:
    auth.permit(key, operation.resource, writes=operation.changes)
    organization = await _organization(conn, key)
    version = outgoing.version = versions.resolve(
        incoming.header(b"commet-version"), pinned=organization.api_version, legacy=incoming.legacy
    )
    for name, value in (*incoming.path_params.items(), *incoming.query.items()):
        wire.refuse_nul(value, name)
    return Call(
        services=services,
        conn=conn,
        organization=organization,
        key=key,
        version=version,
        legacy=incoming.legacy,
        path=incoming.path_params,
        query=incoming.query,
        body=_body(operation, incoming, raw),
        wall=wall,
        base_url=services.public_url or incoming.base_url,
        request_id=incoming.request_id,
    )


def _body(operation: Operation, incoming: Incoming, raw: Any) -> Any:
    if operation.body is None:
        return None
    if isinstance(raw, dict):
        raw = dict(raw)
        for older, current in (*ALIASES.items(), *operation.renames.items()):
            if older in raw and current not in raw:
                raw[current] = raw.pop(older)
    return wire.read(raw, operation.body, body=incoming.body)


def _encode(reply: Reply, call: Call[Any]) -> Answer:
    spoken = versions.speak(
        reply.data, call.version, organization_id=ids.show(ids.ORGANIZATION, call.organization.id)
    )
    return Answer(reply.status, wire.encode(spoken))
