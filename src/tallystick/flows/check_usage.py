"""Would so much be accepted now? Judged as `ingest` judges, with nothing locked and nothing written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from tallystick.core.admission import Limit, admit, insufficient, limit_reached
from tallystick.core.asking import supposed
from tallystick.core.catalog import Feature, FeatureType, Terms
from tallystick.core.events import UsageEvent
from tallystick.core.meters import Aggregation
from tallystick.core.money import ZERO
from tallystick.core.subscriptions import Status
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.books import Books
from tallystick.flows.check_access import Access, Funds, Held, access_to, funds_of, held_by
from tallystick.flows.draw_on_limits import measured
from tallystick.store.db import Conn


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


async def check_usage(
    conn: Conn,
    books: Books,
    *,
    organization_id: UUID,
    event: UsageEvent,
    with_properties: bool,
    wall: datetime,
) -> Checked:
    """`event` names a feature. Raises what track would raise, where it is not limits or wallets that stand against it."""
    book = await books.current(conn, organization_id)
    await books.learn(conn, book, set(event.customers))
    now = book.now(wall)
    standing = book.standing_of(event)
    holding = held_by(standing, book.catalogue, now)
    if holding is None:
        raise Problem("no_active_subscription")
    feature = book.catalogue.features.get(event.feature)
    if feature is None:
        raise Problem("feature_not_found", f"There is no feature {event.feature!r}.", param="featureCode")
    if feature.type is not FeatureType.USAGE:
        raise InvalidRequest(FieldError("featureCode", f"{event.feature!r} has no usage"))
    terms = holding.terms_of(feature)
    if terms is None:
        raise Problem("feature_not_in_plan", param="featureCode")
    if not terms.enabled:
        raise Problem("feature_disabled", param="featureCode")
    funds = await funds_of(conn, holding)
    if funds is not None and terms.margin_bps is not None and event.call is None:
        refusal = (
            Problem(f"insufficient_{funds.model}", "Nothing is left of it.") if funds.exhausted else None
        )
        return Checked(feature, terms, holding.life.status, event.value, refusal, funds=funds)

    sent, catalogue = supposed(
        event, book.catalogue, feature, holding.period.start, with_properties=with_properties
    )
    admitted = admit(
        sent, catalogue, standing, now=now, latest=max(now, wall), price_tokens=book.price_tokens
    )
    if funds is None:
        access = await access_to(conn, holding, feature)
        assert access is not None  # it has terms
        refusal = await _limit_reached(conn, holding, access, admitted.limits)
        return Checked(feature, terms, holding.life.status, event.value, refusal, access=access)
    cost = admitted.spend.cost if admitted.spend is not None else ZERO
    refusal = None if funds.pays(cost) else insufficient(funds.wallet, cost)
    return Checked(feature, terms, holding.life.status, event.value, refusal, funds=funds, cost=cost)


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
