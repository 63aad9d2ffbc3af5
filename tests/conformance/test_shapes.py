"""Every answer of the 9.7.0 story against the types that package declares."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from .shapes import Catalogue, Field, Union

ERROR_TYPES = {
    "validation_error",
    "authentication_error",
    "not_found_error",
    "conflict_error",
    "billing_error",
    "rate_limit_error",
    "internal_error",
}
LOOKS_LIKE_AN_INSTANT = re.compile(r"^\d{4}-\d\d-\d\dT")
INSTANT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


@pytest.fixture
def answers(python_story: dict[str, Any], prepaid_story: dict[str, Any]) -> list[dict[str, Any]]:
    """Of both stories, as they came."""
    return [*python_story["answers"], *prepaid_story["answers"]]


def test_every_answer_has_the_promised_shape(answers: list[dict[str, Any]], catalogue: Catalogue) -> None:
    promised = [answer for answer in answers if answer["promised"]]
    faults = [
        f"{answer['method']} {answer['path']} as {answer['promised']}: {fault}"
        for answer in promised
        for fault in catalogue.faults(answer["body"], answer["promised"])
    ]
    assert faults == []
    assert len(promised) > 90


def test_every_instant_is_utc_with_milliseconds(answers: list[dict[str, Any]]) -> None:
    odd = {
        f"{answer['method']} {answer['path']}: {text}"
        for answer in answers
        for text in texts(answer["body"])
        if LOOKS_LIKE_AN_INSTANT.match(text) and not INSTANT.match(text)
    }
    assert odd == set()


def test_every_refusal_is_told_twice_nested_and_flat(answers: list[dict[str, Any]]) -> None:
    refusals = [answer["body"] for answer in answers if answer["status"] >= 400]
    assert len(refusals) > 10
    for body in refusals:
        assert body["success"] is False
        assert body["error"]["type"] in ERROR_TYPES
        assert body["error"]["message"]
        assert body["code"] == body["error"]["code"]
        assert body["message"] == body["error"]["message"]
        assert body.get("details") == body["error"].get("details")


def texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from texts(item)
        case dict():
            for item in value.values():
                yield from texts(item)


SMALL = Catalogue(
    models={
        "Cat": [
            Field("kind", "Literal['cat']", required=True, nullable=False),
            Field("lives", "int", required=True, nullable=True),
            Field("names", "list[str]", required=False, nullable=False),
        ],
        "Dog": [Field("size", "Size", required=True, nullable=False)],
    },
    unions={"Pet": Union("kind", {"cat": "Cat", "dog": "Dog"})},
    enums={"Size": ["small", "large"]},
)


@pytest.mark.parametrize(
    ("value", "expected", "faults"),
    [
        ({"kind": "cat", "lives": 9}, "Pet", []),
        ({"kind": "cat", "lives": None}, "Cat | None", []),
        (None, "Cat | None", []),
        (None, "Cat", ["$: expected Cat, got None"]),
        ({"kind": "cat"}, "Cat", ["$.lives: missing"]),
        ({"kind": "cat", "lives": 9.0}, "Cat", ["$.lives: expected int, got 9.0"]),
        ({"kind": "cat", "lives": True}, "Cat", ["$.lives: expected int, got True"]),
        ({"kind": None, "lives": 9}, "Cat", ["$.kind: null, yet Literal['cat'] is never null"]),
        ({"kind": "cow", "lives": 9}, "Cat", ["$.kind: expected 'cat', got 'cow'"]),
        ({"kind": "cat", "lives": 9, "names": [1]}, "Cat", ["$.names[0]: expected str, got 1"]),
        ({"kind": "dog", "size": "huge"}, "Pet", ["$.size: expected one of small, large, got 'huge'"]),
        ({"a": 1, "b": "2"}, "dict[str, float]", ["$.b: expected float, got '2'"]),
        (1, "Literal[True]", ["$: expected True, got 1"]),
    ],
)
def test_the_checker_names_each_fault(value: object, expected: str, faults: list[str]) -> None:
    assert list(SMALL.faults(value, expected)) == faults
