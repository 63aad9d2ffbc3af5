"""Filters: which keys a frozen generation of keys may hold. No for sure, or perhaps.

A blocked Bloom filter: a key has one block of 64 bytes, and one bit in each of its eight words. At 20 bits a key some
two or three of ten thousand strangers are taken for keys that are there; a key that is there is never missed.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

BITS_PER_KEY: Final = 20
BLOCK_BYTES: Final = 64
_LOW: Final = (1 << 96) - 1  # 48 bits for the places in a block, 48 that choose the block


class KeyFilter(NamedTuple):
    generation: int
    bits: bytes


def bytes_for(keys: int) -> int:
    """How large a filter of so many keys is: whole blocks, at least one."""
    return max(1, -(-keys * BITS_PER_KEY // (8 * BLOCK_BYTES))) * BLOCK_BYTES


def number_of(key: bytes) -> int:
    """What a filter knows of a key: of 16 bytes of its customer's id, and 16 of its hash.

    Keys are hashed already; the customer tells equal ones apart.
    """
    both = int.from_bytes(key)
    return (both >> 128 ^ both) & _LOW


class Filling:
    """A filter that is being filled: its blocks as numbers, into which a key goes by a few look-ups."""

    def __init__(self, keys: int) -> None:
        self._blocks = [0] * (bytes_for(keys) // BLOCK_BYTES)
        # Each pair of words by the twelve bits of a key that choose a bit in the one and a bit in the other.
        self._pairs = [
            [1 << (each & 63) + shift | 1 << (each >> 6) + 64 + shift for each in range(4096)]
            for shift in (0, 128, 256, 384)
        ]

    def add(self, numbers: Iterable[int]) -> None:
        """Let it hold these keys (`number_of`)."""
        blocks, count = self._blocks, len(self._blocks)
        first, second, third, fourth = self._pairs
        for n in numbers:
            blocks[(n >> 48) * count >> 48] |= (
                first[n & 4095] | second[n >> 12 & 4095] | third[n >> 24 & 4095] | fourth[n >> 36 & 4095]
            )

    def bits(self) -> bytes:
        return b"".join([each.to_bytes(BLOCK_BYTES, "little") for each in self._blocks])


class Sieve:
    """Tells in which of the older generations a key may be; `unknown` are those whose filter is not at hand."""

    def __init__(self, filters: Iterable[KeyFilter], unknown: Sequence[int]) -> None:
        self._unknown = unknown
        self._by_size: defaultdict[int, list[KeyFilter]] = defaultdict(list)
        for each in filters:
            self._by_size[len(each.bits) // BLOCK_BYTES].append(each)

    def may_hold(self, customers: Sequence[UUID], key_hashes: Sequence[bytes | None]) -> dict[int, list[int]]:
        """By generation, the places in the sequences of the keys that it may hold; generations without any are not told."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        for place, key_hash in enumerate(key_hashes):
            if key_hash is None:
                continue
            n = (customers[place].int ^ int.from_bytes(key_hash)) & _LOW
            for blocks, filters in self._by_size.items():
                at = ((n >> 48) * blocks >> 48) * BLOCK_BYTES
                # The first two words tell most strangers, and the rest is worked out for few.
                first, bit = at + (n >> 3 & 7), 1 << (n & 7)
                second, other_bit = at + 8 + (n >> 9 & 7), 1 << (n >> 6 & 7)
                for generation, bits in filters:
                    if bits[first] & bit and bits[second] & other_bit and _has_the_rest(bits, at, n):
                        found[generation].append(place)
            for generation in self._unknown:
                found[generation].append(place)
        return found


def _has_the_rest(bits: bytes, at: int, n: int) -> bool:
    return (
        bits[at + 16 + (n >> 15 & 7)] >> (n >> 12 & 7)
        & bits[at + 24 + (n >> 21 & 7)] >> (n >> 18 & 7)
        & bits[at + 32 + (n >> 27 & 7)] >> (n >> 24 & 7)
        & bits[at + 40 + (n >> 33 & 7)] >> (n >> 30 & 7)
        & bits[at + 48 + (n >> 39 & 7)] >> (n >> 36 & 7)
        & bits[at + 56 + (n >> 45 & 7)] >> (n >> 42 & 7)
        & 1
    ) == 1
