"""`tallystick consume`: events out of a queue, for as long as it runs."""

import asyncio
import logging.config
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tallystick.app import wall
from tallystick.cli import logs, terminal
from tallystick.cli.consuming import refused as keeping
from tallystick.cli.terminal import DatabaseUrl, DataDir, WhichOrganization
from tallystick.core.limits import MESSAGES_PER_FETCH, ROWS_PER_CHUNK_MAX
from tallystick.flows.batcher import Batcher
from tallystick.flows.books import Books
from tallystick.store.db import Database
from tallystick.worker.key_keeper import KeyKeeper

app = typer.Typer(
    help="Take events out of a queue, acknowledged when they are on disk.", no_args_is_help=True
)

_INSTALL = "NATS is reached by nats-py, which is not installed: pip install 'tallystick[nats]'"


@app.callback()
def _queues() -> None:
    return None


@app.command("nats")
def consume_nats(
    stream: Annotated[str, typer.Option("--stream", help="The JetStream stream.")],
    durable: Annotated[
        str, typer.Option("--durable", help="The durable pull consumer; made where there is none.")
    ],
    subject: Annotated[
        str, typer.Option("--subject", help="The subject of the events, as the consumer filters.")
    ],
    url: Annotated[
        str,
        typer.Option(
            "--url", help="Where NATS is, with user and password if need be.", envvar="TALLYSTICK_NATS_URL"
        ),
    ] = "nats://127.0.0.1:4222",
    credentials: Annotated[
        Path | None,
        typer.Option(
            "--credentials",
            help="Who consumes, where NATS asks for a JWT: a .creds file, as nsc writes it.",
            envvar="TALLYSTICK_NATS_CREDENTIALS",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    organization: WhichOrganization = None,
    batch: Annotated[
        int,
        typer.Option("--batch", min=2, max=ROWS_PER_CHUNK_MAX, help="Messages in hand at once, one commit."),
    ] = MESSAGES_PER_FETCH,
    tries: Annotated[
        int,
        typer.Option(
            "--tries",
            min=1,
            help="Deliveries until an event is given up that somebody could put right: a customer who is not there "
            "yet, a limit that is reached.",
        ),
    ] = 6,
    refused: Annotated[
        Path | None,
        typer.Option("--refused", help="Append refused messages here, each with its reason.", dir_okay=False),
    ] = None,
    dead_letter: Annotated[
        str | None,
        typer.Option(
            "--dead-letter", help="Publish refused messages on this subject, which a stream must take."
        ),
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Count the events of a NATS JetStream stream, each exactly once, until SIGTERM or Ctrl-C.

    A message is acknowledged after its event's commit. One that can never be stored is kept by --refused or
    --dead-letter, and then dropped. Exit code 0: it was stopped. 1: it cannot consume, and says why. 2: usage.
    """
    if refused is None and dead_letter is None:
        raise typer.BadParameter(
            "say where refused messages are kept: --refused FILE, --dead-letter SUBJECT, or both"
        )
    try:
        from tallystick.cli.consuming import jetstream
    except ModuleNotFoundError:
        terminal.fail(_INSTALL)
    found = terminal.chosen(data_dir, database_url)
    logging.config.dictConfig(logs.config(found.log_level))
    wish = jetstream.Wish(url, stream, durable, subject, batch, tries, dead_letter, credentials)
    with ExitStack() as stack:
        file = stack.enter_context(_opened(refused)) if refused is not None else None
        conninfo = stack.enter_context(terminal.reachable(found, stays=True))

        async def act(database: Database) -> None:
            owner = await terminal.the_organization(database, organization)
            stop = _asked_to_stop()
            books = Books()
            batcher = Batcher(conninfo, books, wall)
            keeper = KeyKeeper(
                conninfo,
                books.filters,
                generation_bytes_max=found.key_generation_mb * 2**20,
                every_s=found.sweep_every_s,
            )
            batcher.start()
            keeper.start()
            consumer = jetstream.Consumer(wish, batcher, owner, file)
            try:
                terminal.say(f"consuming {stream} into {owner.name}")
                await consumer.run(stop)
            finally:
                await keeper.stop()
                await batcher.stop()
                terminal.say(f"stopped: {consumer.shown()}")

        try:
            terminal.run(conninfo, act)
        except jetstream.CannotConsume as why:
            terminal.fail(str(why))


@contextmanager
def _opened(refused: Path) -> Iterator[keeping.RefusedFile]:
    try:
        file = refused.open("ab", buffering=0)
    except OSError as error:
        raise typer.BadParameter(f"--refused {refused}: {error.strerror}") from None
    with file:
        yield keeping.RefusedFile(file)


def _asked_to_stop() -> asyncio.Event:
    """Set by the first signal; the second ends the process as it would have without us."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def first() -> None:
        stop.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, first)
    return stop
