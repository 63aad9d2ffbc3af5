"""What a simulation is asked, with everything it names looked up: which terms each period is to be rated by instead."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from tallystick.core import ids, price_shapes
from tallystick.core.catalog import (
    Catalogue,
    Feature,
    FeatureType,
    Stretch,
    Terms,
    minimum_over,
    promised,
)
from tallystick.core.limits import SIMULATION_CHANGES_MAX, SIMULATION_CUSTOMERS_MAX
from tallystick.core.meters import Aggregation, in_force
from tallystick.core.money import ZERO, text
from tallystick.core.pricing import Percentage
from tallystick.core.supposing import overridden
from tallystick.core.times import Period, show_instant
from tallystick.errors import FieldError, InvalidRequest, within
from tallystick.flows.books import load_catalogue
from tallystick.flows.publish_catalog import TermsSpec, check_terms, nothing_promised, revised
from tallystick.flows.rate_period import Ruled, UsagePeriod
from tallystick.store import catalog, customers
from tallystick.store.catalog import Plan, PlanPrice
from tallystick.store.db import Conn
from tallystick.store.organizations import Organization


@dataclass(frozen=True, slots=True)
class Named:
    """A plan or a feature as somebody named it: by id or by code, and in which field."""

    id: UUID | None
    code: str | None
    shown: str
    field: str


@dataclass(frozen=True, slots=True)
class Change:
    """Something that a plan promises of a feature, put otherwise."""

    plan: Named
    feature: Named
    spec: TermsSpec
    where: str  # in the request


@dataclass(frozen=True, slots=True)
class Wish:
    """What to simulate: other terms of plans, or another plan for everybody, or both."""

    span: Period
    changes: tuple[Change, ...] = ()
    plan: Named | None = None
    customers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A wish with everything it names looked up."""

    offered: Catalogue
    changes: Mapping[tuple[UUID, UUID], Change]  # by plan and feature
    plan: Plan | None  # everybody is simulated on it
    plan_field: str
    prices: Sequence[PlanPrice]  # of `plan`
    people: list[UUID] | None
    shown: dict[str, Any]
    now: datetime

    def ruled(self, lived: UsagePeriod, was: Ruled) -> Ruled | None:
        """The terms to rate the period by instead, of every feature they are other for; None where nothing is."""
        plan_id = lived.plan_id if self.plan is None else self.plan.id
        before = was if self.plan is None else self._offer(plan_id, lived.span)
        changed = {
            feature_id: overridden(
                before.get(feature_id, ()),
                lived.span,
                _revision(change.spec),
                self.promise(plan_id, feature_id),
            )
            for (changed_plan, feature_id), change in self.changes.items()
            if changed_plan == plan_id
        }
        if self.plan is None:
            return changed or None
        return {**before, **changed}

    def _offer(self, plan_id: UUID, span: Period) -> dict[UUID, tuple[Stretch, ...]]:
        """The plan's usage features as it promises them now, for all of a period."""
        usage = {each.id for each in self.offered.features.values() if each.type is FeatureType.USAGE}
        found = {
            feature_id: promised(versions, self.now)
            for feature_id, versions in self.offered.plans.get(plan_id, {}).items()
            if feature_id in usage
        }
        return {
            feature_id: ((span, terms),)
            for feature_id, terms in found.items()
            if terms is not None and terms.enabled
        }

    def promise(self, plan_id: UUID, feature_id: UUID) -> Terms:
        versions = self.offered.plans.get(plan_id, {}).get(feature_id, ())
        current = promised(versions, self.now) if versions else None
        return current or nothing_promised(plan_id, feature_id, self.now)

    def minimum(self, lived: UsagePeriod) -> Decimal | None:
        """What the usage of the period is lifted to: the minimum of its time, or that of the simulated plan now."""
        if self.plan is None:
            return minimum_over(self.offered.minimums.get(lived.plan_id, ()), lived.span)
        asked = [each for each in self.offered.minimums.get(self.plan.id, ()) if each.valid_from <= self.now]
        return asked[-1].amount if asked else None

    def price_for(self, interval: str | None) -> PlanPrice | None:
        """The simulated plan's base for the interval that is held, else its default."""
        same = [each for each in self.prices if each.billing_interval == interval]
        default = [each for each in self.prices if each.is_default]
        return next(iter([*same, *default, *self.prices]), None)

    def check_meters(self, lived: UsagePeriod, ruled: Ruled) -> None:
        """A percentage is taken of amounts; a feature may have been measured otherwise once."""
        for feature_id, terms in ruled.items():
            meter = in_force(self.offered.versions[feature_id], lived.span.start)
            if meter.aggregation is Aggregation.SUM:
                continue
            if any(isinstance(each.price, Percentage) and each.overage_enabled for _, each in terms):
                plan_id = lived.plan_id if self.plan is None else self.plan.id
                change = self.changes.get((plan_id, feature_id))
                raise InvalidRequest(
                    FieldError(
                        self.plan_field if change is None else f"{change.where}.price.model",
                        f"a percentage is taken of amounts, and in the period from "
                        f"{show_instant(lived.span.start)} the meter of {meter.feature_code!r} was "
                        f"{meter.aggregation.value}: choose a later start",
                    )
                )


