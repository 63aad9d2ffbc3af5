"""`tallystick retention`: months of events, who still needs them, and out of the database or back."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import psycopg
import typer
from rich import box
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from tallystick.app import wall
from tallystick.cli import terminal
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.core.retention import age
from tallystick.flows import archive_events
from tallystick.flows.archive_events import Standing
from tallystick.flows.sort_months import Occupied, sort_default
from tallystick.store import months
from tallystick.store.archives import Archived, Needed
from tallystick.store.db import CONNECTION, Conn, Database, connect
from tallystick.store.months import Partition

T = TypeVar("T")
app = typer.Typer(help="Months of events: who needs them, and out of the database or back.")

_OlderThan = Annotated[
    str, typer.Option("--older-than", help="Whole months further back than that: 24m, 2y.")
]


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Every month: its partition, events and bytes, who still needs it, and whether it is archived."""
    if context.invoked_subcommand is not None:
        return
    found, default = _run(data_dir, database_url, archive_events.overview)
    if as_json:
        terminal.result(_overview(found, default))
    else:
        terminal.show(_table(found, default))
        if any(each.in_default and each.archived is None for each in found):
            terminal.say("`tallystick retention sort` gives months in the default partition one of their own")


@app.command()
def archive(
    older_than: _OlderThan,
    to: Annotated[Path, typer.Option("--to", help="The folder to write files into.")],
    keep: Annotated[
        bool, typer.Option("--keep", help="Write the files, and leave the events where they are.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would leave, and do nothing.")] = False,
    note: Annotated[
        str | None, typer.Option("--note", help="Kept with each month, for whoever asks later.")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Write whole months that nobody needs as Parquet files, read them back, and drop their partitions.

    Safe beside a running server, and to run again after it was killed. Exit code 0: done, even if nothing was to be
    done. 1: it could not be done, and the message says why; months before that one have left.
    """
    oldest = age(older_than)
    if oldest is None:
        raise typer.BadParameter(f"{older_than!r} is no age: say 24m or 2y", param_hint="--older-than")
    now = wall()
    if dry_run:
        found, _ = _run(data_dir, database_url, archive_events.overview)
        would = [each for each in found if archive_events.archivable(each, older_than=oldest, now=now)]
        if as_json:
            terminal.result({"dryRun": True, "months": [str(each.month) for each in would]})
        else:
            for one in would:
                typer.echo(f"{one.month}: {_events(one):,} events would go to {to / one.month.file_name}")
            typer.echo(f"{len(would)} months would leave")
        return
    with _progress() as progress:
        done = _run(
            data_dir,
            database_url,
            lambda conn: archive_events.archive(
                conn, older_than=oldest, to=to, now=now, progress=progress, keep=keep, operator_note=note
            ),
        )
    if as_json:
        terminal.result({"dryRun": False, "kept": keep, "months": [_archived(each) for each in done]})
        return
    for each in done:
        typer.echo(
            f"{each.month}: {each.events:,} events in {to / each.file_name}, {each.size_bytes:,} bytes, "
            f"sha256 {each.sha256.hex()}"
        )
    typer.echo(f"{len(done)} months {'copied' if keep else 'archived'}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="events-2024-03.parquet")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Put an archived month back, from the very file it left in. The file stays."""
    with _progress() as progress:
        found = _run(
            data_dir, database_url, lambda conn: archive_events.restore(conn, file, progress=progress)
        )
    if as_json:
        terminal.result(_archived(found))
    else:
        typer.echo(f"{found.month}: {found.events:,} events are back")


@app.command()
def sort(data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Give every month in the default partition one of its own. Needs room for a second copy of what is moved."""

    async def alone(conn: Conn) -> list[str]:
        async with months.alone(conn) as held:
            if not held:
                terminal.fail(
                    "somebody else is archiving, restoring or sorting; try again when they are done"
                )
            progress.begin("sorting months", sum((await months.months_in_default(conn)).values()))
            try:
                return [str(each) for each in await sort_default(conn, moved=progress.advance)]
            except Occupied:
                terminal.fail("the events were in use all the time; try again later")

    with _progress() as progress:
        done = _run(data_dir, database_url, alone)
    if as_json:
        terminal.result({"months": done})
    else:
        typer.echo(
            f"{len(done)} months have a partition of their own now{': ' if done else ''}{', '.join(done)}"
        )


def _run(data_dir: Path | None, database_url: str | None, act: Callable[[Conn], Awaitable[T]]) -> T:
    """On a connection of its own, where each statement stands alone."""

    async def inside(database: Database) -> T:
        async with await connect(database.conninfo, CONNECTION) as conn:
            try:
                return await act(conn)
            except psycopg.errors.LockNotAvailable as error:
                terminal.fail(f"the events are in use; try again later: {str(error).strip()}")

    with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo:
        return terminal.run(conninfo, inside)


class _Shown:
    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None)

    def begin(self, what: str, events: int) -> None:
        self._bar.reset(self._task, description=what, total=events or None)

    def advance(self, events: int) -> None:
        self._bar.update(self._task, advance=events)


@contextmanager
def _progress() -> Iterator[_Shown]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    people = terminal.people
    with Bar(*columns, console=people, transient=True, disable=not people.is_terminal) as bar:
        yield _Shown(bar)


def _events(each: Standing) -> int:
    return each.in_default + (each.partition.events if each.partition else 0)


def _who(needed: Needed) -> str:
    told = [
        (needed.open_periods, "open periods"),
        (needed.late_events, "undecided late events"),
        (needed.unrated_periods, "periods to be rated again"),
    ]
    return ", ".join(f"{count:,} {what}" for count, what in told if count) or "nobody"


def _table(found: list[Standing], default: Partition) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("month", "where", "events", "bytes", "needed by", "archived in"):
        table.add_column(name, justify="right" if name in ("events", "bytes") else "left", no_wrap=True)
    for each in found:
        own = each.partition
        where = own.name if own else default.name if each.in_default else "–"
        about = "about " if own is not None and not own.exact else ""
        table.add_row(
            str(each.month),
            where,
            f"{about}{_events(each):,}",
            f"{own.size_bytes:,}" if own else "–",
            _who(each.needed) if own or each.in_default else "–",
            each.archived.file_name if each.archived else "–",
        )
    table.add_row("others", default.name, f"{default.events:,}", f"{default.size_bytes:,}", "–", "–")
    return table


def _overview(found: list[Standing], default: Partition) -> dict[str, Any]:
    return {
        "months": [
            {
                "month": str(each.month),
                "partition": each.partition.name if each.partition else None,
                "events": _events(each),
                "exact": each.partition is None or each.partition.exact,
                "bytes": each.partition.size_bytes if each.partition else None,
                "inDefault": each.in_default,
                "neededBy": {
                    "openPeriods": each.needed.open_periods,
                    "lateEvents": each.needed.late_events,
                    "unratedPeriods": each.needed.unrated_periods,
                },
                "archived": _archived(each.archived) if each.archived else None,
            }
            for each in found
        ],
        "default": {"partition": default.name, "events": default.events, "bytes": default.size_bytes},
    }


def _archived(each: Archived) -> dict[str, Any]:
    return {
        "month": str(each.month),
        "file": each.file_name,
        "bytes": each.size_bytes,
        "sha256": each.sha256.hex(),
        "events": each.events,
        "archivedAt": each.archived_at.isoformat(),
        "note": each.note,
    }
