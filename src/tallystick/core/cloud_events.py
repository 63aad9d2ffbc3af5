"""CloudEvents 1.0: one as it was sent becomes a usage event, and a refusal speaks of it by its own names.

`type` is the event's name, `subject` its customer, `time` its time, `source` and `id` together its key; each member
of `data` is a property, and a number in `data.value` is its value too. Whatever else it says is not kept.
"""

import json
from decimal import Decimal
from hashlib import sha256
from typing import Final

from tallystick.core import limits
from tallystick.core.events import UsageEvent, decode, storable
from tallystick.errors import FieldError, InvalidRequest, Problem

SPEC_VERSION: Final = "1.0"
_NAMES: Final = {
    "featureCode": "type",
    "customerId": "subject",
    "timestamp": "time",
    "value": "data.value",
    "properties": "data",
}


class _Unwritable(Exception):
    """No text that a property could keep says this; the message says why."""


def read(raw: object) -> UsageEvent:
    """One event from one parsed JSON object. Raises InvalidRequest with every guilty attribute."""
    if not isinstance(raw, dict):
        raise InvalidRequest(FieldError("", "an event is a JSON object"))
    errors: list[FieldError] = []
    if raw.get("specversion") != SPEC_VERSION:
        errors.append(FieldError("specversion", f'must be "{SPEC_VERSION}"'))
    source, identity = (_named(raw.get(name), name, errors) for name in ("source", "id"))
    if raw.get("data_base64") is not None:
        errors.append(FieldError("data_base64", "is not read; send `data`, a JSON object"))
    data = raw.get("data")
    if data is not None and not isinstance(data, dict):
        errors.append(FieldError("data", "must be a JSON object"))
    members = data if isinstance(data, dict) else {}
    sent = {
        "featureCode": raw.get("type"),
        "customerId": raw.get("subject"),
        "timestamp": raw.get("time"),
        "value": _value(members.get("value")),
        "properties": _properties(members, errors),
    }
    try:
        event = decode(sent)
    except InvalidRequest as wrong:
        errors += (FieldError(_name(field), message) for field, message in wrong.errors)
    if errors:
        raise InvalidRequest(*errors)
    return event._replace(key=key_of(source, identity), key_field="id")


def key_of(source: str, identity: str) -> str:
    """What CloudEvents calls unique is both: the length says where the first ends. Hashed where it is too long."""
    key = f"{len(source)}:{source}:{identity}"
    if len(key) <= limits.EVENT_KEY_CHARS_MAX:
        return key
    return f"sha256:{sha256(key.encode()).hexdigest()}"


def in_its_words(problem: Problem) -> Problem:
    """The same refusal, with the names that a CloudEvent has for what it is about."""
    if isinstance(problem, InvalidRequest):
        return InvalidRequest(*(FieldError(_name(field), message) for field, message in problem.errors))
    return Problem(
        problem.code,
        problem.message,
        param=None if problem.param is None else _name(problem.param),
        details=problem.details,
        retry_after_s=problem.retry_after_s,
    )


def _name(field: str) -> str:
    first, dot, rest = field.partition(".")
    return _NAMES.get(first, first) + dot + rest


def _named(given: object, name: str, errors: list[FieldError]) -> str:
    if isinstance(given, str) and given and storable(given):
        return given
    errors.append(FieldError(name, "is required" if given is None else "must be text, and not empty"))
    return ""


def _value(given: object) -> int | Decimal | None:
    return given if isinstance(given, int | Decimal) and not isinstance(given, bool) else None


def _properties(data: dict[str, object], errors: list[FieldError]) -> dict[str, str]:
    properties: dict[str, str] = {}
    for name, value in data.items():
        if value is not None:
            try:
                properties[name] = _written(value)
            except _Unwritable as why:
                errors.append(FieldError(f"data.{name}", str(why)))
    return properties


def _written(value: object) -> str:
    """Text as it is, a number in full (1e3 → 1000, 2.50 → 2.5), anything else as compact JSON."""
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
        raise _Unwritable(f"is nested deeper than {limits.PROPERTY_LEVELS_MAX} levels")
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
        raise _Unwritable(f"takes more than {limits.PROPERTY_VALUE_CHARS_MAX} characters to write")
    return number or Decimal(0)
