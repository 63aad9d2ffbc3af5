"""What plans, prices and promises look like on the wire (behaviour.md §4, Appendix B)."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta

from tallystick.api import features
from tallystick.api.features import Name, Text
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import limits

Amount = Annotated[int, Meta(ge=0, le=limits.AMOUNT_MINOR_MAX)]
Interval = Literal["weekly", "monthly", "quarterly", "semiannual", "yearly", "one_time"]


class CreatePlan(In, kw_only=True):
    name: Name
    code: features.Code
    description: Text | None = None
    consumption_model: Literal["metered", "credits", "balance"] | None = None
    is_public: bool = True
    is_free: bool = False
    block_on_exhaustion: bool | None = None
    minimum_amount: Any = None
    included_balance: int | None = None
    included_credits: int | None = None
    plan_group_id: str | None = None
    metadata: dict[str, Any] | None = None


class UpdatePlan(In, kw_only=True):
    name: Name | Maybe = MISSING
    description: Text | None | Maybe = MISSING
    metadata: dict[str, Any] | None | Maybe = MISSING
    is_public: bool | Maybe = MISSING
    minimum_amount: Any = MISSING
    included_balance: int | None | Maybe = MISSING
    included_credits: int | None | Maybe = MISSING


class SetVisibility(In, kw_only=True):
    is_public: bool


class AddPrice(In, kw_only=True):
    billing_interval: Interval
    price: Amount
    trial_days: Annotated[int, Meta(ge=0, le=730)] = 0
    is_default: bool = False
    metadata: dict[str, Any] | None = None
    included_balance: int | None = None
    included_credits: int | None = None
    market_prices: list[Any] | None = None
    inherits_from_price_id: str | None = None


class UpdatePrice(In, kw_only=True):
    price: Amount | Maybe = MISSING
    is_default: bool | Maybe = MISSING
    trial_days: int | Maybe = MISSING
    included_balance: int | None | Maybe = MISSING
    included_credits: int | None | Maybe = MISSING
    metadata: dict[str, Any] | Maybe = MISSING


class OverageIn(In, kw_only=True):
    """`unitPrice` in the rate scale (10000 = 1.00) or `unitPriceDecimal` in major units, exact."""

    enabled: bool | None = None
    unit_price: Amount | None = None
    unit_price_decimal: str | None = None


class AddPlanFeature(In, kw_only=True):
    feature_id: str
    enabled: bool | None = None
    included_amount: Decimal | None = None
    unlimited: bool | None = None
    overage: OverageIn | None = None
    overage_enabled: bool | None = None
    overage_unit_price: Amount | None = None
    price: Any = None
    minimum_amount: Any = None
    maximum_amount: Any = None
    valid_from: str | None = None
    credits_per_unit: int | None = None
    pricing_mode: Literal["fixed", "ai_model"] | None = None
    margin: int | None = None


class UpdatePlanFeature(In, kw_only=True):
    enabled: bool | None = None
    included_amount: Decimal | None = None
    unlimited: bool | None = None
    overage: OverageIn | None = None
    overage_enabled: bool | None = None
    overage_unit_price: Amount | None = None
    price: Any = None
    minimum_amount: Any = None
    maximum_amount: Any = None
    valid_from: str | None = None
    credits_per_unit: int | None = None
    pricing_mode: Literal["fixed", "ai_model"] | None = None
    margin: int | None = None


class Overage(Out, kw_only=True):
    enabled: bool
    model: str | None | Maybe = MISSING
    unit_price: int | None
    unit_price_decimal: str


class PlanFeatureItem(Out, kw_only=True):
    code: str
    name: str
    type: str
    unit_name: str | None
    enabled: bool
    included_amount: int | None
    included_amount_decimal: str
    unlimited: bool
    overage: Overage | None
    price: dict[str, Any] | None
    minimum_amount: str | None
    maximum_amount: str | None
    credits_per_unit: int | None
    pricing_mode: str
    margin: int | None
    regional_prices: list[Any] = []


class PlanPriceItem(Out, kw_only=True):
    id: str
    billing_interval: str
    price: int
    is_default: bool
    trial_days: int
    included_balance: int | None
    included_credits: int | None
    offer_id: str | None = None
    inherits_from_price_id: str | None = None
    metadata: dict[str, Any]
    market_prices: list[Any] = []
    regional_prices: list[Any] = []


class PlanOut(Out, kw_only=True):
    id: str
    name: str
    code: str
    description: str | None
    consumption_model: str | None
    is_public: bool
    is_default: bool = False
    is_free: bool
    block_on_exhaustion: bool | None
    minimum_amount: str | None
    included_balance: int | None
    included_credits: int | None
    sort_order: int
    plan_group_id: str | None = None
    metadata: dict[str, Any] | None
    created_at: str
    updated_at: str
    features: list[PlanFeatureItem]
    prices: list[PlanPriceItem]
    exchange_rates: list[Any] = []
    object: str = "plan"
    livemode: bool


class PlanPriceOut(Out, kw_only=True):
    id: str
    plan_id: str
    billing_interval: str
    price: int
    is_default: bool
    trial_days: int
    included_balance: int | None
    included_credits: int | None
    offer_id: str | None = None
    inherits_from_price_id: str | None = None
    metadata: dict[str, Any]
    market_prices: list[Any] = []
    created_at: str
    updated_at: str
    object: str = "plan_price"
    livemode: bool


class PlanFeatureOut(Out, kw_only=True):
    plan_id: str
    feature_id: str
    enabled: bool
    included_amount: int
    included_amount_decimal: str
    unlimited: bool
    overage: Overage
    price: dict[str, Any] | None
    minimum_amount: str | None
    maximum_amount: str | None
    credits_per_unit: int | None = None
    pricing_mode: str = "fixed"
    margin: int | None = None
    version: int
    valid_from: str
    object: str = "plan_feature"
    livemode: bool


class RemovedPlanFeature(Out, kw_only=True):
    id: str
    removed: bool = True
    object: str = "plan_feature"
    livemode: bool
