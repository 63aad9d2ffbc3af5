"""What a property keeps of a value: text as it is, a number in full, anything else as compact JSON."""

import json
from decimal import Decimal

from tallystick.core import limits


class Unwritable(Exception):
    """No text that a property could keep says this; the message says why."""


def written(value: object) -> str:
    """Text as it is, a number in full (1e3 → 1000, 2.50 → 2.5), anything else as compact JSON. Raises Unwritable."""
    match value:
        case str():
            return value
        case Decimal():
            whole = format(_bounded(value), "f")
            return whole.rstrip("0").rstrip(".") if "." in whole else whole
    return _json(value, limits.PROPERTY_LEVELS_MAX)


def _json(value: object, levels: int) -> str:
    """The same text for the same content, whatever the order of its names; a number is no float here either."""
    if levels < 0:
        raise Unwritable(f"is nested deeper than {limits.PROPERTY_LEVELS_MAX} levels")
    match value:
        case dict():
            members = (
                f"{json.dumps(name, ensure_ascii=False)}:{_json(each, levels - 1)}"
                for name, each in sorted(value.items())
            )
            return f"{{{','.join(members)}}}"
        case list():
            return f"[{','.join(_json(each, levels - 1) for each in value)}]"
        case Decimal():
            return str(_bounded(value))
    return json.dumps(value, ensure_ascii=False)


def _bounded(number: Decimal) -> Decimal:
    if abs(number.adjusted()) > limits.PROPERTY_VALUE_CHARS_MAX:
        raise Unwritable(f"takes more than {limits.PROPERTY_VALUE_CHARS_MAX} characters to write")
    return number or Decimal(0)
