"""Simulations: what real usage would have cost under another price or plan. Only the report is kept."""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from tallystick.api.check_routes import Reference
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.plan_shapes import OverageIn, UpdatePlanFeature
from tallystick.api.plan_terms import terms_spec
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import ids
from tallystick.core.price_shapes import decimal_of
from tallystick.core.times import Period, first_instant, parse_instant, show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem, within
from tallystick.flows.simulate import simulate
from tallystick.flows.suppose import Change, Named, Wish
from tallystick.store import simulations
from tallystick.store.organizations import Organization
from tallystick.store.simulations import Simulation

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class SimulatedTerms(In, kw_only=True):
    """What a plan promises of a feature, put otherwise; what is left out stays as it was."""

    plan_id: str | None = None
    plan_code: str | None = None
    feature_id: str | None = None
    feature_code: str | None = None
    price: Any = None
    overage: OverageIn | None = None
    included_amount: Any = None
    unlimited: bool | None = None
    minimum_amount: Any = None
    maximum_amount: Any = None


class Simulate(In, kw_only=True):
    """`planFeatures`, a plan, or both; `start` and `end` are instants, or days of the organization's time zone."""

    start: str
    end: str
    plan_features: list[SimulatedTerms] | None = None
    plan_id: str | None = None
    plan_code: str | None = None
    customers: list[Reference] | None = None


class Amounts(Out, kw_only=True):
    """Minor units as lines are rounded; beside them major units, exact."""

    old_amount: int
    new_amount: int
    difference: int
    old_amount_decimal: str
    new_amount_decimal: str
    difference_decimal: str


class SimulatedFeature(Amounts, kw_only=True):
    feature_code: str
    feature_id: str


class SimulatedParts(Amounts, kw_only=True):
    """`base`: the plan's price in advance, where a plan was simulated; `planMinimum`: what lifts usage to it."""

    currency: str
    base: Amounts | None
    plan_minimum: Amounts | None
    features: list[SimulatedFeature]
    periods: int
    open_periods: int


class SimulatedCustomer(SimulatedParts, kw_only=True):
    customer_id: str
    outcome: str


class SimulatedTotal(SimulatedParts, kw_only=True):
    customers: int
    winners: int
    losers: int
    same: int


class AskedTerms(Out, kw_only=True):
    plan_id: str
    plan_code: str
    feature_id: str
    feature_code: str
    price: dict[str, Any] | None
    overage_enabled: bool | None
    included_amount: str | None
    unlimited: bool | None
    minimum_amount: str | None
    maximum_amount: str | None


class Asked(Out, kw_only=True):
    plan_features: list[AskedTerms]
    plan_id: str | None
    plan_code: str | None
    customers: list[str] | None


class SimulationOut(Out, kw_only=True):
    """`customers`: who would save most first, who would pay most more last; a list of simulations leaves them out."""

    id: str
    start: str
    end: str
    asked: Asked
    winners: int
    losers: int
    same: int
    periods: int
    open_periods: int
    totals: list[SimulatedTotal]
    customers: list[SimulatedCustomer] | Maybe = MISSING
    chain_position: int
    created_at: str
    object: str = "simulation"
    livemode: bool


def wish_of(body: Simulate, organization: Organization) -> Wish:
    """What is asked, with every field read; what it names is looked up later."""
    plan = _named("plan", ids.PLAN, body.plan_id, body.plan_code, "")
    changes = tuple(
        _change(each, f"planFeatures[{place}]") for place, each in enumerate(body.plan_features or ())
    )
    if plan is None and not changes:
        raise InvalidRequest(
            FieldError("planFeatures", "say what is to be otherwise: planFeatures, planId or planCode")
        )
    return Wish(
        span=Period(
            _moment("start", body.start, organization.timezone),
            _moment("end", body.end, organization.timezone),
        ),
        changes=changes,
        plan=plan,
        customers=None if body.customers is None else tuple(body.customers),
    )


