"""Which column of a table says what: a row by its columns becomes the raw event that `core.events.decode` judges.

A column that is called as a field of an event may be called is that field, unless somebody says otherwise.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, auto
from typing import Any, Final

from tallystick.core.events import NAMES, NUMBERS, SPELLINGS, TIMES
from tallystick.core.near_names import NearNames
from tallystick.core.property_text import Unwritable, written
from tallystick.core.times import instant_of, parse_local
from tallystick.errors import FieldError, InvalidRequest

_FIELD_OF: Final = {name: names[0] for names in SPELLINGS for name in names}
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,40}")
_NEAREST_SHOWN: Final = 3


class Cells(Enum):
    """What a row is made of."""

    JSON = auto()  # as a request would say it
    TEXT = auto()  # an empty one says nothing, and a number is written as one
    TYPED = auto()  # of a column with a type; a customer may be a whole number


class BadMapping(Exception):
    """What was asked for cannot be meant; the message says why."""


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """What somebody said about the columns: field → column, field → constant, property → column."""

    fields: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    all_properties: bool = False  # every column that is nothing else is a property
    zone: str | None = None  # where clocks showed the times that have no offset

    by_name: frozenset[str] = field(init=False, compare=False)
    """What a column is called that is a field although nobody spoke of it."""

    def __post_init__(self) -> None:
        said: dict[str, str] = {}
        for name in (*self.fields, *self.constants):
            if name not in _FIELD_OF:
                raise BadMapping(f"an event has no field {name!r}{nearest(name, _FIELD_OF)}")
            other = said.setdefault(_FIELD_OF[name], name)
            if other != name or (name in self.fields and name in self.constants):
                raise BadMapping(f"{name} is said twice" + (f", once as {other}" if other != name else ""))
        for name, constant in self.constants.items():
            if name in NUMBERS and _NUMBER.fullmatch(constant) is None:
                raise BadMapping(f"{name} is a number, not {constant!r}")
        left = {name for name, known in _FIELD_OF.items() if known not in said}
        object.__setattr__(self, "by_name", frozenset(left - self.named))

    @property
    def says_nothing(self) -> bool:
        """Whether a row of JSON is its own event, as it stands."""
        return self == ColumnMapping()

    @property
    def named(self) -> set[str]:
        """The columns that were asked for by name."""
        return {*self.fields.values(), *self.properties.values()}

    def is_used(self, column: str) -> bool:
        """Whether the column says something of an event."""
        return bool(column) and (self.all_properties or column in self.by_name or column in self.named)

    def check(self, columns: Sequence[str]) -> None:
        """Raises BadMapping where a column that was asked for is not there, or nothing says whose or what it is."""
        self.find(columns)
        fields = {_FIELD_OF[name] for name in (*self.fields, *self.constants)}
        fields |= {_FIELD_OF[each] for each in columns if each in self.by_name}
        there = f"the columns are {', '.join(map(repr, columns))}"
        if not fields & {"customerId", "externalId"}:
            raise BadMapping(f"no column says who the customer is: --map customerId=COLUMN; {there}")
        if "featureCode" not in fields:
            raise BadMapping(
                "no column says which feature it is: --map featureCode=COLUMN, or --set featureCode=CODE "
                f"where all rows are of one; {there}"
            )

    def find(self, columns: Iterable[str]) -> None:
        """Raises BadMapping where a column that was asked for is not among these."""
        there = dict.fromkeys(columns)
        for each in sorted(self.named):
            if each not in there:
                raise BadMapping(f"there is no column {each!r}{nearest(each, there)}")

    def event_of(self, row: Mapping[str, Any], cells: Cells) -> dict[str, Any]:
        """The event as somebody would send it. Raises InvalidRequest."""
        if cells is Cells.TEXT:
            row = {name: cell for name, cell in row.items() if cell != ""}
        event: dict[str, Any] = {name: row.get(column) for name, column in self.fields.items()}
        told = {name: row.get(column) for name, column in self.properties.items()}
        known = self.named if self.all_properties else set()
        for column, value in row.items():
            if column in self.by_name:
                event[column] = value
            elif self.all_properties and column and column not in known:
                told.setdefault(column, value)
        for name, value in event.items():
            event[name] = self._read(name, value, cells)
        for name, constant in self.constants.items():
            event[name] = self._read(name, constant, Cells.TEXT)
        if properties := dict(_told(told)):
            event["properties"] = _joined(event.get("properties"), properties)
        return event

    def _read(self, name: str, given: Any, cells: Cells) -> Any:
        if name in TIMES:
            return self._instant(name, given, cells)
        if cells is Cells.TEXT and name in NUMBERS:
            return _number(given)
        if cells is Cells.TYPED and name in NAMES and isinstance(given, int) and not isinstance(given, bool):
            return str(given)
        if cells is Cells.TYPED and name == "properties" and isinstance(given, dict):
            return dict(_told(given))
        return given

    def _instant(self, name: str, given: Any, cells: Cells) -> Any:
        """A time without an offset is placed in the zone that was said. Without one it is refused, but for JSON, where
        it means what it means in a request."""
        local = parse_local(given) if isinstance(given, str) else None
        if local is None or (self.zone is None and cells is Cells.JSON):
            return given
        if self.zone is None:
            raise InvalidRequest(FieldError(name, f"{given!r} has no offset: say its zone with --timezone"))
        try:
            return instant_of(local, self.zone).isoformat()
        except OverflowError:
            return given


def nearest(name: str, known: Iterable[str]) -> str:
    """How to go on after a name that names nothing."""
    names = list(known)
    alike = NearNames(names).nearest(name, _NEAREST_SHOWN)
    if alike:
        return f"; nearest: {', '.join(alike)}"
    return f"; there are {', '.join(names)}" if names else ""


def _number(cell: Any) -> Any:
    """A number that is written as one, exactly; anything else stays what it is, to be refused for it."""
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell) is None:
        return cell
    return int(cell) if _WHOLE.fullmatch(cell) else Decimal(cell)


def _told(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if value is not None:
            try:
                yield name, written(value)
            except Unwritable as why:
                raise InvalidRequest(FieldError(f"properties.{name}", str(why))) from None


def _joined(given: Any, more: dict[str, str]) -> Any:
    """What a row has as `properties` itself, and what columns add to it; `decode` judges both."""
    match given:
        case None:
            return more
        case dict():
            pairs = [*given.items(), *more.items()]
            return [{"property": name, "value": value} for name, value in pairs]
        case list():
            return [*given, *({"property": name, "value": value} for name, value in more.items())]
    return given
