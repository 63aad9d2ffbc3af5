"""What it costs to know that a key is new: filters of frozen generations, asked and filled.

    python -m bench.sieve [--keys 2500000]

Asking is beside its ceiling, which is to read what it reads, eight numbers of a block at random, and nothing else. Keys are
strangers, as nearly all are. Nothing is stored, and no server runs.
"""

import argparse
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from bench.month import say
from tallystick.flows.sieve import BLOCK_BYTES, KEY_BYTES, Filling, KeyFilter, Shelves, Sieve

GENERATIONS: Final = (1, 8, 40, 63, 64)
AT_ONCE: Final = (1, 100, 1_000, 4_000)
ASKED: Final = 10_000
ADDED_AT_ONCE: Final = 1_000


def main() -> None:
    given = arguments()
    bits, fill_us = _filled(given.keys)
    print(f"filters of {given.keys:,} keys, {len(bits):,} bytes each; filled: {fill_us:.2f} µs a key")
    print(
        f"{'generations':>11} {'shelves':>8} {'MiB':>6} {'keys at once':>13} {'µs a key':>9} {'of ceiling':>11}"
    )
    shelves = Shelves()
    for number in range(max(GENERATIONS)):
        deque(shelves.adding(KeyFilter(number, bits)), maxlen=0)
        deque(shelves.merging(), maxlen=0)
        if number + 1 not in GENERATIONS:
            continue
        say(f"{number + 1} generations")
        sieve = Sieve(number + 1, shelves.all, [])
        for count in AT_ONCE:
            keys = [[os.urandom(KEY_BYTES) for _ in range(count)] for _ in range(max(1, ASKED // count))]
            asked = _us(lambda: [sieve.may_hold(each) for each in keys]) / len(keys) / count  # noqa: B023
            ceiling = _ceiling(shelves, count)
            print(
                f"{number + 1:>11} {len(shelves.all):>8} {shelves.bytes / 2**20:>6.0f} {count:>13,} {asked:>9.2f}"
                f" {ceiling / asked:>10.0%}"
            )


def _filled(keys: int) -> tuple[bytes, float]:
    filling = Filling(keys)
    taken = 0.0
    for start in range(0, keys, ADDED_AT_ONCE):
        some = os.urandom(KEY_BYTES * min(ADDED_AT_ONCE, keys - start))
        taken += _us(lambda: filling.add(some))  # noqa: B023
    return b"".join(filling.parts()), taken / keys


def _ceiling(shelves: Shelves, count: int) -> float:
    """Microseconds a key for the reads alone."""
    rounds = max(1, ASKED // count)
    rng = np.random.default_rng()
    wanted = []
    for shelf in shelves.all:
        kind = f"<u{max(1, shelf.width // 8)}"
        numbers = shelf.bits.view(kind)
        blocks = shelf.size // BLOCK_BYTES
        per_block = len(numbers) // blocks
        for _ in range(rounds):
            block = rng.integers(0, blocks, (count, 1)) * per_block
            wanted.append((numbers, block + rng.integers(0, per_block, (count, 8))))
    return _us(lambda: [numbers.take(places) for numbers, places in wanted]) / rounds / count


def _us(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return 1e6 * (time.perf_counter() - began)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sieve", description="filters of old keys")
    parser.add_argument("--keys", type=int, default=2_500_000, help="in each generation")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
