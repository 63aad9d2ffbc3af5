"""Adjust a wallet by hand."""

from datetime import datetime
from decimal import Decimal

from tallystick.core.admission import insufficient
from tallystick.core.subscriptions import Status
from tallystick.core.wallets import Crossing, Model, Wallet, adjusted, crossings
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.books import load_prepaid
from tallystick.flows.fill_wallets import key_of, lock_wallet, post_and_tell
from tallystick.store.db import Conn
from tallystick.store.organizations import Organization
from tallystick.store.subscriptions import Subscription
from tallystick.store.wallets import Posting


async def adjust_wallet(
    conn: Conn,
    *,
    organization: Organization,
    subscription: Subscription,
    amount: Decimal,
    model: Model | None,
    reason: str | None,
    now: datetime,
) -> Wallet:
    """Add to what stays, or take as usage would, in credits or rate units; the subscription is held.

    Raises insufficient_credits or insufficient_balance where that much is not there.
    """
    if not amount:
        raise InvalidRequest(FieldError("amount", "must not be 0"))
    prepaid = (await load_prepaid(conn, organization.id)).get(subscription.plan_id)
    if prepaid is None:
        raise InvalidRequest(FieldError("type", "the plan is metered: it has neither credits nor a balance"))
    if model not in (None, prepaid.model):
        raise InvalidRequest(FieldError("type", f"is not what the plan counts in: that is {prepaid.model}"))
    if subscription.state is Status.CANCELED:
        raise Problem("subscription_not_active")
    wallet = await lock_wallet(conn, organization=organization, subscription=subscription, now=now)
    if wallet is None:  # it has yet to be paid for
        raise Problem("subscription_not_active")
    changed = adjusted(wallet, amount)
    if changed is None:
        raise insufficient(wallet, -amount, param="amount")
    after, moved = changed
    posting = Posting(key_of(subscription), after, moved, reason=reason)
    if amount < 0:
        posting = _told(posting, wallet)
    await post_and_tell(conn, organization, [posting], now=now)
    return posting.wallet


def _told(posting: Posting, before: Wallet) -> Posting:
    """Taking can cross what usage can. Of a balance it is a refill too, below which nothing is low yet."""
    after, crossed = crossings(before, posting.wallet)
    if before.model is Model.BALANCE:
        after, crossed = posting.wallet, [each for each in crossed if each is Crossing.DEPLETED]
    return Posting(posting.key, after, posting.movements, reason=posting.reason, crossed=crossed)
