"""A balance that went below zero: invoiced at the period's end, proved from the ledger and the events behind it."""

import psycopg
import pytest

from tests.conftest import MakeOrganization, Organization
from tests.scenarios.proving import verified
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    invoices_of,
    own_id,
    promise,
    set_clock,
    subscribe,
    track,
)

OPENED = "2025-01-15T10:00:00Z"
CLOSED = "2025-02-15T00:00:00Z"


@pytest.fixture
def shop(make_organization: MakeOrganization) -> Organization:
    """10.00 a month, a call takes 0.01."""
    opened = make_organization(clock=OPENED)
    add_feature(opened, "calls")
    plan = add_plan(opened, "paid", price=1000, model="balance")
    promise(opened, plan, "calls", overage={"unitPrice": 100})
    subscribe(opened, "ada", "paid")
    return opened


def overdraw(shop: Organization) -> Json:
    """1,200 calls on a balance of 1,000; the invoice that asks for the other 200."""
    for number in range(12):
        done(track(shop, "ada", f"k{number}", feature="calls", value=100))
    upcoming = done(shop.http.get(f"{API}/subscriptions/active?customerId=ada"))
    owed = done(shop.http.get(f"{API}/subscriptions/{upcoming['id']}/upcoming-invoice"))
    set_clock(shop, CLOSED)
    invoice = invoices_of(shop, "ada")[-1]
    assert [(each["lineType"], each["amount"]) for each in invoice["lineItems"]] == [
        ("plan_base", 1000),
        ("balance_overage", 200),
    ]
    assert owed["total"] == invoice["total"] == 1200
    return invoice


def test_what_was_overdrawn_is_asked_for_and_the_balance_is_whole_again(shop: Organization) -> None:
    overdraw(shop)
    verified(shop, "ada")
    after = done(track(shop, "ada", "next", feature="calls"))
    assert after["consumption"]["remaining"] == 100_000 - 100


@pytest.mark.parametrize(
    ("tampering", "said"),
    [
        (
            "UPDATE events SET deducted = deducted - 1 WHERE customer_id = %s AND event_key = 'k3'",
            "its events took 9999",
        ),
        (
            "UPDATE ledger_entries SET amount = amount + 5 WHERE customer_id = %s AND cause = 'overdraft'",
            "20005",
        ),
        ("DELETE FROM ledger_entries WHERE customer_id = %s AND cause = 'grant'", "movements until then"),
        (
            "UPDATE invoice_lines SET amount = 100 WHERE line_type = 'balance_overage' AND invoice_id IN"
            " (SELECT id FROM invoices WHERE customer_id = %s)",
            "the amount",
        ),
    ],
)
def test_whoever_touches_the_books_is_found(
    shop: Organization, database_url: str, tampering: str, said: str
) -> None:
    invoice = overdraw(shop)
    customer = own_id("cus", done(shop.http.get(f"{API}/customers/ada"))["id"])
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(tampering.encode(), (customer,))
    report = done(shop.http.post(f"{API}/invoices/{invoice['id']}/verify"))
    assert report["status"] == "different"
    assert said in str(report)
