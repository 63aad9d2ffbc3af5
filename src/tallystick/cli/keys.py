"""`tallystick keys`: make, list and revoke API keys."""

from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape

from tallystick.app import wall
from tallystick.cli import terminal
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.core import ids
from tallystick.core.times import show_instant
from tallystick.flows.open_organization import NewKey, make_key, revoke_key
from tallystick.store import organizations
from tallystick.store.db import Database
from tallystick.store.organizations import ApiKey

app = typer.Typer(help="API keys.", no_args_is_help=True)
Which = Annotated[
    str | None, typer.Option("--organization", help="org_…; may be left out when there is only one.")
]


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "API key",
    expires_in_days: Annotated[int, typer.Option(min=1, max=3650, help="How long it lasts.")] = 365,
    organization: Which = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown this once and kept nowhere."""

    async def act(database: Database) -> NewKey:
        owner = await terminal.the_organization(database, organization)
        now = wall()
        async with database.transaction() as conn:
            return await make_key(
                conn,
                organization=owner,
                name=name,
                wall=now,
                expires_at=now + timedelta(days=expires_in_days),
            )

    with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo:
        made = terminal.run(conninfo, act)
    if as_json:
        terminal.result({"id": ids.show(ids.API_KEY, made.key.id), "name": name, "apiKey": made.secret})
        return
    terminal.say(f"[bold]{escape(name)}[/] is {ids.show(ids.API_KEY, made.key.id)}; the key, shown only now:")
    typer.echo(made.secret)


@app.command("list")
def list_all(
    organization: Which = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List the keys that are in use."""

    async def act(database: Database) -> list[ApiKey]:
        owner = await terminal.the_organization(database, organization)
        async with database.reading() as conn:
            return await organizations.list_keys(conn, organization_id=owner.id)

    with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo:
        found = terminal.run(conninfo, act)
    rows = [
        {
            "id": ids.show(ids.API_KEY, each.id),
            "name": each.name,
            "prefix": each.prefix,
            "expiresAt": show_instant(each.expires_at) if each.expires_at else None,
            "createdAt": show_instant(each.created_at),
        }
        for each in found
    ]
    if as_json:
        terminal.result(rows)
        return
    for row in rows:
        typer.echo(f"{row['id']}  {row['prefix']}…  {row['expiresAt'] or 'never expires':<24}  {row['name']}")


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, key_…, as `keys list` shows it.")],
    organization: Which = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Revoke a key: from then on nothing is accepted under it."""
    identity = ids.read(ids.API_KEY, key)
    if identity is None:
        terminal.fail(f"{key!r} is not a key id; `tallystick keys list` shows them")

    async def act(database: Database) -> None:
        owner = await terminal.the_organization(database, organization)
        async with database.transaction() as conn:
            await revoke_key(conn, organization_id=owner.id, key_id=identity, wall=wall())

    with terminal.reachable(terminal.chosen(data_dir, database_url)) as conninfo:
        terminal.run(conninfo, act)
    if as_json:
        terminal.result({"id": key, "revoked": True})
    else:
        terminal.say(f"{key} is revoked")
