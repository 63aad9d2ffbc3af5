"""Make organizations and API keys. A key is shown once; what is kept is its hash."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from tallystick.core.times import is_zone
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.store import db, organizations
from tallystick.store.db import Conn, new_id
from tallystick.store.organizations import ApiKey, Organization

_PREFIX_SHOWN_CHARS = 18


@dataclass(frozen=True, slots=True)
class NewKey:
    key: ApiKey
    secret: str


def hash_secret(secret: str) -> bytes:
    """Keys carry 256 random bits, so a plain hash is enough: there is nothing to guess."""
    return sha256(secret.encode()).digest()


async def open_organization(
    conn: Conn, *, name: str, mode: str, timezone: str, clock: datetime | None, wall: datetime
) -> tuple[Organization, NewKey]:
    """A new organization with its first key. Only a sandbox may have a test clock, in the past too."""
    if mode not in ("sandbox", "live"):
        raise InvalidRequest(FieldError("mode", "must be sandbox or live"))
    if not is_zone(timezone):
        raise InvalidRequest(FieldError("timezone", f"{timezone!r} is not an IANA time zone"))
    if clock is not None and mode == "live":
        raise Problem("sandbox_only", "Only a sandbox organization may have a test clock.")
    organization = Organization(
        id=new_id(),
        name=name,
        mode=mode,
        timezone=timezone,
        currency="USD",
        api_version=None,
        simulated_time=clock,
        invoice_prefix="INV",
        created_at=wall,
    )
    await organizations.insert(conn, organization)
    return organization, await make_key(conn, organization=organization, name="First key", wall=wall)


async def make_key(
    conn: Conn,
    *,
    organization: Organization,
    name: str,
    wall: datetime,
    expires_at: datetime | None = None,
    permissions: dict[str, list[str]] | None = None,
) -> NewKey:
    head = "rk" if permissions is not None else "ck"
    secret = f"{head}_{organization.mode}_{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=new_id(),
        organization_id=organization.id,
        name=name,
        prefix=secret[:_PREFIX_SHOWN_CHARS],
        permissions=permissions,
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
        created_at=wall,
    )
    await organizations.insert_key(conn, key, secret_hash=hash_secret(secret))
    return NewKey(key, secret)


async def revoke_key(conn: Conn, *, organization_id: UUID, key_id: UUID, wall: datetime) -> None:
    """From the commit on, nothing is accepted under this key, in no process."""
    if not await organizations.revoke_key(conn, organization_id=organization_id, key_id=key_id, now=wall):
        raise Problem("api_key_not_found")
    await db.bump(conn, organization_id=organization_id)
