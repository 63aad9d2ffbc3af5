"""The answer to the usual batch is written by a template: the very bytes that each event by itself would be."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.api import events, wire
from tallystick.core.events import NO_PROPERTIES, StoredEvent
from tallystick.core.wallets import Draw, Model
from tallystick.flows.drafts import Accepted

AT = datetime(2026, 3, 10, 12, tzinfo=UTC)
USUAL: dict[str, Any] = {
    "feature": "api_calls",
    "value": Decimal(1),
    "occurred_at": AT,
    "received_at": AT,
    "key": "k-1",
    "timed": False,
    "properties": NO_PROPERTIES,
}
UNUSUAL: list[dict[str, Any]] = [
    {"feature": "search"},
    {"value": Decimal("1.5")},
    {"value": Decimal("1.0")},
    {"value": Decimal(10**30)},
    {"occurred_at": AT - timedelta(milliseconds=1)},
    {"received_at": AT + timedelta(seconds=1)},
    {"key": None},
    {"key": 'say "k"'},
    {"key": "back\\slash"},
    {"key": "ünï 😀"},
    {"key": "line\nline\x7f"},
    {"key": "<customer> <key> <id> {0} %s"},
    {"properties": {"region": "eu"}},
    {"adjusts": UUID(int=7), "reason": "a slip"},
    {"voids": UUID(int=8), "reason": None},
    {"voided": 9},
    {"draw": Draw(Model.CREDITS, Decimal(1), Decimal(5), blocked=False)},
]


def accepted(number: int, reference: str = "ada", **said: Any) -> Accepted:
    return Accepted(StoredEvent(UUID(int=number), UUID(int=1), **{**USUAL, **said}), reference)


def written(taken: list[Accepted], *, live: bool = True) -> bool:
    """Whether it is written by a template; then as it would be without."""
    found = events.encode_all(taken, live=live)
    assert found is None or wire.encode(found) == wire.encode(events.show_all(taken, live=live))
    return found is not None


@pytest.mark.parametrize("live", [True, False])
def test_the_usual_batch_is_written_by_a_template(live: bool) -> None:
    assert written(
        [accepted(number, f"cus-{number}", key=f"k {number}/~") for number in range(200)], live=live
    )
    assert written([accepted(1, "<customer>", key="<key> <id> {0} %s")], live=live)
    assert not written([], live=live)


@pytest.mark.parametrize("said", UNUSUAL, ids=str)
def test_one_that_is_not_usual_is_written_as_it_is(said: dict[str, Any]) -> None:
    written([accepted(1), accepted(2, **said)])
    written([accepted(1, **said)])


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**128 - 1),
            st.sampled_from([{}, *UNUSUAL]),
            st.text(max_size=5),
            st.text(max_size=5),
        ),
        max_size=4,
    )
)
def test_any_batch_is_written_the_same_or_not_at_all(
    batch: list[tuple[int, dict[str, Any], str, str]],
) -> None:
    written([accepted(number, reference, **{"key": key, **said}) for number, said, reference, key in batch])
