"""What lies on disk: every table, index and TOAST table of a database, by name."""

from typing import NamedTuple

import psycopg


class Relation(NamedTuple):
    table: str
    part: str  # "rows", "long values", or an index's name and method


def sizes(conninfo: str) -> dict[Relation, int]:
    """Bytes, all forks of them; a relation without a page is left out."""
    with psycopg.connect(conninfo) as conn:
        found = conn.execute(
            """SELECT owner.relname, CASE c.relkind WHEN 'i' THEN c.relname || ', ' || a.amname
                                     WHEN 't' THEN 'long values' ELSE 'rows' END,
                      (SELECT sum(pg_relation_size(c.oid, fork))
                         FROM unnest('{main,fsm,vm}'::text[]) AS fork)::int8 AS bytes
                 FROM pg_class c
                 LEFT JOIN pg_index i ON i.indexrelid = c.oid
                 LEFT JOIN pg_class indexed ON indexed.oid = i.indrelid
                 LEFT JOIN pg_am a ON a.oid = c.relam
                 JOIN pg_class owner ON owner.oid = coalesce(
                      (SELECT oid FROM pg_class WHERE reltoastrelid = coalesce(i.indrelid, c.oid)),
                      i.indrelid, c.oid)
                WHERE c.relkind IN ('r', 'i', 't') AND owner.relnamespace = 'public'::regnamespace"""
        ).fetchall()
    held: dict[Relation, int] = {}
    for table, part, size in found:
        # The index of a TOAST table belongs to its long values.
        relation = Relation(table, "long values" if part.startswith("pg_toast") else part)
        if size:
            held[relation] = held.get(relation, 0) + size
    return held
