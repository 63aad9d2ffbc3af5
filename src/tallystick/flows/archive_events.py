"""Take whole months of events out of the database, as files, and put them back.

A month leaves in three steps: a file is written from one snapshot, with every column of every event; it is read back
and compared with that snapshot, row by row; then one transaction drops the partition and notes the file. Killed at any
moment there is either the partition, or the verified file with its note. Nobody leaves whom somebody needs.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

import msgspec
import psycopg

from tallystick.core.events import StoredEvent
from tallystick.core.proof import leaf
from tallystick.core.retention import COLUMNS, Month, is_older
from tallystick.core.times import show_instant
from tallystick.errors import TallystickError
from tallystick.flows.sort_months import Occupied, sort_default
from tallystick.providers import month_files
from tallystick.providers.month_files import MonthFile
from tallystick.store import archives, db, months
from tallystick.store.archives import Archived, Needed, Row, Share
from tallystick.store.db import Conn
from tallystick.store.months import Heads, Partition

_LOCK_S: Final = 0.2
_TRIES: Final = 100
_AGAIN: Final = 3
"""So often a month is written anew because something came for it meanwhile."""
_FORMAT: Final = "1"


class NotArchived(TallystickError):
    """A month stays where it is, or a file where it was; the message says why."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


class _CameMeanwhile(Exception):
    """Something was stored for a month since its file was written: undo."""


class _NeededAgain(Exception):
    """Somebody came to need a month since its file was begun."""


