"""Give back what voided events had taken of a wallet: to the wallet they took it from, as it stands today."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from tallystick.core.events import StoredEvent
from tallystick.core.subscriptions import Status
from tallystick.core.times import index_at
from tallystick.core.wallets import Movement, Prepaid, Wallet, refunded, turned
from tallystick.flows.fill_wallets import key_of, post_and_tell
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
    offered: Mapping[UUID, Prepaid],
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
        postings: list[Posting] = []
        for event in by_customer[customer_id]:
            subscription = _payer(event, held, stand)
            key, deducted = key_of(subscription), event.draw.deducted if event.draw else Decimal(0)
            wallet, moved = _today(subscription, stand[key], offered, now)
            wallet, back = refunded(wallet, deducted)
            stand[key] = wallet
            postings.append(Posting(key, wallet, [*moved, *back], reference=event.id))
        for posting in postings:
            await post_and_tell(conn, organization, [posting], now=now)


def _payer(
    event: StoredEvent, held: Sequence[Subscription], stand: Mapping[WalletKey, Wallet]
) -> Subscription:
    """The subscription whose wallet the event drew on: the last that had begun, of that model, when it arrived."""
    payers = [
        each
        for each in held
        if key_of(each) in stand
        and event.draw is not None
        and stand[key_of(each)].model is event.draw.model
        and each.anchor_at is not None
        and each.anchor_at <= event.received_at
    ]
    return max(payers, key=lambda each: (each.anchor_at, each.id))


def _today(
    subscription: Subscription, wallet: Wallet, offered: Mapping[UUID, Prepaid], now: datetime
) -> tuple[Wallet, list[Movement]]:
    """A wallet that is still filled stands in the period of today before anything comes back."""
    prepaid, anchor = offered.get(subscription.plan_id), subscription.anchor
    if prepaid is None or anchor is None or subscription.state is Status.CANCELED:
        return wallet, []
    index = index_at(anchor, now, subscription.timezone)
    return turned(wallet, index, prepaid.grants(subscription.price_id))
