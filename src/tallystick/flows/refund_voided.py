"""Give back what voided events had taken of a wallet: to the wallet they took it from, or the one that followed it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from tallystick.core.events import StoredEvent
from tallystick.core.wallets import Wallet, refunded
from tallystick.flows.fill_wallets import home_wallet, key_of, post_and_tell
from tallystick.store import subscriptions, wallets
from tallystick.store.db import Conn
from tallystick.store.organizations import Organization
from tallystick.store.subscriptions import Subscription
from tallystick.store.wallets import Posting, WalletKey


async def refund_voided(
    conn: Conn,
    organization: Organization,
    voided: Sequence[StoredEvent],
    *,
    now: datetime,
) -> None:
    """Refunds are postings of their own, each naming its event; those of metered plans had taken nothing."""
    paid = [each for each in voided if each.draw is not None and each.draw.deducted]
    by_customer: defaultdict[UUID, list[StoredEvent]] = defaultdict(list)
    for each in paid:
        by_customer[each.customer_id].append(each)
    for customer_id in sorted(by_customer):
        held = await subscriptions.of_customer(conn, organization_id=organization.id, customer_id=customer_id)
        stand = await wallets.of_customer(conn, customer_id=customer_id, lock=True)
        for event in by_customer[customer_id]:
            home, wallet = await home_wallet(
                conn, organization=organization, subscription=_payer(event, held, stand), now=now
            )
            assert event.draw is not None
            after, back = refunded(wallet, event.draw.deducted)
            posting = Posting(key_of(home), after, back, reference=event.id)
            await post_and_tell(conn, organization, [posting], now=now)


def _payer(
    event: StoredEvent, held: Sequence[Subscription], stand: Mapping[WalletKey, Wallet]
) -> Subscription:
    """The subscription whose wallet the event drew on, as `core.subscriptions.Standing.life_for` chose it: the last that
    had begun when it arrived, if it could be used then, else the one that the event happened in."""
    assert event.draw is not None
    payers = [
        each for each in held if key_of(each) in stand and stand[key_of(each)].model is event.draw.model
    ]
    payers.sort(key=lambda each: (each.anchor_at or each.created_at, each.id))
    begun = [each for each in payers if each.anchor_at is not None and each.anchor_at <= event.received_at]
    last = (begun or payers[:1])[-1]
    if _contains(last, event.received_at):
        return last
    return next((each for each in reversed(begun) if _contains(each, event.occurred_at)), last)


def _contains(subscription: Subscription, at: datetime) -> bool:
    start, end = subscription.anchor_at, subscription.ended_at or subscription.cancel_at
    return start is not None and start <= at and (end is None or at < end)
