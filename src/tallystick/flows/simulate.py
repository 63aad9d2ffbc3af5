"""Simulate: rate usage that was lived under other terms, and compare what it came to with what it would have.

Every usage period that lies wholly or partly in the span is looked at whole, under one snapshot, by the code that
bills: closed ones, open ones as far as they have come, and those that have begun behind one that waits for its
close. What a period came to is what it says now, usage that arrived late included, whatever was paid of it.
Subscriptions stream by; what is kept of them is a sum for each customer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from tallystick.core.invoicing import in_money
from tallystick.core.limits import SIMULATION_CUSTOMERS_MAX, SIMULATION_MONTHS_MAX, SIMULATION_PERIODS_MAX
from tallystick.core.money import from_minor
from tallystick.core.simulation import Account, Cost, Parts, compare, ranked, show_account, show_total, totals
from tallystick.core.subscriptions import Status
from tallystick.core.supposing import bases_begun
from tallystick.core.times import Anchor, Period, add_months, show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.close_period import after_close
from tallystick.flows.rate_period import Readings, Ruled, UsagePeriod, rate_ruled, ruling
from tallystick.flows.subscribe import grace_of
from tallystick.flows.suppose import Question, Wish, understood
from tallystick.store import catalog, customers, db, invoices, late, simulations, subscriptions
from tallystick.store.customers import Customer
from tallystick.store.db import Conn, new_id
from tallystick.store.late import ClosedPeriod
from tallystick.store.organizations import Organization
from tallystick.store.simulations import Simulation
from tallystick.store.subscriptions import Subscription

_SUBSCRIPTIONS_AT_ONCE: Final = 200
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
    """A usage period, and the subscription that stands, or will stand, in it or after it."""

    period: UsagePeriod
    subscription: Subscription
    is_open: bool


Bases = Mapping[tuple[UUID, datetime], int]


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
            keys = [each.id for each in page]
            closed = await late.closed_between(self.conn, subscription_ids=keys, span=self.span)
            bases = await invoices.bases(self.conn, subscription_ids=keys) if self.question.plan else {}
            named = await customers.of_ids(
                self.conn, organization_id=owner, customer_ids=[each.customer_id for each in page]
            )
            for each in page:
                await self._live_through(each, named[each.customer_id], closed.get(each.id, ()), bases)
                progress(self.periods, max(expected, self.periods))
            if len(page) < _SUBSCRIPTIONS_AT_ONCE:
                return
            after = keys[-1]

    async def _live_through(
        self, held: Subscription, customer: Customer, closed: Sequence[ClosedPeriod], bases: Bases
    ) -> None:
        zone = customer.timezone or self.organization.timezone
        for lived in (*_closed_periods(held, closed), *self._open_periods(held, zone, closed)):
            place = (customer.id, held.currency)
            if place not in self.accounts:
                self.accounts[place] = Account(customer.id, customer.reference, held.currency)
            self.accounts[place].add(await self._compare(lived, bases), is_open=lived.is_open)
            self.periods += 1
            _check_size(self.periods, len(self.accounts))

    def _open_periods(
        self, held: Subscription, zone: str, closed: Sequence[ClosedPeriod]
    ) -> Iterator[_Lived]:
        """The period the subscription stands in, unless that is closed, and what has begun behind it meanwhile."""
        if closed and closed[-1].period_index == held.period_index:
            return
        standing, grace = held, grace_of(self.organization)
        while standing.period_start is not None and standing.period_end is not None:
            ends = standing.period_end
            if standing.ended_at is not None:
                ends = min(ends, standing.ended_at)
            lasts = Period(standing.period_start, ends)
            if lasts.start >= self.span.end:
                return
            if lasts.start < lasts.end and self.span.start < lasts.end:
                yield _Lived(
                    UsagePeriod(
                        standing.id,
                        standing.customer_id,
                        standing.plan_id,
                        standing.period_index,
                        lasts,
                        standing.timezone,
                    ),
                    standing,
                    is_open=standing.closes_at is not None,
                )
            if standing.closes_at is None:
                return
            following = after_close(standing, zone, grace, self.now)
            if following.period_index == standing.period_index:
                return
            standing = following

    async def _compare(self, lived: _Lived, bases: Bases) -> Parts:
        question, period, currency = self.question, lived.period, lived.subscription.currency
        was = ruling(question.offered, period)
        instead = question.ruled(period, was)
        readings: Readings = {}
        old = await self._costs(period, was, readings, currency)
        if instead is None:
            return compare(old, old)
        self.touched += 1
        question.check_meters(period, instead)
        put = await self._costs(period, instead, readings, currency)
        if question.plan is None:
            return compare(old, {part: cost for part, cost in old.items() if part not in instead} | put)
        old[None], put[None] = (_in_advance(minor, currency) for minor in await self._bases(lived, bases))
        return compare(old, put)

    async def _costs(
        self, period: UsagePeriod, ruled: Ruled, readings: Readings, currency: str
    ) -> dict[UUID | None, Cost]:
        found = await rate_ruled(
            self.conn, self.question.offered, period, ruled, position=self.position, readings=readings
        )
        return {each.feature.id: Cost(in_money(each.rated, currency), each.rated.exact) for each in found}

    async def _bases(self, lived: _Lived, bases: Bases) -> tuple[int, int]:
        """What was charged in advance where the period begins, and what the simulated plan would have charged.

        A period whose base was let off, as the short rest of a canceled subscription, has none on either side.
        """
        held, period = lived.subscription, lived.period
        charged = bases.get((held.id, period.span.start))
        due = held.price_id is not None and self._begun(held, held.billing_interval, period.span) > 0
        if charged is None and due:
            if not lived.is_open or held.state is Status.CANCELED:
                return 0, 0
            charged = await self._held_price(held)  # by an invoice that is still to come
        price = self.question.price_for(held.billing_interval)
        if price is None:
            return charged or 0, 0
        return charged or 0, price.amount_minor * self._begun(held, price.billing_interval, period.span)

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


def _closed_periods(held: Subscription, closed: Iterable[ClosedPeriod]) -> Iterator[_Lived]:
    for each in closed:
        period = UsagePeriod(
            held.id, held.customer_id, each.plan_id, each.period_index, each.span, each.timezone
        )
        yield _Lived(period, held, is_open=False)


def _in_advance(minor: int, currency: str) -> Cost:
    return Cost(minor, from_minor(minor, currency))
