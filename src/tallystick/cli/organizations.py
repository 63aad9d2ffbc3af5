"""`tallystick organizations`: make one and its first key, list them, change one."""

from typing import Annotated, Final
from uuid import UUID

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from tallystick.api import versions
from tallystick.app import wall
from tallystick.cli import terminal
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.core import ids
from tallystick.core.limits import GRACE_MAX
from tallystick.core.times import parse_instant, show_instant
from tallystick.flows.open_organization import NewKey, change_organization, open_organization
from tallystick.flows.subscribe import grace_of
from tallystick.store import organizations
from tallystick.store.db import Database
from tallystick.store.organizations import Organization

app = typer.Typer(help="Organizations: the businesses that bill.", no_args_is_help=True)
FOLLOW_CURRENT: Final = "current"
DEFAULT_GRACE: Final = "default"
_ID_CHARS: Final = len(ids.show(ids.ORGANIZATION, UUID(int=0)))


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
    terminal.say(f"[bold]{escape(made.name)}[/] ({made.mode}) is {ids.show(ids.ORGANIZATION, made.id)}")
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
    if as_json:
        terminal.result([_row(each) for each in found])
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("organization", no_wrap=True, min_width=_ID_CHARS)
    for name in ("name", "mode", "time zone", "API version"):
        table.add_column(name, overflow="fold")
    for each in found:
        shown = (each.name, each.mode, each.timezone, each.api_version or FOLLOW_CURRENT)
        table.add_row(ids.show(ids.ORGANIZATION, each.id), *map(escape, shown))
    terminal.show(table)


@app.command("update")
def update(
    organization: Annotated[str, typer.Argument(help="Its id, org_…, as `organizations list` shows it.")],
    name: Annotated[str | None, typer.Option(help="What it is called from now on.")] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Where its days begin, from each subscription's next period on.")
    ] = None,
    api_version: Annotated[
        str | None,
        typer.Option(
            help="The version spoken to callers that name none: a date, or current, whatever that is."
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            help="Seconds between a period's end and its invoice, for usage that is a little late; or default: "
            "an hour live, none in a sandbox. From each subscription's next period on."
        ),
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Change an organization. Servers that are running answer accordingly from now on."""
    if api_version not in (None, FOLLOW_CURRENT, *versions.KNOWN):
        known = ", ".join(versions.KNOWN)
        terminal.fail(
            f"--api-version {api_version!r} is not known; it is one of {known}, or {FOLLOW_CURRENT}"
        )
    changes: dict[str, str | int | None] = {
        field: value for field, value in (("name", name), ("timezone", timezone)) if value is not None
    }
    if api_version is not None:
        changes["api_version"] = None if api_version == FOLLOW_CURRENT else api_version
    if grace is not None:
        changes["grace_s"] = None if grace == DEFAULT_GRACE else _seconds(grace)
    if not changes:
        terminal.fail("there is nothing to change: give --name, --timezone, --api-version or --grace")

    async def act(database: Database) -> Organization:
        named = await terminal.the_organization(database, organization)
        async with database.transaction() as conn:
            return await change_organization(conn, organization_id=named.id, changes=changes)

    with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo:
        changed = terminal.run(conninfo, act)
    if as_json:
        terminal.result(_row(changed))
        return
    terminal.say(
        f"[bold]{escape(changed.name)}[/] ({changed.mode}) is in {changed.timezone} and speaks "
        f"{'the current API version' if changed.api_version is None else f'API version {changed.api_version}'}"
    )


def _seconds(given: str) -> int:
    if not (given.isascii() and given.isdecimal()) or not int(given) <= GRACE_MAX.total_seconds():
        longest = int(GRACE_MAX.total_seconds())
        terminal.fail(f"--grace {given!r} is not a number of seconds up to {longest}, or {DEFAULT_GRACE}")
    return int(given)


def _row(organization: Organization) -> dict[str, str | int | None]:
    return {
        "organizationId": ids.show(ids.ORGANIZATION, organization.id),
        "name": organization.name,
        "mode": organization.mode,
        "timezone": organization.timezone,
        "apiVersion": organization.api_version,
        "graceSeconds": int(grace_of(organization).total_seconds()),
        "createdAt": show_instant(organization.created_at),
    }
