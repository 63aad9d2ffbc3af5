"""The versions of the wire: which one an answer speaks, and what older ones say differently.

Answers are made in the current shape. `speak` turns them into what a caller of `version` expects: bare from
2026-07-24 on, in an envelope before, with the names and the flat shapes of the time (behaviour.md §1.4).
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec

from tallystick.errors import FieldError, InvalidRequest

KNOWN: Final = (
    "2026-05-01",
    "2026-05-12",
    "2026-05-18",
    "2026-05-25",
    "2026-06-07",
    "2026-06-10",
    "2026-06-23",
    "2026-07-11",
    "2026-07-24",
    "2026-07-31",
    "2026-08-27",
)
CURRENT: Final = KNOWN[-1]
UNVERSIONED: Final = "0000-00-00"
BARE_SINCE: Final = "2026-07-24"
_EMAIL_SINCE: Final = "2026-06-07"
_ACCESS_SINCE: Final = "2026-06-10"
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")

Fields = dict[str, Any]


def resolve(header: str | None, *, pinned: str | None, legacy: bool) -> str:
    """The header, else (legacy prefix) no version at all, else the organization's pin, else the current one."""
    return asked_for(header, legacy=legacy) or pin_of(pinned)


@lru_cache(maxsize=256)
def asked_for(header: str | None, *, legacy: bool) -> str | None:
    """The version that a request names itself, by header or prefix. None: its organization's pin decides."""
    if header is not None:
        if _DATE.fullmatch(header) is None:
            raise InvalidRequest(FieldError("commet-version", "must be a date such as 2026-08-27"))
        return header
    return UNVERSIONED if legacy else None


def pin_of(pinned: str | None) -> str:
    """What an organization's pin means: a version that is not known, or no pin, is the current one."""
    return pinned if pinned is not None and pinned in KNOWN else CURRENT


def is_bare(version: str) -> bool:
    return version >= BARE_SINCE


def field_name(name: str | None, version: str) -> str | None:
    """A field in an error, as a caller of `version` spells it."""
    return name if name is None or is_bare(version) else _FIELD_BEFORE_BARE.get(name, name)


_FIELD_BEFORE_BARE: Final = {"featureCode": "feature", "eventId": "idempotencyKey"}


def speak(answer: Any, version: str, *, organization_id: str) -> Any:
    """An answer (a Struct, or None) as a caller of `version` reads it, ready to encode."""
    if is_bare(version):
        return answer
    fields = msgspec.to_builtins(answer, builtin_types=(Decimal,))
    if isinstance(fields, dict) and fields.get("object") == "list":
        listed: Fields = {
            "success": True,
            "data": [_older(each, version, organization_id) for each in fields["data"]],
        }
        listed.update({name: fields[name] for name in ("hasMore", "nextCursor") if name in fields})
        return listed
    return {"success": True, "data": _older(fields, version, organization_id)}


def _older(fields: Any, version: str, organization_id: str) -> Any:
    if not isinstance(fields, dict):
        return fields
    kind = fields.get("object", "")
    translate = _BEFORE_BARE.get(kind)
    if translate is not None:
        translate(fields)
    if kind == "usage_event":
        fields["organizationId"] = organization_id
    if kind == "customer" and version < _EMAIL_SINCE and "email" in fields:
        fields["billingEmail"] = fields.pop("email")
    if kind == "feature_access" and version < _ACCESS_SINCE and "overageQuantity" in fields:
        fields["overage"] = fields.pop("overageQuantity")
    if kind in _OBJECT_BEFORE_BARE:
        fields["object"] = _OBJECT_BEFORE_BARE[kind]
    return fields


_OBJECT_BEFORE_BARE: Final = {
    "plan_price": "plan",
    "plan_feature": "plan",
    "customer_batch": "customer",
    "feature_access": "feature",
    "usage_adjustment": "usage_event",
    "test_clock_run": "test_clock",
}


def _rename(fields: Fields, **names: str) -> None:
    for current, older in names.items():
        if current in fields:
            fields[older] = fields.pop(current)


def _usage_event(fields: Fields) -> None:
    _rename(fields, featureCode="feature", eventId="idempotencyKey")
    event = fields["id"]
    fields["properties"] = [
        {"id": f"{event}_{index}", "usageEventId": event, "createdAt": fields["createdAt"], **each}
        for index, each in enumerate(fields["properties"])
    ]


def _usage_adjustment(fields: Fields) -> None:
    _rename(fields, featureCode="feature")
    fields["idempotencyKey"] = None


def _usage_check(fields: Fields) -> None:
    _rename(fields, featureCode="feature")


def _feature_access(fields: Fields) -> None:
    """Flat, as it was before `consumption` was a thing of its own."""
    fields.pop("unitName", None)
    consumption = fields.pop("consumption", None)
    if consumption is None:
        return
    if consumption["model"] != "metered":
        fields["current"] = consumption["unitsUsed"]
        if "availableUnits" in consumption:
            fields["remaining"] = consumption["availableUnits"]
        return
    overage = consumption["overage"]
    fields.update(
        current=consumption["unitsUsed"],
        included=consumption["includedUnits"],
        unlimited=consumption["unlimited"],
        overageEnabled=overage["enabled"],
        overageQuantity=overage["units"],
    )
    if "remainingUnits" in consumption:
        fields["remaining"] = consumption["remainingUnits"]
    if "unitPrice" in overage:
        fields["overageUnitPrice"] = overage["unitPrice"]["amount"]


def _subscription(fields: Fields) -> None:
    for name in ("offerApplications", "pause", "priceId"):
        fields.pop(name, None)
    fields["discount"] = None
    cancellation = fields["cancellation"]
    ended = fields["endDate"] if fields["status"] == "canceled" else None
    fields["canceledAt"] = cancellation["scheduledAt"] if cancellation else ended
    fields["cancelReason"] = cancellation["reason"] if cancellation else None
    fields["scheduledCancellationDate"] = cancellation["effectiveAt"] if cancellation else None


def _plan(fields: Fields) -> None:
    for price in fields.get("prices", ()):
        price["introOffer"] = None


def _plan_price(fields: Fields) -> None:
    fields["introOffer"] = None


_BEFORE_BARE: Final[dict[str, Callable[[Fields], None]]] = {
    "usage_event": _usage_event,
    "usage_adjustment": _usage_adjustment,
    "usage_check": _usage_check,
    "feature_access": _feature_access,
    "subscription": _subscription,
    "plan": _plan,
    "plan_price": _plan_price,
}
