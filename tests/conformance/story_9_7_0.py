"""A month with the unmodified commet-sdk 9.7.0, told against $COMMET_BASE_URL.

Prints one JSON object: `told`, what the SDK made of each answer, and `answers`, each answer as it
came over the wire together with the type the called method promises.
"""

import inspect
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any

import commet  # type: ignore[import-not-found]  # installed apart, see install.py
import httpx

from .redirect import redirect
from .world import TEST_CARD

CLOCK_POLLS_MAX = 60


class Teller:
    """Calls the SDK and notes what came back, both sides of its parser."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.answers: list[dict[str, Any]] = []

    def client(self, api_key: str) -> Any:
        client = commet.Commet(api_key)
        client._http._client.event_hooks["response"].append(self.note)
        return client

    def note(self, response: httpx.Response) -> None:
        response.read()
        self.answers.append(
            {
                "method": response.request.method,
                "path": response.request.url.path,
                "version": response.request.headers.get("commet-version"),
                "status": response.status_code,
                "request_id": response.headers.get("x-request-id"),
                "body": response.json(),
                "promised": None,
            }
        )

    def tell(self, step: str, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
        answer = method(*args, **named)
        self.answers[-1]["promised"] = inspect.signature(method).return_annotation
        self.told[step] = plain(answer)
        return answer

    def refused(self, step: str, method: Callable[..., Any], *args: Any, **named: Any) -> None:
        try:
            answer = method(*args, **named)
        except commet.CommetError as error:
            self.told[step] = {"name": type(error).__name__, **error.to_dict()}
        else:
            self.told[step] = {"answered": plain(answer)}


def main() -> None:
    redirect(os.environ["COMMET_BASE_URL"])
    teller = Teller()
    sdk = teller.client(os.environ["COMMET_API_KEY"])
    catalogue(teller, sdk)
    customers(teller, sdk)
    subscription = subscribe(teller, sdk)
    meter(teller, sdk)
    refusals(teller, sdk)
    renewal(teller, sdk, subscription)
    cancellation(teller, sdk, subscription)
    keys(teller, sdk)
    prepaid(teller, sdk)
    print(json.dumps({"told": teller.told, "answers": teller.answers}))


def catalogue(teller: Teller, sdk: Any) -> None:
    sso = teller.tell(
        "feature_boolean", sdk.features.create, name="Single sign-on", code="sso", type="boolean"
    )
    calls = teller.tell(
        "feature_usage",
        sdk.features.create,
        name="API calls",
        code="api_calls",
        type="usage",
        unit_name="call",
    )
    teller.tell(
        "feature_outside_plan", sdk.features.create, name="Emails sent", code="emails_sent", type="usage"
    )
    teller.refused("feature_twice", sdk.features.create, name="Again", code="api_calls", type="usage")
    teller.tell("feature_updated", sdk.features.update, "api_calls", description="One per request")
    teller.tell("feature", sdk.features.get, "api_calls")
    teller.tell("features", sdk.features.list)

    plan = teller.tell(
        "plan_created",
        sdk.plans.create,
        name="Pro",
        code="pro",
        consumption_model="metered",
        is_public=True,
        metadata={"tier": "paid"},
    )
    teller.tell(
        "price", sdk.plans.add_price, plan.id, billing_interval="monthly", price=2900, is_default=True
    )
    teller.tell("plan_feature_boolean", sdk.plans.add_feature, plan.id, feature_id=sso.id, enabled=True)
    teller.tell(
        "plan_feature_usage",
        sdk.plans.add_feature,
        plan.id,
        feature_id=calls.id,
        included_amount=1000,
        overage=commet.AddPlanFeatureParamsOverage(enabled=True, unit_price=100),
    )
    teller.tell("plan_by_code", sdk.plans.get, "pro")
    teller.tell("plan_by_id", sdk.plans.get, plan.id)
    teller.tell("plan_updated", sdk.plans.update, plan.id, description="For teams")
    teller.refused("plan_unknown", sdk.plans.get, "gold")
    teller.tell("plan_hidden", sdk.plans.set_visibility, plan.id, is_public=False)
    teller.tell("plans_while_hidden", sdk.plans.list)
    teller.tell("plans_with_private", sdk.plans.list, include_private=True)
    teller.tell("plan_shown", sdk.plans.set_visibility, plan.id, is_public=True)


def customers(teller: Teller, sdk: Any) -> None:
    ada = {"email": "ada@example.com", "id": "user_123", "metadata": {"source": "signup"}}
    customer = teller.tell("customer", sdk.customers.create, **ada, full_name="Ada Lovelace")
    teller.tell("customer_again", sdk.customers.create, **ada, full_name="Somebody Else")
    teller.tell("customer_by_id", sdk.customers.get, customer.id)
    teller.tell("customer_by_own_id", sdk.customers.get, "user_123")
    teller.tell("customer_updated", sdk.customers.update, customer.id, full_name="Countess of Lovelace")
    teller.refused("customer_unknown", sdk.customers.get, "user_999")
    teller.tell(
        "customer_batch",
        sdk.customers.create_batch,
        customers=[
            commet.BatchCreateCustomersParamsCustomersItem(email="brian@example.com", id="user_201"),
            commet.BatchCreateCustomersParamsCustomersItem(email=f"{'x' * 200}@example.com", id="user_202"),
            commet.BatchCreateCustomersParamsCustomersItem(email="grace@example.com", id="user_203"),
        ],
    )
    pages: list[Any] = []
    cursor = None
    while len(pages) < 10:
        page = sdk.customers.list(limit=2, cursor=cursor)
        pages.append(plain(page))
        cursor = page.next_cursor
        if not page.has_more:
            break
    teller.told["customer_pages"] = pages
    teller.tell("customers_filtered", sdk.customers.list, external_id="user_203")


def subscribe(teller: Teller, sdk: Any) -> Any:
    teller.tell("active_before_any", sdk.subscriptions.get_active, customer_id="user_203")
    choice = {"customer_id": "user_123", "plan_code": "pro"}
    pending = teller.tell("pending", sdk.subscriptions.create, **choice)
    teller.refused(
        "tracked_unpaid", sdk.usage.track, customer_id="user_123", feature_code="api_calls", value=1
    )
    paid = httpx.post(pending.checkout_url, data=TEST_CARD, follow_redirects=False)
    teller.told["paid"] = paid.status_code
    teller.tell("active", sdk.subscriptions.get_active, customer_id="user_123")
    teller.tell("subscription", sdk.subscriptions.get, pending.id)
    teller.tell("subscriptions", sdk.subscriptions.list, customer_id="user_123", status="active")
    teller.refused("subscribed_twice", sdk.subscriptions.create, **choice)
    return pending


def meter(teller: Teller, sdk: Any) -> None:
    event = {
        "customer_id": "user_123",
        "feature_code": "api_calls",
        "value": 700.5,
        "event_id": "req_1",
        "timestamp": "2026-01-15T10:30:00.000Z",
        "properties": [commet.TrackUsageParamsPropertiesItem(property="endpoint", value="/v1/convert")],
    }
    whose = {"customer_id": "user_123"}
    teller.tell("tracked", sdk.usage.track, **event)
    teller.refused("tracked_twice", sdk.usage.track, **event)
    teller.refused("tracked_twice_changed", sdk.usage.track, **event | {"value": 9})
    teller.tell("check", sdk.usage.check, **whose, feature_code="api_calls", quantity=100)
    teller.tell("access_within", sdk.feature_access.get, "api_calls", **whose)

    second = event | {"value": 500, "event_id": "req_2", "timestamp": "2026-01-15T10:31:00.000Z"}
    teller.tell("tracked_once", sdk.usage.track, **second, idempotency_key="operation-2")
    teller.tell("tracked_once_retried", sdk.usage.track, **second, idempotency_key="operation-2")
    teller.tell("tracked_plainly", sdk.usage.track, **whose, feature_code="api_calls", value=49.5)
    teller.tell("access_beyond", sdk.feature_access.get, "api_calls", **whose)
    teller.tell("access_boolean", sdk.feature_access.get, "sso", **whose)
    teller.tell("access_list", sdk.feature_access.list, **whose)


def refusals(teller: Teller, sdk: Any) -> None:
    event = {"customer_id": "user_123", "feature_code": "api_calls", "value": 1}
    teller.refused("value_negative", sdk.usage.track, **event | {"value": -1})
    teller.refused("feature_malformed", sdk.usage.track, **event | {"feature_code": "API calls!"})
    teller.refused("feature_unknown", sdk.usage.track, **event | {"feature_code": "storage_gb"})
    teller.refused("feature_not_in_plan", sdk.usage.track, **event | {"feature_code": "emails_sent"})
    teller.refused("tracked_for_nobody", sdk.usage.track, **event | {"customer_id": "user_999"})
    teller.refused("key_unknown", teller.client("ck_sandbox_nobodys").features.list)


def renewal(teller: Teller, sdk: Any, subscription: Any) -> None:
    teller.tell("clock_before", sdk.test_clock.get)
    teller.tell("advanced", sdk.test_clock.advance, advance_days=31)
    wait_for_clock(sdk, "2026-02-15T10:00:00.000Z")
    teller.tell("clock_after", sdk.test_clock.get)
    teller.refused("clock_backwards", sdk.test_clock.advance, frozen_time="2026-02-01T00:00:00.000Z")
    teller.refused("process_billing", sdk.test_clock.process_billing)

    invoices = teller.tell("invoices", sdk.invoices.list, customer_id="user_123")
    teller.tell("invoices_paid", sdk.invoices.list, subscription_id=subscription.id, status="paid")
    teller.tell("invoices_first_page", sdk.invoices.list, customer_id="user_123", limit=1)
    renewed = next(invoice for invoice in invoices.data if invoice.total != 2900)
    teller.tell("renewal_invoice", sdk.invoices.get, renewed.id)
    lines = teller.answers[-1]["body"]["lineItems"]
    overage = next(line for line in lines if line["lineType"] == "feature_overage")
    teller.told["events_of_line"] = raw(f"/api/v1/invoices/{renewed.id}/lines/{overage['id']}/events")
    transactions = teller.tell(
        "transactions", sdk.transactions.list, customer_email="ada@example.com", limit=10
    )
    teller.tell("transaction", sdk.transactions.get, transactions.data[0].id)
    teller.tell("renewed", sdk.subscriptions.get_active, customer_id="user_123")

    calls = {"customer_id": "user_123", "feature_code": "api_calls"}
    teller.tell("tracked_after_renewal", sdk.usage.track, **calls, value=20)
    teller.tell("set", sdk.usage.set, **calls, value=12, reason="recount")
    teller.tell("access_after_set", sdk.feature_access.get, "api_calls", customer_id="user_123")


def cancellation(teller: Teller, sdk: Any, subscription: Any) -> None:
    teller.tell("canceled", sdk.subscriptions.cancel, subscription.id, reason="too_expensive")
    teller.refused("canceled_twice", sdk.subscriptions.cancel, subscription.id)
    teller.tell("uncanceled", sdk.subscriptions.uncancel, subscription.id)
    teller.refused("uncanceled_twice", sdk.subscriptions.uncancel, subscription.id)


def prepaid(teller: Teller, sdk: Any) -> None:
    pack = teller.tell("pack", sdk.credit_packs.create, name="Fifty", credits=50, price=500)
    teller.refused("pack_twice", sdk.credit_packs.create, name="Fifty", credits=1, price=1)
    teller.tell("pack_updated", sdk.credit_packs.update, pack.id, description="fifty more", price=400)
    teller.tell("packs", sdk.credit_packs.list)
    credits = hold(sdk, "user_201", "credits", included_credits=100)
    teller.tell("credits_bought", sdk.subscriptions.purchase_credits, credits, credit_pack_id=pack.id)
    once = {"credit_pack_id": pack.id, "idempotency_key": "buy-once"}
    teller.tell("credits_bought_once", sdk.subscriptions.purchase_credits, credits, **once)
    teller.tell("credits_bought_again", sdk.subscriptions.purchase_credits, credits, **once)
    teller.tell("credits_taken", sdk.subscriptions.adjust_balance, credits, amount=-120, reason="an error")
    teller.refused("credits_beyond", sdk.subscriptions.adjust_balance, credits, amount=-81, type="credits")
    teller.refused("topped_up_credits", sdk.subscriptions.topup_balance, credits, amount=1000)
    balance = hold(sdk, "user_203", "balance", included_balance=100_000)
    teller.tell("topped_up", sdk.subscriptions.topup_balance, balance, amount=1000)
    teller.tell("balance_given", sdk.subscriptions.adjust_balance, balance, amount=500, type="balance")
    teller.refused("balance_beyond", sdk.subscriptions.adjust_balance, balance, amount=-200_501)
    bought = teller.tell("purchases", sdk.invoices.list, subscription_id=credits)
    teller.tell("purchase_invoice", sdk.invoices.get, bought.data[0].id)
    teller.tell("pack_deleted", sdk.credit_packs.delete, pack.id)
    teller.refused("pack_gone", sdk.subscriptions.purchase_credits, credits, credit_pack_id=pack.id)


def hold(sdk: Any, customer: str, model: str, **included: int) -> str:
    """Put a customer on a plan of its own that is paid beforehand; the subscription's id."""
    plan = sdk.plans.create(name=model, code=model, consumption_model=model)
    sdk.plans.add_price(plan.id, billing_interval="monthly", price=900, **included)
    pending = sdk.subscriptions.create(customer_id=customer, plan_code=model)
    assert httpx.post(pending.checkout_url, data=TEST_CARD).status_code == 303
    identity: str = pending.id
    return identity


def keys(teller: Teller, sdk: Any) -> None:
    made = teller.tell("key_created", sdk.api_keys.create, name="second")
    teller.tell("keys", sdk.api_keys.list)
    second = teller.client(made.api_key)
    teller.tell("plans_by_second_key", second.plans.list)
    teller.tell("key_deleted", sdk.api_keys.delete, made.id)
    teller.refused("plans_by_deleted_key", second.plans.list)


def wait_for_clock(sdk: Any, target: str) -> None:
    for _ in range(CLOCK_POLLS_MAX):
        if sdk.test_clock.get().now >= target:
            return
        time.sleep(0.5)
    raise TimeoutError(f"the clock never reached {target}")


def raw(path: str) -> dict[str, Any]:
    """What the SDK has no method for."""
    answer = httpx.get(
        os.environ["COMMET_BASE_URL"] + path, headers={"x-api-key": os.environ["COMMET_API_KEY"]}
    )
    return {"status": answer.status_code, "body": answer.json()}


def plain(answer: Any) -> Any:
    return asdict(answer) if is_dataclass(answer) and not isinstance(answer, type) else answer


if __name__ == "__main__":
    main()
