"""Open a small shop through the current raw API, for clients too old to have a catalogue of their own."""

from typing import Any

import httpx

from .world import TEST_CARD, Organization, Server


def open_shop(organization: Organization, server: Server) -> None:
    """Plan `pro`: 29.00 a month, 1000 api_calls included, 0.01 each beyond; storage_gb without limit."""
    api = f"{server.base_url}/api/v1"
    http = organization.http
    calls = created(
        http.post(f"{api}/features", json={"name": "API calls", "code": "api_calls", "type": "usage"})
    )
    storage = created(
        http.post(f"{api}/features", json={"name": "Storage", "code": "storage_gb", "type": "usage"})
    )
    plan = created(
        http.post(f"{api}/plans", json={"name": "Pro", "code": "pro", "consumptionModel": "metered"})
    )
    created(http.post(f"{api}/plans/{plan['id']}/prices", json={"billingInterval": "monthly", "price": 2900}))
    created(
        http.post(
            f"{api}/plans/{plan['id']}/features",
            json={
                "featureId": calls["id"],
                "includedAmount": 1000,
                "overage": {"enabled": True, "unitPrice": 100},
            },
        )
    )
    created(
        http.post(f"{api}/plans/{plan['id']}/features", json={"featureId": storage["id"], "unlimited": True})
    )


def subscribe(organization: Organization, server: Server, *, customer: str, email: str) -> None:
    """Make the customer and put them on `pro`, paid."""
    api = f"{server.base_url}/api/v1"
    created(organization.http.post(f"{api}/customers", json={"id": customer, "email": email}))
    subscription = created(
        organization.http.post(f"{api}/subscriptions", json={"customerId": customer, "planCode": "pro"})
    )
    pay(subscription["checkoutUrl"])


def pay(checkout_url: str) -> None:
    """Fill in the sandbox card form as a browser would."""
    answer = httpx.post(checkout_url, data=TEST_CARD, follow_redirects=False)
    assert answer.status_code == 303, answer.text


def created(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, answer.text
    body: dict[str, Any] = answer.json()
    return body
