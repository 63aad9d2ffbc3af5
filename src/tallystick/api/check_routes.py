"""`POST /usage/check` as plain ASGI: would this much be accepted now? Answered in a group, recorded nowhere."""

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta

from tallystick.api import wire
from tallystick.api.callers import Callers, encode
from tallystick.api.operations import Operation
from tallystick.api.rate_limits import Headers
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import limits
from tallystick.core.events import decode
from tallystick.core.money import ZERO, plain, text, to_rate
from tallystick.core.pricing import unit_amount
from tallystick.core.wallets import Model
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.check_usage import Ask, Checked
from tallystick.flows.checker import Checker
from tallystick.store.organizations import Organization

Reference = Annotated[str, Meta(min_length=1, max_length=limits.CUSTOMER_REFERENCE_CHARS_MAX)]
Code = Annotated[str, Meta(pattern=r"^[a-z0-9_]+$(?!\n)", min_length=1, max_length=limits.CODE_CHARS_MAX)]


class CheckUsage(In, kw_only=True):
    """What track takes, under the name of a feature. Without `properties` so many units of that feature are meant;
    a feature priced by AI tokens is asked with `model` and tokens in place of `quantity`."""

    feature_code: Code
    customer_id: Reference | None = None
    external_id: Reference | None = None
    quantity: Decimal | None = None
    timestamp: str | None = None
    properties: Any = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Check(Out, kw_only=True, tag_field="consumptionModel"):
    allowed: bool
    subscription_status: str
    feature_code: str
    quantity: Decimal
    reason: str | Maybe = MISSING
    message: str | Maybe = MISSING
    object: str = "usage_check"
    livemode: bool


class MeteredCheck(_Check, kw_only=True, tag="metered"):
    current: Decimal
    remaining: Decimal
    unlimited: bool
    included: Decimal
    overage_enabled: bool
    overage_unit_price: int | None


class CreditsCheck(_Check, kw_only=True, tag="credits"):
    """Integers toward zero, and exact."""

    credits_per_unit: int
    estimated_credits: int
    estimated_credits_decimal: str
    plan_credits: int
    purchased_credits: int
    total_credits: int
    total_credits_decimal: str


class BalanceCheck(_Check, kw_only=True, tag="balance"):
    """Rate units (10000 = 1.00), integers toward zero, and exact; `unitPriceDecimal` in major units. Where tokens are
    priced no unit has a price, and nothing is estimated without them."""

    unit_price: int
    unit_price_decimal: str
    estimated_amount: int
    estimated_amount_decimal: str
    current_balance: int
    current_balance_decimal: str
    block_on_exhaustion: bool
    currency: str


UsageCheck = MeteredCheck | CreditsCheck | BalanceCheck


class CheckRoute:
    def __init__(self, checker: Checker, callers: Callers) -> None:
        self._checker = checker
        self._callers = callers

    async def check(
        self, headers: Any, body: bytes, answer_headers: Headers, *, legacy: bool
    ) -> tuple[int, bytes]:
        """An event as track takes it, under the name of a feature."""
        caller = await self._callers.find(headers, answer_headers, legacy=legacy, writes=False)
        try:
            ask = _ask(wire.parse(body), caller.key.id)
        except Problem:
            await self._callers.catch_up(caller)
            raise
        try:
            checked = await self._checker.submit(caller.key.organization_id, ask)
        except Problem as problem:
            if problem.code == "unauthorized":
                self._callers.unauthorized(headers)
            raise
        organization, version = self._callers.answered(caller)
        return 200, encode(_show(checked, organization), version, organization)


def _ask(raw: Any, api_key_id: UUID) -> Ask:
    event = decode(raw)
    if event.value <= 0 and event.call is None:
        raise InvalidRequest(FieldError("quantity", "must be a number above 0"))
    return Ask(event, with_properties=bool(raw.get("properties")), api_key_id=api_key_id)


def _show(checked: Checked, organization: Organization) -> UsageCheck:
    refusal = checked.refusal
    asked: dict[str, Any] = {
        "allowed": refusal is None,
        "subscription_status": checked.status.value,
        "feature_code": checked.feature.code,
        "quantity": plain(checked.quantity),
        "reason": MISSING if refusal is None else refusal.code,
        "message": MISSING if refusal is None else refusal.message,
        "livemode": organization.live,
    }
    terms, funds, cost = checked.terms, checked.funds, checked.cost or ZERO
    if funds is None:
        access = checked.access
        assert access is not None
        return MeteredCheck(
            **asked,
            current=plain(access.used),
            remaining=plain(access.remaining),
            unlimited=terms.unlimited,
            included=plain(terms.included),
            overage_enabled=terms.overage_enabled,
            overage_unit_price=to_rate(unit_amount(terms.price)) if terms.overage_enabled else None,
        )
    wallet = funds.wallet
    if funds.model is Model.CREDITS:
        return CreditsCheck(
            **asked,
            credits_per_unit=terms.credits_per_unit or 0,
            estimated_credits=int(cost),
            estimated_credits_decimal=text(cost),
            plan_credits=int(wallet.plan),
            purchased_credits=int(wallet.purchased),
            total_credits=int(wallet.remaining),
            total_credits_decimal=text(wallet.remaining),
        )
    if checked.cost is None and refusal is None:
        asked["message"] = "Send `model` and its tokens to have the cost of a call estimated."
    price = ZERO if terms.margin_bps is not None else unit_amount(terms.price)
    return BalanceCheck(
        **asked,
        unit_price=to_rate(price),
        unit_price_decimal=text(price),
        estimated_amount=int(cost),
        estimated_amount_decimal=text(cost),
        current_balance=int(wallet.plan),
        current_balance_decimal=text(wallet.plan),
        block_on_exhaustion=not funds.overdraft,
        currency=organization.currency,
    )


OPERATIONS = (
    Operation(
        name="usage.check",
        method="POST",
        path="/usage/check",
        summary="Would this much usage be accepted now?",
        resource="usage",
        body=CheckUsage,
        returns=UsageCheck,
        handler=None,
        writes=False,
        errors=(
            "customer_not_found",
            "no_active_subscription",
            "feature_not_found",
            "feature_not_in_plan",
            "feature_disabled",
            "pricing_mode_mismatch",
            "model_not_found",
        ),
    ),
)
