"""The sandbox bank: the published test cards behave as written, and no money moves.

    4242 4242 4242 4242   pays
    4000 0000 0000 9995   insufficient funds
    4000 0000 0000 0002   declined
    4000 0000 0000 0069   expired
    4000 0027 6000 3184, 4000 0025 0000 3155, 4000 0000 0000 3220   ask for 3-D Secure, then pay
    4000 0000 0000 0341   pays at checkout, is declined at every renewal

A card past its expiry date is declined as expired, at checkout and at renewals alike.
"""

from datetime import date
from hashlib import sha256
from typing import Final

from tallystick.providers.payments import Card, Challenge, Charged, Declined, SavedCard

GOOD_CARD: Final = "4242424242424242"
_ALWAYS: Final = {
    "4000000000009995": ("insufficient_funds", "Your card has insufficient funds."),
    "4000000000000002": ("card_declined", "Your card was declined."),
    "4000000000000069": ("expired_card", "Your card has expired."),
}
_CONFIRM: Final = frozenset({"4000000000003220", "4000002500003155", "4000002760003184"})
_LATER: Final = "4000000000000341"
_PAYS: Final = frozenset({GOOD_CARD, _LATER}) | _CONFIRM
_EXPIRED: Final = ("expired_card", "Your card has expired.")


class Sandbox:
    name = "commet"  # what the published API calls a hosted provider of its own

    async def charge_card(
        self, card: Card, *, amount_minor: int, currency: str, key: str, today: date
    ) -> Charged | Declined | Challenge:
        reference = _reference(f"{key}:{card.number}")
        if card.number in _ALWAYS:
            return Declined(reference, *_ALWAYS[card.number])
        if card.number not in _PAYS:
            return Declined(
                reference, "card_declined", "The sandbox takes test cards only, such as 4242 4242 4242 4242."
            )
        saved = _save(card)
        if _is_expired(saved, today):
            return Declined(reference, *_EXPIRED)
        return Challenge(_pack(saved)) if card.number in _CONFIRM else Charged(reference, saved)

    async def confirm(
        self, challenge: str, *, agreed: bool, amount_minor: int, currency: str, key: str, today: date
    ) -> Charged | Declined:
        saved = _unpack(challenge)
        reference = _reference(f"{key}:{challenge}:{agreed}")
        if saved is None or not agreed:
            return Declined(reference, "authentication_required", "The payment was not confirmed.")
        return Charged(reference, saved)

    async def charge_saved(
        self, card: SavedCard, *, amount_minor: int, currency: str, key: str, today: date
    ) -> Charged | Declined:
        reference = _reference(key)
        if _is_expired(card, today):
            return Declined(reference, *_EXPIRED)
        if card.last4 == _LATER[-4:]:
            return Declined(reference, *_ALWAYS["4000000000000002"])
        return Charged(reference, card)


def sandbox_card(exp_year: int = 2034) -> Card:
    """The card that pays, for demonstrations."""
    return Card(GOOD_CARD, 12, exp_year, "123")


def _reference(key: str) -> str:
    """The same key gives the same reference: a repeated charge is the same charge."""
    return "sandbox_" + sha256(key.encode()).hexdigest()[:24]


def _save(card: Card) -> SavedCard:
    token = "card_" + sha256(card.number.encode()).hexdigest()[:16]
    return SavedCard(token, "visa", card.number[-4:], card.exp_month, card.exp_year)


def _is_expired(card: SavedCard, today: date) -> bool:
    return (card.exp_year, card.exp_month) < (today.year, today.month)


def _pack(card: SavedCard) -> str:
    return f"{card.last4}.{card.exp_month}.{card.exp_year}"


def _unpack(challenge: str) -> SavedCard | None:
    for number in _CONFIRM:
        last4, _, rest = challenge.partition(".")
        month, _, year = rest.partition(".")
        if last4 == number[-4:] and month.isdecimal() and year.isdecimal():
            return _save(Card(number, int(month), int(year), ""))
    return None
