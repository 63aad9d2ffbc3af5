"""`tallystick reconcile`: clean where nothing is wrong; and each rule, broken behind the server's back, is named."""

import asyncio
import json
import logging
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from psycopg import AsyncConnection

from tallystick.app import wall
from tallystick.flows.reconcile import ask
from tallystick.flows.rules import RULES, Found
from tallystick.store import migrate
from tallystick.store.db import PROOF_CONNECTION
from tallystick.worker.nightly import Nightly
from tests import story
from tests.audit import audit, broken, organization_id
from tests.conftest import PROGRAM, Organization, Server, open_one, serving
from tests.scenarios.prepaid import add_pack, buy, open_prepaid, top_up
from tests.shop import (
    API,
    Json,
    add_feature,
    add_plan,
    done,
    hard_limit,
    pay,
    promise,
    refused,
    set_clock,
    subscribe,
    track,
)

NAMES: Final = [each.name for each in RULES]


@pytest.fixture(scope="module")
def alone(database_url: str) -> str:
    """A database of its own: what is found in everybody's books is found in ours."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS reconcile_here")
        conn.execute("CREATE DATABASE reconcile_here")
    made: str = psycopg.conninfo.make_conninfo(database_url, dbname="reconcile_here")
    migrate.migrate(made)
    return made


@pytest.fixture(scope="module")
def beside(alone: str) -> Iterator[Server]:
    with serving(alone) as running:
        yield running


@pytest.fixture(scope="module")
def shop(alone: str, beside: Server) -> Iterator[Organization]:
    made = open_one(alone, beside.base_url, clock=story.OPENED)
    story.live(made)
    live_on(made)
    buy_ahead(made)
    yield made
    made.http.close()


def live_on(shop: Organization) -> None:
    """Hard limits of every kind, customers who leave, late usage in a cut hour, corrections and their revert."""
    for code, meter in {
        "jobs": {},
        "people": {"aggregation": "unique", "aggregationProperty": "user", "eventCode": "jobs"},
        "top": {"aggregation": "max", "eventCode": "jobs"},
        "now": {"aggregation": "latest", "eventCode": "jobs"},
    }.items():
        add_feature(shop, code, **meter)
    limits = {"jobs": hard_limit(50), "people": hard_limit(3), "top": hard_limit(20), "now": hard_limit(20)}
    add_plan(shop, "small", price=900, promises=limits)
    add_plan(shop, "gift", price=None, promises={"jobs": hard_limit(50)})
    for customer, plan in (("cai", "small"), ("dee", "small"), ("eve", "gift")):
        subscribe(shop, customer, plan)
    set_clock(shop, "2025-03-25T00:00:00Z")
    for customer in ("cai", "dee", "eve"):
        for number in range(3):
            report(shop, customer, number)
    refused(track(shop, "cai", feature="jobs", value=21, properties=user(1)), 402, "included_limit_reached")
    story.take_back(shop, "cai", "jobs_2")
    report(shop, "cai", 3)
    told = {"customerId": "dee", "featureCode": "jobs", "value": 30, "reason": "a recount"}
    done(shop.http.put(f"{API}/usage", json=told))
    for customer, at_once in (("dee", True), ("eve", True), ("bob", False)):
        cancel(shop, customer, immediate=at_once)
    set_clock(shop, "2025-04-25T00:00:00Z")
    subscribe_again(shop, "dee")
    report(shop, "cai", 4, timestamp="2025-03-26T00:00:00Z")  # draws on the limit of the period before
    report(shop, "dee", 5)
    # 18:10 in Nepal's cut hour: the period ended at 18:15
    done(track(shop, "ada", "edge", feature="api_calls", value=40, timestamp="2025-03-14T18:10:00Z"))
    body = {
        "customerId": "ada",
        "featureCode": "tokens",
        "start": "2025-01-16T00:00:00Z",
        "end": "2025-01-18T00:00:00Z",
        "events": [{"timestamp": "2025-01-17T00:00:00Z", "value": 5}],
    }
    made = done(shop.http.post(f"{API}/usage/corrections", json=body))
    set_clock(shop, "2025-05-25T00:00:00Z")
    done(shop.http.post(f"{API}/usage/corrections/{made['id']}/revert", json={}))
    set_clock(shop, "2025-06-25T00:00:00Z")
    spend(shop)


def spend(shop: Organization) -> None:
    """Credits and a balance: used, overdrawn and invoiced, set aside, and tokens."""
    for code in ("runs", "chat"):
        add_feature(shop, code)
    credits = add_plan(shop, "runs_credits", model="credits", grants={"includedCredits": 100})
    promise(shop, credits, "runs", creditsPerUnit=2)
    balance = add_plan(shop, "runs_balance", price=1000, model="balance")
    promise(shop, balance, "runs", overage={"unitPrice": 100})
    promise(shop, balance, "chat", pricingMode="ai_model", margin=2000)
    subscribe(shop, "fay", "runs_credits")
    subscribe(shop, "gus", "runs_balance")
    for customer in ("fay", "gus"):
        done(track(shop, customer, "first", feature="runs", value=20))
    call = {"featureCode": "chat", "customerId": "gus", "eventId": "chat", "model": "gpt-4o"}
    done(shop.http.post(f"{API}/usage/events", json={**call, "inputTokens": 1000, "outputTokens": 500}))
    done(track(shop, "gus", "beyond", feature="runs", value=1000))
    set_clock(shop, "2025-07-25T00:00:00Z")
    held = {"customerId": "fay", "featureCode": "runs", "quantity": 10, "expiresIn": 86400}
    done(shop.http.post(f"{API}/usage/reservations", json=held))


def buy_ahead(shop: Organization) -> None:
    """Wallets of both kinds, with what was granted, bought, used and carried over."""
    open_prepaid(shop)
    held = {plan: subscribe(shop, f"{plan}_buyer", plan) for plan in ("credits", "balance")}
    done(buy(shop, held["credits"], add_pack(shop)))
    done(buy(shop, held["credits"], add_pack(shop, "Gift", price=0)))
    done(top_up(shop, held["balance"], 700))
    done(top_up(shop, held["balance"], 700))
    for plan in held:
        done(track(shop, f"{plan}_buyer", value=70))
    done(shop.http.post(f"{API}/subscriptions/{held['credits']['id']}/cancel", json={"immediate": True}))
    subscribe_again(shop, "credits_buyer", "credits")


def report(shop: Organization, customer: str, number: int, **more: Any) -> None:
    done(track(shop, customer, f"jobs_{number}", feature="jobs", value=5, properties=user(number), **more))


def user(number: int) -> Json:
    return {"user": f"u{number % 2}"}


def held(shop: Organization, customer: str) -> Json:
    listed = done(shop.http.get(f"{API}/subscriptions?customerId={customer}"))["data"]
    found: Json = next(each for each in listed if each["status"] == "active")
    return found


def cancel(shop: Organization, customer: str, *, immediate: bool) -> None:
    path = f"{API}/subscriptions/{held(shop, customer)['id']}/cancel"
    done(shop.http.post(path, json={"immediate": immediate}))


def subscribe_again(shop: Organization, customer: str, plan: str = "small") -> None:
    body = {"customerId": customer, "planCode": plan}
    pay(done(shop.http.post(f"{API}/subscriptions", json=body))["checkoutUrl"])


def asked(alone: str, shop: Organization, *changes: str) -> dict[str, Found]:
    """The broken rules, once some statements have changed what nobody should; which is then undone."""

    async def act() -> dict[str, Found]:
        async with (
            await AsyncConnection.connect(alone, **PROOF_CONNECTION) as conn,
            conn.transaction(force_rollback=True),
        ):
            for change in changes:
                done = await conn.execute(change.encode(), {"shop": organization_id(shop)})
                assert done.rowcount > 0, f"nothing to change: {change}"
            return broken(await ask(conn, organization_id(shop), wall=wall()))

    return asyncio.run(act())


def test_books_with_one_of_everything_are_clean(alone: str, shop: Organization) -> None:
    assert asked(alone, shop) == {}
    audit(alone, shop)


def test_books_in_which_nothing_happened_are_clean(alone: str, beside: Server) -> None:
    empty = open_one(alone, beside.base_url)
    assert asked(alone, empty) == {}
    empty.http.close()


OF_THE_SHOP = "organization_id = %(shop)s"
OF_OUR_CUSTOMERS = f"customer_id IN (SELECT id FROM customers WHERE {OF_THE_SHOP})"
METER = f"(SELECT m.id FROM meters m JOIN features f ON f.id = m.feature_id WHERE f.{OF_THE_SHOP} AND f.code = '{{}}')"


def one(table: str, where: str = "true", *, key: str = "ctid", joined: str = "") -> str:
    """The condition that names one row of a table."""
    return f"""{key} = (SELECT x.{key} FROM {table} x {joined} WHERE {where} ORDER BY x.{key} LIMIT 1)"""


def hour(code: str) -> str:
    return one("usage_hours", f"x.meter_id = {METER.format(code)} AND x.events > 0")


def values(code: str) -> str:
    return one("usage_sets", f"x.meter_id = {METER.format(code)}")


def counter(code: str) -> str:
    joined = "JOIN features f ON f.id = x.feature_id JOIN subscriptions s ON s.id = x.subscription_id"
    of = f"f.{OF_THE_SHOP} AND f.code = '{code}' AND s.status = 'active'"
    return one("limit_counters", of, joined=joined)


def line(where: str) -> str:
    joined = "JOIN invoices i ON i.id = x.invoice_id"
    return one("invoice_lines", f"i.{OF_THE_SHOP} AND {where}", joined=joined)


def more_on_its_invoice(amount: int) -> str:
    """An invoice that goes along with what a line says."""
    return f"""UPDATE invoices i SET subtotal = l.amount, total = l.amount
                 FROM (SELECT invoice_id, sum(amount) AS amount FROM invoice_lines GROUP BY 1) l
                WHERE l.invoice_id = i.id AND i.{OF_THE_SHOP} AND i.subtotal = l.amount - {amount}"""


def period(who: str, index: str) -> str:
    return f"""subscription_id = (SELECT s.id FROM subscriptions s JOIN customers c ON c.id = s.customer_id
                                   WHERE c.{OF_THE_SHOP} AND c.external_id = '{who}' ORDER BY s.id LIMIT 1)
               AND period_index = {index}"""


USAGE, MINIMUM, PLAN_MINIMUM, DIFFERENCE = (
    line(f"x.part = '{part}'") for part in ("usage", "minimum", "plan_minimum", "difference")
)
BASE: Final = line("x.line_type = 'plan_base'")
PAID_BY_UNITS: Final = line(
    "x.part = 'usage' AND x.amount > 0 AND x.evidence #>> '{components,0,unitAmount}' <> '0'"
)
INVOICE: Final = one("invoices", f"x.{OF_THE_SHOP}")
LIVE: Final = one("subscriptions", f"x.{OF_THE_SHOP} AND x.status = 'active'")
LATE: Final = one("late_events", f"x.{OF_THE_SHOP}")
LATE_OF_BOB: Final = one(
    "late_events",
    f"c.{OF_THE_SHOP} AND c.external_id = 'bob'",
    joined="JOIN customers c ON c.id = x.customer_id",
)
LAST_OF_BOB: Final = period(
    "bob", f"(SELECT max(period_index) FROM closed_periods WHERE {period('bob', 'period_index')})"
)
RECORD: Final = one("ingest_batches", f"x.{OF_THE_SHOP} AND x.position = 1")
EVENT: Final = one("events", f"x.{OF_OUR_CUSTOMERS} AND x.event_key = 'level_3'")
SOLD_AGAIN: Final = (
    "UPDATE organizations SET invoices_issued = invoices_issued + 1 WHERE id = %(shop)s",
    """INSERT INTO invoices (id, organization_id, customer_id, subscription_id, number, status, invoice_type, currency,
                              subtotal, total, period_index, period_start, period_end, issued_at, due_at, created_at, updated_at)
        SELECT gen_random_uuid(), i.organization_id, customer_id, i.subscription_id, invoices_issued, 'paid', 'adjustment', i.currency,
               l.amount, l.amount, period_index, period_start, period_end, issued_at, due_at, i.created_at, updated_at
          FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id JOIN organizations o ON o.id = i.organization_id
         WHERE l.{which}""",
    f"""INSERT INTO invoice_lines (id, invoice_id, position, line_type, charge_type, feature_id, description, quantity,
                                   unit_amount, amount, included, used, overage, evidence, subscription_id, usage_period, part)
        SELECT gen_random_uuid(), (SELECT id FROM invoices WHERE {OF_THE_SHOP} ORDER BY number DESC LIMIT 1), 0, line_type,
               charge_type, feature_id, description, quantity, unit_amount, amount, included, used, overage, evidence,
               subscription_id, usage_period, part
          FROM invoice_lines l WHERE l.{{which}}""",
)  # fmt: skip


def sold_again(where: str) -> list[str]:
    return [each.format(which=line(where)) for each in SOLD_AGAIN]


LAST_WALLET: Final = (
    f"{OF_THE_SHOP} AND model = '{{0}}' AND subscription_id = (SELECT subscription_id FROM wallets w "
    f"WHERE w.{OF_THE_SHOP} AND w.model = '{{0}}' ORDER BY subscription_id DESC LIMIT 1)"
)
TOP_UP: Final = f"SELECT id FROM ledger_entries WHERE {OF_THE_SHOP} AND cause = 'topup' ORDER BY id LIMIT 1"
CHANGES: Final[Mapping[str, tuple[str, list[str], str]]] = {
    "a rollup counts too much": ("rollups", [
        f"UPDATE usage_hours SET quantity = quantity + 1 WHERE {hour('bytes')}"], "the rollup says"),
    "a rollup counts another event": ("rollups", [
        f"UPDATE usage_hours SET events = events + 1 WHERE {hour('users')}"], "the rollup says"),
    "a rollup is gone": ("rollups", [
        f"DELETE FROM usage_hours WHERE {hour('peak')}"], "the rollup says nothing"),
    "a rollup of nothing says something": ("rollups", [
        f"""INSERT INTO usage_hours (customer_id, meter_id, hour, events, quantity, batch)
            SELECT customer_id, meter_id, hour - interval '10 years', 0, 7, 0 FROM usage_hours WHERE {hour('bytes')}"""],
        "the events say nothing, the rollup says 7 from 0 events"),
    "the newest value is older than it says": ("rollups", [
        f"UPDATE usage_hours SET latest_at = latest_at - interval '1 second' WHERE {hour('level')}"], "level"),
    "a distinct value is forgotten": ("rollups", [f"DELETE FROM usage_sets WHERE {values('users')}"], "distinct values"),
    "a distinct value is made up": ("rollups", [
        f"UPDATE usage_sets SET members = set_bit(members, 2000, 1) WHERE {values('users')}"], "distinct values"),
    "a distinct value has no number": ("rollups", [
        f"""DELETE FROM distinct_values WHERE feature_id = (SELECT id FROM features WHERE {OF_THE_SHOP} AND code = 'users')
               AND number = 0"""], "distinct values"),
    "a counter has room it should not have": ("limits", [
        f"UPDATE limit_counters SET used = used - 1 WHERE {counter('jobs')}"], "is used, the counter says"),
    "a counter of distinct values is too high": ("limits", [
        f"UPDATE limit_counters SET used = used + 1 WHERE {counter('people')}"], "people"),
    "an event is not as it was stored": ("chain", [
        f"UPDATE events SET reason = 'another' WHERE {EVENT}"], "was changed since it was stored"),
    "the head is another": ("chain", [
        f"UPDATE organization_heads SET digest = sha256('another') WHERE {OF_THE_SHOP}"], "another digest"),
    "a record of the chain is gone": ("chain", [
        f"DELETE FROM ingest_batches WHERE {RECORD}"], "no record"),
    "a key is free again": ("keys", [
        f"DELETE FROM event_keys WHERE event_id = (SELECT id FROM events WHERE {EVENT})"], "has lost its key"),
    "a key has no event": ("keys", [
        f"""INSERT INTO event_keys (generation, customer_id, key_hash, event_id, occurred_at)
            SELECT 0, id, id, id, now() FROM customers WHERE {OF_THE_SHOP} LIMIT 1"""], "which is not there"),
    "an invoice asks for more": ("totals", [
        f"UPDATE invoices SET subtotal = subtotal + 1, total = total + 1 WHERE {INVOICE}"],
        "the lines sum to"),
    "a line is gone": ("totals", [f"DELETE FROM invoice_lines WHERE {BASE}"], "the lines sum to"),
    "a line of usage is a cent more": ("lines", [
        f"UPDATE invoice_lines SET amount = amount + 1 WHERE {USAGE}", more_on_its_invoice(1)],
        "what it froze comes to"),
    "a minimum is a cent less": ("lines", [
        f"UPDATE invoice_lines SET amount = amount - 1 WHERE {MINIMUM}", more_on_its_invoice(-1)],
        "what it froze comes to"),
    "a plan's minimum is a cent less": ("lines", [
        f"UPDATE invoice_lines SET amount = amount - 1 WHERE {PLAN_MINIMUM}", more_on_its_invoice(-1)],
        "what it froze comes to"),
    "a difference is a cent more": ("lines", [
        f"UPDATE invoice_lines SET amount = amount + 1 WHERE {DIFFERENCE}", more_on_its_invoice(1)],
        "what it froze comes to"),
    "a component is another": ("lines", [
        f"""UPDATE invoice_lines SET evidence = jsonb_set(evidence, '{{components,0,quantity}}', '"100000"')
             WHERE {PAID_BY_UNITS}"""],
        "what it froze comes to"),
    "evidence cannot be read": ("lines", [
        f"UPDATE invoice_lines SET evidence = '[1.5]' WHERE {USAGE}"], "cannot be reckoned"),
    "a base price is asked for twice": ("billed_once", sold_again("x.line_type = 'plan_base'"), "one plan_base is on 2 lines"),
    "usage is billed twice": ("billed_once", sold_again(
        "x.part = 'usage' AND x.evidence #>> '{terms,0,maximum}' IS NULL AND NOT EXISTS (SELECT FROM invoice_lines o "
        "WHERE o.id <> x.id AND (o.subscription_id, o.usage_period, o.feature_id) = (x.subscription_id, x.usage_period, x.feature_id))"),
        "one usage is on 2 lines"),
    "an invoice is gone": ("numbers", [
        "DELETE FROM transactions WHERE reason <> 'one_time_payment'", "DELETE FROM invoice_lines WHERE invoice_id = (SELECT id FROM invoices WHERE number = 1)",
        "DELETE FROM invoices WHERE number = 1"], "the number 1 was given, and no invoice has it"),
    "a number was never given": ("numbers", [
        "UPDATE organizations SET invoices_issued = invoices_issued - 1 WHERE id = %(shop)s"], "was never given"),
    "a wallet has a credit more": ("wallets", [
        f"UPDATE wallets SET purchased = purchased + 1 WHERE {LAST_WALLET.format('credits')}"],
        "its ledger brings purchased_credits to 100, the wallet says 101"),
    "a wallet is gone": ("wallets", [f"DELETE FROM wallets WHERE {LAST_WALLET.format('balance')}"],
        "its ledger brings balance to 233000, the wallet says 0"),
    "a purchase was credited twice": ("purchases", [
        f"UPDATE ledger_entries SET amount = amount * 2 WHERE {OF_THE_SHOP} AND id = ({TOP_UP})",
        f"UPDATE wallets SET plan = plan + 70000 WHERE {LAST_WALLET.format('balance')}"],
        "70000 bought for 700; 140000 credited, 700 charged, 700 invoiced"),
    "a purchase was not charged": ("purchases", [
        f"DELETE FROM transactions WHERE {OF_THE_SHOP} AND reason = 'one_time_payment' AND gross_amount = 500"],
        "50 bought for 500; 50 credited, 0 charged, 500 invoiced"),
    "something was credited that nobody bought": ("purchases", [
        f"UPDATE ledger_entries SET reference = gen_random_uuid() WHERE {OF_THE_SHOP} AND id = ({TOP_UP})"],
        " credited"),
    "a purchase is on two invoices": ("billed_once", sold_again("x.line_type = 'one_time'"), "one one_time is on 2 lines"),
    "a purchase was never settled": ("due", [
        f"""INSERT INTO purchases (id, organization_id, customer_id, subscription_id, status, kind, description, quantity,
                                    amount_minor, currency, retry_at, created_at, updated_at)
            SELECT gen_random_uuid(), organization_id, customer_id, subscription_id, 'pending', kind, description, quantity,
                   0, currency, now(), '2025-06-24', '2025-06-24' FROM purchases WHERE {OF_THE_SHOP} LIMIT 1"""],
        "is neither paid nor declined"),
    "a period is missing": ("periods", [f"DELETE FROM closed_periods WHERE {period('cai', '1')}"], "period 2 begins at"),
    "the first period is missing": ("periods", [f"DELETE FROM closed_periods WHERE {period('cai', '0')}"], "period 1 begins at"),
    "the last period of who left is missing": ("periods", [
        f"DELETE FROM closed_periods WHERE {LAST_OF_BOB}"],
        "it has to begin at"),
    "a period ends an hour early": ("periods", [
        f"UPDATE closed_periods SET period_end = period_end - interval '1 hour' WHERE {period('cai', '0')}"],
        "it has to begin at"),
    "a period should be closed": ("due", [
        f"UPDATE subscriptions SET closes_at = '2025-07-24' WHERE {LIVE}"],
        "its period is not closed"),
    "a period will never be closed": ("due", [
        f"UPDATE subscriptions SET closes_at = NULL WHERE {LIVE}"],
        "its period is not closed"),
    "late usage is forgotten": ("due", [
        f"UPDATE late_events SET due_at = '2025-07-24' WHERE {LATE}"], "nothing was decided"),
    "late usage waits for an invoice that will never be": ("due", [
        f"""UPDATE late_events SET due_at = '9999-12-31' WHERE {LATE_OF_BOB}"""],
        "nothing was decided"),
    "an invoice was to be charged": ("due", [
        f"UPDATE invoices SET collect_at = '2025-07-24' WHERE {INVOICE}"], "it was not charged"),
    "an invoice will never be charged": ("due", [
        "DELETE FROM transactions WHERE reason <> 'one_time_payment'", f"UPDATE invoices SET status = 'outstanding' WHERE {INVOICE}"],
        "it was not charged"),
    "a wallet is richer than its ledger": ("wallets", [
        f"UPDATE wallets SET plan = plan + 1 WHERE {OF_THE_SHOP} AND model = 'credits'"], "the wallet says"),
    "credits nobody bought": ("wallets", [
        f"UPDATE wallets SET purchased = purchased + 5 WHERE {OF_THE_SHOP} AND model = 'credits'"],
        "brings purchased_credits to 0, the wallet says 5"),
    "a grant is gone": ("wallets", [
        f"DELETE FROM ledger_entries WHERE {OF_THE_SHOP} AND cause = 'grant' AND target = 'plan_credits'"], "plan_credits"),
    "an event took less than was posted": ("postings", [
        f"UPDATE events SET deducted = deducted - 1 WHERE {OF_OUR_CUSTOMERS} AND event_key = 'beyond'"],
        "its events took 99999, the ledger says 100000"),
    "a call's tokens cost less than it took": ("costs", [
        f"UPDATE ai_costs SET margin = margin - 1, total = total - 1 WHERE {OF_THE_SHOP}"], "its tokens cost 89, it took 90"),
    "a reservation is forgotten": ("holds", [
        f"UPDATE reservations SET status = 'released' WHERE {OF_THE_SHOP}"], "asked for 0"),
    "what was overdrawn is asked for a little less": ("overdrafts", [
        f"""UPDATE invoice_lines SET evidence = jsonb_set(evidence, '{{overdrawn}}', '"1"')
             WHERE {line("x.part = 'overdraft'")}"""], "its lines ask for 1"),
    "a closed period has not seen its usage": ("seen", [
        f"UPDATE closed_periods SET position = 0 WHERE {period('bob', '0')}"], "after it was rated, at position 0"),
    "a closed period has not seen its last minutes": ("seen", [
        f"""UPDATE closed_periods p SET position = b.position - 1 FROM events e JOIN ingest_batches b ON b.batch = e.batch
             WHERE e.{OF_OUR_CUSTOMERS} AND e.event_key = 'edge' AND p.customer_id = e.customer_id
               AND e.occurred_at >= p.period_start AND e.occurred_at < p.period_end"""], "in period 1 after it was rated"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_breaks_a_rule_is_named_by_that_rule(alone: str, shop: Organization, change: str) -> None:
    rule, statements, words = CHANGES[change]
    found = asked(alone, shop, *statements)
    assert list(found) == [rule], found
    assert words in found[rule].first[0], found
    assert found[rule].offenders >= 1


def test_every_rule_has_been_seen_to_break() -> None:
    assert {rule for rule, _, _ in CHANGES.values()} == set(NAMES)


def test_the_page_for_operators_has_every_rule_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs/operating.md").read_text()
    table = page.partition("## Reconciling")[2].partition("The server does the same")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == NAMES


def test_many_offenders_are_counted_and_the_first_are_named(alone: str, shop: Organization) -> None:
    change = f"UPDATE usage_hours SET quantity = quantity + 1 WHERE meter_id = {METER.format('bytes')}"
    (found,) = asked(alone, shop, change).values()
    assert (found.offenders > 10, len(found.first)) == (True, 10)


def test_it_is_clean_while_events_pour_in(alone: str, shop: Organization) -> None:
    """Counters, rollups, sets, keys and the chain are read in the middle of being written."""
    over = threading.Event()

    def send(worker: int) -> int:
        sent = 0
        while not over.is_set():
            sent += 1
            key, properties = f"pour_{worker}_{sent}", {"user": f"u{sent % 40}", "size": "1.5"}
            done(track(shop, "cai", key, feature="jobs", value=0.001, properties=user(sent)))
            done(track(shop, "ada", key, feature="request", value=sent, properties=properties))
            if sent % 5 == 0:
                story.take_back(shop, "ada", key)
        return sent

    async def look() -> list[dict[str, Found]]:
        async with await AsyncConnection.connect(alone, **PROOF_CONNECTION) as conn:
            return [broken(await ask(conn, organization_id(shop), wall=wall())) for _ in range(8)]

    with ThreadPoolExecutor(3) as pool:
        senders = [pool.submit(send, worker) for worker in range(3)]
        try:
            assert asyncio.run(look()) == [{}] * 8
        finally:
            over.set()
        assert all(each.result() for each in senders)
    audit(alone, shop)


# The command ------------------------------------------------------------------------------------------------


def command(alone: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """As an operator types it, beside the running server."""
    where = [] if "--database-url" in words else ["--database-url", alone]
    return subprocess.run(
        [str(PROGRAM), *words, *where], capture_output=True, text=True, check=False, timeout=120
    )


@contextmanager
def one_cent_more(alone: str) -> Iterator[None]:
    """On the first invoice, for everybody to see, and back again."""
    change = "UPDATE invoices SET subtotal = subtotal + %(cent)s, total = total + %(cent)s WHERE number = 1"
    with psycopg.connect(alone, autocommit=True) as conn:
        assert conn.execute(change, {"cent": 1}).rowcount == 1
        try:
            yield
        finally:
            conn.execute(change, {"cent": -1})


def test_clean_books_are_exit_code_0(alone: str, shop: Organization) -> None:
    told = command(alone, "reconcile", "--json")
    assert (told.returncode, told.stderr) == (0, "")
    found = json.loads(told.stdout)
    assert (found["status"], found["offenders"]) == ("clean", 0)
    assert [(each["rule"], each["offenders"], each["first"]) for each in found["rules"]] == [
        (name, 0, []) for name in NAMES
    ]
    told = command(alone, "reconcile", "--organization", shop.id)
    assert told.returncode == 0
    assert [name for name in NAMES if name not in told.stdout] == []
    assert told.stdout.splitlines()[-1].startswith("every rule is kept; ")


def test_an_offender_is_exit_code_1_and_said(alone: str, shop: Organization) -> None:
    with one_cent_more(alone):
        told = command(alone, "reconcile", "--json")
        assert told.returncode == 1, told.stderr
        found = json.loads(told.stdout)
        assert (found["status"], found["offenders"]) == ("broken", 1)
        ((rule, first),) = [(each["rule"], each["first"]) for each in found["rules"] if each["offenders"]]
        assert (rule, [each["organizationId"] for each in first]) == ("totals", [shop.id])
        assert "the lines sum to 2900, the invoice says 2901" in first[0]["what"]
        told = command(alone, "reconcile", "--organization", shop.id)
        assert told.returncode == 1
        assert f"{shop.id}: {first[0]['what']}" in told.stdout
        assert told.stdout.splitlines()[-1].startswith(f"1 of {len(NAMES)} rules are broken; ")


@pytest.mark.parametrize(
    "words",
    [
        ["--organization", "org_1"],
        ["--organization", "org_01m7ys45fnf23rygeta42ye1tx"],
        ["--everything"],
        ["--database-url", "postgresql://nobody@127.0.0.1:1/nothing"],
    ],
)
def test_what_could_not_be_asked_is_exit_code_2(alone: str, words: list[str]) -> None:
    told = command(alone, "reconcile", *words)
    assert (told.returncode, told.stdout) == (2, ""), told.stderr
    assert told.stderr.strip()


# Every night ------------------------------------------------------------------------------------------------


def look(alone: str, *, after: timedelta, at_once: int = 1) -> list[bool]:
    """What processes do that look at the same time, so long from now."""

    async def act() -> list[bool]:
        nightly = [Nightly(alone, lambda: wall() + after) for _ in range(at_once)]
        return await asyncio.gather(*(each.look() for each in nightly))

    return asyncio.run(act())


def noted(rule: str) -> float | None:
    return REGISTRY.get_sample_value("tallystick_reconcile_offenders", {"rule": rule})


def test_once_a_day_somebody_reconciles_and_everybody_hears(
    alone: str, shop: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    look(alone, after=timedelta(days=2))
    assert look(alone, after=timedelta(days=2, hours=23)) == [False], "not a day ago"
    assert {noted(name) for name in NAMES} == {0}
    assert command(alone, "doctor").returncode == 0
    assert caplog.messages == []
    with one_cent_more(alone), caplog.at_level(logging.WARNING):
        assert sorted(look(alone, after=timedelta(days=4), at_once=4)) == [False] * 3 + [True]
        assert (noted("totals"), noted("lines")) == (1, 0)
        (said,) = caplog.messages
        assert "'totals' is broken by 1" in said and "the invoice says 2901" in said
        told = command(alone, "doctor")
        assert told.returncode == 1
        assert "totals: 1 offenders" in " ".join(told.stderr.split())
        with serving(alone, workers=2) as another:
            assert sample(another, "tallystick_reconcile_offenders", rule="totals") == 1
            assert sample(another, "tallystick_reconcile_offenders", rule="lines") == 0
            at = (wall() + timedelta(days=4)).timestamp()
            assert at - 120 < sample(another, "tallystick_reconcile_timestamp_seconds") <= at
    assert command(alone, "reconcile", "--json").returncode == 0
    assert command(alone, "doctor").returncode == 0, "what was put right need not wait for the night"


def test_where_nobody_ever_looked_somebody_does_at_once(alone: str, shop: Organization) -> None:
    with psycopg.connect(alone) as conn:
        conn.execute("DELETE FROM reconciliations")

    async def act() -> None:
        nightly = Nightly(alone, wall, look_every_s=3600)
        nightly.start()
        try:
            for _ in range(1200):
                if broken_rules(alone):
                    break
                await asyncio.sleep(0.05)
        finally:
            await nightly.stop()

    with one_cent_more(alone):
        asyncio.run(act())
        assert broken_rules(alone) == ["totals"]
    assert look(alone, after=timedelta(hours=23)) == [False], "the next is a day later"
    assert command(alone, "reconcile", "--json").returncode == 0


def broken_rules(alone: str) -> list[str]:
    """As they were noted last."""
    with psycopg.connect(alone) as conn:
        return [each for (each,) in conn.execute("SELECT rule FROM reconciliations WHERE offenders > 0")]


def sample(server: Server, name: str, **labels: str) -> float:
    text = httpx.get(f"{server.base_url}/metrics").text
    (found,) = (
        each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == name and each.labels == labels
    )
    return found
