"""Drafts: events on their way in, as they were sent, as they were judged, as they were answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct

from tallystick.core import ids
from tallystick.core.admission import Admitted
from tallystick.core.events import StoredEvent, UsageEvent
from tallystick.core.meters import Meter
from tallystick.core.proof import header_hash, header_mark, key_hash
from tallystick.core.subscriptions import Standing
from tallystick.core.wallets import Draw
from tallystick.errors import Problem


class Draft(Struct, gc=False):  # nothing in it leads back to it
    """One decoded event on its way in, with what came around it."""

    event: UsageEvent
    api_key_id: UUID | None = None
    header: str | None = None  # the Idempotency-Key
    index: int | None = None  # its place in a batch
    adjusts: Meter | None = None  # set: a signed correction of that meter's total
    reason: str | None = None
    key_attempt: int = 0

    def place(self, customer_id: UUID) -> bytes | None:
        """Where its key lives; an event without a key of its own is known by its header (ruling 12)."""
        if self.event.key is not None:
            return key_hash(customer_id, self.event.key, self.key_attempt)
        return None if self.header is None else header_hash(customer_id, self.header, self.index)

    def marked(self, number: int) -> int:
        """The id of an event with a key says what was sent, so that a repeat is told by its key's row alone."""
        return number if self.event.key is None else ids.marked(number, self.event.mark)

    def is_marked_in(self, event_id: UUID) -> bool:
        """Whether that event came with the key and the content of this one; if not, it may still have come so before
        ids were marked."""
        return self.event.key is not None and ids.mark_of(event_id) == self.event.mark

    @property
    def header_mark(self) -> int | None:
        return None if self.header is None else header_mark(self.header, self.index)


class Accepted(NamedTuple):
    """Counted, now or (`replayed`) when it first came with this very header."""

    event: StoredEvent
    reference: str
    replayed: bool = False


Outcome = Accepted | Problem


def is_repeat(problem: Problem) -> bool:
    """Whether it was refused only because it is there already, as it was sent."""
    details = problem.details
    return problem.code == "duplicate" and isinstance(details, Mapping) and details.get("identical") is True


@dataclass(slots=True)
class Work:
    """A draft that was judged by the catalogue, and is yet to be stored."""

    draft: Draft
    standing: Standing
    admitted: Admitted
    place: bytes | None
    id: UUID
    draw: Draw | None = None  # what it took of a wallet

    @property
    def is_plain(self) -> bool:
        """Nothing to lock beforehand and nothing to add afterwards: the one statement does it all."""
        return (
            not self.admitted.limits
            and self.admitted.spend is None
            and not self.admitted.late
            and all(meter.adds_up for meter, _ in self.admitted.contributions)
        )
