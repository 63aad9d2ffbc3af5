"""Wallets that everybody wants at once, in one process and in two, while servers are killed: the sums hold."""

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tests.audit import audit, let_time_pass, stored_keys
from tests.conftest import MakeOrganization, Organization, Server, serving
from tests.literals import D
from tests.scenarios.purses import (
    balance_shop,
    billed,
    cancel,
    credits_shop,
    ledger_of,
    pools,
    told_of,
    wallet_of,
)
from tests.shop import API, Json, done, set_clock

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


def test_whatever_touches_a_wallet_goes_round_in_no_circle(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """Usage, its voids and corrections, reservations, packs, adjustments and schedules, all at once on three wallets.

    Nobody is told that the database is away, which is how a deadlock shows, and afterwards the books balance.
    """
    shop = make_organization(clock=OPENED)
    names = ["ada", "bob", "eve"]
    credits_shop(shop, 2_000, *names)
    set_clock(shop, "2025-01-20T00:00:00Z")
    pack = done(shop.http.post(f"{API}/credit-packs", json={"name": "Ten", "credits": 10, "price": 100}))
    held = {
        each: done(shop.http.get(f"{API}/subscriptions/active?customerId={each}"))["id"] for each in names
    }

    def lookup(name: str, value: int) -> Json:
        return {"customerId": name, "featureCode": "lookup", "value": value}

    def touch(http: httpx.Client, dice: random.Random) -> httpx.Response:
        name, path = dice.choice(names), f"{API}/usage"
        mine = f"{API}/subscriptions/{held[name]}"
        match dice.randrange(10):
            case 0 | 1 | 2:
                return http.post(f"{path}/events", json=lookup(name, dice.randrange(5)))
            case 3:
                batch = [lookup(dice.choice(names), dice.randrange(5)) for _ in range(5)]
                return http.post(f"{path}/events/batch", json={"events": batch})
            case 4:
                event = done(http.post(f"{path}/events", json=lookup(name, 3)))
                return http.request("DELETE", f"{path}/events/{event['id']}", json={"reason": "test"})
            case 5:
                hour = dice.randrange(3)
                span = {"start": f"2025-01-16T0{hour}:00:00Z", "end": f"2025-01-16T0{hour + 1}:00:00Z"}
                new = {**lookup(name, dice.randrange(9)), "timestamp": span["start"]}
                body = {**lookup(name, 0), **span, "events": [new], "reason": "test"}
                del body["value"]
                return http.post(f"{path}/corrections", json=body)
            case 6:
                body = {"customerId": name, "featureCode": "lookup", "quantity": dice.randrange(1, 20)}
                kept = done(http.post(f"{path}/reservations", json=body))
                end = dice.choice(("settle", "release"))
                answer = {"value": dice.randrange(9)} if end == "settle" else {}
                return http.post(f"{path}/reservations/{kept['id']}/{end}", json=answer)
            case 7:
                return http.post(f"{mine}/credits", json={"creditPackId": pack["id"]})
            case 8:
                return http.post(f"{mine}/balance/adjust", json={"amount": dice.choice((-3, 7))})
        return http.post(f"{mine}/{dice.choice(('cancel', 'uncancel'))}", json={})

    def go(number: int) -> list[str]:
        dice = random.Random(number)
        told = []
        with httpx.Client(base_url=shop.base_url, headers={"x-api-key": shop.api_key}, timeout=60) as http:
            for _ in range(40):
                answer = touch(http, dice)
                told.append(f"{answer.status_code} {'' if answer.is_success else answer.json()['code']}")
        return told

    with ThreadPoolExecutor(8) as pool:
        told = Counter(each for one in pool.map(go, range(8)) for each in one)
    refusals = {
        "already_scheduled",
        "not_scheduled_for_cancellation",
        "duplicate",  # somebody else's correction took it back first
        "reservation_exceeded",
    }
    assert {each.split()[0] for each in told if each.endswith(" ")} <= {"200", "201"}, told
    assert {each.split()[1] for each in told if not each.endswith(" ")} <= refusals, told
    for name in names:
        shop.http.post(f"{API}/subscriptions/{held[name]}/uncancel", json={})
    set_clock(shop, "2025-02-15T00:00:00Z")
    stand = [wallet_of(database_url, shop, name) for name in names]
    assert [each["plan"] + each["held"] for each in stand] == [2_000] * 3, "what is set aside stays so"
    audit(database_url, shop)


# Fifty clients, one wallet ---------------------------------------------------------------------------------

CREDITS, CLIENTS, OWN, OTHERS = 1_000, 50, 26, 14
KEYS = CLIENTS * OWN  # more than there are credits for
STRIKES = (("server", 150), ("worker", 450), ("server", 750))
ANSWERS_WITHIN_S = 30


@dataclass
class Tally:
    """What the clients were told, and how often they had to ask again."""

    accepted: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    troubles: int = 0


def send_until_answered(
    http: httpx.Client, keys: list[str], header: str | None, tally: Tally, limit_s: float = ANSWERS_WITHIN_S
) -> None:
    """One call, again and again with the same header, until every event of it is told its fate."""
    events = [{"customerId": "ada", "featureCode": "lookup", "eventId": each} for each in keys]
    headers = {} if header is None else {"Idempotency-Key": header}
    limit = time.monotonic() + limit_s
    while True:
        assert time.monotonic() < limit, f"no answer to {header}"
        with suppress(httpx.TransportError):
            answer = http.post(f"{API}/usage/events/batch", json={"events": events}, headers=headers)
            if answer.status_code != 503:
                assert answer.status_code == 200, answer.text
                body = answer.json()
                if "unavailable" not in {each["code"] for each in body["failed"]}:
                    break
        tally.troubles += 1
        time.sleep(0.02)
    tally.accepted += [each["eventId"] for each in body["successful"]]
    assert {each["consumption"]["deducted"] for each in body["successful"]} <= {1}
    for each in body["failed"]:
        told = {"duplicate": tally.duplicate, "insufficient_credits": tally.refused}[each["code"]]
        told.append(keys[each["index"]])


def strike(server: Server, what: str) -> None:
    assert server.process is not None
    if what == "server":
        server.stop(signal.SIGKILL)
        server.start()
    else:
        os.kill(server.serving()[0], signal.SIGKILL)


def test_fifty_clients_and_a_wallet_of_a_thousand_credits(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """Exactly a thousand events are accepted, none twice, whoever repeats a key and whoever is killed meanwhile."""
    shop = make_organization(clock=OPENED)
    credits_shop(shop, CREDITS)
    tally, counting, seed = Tally(), threading.Lock(), time.time_ns() % 1_000_000
    print(f"{seed=}")

    def hammer(number: int, url: str) -> Tally:
        dice, mine = random.Random(f"{seed} {number}"), Tally()
        keys = [f"k{each}" for each in range(number * OWN, (number + 1) * OWN)]
        keys += [f"k{dice.randrange(KEYS)}" for _ in range(OTHERS)]
        dice.shuffle(keys)
        calls = 0
        with httpx.Client(base_url=url, headers={"x-api-key": shop.api_key}, timeout=10) as http:
            while keys:
                size = dice.choice((1, 1, 2, 5))
                batch, keys = keys[:size], keys[size:]
                before = len(mine.accepted)
                send_until_answered(http, batch, f"{number}-{calls}", mine)
                calls += 1
                with counting:
                    tally.accepted += mine.accepted[before:]
        return mine

    with serving(database_url, workers=2) as server, ThreadPoolExecutor(CLIENTS) as pool:
        hammers = [pool.submit(hammer, number, server.base_url) for number in range(CLIENTS)]
        for what, accepted in STRIKES:
            while len(tally.accepted) < accepted and not all(each.done() for each in hammers):
                time.sleep(0.005)
            strike(server, what)
        told = [each.result() for each in hammers]
        accepted_keys = [key for each in told for key in each.accepted]
        assert sum(each.troubles for each in told) > 0, "somebody felt the kills"
        assert len(accepted_keys) == len(set(accepted_keys)) == CREDITS
        assert stored_keys(database_url, shop) == dict.fromkeys(accepted_keys, 1)
        assert pools(database_url, shop) == (0, 0)
        used = [amount for cause, _, amount in ledger_of(database_url, shop) if cause == "usage"]
        assert sum(used) == CREDITS
        # Whoever was refused was refused because nothing was left, and what is stored is told so for ever.
        again = Tally()
        with httpx.Client(base_url=server.base_url, headers={"x-api-key": shop.api_key}, timeout=30) as http:
            for start in range(0, KEYS, 100):
                send_until_answered(http, [f"k{each}" for each in range(start, start + 100)], None, again)
        assert again.accepted == []
        assert sorted(again.duplicate) == sorted(accepted_keys)
        assert set(again.refused) == {f"k{each}" for each in range(KEYS)} - set(accepted_keys)
    kinds = [kind for kind, _ in told_of(database_url, shop)]
    assert kinds == ["credits.granted", "credits.low", "credits.depleted"]
    assert audit(database_url, shop) == CREDITS


def test_two_processes_turn_a_wallet_once(make_organization: MakeOrganization, database_url: str) -> None:
    """Both see the first event of a new period at once: one reset, and what was left expires once."""
    shop = make_organization(clock=OPENED)
    customers = [f"customer_{place}" for place in range(6)]
    credits_shop(shop, 10, *customers)
    let_time_pass(database_url, shop, "2025-02-20T00:00:00Z")

    def send(url: str, customer: str) -> int:
        event = {"customerId": customer, "featureCode": "lookup", "value": 3}
        return httpx.post(
            f"{url}{API}/usage/events", json=event, headers={"x-api-key": shop.api_key}, timeout=30
        ).status_code

    with serving(database_url, workers=2) as server, ThreadPoolExecutor(12) as pool:
        sent = [
            pool.submit(send, url, each) for each in customers for url in (server.base_url, shop.base_url) * 3
        ]
        assert sorted(each.result() for each in sent) == [201] * 18 + [402] * 18
    for each in customers:
        assert pools(database_url, shop, each) == (1, 0)
        found = ledger_of(database_url, shop, each)
        assert [kind for kind in found if kind[0] != "usage"] == [
            ("grant", 0, D(10)),
            ("expiry", 0, D(10)),
            ("reset", 1, D(10)),
        ]
        assert sum(amount for cause, _, amount in found if cause == "usage") == 9
    audit(database_url, shop)
