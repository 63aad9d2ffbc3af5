"""What a caller says a plan promises, read into terms."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from tallystick.api.plan_shapes import (
    AddPlanFeature,
    OverageIn,
    UpdatePlanFeature,
)
from tallystick.core import limits, price_shapes
from tallystick.core.meters import number
from tallystick.core.money import fits, from_rate
from tallystick.core.pricing import PerUnit, Price
from tallystick.core.times import parse_instant
from tallystick.errors import FieldError, InvalidRequest
from tallystick.flows.publish_catalog import TermsSpec


def terms_spec(body: AddPlanFeature | UpdatePlanFeature) -> TermsSpec:
    overage = body.overage or OverageIn()
    if body.included_amount is not None and not (fits(body.included_amount) and body.included_amount >= 0):
        raise InvalidRequest(FieldError("includedAmount", "must be 0 or more, with at most 20 and 12 digits"))
    exact = None
    if overage.unit_price_decimal is not None:
        exact = number(overage.unit_price_decimal)
        if exact is None or exact < 0 or overage.unit_price_decimal != overage.unit_price_decimal.strip():
            raise InvalidRequest(
                FieldError("overage.unitPriceDecimal", "must be an amount in major units such as 0.0007")
            )
    rate = overage.unit_price if overage.unit_price is not None else body.overage_unit_price
    if exact is not None and rate is not None and from_rate(rate) != exact:
        raise InvalidRequest(FieldError("overage.unitPrice", "disagrees with overage.unitPriceDecimal"))
    if exact is None and rate is not None:
        exact = from_rate(rate)
    charges = overage.enabled if overage.enabled is not None else body.overage_enabled
    price: Price | None = None if exact is None else PerUnit(exact)
    if body.price is not None:
        if exact is not None:
            raise InvalidRequest(
                FieldError("overage.unitPrice", "and price say the same thing twice: send one")
            )
        if charges is False:
            raise InvalidRequest(FieldError("overage.enabled", "is false, yet there is a price"))
        price, charges = price_shapes.parse(body.price), True
    return TermsSpec(
        enabled=body.enabled,
        included=body.included_amount,
        unlimited=body.unlimited,
        overage_enabled=charges,
        price=price,
        price_field="overage.unitPrice" if body.price is None else "price",
        minimum=amount_of("minimumAmount", body.minimum_amount),
        maximum=amount_of("maximumAmount", body.maximum_amount),
        credits_per_unit=body.credits_per_unit,
        pricing_mode=body.pricing_mode,
        margin_bps=_margin(body.margin),
        valid_from=_instant("validFrom", body.valid_from),
    )


def _margin(given: int | None) -> int | None:
    if given is not None and not 0 <= given <= limits.MARGIN_BPS_MAX:
        raise InvalidRequest(FieldError("margin", f"must be 0 to {limits.MARGIN_BPS_MAX} basis points"))
    return given


def amount_of(name: str, given: Any) -> Decimal | None:
    if given is None:
        return None
    amount = price_shapes.decimal_of(given)
    if amount is None:
        raise InvalidRequest(FieldError(name, 'must be an amount in major units, such as "50"'))
    return amount


def _instant(name: str, given: str | None) -> datetime | None:
    if given is None:
        return None
    at = parse_instant(given)
    if at is None:
        raise InvalidRequest(FieldError(name, "must be an ISO 8601 date and time"))
    return at
