"""Columns of a batch as binary PostgreSQL arrays, packed by `bytes.join`.

psycopg dumps a list element by element in Python, about 2 µs each; a batch has some fifteen columns, so that was
most of what an event cost. These packers know the few types that ingest sends and take a tenth of it. Values
without a short binary form (numeric, jsonb) travel as text and are cast by the statement.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

from psycopg import adapters
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from tallystick.core.money import text
from tallystick.core.rows import alike

T = TypeVar("T")

_UUID, _BYTEA, _TEXT, _TIMESTAMPTZ, _BOOL, _BIGINT = 2950, 17, 25, 1184, 16, 20
_ARRAYS: Final = {_UUID: 2951, _BYTEA: 1001, _TEXT: 1009, _TIMESTAMPTZ: 1185, _BOOL: 1000, _BIGINT: 1016}
_HEADER: Final = Struct("!iiIii")  # dimensions, has nulls, element type, length, lower bound
_INSTANT: Final = Struct("!iq").pack
_INTEGER: Final = _INSTANT  # both are eight bytes
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LENGTHS: Final = tuple(size.to_bytes(4) for size in range(1024))
_NULL: Final = b"\xff\xff\xff\xff"
_SIXTEEN: Final = _LENGTHS[16]
_LENGTH_BYTES: Final = 4
_TRUE: Final = _LENGTHS[1] + b"\x01"
_FALSE: Final = _LENGTHS[1] + b"\x00"


class Column:
    """An array parameter that is already in PostgreSQL's own form."""

    __slots__ = ("data", "oid")

    def __init__(self, element: int, elements: Sequence[bytes], *, before_each: bytes = b"") -> None:
        """Elements with their lengths before them, or all of one length, which is `before_each`."""
        self.oid = _ARRAYS[element]
        head = _HEADER.pack(1, 1, element, len(elements), 1)
        self.data = head + before_each + before_each.join(elements) if elements else head


class Value:
    """One value, or NULL, of a type that is known either way."""

    __slots__ = ("data", "oid")

    def __init__(self, oid: int, data: bytes | None) -> None:
        self.oid, self.data = oid, data


Given = Column | Value


def uuids(values: Iterable[UUID | None]) -> Column:
    return digests([None if each is None else each.int.to_bytes(16) for each in values])


def hashes(values: Iterable[bytes | None]) -> Column:
    """Of 16 bytes each."""
    return Column(_BYTEA, [_NULL if each is None else _SIXTEEN + each for each in values])


def digests(values: Sequence[bytes | None]) -> Column:
    """Hashes of 16 bytes that are kept as uuids, which need no length before them."""
    found = [each for each in values if each is not None]
    if len(found) == len(values):
        return Column(_UUID, found, before_each=_SIXTEEN)
    return Column(_UUID, [_NULL if each is None else _SIXTEEN + each for each in values])


def texts(values: Iterable[str | None]) -> Column:
    found = [None if each is None else each.encode() for each in values]
    sizes = {None if each is None else len(each) for each in found}
    if len(sizes) == 1 and (size := sizes.pop()) is not None:  # keys of a program are often of one length
        return Column(_TEXT, cast(list[bytes], found), before_each=size.to_bytes(4))
    return Column(_TEXT, [_NULL if each is None else _sized(each) for each in found])


def _each_once(values: Iterable[T | None], pack: Callable[[T], bytes]) -> Sequence[bytes]:
    """Most columns hold few different values, often but one, which are packed once and then looked up."""
    values = tuple(values)
    if values and alike(values):
        return (_NULL if values[0] is None else pack(values[0]),) * len(values)
    packed = {each: _NULL if each is None else pack(each) for each in set(values)}
    return [packed[each] for each in values]


def numbers(values: Iterable[Decimal | None]) -> Column:
    """As text, to be cast to numeric."""
    return Column(_TEXT, _each_once(values, _number))


@lru_cache(maxsize=4096)
def _number(value: Decimal) -> bytes:
    return _sized(text(value).encode())


def objects(values: Iterable[Mapping[str, str]]) -> Column:
    """As JSON text, to be cast to jsonb; an empty one is NULL."""
    return Column(_TEXT, [_sized(json.dumps(each).encode()) if each else _NULL for each in values])


def documents(values: Iterable[bytes | None]) -> Column:
    """JSON that is written already, to be cast to jsonb."""
    return Column(_TEXT, [_NULL if each is None else _sized(each) for each in values])


def instants(values: Iterable[datetime | None]) -> Column:
    """To the microsecond, in integers: timedelta keeps days, seconds and microseconds apart."""
    return Column(_TIMESTAMPTZ, _each_once(values, _instant))


@lru_cache(maxsize=1024)
def _instant(at: datetime) -> bytes:
    since = at - _EPOCH
    return _INSTANT(8, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def integers(values: Iterable[int | None]) -> Column:
    return Column(_BIGINT, [_NULL if each is None else _INTEGER(8, each) for each in values])


def flags(values: Iterable[bool | None]) -> Column:
    return Column(_BOOL, [_NULL if each is None else _TRUE if each else _FALSE for each in values])


class Kind(NamedTuple, Generic[T]):
    """Of columns that may say the same of all rows: the type, and a value with its length before it."""

    element: int
    pack: Callable[[T], bytes]


CODE: Final[Kind[str]] = Kind(_TEXT, lambda code: _sized(code.encode()))
NUMBER: Final[Kind[Decimal]] = Kind(_TEXT, _number)
INSTANT: Final[Kind[datetime]] = Kind(_TIMESTAMPTZ, _instant)


def same(name: str, kind: Kind[T], values: Sequence[T]) -> dict[str, Given]:
    """The parameter `name` with a value for each row; or, where all are the same, `name`_all with that one. The other is NULL."""
    if alike(values):
        each: Given = Value(_ARRAYS[kind.element], None)
        every = Value(kind.element, kind.pack(values[0])[_LENGTH_BYTES:])
    else:
        each = Column(kind.element, _each_once(values, kind.pack))
        every = Value(kind.element, None)
    return {name: each, f"{name}_all": every}


def _sized(data: bytes) -> bytes:
    size = len(data)
    return (_LENGTHS[size] if size < 1024 else size.to_bytes(4)) + data


class _ColumnDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Given) -> Buffer | None:
        return obj.data

    def get_key(self, obj: Given, format: Any) -> Any:
        return (self.cls, obj.oid)

    def upgrade(self, obj: Given, format: Any) -> Dumper:
        dumper = _ColumnDumper(type(obj))
        dumper.oid = obj.oid
        return dumper


adapters.register_dumper(Column, _ColumnDumper)
adapters.register_dumper(Value, _ColumnDumper)
