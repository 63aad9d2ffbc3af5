"""What a customer may use right now: the terms in force, the period, what is used of it, and the wallet that pays."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal
from uuid import UUID

from tallystick.core.admission import may_overdraw
from tallystick.core.catalog import Catalogue, Feature, FeatureType, Terms, terms_at
from tallystick.core.meters import Meter, in_force
from tallystick.core.money import ZERO
from tallystick.core.spending import unit_cost
from tallystick.core.subscriptions import Life, Standing
from tallystick.core.times import Period
from tallystick.core.wallets import Model, Prepaid, Wallet, lapsed, turned
from tallystick.errors import Problem, must
from tallystick.flows.books import Books
from tallystick.flows.measure_usage import measure_usage
from tallystick.store import db, reservations, wallets
from tallystick.store.db import Conn
from tallystick.store.subscriptions import Subscription
from tallystick.store.wallets import WalletKey


@dataclass(frozen=True, slots=True)
class Funds:
    """A wallet as it stands now, and what the plan has to say of it."""

    wallet: Wallet
    included: Decimal  # what the plan grants each period
    overdraft: bool

    @property
    def model(self) -> Model:
        return self.wallet.model

    def pays(self, cost: Decimal) -> bool:
        return self.wallet.pays(cost, overdraft=self.overdraft)

    @property
    def exhausted(self) -> bool:
        """Whether nothing that costs anything is accepted any more."""
        return not self.overdraft and self.wallet.remaining <= 0


@dataclass(frozen=True, slots=True)
class Access:
    """One feature as one customer has it in the current period."""

    feature: Feature
    terms: Terms
    period: Period
    used: Decimal
    funds: Funds | None = None  # where usage is prepaid
    spent: Decimal = ZERO  # by what was used, in the wallet's unit

    @property
    def remaining(self) -> Decimal:
        return max(ZERO, self.terms.included - self.used)

    @property
    def overage(self) -> Decimal:
        """What was used beyond the allowance; where usage is prepaid there is no beyond."""
        if self.terms.unlimited or self.funds is not None:
            return ZERO
        return max(ZERO, self.used - self.terms.included)

    @property
    def unit_cost(self) -> Decimal | None:
        """What a unit takes of the wallet; None where it is not prepaid, or tokens of a model cost what they cost."""
        if self.funds is None or self.terms.margin_bps is not None:
            return None
        return unit_cost(self.terms, self.funds.model)

    @property
    def available(self) -> int | None:
        """How many whole units the wallet covers; None where that cannot be told."""
        if self.funds is None or not self.unit_cost:
            return None
        covered = max(ZERO, self.funds.wallet.remaining) / self.unit_cost
        return int(covered.to_integral_value(ROUND_FLOOR))

    @property
    def allowed(self) -> bool:
        """Whether anything more would be accepted; of prepaid usage, another unit."""
        if not self.terms.enabled or self.feature.type is not FeatureType.USAGE:
            return self.terms.enabled
        if self.funds is None:
            return not self.terms.stops_at_included or self.remaining > 0
        return self.funds.pays(self.unit_cost) if self.unit_cost is not None else not self.funds.exhausted

    @property
    def owes_more(self) -> bool:
        """Whether another unit would be on an invoice."""
        if self.funds is None:
            return self.terms.overage_enabled and not self.terms.unlimited and self.remaining == 0
        return self.funds.overdraft and not self.funds.wallet.covers(self.unit_cost or Decimal(1))


@dataclass(frozen=True, slots=True)
class Held:
    """A customer's usable subscription and the catalogue it is read with."""

    catalogue: Catalogue
    customer_id: UUID
    life: Life
    index: int
    period: Period
    now: datetime

    @property
    def prepaid(self) -> Prepaid | None:
        return self.catalogue.prepaid.get(self.life.plan_id)

    def terms_of(self, feature: Feature) -> Terms | None:
        """What the plan promises of a feature now; None when it does not have it."""
        versions = self.catalogue.plans.get(self.life.plan_id, {}).get(feature.id, ())
        return terms_at(versions, self.period, self.now)


async def held(
    conn: Conn, books: Books, *, organization_id: UUID, reference: str, now: datetime
) -> Held | None:
    """None when nothing usable is held. Raises customer_not_found."""
    book = await books.current(conn, organization_id)
    await books.learn(conn, book, {reference})
    standing = book.standings.get(reference)
    if standing is None:
        raise Problem("customer_not_found", f"There is no customer {reference!r}.", param="customerId")
    return held_by(standing, book.catalogue, now)


