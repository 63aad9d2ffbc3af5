"""Filters: which keys a frozen generation of keys may hold. No for sure, or perhaps.

A blocked Bloom filter: a key has one block of 64 bytes, and one bit in each of its eight words. At 20 bits a key some
two or three of ten thousand strangers are taken for keys that are there; a key that is there is never missed.

To ask, filters of one size stand side by side on shelves: at each place, the bits of all of them are one number, so that
up to sixty-four generations are asked as fast as one, and many keys at once.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS_PER_KEY: Final = 20
BLOCK_BYTES: Final = 64
KEY_BYTES: Final = 16
_BLOCK_BITS: Final = 8 * BLOCK_BYTES
_PIECE_BYTES: Final = 32 * 1024
"""Of a shelf that is copied: a fraction of a millisecond's work."""
_WORDS: Final = np.arange(0, _BLOCK_BITS, 64)
_CHOOSING: Final = np.arange(0, 48, 6)
_WIDTH_MAX: Final = 64

Bytes = NDArray[np.uint8]
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
        self._words = np.zeros(self._size // 8, "<u8")

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
    """One, two, four, … or sixty-four filters of one size. It never changes."""

    size: int  # bytes of each filter
    generations: tuple[int, ...]
    bits: Bytes
    """At each place a bit of each filter, side by side, the first of them the lowest."""

    @property
    def width(self) -> int:
        return len(self.generations)


class Shelves:
    """Two shelves of one size and width become one, until it is sixty-four filters wide: so few are asked, and a filter
    is copied six times in its life. It is done in pieces; whoever asks meanwhile asks what was there."""

    def __init__(self) -> None:
        self.all: tuple[Shelf, ...] = ()

    @property
    def generations(self) -> set[int]:
        return {generation for shelf in self.all for generation in shelf.generations}

    @property
    def bytes(self) -> int:
        return sum(len(shelf.bits) for shelf in self.all)

    def adding(self, added: KeyFilter) -> Iterator[None]:
        """Put a filter on a shelf of its own: it is there when this has ended."""
        size = len(added.bits)
        bits, given = _memory(size), np.frombuffer(added.bits, np.uint8)
        for piece in _pieces(size):
            bits[piece] = given[piece]
            yield
        self.all = (*self.all, Shelf(size, (added.generation,), bits))

    def merging(self) -> Iterator[None]:
        """Make one of two shelves until no two are alike. It takes longer, and nobody misses a filter for it."""
        while pair := self._alike():
            low, high = pair
            bits = _memory(2 * len(low.bits))
            for piece in _pieces(len(low.bits)):
                wide = _side_by_side(low.bits[piece], high.bits[piece], low.width)
                bits[2 * piece.start : 2 * piece.start + len(wide)] = wide
                yield
            others = [each for each in self.all if each is not low and each is not high]
            self.all = (*others, Shelf(low.size, (*low.generations, *high.generations), bits))

    def _alike(self) -> tuple[Shelf, Shelf] | None:
        """Two that may become one."""
        found: dict[tuple[int, int], Shelf] = {}
        for shelf in self.all:
            other = found.setdefault((shelf.size, shelf.width), shelf)
            if other is not shelf and shelf.width < _WIDTH_MAX:
                return other, shelf
        return None


def _side_by_side(low: Bytes, high: Bytes, width: int) -> Bytes:
    if width >= 8:
        return np.concatenate([each.reshape(-1, width // 8) for each in (low, high)], axis=1).ravel()
    spread = _SPREAD[width]
    return (spread.take(low) | spread.take(high) << width).view(np.uint8)


_SPREAD: Final[dict[int, NDArray[np.uint16]]] = {
    width: np.array(
        [sum((byte >> at & (1 << width) - 1) << 2 * at for at in range(0, 8, width)) for byte in range(256)],
        "<u2",
    )
    for width in (1, 2, 4)
}
"""By the width of a shelf, each byte of it with as much room behind the bits of each place as they take."""


def _pieces(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _PIECE_BYTES, size)) for start in range(0, size, _PIECE_BYTES))


def _memory(size: int) -> Bytes:
    """Of its own, which the system has back when a wider shelf takes its place: from an allocator that is shared with
    small and lasting things, much of it would stay with the process."""
    return np.frombuffer(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS), np.uint8)


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
                may = np.bitwise_and.reduce(_read(shelf, places), axis=1)
                for nth in np.flatnonzero(may & (1 << shelf.width) - 1).tolist():
                    bits = int(may[nth])
                    for place, generation in enumerate(shelf.generations):
                        if bits >> place & 1 and generation < self.before:
                            found[generation].append(keyed[nth])
        for generation in self._unknown:
            found[generation] = keyed
        return found


def _read(shelf: Shelf, places: Places) -> NDArray[Any]:
    """What stands at each of the places: a bit of each filter, and on a narrow shelf something above them."""
    if shelf.width >= 8:
        return shelf.bits.view(f"<u{shelf.width // 8}").take(places)
    at = places * shelf.width
    return shelf.bits.take(at >> 3) >> (at & 7).astype(np.uint8)
