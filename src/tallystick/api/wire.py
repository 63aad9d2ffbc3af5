"""JSON in and out: numbers become int or Decimal, never float; every wrong field is named."""

from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tallystick.errors import FieldError, InvalidRequest, Problem

T = TypeVar("T")


class In(Struct, rename="camel", kw_only=True):
    """A request body."""


class Out(Struct, rename="camel", kw_only=True):
    """An answer. Fields that are UNSET are absent, None is null."""


Maybe = UnsetType
MISSING: Final = UNSET


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text)
    except (
        InvalidOperation
    ):  # an exponent beyond all bounds: judged later, as every number that is not finite
        return Decimal("NaN")


_decoder: Final = msgspec.json.Decoder(float_hook=_exact)
_encoder: Final = msgspec.json.Encoder(decimal_format="number")
encode = _encoder.encode


def parse(body: bytes) -> Any:
    """Any JSON value; no body at all is an empty object, as the official Python client sends it."""
    if not body:
        return {}
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("invalid_json", f"The body is not valid JSON: {error}") from None


def canonical(value: Any) -> bytes:
    """The same bytes for the same content, whatever the order of keys."""
    return msgspec.json.encode(value, order="sorted")


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


def read(raw: Any, kind: type[T], *, body: bytes = b"\\u0000") -> T:
    """`raw` as a `kind`, or InvalidRequest with every field that is wrong."""
    if not isinstance(raw, dict):
        raise InvalidRequest(FieldError("", "the body must be a JSON object"))
    if b"\\u0000" in body:
        refuse_nul(raw)
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as first:
        raise InvalidRequest(*(_every_error(raw, kind) or [_field_error(str(first))])) from None


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
