"""What comes into a wallet from outside: packs that are bought, top-ups, adjustments (behaviour.md §12, §13)."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta

from tallystick.api.features import Text
from tallystick.api.operations import Call, Operation, Reply
from tallystick.api.subscriptions import find_subscription
from tallystick.api.wire import In, Out
from tallystick.core import ids, limits
from tallystick.core.wallets import Model
from tallystick.errors import Problem
from tallystick.flows import purchase
from tallystick.flows.adjust_wallet import adjust_wallet
from tallystick.flows.answer_once import hash_key
from tallystick.flows.purchase import BuyPack, TopUp, Wish
from tallystick.store import organizations
from tallystick.store.purchases import Purchase

_ADJUSTED_MAX = limits.CREDITS_MAX


class PurchaseCredits(In, kw_only=True):
    credit_pack_id: str


class TopUpBalance(In, kw_only=True):
    """`amount` in minor units."""

    amount: Annotated[int, Meta(ge=1, le=limits.AMOUNT_MINOR_MAX)]


class AdjustBalance(In, kw_only=True):
    """`amount` in credits, or in rate units of a balance (10000 = 1.00); negative takes."""

    amount: Annotated[int, Meta(ge=-_ADJUSTED_MAX, le=_ADJUSTED_MAX)]
    reason: Text | None = None
    type: Literal["credits", "balance"] | None = None


class CreditGrant(Out, kw_only=True):
    credits: int
    object: str = "credit_grant"
    livemode: bool


class BalanceTopup(Out, kw_only=True):
    amount: int
    object: str = "balance_topup"
    livemode: bool


class BalanceAdjustment(Out, kw_only=True):
    amount: int
    new_balance: int
    reason: str | None
    object: str = "balance_transaction"
    livemode: bool


async def _bought(call: Call[Any], wish: Wish) -> Purchase:
    """Promised, charged and settled; the same request again finds the same purchase, whatever has become of it."""
    services = call.services
    async with services.database.transaction() as conn:
        organization = await organizations.get(conn, organization_id=call.organization.id)
        assert organization is not None
        call.organization = organization  # its clock may have moved since
        promised = await purchase.promise(
            conn,
            organization=organization,
            subscription_id=call.identity(ids.SUBSCRIPTION, "id", "subscription_not_found"),
            wish=wish,
            request_key=None if call.asked_once is None else hash_key(call.asked_once),
            now=call.now,
            wall=call.wall,
        )
    settled = await purchase.complete(services.database, services.payments, promised, wall=services.wall())
    if settled.status == "declined":
        raise Problem(
            "payment_failed",
            f"The payment was declined: {settled.failure_message}",
            details={"failureCode": settled.failure_code, "failureMessage": settled.failure_message},
        )
    return settled


async def purchase_credits(call: Call[PurchaseCredits]) -> Reply:
    pack_id = ids.read(ids.CREDIT_PACK, call.body.credit_pack_id)
    if pack_id is None:
        raise Problem("credit_pack_not_found", param="creditPackId")
    settled = await _bought(call, BuyPack(pack_id))
    return Reply(CreditGrant(credits=int(settled.quantity), livemode=call.live))


async def top_up(call: Call[TopUpBalance]) -> Reply:
    settled = await _bought(call, TopUp(call.body.amount))
    return Reply(BalanceTopup(amount=settled.amount_minor, livemode=call.live))


async def adjust(call: Call[AdjustBalance]) -> Reply:
    body = call.body
    wallet = await adjust_wallet(
        call.conn,
        organization=call.organization,
        subscription=await find_subscription(call, lock=True),
        amount=Decimal(body.amount),
        model=None if body.type is None else Model(body.type),
        reason=body.reason,
        now=call.now,
    )
    return Reply(
        BalanceAdjustment(
            amount=body.amount, new_balance=int(wallet.remaining), reason=body.reason, livemode=call.live
        )
    )


_BUYING = ("subscription_not_found", "subscription_not_active", "no_payment_method", "payment_failed")

OPERATIONS = (
    Operation(
        name="subscriptions.purchaseCredits",
        method="POST",
        path="/subscriptions/{id}/credits",
        summary="Buy a credit pack with the saved card",
        resource="subscription",
        body=PurchaseCredits,
        returns=CreditGrant,
        handler=purchase_credits,
        apart=True,
        errors=("credit_pack_not_found", *_BUYING),
    ),
    Operation(
        name="subscriptions.topupBalance",
        method="POST",
        path="/subscriptions/{id}/balance/topup",
        summary="Charge the saved card and add it to the balance, until its next reset",
        resource="subscription",
        body=TopUpBalance,
        returns=BalanceTopup,
        handler=top_up,
        apart=True,
        errors=_BUYING,
    ),
    Operation(
        name="subscriptions.adjustBalance",
        method="POST",
        path="/subscriptions/{id}/balance/adjust",
        summary="Add to credits or a balance by hand, or take from them",
        resource="subscription",
        body=AdjustBalance,
        returns=BalanceAdjustment,
        handler=adjust,
        errors=(
            "subscription_not_found",
            "subscription_not_active",
            "insufficient_credits",
            "insufficient_balance",
        ),
    ),
)
