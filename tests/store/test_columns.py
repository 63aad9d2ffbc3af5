"""Columns that say the same of all rows say it once, and PostgreSQL reads the same rows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
import pytest

from tallystick.store import columns
from tallystick.store.columns import CODE, INSTANT, NUMBER, Kind, Value

AT = datetime(2026, 3, 10, 12, 0, 0, 123_456, UTC)


@pytest.mark.parametrize(
    ("kind", "of", "values"),
    [
        (CODE, "text", ["api_calls"]),
        (CODE, "text", ["api_calls"] * 3),
        (CODE, "text", ["api_calls", "search", "api_calls"]),
        (NUMBER, "text", [Decimal("1"), Decimal("1.0")]),
        (NUMBER, "text", [Decimal("1"), Decimal("-0.000000000001"), Decimal(10**20)]),
        (INSTANT, "timestamptz", [AT, AT]),
        (INSTANT, "timestamptz", [AT, AT - timedelta(days=20_000), AT]),
    ],
)
def test_a_row_reads_its_own_value_whether_all_are_the_same_or_not(
    database_url: str, kind: Kind[Any], of: LiteralString, values: Sequence[Any]
) -> None:
    given = columns.same("v", kind, values)
    assert [isinstance(each, Value) and each.data is None for each in given.values()].count(True) == 1
    with psycopg.connect(database_url) as conn:
        found = conn.execute(
            f"""SELECT coalesce(v, %(v_all)s::{of})
                  FROM unnest(%(n)s::uuid[], %(v)s::{of}[]) WITH ORDINALITY AS t (n, v, nth) ORDER BY nth""",
            {"n": columns.uuids([None] * len(values)), **given},
        ).fetchall()
    assert [Decimal(each) if kind is NUMBER else each for (each,) in found] == values
