"""One PostgreSQL cluster on disk: make it, guard its door, and tell its processes from strangers."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from tallystick.store import embedded_paths as paths
from tallystick.store.embedded_paths import Account, EmbeddedError

NAME: Final = "tallystick"  # of the superuser and of the database
LOG_BYTES_MAX: Final = 10_000_000


def initialise(home: Path, account: Account, binaries: Path) -> None:
    """initdb aside, then rename: a cluster under its final name is whole."""
    for left in home.glob("initdb-*"):
        shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix="initdb-", dir=home))
    paths.give(aside, account)
    command = [str(binaries / "initdb"), "-D", str(aside), "-U", NAME, "-E", "UTF8", "--locale=C"]
    command += ["--auth-local=peer", "--auth-host=reject", "--no-instructions"]
    with tempfile.TemporaryFile() as said:
        process = spawn(command, account, said.fileno())
        try:
            failed = process.wait() != 0
        except BaseException:
            process.kill()
            process.wait()
            raise
        message = tail(said, 0)
    if failed:
        shutil.rmtree(aside, ignore_errors=True)
        raise EmbeddedError(f"PostgreSQL could not make its database in {home}: {message}")
    aside.rename(home / "cluster")
    fd = os.open(home, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def refuse_other_version(cluster: Path) -> None:
    made_by, ours = (cluster / "PG_VERSION").read_text().strip(), str(paths.wheel_major())
    if made_by != ours:
        raise EmbeddedError(
            f"{cluster} was made by PostgreSQL {made_by}, and this Tallystick brings {ours}: dump it with the "
            "Tallystick that made it, and restore the dump with this one."
        )


def write_access_rules(cluster: Path, account: Account) -> None:
    """The socket alone, and of all accounts only ourselves and root; at each start, as names may change."""
    rules = {
        "pg_hba.conf": f"local all all peer map={NAME}\n",
        "pg_ident.conf": "".join(f"{NAME} {name} {NAME}\n" for name in _admitted(account)),
    }
    for file, rule in rules.items():
        path = cluster / file
        if not path.exists() or path.read_text() != rule:
            path.write_text(rule)
            path.chmod(0o600)
            paths.give(path, account)


def _admitted(account: Account) -> list[str]:
    """Not `nobody`, whom we may share with strangers."""
    names = {"root", paths.own_name()} | ({account.name} if account.name != "nobody" else set())
    return [f'"{name}"' for name in sorted(names)]


def spawn(
    command: list[str], account: Account, log: int, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=pass_fds,
            **account.popen(),
        )
    except OSError as error:
        raise EmbeddedError(f"{command[0]} cannot be run as {account.name!r}: {error}.") from error


def is_postmaster(pid: int, directory: str) -> bool:
    """Is this number a live postmaster of that directory? (Its children show other command lines.)"""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        if Path("/proc/self").exists():
            return False
        shown = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True
        )
        return f"postgres -D {directory} " in shown.stdout
    return Path(words[0]).name == "postgres" and words[1:3] == ["-D", directory]


def processes_in(cluster: Path) -> Iterator[int]:
    """Every PostgreSQL process that works in this directory, as far as we may see."""
    here = cluster.stat()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "comm").read_text().strip() == "postgres" and os.path.samestat(
                (entry / "cwd").stat(), here
            ):
                yield int(entry.name)


def rotate(log: Path) -> None:
    with suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES_MAX:
            log.rename(log.with_name(f"{log.name}.1"))


def tail(log: IO[bytes], offset: int) -> str:
    """The last lines after `offset`, for a message."""
    log.seek(offset)
    lines = log.read().decode(errors="replace").splitlines()
    return " | ".join(line.strip() for line in lines[-6:] if line.strip()) or "nothing"
