"""API keys: shown once, kept as a hash, revoked at once (behaviour.md §22)."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from tallystick.api.features import Deleted, Name
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.wire import In, Out
from tallystick.core import ids
from tallystick.core.times import show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows import open_organization
from tallystick.store import organizations
from tallystick.store.organizations import ApiKey

RESOURCES: Final = frozenset(
    [
        "customer",
        "subscription",
        "invoice",
        "usage",
        "seat",
        "plan",
        "plan_group",
        "feature",
        "addon",
        "credit_pack",
        "offer",
        "promo_code",
        "market_group",
        "payment",
        "transaction",
        "payout",
        "test_clock",
        "organization",
        "api_key",
    ]
)


class CreateApiKey(In, kw_only=True):
    name: Name
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] = 365
    permissions: dict[str, list[Literal["read", "write"]]] | None = None


class ApiKeyOut(Out, kw_only=True):
    id: str
    name: str
    prefix: str
    expires_at: str | None
    last_used_at: str | None
    created_at: str
    object: str = "api_key"
    livemode: bool


class CreatedApiKey(Out, kw_only=True):
    id: str
    name: str
    api_key: str
    prefix: str
    expires_at: str
    created_at: str
    object: str = "api_key"
    livemode: bool


def _show(key: ApiKey, *, live: bool) -> ApiKeyOut:
    return ApiKeyOut(
        id=ids.show(ids.API_KEY, key.id),
        name=key.name,
        prefix=key.prefix,
        expires_at=show_instant(key.expires_at) if key.expires_at else None,
        last_used_at=show_instant(key.last_used_at) if key.last_used_at else None,
        created_at=show_instant(key.created_at),
        livemode=live,
    )


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _permissions(call: Call[CreateApiKey]) -> dict[str, list[str]] | None:
    """What was asked for, which may not be more than the calling key has. Write needs read too."""
    asked = call.body.permissions
    if asked is None:
        if call.key.permissions is not None:
            raise Problem("forbidden", "A restricted key cannot create a key with full access.")
        return None
    permissions: dict[str, list[str]] = {}
    for name, rights in asked.items():
        resource = _snake(name)
        if resource not in RESOURCES:
            raise InvalidRequest(FieldError(f"permissions.{name}", "is not a resource"))
        if "write" in rights and "read" not in rights:
            raise InvalidRequest(FieldError(f"permissions.{name}", "write needs read too"))
        held = call.key.permissions
        if held is not None and not set(rights) <= set(held.get(resource, ())):
            raise Problem("forbidden", f"This key has no such right to {resource} to give.")
        permissions[resource] = list(rights)
    return permissions


async def create(call: Call[CreateApiKey]) -> Reply:
    expires_at = call.wall + timedelta(days=call.body.expires_in_days)
    if call.key.permissions is not None and call.key.expires_at is not None:
        expires_at = min(expires_at, call.key.expires_at)
    made = await open_organization.make_key(
        call.conn,
        organization=call.organization,
        name=call.body.name,
        wall=call.wall,
        expires_at=expires_at,
        permissions=_permissions(call),
    )
    return Reply(
        CreatedApiKey(
            id=ids.show(ids.API_KEY, made.key.id),
            name=made.key.name,
            api_key=made.secret,
            prefix=made.key.prefix,
            expires_at=show_instant(expires_at),
            created_at=show_instant(made.key.created_at),
            livemode=call.live,
        ),
        201,
    )


async def list_all(call: Call[None]) -> Reply:
    limit, before = call.page(ids.API_KEY)
    found = await organizations.list_keys(
        call.conn, organization_id=call.organization.id, before=before, limit=limit + 1
    )
    return Reply(page_of([_show(each, live=call.live) for each in found], limit, lambda each: str(each.id)))


async def delete(call: Call[Any]) -> Reply:
    if call.key.permissions is not None:
        raise Problem("forbidden", "A restricted key cannot delete keys.")
    key_id = call.identity(ids.API_KEY, "id", "api_key_not_found")
    await open_organization.revoke_key(
        call.conn, organization_id=call.organization.id, key_id=key_id, wall=call.wall
    )
    return Reply(Deleted(id=ids.show(ids.API_KEY, key_id), object="api_key", livemode=call.live))


OPERATIONS = (
    Operation(
        name="apiKeys.create",
        method="POST",
        path="/api-keys",
        summary="Create a key; the answer is the only place it is ever shown",
        resource="api_key",
        body=CreateApiKey,
        returns=CreatedApiKey,
        handler=create,
        status=201,
        secret=True,
        errors=("duplicate",),
    ),
    Operation(
        name="apiKeys.list",
        method="GET",
        path="/api-keys",
        summary="List keys that are not revoked, newest first",
        resource="api_key",
        returns=Page[ApiKeyOut],
        handler=list_all,
        query=("limit", "cursor"),
    ),
    Operation(
        name="apiKeys.delete",
        method="DELETE",
        path="/api-keys/{id}",
        summary="Revoke a key: nothing is accepted under it from then on",
        resource="api_key",
        returns=Deleted,
        handler=delete,
        errors=("api_key_not_found",),
    ),
)
