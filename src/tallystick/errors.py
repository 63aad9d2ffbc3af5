"""What can go wrong, said once: code, type, HTTP status, and whether trying again helps.

    TallystickError
    ├─ Problem            the caller's request cannot be done; the code says why (table below)
    │  └─ InvalidRequest  one or more fields are wrong; `details` names each
    └─ Broken             an invariant of ours does not hold; a bug or a tampered database

Codes, types and statuses follow the published error list (behaviour.md, Appendix C).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple


class Kind(NamedTuple):
    type: str
    status: int
    message: str
    retryable: bool = False


_VALIDATION, _AUTHENTICATION, _NOT_FOUND = "validation_error", "authentication_error", "not_found_error"
_CONFLICT, _BILLING, _RATE, _INTERNAL = (
    "conflict_error",
    "billing_error",
    "rate_limit_error",
    "internal_error",
)

CODES: Final[Mapping[str, Kind]] = {
    "validation_error": Kind(_VALIDATION, 400, "The request is not valid."),
    "invalid_json": Kind(_VALIDATION, 400, "The body is not valid JSON."),
    "payload_too_large": Kind(_VALIDATION, 413, "The body is larger than this route accepts."),
    "method_not_allowed": Kind(_VALIDATION, 405, "This route does not know that method."),
    "unauthorized": Kind(_AUTHENTICATION, 401, "No valid API key was given."),
    "forbidden": Kind(_AUTHENTICATION, 403, "This API key may not do that."),
    "sandbox_only": Kind(_AUTHENTICATION, 403, "Only a sandbox organization has this."),
    "not_found": Kind(_NOT_FOUND, 404, "There is nothing here."),
    "customer_not_found": Kind(_NOT_FOUND, 404, "There is no such customer."),
    "feature_not_found": Kind(_NOT_FOUND, 404, "There is no such feature."),
    "plan_not_found": Kind(_NOT_FOUND, 404, "There is no such plan."),
    "price_not_found": Kind(_NOT_FOUND, 404, "There is no such price."),
    "subscription_not_found": Kind(_NOT_FOUND, 404, "There is no such subscription."),
    "no_active_subscription": Kind(_NOT_FOUND, 404, "The customer has no active subscription."),
    "invoice_not_found": Kind(_NOT_FOUND, 404, "There is no such invoice."),
    "transaction_not_found": Kind(_NOT_FOUND, 404, "There is no such transaction."),
    "simulation_not_found": Kind(_NOT_FOUND, 404, "There is no such simulation."),
    "credit_pack_not_found": Kind(_NOT_FOUND, 404, "There is no such credit pack."),
    "model_not_found": Kind(_NOT_FOUND, 404, "There is no such AI model."),
    "reservation_not_found": Kind(_NOT_FOUND, 404, "There is no such reservation."),
    "api_key_not_found": Kind(_NOT_FOUND, 404, "There is no such API key."),
    "endpoint_not_available": Kind(_NOT_FOUND, 404, "This version of the API does not have that route."),
    "endpoint_deprecated": Kind(_NOT_FOUND, 410, "This route is retired."),
    "duplicate": Kind(_CONFLICT, 409, "This value is already in use."),
    "feature_already_exists": Kind(_CONFLICT, 409, "A feature with this code already exists."),
    "feature_in_use": Kind(_CONFLICT, 409, "An active plan still uses this feature."),
    "price_in_use": Kind(_CONFLICT, 409, "A subscription still uses this price."),
    "no_prices_configured": Kind(_CONFLICT, 409, "The plan has no matching price."),
    "already_has_active_subscription": Kind(_CONFLICT, 409, "The customer already has a subscription."),
    "no_payment_method": Kind(_CONFLICT, 422, "The customer has no saved card."),
    "subscription_not_active": Kind(_CONFLICT, 409, "The subscription's status does not allow this."),
    "invalid_subscription_status": Kind(_CONFLICT, 409, "The subscription's status does not allow this."),
    "subscription_already_canceled": Kind(_CONFLICT, 409, "The subscription is already canceled."),
    "already_scheduled": Kind(_CONFLICT, 409, "This is already scheduled."),
    "not_scheduled_for_cancellation": Kind(_CONFLICT, 409, "No cancellation is scheduled."),
    "one_time_subscription_not_cancelable": Kind(_CONFLICT, 409, "A lifetime purchase cannot be canceled."),
    "reservation_not_open": Kind(_CONFLICT, 409, "The reservation holds nothing any more."),
    "clock_run_in_progress": Kind(_CONFLICT, 409, "The test clock is already moving."),
    "idempotency_key_mismatch": Kind(
        _CONFLICT, 409, "This Idempotency-Key came with another request before."
    ),
    "idempotency_in_progress": Kind(
        _CONFLICT, 409, "The first request with this Idempotency-Key is still running.", retryable=True
    ),
    "idempotency_unavailable": Kind(
        _INTERNAL, 503, "The request was not carried out; send it again with the same key.", retryable=True
    ),
    "feature_not_in_plan": Kind(_BILLING, 403, "The customer's plan does not have this feature."),
    "feature_disabled": Kind(_BILLING, 403, "The customer's plan has this feature switched off."),
    "included_limit_reached": Kind(_BILLING, 402, "The included amount is used up."),
    "insufficient_credits": Kind(_BILLING, 402, "The credits do not cover this."),
    "insufficient_balance": Kind(_BILLING, 402, "The balance does not cover this."),
    "payment_failed": Kind(_BILLING, 402, "The payment was declined."),
    "reservation_exceeded": Kind(_BILLING, 402, "It costs more than was set aside."),
    "charge_failed": Kind(_BILLING, 402, "The charge was declined."),
    "pricing_mode_mismatch": Kind(_BILLING, 422, "This feature is not priced by tokens."),
    "rate_limited": Kind(_RATE, 429, "Too many requests.", retryable=True),
    "unavailable": Kind(_INTERNAL, 503, "Not now; send it again with the same key.", retryable=True),
    "internal_error": Kind(_INTERNAL, 500, "Something went wrong on our side.", retryable=True),
}


class TallystickError(Exception):
    """Anything this package raises on purpose."""


class FieldError(NamedTuple):
    field: str
    message: str


class Problem(TallystickError):
    """A refusal with a published code. `details` are facts a program can use; `param` is the guilty field."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        param: str | None = None,
        details: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        self.code = code
        self.kind = CODES[code]
        self.message = message or self.kind.message
        self.param = param
        self.details = details
        self.retry_after_s = retry_after_s
        super().__init__(f"{code}: {self.message}")


class InvalidRequest(Problem):
    """Fields are wrong: each with its name and the reason."""

    def __init__(self, *errors: FieldError) -> None:
        self.errors = errors
        super().__init__(
            "validation_error",
            "; ".join(f"{field}: {message}" if field else message for field, message in errors),
            param=errors[0].field or None,
            details=[{"field": field, "message": message} for field, message in errors],
        )


@contextmanager
def within(where: str) -> Iterator[None]:
    """Name what is wrong with a part as the whole request knows it: `planFeatures[0].price.model`."""
    try:
        yield
    except InvalidRequest as wrong:
        raise InvalidRequest(
            *(FieldError(f"{where}.{field}" if field else where, message) for field, message in wrong.errors)
        ) from None


class Broken(TallystickError):
    """Something that cannot be is: the message carries the facts."""


def must(truth: bool, claim: str, **facts: object) -> None:
    """An invariant that stays on in production, unlike `assert`."""
    if not truth:
        raise Broken(f"{claim}: " + ", ".join(f"{name}={fact!r}" for name, fact in facts.items()))
