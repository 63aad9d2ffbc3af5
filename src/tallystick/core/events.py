"""Usage events: from a parsed body, in any accepted spelling, to a value, or to named reasons why not.

`api/wire` only parses (numbers arrive as int or Decimal, never float); what is acceptable is judged here.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, TypeGuard
from uuid import UUID
from zlib import crc32

from tallystick.core import limits
from tallystick.core.money import ZERO, fits, text
from tallystick.core.rows import Table, each_of
from tallystick.core.times import parse_instant
from tallystick.core.tokens import COUNT_FIELDS, TokenCounts, read_counts
from tallystick.core.wallets import Draw
from tallystick.errors import FieldError, InvalidRequest

CODE: Final = re.compile(r"[a-z0-9_]{1,100}")
ONE: Final = Decimal(1)
_FEATURE: Final = ("featureCode", "feature", "eventType", "metricKey")
_KEY: Final = ("eventId", "idempotencyKey", "customerEventId")
_TIME: Final = ("timestamp", "ts")
_VALUE: Final = ("value", "quantity")
_MODEL: Final = "model"
_USUAL: Final = frozenset({"featureCode", "customerId", "eventId", "timestamp", "value", "properties"})
SMALL: Final = 1_000_000
"""Below it a whole number fits, told at a glance."""
_TOKENS: Final = frozenset((_MODEL, *COUNT_FIELDS))
SPELLINGS: Final = (
    ("customerId",),
    ("externalId",),
    _FEATURE,
    _VALUE,
    _TIME,
    _KEY,
    (_MODEL,),
    *((name,) for name in COUNT_FIELDS),
    ("properties",),
)
"""Every field of an event, with all the names it may be sent by; the first is ours."""

NUMBERS: Final = frozenset((*_VALUE, *COUNT_FIELDS))
TIMES: Final = frozenset(_TIME)
NAMES: Final = frozenset(("customerId", "externalId", *_FEATURE, *_KEY, _MODEL))
"""Of somebody or something: always text."""
NO_PROPERTIES: Final[Mapping[str, str]] = MappingProxyType({})


class AiCall(NamedTuple):
    """A call of an AI model, as its caller reports it."""

    model: str
    counts: TokenCounts


class UsageEvent(NamedTuple):
    """What a caller reported. `occurred_at` is None where the caller left the time to us."""

    feature: str
    customer: str
    value: Decimal = ONE
    key: str | None = None
    occurred_at: datetime | None = None
    properties: Mapping[str, str] = NO_PROPERTIES
    also_customer: str | None = None  # a second identifier, which must name the same customer
    key_field: str = "eventId"  # as the caller spelled it
    call: AiCall | None = None  # what `value` and `properties` say too: its tokens, and of what model

    @property
    def customers(self) -> tuple[str, ...]:
        """Every identifier that it names its customer by."""
        return (self.customer,) if self.also_customer is None else (self.customer, self.also_customer)

    def as_sent(self) -> tuple[object, ...]:
        """What decides whether a repeat is identical: fields as sent, spelling ignored (ruling 13)."""
        return (self.feature, self.value, self.occurred_at, dict(self.properties))

    def as_text(self) -> str:
        """The same, to be hashed."""
        return _as_text(self.feature, self.value, self.occurred_at, self.properties)

    @property
    def mark(self) -> int:
        """Four bytes by which an event's id knows what was sent, its key with it (`core.ids.marked`)."""
        after = _after_key(self.feature, self.value, self.occurred_at, self.properties)
        return crc32(after, crc32(str(self.key).encode()))


def marks(events: Sequence[UsageEvent]) -> list[int]:
    """The `mark` of each; at least one. Keys, which differ, come first: what follows is often the same."""
    features, _, values, keys, times, properties, *_ = Table.of(UsageEvent, events).columns
    said = each_of(_after_key, features, values, times, properties)
    return [crc32(after, crc32(str(key).encode())) for key, after in zip(keys, said, strict=True)]


def _after_key(feature: str, value: Decimal, at: datetime | None, properties: Mapping[str, str]) -> bytes:
    return f"\0{_as_text(feature, value, at, properties)}".encode()


def _as_text(feature: str, value: Decimal, at: datetime | None, properties: Mapping[str, str]) -> str:
    """No field holds a NUL, so NUL parts them."""
    return f"{_fields(feature, value, at)}{properties_as_text(properties)}"


@lru_cache(maxsize=1024)
def _fields(feature: str, value: Decimal, at: datetime | None) -> str:
    """What many events have in common."""
    return f"{feature}\0{text(value)}\0{at.isoformat() if at else ''}"


def properties_as_text(properties: Mapping[str, str]) -> str:
    """To follow other fields; in one order, whatever the caller's was."""
    return "".join([f"\0{name}\0{properties[name]}" for name in sorted(properties)])


