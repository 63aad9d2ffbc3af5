"""Check the chain that events are notched in: every record follows from the one before, every event gives its leaf.

That is looked at where the events are, a stretch of the chain at a time; stretches may be looked at side by side.
Only where something is wrong are records and rows fetched, to name it.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from uuid import UUID

import psycopg

from tallystick.core.events import StoredEvent
from tallystick.core.proof import GENESIS, link
from tallystick.flows.name_tampering import Naming, tell_keys
from tallystick.flows.read_usage import leaf_of
from tallystick.store import archives, events, proving
from tallystick.store.archives import Archived
from tallystick.store.db import Conn
from tallystick.store.organizations import Organization
from tallystick.store.portions import portions
from tallystick.store.proving import End, Keyed, Record, Stored

EVENTS_PER_STRETCH: Final = 10_000
"""A tenth of a second's work or so."""
_SUSPECTS_MAX: Final = 200
"""So many wrong records are looked into; of the rest it is said how many they are."""
_NAMED_MAX: Final = 1_000

Stretch = tuple[int, int]
"""Records after the first position and up to the second."""


@dataclass(slots=True)
class Checked:
    """What a stretch of the chain looks like."""

    stretch: Stretch
    batches: int
    events: int
    wrong: list[Record]
    missing: list[int]
    absent: int  # events that are not there in records that are right otherwise: archived, if as many were


@dataclass(slots=True)
class ChainReport:
    position: int
    digest: bytes
    batches: int
    events: int
    differences: list[str] = field(default_factory=list)
    named: set[UUID] = field(default_factory=set)
    needs: list[Archived] = field(
        default_factory=list
    )  # months whose events are in its records, and not here


async def verify_chain(
    conn: Conn,
    organization: Organization,
    *,
    customers: Collection[UUID] | None = None,
    one_by_one: bool = False,
) -> ChainReport:
    """Every batch gives its digest from the one before it, and every stored event its leaf.

    Reads every event of the organization once and holds no more than a stretch. `customers`: name only events that
    are, were or may have been theirs. `one_by_one` does it in plain Python, which is the reference.
    """
    checked = []
    for stretch in await stretches(conn, organization.id):
        await learn_newest(conn)
        checked.append(await check_stretch(conn, organization.id, stretch, one_by_one=one_by_one))
    return await conclude(conn, organization.id, checked, customers=customers)


async def learn_newest(conn: Conn) -> None:
    """Let stretches be found without a look at what came since."""
    with suppress(psycopg.Error):  # who may not do this, or not now, reads on, only slower
        await proving.refresh_index(conn)


async def stretches(conn: Conn, organization_id: UUID) -> list[Stretch]:
    """The chain as it is now, in parts of some ten thousand events."""
    last = (await proving.end_of_chain(conn, organization_id=organization_id)).last
    cuts = await proving.cuts(conn, organization_id=organization_id, events=EVENTS_PER_STRETCH, until=last)
    return list(pairwise([0, *cuts]))


async def check_stretch(
    conn: Conn, organization_id: UUID, stretch: Stretch, *, one_by_one: bool = False
) -> Checked:
    after, until = stretch
    check = _check_records if one_by_one else proving.check_records
    found = await check(conn, organization_id=organization_id, after=after, until=until)
    there = {record.position for record in found}
    wrong = [
        each for each in found if not (each.follows is not False and each.events_agree and each.marks_agree)
    ]
    absent: dict[int, int] = {}
    if wrong and await archives.events_of(conn, organization_id=organization_id):
        absent = await _absent(conn, organization_id, stretch, wrong)
    return Checked(
        stretch,
        batches=len(found),
        events=sum(record.events for record in found),
        wrong=[each for each in wrong if each.position not in absent],
        missing=[position for position in range(after + 1, until + 1) if position not in there],
        absent=sum(absent.values()),
    )


async def _absent(
    conn: Conn, organization_id: UUID, stretch: Stretch, wrong: Sequence[Record]
) -> dict[int, int]:
    """How many events the records lack, by position, of which nothing is wrong but that: what is there of them is what
    they say, in their order. Whether so many were archived is for the whole chain to say."""
    after, until = stretch
    suspects = {each.batch for each in wrong if each.follows is not False and each.marks_agree}
    stored: dict[int, list[Stored]] = {number: [] for number in suspects}
    for row in await proving.stored_in(conn, numbers=sorted(suspects)):
        stored[row.batch].append(row)
    found: dict[int, int] = {}
    for batch in await events.batches(conn, organization_id=organization_id, after=after, until=until):
        if batch.batch not in suspects or batch.events != len(batch.leaves):
            continue
        rows, leaves = stored[batch.batch], iter(batch.leaves)
        if len(rows) < len(batch.leaves) and all(row.leaf in leaves for row in rows):
            found[batch.position] = len(batch.leaves) - len(rows)
    return found


async def _check_records(conn: Conn, *, organization_id: UUID, after: int, until: int) -> list[Record]:
    """What `proving.check_records` says, one by one."""
    found: list[Record] = []
    before: dict[int, bytes] = {0: GENESIS}
    for batch in await events.batches(
        conn, organization_id=organization_id, after=max(after - 1, 0), until=until
    ):
        previous, before[batch.position] = before.get(batch.position - 1), batch.digest
        if batch.position <= after:
            continue
        kept = await events.of_batches(
            conn, organization_id=organization_id, numbers=[batch.batch], lowest=UUID(int=0)
        )
        stored = kept.get(batch.batch, [])
        agree = (
            tuple(map(leaf_of, stored)) == batch.leaves
            and len(stored) == batch.events
            and stored[0].id == batch.first_event_id
        )
        marks = [await _marks_agree(conn, batch.batch, event) for event in stored]
        follows = None
        if previous is not None:
            follows = link(previous, batch.position, b"".join(batch.leaves)) == batch.digest
        found.append(Record(batch.position, batch.batch, follows, agree, all(marks), len(stored)))
    return found


