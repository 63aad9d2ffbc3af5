"""What a process remembers of an organization between batches, and how it notices that it is out of date.

Every write that changes what ingest must know moves the organization's version (`store.db.bump`). A batch
works from a book, and the statement that stores it moves the head row only if the version is still the book's:
else nothing of it is stored, and it is judged again from a refreshed book. So the cache is exact, in every process.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from tallystick.core.catalog import Catalogue, Terms
from tallystick.core.events import AiCall, UsageEvent
from tallystick.core.meters import Meter
from tallystick.core.subscriptions import Standing
from tallystick.core.tokens import TokenCharge
from tallystick.core.wallets import Model, Prepaid, included_balance
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.key_filters import Filters
from tallystick.flows.price_tokens import PriceBook, load_prices, price
from tallystick.flows.sieve import Sieve
from tallystick.store import catalog, customers, db, key_generations, organizations
from tallystick.store.db import Conn

_STANDINGS_MAX = 100_000


@dataclass(slots=True)
class Book:
    organization: organizations.Organization
    version: int
    generation: int  # of keys: the one that was open when the organization had this version
    filters: Filters  # of the older ones, as far as this process has them
    catalogue: Catalogue
    revoked_keys: frozenset[UUID]
    prices: PriceBook = field(default_factory=PriceBook)
    standings: dict[str, Standing] = field(default_factory=dict)  # by every reference that was asked for

    @property
    def sieve(self) -> Sieve | None:
        """Tells which older generations may hold a key; None when there are none."""
        return self.filters.before(self.generation)

    def price_tokens(self, call: AiCall, margin_bps: int, at: datetime) -> TokenCharge:
        """What an AI call costs. Raises model_not_found."""
        return price(self.prices, call.model, call.counts, margin_bps, at)

    def standing_of(self, event: UsageEvent) -> Standing:
        """Who an event is of; everybody it names was learnt before."""
        standing = self.standings.get(event.customer)
        if standing is None:
            raise Problem(
                "customer_not_found", f"There is no customer {event.customer!r}.", param="customerId"
            )
        if event.also_customer is not None and self.standings.get(event.also_customer) != standing:
            raise InvalidRequest(FieldError("externalId", "names another customer than customerId"))
        return standing

    def now(self, wall: datetime) -> datetime:
        """The organization's clock: its test clock if it has one, else the wall clock."""
        return self.organization.simulated_time or wall


