"""The wallets once more, by SQL that knows none of our folds: ledger, wallets, events and invoices tell one story."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from tallystick.store.db import Conn, rows

OUTSIDE = {"granted", "sold", "adjusted", "used", "expired", "invoiced", "carried"}
POOLS = {"plan_credits", "purchased_credits", "balance", "held"}


async def wallets_equal_their_ledger(conn: Conn, organization: UUID) -> None:
    await _every_movement_is_between_known_accounts(conn, organization)
    await _a_wallet_is_the_sum_of_its_movements(conn, organization)
    await _a_period_leaves_nothing_in_the_pool(conn, organization)
    await _what_events_took_was_posted_with_their_batch(conn, organization)
    await _what_was_overdrawn_is_on_one_line(conn, organization)


async def _every_movement_is_between_known_accounts(conn: Conn, organization: UUID) -> None:
    for source, target, least in await rows(
        conn,
        "SELECT source, target, min(amount) FROM ledger_entries WHERE organization_id = %s GROUP BY 1, 2",
        (organization,),
    ):
        assert source != target
        assert {source, target} <= OUTSIDE | POOLS
        assert {source, target} & POOLS, "something happened to a wallet"
        assert least > 0


async def _a_wallet_is_the_sum_of_its_movements(conn: Conn, organization: UUID) -> None:
    moved = await rows(
        conn,
        """SELECT subscription_id, account, sum(amount)
             FROM (SELECT subscription_id, target AS account, amount FROM ledger_entries
                    WHERE organization_id = %(organization)s
                   UNION ALL
                   SELECT subscription_id, source, -amount FROM ledger_entries
                    WHERE organization_id = %(organization)s) AS sides
            GROUP BY 1, 2""",
        {"organization": organization},
    )
    sums: dict[tuple[UUID, str], Decimal] = {(each[0], each[1]): each[2] for each in moved}
    everything: dict[UUID, Decimal] = {}
    for (subscription, _), amount in sums.items():
        everything[subscription] = everything.get(subscription, Decimal(0)) + amount
    assert set(everything.values()) <= {0}, "the ledger sums to zero"
    kept = await rows(
        conn,
        """SELECT w.subscription_id, w.model, p.consumption_model, w.plan, w.purchased, w.held,
                  NOT p.is_free AND NOT coalesce(p.block_on_exhaustion, false)
             FROM wallets w JOIN subscriptions s ON s.id = w.subscription_id JOIN plans p ON p.id = s.plan_id
            WHERE w.organization_id = %s""",
        (organization,),
    )
    assert everything.keys() <= {each[0] for each in kept}, "what moves has a wallet"
    for subscription, model, offered, plan, purchased, held, may_overdraw in kept:
        assert model == offered
        pool = "plan_credits" if model == "credits" else "balance"
        expected = {pool: plan, "purchased_credits": purchased, "held": held}
        found = {account: sums.get((subscription, account), Decimal(0)) for account in POOLS}
        assert found == dict.fromkeys(POOLS, Decimal(0)) | expected
        assert min(purchased, held) >= 0
        assert plan >= 0 or (model == "balance" and may_overdraw)


async def _a_period_leaves_nothing_in_the_pool(conn: Conn, organization: UUID) -> None:
    """What a period granted and was paid into it is used, expired, invoiced; one grant and one end each."""
    for index, current, model, left, grants, ends, canceled in await rows(
        conn,
        """SELECT e.period_index, w.period_index, w.model,
                  sum(CASE WHEN target IN ('plan_credits', 'balance') THEN amount ELSE 0 END)
                - sum(CASE WHEN source IN ('plan_credits', 'balance') THEN amount ELSE 0 END),
                  count(*) FILTER (WHERE cause IN ('grant', 'reset')),
                  count(*) FILTER (WHERE cause IN ('expiry', 'overdraft')),
                  s.ended_at IS NOT NULL
             FROM ledger_entries e JOIN wallets w USING (customer_id, subscription_id)
             JOIN subscriptions s ON s.id = e.subscription_id
            WHERE e.organization_id = %s GROUP BY e.subscription_id, 1, 2, 3, s.ended_at""",
        (organization,),
    ):
        assert index <= current
        assert grants <= 1
        assert ends <= 1 or canceled
        if index < current:
            assert left == 0, f"{model} of a period that is over"


async def _what_events_took_was_posted_with_their_batch(conn: Conn, organization: UUID) -> None:
    told = await rows(
        conn,
        """SELECT customer_id, batch, sum(deducted) FROM events
            WHERE customer_id IN (SELECT id FROM customers WHERE organization_id = %s) AND drew_on IS NOT NULL AND voids IS NULL
            GROUP BY 1, 2 HAVING sum(deducted) > 0""",
        (organization,),
    )
    posted = await rows(
        conn,
        """SELECT customer_id, batch, sum(amount) FROM ledger_entries
            WHERE organization_id = %s AND cause = 'usage' GROUP BY 1, 2""",
        (organization,),
    )
    assert _sums(posted) == _sums(told)
    twice = await rows(
        conn,
        """SELECT subscription_id, batch, source FROM ledger_entries
            WHERE organization_id = %s AND cause = 'usage' GROUP BY 1, 2, 3 HAVING count(*) > 1""",
        (organization,),
    )
    assert twice == [], "one posting a wallet and batch"


def _sums(found: Any) -> dict[tuple[UUID, int], Decimal]:
    return {(each[0], each[1]): each[2] for each in found}


async def _what_was_overdrawn_is_on_one_line(conn: Conn, organization: UUID) -> None:
    """Of every closed period, to the rate unit; and no line says it that the ledger does not."""
    overdrawn = await rows(
        conn,
        """SELECT e.subscription_id, e.period_index, sum(e.amount)
             FROM ledger_entries e JOIN closed_periods c
               ON c.subscription_id = e.subscription_id AND c.period_index = e.period_index
            WHERE e.organization_id = %s AND e.cause = 'overdraft' GROUP BY 1, 2""",
        (organization,),
    )
    lines = await rows(
        conn,
        """SELECT l.subscription_id, l.usage_period, (l.evidence ->> 'overdrawn')::numeric
             FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
            WHERE i.organization_id = %s AND l.line_type = 'balance_overage' AND i.status <> 'void'
            ORDER BY 1, 2""",
        (organization,),
    )
    assert sorted(lines) == sorted(overdrawn)
