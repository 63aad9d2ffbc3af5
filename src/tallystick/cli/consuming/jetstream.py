"""NATS JetStream: messages are pulled a batch at a time, and the next batch when the one in hand is settled.

A message is acknowledged after the commit that counted its event, so whoever dies in between has it delivered again,
and the event's key tells that it is there. No more is in hand than one batch; what is put off waits in the stream.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo
from nats.js.client import JetStreamContext

from tallystick.cli.consuming import messages
from tallystick.cli.consuming.credentials import are_credentials
from tallystick.cli.consuming.refused import Refused, RefusedFile
from tallystick.cli.consuming.verdicts import Verdict, delay_s, verdict
from tallystick.core.cloud_events import in_its_words
from tallystick.errors import Problem
from tallystick.flows.batcher import Batcher
from tallystick.flows.drafts import Draft, Outcome
from tallystick.store.organizations import Organization

log = logging.getLogger("tallystick.consume")

_FETCH_WITHIN_S: Final = 0.5
"""So long a batch that is not full is waited for."""
_ACK_WITHIN_S: Final = 60
_CONFIRMED_WITHIN_S: Final = 10
_CONNECTED_WITHIN_S: Final = 5
_PAUSE_S: Final = 1
_COUNTS_EVERY_S: Final = 10
_BATCHES_PUT_OFF_MAX: Final = 10
_UNLIMITED: Final = -1


class CannotConsume(Exception):
    """There is nothing to consume as it was asked for; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asked for."""

    url: str
    stream: str
    durable: str
    subject: str
    batch: int
    tries: int
    dead_letter: str | None = None
    credentials: Path | None = None


class Consumer:
    """One durable consumer on its way into one organization."""

    def __init__(
        self,
        wish: Wish,
        batcher: Batcher,
        organization: Organization,
        refused: RefusedFile | None,
    ) -> None:
        self.counts: Counter[Verdict] = Counter()
        self.waiting = 0  # in the stream, when the last message left it
        self._wish = wish
        self._batcher = batcher
        self._organization = organization
        self._refused = refused

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; what is in hand then is settled first. Raises CannotConsume."""
        async with _connected(self._wish) as client:
            js = client.jetstream()
            pulled = await _subscribed(js, self._wish)
            telling = asyncio.create_task(self._tell(), name="counts")
            try:
                while not stop.is_set():
                    if found := await _fetched(pulled, self._wish.batch):
                        await self._settle_or_not(client, js, found)
            finally:
                telling.cancel()

    async def _settle_or_not(self, client: Client, js: JetStreamContext, found: Sequence[Msg]) -> None:
        """Where NATS goes away meanwhile, what it was not told of comes again, and is a repeat then."""
        try:
            await self._settle(js, found)
            await client.flush(_CONFIRMED_WITHIN_S)
        except nats.errors.Error as error:
            log.warning("NATS: %s; what it was not told of comes again", error or type(error).__name__)

    def shown(self) -> str:
        """The counts, for people."""
        told = {each: f"{self.counts[each]:,}" for each in Verdict}
        return (
            f"{told[Verdict.STORED]} stored, {told[Verdict.REPEAT]} already there, "
            f"{told[Verdict.REFUSED]} refused, {told[Verdict.LATER]} put off; {self.waiting:,} waiting"
        )

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_COUNTS_EVERY_S)
            log.info("%s", self.shown())

    async def _settle(self, js: JetStreamContext, found: Sequence[Msg]) -> None:
        """Store a batch, and tell the stream of each message what became of it."""
        outcomes = await self._outcomes(found)
        self.waiting = found[-1].metadata.num_pending
        refused: list[tuple[Msg, Problem]] = []
        put_off = False
        for each, outcome in zip(found, outcomes, strict=True):
            deliveries = each.metadata.num_delivered
            what = verdict(outcome, deliveries=deliveries, tries=self._wish.tries)
            if isinstance(outcome, Problem) and what is Verdict.REFUSED:
                refused.append((each, outcome))
            elif isinstance(outcome, Problem) and what is Verdict.LATER:
                put_off = put_off or outcome.kind.retryable
                await self._put_off(each, outcome)
            else:
                await each.ack()
                self.counts[what] += 1
        await self._give_up(js, refused)
        if put_off:
            await asyncio.sleep(_PAUSE_S)  # the database is away: there is no hurry to hear it again

    async def _outcomes(self, found: Sequence[Msg]) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(found)
        drafts: dict[int, Draft] = {}
        theirs: set[int] = set()
        for place, each in enumerate(found):
            try:
                event, is_cloud_event = messages.read(each.data, each.headers or {})
            except Problem as problem:
                outcomes[place] = problem
                continue
            if event.key is None:
                at = each.metadata
                key = messages.key_of(at.stream, at.sequence.stream, at.timestamp.isoformat())
                event = event._replace(key=key)
            drafts[place] = Draft(event)
            if is_cloud_event:
                theirs.add(place)
        if drafts:
            stored = await self._stored(list(drafts.values()))
            for place, outcome in zip(drafts, stored, strict=True):
                outcomes[place] = (
                    in_its_words(outcome) if isinstance(outcome, Problem) and place in theirs else outcome
                )
        return [each for each in outcomes if each is not None]

    async def _stored(self, drafts: list[Draft]) -> Sequence[Outcome]:
        try:
            return await self._batcher.submit(self._organization.id, drafts)
        except Problem as problem:
            return [problem] * len(drafts)

    async def _put_off(self, each: Msg, why: Problem) -> None:
        await each.nak(delay=delay_s(why, deliveries=each.metadata.num_delivered))
        self.counts[Verdict.LATER] += 1

    async def _give_up(self, js: JetStreamContext, refused: Sequence[tuple[Msg, Problem]]) -> None:
        """Keep them, then have them delivered no more; what could not be kept is delivered again."""
        if not refused:
            return
        kept = [self._is_written(refused)] * len(refused)
        if self._wish.dead_letter is not None and kept[0]:
            subject = self._wish.dead_letter
            kept = await asyncio.gather(*(_published(js, subject, *each) for each in refused))
        for (each, problem), is_kept in zip(refused, kept, strict=True):
            if not is_kept:
                await self._put_off(each, Problem("unavailable"))
                continue
            await each.term()
            self.counts[Verdict.REFUSED] += 1
            log.warning(
                "message %s is refused: %s: %s", each.metadata.sequence.stream, problem.code, problem.message
            )

    def _is_written(self, refused: Sequence[tuple[Msg, Problem]]) -> bool:
        if self._refused is None:
            return True
        try:
            self._refused.write([_as_kept(each, problem) for each, problem in refused])
        except OSError as error:
            log.warning("refused messages cannot be written: %s", error)
            return False
        return True


