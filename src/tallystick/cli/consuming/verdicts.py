"""What is done with a message, by what became of its event."""

from enum import Enum, auto
from typing import Final

from tallystick.core.limits import REDELIVERED_AFTER_S_MAX
from tallystick.errors import Problem
from tallystick.flows.drafts import Accepted, Outcome, is_repeat

_MAY_HEAL: Final = frozenset((402, 403, 404))
"""Statuses of refusals that somebody can put right: a customer who comes later, a plan, a limit, a wallet."""


class Verdict(Enum):
    STORED = auto()  # acknowledge
    REPEAT = auto()  # acknowledge: it is there already
    LATER = auto()  # have it delivered again
    REFUSED = auto()  # keep it where somebody sees it, then have it delivered no more


def verdict(outcome: Outcome, *, deliveries: int, tries: int) -> Verdict:
    """`deliveries` of this message so far; what may heal is tried so often before it is given up."""
    if isinstance(outcome, Accepted):
        return Verdict.STORED
    if is_repeat(outcome):
        return Verdict.REPEAT
    if outcome.kind.retryable or (outcome.kind.status in _MAY_HEAL and deliveries < tries):
        return Verdict.LATER
    return Verdict.REFUSED


def delay_s(outcome: Problem, *, deliveries: int) -> int:
    """How long until it is delivered again: longer each time."""
    if outcome.retry_after_s is not None:
        return outcome.retry_after_s
    return min(1 << min(max(deliveries - 1, 0), 16), REDELIVERED_AFTER_S_MAX)
