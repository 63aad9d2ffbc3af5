"""What AI calls cost: a row for each, kept with its event, and what they come to together."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from tallystick.core.times import Period
from tallystick.core.tokens import ExactCost, Rates, TokenCharge, TokenCost, TokenCounts
from tallystick.store.db import Conn, rows
from tallystick.store.places import same


@dataclass(frozen=True, slots=True)
class EventCost:
    """What one event cost by one feature."""

    customer_id: UUID
    event_id: UUID
    feature_id: UUID
    subscription_id: UUID
    occurred_at: datetime
    charge: TokenCharge


_COLUMNS: Final = """customer_id, event_id, feature_id, subscription_id, occurred_at, model, priced_as, input_tokens,
    output_tokens, cache_read_tokens, cache_write_tokens, rates, margin_bps, input_cost, output_cost, cache_read_cost,
    cache_write_cost, subtotal, margin, total, exact, price_source, price_valid_from"""


async def insert(conn: Conn, costs: Sequence[EventCost], *, organization_id: UUID) -> None:
    values = ", ".join(["%s"] * 24)
    async with conn.cursor() as many:
        await many.executemany(
            f"INSERT INTO ai_costs (organization_id, {_COLUMNS}) VALUES ({values})",
            [
                (
                    organization_id,
                    each.customer_id,
                    each.event_id,
                    each.feature_id,
                    each.subscription_id,
                    each.occurred_at,
                    each.charge.model,
                    each.charge.priced_as,
                    *each.charge.counts,
                    list(each.charge.rates),
                    each.charge.margin_bps,
                    *each.charge.cost[:7],
                    list(each.charge.cost.exact),
                    each.charge.source,
                    each.charge.valid_from,
                )
                for each in costs
            ],
        )


async def of_event(conn: Conn, *, customer_id: UUID, event_id: UUID) -> list[EventCost]:
    found = await rows(
        conn,
        f"SELECT {_COLUMNS} FROM ai_costs WHERE customer_id = %s AND event_id = %s ORDER BY feature_id",
        (customer_id, event_id),
    )
    return [_event_cost(each) for each in found]


def _event_cost(found: Sequence[Any]) -> EventCost:
    charge = TokenCharge(
        model=found[5],
        priced_as=found[6],
        counts=TokenCounts(*found[7:11]),
        rates=Rates(*found[11]),
        margin_bps=found[12],
        cost=_cost(found[13:20], found[20]),
        source=found[21],
        valid_from=found[22],
    )
    return EventCost(found[0], found[1], found[2], found[3], found[4], charge)


def _cost(whole: Sequence[int], exact: Sequence[Decimal]) -> TokenCost:
    inputs, outputs, read, written, subtotal, margin, total = whole
    return TokenCost(inputs, outputs, read, written, subtotal, margin, total, ExactCost(*exact))


class Summed(NamedTuple):
    """What the calls of one group come to; costs in rate units, `exact_total` in major units."""

    group: tuple[Any, ...]
    events: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    provider_cost: int
    margin: int
    total: int
    exact_total: Decimal


GROUPS: Final = {
    "model": "c.priced_as",
    "feature": "f.code",
    "customer": "c.customer_id",
    "day": "(c.occurred_at AT TIME ZONE %(timezone)s)::date",
}
"""What costs can be grouped by."""


async def summed(
    conn: Conn,
    *,
    organization_id: UUID,
    span: Period,
    group_by: Sequence[str],
    timezone: str,
    customer_id: UUID | None,
    feature_id: UUID | None,
    model: str | None,
    limit: int,
) -> list[Summed]:
    """In order of what they are grouped by. A voided event cost nothing."""
    keys = [GROUPS[each] for each in group_by]
    places = ", ".join(str(place) for place, _ in enumerate(keys, start=1))
    found = await rows(
        conn,
        f"""SELECT {"".join(f"{key}, " for key in keys)}count(DISTINCT c.event_id), sum(c.input_tokens)::bigint,
                   sum(c.output_tokens)::bigint, sum(c.cache_read_tokens)::bigint,
                   sum(c.cache_write_tokens)::bigint, sum(c.subtotal)::bigint, sum(c.margin)::bigint,
                   sum(c.total)::bigint, sum((SELECT sum(each) FROM unnest(c.exact) AS each))
              FROM ai_costs c JOIN features f ON f.id = c.feature_id
             WHERE c.organization_id = %(organization)s AND c.occurred_at >= %(start)s AND c.occurred_at < %(end)s
               AND (%(customer)s::uuid IS NULL OR c.customer_id = %(customer)s)
               AND (%(feature)s::uuid IS NULL OR c.feature_id = %(feature)s)
               AND (%(model)s::text IS NULL OR %(model)s IN (c.model, c.priced_as))
               AND c.voided IS NULL
               AND NOT EXISTS (SELECT FROM events e
                                WHERE {same("e", "c", named="event_id")} AND e.voided IS NOT NULL)
             {f"GROUP BY {places} ORDER BY {places}" if keys else "HAVING count(*) > 0"}
             LIMIT %(limit)s""",
        {
            "organization": organization_id,
            "start": span.start,
            "end": span.end,
            "timezone": timezone,
            "customer": customer_id,
            "feature": feature_id,
            "model": model,
            "limit": limit,
        },
    )
    return [Summed(tuple(each[: len(keys)]), *each[len(keys) :]) for each in found]
