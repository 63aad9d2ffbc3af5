"""The published worked examples (`contract/cases/worked.json`), computed by the pure room.

Cases that need a server (what a whole batch leaves behind) are told in `tests/scenarios/test_worked_batches.py`.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tallystick.core.adjustments import Rated, Usage, rate_period
from tallystick.core.catalog import stretches
from tallystick.core.events import decode
from tallystick.core.evidence import PlanPeriod
from tallystick.core.invoicing import Line, base_line, overdraft_line, subtotal, usage_lines
from tallystick.core.limits import EVENTS_PER_BATCH_MAX
from tallystick.core.meters import fold, measure
from tallystick.core.money import ZERO, from_minor, from_rate, text, to_minor, to_rate
from tallystick.core.price_shapes import parse
from tallystick.core.pricing import unit_amount
from tallystick.core.subscriptions import periods_per_invoice
from tallystick.core.times import Anchor, Period, boundary, days_between
from tallystick.core.tokens import Rates, TokenCounts, cost
from tallystick.core.wallet_news import news_of
from tallystick.core.wallets import Cause, Model
from tallystick.errors import InvalidRequest
from tests.core.offers import CALLS, FEBRUARY, MARCH, basis_of, events, meter, rated, terms
from tests.core.prepaid import begin, credit_terms, event, live, offer, read_step
from tests.core.prepaid import cost as cost_of
from tests.literals import D, at

CASES = json.loads((Path(__file__).parents[2] / "contract/cases/worked.json").read_text())


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


def lines_of(found: Rated) -> list[Line]:
    return usage_lines(
        basis_of(found), found, feature_id=CALLS, feature_name="API calls", unit="units", currency="USD"
    )


def charged(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = rated(terms(given["included"], overage=True, unit=str(from_rate(given["rate"]))), given["usage"])
    lines = lines_of(found)
    assert found.billable == sum((line.quantity for line in lines), ZERO) == D(expected["billable"])
    assert subtotal(lines) == expected["cents"]
    if "total_cents" in expected:
        base = base_line("Pro", given["base_cents"], "USD", {})
        assert subtotal([base, *lines]) == expected["total_cents"]


def priced(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """A price of any model, of a quantity or of the amounts of events."""
    used = events(*given["amounts"]) if "amounts" in given else Usage(D(given["usage"]))
    found = rated(terms(price=parse(given["price"])), used)
    assert subtotal(lines_of(found)) == expected["cents"]
    if "parts" in expected:
        parts = [[text(each.quantity), to_minor(each.amount, "USD")] for each in found.components]
        assert parts == expected["parts"]


def minimum(given: dict[str, Any], expected: dict[str, int]) -> None:
    """What is missing to a minimum is a line of its own."""
    promised = terms(overage=True, unit=str(from_rate(given["rate"])), minimum=given["minimum"])
    usage_line, true_up = lines_of(rated(promised, given["usage"]))
    assert (usage_line.charge_type, usage_line.amount) == ("standard", expected["usage_cents"])
    assert (true_up.charge_type, true_up.amount) == ("true_up", expected["true_up_cents"])
    assert subtotal([usage_line, true_up]) == expected["total_cents"]


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

    def seen(period: Period) -> tuple[int, int | None]:
        ((span, found),) = stretches(versions, period)
        cents = None
        if "extra" in given:
            cents = subtotal(lines_of(rate_period([(span, found, Usage(D(given["extra"])))])))
        return (to_rate(unit_amount(found.price)) if given["field"] == "rate" else int(found.included)), cents

    now, cents = seen(FEBRUARY)
    assert (now, seen(MARCH)[0]) == (expected["now"], expected["next"])
    assert cents == expected.get("now_cents")


def anchor(given: dict[str, str], expected: list[str]) -> None:
    """When allowances reset and usage is counted anew."""
    start = at(given["start"])
    counted = Anchor(start, start.date(), weekly=given["interval"] == "weekly")
    assert [boundary(counted, index, "UTC") for index in range(3)] == [at(each) for each in expected]


def days(given: dict[str, Any], expected: dict[str, int]) -> None:
    """Days are counted on the calendar: what is left of a period when something changes in it."""
    start, end = (at(each) for each in given["period"])
    assert days_between(at(given["change"]), end, "UTC") == expected["remaining"]
    assert days_between(start, end, "UTC") == expected["all"]


def base(given: dict[str, Any], expected: dict[str, int | None]) -> None:
    assert base_line("Pro", given["cents"], "USD", {}).amount == given["cents"]
    assert periods_per_invoice(given["interval"]) == expected["periods_per_invoice"]


def ai(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Rates as published: rate units per million tokens."""
    put_in, out, *cached = given["rates"]
    read, write = (None if each is None else from_rate(each) for each in cached)
    rates = Rates(from_rate(put_in), from_rate(out), read, write)
    found = cost(TokenCounts(*given["tokens"]), rates, given["margin_bps"])
    assert [found.input, found.output, found.cache_read, found.cache_write] == expected["costs"]
    assert (found.subtotal, found.margin, found.total) == tuple(
        expected[name] for name in ("subtotal", "margin", "total")
    )
    assert text(from_rate(found.total)) == expected["usd"]


