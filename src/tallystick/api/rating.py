"""What a price would cost: the very code that bills, for price pages, tests and people."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from tallystick.api.operations import Call, Operation, Reply
from tallystick.api.wire import In, Out
from tallystick.core.adjustments import Usage, rate_period
from tallystick.core.catalog import Terms
from tallystick.core.limits import PREVIEW_AMOUNTS_MAX
from tallystick.core.money import CURRENCIES, ZERO, text, to_minor
from tallystick.core.price_shapes import decimal_of, parse
from tallystick.core.pricing import Percentage, total
from tallystick.core.times import Period
from tallystick.errors import FieldError, InvalidRequest

_NOBODY = UUID(int=0)
_ONCE = Period(datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 2, 1, tzinfo=UTC))


class Preview(In, kw_only=True):
    """`quantity`, or for a percentage the `amounts` of the events; major units, as strings."""

    price: Any
    quantity: Any = None
    amounts: list[Any] | None = None
    included: Any = None
    minimum: Any = None
    maximum: Any = None
    currency: str | None = None


class ComponentOut(Out, kw_only=True):
    label: str
    quantity: str
    unit_amount: str
    amount: str
    units: str


class PreviewOut(Out, kw_only=True):
    components: list[ComponentOut]
    subtotal: str
    total: str
    total_minor: int
    currency: str
    object: str = "rating_preview"
    livemode: bool


async def preview(call: Call[Preview]) -> Reply:
    body = call.body
    price = parse(body.price)
    currency = call.organization.currency if body.currency is None else body.currency
    if currency not in CURRENCIES:
        raise InvalidRequest(FieldError("currency", "is not a currency we bill in"))
    amounts = _amounts(body)
    if isinstance(price, Percentage) != (body.amounts is not None):
        wanted = ("amounts", "quantity") if isinstance(price, Percentage) else ("quantity", "amounts")
        raise InvalidRequest(FieldError(wanted[0], f"this price is asked about {wanted[0]}, not {wanted[1]}"))
    if body.amounts is not None and body.quantity is not None:
        raise InvalidRequest(FieldError("quantity", "this price is asked about amounts, not quantity"))
    quantity = sum(amounts, ZERO) if body.amounts is not None else _decimal("quantity", body.quantity)
    included, minimum, maximum = (
        _optional(name, getattr(body, name)) for name in ("included", "minimum", "maximum")
    )
    if included and isinstance(price, Percentage):
        raise InvalidRequest(FieldError("included", "goes with no percentage; use freeEvents or freeAmount"))
    if minimum is not None and maximum is not None and minimum > maximum:
        raise InvalidRequest(FieldError("minimum", "is more than maximum"))
    terms = Terms(
        id=_NOBODY,
        plan_id=_NOBODY,
        feature_id=_NOBODY,
        version=1,
        enabled=True,
        included=included or ZERO,
        unlimited=False,
        overage_enabled=True,
        price=price,
        valid_from=_ONCE.start,
        minimum=minimum,
        maximum=maximum,
    )
    rated = rate_period([(_ONCE, terms, Usage(quantity, amounts))])
    return Reply(
        PreviewOut(
            components=[
                ComponentOut(
                    label=part.label,
                    quantity=text(part.quantity),
                    unit_amount=text(part.unit_amount),
                    amount=text(part.amount),
                    units=text(part.units),
                )
                for part in rated.components
            ],
            subtotal=text(total(rated.charges[0].components)),
            total=text(rated.exact),
            total_minor=to_minor(rated.exact, currency),
            currency=currency,
            livemode=call.live,
        )
    )


def _amounts(body: Preview) -> tuple[Decimal, ...]:
    given = body.amounts or []
    if len(given) > PREVIEW_AMOUNTS_MAX:
        raise InvalidRequest(FieldError("amounts", f"at most {PREVIEW_AMOUNTS_MAX} at once"))
    return tuple(_decimal(f"amounts[{place}]", each) for place, each in enumerate(given))


def _optional(name: str, given: Any) -> Decimal | None:
    return None if given is None else _decimal(name, given)


def _decimal(name: str, given: Any) -> Decimal:
    value = decimal_of(given)
    if value is None:
        reason = "is required" if given is None else 'must be a decimal of 0 or more, such as "12.5"'
        raise InvalidRequest(FieldError(name, reason))
    return value


OPERATIONS = (
    Operation(
        name="rating.preview",
        method="POST",
        path="/rating/preview",
        summary="What a price would cost for a quantity, explained; nothing is stored",
        resource="plan",
        body=Preview,
        returns=PreviewOut,
        handler=preview,
        writes=False,
    ),
)
