"""`tallystick doctor`: what is wrong with this installation, and what to do about it."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from uuid import UUID

import psycopg

from tallystick.cli import terminal
from tallystick.cli.terminal import DatabaseUrl, DataDir, Json
from tallystick.core.times import show_instant
from tallystick.settings import Settings
from tallystick.store import health, migrate
from tallystick.store.embedded import EmbeddedError, embedded_postgres

_POSTGRES_MIN = 150_000
_FREE_BYTES_MIN = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str


def doctor(data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Look for what is wrong with this installation. Exit code 1 when something is."""
    found = terminal.chosen(data_dir, database_url)
    checks = list(_surroundings(found))
    address = found.database_url
    try:
        if found.database_url is not None:
            checks += _database(found.database_url)
        else:
            with embedded_postgres(found.data_dir) as embedded:
                address = embedded.conninfo
                checks += _database(embedded.conninfo)
    except (EmbeddedError, psycopg.OperationalError) as error:
        checks.append(Check("database", False, str(error).strip()))
    well = all(check.ok for check in checks)
    if as_json:
        terminal.result({"ok": well, "databaseUrl": address, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            terminal.say(f"{'[green]✓[/]' if check.ok else '[bold red]✗[/]'} {check.name:<14} {check.detail}")
    if not well:
        raise SystemExit(1)


def _surroundings(found: Settings) -> Iterator[Check]:
    yield Check("python", sys.version_info >= (3, 11), sys.version.split()[0])
    yield Check("time zones", True, f"tzdata {version('tzdata')}")
    if found.database_url is None:
        place = found.data_dir if found.data_dir.exists() else found.data_dir.absolute().parent
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        yield Check("disk", free > _FREE_BYTES_MIN, f"{free / 1e9:.1f} GB free for {found.data_dir}")


def _database(conninfo: str) -> Iterator[Check]:
    facts = health.facts(conninfo)
    yield Check("database", True, f"PostgreSQL {facts.version_text}, {facts.size_mb} MB")
    yield Check("version", facts.version >= _POSTGRES_MIN, "15 or newer is needed")
    waiting = migrate.pending(conninfo)
    yield Check(
        "migrations",
        not waiting,
        "all applied" if not waiting else f"`tallystick serve` will apply {', '.join(waiting)}",
    )
    safe = facts.fsync == "on" and facts.synchronous_commit != "off"
    yield Check("durability", safe, f"fsync {facts.fsync}, synchronous_commit {facts.synchronous_commit}")
    if not waiting:
        yield _stuck("periods", "subscription", health.stuck_closes(conninfo))
        yield _stuck("late usage", "customer", health.stuck_late_usage(conninfo))
        yield _books(conninfo)


def _books(conninfo: str) -> Check:
    at, broken = health.reconciled(conninfo)
    if at is None:
        return Check("books", True, "not reconciled yet; `tallystick reconcile` does it now")
    said = "; ".join(f"{rule}: {offenders} offenders" for rule, offenders in broken)
    names = f"{said}; `tallystick reconcile` names them" if broken else "every rule is kept"
    return Check("books", not broken, f"reconciled {show_instant(at)}: {names}")


def _stuck(name: str, whose: str, stuck: Sequence[tuple[UUID, str]]) -> Check:
    told = "; ".join(f"{whose} {each}: {why}" for each, why in stuck)
    return Check(name, not stuck, told or "none stuck")
