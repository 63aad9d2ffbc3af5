"""Wallets and the ledger they are the sums of; whoever changes a wallet holds it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from tallystick.core.times import Period
from tallystick.core.wallets import Cause, Crossing, Model, Movement, Wallet
from tallystick.store import citus, columns, db
from tallystick.store.db import Conn, Later, new_ids, rows, the
from tallystick.store.places import within


class WalletKey(NamedTuple):
    customer_id: UUID
    subscription_id: UUID


_STATE: Final = "model, period_index, plan, purchased, held, held_purchased, refill, told_low"
_WALLET: Final = f"customer_id, subscription_id, {_STATE}"


def _wallet(state: Sequence[Any]) -> Wallet:
    return Wallet(Model(state[0]), *state[1:8])


def _wallets(found: Iterable[Any]) -> dict[WalletKey, Wallet]:
    return {WalletKey(each[0], each[1]): _wallet(each[2:]) for each in found}


_LOCK: Final = f"""
    SELECT t.nth, w.*
      FROM unnest(%s::uuid[], %s::uuid[]) WITH ORDINALITY AS t (customer_id, subscription_id, nth)
     CROSS JOIN LATERAL (
           SELECT {_STATE} FROM wallets w
            WHERE w.customer_id = t.customer_id AND w.subscription_id = t.subscription_id
              FOR NO KEY UPDATE) w"""


async def lock(conn: Conn, keys: Sequence[WalletKey]) -> dict[WalletKey, Wallet]:
    """Hold wallets, in one order; those that do not exist are absent."""
    ordered = sorted(set(keys))
    if citus.is_citus(conn):
        return await (await _locked_one_by_one(conn, ordered))()
    found = await rows(conn, _LOCK, _columns(ordered))
    return {ordered[each[0] - 1]: _wallet(each[1:]) for each in found}


async def _locked_one_by_one(conn: Conn, keys: Sequence[WalletKey]) -> Later[dict[WalletKey, Wallet]]:
    """Where rows of several shards cannot be locked by one statement."""
    asked = [
        (
            key,
            await conn.execute(
                f"SELECT {_STATE} FROM wallets WHERE customer_id = %s AND subscription_id = %s FOR NO KEY UPDATE",
                key,
            ),
        )
        for key in keys
    ]

    async def held() -> dict[WalletKey, Wallet]:
        found = [(key, await cursor.fetchone()) for key, cursor in asked]
        return {key: _wallet(state) for key, state in found if state is not None}

    return held


async def lock_for_batch(
    conn: Conn, keys: Sequence[WalletKey]
) -> Later[tuple[dict[WalletKey, Wallet], int | None]]:
    """The same, and the number of the batch that is yet to be stored, for what refers to it beforehand; None where
    no wallet is held."""
    ordered = sorted(set(keys))
    if citus.is_citus(conn):
        locked = await _locked_one_by_one(conn, ordered)
        numbered = await conn.execute("SELECT nextval('ingest_batch_numbers')")

        async def numbered_and_held() -> tuple[dict[WalletKey, Wallet], int | None]:
            found = await locked()
            number = int((await the(numbered))[0])
            return found, number if found else None

        return numbered_and_held
    cursor = await conn.execute(
        f"""WITH batch AS MATERIALIZED (SELECT nextval('ingest_batch_numbers') AS number)
            SELECT batch.number, l.* FROM ({_LOCK}) l CROSS JOIN batch""",
        _columns(ordered),
    )

    async def held() -> tuple[dict[WalletKey, Wallet], int | None]:
        found = await cursor.fetchall()
        return {ordered[each[1] - 1]: _wallet(each[2:]) for each in found}, found[0][0] if found else None

    return held


def _columns(keys: Sequence[WalletKey]) -> tuple[columns.Column, columns.Column]:
    return (
        columns.uuids(each.customer_id for each in keys),
        columns.uuids(each.subscription_id for each in keys),
    )


async def read(conn: Conn, keys: Sequence[WalletKey]) -> dict[WalletKey, Wallet]:
    """As they stand, held by nobody; those that do not exist are absent."""
    return _wallets(
        await rows(
            conn,
            f"""SELECT w.*
                  FROM unnest(%s::uuid[], %s::uuid[]) AS t (customer_id, subscription_id)
                 CROSS JOIN LATERAL (
                       SELECT {_WALLET} FROM wallets w
                        WHERE w.customer_id = t.customer_id AND w.subscription_id = t.subscription_id OFFSET 0) w""",
            _columns(keys),
        )
    )


async def read_with_version(
    conn: Conn, keys: Sequence[WalletKey], *, organization_id: UUID
) -> tuple[dict[WalletKey, Wallet], int]:
    """The same, and the organization's version at that moment or after it: in one round trip but on a cluster."""
    if citus.is_citus(conn):  # the wallets are elsewhere, and the version is here
        return await read(conn, keys), await db.version(conn, organization_id=organization_id)
    found = await rows(
        conn,
        f"""SELECT h.version, w.*
              FROM organization_heads h
             CROSS JOIN unnest(%s::uuid[], %s::uuid[]) AS t (customer_id, subscription_id)
              LEFT JOIN LATERAL (
                   SELECT {_WALLET} FROM wallets w
                    WHERE w.customer_id = t.customer_id AND w.subscription_id = t.subscription_id OFFSET 0) w ON true
             WHERE h.organization_id = %s""",
        (*_columns(keys), organization_id),
    )
    return _wallets(each[1:] for each in found if each[1] is not None), int(found[0][0])


