"""CloudEvents: one is one usage event, exactly; whatever is wrong is named as CloudEvents names it."""

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.api import wire
from tallystick.core import limits
from tallystick.core.cloud_events import in_its_words, key_of, read
from tallystick.core.events import UsageEvent
from tallystick.core.meters import number
from tallystick.errors import FieldError, InvalidRequest, Problem
from tests.literals import D, at

LEAST: dict[str, Any] = {
    "specversion": "1.0",
    "id": "00001",
    "source": "service-0",
    "type": "request",
    "subject": "customer-1",
}
LONG = "x" * limits.PROPERTY_VALUE_CHARS_MAX


def sent(data: str) -> UsageEvent:
    """An event whose data came in these very characters."""
    return read(LEAST | {"data": wire.parse(data.encode())})


def guilty(**wrong: object) -> list[str]:
    """The attributes an event is refused for. None takes one away."""
    with pytest.raises(InvalidRequest) as refusal:
        read({name: each for name, each in (LEAST | wrong).items() if each is not None})
    assert all(message for _, message in refusal.value.errors)
    return [field for field, _ in refusal.value.errors]


def test_the_example_of_openmeter() -> None:
    event = read(
        LEAST
        | {
            "time": "2024-01-01T00:00:00.001Z",
            "data": {"duration_seconds": "12", "method": "GET", "route": "/hello"},
        }
    )
    assert event == UsageEvent(
        feature="request",
        customer="customer-1",
        value=D(1),
        key="9:service-0:00001",
        occurred_at=at("2024-01-01T00:00:00.001Z"),
        properties={"duration_seconds": "12", "method": "GET", "route": "/hello"},
        key_field="id",
    )


@pytest.mark.parametrize("more", [{}, {"data": None, "time": None}, {"data": {}, "datacontenttype": "application/json", "comexample": 7}])  # fmt: skip
def test_the_least_an_event_says(more: dict[str, Any]) -> None:
    event = read(LEAST | more)
    assert (event.value, event.occurred_at, event.properties) == (D(1), None, {})


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ('"0.10"', "0.10"),  # text is text
        ('""', ""),
        ("0.1", "0.1"),
        ("0.10", "0.1"),
        ("1.0", "1"),
        ("100", "100"),
        ("1e2", "100"),
        ("1e20", "100000000000000000000"),
        ("1e-7", "0.0000001"),
        ("-2.50", "-2.5"),
        ("-0.0", "0"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("9007199254740993", "9007199254740993"),  # no double holds it
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "true"),
        ("false", "false"),
        ('{"b": [1, 0.10, null, true], "a": "é\\""}', '{"a":"é\\"","b":[1,0.10,null,true]}'),
        ("[]", "[]"),
        ("[1e400]", "[1E+400]"),
    ],
)
def test_a_member_of_the_data_is_a_property_to_the_last_digit(written: str, kept: str) -> None:
    assert sent(f'{{"x": {written}}}').properties == {"x": kept}


