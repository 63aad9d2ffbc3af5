"""What the demo organization lives through: real commits of 36 developers, billed for three months.

`sample_commits.ndjson.gz` holds the commits that six open-source repositories received from 1 November 2024,
10:00 UTC, for three months, without authors of a single one. `timestamp` is when a commit was written and
`received_at` when it arrived, often weeks later; lines are in order of arrival.

Everything goes through the public API, and every step may be repeated, so a demo that was cut short goes on.
"""

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import groupby
from typing import Any, Final

from tallystick.cli.demo_http import Caller, Unexpected
from tallystick.core.limits import CUSTOMERS_PER_BATCH_MAX, EVENTS_PER_BATCH_MAX
from tallystick.core.times import parse_instant, show_instant

NAME: Final = "Tallystick demo"
START: Final = datetime(2024, 11, 1, 10, tzinfo=UTC)
END: Final = datetime(2025, 2, 3, 10, tzinfo=UTC)
_QUARTER: Final = timedelta(minutes=15)
_ASK_EVERY_S: Final = 0.1
_RUN_SECONDS_MAX: Final = 120.0

ZONES: Final = (
    "Europe/Paris",
    "America/Los_Angeles",
    "Asia/Kathmandu",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Tokyo",
)
_PAYS: Final = "4242424242424242"
_PAYS_ONCE: Final = "4000000000000341"  # at checkout; later charges are declined


@dataclass(frozen=True, slots=True)
class Arrival:
    """One line of the sample: who, when it arrived, and the event as it is sent."""

    at: datetime
    customer: str
    text: str


@dataclass(slots=True)
class Replayed:
    """What the API answered to the events that were sent."""

    sent: int = 0
    stored: int = 0
    already_there: int = 0
    refused: Counter[str] = field(default_factory=Counter)


Show = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and how much there is."""


def arrivals() -> list[Arrival]:
    packed = (files("tallystick.cli") / "sample_commits.ndjson.gz").read_bytes()
    found = []
    for line in gzip.decompress(packed).decode().splitlines():
        event = json.loads(line)
        properties = {each["property"]: each["value"] for each in event["properties"]}
        at = parse_instant(properties["received_at"])
        assert at is not None
        found.append(Arrival(at, event["customerId"], line))
    return found


def people(sample: list[Arrival]) -> dict[str, tuple[str, str]]:
    """Zone and plan of each customer, in order of their first commit; every third one is on the free plan."""
    names = dict.fromkeys(each.customer for each in sample)
    return {
        name: (ZONES[place % len(ZONES)], "hobby" if place % 3 == 2 else "team")
        for place, name in enumerate(names)
    }


def fill(api: Caller, show: Show, stopped: Callable[[], bool]) -> Replayed:
    """Live through the three months. Returns early when `stopped` says so; running it again goes on."""
    sample, replayed = arrivals(), Replayed()
    _open_shop(api)
    stands = _clock_at_rest(api)["now"]
    if stands <= START:
        _welcome(api, people(sample), show, stopped)
    for moment, group in _moments(sample):
        if stopped():
            return replayed
        if moment >= stands:
            _move_clock(api, moment)
            _send(api, group, replayed)
        show(f"{moment:%d %b %Y}", replayed.sent, len(sample))
    _move_clock(api, END)
    return replayed


def _moments(sample: Iterable[Arrival]) -> Iterator[tuple[datetime, list[Arrival]]]:
    """What arrived within a quarter of an hour comes at once: no zone's midnight falls inside one."""
    for _, group in groupby(sample, key=lambda each: (each.at - START) // _QUARTER):
        together = list(group)
        yield together[-1].at, together


def _open_shop(api: Caller) -> None:
    """Two features fed by the same events, a plan that bills them, and a free one that stops."""
    measured: tuple[dict[str, Any], ...] = (
        {"code": "commits", "name": "Commits", "unitName": "commits", "aggregation": "count"},
        {"code": "changed_lines", "name": "Changed lines", "unitName": "lines", "aggregation": "sum"},
    )
    for each in measured:
        body = {"type": "usage", "eventCode": "commits", **each}
        api.post("/features", body, unless=("feature_already_exists",))
    team = {"code": "team", "name": "Team", "consumptionModel": "metered"}
    api.post("/plans", team, unless=("duplicate",))
    api.post("/plans/team/prices", {"billingInterval": "monthly", "price": 29_00}, unless=("duplicate",))
    api.post("/plans", {"code": "hobby", "name": "Hobby", "isFree": True}, unless=("duplicate",))
    terms: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("team", "commits", {"includedAmount": 10, "overage": {"enabled": True, "unitPriceDecimal": "0.75"}}),
        (
            "team",
            "changed_lines",
            {"includedAmount": 2_000, "overage": {"enabled": True, "unitPriceDecimal": "0.0035"}},
        ),
        ("hobby", "commits", {"includedAmount": 10}),
        ("hobby", "changed_lines", {"unlimited": True}),
    )
    for plan, feature, promise in terms:
        promise["featureId"] = api.get(f"/features/{feature}")["id"]
        api.post(f"/plans/{plan}/features", promise, unless=("feature_already_exists",))


