"""Several server processes on one address: this one accepts connections, and hands each to the process that has fewest.

Left to themselves, processes get connections by chance: where they share a socket they race for them, and sockets that
share an address (SO_REUSEPORT) are dealt them by a hash. Of four connections, all go to one process of two one time in
eight; while they last, half of the machine rests. So they are dealt here, as the cluster of Node.js does. What was dealt
to a process that has died waits for the one that takes its place.
"""

import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any, Final

import uvicorn

from tallystick.cli.dealt_server import DealtServer

log = logging.getLogger("tallystick.workers")

_LOOK_EVERY_S: Final = 0.2
_PAUSE_S: Final = 0.05
_DID_NOT_START: Final = 3  # the exit code of a process that never served
_spawn: Final = multiprocessing.get_context("spawn")


def run_workers(options: dict[str, Any], *, cores: Sequence[int | None]) -> None:
    """Serve until SIGINT or SIGTERM, in a process for each of `cores`, which keeps to it (None: to none). A process that
    dies is replaced. Nobody is let in before all of them serve for the first time."""
    over = threading.Event()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: over.set())
    family = socket.AF_INET6 if ":" in options["host"] else socket.AF_INET
    address = options["host"], options["port"]
    with socket.create_server(address, family=family, backlog=options["backlog"]) as door:
        door.setblocking(False)
        places = [_Worker(options, core) for core in cores]
        waiting: socket.socket | None = None
        look_at = time.monotonic()
        while not over.is_set():
            heard: list[socket.socket | _Worker] = [*places]
            if waiting is None and all(each.has_served for each in places):
                heard.append(door)
            speak, have_room, _ = select.select(heard, places if waiting else (), (), _LOOK_EVERY_S)
            for each in places:
                each.hear()
            if door in speak or have_room:
                waiting = _deal(door, places, waiting)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + _LOOK_EVERY_S
                if not all(each.is_kept_up() for each in places):
                    log.error("a server process did not start; stopping")
                    over.set()
    for each in places:
        each.process.terminate()
    for each in places:
        each.process.join()


def _deal(
    door: socket.socket, places: Sequence["_Worker"], connection: socket.socket | None
) -> socket.socket | None:
    """This one and whoever else has come, each to a process. Handed back is one that nobody has room for yet."""
    while connection := connection or _accepted(door):
        if not any(each.takes(connection) for each in sorted(places, key=_Worker.load)):
            return connection
        connection.close()
        connection = None
    return None


def _accepted(door: socket.socket) -> socket.socket | None:
    try:
        return door.accept()[0]
    except BlockingIOError:
        return None
    except OSError as error:  # too many open files, or it is gone already
        log.warning("a connection cannot be accepted: %s", error)
        time.sleep(_PAUSE_S)
        return None


class _Worker:
    """A server process, replaced when it dies, and the connections it was dealt."""

    def __init__(self, options: dict[str, Any], core: int | None) -> None:
        self.has_served = False
        self._options = options
        self._core = core
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._dealt_at = 0.0
        self._begin()

    def _begin(self) -> None:
        self._serves = False
        self._has = 0
        self.process = _spawn.Process(
            target=_serve, args=(self._options, self._theirs, self._core), name="tallystick server"
        )
        self.process.start()

    def fileno(self) -> int:
        """To wait for what it has to say."""
        return self._ours.fileno()

    def is_kept_up(self) -> bool:
        """Replace it if it died; False when it could not begin."""
        if self.process.is_alive():
            return True
        if self.process.exitcode == _DID_NOT_START:
            return False
        log.warning("server process %s ended (%s); starting another", self.process.pid, self.process.exitcode)
        self.hear()
        self._begin()
        return True

    def hear(self) -> None:
        """A byte says that it serves, and each one after that, that a connection is over."""
        with suppress(BlockingIOError):
            while said := len(self._ours.recv(4096)):
                if not self._serves:
                    self._serves = self.has_served = True
                    said -= 1
                self._has = max(0, self._has - said)

    def load(self) -> tuple[bool, int, float]:
        """Less than another's where it serves and the other does not, has fewer connections, or waits for one longer."""
        return not self._serves, self._has, self._dealt_at

    def takes(self, connection: socket.socket) -> bool:
        """False where it has no room for one more that it has yet to take."""
        try:
            socket.send_fds(self._ours, [b"\0"], [connection.fileno()])
        except OSError:
            return False
        self._has += 1
        self._dealt_at = time.monotonic()
        return True


def _serve(options: dict[str, Any], dealt: socket.socket, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, [core])
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()
    server = DealtServer(uvicorn.Config(**options), dealt)
    with suppress(KeyboardInterrupt):  # how the server hands on the signal that stopped it
        server.run([])
    if not server.started:
        sys.exit(_DID_NOT_START)


def _end_with_parent() -> None:
    """A server whose parent was killed must not live on: its address would be taken, and nobody would tell it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
