"""A filter never misses what it holds, and takes few strangers for what it holds."""

from collections import deque
from collections.abc import Iterable
from hashlib import sha256
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists

from tallystick.core.proof import key_hash
from tallystick.flows.sieve import (
    BITS_PER_KEY,
    BLOCK_BYTES,
    Filling,
    KeyFilter,
    Shelves,
    Sieve,
    bytes_for,
    places_of,
)

Key = bytes


def holding(keys: list[Key]) -> bytes:
    filling = Filling(len(keys))
    filling.add(b"".join(keys))
    return b"".join(filling.parts())


def shelved(filters: Iterable[KeyFilter]) -> Shelves:
    shelves = Shelves()
    for each in filters:
        deque(shelves.adding(each), maxlen=0)
        deque(shelves.merging(), maxlen=0)
    return shelves


def sieve_of(filters: Iterable[KeyFilter], unknown: list[int]) -> Sieve:
    return Sieve(99, shelved(filters).all, unknown)


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


def test_filters_stand_side_by_side() -> None:
    """Shelved in many pieces: each key is told where it is, and hardly anywhere else."""
    filled = [some_keys(60_000, f"generation {number}") for number in range(3)]
    sieve = sieve_of([KeyFilter(number, holding(held)) for number, held in enumerate(filled)], [])
    for number, held in enumerate(filled):
        some = held[::29]
        may = told(sieve, some)
        assert may.pop(number) == list(range(len(some)))
        assert sum(map(len, may.values())) < 10


def test_full_shelves_become_one() -> None:
    """Of two sizes; however many there are, no generation is forgotten or said twice, and none answers for another."""
    filled = {
        number: some_keys(900 if number % 3 else 90, f"generation {number}") for number in range(1, 100)
    }
    shelves = shelved(KeyFilter(number, holding(held)) for number, held in filled.items())
    assert sorted(generation for each in shelves.all for generation in each.generations) == [*filled]
    assert sorted(each.width for each in shelves.all) == [1, 2, 32, 64]
    sizes = [bytes_for(900 if number % 3 else 90) for number in filled]
    assert shelves.bytes == sum(sizes), "and no room is empty"
    sieve = Sieve(100, shelves.all, [])
    for number, held in filled.items():
        may = told(sieve, held)
        assert may.pop(number) == list(range(len(held)))
        assert sum(map(len, may.values())) < 0.1 * len(held)


def test_whoever_asks_meanwhile_asks_what_was_there_before() -> None:
    """Through all the pieces of adding a filter, and of making one of sixteen shelves."""
    filled = {number: some_keys(10_000, f"generation {number}") for number in range(16)}
    shelves = Shelves()
    for number in range(15):
        deque(shelves.adding(KeyFilter(number, holding(filled[number]))), maxlen=0)
    some = [held[number] for number, held in filled.items()]
    before = told(Sieve(16, shelves.all, []), some)
    assert [before[number] for number in range(15)] == [[number] for number in range(15)]
    for _ in shelves.adding(KeyFilter(15, holding(filled[15]))):
        assert told(Sieve(16, shelves.all, []), some) == before
    assert told(Sieve(16, shelves.all, []), some) == {**before, 15: [15]}
    counts = {len(shelves.all)}
    for _ in shelves.merging():
        counts.add(len(shelves.all))
        assert told(Sieve(16, shelves.all, []), some) == {**before, 15: [15]}
    assert counts == set(range(2, 17))
    assert [each.width for each in shelves.all] == [16]
    assert told(Sieve(16, shelves.all, []), some) == {**before, 15: [15]}


def test_generations_that_are_not_before_are_not_told() -> None:
    """A book that is out of date may meet the filters of younger ones."""
    key, *_ = keys = some_keys(5, "held")
    shelves = shelved(KeyFilter(number, holding(keys)) for number in range(21))
    assert told(Sieve(16, shelves.all, []), [key]) == {number: [0] for number in range(16)}


@given(keys=lists(binary(min_size=16, max_size=16), min_size=1, max_size=9), blocks=integers(1, 1 << 32))
def test_where_a_key_is_in_a_filter_is_for_ever(keys: list[Key], blocks: int) -> None:
    """Filters are stored. 48 bits of a key choose its block, and six times eight its bit in each word."""
    for key, places in zip(keys, places_of(b"".join(keys), blocks * BLOCK_BYTES).tolist(), strict=True):
        number = int.from_bytes(key[4:])
        block = (number >> 48) * blocks >> 48
        assert places == [block * 512 + word * 64 + (number >> 6 * word & 63) for word in range(8)]


def test_a_filter_is_its_bits_from_the_lowest_on() -> None:
    held = some_keys(500, "held")
    bits = int.from_bytes(filter_bits := holding(held), "little")
    places = {place for each in places_of(b"".join(held), len(filter_bits)).tolist() for place in each}
    assert {place for place in range(8 * len(filter_bits)) if bits >> place & 1} == places


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
