"""What a payment provider can do. Every charge carries a key: the same key never charges twice."""

from dataclasses import dataclass
from datetime import date
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Card:
    """As typed on the checkout page; it goes to the provider and is kept nowhere."""

    number: str
    exp_month: int
    exp_year: int
    cvc: str


@dataclass(frozen=True, slots=True)
class SavedCard:
    """What may be kept: the provider's handle and what a person recognizes the card by."""

    token: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, slots=True)
class Charged:
    reference: str
    card: SavedCard


@dataclass(frozen=True, slots=True)
class Declined:
    reference: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """The bank wants its customer to confirm (3-D Secure) before it says yes."""

    token: str


class Payments(Protocol):
    name: str

    async def charge_card(
        self, card: Card, *, amount_minor: int, currency: str, key: str, today: date
    ) -> Charged | Declined | Challenge: ...

    async def confirm(
        self, challenge: str, *, agreed: bool, amount_minor: int, currency: str, key: str, today: date
    ) -> Charged | Declined: ...

    async def charge_saved(
        self, card: SavedCard, *, amount_minor: int, currency: str, key: str, today: date
    ) -> Charged | Declined: ...
