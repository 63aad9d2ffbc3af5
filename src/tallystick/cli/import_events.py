"""`tallystick import`: a file of events, one JSON object a line, however long, as often as you like."""

import gzip
import io
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tallystick.api import wire
from tallystick.app import wall
from tallystick.cli import terminal
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.core import ids
from tallystick.core.limits import BODY_BYTES_MAX, ROWS_PER_COMMIT_MAX
from tallystick.errors import Problem
from tallystick.flows.import_events import Import, Line, Newcomers, Refused, Tally, can_welcome
from tallystick.providers.sandbox import Sandbox, sandbox_card
from tallystick.store.db import Database
from tallystick.store.organizations import Organization

_GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
_REFUSALS_SHOWN: Final = 5
_CHUNK_BYTES_MAX: Final = 8 * BODY_BYTES_MAX


def import_events(
    file: Annotated[
        Path,
        typer.Argument(
            help="NDJSON, plain or gzipped: each line as `POST /usage/events` takes it.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ],
    organization: Annotated[
        str | None, typer.Option("--organization", help="org_…; may be left out when there is only one.")
    ] = None,
    create_customers: Annotated[
        bool,
        typer.Option(
            "--create-customers", help="Make customers nobody knows yet, and subscribe them to --plan."
        ),
    ] = False,
    plan: Annotated[
        str | None, typer.Option("--plan", help="The code of the plan for new customers.")
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option("--refused", help="Write refused lines here, each with its reason.", dir_okay=False),
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Import events. Safe to run twice: what is there already is left as it is, and not counted again.

    Exit code 0: every event is stored or was already there. 1: some were refused, each for a reason. 2: usage.
    """
    if create_customers and not plan:
        raise typer.BadParameter("--create-customers needs --plan CODE")
    if plan and not create_customers:
        raise typer.BadParameter("--plan means something only with --create-customers")
    with ExitStack() as stack:
        notes = stack.enter_context(_refusals(refused, file)) if refused else None
        source = stack.enter_context(_opened(file))
        conninfo = stack.enter_context(terminal.reachable(terminal.chosen(data_dir, database_url)))

        async def act(database: Database) -> tuple[Organization, Tally]:
            owner = await terminal.the_organization(database, organization)
            newcomers = None
            if plan:
                await can_welcome(database, owner, plan)
                newcomers = Newcomers(plan, Sandbox(), sandbox_card())
            async with database.reading() as conn:
                importing = Import(database, conn, owner, newcomers)
                with _progress(source) as show:
                    for chunk in source.chunks():
                        lines = [Line(number, _parsed(text)) for number, text in chunk.items()]
                        for each in await importing.take(lines, wall=wall()):
                            _note(notes, each, chunk[each.number], importing.tally)
                        show(importing.tally)
            return owner, importing.tally

        began = time.monotonic()
        owner, tally = terminal.run(conninfo, act)
        seconds = time.monotonic() - began
    _report(file, owner, tally, seconds, source.damage, as_json=as_json)
    if tally.refused or source.damage:
        raise typer.Exit(1)


@dataclass
class _Source:
    """The file as numbered lines; at no time is more than a chunk of it in memory."""

    raw: BinaryIO
    lines: BinaryIO
    size: int
    damage: str | None = None

    @property
    def position(self) -> int:
        """Bytes of the file that were read: of a gzipped one, compressed bytes."""
        return self.raw.tell()

    def chunks(self) -> Iterator[dict[int, bytes]]:
        """By line number; as many as one transaction takes, and not more than fits into little memory."""
        chunk: dict[int, bytes] = {}
        held = 0
        for number, line in self._numbered():
            chunk[number] = line
            held += len(line)
            if len(chunk) == ROWS_PER_COMMIT_MAX or held > _CHUNK_BYTES_MAX:
                yield chunk
                chunk, held = {}, 0
        if chunk:
            yield chunk

    def _numbered(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        try:
            while line := self.lines.readline(BODY_BYTES_MAX + 1):
                number += 1
                rest = line
                while not rest.endswith(b"\n") and len(rest) > BODY_BYTES_MAX:
                    rest = self.lines.readline(BODY_BYTES_MAX + 1)  # too long to keep, and refused for it
                if number == 1:
                    line = line.removeprefix(_BOM)
                if line := line.strip():
                    yield number, line
        except (EOFError, OSError, zlib.error) as error:
            self.damage = f"The file is damaged after line {number}: {error}"


@contextmanager
def _opened(file: Path) -> Iterator[_Source]:
    with file.open("rb") as raw:
        zipped = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        lines: Any = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if zipped else raw
        yield _Source(raw, lines, file.stat().st_size)


@contextmanager
def _refusals(path: Path, file: Path) -> Iterator[BinaryIO]:
    if path.exists() and path.samefile(file):
        raise typer.BadParameter("--refused must not be the file that is imported")
    try:
        notes = path.open("wb")
    except OSError as error:
        raise typer.BadParameter(f"--refused {path}: {error.strerror}") from None
    with notes:
        yield notes


def _parsed(text: bytes) -> Any | Problem:
    try:
        if len(text) > BODY_BYTES_MAX:
            raise Problem("payload_too_large", f"The line is longer than {BODY_BYTES_MAX} bytes.")
        return wire.parse(text)
    except Problem as problem:
        return problem


def _note(notes: BinaryIO | None, refused: Refused, text: bytes, tally: Tally) -> None:
    """To the file if there is one, word for word as it was sent; the first few are shown as well."""
    problem = refused.problem
    if sum(tally.refused.values()) <= _REFUSALS_SHOWN:
        terminal.people.print(
            f"line {refused.number}: {problem.code}: {problem.message}", markup=False, soft_wrap=True
        )
    if notes is None:
        return
    unreadable = problem.code in ("invalid_json", "payload_too_large")
    data: Any = text[:1_000].decode(errors="replace") if unreadable else msgspec.Raw(text)
    entry = {"line": refused.number, "code": problem.code, "error": problem.message, "data": data}
    notes.write(wire.encode(entry) + b"\n")


@contextmanager
def _progress(source: _Source) -> Iterator[Any]:
    columns = (
        TextColumn("importing"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} events/s"),
        TimeRemainingColumn(),
    )
    people = terminal.people
    with Progress(*columns, console=people, transient=True, disable=not people.is_terminal) as progress:
        task = progress.add_task("import", total=source.size, rate="–")

        def show(tally: Tally) -> None:
            elapsed = progress.tasks[0].elapsed or 0
            rate = f"{tally.lines / elapsed:,.0f}" if elapsed else "–"
            progress.update(task, completed=source.position, rate=rate)

        yield show


def _report(
    file: Path, owner: Organization, tally: Tally, seconds: float, damage: str | None, *, as_json: bool
) -> None:
    refused = sum(tally.refused.values())
    rate = round(tally.lines / seconds) if seconds else 0
    if damage:
        terminal.people.print(f"[bold red]✗[/] {damage}", soft_wrap=True)
    if as_json:
        terminal.result(
            {
                "file": str(file),
                "organizationId": ids.show(ids.ORGANIZATION, owner.id),
                "events": tally.lines,
                "stored": tally.stored,
                "alreadyThere": tally.already_there,
                "refused": refused,
                "refusedByCode": dict(tally.refused.most_common()),
                "customersMade": tally.customers_made,
                "subscriptionsMade": tally.subscriptions_made,
                "damage": damage,
                "seconds": round(seconds, 3),
                "eventsPerSecond": rate,
            }
        )
        return
    terminal.people.print(
        f"[bold]{tally.stored:,}[/] stored, {tally.already_there:,} already there, {refused:,} refused; "
        f"{tally.customers_made:,} customers made; {seconds:.1f} s, {rate:,} events/s",
        soft_wrap=True,
    )
    for code, count in tally.refused.most_common():
        terminal.say(f"  {count:>9,} {code}")
