"""Drafts: events on their way in, as they were sent, as they were judged, as they were answered."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload
from uuid import UUID

from tallystick.core import ids
from tallystick.core.admission import Admitted
from tallystick.core.events import StoredEvent, UsageEvent
from tallystick.core.meters import Meter
from tallystick.core.proof import header_hash, header_mark, key_hash
from tallystick.core.rows import Table
from tallystick.core.subscriptions import Standing
from tallystick.core.wallets import Draw
from tallystick.errors import Problem, must


class Draft(NamedTuple):
    """One decoded event on its way in, with what came around it."""

    event: UsageEvent
    api_key_id: UUID | None = None
    header: str | None = None  # the Idempotency-Key
    nth: int | None = None  # its place in a batch, from 0
    adjusts: Meter | None = None  # set: a signed correction of that meter's total
    reason: str | None = None
    key_attempt: int = 0

    def place(self, customer_id: UUID) -> bytes | None:
        """Where its key lives; an event without a key of its own is known by its header (ruling 12)."""
        if self.event.key is not None:
            return key_hash(customer_id, self.event.key, self.key_attempt)
        return None if self.header is None else header_hash(customer_id, self.header, self.nth)

    def marked(self, number: int) -> int:
        """The id of an event with a key says what was sent, so that a repeat is told by its key's row alone."""
        return number if self.event.key is None else ids.marked(number, self.event.mark)

    @property
    def elsewhere(self) -> "Draft":
        """This draft, its key at the next place: another key has the one it had."""
        return self._replace(key_attempt=self.key_attempt + 1)

    @property
    def header_mark(self) -> int | None:
        return None if self.header is None else header_mark(self.header, self.nth)


def drafted(
    events: Sequence[UsageEvent], places: Sequence[int], *, api_key_id: UUID | None, header: str | None
) -> Table[Draft]:
    """Events that came with one request, and the places that they had in it."""
    count = len(events)
    none = [None] * count
    return Table(Draft, events, [api_key_id] * count, [header] * count, places, none, none, [0] * count)


class Accepted(NamedTuple):
    """Counted, now or (`replayed`) when it first came with this very header."""

    event: StoredEvent
    reference: str
    replayed: bool = False


Outcome = Accepted | Problem


class Outcomes(Sequence[Outcome]):
    """Of a batch of which most was accepted: that by columns, and what is told of the others by their places."""

    __slots__ = ("_accepted", "_others", "_places")

    def __init__(self, accepted: Table[Accepted], others: Mapping[int, Outcome]) -> None:
        """`accepted` has rows for the others as well, which mean nothing."""
        self._accepted, self._others, self._places = accepted, others, sorted(others)

    def __len__(self) -> int:
        return len(self._accepted)

    @overload
    def __getitem__(self, place: int) -> Outcome: ...
    @overload
    def __getitem__(self, place: slice) -> "Outcomes": ...
    def __getitem__(self, place: "int | slice") -> "Outcome | Outcomes":
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            must(step == 1, "outcomes are cut into shares")
            some = self._places[bisect_left(self._places, start) : bisect_left(self._places, stop)]
            return Outcomes(self._accepted[start:stop], {at - start: self._others[at] for at in some})
        place = range(len(self))[place]
        return self._others.get(place) or self._accepted[place]

    def __iter__(self) -> Iterator[Outcome]:
        every: list[Outcome] = [*self._accepted]
        for place, each in self._others.items():
            every[place] = each
        return iter(every)

    @property
    def accepted(self) -> Sequence[Accepted]:
        if not self._others:
            return self._accepted
        if any(isinstance(each, Accepted) for each in self._others.values()):
            return [each for each in self if isinstance(each, Accepted)]
        wanted = [True] * len(self)
        for place in self._others:
            wanted[place] = False
        return self._accepted.where(wanted)

    @property
    def refused(self) -> dict[int, Problem]:
        return {place: each for place in self._places if isinstance(each := self._others[place], Problem)}


class Taken(NamedTuple):
    """What became of a batch, in its order."""

    outcomes: Sequence[Outcome]
    apart: Sequence[int] = ()
    """Places of events that are yet to be taken: their keys may be old ones. What stands there means nothing."""

    def share(self, start: int, stop: int) -> "Taken":
        """Of the events from one place up to another."""
        first, last = bisect_left(self.apart, start), bisect_left(self.apart, stop)
        return Taken(self.outcomes[start:stop], [place - start for place in self.apart[first:last]])

    def then(self, other: "Taken") -> "Taken":
        """Both, one after the other."""
        count = len(self.outcomes)
        return Taken(
            [*self.outcomes, *other.outcomes], [*self.apart, *(count + place for place in other.apart)]
        )


def accepted(outcomes: Sequence[Outcome]) -> Sequence[Accepted]:
    """In order."""
    if isinstance(outcomes, Outcomes):
        return outcomes.accepted
    return [each for each in outcomes if isinstance(each, Accepted)]


def refused(outcomes: Sequence[Outcome]) -> dict[int, Problem]:
    """By their places, in order."""
    if isinstance(outcomes, Outcomes):
        return outcomes.refused
    return {place: each for place, each in enumerate(outcomes) if isinstance(each, Problem)}


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
    id: UUID  # marked (`Draft.marked`)
    draw: Draw | None = None  # what it took of a wallet

    def is_marked_in(self, event_id: UUID) -> bool:
        """Whether that event came with the key and the content of this one, which its own id says too; if not, it may still
        have come so before ids were marked."""
        return self.draft.event.key is not None and ids.mark_of(event_id) == ids.mark_of(self.id)

    @property
    def is_plain(self) -> bool:
        """Nothing to lock beforehand and nothing to add afterwards: the one statement does it all."""
        return (
            not self.admitted.limits
            and self.admitted.spend is None
            and not self.admitted.late
            and all(meter.adds_up for meter, _ in self.admitted.contributions)
        )
