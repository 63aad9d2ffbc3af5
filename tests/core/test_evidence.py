"""Evidence outlives the catalogue: what a line froze, written and read back, rates the same."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from tallystick.core import evidence, ids
from tallystick.core.adjustments import Usage, rate_period
from tallystick.core.catalog import Stretch, Terms
from tallystick.core.evidence import frozen_basis, frozen_components, frozen_meter, frozen_span
from tallystick.core.meters import Aggregation, Filter, Meter, Operator
from tallystick.core.pricing import Graduated, PerUnit, minus
from tallystick.core.times import Period
from tallystick.errors import Broken
from tests.core.any_price import lives, promises
from tests.core.offers import CALLS, FEBRUARY, PLAN, basis, basis_of, rated, rated_in_turn, terms, tiers
from tests.literals import D, U, at

DOLLAR = PerUnit(D(1))


def kept(proof: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from where it is stored."""
    found: dict[str, Any] = json.loads(json.dumps(proof))
    return found


def essence(stretches: tuple[Stretch, ...]) -> list[tuple[object, ...]]:
    """All of the terms that money depends on, and which version they were."""
    return [
        (
            span,
            each.id,
            each.version,
            each.included,
            each.unlimited,
            each.overage_enabled,
            each.price,
            each.minimum,
            each.maximum,
        )
        for span, each in stretches
    ]


@given(lives(promises(), promises(), promises()))
def test_a_basis_that_was_written_and_read_rates_the_same(turns: list[tuple[Terms, Usage]]) -> None:
    found = rated_in_turn(turns)
    for charge in found.charges:
        again = frozen_basis(kept(evidence.of_charge(basis_of(found), charge)), CALLS, PLAN)
        assert essence(again.stretches) == essence(basis_of(found).stretches)
        rows = [(span, each, used) for (span, each), (_, used) in zip(again.stretches, turns, strict=True)]
        once_more = rate_period(rows)
        assert once_more.exact == found.exact
        assert once_more.components == found.components
        assert [each.billable for each in once_more.charges] == [each.billable for each in found.charges]


@given(lives(promises(), promises()))
def test_every_part_of_a_charge_is_read_back(turns: list[tuple[Terms, Usage]]) -> None:
    found = rated_in_turn(turns)
    for charge in found.charges:
        proof = kept(evidence.of_charge(basis_of(found), charge))
        assert frozen_components(proof) == charge.components
        assert frozen_span(proof["span"]) == charge.span
        assert D(proof["exact"]) == charge.exact
        assert (D(proof["used"]), D(proof["overage"])) == (charge.used, charge.billable)


@pytest.mark.parametrize(
    "span",
    [
        FEBRUARY,
        Period(at("2026-01-15T10:00:00.000001Z"), at("2026-02-15T23:59:59.999999Z")),
        Period(at("2026-03-28T23:00Z"), at("2026-10-24T22:00Z")),  # midnights of Berlin
    ],
)
def test_instants_are_frozen_to_the_microsecond(span: Period) -> None:
    held = replace(basis((span, terms(price=DOLLAR))), period=span, timezone="Europe/Berlin", index=9)
    found = rate_period([(span, terms(price=DOLLAR), Usage(D(1)))])
    again = frozen_basis(kept(evidence.of_charge(held, found.charges[0])), CALLS, PLAN)
    assert (again.period, again.timezone, again.index) == (span, "Europe/Berlin", 9)
    assert again.position == held.position


@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_the_meter_is_frozen_with_every_filter(aggregation: Aggregation) -> None:
    measured = Meter(
        U(77),
        CALLS,
        "api_calls",
        3,
        "requests",
        aggregation,
        "user_id",
        tuple(Filter("region", operator, f"eu-{operator}") for operator in Operator),
    )
    held = replace(basis((FEBRUARY, terms(price=DOLLAR))), meter=measured)
    proof = kept(evidence.of_charge(held, rated(terms(price=DOLLAR), "1").charges[0]))
    assert frozen_meter(proof, CALLS) == replace(measured, feature_code="")
    assert frozen_basis(proof, CALLS, PLAN).meter == replace(measured, feature_code="")


