"""Would so much be accepted now? Judged as `ingest` judges, with nothing locked and nothing written.

Many who ask share what must be read: wallets in one statement, usage in two more. What they were told was so at one
moment: the book they were judged by is looked at last, and where it was out of date all of it is done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from tallystick.core.admission import Admitted, Limit, admit, insufficient, limit_reached
from tallystick.core.asking import supposed
from tallystick.core.catalog import Feature, FeatureType, Terms
from tallystick.core.events import UsageEvent
from tallystick.core.meters import Aggregation, Meter, in_force
from tallystick.core.money import ZERO
from tallystick.core.subscriptions import Status
from tallystick.core.times import whole_hours
from tallystick.core.wallets import Wallet
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.books import Book, Books
from tallystick.flows.check_access import (
    Access,
    Funds,
    Held,
    funds_in,
    held_by,
    wallet_key,
    wallets_and_version,
)
from tallystick.flows.draw_on_limits import measured
from tallystick.flows.measure_usage import measure_usage
from tallystick.store import db, usage
from tallystick.store.db import Conn
from tallystick.store.wallets import WalletKey

_ATTEMPTS_MAX = 50


class Ask(NamedTuple):
    """An event that names a feature, and was not sent."""

    event: UsageEvent
    with_properties: bool  # else units of the feature are meant, whatever its meter reads
    api_key_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What was asked, what there is, and what track would refuse the event with (None: it would be accepted)."""

    feature: Feature
    terms: Terms
    status: Status
    quantity: Decimal
    refusal: Problem | None
    access: Access | None = None  # of a metered plan
    funds: Funds | None = None  # of a prepaid one
    cost: Decimal | None = None  # of that; None: it cannot be told without the tokens of a call


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an event would be: all that the book knows of it."""

    event: UsageEvent
    holding: Held
    feature: Feature
    terms: Terms
    meter: Meter
    admitted: Admitted | None  # None: tokens are priced, and none were named


async def check_usage(
    conn: Conn, books: Books, organization_id: UUID, asks: Sequence[Ask], *, wall: datetime
) -> list[Checked | Problem]:
    """In the order asked. A Problem is what track would answer, where it is no limit or wallet that stands in its way."""
    book = await books.known(conn, organization_id)
    for _ in range(_ATTEMPTS_MAX):
        found = await _answers(conn, books, book, asks, wall)
        if found is not None:
            return found
        book = await books.refreshed(conn, organization_id)
    raise Problem("unavailable", "The catalogue keeps changing; try again.", retry_after_s=1)


async def _answers(
    conn: Conn, books: Books, book: Book, asks: Sequence[Ask], wall: datetime
) -> list[Checked | Problem] | None:
    """None when the book turns out to be out of date. Wallets come last: with them its version is read."""
    await books.learn(conn, book, {each for ask in asks for each in ask.event.customers})
    judged: list[_Asked | Problem] = []
    for ask in asks:
        try:
            judged.append(_judge(book, ask, wall))
        except Problem as problem:
            judged.append(problem)
    asked = [each for each in judged if isinstance(each, _Asked)]
    used = await _used(conn, [each for each in asked if each.holding.prepaid is None])
    found = [
        await _metered(conn, each, used[each.holding.customer_id, each.meter.id])
        if isinstance(each, _Asked) and each.holding.prepaid is None
        else each
        for each in judged
    ]
    keys = [wallet_key(each.holding) for each in asked if each.holding.prepaid is not None]
    purses, version = await _purses(conn, book, keys, wall)
    if version != book.version:
        return None
    return [
        _paid(each, funds_in(each.holding, purses.get(wallet_key(each.holding))))
        if isinstance(each, _Asked)
        else each
        for each in found
    ]


async def _purses(
    conn: Conn, book: Book, keys: Sequence[WalletKey], wall: datetime
) -> tuple[dict[WalletKey, Wallet], int]:
    """What pays, and the version at that moment or after it."""
    here = book.organization.id
    if not keys:
        return {}, await db.version(conn, organization_id=here)
    return await wallets_and_version(conn, keys, organization_id=here, now=book.now(wall))


def _judge(book: Book, ask: Ask, wall: datetime) -> _Asked:
    if ask.api_key_id in book.revoked_keys:
        raise Problem("unauthorized")
    event, catalogue, now = ask.event, book.catalogue, book.now(wall)
    standing = book.standing_of(event)
    holding = held_by(standing, catalogue, now)
    if holding is None:
        raise Problem("no_active_subscription")
    feature = catalogue.features.get(event.feature)
    if feature is None:
        raise Problem("feature_not_found", f"There is no feature {event.feature!r}.", param="featureCode")
    if feature.type is not FeatureType.USAGE:
        raise InvalidRequest(FieldError("featureCode", f"{event.feature!r} has no usage"))
    terms = holding.terms_of(feature)
    if terms is None:
        raise Problem("feature_not_in_plan", param="featureCode")
    if not terms.enabled:
        raise Problem("feature_disabled", param="featureCode")
    start = holding.period.start
    meter, admitted = in_force(catalogue.versions[feature.id], start), None
    if holding.prepaid is None or terms.margin_bps is None or event.call is not None:
        sent, meant = supposed(event, catalogue, feature, start, with_properties=ask.with_properties)
        admitted = admit(
            sent, meant, standing, now=now, latest=max(now, wall), price_tokens=book.price_tokens
        )
    return _Asked(event, holding, feature, terms, meter, admitted)


def _paid(asked: _Asked, funds: Funds) -> Checked:
    cost = None
    if asked.admitted is None:
        lacks = f"insufficient_{funds.model}"
        refusal = Problem(lacks, "Nothing is left of it.") if funds.exhausted else None
    else:
        cost = asked.admitted.spend.cost if asked.admitted.spend is not None else ZERO
        refusal = None if funds.pays(cost) else insufficient(funds.wallet, cost)
    return Checked(
        asked.feature,
        asked.terms,
        asked.holding.life.status,
        asked.event.value,
        refusal,
        funds=funds,
        cost=cost,
    )


async def _metered(conn: Conn, asked: _Asked, used: Decimal) -> Checked:
    access = Access(asked.feature, asked.terms, asked.holding.period, used)
    limits = asked.admitted.limits if asked.admitted is not None else ()
    refusal = await _limit_reached(conn, asked.holding, access, limits)
    return Checked(
        asked.feature, asked.terms, asked.holding.life.status, asked.event.value, refusal, access=access
    )


async def _used(conn: Conn, asked: Sequence[_Asked]) -> dict[tuple[UUID, UUID], Decimal]:
    """By customer and meter, what was used in the period that is open."""
    wanted = {(each.holding.customer_id, each.meter.id): each for each in asked}
    simple = [(key, each) for key, each in wanted.items() if each.meter.reads_all]
    totals = (
        await usage.folds(
            conn,
            [usage.Asked(key[0], each.meter, *whole_hours(each.holding.period)) for key, each in simple],
        )
        if simple
        else []
    )
    found = {key: total.quantity for (key, _), total in zip(simple, totals, strict=True)}
    for key, each in wanted.items():
        if key not in found:
            total = await measure_usage(conn, customer_id=key[0], meter=each.meter, span=each.holding.period)
            found[key] = total.quantity
    return found


async def _limit_reached(
    conn: Conn, holding: Held, access: Access, limits: Sequence[Limit]
) -> Problem | None:
    """The first hard limit in the way of an event; each is measured, for counters belong to who draws on them."""
    for limit in limits:
        asked = limit.feature_id == access.feature.id and limit.period == access.period
        known = access.used if asked and limit.meter.aggregation is not Aggregation.LATEST else None
        values = [] if limit.adds.distinct is None else [limit.adds.distinct]
        before = await measured(conn, holding.customer_id, limit, used=known, values=values)
        if before.plus(limit.meter, limit.adds).passes(limit, before):
            return limit_reached(limit, before.used)
    return None
