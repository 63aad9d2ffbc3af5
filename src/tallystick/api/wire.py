"""JSON in and out: numbers become int or Decimal, never float; every wrong field is named."""

from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Final, TypeVar, cast, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tallystick.core.limits import METADATA_BYTES_MAX
from tallystick.errors import FieldError, InvalidRequest, Problem

T = TypeVar("T")


class In(Struct, rename="camel", kw_only=True):
    """A request body."""


class Out(Struct, rename="camel", kw_only=True):
    """An answer. Fields that are UNSET are absent, None is null."""


Maybe = UnsetType
MISSING: Final = UNSET


_BEYOND: Final = Decimal("9E+999999")
_DIGITS_KEPT_MAX: Final = 100


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds: any number our limits refuse will do
        return _BEYOND


_decoder: Final = msgspec.json.Decoder(float_hook=_exact)


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Reads numbers as `parse` does."""
    return msgspec.json.Decoder(kind, float_hook=_exact)


_encoder: Final = msgspec.json.Encoder(decimal_format="number")
_canonical: Final = msgspec.json.Encoder(decimal_format="number", order="sorted")
encode = _encoder.encode
encode_lines = _encoder.encode_lines


def parse(body: bytes, what: str = "body") -> Any:
    """Any JSON value; no body at all is an empty object, as the official Python client sends it."""
    if not body:
        return {}
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("invalid_json", f"The {what} is not valid JSON: {error}") from None


def canonical(value: Any) -> bytes:
    """The same bytes for the same content, whatever the order of keys."""
    return _canonical.encode(value)


def bounded_metadata(value: object) -> None:
    """Metadata is for notes, not for files."""
    if isinstance(value, dict) and len(encode(value)) > METADATA_BYTES_MAX:
        raise InvalidRequest(FieldError("metadata", f"is larger than {METADATA_BYTES_MAX} bytes"))


def refuse_nul(value: Any, where: str = "") -> None:
    """A database of text cannot hold a NUL; say so before it does."""
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidRequest(FieldError(where, "must not contain a NUL character"))
    elif isinstance(value, dict):
        for name, each in value.items():
            refuse_nul(name, where or "body")
            refuse_nul(each, f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            refuse_nul(each, f"{where}[{index}]")


def refuse_wild(value: Any, where: str = "") -> None:
    """A number that takes a byte to write and a megabyte to keep is nobody's metadata."""
    if isinstance(value, Decimal):
        if abs(value.adjusted()) > _DIGITS_KEPT_MAX or len(value.as_tuple().digits) > _DIGITS_KEPT_MAX:
            raise InvalidRequest(FieldError(where, f"a number has at most {_DIGITS_KEPT_MAX} digits"))
    elif isinstance(value, dict):
        for name, each in value.items():
            refuse_wild(each, f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            refuse_wild(each, f"{where}[{index}]")


def read(raw: Any, kind: type[T], *, body: bytes = b"\\u0000") -> T:
    """`raw` as a `kind`, or InvalidRequest with every field that is wrong."""
    if not isinstance(raw, dict):
        raise InvalidRequest(FieldError("", "the body must be a JSON object"))
    if b"\\u0000" in body:
        refuse_nul(raw)
    refuse_wild(raw)
    texts = [name for name in _numbers(cast(Any, kind)) if isinstance(raw.get(name), str)]
    if texts:
        raise InvalidRequest(*(FieldError(name, "expected a number, got `str`") for name in texts))
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as first:
        raise InvalidRequest(*(_every_error(raw, kind) or [_field_error(str(first))])) from None


@cache
def _numbers(kind: type[Any]) -> tuple[str, ...]:
    """The fields that are exact numbers: msgspec would take their text too, " 5 " and "Infinity" included."""
    return tuple(
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if Decimal in (field.type, *get_args(field.type))
    )


def _every_error(raw: dict[str, Any], kind: type[Any]) -> list[FieldError]:
    errors = []
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in raw:
            if field.required:
                errors.append(FieldError(field.encode_name, "is required"))
            continue
        try:
            msgspec.convert(raw[field.encode_name], field.type)
        except msgspec.ValidationError as error:
            errors.append(_field_error(str(error), field.encode_name))
    return errors


def _field_error(message: str, name: str = "") -> FieldError:
    """msgspec says: Expected `str`, got `int` - at `$.address.city`."""
    reason, _, path = message.partition(" - at `$")
    return FieldError(
        name + path.rstrip("`").removeprefix("." if not name else ""), reason[:1].lower() + reason[1:]
    )
