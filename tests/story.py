"""A business with one of everything that can be on an invoice: every kind of meter, of price and of line.

Two customers live through two periods; a price changes inside the first, a total is corrected, some of what
happened is reported late, under each policy, and some of it is taken back, in time and afterwards.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from tests.conftest import Organization
from tests.literals import at
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    every,
    overage,
    promise,
    set_clock,
    subscribe,
    track,
    track_batch,
)

OPENED: Final = "2025-01-15T10:00:00Z"
PRICES: Final[dict[str, Json]] = {
    "peak": {"model": "per_unit", "unitAmount": "0.5"},
    "users": {"model": "package", "packageSize": "2", "packageAmount": "3", "freeUnits": "1"},
    "bytes": {
        "model": "graduated",
        "tiers": [
            {"upTo": "100", "unitAmount": "0.02", "flatAmount": "1"},
            {"upTo": None, "unitAmount": "0.01", "flatAmount": "0"},
        ],
        "chargeFlatAtZero": False,
    },
    "level": {"model": "volume", "tiers": [{"upTo": "5", "unitAmount": "1", "flatAmount": "0"},
                                           {"upTo": None, "unitAmount": "0.9", "flatAmount": "0"}],
              "chargeFlatAtZero": False},
    "fees": {"model": "percentage", "basisPoints": "250", "fixedAmount": "0.1", "freeEvents": 2},
    "tokens": {"model": "flat", "amount": "7"},
}  # fmt: skip
METERS: Final[dict[str, Json]] = {
    "api_calls": {},
    "eu_calls": {
        "eventCode": "api_calls",
        "aggregation": "count",
        "filters": [{"property": "region", "operator": "equals", "value": "eu"}],
    },
    "peak": {"eventCode": "request", "aggregation": "max"},
    "users": {"eventCode": "request", "aggregation": "unique", "aggregationProperty": "user"},
    "bytes": {"eventCode": "request", "aggregationProperty": "size"},
    "level": {"aggregation": "latest"},
    "fees": {},
    "tokens": {"lateEventPolicy": "current_period"},
    "calls": {"eventCode": "api_calls", "aggregation": "count", "lateEventPolicy": "ignore"},
}


def open_business(shop: Organization, *customers: str) -> None:
    for code, meter in METERS.items():
        add_feature(shop, code, **meter)
    plan = add_plan(shop)
    done(shop.http.patch(f"{API}/plans/{plan['id']}", json={"minimumAmount": "200"}))
    for code, price in PRICES.items():
        promise(shop, plan, code, overage={"enabled": True}, price=price)
    promise(shop, plan, "api_calls", **overage("0.01", included=100))
    promise(shop, plan, "eu_calls", **overage("0.003"), minimumAmount="5")
    promise(shop, plan, "calls", **overage("0.001"), maximumAmount="0.02")
    for customer in customers:
        subscribe(shop, customer, customer={"timezone": "Asia/Kathmandu"} if customer == "ada" else {})


def live(shop: Organization) -> None:
    """From the opening to the third invoice of each customer; most events have a key, some have none."""
    open_business(shop, "ada", "bob")
    body = {"overage": {"enabled": True, "unitPriceDecimal": "0.02"}, "validFrom": "2025-01-25T00:00:00Z"}
    done(shop.http.patch(f"{API}/plans/pro/features/api_calls", json=body))
    set_clock(shop, "2025-02-10T00:00:00Z")
    began = at(OPENED)
    for customer in ("ada", "bob"):
        for code in ("api_calls", "request", "level", "fees", "tokens"):
            sent = [event(customer, code, began, number) for number in range(30)]
            assert track_batch(shop, sent)["failed"] == []
        done(track(shop, customer, header="h", value=3, timestamp="2025-01-20T00:00:00.001Z"))
        assert track_batch(shop, [keyless(customer, number) for number in range(3)])["failed"] == []
        told = {"customerId": customer, "featureCode": "fees", "value": 900, "reason": "counted \\ twice"}
        done(shop.http.put(f"{API}/usage", json=told))
        take_back(shop, customer, "request_7")
    set_clock(shop, "2025-02-20T00:00:00Z")
    for customer in ("ada", "bob"):
        for code in ("api_calls", "tokens", "level"):
            done(
                track(
                    shop, customer, f"late_{code}", feature=code, value=40, timestamp="2025-02-01T00:00:00Z"
                )
            )
        sent = [
            event(customer, "api_calls", at("2025-02-19T00:00:00Z"), 1000 + number) for number in range(3)
        ]
        assert track_batch(shop, sent)["failed"] == []
    set_clock(shop, "2025-03-20T00:00:00Z")


def event(customer: str, code: str, began: datetime, number: int) -> Json:
    """They come out of order, and at odd moments."""
    step = timedelta(hours=11, minutes=7, milliseconds=3)
    properties: dict[str, Any] = {"region": "eu" if number % 3 else "us", "user": f"ü{number % 5}"}
    if number % 4:
        properties["size"] = f"{number}.25"
    return {
        "featureCode": code,
        "customerId": customer,
        "eventId": f"{code}_{number}",
        "value": number / 4 + 1,
        "timestamp": (began + (number * 7 % 30 if number < 1000 else 1) * step).isoformat(),
        "properties": properties if number % 6 else {},
    }


def take_back(shop: Organization, customer: str, key: str) -> None:
    listed = every(shop, f"{API}/usage/events?customerId={customer}")
    found = next(each["id"] for each in listed if each["eventId"] == key)
    done(shop.http.request("DELETE", f"{API}/usage/events/{found}", json={"reason": "a test"}))


def keyless(customer: str, number: int) -> Json:
    body = {"featureCode": "api_calls", "customerId": customer, "value": number + 1}
    return {**body, "timestamp": f"2025-01-2{number}T12:00:00Z"}
