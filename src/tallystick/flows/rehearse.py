"""What would become of events if they were taken: judged as ingest judges them, one after the other, and nothing written.

Nothing is locked either, so a server goes on beside it. What was drawn on limits and wallets, and which keys were used,
is remembered from one call to the next: a hash of 8 bytes a key, and one of its content. What others store meanwhile is
seen from the next call on.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from uuid import UUID

from tallystick.core.admission import Admitted
from tallystick.core.events import StoredEvent, UsageEvent
from tallystick.core.money import ZERO
from tallystick.core.subscriptions import Life, Standing, Status
from tallystick.core.times import Anchor, local_day
from tallystick.errors import Problem
from tallystick.flows.books import Book, Books
from tallystick.flows.drafts import Accepted, Draft, Outcome, Work
from tallystick.flows.draw_on_limits import Limits
from tallystick.flows.draw_on_wallets import Wallets
from tallystick.flows.ingest import judge, standing_of
from tallystick.flows.key_filters import held_before
from tallystick.flows.publish_catalog import find_plan
from tallystick.flows.repeats import Holder, duplicate, holders_of, repeat
from tallystick.flows.subscribe import Wish, price_for
from tallystick.store import customers, subscriptions
from tallystick.store.db import Conn, new_id, new_ids


@dataclass(slots=True)
class Sum:
    events: int = 0
    value: Decimal = ZERO


@dataclass(slots=True)
class Forecast:
    """Of what would be stored: how much, of whom, from when to when."""

    features: defaultdict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))
    customers: Counter[str] = field(default_factory=Counter)
    values: defaultdict[tuple[str, str], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    first: datetime | None = None
    last: datetime | None = None
    late: int = 0  # happened in a period that is over: its invoice may be issued

    def add(self, reference: str, event: UsageEvent, admitted: Admitted) -> None:
        total = self.features[event.feature]
        total.events += 1
        total.value += event.value
        self.customers[reference] += 1
        self.values[reference, event.feature] += event.value
        at = admitted.occurred_at
        self.first = at if self.first is None else min(self.first, at)
        self.last = at if self.last is None else max(self.last, at)
        self.late += admitted.late


class Rehearsal:
    """One organization. `judge` is called with batch after batch, in order."""

    def __init__(self, books: Books, organization_id: UUID) -> None:
        self.forecast = Forecast()
        self._books = books
        self._organization_id = organization_id
        self._limits = Limits({})
        self._wallets: Wallets | None = None
        self._contents: dict[int, int] = {}  # by the place of a key that would be used
        self._supposed: dict[str, Standing] = {}

    async def judge(self, conn: Conn, drafts: Sequence[Draft], *, wall: datetime) -> list[Outcome]:
        """Outcomes in the order of the drafts, as `ingest` would answer them."""
        book = await self._books.current(conn, self._organization_id)
        now = book.now(wall)
        await self._books.learn(conn, book, {each for draft in drafts for each in draft.event.customers})
        book.standings.update(self._supposed)
        outcomes: list[Outcome | None] = [None] * len(drafts)
        work: dict[int, Work] = {}
        for position, (draft, number) in enumerate(zip(drafts, new_ids.numbers(len(drafts)), strict=True)):
            try:
                standing = standing_of(book, draft)
            except Problem as problem:
                outcomes[position] = problem
                continue
            admitted = Admitted(now, (), ())
            try:
                admitted = judge(book, draft, standing, now, max(now, wall))
            except Problem as problem:
                outcomes[position] = problem
            identity = UUID(int=draft.marked(number))
            work[position] = Work(draft, standing, admitted, draft.place(standing.customer_id), identity)
        await self._draw(conn, book, [each for at, each in work.items() if outcomes[at] is None], now)
        holders = await _holders(conn, book, list(work.values()))
        for position, each in work.items():
            outcomes[position] = self._decided(each, outcomes[position], holders, now)
        return [outcome for outcome in outcomes if outcome is not None]

    async def suppose(
        self, conn: Conn, references: Sequence[str], plan_code: str, *, wall: datetime
    ) -> tuple[int, int]:
        """As if those held the plan who never held any: how many customers and subscriptions would be made."""
        book = await self._books.current(conn, self._organization_id)
        now, owner = book.now(wall), book.organization
        plan = await find_plan(conn, organization_id=owner.id, plan_id=None, code=plan_code)
        wish = Wish(plan_id=plan.id, plan_code=None)
        price = None if plan.is_free else await price_for(conn, owner, plan, wish)
        made = subscribed = 0
        for reference in references:
            if reference in self._supposed:
                continue
            found = await customers.find(conn, organization_id=owner.id, reference=reference)
            if found is not None and await subscriptions.live_of_customer(
                conn, organization_id=owner.id, customer_id=found.id
            ):
                continue  # a checkout is open: whether they pay is up to them
            zone = (found.timezone if found is not None else None) or owner.timezone
            weekly = price is not None and price.billing_interval == "weekly"
            life = Life(
                subscription_id=new_id(),
                plan_id=plan.id,
                status=Status.ACTIVE,
                anchor=Anchor(now, local_day(now, zone), weekly),
                zone=zone,
                ends_at=None,
                price_id=price.id if price is not None else None,
            )
            self._supposed[reference] = Standing(found.id if found else new_id(), reference, life)
            made += found is None
            subscribed += 1
        return made, subscribed

    async def _draw(self, conn: Conn, book: Book, work: Sequence[Work], now: datetime) -> None:
        await self._limits.foresee(conn, [each for each in work if each.admitted.limits])
        spending = [each for each in work if each.admitted.spend]
        if spending:
            self._wallets = self._wallets or Wallets(book, {}, None)
            await self._wallets.foresee(conn, spending, now=now)

    def _decided(
        self,
        each: Work,
        refusal: Outcome | None,
        holders: dict[bytes, Holder],
        now: datetime,
    ) -> Outcome:
        event = each.draft.event
        place = content = 0
        if each.place is not None:
            holder = holders.get(each.place)
            if holder is not None:
                return repeat(each, holder)
            place = int.from_bytes(each.place[:8])
            content = int.from_bytes(sha256(event.as_text().encode()).digest()[:8])
            earlier = self._contents.get(place)
            if earlier is not None:
                return duplicate(event, earlier == content)
        refusal = refusal or self._limits.refusal(each)
        if refusal is None and self._wallets is not None:
            refusal = self._wallets.refusal(each)
        if refusal is not None:
            return refusal
        if each.place is not None:
            self._contents[place] = content
        self.forecast.add(each.standing.reference, event, each.admitted)
        return Accepted(_stored(each, now), each.standing.reference)


async def _holders(conn: Conn, book: Book, work: Sequence[Work]) -> dict[bytes, Holder]:
    """The stored events whose keys these have. Two keys of one hash: the next hash is asked for."""
    holders: dict[bytes, Holder] = {}
    asked = [each for each in work if each.place is not None]
    while asked:
        customers = [each.standing.customer_id for each in asked]
        older = await held_before(conn, book.sieve, customers, [each.place for each in asked])
        found = await holders_of(conn, book, asked, older)
        holders |= found
        again = []
        for each in asked:
            holder = found.get(each.place or b"")
            if holder is not None and holder.has_another_key_than(each.draft):
                each.draft = each.draft.elsewhere
                each.place = each.draft.place(each.standing.customer_id)
                again.append(each)
        asked = again
    return holders


def _stored(each: Work, now: datetime) -> StoredEvent:
    event = each.draft.event
    return StoredEvent(
        each.id,
        each.standing.customer_id,
        event.feature,
        event.value,
        each.admitted.occurred_at,
        now,
        event.key,
        event.occurred_at is not None,
        event.properties,
        draw=each.draw,
    )
