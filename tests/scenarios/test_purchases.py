"""What comes into wallets from outside: packs, top-ups and adjustments; each charged and credited once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tallystick.core import ids
from tallystick.store.db import Database
from tests.conftest import MakeOrganization, Organization, beside_the_server
from tests.scenarios.prepaid import (
    add_pack,
    add_prepaid_plan,
    adjust,
    books_balance,
    buy,
    ledger,
    open_prepaid,
    told,
    top_up,
    wallet,
)
from tests.scenarios.test_organizations import tallystick
from tests.scenarios.wire import refusal
from tests.shop import (
    API,
    DECLINED_LATER,
    Json,
    add_customer,
    add_feature,
    add_plan,
    done,
    every,
    invoices_of,
    own_id,
    pay,
    promise,
    refused,
    set_clock,
    subscribe,
    track,
)

OPENED = "2026-03-10T09:00:00Z"


@pytest.fixture
def shop(open_at: Callable[[str], Organization]) -> Organization:
    made = open_at(OPENED)
    add_feature(made)
    open_prepaid(made)
    return made


def test_a_pack_is_charged_invoiced_and_credited(shop: Organization, database_url: str) -> None:
    held, pack = subscribe(shop, "ada", "credits"), add_pack(shop)
    bought = done(buy(shop, held, pack))
    assert bought == {"credits": 50, "object": "credit_grant", "livemode": False}
    assert wallet(database_url, held) == (100, 50)
    _, invoice = invoices_of(shop, "ada")
    assert (invoice["invoiceType"], invoice["status"], invoice["total"]) == ("credit_purchase", "paid", 500)
    (line,) = invoice["lineItems"]
    assert (line["lineType"], line["description"], line["quantity"], line["unitAmount"]) == (
        "one_time",
        "Fifty",
        1,
        500,
    )
    verified = done(shop.http.post(f"{API}/invoices/{invoice['id']}/verify"))
    assert (verified["status"], verified["differences"]) == ("verified", [])
    explained = done(shop.http.get(f"{API}/invoices/{invoice['id']}/lines/{line['id']}/explain"))
    assert explained["text"] == "Fifty was bought once, and 5.00 USD was paid for it at once."
    charged, _ = done(shop.http.get(f"{API}/transactions"))["data"]
    assert (charged["invoiceId"], charged["grossAmount"], charged["status"]) == (
        invoice["id"],
        500,
        "succeeded",
    )
    assert told(shop, "credits.purchased") == [
        {
            "subscriptionId": held["id"],
            "customerId": "ada",
            "invoiceId": invoice["id"],
            "invoiceNumber": invoice["invoiceNumber"],
            "creditPackName": "Fifty",
            "credits": 50,
        }
    ]
    entry = ledger(shop, held)[-1]
    assert (entry["from"], entry["to"], entry["amount"]) == ("sold", "purchased_credits", 50)
    assert (entry["cause"], entry["invoiceId"]) == ("purchase", invoice["id"])
    books_balance(database_url, shop)


def test_a_top_up_is_charged_in_minor_units_and_kept_in_rate_units(
    shop: Organization, database_url: str
) -> None:
    held = subscribe(shop, "ada", "balance")
    assert done(top_up(shop, held, 1234)) == {"amount": 1234, "object": "balance_topup", "livemode": False}
    assert wallet(database_url, held) == (100_000 + 123_400, 0)
    _, invoice = invoices_of(shop, "ada")
    assert (invoice["invoiceType"], invoice["status"], invoice["total"]) == ("balance_topup", "paid", 1234)
    (news,) = told(shop, "balance.topped_up")
    assert (news["amount"], news["currency"], news["invoiceId"]) == (123_400, "USD", invoice["id"])
    entry = ledger(shop, held)[-1]
    assert (entry["from"], entry["to"], entry["amountDecimal"]) == ("sold", "balance", "123400")
    assert (entry["cause"], entry["invoiceId"]) == ("topup", invoice["id"])
    done(track(shop, value=2000))  # 20.00 of 22.34
    refused(track(shop, value=235), 402, "insufficient_balance")
    done(track(shop, value=234))
    assert wallet(database_url, held) == (0, 0)
    books_balance(database_url, shop)


def test_several_in_one_period_are_several_invoices(shop: Organization, database_url: str) -> None:
    held, pack = subscribe(shop, "ada", "credits"), add_pack(shop)
    for _ in range(3):
        done(buy(shop, held, pack))
    assert [each["invoiceType"] for each in invoices_of(shop, "ada")] == ["recurring"] + [
        "credit_purchase"
    ] * 3
    assert wallet(database_url, held) == (100, 150)
    books_balance(database_url, shop)


def test_plan_credits_are_burnt_before_purchased_ones(shop: Organization, database_url: str) -> None:
    held = subscribe(shop, "ada", "credits")
    done(buy(shop, held, add_pack(shop)))
    done(track(shop, value=30))
    assert wallet(database_url, held) == (70, 50)
    done(track(shop, value=90))  # over the border of the two
    assert wallet(database_url, held) == (0, 30)
    assert [(each["from"], each["amount"]) for each in ledger(shop, held) if each["cause"] == "usage"][
        -2:
    ] == [
        ("plan_credits", 70),
        ("purchased_credits", 20),
    ]
    refused(track(shop, value=31), 402, "insufficient_credits")
    done(track(shop, value=30))
    assert wallet(database_url, held) == (0, 0)
    books_balance(database_url, shop)


def test_purchased_credits_survive_a_reset_and_plan_credits_do_not(
    shop: Organization, database_url: str
) -> None:
    held = subscribe(shop, "ada", "credits")
    done(buy(shop, held, add_pack(shop)))
    done(track(shop, value=40))
    set_clock(shop, "2026-04-10T00:00:00Z")
    assert wallet(database_url, held) == (100, 50)
    assert [each["expiredCredits"] for each in told(shop, "credits.expired")] == [60]
    done(track(shop, value=120))
    assert wallet(database_url, held) == (0, 30)
    set_clock(shop, "2026-06-10T00:00:00Z")
    assert wallet(database_url, held) == (100, 30)
    books_balance(database_url, shop)


def test_purchased_credits_come_along_to_the_next_subscription(shop: Organization, database_url: str) -> None:
    old = subscribe(shop, "ada", "credits")
    done(buy(shop, old, add_pack(shop)))
    done(shop.http.post(f"{API}/subscriptions/{old['id']}/cancel", json={"immediate": True}))
    assert wallet(database_url, old) == (0, 50)
    add_prepaid_plan(shop, "free", "credits", {"includedCredits": 5}, price=None)
    body = {"customerId": "ada", "planCode": "free"}
    new = done(shop.http.post(f"{API}/subscriptions", json=body))
    assert (wallet(database_url, old), wallet(database_url, new)) == ((0, 0), (5, 50))
    done(
        buy(shop, new, add_pack(shop, "Another", credits=7, price=100))
    )  # on a free plan, with the saved card
    assert wallet(database_url, new) == (5, 57)
    books_balance(database_url, shop)


def test_a_top_up_is_lost_at_the_reset(shop: Organization, database_url: str) -> None:
    held = subscribe(shop, "ada", "balance")
    done(top_up(shop, held, 5000))
    done(track(shop, value=100))
    assert wallet(database_url, held) == (100_000 + 500_000 - 10_000, 0)
    set_clock(shop, "2026-04-10T00:00:00Z")
    assert wallet(database_url, held) == (100_000, 0)
    causes = [(each["cause"], each["amount"], each["periodIndex"]) for each in ledger(shop, held)]
    assert causes == [
        ("grant", 100_000, 0),
        ("topup", 500_000, 0),
        ("usage", 10_000, 0),
        ("expiry", 590_000, 0),
        ("reset", 100_000, 1),
    ]
    books_balance(database_url, shop)


def test_what_is_bought_in_the_hours_of_grace_belongs_to_the_new_period(
    shop: Organization, database_url: str
) -> None:
    """The wallet still stands in the period that is over: it is turned first, or the reset would take the top-up."""
    assert tallystick(database_url, "update", shop.id, "--grace", "7200").returncode == 0
    held = subscribe(shop, "ada", "balance")
    given = subscribe(shop, "bob", "balance")
    set_clock(shop, "2026-04-10T01:00:00Z")
    done(top_up(shop, held, 5000))
    done(adjust(shop, given, 700))
    assert wallet(database_url, held) == (600_000, 0)
    assert wallet(database_url, given) == (100_700, 0)
    causes = [(each["cause"], each["periodIndex"], each["invoiceId"] is None) for each in ledger(shop, held)]
    assert causes == [("grant", 0, True), ("expiry", 0, True), ("reset", 1, True), ("topup", 1, False)]
    set_clock(shop, "2026-04-10T03:00:00Z")
    assert wallet(database_url, held) == (600_000, 0)
    assert wallet(database_url, given) == (100_700, 0)
    books_balance(database_url, shop)


def test_a_declined_card_moves_nothing(shop: Organization, database_url: str) -> None:
    held, pack = subscribe(shop, "ada", "credits", card=DECLINED_LATER), add_pack(shop)
    for _ in range(2):  # the same request is the same purchase, and is not charged anew
        error = refusal(buy(shop, held, pack, "once"), 402, "payment_failed")
        assert error["details"] == {
            "failureCode": "card_declined",
            "failureMessage": "Your card was declined.",
        }
    assert wallet(database_url, held) == (100, 0)
    assert [each["invoiceType"] for each in invoices_of(shop, "ada")] == ["recurring"]
    assert told(shop, "credits.purchased") == []
    attempts = done(shop.http.get(f"{API}/transactions", params={"status": "failed"}))["data"]
    assert [(each["grossAmount"], each["invoiceId"], each["failureCode"]) for each in attempts] == [
        (500, None, "card_declined")
    ]
    refusal(buy(shop, held, pack, "twice"), 402, "payment_failed")
    books_balance(database_url, shop)


def test_what_is_for_another_kind_of_plan_is_refused_and_says_why(shop: Organization) -> None:
    add_plan(shop, "metered")
    pack = add_pack(shop)
    credits, balance, metered = (
        subscribe(shop, name, plan)
        for name, plan in (("ada", "credits"), ("bob", "balance"), ("eve", "metered"))
    )
    for held, kind in ((balance, "balance"), (metered, "metered")):
        error = refusal(buy(shop, held, pack), 400, "validation_error", "creditPackId")
        assert f"plan is {kind}" in error["message"]
    for held, kind in ((credits, "credits"), (metered, "metered")):
        error = refusal(top_up(shop, held, 100), 400, "validation_error", "amount")
        assert f"plan is {kind}" in error["message"]
    assert "metered" in refusal(adjust(shop, metered, 5), 400, "validation_error", "type")["message"]
    refusal(adjust(shop, credits, 5, type="balance"), 400, "validation_error", "type")
    refusal(adjust(shop, balance, 5, type="credits"), 400, "validation_error", "type")


def test_only_who_owes_nothing_and_has_a_card_buys(shop: Organization, database_url: str) -> None:
    pack = add_pack(shop)
    add_customer(shop, "ada")
    body = {"customerId": "ada", "planCode": "credits"}
    waiting = done(shop.http.post(f"{API}/subscriptions", json=body))
    refusal(buy(shop, waiting, pack), 409, "subscription_not_active")
    refusal(adjust(shop, waiting, 5), 409, "subscription_not_active")
    add_prepaid_plan(shop, "free", "credits", {"includedCredits": 5}, price=None)
    free = subscribe(shop, "bob", "free")
    refusal(buy(shop, free, pack, "the key is not used up"), 422, "no_payment_method")
    gift = add_pack(shop, "Gift", price=0)
    assert done(buy(shop, free, gift, "the key is not used up"))["credits"] == 50
    assert wallet(database_url, free) == (5, 50)
    (invoice,) = invoices_of(shop, "bob")
    assert (invoice["total"], invoice["status"]) == (0, "paid")
    done(shop.http.post(f"{API}/subscriptions/{free['id']}/cancel", json={}))
    refusal(buy(shop, free, gift), 409, "subscription_not_active")
    refusal(adjust(shop, free, 5), 409, "subscription_not_active")
    leaving = subscribe(shop, "eve", "credits")
    done(shop.http.post(f"{API}/subscriptions/{leaving['id']}/cancel", json={}))
    done(buy(shop, leaving, pack))  # until the end of what is paid
    assert tallystick(database_url, "update", shop.id, "--grace", "7200").returncode == 0
    set_clock(shop, "2026-04-10T00:00:00Z")
    refusal(buy(shop, leaving, pack), 409, "subscription_not_active")
    books_balance(database_url, shop)


@pytest.mark.parametrize("named", ["cpk_1", "", "cpk_" + "0" * 26])
def test_a_pack_there_is_not_is_not_found(shop: Organization, named: str) -> None:
    held = subscribe(shop, "ada", "credits")
    refusal(buy(shop, held, {"id": named}), 404, "credit_pack_not_found")


def test_what_is_not_on_sale_is_not_sold(shop: Organization, make_organization: MakeOrganization) -> None:
    held, pack, gone = subscribe(shop, "ada", "credits"), add_pack(shop), add_pack(shop, "Gone")
    done(shop.http.patch(f"{API}/credit-packs/{pack['id']}", json={"isActive": False}))
    done(shop.http.delete(f"{API}/credit-packs/{gone['id']}"))
    anothers = add_pack(make_organization())
    for each in (pack, gone, anothers):
        refusal(buy(shop, held, each), 404, "credit_pack_not_found")
    done(shop.http.patch(f"{API}/credit-packs/{pack['id']}", json={"isActive": True}))
    done(buy(shop, held, pack))


# By hand --------------------------------------------------------------------------------------------------


def test_credits_are_adjusted(shop: Organization, database_url: str) -> None:
    held = subscribe(shop, "ada", "credits")
    assert done(adjust(shop, held, 20, reason="sorry")) == {
        "amount": 20,
        "newBalance": 120,
        "reason": "sorry",
        "object": "balance_transaction",
        "livemode": False,
    }
    assert wallet(database_url, held) == (100, 20)  # what is given stays
    assert done(adjust(shop, held, -110, type="credits"))["newBalance"] == 10
    assert wallet(database_url, held) == (0, 10)  # and is taken as usage would be
    error = refusal(adjust(shop, held, -11), 402, "insufficient_credits")
    assert (error["param"], error["details"]) == ("amount", {"required": 11, "remaining": 10})
    assert done(adjust(shop, held, -10))["newBalance"] == 0
    last = ledger(shop, held)[-1]
    assert (last["from"], last["to"], last["cause"]) == ("purchased_credits", "adjusted", "adjustment")
    assert [each["reason"] for each in ledger(shop, held) if each["reason"]] == ["sorry"]
    assert len(told(shop, "credits.low")) == len(told(shop, "credits.depleted")) == 1
    books_balance(database_url, shop)


def test_a_balance_is_adjusted(shop: Organization, database_url: str) -> None:
    held = subscribe(shop, "ada", "balance")
    assert done(adjust(shop, held, 5))["newBalance"] == 100_005
    assert done(adjust(shop, held, -95_005, type="balance"))["newBalance"] == 5_000
    assert told(shop, "balance.low") == []  # what was adjusted is the new measure
    done(track(shop, value=45))
    (low,) = told(shop, "balance.low")
    assert (low["currentBalance"], low["thresholdBalance"]) == (500, 500)
    refusal(adjust(shop, held, -501), 402, "insufficient_balance")
    assert done(adjust(shop, held, -500))["newBalance"] == 0
    assert [each["currentBalance"] for each in told(shop, "balance.depleted")] == [0]
    refusal(adjust(shop, held, 0), 400, "validation_error", "amount")
    books_balance(database_url, shop)


# Once -----------------------------------------------------------------------------------------------------


def charges(shop: Organization) -> list[Json]:
    """What was charged for purchases, newest first."""
    listed = done(shop.http.get(f"{API}/transactions", params={"limit": "100"}))["data"]
    return [each for each in listed if each["paymentContext"]["reason"] == "one_time_payment"]


def forget_answers(database_url: str, shop: Organization) -> None:
    """As if a day had passed since."""

    async def act(database: Database) -> None:
        async with database.transaction() as conn:
            await conn.execute(
                "DELETE FROM idempotency_keys WHERE organization_id = %s",
                (own_id(ids.ORGANIZATION, shop.id),),
            )

    beside_the_server(database_url, act)


def test_the_same_key_is_the_same_purchase_a_day_later_too(shop: Organization, database_url: str) -> None:
    held, pack = subscribe(shop, "ada", "credits"), add_pack(shop)
    first = buy(shop, held, pack, "k")
    again = buy(shop, held, pack, "k")
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    forget_answers(database_url, shop)
    done(shop.http.delete(f"{API}/credit-packs/{pack['id']}"))
    done(shop.http.post(f"{API}/subscriptions/{held['id']}/cancel", json={"immediate": True}))
    assert done(buy(shop, held, pack, "k")) == first.json()
    assert len(charges(shop)) == 1
    assert wallet(database_url, held) == (0, 50)
    books_balance(database_url, shop)


def test_a_key_of_another_request_is_refused(shop: Organization, database_url: str) -> None:
    held, other = subscribe(shop, "ada", "balance"), subscribe(shop, "bob", "balance")
    done(top_up(shop, held, 100, "k"))
    for later in (False, True):
        if later:
            forget_answers(database_url, shop)
        refusal(top_up(shop, held, 200, "k"), 409, "idempotency_key_mismatch")
        refusal(top_up(shop, other, 100, "k"), 409, "idempotency_key_mismatch")
        refusal(buy(shop, held, add_pack(shop, f"P{later}"), "k"), 409, "idempotency_key_mismatch")
    done(top_up(shop, held, 100, "k"))
    body = {"name": "X", "credits": 1, "price": 1}
    answer = shop.http.post(f"{API}/credit-packs", json=body, headers={"Idempotency-Key": "k"})
    refusal(answer, 409, "idempotency_key_mismatch")
    assert len(charges(shop)) == 1
    books_balance(database_url, shop)


def test_one_key_at_once_charges_once_and_several_keys_charge_each(
    shop: Organization, database_url: str
) -> None:
    held, pack = subscribe(shop, "ada", "credits"), add_pack(shop)
    keys = ["same"] * 8 + [f"k{number}" for number in range(4)]

    def send(key: str) -> int:
        while (answer := buy(shop, held, pack, key)).status_code == 409:
            refused(answer, 409, "idempotency_in_progress")
        return int(done(answer)["credits"])

    with ThreadPoolExecutor(len(keys)) as pool:
        assert list(pool.map(send, keys)) == [50] * len(keys)
    assert len(charges(shop)) == 5
    assert wallet(database_url, held) == (100, 250)
    books_balance(database_url, shop)


def test_buying_and_using_at_once_loses_nothing(shop: Organization, database_url: str) -> None:
    held = subscribe(shop, "ada", "balance")

    def act(number: int) -> None:
        match number % 3:
            case 0:
                done(top_up(shop, held, 100))
            case 1:
                done(track(shop, value=1))
            case _:
                done(adjust(shop, held, 7))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(act, range(30)))
    assert wallet(database_url, held) == (100_000 + 10 * (10_000 - 100 + 7), 0)
    books_balance(database_url, shop)


# Reading --------------------------------------------------------------------------------------------------


def test_the_ledger_of_a_customer_is_that_of_all_their_subscriptions(shop: Organization) -> None:
    old = subscribe(shop, "ada", "credits")
    done(buy(shop, old, add_pack(shop)))
    done(shop.http.post(f"{API}/subscriptions/{old['id']}/cancel", json={"immediate": True}))
    body = {"customerId": "ada", "planCode": "balance"}
    new = done(shop.http.post(f"{API}/subscriptions", json=body))
    pay(new["checkoutUrl"])
    done(track(shop, value=1.5))
    subscribe(shop, "bob", "credits")
    whole = list(every(shop, f"{API}/customers/ada/ledger"))
    assert [each["cause"] for each in whole] == ["usage", "grant", "expiry", "purchase", "grant"]
    assert {each["customerId"] for each in whole} == {"ada"}
    assert [each["subscriptionId"] for each in whole] == [new["id"]] * 2 + [old["id"]] * 3
    assert whole[0]["batch"] is not None
    assert (whole[0]["amount"], whole[0]["amountDecimal"]) == (150, "150")
    page = done(shop.http.get(f"{API}/customers/ada/ledger", params={"limit": "2"}))
    assert (page["data"], page["hasMore"]) == (whole[:2], True)
    rest = {"limit": "3", "cursor": page["nextCursor"]}
    assert done(shop.http.get(f"{API}/customers/ada/ledger", params=rest)) == {
        "object": "list",
        "data": whole[2:],
        "hasMore": False,
    }


def test_amounts_of_the_ledger_are_exact_beside_their_integers(shop: Organization) -> None:
    add_feature(shop, "fractions")
    plan = done(shop.http.get(f"{API}/plans/balance"))
    promise(shop, plan, "fractions", overage={"unitPriceDecimal": "0.000123"})
    held = subscribe(shop, "ada", "balance")
    done(track(shop, feature="fractions", value=3))
    last = ledger(shop, held)[-1]
    assert (last["amount"], last["amountDecimal"]) == (3, "3.69")


def test_what_happened_is_listed_by_type_and_by_customer(shop: Organization) -> None:
    subscribe(shop, "ada", "credits")
    held = subscribe(shop, "bob", "balance")
    done(top_up(shop, held, 100))
    listed = list(every(shop, f"{API}/domain-events"))
    assert [(each["type"], each["customerId"]) for each in listed] == [
        ("balance.topped_up", "bob"),
        ("credits.granted", "ada"),
    ]
    assert list(every(shop, f"{API}/domain-events?customerId=ada")) == listed[1:]
    assert list(every(shop, f"{API}/domain-events?type=balance.topped_up")) == listed[:1]
    assert list(every(shop, f"{API}/domain-events?type=nothing")) == []
    page = done(shop.http.get(f"{API}/domain-events", params={"limit": "1"}))
    more = {"cursor": page["nextCursor"], "limit": "1"}
    assert done(shop.http.get(f"{API}/domain-events", params=more))["data"] == listed[1:]
    answer = shop.http.get(f"{API}/domain-events", params={"customerId": "nobody"})
    refusal(answer, 404, "customer_not_found")


# Packs ----------------------------------------------------------------------------------------------------


def test_a_pack_is_made_changed_and_taken_off_sale(shop: Organization) -> None:
    pack = add_pack(shop)
    assert (pack["object"], pack["description"], pack["isActive"]) == ("credit_pack", None, True)
    item = {
        name: pack[name] for name in ("id", "name", "description", "credits", "price", "object", "livemode")
    }
    assert done(shop.http.get(f"{API}/credit-packs")) == {
        "object": "list",
        "data": [{**item, "currency": "USD"}],
        "hasMore": False,
    }
    body = {"name": "Sixty", "credits": 60, "price": 0, "description": "ten more", "isActive": False}
    changed = done(shop.http.patch(f"{API}/credit-packs/{pack['id']}", json=body))
    assert {name: changed[name] for name in body} == body
    assert done(shop.http.get(f"{API}/credit-packs"))["data"] == []
    again = done(shop.http.patch(f"{API}/credit-packs/{pack['id']}", json={"description": None}))
    assert (again["description"], again["credits"]) == (None, 60)
    gone = done(shop.http.delete(f"{API}/credit-packs/{pack['id']}"))
    assert gone == {"id": pack["id"], "deleted": True, "object": "credit_pack", "livemode": False}
    for answer in (
        shop.http.patch(f"{API}/credit-packs/{pack['id']}", json={"credits": 1}),
        shop.http.delete(f"{API}/credit-packs/{pack['id']}"),
    ):
        refusal(answer, 404, "credit_pack_not_found")


def test_a_name_is_used_once_until_its_pack_is_gone(shop: Organization) -> None:
    pack, other = add_pack(shop), add_pack(shop, "Other")
    body = {"name": "Fifty", "credits": 1, "price": 1}
    assert refusal(shop.http.post(f"{API}/credit-packs", json=body), 409, "duplicate")["param"] == "name"
    answer = shop.http.patch(f"{API}/credit-packs/{other['id']}", json={"name": "Fifty"})
    assert refusal(answer, 409, "duplicate")["param"] == "name"
    done(shop.http.patch(f"{API}/credit-packs/{pack['id']}", json={"name": "Fifty"}))  # its own
    done(shop.http.delete(f"{API}/credit-packs/{pack['id']}"))
    done(shop.http.post(f"{API}/credit-packs", json=body))


def test_older_clients_sell_in_their_own_words(shop: Organization) -> None:
    held = subscribe(shop, "ada", "credits")
    older = {"commet-version": "2026-07-11"}
    body = {"name": "Fifty", "credits": 50, "price": 500}
    made = done(shop.http.post(f"{API}/credit-packs/manage", json=body, headers=older))
    assert made["success"] is True
    pack = made["data"]
    changed = shop.http.put(f"{API}/credit-packs/{pack['id']}", json={"price": 400}, headers=older)
    assert done(changed)["data"]["price"] == 400
    listed = done(shop.http.get("/api/credit-packs"))
    assert (listed["success"], [each["id"] for each in listed["data"]]) == (True, [pack["id"]])
    bought = shop.http.post(f"/api/subscriptions/{held['id']}/credits", json={"creditPackId": pack["id"]})
    assert done(bought)["data"]["credits"] == 50


def test_a_key_may_sell_packs_and_nothing_else(shop: Organization) -> None:
    asked = {"name": "shop", "permissions": {"credit_pack": ["read"]}}
    key = done(shop.http.post(f"{API}/api-keys", json=asked))["apiKey"]
    with httpx.Client(base_url=shop.base_url, headers={"x-api-key": key}) as limited:
        done(limited.get(f"{API}/credit-packs"))
        body = {"name": "Fifty", "credits": 50, "price": 500}
        refusal(limited.post(f"{API}/credit-packs", json=body), 403, "forbidden")
        refusal(limited.get(f"{API}/domain-events"), 403, "forbidden")
