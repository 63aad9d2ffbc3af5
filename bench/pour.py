"""So many requests, whatever time they take: a few connections, each sending its next when it was answered."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPResponse
from threading import Lock
from typing import Final

from bench.events import Judged, Talk, Target

ANSWER_WITHIN_S: Final = 60


class Unexpected(Exception):
    """An answer that is not the expected one; the message carries its beginning."""


def pour(
    target: Target,
    talk_of: Callable[[int], Talk],
    *,
    requests: int,
    connections: int,
    stored: Callable[[int], None] = lambda events: None,
) -> int:
    """How many events were stored; `stored` hears of those of each request. Spread over the connections as evenly as it goes."""
    one_at_a_time = Lock()

    def say_all(lane: int) -> int:
        events = 0
        with talking(target) as say_next:
            talk = talk_of(lane)
            for _ in range(shares[lane]):
                new = say_next(talk).stored
                events += new
                with one_at_a_time:
                    stored(new)
        return events

    shares = [requests // connections + (lane < requests % connections) for lane in range(connections)]
    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(say_all, range(connections)))


@contextmanager
def talking(target: Target) -> Iterator[Callable[[Talk], Judged]]:
    """A connection over which a talk's next request is sent, and its answer waited for and judged."""
    where = target.address
    with socket.create_connection((where.hostname, where.port), timeout=ANSWER_WITHIN_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield partial(_said, connection)


def _said(connection: socket.socket, talk: Talk) -> Judged:
    connection.sendall(talk.request())
    with HTTPResponse(connection) as answer:
        answer.begin()
        body = answer.read()
        judged = talk.judge(answer.status, body)
    if judged is None:
        raise Unexpected(f"{answer.status}: {body[:500].decode(errors='replace')}")
    return judged
