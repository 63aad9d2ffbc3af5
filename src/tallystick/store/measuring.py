"""Total read back: of spans and the pieces they are cut into, from rollups where an hour is whole and from raw
events where it is cut. One statement, however many pieces there are and however many versions measured them.
"""

from collections.abc import Container, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from tallystick.core.meters import Meter, Total
from tallystick.core.times import whole_hours
from tallystick.core.windows import Ruled, with_whole_hours
from tallystick.store.db import Conn, rows
from tallystick.store.meter_sql import Contributions, contributions, latest_at, merged
from tallystick.store.places import within
from tallystick.store.usage import MEMBERS, member

Group = tuple[str | None, ...]
"""The value of each property that was asked for; None where an event does not have it."""

_BEFORE_NEXT_HOUR: Final = "interval '59 minutes 59.999999 seconds'"
_NO_SETS: Final = "SELECT block, members FROM usage_sets WHERE false"


async def usage_of_pieces(conn: Conn, *, customer_id: UUID, parts: Sequence[Ruled]) -> dict[int, Total]:
    """What each piece amounts to; pieces without events are absent. UNIQUE amounts to 0 here: `distinct_counts`."""
    said = _Statement(customer_id)
    sources: list[str] = []
    for part in parts:
        hours, edges, counts = said.hours(part), said.edges(part), contributions(part.meter, said.name())
        if hours is not None:
            sources.append(
                f"""SELECT {said.piece(part, "h.hour")} AS piece, h.events, h.quantity, h.latest_at AS at
                      FROM usage_hours h
                     WHERE h.customer_id = %(customer)s AND h.meter_id = {said.of(part.meter.id)}
                       AND {hours} AND h.events > 0"""
            )
        if edges is not None:
            sources.append(
                f"""SELECT {said.piece(part, "e.occurred_at")} AS piece, 1::bigint AS events,
                           {counts.quantity} AS quantity, e.occurred_at AS at
                      FROM {said.events_of(edges, counts)}"""
            )
    found = await said.ask(
        conn,
        f"""SELECT piece, sum(events)::bigint, {merged(parts[0].meter)}, {latest_at(parts[0].meter)}
              FROM ({_union(sources)}) AS measured GROUP BY piece""",
    )
    return {piece: Total(*total) for piece, *total in found}


async def distinct_counts(conn: Conn, *, customer_id: UUID, parts: Sequence[Ruled]) -> dict[int, int]:
    """How many distinct values each piece has; pieces without any are absent.

    Sets of hours unite with those of the edges beside them; a piece without a whole hour is counted as it is.
    """
    said = _Statement(customer_id)
    hourly = with_whole_hours(parts)
    shorter = {number for part in parts for number, _ in part.pieces} - hourly
    counts: list[str] = []
    if hourly:
        sets = [*(said.sets(part) for part in parts), *(said.edge_sets(part, hourly) for part in parts)]
        counts.append(
            f"""SELECT piece, sum(bit_count(members))::bigint
                  FROM (SELECT piece, block, bit_or(members) AS members
                          FROM ({_union(sets)}) AS met GROUP BY piece, block) AS sets GROUP BY piece"""
        )
    if shorter:
        values = _union(said.edge_values(part, shorter) for part in parts)
        counts.append(
            f"""SELECT piece, count(*) FROM (SELECT DISTINCT piece, value FROM ({values}) AS met) AS each
                 GROUP BY piece"""
        )
    return dict(await said.ask(conn, _union(counts)))


async def met_in(conn: Conn, *, customer_id: UUID, part: Ruled, values: Sequence[bytes]) -> frozenset[bytes]:
    """Those of `values` (hashes) that the span has met."""
    said = _Statement(customer_id)
    asked = f"{said.of(list(values))}::bytea[]"
    sets, edges = said.sets(part, "SELECT block FROM asked"), said.edge_values(part)
    found = [
        "SELECT a.value_hash FROM asked a JOIN met USING (block) WHERE get_bit(met.members, a.place) = 1"
    ]
    if edges is not None:
        found.append(f"SELECT value_hash FROM ({edges}) AS near WHERE value_hash = ANY({asked})")
    rows_found = await said.ask(
        conn,
        f"""WITH asked AS (
                SELECT d.value_hash, d.number / {MEMBERS} AS block, mod(d.number, {MEMBERS}) AS place
                  FROM unnest({asked}) AS v (value_hash)
                 CROSS JOIN LATERAL {said.number(part.meter, "v.value_hash")} d
            ), met AS MATERIALIZED (
                SELECT block, bit_or(members) AS members FROM ({sets or _NO_SETS}) AS sets GROUP BY block)
            {_union(found)}""",
    )
    return frozenset(bytes(each[0]) for each in rows_found)


