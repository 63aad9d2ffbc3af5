"""Feature access: what a customer may use, and how much of it is used (behaviour.md §3.1)."""

from decimal import Decimal
from typing import Any

from tallystick.api.operations import Call, Operation, Page, Reply, whole
from tallystick.api.wire import MISSING, Maybe, Out
from tallystick.core.catalog import FeatureType
from tallystick.core.money import RATE_SCALE, plain, text, to_minor, to_rate
from tallystick.core.pricing import unit_amount
from tallystick.core.times import show_instant
from tallystick.core.wallets import Model
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


class _Consumption(Out, kw_only=True, tag_field="model"):
    period: PeriodOut
    units_used: Decimal


class Metered(_Consumption, kw_only=True, tag="metered"):
    included_units: Decimal
    remaining_units: Decimal | Maybe = MISSING
    unlimited: bool
    overage: OverageOut


class Credits(_Consumption, kw_only=True, tag="credits"):
    credits_per_unit: int
    credits_consumed: Decimal
    available_units: int


class Spent(Out, kw_only=True):
    """In minor units, half up, and exact in major units."""

    amount: int
    amount_decimal: str
    currency: str


class Balance(_Consumption, kw_only=True, tag="balance"):
    """A unit of AI tokens has no price of its own, and a free one no bound."""

    spent: Spent
    available_units: int | Maybe = MISSING
    unit_price: UnitPrice | Maybe = MISSING


class FeatureAccess(Out, kw_only=True):
    code: str
    name: str
    unit_name: str | None
    allowed: bool
    type: str
    enabled: bool | Maybe = MISSING
    consumption: Metered | Credits | Balance | Maybe = MISSING
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
    shown.consumption = _consumption(access, call.organization.currency)
    if call.query.get("action") == "canUse":
        shown.will_be_charged = access.allowed and access.owes_more
        if not access.allowed:
            shown.reason = _reason(access)
    return shown


def _reason(access: Access) -> str:
    """Why nothing more would be accepted, by the code it would be refused with."""
    if not access.terms.enabled:
        return "feature_disabled"
    return "included_limit_reached" if access.funds is None else f"insufficient_{access.funds.model}"


def _consumption(access: Access, currency: str) -> Metered | Credits | Balance:
    terms, funds = access.terms, access.funds
    measured: dict[str, Any] = {
        "period": PeriodOut(start=show_instant(access.period.start), end=show_instant(access.period.end)),
        "units_used": plain(access.used),
    }
    unit_price = UnitPrice(
        amount=to_rate(unit_amount(terms.price)),
        amount_decimal=text(unit_amount(terms.price)),
        currency=currency,
    )
    if funds is None:
        overage = OverageOut(enabled=terms.overage_enabled, units=plain(access.overage))
        if terms.overage_enabled:
            overage.unit_price = unit_price
        return Metered(
            **measured,
            included_units=plain(terms.included),
            remaining_units=MISSING if terms.unlimited else plain(access.remaining),
            unlimited=terms.unlimited,
            overage=overage,
        )
    if funds.model is Model.CREDITS:
        return Credits(
            **measured,
            credits_per_unit=terms.credits_per_unit or 0,
            credits_consumed=plain(access.spent),
            available_units=access.available or 0,
        )
    spent = access.spent / RATE_SCALE
    return Balance(
        **measured,
        spent=Spent(amount=to_minor(spent, currency), amount_decimal=text(spent), currency=currency),
        available_units=MISSING if access.available is None else access.available,
        unit_price=MISSING if access.unit_cost is None else unit_price,
    )


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
    funds = await check_access.funds_of(call.conn, holding)
    access = await check_access.access_to(call.conn, holding, feature, funds)
    if access is None:
        raise Problem("feature_not_in_plan")
    return Reply(show(access, call))


async def list_all(call: Call[None]) -> Reply:
    holding = await _held(call)
    found = []
    if holding is not None:
        funds = await check_access.funds_of(call.conn, holding)
        found = await check_access.every_access(call.conn, holding, funds)
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
