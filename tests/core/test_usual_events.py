"""Events that are read at once, alone or in batches: taken as `decode` would take each of them, or not at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.api import usual_events, wire
from tallystick.core import limits
from tallystick.core.events import UsageEvent, decode
from tallystick.errors import Problem

USUAL = '"featureCode": "api_calls", "customerId": "ada"'


def body(*events: str) -> bytes:
    return f'{{"events": [{", ".join(f"{{{each}}}" for each in events)}]}}'.encode()


def one_by_one(given: bytes) -> list[UsageEvent] | None:
    """None when one of them, or all of it, is refused."""
    try:
        return [decode(each) for each in wire.parse(given)["events"]]
    except (Problem, TypeError, KeyError):
        return None


def taken(given: bytes) -> bool:
    """Whether it is read at once; then it must be read as each of its events is by itself."""
    found = usual_events.read(given)
    assert found is None or [*found] == one_by_one(given)
    return found is not None


def taken_alone(event: str) -> bool:
    """The same of one event."""
    found = usual_events.read_one(f"{{{event}}}".encode())
    assert found is None or [found] == one_by_one(body(event))
    return found is not None


@pytest.mark.parametrize(
    "more",
    [
        "",
        '"value": 0',
        '"value": -0',
        '"value": 999999, "eventId": null, "timestamp": null, "properties": null',
        '"value": 1, "value": 2',  # the last one counts
        '"eventId": "Ünï \\ud83d\\ude00 \\u0007"',
        f'"eventId": "{"😀" * limits.EVENT_KEY_CHARS_MAX}"',
        '"timestamp": "2026-03-01T10:00:00+02:00"',
        '"properties": [{"property": "region", "value": "eu"}]',
        '"properties": {"region": "", "plan": "\\"pro\\""}',
        '"properties": []',
        '"properties": false',
    ],
)
def test_the_spelling_of_today_is_read_at_once(more: str) -> None:
    said = ", ".join(filter(None, (USUAL, more)))
    assert taken(body(USUAL, said)) and taken_alone(said)


@pytest.mark.parametrize(
    "more",
    [
        '"value": 1.0',
        '"value": 1e2',
        '"value": true',
        '"value": null',
        '"value": "1"',
        '"value": -1',
        '"value": 1000000',
        f'"value": {10**30}',
        '"eventId": ""',
        '"eventId": 7',
        '"eventId": "a\\u0000b"',
        '"eventId": "\\ud800"',
        f'"eventId": "{"x" * (limits.EVENT_KEY_CHARS_MAX + 1)}"',
        '"customerId": ""',
        '"customerId": null',
        f'"customerId": "{"x" * (limits.CUSTOMER_REFERENCE_CHARS_MAX + 1)}"',
        '"externalId": "ada"',
        '"featureCode": "API"',
        '"featureCode": "api_calls\\n"',
        '"featureCode": ""',
        '"quantity": 2',
        '"model": "gpt-4o"',
        '"unheardOf": 1',
        '"timestamp": "yesterday"',
        '"timestamp": ""',
        '"timestamp": "2026-03-01T10:00:00\\u0000"',
        '"properties": 1e-400',  # nothing to a float
        '"properties": {"region": 1}',
        '"properties": {"region": "\\u0000"}',
        '"properties": [{"property": "a", "value": "b"}, {"property": "a", "value": "c"}]',
    ],
)
def test_whatever_else_there_is_must_be_read_field_by_field(more: str) -> None:
    assert not taken(body(USUAL, f"{USUAL}, {more}")) and not taken_alone(f"{USUAL}, {more}")


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"events": null}',
        b'{"events": [], "events": 1}',
        b'{"events": [7]}',
        b'{"event": []}',
        b'{"events": [], "more": 1}',
        b'{"events": [{"featureCode": "a", "customerId": "\xff"}]}',
        b'{"events": [{"featureCode": "a", "customerId": "\xed\xa0\x80"}]}',
        b'{"events": [{"featureCode": "a", "customerId": "\x00"}]}',
        b'{"events": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_batch_is_left_to_who_can_say_so(given: bytes) -> None:
    assert usual_events.read(given) is None
    assert usual_events.read_one(given) is None


texts = st.text(max_size=6) | st.sampled_from(
    ["\0", "\ud800", "api_calls", "2026-03-01T10:00:00Z", "x" * 300]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 3) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from(
    ["featureCode", "customerId", "eventId", "timestamp", "value", "properties", "quantity", "externalId"]
)


@given(st.lists(st.dictionaries(names, anything, max_size=4), max_size=3), st.booleans())
def test_any_batch_is_read_the_same_or_not_at_all(events: list[dict[str, Any]], ascii_only: bool) -> None:
    batch = [{"featureCode": "api_calls", "customerId": "ada", **each} for each in events]
    taken(json.dumps({"events": batch}, ensure_ascii=ascii_only).encode(errors="surrogatepass"))
    for each in batch:
        found = usual_events.read_one(
            json.dumps(each, ensure_ascii=ascii_only).encode(errors="surrogatepass")
        )
        assert found is None or found == decode(wire.parse(json.dumps(each).encode()))
