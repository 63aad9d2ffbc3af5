"""What is done with a message from a queue, by what became of its event."""

import pytest

from tallystick.cli.consuming.messages import key_of
from tallystick.cli.consuming.verdicts import Verdict, delay_s, verdict
from tallystick.core.limits import EVENT_KEY_CHARS_MAX
from tallystick.errors import Problem

STORED_AT = "2026-01-15T10:00:00.000001+00:00"


@pytest.mark.parametrize(
    ("problem", "deliveries", "expected"),
    [
        (Problem("validation_error"), 1, Verdict.REFUSED),
        (Problem("invalid_json"), 1, Verdict.REFUSED),
        (Problem("duplicate", details={"identical": True}), 1, Verdict.REPEAT),
        (Problem("duplicate", details={"identical": False}), 1, Verdict.REFUSED),
        (Problem("customer_not_found"), 2, Verdict.LATER),
        (Problem("customer_not_found"), 3, Verdict.REFUSED),
        (Problem("included_limit_reached"), 2, Verdict.LATER),
        (Problem("feature_not_in_plan"), 3, Verdict.REFUSED),
        (Problem("unavailable", retry_after_s=1), 1_000, Verdict.LATER),  # for as long as it takes
        (Problem("internal_error"), 1_000, Verdict.LATER),
    ],
)
def test_only_what_nobody_can_put_right_is_given_up(
    problem: Problem, deliveries: int, expected: Verdict
) -> None:
    assert verdict(problem, deliveries=deliveries, tries=3) is expected


def test_it_is_waited_longer_each_time_and_a_minute_at_most() -> None:
    waited = [delay_s(Problem("customer_not_found"), deliveries=each) for each in (1, 2, 3, 7, 10**9)]
    assert waited == [1, 2, 4, 60, 60]
    assert delay_s(Problem("unavailable", retry_after_s=1), deliveries=9) == 1


def test_a_key_is_made_the_same_for_ever() -> None:
    assert key_of("USAGE", 7, STORED_AT) == f"nats:USAGE:7:{STORED_AT}"
    long = key_of("S" * 255, 7, STORED_AT)
    assert len(long) <= EVENT_KEY_CHARS_MAX
    assert long.startswith("nats:sha256:")
    assert long != key_of("S" * 255, 8, STORED_AT)
