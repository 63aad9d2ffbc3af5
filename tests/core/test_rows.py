"""Tables are lists of named tuples, whichever way one looks at them."""

from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.rows import Table, each_of


class Point(NamedTuple):
    x: int
    y: int | None


class Spot(NamedTuple):
    point: Point
    name: str


points = st.builds(Point, st.integers(0, 3), st.none() | st.integers(0, 3))
spots = st.lists(st.builds(Spot, points, st.text(max_size=2)), min_size=1, max_size=6)


def by_columns(rows: Sequence[Spot]) -> Table[Spot]:
    """With a table within."""
    within = Table.of(Point, [each.point for each in rows])
    return Table(Spot, within, [each.name for each in rows])


@given(spots, st.data())
def test_a_table_is_read_as_a_list_is(rows: list[Spot], data: st.DataObject) -> None:
    for table in (Table.of(Spot, rows), by_columns(rows)):
        assert [*table] == rows and all(type(each) is Spot for each in table)
        assert [table[place] for place in range(len(table))] == rows
        assert table[-1] == rows[-1] and type(table[0].point) is Point
        some = data.draw(st.slices(len(rows)))
        assert [*table[some]] == rows[some]
        wanted = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        assert [*table.where(wanted)] == [*compress(rows, wanted)]
        names = [each.name * 2 for each in rows]
        assert [*table.but(name=names)] == [each._replace(name=each.name * 2) for each in rows]
        with pytest.raises(IndexError):
            table[len(rows)]


@given(st.lists(st.tuples(st.sampled_from([list, by_columns]), spots), min_size=1, max_size=4))
def test_parts_of_either_kind_are_joined(parts: list[tuple[Any, list[Spot]]]) -> None:
    joined = Table.joined(Spot, [form(rows) for form, rows in parts])
    assert [*joined] == [each for _, rows in parts for each in rows]


def test_a_table_is_taken_as_it_is() -> None:
    table = by_columns([Spot(Point(1, None), "a")])
    assert Table.of(Spot, table) is table
    assert Table.joined(Spot, [table]) is table


@given(spots)
def test_what_is_said_of_each_is_said_once_where_all_are_alike(rows: list[Spot]) -> None:
    said: list[tuple[Point, str]] = []

    def say(point: Point, name: str) -> str:
        said.append((point, name))
        return f"{point} {name}"

    table = Table.of(Spot, rows)
    assert [*each_of(say, *table.columns)] == [f"{each.point} {each.name}" for each in rows]
    assert len(said) == (1 if len(set(rows)) == 1 else len(rows))
