"""Subscriptions: states, legal moves, and where a customer stands when an event arrives."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from tallystick.core.catalog import Terms
from tallystick.core.meters import Meter
from tallystick.core.times import MONTHS, Anchor, Period, index_at, period
from tallystick.core.wallets import Model
from tallystick.errors import Problem


class Status(StrEnum):
    DRAFT = "draft"
    PENDING_PAYMENT = "pending_payment"
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    PAUSED = "paused"
    CANCELED = "canceled"


class Step(StrEnum):
    ACTIVATE = "activate"
    CANCEL = "cancel"


MOVES: Final = {
    (Status.DRAFT, Step.ACTIVATE): Status.ACTIVE,
    (Status.PENDING_PAYMENT, Step.ACTIVATE): Status.ACTIVE,
    (Status.DRAFT, Step.CANCEL): Status.CANCELED,
    (Status.PENDING_PAYMENT, Step.CANCEL): Status.CANCELED,
    (Status.TRIALING, Step.CANCEL): Status.CANCELED,
    (Status.ACTIVE, Step.CANCEL): Status.CANCELED,
    (Status.PAST_DUE, Step.CANCEL): Status.CANCELED,
    (Status.PAUSED, Step.CANCEL): Status.CANCELED,
}

USABLE: Final = frozenset({Status.ACTIVE, Status.TRIALING, Status.PAST_DUE})
"""The states that give access (behaviour.md §5.2); past_due is grace."""


def move(status: Status, step: Step) -> Status:
    """The state after a step; anything the table does not know is refused by name."""
    try:
        return MOVES[status, step]
    except KeyError:
        code = "subscription_already_canceled" if status is Status.CANCELED else "invalid_subscription_status"
        raise Problem(code, f"A subscription that is {status} cannot {step}.") from None


def periods_per_invoice(interval: str | None) -> int | None:
    """How many usage periods one base charge covers; None when the base is charged only once or never."""
    return 1 if interval == "weekly" else MONTHS.get(interval or "")


@dataclass(frozen=True, slots=True)
class Life:
    """One subscription's time with the customer, and the plan it is lived under."""

    subscription_id: UUID
    plan_id: UUID
    status: Status
    anchor: Anchor
    zone: str
    ends_at: datetime | None  # excluded
    price_id: UUID | None = None  # None: nothing is asked for the plan
    unlimited: set[str] = field(default_factory=set, compare=False, repr=False)
    """Event codes that `admission` found free of limits whenever they happen in this life: a memory, no fact."""

    priced: dict[str, tuple[tuple[Meter, Terms], ...]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Event codes that cost the same whenever they come, and what is paid for: a memory, no fact."""

    lately: list[tuple[int, Period]] = field(default_factory=list, compare=False, repr=False)
    """The period that was asked for last: a memory, no fact."""

    def open_since(self, now: datetime) -> datetime:
        """When the period that is open at `now` began; the anchor, before it."""
        where = self.period_at(now)
        return self.anchor.at if where is None else where[1].start

    def __contains__(self, at: datetime) -> bool:
        return self.anchor.at <= at and (self.ends_at is None or at < self.ends_at)

    def period_at(self, at: datetime) -> tuple[int, Period] | None:
        """The usage period that contains `at`, with its index; None before the subscription began."""
        if self.lately and at in self.lately[0][1]:
            return self.lately[0]
        index = index_at(self.anchor, at, self.zone)
        if index < 0:
            return None
        self.lately[:] = [(index, period(self.anchor, index, self.zone))]
        return self.lately[0]


class Tariff(NamedTuple):
    """What events of one code take of a wallet, in its unit, as long as it stands in one period and has plenty."""

    subscription_id: UUID
    period_index: int
    model: Model
    per_value: Decimal
    per_event: Decimal


class Plain(NamedTuple):
    """What becomes of any event of one code, as long as both it and the clock are within a span: nothing is asked of it.

    Each meter takes it, by its value or, where it `counts`, as one.
    """

    since: datetime
    until: datetime  # excluded
    meters: tuple[tuple[UUID, bool], ...]  # ids, and whether they count
    tariff: Tariff | None = None  # where it is prepaid


@dataclass(frozen=True, slots=True)
class Standing:
    """Who a customer is and what they hold, for deciding on an event."""

    customer_id: UUID
    reference: str  # how answers name them: the caller's id if there is one, else the public id
    current: Life | None
    past: tuple[Life, ...] = ()
    plain: dict[str, Plain] = field(default_factory=dict, compare=False, repr=False)
    """By event code, how `admission` judges it as long as nothing must be asked: a memory, no fact."""

    scarce: set[UUID] = field(default_factory=set, compare=False, repr=False)
    """Subscriptions whose wallet had no plenty when somebody last looked closely: a memory, no fact."""

    def life_for(self, occurred_at: datetime, now: datetime) -> Life:
        """The life an event belongs to: the usable one now, else an ended one it happened in (ruling 7)."""
        current = self.usable(now)
        if current is not None:
            return current
        for life in (self.current, *self.past):
            if life is not None and occurred_at in life:
                return life
        raise Problem("no_active_subscription")

    def usable(self, now: datetime) -> Life | None:
        """What gives access at `now`; a scheduled end counts from its instant, closed or not."""
        life = self.current
        return life if life is not None and (life.ends_at is None or now < life.ends_at) else None
