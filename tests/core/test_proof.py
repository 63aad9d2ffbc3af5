"""Proof: nothing about a stored event can change without its leaf, its batch and its line telling."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.events import StoredEvent
from tallystick.core.proof import (
    GENESIS,
    LEAF_BYTES,
    header_hash,
    header_mark,
    header_marks,
    key_hash,
    key_hashes,
    leaf,
    leaves,
    link,
    set_digest,
    void_hash,
)
from tests.literals import D, U, at

EVENT = StoredEvent(
    id=U(1),
    customer_id=U(2),
    feature="api_calls",
    value=D("1.5"),
    occurred_at=at("2026-01-31T23:59Z"),
    received_at=at("2026-02-01T00:00Z"),
    key="req_1",
    timed=True,
    properties={"region": "eu", "plan": "pro"},
    adjusts=None,
    reason=None,
)
CHANGES: dict[str, list[Any]] = {
    "id": [U(3)],
    "customer_id": [U(1)],
    "feature": ["api_call", "storage_gb"],
    "value": [D("1.6"), D("15"), D("-1.5"), D("1.500000000001")],
    "occurred_at": [EVENT.occurred_at + timedelta(microseconds=1), EVENT.received_at],
    "received_at": [EVENT.received_at + timedelta(microseconds=1), EVENT.occurred_at],
    "key": ["req_2", None],
    "timed": [False],
    "properties": [
        {},
        {"region": "eu"},
        {"region": "us", "plan": "pro"},
        {"region": "pro", "plan": "eu"},
        {"region": "eu", "plan": "pro", "more": ""},
    ],
    "adjusts": [U(2)],
    "reason": ["typo", "t"],
    "voids": [U(3), U(4)],
}


@pytest.mark.parametrize(
    ("field", "value"), [(name, each) for name, values in CHANGES.items() for each in values]
)
def test_a_leaf_changes_when_any_field_changes(field: str, value: Any) -> None:
    assert leaf(EVENT._replace(**{field: value})) != leaf(EVENT)


def test_every_field_of_an_event_is_tried() -> None:
    assert set(StoredEvent._fields) == set(CHANGES) | {"voided", "draw"}


def test_the_mark_that_an_event_was_taken_back_is_beside_the_facts() -> None:
    assert leaf(EVENT._replace(voided=7)) == leaf(EVENT)


def test_all_those_changes_differ_from_each_other_too() -> None:
    changed = [EVENT._replace(**{name: each}) for name, values in CHANGES.items() for each in values]
    assert len(set(leaves(changed))) == len(changed)


def test_a_leaf_does_not_depend_on_how_a_value_is_written() -> None:
    assert leaf(EVENT._replace(value=D("1.500"))) == leaf(EVENT)
    assert leaf(EVENT._replace(properties={"plan": "pro", "region": "eu"})) == leaf(EVENT)


printable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)


@given(st.dictionaries(printable, printable, max_size=4), st.dictionaries(printable, printable, max_size=4))
def test_properties_cannot_pass_for_each_other(one: dict[str, str], other: dict[str, str]) -> None:
    assert (leaf(EVENT._replace(properties=one)) == leaf(EVENT._replace(properties=other))) is (one == other)


@given(printable.filter(bool), printable.filter(bool), printable.filter(bool), printable.filter(bool))
def test_neighbouring_fields_cannot_lend_each_other_letters(a: str, b: str, c: str, d: str) -> None:
    one, other = EVENT._replace(key=a, reason=b), EVENT._replace(key=c, reason=d)
    assert (leaf(one) == leaf(other)) is ((a, b) == (c, d))


@given(st.lists(st.sampled_from([(name, each) for name, values in CHANGES.items() for each in values])))
def test_the_leaves_of_many_are_those_of_each(changes: list[tuple[str, Any]]) -> None:
    """What all have in common is written once, and only then."""
    events = [EVENT, *(EVENT._replace(**{name: value}) for name, value in changes), EVENT]
    assert leaves(events) == [leaf(each) for each in events]


def test_a_leaf_has_a_fixed_size() -> None:
    assert len(leaf(EVENT)) == LEAF_BYTES == 16


def test_a_link_covers_what_was_before_the_place_and_the_leaves() -> None:
    both = leaf(EVENT) + leaf(EVENT._replace(id=U(9)))
    first = link(GENESIS, 1, both)
    assert len(first) == len(GENESIS) == 32
    swapped = both[LEAF_BYTES:] + both[:LEAF_BYTES]
    others = [
        link(first, 1, both),
        link(GENESIS, 2, both),
        link(GENESIS, 1, swapped),
        link(GENESIS, 1, both[:LEAF_BYTES]),
        link(GENESIS, 1, b""),
    ]
    assert len({first, *others}) == len(others) + 1


@given(st.lists(st.lists(st.integers(1, 10**6), min_size=1, max_size=4), min_size=2, max_size=6), st.data())
def test_a_chain_tells_when_any_batch_of_it_changes(batches: list[list[int]], data: st.DataObject) -> None:
    def head(of: list[list[int]]) -> bytes:
        digest = GENESIS
        for position, batch in enumerate(of, start=1):
            digest = link(digest, position, b"".join(leaf(EVENT._replace(id=U(each))) for each in batch))
        return digest

    place = data.draw(st.integers(0, len(batches) - 1))
    tampered = [list(batch) for batch in batches]
    tampered[place][0] += 1
    assert head(tampered) != head(batches)
    assert head(batches[:place] + batches[place + 1 :]) != head(batches)


def test_a_set_digest_depends_on_members_and_order() -> None:
    one, two = leaf(EVENT), leaf(EVENT._replace(id=U(9)))
    assert set_digest([one, two]) == set_digest(iter([one, two]))
    assert len({set_digest(each) for each in ([], [one], [two], [one, two], [two, one], [one, one])}) == 6


@given(st.lists(st.tuples(st.uuids(), printable.filter(bool))))
def test_the_places_of_many_keys_are_those_of_each(keyed: list[tuple[UUID, str]]) -> None:
    found = key_hashes([customer for customer, _ in keyed], [key for _, key in keyed])
    assert found == [key_hash(customer, key) for customer, key in keyed]


@given(printable.filter(bool), printable.filter(bool), st.integers(0, 5), st.integers(0, 5))
def test_keys_headers_and_attempts_live_in_places_of_their_own(a: str, b: str, one: int, two: int) -> None:
    ada, bob = U(1), U(2)
    assert (key_hash(ada, a, one) == key_hash(ada, b, two)) is ((a, one) == (b, two))
    assert (header_hash(ada, a, one) == header_hash(ada, b, two)) is ((a, one) == (b, two))
    assert key_hash(ada, a) != header_hash(ada, a)
    assert key_hash(ada, a) != key_hash(bob, a)
    assert header_hash(ada, a) != header_hash(ada, a, 0)
    assert void_hash(ada, U(3)) not in (void_hash(bob, U(3)), void_hash(ada, U(4)), key_hash(ada, a))
    assert len(key_hash(ada, a)) == len(header_hash(ada, a, one)) == 16


@given(printable.filter(bool), printable.filter(bool), st.none() | st.integers(0, 9_999))
def test_a_mark_tells_headers_and_places_in_a_request_apart(a: str, b: str, index: int | None) -> None:
    assert (header_mark(a, index) == header_mark(b, index)) is (a == b)
    assert len({header_mark(a), header_mark(a, 0), header_mark(a, 1)}) == 3
    assert -(2**31) <= header_mark(a, index) < 2**31


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.none() | st.integers(0, 9_999)), max_size=8))
def test_the_marks_of_many_headers_are_those_of_each(sent: list[tuple[str | None, int | None]]) -> None:
    found = header_marks([header for header, _ in sent], [index for _, index in sent])
    assert found == [None if header is None else header_mark(header, index) for header, index in sent]
