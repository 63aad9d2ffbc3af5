"""What a wallet's movements are told as: domain events with the data that webhooks carry (behaviour.md, Appendix D)."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from tallystick.core.wallets import LOW_SHARE, Cause, Crossing, Model, Movement, Wallet

_GRANTED: Final = {Cause.GRANT: "subscription_started", Cause.RESET: "period_reset"}

News = tuple[str, dict[str, Any]]


def news_of(
    wallet: Wallet,
    movements: Iterable[Movement],
    crossed: Iterable[Crossing] = (),
    *,
    subscription_id: str,
    customer_id: str,
    currency: str,
) -> list[News]:
    """(type, data) of each. Integers round toward zero; `customer_id` is the id the caller uses."""
    whose = {"subscriptionId": subscription_id, "customerId": customer_id}
    found: list[News] = []
    if wallet.model is Model.CREDITS:
        for each in movements:
            if each.cause is Cause.EXPIRY:
                found.append(("credits.expired", {**whose, "expiredCredits": int(each.amount)}))
            elif each.cause in _GRANTED:
                reason = _GRANTED[each.cause]
                found.append(("credits.granted", {**whose, "credits": int(each.amount), "reason": reason}))
    for crossing in crossed:
        found.append((f"{wallet.model}.{crossing}", {**whose, **_level(wallet, crossing, currency)}))
    return found


def _level(wallet: Wallet, crossing: Crossing, currency: str) -> dict[str, Any]:
    remaining, threshold = int(wallet.remaining), int(wallet.refill * LOW_SHARE)
    if wallet.model is Model.BALANCE:
        low = {"thresholdBalance": threshold} if crossing is Crossing.LOW else {}
        return {"currentBalance": remaining, **low, "currency": currency}
    if crossing is Crossing.LOW:
        return {
            "remainingCredits": remaining,
            "thresholdCredits": threshold,
            "periodCredits": int(wallet.refill),
        }
    return {"remainingCredits": remaining}


def purchase_news(
    model: Model,
    quantity: Decimal,
    *,
    subscription_id: str,
    customer_id: str,
    invoice_id: str,
    invoice_number: str,
    name: str,
    currency: str,
) -> News:
    """What was paid for: `quantity` in credits of the pack `name`, or in rate units."""
    whose = {
        "subscriptionId": subscription_id,
        "customerId": customer_id,
        "invoiceId": invoice_id,
        "invoiceNumber": invoice_number,
    }
    if model is Model.CREDITS:
        return "credits.purchased", {**whose, "creditPackName": name, "credits": int(quantity)}
    return "balance.topped_up", {**whose, "amount": int(quantity), "currency": currency}