async def usage_of_groups(
    conn: Conn,
    *,
    customer_id: UUID,
    parts: Sequence[Ruled],
    properties: Sequence[str],
    by_piece: bool,
    rows_max: int,
) -> dict[tuple[int | None, Group], Total]:
    """What the raw events of each group amount to, in each piece or (None) in the whole span; not for UNIQUE.

    At most `rows_max` rows are read: a caller that finds so many knows that there may be more.
    """
    said = _Statement(customer_id)
    names = _names(properties)
    piece = "piece" if by_piece else "NULL::int"
    found = await said.ask(
        conn,
        f"""SELECT {piece} AS piece, count(*), {merged(parts[0].meter)}, {latest_at(parts[0].meter)}, {names}
              FROM ({said.grouped(parts, properties)}) AS measured GROUP BY 1, {names} LIMIT {rows_max}""",
    )
    return {(each[0], tuple(each[4:])): Total(*each[1:4]) for each in found}


async def distinct_in_groups(
    conn: Conn,
    *,
    customer_id: UUID,
    parts: Sequence[Ruled],
    properties: Sequence[str],
    by_piece: bool,
    rows_max: int,
) -> dict[tuple[int | None, Group], Total]:
    """The same for UNIQUE; always with the whole span, for distinct values do not add up."""
    said = _Statement(customer_id)
    names = _names(properties)
    events = f"({said.grouped(parts, properties)}) AS measured"
    if by_piece:
        statement = f"""WITH cells AS MATERIALIZED (
                SELECT piece, {names}, value, count(*) AS events FROM {events} GROUP BY piece, {names}, value)
            {_distinct_in_whole(names, "cells", "sum(events)")}
             UNION ALL
            SELECT piece, sum(events)::bigint, count(*)::numeric, {names} FROM cells GROUP BY piece, {names}"""
    else:
        statement = _distinct_in_whole(names, events, "count(*)")
    found = await said.ask(conn, f"{statement} LIMIT {rows_max}")
    return {(each[0], tuple(each[3:])): Total(each[1], each[2]) for each in found}


def _distinct_in_whole(names: str, source: str, events: str) -> str:
    return f"""SELECT NULL::int AS piece, sum(events)::bigint, count(*)::numeric, {names}
                 FROM (SELECT {names}, value, {events} AS events FROM {source} GROUP BY {names}, value) AS met
                GROUP BY {names}"""


def _names(properties: Sequence[str]) -> str:
    return ", ".join(f"group_{number}" for number in range(len(properties)))


def _union(sources: Iterable[str | None]) -> str:
    return " UNION ALL ".join(each for each in sources if each is not None)


