"""What `tallystick import` says: how far it is, which rows were refused, and what became of the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from tallystick.api import wire
from tallystick.cli import terminal
from tallystick.cli.sources.source import Row, Source
from tallystick.core import ids
from tallystick.core.money import text
from tallystick.core.times import show_instant
from tallystick.flows.import_events import Refused, Tally
from tallystick.flows.rehearse import Forecast
from tallystick.store.organizations import Organization

_REFUSALS_SHOWN: Final = 5
_CUSTOMERS_SHOWN: Final = 10
_UNREADABLE_CHARS_MAX: Final = 1_000


@contextmanager
def refusals(path: Path, file: Path) -> Iterator[BinaryIO]:
    """Where refused rows are written."""
    if path.exists() and path.samefile(file):
        raise typer.BadParameter("--refused must not be the file that is imported")
    try:
        notes = path.open("wb")
    except OSError as error:
        raise typer.BadParameter(f"--refused {path}: {error.strerror}") from None
    with notes:
        yield notes


def note(notes: BinaryIO | None, refused: Refused, row: Row, noun: str, tally: Tally) -> None:
    """To the file if there is one, word for word as it was sent; the first few are shown as well."""
    problem = refused.problem
    if sum(tally.refused.values()) <= _REFUSALS_SHOWN:
        terminal.people.print(
            f"{noun} {refused.number}: {problem.code}: {problem.message}", markup=False, soft_wrap=True
        )
    if notes is None:
        return
    entry = {noun: refused.number, "code": problem.code, "error": problem.message, "data": _sent(row)}
    notes.write(wire.encode(entry) + b"\n")


def _sent(row: Row) -> Any:
    if row.text is None:
        return row.said
    if isinstance(row.said, Exception):  # it could not be read
        return row.text[:_UNREADABLE_CHARS_MAX].decode(errors="replace")
    return msgspec.Raw(row.text)


@contextmanager
def progress(source: Source, verb: str) -> Iterator[Any]:
    columns = (
        TextColumn(verb),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} events/s"),
        TimeRemainingColumn(),
    )
    people = terminal.people
    with Progress(*columns, console=people, transient=True, disable=not people.is_terminal) as shown:
        task = shown.add_task("import", total=source.size, rate="–")

        def show(tally: Tally) -> None:
            elapsed = shown.tasks[0].elapsed or 0
            rate = f"{tally.lines / elapsed:,.0f}" if elapsed else "–"
            shown.update(task, completed=source.position, rate=rate)

        yield show


def document(
    file: Path,
    owner: Organization,
    tally: Tally,
    seconds: float,
    damage: str | None,
    forecast: Forecast | None,
) -> dict[str, Any]:
    """For machines."""
    told = {
        "file": str(file),
        "organizationId": ids.show(ids.ORGANIZATION, owner.id),
        "dryRun": forecast is not None,
        "events": tally.lines,
        "stored": tally.stored,
        "alreadyThere": tally.already_there,
        "refused": sum(tally.refused.values()),
        "refusedByCode": dict(tally.refused.most_common()),
        "customersMade": tally.customers_made,
        "subscriptionsMade": tally.subscriptions_made,
        "damage": damage,
        "seconds": round(seconds, 3),
        "eventsPerSecond": round(tally.lines / seconds) if seconds else 0,
    }
    return told if forecast is None else told | {"forecast": _forecast(forecast)}


def _forecast(forecast: Forecast) -> dict[str, Any]:
    first, last = (show_instant(at) if at is not None else None for at in (forecast.first, forecast.last))
    return {
        "first": first,
        "last": last,
        "late": forecast.late,
        "features": [
            {"featureCode": code, "events": total.events, "value": text(total.value)}
            for code, total in sorted(forecast.features.items())
        ],
        "customers": len(forecast.customers),
        "topCustomers": [
            {"customerId": customer, "events": events, "values": _values(forecast, customer)}
            for customer, events in forecast.customers.most_common(_CUSTOMERS_SHOWN)
        ],
    }


def _values(forecast: Forecast, customer: str) -> dict[str, str]:
    return {
        code: text(forecast.values[customer, code])
        for code in sorted(forecast.features)
        if (customer, code) in forecast.values
    }


def show(tally: Tally, seconds: float, damage: str | None, forecast: Forecast | None) -> None:
    """For people."""
    refused = sum(tally.refused.values())
    rate = round(tally.lines / seconds) if seconds else 0
    if damage:
        terminal.people.print(f"[bold red]✗[/] {damage}", soft_wrap=True)
    would = "" if forecast is None else "would be "
    dry = "" if forecast is None else "dry run, nothing was changed: "
    terminal.people.print(
        f"{dry}[bold]{tally.stored:,}[/] {would}stored, {tally.already_there:,} already there, "
        f"{refused:,} {would}refused; {tally.customers_made:,} customers {would}made; "
        f"{seconds:.1f} s, {rate:,} events/s",
        soft_wrap=True,
    )
    for code, count in tally.refused.most_common():
        terminal.say(f"  {count:>9,} {code}")
    if forecast is not None and forecast.first is not None:
        _show_forecast(_forecast(forecast))


def _show_forecast(told: dict[str, Any]) -> None:
    terminal.people.print(
        f"from {told['first']} to {told['last']}; {told['late']:,} late; {told['customers']:,} customers"
    )
    features = Table("feature", "events", "value")
    for each in told["features"]:
        features.add_row(each["featureCode"], f"{each['events']:,}", each["value"])
    customers = Table("customer", "events", "values")
    for each in told["topCustomers"]:
        values = ", ".join(f"{code} {value}" for code, value in each["values"].items())
        customers.add_row(each["customerId"], f"{each['events']:,}", values)
    terminal.show(features)
    terminal.show(customers)
