"""Several server processes on one address, each with a listening socket of its own.

Processes that share one socket race for its connections, and the one that wakes first takes a whole burst of
them: measured, one process of two often served all there was. Sockets that share only the address
(SO_REUSEPORT) are dealt connections by the kernel. They belong to the parent, so what is dealt to a process that
has died waits for the one that takes its place.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final

import uvicorn

log = logging.getLogger("tallystick.workers")

_LOOK_EVERY_S: Final = 0.2
_DID_NOT_START: Final = 3  # the exit code of a process that never served
_spawn: Final = multiprocessing.get_context("spawn")


def run_workers(options: dict[str, Any], *, workers: int) -> None:
    """Serve in `workers` processes until SIGINT or SIGTERM; a process that dies is replaced."""
    over = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: over.set())
    sockets = _bound(options["host"], options["port"], workers)
    processes = [_started(options, each) for each in sockets]
    while not over.wait(_LOOK_EVERY_S):
        for place, process in enumerate(processes):
            if process.is_alive():
                continue
            if process.exitcode == _DID_NOT_START:
                log.error("a server process did not start; stopping")
                over.set()
                break
            log.warning("server process %s ended (%s); starting another", process.pid, process.exitcode)
            processes[place] = _started(options, sockets[place])
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _bound(host: str, port: int, count: int) -> list[socket.socket]:
    """Only Linux deals out connections among sockets of one address; elsewhere one socket is shared."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if sys.platform != "linux":
        return [socket.create_server((host, port), family=family)] * count
    first = socket.create_server((host, port), family=family, reuse_port=True)
    here = (host, first.getsockname()[1])
    return [first, *(socket.create_server(here, family=family, reuse_port=True) for _ in range(count - 1))]


def _started(options: dict[str, Any], sock: socket.socket) -> SpawnProcess:
    process = _spawn.Process(target=_serve, args=(options, sock), name="tallystick server")
    process.start()
    return process


def _serve(options: dict[str, Any], sock: socket.socket) -> None:
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()
    server = uvicorn.Server(uvicorn.Config(**options))
    with suppress(KeyboardInterrupt):  # how the server hands on the signal that stopped it
        server.run([sock])
    if not server.started:
        sys.exit(_DID_NOT_START)


def _end_with_parent() -> None:
    """A server whose parent was killed must not live on: its address would be taken, and nobody would tell it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