def margin(given: int, expected: int) -> None:
    """Basis points are hundredths of a percent."""
    found = cost(TokenCounts(1_000_000, 0), Rates(D("0.01"), ZERO), given)
    assert (found.subtotal, found.margin) == (100, expected)


def credits_cost(given: list[list[Any]], expected: str) -> None:
    """Events of features that ask so many credits a unit."""
    found = (cost_of(event(value), offer(credit_terms(each), model=Model.CREDITS)) for each, value in given)
    assert sum(found, ZERO) == D(expected)


def money(given: int, expected: str) -> None:
    assert str(from_minor(given, "USD")) == expected


def wallet(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """What is left after a story, what was refused of it, and what is told of its last step."""
    held = begin(Model(given["model"]), D(given["included"]), overdraft=given.get("overdraft", False))
    *before, last = [read_step(each) for each in given["story"]]
    live(held, before)
    moved, told = len(held.movements), len(held.told)
    if not held.step(*last):
        held.refused.append(len(before))
    assert held.wallet.plan == D(expected["plan"])
    assert held.wallet.purchased == D(expected.get("purchased", "0"))
    assert held.refused == expected.get("refused", [])
    if "news" in expected:
        whose = {"subscriptionId": "sub_1", "customerId": "user_123"}
        found = news_of(
            held.wallet,
            held.movements[moved:],
            held.told[told:],
            subscription_id="sub_1",
            customer_id="user_123",
            currency="USD",
        )
        assert found == [(kind, {**whose, **data}) for kind, data in expected["news"]]
    if "overage_cents" in expected:
        (over,) = (each for each in held.movements if each.cause is Cause.OVERDRAFT)
        lived = PlanPeriod(0, FEBRUARY, "UTC", 7)
        line = overdraft_line(lived, overdrawn=over.amount, currency="USD")
        assert (line.line_type, line.amount) == ("balance_overage", expected["overage_cents"])


COMPUTED: dict[str, Callable[[Any, Any], None]] = {
    "value": value,
    "code": code,
    "batch_size": batch_size,
    "aggregate": aggregate,
    "charge": charged,
    "price": priced,
    "minimum": minimum,
    "unit_price": unit_price,
    "change": change,
    "anchor": anchor,
    "days": days,
    "base": base,
    "ai": ai,
    "margin": margin,
    "credits_cost": credits_cost,
    "money": money,
    "wallet": wallet,
}
TOLD_OVER_HTTP = {"batch", "free_plan", "free_raise", "base_price"}


@pytest.mark.parametrize(
    "case", [each for each in CASES if each["kind"] in COMPUTED], ids=lambda each: each["id"]
)
def test_a_worked_example(case: dict[str, Any]) -> None:
    COMPUTED[case["kind"]](case["given"], case["expected"])


def test_every_case_is_computed_somewhere() -> None:
    assert {each["kind"] for each in CASES} <= COMPUTED.keys() | TOLD_OVER_HTTP
    assert len({each["id"] for each in CASES}) == len(CASES)
