"""The token bucket: what it lets through in any span of time, and what it tells those it does not."""

from dataclasses import replace
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.throttle import NANOSECONDS, NEVER_USED, Throttle

throttles = st.builds(Throttle, st.integers(1, 1_000), st.integers(1, 2_000), st.integers(1, 64))
pauses_ns = st.one_of(
    st.just(0), st.integers(0, 3 * NANOSECONDS), st.integers(0, 10).map(lambda s: s * NANOSECONDS)
)
arrivals = st.lists(pauses_ns, min_size=1, max_size=60).map(lambda pauses: list(accumulate(pauses)))


def let_through(throttle: Throttle, times: list[int]) -> list[int]:
    """When the requests that were let through came."""
    full_at, passed = NEVER_USED, []
    for now in times:
        taken = throttle.take(full_at, now)
        full_at = taken.full_at
        if not taken.refused:
            passed.append(now)
    return passed


def drained(throttle: Throttle, now: int) -> int:
    """A bucket that was emptied at `now`."""
    full_at = NEVER_USED
    while not (taken := throttle.take(full_at, now)).refused:
        full_at = taken.full_at
    return full_at


@pytest.mark.parametrize(
    ("throttle", "at_once", "a_second_later"),
    [
        (Throttle(per_second=10, burst=20), 20, 10),
        (Throttle(per_second=10, burst=20, shared_by=2), 10, 5),
        (Throttle(per_second=3, burst=5, shared_by=2), 2, 2),  # 2.5 at once, then what was left of it and 1.5
        (Throttle(per_second=1, burst=2, shared_by=4), 1, 0),  # one in four seconds
        (Throttle(per_second=5, burst=1), 1, 1),
    ],
)
def test_a_full_bucket_goes_at_once_and_then_as_fast_as_it_fills(
    throttle: Throttle, at_once: int, a_second_later: int
) -> None:
    passed = let_through(throttle, [0] * 50 + [NANOSECONDS] * 50)
    assert (passed.count(0), passed.count(NANOSECONDS)) == (at_once, a_second_later)
    assert throttle.holds == at_once


@given(throttle=throttles, times=arrivals)
def test_no_span_of_time_has_more_requests_than_a_bucket_and_what_flows_in(
    throttle: Throttle, times: list[int]
) -> None:
    passed = let_through(throttle, times)
    room = Fraction(max(throttle.burst, throttle.shared_by), throttle.shared_by)
    for first, start in enumerate(passed):
        for count, end in enumerate(passed[first:], start=1):
            flows_in = Fraction((end - start) * throttle.per_second, NANOSECONDS * throttle.shared_by)
            assert count <= room + flows_in


@given(throttle=throttles, now=pauses_ns)
def test_the_parts_of_all_processes_are_no_more_than_the_whole(throttle: Throttle, now: int) -> None:
    whole = replace(throttle, shared_by=1, burst=max(throttle.burst, throttle.shared_by))
    assert throttle.holds * throttle.shared_by <= whole.holds
    times = [now, now + NANOSECONDS, now + 2 * NANOSECONDS]
    crowd = [each for each in times for _ in range(whole.burst + whole.per_second)]
    assert len(let_through(throttle, crowd)) * throttle.shared_by <= len(let_through(whole, crowd))


@given(throttle=throttles, now=pauses_ns)
def test_whoever_waits_as_long_as_they_were_told_is_let_through_and_not_much_earlier(
    throttle: Throttle, now: int
) -> None:
    bucket = drained(throttle, now)
    told = throttle.take(bucket, now).retry_after_s
    assert told is not None
    assert told >= 1
    assert not throttle.take(bucket, now + told * NANOSECONDS).refused
    assert told == 1 or throttle.take(bucket, now + (told - 1) * NANOSECONDS).refused


@given(throttle=throttles, times=arrivals)
def test_as_many_are_let_through_as_was_said_would_be(throttle: Throttle, times: list[int]) -> None:
    full_at = NEVER_USED
    for now in times:
        taken = throttle.take(full_at, now)
        full_at = taken.full_at
        assert 0 <= taken.remaining < throttle.holds
    for _ in range(taken.remaining):
        taken = throttle.take(full_at, times[-1])
        full_at = taken.full_at
        assert not taken.refused
    assert throttle.take(full_at, times[-1]).refused


@given(throttle=throttles, now=pauses_ns)
def test_a_refused_request_takes_nothing(throttle: Throttle, now: int) -> None:
    bucket = drained(throttle, now)
    assert throttle.take(bucket, now) == throttle.take(throttle.take(bucket, now).full_at, now)
    assert throttle.take(bucket, now).full_at == bucket


@given(throttle=throttles, times=arrivals, pause=pauses_ns)
def test_a_bucket_that_is_full_again_can_be_forgotten(
    throttle: Throttle, times: list[int], pause: int
) -> None:
    full_at = NEVER_USED
    for now in times:
        taken = throttle.take(full_at, now)
        full_at = taken.full_at
    assert not throttle.is_full(full_at, times[-1])
    then = times[-1] + taken.full_in_s * NANOSECONDS
    assert throttle.is_full(full_at, then)
    assert throttle.take(full_at, then + pause) == throttle.take(NEVER_USED, then + pause)
