"""Credit packs: what credits are sold in (behaviour.md §12)."""

from dataclasses import replace
from typing import Annotated, Any

from msgspec import Meta
from psycopg.errors import UniqueViolation

from tallystick.api.features import Deleted, Name, Text
from tallystick.api.operations import Call, Operation, Page, Reply, whole
from tallystick.api.plan_shapes import Amount
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import ids, limits
from tallystick.core.times import show_instant
from tallystick.errors import Problem
from tallystick.store import credit_packs
from tallystick.store.credit_packs import CreditPack
from tallystick.store.db import new_id

Credits = Annotated[int, Meta(ge=1, le=limits.CREDITS_MAX)]


class CreateCreditPack(In, kw_only=True):
    name: Name
    credits: Credits
    price: Amount
    description: Text | None = None
    is_active: bool = True


class UpdateCreditPack(In, kw_only=True):
    name: Name | Maybe = MISSING
    credits: Credits | Maybe = MISSING
    price: Amount | Maybe = MISSING
    description: Text | None | Maybe = MISSING
    is_active: bool | Maybe = MISSING


class CreditPackOut(Out, kw_only=True):
    id: str
    name: str
    description: str | None
    credits: int
    price: int
    is_active: bool
    created_at: str
    updated_at: str
    object: str = "credit_pack"
    livemode: bool


class CreditPackItem(Out, kw_only=True):
    id: str
    name: str
    description: str | None
    credits: int
    price: int
    currency: str
    object: str = "credit_pack"
    livemode: bool


def show(pack: CreditPack, *, live: bool) -> CreditPackOut:
    return CreditPackOut(
        id=ids.show(ids.CREDIT_PACK, pack.id),
        name=pack.name,
        description=pack.description,
        credits=pack.credits,
        price=pack.price_minor,
        is_active=pack.is_active,
        created_at=show_instant(pack.created_at),
        updated_at=show_instant(pack.updated_at),
        livemode=live,
    )


def _taken() -> Problem:
    return Problem("duplicate", "Another credit pack has this name.", param="name")


async def create(call: Call[CreateCreditPack]) -> Reply:
    body = call.body
    pack = CreditPack(
        id=new_id(),
        name=body.name,
        description=body.description,
        credits=body.credits,
        price_minor=body.price,
        is_active=body.is_active,
        created_at=call.now,
        updated_at=call.now,
    )
    if not await credit_packs.insert(call.conn, organization_id=call.organization.id, pack=pack):
        raise _taken()
    return Reply(show(pack, live=call.live), 201)


async def list_all(call: Call[None]) -> Reply:
    found = await credit_packs.active(call.conn, organization_id=call.organization.id)
    return Reply(
        whole(
            [
                CreditPackItem(
                    id=ids.show(ids.CREDIT_PACK, each.id),
                    name=each.name,
                    description=each.description,
                    credits=each.credits,
                    price=each.price_minor,
                    currency=call.organization.currency,
                    livemode=call.live,
                )
                for each in found
            ]
        )
    )


async def _held(call: Call[Any]) -> CreditPack:
    found = await credit_packs.get(
        call.conn,
        organization_id=call.organization.id,
        pack_id=call.identity(ids.CREDIT_PACK, "id", "credit_pack_not_found"),
        lock=True,
    )
    if found is None:
        raise Problem("credit_pack_not_found")
    return found


async def update(call: Call[UpdateCreditPack]) -> Reply:
    """What was promised to be charged before keeps its price."""
    pack, body = await _held(call), call.body
    names = {
        "name": "name",
        "credits": "credits",
        "price": "price_minor",
        "description": "description",
        "is_active": "is_active",
    }
    sent: dict[str, Any] = {
        column: value for name, column in names.items() if (value := getattr(body, name)) is not MISSING
    }
    pack = replace(pack, **sent, updated_at=call.now)
    try:
        await credit_packs.update(call.conn, organization_id=call.organization.id, pack=pack)
    except UniqueViolation:
        raise _taken() from None
    return Reply(show(pack, live=call.live))


async def delete(call: Call[None]) -> Reply:
    pack = await _held(call)
    await credit_packs.delete(call.conn, organization_id=call.organization.id, pack_id=pack.id, now=call.now)
    return Reply(Deleted(id=ids.show(ids.CREDIT_PACK, pack.id), object="credit_pack", livemode=call.live))


OPERATIONS = (
    Operation(
        name="creditPacks.create",
        method="POST",
        path="/credit-packs",
        summary="Put credits on sale",
        resource="credit_pack",
        body=CreateCreditPack,
        returns=CreditPackOut,
        handler=create,
        status=201,
        also=(("POST", "/credit-packs/manage"),),
        errors=("duplicate",),
    ),
    Operation(
        name="creditPacks.list",
        method="GET",
        path="/credit-packs",
        summary="List what is on sale, newest first",
        resource="credit_pack",
        returns=Page[CreditPackItem],
        handler=list_all,
    ),
    Operation(
        name="creditPacks.update",
        method="PATCH",
        path="/credit-packs/{id}",
        summary="Change what is sent, leave the rest",
        resource="credit_pack",
        body=UpdateCreditPack,
        returns=CreditPackOut,
        handler=update,
        also=(("PUT", "/credit-packs/{id}"),),
        errors=("credit_pack_not_found", "duplicate"),
    ),
    Operation(
        name="creditPacks.delete",
        method="DELETE",
        path="/credit-packs/{id}",
        summary="Take a pack off sale for good; what was bought of it stays",
        resource="credit_pack",
        returns=Deleted,
        handler=delete,
        errors=("credit_pack_not_found",),
    ),
)
