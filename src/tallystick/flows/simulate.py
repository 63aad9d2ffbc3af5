"""Simulate: rate usage that was lived under other terms, and compare what it came to with what it would have.

Every usage period that lies wholly or partly in the span is looked at whole, under one snapshot, by the code that
bills: closed ones, open ones as far as they have come, and those that have begun behind one that waits for its
close. What a period came to is what it says now, usage that arrived late included, whatever was paid of it.
Subscriptions stream by; what is kept of them is a sum for each customer.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Final
from uuid import UUID

from tallystick.core.catalog import Feature, minimum_over
from tallystick.core.evidence import Basis, PlanPeriod
from tallystick.core.invoicing import in_money, plan_minimum_line
from tallystick.core.limits import SIMULATION_CUSTOMERS_MAX, SIMULATION_MONTHS_MAX, SIMULATION_PERIODS_MAX
from tallystick.core.money import from_minor
from tallystick.core.simulation import (
    Account,
    Beside,
    Cost,
    Costs,
    Part,
    Parts,
    compare,
    ranked,
    show_account,
    show_total,
    totals,
)
from tallystick.core.subscriptions import Status
from tallystick.core.supposing import bases_begun
from tallystick.core.times import Anchor, Period, add_months, show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.close_period import after_close
from tallystick.flows.rate_period import Known, Ruled, UsagePeriod, bases, rate_features, read_ahead, ruling
from tallystick.flows.subscribe import grace_of
from tallystick.flows.suppose import Question, Wish, understood
from tallystick.store import catalog, customers, db, invoices, late, simulations, subscriptions
from tallystick.store.customers import Customer
from tallystick.store.db import Conn, new_id
from tallystick.store.late import ClosedPeriod
from tallystick.store.organizations import Organization
from tallystick.store.simulations import Simulation
from tallystick.store.subscriptions import Subscription

_SUBSCRIPTIONS_AT_ONCE: Final = 50
_RETRY_AFTER_S: Final = 5

Progress = Callable[[int, int], None]
"""Told how many periods are done, and of how many."""


async def simulate(
    conn: Conn, *, organization: Organization, wish: Wish, now: datetime, progress: Progress | None = None
) -> Simulation:
    """Replay and keep the report. `conn` is in a transaction that sees one moment; one at a time for each
    organization, so that nobody holds all connections with them."""
    _check_span(wish.span, now)
    if not await db.try_lock(conn, name=sha256(b"simulate" + organization.id.bytes).digest()):
        raise Problem(
            "unavailable",
            "Another simulation of this organization is being worked on; ask again when it is done.",
            retry_after_s=_RETRY_AFTER_S,
        )
    question = await understood(conn, organization, wish, now)
    position = await db.head_position(conn, organization_id=organization.id)
    replay = _Replay(conn, organization, question, wish.span, now, position)
    await replay.run(progress or (lambda done, expected: None))
    simulation = _report(replay)
    await simulations.insert(conn, organization_id=organization.id, simulation=simulation)
    return simulation


def _check_span(span: Period, now: datetime) -> None:
    if span.start >= span.end:
        raise InvalidRequest(FieldError("end", "must be later than start"))
    if span.end > now:
        raise InvalidRequest(FieldError("end", f"lies in the future: it is {show_instant(now)}"))
    last_day = add_months(span.start.date(), SIMULATION_MONTHS_MAX)
    if (span.end.date(), span.end.time()) > (last_day, span.start.time()):
        raise InvalidRequest(
            FieldError("start", f"at most {SIMULATION_MONTHS_MAX} months at once: choose a later start")
        )


def _check_size(periods: int, people: int) -> None:
    if periods > SIMULATION_PERIODS_MAX or people > SIMULATION_CUSTOMERS_MAX:
        raise InvalidRequest(
            FieldError(
                "customers",
                f"the span holds {periods:,} usage periods of {people:,} customers or more; at most "
                f"{SIMULATION_PERIODS_MAX:,} of {SIMULATION_CUSTOMERS_MAX:,} are simulated at once: "
                "bring start and end closer together, or name some of the customers",
            )
        )


def _report(replay: "_Replay") -> Simulation:
    if not replay.accounts:
        raise InvalidRequest(
            FieldError("start", "nothing to simulate: no usage period lies in the span, wholly or partly")
        )
    if not replay.touched:
        raise InvalidRequest(
            FieldError("planFeatures", "nothing to simulate: nobody was on these plans in the span")
        )
    accounts = ranked(replay.accounts.values())
    codes = {feature.id: feature.code for feature in replay.question.offered.features.values()}
    sums = totals(accounts)
    return Simulation(
        id=new_id(),
        span=replay.span,
        asked=replay.question.shown,
        position=replay.position,
        result={
            "winners": sum(each.winners for each in sums),
            "losers": sum(each.losers for each in sums),
            "same": sum(each.same for each in sums),
            "periods": sum(each.periods for each in sums),
            "openPeriods": sum(each.open_periods for each in sums),
            "totals": [show_total(each, codes) for each in sums],
        },
        created_at=replay.now,
        customers=[show_account(each, codes) for each in accounts],
    )


@dataclass(frozen=True, slots=True)
class _Lived:
    """A usage period, the subscription as it stands in it or behind it, and the terms of both sides."""

    period: UsagePeriod
    subscription: Subscription
    is_open: bool
    was: Ruled
    instead: Ruled | None  # None: nothing is put otherwise


Charged = Mapping[tuple[UUID, datetime], int]
"""Bases, by subscription and where their billing period begins."""


@dataclass(slots=True)
class _Replay:
    conn: Conn
    organization: Organization
    question: Question
    span: Period
    now: datetime
    position: int
    accounts: dict[tuple[UUID, str], Account] = field(default_factory=dict)
    periods: int = 0
    touched: int = 0  # periods in which something is put otherwise
    _prices: dict[UUID, int] = field(default_factory=dict)

    async def run(self, progress: Progress) -> None:
        people, owner = self.question.people, self.organization.id
        expected, number = await simulations.size(
            self.conn, organization_id=owner, span=self.span, customers=people
        )
        _check_size(expected, number)
        after: UUID | None = None
        while True:
            page = await subscriptions.lived_in(
                self.conn,
                organization_id=owner,
                span=self.span,
                customers=people,
                after=after,
                limit=_SUBSCRIPTIONS_AT_ONCE,
            )
            await self._live_through(page)
            progress(self.periods, max(expected, self.periods))
            if len(page) < _SUBSCRIPTIONS_AT_ONCE:
                return
            after = page[-1].id

    async def _live_through(self, page: Sequence[Subscription]) -> None:
        """The periods of some subscriptions: what can be is read ahead, for both sides in one."""
        keys = [each.id for each in page]
        closed = await late.closed_between(self.conn, subscription_ids=keys, span=self.span)
        named = await customers.of_ids(
            self.conn, organization_id=self.organization.id, customer_ids={each.customer_id for each in page}
        )
        charged: Charged = {}
        if self.question.plan is not None:
            charged = await invoices.charged_in_advance(self.conn, subscription_ids=keys)
        every = [
            lived
            for held in page
            for lived in self._periods(held, named[held.customer_id], closed.get(held.id, ()))
        ]
        self.periods += len(every)
        for lived in every:
            self._account(lived.subscription, named[lived.subscription.customer_id])
        _check_size(self.periods, len(self.accounts))
        known = await read_ahead(
            self.conn,
            [
                (lived.period.customer_id, basis)
                for lived in every
                for ruled in (lived.was, lived.instead or {})
                for _, basis in self._bases(lived.period, ruled)
            ],
        )
        for lived in every:
            account = self._account(lived.subscription, named[lived.subscription.customer_id])
            account.add(await self._compare(lived, charged, known), is_open=lived.is_open)
            await asyncio.sleep(0)  # what was read ahead waits for nothing, and ingest shares this loop

    def _account(self, held: Subscription, customer: Customer) -> Account:
        place = (held.customer_id, held.currency)
        if place not in self.accounts:
            self.accounts[place] = Account(customer.id, customer.reference, held.currency)
        return self.accounts[place]

    def _bases(self, period: UsagePeriod, ruled: Ruled) -> list[tuple[Feature, Basis]]:
        return bases(self.question.offered, period, position=self.position, ruled=ruled)

    def _periods(
        self, held: Subscription, customer: Customer, closed: Sequence[ClosedPeriod]
    ) -> Iterator[_Lived]:
        for each in closed:
            period = UsagePeriod(
                held.id, held.customer_id, each.plan_id, each.period_index, each.span, each.timezone
            )
            yield self._lived(period, held, is_open=False)
        if not closed or closed[-1].period_index != held.period_index:
            yield from self._open_periods(held, customer.timezone or self.organization.timezone)

    def _lived(self, period: UsagePeriod, held: Subscription, *, is_open: bool) -> _Lived:
        was = ruling(self.question.offered, period)
        return _Lived(period, held, is_open, was, self.question.ruled(period, was))

    def _open_periods(self, held: Subscription, zone: str) -> Iterator[_Lived]:
        """The period the subscription stands in, and what has begun behind it while it waits for its close."""
        standing, grace = held, grace_of(self.organization)
        while standing.period_start is not None and standing.period_end is not None:
            ends = min(standing.period_end, standing.ended_at or standing.period_end)
            lasts = Period(standing.period_start, ends)
            if lasts.start >= self.span.end:
                return
            if lasts.start < lasts.end and self.span.start < lasts.end:
                period = UsagePeriod(
                    standing.id,
                    standing.customer_id,
                    standing.plan_id,
                    standing.period_index,
                    lasts,
                    standing.timezone,
                )
                yield self._lived(period, standing, is_open=standing.closes_at is not None)
            if standing.closes_at is None:
                return
            following = after_close(standing, zone, grace, self.now)
            if following.period_index == standing.period_index:
                return
            standing = following

    async def _compare(self, lived: _Lived, charged: Charged, known: Known) -> Parts:
        question, period, currency = self.question, lived.period, lived.subscription.currency
        old = await self._costs(lived, lived.was, known)
        lifts = minimum_over(question.offered.minimums.get(period.plan_id, ()), period.span)
        if lived.instead is None:
            new = dict(old)
        else:
            self.touched += 1
            question.check_meters(period, lived.instead)
            new = await self._costs(lived, lived.instead, known)
            if question.plan is None:
                new = {feature: cost for feature, cost in old.items() if feature not in lived.instead} | new
        for costs, minimum in ((old, lifts), (new, question.minimum(period))):
            if minimum is not None:
                costs[Beside.PLAN_MINIMUM] = self._lifted(period, minimum, costs, currency)
        if question.plan is not None:
            was, would_be = await self._advances(lived, charged)
            old[Beside.BASE], new[Beside.BASE] = _in_money(was, currency), _in_money(would_be, currency)
        return compare(old, new)

    async def _costs(self, lived: _Lived, ruled: Ruled, known: Known) -> dict[Part, Cost]:
        currency = lived.subscription.currency
        found = await rate_features(
            self.conn, self.question.offered, lived.period, position=self.position, known=known, ruled=ruled
        )
        return {each.feature.id: Cost(in_money(each.rated, currency), each.rated.exact) for each in found}

    def _lifted(self, period: UsagePeriod, minimum: Decimal, costs: Costs, currency: str) -> Cost:
        line = plan_minimum_line(
            PlanPeriod(period.index, period.span, period.timezone, self.position),
            minimum=minimum,
            features_minor=sum(cost.minor for cost in costs.values()),
            before_minor=0,
            currency=currency,
        )
        return _in_money(0 if line is None else line.amount, currency)

    async def _advances(self, lived: _Lived, charged: Charged) -> tuple[int, int]:
        """What was charged in advance where the period begins, and what the simulated plan would have charged.

        A period whose base was let off, as the short rest of a canceled subscription, has none on either side.
        """
        held, span = lived.subscription, lived.period.span
        was = charged.get((held.id, span.start))
        due = held.price_id is not None and self._begun(held, held.billing_interval, span) > 0
        if was is None and due:
            if not lived.is_open or held.state is Status.CANCELED:
                return 0, 0
            was = await self._held_price(held)  # by an invoice that is still to come
        price = self.question.price_for(held.billing_interval)
        begun = 0 if price is None else self._begun(held, price.billing_interval, span)
        return was or 0, 0 if price is None else price.amount_minor * begun

    def _begun(self, held: Subscription, interval: str | None, span: Period) -> int:
        """How many billing periods of an interval began in `span` by now, counted from the subscription's anchor."""
        anchor = held.anchor
        if anchor is None or interval is None:
            return 0
        weekly = interval == "weekly"
        if (
            weekly != anchor.weekly
        ):  # its moves from zone to zone are counted in boundaries of the other length
            anchor = Anchor(anchor.at, anchor.day, weekly)
        so_far = Period(span.start, min(span.end, self.now + timedelta(microseconds=1)))
        return bases_begun(anchor, interval, so_far, held.timezone)

    async def _held_price(self, held: Subscription) -> int:
        assert held.price_id is not None
        if held.price_id not in self._prices:
            price = await catalog.price(
                self.conn, organization_id=self.organization.id, price_id=held.price_id
            )
            assert price is not None
            self._prices[held.price_id] = price.amount_minor
        return self._prices[held.price_id]


def _in_money(minor: int, currency: str) -> Cost:
    """Of what is no finer than money."""
    return Cost(minor, from_minor(minor, currency))
