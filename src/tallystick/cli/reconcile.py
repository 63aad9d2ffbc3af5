"""`tallystick reconcile`: what must be true of the books, rule by rule, and the first who break it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

import psycopg
import typer
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from tallystick.app import wall
from tallystick.cli import terminal
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.core import ids
from tallystick.errors import Problem
from tallystick.flows import reconcile as flow
from tallystick.flows.reconcile import Finding
from tallystick.store.db import PROOF_CONNECTION, Database, connect


def reconcile(
    organization: Annotated[
        str | None, typer.Option("--organization", help="org_…: its books alone; else everybody's.")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Ask what must be true of the books, rule by rule, and name the first who break it.

    Safe beside a running server. Without --organization, `/metrics` and `doctor` hear what was found.
    Exit code 0: every rule is kept. 1: some are broken. 2: it could not be asked.
    """
    wanted = terminal.identity(ids.ORGANIZATION, organization)
    began = time.monotonic()
    try:
        with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo, _progress() as progress:
            found = terminal.run(conninfo, lambda database: _ask(database, wanted, progress))
    except typer.Exit:  # said already
        raise typer.Exit(2) from None
    except psycopg.Error as error:
        terminal.say(f"[bold red]✗[/] {escape(str(error).strip())}")
        raise typer.Exit(2) from None
    seconds = time.monotonic() - began
    broken = [each for each in found if each.offenders]
    if as_json:
        terminal.result(_document(found, seconds))
    else:
        terminal.show(_table(found))
        verdict = f"{len(broken)} of {len(found)} rules are broken" if broken else "every rule is kept"
        typer.echo(f"{verdict}; {seconds:.1f} s")
    if broken:
        raise typer.Exit(1)


async def _ask(database: Database, organization_id: UUID | None, progress: flow.Progress) -> list[Finding]:
    async with await connect(database.conninfo, PROOF_CONNECTION) as conn:
        try:
            return await flow.reconcile(conn, organization_id=organization_id, wall=wall(), progress=progress)
        except Problem as problem:  # it names something that is not there
            raise typer.BadParameter(problem.message) from None


@contextmanager
def _progress() -> Iterator[flow.Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    people = terminal.people
    with Bar(*columns, console=people, transient=True, disable=not people.is_terminal) as bar:
        task = bar.add_task("reconciling", total=None)

        def show(rule: str, done: int, expected: int) -> None:
            bar.update(task, description=rule, completed=done, total=expected)

        yield show


def _document(found: Sequence[Finding], seconds: float) -> dict[str, Any]:
    return {
        "status": "broken" if any(each.offenders for each in found) else "clean",
        "offenders": sum(each.offenders for each in found),
        "rules": [
            {
                "rule": each.rule,
                "promise": each.promise,
                "offenders": each.offenders,
                "first": [one.document() for one in each.first],
            }
            for each in found
        ],
        "seconds": round(seconds, 3),
    }


def _table(found: Sequence[Finding]) -> Table:
    """Each rule with how many break it, and below its promise the first who do."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("rule", no_wrap=True)
    table.add_column("offenders", justify="right", no_wrap=True)
    table.add_column("what must be true", overflow="fold")
    for each in found:
        rest = each.offenders - len(each.first)
        said = [
            each.promise,
            *(f"· {ids.show(ids.ORGANIZATION, one.organization_id)}: {one.what}" for one in each.first),
            *([f"· and {rest:,} more"] if rest > 0 else []),
        ]
        style = "bold red" if each.offenders else None
        table.add_row(each.rule, f"{each.offenders:,}", escape("\n".join(said)), style=style)
    return table