def _welcome(
    api: Caller, wanted: dict[str, tuple[str, str]], show: Show, stopped: Callable[[], bool]
) -> None:
    """Make the customers and let them check out; the card of every eighth one is declined later on."""
    made = [
        {"id": name, "email": f"{name}@example.com", "timezone": zone} for name, (zone, _) in wanted.items()
    ]
    for start in range(0, len(made), CUSTOMERS_PER_BATCH_MAX):
        api.post("/customers/batch", {"customers": made[start : start + CUSTOMERS_PER_BATCH_MAX]})
    for place, (name, (_, plan)) in enumerate(wanted.items()):
        if stopped():
            return
        subscription = api.post(
            "/subscriptions",
            {"customerId": name, "planCode": plan},
            unless=("already_has_active_subscription",),
        )
        if subscription is not None and subscription["checkoutUrl"] is not None:
            card = _PAYS_ONCE if place % 8 == 6 else _PAYS
            api.submit(subscription["checkoutUrl"], {"cardNumber": card, "expiry": "12/34", "cvc": "123"})
        show("customers", place + 1, len(wanted))


def _clock_at_rest(api: Caller) -> dict[str, Any]:
    """The clock, once its last move is over: a server that was stopped in the middle of one goes on by itself."""
    limit = time.monotonic() + _RUN_SECONDS_MAX
    while time.monotonic() < limit:
        clock: dict[str, Any] = api.get("/test-clock")
        if clock["latestRun"] is None or clock["latestRun"]["status"] in ("completed", "failed"):
            clock["now"] = parse_instant(clock["now"])
            return clock
        time.sleep(_ASK_EVERY_S)
    raise Unexpected(f"the test clock does not arrive at {clock['latestRun']['targetTime']}")


def _move_clock(api: Caller, to: datetime) -> None:
    """Everything that falls due on the way has happened when this returns."""
    run = api.post("/test-clock", {"frozenTime": show_instant(to)})
    if run["status"] not in ("completed", "failed"):
        run = _clock_at_rest(api)["latestRun"]
    failed = [each["error"] for each in run["items"] if each["status"] == "failed"]
    if run["status"] == "failed" or failed:
        raise Unexpected(f"the test clock stopped on its way to {show_instant(to)}: {run['error'] or failed}")


def _send(api: Caller, group: list[Arrival], replayed: Replayed) -> None:
    """As an SDK would: batches of events under the sender's own keys, word for word as they are in the file."""
    for start in range(0, len(group), EVENTS_PER_BATCH_MAX):
        batch = group[start : start + EVENTS_PER_BATCH_MAX]
        answer = api.post("/usage/events/batch", f'{{"events":[{",".join(each.text for each in batch)}]}}')
        replayed.sent += len(batch)
        replayed.stored += len(answer["successful"])
        for each in answer["failed"]:
            if each["code"] == "duplicate" and each["details"]["identical"]:
                replayed.already_there += 1
            else:
                replayed.refused[each["code"]] += 1