def _as_kept(each: Msg, problem: Problem) -> Refused:
    at = each.metadata
    return Refused(at.stream, at.sequence.stream, each.subject, each.headers or {}, each.data, problem)


async def _published(js: JetStreamContext, subject: str, each: Msg, problem: Problem) -> bool:
    """Whether a stream has it: the message as it was, with headers that say where it was and why it is refused."""
    at = each.metadata
    headers = {
        **(each.headers or {}),
        "Nats-Msg-Id": f"{at.stream}:{at.sequence.stream}:{at.timestamp.isoformat()}",
        "Tallystick-Stream": at.stream,
        "Tallystick-Sequence": str(at.sequence.stream),
        "Tallystick-Subject": each.subject,
        "Tallystick-Code": problem.code,
        "Tallystick-Error": " ".join(problem.message.split()),
    }
    try:
        await js.publish(subject, each.data, timeout=_CONFIRMED_WITHIN_S, headers=headers)
    except nats.errors.Error as error:
        log.warning("message %s could not be kept on %s: %s", at.sequence.stream, subject, error)
        return False
    return True


@asynccontextmanager
async def _connected(wish: Wish) -> AsyncIterator[Client]:
    """A server that goes away is waited for; one that is not there to begin with is told soon."""
    if wish.credentials is not None and not are_credentials(wish.credentials):
        raise CannotConsume(f"{wish.credentials} does not hold the JWT of a user and the seed of their key")
    troubles: list[Exception] = []

    async def trouble(error: Exception) -> None:
        troubles[:] = [error]
        log.warning("NATS: %s", error or type(error).__name__)

    try:
        async with asyncio.timeout(_CONNECTED_WITHIN_S):
            client = await nats.connect(
                wish.url,
                name="tallystick",
                connect_timeout=_PAUSE_S,
                max_reconnect_attempts=-1,
                error_cb=trouble,
                user_credentials=wish.credentials,
            )
    except (nats.errors.Error, OSError, ValueError) as error:
        why = troubles[0] if troubles else error
        raise CannotConsume(f"NATS does not answer at {_without_secret(wish.url)}: {why}") from None
    try:
        yield client
    finally:
        await client.close()  # sends what was written before


