"""Prepaid plans with the unmodified commet-sdk 9.7.0, told against $COMMET_BASE_URL as `story_9_7_0` is.

Ada burns credits, Grace a balance: both run dry, refill, and begin a new month.
"""

import json
import os
from typing import Any

import commet  # type: ignore[import-not-found]  # installed apart, see install.py
import httpx

from .redirect import redirect
from .story_9_7_0 import Teller, wait_for_clock
from .world import TEST_CARD

CALLS = {"feature_code": "api_calls"}
TOKENS = {"feature_code": "chat", "model": "gpt-4o", "input_tokens": 1000, "output_tokens": 500}


def main() -> None:
    redirect(os.environ["COMMET_BASE_URL"])
    teller = Teller()
    sdk = teller.client(os.environ["COMMET_API_KEY"])
    offer(teller, sdk)
    ada = subscribe(teller, sdk, "ada", "credits")
    grace = subscribe(teller, sdk, "grace", "balance")
    credits(teller, sdk, ada)
    balance(teller, sdk, grace)
    renewal(teller, sdk)
    print(json.dumps({"told": teller.told, "answers": teller.answers}))


def offer(teller: Teller, sdk: Any) -> None:
    calls = sdk.features.create(name="API calls", code="api_calls", type="usage")
    chat = sdk.features.create(name="Chat", code="chat", type="usage")
    plan = teller.tell(
        "credits_plan", sdk.plans.create, name="Credits", code="credits", consumption_model="credits"
    )
    teller.tell(
        "credits_price",
        sdk.plans.add_price,
        plan.id,
        billing_interval="monthly",
        price=2900,
        included_credits=100,
    )
    teller.tell("credits_feature", sdk.plans.add_feature, plan.id, feature_id=calls.id, credits_per_unit=10)
    teller.tell("credits_plan_whole", sdk.plans.get, "credits")

    plan = teller.tell(
        "balance_plan",
        sdk.plans.create,
        name="Balance",
        code="balance",
        consumption_model="balance",
        block_on_exhaustion=True,
    )
    price = teller.tell(
        "balance_price",
        sdk.plans.add_price,
        plan.id,
        billing_interval="monthly",
        price=2900,
        included_balance=10_000,
    )
    teller.tell("balance_price_updated", sdk.plans.update_price, plan.id, price.id, included_balance=50_000)
    fixed = commet.AddPlanFeatureParamsOverage(enabled=True, unit_price=5000)
    teller.tell("balance_feature", sdk.plans.add_feature, plan.id, feature_id=calls.id, overage=fixed)
    teller.tell(
        "balance_ai_feature",
        sdk.plans.add_feature,
        plan.id,
        feature_id=chat.id,
        pricing_mode="ai_model",
        margin=2000,
    )
    teller.tell("balance_plan_whole", sdk.plans.get, "balance")


def subscribe(teller: Teller, sdk: Any, who: str, plan: str) -> Any:
    sdk.customers.create(email=f"{who}@example.com", id=who)
    pending = sdk.subscriptions.create(customer_id=who, plan_code=plan)
    httpx.post(pending.checkout_url, data=TEST_CARD, follow_redirects=False)
    return teller.tell(f"{who}_begins", sdk.subscriptions.get_active, customer_id=who)


def credits(teller: Teller, sdk: Any, held: Any) -> None:
    ada = {"customer_id": "ada"}
    teller.tell("ada_tracked", sdk.usage.track, **ada, **CALLS, value=2.5, event_id="first")
    teller.tell("ada_check", sdk.usage.check, **ada, **CALLS, quantity=7)
    teller.tell("ada_check_beyond", sdk.usage.check, **ada, **CALLS, quantity=8)
    teller.refused("ada_beyond", sdk.usage.track, **ada, **CALLS, value=8)
    teller.tell("ada_access", sdk.feature_access.get, "api_calls", **ada)

    pack = teller.tell("pack", sdk.credit_packs.create, name="Fifty", credits=50, price=900)
    teller.tell("pack_updated", sdk.credit_packs.update, pack.id, description="For a busy day")
    teller.tell("packs", sdk.credit_packs.list)
    teller.tell("bought", sdk.subscriptions.purchase_credits, held.id, credit_pack_id=pack.id)
    once: dict[str, Any] = {"amount": 15, "reason": "sorry", "type": "credits", "idempotency_key": "sorry"}
    teller.tell("given", sdk.subscriptions.adjust_balance, held.id, **once)
    teller.tell("given_retried", sdk.subscriptions.adjust_balance, held.id, **once)
    teller.tell("pack_deleted", sdk.credit_packs.delete, pack.id)
    teller.tell("ada_fits_now", sdk.usage.track, **ada, **CALLS, value=8)
    teller.tell("ada_after", sdk.subscriptions.get, held.id)


def balance(teller: Teller, sdk: Any, held: Any) -> None:
    grace = {"customer_id": "grace"}
    teller.tell("grace_tracked", sdk.usage.track, **grace, **CALLS, value=4)
    teller.tell("grace_tokens", sdk.usage.track, **grace, **TOKENS)
    teller.tell("grace_check", sdk.usage.check, **grace, **CALLS, quantity=2)
    teller.tell("grace_check_beyond", sdk.usage.check, **grace, **CALLS, quantity=50)
    teller.tell("grace_check_tokens", sdk.usage.check, **grace, feature_code="chat")
    teller.refused("grace_beyond", sdk.usage.track, **grace, **CALLS, value=50)
    teller.tell("grace_access", sdk.feature_access.get, "api_calls", **grace)
    teller.tell("grace_access_tokens", sdk.feature_access.get, "chat", **grace)
    teller.tell("grace_access_list", sdk.feature_access.list, **grace)
    teller.tell("topped_up", sdk.subscriptions.topup_balance, held.id, amount=2500)
    teller.tell("taken", sdk.subscriptions.adjust_balance, held.id, amount=-5000, reason="a mistake")
    teller.tell("grace_fits_now", sdk.usage.track, **grace, **CALLS, value=50)
    teller.tell("grace_after", sdk.subscriptions.get, held.id)


def renewal(teller: Teller, sdk: Any) -> None:
    sdk.test_clock.advance(advance_days=31)
    wait_for_clock(sdk, "2026-02-15T10:00:00.000Z")
    for who in ("ada", "grace"):
        teller.tell(f"{who}_renewed", sdk.subscriptions.get_active, customer_id=who)
        teller.tell(f"{who}_invoices", sdk.invoices.list, customer_id=who)


if __name__ == "__main__":
    main()