async def get(conn: Conn, key: WalletKey) -> Wallet | None:
    """As it stands; the period it stands in may be over (`core.wallets.turned`)."""
    found = await rows(
        conn, f"SELECT {_WALLET} FROM wallets WHERE customer_id = %s AND subscription_id = %s", key
    )
    return _wallets(found).get(key)


async def of_customer(conn: Conn, *, customer_id: UUID, lock: bool = False) -> dict[WalletKey, Wallet]:
    """All a customer ever had, in order of subscription."""
    found = await rows(
        conn,
        f"SELECT {_WALLET} FROM wallets WHERE customer_id = %s ORDER BY subscription_id"
        + (" FOR NO KEY UPDATE" if lock else ""),
        (customer_id,),
    )
    return _wallets(found)


async def overdrawn(conn: Conn, asked: Sequence[tuple[WalletKey, int]]) -> dict[UUID, Decimal]:
    """By subscription, how far below zero its wallet went in a usage period, in rate units; absent where it did not.

    What the period left behind stands in the ledger; while it is open, the wallet itself says.
    """
    found = await rows(
        conn,
        """WITH asked AS MATERIALIZED (
               SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::int[]) AS t (customer_id, subscription_id, period_index)
           ), found AS MATERIALIZED (
               SELECT t.subscription_id, e.amount
                 FROM asked t CROSS JOIN LATERAL (
                      SELECT amount FROM ledger_entries e
                       WHERE e.customer_id = t.customer_id AND e.subscription_id = t.subscription_id
                         AND e.period_index = t.period_index AND e.cause = 'overdraft' OFFSET 0) e
                UNION ALL
               SELECT t.subscription_id, -(w.plan + w.held - w.held_purchased)
                 FROM asked t CROSS JOIN LATERAL (
                      SELECT plan, held, held_purchased FROM wallets w
                       WHERE w.customer_id = t.customer_id AND w.subscription_id = t.subscription_id
                         AND w.period_index = t.period_index AND w.plan + w.held - w.held_purchased < 0 OFFSET 0) w
           )
           SELECT subscription_id, sum(amount) FROM found GROUP BY 1 HAVING sum(amount) > 0""",
        (
            [key.customer_id for key, _ in asked],
            [key.subscription_id for key, _ in asked],
            [index for _, index in asked],
        ),
    )
    return {each[0]: each[1] for each in found}


