"""Ids: one text for each uuid, in the same order, and no kind passes for another."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core import ids
from tests.literals import U

KINDS = [
    value for name, value in vars(ids).items() if name.isupper() and isinstance(value, str) and name[0] != "_"
]
ONE = ids.show(ids.CUSTOMER, U(1))


@given(st.uuids(), st.sampled_from(KINDS))
def test_an_id_survives_the_way_there_and_back(identity: UUID, kind: str) -> None:
    assert ids.read(kind, ids.show(kind, identity)) == identity


@given(st.lists(st.uuids(), max_size=3), st.integers(0, 200))
def test_many_ids_are_shown_as_each_alone(some: list[UUID], others: int) -> None:
    """However many: they are written a block at a time."""
    identities = [*some, *(U(each) for each in range(others)), UUID(int=2**128 - 1)]
    assert ids.show_all("evt", identities) == [ids.show("evt", each) for each in identities]


@given(st.uuids(), st.uuids())
def test_texts_sort_as_their_ids_do(one: UUID, other: UUID) -> None:
    assert (ids.show("evt", one) < ids.show("evt", other)) is (one < other)


@given(st.uuids(), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_an_id_of_one_kind_is_never_read_as_another(identity: UUID, kind: str, other: str) -> None:
    assert (ids.read(other, ids.show(kind, identity)) is None) is (kind != other)


@given(st.uuids(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_mark_is_read_from_an_id_and_moves_it_nowhere_in_time(identity: UUID, one: int, other: int) -> None:
    marked = UUID(int=ids.marked(ids.marked(identity.int, other), one))
    assert ids.mark_of(marked) == one
    assert UUID(int=ids.marked(marked.int, ids.mark_of(identity))) == identity
    assert (marked.int >> 48, marked.int & 0xFFFF) == (identity.int >> 48, identity.int & 0xFFFF)


def test_every_kind_has_a_prefix_of_its_own() -> None:
    assert len(set(KINDS)) == len(KINDS) > 10


@pytest.mark.parametrize("identity", [UUID(int=0), UUID(int=2**128 - 1), U(31), U(32)])
def test_the_ends_of_the_range_are_ids_too(identity: UUID) -> None:
    shown = ids.show("sub", identity)
    assert len(shown) == len("sub_") + 26
    assert ids.read("sub", shown) == identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "_",
        "cus",
        "cus_",
        ONE[:-1],
        ONE + "0",
        ONE.upper(),
        ONE.replace("_", "-"),
        " " + ONE,
        ONE + "\n",
        "cus__" + ONE[4:],
        "xcus_" + ONE[4:],
        ONE[4:],
        "cus_8" + "0" * 25,  # more than 128 bits
        "cus_0" + "i" * 25,  # i, l, o and u are not in the alphabet
        "cus_0" + "u" * 25,
        "cus_" + "٠" * 26,
        "cus_" + str(U(1)),
        "00000000-0000-0000-0000-000000000001",
    ],
)
def test_what_is_not_exactly_an_id_is_none(text: str) -> None:
    assert ids.read("cus", text) is None


@given(st.text(max_size=40))
def test_any_text_at_all_is_an_id_or_none(text: str) -> None:
    found = ids.read("cus", text)
    assert found is None or ids.show("cus", found) == text
