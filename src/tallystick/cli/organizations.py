"""`tallystick organizations`: make an organization and its first key."""

from typing import Annotated

import typer

from tallystick.app import wall
from tallystick.cli import terminal
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.core import ids
from tallystick.core.times import parse_instant, show_instant
from tallystick.flows.open_organization import NewKey, open_organization
from tallystick.store import organizations
from tallystick.store.db import Database
from tallystick.store.organizations import Organization

app = typer.Typer(help="Organizations: the businesses that bill.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="The organization's name.")],
    mode: Annotated[str, typer.Option(help="sandbox or live: separate worlds.")] = "sandbox",
    timezone: Annotated[
        str, typer.Option(help="Where its days begin, unless a customer says otherwise.")
    ] = "UTC",
    clock: Annotated[
        str | None, typer.Option(help="Sandbox only: the test clock starts here, ISO 8601, in the past too.")
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Make an organization. Its key is shown this once and kept nowhere."""
    at = parse_instant(clock) if clock is not None else None
    if clock is not None and at is None:
        terminal.fail(
            f"--clock must be an ISO 8601 date and time such as 2026-01-15T10:00:00Z, not {clock!r}"
        )
    if not name.strip():
        terminal.fail("--name must not be empty")

    async def act(database: Database) -> tuple[Organization, NewKey]:
        async with database.transaction() as conn:
            return await open_organization(
                conn, name=name, mode=mode, timezone=timezone, clock=at, wall=wall()
            )

    with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo:
        made, key = terminal.run(conninfo, act)
    if as_json:
        terminal.result(
            {
                "organizationId": ids.show(ids.ORGANIZATION, made.id),
                "name": made.name,
                "mode": made.mode,
                "timezone": made.timezone,
                "simulatedTime": show_instant(made.simulated_time) if made.simulated_time else None,
                "apiKey": key.secret,
            }
        )
        return
    terminal.say(f"[bold]{made.name}[/] ({made.mode}) is {ids.show(ids.ORGANIZATION, made.id)}")
    terminal.say("Its API key, shown only now:")
    typer.echo(key.secret)


@app.command("list")
def list_all(data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """List organizations."""

    async def act(database: Database) -> list[Organization]:
        async with database.reading() as conn:
            return await organizations.every(conn)

    with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo:
        found = terminal.run(conninfo, act)
    rows = [
        {
            "organizationId": ids.show(ids.ORGANIZATION, each.id),
            "name": each.name,
            "mode": each.mode,
            "timezone": each.timezone,
            "createdAt": show_instant(each.created_at),
        }
        for each in found
    ]
    if as_json:
        terminal.result(rows)
        return
    for row in rows:
        typer.echo(f"{row['organizationId']}  {row['mode']:<8} {row['name']}")
