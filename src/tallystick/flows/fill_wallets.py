"""Fill wallets: as a subscription begins, as its periods turn, and empty them as it ends.

Usage turns a wallet at its first touch in a new period (`draw_on_wallets`); here are those that nobody touches.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from tallystick.core.subscriptions import Status
from tallystick.core.times import index_at
from tallystick.core.wallets import (
    Model,
    Movement,
    Prepaid,
    Wallet,
    carried_over,
    lapsed,
    opened,
    released,
    settled,
    turned,
)
from tallystick.errors import must
from tallystick.flows.books import load_prepaid
from tallystick.flows.post_wallets import post_wallets
from tallystick.store import customers, reservations, subscriptions, wallets
from tallystick.store.db import Conn
from tallystick.store.organizations import Organization
from tallystick.store.subscriptions import Subscription
from tallystick.store.wallets import Posting, WalletKey


def key_of(subscription: Subscription) -> WalletKey:
    return WalletKey(subscription.customer_id, subscription.id)


async def open_wallet(
    conn: Conn, *, organization: Organization, subscription: Subscription, now: datetime
) -> None:
    """The wallet of a prepaid plan, filled for its first period; credits the customer once bought come along."""
    prepaid = (await load_prepaid(conn, organization.id)).get(subscription.plan_id)
    if prepaid is None:
        return
    key = key_of(subscription)
    included = prepaid.grants(subscription.price_id)
    wallet, moved = opened(prepaid.model, subscription.period_index, included)
    left: list[Posting] = []
    if prepaid.model is Model.CREDITS:
        for place, old in (await wallets.of_customer(conn, customer_id=key.customer_id, lock=True)).items():
            if old.model is Model.CREDITS and old.purchased:
                (without, gone), (wallet, come) = carried_over(old, wallet)
                left.append(Posting(place, without, gone))
                moved += come
    await post_and_tell(conn, organization, [*left, Posting(key, wallet, moved)], now=now)


async def turn_wallets(
    conn: Conn, *, organization: Organization, closing: Sequence[Subscription], now: datetime
) -> None:
    """Let the wallets of periods that are to be closed leave them, so that what was overdrawn is known for good."""
    found = await wallets.lock(conn, [key_of(each) for each in closing])
    if not found:
        return
    offered = await load_prepaid(conn, organization.id)
    postings = []
    for each in closing:
        wallet = found.get(key_of(each))
        if wallet is None or wallet.period_index > each.period_index:
            continue
        after, moved = _left(each, wallet, offered, now)
        if moved or after != wallet:
            postings.append(Posting(key_of(each), after, moved))
    await post_and_tell(conn, organization, postings, now=now)


def _left(
    subscription: Subscription, wallet: Wallet, offered: Mapping[UUID, Prepaid], now: datetime
) -> tuple[Wallet, list[Movement]]:
    prepaid, anchor = offered.get(subscription.plan_id), subscription.anchor
    must(prepaid is not None and anchor is not None, "a wallet belongs to a prepaid plan", id=subscription.id)
    assert prepaid is not None and anchor is not None
    end = subscription.period_end
    over = subscription.state is Status.CANCELED or (
        subscription.cancel_at is not None and end is not None and subscription.cancel_at <= end
    )
    if over:
        return emptied(wallet)
    index = max(subscription.period_index + 1, index_at(anchor, now, subscription.timezone))
    return turned(wallet, index, prepaid.grants(subscription.price_id))


def emptied(wallet: Wallet) -> tuple[Wallet, list[Movement]]:
    """As a subscription ends: plan credits go, a balance keeps its number and buys nothing, a debt is to be invoiced."""
    freed, moved = released(wallet, wallet.held)
    return (freed, moved) if freed.model is Model.BALANCE and freed.plan >= 0 else settled(wallet)


async def end_wallet(
    conn: Conn, *, organization: Organization, subscription: Subscription, now: datetime
) -> None:
    """As its subscription is canceled."""
    found = await wallets.lock(conn, [key_of(subscription)])
    for key, wallet in found.items():
        after, moved = emptied(wallet)
        if moved:
            await post_and_tell(conn, organization, [Posting(key, after, moved)], now=now)


async def lock_wallet(
    conn: Conn, *, organization: Organization, subscription: Subscription, now: datetime
) -> Wallet | None:
    """Lock a wallet, in the period that is open now; of a subscription that is over, as it was left. None: no wallet.

    What was set aside and not settled in time is there again. What moves here is posted by itself, so that a posting
    that follows names what caused it and nothing else.
    """
    key = key_of(subscription)
    await release_expired(conn, organization, [key], now=now)
    wallet = (await wallets.lock(conn, [key])).get(key)
    if wallet is None or subscription.is_over(now):
        return wallet
    prepaid, anchor = (await load_prepaid(conn, organization.id))[subscription.plan_id], subscription.anchor
    assert anchor is not None  # it was activated with its wallet
    index = index_at(anchor, now, subscription.timezone)
    after, moved = turned(wallet, index, prepaid.grants(subscription.price_id))
    if after != wallet:
        await post_and_tell(conn, organization, [Posting(key, after, moved)], now=now)
    return after


async def home_wallet(
    conn: Conn, *, organization: Organization, subscription: Subscription, now: datetime
) -> tuple[Subscription, Wallet]:
    """Lock the wallet into which something comes. Credits of a subscription that was canceled meanwhile go where its
    other credits went: to the customer's next one, if there is one by now."""
    wallet = await lock_wallet(conn, organization=organization, subscription=subscription, now=now)
    must(wallet is not None, "a prepaid subscription has a wallet", subscription=subscription.id)
    assert wallet is not None
    if wallet.model is Model.CREDITS and subscription.state is Status.CANCELED:
        following = await subscriptions.live_of_customer(
            conn, organization_id=organization.id, customer_id=subscription.customer_id
        )
        if following is not None:
            other = await lock_wallet(conn, organization=organization, subscription=following, now=now)
            if other is not None and other.model is Model.CREDITS:
                return following, other
    return subscription, wallet


async def release_expired(
    conn: Conn, organization: Organization, keys: Sequence[WalletKey], *, now: datetime
) -> None:
    """Give back what was set aside and nobody settled in time."""
    found = await wallets.lock(conn, keys)
    for key, lapses in (await reservations.expire(conn, list(found), now=now)).items():
        after, moved = lapsed(found[key], lapses)
        if moved:
            await post_and_tell(conn, organization, [Posting(key, after, moved)], now=now)


async def post_and_tell(
    conn: Conn, organization: Organization, postings: Sequence[Posting], *, now: datetime
) -> None:
    """Post held wallets of customers whose names are yet to be looked up."""
    people = await customers.of_ids(
        conn, organization_id=organization.id, customer_ids={each.key.customer_id for each in postings}
    )
    references = {each.id: each.reference for each in people.values()}
    await post_wallets(conn, organization, postings, references=references, now=now)
