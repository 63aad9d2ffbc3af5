"""The checkout as a buyer meets it: in a real browser, by label and button, with and without JavaScript."""

import pytest
from playwright.async_api import Page, expect

from tests.browser.looking import browse, needs_chromium
from tests.conftest import MakeOrganization, Organization
from tests.shop import API, add_customer, add_plan, done

pytestmark = needs_chromium


@pytest.fixture
def shop(make_organization: MakeOrganization) -> Organization:
    made = make_organization(clock="2026-03-10T09:00:00Z")
    add_plan(made, price=2900)
    add_customer(made, "ada")
    return made


def open_checkout(shop: Organization, **more: str) -> str:
    body = {"customerId": "ada", "planCode": "pro", **more}
    url: str = done(shop.http.post(f"{API}/subscriptions", json=body))["checkoutUrl"]
    return url


def status(shop: Organization) -> str:
    (held,) = done(shop.http.get(f"{API}/subscriptions?customerId=ada"))["data"]
    found: str = held["status"]
    return found


async def pay(page: Page, number: str) -> None:
    await page.get_by_label("Card number").fill(number)
    await page.get_by_label("Expiry").fill("12/34")
    await page.get_by_label("Security code").fill("123")
    await page.get_by_role("button", name="Pay $29.00").click()


@pytest.mark.parametrize("javascript", [True, False])
def test_a_buyer_is_declined_tries_another_card_and_is_through(shop: Organization, javascript: bool) -> None:
    url = open_checkout(shop)

    async def story(page: Page) -> None:
        await page.goto(url)
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Subscribe to")
        await pay(page, "4000 0000 0000 0002")
        await expect(page.get_by_role("alert")).to_contain_text("declined")
        assert status(shop) == "pending_payment"
        await pay(page, "4242 4242 4242 4242")
        await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()

    browse(story, javascript=javascript)
    assert status(shop) == "active"


def test_the_form_is_not_sent_half_filled(shop: Organization) -> None:
    url = open_checkout(shop)

    async def story(page: Page) -> None:
        await page.goto(url)
        await page.get_by_label("Card number").fill("4242 4242 4242 4242")
        await page.get_by_role("button", name="Pay $29.00").click()
        await expect(page.get_by_label("Expiry")).to_be_focused()
        await expect(page.get_by_role("alert")).to_have_count(0)

    browse(story)
    assert status(shop) == "pending_payment"


def test_3d_secure_asks_and_then_goes_where_the_shop_said(shop: Organization) -> None:
    thanks = f"{shop.base_url}/checkout/success?order=7"
    url = open_checkout(shop, successUrl=thanks)

    async def story(page: Page) -> None:
        await page.goto(url)
        await pay(page, "4000 0025 0000 3155")
        await page.get_by_role("button", name="Refuse").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        await pay(page, "4000 0025 0000 3155")
        await page.get_by_role("button", name="Confirm the payment").click()
        await page.wait_for_url(thanks)

    browse(story)
    assert status(shop) == "active"


def test_it_fits_a_telephone(shop: Organization) -> None:
    url = open_checkout(shop)

    async def story(page: Page) -> None:
        await page.set_viewport_size({"width": 360, "height": 640})
        await page.goto(url)
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
        box = await page.get_by_role("button", name="Pay $29.00").bounding_box()
        assert box is not None and box["height"] >= 40, "a thumb must hit it"

    browse(story)
