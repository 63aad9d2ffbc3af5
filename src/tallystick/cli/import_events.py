"""`tallystick import`: a file of events, however long, as often as you like."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tallystick.app import wall
from tallystick.cli import import_report as report
from tallystick.cli import terminal
from tallystick.cli.sources import formats
from tallystick.cli.sources.formats import Format
from tallystick.cli.sources.source import NotReadable, Row, Source, chunks
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json, WhichOrganization
from tallystick.core.limits import ROWS_PER_CHUNK_MAX
from tallystick.core.mapping import BadMapping, Cells, ColumnMapping
from tallystick.core.times import is_zone
from tallystick.errors import Problem
from tallystick.flows.import_events import Import, Line, Newcomers, can_welcome
from tallystick.providers.sandbox import Sandbox, sandbox_card
from tallystick.store.db import Database
from tallystick.store.organizations import Organization

_WHO: Final = "Whose"
_COLUMNS: Final = "Which column says what"


def import_events(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV, NDJSON (each line as `POST /usage/events` takes it), either gzipped or not, or Parquet.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ],
    organization: WhichOrganization = None,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Where the end of the file's name does not say it.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Judge every row as the import would and say what would become of it; change nothing. What others "
            "store meanwhile, and what only the database itself would refuse, it cannot know.",
        ),
    ] = False,
    create_customers: Annotated[
        bool,
        typer.Option(
            "--create-customers",
            help="Make customers nobody knows yet, and subscribe them to --plan.",
            rich_help_panel=_WHO,
        ),
    ] = False,
    plan: Annotated[
        str | None,
        typer.Option("--plan", help="The code of the plan for new customers.", rich_help_panel=_WHO),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN",
            help="The column of a field: customerId=account. Columns called like a field need no --map. Repeatable.",
            rich_help_panel=_COLUMNS,
        ),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=CONSTANT",
            help="A field that is the same in every row: featureCode=api_calls. Repeatable.",
            rich_help_panel=_COLUMNS,
        ),
    ] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            metavar="NAME[=COLUMN]",
            help="A property, and its column if that is called otherwise. Repeatable.",
            rich_help_panel=_COLUMNS,
        ),
    ] = None,
    all_properties: Annotated[
        bool,
        typer.Option(
            "--all-properties",
            help="Every column that is nothing else is a property.",
            rich_help_panel=_COLUMNS,
        ),
    ] = False,
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone",
            metavar="ZONE",
            help="Where clocks showed the times that have no offset. Without it such a time is refused; in NDJSON it "
            "is UTC, as in a request.",
            rich_help_panel=_COLUMNS,
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            "--delimiter",
            help="What parts the cells of a CSV: one character, or `tab`. Default: a comma.",
            rich_help_panel=_COLUMNS,
        ),
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option("--refused", help="Write refused rows here, each with its reason.", dir_okay=False),
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
    mapping = _mapping(fields, constants, properties, all_properties, timezone)
    with ExitStack() as stack:
        source = stack.enter_context(_opened(file, format_, mapping, delimiter))
        notes = stack.enter_context(report.refusals(refused, file)) if refused else None
        conninfo = stack.enter_context(terminal.reachable(terminal.chosen(data_dir, database_url)))

        async def act(database: Database) -> tuple[Organization, Import]:
            owner = await terminal.the_organization(database, organization)
            newcomers = None
            if plan:
                await can_welcome(database, owner, plan)
                newcomers = Newcomers(plan, Sandbox(), sandbox_card())
            async with database.reading() as conn:
                importing = Import(database, conn, owner, newcomers, dry=dry_run)
                with report.progress(source, "judging" if dry_run else "importing") as show:
                    for chunk in _found(source, mapping):
                        rows = {row.number: row for row in chunk}
                        lines = [Line(row.number, _event(row, mapping, source.cells)) for row in chunk]
                        for each in await importing.take(lines, wall=wall()):
                            report.note(notes, each, rows[each.number], source.noun, importing.tally)
                        show(importing.tally)
            return owner, importing

        began = time.monotonic()
        owner, done = terminal.run(conninfo, act)
        seconds = time.monotonic() - began
    if as_json:
        terminal.result(report.document(file, owner, done.tally, seconds, source.damage, done.forecast))
    report.show(done.tally, seconds, source.damage, None if as_json else done.forecast)
    if done.tally.refused or source.damage:
        raise typer.Exit(1)


def _mapping(
    fields: Sequence[str] | None,
    constants: Sequence[str] | None,
    properties: Sequence[str] | None,
    all_properties: bool,
    zone: str | None,
) -> ColumnMapping:
    if zone is not None and not is_zone(zone):
        raise typer.BadParameter(f"--timezone {zone!r} is no name of the zone data, such as Europe/Berlin")
    try:
        return ColumnMapping(
            _pairs("--map", fields),
            _pairs("--set", constants),
            _pairs("--property", [each if "=" in each else f"{each}={each}" for each in properties or ()]),
            all_properties,
            zone,
        )
    except BadMapping as why:
        raise typer.BadParameter(str(why)) from None


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"{option} {each!r} is not NAME=VALUE")
        if name in pairs:
            raise typer.BadParameter(f"{option} says {name} twice")
        pairs[name] = value
    return pairs


@contextmanager
def _opened(
    file: Path, given: Format | None, mapping: ColumnMapping, delimiter: str | None
) -> Iterator[Source]:
    kind = given or formats.format_of(file)
    if delimiter is not None and kind is not Format.CSV:
        raise typer.BadParameter("--delimiter means something only for CSV")
    with ExitStack() as stack:
        try:
            source = stack.enter_context(
                formats.opened(file, kind, mapping, formats.delimiter_of(file, delimiter))
            )
            if source.columns is not None:
                mapping.check(source.columns)
        except (NotReadable, BadMapping) as why:
            raise typer.BadParameter(str(why)) from None
        yield source


def _found(source: Source, mapping: ColumnMapping) -> Iterator[list[Row]]:
    """Chunks of rows. Where each row names its own columns, the first of them must have the ones that were asked for."""
    first = source.columns is None
    for chunk in chunks(source):
        said = [row.said for row in chunk if isinstance(row.said, dict)]
        if first and said:
            try:
                mapping.find(name for each in said for name in each)
            except BadMapping as why:
                more = f" in the first {len(chunk):,} lines" if len(chunk) == ROWS_PER_CHUNK_MAX else ""
                raise typer.BadParameter(f"{why}{more}") from None
        first = False
        yield chunk


def _event(row: Row, mapping: ColumnMapping, cells: Cells) -> Any | Problem:
    if not isinstance(row.said, dict) or (cells is Cells.JSON and mapping.says_nothing):
        return row.said
    try:
        return mapping.event_of(row.said, cells)
    except Problem as problem:
        return problem