def _revision(spec: TermsSpec) -> Callable[[Terms], Terms]:
    def revise(terms: Terms) -> Terms:
        now = revised(terms, spec)
        if isinstance(now.price, Percentage):
            now = replace(now, included=ZERO)  # it has free events and free amounts of its own
        if not now.overage_enabled:
            now = replace(now, minimum=None, maximum=None)  # nothing is charged that they could bound
        return now

    return revise


async def understood(conn: Conn, organization: Organization, wish: Wish, now: datetime) -> Question:
    offered = await load_catalogue(conn, organization.id)
    instead = None if wish.plan is None else await _plan(conn, organization, wish.plan)
    prices = (
        []
        if instead is None
        else await catalog.prices(conn, organization_id=organization.id, plan_ids=[instead.id])
    )
    plan_field = wish.plan.field if wish.plan is not None else ""
    if instead is not None and not instead.is_free and not prices:
        raise InvalidRequest(FieldError(plan_field, f"the plan {instead.code!r} has no price"))
    if len(wish.changes) > SIMULATION_CHANGES_MAX:
        raise InvalidRequest(FieldError("planFeatures", f"at most {SIMULATION_CHANGES_MAX} at once"))
    question = Question(
        offered,
        {},
        instead,
        plan_field,
        prices,
        await _people(conn, organization, wish.customers),
        {},
        now,
    )
    changes: dict[tuple[UUID, UUID], Change] = {}
    shown = []
    for change in wish.changes:
        plan = await _plan(conn, organization, change.plan)
        feature = _feature(offered, change.feature)
        if instead is not None and plan.id != instead.id:
            raise InvalidRequest(
                FieldError(change.plan.field, f"everybody is simulated on the plan {instead.code!r}")
            )
        if (plan.id, feature.id) in changes:
            raise InvalidRequest(FieldError(change.where, f"says {feature.code!r} of {plan.code!r} again"))
        with within(change.where):
            terms = revised(question.promise(plan.id, feature.id), change.spec)
            await check_terms(conn, organization.id, plan, feature, terms, asked=change.spec)
        changes[plan.id, feature.id] = change
        shown.append(_show_change(plan, feature, change.spec))
    asked = {
        "planFeatures": shown,
        "planId": None if instead is None else ids.show(ids.PLAN, instead.id),
        "planCode": None if instead is None else instead.code,
        "customers": None if wish.customers is None else list(wish.customers),
    }
    return replace(question, changes=changes, shown=asked)


async def _plan(conn: Conn, organization: Organization, named: Named) -> Plan:
    """One that is no longer offered too, by id: who holds it keeps it."""
    plan = await catalog.plan(conn, organization_id=organization.id, plan_id=named.id, code=named.code)
    if plan is None:
        raise InvalidRequest(FieldError(named.field, f"there is no plan {named.shown!r}"))
    return plan


def _feature(offered: Catalogue, named: Named) -> Feature:
    for feature in offered.features.values():
        if feature.id == named.id or feature.code == named.code:
            if feature.type is not FeatureType.USAGE:
                raise InvalidRequest(
                    FieldError(named.field, f"{feature.code!r} is a {feature.type} feature, not one of usage")
                )
            return feature
    raise InvalidRequest(FieldError(named.field, f"there is no feature {named.shown!r}"))


async def _people(
    conn: Conn, organization: Organization, references: Sequence[str] | None
) -> list[UUID] | None:
    if references is None:
        return None
    if not references:
        raise InvalidRequest(FieldError("customers", "names nobody; leave it out to simulate everybody"))
    if len(references) > SIMULATION_CUSTOMERS_MAX:
        raise InvalidRequest(FieldError("customers", f"at most {SIMULATION_CUSTOMERS_MAX} at once"))
    known = await customers.identities(conn, organization_id=organization.id, references=list(references))
    unknown = [
        FieldError(f"customers[{place}]", f"there is no customer {each!r}")
        for place, each in enumerate(references)
        if each not in known
    ]
    if unknown:
        raise InvalidRequest(*unknown)
    return list(set(known.values()))


def _show_change(plan: Plan, feature: Feature, spec: TermsSpec) -> dict[str, Any]:
    return {
        "planId": ids.show(ids.PLAN, plan.id),
        "planCode": plan.code,
        "featureId": ids.show(ids.FEATURE, feature.id),
        "featureCode": feature.code,
        "price": None if spec.price is None else price_shapes.to_json(spec.price),
        "overageEnabled": spec.overage_enabled,
        "includedAmount": None if spec.included is None else text(spec.included),
        "unlimited": spec.unlimited,
        "minimumAmount": None if spec.minimum is None else text(spec.minimum),
        "maximumAmount": None if spec.maximum is None else text(spec.maximum),
    }
