"""The JSON of a price: read strictly, with every guilty field and its reason; written plainly; the same after both."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.limits import BASIS_POINTS_MAX, TIERS_MAX
from tallystick.core.price_shapes import decimal_of, from_json, model_of, parse, to_json
from tallystick.core.pricing import Flat, Graduated, Percentage, PerUnit, Price, Tier, Volume
from tallystick.errors import Broken, InvalidRequest
from tests.core.any_price import prices
from tests.core.offers import package, percentage, tiers
from tests.literals import D

CALLS: dict[str, Any] = {"model": "per_unit", "unitAmount": "0.01"}
MONTH: dict[str, Any] = {"model": "flat", "amount": "49"}
PACKS: dict[str, Any] = {"model": "package", "packageSize": "1000", "packageAmount": "25"}
CARDS: dict[str, Any] = {"model": "percentage", "basisPoints": "290"}


def climbing(*steps: object, **more: object) -> dict[str, Any]:
    return {"model": "graduated", "tiers": list(steps), **more}


def step(up_to: object, unit: object = "1", **more: object) -> dict[str, Any]:
    return {"upTo": up_to, "unitAmount": unit, **more}


OPEN = step(None)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (CALLS, PerUnit(D("0.01"))),
        ({**CALLS, "unitAmount": 2}, PerUnit(D(2))),  # a JSON number is a number, too
        ({**CALLS, "unitAmount": D("0.0007")}, PerUnit(D("0.0007"))),
        ({**CALLS, "unitAmount": "0"}, PerUnit(D(0))),
        ({**CALLS, "unitAmount": "1e-3"}, PerUnit(D("0.001"))),
        (MONTH, Flat(D(49))),
        (
            climbing(step("100"), step("500.5", "0.75", flatAmount="20"), step(None, "0.5")),
            Graduated(tiers("100: 1", "500.5: 0.75 + 20", "∞: 0.5")),
        ),
        (climbing(OPEN, chargeFlatAtZero=True), Graduated(tiers("∞: 1"), charge_flat_at_zero=True)),
        (climbing({"upTo": None, "flatAmount": "5"}), Graduated(tiers("∞: 0 + 5"))),
        ({**climbing(step("0.000000000001"), OPEN), "model": "volume"}, Volume(tiers("1e-12: 1", "∞: 1"))),
        (PACKS, package("1000", "25")),
        ({**PACKS, "freeUnits": "200"}, package("1000", "25", free="200")),
        ({**PACKS, "packageAmount": "0", "packageSize": "0.5"}, package("0.5", "0")),
        (CARDS, percentage("2.9")),
        (
            {
                **CARDS,
                "fixedAmount": "0.30",
                "minAmount": "0.50",
                "maxAmount": "10",
                "freeEvents": 3,
                "freeAmount": "100",
            },
            percentage("2.9", fixed="0.30", least="0.50", most="10", free_events=3, free_amount="100"),
        ),
        ({**CARDS, "minAmount": None, "maxAmount": None, "freeAmount": None}, percentage("2.9")),
        ({**CARDS, "minAmount": "1", "maxAmount": "1"}, percentage("2.9", least="1", most="1")),
        ({**CARDS, "basisPoints": str(BASIS_POINTS_MAX)}, percentage("100")),
        ({**CARDS, "basisPoints": "0.5"}, percentage("0.005")),
        ({**CARDS, "freeEvents": "3"}, percentage("2.9", free_events=3)),
        ({**CARDS, "freeEvents": "3.0"}, percentage("2.9", free_events=3)),
    ],
)
def test_a_price_as_somebody_asks_for_it(raw: Mapping[str, object], expected: Price) -> None:
    assert parse(raw) == expected


DECIMAL = "must be a decimal of 0 or more"
FORTY_DIGITS = "1234567890123456789012345678901234567890"


@pytest.mark.parametrize(
    ("raw", "blamed"),
    [
        # no object at all
        (None, {"price": "must be an object"}),
        ("per_unit", {"price": "must be an object"}),
        (5, {"price": "must be an object"}),
        (True, {"price": "must be an object"}),
        ([CALLS], {"price": "must be an object"}),
        # an unknown model, or none
        ({}, {"price.model": "must be one of per_unit, flat, graduated, volume, package, percentage"}),
        ({"unitAmount": "1"}, {"price.model": "must be one of"}),
        ({"model": "tiered"}, {"price.model": "must be one of"}),
        ({"model": "PER_UNIT", "unitAmount": "1"}, {"price.model": "must be one of"}),
        ({"model": None}, {"price.model": "must be one of"}),
        ({"model": ["per_unit"]}, {"price.model": "must be one of"}),
        ({"model": {"flat": 1}}, {"price.model": "must be one of"}),
        # fields that are missing, or unknown, or of another model
        ({"model": "per_unit"}, {"price.unitAmount": "is required"}),
        ({"model": "per_unit", "unitAmount": None}, {"price.unitAmount": "is required"}),
        ({"model": "flat"}, {"price.amount": "is required"}),
        (
            {"model": "package"},
            {"price.packageSize": "is required", "price.packageAmount": "is required"},
        ),
        ({"model": "percentage"}, {"price.basisPoints": "is required"}),
        ({**CALLS, "unit_amount": "1"}, {"price.unit_amount": "is not a field of this price"}),
        ({**CALLS, "flatAmount": "1"}, {"price.flatAmount": "it has model, unitAmount"}),
        ({**MONTH, "tiers": []}, {"price.tiers": "is not a field of this price"}),
        ({**PACKS, "": "1"}, {"price.": "is not a field of this price"}),
        # numbers that are none
        ({**CALLS, "unitAmount": "-0.01"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": -1}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "NaN"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": D("NaN")}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": D("sNaN")}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "Infinity"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": D("Infinity")}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": FORTY_DIGITS}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": int(FORTY_DIGITS)}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "0." + FORTY_DIGITS}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "1e999999999"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": " 0.01"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "0.01 "}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "0.01\n"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "0. 01"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": ""}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "1_000"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "1,5"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "$1"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": "１"}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": True}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": False}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": 0.5}, {"price.unitAmount": DECIMAL}),  # no float is ever a price
        ({**CALLS, "unitAmount": ["1"]}, {"price.unitAmount": DECIMAL}),
        ({**CALLS, "unitAmount": {"amount": "1"}}, {"price.unitAmount": DECIMAL}),
        ({**MONTH, "amount": "-49"}, {"price.amount": DECIMAL}),
        # packages
        ({**PACKS, "packageSize": "0"}, {"price.packageSize": "must be more than 0"}),
        ({**PACKS, "packageSize": 0}, {"price.packageSize": "must be more than 0"}),
        ({**PACKS, "packageSize": "-0"}, {"price.packageSize": "must be more than 0"}),
        ({**PACKS, "packageSize": "-1"}, {"price.packageSize": DECIMAL}),
        ({**PACKS, "freeUnits": "-1"}, {"price.freeUnits": DECIMAL}),
        ({**PACKS, "freeUnits": True}, {"price.freeUnits": DECIMAL}),
        # a percentage
        ({**CARDS, "basisPoints": "10000.01"}, {"price.basisPoints": "must be at most 10000 (100 %)"}),
        ({**CARDS, "basisPoints": "-1"}, {"price.basisPoints": DECIMAL}),
        ({**CARDS, "basisPoints": "2.9%"}, {"price.basisPoints": DECIMAL}),
        ({**CARDS, "minAmount": "10.01", "maxAmount": "10"}, {"price.minAmount": "is more than maxAmount"}),
        ({**CARDS, "minAmount": "5", "maxAmount": "ten"}, {"price.maxAmount": DECIMAL}),
        (
            {**CARDS, "minAmount": "-5", "maxAmount": "-10"},
            {"price.minAmount": DECIMAL, "price.maxAmount": DECIMAL},
        ),
        ({**CARDS, "freeEvents": "1.5"}, {"price.freeEvents": "must be a whole number"}),
        ({**CARDS, "freeEvents": D("0.1")}, {"price.freeEvents": "must be a whole number"}),
        ({**CARDS, "freeEvents": -1}, {"price.freeEvents": DECIMAL}),
        ({**CARDS, "freeEvents": True}, {"price.freeEvents": DECIMAL}),
        ({**CARDS, "freeAmount": " 5"}, {"price.freeAmount": DECIMAL}),
        ({**CARDS, "fixedAmount": "-0.30"}, {"price.fixedAmount": DECIMAL}),
        ({**CARDS, "percent": "2.9"}, {"price.percent": "is not a field of this price"}),
        # tiers as a whole
        ({"model": "graduated"}, {"price.tiers": "must be a list of 1 to 100 tiers"}),
        (climbing(), {"price.tiers": "must be a list of 1 to 100 tiers"}),
        ({"model": "volume", "tiers": None}, {"price.tiers": "must be a list"}),
        ({"model": "volume", "tiers": "100"}, {"price.tiers": "must be a list"}),
        ({"model": "volume", "tiers": {"upTo": None}}, {"price.tiers": "must be a list"}),
        (
            climbing(*[step(str(each)) for each in range(1, TIERS_MAX + 1)], OPEN),
            {"price.tiers": "must be a list of 1 to 100 tiers"},
        ),
        (climbing(OPEN, chargeFlatAtZero="true"), {"price.chargeFlatAtZero": "must be true or false"}),
        (climbing(OPEN, chargeFlatAtZero=1), {"price.chargeFlatAtZero": "must be true or false"}),
        # their order
        (climbing(step("100"), step("100"), OPEN), {"price.tiers[1].upTo": "must be more than 100"}),
        (climbing(step("100"), step("50"), OPEN), {"price.tiers[1].upTo": "must be more than 100"}),
        (climbing(step("100"), step("100.0"), OPEN), {"price.tiers[1].upTo": "must be more than 100"}),
        (climbing(step("0"), OPEN), {"price.tiers[0].upTo": "must be more than 0, where the tier begins"}),
        (climbing(step("100")), {"price.tiers[0].upTo": "the last tier must be open: null"}),
        (climbing(step("100"), step("500")), {"price.tiers[1].upTo": "the last tier must be open: null"}),
        (climbing(OPEN, step("100"), OPEN), {"price.tiers[0].upTo": "only the last tier is open"}),
        (climbing(OPEN, OPEN), {"price.tiers[0].upTo": "only the last tier is open"}),
        (
            climbing(OPEN, step("100")),
            {
                "price.tiers[0].upTo": "only the last tier is open",
                "price.tiers[1].upTo": "the last tier must be open: null",
            },
        ),
        # and each of them
        (climbing("100", OPEN), {"price.tiers[0]": "must be an object with upTo, unitAmount and flatAmount"}),
        (climbing(None), {"price.tiers[0]": "must be an object"}),
        (climbing({"unitAmount": "1"}), {"price.tiers[0].upTo": "is required; null for the last tier"}),
        (
            climbing({"upTo": None}),
            {"price.tiers[0].unitAmount": "a tier has a unitAmount, a flatAmount or both"},
        ),
        (climbing(step("-100"), OPEN), {"price.tiers[0].upTo": DECIMAL}),
        (climbing(step("many"), OPEN), {"price.tiers[0].upTo": DECIMAL}),
        (climbing(step("many")), {"price.tiers[0].upTo": DECIMAL}),
        (climbing(step("NaN"), OPEN), {"price.tiers[0].upTo": DECIMAL}),
        (climbing(step(True), OPEN), {"price.tiers[0].upTo": DECIMAL}),
        (climbing(step(" 100"), OPEN), {"price.tiers[0].upTo": DECIMAL}),
        (climbing(step(FORTY_DIGITS), OPEN), {"price.tiers[0].upTo": DECIMAL}),
        (climbing(step("100", "-1"), OPEN), {"price.tiers[0].unitAmount": DECIMAL}),
        (climbing(step("100", flatAmount="x"), OPEN), {"price.tiers[0].flatAmount": DECIMAL}),
        (climbing(step("100", False), OPEN), {"price.tiers[0].unitAmount": DECIMAL}),
        (climbing(step("100", limit="1"), OPEN), {"price.tiers[0].limit": "is not a field of this price"}),
        (
            climbing(step("100", flatFee="1"), OPEN),
            {"price.tiers[0].flatFee": "it has upTo, unitAmount, flatAmount"},
        ),
        # everything that is wrong is told at once
        (
            {"model": "package", "packageSize": "0", "packageAmount": "-1", "freeUnits": "x", "unit": "1"},
            {
                "price.unit": "is not a field",
                "price.packageSize": "must be more than 0",
                "price.packageAmount": DECIMAL,
                "price.freeUnits": DECIMAL,
            },
        ),
        (
            {**CARDS, "minAmount": "2", "maxAmount": "1", "freeEvents": "0.5", "basisPoints": "99999"},
            {
                "price.basisPoints": "must be at most",
                "price.minAmount": "is more than maxAmount",
                "price.freeEvents": "must be a whole number",
            },
        ),
        (
            climbing(step("100", "x"), step("50"), step("many", "1"), step("900", "1"), color="red"),
            {
                "price.color": "is not a field",
                "price.tiers[0].unitAmount": DECIMAL,
                "price.tiers[1].upTo": "must be more than 100",
                "price.tiers[2].upTo": DECIMAL,
                "price.tiers[3].upTo": "the last tier must be open: null",
            },
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_reason(raw: object, blamed: Mapping[str, str]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(raw)
    details: Any = raised.value.details
    assert sorted(each["field"] for each in details) == sorted(blamed)  # each once, and nobody else
    for each in details:
        assert blamed[each["field"]] in each["message"]
    assert raised.value.param == details[0]["field"]


def test_a_price_may_stand_anywhere_in_a_request() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse(climbing(step("x"), OPEN), where="features[3].price")
    assert raised.value.param == "features[3].price.tiers[0].upTo"


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ("0.0007", "0.0007"),
        ("0", "0"),
        (7, "7"),
        (D("2.50"), "2.5"),
        ("99999999999999999999.999999999999", "99999999999999999999.999999999999"),
        ("100000000000000000000", None),
        ("0.0000000000001", None),
        (None, None),
        (True, None),
        (0.5, None),
        (b"5", None),
        ("-0.0007", None),
        (D("-1"), None),
    ],
)
def test_which_values_are_decimals(given_value: object, expected: str | None) -> None:
    assert decimal_of(given_value) == (None if expected is None else D(expected))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text(max_size=5) | st.just("1"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "model",
                    "unitAmount",
                    "amount",
                    "tiers",
                    "upTo",
                    "flatAmount",
                    "packageSize",
                    "basisPoints",
                    "x",
                ]
            ),
            inner | st.sampled_from(["per_unit", "flat", "graduated", "volume", "package", "percentage"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["per_unit", "flat", "graduated", "volume", "package", "percentage", None]))
def test_no_request_is_worse_than_refused(raw: object, model: str | None) -> None:
    if isinstance(raw, dict) and model is not None:
        raw["model"] = model
    try:
        price = parse(raw)
    except InvalidRequest as refused:
        assert refused.details
    else:
        assert parse(to_json(price)) == price


@given(prices)
def test_a_price_is_written_and_read_and_is_the_same(price: Price) -> None:
    assert parse(to_json(price)) == price
    assert from_json(json.loads(json.dumps(to_json(price)))) == price
    assert to_json(from_json(to_json(price))) == to_json(price)


@pytest.mark.parametrize(
    ("price", "shown"),
    [
        (PerUnit(D("0.010")), {"model": "per_unit", "unitAmount": "0.01"}),
        (Flat(D("1e2")), {"model": "flat", "amount": "100"}),
        (
            Graduated((Tier(D("100.0"), D("0.50")), Tier(None, D(0), D("20.00")))),
            {
                "model": "graduated",
                "tiers": [
                    {"upTo": "100", "unitAmount": "0.5", "flatAmount": "0"},
                    {"upTo": None, "unitAmount": "0", "flatAmount": "20"},
                ],
                "chargeFlatAtZero": False,
            },
        ),
        (
            Volume((Tier(None, D(1)),), charge_flat_at_zero=True),
            {
                "model": "volume",
                "tiers": [{"upTo": None, "unitAmount": "1", "flatAmount": "0"}],
                "chargeFlatAtZero": True,
            },
        ),
        (
            package("1000", "25"),
            {"model": "package", "packageSize": "1000", "packageAmount": "25", "freeUnits": "0"},
        ),
        (
            Percentage(D("290.5"), max_amount=D("10")),
            {
                "model": "percentage",
                "basisPoints": "290.5",
                "fixedAmount": "0",
                "minAmount": None,
                "maxAmount": "10",
                "freeEvents": 0,
                "freeAmount": "0",
            },
        ),
    ],
)
def test_a_price_is_shown_whole_with_decimals_as_text(price: Price, shown: Mapping[str, object]) -> None:
    assert to_json(price) == shown
    assert model_of(price) == shown["model"]


@pytest.mark.parametrize(
    "stored",
    [None, {}, {"model": "volume"}, {"model": "per_unit"}, {"model": "per_unit", "unitAmount": 0.01}],
)
def test_a_stored_price_nobody_wrote_is_not_guessed(stored: object) -> None:
    with pytest.raises(Broken, match="a stored price can be read"):
        from_json(stored)
