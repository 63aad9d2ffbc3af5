"""A meter in SQL and in Python measure the same, whatever the properties of an event say."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.literals import D, U, at

from tallystick.core.events import StoredEvent
from tallystick.core.meters import (
    ASCII_BLANKS,
    BLANKS,
    Aggregation,
    Filter,
    Measured,
    Meter,
    Operator,
    number,
)
from tallystick.flows.measure_usage import contribution
from tallystick.store.meter_sql import contributions

NUMBERS = [
    *("5", "-0.5", "+5", "007", ".5", "5.", "5.e3", "-.0e5", "1e3", "1E+19", "1E+20", "-1E+20", "123e-12", "123e-13"),
    *("1230e-13", "0e9999", "0e10000", "0E+999999999999999999999", "1e00000000005", "1e-00000000005", "1e10000"),
    *("99999999999999999999.999999999999", "99999999999999999999.9999999999990", "100000000000000000000"),
    *("0.000000000001", "0.0000000000001", "0." + "0" * 990 + "1e991", "1" + "0" * 990 + "e-990", "1" * 1000),
    *("", " ", "\t5\n", "\x1c5\x1f", "\x0b-5\x0c", "\xa05", "5\x85", "5\u2003", "--5", "5-", "1 2", "1,5", "1_000"),
    *("0x10", "0b1", "0o7", "NaN", "sNaN", "nan12", "Infinity", "-inf", "٣", "５", "²", "½", "e5", ".", "+", ".e3", "1e", "1e+"),
    *("5 ", "'", "\\", "%s", "%(x)s", "{}", "$1", "5;", "é", "e\u0301", "\u1680", "\u3000", "\u200b", "\ufeff"),
]  # fmt: skip
texts = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(["eu", "us", "EU", " eu", "eu-west-1", "u"]),
    st.text("0123456789.eE+-_ \t\n\x1c\x1f\x85\xa0\u2003", max_size=24),
    st.decimals(allow_nan=False, allow_infinity=False, places=13).map(str),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)
names = st.sampled_from(["a", "b", 'a "name" with %s', "ä"])
filters = st.builds(Filter, names, st.sampled_from(Operator), texts)
meters = st.builds(
    lambda aggregation, name, conditions: Meter(
        id=U(1),
        feature_id=U(100),
        feature_code="api_calls",
        version=1,
        event_code="api_calls",
        aggregation=aggregation,
        property_name=None if aggregation is Aggregation.COUNT else name,
        filters=tuple(conditions),
    ),
    st.sampled_from([Aggregation.SUM, Aggregation.COUNT, Aggregation.MAX, Aggregation.LATEST]),
    st.one_of(st.none(), names),
    st.lists(filters, max_size=3),
)
distinct_meters = st.builds(
    lambda meter, name: Meter(
        **{field: getattr(meter, field) for field in ("id", "feature_id", "feature_code", "version", "event_code")},
        aggregation=Aggregation.UNIQUE,
        property_name=name,
        filters=meter.filters,
    ),
    meters,
    names,
)  # fmt: skip
properties = st.dictionaries(names, texts, max_size=3)
quantities = st.integers(0, 10**32 - 1).map(lambda digits: Decimal(digits).scaleb(-12))


@dataclass(frozen=True)
class Said:
    """An event, as far as a meter looks at it."""

    value: Decimal
    properties: Mapping[str, str]
    feature: str = "api_calls"
    adjusts: int | None = None
    voids: int | None = None
    voided: int | None = None

    def stored(self) -> StoredEvent:
        return StoredEvent(
            U(1), U(2), self.feature, self.value, at("2026-01-01"), at("2026-01-01"),
            properties=self.properties, adjusts=None if self.adjusts is None else U(self.adjusts),
        )  # fmt: skip


events = st.one_of(
    st.builds(Said, quantities, properties),
    st.builds(Said, quantities, properties, st.sampled_from(["api_calls", "other"])),
    st.builds(Said, quantities.map(lambda each: -each), st.just({}), adjusts=st.sampled_from([100, 101])),
    st.builds(Said, quantities, properties, voids=st.one_of(st.none(), st.just(7)), voided=st.just(8)),
    st.builds(Said, quantities, properties, voids=st.just(7)),
)


@pytest.fixture(scope="module")
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def by_sql(conn: psycopg.Connection[Any], meter: Meter, said: list[Said]) -> list[Measured | None]:
    counts = contributions(meter)
    query = f"""
        SELECT e.place, {counts.quantity}, {counts.value_hash if counts.value else "NULL::bytea"}
          FROM unnest(%(values)s::numeric[], %(texts)s::text[], %(codes)s::text[], %(adjusts)s::uuid[],
                      %(voids)s::uuid[], %(voided)s::bigint[])
               WITH ORDINALITY AS r (value, properties_text, feature_code, adjusts, voids, voided, place)
         CROSS JOIN LATERAL (SELECT r.*, r.properties_text::jsonb AS properties) e
         WHERE {counts.matches}"""
    params = {
        "values": [each.value for each in said],
        "texts": [
            msgspec.json.encode(each.properties).decode() if each.properties else None for each in said
        ],
        "codes": [each.feature for each in said],
        "adjusts": [None if each.adjusts is None else U(each.adjusts) for each in said],
        "voids": [None if each.voids is None else U(each.voids) for each in said],
        "voided": [each.voided for each in said],
    }
    found: list[Measured | None] = [None] * len(said)
    for place, quantity, distinct in conn.execute(query.encode(), params | counts.params):
        found[place - 1] = Measured(quantity, distinct)
    return found


def by_python(meter: Meter, said: list[Said]) -> list[Measured | None]:
    measured = [
        contribution(meter, each.stored())
        if each.feature == meter.event_code and each.voids is None and each.voided is None
        else None
        for each in said
    ]
    # What SQL calls the quantity of a distinct value is nothing; its hash is what counts. When it was, the row says.
    return [each and Measured(D(0) if each.distinct else each.quantity, each.distinct) for each in measured]


steady = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@steady
@given(meters, st.lists(events, min_size=1, max_size=12))
def test_sql_measures_as_python_does(conn: psycopg.Connection[Any], meter: Meter, said: list[Said]) -> None:
    assert by_sql(conn, meter, said) == by_python(meter, said)


@steady
@given(distinct_meters, st.lists(events, min_size=1, max_size=12))
def test_sql_tells_values_apart_as_python_does(
    conn: psycopg.Connection[Any], meter: Meter, said: list[Said]
) -> None:
    assert by_sql(conn, meter, said) == by_python(meter, said)


def summing(name: str, *conditions: Filter) -> Meter:
    return Meter(
        U(1), U(100), "api_calls", 1, "api_calls", Aggregation.SUM, property_name=name, filters=conditions
    )


def test_sql_reads_the_numbers_that_python_reads(conn: psycopg.Connection[Any]) -> None:
    said = [Said(D(1), {"a": each}) for each in NUMBERS]
    found = by_sql(conn, summing("a"), said)
    assert [each and each.quantity for each in found] == [number(each) for each in NUMBERS]


@pytest.mark.parametrize("operator", list(Operator))
def test_sql_compares_as_python_does(conn: psycopg.Connection[Any], operator: Operator) -> None:
    """Every text against every other."""
    said = [Said(D(1), {"a": each}) for each in NUMBERS] + [Said(D(1), {})]
    counting = Meter(U(1), U(100), "api_calls", 1, "api_calls", Aggregation.COUNT)
    for right in NUMBERS:
        meter = Meter(
            counting.id, counting.feature_id, "api_calls", 1, "api_calls", Aggregation.COUNT,
            filters=(Filter("a", operator, right),),
        )  # fmt: skip
        assert by_sql(conn, meter, said) == by_python(meter, said), right


def test_what_is_blank_is_what_python_calls_space() -> None:
    assert set(BLANKS) == {chr(each) for each in range(sys.maxunicode + 1) if chr(each).isspace()}
    assert set(ASCII_BLANKS) == {each for each in BLANKS if each.isascii()}