async def _marks_agree(conn: Conn, batch: int, event: StoredEvent) -> bool:
    """An event carries its own leaf, and is marked as taken back exactly by the batch of its void."""
    carried = await events.carried_leaf(conn, event)
    taken_back = [number for _, number in await events.voids_of(conn, event)]
    original = None
    if event.voids is not None:
        found = await events.at(conn, {event.voids: (event.customer_id, event.occurred_at)})
        original = found.get(event.voids)
    return (
        carried in (None, leaf_of(event))
        and (event.voided is None or event.voided in taken_back)
        and (event.voids is None or (original is not None and original.voided == batch))
    )


async def unchained(conn: Conn, organization_id: UUID) -> list[Stored]:
    """In order of arrival: of more than can be named, those of the first customers."""
    found: list[Stored] = []
    async for portion in portions(conn, organization_id):
        room = _NAMED_MAX - len(found)
        found += await proving.unchained(conn, portion, organization_id=organization_id, limit=room)
        if len(found) == _NAMED_MAX:
            break
    return sorted(found, key=lambda each: (each.batch, each.id))


async def conclude(
    conn: Conn,
    organization_id: UUID,
    checked: Sequence[Checked],
    *,
    loose: Sequence[Stored] | None = None,
    customers: Collection[UUID] | None = None,
) -> ChainReport:
    """From what its stretches look like to what is wrong with the chain, in words. `loose`: see `unchained`."""
    end = await proving.end_of_chain(conn, organization_id=organization_id)
    wrong = [record for each in checked for record in each.wrong]
    if loose is None:
        loose = await unchained(conn, organization_id)
    naming = Naming(organization_id, None if customers is None else frozenset(customers))
    if wrong or loose:
        lost = await proving.lost(conn, organization_id=organization_id, customers=None, limit=_NAMED_MAX)
        await naming.look(conn, wrong[:_SUSPECTS_MAX], loose, lost)
    unseen = len(wrong) - _SUSPECTS_MAX
    archived = await archives.of_organization(conn, organization_id=organization_id)
    expected = await archives.events_of(conn, organization_id=organization_id)
    absent = sum(each.absent for each in checked)
    return ChainReport(
        end.last,
        end.last_digest,
        sum(each.batches for each in checked),
        sum(each.events for each in checked),
        [
            *_missing([position for each in checked for position in each.missing]),
            *_head(end),
            *naming.differences,
            *_absences(absent, expected, archived, explained=bool(wrong)),
            *([f"{unseen} more records of the chain are not as they were"] if unseen > 0 else []),
        ],
        naming.named,
        archived,
    )


def _absences(absent: int, expected: int, archived: Sequence[Archived], *, explained: bool) -> Iterator[str]:
    """Without their files nobody can say which events were archived, but how many they are is known."""
    files = ", ".join(each.file_name for each in archived)
    if absent > expected:
        yield f"{absent} events are not there, and {expected} were archived in {files}: with --archive the others are named"
    elif absent < expected and not explained:  # a record with a wrong event is named with all that it lacks
        yield f"{expected} events were archived in {files}, and only {absent} are not there"


def _missing(positions: Sequence[int]) -> Iterator[str]:
    start = 0
    for place, position in enumerate(positions):
        if place + 1 == len(positions) or positions[place + 1] != position + 1:
            first = positions[start]
            where = f"position {first}" if first == position else f"positions {first} to {position}"
            yield f"the chain has no record at {where}"
            start = place + 1


def _head(end: End) -> Iterator[str]:
    if end.head is None:
        yield "the chain has no head"
    elif end.head != end.last:
        yield f"the chain's head stands at {end.head}, its last record at {end.last}"
    elif end.head_digest != end.last_digest:
        yield f"the chain's head has another digest than its last record, at position {end.last}"


async def verify_keys(
    conn: Conn,
    organization: Organization,
    *,
    customers: Collection[UUID] | None = None,
    told: Collection[UUID] = (),
) -> list[str]:
    """Every key row has its event, and every event that came with a key of its own has its row.

    Reads every event and every key row of the organization once. `told`: named already.
    """
    theirs = None if customers is None else list(customers)
    loose: list[Keyed] = []
    for stretch in await stretches(conn, organization.id):
        await learn_newest(conn)
        loose += await unkeyed(conn, organization.id, stretch, customers=theirs)
    return tell_keys(await lost(conn, organization.id, customers=theirs), loose, told)


async def unkeyed(
    conn: Conn, organization_id: UUID, stretch: Stretch, *, customers: Sequence[UUID] | None = None
) -> list[Keyed]:
    after, until = stretch
    return await proving.unkeyed(
        conn,
        organization_id=organization_id,
        after=after,
        until=until,
        customers=customers,
        limit=_NAMED_MAX,
    )


async def lost(conn: Conn, organization_id: UUID, *, customers: Sequence[UUID] | None = None) -> list[Keyed]:
    return await proving.lost(conn, organization_id=organization_id, customers=customers, limit=_NAMED_MAX)