@dataclass(frozen=True, slots=True)
class Overdraft:
    """What the ledger and the events say of a balance that a period left below zero, in rate units."""

    overdrawn: Decimal  # moved in to bring it back to zero
    left: Decimal  # what all movements until then come to; zero
    events: int  # that it paid for in the period
    unlike: list[
        tuple[int, Decimal, Decimal]
    ]  # batches whose posting is not what their events took: both amounts


async def overdraft(conn: Conn, *, key: WalletKey, period_index: int) -> Overdraft:
    """Reads the customer's ledger and events; a void keeps what its event took, and gives it back by itself."""
    params = {"customer": key.customer_id, "subscription": key.subscription_id, "period": period_index}
    sums = await rows(
        conn,
        """SELECT coalesce(sum(amount) FILTER (WHERE cause = 'overdraft' AND period_index = %(period)s), 0),
                  coalesce(sum(CASE WHEN target = 'balance' THEN amount WHEN source = 'balance' THEN -amount END), 0)
             FROM ledger_entries
            WHERE customer_id = %(customer)s AND subscription_id = %(subscription)s AND period_index <= %(period)s""",
        params,
    )
    posted = await rows(
        conn,
        """SELECT batch, l.amount, coalesce(e.deducted, 0), coalesce(e.events, 0)
             FROM (SELECT batch, sum(amount) AS amount FROM ledger_entries
                    WHERE customer_id = %(customer)s AND subscription_id = %(subscription)s
                      AND period_index = %(period)s AND cause = 'usage' GROUP BY batch) l
             LEFT JOIN (SELECT batch, sum(deducted) AS deducted, count(*) AS events FROM events
                         WHERE customer_id = %(customer)s AND drew_on = 'balance' GROUP BY batch) e USING (batch)
            ORDER BY batch""",
        params,
    )
    unlike = [(each[0], each[1], each[2]) for each in posted if each[1] != each[2]]
    return Overdraft(sums[0][0], sums[0][1], sum(each[3] for each in posted), unlike)


async def deducted(conn: Conn, *, customer_id: UUID, event_code: str, span: Period) -> Decimal:
    """What the events of a code that happened in a span took, all of them read; what was taken back is not there."""
    found = await rows(
        conn,
        f"""SELECT coalesce(sum(e.deducted), 0) FROM events e
             WHERE e.customer_id = %(customer)s AND {within("%(start)s::timestamptz", "%(end)s::timestamptz")}
               AND e.feature_code = %(code)s AND e.voids IS NULL AND e.voided IS NULL""",
        {"customer": customer_id, "start": span.start, "end": span.end, "code": event_code},
    )
    amount: Decimal = found[0][0]
    return amount


class Entry(NamedTuple):
    """A movement as it was written."""

    id: UUID
    customer_id: UUID
    subscription_id: UUID
    period_index: int
    source: str
    target: str
    amount: Decimal
    cause: str
    batch: int | None
    reference: UUID | None
    reason: str | None
    created_at: datetime


