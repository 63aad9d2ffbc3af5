"""CloudEvents 1.0: one as it was sent becomes a usage event, and a refusal speaks of it by its own names.

`type` is the event's name, `subject` its customer, `time` its time, `source` and `id` together its key; each member
of `data` is a property, and a number in `data.value` is its value too. Whatever else it says is not kept.
"""

from decimal import Decimal
from hashlib import sha256
from typing import Final

from tallystick.core import limits
from tallystick.core.events import UsageEvent, decode, storable
from tallystick.core.property_text import Unwritable, written
from tallystick.errors import FieldError, InvalidRequest, Problem

SPEC_VERSION: Final = "1.0"
_NAMES: Final = {
    "featureCode": "type",
    "customerId": "subject",
    "timestamp": "time",
    "value": "data.value",
    "properties": "data",
}


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
                properties[name] = written(value)
            except Unwritable as why:
                errors.append(FieldError(f"data.{name}", str(why)))
    return properties
