"""Carry out a request once per Idempotency-Key: the effect and the answer kept for its repeats commit together.

A key that is being worked on is held by an advisory lock for as long as the transaction lasts, so a crash
frees it with everything it did. Only success is kept: a refused request changed nothing, and is judged anew.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

import psycopg

from tallystick.core.limits import IDEMPOTENCY_KEEP
from tallystick.errors import Problem
from tallystick.store import db, organizations
from tallystick.store.db import Conn, Database

_ATTEMPTS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    replayed: bool = False


async def answer_once(
    database: Database,
    *,
    organization_id: UUID,
    key: str | None,
    request_hash: bytes,
    wall: datetime,
    act: Callable[[Conn], Awaitable[Answer]],
    secret: bool = False,
    snapshot: bool = False,
) -> Answer:
    """Run `act` in one transaction, or answer what it answered before. Keys last 24 hours of wall time.

    An answer that holds a secret is not kept: its repeat does nothing and is told so. What PostgreSQL undid to let
    somebody else pass is done again.
    """

    async def attempt() -> Answer:
        async with database.transaction(snapshot=snapshot) as conn:
            if key is None:
                return await act(conn)
            key_hash = hash_key(key)
            kept = await _kept(conn, organization_id, key_hash, request_hash, wall)
            if kept is not None:
                if secret:
                    raise Problem("duplicate", "This was done already, and its secret is shown only once.")
                return kept
            answer = await act(conn)
            await organizations.remember(
                conn,
                organization_id=organization_id,
                key_hash=key_hash,
                request_hash=request_hash,
                status=answer.status,
                body=b"" if secret else answer.body,
                now=wall,
            )
            return answer

    for _ in range(_ATTEMPTS_MAX - 1):
        with suppress(psycopg.errors.DeadlockDetected):
            return await attempt()
    return await attempt()


async def answer_apart(
    database: Database,
    *,
    organization_id: UUID,
    key: str | None,
    request_hash: bytes,
    wall: datetime,
    act: Callable[[], Awaitable[Answer]],
) -> Answer:
    """The same for what waits for the world outside, and so cannot be one transaction.

    `act` keeps a promise of its own under the key and is safe to repeat; two that come with one key at the same
    time do one thing together. Here its answer is only remembered.
    """
    if key is None:
        return await act()
    key_hash = hash_key(key)
    async with database.transaction() as conn:
        kept = await _kept(conn, organization_id, key_hash, request_hash, wall)
    if kept is not None:
        return kept
    answer = await act()
    async with database.reading() as conn:
        await organizations.remember(
            conn,
            organization_id=organization_id,
            key_hash=key_hash,
            request_hash=request_hash,
            status=answer.status,
            body=answer.body,
            now=wall,
        )
    return answer


def hash_key(key: str) -> bytes:
    """As an Idempotency-Key is stored."""
    return sha256(key.encode()).digest()


async def _kept(
    conn: Conn, organization_id: UUID, key_hash: bytes, request_hash: bytes, wall: datetime
) -> Answer | None:
    """What was answered under the key before; holds the key while the transaction lasts."""
    if not await db.try_lock(conn, name=sha256(organization_id.bytes + key_hash).digest()):
        raise Problem("idempotency_in_progress", retry_after_s=1)
    kept = await organizations.remembered(
        conn, organization_id=organization_id, key_hash=key_hash, since=wall - IDEMPOTENCY_KEEP
    )
    if kept is None:
        return None
    known_request, status, body = kept
    if bytes(known_request) != request_hash:
        raise Problem("idempotency_key_mismatch")
    return Answer(status, bytes(body), replayed=True)