async def ledger(
    conn: Conn,
    *,
    customer_id: UUID,
    subscription_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[Entry]:
    """Newest first."""
    found = await rows(
        conn,
        """SELECT id, customer_id, subscription_id, period_index, source, target, amount, cause, batch, reference,
                  reason, created_at
             FROM ledger_entries
            WHERE customer_id = %(customer)s
              AND (%(subscription)s::uuid IS NULL OR subscription_id = %(subscription)s)
              AND (%(before)s::uuid IS NULL OR id < %(before)s)
            ORDER BY id DESC LIMIT %(limit)s""",
        {"customer": customer_id, "subscription": subscription_id, "before": before, "limit": limit},
    )
    return [Entry(*each) for each in found]


class Posting(NamedTuple):
    """A wallet as it now is, and what moved: with what caused it."""

    key: WalletKey
    wallet: Wallet
    movements: Sequence[Movement]
    batch: int | None = None  # of the events behind what was used
    reference: UUID | None = None  # the invoice, the purchase, the event or the reservation behind it
    reason: str | None = None
    crossed: Sequence[Crossing] = ()  # on the way down


async def post(conn: Conn, postings: Sequence[Posting], *, organization_id: UUID, now: datetime) -> None:
    """Write held wallets, and the movements that made them so, in one statement."""
    moved = [(each, movement) for each in postings for movement in each.movements]
    await conn.execute(
        """WITH moved AS (
               INSERT INTO ledger_entries (customer_id, id, organization_id, subscription_id, period_index, source,
                                           target, amount, cause, batch, reference, reason, created_at)
               SELECT customer_id, id, %(organization)s, subscription_id, period_index::int, source, target,
                      amount::numeric, cause, batch::bigint, reference, reason, %(now)s
                 FROM unnest(%(m_customers)s::uuid[], %(m_ids)s::uuid[], %(m_subscriptions)s::uuid[],
                             %(m_periods)s::text[], %(m_sources)s::text[], %(m_targets)s::text[],
                             %(m_amounts)s::text[], %(m_causes)s::text[], %(m_batches)s::text[],
                             %(m_references)s::uuid[], %(m_reasons)s::text[])
                   AS m (customer_id, id, subscription_id, period_index, source, target, amount, cause, batch,
                         reference, reason))
           INSERT INTO wallets AS w (customer_id, subscription_id, organization_id, model, period_index, plan,
                                     purchased, held, held_purchased, refill, told_low)
           SELECT customer_id, subscription_id, %(organization)s, model, period_index::int, plan::numeric,
                  purchased::numeric, held::numeric, held_purchased::numeric, refill::numeric, told_low
             FROM unnest(%(customers)s::uuid[], %(subscriptions)s::uuid[], %(models)s::text[], %(periods)s::text[],
                         %(plans)s::text[], %(purchased)s::text[], %(held)s::text[], %(held_purchased)s::text[],
                         %(refills)s::text[],
                         %(told_low)s::bool[])
               AS t (customer_id, subscription_id, model, period_index, plan, purchased, held, held_purchased,
                     refill, told_low)
           ON CONFLICT (customer_id, subscription_id) DO UPDATE
              SET period_index = excluded.period_index, plan = excluded.plan, purchased = excluded.purchased,
                  held = excluded.held, held_purchased = excluded.held_purchased, refill = excluded.refill, told_low = excluded.told_low""",
        {
            "organization": organization_id,
            "now": now,
            "m_customers": columns.uuids(each.key.customer_id for each, _ in moved),
            "m_ids": columns.uuids(new_ids(len(moved))),
            "m_subscriptions": columns.uuids(each.key.subscription_id for each, _ in moved),
            "m_periods": columns.texts(str(movement.period_index) for _, movement in moved),
            "m_sources": columns.texts(movement.source for _, movement in moved),
            "m_targets": columns.texts(movement.target for _, movement in moved),
            "m_amounts": columns.numbers(movement.amount for _, movement in moved),
            "m_causes": columns.texts(movement.cause for _, movement in moved),
            "m_batches": columns.texts(
                str(each.batch) if each.batch is not None and movement.cause is Cause.USAGE else None
                for each, movement in moved
            ),
            "m_references": columns.uuids(each.reference for each, _ in moved),
            "m_reasons": columns.texts(each.reason for each, _ in moved),
            "customers": columns.uuids(each.key.customer_id for each in postings),
            "subscriptions": columns.uuids(each.key.subscription_id for each in postings),
            "models": columns.texts(each.wallet.model for each in postings),
            "periods": columns.texts(str(each.wallet.period_index) for each in postings),
            "plans": columns.numbers(each.wallet.plan for each in postings),
            "purchased": columns.numbers(each.wallet.purchased for each in postings),
            "held": columns.numbers(each.wallet.held for each in postings),
            "held_purchased": columns.numbers(each.wallet.held_purchased for each in postings),
            "refills": columns.numbers(each.wallet.refill for each in postings),
            "told_low": columns.flags(each.wallet.told_low for each in postings),
        },
    )