class Books:
    """One book per organization in this process."""

    def __init__(self, filters: Filters | None = None) -> None:
        self._books: dict[int, Book] = {}  # by the number of the id, which hashes at once
        self.filters = filters or Filters()

    def seen(self, organization_id: UUID) -> Book | None:
        """What this process remembers, without asking: after `ingest` judged something, what it was judged by."""
        return self._books.get(organization_id.int)

    async def current(self, conn: Conn, organization_id: UUID) -> Book:
        """A book that was up to date a moment ago; enough for reads."""
        book = self._books.get(organization_id.int)
        if book is None or book.version != await db.version(conn, organization_id=organization_id):
            book = await self.refreshed(conn, organization_id)
        return book

    async def known(self, conn: Conn, organization_id: UUID) -> Book:
        """The book as it is; whoever writes from it checks the version when it locks the head."""
        return self._books.get(organization_id.int) or await self.refreshed(conn, organization_id)

    async def refreshed(self, conn: Conn, organization_id: UUID) -> Book:
        """Forget what changed and read it anew.

        The generation of keys is asked after the version: if it is newer, so is the version by now, and nothing is stored.
        """
        old = self._books.get(organization_id.int)
        version = await db.version(conn, organization_id=organization_id)
        if old is not None and old.version <= version:
            changes = await db.changed_since(conn, organization_id=organization_id, version=old.version)
            seen = [each.version for each in changes]
            moved = {each.customer_id for each in changes if not each.only_keys}
            if None not in moved and seen == list(range(old.version + 1, old.version + 1 + len(seen))):
                standings = {
                    reference: standing
                    for reference, standing in old.standings.items()
                    if standing.customer_id not in moved
                }
                generation = old.generation
                if any(each.only_keys for each in changes):
                    generation = await key_generations.current(conn)
                book = Book(
                    old.organization,
                    old.version + len(seen),
                    generation,
                    self.filters,
                    old.catalogue,
                    old.revoked_keys,
                    old.prices,
                    standings,
                )
                return await self._kept(conn, book, old)
        organization = await organizations.get(conn, organization_id=organization_id)
        if organization is None:
            raise Problem("unauthorized")
        book = Book(
            organization,
            version,
            await key_generations.current(conn),
            self.filters,
            await load_catalogue(conn, organization_id),
            await organizations.revoked_keys(conn, organization_id=organization_id),
            await load_prices(conn, organization_id),
        )
        return await self._kept(conn, book, old)

    async def _kept(self, conn: Conn, book: Book, old: Book | None) -> Book:
        """This book in place of `old`, or the newer one that somebody else has brought while we read.

        What a transaction sees of its own changes may be undone, and its version given to other changes: such a book
        serves the transaction, and is remembered by nobody.
        """
        if await db.has_written(conn):
            return book
        there = self._books.get(book.organization.id.int)
        if there is None or there is old or there.version <= book.version:
            self._books[book.organization.id.int] = there = book
        return there

    async def learn(self, conn: Conn, book: Book, references: set[str]) -> bool:
        """Look up the customers among `references` that the book does not know yet; whether some were found."""
        known = {each: book.standings[each] for each in references if each in book.standings}
        if len(known) == len(references):
            return False
        found = await customers.standings(
            conn, organization_id=book.organization.id, references=list(references - known.keys())
        )
        if len(book.standings) > _STANDINGS_MAX:
            book.standings.clear()
        book.standings.update(known)  # another lane may have cleared them while we waited
        book.standings.update(found)
        return bool(found)


async def load_catalogue(conn: Conn, organization_id: UUID) -> Catalogue:
    by_code: defaultdict[str, list[Meter]] = defaultdict(list)
    versions: defaultdict[UUID, list[tuple[datetime, Meter]]] = defaultdict(list)
    for valid_from, meter in await catalog.meters(conn, organization_id=organization_id):
        by_code[meter.event_code].append(meter)
        versions[meter.feature_id].append((valid_from, meter))
    promised: defaultdict[UUID, defaultdict[UUID, list[Terms]]] = defaultdict(lambda: defaultdict(list))
    for terms in await catalog.terms(conn, organization_id=organization_id):
        promised[terms.plan_id][terms.feature_id].append(terms)
    features = await catalog.features(conn, organization_id=organization_id)
    return Catalogue(
        features={feature.code: feature for feature in features},
        meters={code: tuple(meters) for code, meters in by_code.items()},
        versions={feature: tuple(each) for feature, each in versions.items()},
        plans={
            plan: {feature: tuple(each) for feature, each in promises.items()}
            for plan, promises in promised.items()
        },
        minimums=await catalog.minimums(conn, organization_id=organization_id),
        prepaid=await load_prepaid(conn, organization_id),
    )


async def load_prepaid(conn: Conn, organization_id: UUID) -> dict[UUID, Prepaid]:
    """What each prepaid plan of an organization grants."""
    organization = await organizations.get(conn, organization_id=organization_id)
    assert organization is not None
    plans: dict[UUID, Prepaid] = {}
    for each in await catalog.granting(conn, organization_id=organization_id):
        model = Model(each.model)
        included = Decimal(each.included_credits or 0)
        if model is Model.BALANCE:
            included = included_balance(
                given=each.included_balance,
                base_minor=each.amount_minor,
                currency=organization.currency,
                interval=each.billing_interval,
            )
        known = plans[each.plan_id].included if each.plan_id in plans else {}
        plans[each.plan_id] = Prepaid(
            model,
            overdraft=model is Model.BALANCE and not each.blocks and not each.is_free,
            included={**known, each.price_id: included},
        )
    return plans
