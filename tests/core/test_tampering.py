"""What is missing from a batch and what is too much, by order of ids alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.tampering import changed, may_stand, misfit, only_possible
from tests.literals import U


def leaf(number: int) -> bytes:
    return number.to_bytes(16)


NOTCHED = [leaf(number) for number in (10, 20, 30, 40, 50)]
"""A batch of five; the event with leaf 10 has the id 10, and so on."""


@pytest.mark.parametrize(
    ("stored", "places", "strange"),
    [
        ([10, 20, 30, 40, 50], (), ()),
        ([20, 30, 40, 50], (0,), ()),
        ([10, 20, 40, 50], (2,), ()),
        ([10, 50], (1, 2, 3), ()),
        ([], (0, 1, 2, 3, 4), ()),
        ([10, 20, 25, 30, 40, 50], (), (2,)),
        ([10, 25, 30, 40, 50], (1,), (1,)),
    ],
)
def test_places_without_a_row_and_rows_without_a_place(
    stored: list[int], places: tuple[int, ...], strange: tuple[int, ...]
) -> None:
    found = misfit(NOTCHED, [(U(number), leaf(number)) for number in stored])
    assert (found.places, found.rows) == (places, strange)
    assert list(found.fitting) == [
        (NOTCHED.index(leaf(number)), U(number)) for number in stored if leaf(number) in NOTCHED
    ]


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_what_fits_is_neither_missing_nor_strange(gone: set[int], changed_rows: set[int]) -> None:
    notched = [leaf(number) for number in range(10)]
    stored = [
        (U(number), leaf(100 + number) if number in changed_rows else leaf(number))
        for number in range(10)
        if number not in gone
    ]
    found = misfit(notched, stored)
    assert set(found.places) == gone | changed_rows
    assert {stored[number][0] for number in found.rows} == {U(number) for number in changed_rows - gone}
    pairs = changed(found.fitting, found.places, [(number, stored[number][0]) for number in found.rows])
    assert len(pairs) == len(found.rows), "every changed row has a place"
    if not gone:
        assert {place: stored[number][0] for place, number in pairs.items()} == {
            number: U(number) for number in changed_rows
        }


def test_one_row_and_one_place_belong_together_whatever_the_id_says() -> None:
    fitting = [(0, U(10)), (1, U(20)), (3, U(40)), (4, U(50))]
    assert not may_stand(fitting, 2, U(99))
    assert changed(fitting, [2], [(7, U(99))]) == {2: 7}
    assert changed(fitting, [2], [(7, U(99)), (8, U(98))]) == {}


@pytest.mark.parametrize(
    ("place", "lost", "expected"),
    [(2, [5, 25, 35, 99], 25), (2, [5, 35], 35), (2, [5, 45], None), (2, [], None)],
)
def test_an_id_that_is_known_to_be_lost_fits_between_its_neighbours(
    place: int, lost: list[int], expected: int | None
) -> None:
    fitting = [(0, U(10)), (1, U(20)), (3, U(40)), (4, U(50))]
    found = only_possible(fitting, place, U(10), [U(number) for number in lost])
    assert found == (None if expected is None else U(expected))
    assert only_possible([], 3, U(10), [U(5), U(12)]) == U(12)