def _change(body: SimulatedTerms, where: str) -> Change:
    plan = _named("plan", ids.PLAN, body.plan_id, body.plan_code, f"{where}.")
    feature = _named("feature", ids.FEATURE, body.feature_id, body.feature_code, f"{where}.")
    missing = [name for name, found in (("planCode", plan), ("featureCode", feature)) if found is None]
    if plan is None or feature is None:
        raise InvalidRequest(*(FieldError(f"{where}.{name}", "is required") for name in missing))
    with within(where):
        spec = terms_spec(
            UpdatePlanFeature(
                included_amount=_included(body.included_amount),
                unlimited=body.unlimited,
                overage=body.overage,
                price=body.price,
                minimum_amount=body.minimum_amount,
                maximum_amount=body.maximum_amount,
            )
        )
        if all(
            each is None
            for each in (
                spec.price,
                spec.overage_enabled,
                spec.included,
                spec.unlimited,
                spec.minimum,
                spec.maximum,
            )
        ):
            raise InvalidRequest(
                FieldError(
                    "price",
                    "say what is to be otherwise: price, overage, includedAmount, unlimited, minimumAmount or maximumAmount",
                )
            )
    return Change(plan, feature, spec, where)


def _named(kind: str, prefix: str, identity: str | None, code: str | None, where: str) -> Named | None:
    """By id or by code; an id that is none of ours may be a code, as elsewhere."""
    if identity is not None and code is not None:
        raise InvalidRequest(FieldError(f"{where}{kind}Code", f"send {kind}Id or {kind}Code, not both"))
    if identity is not None:
        found = ids.read(prefix, identity)
        return Named(found, None if found else identity, identity, f"{where}{kind}Id")
    return None if code is None else Named(None, code, code, f"{where}{kind}Code")


def _included(given: Any) -> Decimal | None:
    amount = None if given is None else decimal_of(given)
    if given is not None and amount is None:
        raise InvalidRequest(FieldError("includedAmount", "must be 0 or more, with at most 20 and 12 digits"))
    return amount


def _moment(name: str, given: str, zone: str) -> datetime:
    """An instant; a day alone is its first instant where the organization lives."""
    try:
        found = (
            first_instant(date.fromisoformat(given), zone) if _DAY.fullmatch(given) else parse_instant(given)
        )
    except (ValueError, OverflowError):
        found = None
    if found is None:
        raise InvalidRequest(FieldError(name, "must be an ISO 8601 date, or a date and time"))
    return found


def show(simulation: Simulation, *, live: bool) -> SimulationOut:
    """What is kept is in the shape of the wire already."""
    shown = {
        "id": ids.show(ids.SIMULATION, simulation.id),
        "start": show_instant(simulation.span.start),
        "end": show_instant(simulation.span.end),
        "asked": simulation.asked,
        **simulation.result,
        "chainPosition": simulation.position,
        "createdAt": show_instant(simulation.created_at),
        "livemode": live,
    }
    if simulation.customers is not None:
        shown["customers"] = simulation.customers
    return msgspec.convert(shown, SimulationOut)


async def create(call: Call[Simulate]) -> Reply:
    simulation = await simulate(
        call.conn,
        organization=call.organization,
        wish=wish_of(call.body, call.organization),
        now=call.now,
    )
    return Reply(show(simulation, live=call.live), 201)


async def get(call: Call[None]) -> Reply:
    simulation = await simulations.get(
        call.conn,
        organization_id=call.organization.id,
        simulation_id=call.identity(ids.SIMULATION, "id", "simulation_not_found"),
    )
    if simulation is None:
        raise Problem("simulation_not_found")
    return Reply(show(simulation, live=call.live))


async def list_all(call: Call[None]) -> Reply:
    limit, before = call.page(ids.SIMULATION)
    found = await simulations.page(
        call.conn, organization_id=call.organization.id, before=before, limit=limit + 1
    )
    return Reply(page_of([show(each, live=call.live) for each in found], limit, lambda each: str(each.id)))


OPERATIONS = (
    Operation(
        name="simulations.create",
        method="POST",
        path="/simulations",
        summary="Replay past usage under another price or plan: who would pay less, who more, and how much",
        resource="invoice",
        body=Simulate,
        returns=SimulationOut,
        handler=create,
        status=201,
        snapshot=True,
    ),
    Operation(
        name="simulations.list",
        method="GET",
        path="/simulations",
        summary="List simulations, newest first, without their customers",
        resource="invoice",
        returns=Page[SimulationOut],
        handler=list_all,
        query=("limit", "cursor"),
    ),
    Operation(
        name="simulations.get",
        method="GET",
        path="/simulations/{id}",
        summary="Get a simulation's report",
        resource="invoice",
        returns=SimulationOut,
        handler=get,
        errors=("simulation_not_found",),
    ),
)
