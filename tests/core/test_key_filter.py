"""A filter never misses what it holds, and takes few strangers for what it holds."""

from hashlib import sha256
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis.strategies import binary, lists

from tallystick.core.key_filter import (
    BITS_PER_KEY,
    BLOCK_BYTES,
    Filling,
    KeyFilter,
    Shelf,
    Sieve,
    bytes_for,
    part_with,
    parts_of,
)
from tallystick.core.proof import key_hash

Key = bytes


def holding(keys: list[Key]) -> bytes:
    filling = Filling(len(keys))
    filling.add(b"".join(keys))
    return b"".join(filling.parts())


def sieve_of(filters: list[KeyFilter], unknown: list[int]) -> Sieve:
    """Those of one size on one shelf, in two goes."""
    shelves = []
    for size in {len(each.bits) for each in filters}:
        some = [each for each in filters if len(each.bits) == size]
        shelf = None
        for more in (some[:1], some[1:]):
            if more:
                there = shelf.generations if shelf else ()
                shelf = Shelf(
                    size,
                    (*there, *(each.generation for each in more)),
                    tuple(part_with(shelf, more, index) for index in range(parts_of(size))),
                )
        assert shelf is not None
        shelves.append(shelf)
    return Sieve(99, shelves, unknown)


def told(sieve: Sieve, keys: list[Key]) -> dict[int, list[int]]:
    return sieve.may_hold(keys)


def some_keys(count: int, salt: str) -> list[Key]:
    """Hashed as the server does."""
    return [_digest(f"{salt} {each}") for each in range(count)]


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()[:16]


KEYS = lists(binary(min_size=16, max_size=16), max_size=60)


@given(held=KEYS, others=KEYS)
def test_a_key_that_is_there_is_never_missed(held: list[Key], others: list[Key]) -> None:
    asked = others + held
    may = told(sieve_of([KeyFilter(3, holding(held))], []), asked)
    assert set(range(len(others), len(asked))) <= set(may.get(3, []))


@given(keys=lists(KEYS, min_size=1, max_size=5))
def test_each_generation_answers_for_itself(keys: list[list[Key]]) -> None:
    """Whatever their sizes, and together with those whose filter is missing."""
    sieve = sieve_of([KeyFilter(number, holding(held)) for number, held in enumerate(keys)], [7, 9])
    for number, held in enumerate(keys):
        may = told(sieve, held)
        everything = list(range(len(held)))
        assert may.get(number, []) == may.get(7, []) == may.get(9, []) == everything


def test_events_without_a_key_are_asked_about_nowhere() -> None:
    key, *_ = keys = some_keys(5, "held")
    sieve = sieve_of([KeyFilter(0, holding(keys))], [1])
    assert sieve.may_hold([None, key]) == {0: [1], 1: [1]}
    assert sieve.may_hold([None]) == {}


def test_many_filters_stand_side_by_side() -> None:
    """Larger than a part, on one shelf: each key is told where it is, and hardly anywhere else."""
    filled = [some_keys(60_000, f"generation {number}") for number in range(3)]
    sieve = sieve_of([KeyFilter(number, holding(held)) for number, held in enumerate(filled)], [])
    for number, held in enumerate(filled):
        some = held[::29]
        may = told(sieve, some)
        assert may.pop(number) == list(range(len(some)))
        assert sum(map(len, may.values())) < 10


@pytest.mark.parametrize("count", [1_000, 40_000])
def test_few_strangers_are_taken_for_keys(count: int) -> None:
    sieve = sieve_of([KeyFilter(0, holding(some_keys(count, "held")))], [])
    strangers = told(sieve, some_keys(40_000, "stranger"))
    assert len(strangers.get(0, [])) < 40  # one in a thousand


def test_the_same_key_of_another_customer_is_a_stranger() -> None:
    """A business may call every customer's first event of a day by its date."""
    ours = [key_hash(UUID(int=each), "2026-03-10") for each in range(4_000)]
    held, others = ours[:2_000], ours[2_000:]
    assert len(told(sieve_of([KeyFilter(0, holding(held))], []), others).get(0, [])) < 10


def test_sizes_are_whole_blocks() -> None:
    assert [bytes_for(each) for each in (0, 1, 25, 26, 3_000_000)] == [64, 64, 64, 128, 7_864_320]
    for keys in range(1, 100_000, 77):
        blocks, rest = divmod(bytes_for(keys), BLOCK_BYTES)
        needed = keys * BITS_PER_KEY / (8 * BLOCK_BYTES)
        assert rest == 0
        assert needed <= blocks <= needed * 9 / 8 + 1
