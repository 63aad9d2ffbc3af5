"""An organization's own prices of AI models and names for them. Each change moves the organization's version, so
that ingest in every process prices by it from then on; what was priced before keeps its price.
"""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from tallystick.core.tokens import Override
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.price_tokens import load_prices, unknown
from tallystick.providers.ai_prices import bundled
from tallystick.store import ai, db
from tallystick.store.ai import Alias
from tallystick.store.db import Conn


async def set_price(conn: Conn, *, organization_id: UUID, override: Override) -> Override:
    """Let a model cost what the organization says. A name the catalogue lists is kept as the catalogue writes it,
    so that the price is found under every other name of that model."""
    catalogue = bundled()
    found = catalogue.exactly(override.model) or catalogue.find(override.model)
    if found is not None and override.model.lower() in (found.id.lower(), found.name.lower()):
        override = replace(override, model=found.id)
    await ai.insert_override(conn, organization_id=organization_id, override=override)
    await db.bump(conn, organization_id=organization_id)
    return override


async def drop_price(conn: Conn, *, organization_id: UUID, override_id: UUID, now: datetime) -> None:
    """What was priced by it keeps its price."""
    if not await ai.drop_override(conn, organization_id=organization_id, override_id=override_id, now=now):
        raise Problem("price_not_found")
    await db.bump(conn, organization_id=organization_id)


async def set_alias(conn: Conn, *, organization_id: UUID, alias: Alias) -> None:
    """Let a name mean a model that has a price, in the catalogue or by the organization's word."""
    book = await load_prices(conn, organization_id)
    target = alias.model.lower()
    if target == alias.name.lower():
        raise InvalidRequest(FieldError("model", "is the alias itself"))
    if target not in book.overrides and bundled().find(target) is None:
        raise unknown(book, alias.model)
    if not await ai.insert_alias(conn, organization_id=organization_id, alias=alias):
        raise Problem("duplicate", f"{alias.name!r} means a model already.", param="alias")
    await db.bump(conn, organization_id=organization_id)


async def drop_alias(conn: Conn, *, organization_id: UUID, alias_id: UUID) -> None:
    if not await ai.drop_alias(conn, organization_id=organization_id, alias_id=alias_id):
        raise Problem("not_found", "There is no such alias.")
    await db.bump(conn, organization_id=organization_id)
