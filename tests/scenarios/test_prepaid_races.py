"""Wallets that everybody wants at once, in one process and in two, while servers are killed: the sums hold."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.audit import audit
from tests.conftest import MakeOrganization, Organization
from tests.scenarios.purses import balance_shop, billed, cancel, credits_shop, ledger_of, pools
from tests.shop import API, Json, done, set_clock, subscribe

OPENED = "2025-01-15T10:00:00Z"


def storm(
    shop: Organization, customers: list[str], over: threading.Event, feature: str
) -> list[tuple[int, str]]:
    """Events for these customers, one after the other, until it is over: (status, code) of each answer."""
    found: list[tuple[int, str]] = []
    with httpx.Client(base_url=shop.base_url, headers={"x-api-key": shop.api_key}, timeout=30) as http:
        while not over.is_set():
            for customer in customers:
                body = {"featureCode": feature, "customerId": customer, "value": 1}
                answer = http.post(f"{API}/usage/events", json=body)
                found.append((answer.status_code, answer.json().get("code", "")))
    return found


def test_cancellations_and_payments_do_not_wait_for_each_other(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """Who cancels holds the wallet before the head, like everybody: nobody is told of a deadlock."""
    shop = make_organization(clock=OPENED)
    customers = [f"customer_{place}" for place in range(24)]
    balance_shop(shop, 1_000, *customers)
    over = threading.Event()
    with ThreadPoolExecutor(6) as pool:
        storms = [pool.submit(storm, shop, customers, over, "call") for _ in range(6)]
        try:
            ended = [cancel(shop, each, immediate=True) for each in customers]
        finally:
            over.set()
        answers = [each for one in storms for each in one.result()]
    assert {each["status"] for each in ended} == {"canceled"}
    assert set(answers) == {(201, ""), (404, "no_active_subscription")}
    set_clock(shop, "2025-01-16T00:00:00Z")
    invoiced = sum(
        cents
        for each in customers
        for _, lines in billed(shop, each)
        for kind, cents in lines
        if kind == "balance_overage"
    )
    taken = sum(1 for status, _ in answers if status == 201)
    short = sum(max(0, int(pools(database_url, shop, each)[0])) for each in customers)
    assert invoiced * 100 == taken * 100 - 24 * 1_000 + short
    audit(database_url, shop)
