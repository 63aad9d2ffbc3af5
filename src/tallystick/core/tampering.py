"""What of a batch is not as it was notched: which places have lost their event, and which rows have no place.

A leaf tells that a row is not what it was, never what it was. So a row is named by its id, and a place by its
number: rows that still give their leaves keep the order, and what lies between two of them belongs between them.
Places and rows are counted from 0.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

Leaves = Sequence[tuple[UUID, bytes]]
"""The rows of a batch in order of id, each with the leaf it gives today."""

Fitting = Sequence[tuple[int, UUID]]
"""Places and the rows that are still in them, in order."""


class Misfit(NamedTuple):
    places: tuple[int, ...]  # whose leaf no row gives
    rows: tuple[int, ...]  # whose leaf is in no place
    fitting: Fitting


def misfit(notched: Sequence[bytes], stored: Leaves) -> Misfit:
    free: defaultdict[bytes, list[int]] = defaultdict(list)
    for place in range(len(notched) - 1, -1, -1):
        free[notched[place]].append(place)
    rows: list[int] = []
    fitting: list[tuple[int, UUID]] = []
    for number, (identity, leaf) in enumerate(stored):
        if free.get(leaf):
            fitting.append((free[leaf].pop(), identity))
        else:
            rows.append(number)
    places = sorted(place for left in free.values() for place in left)
    return Misfit(tuple(places), tuple(rows), tuple(sorted(fitting)))


def changed(fitting: Fitting, places: Sequence[int], rows: Sequence[tuple[int, UUID]]) -> dict[int, int]:
    """Misfitting rows that can be what is left of an event, by place: ids do not change lightly.

    One place and one row are taken together whatever the id says.
    """
    pairs: dict[int, int] = {}
    for number, identity in rows:
        for place in places:
            if place not in pairs and may_stand(fitting, place, identity):
                pairs[place] = number
                break
    if not pairs and len(places) == len(rows) == 1:
        return {places[0]: rows[0][0]}
    return pairs


def may_stand(fitting: Fitting, place: int, identity: UUID) -> bool:
    """Whether a row of this id lies between those that are still in their places."""
    return all((at < place) == (other < identity) for at, other in fitting)


def only_possible(fitting: Fitting, place: int, first: UUID, lost: Iterable[UUID]) -> UUID | None:
    """Which of the ids that are known to be lost can have stood in a place: the first that comes after what is
    left before it, and before what is left after it. `first` is the batch's first id."""
    low = max((other for at, other in fitting if at < place), default=first)
    high = min((other for at, other in fitting if at > place), default=None)
    return min((each for each in lost if each > low and (high is None or each < high)), default=None)
