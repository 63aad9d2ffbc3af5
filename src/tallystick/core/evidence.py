"""Evidence: all that an invoice line was derived from, apart from the events, in a form that outlives the catalogue.

A basis names the meter, the terms of each stretch, the period's frozen instants and how far the chain was. With the
events that the chain had by then, it gives the line again, years later, whatever the catalogue says today.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

from tallystick.core import ids, price_shapes
from tallystick.core.adjustments import Charge, Rated
from tallystick.core.catalog import Stretch, Terms
from tallystick.core.meters import Aggregation, Filter, Meter, Operator
from tallystick.core.money import RATE_SCALE, text
from tallystick.core.pricing import Component, Components
from tallystick.core.times import Period, show_instant
from tallystick.errors import must


@dataclass(frozen=True)
class Basis:
    """What a feature's usage of one period is rated by."""

    meter: Meter
    stretches: tuple[Stretch, ...]
    index: int
    period: Period
    timezone: str
    position: int  # how far the chain was

    @cached_property
    def shown(self) -> Mapping[str, Any]:
        """What the evidence of each of its lines says alike; of many customers alike, when they share a basis."""
        return {
            "meter": {
                "id": ids.show(ids.METER, self.meter.id),
                "version": self.meter.version,
                "eventCode": self.meter.event_code,
                "aggregation": self.meter.aggregation.value,
                "aggregationProperty": self.meter.property_name,
                "filters": [
                    {"property": each.property_name, "operator": each.operator.value, "value": each.value}
                    for each in self.meter.filters
                ],
            },
            "period": _show_period(self),
            "instants": _instants(self.period),
            "terms": [_show_stretch(stretch) for stretch in self.stretches],
            "chainPosition": self.position,
        }


@dataclass(frozen=True, slots=True)
class PlanPeriod:
    """A usage period as a whole."""

    index: int
    period: Period
    timezone: str
    position: int


def of_plan_minimum(
    lived: PlanPeriod, *, minimum: Decimal, features_minor: int, before_minor: int
) -> dict[str, Any]:
    return {
        "part": "plan_minimum",
        "period": _show_period(lived),
        "instants": _instants(lived.period),
        "minimum": text(minimum),
        "featuresAmount": features_minor,
        "amountBefore": before_minor,
        "components": [],
        "chainPosition": lived.position,
    }


def of_overdraft(lived: PlanPeriod, *, overdrawn: Decimal) -> dict[str, Any]:
    """`overdrawn` in rate units: what the ledger moved to bring the balance back to zero."""
    exact = overdrawn / RATE_SCALE
    return {
        "part": "overdraft",
        "period": _show_period(lived),
        "instants": _instants(lived.period),
        "overdrawn": text(overdrawn),
        "components": _components((Component("beyond the balance", Decimal(1), exact),)),
        "exact": text(exact),
        "chainPosition": lived.position,
    }


def _show_period(lived: Basis | PlanPeriod) -> dict[str, Any]:
    return {
        "index": lived.index,
        "start": show_instant(lived.period.start),
        "end": show_instant(lived.period.end),
        "timezone": lived.timezone,
    }


def of_charge(basis: Basis, charge: Charge) -> dict[str, Any]:
    return {
        **_common(basis, charge.terms),
        "part": "usage",
        "span": _instants(charge.span),
        "included": None if charge.included is None else text(charge.included),
        "used": text(charge.used),
        "overage": text(charge.billable),
        "components": _components(charge.components),
        "exact": text(charge.exact),
    }


def of_minimum(basis: Basis, rated: Rated, true_up: Component) -> dict[str, Any]:
    return {
        **_common(basis, rated.charges[-1].terms),
        "part": "minimum",
        "components": _components((true_up,)),
        "exact": text(true_up.amount),
    }


