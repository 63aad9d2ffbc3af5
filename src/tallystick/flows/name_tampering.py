"""Say what of a chain is not as it was notched: each event once, by its id wherever a row or a key still tells it,
else by its place in its batch.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from tallystick.core import ids
from tallystick.core.proof import GENESIS, link
from tallystick.core.tampering import Misfit, changed, may_stand, misfit, only_possible
from tallystick.store import events, proving
from tallystick.store.db import Conn
from tallystick.store.events import Batch
from tallystick.store.proving import Keyed, Record, Stored


@dataclass(slots=True)
class _Suspect:
    """A record that does not hold what it held, or does not follow; `gone` and `strange` is what remains to be
    explained of it: places, and rows by their number."""

    batch: Batch
    rows: list[Stored]
    found: Misfit
    gone: set[int]
    strange: dict[int, Stored]

    def place(self, number: int) -> str:
        return f"{self.where}, place {number + 1} of {len(self.batch.leaves)}"

    @property
    def where(self) -> str:
        return f"batch {self.batch.batch}, position {self.batch.position}"


@dataclass(slots=True)
class Naming:
    """One organization's chain; `customers`: name only events that are, were or may have been theirs."""

    organization_id: UUID
    customers: frozenset[UUID] | None
    differences: list[str] = field(default_factory=list)
    named: set[UUID] = field(default_factory=set)

    async def look(
        self, conn: Conn, wrong: Sequence[Record], loose: Sequence[Stored], lost: Sequence[Keyed]
    ) -> None:
        """Each misfit has one explanation: moved elsewhere, changed where it is, gone, or added.

        `loose` are events of batches that the chain does not have, `lost` keys without their event.
        """
        suspects, unmarked = await self._suspects(conn, wrong)
        loose = self._moved(suspects, loose)
        owners = {each.event_id: each.customer_id for each in lost}
        for suspect in suspects:
            self._changed(suspect, owners)
        for suspect in suspects:
            self._gone(suspect, owners)
        for suspect in suspects:
            for row in suspect.strange.values():
                self._say(row, f"was added to {suspect.where}, which has no place for it")
        for row in loose:
            self._say(row, f"was added: it says batch {row.batch}, which the chain does not have")
        for row in unmarked:
            self._marks(row)

    async def _suspects(self, conn: Conn, wrong: Sequence[Record]) -> tuple[list[_Suspect], list[Stored]]:
        """The wrong records with what they have, and the rows whose marks are wrong."""
        stored: dict[int, list[Stored]] = {each.batch: [] for each in wrong}
        for row in await proving.stored_in(conn, numbers=sorted(stored)):
            stored[row.batch].append(row)
        suspects: list[_Suspect] = []
        unmarked: list[Stored] = []
        derived: dict[int, bytes] = {}
        for record in wrong:
            before, batch = await self._record(conn, record.position)
            ours = stored[batch.batch]
            leaves: Sequence[bytes] = batch.leaves
            if record.follows is False:
                leaves = self._record_changed(batch, [row.leaf for row in ours], before, derived)
            found = misfit(leaves, [(row.id, row.leaf) for row in ours])
            strange = {number: ours[number] for number in found.rows}
            suspects.append(_Suspect(batch, ours, found, set(found.places), strange))
            self._columns_changed(batch, ours, found)
            unmarked += [row for row in ours if not (row.carries_leaf and row.marks_agree)]
        return suspects, unmarked

    async def _record(self, conn: Conn, position: int) -> tuple[bytes, Batch]:
        """A record, and the digest before it."""
        found = await events.batches(
            conn, organization_id=self.organization_id, after=max(position - 2, 0), until=position
        )
        return next((each.digest for each in found if each.position == position - 1), GENESIS), found[-1]

    def _record_changed(
        self, batch: Batch, stored: Sequence[bytes], before: bytes, derived: dict[int, bytes]
    ) -> Sequence[bytes]:
        """Say what of a record was changed, if it was this and not the one before; its leaves as they must have been."""
        position = batch.position
        befores = [derived[position - 1], before] if position - 1 in derived else [before]
        for each in befores:
            if link(each, position, b"".join(batch.leaves)) == batch.digest:
                return batch.leaves  # it follows from what the record before it must have been
            if link(each, position, b"".join(stored)) == batch.digest:
                self.differences.append(
                    f"the leaves of the chain's record at position {position} were changed: "
                    "its events still give its digest"
                )
                return stored
        derived[position] = link(befores[0], position, b"".join(batch.leaves))
        self.differences.append(
            f"the chain's record at position {position} was changed: "
            "its digest does not follow from the record before it and its leaves"
        )
        return batch.leaves

    def _columns_changed(self, batch: Batch, ours: Sequence[Stored], found: Misfit) -> None:
        record = f"the chain's record at position {batch.position}"
        if batch.events != len(batch.leaves):
            self.differences.append(f"{record} says {batch.events} events and has {len(batch.leaves)} leaves")
        if ours and not found.places and not found.rows and ours[0].id != batch.first_event_id:
            said, first = (ids.show(ids.EVENT, each) for each in (batch.first_event_id, ours[0].id))
            self.differences.append(f"{record} begins with {said}, its events with {first}")

    def _moved(self, suspects: Sequence[_Suspect], loose: Sequence[Stored]) -> list[Stored]:
        """Rows that are whole, and stand elsewhere than they were notched. What is left of the loose ones."""
        homes = {
            suspect.batch.leaves[place]: (suspect, place) for suspect in suspects for place in suspect.gone
        }
        for suspect in suspects:
            for number, row in list(suspect.strange.items()):
                if self._found_home(row, homes):
                    del suspect.strange[number]
        return [row for row in loose if not self._found_home(row, homes)]

    def _found_home(self, row: Stored, homes: dict[bytes, tuple[_Suspect, int]]) -> bool:
        home = homes.pop(row.leaf, None)
        if home is None:
            return False
        suspect, place = home
        suspect.gone.discard(place)
        self._say(row, f"was moved: it says batch {row.batch}, and belongs to {suspect.place(place)}")
        return True

    def _changed(self, suspect: _Suspect, owners: dict[UUID, UUID]) -> None:
        rows = [(number, row.id) for number, row in suspect.strange.items()]
        for place, number in changed(suspect.found.fitting, sorted(suspect.gone), rows).items():
            row = suspect.strange.pop(number)
            suspect.gone.discard(place)
            where = suspect.place(place)
            old = self._stood_in(suspect, place, owners)
            if old is not None and old != row.id and not may_stand(suspect.found.fitting, place, row.id):
                self.named.add(row.id)
                where += f"; it says {ids.show(ids.EVENT, row.id)} now"
                self._name(
                    old, f"was changed since it was stored: {where}", {row.customer_id, owners.get(old)}
                )
            else:
                self._say(row, f"was changed since it was stored: {where}", owners.get(row.id))

    def _stood_in(self, suspect: _Suspect, place: int, owners: dict[UUID, UUID]) -> UUID | None:
        """The id of what a place has lost: a record begins with it, or a key was kept."""
        first = suspect.batch.first_event_id
        if place == 0:
            return first
        return only_possible(suspect.found.fitting, place, first, owners.keys() - self.named)

    def _gone(self, suspect: _Suspect, owners: dict[UUID, UUID]) -> None:
        for place in sorted(suspect.gone):
            identity = self._stood_in(suspect, place, owners)
            if identity is None:
                self.differences.append(f"an event that had no key is gone: {suspect.place(place)}")
                continue
            self._name(identity, f"is gone: {suspect.place(place)}", {owners.get(identity)})

    def _marks(self, row: Stored) -> None:
        """What is beside the facts of an event whose facts are as they were."""
        if not row.carries_leaf:
            self._say(row, "carries another leaf than its facts give")
        elif row.voids is not None:
            taken_back = ids.show(ids.EVENT, row.voids)
            self._say(row, f"takes back the event {taken_back}, which is not there or not marked so")
        else:
            self._say(row, f"is marked as taken back by batch {row.voided}, which has no void of it")

    def _say(self, row: Stored, what: str, owner: UUID | None = None) -> None:
        self._name(row.id, what, {row.customer_id, owner or row.customer_id})

    def _name(self, event_id: UUID, what: str, whose: Collection[UUID | None]) -> None:
        """Once; and where only some customers are looked at, not if it is known to be another's."""
        if event_id in self.named:
            return
        self.named.add(event_id)
        if self.customers is None or None in whose or self.customers & set(whose):
            self.differences.append(f"the event {ids.show(ids.EVENT, event_id)} {what}")


def tell_keys(lost: Iterable[Keyed], loose: Iterable[Keyed], told: Collection[UUID]) -> list[str]:
    """Keys without their event, and events without their key; not those that were named already."""
    return [
        *(
            f"a key is kept for the event {ids.show(ids.EVENT, each.event_id)}, which is not there"
            for each in lost
            if each.event_id not in told
        ),
        *(
            f"the event {ids.show(ids.EVENT, each.event_id)} has lost its key: a repeat of it would count again"
            for each in loose
            if each.event_id not in told
        ),
    ]
