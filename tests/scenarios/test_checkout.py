"""The sandbox checkout: the published test cards behave as written, and the address is the secret."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import MakeOrganization, Organization, Server
from tests.shop import API, add_customer, add_plan, done, set_clock

GOOD = {"cardNumber": "4242 4242 4242 4242", "expiry": "12/34", "cvc": "123"}


@pytest.fixture
def shop(make_organization: MakeOrganization) -> Iterator[Organization]:
    made = make_organization(clock="2026-03-10T09:00:00Z")
    add_plan(made, price=2900)
    add_customer(made, "ada")
    yield made


def open_checkout(shop: Organization, **more: object) -> str:
    body = {"customerId": "ada", "planCode": "pro", **more}
    url: str = done(shop.http.post(f"{API}/subscriptions", json=body))["checkoutUrl"]
    return url


def status(shop: Organization) -> str:
    held = done(shop.http.get(f"{API}/subscriptions?customerId=ada"))["data"]
    found: str = held[0]["status"]
    return found


def attempts(shop: Organization) -> list[tuple[str, str | None]]:
    found = done(shop.http.get(f"{API}/transactions"))["data"]
    return [(each["status"], each["failureCode"]) for each in reversed(found)]


def pay(url: str, **card: str) -> httpx.Response:
    return httpx.post(url, data={**GOOD, **card}, follow_redirects=False)


def test_a_good_card_pays_activates_and_is_recorded(shop: Organization) -> None:
    url = open_checkout(shop)
    page = httpx.get(url)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "$29.00" in page.text and "Test &amp; Sons" in page.text
    paid = pay(url)
    assert (paid.status_code, paid.headers["location"]) == (303, "/checkout/success")
    assert status(shop) == "active"
    assert attempts(shop) == [("succeeded", None)]
    (invoice,) = done(shop.http.get(f"{API}/invoices"))["data"]
    assert (invoice["status"], invoice["total"]) == ("paid", 2900)


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        ("4000 0000 0000 9995", "insufficient_funds", "insufficient funds"),
        ("4000 0000 0000 0002", "card_declined", "declined"),
        ("4000 0000 0000 0069", "expired_card", "expired"),
        ("5555 5555 5555 4444", "card_declined", "test cards only"),  # the sandbox takes no real card
    ],
)
def test_a_declined_card_says_why_and_changes_nothing(
    shop: Organization, number: str, code: str, reason: str
) -> None:
    url = open_checkout(shop)
    refused = pay(url, cardNumber=number)
    assert refused.status_code == 402
    assert reason in refused.text
    assert status(shop) == "pending_payment"
    assert attempts(shop) == [("failed", code)]
    assert done(shop.http.get(f"{API}/invoices"))["data"] == []
    assert pay(url).status_code == 303, "another card may be tried"


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ({"cardNumber": ""}, "12 to 19 digits"),
        ({"cardNumber": "4242-4242-4242-424x"}, "12 to 19 digits"),
        ({"expiry": "13/34"}, "month and a year"),
        ({"expiry": "soon"}, "month and a year"),
        ({"cvc": "12"}, "3 or 4 digits"),
        ({"expiry": "02/26"}, "expired"),  # the organization's clock stands in March
    ],
)
def test_what_is_mistyped_is_told(shop: Organization, typed: dict[str, str], reason: str) -> None:
    refused = pay(open_checkout(shop), **typed)
    assert refused.status_code == 402
    assert reason in refused.text


@pytest.mark.parametrize("number", ["4000002500003155", "4000000000003220"])
@pytest.mark.parametrize(("agreed", "expected"), [("complete", 303), ("fail", 402)])
def test_3d_secure_asks_first(shop: Organization, number: str, agreed: str, expected: int) -> None:
    url = open_checkout(shop)
    asked = pay(url, cardNumber=number)
    assert asked.status_code == 200
    assert status(shop) == "pending_payment"
    found = re.search(r'name="challenge" value="([^"]+)"', asked.text)
    assert found is not None
    answer = httpx.post(url, data={"challenge": found[1], "authentication": agreed}, follow_redirects=False)
    assert answer.status_code == expected
    assert status(shop) == ("active" if agreed == "complete" else "pending_payment")


def test_paying_twice_charges_once(shop: Organization) -> None:
    url = open_checkout(shop)
    assert [pay(url).status_code, pay(url).status_code] == [303, 303]
    assert attempts(shop) == [("succeeded", None)]
    assert "went through" in httpx.get(url).text


def test_the_success_address_is_where_the_buyer_goes(shop: Organization) -> None:
    paid = pay(open_checkout(shop, successUrl="https://shop.example/thanks?x=1"))
    assert paid.headers["location"] == "https://shop.example/thanks?x=1"


def test_an_unknown_address_is_a_page_that_says_so(server: Server) -> None:
    missing = httpx.get(f"{server.base_url}/checkout/nothing-here")
    assert missing.status_code == 404
    assert "not valid" in missing.text


def test_a_card_that_expires_is_declined_at_the_renewal(shop: Organization) -> None:
    assert pay(open_checkout(shop), expiry="04/26").status_code == 303
    set_clock(shop, "2026-05-11T00:00:00Z")
    renewals = done(shop.http.get(f"{API}/invoices"))["data"]
    assert [each["status"] for each in renewals] == ["outstanding", "paid", "paid"]
    assert attempts(shop)[-1] == ("failed", "expired_card")
    assert status(shop) == "active"
