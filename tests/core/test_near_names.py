"""Names that look alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.near_names import NearNames

NAMES = NearNames(["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "claude-opus-4-5", "mistral-large"])


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("gpt-4oo", ["gpt-4o", "gpt-4o-mini"]),
        ("GPT4o", ["gpt-4o", "gpt-4o-mini"]),
        ("claude-sonet-4-5", ["claude-sonnet-4-5", "claude-opus-4-5"]),
        ("mistral-large-latest", ["mistral-large"]),
        ("totally different", []),
        ("", []),
    ],
)
def test_the_most_alike_come_first(asked: str, nearest: list[str]) -> None:
    assert NAMES.nearest(asked, 2) == nearest


@given(st.lists(st.text("abc-", min_size=1), min_size=1), st.data())
def test_a_name_is_nearest_to_itself(names: list[str], data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(names))
    found = NearNames(names).nearest(one, len(names))
    assert one in found
    assert len(found) == len(set(found)) <= len(names)
