"""Rows by columns: a batch is judged, packed and answered column by column, and most of its rows are never looked at by
themselves. A named tuple is made of those that are.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress, repeat
from typing import Any, Generic, TypeVar, overload

from tallystick.errors import must

T = TypeVar("T")
Row = TypeVar("Row", bound=tuple[Any, ...])
Column = Sequence[Any]


class Table(Sequence[Row], Generic[Row]):
    """A list of named tuples, kept by columns. A column may be a table itself: of rows within the rows."""

    __slots__ = ("columns", "kind")

    def __init__(self, kind: type[Row], *columns: Column) -> None:
        """A column for each field of `kind`, all of one length."""
        self.kind, self.columns = kind, columns

    @classmethod
    def of(cls, kind: type[Row], rows: Sequence[Row]) -> "Table[Row]":
        """These very rows; at least one."""
        return rows if isinstance(rows, Table) else Table(kind, *zip(*rows, strict=True))

    @classmethod
    def joined(cls, kind: type[Row], parts: Sequence[Sequence[Row]]) -> "Table[Row]":
        """The rows of all parts; at least one."""
        if len(parts) == 1:
            return cls.of(kind, parts[0])
        if not any(isinstance(each, Table) for each in parts):
            return cls.of(kind, [*chain.from_iterable(parts)])
        columns = zip(*[cls.of(kind, each).columns for each in parts], strict=True)
        return Table(kind, *map(_joined, columns))

    def __len__(self) -> int:
        return len(self.columns[0])

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> "Table[Row]": ...
    def __getitem__(self, place: int | slice) -> "Row | Table[Row]":
        found = [each[place] for each in self.columns]
        return Table(self.kind, *found) if isinstance(place, slice) else tuple.__new__(self.kind, found)

    def __iter__(self) -> Iterator[Row]:
        """`kind(*values)` for the values of each row, at half the price: no call of Python's is made for it."""
        return map(tuple.__new__, repeat(self.kind), zip(*self.columns, strict=True))

    def where(self, wanted: Sequence[bool]) -> "Table[Row]":
        """The rows that are wanted."""
        return Table(
            self.kind,
            *[
                each.where(wanted) if isinstance(each, Table) else [*compress(each, wanted)]
                for each in self.columns
            ],
        )

    def but(self, **columns: Column) -> "Table[Row]":
        """With other columns in the place of those of these fields."""
        names: Sequence[str] = getattr(self.kind, "_fields")  # noqa: B009
        must(columns.keys() <= set(names), "a column stands for a field")
        return Table(
            self.kind, *[columns.get(name, each) for name, each in zip(names, self.columns, strict=True)]
        )


def _joined(parts: Sequence[Column]) -> Column:
    for each in parts:
        if isinstance(each, Table):
            return Table.joined(each.kind, parts)
    return [*chain.from_iterable(parts)]


def alike(*columns: Column) -> bool:
    """Whether all rows have the same values; at least one."""
    return all(each.count(each[0]) == len(each) for each in columns)


def each_of(say: Callable[..., T], *columns: Column) -> Sequence[T]:
    """`say` of the values of each row; said once where all rows are alike, as those of a batch often are."""
    if alike(*columns):
        return [say(*[each[0] for each in columns])] * len(columns[0])
    return [say(*values) for values in zip(*columns, strict=True)]