class _Statement:
    """A statement that is being put together, and its parameters."""

    def __init__(self, customer_id: UUID) -> None:
        self._params: dict[str, Any] = {"customer": customer_id}
        self._cuts: dict[Ruled, str] = {}
        self._names = 0

    async def ask(self, conn: Conn, statement: str) -> list[Any]:
        return await rows(conn, statement, self._params)

    def name(self) -> str:
        self._names += 1
        return str(self._names)

    def of(self, value: Any) -> str:
        name = f"given_{self.name()}"
        self._params[name] = value
        return f"%({name})s"

    def piece(self, part: Ruled, at: str) -> str:
        """The number of the piece that an instant falls in."""
        if len(part.cuts) == 2:
            return f"{part.first}"
        if part not in self._cuts:
            self._cuts[part] = self.of(list(part.cuts))
        return f"{part.first - 1} + width_bucket({at}, {self._cuts[part]}::timestamptz[])"

    def hours(self, part: Ruled, hour: str = "h.hour") -> str | None:
        """The condition for an hour to lie whole in one piece; None when there is none."""
        whole, _ = whole_hours(part.span)
        if whole is None:
            return None
        condition = f"{hour} >= {self.of(whole.start)} AND {hour} < {self.of(whole.end)}"
        if len(part.cuts) > 2 and part.edges():
            last = self.piece(part, f"{hour} + {_BEFORE_NEXT_HOUR}")
            condition += f" AND {self.piece(part, hour)} = {last}"
        return condition

    def edges(self, part: Ruled, among: Container[int] | None = None) -> str | None:
        """What the whole hours leave over, as a relation of spans; None when they leave nothing."""
        edges = part.edges(among)
        if not edges:
            return None
        starts, ends = self.of([each.start for each in edges]), self.of([each.end for each in edges])
        return f"unnest({starts}::timestamptz[], {ends}::timestamptz[]) AS edge (starts, ends)"

    def events_of(self, edges: str, counts: Contributions) -> str:
        """The raw events `e` of some edges: a range of the index each, whatever the planner thinks of them."""
        self._params |= counts.params
        return f"""{edges} CROSS JOIN LATERAL (
            SELECT e.occurred_at, e.value, e.adjusts, e.properties FROM events e
             WHERE e.customer_id = %(customer)s AND {within("edge.starts", "edge.ends")}
               AND {counts.matches} OFFSET 0) e"""

    def number(self, meter: Meter, value_hash: str) -> str:
        """The number of a value, by a probe of the index."""
        return f"""(
            SELECT d.value_hash, d.number FROM distinct_values d
             WHERE d.customer_id = %(customer)s AND d.feature_id = {self.of(meter.feature_id)}
               AND d.value_hash = {value_hash} OFFSET 0)"""

    def sets(self, part: Ruled, blocks: str | None = None) -> str | None:
        """The sets of whole hours, each with its piece and block; None when no hour is whole."""
        hours = self.hours(part, "u.hour")
        if hours is None:
            return None
        within = "" if blocks is None else f" AND u.block IN ({blocks})"
        return f"""SELECT {self.piece(part, "u.hour")} AS piece, u.block, u.members FROM usage_sets u
                    WHERE u.customer_id = %(customer)s AND u.meter_id = {self.of(part.meter.id)}
                      AND {hours}{within}"""

    def edge_values(self, part: Ruled, among: Container[int] | None = None) -> str | None:
        """The values of raw events that no whole hour holds, each with its piece; None when there are none."""
        edges = self.edges(part, among)
        if edges is None:
            return None
        counts = contributions(part.meter, self.name())
        return f"""SELECT {self.piece(part, "e.occurred_at")} AS piece, {counts.value} AS value,
                          {counts.value_hash} AS value_hash
                     FROM {self.events_of(edges, counts)}"""

    def edge_sets(self, part: Ruled, among: Container[int]) -> str | None:
        """The same, as sets of one value each."""
        values = self.edge_values(part, among)
        if values is None:
            return None
        return f"""SELECT v.piece, d.number / {MEMBERS} AS block, {member("d.number")} AS members
                     FROM (SELECT DISTINCT piece, value_hash FROM ({values}) AS met) AS v
                    CROSS JOIN LATERAL {self.number(part.meter, "v.value_hash")} d"""

    def grouped(self, parts: Sequence[Ruled], properties: Sequence[str]) -> str:
        """Every raw event with its piece, its groups and what it contributes."""
        sources: list[str] = []
        for part in parts:
            counts = contributions(part.meter, self.name())
            self._params |= counts.params
            groups = ", ".join(
                f"e.properties ->> {self.of(name)}::text AS group_{number}"
                for number, name in enumerate(properties)
            )
            in_span = within(self.of(part.span.start), self.of(part.span.end))
            sources.append(
                f"""SELECT {self.piece(part, "e.occurred_at")} AS piece, {groups},
                           {counts.quantity} AS quantity, e.occurred_at AS at, {counts.value or "NULL::text"} AS value
                      FROM events e
                     WHERE e.customer_id = %(customer)s AND {in_span} AND {counts.matches}"""
            )
        return _union(sources)
