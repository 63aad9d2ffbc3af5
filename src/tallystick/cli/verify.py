"""`tallystick verify`: derive invoices again from raw events, and check the chains those events are notched in."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tallystick import settings
from tallystick.cli import terminal
from tallystick.cli.processes import Processes
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.core import ids
from tallystick.errors import Problem
from tallystick.flows.read_archives import beside
from tallystick.flows.verify_all import Progress, Report, Wanted, verify_all
from tallystick.flows.verify_line import Outcome
from tallystick.store.db import Database, connect

_NEEDS: Final = 3
_AHEAD: Final = 4
"""So many pieces of work per process are handed out at once; the rest waits where it is."""


def verify(
    invoice: Annotated[str | None, typer.Option("--invoice", help="inv_…: this one alone.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every invoice, and every organization's chain and keys.")
    ] = False,
    organization: Annotated[
        str | None,
        typer.Option("--organization", help="org_…: its invoices; with --all its chain and keys, too."),
    ] = None,
    workers: Annotated[
        str, typer.Option("--workers", help="Processes that look side by side: a number, or auto.")
    ] = "auto",
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive", help="A folder with files of archived months: what they hold is verified, too."
        ),
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Derive invoices again from raw events, and say where they differ from what was issued.

    With --all, the chain that events are notched in is checked as well, and so are the keys that keep them unique.
    Safe beside a running server. Exit code 0: verified. 1: something differs, each in words. 2: usage. 3: nothing
    differs, and some of it needs archived months: it says which.
    """
    wanted = _wanted(invoice, everything, organization)
    try:
        count = settings.workers(workers)
    except settings.BadSetting as error:
        raise typer.BadParameter(str(error)) from None
    with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo:
        began = time.monotonic()
        with _progress() as progress:
            report = terminal.run(
                conninfo, lambda database: run(database, wanted, progress, workers=count, archive=archive)
            )
        seconds = time.monotonic() - began
    if as_json:
        terminal.result(_document(report, seconds))
    else:
        _print(report, seconds)
    if report.different:
        raise typer.Exit(1)
    if report.needs:
        raise typer.Exit(_NEEDS)


async def run(
    database: Database, wanted: Wanted, progress: Progress, *, workers: int, archive: Path | None = None
) -> Report:
    async with (
        beside(database.conninfo, archive) as options,
        await connect(database.conninfo, options) as conn,
    ):
        with Processes(database.conninfo, workers, options) as processes:
            try:
                return await verify_all(conn, processes.do, wanted, progress, at_once=_AHEAD * workers)
            except Problem as problem:  # it names something that is not there
                raise typer.BadParameter(problem.message) from None


def _wanted(invoice: str | None, everything: bool, organization: str | None) -> Wanted:
    if invoice is not None and (everything or organization is not None):
        raise typer.BadParameter("--invoice names one invoice: leave out --all and --organization")
    if invoice is None and not everything and organization is None:
        raise typer.BadParameter("say what to verify: --invoice ID, --organization ID or --all")
    return Wanted(
        terminal.identity(ids.INVOICE, invoice),
        terminal.identity(ids.ORGANIZATION, organization),
        chains=everything,
    )


