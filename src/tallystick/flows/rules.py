"""The rules of the books: each looks at one organization and says how many break it, and who.

Rollups, counters, keys and totals are kept so that reading is fast; a rule looks behind them, where events and
lines decide. A further rule is a function from `Asked` to `Found`, and a row of `RULES`.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from tallystick.core import ids
from tallystick.core.catalog import Catalogue, stops_throughout, stretches
from tallystick.core.meters import Aggregation, Meter, in_force
from tallystick.core.money import ZERO, text
from tallystick.core.reckoning import reckon
from tallystick.core.subscriptions import Life, Status
from tallystick.core.times import Period, show_instant, whole_hours
from tallystick.flows.books import load_catalogue
from tallystick.flows.measure_usage import measure_usage
from tallystick.flows.verify_chain import verify_chain, verify_keys
from tallystick.flows.verify_line import UNREADABLE
from tallystick.store import archives, catalog, reconcile, subscriptions, usage
from tallystick.store.db import Conn, one_moment
from tallystick.store.organizations import Organization
from tallystick.store.portions import Portion, portions
from tallystick.store.reconcile import FIRST_MAX, Offenders
from tallystick.store.subscriptions import Subscription
from tallystick.store.usage import CounterKey

_UNDONE_AFTER: Final = timedelta(hours=1)
"""Sweeps come every few seconds, and what failed is tried again every hour."""
_COUNTERS_PER_PAGE: Final = 500
_LINES_PER_PAGE: Final = 20
"""Between two pages the process serves others: this is some milliseconds of reckoning."""


class Found(NamedTuple):
    """How many break a rule, and the first of them in words."""

    offenders: int
    first: Sequence[str]


@dataclass(slots=True)
class Asked:
    """One organization, and a connection where each statement stands alone: that is enough for most rules."""

    conn: Conn
    organization: Organization
    now: datetime  # by the organization's clock
    named: Collection[UUID] = ()  # events that the chain's rule named already


def _worded(found: Offenders, words: Callable[..., str]) -> Found:
    return Found(found.total, [words(*each) for each in found.first])


def _together(parts: Iterable[Found]) -> Found:
    parts = list(parts)
    first = [what for each in parts for what in each.first]
    return Found(sum(each.offenders for each in parts), first[:FIRST_MAX])


# Usage ----------------------------------------------------------------------------------------------------


async def _rollups(asked: Asked) -> Found:
    conn, organization_id = asked.conn, asked.organization.id
    meters = {meter.id: meter for _, meter in await catalog.meters(conn, organization_id=organization_id)}

    def of_hour(customer_id: UUID, meter_id: UUID, hour: datetime, *said: Decimal | None) -> str:
        events, quantity, kept_events, kept_quantity = said
        return (
            f"{_hour(customer_id, meters[meter_id], hour)}: the events say {_fold(events, quantity)}, "
            f"the rollup says {_fold(kept_events, kept_quantity)}"
        )

    def of_set(customer_id: UUID, meter_id: UUID, hour: datetime) -> str:
        said = "its set of distinct values is not that of the events"
        return f"{_hour(customer_id, meters[meter_id], hour)}: {said}"

    parts = []
    async for portion in portions(conn, organization_id):
        parts += [
            _worded(await reconcile.wrong_hours(conn, organization_id, portion, meters=alike), of_hour)
            for alike in reconcile.folds_alike(list(meters.values()))
        ]
        parts += [
            _worded(await reconcile.wrong_sets(conn, organization_id, portion, meter=each), of_set)
            for each in meters.values()
            if each.aggregation is Aggregation.UNIQUE
        ]
    return _together(parts)


def _hour(customer_id: UUID, meter: Meter, hour: datetime) -> str:
    return (
        f"{ids.show(ids.CUSTOMER, customer_id)}, {meter.feature_code} (version {meter.version}), "
        f"hour {show_instant(hour)}"
    )


def _fold(events: Decimal | None, quantity: Decimal | None) -> str:
    return "nothing" if events is None or quantity is None else f"{text(quantity)} from {events} events"


async def _limits(asked: Asked) -> Found:
    parts = []
    pages = reconcile.limited(asked.conn, asked.organization.id, page=_COUNTERS_PER_PAGE)
    async for keys in pages:
        async with one_moment(asked.conn):
            parts.append(await _wrong_counters(asked, keys))
    return _together(parts)


async def _wrong_counters(asked: Asked, keys: list[CounterKey]) -> Found:
    conn, organization_id = asked.conn, asked.organization.id
    says = await usage.counted(conn, keys=keys)
    held = await subscriptions.of_ids(
        conn,
        organization_id=organization_id,
        subscription_ids=list({each.subscription_id for each in says}),
    )
    of, offered = {each.id: each for each in held}, await load_catalogue(conn, organization_id)
    archived = await archives.of_organization(conn, organization_id=organization_id)
    limited = [
        each
        for key in says
        if (each := _limited(offered, key, of[key.subscription_id])) is not None
        and not archives.touching(archived, each.period)
    ]
    plain = [each for each in limited if each.meter.reads_all]
    folds = [usage.Asked(each.key.customer_id, each.meter, *whole_hours(each.period)) for each in plain]
    used = list(zip(plain, await usage.folds(conn, folds), strict=True))
    for each in limited:
        if not each.meter.reads_all:
            customer_id = each.key.customer_id
            total = await measure_usage(conn, customer_id=customer_id, meter=each.meter, span=each.period)
            used.append((each, total))
    wrong = [
        f"{ids.show(ids.SUBSCRIPTION, key.subscription_id)}, {meter.feature_code}, period from "
        f"{show_instant(period.start)}: {text(total.quantity)} is used, the counter says {text(says[key])}"
        for (key, meter, period), total in used
        if total.quantity != says[key]
    ]
    return Found(len(wrong), wrong[:FIRST_MAX])


class _Limited(NamedTuple):
    key: CounterKey
    meter: Meter
    period: Period


def _limited(offered: Catalogue, key: CounterKey, held: Subscription) -> _Limited | None:
    """What a counter counts; None where it need not be true: its subscription has ended meanwhile, its period is none
    any more, or the limit did not hold all through it, and what happened under other terms was not counted.
    """
    if held.anchor is None or held.state is Status.CANCELED:
        return None
    life = Life(held.id, held.plan_id, held.state, held.anchor, held.timezone, None)
    where = life.period_at(key.period_start)
    if where is None or where[1].start != key.period_start:
        return None
    _, period = where
    terms = offered.plans.get(held.plan_id, {}).get(key.feature_id, ())
    if not stops_throughout(stretches(terms, period), period):
        return None
    return _Limited(key, in_force(offered.versions[key.feature_id], period.start), period)


async def _chain(asked: Asked) -> Found:
    report = await verify_chain(asked.conn, asked.organization)
    asked.named = report.named
    return Found(len(report.differences), report.differences)


async def _keys(asked: Asked) -> Found:
    differences = await verify_keys(asked.conn, asked.organization, told=asked.named)
    return Found(len(differences), differences)


# Invoices -------------------------------------------------------------------------------------------------


async def _totals(asked: Asked) -> Found:
    return _worded(
        await reconcile.wrong_totals(asked.conn, asked.organization.id),
        lambda invoice_id, subtotal, lines: (
            f"{ids.show(ids.INVOICE, invoice_id)}: the lines sum to {lines}, the invoice says {subtotal}"
        ),
    )


async def _lines(asked: Asked) -> Found:
    count, first = 0, list[str]()
    async for lines in reconcile.usage_lines(asked.conn, asked.organization.id, page=_LINES_PER_PAGE):
        wrong = []
        try:
            for line, owed in zip(lines, reckon(lines), strict=True):
                if line.amount != owed:
                    wrong.append(
                        f"{ids.show(ids.INVOICE_LINE, line.id)}: what it froze comes to {owed}, it says {line.amount}"
                    )
        except UNREADABLE as error:
            wrong = [
                f"{ids.show(ids.INVOICE_LINE, lines[0].id)}: cannot be reckoned from what it froze: {error!r}"
            ]
        count += len(wrong)
        first += wrong[: FIRST_MAX - len(first)]
    return Found(count, first)


async def _billed_once(asked: Asked) -> Found:
    def words(kind: str, subscription_id: UUID, times: int, lines: Sequence[UUID]) -> str:
        where = ", ".join(ids.show(ids.INVOICE_LINE, each) for each in lines[:FIRST_MAX])
        return f"{ids.show(ids.SUBSCRIPTION, subscription_id)}: one {kind} is on {times} lines: {where}"

    return _worded(await reconcile.billed_twice(asked.conn, asked.organization.id), words)


async def _numbers(asked: Asked) -> Found:
    return _worded(
        await reconcile.wrong_numbers(asked.conn, asked.organization.id),
        lambda number, is_there: (
            f"the number {number} was never given, and an invoice has it"
            if is_there
            else f"the number {number} was given, and no invoice has it"
        ),
    )


# Periods and due work -------------------------------------------------------------------------------------


async def _periods(asked: Asked) -> Found:
    def words(subscription_id: UUID, index: int, start: datetime, begins: datetime | None) -> str:
        before = "none is before it" if begins is None else f"it has to begin at {show_instant(begins)}"
        return f"{ids.show(ids.SUBSCRIPTION, subscription_id)}: period {index} begins at {show_instant(start)}, {before}"

    return _worded(await reconcile.broken_tilings(asked.conn, asked.organization.id), words)


_UNDONE: Final = {
    "close": (ids.SUBSCRIPTION, "its period is not closed"),
    "settle": (ids.EVENT, "it came late, and nothing was decided of it"),
    "collect": (ids.INVOICE, "it was not charged"),
    "buy": (ids.SUBSCRIPTION, "what was bought for it is neither paid nor declined"),
}


async def _due(asked: Asked) -> Found:
    def words(kind: str, identity: UUID, since: datetime) -> str:
        prefix, what = _UNDONE[kind]
        return f"{ids.show(prefix, identity)}: {what}; due since {show_instant(since)}"

    before = asked.now - _UNDONE_AFTER
    return _worded(await reconcile.undone(asked.conn, asked.organization.id, before=before), words)


async def _seen(asked: Asked) -> Found:
    return _worded(
        await reconcile.unseen_news(asked.conn, asked.organization.id),
        lambda subscription_id, index, position: (
            f"{ids.show(ids.SUBSCRIPTION, subscription_id)}: something happened in period {index} after it was rated, "
            f"at position {position}, and nobody is to look again"
        ),
    )


# Wallets --------------------------------------------------------------------------------------------------


async def _by_customers(
    asked: Asked, find: Callable[[Conn, UUID, Portion], Awaitable[Offenders]], words: Callable[..., str]
) -> Found:
    parts = []
    async for portion in portions(asked.conn, asked.organization.id, whole_customers=True):
        parts.append(_worded(await find(asked.conn, asked.organization.id, portion), words))
    return _together(parts)


async def _wallets(asked: Asked) -> Found:
    return await _by_customers(
        asked,
        reconcile.wrong_wallets,
        lambda subscription_id, pool, kept, moved: (
            f"{ids.show(ids.SUBSCRIPTION, subscription_id)}: its ledger brings {pool} to {text(moved)}, "
            f"the wallet says {text(kept)}"
        ),
    )


async def _postings(asked: Asked) -> Found:
    return await _by_customers(
        asked,
        reconcile.wrong_postings,
        lambda customer_id, batch, took, posted: (
            f"{ids.show(ids.CUSTOMER, customer_id)}, batch {batch}: its events took {text(took)}, "
            f"the ledger says {text(posted)}"
        ),
    )


async def _costs(asked: Asked) -> Found:
    def words(event_id: UUID, took: Decimal | None, costs: Decimal) -> str:
        said = "there is no such event" if took is None else f"it took {text(took)}"
        return f"{ids.show(ids.EVENT, event_id)}: its tokens cost {text(costs)}, {said}"

    return await _by_customers(asked, reconcile.wrong_costs, words)


async def _holds(asked: Asked) -> Found:
    return _worded(
        await reconcile.wrong_holds(asked.conn, asked.organization.id),
        lambda subscription_id, held, wanted: (
            f"{ids.show(ids.SUBSCRIPTION, subscription_id)}: its wallet holds {text(held)}, "
            f"its reservations asked for {text(wanted)}"
        ),
    )


async def _overdrafts(asked: Asked) -> Found:
    return _worded(
        await reconcile.wrong_overdrafts(asked.conn, asked.organization.id),
        lambda subscription_id, index, overdrawn, wanted: (
            f"{ids.show(ids.SUBSCRIPTION, subscription_id)}: {text(overdrawn)} were overdrawn in period {index}, "
            f"its lines ask for {text(wanted)}"
        ),
    )


async def _purchases(asked: Asked) -> Found:
    def words(
        invoice_id: UUID | None,
        quantity: Decimal | None,
        credited: Decimal | None,
        amount: int | None,
        charged: Decimal | None,
        total: int | None,
    ) -> str:
        which = "without an invoice" if invoice_id is None else ids.show(ids.INVOICE, invoice_id)
        if quantity is None:
            return f"{which}: {text(credited or ZERO)} credited and {charged or 0} charged, and nothing was bought"
        return (
            f"{which}: {text(quantity)} bought for {amount}; {text(credited or ZERO)} credited, {charged or 0} charged, "
            f"{total} invoiced"
        )

    return _worded(await reconcile.wrong_purchases(asked.conn, asked.organization.id), words)


class Rule(NamedTuple):
    name: str  # as `/metrics` says it
    promise: str
    find: Callable[[Asked], Awaitable[Found]]


RULES: Final = (
    Rule("rollups", "Hourly rollups and sets of distinct values are what the events fold to.", _rollups),
    Rule("limits", "The counter of a hard limit is what was used of it.", _limits),
    Rule("chain", "The chain is unbroken, and every event in it is as it was stored.", _chain),
    Rule("keys", "Every key has its event, and every event that came with a key has it still.", _keys),
    Rule("totals", "An invoice is the sum of its lines.", _totals),
    Rule("lines", "A line of usage is the sum of the components it froze, rounded once.", _lines),
    Rule("billed_once", "Nothing is billed twice.", _billed_once),
    Rule("numbers", "Invoice numbers have no gap.", _numbers),
    Rule("periods", "The periods of a subscription neither leave a gap nor overlap.", _periods),
    Rule("due", "Nothing is due and not closed, settled, collected or bought.", _due),
    Rule("wallets", "A wallet is the sum of what its ledger moved.", _wallets),
    Rule("postings", "What events took of a wallet was posted with their batch.", _postings),
    Rule("costs", "An AI call took what its tokens cost.", _costs),
    Rule("holds", "A wallet holds no more than its open reservations asked for.", _holds),
    Rule("overdrafts", "What was overdrawn in a closed period is asked for, once.", _overdrafts),
    Rule("purchases", "What was bought was charged, invoiced and credited once.", _purchases),
    Rule("seen", "Whatever happened in a closed period was rated with it, or is yet to be decided.", _seen),
)
