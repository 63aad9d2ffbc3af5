"""Install each official SDK once, pinned by digest, apart from our own packages.

The two Python SDKs share an import name, so each version gets a folder of its own. A stamp holds
the digest of the lock file it was installed from: a changed lock means a fresh folder.
"""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from .world import HERE

APART = HERE.parents[1] / ".venv" / "conformance"
INSTALL_SECONDS_MAX = 300


def python_sdk(version: str) -> Path:
    """The folder to put on PYTHONPATH for this version of commet-sdk."""
    target = APART / version
    lock = HERE / f"requirements-{version}.txt"

    def install() -> None:
        run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--require-hashes", "--target", str(target), "-r", str(lock)),
        )

    installed_once(target, lock, install)
    return target


def node_sdk() -> None:
    """`npm ci` into node_modules beside the stories, where Node looks for packages."""
    installed_once(
        HERE / "node_modules", HERE / "package-lock.json", lambda: run("npm", "ci", "--ignore-scripts")
    )


def installed_once(target: Path, lock: Path, install: Callable[[], None]) -> None:
    stamp = target / ".installed-from"
    digest = sha256(lock.read_bytes()).hexdigest()
    with one_at_a_time():
        if stamp.is_file() and stamp.read_text() == digest:
            return
        shutil.rmtree(target, ignore_errors=True)
        install()
        stamp.write_text(digest)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Test workers start together; one installs, the others wait."""
    APART.mkdir(parents=True, exist_ok=True)
    with (APART / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str) -> None:
    done = subprocess.run(
        command, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