COMMON = {
    "price": {
        "id": ids.show(ids.PLAN_FEATURE, U(1004)),
        "version": 4,
        "model": "graduated",
        "tiers": [
            {"upTo": "5", "unitAmount": "1", "flatAmount": "0"},
            {"upTo": None, "unitAmount": "0.5", "flatAmount": "2"},
        ],
        "chargeFlatAtZero": False,
    },
    "meter": {
        "id": ids.show(ids.METER, U(2001)),
        "version": 1,
        "eventCode": "api_calls",
        "aggregation": "sum",
        "aggregationProperty": None,
        "filters": [],
    },
    "period": {
        "index": 1,
        "start": "2026-02-01T00:00:00.000Z",
        "end": "2026-03-01T00:00:00.000Z",
        "timezone": "UTC",
    },
    "instants": ["2026-02-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00"],
    "terms": [
        {
            "instants": ["2026-02-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00"],
            "id": ids.show(ids.PLAN_FEATURE, U(1004)),
            "version": 4,
            "included": "10",
            "unlimited": False,
            "overageEnabled": True,
            "minimum": "20",
            "maximum": None,
            "price": {
                "model": "graduated",
                "tiers": [
                    {"upTo": "5", "unitAmount": "1", "flatAmount": "0"},
                    {"upTo": None, "unitAmount": "0.5", "flatAmount": "2"},
                ],
                "chargeFlatAtZero": False,
            },
        }
    ],
    "chainPosition": 7,
}
PROMISED = terms("10", price=Graduated(tiers("5: 1", "∞: 0.5 + 2")), minimum="20", version=4)


def part(label: str, quantity: str, unit: str, amount: str, inside: str) -> dict[str, str]:
    return {"label": label, "quantity": quantity, "unitAmount": unit, "amount": amount, "units": inside}


def test_what_a_charge_freezes() -> None:
    found = rated(PROMISED, "17.5")
    assert kept(evidence.of_charge(basis_of(found), found.charges[0])) == {
        **COMMON,
        "part": "usage",
        "span": ["2026-02-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00"],
        "included": "10",
        "used": "17.5",
        "overage": "7.5",
        "components": [
            part("included", "10", "0", "0", "10"),
            part("tier 1: up to 5", "5", "1", "5", "5"),
            part("tier 2: above 5", "2.5", "0.5", "1.25", "2.5"),
            part("tier 2: above 5, flat amount", "1", "2", "2", "0"),
        ],
        "exact": "8.25",
    }


def test_what_a_minimum_freezes() -> None:
    found = rated(PROMISED, "17.5")
    assert found.true_up is not None
    assert kept(evidence.of_minimum(basis_of(found), found, found.true_up)) == {
        **COMMON,
        "part": "minimum",
        "components": [part("up to the minimum", "1", "11.75", "11.75", "0")],
        "exact": "11.75",
    }


def test_what_a_difference_freezes() -> None:
    before, found = rated(PROMISED, "17.5"), rated(PROMISED, "18.5")
    proof = evidence.of_difference(
        basis_of(found),
        found,
        now_minor=2000,
        before_minor=2000,
        components=minus(found.components, before.components),
        after=5,
        policy="next_period",
    )
    assert kept(proof) == {
        **COMMON,
        "part": "difference",
        "policy": "next_period",
        "used": "18.5",
        "overage": "8.5",
        "components": [
            part("tier 2: above 5", "1", "0.5", "0.5", "1"),
            part("up to the minimum", "1", "11.25", "11.25", "0"),
            part("up to the minimum", "-1", "11.75", "-11.75", "0"),
        ],
        "exact": "20",
        "amountNow": 2000,
        "amountBefore": 2000,
        "afterPosition": 5,
    }


@pytest.mark.parametrize("promised", [terms(unlimited=True, price=DOLLAR), terms("3"), terms(price=DOLLAR)])
def test_what_is_not_limited_not_charged_or_not_included_is_read_back_so(promised: Terms) -> None:
    found = rated(promised, "5")
    ((_, again),) = frozen_basis(
        kept(evidence.of_charge(basis_of(found), found.charges[0])), CALLS, PLAN
    ).stretches
    assert (again.unlimited, again.overage_enabled, again.included) == (
        promised.unlimited,
        promised.overage_enabled,
        promised.included,
    )
    assert kept(evidence.of_charge(basis_of(found), found.charges[0]))["included"] == (
        None if promised.unlimited else str(promised.included)
    )


def test_parts_that_were_kept_before_they_told_their_units_are_read() -> None:
    old = {"components": [{"label": "usage", "quantity": "3", "unitAmount": "0.5", "amount": "1.5"}]}
    (only,) = frozen_components(old)
    assert (only.amount, only.units) == (D("1.5"), D(0))


@pytest.mark.parametrize("place", [("meter", "id"), ("terms", 0, "id")])
@pytest.mark.parametrize("wrong", ["", "mtr_", "pln_01h455vb4pex5vsknk084sn02q", "1001"])
def test_evidence_that_names_nothing_is_broken(place: tuple[Any, ...], wrong: str) -> None:
    proof: Any = kept(evidence.of_charge(basis_of(rated(PROMISED, "1")), rated(PROMISED, "1").charges[0]))
    inner = proof
    for each in place[:-1]:
        inner = inner[each]
    inner[place[-1]] = wrong
    with pytest.raises(Broken, match="evidence names what it was made of"):
        frozen_basis(proof, CALLS, PLAN)
