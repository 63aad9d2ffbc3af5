"""A leaf that SQL computes is the leaf of `core.proof`, whatever an event holds."""

from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import psycopg
import pytest
from tests.audit import select
from tests.literals import D, at

from tallystick.core.events import NO_PROPERTIES, StoredEvent
from tallystick.core.proof import leaf
from tallystick.flows.read_usage import leaf_of
from tallystick.store.db import new_id, new_ids
from tallystick.store.proving import LEAF

MOMENT = at("2026-02-28T23:59:59.999999Z")
TEXTS = [
    "a",
    "",
    "\\",
    "\\000",
    "\\\\x00",
    "'",
    "é",
    "e\u0301",
    "ß",
    "\u2028",
    "𝄞",
    "\u007f",
    "\x01",
    "\n",
    " ",
    "%s",
    "{}",
]
ODD: dict[str, list[Any]] = {
    "feature": ["api_calls", "A\\b", "ü"],
    "value": [
        *map(D, ("1", "0", "0.00", "10", "100.0", "1E+3", "-1.50", "0.000000000001", "-0.1", "1E-12")),
        D("99999999999999999999.999999999999"),
        D("-99999999999999999999"),
        D("12345678901234567890.123456789012"),
    ],
    "occurred_at": [
        MOMENT,
        MOMENT.replace(microsecond=0),
        MOMENT.replace(microsecond=1),
        MOMENT.replace(microsecond=100_000),
        MOMENT.replace(microsecond=123_000),
        at("0001-01-01T00:00:00Z"),
        at("0999-12-31T23:59:59.000001Z"),
        at("1969-12-31T23:59:59.999999Z"),
        at("9999-12-31T23:59:59.999999Z"),
    ],
    "received_at": [MOMENT, MOMENT.replace(microsecond=500)],
    "key": [None, *[each for each in TEXTS if each]],
    "timed": [True, False],
    "properties": [
        NO_PROPERTIES,
        *({each: other} for each in TEXTS for other in TEXTS[:6]),
        {
            "b": "1",
            "a": "2",
            "B": "3",
            "é": "4",
            "z": "5",
            "ﬀ": "6",
            "𝄞": "7",
            "": "8",
            "aa": "9",
            "a b": "10",
        },
        {"\U0001f600": "x", "\uffff": "y", "\ue000": "z"},  # in UTF-16 they would sort otherwise
        {f"property_{number}": "v" * number for number in range(50)},
    ],
    "adjusts": [None, new_id()],
    "reason": [None, *[each for each in TEXTS if each]],
    "voids": [None, new_id()],
}


def odd_events() -> list[StoredEvent]:
    """Every odd value beside ordinary ones, and many odd ones together."""
    plain: dict[str, Any] = {name: values[0] for name, values in ODD.items()}
    dice = Random(7)
    fields = [plain | {name: value} for name, values in ODD.items() for value in values]
    fields += [{name: dice.choice(values) for name, values in ODD.items()} for _ in range(1_500)]
    return [
        StoredEvent(id=identity, customer_id=new_id(), **each)
        for identity, each in zip(new_ids(len(fields)), fields, strict=True)
    ]


def store(database_url: str, events: list[StoredEvent], batch: int) -> None:
    with psycopg.connect(database_url) as conn, conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO events (id, customer_id, feature_code, value, occurred_at, received_at, event_key, timed,
                                   properties, adjusts, reason, voids, batch)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                (
                    *each[:8],
                    psycopg.types.json.Jsonb(dict(each.properties)) if each.properties else None,
                    *each[9:12],
                    batch,
                )
                for each in events
            ],
        )


def leaves(database_url: str, batch: int) -> dict[Any, bytes | None]:
    return dict(select(database_url, f"SELECT e.id, {LEAF} FROM events e WHERE e.batch = %s", batch))


def test_sql_and_python_give_one_leaf(database_url: str) -> None:
    events = odd_events()
    store(database_url, events, -1)
    found = leaves(database_url, -1)
    assert len(found) == len(events) > 1_600
    assert [each for each in events if found[each.id] != leaf(each)] == []
    with psycopg.connect(database_url) as conn:  # as rows are kept: what goes without saying is not said
        conn.execute(
            """UPDATE events SET received_at = nullif(received_at, occurred_at), timed = nullif(timed, false)
                WHERE batch = -1"""
        )
    assert leaves(database_url, -1) == found


@pytest.mark.parametrize(
    "properties", ["[]", '["a"]', "1", '"a"', '{"a": 1}', '{"a": null}', '{"a": {"b": "c"}}', '{"a": "b", "c": true}']
)  # fmt: skip
def test_properties_that_are_no_text_have_no_leaf(database_url: str, properties: str) -> None:
    (event,) = odd_events()[:1]
    batch = -2 - len(properties)
    store(database_url, [event], batch)
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE events SET properties = %s WHERE id = %s", (properties, event.id))
        kept = conn.execute("SELECT properties FROM events WHERE id = %s", (event.id,)).fetchone()
    assert leaves(database_url, batch)[event.id] is None
    assert kept is not None
    assert leaf_of(event._replace(properties=kept[0])) == b""


def test_an_instant_is_told_from_the_next(database_url: str) -> None:
    event = odd_events()[0]
    others = [
        event._replace(
            id=new_id(), occurred_at=event.occurred_at - timedelta(microseconds=number), value=Decimal(1)
        )
        for number in range(50)
    ]
    store(database_url, others, -99)
    found = leaves(database_url, -99)
    assert {found[each.id] for each in others} == {leaf(each) for each in others}
    assert len({*found.values()}) == 50
