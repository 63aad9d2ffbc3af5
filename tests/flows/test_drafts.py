"""Drafts and outcomes by columns are what they are one by one."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.events import StoredEvent, UsageEvent
from tallystick.core.rows import Table
from tallystick.errors import Problem
from tallystick.flows.drafts import Accepted, Draft, Outcome, Outcomes, accepted, drafted, refused
from tests.literals import U, at

NOW = at("2026-03-10T12:00Z")


def taken(number: int, *, replayed: bool = False) -> Accepted:
    event = StoredEvent(U(number), U(1), "api_calls", Decimal(number), NOW, NOW, f"key-{number}")
    return Accepted(event, f"customer-{number}", replayed)


def test_events_of_a_request_are_drafted_as_each_would_be() -> None:
    events = [UsageEvent("api_calls", "ada", key=str(number)) for number in range(3)]
    found = drafted(events, range(7, 10), api_key_id=U(5), header="retry-1")
    assert [*found] == [Draft(event, U(5), "retry-1", nth) for nth, event in enumerate(events, 7)]


@given(st.lists(st.sampled_from(["stored", "replayed", "refused"]), min_size=1, max_size=8), st.data())
def test_outcomes_are_a_list_of_them(kinds: list[str], data: st.DataObject) -> None:
    others: dict[int, Outcome] = {}
    for place in data.draw(st.permutations(range(len(kinds)))):  # they may become known in any order
        if kinds[place] == "replayed":
            others[place] = taken(100 + place, replayed=True)
        elif kinds[place] == "refused":
            others[place] = Problem("duplicate", f"at {place}")
    rows = [taken(place) for place in range(len(kinds))]
    table = Table(
        Accepted,
        Table.of(StoredEvent, [each.event for each in rows]),
        [each.reference for each in rows],
        [False] * len(rows),
    )
    every: list[Outcome] = [others.get(place, row) for place, row in enumerate(rows)]
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(every))] * 2)))
    for found, expected in (
        (Outcomes(table, others), every),
        (Outcomes(table, others)[start:stop], every[start:stop]),
    ):
        assert [*found] == expected and [found[place] for place in range(len(found))] == expected
        assert not expected or found[-1] == expected[-1]
        assert [*accepted(found)] == accepted(expected)
        assert [*refused(found).items()] == [*refused(expected).items()]


def test_a_draft_that_moves_on_has_another_place() -> None:
    draft = Draft(UsageEvent("api_calls", "ada", key="k"))
    assert draft.elsewhere.key_attempt == 1 and draft.elsewhere.place(U(1)) != draft.place(U(1))


@pytest.mark.parametrize("key", ["k", None])
def test_only_a_key_makes_an_id_say_what_was_sent(key: str | None) -> None:
    draft = Draft(UsageEvent("api_calls", "ada", key=key))
    assert (draft.marked(U(7).int) == U(7).int) is (key is None)
