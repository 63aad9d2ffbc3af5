"""Who calls: an API key in `x-api-key` or as a Bearer token, hashed before anything looks for it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from tallystick.errors import Problem
from tallystick.flows.open_organization import hash_secret
from tallystick.store import organizations
from tallystick.store.db import Conn, Database
from tallystick.store.organizations import ApiKey

_PREFIXES: Final = ("ck_", "rk_")
_REMEMBERED_MAX: Final = 10_000


class Keyring:
    """The keys this process has seen, for the hot routes. Revocation is noticed by the ingest transaction itself
    (`flows.books`); expiry is checked each time; a key that is not known is asked for each time."""

    def __init__(self, database: Database, used: set[int]) -> None:
        self._database = database
        self._used = used
        self._keys: dict[bytes, ApiKey] = {}

    async def find(self, secret: str | None, *, wall: Callable[[], datetime]) -> ApiKey:
        """The key, from memory if possible: for routes that check revocation in their own transaction."""
        if secret is None or not secret.startswith(_PREFIXES):
            raise Problem("unauthorized", "Send an API key in the x-api-key header.")
        digest = hash_secret(secret)
        key = self._keys.get(digest)
        if key is None:
            async with self._database.reading() as conn:
                key = await look_up(conn, secret, wall=wall)
            if len(self._keys) >= _REMEMBERED_MAX:
                self._keys.clear()
            self._keys[digest] = key
        refuse_expired(key, wall=wall)
        self._used.add(key.id.int)
        return key

    def known(self, secret: str | None) -> ApiKey | None:
        """A key this process has seen, whatever has become of it since."""
        return None if secret is None else self._keys.get(hash_secret(secret))

    def forget(self, secret: str) -> None:
        self._keys.pop(hash_secret(secret), None)


async def look_up(conn: Conn, secret: str | None, *, wall: Callable[[], datetime]) -> ApiKey:
    if secret is None or not secret.startswith(_PREFIXES):
        raise Problem("unauthorized", "Send an API key in the x-api-key header.")
    key = await organizations.key_by_hash(conn, secret_hash=hash_secret(secret))
    if key is None or key.revoked_at is not None:
        raise Problem("unauthorized", "This API key is not valid.")
    refuse_expired(key, wall=wall)
    return key


def refuse_expired(key: ApiKey, *, wall: Callable[[], datetime]) -> None:
    if key.expires_at is not None and key.expires_at <= wall():
        raise Problem("unauthorized", "This API key has expired.")


def permit(key: ApiKey, resource: str, *, writes: bool) -> None:
    """Keys without a list of permissions may do everything in their organization."""
    if key.permissions is not None and ("write" if writes else "read") not in key.permissions.get(
        resource, ()
    ):
        raise Problem("forbidden", f"This API key may not {'write' if writes else 'read'} {resource}.")


def secret_in(headers: Mapping[bytes, bytes]) -> str | None:
    """The key that a request shows, by its headers; `x-api-key` before `authorization`."""
    if (key := headers.get(b"x-api-key")) is not None:
        return key.decode("latin-1")
    bearer = headers.get(b"authorization", b"")
    return bearer[7:].decode("latin-1") if bearer[:7].lower() == b"bearer " else None
