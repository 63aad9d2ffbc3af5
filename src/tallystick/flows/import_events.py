"""Take events from a file: chunk by chunk, safe to run again, beside a running server or without one.

An event of a file must have a key, or a second run would count it twice. One that brings none is keyed by its
content and by which occurrence of that content it is, so that two equal rows are two events, in every run.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import psycopg

from tallystick.core import limits
from tallystick.core.events import UsageEvent, decode
from tallystick.core.subscriptions import Status
from tallystick.errors import FieldError, InvalidRequest, Problem, must
from tallystick.flows.books import Books
from tallystick.flows.collect_payment import find_checkout, pay_checkout
from tallystick.flows.drafts import Accepted, Draft, Outcome, is_repeat
from tallystick.flows.ingest import ingest
from tallystick.flows.publish_catalog import find_plan
from tallystick.flows.rehearse import Forecast, Rehearsal
from tallystick.flows.subscribe import Wish, subscribe
from tallystick.providers.payments import Card, Charged, Payments
from tallystick.store import catalog, customers, subscriptions
from tallystick.store.customers import Customer
from tallystick.store.db import Conn, Database, new_id
from tallystick.store.organizations import Organization

KEY_PREFIX: Final = "import:"
_AT_ONCE: Final = 3
"""Customers made side by side: while one waits for its commit, the next one's statements run."""
_LOCAL_PART_CHARS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file: what it parsed to, or why it did not."""

    number: int
    raw: Any | Problem


@dataclass(frozen=True, slots=True)
class Refused:
    number: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class Newcomers:
    """What becomes of customers nobody knows yet: which plan they get, and the sandbox card they pay with."""

    plan_code: str
    payments: Payments
    card: Card


@dataclass(slots=True)
class Tally:
    lines: int = 0
    stored: int = 0
    already_there: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    customers_made: int = 0
    subscriptions_made: int = 0


class Import:
    """One file on its way into one organization. `take` is called with chunk after chunk, in order.

    `dry`: everything is judged and counted, and nothing is written.
    """

    def __init__(
        self,
        database: Database,
        conn: Conn,
        organization: Organization,
        newcomers: Newcomers | None = None,
        *,
        dry: bool = False,
    ) -> None:
        self.tally = Tally()
        self._database = database
        self._conn = conn
        self._organization = organization
        self._newcomers = newcomers
        self._books = Books()
        self._rehearsal = Rehearsal(self._books, organization.id) if dry else None
        self._seen: dict[int, int] = {}  # how often a content without a key came by

    @property
    def forecast(self) -> Forecast | None:
        """What is to be told of what would be stored; None where it is stored."""
        return self._rehearsal.forecast if self._rehearsal is not None else None

    async def take(self, lines: Sequence[Line], *, wall: datetime) -> list[Refused]:
        """Store what is new of these lines and count it; answers with what was refused, in order."""
        outcomes: dict[int, Outcome] = {}
        drafts: dict[int, Draft] = {}
        for line in lines:
            try:
                if isinstance(line.raw, Problem):
                    raise line.raw
                drafts[line.number] = Draft(self._keyed(decode(line.raw)))
            except Problem as problem:
                outcomes[line.number] = problem
        if self._newcomers is not None:
            await self._welcome([draft.event for draft in drafts.values()], self._newcomers, wall)
        await self._books.filters.load(self._conn)
        stored = await self._ingest(list(drafts.values()), wall)
        outcomes.update(zip(drafts, stored, strict=True))
        return self._count(lines, outcomes)

    def _count(self, lines: Sequence[Line], outcomes: dict[int, Outcome]) -> list[Refused]:
        refused = []
        self.tally.lines += len(lines)
        for line in lines:
            outcome = outcomes[line.number]
            if isinstance(outcome, Accepted):
                self.tally.stored += 1
            elif is_repeat(outcome):
                self.tally.already_there += 1
            else:
                self.tally.refused[outcome.code] += 1
                refused.append(Refused(line.number, outcome))
        return refused

    def _keyed(self, event: UsageEvent) -> UsageEvent:
        """Only a short hash of each keyless content is remembered; two contents that share one lose nothing."""
        if event.key is not None:
            return event
        content = content_hash(event)
        short = int.from_bytes(content[:8])
        occurrence = self._seen[short] = self._seen.get(short, 0) + 1
        return event._replace(key=KEY_PREFIX + sha256(content + occurrence.to_bytes(8)).hexdigest())

    async def _ingest(self, drafts: list[Draft], wall: datetime) -> Sequence[Outcome]:
        """In one transaction; what the database cannot take is halved out, so that it is refused alone."""
        if not drafts:
            return []
        if self._rehearsal is not None:
            return await self._rehearsal.judge(self._conn, drafts, wall=wall)
        try:
            return await ingest(self._conn, self._books, self._organization.id, drafts, wall=wall)
        except psycopg.DataError as error:
            if len(drafts) == 1:
                return [InvalidRequest(FieldError("", f"cannot be stored: {str(error).strip()}"))]
            half = len(drafts) // 2
            first = await self._ingest(drafts[:half], wall)
            return [*first, *await self._ingest(drafts[half:], wall)]

    async def _welcome(self, found: Iterable[UsageEvent], newcomers: Newcomers, wall: datetime) -> None:
        """Make the customers that are missing, and subscribe those who never were."""
        book = await self._books.current(self._conn, self._organization.id)
        references = {each.customer for each in found if each.also_customer is None}
        await self._books.learn(self._conn, book, references)
        homeless = [
            reference
            for reference in sorted(references)
            if not reference.startswith("cus_")
            and len(reference) <= limits.EXTERNAL_ID_CHARS_MAX
            and (
                (standing := book.standings.get(reference)) is None or not (standing.current or standing.past)
            )
        ]
        if not homeless:
            return
        if self._rehearsal is not None:
            made, subscribed = await self._rehearsal.suppose(
                self._conn, homeless, newcomers.plan_code, wall=wall
            )
            self.tally.customers_made += made
            self.tally.subscriptions_made += subscribed
            return
        room = asyncio.Semaphore(_AT_ONCE)
        now = book.now(wall)

        async def one(reference: str) -> None:
            async with room:
                await self._welcome_one(reference, newcomers, now)

        try:
            async with asyncio.TaskGroup() as group:
                for reference in homeless:
                    group.create_task(one(reference))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        await self._books.current(self._conn, self._organization.id)

    async def _welcome_one(self, reference: str, newcomers: Newcomers, now: datetime) -> None:
        organization = self._organization
        async with self._database.transaction() as conn:
            customer = _stranger(reference, now)
            new = await customers.insert(conn, organization_id=organization.id, customer=customer)
            if not new:
                found = await customers.find(conn, organization_id=organization.id, reference=reference)
                assert found is not None
                customer = found
            await customers.lock(conn, organization_id=organization.id, customer_id=customer.id)
            if await subscriptions.live_of_customer(
                conn, organization_id=organization.id, customer_id=customer.id
            ):
                return  # somebody else was quicker, or a checkout is open: whether they pay is up to them
            subscription, _ = await subscribe(
                conn,
                organization=organization,
                customer=customer,
                wish=Wish(plan_id=None, plan_code=newcomers.plan_code),
                now=now,
            )
        if subscription.state is Status.PENDING_PAYMENT:
            must(not organization.live, "only a sandbox pays by itself", customer=reference)
            checkout = await find_checkout(self._database, token=subscription.checkout_token or "")
            answer = await pay_checkout(self._database, newcomers.payments, checkout, newcomers.card, now=now)
            must(isinstance(answer, Charged), "the sandbox card pays", customer=reference, answer=answer)
        self.tally.customers_made += new
        self.tally.subscriptions_made += 1


async def can_welcome(database: Database, organization: Organization, plan_code: str) -> None:
    """Say before anything is read why customers could not be given this plan."""
    async with database.reading() as conn:
        plan = await find_plan(conn, organization_id=organization.id, plan_id=None, code=plan_code)
        if plan.is_free:
            return
        if organization.live:
            raise Problem(
                "charge_failed",
                f"The plan {plan_code!r} costs money, and nobody can pay for customers of a live organization: "
                "let them check out first, or choose a free plan.",
            )
        if not await catalog.prices(conn, organization_id=organization.id, plan_ids=[plan.id]):
            raise Problem("no_prices_configured", f"The plan {plan_code!r} has no price yet.")


def content_hash(event: UsageEvent) -> bytes:
    """The same for the same content, however it was spelled."""
    content = f"{event.customer}\0{event.also_customer or ''}\0{event.as_text()}"
    return sha256(content.encode()).digest()


def _stranger(reference: str, now: datetime) -> Customer:
    """All that is known of this customer is how the file calls them."""
    local = re.sub(r"[^A-Za-z0-9_-]+", "-", reference).strip("-")[:_LOCAL_PART_CHARS_MAX] or "customer"
    return Customer(
        id=new_id(),
        external_id=reference,
        email=f"{local}@import.invalid",
        full_name=None,
        tax_document=None,
        timezone=None,
        address=None,
        metadata={},
        created_at=now,
        updated_at=now,
    )
