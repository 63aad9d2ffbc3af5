"""Filters: which keys a frozen generation of keys may hold. No for sure, or perhaps.

A blocked Bloom filter: a key has one block of 64 bytes, and one bit in each of its eight words. At 20 bits a key some
two or three of ten thousand strangers are taken for keys that are there; a key that is there is never missed.

To ask, filters of one size stand side by side on a shelf, byte by byte: the bytes that a key wants of all of them are
one slice, so that many generations are asked in the time of a few.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from struct import Struct
from typing import Final, NamedTuple

BITS_PER_KEY: Final = 20
BLOCK_BYTES: Final = 64
KEY_BYTES: Final = 16
_LOW: Final = (1 << 96) - 1  # 48 bits for the places in a block, 48 that choose the block
_KEY: Final = Struct(">4xIQ")  # the same 96 bits, of keys one after the other
_PART_BLOCKS: Final = 1024
_PART_BYTES: Final = _PART_BLOCKS * BLOCK_BYTES
SHELF_MAX: Final = 64
"""Filters side by side: whenever one is added, the others of its shelf are copied."""


class KeyFilter(NamedTuple):
    generation: int
    bits: bytes


def bytes_for(keys: int) -> int:
    """How large a filter of so many keys is: few different sizes, at most an eighth more than is needed."""
    blocks = max(1, -(-keys * BITS_PER_KEY // (8 * BLOCK_BYTES)))
    step = 1 << max(0, blocks.bit_length() - 4)
    return -(-blocks // step) * step * BLOCK_BYTES


def number_of(key: bytes) -> int:
    """What a filter knows of a key, which is a hash of 16 bytes already."""
    return int.from_bytes(key) & _LOW


class Filling:
    """A filter that is being filled: its blocks as numbers, into which a key goes by a few look-ups."""

    def __init__(self, keys: int) -> None:
        self._blocks = [0] * (bytes_for(keys) // BLOCK_BYTES)
        # Each pair of words by the twelve bits of a key that choose a bit in the one and a bit in the other.
        self._pairs = [
            [1 << (each & 63) + shift | 1 << (each >> 6) + 64 + shift for each in range(4096)]
            for shift in (0, 128, 256, 384)
        ]

    def add(self, keys: bytes) -> None:
        """Let it hold these keys, which stand one after the other."""
        blocks, count = self._blocks, len(self._blocks)
        first, second, third, fourth = self._pairs
        for high, n in _KEY.iter_unpack(keys):
            blocks[(high << 16 | n >> 48) * count >> 48] |= (
                first[n & 4095] | second[n >> 12 & 4095] | third[n >> 24 & 4095] | fourth[n >> 36 & 4095]
            )

    def parts(self) -> Iterator[bytes]:
        """The bits of the filter, some thousand blocks at a time."""
        for start in range(0, len(self._blocks), _PART_BLOCKS):
            some = self._blocks[start : start + _PART_BLOCKS]
            yield b"".join([each.to_bytes(BLOCK_BYTES, "little") for each in some])


class Shelf(NamedTuple):
    """Filters of one size: the first bytes of all of them, then their second bytes, …; in parts."""

    size: int  # bytes of each filter
    generations: tuple[int, ...]
    parts: tuple[mmap, ...]

    @property
    def has_room(self) -> bool:
        return len(self.generations) < SHELF_MAX


def parts_of(size: int) -> int:
    """In how many parts filters of this size stand on their shelf."""
    return -(-size // _PART_BYTES)


def part_with(shelf: Shelf | None, more: Sequence[KeyFilter], index: int) -> mmap:
    """A part of the shelf as it is when `more` stand behind those that are there; a millisecond or so.

    Each part is memory of its own, given back as a whole when a wider one takes its place: of an allocator that is
    shared with small and lasting things, much of it would stay with the process.
    """
    there = len(shelf.generations) if shelf else 0
    width = there + len(more)
    columns = [each.bits[index * _PART_BYTES : (index + 1) * _PART_BYTES] for each in more]
    part = mmap(-1, len(columns[0]) * width, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    if shelf:
        old = shelf.parts[index]
        for place in range(there):
            part[place::width] = old[place::there]
    for place, column in enumerate(columns, there):
        part[place::width] = column
    return part


class Sieve:
    """Tells in which of the generations before one a key may be; `unknown` are those whose filter is not at hand."""

    def __init__(self, before: int, shelves: Iterable[Shelf], unknown: Sequence[int]) -> None:
        self.before = before
        self._shelves = tuple(shelves)
        self._unknown = unknown

    @property
    def asks_all(self) -> bool:
        """Whether a generation must be asked about every key, for want of its filter."""
        return bool(self._unknown)

    def may_hold(self, key_hashes: Sequence[bytes | None]) -> dict[int, list[int]]:
        """By generation, the places in the sequence of the keys that it may hold; generations without any are not told."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        keys = [
            (place, number_of(key_hash)) for place, key_hash in enumerate(key_hashes) if key_hash is not None
        ]
        for shelf in self._shelves:
            _ask(shelf, keys, found)
        for generation in self._unknown:
            if keys:
                found[generation] = [place for place, _ in keys]
        return found


def _ask(shelf: Shelf, keys: Sequence[tuple[int, int]], found: defaultdict[int, list[int]]) -> None:
    """A byte for each filter, of which the lowest bit remains where the key may be."""
    parts, width, blocks = shelf.parts, len(shelf.generations), shelf.size // BLOCK_BYTES
    number, lowest = int.from_bytes, int.from_bytes(b"\1" * width)
    for place, n in keys:
        block = (n >> 48) * blocks >> 48
        part, at = parts[block >> 10], (block & 1023) * BLOCK_BYTES
        start = (at + (n >> 3 & 7)) * width
        may = number(part[start : start + width]) >> (n & 7)
        start = (at + 8 + (n >> 9 & 7)) * width
        may &= number(part[start : start + width]) >> (n >> 6 & 7) & lowest
        if not may:
            continue
        start = (at + 16 + (n >> 15 & 7)) * width
        may &= number(part[start : start + width]) >> (n >> 12 & 7)
        if not may:
            continue
        start = (at + 24 + (n >> 21 & 7)) * width
        may &= number(part[start : start + width]) >> (n >> 18 & 7)
        if not may:
            continue
        start = (at + 32 + (n >> 27 & 7)) * width
        may &= number(part[start : start + width]) >> (n >> 24 & 7)
        if not may:
            continue
        start = (at + 40 + (n >> 33 & 7)) * width
        may &= number(part[start : start + width]) >> (n >> 30 & 7)
        start = (at + 48 + (n >> 39 & 7)) * width
        may &= number(part[start : start + width]) >> (n >> 36 & 7)
        start = (at + 56 + (n >> 45 & 7)) * width
        may &= number(part[start : start + width]) >> (n >> 42 & 7)
        if may:
            for generation, bit in zip(shelf.generations, may.to_bytes(width), strict=True):
                if bit:
                    found[generation].append(place)
