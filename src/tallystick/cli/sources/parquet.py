"""Parquet, by pyarrow where it is installed: integers, decimals, text and instants, each read exactly.

A column of floats that an event would be made of is refused as a whole. 0.1 is not in it: what is there is the
nearest fraction of a power of two, and which decimal its writer meant is a guess that nobody could verify later.
NDJSON and CSV are another matter, for they say `0.1` in so many digits. Whoever makes the file can cast the column.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tallystick.cli.sources.source import NotReadable, Row
from tallystick.core.limits import ROWS_PER_CHUNK_MAX
from tallystick.core.mapping import Cells, ColumnMapping
from tallystick.core.times import instant_of
from tallystick.errors import FieldError, InvalidRequest, Problem

_INSTALL: Final = "Parquet is read by pyarrow, which is not installed: pip install 'tallystick[parquet]'"
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - the clock's face, whatever its zone
_BYTES_PER_CELL: Final = 64  # about what a short value takes
_BUFFER_BYTES: Final = 1024 * 1024

Read = Callable[[Any], Any]
"""A value as pyarrow gives it → as an event may have it. Raises OverflowError or UnicodeDecodeError."""


class Parquet:
    """`size` and `position` count rows."""

    noun = "row"
    cells = Cells.TYPED

    def __init__(self, arrow: Any, file: Any, mapping: ColumnMapping) -> None:
        self._arrow = arrow
        self._file = file
        self.damage: str | None = None
        self.size: int = file.metadata.num_rows
        self.position = 0
        schema = file.schema_arrow
        self.columns: Sequence[str] = list(schema.names)
        twice = sorted({each for each in self.columns if self.columns.count(each) > 1})
        if twice:
            raise NotReadable(f"The file names a column twice: {', '.join(twice)}")
        self._used: dict[str, Read] = {}
        refused: list[str] = []
        for name in self.columns:
            if mapping.is_used(name):
                try:
                    self._used[name] = _reader(arrow.types, schema.field(name).type, mapping.zone)
                except NotReadable as why:
                    refused.append(f"column {name!r} is of type {schema.field(name).type}: {why}")
        if refused:
            raise NotReadable("; ".join(refused))

    def rows(self) -> Iterator[Row]:
        names = list(self._used)
        plain = not any("." in name for name in names)  # pyarrow takes a dot for the way into a struct
        try:
            for batch in self._file.iter_batches(
                ROWS_PER_CHUNK_MAX, columns=names if plain else None, use_threads=False
            ):
                columns = [self._values(batch.column(name)) for name in names]
                for place in range(batch.num_rows):
                    self.position += 1
                    yield self._row(names, [column[place] for column in columns])
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            self.damage = f"The file is damaged after row {self.position}: {error}"

    def _values(self, column: Any) -> Any:
        """Instants as microseconds since the epoch: what is finer is cut off, as it is of text."""
        arrow = self._arrow
        if arrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if arrow.types.is_timestamp(column.type):
            micros = arrow.timestamp("us", tz=column.type.tz)
            column = column.cast(micros, safe=False).cast(arrow.int64())
        return column

    def _row(self, names: list[str], values: list[Any]) -> Row:
        said: dict[str, Any] = {}
        problem: Problem | None = None
        for name, value in zip(names, values, strict=True):
            try:
                found = value.as_py()
                said[name] = None if found is None else self._used[name](found)
            except (OverflowError, UnicodeDecodeError) as error:
                problem = InvalidRequest(FieldError(name, f"cannot be read: {error}"))
        size = _BYTES_PER_CELL * len(said) + sum(len(each) for each in said.values() if isinstance(each, str))
        return Row(self.position, problem or said, size, repr(said).encode() if problem else None)


@contextmanager
def opened(file: Path, mapping: ColumnMapping) -> Iterator[Parquet]:
    """Only the columns that are used are read, a stretch of pages at a time."""
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise NotReadable(_INSTALL) from None
    try:
        found = parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (OSError, ValueError) as error:
        raise NotReadable(f"This is no Parquet file: {error}") from None
    with found:
        yield Parquet(arrow, found, mapping)


def _reader(types: Any, kind: Any, zone: str | None, *, inside: bool = False) -> Read:
    """How values of a type are read. Raises NotReadable with what to do where they are not."""
    if types.is_dictionary(kind) and not inside:
        return _reader(types, kind.value_type, zone)
    if types.is_floating(kind):
        raise NotReadable(
            "a float is not exact; write it as DECIMAL or as an integer (SQL: CAST(… AS DECIMAL(38, 12))), "
            "or leave it out of what is read"
        )
    if types.is_timestamp(kind) and not inside:
        if kind.tz is not None:
            return _instant
        if zone is None:
            raise NotReadable("its times have no zone; say which one clocks showed them in with --timezone")
        return _local(zone)
    if types.is_date(kind):
        raise NotReadable("a date says no time; write it as a timestamp with a zone")
    if types.is_struct(kind):
        return _struct({each.name: _reader(types, each.type, zone, inside=True) for each in kind})
    if types.is_map(kind):
        return _map(
            _reader(types, kind.key_type, zone, inside=True),
            _reader(types, kind.item_type, zone, inside=True),
        )
    if (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_integer(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    ):
        return _as_it_is
    raise NotReadable("nothing of an event is of that type; write it as text")


def _as_it_is(value: Any) -> Any:
    return value


def _instant(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).replace(tzinfo=UTC).isoformat()


def _local(zone: str) -> Read:
    def read(micros: int) -> str:
        return instant_of(_EPOCH + timedelta(microseconds=micros), zone).isoformat()

    return read


def _struct(members: dict[str, Read]) -> Read:
    def read(value: dict[str, Any]) -> dict[str, Any]:
        return {name: members[name](each) for name, each in value.items() if each is not None}

    return read


def _map(key: Read, item: Read) -> Read:
    def read(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        return {key(name): item(each) for name, each in pairs if each is not None}

    return read
