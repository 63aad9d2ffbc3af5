"""`tallystick migrate`: bring the database to the newest tables; with `--citus`, spread it over the nodes of a cluster."""

from typing import Annotated

import psycopg
import typer

from tallystick.cli import terminal
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.store import citus, migrate
from tallystick.store.citus import Done, NoCitus
from tallystick.store.embedded import EmbeddedError, embedded_postgres


def migrate_database(
    spread: Annotated[
        bool, typer.Option("--citus", help="Distribute what is hot by customer; on a Citus coordinator.")
    ] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Apply what migrations there are; every other command does so too. May be run again at any time."""
    found = terminal.chosen(data_dir, database_url)
    try:
        if found.database_url is not None:
            applied, done = _migrate(found.database_url, spread)
        else:
            with embedded_postgres(found.data_dir) as embedded:
                applied, done = _migrate(embedded.conninfo, spread)
    except (EmbeddedError, NoCitus) as error:
        terminal.fail(str(error))
    except psycopg.Error as error:
        terminal.fail(f"the database cannot be migrated: {str(error).strip()}")
    if as_json:
        terminal.result({"migrations": applied, "citus": None if done is None else done.told()})
        return
    terminal.say(f"migrations   {', '.join(applied) or 'all applied before'}")
    if done is not None:
        for what, tables in done.told().items():
            if isinstance(tables, list):
                terminal.say(f"{what:<14} {', '.join(tables) or 'nothing to do'}")
        terminal.say(f"{done.nodes} nodes hold shards")


def _migrate(conninfo: str, spread: bool) -> tuple[list[str], Done | None]:
    if spread:
        citus.refuse_unless_coordinator(conninfo)
    return migrate.migrate(conninfo), migrate.spread(conninfo) if spread else None