def test_null_is_absent() -> None:
    assert sent('{"x": null, "value": null}').properties == {}


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ('{"value": 12}', "12"),
        ('{"value": 0.1}', "0.1"),
        ('{"value": 0}', "0"),
        ('{"value": 12345678901234567890.123456789012}', "12345678901234567890.123456789012"),
        ('{"value": "12"}', "1"),  # text is no number
        ('{"value": true}', "1"),
        ('{"value": [12]}', "1"),
        ('{"tokens": 12}', "1"),
    ],
)
def test_a_number_in_data_value_is_the_value(data: str, value: str) -> None:
    event = sent(data)
    assert event.value == D(value)
    assert len(event.properties) == 1, "and a property like any other"


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"specversion": None}, ["specversion"]),
        ({"specversion": "0.3"}, ["specversion"]),
        ({"specversion": D("1.0")}, ["specversion"]),
        ({"id": None}, ["id"]),
        ({"id": ""}, ["id"]),
        ({"id": 7}, ["id"]),
        ({"id": "a\0b"}, ["id"]),
        ({"source": None, "id": "\ud800"}, ["source", "id"]),
        ({"type": None}, ["type"]),
        ({"type": "com.example.request"}, ["type"]),
        ({"type": "x" * 101}, ["type"]),
        ({"subject": None}, ["subject"]),
        ({"subject": ""}, ["subject"]),
        ({"subject": 7}, ["subject"]),
        ({"subject": "x" * 201}, ["subject"]),
        ({"time": "yesterday"}, ["time"]),
        ({"time": 1704067200}, ["time"]),
        ({"data": "text"}, ["data"]),
        ({"data": [1]}, ["data"]),
        ({"data_base64": "AAAA"}, ["data_base64"]),
        ({"data": {f"p{each}": 1 for each in range(51)}}, ["data"]),
        ({"data": {"": 1}}, ["data."]),
        ({"data": {"x" * 101: 1}}, [f"data.{'x' * 101}"]),
        ({"data": {"a": LONG + "x"}}, ["data.a"]),
        ({"data": {"a": [LONG]}}, ["data.a"]),
        ({"data": {"a": "\0"}}, ["data.a"]),
        ({"data": {"a": D("1e1001")}}, ["data.a"]),
        ({"data": {"a": D("9E+999999")}}, ["data.a"]),
        ({"data": {"a": [D("9E+999999")]}}, ["data.a"]),
        ({"data": {"value": -1}}, ["data.value"]),
        ({"data": {"value": D("0.30000000000000004")}}, ["data.value"]),
        ({"data": {"value": 10**20}}, ["data.value"]),
        ({"type": "A", "subject": None, "id": None, "data": {"value": -1}}, ["id", "type", "subject", "data.value"]),
    ],
)  # fmt: skip
def test_every_wrong_attribute_is_named(wrong: dict[str, Any], fields: list[str]) -> None:
    assert guilty(**wrong) == fields


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_what_is_nested_too_deeply_is_refused_and_breaks_nothing() -> None:
    most = limits.PROPERTY_LEVELS_MAX
    assert read(LEAST | {"data": {"a": nested(most)}}).properties == {"a": "[" * most + "1" + "]" * most}
    assert guilty(data={"a": nested(most + 1)}) == ["data.a"]
    assert guilty(data={"a": nested(900)}) == ["data.a"]


@pytest.mark.parametrize("raw", [None, [], "x", 1, [LEAST]])
def test_an_event_is_an_object(raw: object) -> None:
    with pytest.raises(InvalidRequest, match="an event is a JSON object"):
        read(raw)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b/c"), ("a/b", "c")),
        (("a", "b:c"), ("a:b", "c")),
        (("1:a", "b"), ("1", "a:b")),
        (("1", "1:a"), ("1:1", "a")),
        (("a" * 300, "b"), ("a" * 299, "ab")),
        (("a", "b" * 300), ("a", "b" * 301)),
    ],
)
def test_two_events_never_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert key_of(*one) != key_of(*other)
    assert key_of(*one) == key_of(*one)


def test_a_key_is_written_the_same_for_ever() -> None:
    """Else an event that is sent again after an upgrade would count twice."""
    assert key_of("service-0", "00001") == "9:service-0:00001"
    assert key_of("s" * 100, "i" * 95) == f"100:{'s' * 100}:{'i' * 95}"
    digest = sha256(f"100:{'s' * 100}:{'i' * 96}".encode()).hexdigest()
    assert key_of("s" * 100, "i" * 96) == f"sha256:{digest}"


@given(a=st.text("a:1", min_size=1), b=st.text("a:1", min_size=1), c=st.text("a:1", min_size=1))
def test_where_the_source_ends_makes_a_difference(a: str, b: str, c: str) -> None:
    assert key_of(a + b, c) != key_of(a, b + c)


@given(source=st.text(min_size=1, max_size=400), identity=st.text(min_size=1, max_size=400))
def test_a_key_fits_however_long_its_parts(source: str, identity: str) -> None:
    assert 0 < len(key_of(source, identity)) <= limits.EVENT_KEY_CHARS_MAX


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**15), max_value=10**15))
def test_a_meter_reads_the_very_number_that_was_sent(sent_number: Any) -> None:
    (kept,) = sent(f'{{"x": {sent_number}}}').properties.values()
    assert number(kept) == sent_number


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_nested_reads_back_as_it_was(value: Any) -> None:
    assert json.loads(read(LEAST | {"data": {"x": [value]}}).properties["x"]) == [value]


def test_a_refusal_speaks_of_attributes() -> None:
    told = in_its_words(Problem("customer_not_found", "No.", param="customerId", retry_after_s=1))
    assert (told.code, told.message, told.param, told.retry_after_s) == (
        "customer_not_found",
        "No.",
        "subject",
        1,
    )
    assert in_its_words(Problem("internal_error")).param is None
    late = in_its_words(InvalidRequest(FieldError("timestamp", "lies in the future"), FieldError("id", "x")))
    assert isinstance(late, InvalidRequest)
    assert [field for field, _ in late.errors] == ["time", "id"]
