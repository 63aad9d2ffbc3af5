"""What commet-sdk 0.1.0 can do, told unmodified against $COMMET_BASE_URL; prints one JSON object.

It knows no API version: paths under `/api`, `billingEmail`, `externalId`, envelopes, flat errors,
and `trackBatch`. It stamps each event with the wall clock unless told a time.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import commet  # type: ignore[import-not-found]  # installed apart, see install.py
import httpx

from .redirect import redirect
from .world import TEST_CARD

told: dict[str, Any] = {}


def main() -> None:
    redirect(os.environ["COMMET_BASE_URL"])
    with commet.Commet(api_key=os.environ["COMMET_API_KEY"]) as sdk:
        customers(sdk)
        plans(sdk)
        subscribe(sdk)
        track(sdk)
        track_batch(sdk)
        access(sdk)
        refusals(sdk)
        cancel(sdk)
    print(json.dumps(told))


def customers(sdk: Any) -> None:
    ada = {"email": "ada@example.com", "external_id": "user_123"}
    customer = tell("customer", sdk.customers.create, **ada, full_name="Ada Lovelace")
    tell("customer_again", sdk.customers.create, **ada)
    tell("customer_by_id", sdk.customers.get, customer["id"])
    tell("customer_updated", sdk.customers.update, customer["id"], email="countess@example.com")
    tell(
        "customer_batch",
        sdk.customers.create_batch,
        [
            {"email": "brian@example.com", "external_id": "user_456"},
            {"email": f"{'x' * 200}@example.com", "external_id": "user_457"},
            {"email": "grace@example.com", "external_id": "user_458"},
        ],
    )
    tell("customers_filtered", sdk.customers.list, external_id="user_456")
    page = tell_page("customers_first_page", sdk.customers.list, limit=2)
    tell_page("customers_last_page", sdk.customers.list, limit=2, cursor=page["next_cursor"])


def plans(sdk: Any) -> None:
    tell("plan", sdk.plans.get, "pro")
    tell("plans", sdk.plans.list)


def subscribe(sdk: Any) -> None:
    tell("active_before_any", sdk.subscriptions.get, "user_123")
    pending = tell("pending", sdk.subscriptions.create, external_id="user_123", plan_code="pro")
    paid = httpx.post(pending["checkout_url"], data=TEST_CARD, follow_redirects=False)
    told["paid"] = paid.status_code
    tell("active", sdk.subscriptions.get, "user_123")


def track(sdk: Any) -> None:
    event = {"feature": "api_calls", "external_id": "user_123", "value": 5, "idempotency_key": "req_1"}
    tell("tracked", sdk.usage.track, **event, properties={"endpoint": "/v1/convert"})
    # The same words again: another time stamp under the same header, so another event with that key.
    refused("tracked_twice", sdk.usage.track, **event)
    stamped = event | {"idempotency_key": "req_2", "timestamp": now()}
    tell("tracked_stamped", sdk.usage.track, **stamped)
    tell("tracked_stamped_retried", sdk.usage.track, **stamped)


def track_batch(sdk: Any) -> None:
    event = {"feature": "api_calls", "external_id": "user_123"}
    tell(
        "batch",
        sdk.usage.track_batch,
        [
            event | {"value": 1, "idempotency_key": "batch_1"},
            event | {"value": 2, "idempotency_key": "batch_2"},
            event | {"value": 3, "idempotency_key": "batch_1"},
            event | {"value": 4, "idempotency_key": "req_1"},
            event | {"value": 5, "feature": "no_such_feature"},
            event | {"value": 0.5, "feature": "storage_gb"},
            {"feature": "api_calls", "external_id": "user_999"},
        ],
    )
    tell("batch_full", sdk.usage.track_batch, [event | {"value": 0}] * 100)
    refused("batch_beyond_limit", sdk.usage.track_batch, [event] * 101)


def access(sdk: Any) -> None:
    customer = sdk.customer("user_123")
    tell("access", customer.features.get, "api_calls")
    tell("access_check", customer.features.check, "api_calls")
    tell("access_can_use", customer.features.can_use, "api_calls")
    tell("access_list", customer.features.list)
    tell("tracked_in_context", customer.usage.track, "storage_gb", 2, {"disk": "one"})
    tell("active_in_context", customer.subscription.get)


def refusals(sdk: Any) -> None:
    event = {"feature": "api_calls", "external_id": "user_123"}
    refused("value_negative", sdk.usage.track, **event, value=-1)
    refused("feature_unknown", sdk.usage.track, **event | {"feature": "no_such_feature"})
    refused("customer_unknown", sdk.customers.get, "user_999")
    refused("key_unknown", commet.Commet(api_key="ck_nobodys").plans.list)


def cancel(sdk: Any) -> None:
    active = told["active"]["data"]
    tell("canceled", sdk.subscriptions.cancel, active["id"], reason="too_expensive")


def tell(step: str, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
    return tell_page(step, method, *args, **named)["data"]


def tell_page(step: str, method: Callable[..., Any], *args: Any, **named: Any) -> dict[str, Any]:
    answer = asdict(method(*args, **named))
    told[step] = answer
    return answer


def refused(step: str, method: Callable[..., Any], *args: Any, **named: Any) -> None:
    try:
        told[step] = {"answered": asdict(method(*args, **named))}
    except commet.CommetError as error:
        told[step] = {"name": type(error).__name__, "message": str(error), **vars(error)}


def now() -> str:
    return datetime.now(UTC).isoformat()


if __name__ == "__main__":
    main()
