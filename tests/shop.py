"""A small business built over HTTP: features, plans, customers who paid, usage, and a clock to move."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import httpx

from tallystick.core import ids
from tests.conftest import Organization

API = "/api/v1"
GOOD_CARD = "4242424242424242"
DECLINED_LATER = "4000000000000341"

Json = dict[str, Any]


def done(answer: httpx.Response) -> Json:
    """The body of an answer that must be a success."""
    assert answer.is_success, f"{answer.status_code} {answer.text}"
    body: Json = answer.json()
    return body


def refused(answer: httpx.Response, status: int, code: str) -> Json:
    """The error of an answer that must be this refusal."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    error: Json = answer.json()["error"]
    assert error["code"] == code, error
    return error


def own_id(prefix: str, shown: str) -> UUID:
    found = ids.read(prefix, shown)
    assert found is not None, shown
    return found


def add_feature(shop: Organization, code: str = "api_calls", **meter: Any) -> Json:
    return done(
        shop.http.post(f"{API}/features", json={"name": code, "code": code, "type": "usage", **meter})
    )


def add_plan(
    shop: Organization,
    code: str = "pro",
    *,
    price: int | None = 2900,
    interval: str = "monthly",
    promises: Mapping[str, Json] | None = None,
    model: str = "metered",
    grants: Mapping[str, int] | None = None,
    blocks: bool | None = None,
    **more: Any,
) -> Json:
    """A plan with one price (None: free), what it promises of features that exist already, and what it grants of
    credits or balance beforehand."""
    free = price is None
    if blocks is not None:
        more["blockOnExhaustion"] = blocks
    body = {"name": code, "code": code, "consumptionModel": model, "isFree": free, **more}
    plan = done(shop.http.post(f"{API}/plans", json=body | dict(grants or {}) if free else body))
    if price is not None:
        body = {"billingInterval": interval, "price": price, **(grants or {})}
        done(shop.http.post(f"{API}/plans/{plan['id']}/prices", json=body))
    for feature, terms in (promises or {}).items():
        promise(shop, plan, feature, **terms)
    return plan


def promise(shop: Organization, plan: Json, feature: str, **terms: Any) -> Json:
    return done(shop.http.post(f"{API}/plans/{plan['id']}/features", json={"featureId": feature, **terms}))


def overage(unit_price: str, included: float = 0) -> Json:
    """Terms: so many included, and each beyond costs `unit_price` in major units."""
    return {"includedAmount": included, "overage": {"enabled": True, "unitPriceDecimal": unit_price}}


def hard_limit(included: float) -> Json:
    """Terms: so many included, and nothing beyond."""
    return {"includedAmount": included, "overage": {"enabled": False}}


def add_customer(shop: Organization, reference: str, **more: Any) -> Json:
    return done(
        shop.http.post(
            f"{API}/customers", json={"id": reference, "email": f"{reference}@example.com", **more}
        )
    )


def subscribe(
    shop: Organization,
    reference: str,
    plan: str = "pro",
    *,
    card: str = GOOD_CARD,
    customer: Json | None = None,
    **more: Any,
) -> Json:
    """Make the customer, put them on the plan, and pay where there is something to pay."""
    add_customer(shop, reference, **(customer or {}))
    held = done(
        shop.http.post(f"{API}/subscriptions", json={"customerId": reference, "planCode": plan, **more})
    )
    if held["checkoutUrl"] is not None:
        pay(held["checkoutUrl"], card)
    return done(shop.http.get(f"{API}/subscriptions/{held['id']}"))


def pay(checkout_url: str, card: str = GOOD_CARD) -> None:
    form = {"cardNumber": card, "expiry": "12/49", "cvc": "123"}
    paid = httpx.post(checkout_url, data=form, follow_redirects=False)
    assert paid.status_code == 303, paid.text


def open_shop(
    shop: Organization, *customers: str, terms: Json | None = None, price: int | None = 2900
) -> None:
    """The plan `pro` with `api_calls` (0.01 each unless `terms` say otherwise), and customers who hold it."""
    add_feature(shop)
    add_plan(shop, price=price, promises={"api_calls": terms or overage("0.01")})
    for customer in customers:
        subscribe(shop, customer)


def track(
    shop: Organization,
    customer: str = "ada",
    key: str | None = None,
    *,
    feature: str = "api_calls",
    header: str | None = None,
    **more: Any,
) -> httpx.Response:
    body = {"featureCode": feature, "customerId": customer, **more}
    if key is not None:
        body["eventId"] = key
    return post_event(shop, body, header)


def post_event(shop: Organization, body: Json, header: str | None = None) -> httpx.Response:
    return shop.http.post(f"{API}/usage/events", json=body, headers=_headers(header))


def track_batch(shop: Organization, events: Sequence[Any], header: str | None = None) -> Json:
    """The answer to a batch; that some of it failed is no error of the request."""
    return done(
        shop.http.post(f"{API}/usage/events/batch", json={"events": events}, headers=_headers(header))
    )


def _headers(idempotency_key: str | None) -> dict[str, str]:
    return {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}


def set_clock(shop: Organization, to: str) -> Json:
    """Move the test clock; every deadline on the way must have been met."""
    run = done(shop.http.post(f"{API}/test-clock", json={"frozenTime": to}))
    while run["status"] in ("pending", "running"):  # the answer does not wait for a long one
        time.sleep(0.1)
        run = done(shop.http.get(f"{API}/test-clock"))["latestRun"]
    assert run["status"] == "completed", run
    assert run["failedDeadlineCount"] == 0, run
    return run


def invoices_of(shop: Organization, customer: str) -> list[Json]:
    """Every invoice with its lines, oldest first."""
    listed = every(shop, f"{API}/invoices?customerId={customer}")
    return [done(shop.http.get(f"{API}/invoices/{each['id']}")) for each in reversed(list(listed))]


def every(shop: Organization, path: str) -> Iterator[Json]:
    """All items of a paged list."""
    cursor = None
    while True:
        query = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
        page = done(shop.http.get(httpx.URL(path).copy_merge_params(query)))
        yield from page["data"]
        if not page["hasMore"]:
            return
        cursor = page["nextCursor"]