class _Shown:
    """On a terminal a bar, else nothing."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("verify", total=0, rate="–")

    def expect(self, events: int) -> None:
        task = self._bar.tasks[0]
        self._bar.update(self._task, total=(task.total or 0) + events)

    def looked(self, events: int) -> None:
        task = self._bar.tasks[0]
        rate = f"{(task.completed + events) / task.elapsed:,.0f}" if task.elapsed else "–"
        self._bar.update(self._task, advance=events, rate=rate)


@contextmanager
def _progress() -> Iterator[_Shown]:
    columns = (
        TextColumn("verifying"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} events/s"),
        TimeRemainingColumn(),
    )
    people = terminal.people
    with Bar(*columns, console=people, transient=True, disable=not people.is_terminal) as bar:
        yield _Shown(bar)


def _document(report: Report, seconds: float) -> dict[str, Any]:
    looked = report.events + report.chained
    return {
        "status": _status(report),
        "invoices": {
            "looked": report.invoices,
            "different": len(report.wrong),
            "notVerified": len(report.unverified),
            "lines": report.lines,
            "events": report.events,
        },
        "differences": [
            {
                "organizationId": ids.show(ids.ORGANIZATION, each.organization_id),
                "invoiceId": ids.show(ids.INVOICE, each.invoice_id),
                "invoiceNumber": each.number,
                "differences": [
                    {
                        "lineId": None if line_id is None else ids.show(ids.INVOICE_LINE, line_id),
                        "difference": words,
                    }
                    for line_id, words in each.differences
                ],
            }
            for each in report.wrong
        ],
        "chains": [
            {
                "organizationId": ids.show(ids.ORGANIZATION, each.organization_id),
                "position": each.report.position,
                "digest": each.report.digest.hex(),
                "batches": each.report.batches,
                "events": each.report.events,
                "differences": each.differences,
            }
            for each in report.chains
        ],
        "notVerified": [
            {
                "organizationId": ids.show(ids.ORGANIZATION, each.organization_id),
                "invoiceId": ids.show(ids.INVOICE, each.invoice_id),
                "invoiceNumber": each.number,
                "lineIds": [ids.show(ids.INVOICE_LINE, line_id) for line_id in each.unverified],
                "needs": [str(needed.month) for needed in each.needs],
            }
            for each in report.unverified
        ],
        "needs": [
            {
                "month": str(each.month),
                "file": each.file_name,
                "sha256": each.sha256.hex(),
                "events": each.events,
            }
            for each in report.needs
        ],
        "seconds": round(seconds, 3),
        "eventsPerSecond": round(looked / seconds) if seconds else 0,
    }


def _status(report: Report) -> str:
    if report.different:
        return Outcome.DIFFERENT.value
    return Outcome.NOT_VERIFIED.value if report.needs else Outcome.VERIFIED.value


def _print(report: Report, seconds: float) -> None:
    """The result, on stdout: differences first, and last what it all comes to."""
    for found in report.wrong:
        typer.echo(f"{found.number} ({ids.show(ids.INVOICE, found.invoice_id)}) is different:")
        for line_id, words in found.differences:
            where = "" if line_id is None else f"{ids.show(ids.INVOICE_LINE, line_id)}: "
            typer.echo(f"  {where}{words}")
    for found in report.unverified:
        typer.echo(f"{found.number} ({ids.show(ids.INVOICE, found.invoice_id)}) is not verified:")
        for each in found.needs:
            typer.echo(f"  needs {each.words}")
    for chain in report.chains:
        shown = ids.show(ids.ORGANIZATION, chain.organization_id)
        if chain.differences:
            typer.echo(f"The chain of {shown} is different:")
            for words in chain.differences:
                typer.echo(f"  {words}")
        elif chain.report.needs:
            typer.echo(
                f"The chain of {shown} is unbroken: position {chain.report.position}, digest "
                f"{chain.report.digest.hex()}; its events are not verified:"
            )
            for each in chain.report.needs:
                typer.echo(f"  needs {each.words}")
        else:
            typer.echo(
                f"The chain of {shown} is unbroken: position {chain.report.position}, "
                f"{chain.report.events:,} events, digest {chain.report.digest.hex()}"
            )
    verdict = _status(report).replace("_", " ")
    archived = f", {len(report.unverified):,} not verified" if report.unverified else ""
    looked = report.events + report.chained
    typer.echo(
        f"{verdict}: {report.invoices:,} invoices, {len(report.wrong):,} of them different{archived}; {report.lines:,} lines from "
        f"{report.events:,} events; {seconds:.1f} s, {looked / seconds if seconds else 0:,.0f} events/s"
    )
