"""`tallystick simulate`: what past usage would have cost under another price or plan, and who would gain by it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.bar import Bar
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from tallystick.api import wire
from tallystick.api.simulations import (
    Amounts,
    Simulate,
    SimulatedCustomer,
    SimulatedTotal,
    SimulationOut,
    show,
    wish_of,
)
from tallystick.app import wall
from tallystick.cli import terminal
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json, WhichOrganization
from tallystick.errors import Problem
from tallystick.flows import simulate as flow
from tallystick.store.db import Database
from tallystick.web.format import money

_SHOWN: Final = 10
"""Winners, and as many losers."""
_BAR_CHARS: Final = 20
_NAME_CHARS_MIN: Final = 16


def simulate(
    start: Annotated[str, typer.Option(help="From this day or instant on, ISO 8601.")],
    end: Annotated[str, typer.Option(help="Up to this one, not including it; not in the future.")],
    organization: WhichOrganization = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="The code of the plan whose price is put otherwise.")
    ] = None,
    feature: Annotated[
        str | None, typer.Option("--feature", help="The code of the feature it is the price of.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option("--price", help='The price, such as \'{"model": "per_unit", "unitAmount": "0.02"}\'.'),
    ] = None,
    price_file: Annotated[
        Path | None,
        typer.Option(
            "--price-file", help="A file with the price.", exists=True, dir_okay=False, readable=True
        ),
    ] = None,
    included: Annotated[
        str | None, typer.Option("--included", help="Units that are included before the price begins.")
    ] = None,
    to_plan: Annotated[
        str | None, typer.Option("--to-plan", help="The code of a plan that everybody is simulated on.")
    ] = None,
    customer: Annotated[
        list[str] | None, typer.Option("--customer", help="Only this customer; may be given several times.")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Replay past usage under another price or plan. Nothing is billed; the report is kept (GET /simulations).

    Exit code 0: simulated. 1: it cannot be, and the message says why. 2: usage.
    """
    asked = _asked(plan or to_plan, feature, _price(price, price_file), included, to_plan)
    asked |= {"start": start, "end": end, "customers": customer or None}
    with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo:

        async def act(database: Database) -> SimulationOut:
            owner = await terminal.the_organization(database, organization)
            wish = wish_of(wire.read(asked, Simulate), owner)
            now = owner.simulated_time or wall()
            with _progress() as progress:
                async with database.transaction(snapshot=True) as conn:
                    made = await flow.simulate(
                        conn, organization=owner, wish=wish, now=now, progress=progress
                    )
            return show(made, live=owner.live)

        report = terminal.run(conninfo, act)
    if as_json:
        terminal.result(wire.parse(wire.encode(report)))
    else:
        _show(report)


def _price(text: str | None, file: Path | None) -> Any:
    """The JSON that was given in one of two ways; whether it is a price is judged with the rest."""
    if text is not None and file is not None:
        raise typer.BadParameter("give --price or --price-file, not both")
    name, given = "--price", None if text is None else text.encode()
    if file is not None:
        name, given = f"--price-file {file}", file.read_bytes()
    if given is None:
        return None
    try:
        return wire.parse(given)
    except Problem as problem:
        raise typer.BadParameter(f"{name}: {problem.message}") from None


def _asked(
    plan: str | None, feature: str | None, price: Any, included: str | None, to_plan: str | None
) -> dict[str, Any]:
    """The body of the request that asks the same."""
    if (feature is None) != (price is None):
        raise typer.BadParameter("--feature goes with --price or --price-file")
    if included is not None and price is None:
        raise typer.BadParameter("--included goes with --feature and --price")
    if price is None and to_plan is None:
        raise typer.BadParameter("say what is to be otherwise: --plan, --feature and --price, or --to-plan")
    if price is not None and plan is None:
        raise typer.BadParameter("--feature needs --plan, whose price is put otherwise")
    if price is None:
        if plan != to_plan:
            raise typer.BadParameter("--plan goes with --feature and --price")
        return {"planCode": to_plan}
    changed = {"planCode": plan, "featureCode": feature, "price": price, "includedAmount": included}
    return {"planFeatures": [changed], "planCode": to_plan}


@contextmanager
def _progress() -> Iterator[flow.Progress]:
    columns = (
        TextColumn("simulating"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,} of {task.total:,} periods"),
        TimeRemainingColumn(),
    )
    people = terminal.people
    with Progress(*columns, console=people, transient=True, disable=not people.is_terminal) as progress:
        task = progress.add_task("simulate", total=0)

        def show(done: int, expected: int) -> None:
            progress.update(task, completed=done, total=expected)

        yield show


def _show(report: SimulationOut) -> None:
    people = report.customers
    assert isinstance(people, list)
    winners = [each for each in people if each.difference < 0]
    losers = [each for each in people if each.difference > 0]
    for title, ranked in (
        ("Who would pay less", winners),
        ("Who would pay more", losers[::-1]),
    ):
        if ranked:
            terminal.show(_table(title, ranked, most=max(abs(each.difference) for each in people)))
    for total in report.totals:
        terminal.show(_total(total))
    terminal.people.print(
        f"{report.periods:,} usage periods, {report.open_periods:,} of them still open; the report is {report.id}",
        soft_wrap=True,
    )


def _table(title: str, ranked: Sequence[SimulatedCustomer], most: int) -> Table:
    """The first of them, each with a bar: to the left what is saved, to the right what is paid more."""
    rest = len(ranked) - _SHOWN
    table = Table(
        title=f"{title}: {len(ranked):,}",
        box=box.SIMPLE_HEAD,
        caption=f"and {rest:,} more" if rest > 0 else None,
    )
    _add_columns(table, "customer")
    table.add_column("", no_wrap=True)
    for each in ranked[:_SHOWN]:
        saves = each.difference < 0
        bar = Bar(
            size=2 * most,
            begin=most + min(0, each.difference),
            end=most + max(0, each.difference),
            width=_BAR_CHARS,
            color="green" if saves else "red",
        )
        table.add_row(escape(each.customer_id), *_amounts(each, each.currency), bar)
    return table


def _total(total: SimulatedTotal) -> Table:
    """What everybody who pays in one currency comes to, part by part."""
    table = Table(
        title=f"All customers in {total.currency}: {total.customers:,}",
        box=box.SIMPLE_HEAD,
        caption=f"{total.winners:,} would pay less, {total.losers:,} more, {total.same:,} the same",
    )
    _add_columns(table, "")
    beside = (("base price", total.base), ("up to the plan's minimum", total.plan_minimum))
    for name, each in (*beside, *((each.feature_code, each) for each in total.features)):
        if each is not None:
            table.add_row(escape(name), *_amounts(each, total.currency))
    table.add_section()
    table.add_row("together", *_amounts(total, total.currency), style="bold")
    return table


def _add_columns(table: Table, who: str) -> None:
    table.add_column(who, overflow="fold", min_width=_NAME_CHARS_MIN)
    for name in ("as it was", "simulated", "difference"):
        table.add_column(name, justify="right", no_wrap=True)


def _amounts(each: Amounts, currency: str) -> tuple[str, str, str]:
    sign = "+" if each.difference > 0 else "−" if each.difference < 0 else ""
    return (
        money(each.old_amount, currency),
        money(each.new_amount, currency),
        sign + money(abs(each.difference), currency),
    )
