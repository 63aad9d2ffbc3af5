"""Reserve, then settle: set aside what usage may cost before it is known, and charge what it did cost.

What is set aside is neither there to be spent nor gone; what usage costs in the end is charged by the event that
settling writes, whose key is the reservation's id, so it is charged once (ruling 27).
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from tallystick.core import ids
from tallystick.core.admission import admit, insufficient
from tallystick.core.events import UsageEvent
from tallystick.core.limits import RESERVATIONS_PER_SWEEP
from tallystick.core.money import text
from tallystick.core.spending import Spend
from tallystick.core.wallets import hold, released
from tallystick.errors import FieldError, InvalidRequest, Problem, must
from tallystick.flows.books import Book, Books
from tallystick.flows.drafts import Accepted, Draft
from tallystick.flows.fill_wallets import lock_wallet, post_and_tell, release_expired
from tallystick.flows.ingest import ingest
from tallystick.store import db, organizations, reservations, subscriptions, wallets
from tallystick.store.db import Conn, Database, new_id
from tallystick.store.organizations import Organization
from tallystick.store.reservations import Reservation
from tallystick.store.wallets import Posting

log = logging.getLogger("tallystick.worker")
_ATTEMPTS_MAX = 10


async def reserve(
    conn: Conn,
    books: Books,
    *,
    organization: Organization,
    wanted: UsageEvent,
    expires_in: timedelta,
    now: datetime,
) -> Reservation:
    """Set aside what `wanted` would cost if it happened now; refused as the event would be."""
    for _ in range(_ATTEMPTS_MAX):
        book = await books.current(conn, organization.id)
        customer_id, spend = await _priced(conn, books, book, wanted, now)
        subscription = await subscriptions.get(
            conn, organization_id=organization.id, subscription_id=spend.subscription_id
        )
        must(subscription is not None, "a standing names a subscription", id=spend.subscription_id)
        assert subscription is not None
        wallet = await lock_wallet(conn, organization=organization, subscription=subscription, now=now)
        assert wallet is not None
        if book.version != await db.version(conn, organization_id=organization.id):
            continue  # what it was priced by has moved while we waited for the wallet
        if not wallet.pays(spend.cost, overdraft=spend.overdraft):
            raise insufficient(wallet, spend.cost)
        made = Reservation(
            id=new_id(),
            organization_id=organization.id,
            customer_id=customer_id,
            subscription_id=subscription.id,
            event_code=wanted.feature,
            quantity=None if wanted.call else wanted.value,
            model=wanted.call.model if wanted.call else None,
            input_tokens=wanted.call.counts.input if wanted.call else None,
            max_output_tokens=wanted.call.counts.output if wanted.call else None,
            amount=spend.cost,
            status="held",
            expires_at=now + expires_in,
            event_id=None,
            created_at=now,
            updated_at=now,
        )
        after, moved = hold(wallet, spend.cost)
        await post_and_tell(conn, organization, [Posting(made.key, after, moved, reference=made.id)], now=now)
        await reservations.insert(conn, made)
        return made
    raise Problem("unavailable", "The catalogue keeps changing; try again.", retry_after_s=1)


async def _priced(
    conn: Conn, books: Books, book: Book, wanted: UsageEvent, now: datetime
) -> tuple[UUID, Spend]:
    await books.learn(conn, book, {wanted.customer})
    standing = book.standings.get(wanted.customer)
    if standing is None:
        raise Problem("customer_not_found", f"There is no customer {wanted.customer!r}.", param="customerId")
    admitted = admit(wanted, book.catalogue, standing, now=now, latest=now, price_tokens=book.price_tokens)
    if admitted.spend is None:
        raise InvalidRequest(
            FieldError("customerId", "holds no prepaid plan: there is nothing to set aside from")
        )
    return standing.customer_id, admitted.spend


@dataclass(frozen=True, slots=True)
class Settled:
    reservation: Reservation
    event: Accepted


async def settle(
    conn: Conn,
    books: Books,
    *,
    organization: Organization,
    reservation_id: UUID,
    used: UsageEvent,
    allow_overrun: bool,
    now: datetime,
    wall: datetime,
) -> Settled:
    """Charge what was used, and give back the rest of what was set aside: both or neither."""
    held = await _open(conn, organization, reservation_id, now)
    await _give_back(conn, organization, held, now)
    event = used._replace(
        feature=held.event_code,
        customer=ids.show(ids.CUSTOMER, held.customer_id),
        key=ids.show(ids.RESERVATION, held.id),
    )
    (outcome,) = await ingest(conn, books, organization.id, [Draft(event)], wall=wall)
    if not isinstance(outcome, Accepted):
        raise outcome
    draw = outcome.event.draw
    cost = draw.deducted if draw is not None else held.amount
    if cost > held.amount and not allow_overrun:
        raise Problem(
            "reservation_exceeded",
            f"It costs {text(cost)}, and {text(held.amount)} was set aside; allowOverrun charges it all the same.",
            param="allowOverrun",
        )
    done = replace(held, status="settled", event_id=outcome.event.id, updated_at=now)
    await reservations.conclude(conn, done)
    return Settled(done, outcome)


async def release(
    conn: Conn, *, organization: Organization, reservation_id: UUID, now: datetime
) -> Reservation:
    """Give back all that was set aside; nothing was used."""
    held = await _open(conn, organization, reservation_id, now)
    await _give_back(conn, organization, held, now)
    done = replace(held, status="released", updated_at=now)
    await reservations.conclude(conn, done)
    return done


async def _open(conn: Conn, organization: Organization, reservation_id: UUID, now: datetime) -> Reservation:
    """A reservation that still holds, with its wallet locked before it."""
    seen = await reservations.get(conn, organization_id=organization.id, reservation_id=reservation_id)
    if seen is None:
        raise Problem("reservation_not_found")
    await wallets.lock(conn, [seen.key])
    held = await reservations.get(
        conn, organization_id=organization.id, reservation_id=reservation_id, lock=True
    )
    assert held is not None
    status = "expired" if held.status == "held" and held.expires_at <= now else held.status
    if status != "held":
        raise Problem("reservation_not_open", f"The reservation is {status}.", details={"status": status})
    return held


async def _give_back(conn: Conn, organization: Organization, held: Reservation, now: datetime) -> None:
    subscription = await subscriptions.get(
        conn, organization_id=organization.id, subscription_id=held.subscription_id
    )
    assert subscription is not None
    wallet = await lock_wallet(conn, organization=organization, subscription=subscription, now=now)
    assert wallet is not None
    after, moved = released(wallet, held.amount, newer=await reservations.newer(conn, held))
    await post_and_tell(conn, organization, [Posting(held.key, after, moved, reference=held.id)], now=now)


async def release_due(database: Database, *, wall: datetime) -> None:
    """Of every organization, by its own clock."""
    async with database.reading() as conn:
        due = await reservations.expired(conn, wall=wall, limit=RESERVATIONS_PER_SWEEP)
    for organization_id, key in due:
        try:
            async with database.transaction() as conn:
                organization = await organizations.get(conn, organization_id=organization_id)
                assert organization is not None
                await release_expired(conn, organization, [key], now=organization.simulated_time or wall)
        except (psycopg.OperationalError, PoolTimeout):
            raise
        except Exception as error:  # the others are given back all the same
            log.error("what was set aside by %s is not given back", key.subscription_id, exc_info=error)
