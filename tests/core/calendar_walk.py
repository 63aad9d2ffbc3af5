"""Periods once more, from the ruling alone: walk the calendar by the day and the clock by the minute.

A second derivation of what `contract/cases/periods.json` says. It takes zones from the standard library and nothing from
Tallystick, so that neither inherits the other's mistake. A new case names the indices and moments it is about;
`python -m tests.core.calendar_walk` writes the rest.
"""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

FILE = Path(__file__).parents[2] / "contract/cases/periods.json"
MONTHS_PAID_FOR = {"monthly": 1, "quarterly": 3, "semiannual": 6, "yearly": 12}

DAY, MINUTE, SECOND = timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)
BEFORE_ANY_ZONE = timedelta(hours=36)

Case = dict[str, Any]


def anchor_days(first: date, *, weekly: bool) -> Iterator[date]:
    """The day itself, and every later one that is its like: same weekday; same day of the month, or its last."""
    day = first
    while True:
        yield day
        while True:
            day += DAY
            if weekly:
                if day.weekday() == first.weekday():
                    break
            elif day.day == first.day or (day.day < first.day and (day + DAY).day == 1):
                break


def begins(day: date, zone: str) -> datetime:
    """The first instant at which clocks there show this date, or a later one if it never comes."""
    where = ZoneInfo(zone)
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) - BEFORE_ANY_ZONE
    while at.astimezone(where).date() < day:
        at += MINUTE
    at -= MINUTE  # and between the minutes: offsets of old have seconds
    while at.astimezone(where).date() < day:
        at += SECOND
    return at


def zone_of(given: Case, index: int) -> str:
    """Where period `index` is counted, and so where it ends."""
    zone: str = given["timezone"]
    for change in given.get("zoneChanges", ()):
        if change["fromPeriod"] <= index:
            zone = change["timezone"]
    return zone


def boundaries(given: Case, periods: int) -> list[datetime]:
    """Where periods 0 to `periods` begin."""
    start = datetime.fromisoformat(given["start"])
    first = start.astimezone(ZoneInfo(given["timezone"])).date()
    days = islice(anchor_days(first, weekly=given["interval"] == "weekly"), 1, periods + 1)
    return [start, *(begins(day, zone_of(given, index)) for index, day in enumerate(days))]


def derived(case: Case) -> Case:
    """All that `expected` says of the indices and moments it names."""
    given, asked = case["given"], case["expected"]
    # What a base pays for; a one-time base pays once, and what it names is the first month.
    months = MONTHS_PAID_FOR.get(given["interval"], 1)
    known = boundaries(
        given,
        1
        + max(
            *(each["index"] for each in asked["periods"]),
            *(months * (each["index"] + 1) - 1 for each in asked.get("billing", ())),
            *(each["index"] or 0 for each in asked.get("contains", ())),
            0,
        ),
    )
    found: Case = {"periods": [_period(given, known, each["index"]) for each in asked["periods"]]}
    if "billing" in asked:
        found["billing"] = [
            {
                "index": each["index"],
                "start": shown(known[each["index"] * months]),
                "end": shown(known[(each["index"] + 1) * months]),
            }
            for each in asked["billing"]
        ]
    if "contains" in asked:
        found["contains"] = [
            {"at": each["at"], "index": _place(known, datetime.fromisoformat(each["at"]))}
            for each in asked["contains"]
        ]
    return found


def _period(given: Case, known: list[datetime], index: int) -> Case:
    where = ZoneInfo(zone_of(given, index))
    start, end = known[index], known[index + 1]
    local_start, local_end = start.astimezone(where), end.astimezone(where)
    days = 0
    while local_start.date() + days * DAY < local_end.date():
        days += 1
    return {
        "index": index,
        "start": shown(start),
        "end": shown(end),
        "localStart": local_start.replace(tzinfo=None).isoformat(),
        "localEnd": local_end.replace(tzinfo=None).isoformat(),
        "days": days,
    }


def _place(known: list[datetime], at: datetime) -> int | None:
    begun = [index for index, boundary in enumerate(known) if boundary <= at]
    return begun[-1] if begun else None


def shown(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def load() -> list[Case]:
    cases: list[Case] = json.loads(FILE.read_text())
    return cases


def layout(cases: list[Case]) -> str:
    """The file as people read it: a period, a charge, a moment to the line."""

    def rows(found: list[Case]) -> str:
        return "[\n" + ",\n".join(f"        {json.dumps(each)}" for each in found) + "\n      ]"

    def one(case: Case) -> str:
        expected = ",\n".join(f'      "{name}": {rows(found)}' for name, found in case["expected"].items())
        return (
            f'  {{\n    "id": {json.dumps(case["id"])},\n    "why": {json.dumps(case["why"], ensure_ascii=False)},\n'
            f'    "given": {json.dumps(case["given"])},\n    "expected": {{\n{expected}\n    }}\n  }}'
        )

    return "[\n" + ",\n".join(map(one, cases)) + "\n]\n"


if __name__ == "__main__":
    FILE.write_text(layout([case | {"expected": derived(case)} for case in load()]))
