"""Feature access: what a customer may use, and how much of it is used (behaviour.md §3.1)."""

from decimal import Decimal
from typing import Any

from tallystick.api.operations import Call, Operation, Page, Reply, whole
from tallystick.api.wire import MISSING, Maybe, Out
from tallystick.core.catalog import FeatureType
from tallystick.core.money import RATE_SCALE, plain, text, to_rate
from tallystick.core.pricing import unit_amount
from tallystick.core.times import show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows import check_access
from tallystick.flows.check_access import Access, Held


class UnitPrice(Out, kw_only=True):
    amount: int
    amount_decimal: str
    currency: str
    scale: int = int(RATE_SCALE)


class OverageOut(Out, kw_only=True):
    enabled: bool
    units: Decimal
    unit_price: UnitPrice | Maybe = MISSING


class PeriodOut(Out, kw_only=True):
    start: str
    end: str


class Metered(Out, kw_only=True):
    model: str = "metered"
    period: PeriodOut
    units_used: Decimal
    included_units: Decimal
    remaining_units: Decimal | Maybe = MISSING
    unlimited: bool
    overage: OverageOut


class FeatureAccess(Out, kw_only=True):
    code: str
    name: str
    unit_name: str | None
    allowed: bool
    type: str
    enabled: bool | Maybe = MISSING
    consumption: Metered | Maybe = MISSING
    will_be_charged: bool | Maybe = MISSING
    reason: str | Maybe = MISSING
    object: str = "feature_access"
    livemode: bool


def show(access: Access, call: Call[Any]) -> FeatureAccess:
    feature, terms = access.feature, access.terms
    shown = FeatureAccess(
        code=feature.code,
        name=feature.name,
        unit_name=feature.unit_name,
        allowed=access.allowed,
        type=feature.type.value,
        livemode=call.live,
    )
    if feature.type is not FeatureType.USAGE:
        shown.enabled = terms.enabled
        return shown
    overage = OverageOut(enabled=terms.overage_enabled, units=plain(access.overage))
    if terms.overage_enabled:
        overage.unit_price = UnitPrice(
            amount=to_rate(unit_amount(terms.price)),
            amount_decimal=text(unit_amount(terms.price)),
            currency=call.organization.currency,
        )
    shown.consumption = Metered(
        period=PeriodOut(start=show_instant(access.period.start), end=show_instant(access.period.end)),
        units_used=plain(access.used),
        included_units=plain(terms.included),
        remaining_units=MISSING if terms.unlimited else plain(access.remaining),
        unlimited=terms.unlimited,
        overage=overage,
    )
    if call.query.get("action") == "canUse":
        shown.will_be_charged = terms.overage_enabled and not terms.unlimited and access.remaining == 0
        if not access.allowed:
            shown.reason = "included_limit_reached" if terms.enabled else "feature_disabled"
    return shown


def customer_reference(call: Call[Any]) -> str:
    reference = call.query.get("customerId") or call.query.get("externalId")
    if not reference:
        raise InvalidRequest(FieldError("customerId", "is required"))
    return reference


async def _held(call: Call[Any]) -> Held | None:
    return await check_access.held(
        call.conn,
        call.services.books,
        organization_id=call.organization.id,
        reference=customer_reference(call),
        now=call.now,
    )


async def get(call: Call[None]) -> Reply:
    holding = await _held(call)
    if holding is None:
        raise Problem("no_active_subscription")
    feature = holding.catalogue.features.get(call.path["code"])
    if feature is None:
        raise Problem("feature_not_found", f"There is no feature {call.path['code']!r}.")
    access = await check_access.access_to(call.conn, holding, feature)
    if access is None:
        raise Problem("feature_not_in_plan")
    return Reply(show(access, call))


async def list_all(call: Call[None]) -> Reply:
    holding = await _held(call)
    found = [] if holding is None else await check_access.every_access(call.conn, holding)
    return Reply(whole([show(each, call) for each in found]))


OPERATIONS = (
    Operation(
        name="featureAccess.get",
        method="GET",
        path="/feature-access/{code}",
        summary="What a customer has of one feature",
        resource="feature",
        returns=FeatureAccess,
        handler=get,
        query=("customerId", "action"),
        errors=("customer_not_found", "feature_not_found", "no_active_subscription", "feature_not_in_plan"),
    ),
    Operation(
        name="featureAccess.list",
        method="GET",
        path="/feature-access",
        summary="What a customer has of every feature",
        resource="feature",
        returns=Page[FeatureAccess],
        handler=list_all,
        query=("customerId",),
        errors=("customer_not_found",),
    ),
)
