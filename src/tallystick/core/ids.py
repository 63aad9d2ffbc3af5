"""Ids: a time-ordered uuid inside, a prefixed text outside (`cus_01k8…`), and one door between.

The text is the prefix of its kind, then 26 characters of Crockford's base 32 (lower case), which sorts as the
uuid does. Text becomes a uuid only here, so a subscription's id cannot wander into a customer's place.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final
from uuid import UUID

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
"""Of ten bits each; a table of all threes was faster by itself, and never in the processor's caches when it was wanted."""
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_TEXT: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
_MARK_AT: Final = 16
_MARK: Final = 0xFFFFFFFF << _MARK_AT

ORGANIZATION: Final = "org"
CUSTOMER: Final = "cus"
FEATURE: Final = "ftr"
METER: Final = "mtr"
PLAN: Final = "pln"
PLAN_PRICE: Final = "pp"
PLAN_FEATURE: Final = "pf"
SUBSCRIPTION: Final = "sub"
EVENT: Final = "evt"
INVOICE: Final = "inv"
INVOICE_LINE: Final = "inl"
TRANSACTION: Final = "txn"
API_KEY: Final = "key"
CLOCK_RUN: Final = "clr"
CORRECTION: Final = "cor"
SIMULATION: Final = "sim"
AI_PRICE: Final = "aip"
AI_ALIAS: Final = "aia"
CREDIT_PACK: Final = "cpk"
PURCHASE: Final = "pur"
LEDGER_ENTRY: Final = "led"
RESERVATION: Final = "rsv"
DOMAIN_EVENT: Final = "dev"
REQUEST: Final = "req"


def show(prefix: str, identity: UUID) -> str:
    """The public text of an id.

    >>> show("cus", UUID("01890a5d-ac96-774b-bcce-b302099a8057"))
    'cus_01h455vb4pex5vsknk084sn02q'
    """
    number = identity.int
    return (
        f"{prefix}_{_first_eleven(number >> 75)}"
        f"{_PAIRS[number >> 65 & 1023]}{_PAIRS[number >> 55 & 1023]}{_PAIRS[number >> 45 & 1023]}"
        f"{_PAIRS[number >> 35 & 1023]}{_PAIRS[number >> 25 & 1023]}{_PAIRS[number >> 15 & 1023]}"
        f"{_PAIRS[number >> 5 & 1023]}{_ALPHABET[number & 31]}"
    )


def show_all(prefix: str, identities: Sequence[UUID]) -> list[str]:
    """`show` of each, many in one go, which asks no table that has left the processor's caches meanwhile."""
    shown: list[str] = []
    for start in range(0, len(identities), _LANES):
        some = identities[start : start + _LANES]
        number = int.from_bytes(b"".join([each.int.to_bytes(_LANE_BYTES) for each in some]))
        for low, high, shift in _SPREAD:
            number = number & low | (number & high) << shift
        text = number.to_bytes(_LANE_BYTES * len(some)).translate(_LETTERS).decode()
        shown += [f"{prefix}_{text[at : at + 26]}" for at in range(6, len(text), _LANE_BYTES)]
    return shown


_LANES: Final = 64
_LANE_BYTES: Final = 32
_LETTERS: Final = bytes.maketrans(bytes(range(32)), _ALPHABET.encode())


def _spread() -> list[tuple[int, int, int]]:
    """How 160 bits in a lane of 32 bytes become 32 times five, one to a byte: by halves, all lanes at once.

    Of each step which bits stay, which move, and how far.
    """
    steps, bits, room = [], 160, 8 * _LANE_BYTES
    while bits > 5:
        half, low, high = bits // 2, 0, 0
        for at in range(0, 8 * _LANE_BYTES * _LANES, room):
            low |= ((1 << half) - 1) << at
            high |= ((1 << half) - 1) << at + half
        bits, room = half, room // 2
        steps.append((low, high, room - half))
    return steps


_SPREAD: Final = _spread()


@lru_cache(maxsize=256)
def _first_eleven(number: int) -> str:
    """Of the time, to half a millisecond: ids that are made together share them."""
    return (
        f"{_ALPHABET[number >> 50]}{_PAIRS[number >> 40 & 1023]}{_PAIRS[number >> 30 & 1023]}"
        f"{_PAIRS[number >> 20 & 1023]}{_PAIRS[number >> 10 & 1023]}{_PAIRS[number & 1023]}"
    )


def marked(number: int, mark: int) -> int:
    """A time-ordered id, as a number, with four bytes of somebody's choice where it had noise. Noise are fourteen bits
    before them then, and the sixteen after them, where events have their bunch."""
    return all_marked((number,), (mark,))[0]


def all_marked(numbers: Iterable[int], marks: Iterable[int]) -> list[int]:
    """`marked` of each."""
    return [number & ~_MARK | mark << _MARK_AT for number, mark in zip(numbers, marks, strict=True)]


def mark_of(identity: UUID) -> int:
    """Those four bytes; noise in an id that has none."""
    return (identity.int & _MARK) >> _MARK_AT


def last_six(number: int) -> str:
    """The last six characters of an id, which are the last thirty bits of its number."""
    return f"{_PAIRS[number >> 20 & 1023]}{_PAIRS[number >> 10 & 1023]}{_PAIRS[number & 1023]}"


def read(prefix: str, text: str) -> UUID | None:
    """The id a public text names, or None when it names none of this kind."""
    head, separator, tail = text.rpartition("_")
    if head != prefix or not separator or _TEXT.fullmatch(tail) is None:
        return None
    number = 0
    for character in tail:
        number = number << 5 | _VALUES[character]
    return UUID(int=number)
