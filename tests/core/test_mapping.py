"""Columns become fields: by their names, by what somebody says, and by nothing else."""

from decimal import Decimal
from typing import Any

import pytest

from tallystick.core.mapping import BadMapping, Cells, ColumnMapping
from tallystick.errors import InvalidRequest
from tests.literals import D

TABLE = ["account", "metric", "qty", "at", "request_id", "region"]
MAPPED = ColumnMapping({"customerId": "account", "featureCode": "metric", "value": "qty", "timestamp": "at"})


def test_columns_that_are_called_like_fields_need_no_mapping() -> None:
    row = {"externalId": "ada", "eventType": "calls", "quantity": "5", "ts": "2026-01-15T10:00:00Z", "x": "y"}
    del_x = {**row, "quantity": 5}
    del del_x["x"]
    assert ColumnMapping().event_of(row, Cells.TEXT) == del_x


def test_what_is_said_goes_before_what_a_column_is_called() -> None:
    mapping = ColumnMapping({"customerId": "account"}, {"feature": "calls"}, {"customer": "customerId"})
    row = {"customerId": "of the reseller", "account": "ada", "featureCode": "other", "eventId": "k"}
    assert mapping.event_of(row, Cells.TEXT) == {
        "customerId": "ada",
        "feature": "calls",
        "eventId": "k",
        "properties": {"customer": "of the reseller"},
    }


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("5", 5),
        ("0.1", D("0.1")),
        ("1e3", D("1e3")),
        (".5", D("0.5")),
        ("-2", -2),
        ("12345678901234567890.123456789012", D("12345678901234567890.123456789012")),
        ("", None),
        ("1,5", "1,5"),  # what is no number stays text, and is refused for it
        (" 5", " 5"),
        ("1_000", "1_000"),
        ("NaN", "NaN"),
        ("٥", "٥"),
        ("1e9999", "1e9999"),
    ],
)
def test_a_cell_of_text_is_a_number_only_where_it_is_written_as_one(cell: str, value: object) -> None:
    found = ColumnMapping().event_of({"value": cell}, Cells.TEXT).get("value")
    assert found == value
    assert not isinstance(found, float)


def test_text_in_json_is_no_number() -> None:
    assert ColumnMapping().event_of({"value": "5"}, Cells.JSON) == {"value": "5"}


def test_a_customer_may_be_a_whole_number_where_columns_have_types() -> None:
    row = {"customerId": 42, "value": 42, "featureCode": True}
    assert ColumnMapping().event_of(row, Cells.TYPED) == {
        "customerId": "42",
        "value": 42,
        "featureCode": True,
    }


def test_every_other_column_is_a_property_where_that_is_asked_for() -> None:
    mapping = ColumnMapping({"customerId": "account"}, {}, {"zone": "region"}, all_properties=True)
    row = {
        "account": "ada",
        "region": "eu",
        "value": 1,
        "tries": Decimal("2.50"),
        "tags": ["a"],
        "no": None,
        "": "unnamed",
    }
    assert mapping.event_of(row, Cells.JSON) == {
        "customerId": "ada",
        "value": 1,
        "properties": {"zone": "eu", "tries": "2.5", "tags": '["a"]'},
    }


@pytest.mark.parametrize(
    ("own", "together"),
    [
        ({"a": "1"}, [{"property": "a", "value": "1"}, {"property": "region", "value": "eu"}]),
        (
            [{"property": "region", "value": "us"}],  # twice, which `decode` refuses
            [{"property": "region", "value": "us"}, {"property": "region", "value": "eu"}],
        ),
        (None, {"region": "eu"}),
        (7, 7),
    ],
)
def test_a_row_with_properties_of_its_own_keeps_them(own: object, together: object) -> None:
    mapping = ColumnMapping(properties={"region": "region"})
    row = {"properties": own, "region": "eu"}
    assert mapping.event_of(row, Cells.JSON)["properties"] == together


@pytest.mark.parametrize(
    ("cells", "zone", "sent", "read"),
    [
        (Cells.TEXT, None, "2026-01-15T10:00:00Z", "2026-01-15T10:00:00Z"),
        (Cells.TEXT, "Europe/Berlin", "2026-01-15 10:00:00", "2026-01-15T09:00:00+00:00"),
        (Cells.TEXT, "Europe/Berlin", "2026-01-15T10:00:00-05:00", "2026-01-15T10:00:00-05:00"),
        (Cells.TEXT, "Europe/Berlin", "2026-10-25 02:30:00", "2026-10-25T00:30:00+00:00"),  # the first of two
        (Cells.TEXT, "Europe/Berlin", "2026-03-29 02:30:00", "2026-03-29T01:30:00+00:00"),  # there is none
        (Cells.JSON, None, "2026-01-15T10:00:00", "2026-01-15T10:00:00"),  # UTC, as in a request
        (Cells.JSON, "Asia/Tokyo", "2026-01-15T10:00:00", "2026-01-15T01:00:00+00:00"),
        (
            Cells.TEXT,
            "Asia/Tokyo",
            "0001-01-01 00:00:00",
            "0001-01-01 00:00:00",
        ),  # before the calendar begins
        (Cells.TEXT, None, "yesterday", "yesterday"),
    ],
)
def test_a_time_without_an_offset_is_placed_where_clocks_showed_it(
    cells: Cells, zone: str | None, sent: str, read: str
) -> None:
    assert ColumnMapping(zone=zone).event_of({"ts": sent}, cells) == {"ts": read}


@pytest.mark.parametrize("cells", [Cells.TEXT, Cells.TYPED])
def test_a_time_without_an_offset_is_refused_where_nobody_says_the_zone(cells: Cells) -> None:
    with pytest.raises(InvalidRequest, match="say its zone with --timezone"):
        ColumnMapping().event_of({"ts": "2026-01-15 10:00:00"}, cells)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"fields": {"custmerId": "account"}}, "no field 'custmerId'; nearest: customerId"),
        ({"fields": {"value": "qty", "quantity": "qty"}}, "quantity is said twice, once as value"),
        ({"fields": {"value": "qty"}, "constants": {"value": "1"}}, "value is said twice"),
        ({"constants": {"value": "many"}}, "value is a number, not 'many'"),
    ],
)
def test_what_cannot_be_meant_is_told(said: Any, why: str) -> None:
    with pytest.raises(BadMapping, match=why):
        ColumnMapping(**said)


@pytest.mark.parametrize(
    ("mapping", "why"),
    [
        (ColumnMapping({"customerId": "acount"}), "no column 'acount'; nearest: account"),
        (ColumnMapping({"customerId": "account"}), "which feature it is.*the columns are 'account'"),
        (ColumnMapping(constants={"featureCode": "x"}), "who the customer is"),
        (ColumnMapping({**MAPPED.fields}, {}, {"r": "regions"}), "no column 'regions'; nearest: region"),
    ],
)
def test_a_table_that_lacks_a_column_is_told_before_anything_is_read(
    mapping: ColumnMapping, why: str
) -> None:
    with pytest.raises(BadMapping, match=why):
        mapping.check(TABLE)
    MAPPED.check(TABLE)