class StoredEvent(NamedTuple):
    """An event as it was counted: immutable from then on."""

    id: UUID
    customer_id: UUID
    feature: str
    value: Decimal
    occurred_at: datetime
    received_at: datetime
    key: str | None = None
    timed: bool = True
    properties: Mapping[str, str] = NO_PROPERTIES
    adjusts: UUID | None = None
    reason: str | None = None
    voids: UUID | None = None  # it takes back the event of that id, of which it is a copy
    voided: int | None = None  # the batch that took it back: a mark beside the facts, in no leaf
    draw: Draw | None = None  # what it took of a wallet: beside the facts too, proved by the ledger

    def as_sent(self) -> tuple[object, ...]:
        return (self.feature, self.value, self.occurred_at if self.timed else None, dict(self.properties))


def decode(raw: object) -> UsageEvent:
    """One event from one parsed JSON object. Raises InvalidRequest with every guilty field."""
    if not isinstance(raw, dict):
        raise InvalidRequest(FieldError("", "an event is a JSON object"))
    return _usual(raw) or _any(raw)


def _usual(raw: dict[str, object]) -> UsageEvent | None:
    """An event in the spelling of today with nothing wrong in it, which `_any` would take the same; else None."""
    if not raw.keys() <= _USUAL:
        return None
    feature, customer, key, time = (
        raw.get("featureCode"),
        raw.get("customerId"),
        raw.get("eventId"),
        raw.get("timestamp"),
    )
    value, given = raw.get("value", 1), raw.get("properties")
    if not (
        type(value) is int
        and 0 <= value < SMALL
        and isinstance(feature, str)
        and _is_text(customer, limits.CUSTOMER_REFERENCE_CHARS_MAX)
        and (key is None or _is_text(key, limits.EVENT_KEY_CHARS_MAX))
        and (time is None or isinstance(time, str))
    ):
        return None
    return usual(feature, customer, value, key, time, given)


def usual(
    feature: str, customer: str, value: int, key: str | None, time: str | None, given: object
) -> UsageEvent | None:
    """An event of a customer, a small value and a key that are known to be right; None when anything else is wrong."""
    if not is_code(feature):
        return None
    occurred_at, properties = None, NO_PROPERTIES
    if time is not None:
        occurred_at = parse_instant(time)
        if occurred_at is None:
            return None
    if given:
        errors: list[FieldError] = []
        properties = _properties(given, errors)
        if errors:
            return None
    return UsageEvent(feature, customer, Decimal(value), key, occurred_at, properties)


def _any(raw: dict[str, object]) -> UsageEvent:
    """The same of an event in any spelling, with a name for all that is wrong."""
    errors: list[FieldError] = []
    feature_field, feature = _one(raw, _FEATURE, errors)
    key_field, key = _one(raw, _KEY, errors)
    time_field, time = _one(raw, _TIME, errors)
    value_field, value = _one(raw, _VALUE, errors)

    if feature is None:
        errors.append(FieldError(feature_field, "is required"))
    elif not isinstance(feature, str) or not is_code(feature):
        errors.append(FieldError(feature_field, "must be 1 to 100 of a-z, 0-9 and _"))
    customer, also = _customers(raw, errors)
    if key is not None and not _is_text(key, limits.EVENT_KEY_CHARS_MAX):
        errors.append(FieldError(key_field, f"must be 1 to {limits.EVENT_KEY_CHARS_MAX} characters of text"))
    occurred_at = None
    if time is not None:
        occurred_at = parse_instant(time) if isinstance(time, str) else None
        if occurred_at is None:
            errors.append(FieldError(time_field, "must be an ISO 8601 date and time"))
    quantity = ONE if value is None else _quantity(value_field, value, errors)
    given = raw.get("properties")
    properties = NO_PROPERTIES if not given else _properties(given, errors)
    call = None
    if not _TOKENS.isdisjoint(raw) and any(raw.get(name) is not None for name in _TOKENS):
        call = _ai_call(raw, value_field if value is not None else None, properties, errors)
    if errors:
        raise InvalidRequest(*errors)
    if call is not None:
        quantity = Decimal(call.counts.total)
        properties = {**properties, **_told_by(call)}
    return UsageEvent(
        feature=feature,  # type: ignore[arg-type]
        customer=customer,
        value=quantity,
        key=key,  # type: ignore[arg-type]
        occurred_at=occurred_at,
        properties=properties,
        also_customer=also,
        key_field=key_field,
        call=call,
    )


