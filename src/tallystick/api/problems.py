"""Errors as the wire shows them: nested for current clients, flat copies for the oldest (behaviour.md §1.6)."""

import logging
from typing import Any, Final

import psycopg
from psycopg_pool import PoolTimeout

from tallystick.api.rate_limits import Headers
from tallystick.api.versions import CURRENT, UNVERSIONED, field_name
from tallystick.api.wire import encode
from tallystick.errors import Problem

log = logging.getLogger("tallystick.api")
_DOCS: Final = "https://commet.co/docs/api-reference"


def problem_of(error: BaseException, request_id: str, *, keyed: bool = False) -> Problem:
    """What the caller is told of an exception; what is ours to mend goes into the log with the request's id.

    `keyed`: the request came with an Idempotency-Key, so there was a store of answers to ask.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, psycopg.OperationalError | PoolTimeout):
        log.warning("%s: the database did not answer: %s", request_id, str(error).strip())
        return Problem(
            "idempotency_unavailable" if keyed else "unavailable",
            "The database is not available; nothing was changed. Send the request again with the same key.",
            retry_after_s=1,
        )
    log.error("%s: unexpected error", request_id, exc_info=error)
    return Problem("internal_error", f"Something went wrong on our side; the request was {request_id}.")


def render(problem: Problem, *, version: str = CURRENT) -> bytes:
    shown = details(problem, version=version)
    inner: dict[str, Any] = {
        "type": problem.kind.type,
        "code": problem.code,
        "message": problem.message,
        "details": shown,
        "doc_url": f"{_DOCS}/{CURRENT if version == UNVERSIONED else version}/errors/{problem.code}.md",
    }
    if problem.param is not None:
        inner["param"] = field_name(problem.param, version)
    return encode(
        {
            "success": False,
            "error": inner,
            "code": problem.code,
            "message": problem.message,
            "details": shown,
        }
    )


def details(problem: Problem, *, version: str) -> Any:
    """Its facts, with fields as a caller of `version` spells them."""
    if not isinstance(problem.details, list):
        return problem.details
    return [{**each, "field": field_name(each["field"], version)} for each in problem.details]


def headers(problem: Problem) -> Headers:
    found: Headers = []
    if problem.retry_after_s is not None:
        found.append((b"retry-after", str(problem.retry_after_s).encode()))
    if problem.kind.status == 401:
        found.append((b"www-authenticate", b"Bearer"))
    return found
