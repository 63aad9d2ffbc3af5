"""A meter in SQL: which raw events count, and for how much, exactly as `core.meters.measure` says.

A test holds the two together over everything a property can say. Events are called `e` in these expressions.
"""

from dataclasses import dataclass
from typing import Any, Final

from tallystick.core.limits import FRACTION_DIGITS_MAX, INTEGER_DIGITS_MAX
from tallystick.core.meters import ASCII_BLANKS, BLANKS, NUMBER, Aggregation, Filter, Meter, Operator, number

_USUAL: Final = rf"^-?[0-9]{{1,{INTEGER_DIGITS_MAX}}}(\.[0-9]{{1,{FRACTION_DIGITS_MAX}}})?$"
"""Most numbers, told at a glance."""


@dataclass(frozen=True, slots=True)
class Contributions:
    """What the raw events `e` of one meter contribute."""

    matches: str  # a condition; unknown means no
    alike: str  # the same, whatever was taken back: also of a void, and of what it takes back
    quantity: str
    value: str | None  # for UNIQUE: the text whose distinct values count
    params: dict[str, Any]

    @property
    def value_hash(self) -> str:
        """The same bytes as `core.meters.distinct_hash`."""
        return f"substring(sha256(convert_to({self.value}, 'UTF8')) for 16)"


def contributions(meter: Meter, name: str = "", *, of: str | None = None) -> Contributions:
    """`name` tells the parameters of several meters in one statement apart.

    `of`: what the meter says comes from columns of this name instead, so that one statement serves meters that
    differ in nothing else.
    """
    said = _Said(name, of)
    adjusting = "e.adjusts IS NULL"
    conditions = [adjusting, *(_lets_through(each, said) for each in meter.filters)]
    quantity, value = "e.value", None
    if meter.aggregation is Aggregation.COUNT:
        quantity = "1::numeric"
    elif meter.property_name is not None:
        text = said.property(meter.property_name)
        if meter.aggregation is Aggregation.UNIQUE:
            quantity, value = "0::numeric", text
            # What begins with a visible letter is not blank: told at a glance, a third of what trimming takes.
            conditions.append(
                f"(ascii({text}) BETWEEN 33 AND 126 OR btrim({text}, {said.text(BLANKS)}) <> '')"
            )
        else:
            quantity = _number(text, said)
            conditions.append(f"{quantity} IS NOT NULL")
    matches = " AND ".join(conditions)
    if meter.adds_up:
        matches = f"({matches} OR e.adjusts = {said.of(meter.feature_id)}::uuid)"
        quantity = f"CASE WHEN {adjusting} THEN {quantity} ELSE e.value END"
    counts = "e.voids IS NULL AND e.voided IS NULL"
    alike = f"e.feature_code = {said.text(meter.event_code)} AND {matches}"
    return Contributions(f"{alike} AND {counts}", alike, quantity, value, said.params)


def merged(meter: Meter) -> str:
    """How the `quantity` and `at` of events or hours make one; those of UNIQUE are all 0, its sets are elsewhere."""
    match meter.aggregation:
        case Aggregation.MAX:
            return "max(quantity)"
        case Aggregation.LATEST:  # of one instant the larger, as `core.meters.merge` says
            return "(array_agg(quantity ORDER BY at DESC, quantity DESC))[1]"
    return "sum(quantity)"


def latest_at(meter: Meter) -> str:
    """When the quantity of LATEST was so; nobody else needs to know."""
    return "max(at)" if meter.aggregation is Aggregation.LATEST else "NULL::timestamptz"


class _Said:
    """Values on their way into a statement, each under a name of its own."""

    def __init__(self, name: str, source: str | None) -> None:
        self._name = name
        self._source = source
        self.params: dict[str, Any] = {}

    def of(self, value: Any) -> str:
        name = f"said_{self._name}_{len(self.params)}"
        self.params[name] = value
        return f"%({name})s" if self._source is None else f"{self._source}.{name}"

    def text(self, value: str) -> str:
        return f"{self.of(value)}::text"

    def property(self, name: str) -> str:
        return f"(e.properties ->> {self.text(name)})"


def _lets_through(one: Filter, said: _Said) -> str:
    given = said.property(one.property_name)
    match one.operator:
        case Operator.EQUALS:
            return f"{given} = {said.text(one.value)}"
        case Operator.NOT_EQUALS:
            return f"{given} IS DISTINCT FROM {said.text(one.value)}"
        case Operator.CONTAINS:
            return f"strpos({given}, {said.text(one.value)}) > 0"
    right = number(one.value)
    if right is None:
        return "false"
    than = ">" if one.operator is Operator.GREATER_THAN else "<"
    return f"{_number(given, said)} {than} {said.of(right)}::numeric"


def _number(given: str, said: _Said) -> str:
    """`core.meters.number`: its grammar and its bounds, or NULL."""
    trimmed = f"btrim({given}, {said.text(ASCII_BLANKS)})"
    return (
        f"(CASE WHEN {given} ~ {said.text(_USUAL)} THEN {given}::numeric"
        f" WHEN {trimmed} ~ {said.text(f'^({NUMBER})$')} THEN"
        f" CASE WHEN abs({trimmed}::numeric) < 1e{INTEGER_DIGITS_MAX}"
        f" AND {trimmed}::numeric = trunc({trimmed}::numeric, {FRACTION_DIGITS_MAX})"
        f" THEN {trimmed}::numeric END END)"
    )
