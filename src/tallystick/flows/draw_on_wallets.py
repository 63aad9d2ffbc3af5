"""Wallets: held while a batch is decided, spent event by event, and posted once a wallet and batch (ruling 24)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tallystick.core.admission import insufficient
from tallystick.core.subscriptions import Standing
from tallystick.core.wallets import (
    Draw,
    Movement,
    Wallet,
    ample,
    crossings,
    lapsed,
    opened,
    turned,
    usage,
)
from tallystick.errors import Problem, must
from tallystick.flows.books import Book
from tallystick.flows.check_access import wallets_read
from tallystick.flows.drafts import Work
from tallystick.flows.post_wallets import post_wallets
from tallystick.store import reservations, wallets
from tallystick.store.db import Conn, Later
from tallystick.store.wallets import Posting, WalletKey


@dataclass(slots=True)
class _Purse:
    """A wallet as it was found, as its period opened, and as it stands."""

    key: WalletKey
    standing: Standing  # of the customer
    found: Wallet
    opened: Wallet
    stands: Wallet
    moved: list[Movement]  # until it was opened: what was not settled in time, and a new period
    refused: bool = False

    def remember(self) -> None:
        """Whether the next events may be paid in short."""
        if self.refused or not ample(self.stands):
            self.standing.scarce.add(self.key.subscription_id)
        else:
            self.standing.scarce.discard(self.key.subscription_id)


class Wallets:
    """The wallets that a batch is paid from, locked."""

    def __init__(self, book: Book, purses: dict[UUID, _Purse], number: int | None) -> None:
        self._book = book
        self._purses = purses  # by subscription
        self._number = number  # of the batch

    @classmethod
    async def claim(
        cls, conn: Conn, book: Book, drawing: Sequence[Work], *, now: datetime
    ) -> "Later[Wallets]":
        """Lock the wallets, in one order; the first touch in a new period turns one (ruling 22).

        What was set aside and not settled in time is there again.
        """
        spends = {
            each.admitted.spend.subscription_id: (each.standing, each.admitted.spend)
            for each in drawing
            if each.admitted.spend is not None
        }
        keys = [
            WalletKey(standing.customer_id, subscription) for subscription, (standing, _) in spends.items()
        ]
        locked = await wallets.lock_for_batch(conn, keys) if keys else None

        async def held() -> "Wallets":
            if locked is None:
                return cls(book, {}, None)
            found, number = await locked()
            holding = [key for key, wallet in found.items() if wallet.held]
            expired = await reservations.expire(conn, holding, now=now) if holding else {}
            purses: dict[UUID, _Purse] = {}
            for key, (standing, spend) in zip(keys, spends.values(), strict=True):
                must(key in found, "a prepaid subscription has a wallet", subscription=key.subscription_id)
                wallet, moved = lapsed(found[key], expired.get(key, ()))
                if spend.period_index is not None:
                    wallet, anew = turned(wallet, spend.period_index, spend.included)
                    moved += anew
                purses[key.subscription_id] = _Purse(key, standing, found[key], wallet, wallet, moved)
            return cls(book, purses, number)

        return held

    async def foresee(self, conn: Conn, drawing: Sequence[Work], *, now: datetime) -> None:
        """Look up what pays for these as well, and lock nothing; what was spent before stays spent.

        A subscription that is only supposed has the wallet it would begin with.
        """
        spends = {
            each.admitted.spend.subscription_id: (each.standing, each.admitted.spend)
            for each in drawing
            if each.admitted.spend is not None
        }
        keys = [WalletKey(standing.customer_id, each) for each, (standing, _) in spends.items()]
        found = await wallets_read(
            conn, [key for key in keys if key.subscription_id not in self._purses], now=now
        )
        for key, (standing, spend) in zip(keys, spends.values(), strict=True):
            purse = self._purses.get(key.subscription_id)
            wallet = found.get(key) if purse is None else purse.stands
            if wallet is None:
                life = standing.current
                must(
                    life is not None, "a subscription that is supposed is usable", customer=standing.reference
                )
                assert life is not None
                model = self._book.catalogue.prepaid[life.plan_id].model
                wallet, _ = opened(model, spend.period_index or 0, spend.included)
            elif spend.period_index is not None:
                wallet, _ = turned(wallet, spend.period_index, spend.included)
            self._purses[key.subscription_id] = _Purse(key, standing, wallet, wallet, wallet, [])

    def refusal(self, each: Work) -> Problem | None:
        """Take the whole cost of an event, or nothing: then why not."""
        spend = each.admitted.spend
        if spend is None:
            return None
        purse = self._purses[spend.subscription_id]
        before, cost = purse.stands, spend.cost
        if not before.pays(cost, overdraft=spend.overdraft):
            purse.refused = True
            return insufficient(before, cost)
        purse.stands = after = before.spent(cost)
        each.draw = Draw(after.model, cost, after.remaining, not spend.overdraft and after.remaining <= 0)
        return None

    async def keep(self, conn: Conn, *, now: datetime) -> int | None:
        """Post what was spent, naming the batch it will be stored under; None where nothing is prepaid."""
        if not self._purses:
            return None
        organization = self._book.organization
        postings: list[Posting] = []
        for purse in self._purses.values():
            purse.remember()
            stands, crossed = crossings(purse.opened, purse.stands)
            if stands != purse.found:
                movements = [*purse.moved, *usage(purse.opened, stands)]
                postings.append(Posting(purse.key, stands, movements, batch=self._number, crossed=crossed))
        references = {purse.key.customer_id: purse.standing.reference for purse in self._purses.values()}
        await post_wallets(conn, organization, postings, references=references, now=now)
        return self._number
