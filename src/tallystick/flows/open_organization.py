"""Make and change organizations, and their API keys. A key is shown once; what is kept is its hash."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from tallystick.core.limits import NAME_CHARS_MAX
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
    _check(organization)
    await organizations.insert(conn, organization)
    return organization, await make_key(conn, organization=organization, name="First key", wall=wall)


async def change_organization(
    conn: Conn, *, organization_id: UUID, changes: Mapping[str, Any]
) -> Organization:
    """Change its `name`, `timezone`, `api_version` (None: no pin) or `grace_s` (None: the default). From the commit on, every answer of every
    process is as it says now; a new time zone counts from each subscription's next period on."""
    organization = await organizations.get(conn, organization_id=organization_id, lock=True)
    if organization is None:
        raise Problem("not_found", "There is no such organization.")
    changed = replace(organization, **changes)
    _check(changed)
    await organizations.update(conn, changed)
    await db.bump(conn, organization_id=organization_id)
    return changed


def _check(organization: Organization) -> None:
    if not 0 < len(organization.name.strip()) <= NAME_CHARS_MAX:
        raise InvalidRequest(FieldError("name", f"must be 1 to {NAME_CHARS_MAX} characters"))
    if not is_zone(organization.timezone):
        raise InvalidRequest(FieldError("timezone", f"{organization.timezone!r} is not an IANA time zone"))


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
