"""AI calls: paid from the balance as they arrive, each with the cost it was paid by, and what they come to together."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import Organization
from tests.shop import API, Json, add_feature, add_plan, done, promise, refused, set_clock, subscribe

OPENED = "2025-06-15T10:00:00Z"
Open = Callable[[str], Organization]


@pytest.fixture
def shop(open_at: Open) -> Organization:
    """`chat` is priced by tokens with 20 %, `calls` at 0.01 each, both on a balance of 10.00."""
    opened = open_at(OPENED)
    for code in ("chat", "draft", "calls"):
        add_feature(opened, code)
    plan = add_plan(opened, "ai", price=1000, model="balance")
    promise(opened, plan, "chat", pricingMode="ai_model", margin=2000)
    promise(opened, plan, "draft", pricingMode="ai_model")
    promise(opened, plan, "calls", overage={"unitPrice": 100})
    own = {
        "model": "our-model",
        "inputPerMillion": "3",
        "outputPerMillion": "15",
        "cacheReadPerMillion": "0.30",
        "cacheWritePerMillion": "3.75",
    }
    done(opened.http.post(f"{API}/ai/prices", json={**own, "validFrom": "2020-01-01T00:00:00Z"}))
    subscribe(opened, "ada", "ai")
    subscribe(opened, "bob", "ai")
    return opened


def call(shop: Organization, key: str, customer: str = "ada", feature: str = "chat", **more: Any) -> Json:
    body = {"featureCode": feature, "customerId": customer, "eventId": key, "model": "our-model", **more}
    return done(shop.http.post(f"{API}/usage/events", json=body))


def test_a_call_takes_what_it_costs_and_keeps_why(shop: Organization) -> None:
    """The worked example `ai.cost_cached`."""
    told = call(shop, "a", inputTokens=10000, outputTokens=2000, cacheReadTokens=7000, cacheWriteTokens=1000)
    assert told["value"] == 12000
    assert (told["consumption"]["deducted"], told["consumption"]["remaining"]) == (503, 100_000 - 503)
    kept = done(shop.http.get(f"{API}/usage/events/{told['id']}"))
    (cost,) = kept["aiCosts"]
    costs = [cost[name] for name in ("inputCost", "outputCost", "cacheReadCost", "cacheWriteCost")]
    assert (costs, cost["subtotal"], cost["margin"], cost["total"]) == ([60, 300, 21, 38], 419, 84, 503)
    assert cost["exact"]["total"] == "0.05022"
    assert cost["rates"] == {"input": "3", "output": "15", "cache_read": "0.3", "cache_write": "3.75"}
    assert cost["priceSource"].startswith("aip_")


def test_costs_are_told_by_what_one_asks(shop: Organization) -> None:
    for key, customer, feature in (("a", "ada", "chat"), ("b", "bob", "chat"), ("c", "bob", "draft")):
        call(shop, key, customer, feature, inputTokens=1000, outputTokens=500)
    set_clock(shop, "2025-06-16T10:00:00Z")
    call(shop, "d", model="gpt-4o", inputTokens=1000, outputTokens=500)

    def told(query: str) -> list[tuple[dict[str, str], int, int, int, int]]:
        found = done(shop.http.get(f"{API}/ai/costs?{query}"))
        groups = [
            (each["group"], each["events"], each["providerCost"], each["margin"], each["revenue"])
            for each in found["groups"]
        ]
        assert sum(each[1] for each in groups) == found["total"]["events"]
        assert sum(each[4] for each in groups) == found["total"]["revenue"]
        return groups

    assert told("groupBy=model") == [
        ({"model": "openai/gpt-4o"}, 1, 75, 15, 90),
        ({"model": "our-model"}, 3, 315, 42, 357),
    ]
    assert told("groupBy=customer,feature") == [
        ({"customerId": "ada", "featureCode": "chat"}, 2, 180, 36, 216),
        ({"customerId": "bob", "featureCode": "chat"}, 1, 105, 21, 126),
        ({"customerId": "bob", "featureCode": "draft"}, 1, 105, 0, 105),
    ]
    assert [each[0] for each in told("groupBy=day")] == [{"day": "2025-06-15"}, {"day": "2025-06-16"}]
    assert [each[0] for each in told("groupBy=day&timezone=Asia/Tokyo&customerId=bob")] == [
        {"day": "2025-06-15"}
    ]
    assert told("groupBy=feature&model=gpt-4o") == [({"featureCode": "chat"}, 1, 75, 15, 90)]
    nothing = done(shop.http.get(f"{API}/ai/costs?end=2025-06-01T00:00:00Z"))
    assert (nothing["total"], nothing["groups"]) == (None, [])


def test_a_voided_call_costs_nothing_and_is_given_back(shop: Organization) -> None:
    told = call(shop, "a", inputTokens=1000, outputTokens=500)
    done(shop.http.delete(f"{API}/usage/events/{told['id']}"))
    assert done(shop.http.get(f"{API}/ai/costs"))["total"] is None
    after = call(shop, "b", inputTokens=1000, outputTokens=500)
    assert after["consumption"]["remaining"] == 100_000 - 126


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"featureCode": "calls", "model": "gpt-4o", "inputTokens": 1, "outputTokens": 1}, 422, "pricing_mode_mismatch", "model"),
        ({"featureCode": "chat", "value": 1}, 422, "pricing_mode_mismatch", "value"),
        ({"featureCode": "chat"}, 422, "pricing_mode_mismatch", "value"),
        ({"featureCode": "chat", "model": "gpt-4o", "inputTokens": 1}, 400, "validation_error", "outputTokens"),
        ({"featureCode": "chat", "model": "gpt-4o", "inputTokens": 1, "outputTokens": 1, "value": 2}, 400, "validation_error", "value"),
        ({"featureCode": "chat", "model": "gpt-4o", "inputTokens": 1, "outputTokens": 1, "cacheReadTokens": 2}, 400, "validation_error", "cacheReadTokens"),
        ({"featureCode": "chat", "model": "our-modle", "inputTokens": 1, "outputTokens": 1}, 404, "model_not_found", "model"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_moves_nothing(
    shop: Organization, body: Json, status: int, code: str, param: str
) -> None:
    error = refused(
        shop.http.post(f"{API}/usage/events", json={"customerId": "ada", "eventId": "x", **body}),
        status,
        code,
    )
    assert error["param"] == param
    if code == "model_not_found":
        assert error["details"]["nearest"][0] == "our-model"
    again = call(shop, "x", inputTokens=1000, outputTokens=500)  # the key stayed free
    assert Decimal(again["consumption"]["remainingDecimal"]) == 100_000 - 126


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("groupBy=color", "groupBy"),
        ("groupBy=model,model", "groupBy"),
        ("start=yesterday", "start"),
        ("timezone=Mars/Base", "timezone"),
        ("start=2025-06-02T00:00:00Z&end=2025-06-01T00:00:00Z", "end"),
    ],
)
def test_a_report_that_cannot_be_made_says_why(shop: Organization, query: str, field: str) -> None:
    assert refused(shop.http.get(f"{API}/ai/costs?{query}"), 400, "validation_error")["param"] == field
