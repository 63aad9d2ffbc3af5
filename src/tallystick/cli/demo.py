"""`tallystick demo`: the server, and beside it an organization that lives through three months in seconds."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.client import HTTPException
from typing import Annotated

import typer
import uvicorn
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tallystick import settings
from tallystick.app import wall
from tallystick.cli import demo_books, demo_story, terminal
from tallystick.cli.demo_http import Caller, Unexpected
from tallystick.cli.demo_story import Replayed, Show
from tallystick.cli.serve import prepared, server_options
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.core import ids
from tallystick.flows.open_organization import make_key, open_organization
from tallystick.settings import Settings
from tallystick.store import organizations
from tallystick.store.db import Database

_KEY_LASTS = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo's organization, and a key made for this run: older ones are kept nowhere."""

    organization_id: str
    api_key: str
    filled: bool


def demo(
    port: Annotated[int | None, typer.Option(help="The port to listen on.", envvar="TALLYSTICK_PORT")] = None,
    leave: Annotated[bool, typer.Option("--exit", help="Fill, print, and stop.")] = False,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Serve, with an organization that has three months of real usage and invoices behind it.

    Its data lives in data/demo unless said otherwise. A second run finds it there and serves at once; one that
    was cut short goes on.
    """
    found = terminal.chosen(data_dir, database_url)
    if found.data_dir == settings.DEFAULT_DATA_DIR:
        found = replace(found, data_dir=settings.DEFAULT_DATA_DIR / "demo")
    found = replace(found, port=found.port if port is None else port, workers=1, rate_limit=0)
    with prepared(found) as ready:
        opened = terminal.run(ready.database_url or "", _open)
        beside = _Beside(opened, ready, leave, as_json)
        beside.run()
    if beside.failure is not None:
        terminal.fail(beside.failure)
    terminal.say("stopped")


async def _open(database: Database) -> Demo:
    """Find the demo's organization or make it, with its clock where the story begins."""
    now = wall()
    async with database.transaction() as conn:
        known = [each for each in await organizations.every(conn) if each.name == demo_story.NAME]
        if known:
            organization = known[0]
            key = await make_key(
                conn, organization=organization, name="Demo", wall=now, expires_at=now + _KEY_LASTS
            )
        else:
            organization, key = await open_organization(
                conn,
                name=demo_story.NAME,
                mode="sandbox",
                timezone="UTC",
                clock=demo_story.START,
                wall=now,
            )
    filled = organization.simulated_time is not None and organization.simulated_time >= demo_story.END
    return Demo(ids.show(ids.ORGANIZATION, organization.id), key.secret, filled)


@dataclass
class _Beside:
    """The server in this thread, and a caller that fills it in another."""

    demo: Demo
    found: Settings
    leave: bool
    as_json: bool
    failure: str | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        self._server = uvicorn.Server(uvicorn.Config(**server_options(self.found)))
        caller = threading.Thread(target=self._call, name="demo")
        caller.start()
        try:
            self._server.run()
            if not self._server.started:
                self.failure = "the server did not start; its log says why"
        except KeyboardInterrupt:  # how the server hands on the signal that stopped it
            pass
        finally:
            self._over.set()
            caller.join()

    def _stopped(self) -> bool:
        return self._over.is_set() or self._server.should_exit

    def _call(self) -> None:
        try:
            with Caller(f"http://{self.found.host}:{self.found.port}", self.demo.api_key) as api:
                api.wait_until_ready(self._stopped)
                self._fill_and_show(api)
        except (Unexpected, OSError, HTTPException) as error:
            if not self._stopped():
                self.failure = f"the demo could not be filled: {error}"
        finally:  # whatever else ended it, such as a reader of our output who went away
            if self.leave or self.failure is not None:
                self._server.should_exit = True

    def _fill_and_show(self, api: Caller) -> None:
        replayed = Replayed()
        if self.demo.filled:
            terminal.say("The three months are there already.")
        else:
            with _progress() as show:
                replayed = demo_story.fill(api, show, self._stopped)
            if self._stopped():
                terminal.say("Cut short; the next run goes on.")
                return
        books = demo_books.read(api)
        if self.as_json:
            terminal.result(
                {
                    "organizationId": self.demo.organization_id,
                    "apiKey": self.demo.api_key,
                    "baseUrl": self.found.base_url,
                    "alreadyFilled": self.demo.filled,
                    "sent": replayed.sent,
                    "stored": replayed.stored,
                    "refused": dict(replayed.refused),
                    **books.to_json(),
                }
            )
            return
        if replayed.sent:
            refused = ", ".join(f"{count} × {code}" for code, count in replayed.refused.items()) or "none"
            terminal.say(f"{replayed.stored} commits stored; refused: {refused}")
        demo_books.show(books, self.found.base_url, self.demo.api_key)
        if not self.leave:
            terminal.say("\nServing. Ctrl-C stops everything; what is there stays.")


@contextmanager
def _progress() -> Iterator[Show]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total}"),
        TimeRemainingColumn(),
    )
    people = terminal.people
    with Progress(*columns, console=people, transient=True, disable=not people.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def show(what: str, done: int, total: int) -> None:
            progress.update(task, description=f"{what:<12}", completed=done, total=total)

        yield show
