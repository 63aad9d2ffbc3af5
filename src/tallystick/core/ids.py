"""Ids: a time-ordered uuid inside, a prefixed text outside (`cus_01k8…`), and one door between.

The text is the prefix of its kind, then 26 characters of Crockford's base 32 (lower case), which sorts as the
uuid does. Text becomes a uuid only here, so a subscription's id cannot wander into a customer's place.
"""

import re
from typing import Final
from uuid import UUID

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_TEXT: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")

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
        f"{prefix}_"
        f"{_PAIRS[number >> 120 & 1023]}{_PAIRS[number >> 110 & 1023]}{_PAIRS[number >> 100 & 1023]}"
        f"{_PAIRS[number >> 90 & 1023]}{_PAIRS[number >> 80 & 1023]}{_PAIRS[number >> 70 & 1023]}"
        f"{_PAIRS[number >> 60 & 1023]}{_PAIRS[number >> 50 & 1023]}{_PAIRS[number >> 40 & 1023]}"
        f"{_PAIRS[number >> 30 & 1023]}{_PAIRS[number >> 20 & 1023]}{_PAIRS[number >> 10 & 1023]}"
        f"{_PAIRS[number & 1023]}"
    )


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
