"""Answers counted in memory are told as if each had been told by itself."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from tallystick.api import metrics

BOUNDS = (0.002, 0.25, 1.0)


@given(st.lists(st.sampled_from((0.0, 0.001, 0.002, 0.0025, 0.25, 1.0, 1.5, 100.0))))
def test_many_times_at_once_are_each_of_them(seconds: list[float]) -> None:
    each, together = CollectorRegistry(), CollectorRegistry()
    one = Histogram("took", "", ["operation"], buckets=BOUNDS, registry=each).labels("x")
    many = metrics.Times("took", "", ["operation"], buckets=BOUNDS, registry=together).labels("x")
    for took in seconds:
        one.observe(took)
    many.observe_all(seconds)
    assert _said(together) == _said(each)


def _said(registry: CollectorRegistry) -> list[str]:
    """But for when it was made."""
    return [each for each in generate_latest(registry).decode().splitlines() if "_created" not in each]


def test_what_was_answered_is_told_when_it_is_asked_for_and_after_a_while_without() -> None:
    def answered(status: str) -> float:
        samples = next(iter(metrics._REQUESTS.collect())).samples
        return sum(
            each.value
            for each in samples
            if each.labels == {"operation": "test", "status": status} and each.name.endswith("_total")
        )

    async def act() -> None:
        metrics.count("test", 201, 0.01)
        metrics.count("test", 201, 0.02)
        metrics.count("test", 409, 0.03)
        metrics.tell()
        assert (answered("201"), answered("409")) == (2, 1)
        metrics.count("test", 201, 0.01)
        assert answered("201") == 2
        await asyncio.sleep(metrics.TOLD_EVERY_S + 0.2)
        assert answered("201") == 3
        metrics.tell()
        assert answered("201") == 3, "told once"

    asyncio.run(act())
