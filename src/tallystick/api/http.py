"""The JSON edge as ASGI: the hot routes first, the table of operations behind them, one error shape for all."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from tallystick.api import metrics, problems, versions
from tallystick.api.bodies import ClientGone, read_body
from tallystick.api.callers import Callers
from tallystick.api.check_routes import CheckRoute
from tallystick.api.cloud_events import CloudEventsRoute
from tallystick.api.ingest_routes import IngestRoutes
from tallystick.api.operations import Incoming, Operation, Outgoing, Services, carry_out
from tallystick.api.rate_limits import Headers
from tallystick.api.request_ids import new_request_id
from tallystick.api.routes import (
    CHECK,
    CLOUD_EVENTS,
    OPERATIONS,
    PREFIXES,
    TRACK,
    TRACK_BATCH,
    TRACK_BULK,
    TRACK_STREAM,
)
from tallystick.api.stream_route import StreamRoute
from tallystick.core import limits
from tallystick.errors import Problem

log = logging.getLogger("tallystick.api")
_LEGACY_SUNSET: Final = "Thu, 31 Dec 2026 23:59:59 GMT"


class Hot(NamedTuple):
    """A route that is answered before the table is asked."""

    handler: Callable[..., Awaitable[tuple[int, bytes]]]
    operation: str
    legacy: bool
    body_bytes_max: int = limits.BODY_BYTES_MAX


class Api:
    """The whole HTTP face of one process. `pages` are the HTML routes and whatever else the root adds."""

    def __init__(
        self,
        services: Services,
        callers: Callers,
        ingest: IngestRoutes,
        stream: StreamRoute,
        check: CheckRoute,
        cloud_events: CloudEventsRoute,
        pages: list[BaseRoute],
    ) -> None:
        self._callers = callers
        self._stream = stream
        self._streams = {prefix + TRACK_STREAM: prefix != PREFIXES[0] for prefix in PREFIXES}
        self.hot: dict[str, Hot] = {}
        for prefix in PREFIXES:
            legacy = prefix != PREFIXES[0]
            self.hot[prefix + TRACK] = Hot(ingest.track, "usage.track", legacy)
            self.hot[prefix + TRACK_BATCH] = Hot(ingest.track_batch, "usage.trackBatch", legacy)
            self.hot[prefix + TRACK_BULK] = Hot(
                ingest.track_bulk, "usage.trackBulk", legacy, limits.BULK_BODY_BYTES_MAX
            )
            self.hot[prefix + CHECK] = Hot(check.check, "usage.check", legacy)
        self.hot[PREFIXES[0] + CLOUD_EVENTS] = Hot(
            cloud_events.receive, "usage.trackCloudEvents", False, limits.BULK_BODY_BYTES_MAX
        )
        self._rest = Starlette(
            routes=[*pages, *_routes(services)],
            exception_handlers={
                HTTPException: _no_route,
                ClientDisconnect: _hung_up,
                Exception: _unexpected,
            },
        )
        self._rest.router.redirect_slashes = False  # a redirect would be an answer without a body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        hot = self.hot.get(scope["path"]) if scope["method"] == "POST" else None
        if hot is not None:
            await self._answer(hot, scope, receive, send)
            return
        if scope["method"] == "POST" and scope["path"] in self._streams:
            await self._answer_stream(scope, receive, send, legacy=self._streams[scope["path"]])
            return
        request_id = new_request_id()
        scope["request_id"] = request_id

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        await self._rest(scope, receive, tagged)

    async def _answer(self, hot: Hot, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body: bytes | Problem = await read_body(receive, hot.body_bytes_max)
        except ClientGone:
            return
        except Problem as problem:
            body = problem
        status, headers, answer = await self.answer(hot, scope["path"], scope["headers"], body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def answer(
        self, hot: Hot, path: str, headers: Headers, body: bytes | Problem
    ) -> tuple[int, Headers, bytes]:
        """What a hot route says to a request with these headers, in bytes; a body that could not be read is refused."""
        started = time.perf_counter()
        request_id, told = _head(path, legacy=hot.legacy)
        try:
            if isinstance(body, Problem):
                raise body
            status, answer = await hot.handler(headers, body, told, legacy=hot.legacy)
        except Exception as error:
            status, answer = self._refusal(error, headers, request_id, told, legacy=hot.legacy)
        if status != 204:
            told += _of_json(answer)
        metrics.count(hot.operation, status, time.perf_counter() - started)
        return status, told, answer

    async def _answer_stream(self, scope: Scope, receive: Receive, send: Send, *, legacy: bool) -> None:
        started = time.perf_counter()
        request_id, told = _head(scope["path"], legacy=legacy)
        status = 200
        try:
            await self._stream.answer(scope, receive, send, told, legacy=legacy, request_id=request_id)
        except ClientGone:
            return
        except Exception as error:
            status, answer = self._refusal(error, scope["headers"], request_id, told, legacy=legacy)
            told += _of_json(answer)
            await send({"type": "http.response.start", "status": status, "headers": told})
            await send({"type": "http.response.body", "body": answer})
        metrics.count("usage.trackStream", status, time.perf_counter() - started)

    def _refusal(
        self, error: Exception, headers: Headers, request_id: str, told: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        problem = problems.problem_of(error, request_id)
        version = _asked_for(headers, legacy) or self._callers.pin_of(headers)
        told += problems.headers(problem)
        # Its frames hold it: each refusal would be a cycle, and wait for a long search for cycles.
        error.__traceback__ = None
        return problem.kind.status, problems.render(problem, version=version)


def _head(path: str, *, legacy: bool) -> tuple[str, Headers]:
    """An id for the request, and what its answer's headers begin with."""
    request_id = new_request_id()
    headers: Headers = [(b"x-request-id", request_id.encode())]
    return request_id, headers + _legacy_headers(path) if legacy else headers


