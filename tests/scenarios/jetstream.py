"""A NATS server of our own, what is published on it, and `tallystick consume nats` beside it."""

import asyncio
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import nats
import pytest
from nats.js.api import ConsumerConfig, ConsumerInfo
from nats.js.client import JetStreamContext

from tests.conftest import PROGRAM, Organization, free_port
from tests.scenarios.nats_accounts import Operator
from tests.scenarios.witnesses import until

T = TypeVar("T")

STREAM, DURABLE, SUBJECT = "USAGE", "billing", "usage.>"
_STARTS_WITHIN_S = 30

Message = tuple[bytes, Mapping[str, str]]


@dataclass
class Nats:
    """A server with JetStream, its store on disk."""

    program: str
    port: int
    store: Path
    config: Path | None = None
    credentials: Path | None = None
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [self.program, "-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.store)]
        if self.config is not None:
            command += ["-c", str(self.config)]
        log = (self.store.parent / "nats.log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        limit = time.monotonic() + _STARTS_WITHIN_S
        while True:
            try:
                self.ask(lambda js: js.account_info())
                return
            except Exception:
                assert time.monotonic() < limit, (self.store.parent / "nats.log").read_text()
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def ask(self, question: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        async def act() -> T:
            client = await nats.connect(
                self.url, allow_reconnect=False, error_cb=_quiet, user_credentials=self.credentials
            )
            try:
                return await question(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(act())

    def add_stream(self, name: str = STREAM, *subjects: str) -> None:
        self.ask(lambda js: js.add_stream(name=name, subjects=list(subjects) or [SUBJECT]))

    def add_consumer(self, **config: Any) -> None:
        wanted = ConsumerConfig(durable_name=DURABLE, filter_subject=SUBJECT, **config)
        self.ask(lambda js: js.add_consumer(STREAM, wanted))

    def publish(self, messages: Sequence[Message], subject: str = "usage.api") -> None:
        async def act(js: JetStreamContext) -> None:
            for data, headers in messages:
                await js.publish(subject, data, headers=dict(headers))

        self.ask(act)

    def consumer(self) -> ConsumerInfo:
        found: ConsumerInfo = self.ask(lambda js: js.consumer_info(STREAM, DURABLE))
        return found

    def came_again(self) -> bool:
        """Whether a message that is not settled yet was delivered more than once."""
        with suppress(nats.js.errors.NotFoundError):  # nobody has begun
            return bool(self.consumer().num_redelivered)
        return False

    def forget_consumer(self) -> None:
        self.ask(lambda js: js.delete_consumer(STREAM, DURABLE))

    def is_settled(self) -> bool:
        """Whether every message was acknowledged, or terminated."""
        try:
            found = self.consumer()
        except nats.js.errors.NotFoundError:
            return False
        return not found.num_pending and not found.num_ack_pending

    def messages(self, stream: str) -> list[Any]:
        async def act(js: JetStreamContext) -> list[Any]:
            count = (await js.stream_info(stream)).state.messages
            return [await js.get_msg(stream, seq=number) for number in range(1, count + 1)]

        return self.ask(act)


async def _quiet(error: Exception) -> None:
    """Whoever asks is told by what is raised."""


@contextmanager
def a_nats(operator: Operator | None = None) -> Iterator[Nats]:
    """With the stream of usage. Skips where there is no such server. With an operator, it lets in nobody else."""
    program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if program is None:
        pytest.skip("there is no nats-server here: apt-get install nats-server")
    folder = Path(tempfile.mkdtemp(prefix="tallystick-nats-"))
    found = Nats(program, free_port(), folder / "store")
    if operator is not None:
        found.config, found.credentials = folder / "nats.conf", folder / "user.creds"
        found.config.write_text(operator.config())
        found.credentials.write_text(operator.credentials())
    try:
        found.start()
        found.add_stream()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Consuming:
    """A `tallystick consume nats`, alive."""

    process: "subprocess.Popen[str]"
    ended: bool = False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> str:
        """What it said, when it has ended."""
        self.process.send_signal(how)
        _, said = self.process.communicate(timeout=60)
        self.ended = True
        return said


def command(nats: Nats, shop: Organization, database_url: str, *more: str) -> list[str]:
    where = ["--url", nats.url, "--stream", STREAM, "--durable", DURABLE, "--subject", SUBJECT]
    whose = ["--organization", shop.id, "--database-url", database_url]
    return [str(PROGRAM), "consume", "nats", *where, *whose, *more]


@contextmanager
def consuming(nats: Nats, shop: Organization, database_url: str, *more: str) -> Iterator[Consuming]:
    process = subprocess.Popen(
        command(nats, shop, database_url, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    running = Consuming(process)
    try:
        yield running
    finally:
        if not running.ended:  # the test failed before
            print(running.stop(signal.SIGKILL))


def consumed(nats: Nats, shop: Organization, database_url: str, *more: str) -> str:
    """Consume until all is settled, and stop; what was said."""
    with consuming(nats, shop, database_url, *more) as running:
        until(nats.is_settled, "every message is settled")
        said = running.stop()
    assert running.process.returncode == 0, said
    return said