def of_difference(
    basis: Basis,
    rated: Rated,
    *,
    now_minor: int,
    before_minor: int,
    components: Components,
    after: int,
    policy: str,
) -> dict[str, Any]:
    """A period rated again: what it says now, what its lines said, and between which positions the news came."""
    return {
        **_common(basis, rated.charges[-1].terms),
        "part": "difference",
        "policy": policy,
        "used": text(rated.used),
        "overage": text(rated.billable),
        "components": _components(components),
        "exact": text(rated.exact),
        "amountNow": now_minor,
        "amountBefore": before_minor,
        "afterPosition": after,
    }


def _common(basis: Basis, terms: Terms) -> dict[str, Any]:
    return {
        "price": {
            "id": ids.show(ids.PLAN_FEATURE, terms.id),
            "version": terms.version,
            **price_shapes.to_json(terms.price),
        },
        **basis.shown,
    }


def _instants(span: Period) -> list[str]:
    return [span.start.isoformat(), span.end.isoformat()]


def _components(components: Components) -> list[dict[str, str]]:
    return [component.to_json() for component in components]


def _show_stretch(stretch: Stretch) -> dict[str, Any]:
    span, terms = stretch
    return {
        "instants": _instants(span),
        "id": ids.show(ids.PLAN_FEATURE, terms.id),
        "version": terms.version,
        "included": text(terms.included),
        "unlimited": terms.unlimited,
        "overageEnabled": terms.overage_enabled,
        "minimum": None if terms.minimum is None else text(terms.minimum),
        "maximum": None if terms.maximum is None else text(terms.maximum),
        "price": price_shapes.to_json(terms.price),
    }


def frozen_span(kept: list[str]) -> Period:
    start, end = (datetime.fromisoformat(each) for each in kept)
    return Period(start, end)


def frozen_meter(evidence: Mapping[str, Any], feature_id: UUID) -> Meter:
    """The meter as the line froze it."""
    kept = evidence["meter"]
    return Meter(
        id=_identity(ids.METER, kept["id"]),
        feature_id=feature_id,
        feature_code="",
        version=kept["version"],
        event_code=kept["eventCode"],
        aggregation=Aggregation(kept["aggregation"]),
        property_name=kept["aggregationProperty"],
        filters=tuple(
            Filter(each["property"], Operator(each["operator"]), each["value"]) for each in kept["filters"]
        ),
    )


def frozen_basis(evidence: Mapping[str, Any], feature_id: UUID, plan_id: UUID) -> Basis:
    period = frozen_span(evidence["instants"])
    return Basis(
        meter=frozen_meter(evidence, feature_id),
        stretches=tuple(_read_stretch(each, feature_id, plan_id) for each in evidence["terms"]),
        index=evidence["period"]["index"],
        period=period,
        timezone=evidence["period"]["timezone"],
        position=evidence["chainPosition"],
    )


def _read_stretch(kept: Mapping[str, Any], feature_id: UUID, plan_id: UUID) -> Stretch:
    span = frozen_span(kept["instants"])
    return span, Terms(
        id=_identity(ids.PLAN_FEATURE, kept["id"]),
        plan_id=plan_id,
        feature_id=feature_id,
        version=kept["version"],
        enabled=True,
        included=Decimal(kept["included"]),
        unlimited=kept["unlimited"],
        overage_enabled=kept["overageEnabled"],
        price=price_shapes.from_json(kept["price"]),
        valid_from=span.start,
        minimum=None if kept["minimum"] is None else Decimal(kept["minimum"]),
        maximum=None if kept["maximum"] is None else Decimal(kept["maximum"]),
    )


def frozen_components(evidence: Mapping[str, Any]) -> Components:
    return tuple(
        Component(
            each["label"],
            Decimal(each["quantity"]),
            Decimal(each["unitAmount"]),
            Decimal(each.get("units", "0")),
        )
        for each in evidence["components"]
    )


def _identity(prefix: str, shown: str) -> UUID:
    identity = ids.read(prefix, shown)
    must(identity is not None, "evidence names what it was made of", id=shown)
    assert identity is not None
    return identity