def held_by(standing: Standing, catalogue: Catalogue, now: datetime) -> Held | None:
    """None when nothing usable is held."""
    life = standing.usable(now)
    where = life.period_at(now) if life is not None else None
    if life is None or where is None:
        return None
    return Held(catalogue, standing.customer_id, life, *where, now)


def wallet_key(holding: Held) -> WalletKey:
    return WalletKey(holding.customer_id, holding.life.subscription_id)


async def wallets_read(conn: Conn, keys: Sequence[WalletKey], *, now: datetime) -> dict[WalletKey, Wallet]:
    """Stored wallets, and in them again what was set aside and not settled in time."""
    found = await wallets.read(conn, keys)
    await _take_back(conn, found, now=now)
    return found


async def wallets_and_version(
    conn: Conn, keys: Sequence[WalletKey], *, organization_id: UUID, now: datetime
) -> tuple[dict[WalletKey, Wallet], int]:
    """The same, and the organization's version when all of it was read."""
    found, version = await wallets.read_with_version(conn, keys, organization_id=organization_id)
    if await _take_back(conn, found, now=now):
        version = await db.version(conn, organization_id=organization_id)
    return found, version


async def _take_back(conn: Conn, found: dict[WalletKey, Wallet], *, now: datetime) -> bool:
    """Put into wallets what was set aside and not settled in time; False where nothing is set aside at all."""
    holding = [key for key, wallet in found.items() if wallet.held]
    if holding:
        for key, lapses in (await reservations.lapsed(conn, holding, now=now)).items():
            found[key], _ = lapsed(found[key], lapses)
    return bool(holding)


async def funds_of(conn: Conn, holding: Held) -> Funds | None:
    """What pays under a prepaid plan, nothing written; None where nothing is prepaid."""
    if holding.prepaid is None:
        return None
    key = wallet_key(holding)
    return funds_in(holding, (await wallets_read(conn, [key], now=holding.now)).get(key))


def funds_in(holding: Held, stored: Wallet | None) -> Funds:
    """The wallet behind a prepaid plan as its next touch would find it: in the period that is open."""
    prepaid = holding.prepaid
    must(
        prepaid is not None and stored is not None,
        "a prepaid subscription has a wallet",
        subscription=holding.life.subscription_id,
    )
    assert prepaid is not None and stored is not None
    included = prepaid.grants(holding.life.price_id)
    wallet, _ = turned(stored, holding.index, included)
    return Funds(wallet, included, may_overdraw(prepaid, holding.life))


async def funds_left(conn: Conn, books: Books, subscription: Subscription) -> Funds | None:
    """The wallet of a subscription that gives no access, as it was left: nothing is paid from it."""
    stored = await wallets.get(conn, WalletKey(subscription.customer_id, subscription.id))
    if stored is None:
        return None
    book = await books.current(conn, subscription.organization_id)
    prepaid = book.catalogue.prepaid[subscription.plan_id]
    return Funds(stored, prepaid.grants(subscription.price_id), overdraft=False)


async def access_to(conn: Conn, holding: Held, feature: Feature, funds: Funds | None = None) -> Access | None:
    """None when the plan does not have the feature."""
    terms = holding.terms_of(feature)
    if terms is None:
        return None
    if feature.type is not FeatureType.USAGE:
        return Access(feature, terms, holding.period, ZERO)
    meter = in_force(holding.catalogue.versions[feature.id], holding.period.start)
    used = (
        await measure_usage(conn, customer_id=holding.customer_id, meter=meter, span=holding.period)
    ).quantity
    spent = await _spent(conn, holding, terms, meter, used, funds) if funds is not None else ZERO
    return Access(feature, terms, holding.period, used, funds, spent)


async def _spent(
    conn: Conn, holding: Held, terms: Terms, meter: Meter, used: Decimal, funds: Funds
) -> Decimal:
    """Units at their cost where that was one and the same all period long; else what the events themselves took."""
    versions = holding.catalogue.plans[holding.life.plan_id][terms.feature_id]
    steady = len(versions) == 1 or all(each.valid_from < holding.period.start for each in versions)
    if terms.margin_bps is None and (steady or not used):
        return used * unit_cost(terms, funds.model)
    return await wallets.deducted(
        conn, customer_id=holding.customer_id, event_code=meter.event_code, span=holding.period
    )


async def every_access(conn: Conn, holding: Held, funds: Funds | None) -> list[Access]:
    found = [
        await access_to(conn, holding, feature, funds) for feature in holding.catalogue.features.values()
    ]
    return [each for each in found if each is not None]
