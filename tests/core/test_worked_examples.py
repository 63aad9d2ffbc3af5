"""The published worked examples (`contract/cases/worked.json`), computed by the pure room.

Cases that need a server (what a whole batch leaves behind) are told in `tests/scenarios/test_worked_batches.py`.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tallystick.core.catalog import terms_over
from tallystick.core.events import decode
from tallystick.core.invoicing import base_line, charge, subtotal, usage_line
from tallystick.core.limits import EVENTS_PER_BATCH_MAX
from tallystick.core.meters import Fold, fold, measure
from tallystick.core.money import from_rate, text, to_minor, to_rate
from tallystick.core.subscriptions import periods_per_invoice
from tallystick.core.times import Anchor, Period, boundary
from tallystick.errors import InvalidRequest
from tests.core.offers import meter, terms
from tests.literals import D, P, at

CASES = json.loads((Path(__file__).parents[2] / "contract/cases/worked.json").read_text())
FEBRUARY, MARCH = P("2026-02-01/2026-03-01"), P("2026-03-01/2026-04-01")


def value(given: dict[str, str | None], expected: str | None) -> None:
    body: dict[str, object] = {"featureCode": "api_calls", "customerId": "user_123"}
    body |= {name: None if sent is None else D(sent) for name, sent in given.items()}
    if expected is None:
        with pytest.raises(InvalidRequest):
            decode(body)
    else:
        assert decode(body).value == D(expected)


def code(given: str, expected: bool) -> None:
    if expected:
        assert decode({"featureCode": given, "customerId": "user_123"}).feature == given
    else:
        with pytest.raises(InvalidRequest):
            decode({"featureCode": given, "customerId": "user_123"})


def batch_size(given: int, expected: int | None) -> None:
    assert (given <= EVENTS_PER_BATCH_MAX) is (expected is not None)


def aggregate(given: dict[str, Any], expected: str) -> None:
    which = meter(given["aggregation"])
    events: list[tuple[Decimal, dict[str, str]]] = [(D(each), {}) for each in given.get("values", ())]
    events += [(D(1), {"user_id": each}) for each in given.get("properties", ())]
    measured = [found for each in events if (found := measure(which, *each)) is not None]
    assert fold(which, measured).quantity == D(expected)


def charged(given: dict[str, Any], expected: dict[str, Any]) -> None:
    promise = terms(given["included"], overage=True, unit=str(from_rate(given["rate"])))
    cost = charge(promise, Fold(1, D(given["usage"])))
    assert cost.billable == D(expected["billable"])
    assert to_minor(cost.exact, "USD") == expected["cents"]
    if "total_cents" in expected:
        lines = [
            base_line("Pro", given["base_cents"], "USD", {}),
            usage_line(cost, promise, feature_name="API calls", unit="units", currency="USD", evidence={}),
        ]
        assert subtotal(lines) == expected["total_cents"]


def unit_price(given: int, expected: str) -> None:
    assert text(from_rate(given)) == expected
    assert to_rate(D(expected)) == given


def change(given: dict[str, Any], expected: dict[str, int]) -> None:
    """What a plan promised before and after the middle of February, as February and March see it."""

    def promise(amount: int, **more: Any) -> Any:
        if given["field"] == "rate":
            return terms(overage=True, unit=str(from_rate(amount)), **more)
        return terms(str(amount), **more)

    versions = [promise(given["old"]), promise(given["new"], version=2, valid_from=at("2026-02-15"))]

    def seen(period: Period) -> tuple[int, Decimal | None]:
        found = terms_over(versions, period)
        assert found is not None
        cost = charge(found, Fold(1, D(given["extra"]))).exact if "extra" in given else None
        return (to_rate(found.price.unit_amount) if given["field"] == "rate" else int(found.included)), cost

    now, cost = seen(FEBRUARY)
    assert (now, seen(MARCH)[0]) == (expected["now"], expected["next"])
    if cost is not None:
        assert to_minor(cost, "USD") == expected["now_cents"]


def anchor(given: dict[str, str], expected: list[str]) -> None:
    """When allowances reset and usage is counted anew."""
    start = at(given["start"])
    counted = Anchor(start, start.date(), weekly=given["interval"] == "weekly")
    assert [boundary(counted, index, "UTC") for index in range(3)] == [at(each) for each in expected]


def base(given: dict[str, Any], expected: dict[str, int | None]) -> None:
    assert base_line("Pro", given["cents"], "USD", {}).amount == given["cents"]
    assert periods_per_invoice(given["interval"]) == expected["periods_per_invoice"]


COMPUTED: dict[str, Callable[[Any, Any], None]] = {
    "value": value,
    "code": code,
    "batch_size": batch_size,
    "aggregate": aggregate,
    "charge": charged,
    "unit_price": unit_price,
    "change": change,
    "anchor": anchor,
    "base": base,
}
TOLD_OVER_HTTP = {"batch", "free_plan"}


@pytest.mark.parametrize(
    "case", [each for each in CASES if each["kind"] in COMPUTED], ids=lambda each: each["id"]
)
def test_a_worked_example(case: dict[str, Any]) -> None:
    COMPUTED[case["kind"]](case["given"], case["expected"])


def test_every_case_is_computed_somewhere() -> None:
    assert {each["kind"] for each in CASES} <= COMPUTED.keys() | TOLD_OVER_HTTP
    assert len({each["id"] for each in CASES}) == len(CASES)
