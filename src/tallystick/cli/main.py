"""The program's face: one line per command."""

import typer

from tallystick import __version__
from tallystick.cli import (
    consume,
    demo,
    doctor,
    import_events,
    keys,
    migrate,
    organizations,
    reconcile,
    retention,
    serve,
    simulate,
    verify,
)

app = typer.Typer(
    name="tallystick",
    help="Open, self-hosted, usage-based billing: counts each event exactly once, and proves every invoice line.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("import")(import_events.import_events)
app.add_typer(consume.app, name="consume")
app.command("simulate")(simulate.simulate)
app.command("verify")(verify.verify)
app.command("reconcile")(reconcile.reconcile)
app.add_typer(retention.app, name="retention")
app.add_typer(organizations.app, name="organizations")
app.add_typer(keys.app, name="keys")
app.command("migrate")(migrate.migrate_database)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tallystick {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_version, is_eager=True
    ),
) -> None:
    return None


def main() -> None:
    app()
