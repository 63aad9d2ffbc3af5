"""Filters: which keys a frozen generation of keys may hold. No for sure, or perhaps.

A blocked Bloom filter: a key has one block of 64 bytes, and one bit in each of its eight words. At 20 bits a key some
two or three of ten thousand strangers are taken for keys that are there; a key that is there is never missed.

To ask, filters of one size stand side by side on shelves: at each place, the bits of all of them are one number, so that
up to sixty-four generations are asked as fast as one, and many keys at once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS_PER_KEY: Final = 20
BLOCK_BYTES: Final = 64
KEY_BYTES: Final = 16
_BLOCK_BITS: Final = 8 * BLOCK_BYTES
_PIECE_BYTES: Final = 16 * 1024
"""Of a filter, when it is shelved: a fraction of a millisecond's work."""
_WORDS: Final = np.arange(0, _BLOCK_BITS, 64)
_CHOOSING: Final = np.arange(0, 48, 6)
_NUMBERS: Final = ("<u1", "<u2", "<u4", "<u8")

Places = NDArray[np.int64]
"""By key, its bit in each of the eight words of its block, counted from the filter's first."""


class KeyFilter(NamedTuple):
    generation: int
    bits: bytes


def bytes_for(keys: int) -> int:
    """How large a filter of so many keys is: few different sizes, at most an eighth more than is needed."""
    blocks = max(1, -(-keys * BITS_PER_KEY // _BLOCK_BITS))
    step = 1 << max(0, blocks.bit_length() - 4)
    return -(-blocks // step) * step * BLOCK_BYTES


def places_of(keys: bytes, size: int) -> Places:
    """Of keys that stand one after the other, which are hashes already: 48 bits choose the block, 48 the places in it."""
    quarters = np.frombuffer(keys, ">u4").reshape(-1, 4).astype(np.int64)
    choosing = quarters[:, 1] << 16 | quarters[:, 2] >> 16
    inside = (quarters[:, 2] & 0xFFFF) << 32 | quarters[:, 3]
    blocks = size // BLOCK_BYTES
    # choosing * blocks >> 48, of which the product has no room in 64 bits
    block = (choosing >> 24) * blocks + ((choosing & 0xFFFFFF) * blocks >> 24) >> 24
    return block[:, None] * _BLOCK_BITS + _WORDS + (inside[:, None] >> _CHOOSING & 63)


class Filling:
    """A filter that is being filled."""

    def __init__(self, keys: int) -> None:
        self._size = bytes_for(keys)
        self._words = np.zeros(self._size // 8, _NUMBERS[-1])

    def add(self, keys: bytes) -> None:
        """Let it hold these keys, which stand one after the other."""
        places = places_of(keys, self._size).ravel().astype(np.uint64)
        np.bitwise_or.at(self._words, places >> 6, np.uint64(1) << (places & 63))

    def parts(self) -> Iterator[bytes]:
        """The bits of the filter, a piece at a time."""
        step = _PIECE_BYTES // 8
        for start in range(0, len(self._words), step):
            yield self._words[start : start + step].tobytes()


# Shelves --------------------------------------------------------------------------------------------------


class Shelf(NamedTuple):
    """Filters of one size."""

    size: int  # bytes of each filter
    generations: tuple[int, ...]
    bits: NDArray[Any]
    """A number for each bit of a filter, in which each filter has a bit: the first of them the lowest."""

    @property
    def is_full(self) -> bool:
        return len(self.generations) == 8 * self.bits.itemsize


class Shelves:
    """Eight filters on a shelf, and two full shelves become one, until it has sixty-four: so few shelves are asked, and
    few are copied. To add takes long, so it is done in pieces; whoever asks meanwhile asks what was there before."""

    def __init__(self) -> None:
        self.all: tuple[Shelf, ...] = ()

    @property
    def generations(self) -> set[int]:
        return {generation for shelf in self.all for generation in shelf.generations}

    @property
    def bytes(self) -> int:
        """Of memory, with the room for filters to come."""
        return sum(shelf.bits.nbytes for shelf in self.all)

    def adding(self, added: KeyFilter) -> Iterator[None]:
        """Put a filter on its shelf: it is there when this has ended."""
        size = len(added.bits)
        shelf = next((each for each in self.all if each.size == size and not each.is_full), None)
        taller = shelf or Shelf(size, (), np.zeros(8 * size, _NUMBERS[0]))
        place = len(taller.generations)
        filters_bits = np.frombuffer(added.bits, np.uint8)
        for start in range(0, size, _PIECE_BYTES):
            piece = np.unpackbits(filters_bits[start : start + _PIECE_BYTES], bitorder="little")
            taller.bits[8 * start : 8 * start + len(piece)] |= piece << place
            yield
        self._put(taller._replace(generations=(*taller.generations, added.generation)), shelf)

    def merging(self) -> Iterator[None]:
        """Make one of two full shelves, wherever there are two alike."""
        for narrow, wide in pairwise(_NUMBERS):
            full: defaultdict[int, list[Shelf]] = defaultdict(list)
            for shelf in self.all:
                if shelf.is_full and shelf.bits.dtype == narrow:
                    full[shelf.size].append(shelf)
            for size, alike in full.items():
                for low, high in zip(alike[::2], alike[1::2], strict=False):
                    bits = np.empty(8 * size, wide)
                    halves = bits.view(narrow).reshape(-1, 2)
                    for start in range(0, len(bits), 8 * _PIECE_BYTES):
                        piece = slice(start, start + 8 * _PIECE_BYTES)
                        halves[piece, 0], halves[piece, 1] = low.bits[piece], high.bits[piece]
                        yield
                    self._put(Shelf(size, (*low.generations, *high.generations), bits), low, high)

    def _put(self, shelf: Shelf, *instead_of: Shelf | None) -> None:
        self.all = (*(each for each in self.all if not any(each is one for one in instead_of)), shelf)


# Asking ---------------------------------------------------------------------------------------------------


class Sieve:
    """Tells in which of the generations before one a key may be; `unknown` are those whose filter is not at hand."""

    def __init__(self, before: int, shelves: Iterable[Shelf], unknown: Sequence[int]) -> None:
        self.before = before
        self._by_size: defaultdict[int, list[Shelf]] = defaultdict(list)
        for shelf in shelves:
            self._by_size[shelf.size].append(shelf)
        self._unknown = unknown

    @property
    def asks_all(self) -> bool:
        """Whether a generation must be asked about every key, for want of its filter."""
        return bool(self._unknown)

    def may_hold(self, key_hashes: Sequence[bytes | None]) -> dict[int, list[int]]:
        """By generation, the places in the sequence of the keys that it may hold; generations without any are not told."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        keyed = [nth for nth, key_hash in enumerate(key_hashes) if key_hash is not None]
        keys = b"".join([key_hash for key_hash in key_hashes if key_hash is not None])
        if not keys:
            return found
        for size, shelves in self._by_size.items():
            places = places_of(keys, size)
            for shelf in shelves:
                for generation, nth in _asked(shelf, places):
                    found[generation].append(keyed[nth])
        for generation in self._unknown:
            found[generation] = keyed
        return found


def _asked(shelf: Shelf, places: Places) -> Iterator[tuple[int, int]]:
    """Which of the generations may hold which of the keys."""
    may = np.bitwise_and.reduce(shelf.bits.take(places), axis=1)
    for nth in np.flatnonzero(may).tolist():
        bits = int(may[nth])
        for place, generation in enumerate(shelf.generations):
            if bits >> place & 1:
                yield generation, nth
