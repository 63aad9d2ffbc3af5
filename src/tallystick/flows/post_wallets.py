"""Post held wallets, and record what there is to tell of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from tallystick.core import ids
from tallystick.core.wallet_news import news_of
from tallystick.store import domain_events, wallets
from tallystick.store.db import Conn
from tallystick.store.domain_events import DomainEvent
from tallystick.store.organizations import Organization
from tallystick.store.wallets import Posting


async def post_wallets(
    conn: Conn,
    organization: Organization,
    postings: Sequence[Posting],
    *,
    references: Mapping[UUID, str],
    now: datetime,
) -> None:
    """`references` say how each customer is known to the caller."""
    if not postings:
        return
    await wallets.post(conn, postings, organization_id=organization.id, now=now)
    told = [
        DomainEvent(type_, each.key.customer_id, data)
        for each in postings
        for type_, data in news_of(
            each.wallet,
            each.movements,
            each.crossed,
            subscription_id=ids.show(ids.SUBSCRIPTION, each.key.subscription_id),
            customer_id=references[each.key.customer_id],
            currency=organization.currency,
        )
    ]
    if told:
        await domain_events.record(conn, told, organization_id=organization.id, now=now)