class Progress(Protocol):
    """What is being done to which month, and by how many events it went on."""

    def begin(self, what: str, events: int) -> None: ...

    def advance(self, events: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """A month as it stands: stored, archived, or both, where something came late for an archived one."""

    month: Month
    partition: Partition | None
    in_default: int
    needed: Needed
    archived: Archived | None


async def overview(conn: Conn) -> tuple[list[Standing], Partition]:
    """Every month that there is anything of, and the default partition."""
    stored = await months.partitions(conn)
    default = next(each for each in stored if each.month is None)
    own = {each.month: each for each in stored if each.month is not None}
    loose = await months.months_in_default(conn)
    gone = {each.month: each for each in await archives.every(conn)}
    return [
        Standing(
            month, own.get(month), loose.get(month, 0), await archives.needed(conn, month), gone.get(month)
        )
        for month in sorted({*own, *loose, *gone})
    ], default


def archivable(standing: Standing, *, older_than: int, now: datetime) -> bool:
    """Whether a month is old enough, there, and needed by nobody."""
    there = standing.partition is not None or (standing.in_default > 0 and standing.archived is None)
    return there and not standing.needed.anybody and is_older(standing.month, months=older_than, now=now)


async def archive(
    conn: Conn,
    *,
    older_than: int,
    to: Path,
    now: datetime,
    progress: Progress,
    keep: bool = False,
    operator_note: str | None = None,
) -> list[Archived]:
    """Every month that may leave, oldest first; with `keep` they are copied and stay. `conn` is in no transaction."""
    month_files.require()
    async with months.alone(conn) as alone:
        if not alone:
            raise NotArchived(
                "somebody else is archiving, restoring or sorting; try again when they are done"
            )
        wanted = [
            each for each in (await overview(conn))[0] if archivable(each, older_than=older_than, now=now)
        ]
        if any(each.partition is None for each in wanted):
            progress.begin("sorting months", sum(each.in_default for each in wanted))
            try:
                await sort_default(conn, moved=progress.advance)
            except Occupied:
                raise NotArchived("the events were in use all the time; try again later") from None
        done = [await _archive(conn, each.month, to, now, progress, keep, operator_note) for each in wanted]
        return [each for each in done if each is not None]


async def _archive(
    conn: Conn, month: Month, to: Path, now: datetime, progress: Progress, keep: bool, note: str | None
) -> Archived | None:
    """None when somebody came to need it meanwhile: it stays."""
    for _ in range(_AGAIN):
        with MonthFile(to / month.file_name) as file:
            copied = await _copy(conn, month, file, progress)
            written = file.settle()
        archived = Archived(
            month,
            written.path.name,
            written.size_bytes,
            written.sha256,
            copied.events,
            copied.leaves,
            now,
            note,
        )
        if keep:
            return archived
        try:
            if await _leave(conn, archived, copied):
                return archived
        except _NeededAgain:
            written.path.unlink()
            return None
    raise NotArchived(f"{month}: events keep coming for it; it stays")


@dataclass(slots=True)
class _Copied:
    """What went into a file, and how far the chains were."""

    heads: Heads
    events: int = 0
    leaves: bytes = b""
    shares: dict[UUID, Share] = field(default_factory=dict)

    def count(self, rows: Sequence[Row]) -> None:
        self.events += len(rows)
        for row in rows:
            identity, owner, batch = UUID(row[_ID]), UUID(row[_OWNER]), row[_BATCH]
            known = self.shares.get(owner) or Share(owner, 0, identity, identity, batch, batch)
            self.shares[owner] = Share(
                owner,
                known.events + 1,
                min(known.first_id, identity),
                max(known.last_id, identity),
                min(known.first_batch, batch),
                max(known.last_batch, batch),
            )


_PLACES: Final = {name: place for place, name in enumerate(COLUMNS)}
_ID, _OWNER, _BATCH = _PLACES["id"], _PLACES["organization_id"], _PLACES["batch"]
_AT, _LEAF = _PLACES["occurred_at"], _PLACES["leaf"]


async def _copy(conn: Conn, month: Month, file: MonthFile, progress: Progress) -> _Copied:
    """Write a month from one snapshot, and compare what was written with the same snapshot."""
    async with db.one_moment(conn):
        copied = _Copied(await months.heads(conn))
        digest, first, last = sha256(), None, None
        progress.begin(f"{month}: writing", 0)
        async with archives.reading(conn, month.partition, leaves=True) as stored:
            while page := await stored.page():
                for row in page:
                    _must_be_whole(row)
                    digest.update(row[-1])
                    first = min(first or row[_AT], row[_AT])
                    last = max(last or row[_AT], row[_AT])
                rows = [row[:-1] for row in page]
                copied.count(rows)
                file.add(rows)
                progress.advance(len(rows))
        copied.leaves = digest.digest()
        file.finish(
            {
                "format": _FORMAT,
                "month": str(month),
                "events": str(copied.events),
                "first": show_instant(first) if first else "",
                "last": show_instant(last) if last else "",
                "leaves_sha256": copied.leaves.hex(),
            }
        )
        progress.begin(f"{month}: reading back", copied.events)
        async with archives.reading(conn, month.partition, leaves=False) as stored:
            await _compare(file.unsettled, stored, copied, progress)
    return copied


def _must_be_whole(row: Row) -> None:
    """An event that is not as it was stored does not leave: where it is, `verify` can still say what happened."""
    carried, given = row[_LEAF], row[-1]
    if given is None or carried not in (None, given) or row[_OWNER] is None:
        raise NotArchived(
            f"the event {row[_ID]} is not as it was stored; `tallystick verify --all` names what was changed"
        )


async def _compare(path: Path, stored: archives.Rows, copied: _Copied, progress: Progress) -> None:
    """Every row of a file is the row that is stored, and gives its leaf; none is missing and none too many."""
    digest, events = sha256(), 0
    for rows in month_files.read(path, rows_at_once=archives.PAGE):
        if rows != await stored.page():
            raise NotArchived(f"{path} does not read back as what is stored")
        for row in rows:
            digest.update(leaf(event_of(row)))
        events += len(rows)
        progress.advance(len(rows))
    if await stored.page() or (events, digest.digest()) != (copied.events, copied.leaves):
        raise NotArchived(f"{path} does not read back as what is stored")


def event_of(row: Row) -> StoredEvent:
    """The facts of an event, from a file's row: all that its leaf is made of."""
    told = dict(zip(COLUMNS, row, strict=True))
    properties: Mapping[str, str] = msgspec.json.decode(told["properties"]) if told["properties"] else {}
    return StoredEvent(
        id=UUID(told["id"]),
        customer_id=UUID(told["customer_id"]),
        feature=told["feature_code"],
        value=Decimal(told["value"]),
        occurred_at=told["occurred_at"],
        received_at=told["received_at"],
        key=told["event_key"],
        timed=told["timed"],
        properties=properties or {},
        adjusts=UUID(told["adjusts"]) if told["adjusts"] else None,
        reason=told["reason"],
        voids=UUID(told["voids"]) if told["voids"] else None,
    )


async def _leave(conn: Conn, archived: Archived, copied: _Copied) -> bool:
    """Drop the partition and note the file, at once; False when something came for the month since it was written."""
    month = archived.month
    seen = copied.heads
    for _ in range(_TRIES):
        try:
            async with conn.transaction():
                ahead = await months.heads(conn)  # in the lock there shall be little left to look at
                if await months.holds_any(conn, month.partition, await months.batches_since(conn, seen)):
                    return False
                seen = ahead
                if (await archives.needed(conn, month)).anybody:
                    raise _NeededAgain
                await archives.note_voided_costs(conn, month.partition)
                await archives.note(conn, archived, copied.shares.values())
                await months.give_up_after(conn, seconds=_LOCK_S)
                await months.detach(conn, month.partition)
                if await months.holds_any(conn, month.partition, await months.batches_since(conn, seen)):
                    raise _CameMeanwhile
                await months.drop(conn, month.partition)
                return True
        except _CameMeanwhile:
            return False
        except psycopg.errors.LockNotAvailable:
            await asyncio.sleep(_LOCK_S)
    raise NotArchived(f"{month}: its events were in use all the time; try again later")


# Back again -----------------------------------------------------------------------------------------------


def file_of(known: Sequence[Archived], path: Path) -> Archived:
    """Which archived month a file is, once it has been seen to be that very file."""
    facts = month_files.facts_of(path)
    month = Month.named(facts.get("month", ""))
    if month is None or facts.get("format") != _FORMAT:
        raise NotArchived(f"{path} is no file of archived events")
    found = next((each for each in known if each.month == month), None)
    if found is None:
        raise NotArchived(f"{path} holds {month}, which is not archived: its events are in the database")
    if month_files.sha256_of(path) != found.sha256:
        raise NotArchived(
            f"{path} is not the file that {month} was archived in: its sha256 is not {found.sha256.hex()}"
        )
    return found


async def restore(conn: Conn, path: Path, *, progress: Progress) -> Archived:
    """Put a month back; the file stays where it is. `conn` is in no transaction."""
    async with months.alone(conn) as alone:
        if not alone:
            raise NotArchived(
                "somebody else is archiving, restoring or sorting; try again when they are done"
            )
        found = file_of(await archives.every(conn), path)
        month = found.month
        async with conn.transaction():
            progress.begin(f"{month}: reading", found.events)
            await months.make_table(conn, month.partition)
            await months.must_be_of(conn, month)
            await archives.put(conn, month.partition, _heard(path, progress))
            await _must_be_what_left(conn, found)
            await archives.forget(conn, month)
            await _come_back(conn, month)
        return found


async def _come_back(conn: Conn, month: Month) -> None:
    """Attach what was restored, with what came for the month since."""
    for _ in range(_TRIES):
        try:
            async with conn.transaction():
                await months.give_up_after(conn, seconds=_LOCK_S)
                await archives.move_from_default(conn, month)
                await months.attach(conn, month)
                return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.CheckViolation):
            await asyncio.sleep(_LOCK_S)  # in use just now, or somebody just stored something of it
    raise NotArchived(f"{month}: the events were in use all the time; try again later")


def _heard(path: Path, progress: Progress) -> Iterator[list[Row]]:
    for rows in month_files.read(path):
        yield rows
        progress.advance(len(rows))


async def _must_be_what_left(conn: Conn, archived: Archived) -> None:
    digest, events = sha256(), 0
    async with archives.reading(conn, archived.month.partition, leaves=True) as stored:
        while page := await stored.page():
            for row in page:
                digest.update(row[-1] or b"")
            events += len(page)
    if (events, digest.digest()) != (archived.events, archived.leaves):
        raise NotArchived(f"{archived.file_name} does not hold the events that left: their leaves differ")
