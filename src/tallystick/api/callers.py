"""Who calls a hot route: known from memory, and answered in the version they speak.

What is known of an organization stands in its book: whatever was judged a moment ago was judged by a book that is up
to date, and that goes for keys and pins too.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from tallystick.api import auth, versions, wire
from tallystick.api.auth import Keyring
from tallystick.api.rate_limits import Headers, RateLimits
from tallystick.core import ids, limits
from tallystick.errors import FieldError, InvalidRequest
from tallystick.flows.books import Books
from tallystick.store.db import Database
from tallystick.store.organizations import ApiKey, Organization


class Caller(NamedTuple):
    key: ApiKey
    version: str | None  # that the request names; None: the organization's pin decides
    header: str | None  # the Idempotency-Key


class Callers:
    def __init__(
        self,
        database: Database,
        books: Books,
        keyring: Keyring,
        wall: Callable[[], datetime],
        rate_limits: RateLimits | None,
    ) -> None:
        self._database = database
        self._books = books
        self._keyring = keyring
        self._wall = wall
        self._rate_limits = rate_limits

    async def find(self, headers: Any, answer_headers: Headers, *, legacy: bool, writes: bool) -> Caller:
        """Somebody who may use usage. Raises Problem."""
        found: dict[bytes, bytes] = dict(headers)
        key = await self._keyring.find(auth.secret_in(found), wall=self._wall)
        if self._rate_limits is not None:
            self._rate_limits.admit(key.id, answer_headers)
        auth.permit(key, "usage", writes=writes)
        if self._books.seen(key.organization_id) is None:
            async with self._database.reading() as conn:
                await self._books.known(conn, key.organization_id)
        given = found.get(b"commet-version")
        version = versions.asked_for(given.decode("latin-1") if given is not None else None, legacy=legacy)
        header = found.get(b"idempotency-key")
        if header is not None and not 0 < len(header) <= limits.IDEMPOTENCY_KEY_CHARS_MAX:
            raise InvalidRequest(
                FieldError("Idempotency-Key", f"must be 1 to {limits.IDEMPOTENCY_KEY_CHARS_MAX} characters")
            )
        return Caller(key, version, header.decode("latin-1") if header is not None else None)

    def refuse_expired(self, caller: Caller) -> None:
        """A request may go on for longer than its key is good."""
        auth.refuse_expired(caller.key, wall=self._wall)

    def unauthorized(self, headers: Any) -> None:
        """The key was revoked: look it up next time."""
        self._keyring.forget(auth.secret_in(dict(headers)) or "")

    async def catch_up(self, caller: Caller) -> None:
        """What is refused before a book judges it was judged by none: see to it that its pin is no old one."""
        if caller.version is None:
            async with self._database.reading() as conn:
                await self._books.current(conn, caller.key.organization_id)

    def answered(self, caller: Caller) -> tuple[Organization, str]:
        """Whose answer it is, and the version it speaks."""
        book = self._books.seen(caller.key.organization_id)
        assert book is not None  # there since `find`
        return book.organization, caller.version or versions.pin_of(book.organization.api_version)

    def pin_of(self, headers: Any) -> str:
        """What a refusal speaks when its request names no version, as far as we know whose it is."""
        key = self._keyring.known(auth.secret_in(dict(headers)))
        book = self._books.seen(key.organization_id) if key is not None else None
        return versions.pin_of(book.organization.api_version if book is not None else None)


def encode(shown: wire.Out, version: str, organization: Organization) -> bytes:
    if versions.is_bare(version):
        return wire.encode(shown)
    return wire.encode(
        versions.speak(shown, version, organization_id=ids.show(ids.ORGANIZATION, organization.id))
    )


def fields_of(shown: wire.Out) -> Any:
    return msgspec.to_builtins(shown, builtin_types=(Decimal,))
