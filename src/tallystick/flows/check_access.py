"""What a customer may use right now: the terms in force, the period, and what is used of it."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from tallystick.core.catalog import Catalogue, Feature, FeatureType, Terms, terms_at
from tallystick.core.meters import in_force
from tallystick.core.money import ZERO
from tallystick.core.subscriptions import Life
from tallystick.core.times import Period
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.measure_usage import measure_usage
from tallystick.store.db import Conn


@dataclass(frozen=True, slots=True)
class Access:
    """One feature as one customer has it in the current period."""

    feature: Feature
    terms: Terms
    period: Period
    used: Decimal

    @property
    def remaining(self) -> Decimal:
        return max(ZERO, self.terms.included - self.used)

    @property
    def overage(self) -> Decimal:
        return ZERO if self.terms.unlimited else max(ZERO, self.used - self.terms.included)

    def allows(self, quantity: Decimal) -> bool:
        """Whether that much more would be accepted."""
        if not self.terms.enabled:
            return False
        return not self.terms.stops_at_included or self.used + quantity <= self.terms.included

    @property
    def allowed(self) -> bool:
        """Whether anything more would be accepted."""
        if self.feature.type is not FeatureType.USAGE:
            return self.terms.enabled
        return self.terms.enabled and (not self.terms.stops_at_included or self.remaining > 0)


@dataclass(frozen=True, slots=True)
class Held:
    """A customer's usable subscription and the catalogue it is read with."""

    catalogue: Catalogue
    customer_id: UUID
    life: Life
    period: Period
    now: datetime


async def held(
    conn: Conn, books: Books, *, organization_id: UUID, reference: str, now: datetime
) -> Held | None:
    """None when nothing usable is held. Raises customer_not_found."""
    book = await books.current(conn, organization_id)
    await books.learn(conn, book, {reference})
    standing = book.standings.get(reference)
    if standing is None:
        raise Problem("customer_not_found", f"There is no customer {reference!r}.", param="customerId")
    life = standing.usable(now)
    where = life.period_at(now) if life is not None else None
    if life is None or where is None:
        return None
    return Held(book.catalogue, standing.customer_id, life, where[1], now)


async def access_to(conn: Conn, holding: Held, feature: Feature) -> Access | None:
    """None when the plan does not have the feature."""
    versions = holding.catalogue.plans.get(holding.life.plan_id, {}).get(feature.id, ())
    terms = terms_at(versions, holding.period, holding.now)
    if terms is None:
        return None
    used = ZERO
    if feature.type is FeatureType.USAGE:
        meter = in_force(holding.catalogue.versions[feature.id], holding.period.start)
        used = (
            await measure_usage(conn, customer_id=holding.customer_id, meter=meter, span=holding.period)
        ).quantity
    return Access(feature, terms, holding.period, used)


async def every_access(conn: Conn, holding: Held) -> list[Access]:
    found = [await access_to(conn, holding, feature) for feature in holding.catalogue.features.values()]
    return [each for each in found if each is not None]