def _of_json(body: bytes) -> Headers:
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]


def _asked_for(headers: Headers, legacy: bool) -> str | None:
    """The version a refusal is phrased for before anybody is authenticated; None: the request names none."""
    named = next((value for name, value in headers if name == b"commet-version"), None)
    try:
        return versions.asked_for(None if named is None else named.decode("latin-1"), legacy=legacy)
    except Problem:
        return versions.CURRENT  # the refusal may well be that the header names nothing


def _legacy_headers(path: str) -> Headers:
    twin = PREFIXES[0] + path.removeprefix(PREFIXES[1])
    return [
        (b"deprecation", b"true"),
        (b"sunset", _LEGACY_SUNSET.encode()),
        (b"link", f'<{twin}>; rel="successor-version"'.encode()),
    ]


def _routes(services: Services) -> list[BaseRoute]:
    routes: list[BaseRoute] = []
    for prefix in PREFIXES:
        for operation in OPERATIONS:
            endpoint = _endpoint(operation, services, legacy=prefix != PREFIXES[0])
            for method, path in ((operation.method, operation.path), *operation.also):
                path = path.replace("{model}", "{model:path}")  # openai/gpt-4o is one name
                routes.append(Route(prefix + path, endpoint, methods=[method]))
    # Literal paths before those with parameters, so that /features/manage is not the feature "manage".
    return sorted(routes, key=lambda route: "{" in getattr(route, "path", ""))


def _endpoint(
    operation: Operation, services: Services, *, legacy: bool
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        started = time.perf_counter()
        outgoing = Outgoing(
            _asked_for(request.scope["headers"], legacy) or versions.CURRENT,
            _legacy_headers(request.url.path) if legacy else [],
        )
        try:
            body = await read_body(request.receive)
            done = await carry_out(
                operation,
                Incoming(
                    method=request.method,
                    path=request.url.path,
                    path_params=request.path_params,
                    query=dict(request.query_params),
                    headers=request.scope["headers"],
                    body=body,
                    legacy=legacy,
                    base_url=str(request.base_url).rstrip("/"),
                    request_id=request.scope["request_id"],
                ),
                outgoing,
                services,
            )
            status, content = done.status, done.body
            if done.replayed:
                outgoing.headers.append((b"idempotency-replayed", b"true"))
        except ClientGone:
            return Response(status_code=499)
        except Exception as error:
            keyed = request.method != "GET" and "idempotency-key" in request.headers
            problem = problems.problem_of(error, request.scope["request_id"], keyed=keyed)
            status, content = problem.kind.status, problems.render(problem, version=outgoing.version)
            outgoing.headers += problems.headers(problem)
        metrics.count(operation.name, status, time.perf_counter() - started)
        response = Response(content, status_code=status, media_type="application/json")
        response.raw_headers += outgoing.headers
        return response

    return answer


async def _no_route(request: Request, error: Exception) -> Response:
    path = request.url.path
    # The table knows nothing beside this hot route; it knows something beside the others, of other methods.
    alone = path == PREFIXES[0] + CLOUD_EVENTS
    if alone or (isinstance(error, HTTPException) and error.status_code == 405):
        problem = Problem("method_not_allowed", f"{request.method} is not known here.")
        allow = (getattr(error, "headers", None) or {}).get("Allow", "")
        known = {method for method in allow.split(", ") if method}
        if alone or path.endswith((TRACK, TRACK_BATCH, TRACK_BULK, TRACK_STREAM)):
            known.add("POST")
        headers = {"Allow": ", ".join(sorted(known))}
    else:
        problem, headers = Problem("not_found", f"There is no route {path}."), {}
    return Response(
        problems.render(problem),
        status_code=problem.kind.status,
        media_type="application/json",
        headers=headers,
    )


async def _hung_up(request: Request, error: Exception) -> Response:
    """In the middle of a page's form; nobody will read this."""
    return Response(status_code=499)


async def _unexpected(request: Request, error: Exception) -> Response:
    problem = problems.problem_of(error, request.scope.get("request_id", ""))
    response = Response(
        problems.render(problem), status_code=problem.kind.status, media_type="application/json"
    )
    response.raw_headers += problems.headers(problem)
    return response


def json_route(path: str, answer: Callable[[], Awaitable[tuple[int, bytes]]]) -> Route:
    """A route outside the table: health, the OpenAPI document."""

    async def endpoint(request: Request) -> Response:
        status, body = await answer()
        return Response(body, status_code=status, media_type="application/json")

    return Route(path, endpoint, methods=["GET"])