async def _subscribed(js: JetStreamContext, wish: Wish) -> JetStreamContext.PullSubscription:
    """The durable consumer, made where there is none. Raises CannotConsume where it would lose messages."""
    try:
        await js.stream_info(wish.stream)
        if wish.dead_letter is not None:
            there = await js.find_stream_name_by_subject(wish.dead_letter)
            if there == wish.stream:
                raise CannotConsume(
                    f"the stream {wish.stream} takes {wish.dead_letter} itself: what is refused would come "
                    "back; give --dead-letter a subject of another stream"
                )
        config = ConsumerConfig(
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_ACK_WITHIN_S,
            max_deliver=_UNLIMITED,
            max_ack_pending=_BATCHES_PUT_OFF_MAX * wish.batch,
        )
        pulled = await js.pull_subscribe(wish.subject, wish.durable, wish.stream, config)
        _must_lose_nothing(await pulled.consumer_info(), wish)
    except nats.js.errors.NotFoundError:
        what = (
            f"stream {wish.stream}"
            if wish.dead_letter is None
            else f"stream {wish.stream}, or none that takes {wish.dead_letter}"
        )
        raise CannotConsume(f"there is no {what}") from None
    except nats.errors.Error as error:
        raise CannotConsume(f"the stream {wish.stream} cannot be consumed: {error}") from None
    return pulled


def _must_lose_nothing(found: ConsumerInfo, wish: Wish) -> None:
    """A consumer that was there before is taken as it is, where nothing gets lost by it."""
    config = found.config
    if config.ack_policy != AckPolicy.EXPLICIT:
        raise CannotConsume(
            f"the consumer {wish.durable} has the acknowledgement policy {config.ack_policy}: it must be explicit"
        )
    if (config.max_deliver or _UNLIMITED) > 0:
        raise CannotConsume(
            f"the consumer {wish.durable} gives a message up after {config.max_deliver} deliveries, and while the "
            "database is away they would be used up: set max_deliver to -1"
        )
    filters = config.filter_subjects or [config.filter_subject or ">"]
    if filters != [wish.subject]:
        raise CannotConsume(
            f"the consumer {wish.durable} filters by {', '.join(filters)}, not by {wish.subject}"
        )


async def _fetched(pulled: JetStreamContext.PullSubscription, batch: int) -> list[Msg]:
    began = time.monotonic()
    try:
        return await pulled.fetch(batch, timeout=_FETCH_WITHIN_S)
    except (nats.errors.TimeoutError, TimeoutError):
        return []
    except nats.errors.Error as error:
        log.warning("NATS: %s", error)
        await asyncio.sleep(max(0, _PAUSE_S - (time.monotonic() - began)))
        return []


def _without_secret(url: str) -> str:
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]
