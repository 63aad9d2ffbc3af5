"""An organization's own prices of AI models, and its names for them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tallystick.core.money import plain
from tallystick.core.tokens import Override, Rates, TokenPrices
from tallystick.store.db import Conn, rows

_PRICE = "id, model, input, output, cache_read, cache_write, valid_from, valid_until, created_at"


@dataclass(frozen=True, slots=True)
class Alias:
    """A name of the organization's own, and the model it means."""

    id: UUID
    name: str
    model: str
    created_at: datetime


def _override(found: Any) -> Override:
    read, written = (None if each is None else plain(each) for each in found[4:6])
    rates = Rates(plain(found[2]), plain(found[3]), read, written)
    return Override(found[0], found[1], TokenPrices(rates), *found[6:])


async def insert_override(conn: Conn, *, organization_id: UUID, override: Override) -> None:
    await conn.execute(
        f"""INSERT INTO ai_model_prices (organization_id, {_PRICE})
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            organization_id,
            override.id,
            override.model,
            *override.prices.base,
            override.valid_from,
            override.valid_until,
            override.created_at,
        ),
    )


async def overrides(conn: Conn, *, organization_id: UUID) -> list[Override]:
    """All that were not dropped: the latest start first, of one start the newest."""
    found = await rows(
        conn,
        f"""SELECT {_PRICE} FROM ai_model_prices
             WHERE organization_id = %s AND dropped_at IS NULL ORDER BY valid_from DESC, id DESC""",
        (organization_id,),
    )
    return [_override(each) for each in found]


async def page(
    conn: Conn, *, organization_id: UUID, model: str | None, before: UUID | None, limit: int
) -> list[Override]:
    """Newest first, those of one model or of all."""
    found = await rows(
        conn,
        f"""SELECT {_PRICE} FROM ai_model_prices
             WHERE organization_id = %(organization)s AND dropped_at IS NULL
               AND (%(model)s::text IS NULL OR lower(model) = lower(%(model)s))
               AND (%(before)s::uuid IS NULL OR id < %(before)s)
             ORDER BY id DESC LIMIT %(limit)s""",
        {"organization": organization_id, "model": model, "before": before, "limit": limit},
    )
    return [_override(each) for each in found]


async def drop_override(conn: Conn, *, organization_id: UUID, override_id: UUID, now: datetime) -> bool:
    cursor = await conn.execute(
        """UPDATE ai_model_prices SET dropped_at = %s
            WHERE id = %s AND organization_id = %s AND dropped_at IS NULL""",
        (now, override_id, organization_id),
    )
    return cursor.rowcount == 1


async def insert_alias(conn: Conn, *, organization_id: UUID, alias: Alias) -> bool:
    """False: the name is taken."""
    cursor = await conn.execute(
        """INSERT INTO ai_model_aliases (id, organization_id, name, model, created_at)
           VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
        (alias.id, organization_id, alias.name, alias.model, alias.created_at),
    )
    return cursor.rowcount == 1


async def aliases(conn: Conn, *, organization_id: UUID) -> list[Alias]:
    found = await rows(
        conn,
        """SELECT id, name, model, created_at FROM ai_model_aliases
            WHERE organization_id = %s ORDER BY lower(name)""",
        (organization_id,),
    )
    return [Alias(*each) for each in found]


async def drop_alias(conn: Conn, *, organization_id: UUID, alias_id: UUID) -> bool:
    cursor = await conn.execute(
        "DELETE FROM ai_model_aliases WHERE id = %s AND organization_id = %s", (alias_id, organization_id)
    )
    return cursor.rowcount == 1
