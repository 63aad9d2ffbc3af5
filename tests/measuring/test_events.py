"""What the load generator sends, and how it counts what comes back."""

import json
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
from bench.events import Batches, Crowd, Mixed, Singles, Talk, Target
from bench.load import Load

TARGETS = [
    Target("http://127.0.0.1:1", crowd=Crowd(size=7)),
    Target("http://127.0.0.1:1", crowd=Crowd(size=7), random_keys=True),
    Target("http://127.0.0.1:1", crowd=Crowd(size=7), random_keys=True, properties=True),
]
Many = Callable[[Target, str, int], Talk]


def sent(talk: Talk) -> Iterator[tuple[str, dict[str, object]]]:
    """Each request's path and body, for ever."""
    while True:
        head, _, body = talk.request().partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert f"content-length: {len(body)}" in lines
        yield lines[0].split()[1], json.loads(body)


def many(target: Target, run: str, lane: int) -> Batches:
    return Batches(target, run, lane, events_per_batch=20)


def events_of(requests: Iterator[tuple[str, dict[str, object]]], count: int) -> list[dict[str, object]]:
    told: list[dict[str, object]] = []
    for _, body in islice(requests, count):
        events = body.get("events", [body])
        assert isinstance(events, list)
        told += events
    return told


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("talk_of", [Singles, many])
def test_one_event_in_ten_is_the_very_one_that_was_sent_before(target: Target, talk_of: Many) -> None:
    count = 100 if talk_of is Singles else 6
    told = events_of(sent(talk_of(target, "run", 3)), count)
    by_key: dict[object, dict[str, object]] = {}
    repeated = 0
    for event in told:
        key = event["eventId"]
        repeated += key in by_key
        assert by_key.setdefault(key, event) == event
    first_batch = 0 if talk_of is Singles else 20  # it has nothing to repeat
    assert repeated == (len(told) - first_batch) // 10


@pytest.mark.parametrize("target", TARGETS)
def test_no_lane_and_no_run_meets_the_keys_of_another(target: Target) -> None:
    keys = [
        {event["eventId"] for event in events_of(sent(many(target, run, lane)), 5)}
        for run, lane in (("one", 0), ("one", 1), ("two", 0))
    ]
    assert len(keys[0] | keys[1] | keys[2]) == sum(map(len, keys))


def test_random_keys_come_in_no_order() -> None:
    keys = [event["eventId"] for event in events_of(sent(many(TARGETS[1], "run", 0)), 1)]
    assert keys != sorted(map(str, keys))


def test_properties_are_on_each_event() -> None:
    (event,) = events_of(sent(Singles(TARGETS[2], "run", 0)), 1)
    assert isinstance(event["properties"], list)
    assert {each["property"] for each in event["properties"]} == {"region", "path"}


def test_a_mix_has_one_batch_in_ten_requests() -> None:
    talk = Mixed(TARGETS[0], "run", 4, events_per_batch=20)
    paths = [path.rpartition("/")[2] for path, _ in islice(sent(talk), 40)]
    assert paths.count("batch") == 4
    assert paths.index("batch") == 5  # lanes take turns with it


def test_the_worst_stretch_is_the_worst_one_anywhere() -> None:
    assert load(9, 9, 1, 2, 3, 9).worst(3) == 2
    assert load(4, 8).worst(5) == 6
    assert load(4, 8, 1, seconds=2.5).worst(2) == 6  # the half second at the end is no stretch


def load(*per_second: int, seconds: float | None = None) -> Load:
    took = seconds or len(per_second)
    return Load(
        connections=1,
        seconds=took,
        requests_per_s=1,
        events_per_s=sum(per_second) / took,
        stored_per_s=1,
        p50_ms=1,
        p99_ms=1,
        generator_cpu=0,
        generator_us=0,
        per_second=list(per_second),
        events=sum(per_second),
        stored=sum(per_second),
        errors=0,
        error_samples=[],
    )
