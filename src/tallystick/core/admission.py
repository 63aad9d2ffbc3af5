"""Admission: may this event count, and for what?

Pure: the catalogue, the customer's standing and two clocks go in; what to add where comes out, or a Problem.
Whether the key was seen before, and how much of a limit is used, only the database knows: `flows/ingest` asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from tallystick.core.catalog import (
    Catalogue,
    FeatureType,
    Terms,
    ruling,
    stops_throughout,
    stretches,
    terms_at,
)
from tallystick.core.events import UsageEvent
from tallystick.core.limits import FUTURE_MAX
from tallystick.core.meters import Aggregation, Measured, Meter, in_force, measure
from tallystick.core.money import ZERO, plain, text
from tallystick.core.spending import PriceTokens, Spend, share_of, unit_cost
from tallystick.core.subscriptions import Life, Plain, Standing, Status, Tariff
from tallystick.core.times import Period
from tallystick.core.wallets import Model, Prepaid, Wallet
from tallystick.errors import FieldError, InvalidRequest, Problem

_INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Limit:
    """A hard limit this event draws on: the counter it belongs to and what it would add.

    Where it does not hold `throughout` its period, its counter knows nothing of what was used while it did not.
    """

    subscription_id: UUID
    feature_id: UUID
    feature_code: str
    meter: Meter
    period: Period
    included: Decimal
    adds: Measured
    throughout: bool = True


class Admitted(NamedTuple):
    """An event that may count: when it happened, what it adds to which meters, which limits it draws on, what it costs.

    It is late when it happened before the period that is open as it arrives: its own may be billed already.
    """

    occurred_at: datetime
    contributions: tuple[tuple[Meter, Measured], ...]
    limits: tuple[Limit, ...]
    late: bool = False
    spend: Spend | None = None


def admit(
    event: UsageEvent,
    catalogue: Catalogue,
    standing: Standing,
    *,
    now: datetime,
    latest: datetime,
    price_tokens: PriceTokens,
) -> Admitted:
    """Judge one event. `now` is the organization's clock, `latest` the later of it and the wall clock.

    Order of refusals: the event itself, the feature, the subscription, the plan (behaviour.md §6.3).
    """
    occurred_at = event.occurred_at or now
    if occurred_at > latest + FUTURE_MAX:
        raise InvalidRequest(FieldError("timestamp", "lies more than an hour in the future"))
    fed = catalogue.meters.get(event.feature)
    if fed is None:
        raise _unknown(event.feature, catalogue)
    life = standing.life_for(occurred_at, now)
    contributions = tuple(
        (meter, measured)
        for meter in fed
        if (measured := measure(meter, event.value, event.properties, occurred_at)) is not None
    )
    prepaid = catalogue.prepaid.get(life.plan_id)
    if prepaid is not None:
        spend = _spend(
            event,
            catalogue,
            life,
            prepaid,
            fed,
            contributions,
            now,
            occurred_at=occurred_at,
            price_tokens=price_tokens,
        )
        if occurred_at < life.anchor.at:  # it touches no wallet, and is told so (ruling 7)
            return Admitted(occurred_at, contributions, (), late=True)
        return Admitted(occurred_at, contributions, (), spend=spend)
    if event.call is not None:
        raise Problem(
            "pricing_mode_mismatch",
            f"The plan prices {event.feature!r} by value; send `value`, not tokens.",
            param="model",
        )
    late = event.occurred_at is not None and (
        life is not standing.current or occurred_at < life.open_since(now)
    )
    if event.feature in life.unlimited:
        return Admitted(occurred_at, contributions, (), late)
    limits = _limits(event, catalogue, life, occurred_at, fed, contributions)
    return Admitted(occurred_at, contributions, limits, late)


def plainly(code: str, catalogue: Catalogue, standing: Standing, now: datetime) -> Plain | None:
    """How `admit` judges every event of a code that happens in the period that is open now; None: one by one.

    Of the current subscription, which has no limit in sight, by meters that take all there is. A wallet has plenty.
    """
    known = standing.plain.get(code)
    if known is not None and known.since <= now < known.until:
        return known if known.tariff is None or not standing.scarce else None
    life, fed = standing.usable(now), catalogue.meters.get(code, ())
    if life is None or not all(meter.reads_all for meter in fed):
        return None
    where = life.period_at(now)
    if where is None:
        return None
    index, span = where
    tariff = None
    if prepaid := catalogue.prepaid.get(life.plan_id):
        tariff = _tariff(code, life, index, prepaid)
        if tariff is None:
            return None
    elif code not in life.unlimited:
        return None
    found = standing.plain[code] = Plain(
        span.start,
        span.end if life.ends_at is None else min(span.end, life.ends_at),
        tuple((meter.id, meter.aggregation is Aggregation.COUNT) for meter in fed),
        tariff,
    )
    return found if tariff is None or not standing.scarce else None


def _tariff(code: str, life: Life, index: int, prepaid: Prepaid) -> Tariff | None:
    """What `_spend` would make of every event, where it costs the same whenever it comes, and no tokens price it."""
    paid = life.priced.get(code)
    if paid is None or any(terms.margin_bps is not None for _, terms in paid):
        return None
    costs = [
        (meter.aggregation is Aggregation.COUNT, unit_cost(terms, prepaid.model)) for meter, terms in paid
    ]
    return Tariff(
        life.subscription_id,
        index,
        prepaid.model,
        per_value=sum((each for counts, each in costs if not counts), ZERO),
        per_event=sum((each for counts, each in costs if counts), ZERO),
    )


def admit_adjustment(
    event: UsageEvent, meter: Meter, catalogue: Catalogue, standing: Standing, *, now: datetime
) -> Admitted:
    """A signed correction of one feature's total: for every version of its meter that listens to its code, whatever
    the filters.

    It draws on the feature's limit like usage does, so that the counter stays true.
    """
    occurred_at = event.occurred_at or now
    life = standing.life_for(occurred_at, now)
    if life.plan_id in catalogue.prepaid:
        raise InvalidRequest(
            FieldError("featureCode", "usage of a prepaid plan is paid as it comes, and stands")
        )
    adds = Measured(event.value)
    contributions = tuple(
        (each, adds)
        for _, each in catalogue.versions[meter.feature_id]
        if each.adds_up and each.event_code == event.feature
    )
    versions = catalogue.plans.get(life.plan_id, {}).get(meter.feature_id, ())
    where = life.period_at(occurred_at)
    ruled = stretches(versions, where[1]) if where else ()
    terms = ruling(ruled, occurred_at)
    if where is None or terms is None or not terms.stops_at_included:
        return Admitted(occurred_at, contributions, ())
    limit = Limit(
        life.subscription_id,
        meter.feature_id,
        meter.feature_code,
        meter,
        where[1],
        terms.included,
        adds,
        stops_throughout(ruled, where[1]),
    )
    return Admitted(occurred_at, contributions, (limit,))


def _unknown(code: str, catalogue: Catalogue) -> Problem:
    feature = catalogue.features.get(code)
    if feature is not None and feature.type is not FeatureType.USAGE:
        return InvalidRequest(
            FieldError("featureCode", f"{code!r} is a {feature.type} feature and has no usage")
        )
    if feature is not None:
        return Problem(
            "feature_not_found", f"No meter listens to events named {code!r}.", param="featureCode"
        )
    return Problem("feature_not_found", f"There is no feature {code!r}.", param="featureCode")


def _limits(
    event: UsageEvent,
    catalogue: Catalogue,
    life: Life,
    occurred_at: datetime,
    fed: Sequence[Meter],
    contributions: Sequence[tuple[Meter, Measured]],
) -> tuple[Limit, ...]:
    """The hard limits among the features this event feeds; refuses what the plan does not have."""
    promised = catalogue.plans.get(life.plan_id, {})
    seen = enabled = False
    always = True  # the same terms in every period of this life, and none of them a limit
    limits: list[Limit] = []
    for feature_id in {meter.feature_id: None for meter in fed}:
        versions = promised.get(feature_id)
        if versions is None:
            continue
        where, ruled = None, None
        if _for_life(versions, life):
            terms: Terms | None = versions[0]
        else:
            always = False
            counted_at = max(occurred_at, life.anchor.at)
            where = life.period_at(counted_at)
            ruled = stretches(versions, where[1]) if where else ()
            terms = ruling(ruled, counted_at)
        if terms is None:
            continue
        seen = True
        enabled = enabled or terms.enabled
        if not terms.enabled or not terms.stops_at_included:
            continue
        always = False
        if occurred_at < life.anchor.at:
            continue
        where = where or life.period_at(occurred_at)
        if where is None:
            continue
        meter = in_force(catalogue.versions[feature_id], where[1].start)
        for each, adds in contributions:
            if each.id == meter.id:
                limits.append(
                    Limit(
                        life.subscription_id,
                        feature_id,
                        meter.feature_code,
                        meter,
                        where[1],
                        terms.included,
                        adds,
                        ruled is None or stops_throughout(ruled, where[1]),
                    )
                )
    _must_be_promised(event, seen=seen, enabled=enabled)
    if always:
        life.unlimited.add(event.feature)
    return tuple(limits)


def _must_be_promised(event: UsageEvent, *, seen: bool, enabled: bool) -> None:
    if not seen:
        raise Problem(
            "feature_not_in_plan",
            f"The customer's plan does not have {event.feature!r}.",
            param="featureCode",
        )
    if not enabled:
        raise Problem(
            "feature_disabled",
            f"The customer's plan has {event.feature!r} switched off.",
            param="featureCode",
        )


def _spend(
    event: UsageEvent,
    catalogue: Catalogue,
    life: Life,
    prepaid: Prepaid,
    fed: Sequence[Meter],
    contributions: Sequence[tuple[Meter, Measured]],
    now: datetime,
    *,
    occurred_at: datetime,
    price_tokens: PriceTokens,
) -> Spend:
    """What the event costs by what the plan promises now; of an ended subscription, by what it promised last."""
    ended = life.ends_at is not None and life.ends_at <= now
    at = life.ends_at - _INSTANT if ended and life.ends_at is not None else now
    # The clock of the host that activated it may be a little ahead of ours.
    at = max(at, life.anchor.at)
    where = life.period_at(at)
    assert where is not None  # a subscription that may be used has begun
    index, period = where
    paid = life.priced.get(event.feature) or _paid_for(event, catalogue, life, fed, period, at)
    shares = [
        share_of(
            event,
            meter.feature_id,
            terms,
            prepaid.model,
            adds.quantity,
            occurred_at=occurred_at,
            price_tokens=price_tokens,
        )
        for meter, terms in paid
        for each, adds in contributions
        if each.id == meter.id
    ]
    return Spend(
        subscription_id=life.subscription_id,
        period_index=None if ended else index,
        included=prepaid.grants(life.price_id),
        overdraft=not ended and may_overdraw(prepaid, life),
        shares=tuple(shares),
    )


def _paid_for(
    event: UsageEvent, catalogue: Catalogue, life: Life, fed: Sequence[Meter], period: Period, at: datetime
) -> tuple[tuple[Meter, Terms], ...]:
    """The features that the event pays for, each by the meter and the terms of now."""
    promised = catalogue.plans.get(life.plan_id, {})
    seen, always = False, True
    paid: list[tuple[Meter, Terms]] = []
    for feature_id in {meter.feature_id: None for meter in fed}:
        offered, measured = promised.get(feature_id, ()), catalogue.versions[feature_id]
        terms = terms_at(offered, period, at)
        always = always and len(measured) == 1 and (not offered or _for_life(offered, life))
        if terms is not None:
            seen = True
            if terms.enabled:
                paid.append((in_force(measured, period.start), terms))
    _must_be_promised(event, seen=seen, enabled=bool(paid))
    if always:
        life.priced[event.feature] = tuple(paid)
    return tuple(paid)


def _for_life(offered: Sequence[Terms], life: Life) -> bool:
    """Whether there is one offer, and it holds in every period of this life."""
    return len(offered) == 1 and not offered[0].removed and offered[0].valid_from <= life.anchor.at


def may_overdraw(prepaid: Prepaid, life: Life) -> bool:
    """Nothing is owed on trial."""
    return prepaid.overdraft and life.status is not Status.TRIALING


def insufficient(wallet: Wallet, cost: Decimal, *, param: str = "value") -> Problem:
    """A wallet that does not cover a cost: what it would take and what is there, in the wallet's unit."""
    what = "credits" if wallet.model is Model.CREDITS else "rate units of balance"
    return Problem(
        f"insufficient_{wallet.model}",
        f"It takes {text(cost)} {what}; {text(wallet.remaining)} remain.",
        param=param,
        details={"required": plain(cost), "remaining": plain(wallet.remaining)},
    )


def limit_reached(limit: Limit, used: Decimal) -> Problem:
    remaining = max(limit.included - used, Decimal(0))
    return Problem(
        "included_limit_reached",
        f"{limit.feature_code!r}: {text(used)} of {text(limit.included)} included are used; {text(remaining)} remain.",
        param="value",
        details={"current": plain(used), "included": plain(limit.included), "remaining": plain(remaining)},
    )
