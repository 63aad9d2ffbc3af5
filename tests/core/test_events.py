"""Events: every accepted spelling is one value, and whatever is wrong is named with its field."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.events import AiCall, UsageEvent, decode, marks, storable
from tallystick.core.tokens import TokenCounts
from tallystick.errors import InvalidRequest
from tests.literals import D, at

FULL = {
    "featureCode": "api_calls",
    "customerId": "ada",
    "eventId": "req_1",
    "timestamp": "2026-01-31T23:59:00Z",
    "value": D("0.5"),
    "properties": [{"property": "region", "value": "eu"}],
}
SPELLINGS = {
    "featureCode": ["featureCode", "feature", "eventType", "metricKey"],
    "customerId": ["customerId", "externalId"],
    "eventId": ["eventId", "idempotencyKey", "customerEventId"],
    "timestamp": ["timestamp", "ts"],
    "value": ["value", "quantity"],
}


def guilty(body: object) -> list[str]:
    """The fields a body is refused for."""
    with pytest.raises(InvalidRequest) as refusal:
        decode(body)
    assert refusal.value.code == "validation_error"
    details = refusal.value.details
    assert isinstance(details, list)
    assert all(each["message"] for each in details)
    return [each["field"] for each in details]


def test_a_full_event() -> None:
    assert decode(FULL) == UsageEvent(
        feature="api_calls",
        customer="ada",
        value=D("0.5"),
        key="req_1",
        occurred_at=at("2026-01-31T23:59Z"),
        properties={"region": "eu"},
    )


def test_the_least_an_event_says_is_who_and_what() -> None:
    event = decode({"featureCode": "api_calls", "customerId": "ada"})
    assert (event.value, event.key, event.occurred_at, event.properties) == (D(1), None, None, {})


@pytest.mark.parametrize(
    ("name", "spelling"), [(name, each) for name, spellings in SPELLINGS.items() for each in spellings]
)
def test_every_accepted_spelling_means_the_same(name: str, spelling: str) -> None:
    body = {(spelling if each == name else each): value for each, value in FULL.items()}
    assert decode(body).as_sent() == decode(FULL).as_sent()
    assert decode(body).customer == "ada"
    assert decode(body).key == "req_1"


@given(st.tuples(*(st.sampled_from(each) for each in SPELLINGS.values())))
def test_spellings_may_be_mixed(chosen: tuple[str, ...]) -> None:
    renamed = dict(zip(SPELLINGS, chosen, strict=True))
    body = {renamed.get(name, name): value for name, value in FULL.items()}
    assert decode(body).as_sent() == decode(FULL).as_sent()


def test_two_spellings_that_agree_are_one() -> None:
    assert decode({**FULL, "feature": "api_calls", "idempotencyKey": "req_1"}) == decode(FULL)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"feature": "other"}, "feature"),
        ({"idempotencyKey": "req_2"}, "idempotencyKey"),
        ({"ts": "2026-02-01T00:00:00Z"}, "ts"),
        ({"quantity": 2}, "quantity"),
    ],
)
def test_two_spellings_that_disagree_are_refused(more: Mapping[str, Any], field: str) -> None:
    assert guilty({**FULL, **more}) == [field]


def test_two_customers_are_kept_for_whoever_can_compare_them() -> None:
    event = decode({**FULL, "externalId": "bob"})
    assert (event.customer, event.also_customer) == ("ada", "bob")
    assert decode({**FULL, "externalId": "ada"}).also_customer is None


def test_properties_may_be_a_plain_object() -> None:
    assert decode({**FULL, "properties": {"region": "eu"}}) == decode(FULL)


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_no_properties_at_all(nothing: object) -> None:
    assert decode({**FULL, "properties": nothing}).properties == {}


def test_null_means_left_out() -> None:
    body = {"featureCode": "api_calls", "customerId": "ada"}
    spelled = [each for group in SPELLINGS.values() for each in group] + [
        "properties",
        "model",
        "inputTokens",
    ]
    assert decode({**dict.fromkeys(spelled), **body}) == decode(body)


@pytest.mark.parametrize("body", [None, 1, "event", [], [FULL], True, D(1)])
def test_an_event_is_an_object(body: object) -> None:
    assert guilty(body) == [""]


NO_TEXT: list[object] = ["", 5, True, [], {}, "a\0b", "\ud800", "\udfff"]
WRONG: dict[str, list[object]] = {
    "featureCode": [*NO_TEXT, "Api-Calls", "api calls", "ünits", "f" * 101, "a\n", " a"],
    "customerId": [*NO_TEXT, "c" * 201],
    "eventId": [*NO_TEXT, "k" * 201],
    "timestamp": [
        *NO_TEXT,
        "yesterday",
        "2026-01-31",
        1769900000,
        "2026-02-30T00:00Z",
        "0001-01-01T00:00+05:00",
    ],
    "value": ["1", "", True, False, [], {}, -1, D("-0.000000000001"), D("NaN"), D("sNaN"), D("Infinity")],
    "properties": ["text", 5, True],
}
WRONG["value"] += [10**40, 10**20, D("1E+20"), D("1E+999999999"), D("0.0000000000001"), D("1E-999999999")]


@pytest.mark.parametrize(
    ("field", "value"), [(name, each) for name, values in WRONG.items() for each in values]
)
def test_what_is_wrong_with_a_field_is_said_of_that_field(field: str, value: object) -> None:
    assert guilty({**FULL, field: value}) == [field]


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        (["region"], "properties[0]"),
        ([{"property": "region"}], "properties[0]"),
        ([{"value": "eu"}], "properties[0]"),
        ([{"property": "region", "value": 5}], "properties[0]"),
        ([{"property": "region", "value": True}], "properties[0]"),
        ([{"property": "region", "value": None}], "properties[0]"),
        ([{"property": "", "value": "eu"}], "properties[0]"),
        ([{"property": 5, "value": "eu"}], "properties[0]"),
        ([{"property": "p" * 101, "value": "eu"}], "properties[0]"),
        ([{"property": "region", "value": "v" * 1001}], "properties[0]"),
        ([{"property": "region", "value": "e\0u"}], "properties[0]"),
        ([{"property": "region", "value": "\ud800"}], "properties[0]"),
        ([{"property": "a", "value": "1"}, {"property": "a", "value": "1"}], "properties[1]"),
        ({"region": 5}, "properties.region"),
        ({"region": {"deep": "er"}}, "properties.region"),
        ([{"property": f"p{each}", "value": ""} for each in range(51)], "properties"),
    ],
)
def test_what_is_wrong_with_a_property_is_said_of_that_property(properties: object, field: str) -> None:
    assert guilty({**FULL, "properties": properties}) == [field]


def test_everything_wrong_is_said_at_once() -> None:
    body = {"featureCode": "Api-Calls", "eventId": "", "timestamp": "now", "value": -1, "properties": "none"}
    assert guilty(body) == ["featureCode", "customerId", "eventId", "timestamp", "value", "properties"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("featureCode", "f" * 100),
        ("customerId", "c" * 200),
        ("eventId", "k" * 200),
        ("eventId", "日本 🎈"),
        ("value", 0),
        ("value", D("-0")),
        ("value", 10**20 - 1),
        ("value", D("0.000000000001")),
        ("value", D("1.5000000000000000")),  # idle zeros
        ("properties", [{"property": "p" * 100, "value": "v" * 1000}]),
        ("properties", [{"property": f"p{each}", "value": ""} for each in range(50)]),
    ],
)  # fmt: skip
def test_the_last_that_is_still_accepted(field: str, value: object) -> None:
    decode({**FULL, field: value})


def test_zero_has_no_sign() -> None:
    assert str(decode({**FULL, "value": D("-0")}).value) == "0"


CALL = {name: value for name, value in FULL.items() if name != "value"} | {
    "model": "gpt-4o",
    "inputTokens": 1000,
    "outputTokens": 500,
}


def test_the_tokens_of_a_call_are_its_value_and_its_properties() -> None:
    event = decode({**CALL, "cacheReadTokens": 300})
    assert event.call == AiCall("gpt-4o", TokenCounts(1000, 500, 300, 0))
    assert event.value == 1500
    told = {"model": "gpt-4o", "inputTokens": "1000", "outputTokens": "500", "cacheReadTokens": "300"}
    assert event.properties == {**decode(FULL).properties, **told}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"value": 5}, "value"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"inputTokens": None}, "inputTokens"),
        ({"outputTokens": None}, "outputTokens"),
        ({"outputTokens": -1}, "outputTokens"),
        ({"outputTokens": D("1.5")}, "outputTokens"),
        ({"cacheReadTokens": 1001}, "cacheReadTokens"),
        ({"cacheReadTokens": 400, "cacheWriteTokens": 601}, "cacheWriteTokens"),
        ({"properties": {"model": "another"}}, "properties.model"),
        ({"properties": {"cacheReadTokens": "1"}}, "properties.cacheReadTokens"),
    ],
)
def test_a_call_that_makes_no_sense_is_told_what_is_wrong(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        decode({**CALL, **wrong})
    assert [each.field for each in refusal.value.errors] == [field]


def test_unknown_fields_are_left_alone() -> None:
    assert decode({**FULL, "color": "blue", "organizationId": "x"}) == decode(FULL)


def test_the_same_instant_in_another_zone_is_the_same_event() -> None:
    elsewhere = decode({**FULL, "timestamp": "2026-02-01T01:59:00+02:00"})
    assert elsewhere.as_sent() == decode(FULL).as_sent()


def test_a_default_is_left_out_of_what_was_sent_but_equals_itself() -> None:
    plain = {"featureCode": "api_calls", "customerId": "ada"}
    assert decode(plain).as_sent() == decode({**plain, "value": 1}).as_sent()
    assert decode(plain).as_sent() != decode({**plain, "timestamp": "2026-01-01T00:00:00Z"}).as_sent()


sent = st.fixed_dictionaries(
    {
        "customerId": st.just("ada"),
        "featureCode": st.sampled_from(["api_calls", "storage"]),
        "value": st.sampled_from([1, D("1.0"), D("1E+1"), 10, 0, D("0.000000000001")]),
        "eventId": st.sampled_from(["a", "b", "api_calls"]),
    },
    optional={
        "timestamp": st.sampled_from(
            ["2026-02-01T01:59:00+02:00", "2026-01-31T23:59:00Z", "2026-01-31T23:59"]
        ),
        "properties": st.dictionaries(st.sampled_from("ab"), st.sampled_from(["", "a", "b"])),
    },
)


@given(sent, sent)
def test_a_mark_is_of_the_key_and_of_what_was_sent(one: dict[str, object], other: dict[str, object]) -> None:
    a, b = decode(one), decode(other)
    assert (a.mark == b.mark) is ((a.key, a.as_sent()) == (b.key, b.as_sent()))
    assert 0 <= a.mark < 2**32


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.decimals(allow_nan=False),  # JSON has none; a body that spells one is refused as it is parsed
        st.text(st.characters(categories=None), max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
field_names = st.sampled_from(
    [each for group in SPELLINGS.values() for each in group] + ["properties", "model"]
)


@given(st.one_of(json_values, st.dictionaries(field_names, json_values)))
def test_whatever_is_sent_is_an_event_or_a_named_refusal(body: object) -> None:
    try:
        event = decode(body)
    except InvalidRequest as refusal:
        assert refusal.kind.status in (400, 422)
        return
    assert event.value >= 0
    assert event.value.is_finite()
    assert storable(event.customer)


@given(
    st.integers(0, 10**32 - 1),
    st.datetimes(timezones=st.just(UTC)),
)
def test_numbers_and_instants_arrive_exactly(digits: int, instant: datetime) -> None:
    value = Decimal(digits).scaleb(-12)
    event = decode({**FULL, "value": value, "timestamp": instant.isoformat()})
    assert (event.value, event.occurred_at) == (value, instant)


@given(st.text(st.characters(categories=None), max_size=20))
def test_what_is_storable_is_text_that_utf_8_can_write_without_nul(text: str) -> None:
    expected = "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)
    assert storable(text) is expected


ODD = st.sampled_from(
    [None, "", "ada", "api_calls", "Ada", "a" * 101, "a" * 600, "nul\0", "half \ud800", "ü", True, 0, 1, -1, 5, 999_999, 10**6,
     10**30, D("0.5"), D("NaN"), [], {}, {"region": "eu"}, [{"property": "a", "value": "b"}], [{"property": "a"}],
     "2026-01-31T23:59:00Z", "2026-01-31", "yesterday"]
)  # fmt: skip
TODAY = ("featureCode", "customerId", "eventId", "timestamp", "value", "properties")


@given(
    st.builds(
        lambda odd: {**FULL, "value": 5, **odd}, st.dictionaries(st.sampled_from(TODAY), ODD, max_size=2)
    )
    | st.dictionaries(st.sampled_from(TODAY), ODD)
)
def test_the_usual_spelling_is_read_as_any_other(raw: dict[str, Any]) -> None:
    """A field of another spelling that says nothing changes nothing, but is no longer usual."""
    assert _outcome(raw) == _outcome({**raw, "metricKey": None})


def _outcome(raw: object) -> UsageEvent | object:
    try:
        return decode(raw)
    except InvalidRequest as refusal:
        return refusal.details


@given(
    st.lists(
        st.builds(
            UsageEvent,
            feature=st.sampled_from(["api_calls", "seats"]),
            customer=st.just("ada"),
            value=st.sampled_from([D(1), D("1.50"), D("1E+3"), D(0)]),
            key=st.sampled_from(["req_1", "req_2"]),
            occurred_at=st.sampled_from([None, at("2026-01-31T23:59Z")]),
            properties=st.sampled_from([{}, {"region": "eu"}, {"region": "eu", "plan": "pro"}]),
        ),
        min_size=1,
    )
)
def test_the_marks_of_many_are_those_of_each(events: list[UsageEvent]) -> None:
    assert marks(events) == [each.mark for each in events]


def test_a_mark_stays_what_it_was() -> None:
    """It is in ids that are stored: the same words for ever, and no field runs into the next."""
    event = UsageEvent("api_calls", "ada", D("1.50"), "req_1", at("2026-01-31T23:59Z"), {"b": "2", "a": "1"})
    said = b"req_1\0api_calls\x001.5\x002026-01-31T23:59:00+00:00\0a\x001\0b\x002"
    assert event.mark == crc32(said)