def _ai_call(
    raw: Mapping[str, object],
    value_field: str | None,
    properties: Mapping[str, str],
    errors: list[FieldError],
) -> AiCall | None:
    """A call by its model and tokens: both counts, no value beside them."""
    model = raw.get(_MODEL)
    if not _is_text(model, limits.MODEL_CHARS_MAX):
        errors.append(FieldError(_MODEL, f"must be 1 to {limits.MODEL_CHARS_MAX} characters of text"))
    if value_field is not None:
        errors.append(FieldError(value_field, "goes with no tokens: they are the value"))
    errors += [
        FieldError(f"properties.{name}", "is told by the tokens themselves")
        for name in sorted(_TOKENS & properties.keys())
    ]
    try:
        return AiCall(str(model), read_counts(raw))
    except InvalidRequest as wrong:
        errors += wrong.errors
        return None


def _told_by(call: AiCall) -> dict[str, str]:
    """A call's facts as properties of its event, where meters filter and sum them, and every proof covers them."""
    told = {name: str(count) for name, count in zip(COUNT_FIELDS, call.counts, strict=True) if count}
    return {_MODEL: call.model, **told}


def _one(raw: Mapping[str, object], names: tuple[str, ...], errors: list[FieldError]) -> tuple[str, object]:
    """The value of a field that has several spellings; two that disagree are an error."""
    found, value = names[0], None
    for name in names:
        given = raw.get(name)
        if given is not None:
            if value is None:
                found, value = name, given
            elif given != value:
                errors.append(FieldError(name, f"disagrees with {found}"))
    return found, value


@lru_cache(maxsize=4096)
def is_code(text: str) -> bool:
    return CODE.fullmatch(text) is not None


def _is_text(value: object, chars_max: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= chars_max and storable(value)


def storable(given: str) -> bool:
    """Whether a database of UTF-8 text can hold it: no NUL, no half of a surrogate pair."""
    return "\0" not in given and (given.isascii() or given.isprintable() or _encodes(given))


def _encodes(given: str) -> bool:
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True


def _customers(raw: Mapping[str, object], errors: list[FieldError]) -> tuple[str, str | None]:
    ours, theirs = raw.get("customerId"), raw.get("externalId")
    if theirs is None and isinstance(ours, str) and _is_text(ours, limits.CUSTOMER_REFERENCE_CHARS_MAX):
        return ours, None
    given = [
        (name, value) for name, value in (("customerId", ours), ("externalId", theirs)) if value is not None
    ]
    if not given:
        errors.append(FieldError("customerId", "is required"))
        return "", None
    for name, value in given:
        if not _is_text(value, limits.CUSTOMER_REFERENCE_CHARS_MAX):
            errors.append(
                FieldError(name, f"must be 1 to {limits.CUSTOMER_REFERENCE_CHARS_MAX} characters of text")
            )
    first, *rest = (str(value) for _, value in given)
    return first, rest[0] if rest and rest[0] != first else None


def _quantity(name: str, value: object, errors: list[FieldError]) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):  # True is an int to Python only
        errors.append(FieldError(name, "must be a number"))
        return ZERO
    number = Decimal(value)
    if not fits(number):
        errors.append(
            FieldError(
                name,
                f"must be finite, with at most {limits.INTEGER_DIGITS_MAX} digits before the point "
                f"and {limits.FRACTION_DIGITS_MAX} after it",
            )
        )
        return ZERO
    if number < 0:
        errors.append(FieldError(name, "must be 0 or more"))
    return number or ZERO


def _properties(given: object, errors: list[FieldError]) -> Mapping[str, str]:
    """`[{property, value}, …]` as published, or a plain object."""
    pairs: list[tuple[str, object, object]] = []
    if isinstance(given, dict):
        pairs = [(f"properties.{name}", name, value) for name, value in given.items()]
    elif isinstance(given, list):
        for index, item in enumerate(given):
            where = f"properties[{index}]"
            if isinstance(item, dict):
                pairs.append((where, item.get("property"), item.get("value")))
            else:
                errors.append(FieldError(where, "must be {property, value}"))
    else:
        errors.append(FieldError("properties", "must be a list of {property, value}"))
    if len(pairs) > limits.PROPERTIES_PER_EVENT_MAX:
        errors.append(FieldError("properties", f"at most {limits.PROPERTIES_PER_EVENT_MAX} are kept"))
        return {}
    properties: dict[str, str] = {}
    for where, name, value in pairs:
        if not _is_text(name, limits.PROPERTY_NAME_CHARS_MAX):
            errors.append(
                FieldError(
                    where, f"the property's name must be 1 to {limits.PROPERTY_NAME_CHARS_MAX} characters"
                )
            )
        elif not (value == "" or _is_text(value, limits.PROPERTY_VALUE_CHARS_MAX)):
            errors.append(
                FieldError(
                    where, f"the value must be text of at most {limits.PROPERTY_VALUE_CHARS_MAX} characters"
                )
            )
        elif name in properties:
            errors.append(FieldError(where, f"{name!r} is given twice"))
        else:
            properties[str(name)] = str(value)
    return properties
