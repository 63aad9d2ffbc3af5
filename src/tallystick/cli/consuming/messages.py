"""What a message says: an event as `POST /usage/events` takes it, or a CloudEvent in structured or binary mode."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from tallystick.api import wire
from tallystick.api.cloud_events import JSON, ONE, attributes
from tallystick.core import cloud_events, limits
from tallystick.core.events import UsageEvent, decode
from tallystick.errors import FieldError, InvalidRequest, Problem


class Read(NamedTuple):
    """An event, and whether it speaks CloudEvents, so that a refusal speaks it too."""

    event: UsageEvent
    is_cloud_event: bool


def read(data: bytes, headers: Mapping[str, str]) -> Read:
    """One message as one event. Raises Problem where it is none."""
    if len(data) > limits.BODY_BYTES_MAX:
        raise Problem("payload_too_large", f"The message is longer than {limits.BODY_BYTES_MAX} bytes.")
    lower = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    given = dict(lower).get(b"content-type", b"").decode()
    kind = given.partition(";")[0].strip().lower()
    if kind not in ("", JSON, ONE):
        raise InvalidRequest(FieldError("Content-Type", f"must be {ONE} or {JSON}, or absent, not {given}"))
    if kind != ONE and (found := attributes(lower)):
        return Read(cloud_events.read(found | {"data": wire.parse(data, "message")}), True)
    raw = wire.parse(data, "message")
    if kind == ONE or (isinstance(raw, dict) and "specversion" in raw):
        return Read(cloud_events.read(raw), True)
    return Read(decode(raw), False)


_PREFIX: Final = "nats:"


def key_of(stream: str, sequence: int, stored_at: str) -> str:
    """The key of an event that brings none: the place of its message in the stream, the same at every delivery.

    When the stream stored it is part of it, for a stream that is made anew counts from 1 again.
    """
    key = f"{_PREFIX}{stream}:{sequence}:{stored_at}"
    if len(key) <= limits.EVENT_KEY_CHARS_MAX:
        return key
    return f"{_PREFIX}sha256:{sha256(key.encode()).hexdigest()}"
