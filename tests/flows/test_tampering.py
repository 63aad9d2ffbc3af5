"""Whatever is changed behind the server's back is found, and named in words a person understands.

One business lives through everything that can be on an invoice (`tests.story`). Each test then changes the database
by SQL in a transaction, verifies inside it, in both ways, and undoes it.
"""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from tallystick.core import ids
from tallystick.core.proof import GENESIS, link
from tallystick.flows.read_usage import leaf_of
from tallystick.store import events
from tallystick.store.db import Conn, new_id, rows
from tests import story
from tests.audit import organization_id
from tests.conftest import Server, open_one
from tests.tampering import Business


@pytest.fixture(scope="module")
def business(server: Server, database_url: str) -> Iterator[Business]:
    shops = [open_one(database_url, server.base_url, clock=story.OPENED) for _ in range(2)]
    for shop in shops:
        story.live(shop)
    yield Business(database_url, *shops)
    for shop in shops:
        shop.http.close()


def shown(event: UUID) -> str:
    return ids.show(ids.EVENT, event)


def of_events(told: list[str]) -> list[str]:
    """What is not said of an invoice."""
    return [each for each in told if not each[0].isdigit()]


def of_invoices(told: list[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for each in told:
        number, _, words = each.partition(": ")
        if number.isdigit():
            found.setdefault(int(number), []).append(words)
    return found


def test_untouched_all_is_verified(business: Business) -> None:
    assert business.find() == []
    kinds = business.select(
        """SELECT DISTINCT l.line_type, l.part FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
            WHERE i.organization_id = %s ORDER BY 1, 2""",
        organization_id(business.shop),
    )
    assert kinds == [
        ("feature_overage", "difference"),
        ("feature_overage", "minimum"),
        ("feature_overage", "plan_minimum"),
        ("feature_overage", "usage"),
        ("plan_base", None),
    ]


# Events -------------------------------------------------------------------------------------------------------


CHANGES: dict[str, str] = {
    "id": "id = gen_random_uuid()",
    "value": "value = value + 0.000000000001",
    "occurred_at": "occurred_at = occurred_at + interval '1 microsecond'",
    "another month": "occurred_at = occurred_at + interval '31 days'",
    "received_at": "received_at = received_at - interval '1 microsecond'",
    "feature_code": "feature_code = 'tokens'",
    "customer_id": "customer_id = (SELECT id FROM customers WHERE external_id = 'bob' AND organization_id = (SELECT organization_id FROM customers WHERE id = e.customer_id))",
    "event_key": "event_key = event_key || 'x'",
    "no event_key": "event_key = NULL",
    "timed": "timed = NOT timed",
    "adjusts": "adjusts = gen_random_uuid()",
    "reason": "reason = 'because'",
    "properties": """properties = '{"region": "us"}'""",
    "no properties": "properties = NULL",
    "one property": "properties = properties || '{\"region\": \"us\"}'",
    "a property that is no text": "properties = properties || '{\"region\": 1}'",
    "properties that are none": "properties = '[1]'",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_event_is_named_once_by_its_id_and_place(business: Business, change: str) -> None:
    event = business.event("ada", "request_10", "request")
    where = business.where(event)
    told = business.changed(f"UPDATE events e SET {CHANGES[change]} WHERE id = %s", event)
    (said,) = of_events(told)
    assert said.startswith(f"the event {shown(event)} was changed since it was stored: {where}")
    assert ("; it says evt_" in said) is (change == "id")
    others = {
        "feature_code": [5],
        "customer_id": [4],
    }  # those it would belong to now: the late tokens, and bob's
    assert list(of_invoices(told)) == sorted([3, *others.get(change, [])])


@pytest.mark.parametrize("whose", ["a neighbour's", "another organization's"])
def test_an_event_that_stands_elsewhere_is_named_by_its_id_and_where_it_belongs(
    business: Business, whose: str
) -> None:
    event = business.event("ada", "request_10", "request")
    where = business.where(event)
    if whose == "a neighbour's":
        neighbour = business.event("bob", "request_10", "request")
        found = business.select("SELECT batch FROM events WHERE id = %s", neighbour)
    else:  # its customer is still one of ours
        owner = organization_id(business.other)
        found = business.select("SELECT batch FROM ingest_batches WHERE organization_id = %s LIMIT 1", owner)
    ((batch,),) = found
    told = business.changed("UPDATE events SET batch = %s WHERE id = %s", batch, event)
    assert of_events(told) == [
        f"the event {shown(event)} was moved: it says batch {batch}, and belongs to {where}"
    ]


def test_an_event_that_moved_to_no_batch_is_named(business: Business) -> None:
    event = business.event("ada", "request_10", "request")
    where = business.where(event)
    told = business.changed("UPDATE events SET batch = -7 WHERE id = %s", event)
    assert of_events(told) == [
        f"the event {shown(event)} was moved: it says batch -7, and belongs to {where}"
    ]
    assert list(of_invoices(told)) == [3]


@pytest.mark.parametrize("key", ["request_0", "request_10", "request_29", "late_tokens"])
def test_a_deleted_event_is_named_by_the_key_it_left(business: Business, key: str) -> None:
    event = business.event("ada", key, "tokens" if key == "late_tokens" else "request")
    where = business.where(event)
    told = business.changed("DELETE FROM events WHERE id = %s", event)
    assert of_events(told) == [f"the event {shown(event)} is gone: {where}"]
    assert next(iter(of_invoices(told))) == (5 if key == "late_tokens" else 3)


def test_a_deleted_event_without_a_key_is_named_by_batch_and_position(business: Business) -> None:
    event = business.keyless()
    where = business.where(event)
    assert where.endswith("place 2 of 3")
    told = business.changed("DELETE FROM events WHERE id = %s", event)
    assert of_events(told) == [f"an event that had no key is gone: {where}"]
    assert list(of_invoices(told)) == [3, 7], "7 has what came late for the same period"


def test_several_deleted_events_are_each_named(business: Business) -> None:
    gone = [business.event("ada", f"api_calls_{number}") for number in (0, 3, 4, 5, 29)]

    async def tamper(conn: Conn) -> None:
        await conn.execute("DELETE FROM events WHERE id = ANY(%s)", (gone,))

    told = of_events(business.find(tamper))
    assert told == [f"the event {shown(each)} is gone: {business.where(each)}" for each in gone]


@pytest.mark.parametrize("batch", ["of the chain", "of none"])
def test_an_added_event_is_named(business: Business, batch: str) -> None:
    event, added = business.event("ada", "request_10", "request"), new_id()
    ((number, position),) = business.select(
        "SELECT b.batch, b.position FROM events e JOIN ingest_batches b ON b.batch = e.batch WHERE e.id = %s",
        event,
    )
    told = business.changed(
        """INSERT INTO events (customer_id, occurred_at, id, received_at, batch, feature_code, value, timed)
           SELECT customer_id, occurred_at, %s, received_at, %s, feature_code, 5, true
             FROM events WHERE id = %s""",
        added,
        number if batch == "of the chain" else -7,
        event,
    )
    if batch == "of none":
        words = "was added: it says batch -7, which the chain does not have"
    else:
        words = f"was added to batch {number}, position {position}, which has no place for it"
    assert of_events(told) == [f"the event {shown(added)} {words}"]
    assert list(of_invoices(told)) == ([3] if batch == "of the chain" else [])


def test_a_copy_under_the_same_id_is_named(business: Business) -> None:
    event = business.event("ada", "request_10", "request")
    told = business.changed(
        """INSERT INTO events (customer_id, occurred_at, id, received_at, batch, feature_code, value, timed)
           SELECT customer_id, occurred_at + interval '1 hour', id, received_at, batch, feature_code, value, timed
             FROM events WHERE id = %s""",
        event,
    )
    where = business.where(event).rpartition(",")[0].split(", place")[0]
    assert of_events(told) == [f"the event {shown(event)} was added to {where}, which has no place for it"]


def test_a_row_that_is_there_twice_is_named(business: Business) -> None:
    """The database would take it: nothing but the chain knows how often an event was stored."""
    event = business.event("ada", "request_10", "request")
    where = business.where(event).rpartition(",")[0].split(", place")[0]
    told = business.changed("INSERT INTO events SELECT * FROM events WHERE id = %s", event)
    assert of_events(told) == [f"the event {shown(event)} was added to {where}, which has no place for it"]
    assert list(of_invoices(told)) == [3]


def test_an_event_that_is_marked_as_taken_back_and_was_not(business: Business) -> None:
    event = business.event("ada", "request_10", "request")
    told = business.changed("UPDATE events SET voided = batch WHERE id = %s", event)
    (said,) = of_events(told)
    assert said.startswith(f"the event {shown(event)} is marked as taken back by batch ")
    assert list(of_invoices(told)) == [3]


def test_a_void_whose_mark_was_wiped_away(business: Business) -> None:
    event = business.event("ada", "request_7", "request")
    ((void,),) = business.select("SELECT id FROM events WHERE voids = %s", event)
    told = business.changed("UPDATE events SET voided = NULL WHERE id = %s", event)
    assert of_events(told) == [
        f"the event {shown(void)} takes back the event {shown(event)}, which is not there or not marked so"
    ]
    assert list(of_invoices(told)) == [3]


def test_a_deleted_void_is_named_and_so_is_what_it_took_back(business: Business) -> None:
    event = business.event("ada", "request_7", "request")
    ((void,),) = business.select("SELECT id FROM events WHERE voids = %s", event)
    where = business.where(void)
    told = of_events(business.changed("DELETE FROM events WHERE id = %s", void))
    assert told[0] == f"the event {shown(void)} is gone: {where}"
    assert told[1].startswith(f"the event {shown(event)} is marked as taken back by batch ")
    assert len(told) == 2


def test_the_leaf_that_a_row_carries_is_checked_too(business: Business) -> None:
    event = business.event("ada", "request_10", "request")
    told = business.changed("UPDATE events SET leaf = gen_random_uuid() WHERE id = %s", event)
    assert told == [f"the event {shown(event)} carries another leaf than its facts give"]
    assert business.changed("UPDATE events SET leaf = NULL WHERE id = %s", event) == []


# Keys ---------------------------------------------------------------------------------------------------------


def test_a_deleted_key_is_named_by_its_event(business: Business) -> None:
    event = business.event("ada", "request_10", "request")
    assert business.changed("DELETE FROM event_keys WHERE event_id = %s", event) == [
        f"the event {shown(event)} has lost its key: a repeat of it would count again"
    ]


@pytest.mark.parametrize(
    "change",
    ["event_id = gen_random_uuid()", "occurred_at = occurred_at + interval '1 day'", "key_hash = gen_random_uuid()"],
)  # fmt: skip
def test_a_changed_key_is_named(business: Business, change: str) -> None:
    event = business.event("ada", "request_10", "request")
    told = business.changed(f"UPDATE event_keys SET {change} WHERE event_id = %s", event)
    assert of_events(told) == told
    assert {each.split(" ", 3)[3].split(",")[0] for each in told} <= {
        f"for the event {shown(event)}",
        "has lost its key: a repeat of it would count again",
        told[0].split(" ", 3)[3].split(",")[0],
    }
    assert any(shown(event) in each for each in told)


def test_the_key_of_an_event_that_only_had_a_header_is_known_by_nobody(business: Business) -> None:
    """What an event does not say of itself its row cannot prove: docs/proof.md tells."""
    ((event,),) = business.select(
        """SELECT e.id FROM events e JOIN event_keys k ON k.event_id = e.id
            WHERE e.customer_id IN (SELECT id FROM customers WHERE organization_id = %s) AND e.event_key IS NULL AND e.voids IS NULL ORDER BY e.id LIMIT 1""",
        organization_id(business.shop),
    )
    assert business.changed("DELETE FROM event_keys WHERE event_id = %s", event) == []


# The chain ----------------------------------------------------------------------------------------------------


def in_the_middle(business: Business) -> tuple[int, int]:
    """A record that has others before and after it: its position and batch."""
    event = business.event("ada", "request_10", "request")
    ((position, batch),) = business.select(
        "SELECT b.position, b.batch FROM events e JOIN ingest_batches b ON b.batch = e.batch WHERE e.id = %s",
        event,
    )
    return position, batch


RECORD: dict[str, tuple[str, str]] = {
    "a leaf": (
        "leaves = set_byte(leaves, 20, (get_byte(leaves, 20) + 1) %% 256)",
        "the leaves of the chain's record at position {position} were changed: its events still give its digest",
    ),
    "one leaf less": (
        "leaves = substr(leaves, 17)",
        "the leaves of the chain's record at position {position} were changed: its events still give its digest",
    ),
    "digest": (
        "digest = sha256(digest)",
        "the chain's record at position {position} was changed: "
        "its digest does not follow from the record before it and its leaves",
    ),
    "events": (
        "events = events + 1",
        "the chain's record at position {position} says 31 events and has 30 leaves",
    ),
    "first_event_id": (
        "first_event_id = gen_random_uuid()",
        "the chain's record at position {position} begins with evt_",
    ),
    "position": ("position = 1000000", "the chain has no record at position {position}"),
}


@pytest.mark.parametrize("column", RECORD)
def test_a_changed_record_is_named_by_its_position(business: Business, column: str) -> None:
    position, batch = in_the_middle(business)
    change, words = RECORD[column]
    told = business.changed(f"UPDATE ingest_batches SET {change} WHERE batch = %s", batch)
    said = of_events(told)
    assert any(each.startswith(words.format(position=position)) for each in said), said
    if column not in ("position",):
        assert not any("the event " in each for each in said), "the events are as they were"
    if column in ("a leaf", "digest", "events", "first_event_id"):
        assert len(told) == 1


def test_a_record_that_claims_another_batch_is_named_with_its_events(business: Business) -> None:
    position, batch = in_the_middle(business)
    told = of_events(business.changed("UPDATE ingest_batches SET batch = -7 WHERE batch = %s", batch))
    assert len(told) == 30, "\n".join(told)
    assert all(
        f"it says batch {batch}, and belongs to batch -7, position {position}," in each for each in told
    )


def test_a_deleted_record_is_named_by_its_position_and_events(business: Business) -> None:
    position, batch = in_the_middle(business)
    told = of_events(business.changed("DELETE FROM ingest_batches WHERE batch = %s", batch))
    assert told[0] == f"the chain has no record at position {position}"
    assert told[1:] == [
        each for each in told if f"it says batch {batch}, which the chain does not have" in each
    ]
    assert len(told) == 31


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE organization_heads SET position = position + 2", "the chain's head stands at {after}, its last record at {last}"),
        ("UPDATE organization_heads SET position = position - 1", "the chain's head stands at {before}, its last record at {last}"),
        ("UPDATE organization_heads SET digest = sha256(digest)", "the chain's head has another digest than its last record, at position {last}"),
        ("DELETE FROM organization_heads", "the chain has no head"),
    ],
)  # fmt: skip
def test_a_changed_head_is_named(business: Business, change: str, words: str) -> None:
    ((last,),) = business.select(
        "SELECT position FROM organization_heads WHERE organization_id = %s", organization_id(business.shop)
    )
    told = business.changed(f"{change} WHERE organization_id = %s", organization_id(business.shop))
    assert told == [words.format(last=last, after=last + 2, before=last - 1)]


def test_who_changes_an_event_and_its_leaf_is_told_by_the_digest(business: Business) -> None:
    position, batch = in_the_middle(business)
    event = business.event("ada", "request_10", "request")

    async def tamper(conn: Conn) -> None:
        await _change_and_cover(conn, organization_id(business.shop), event, batch, digests_too=False)

    told = business.find(tamper)
    assert of_events(told) == [
        f"the chain's record at position {position} was changed: "
        "its digest does not follow from the record before it and its leaves"
    ]
    assert list(of_invoices(told)) == [3]


def test_who_recomputes_the_whole_chain_is_told_by_the_invoice_and_by_a_digest_kept_elsewhere(
    business: Business,
) -> None:
    """A chain proves that nothing was changed since its digest was last seen; who keeps none must trust the rest."""
    _, batch = in_the_middle(business)
    event = business.event("ada", "request_10", "request")
    ((before,),) = business.select(
        "SELECT digest FROM organization_heads WHERE organization_id = %s", organization_id(business.shop)
    )
    after: list[bytes] = []

    async def tamper(conn: Conn) -> None:
        await _change_and_cover(conn, organization_id(business.shop), event, batch, digests_too=True)
        ((digest,),) = await rows(
            conn,
            "SELECT digest FROM organization_heads WHERE organization_id = %s",
            (organization_id(business.shop),),
        )
        after.append(bytes(digest))

    told = business.find(tamper)
    assert of_events(told) == []
    assert list(of_invoices(told)) == [3]
    assert after[0] != bytes(before)


async def _change_and_cover(
    conn: Conn, organization: UUID, event: UUID, batch: int, *, digests_too: bool
) -> None:
    await conn.execute("UPDATE events SET value = value + 1 WHERE id = %s", (event,))
    stored = await events.of_batches(conn, organization_id=organization, numbers=[batch], lowest=UUID(int=0))
    leaves = b"".join(map(leaf_of, stored[batch]))
    await conn.execute("UPDATE ingest_batches SET leaves = %s WHERE batch = %s", (leaves, batch))
    await conn.execute("UPDATE events SET leaf = NULL WHERE id = %s", (event,))
    if not digests_too:
        return
    digest = GENESIS
    for record in await events.batches(conn, organization_id=organization, after=0, until=1_000_000):
        digest = link(digest, record.position, b"".join(record.leaves))
        await conn.execute("UPDATE ingest_batches SET digest = %s WHERE batch = %s", (digest, record.batch))
    await conn.execute(
        "UPDATE organization_heads SET digest = %s WHERE organization_id = %s", (digest, organization)
    )


# Invoices and their lines -------------------------------------------------------------------------------------


INVOICE: dict[str, str] = {
    "subtotal = subtotal + 1, total = total + 1": "the lines sum to 22900, the invoice says 22901",
    "tax = 1, total = total + 1": "the invoice has a tax of 1, which nothing brought",
    "discount = 1, total = total - 1": "the invoice has a discount of 1, which nothing brought",
    "credit_applied = 1, total = total - 1": "the invoice has a credit of 1, which nothing brought",
}


@pytest.mark.parametrize("change", INVOICE)
def test_a_changed_total_is_named(business: Business, change: str) -> None:
    told = business.changed(
        f"UPDATE invoices SET {change} WHERE organization_id = %s AND number = 3",
        organization_id(business.shop),
    )
    assert list(of_invoices(told)) == [3]
    assert of_invoices(told)[3][0] == INVOICE[change]
    assert of_invoices(told)[3][1].startswith("22900 was paid for the invoice, its total says 22")
    assert of_events(told) == []


def lines_of(business: Business) -> list[tuple[UUID, int, str, str | None, dict[str, Any]]]:
    """One line of each kind and feature: (id, invoice's number, kind, feature, evidence)."""
    found = business.select(
        """SELECT DISTINCT ON (coalesce(l.part, l.line_type), l.feature_name)
                  l.id, i.number, coalesce(l.part, l.line_type), l.feature_name, l.evidence
             FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
            WHERE i.organization_id = %s ORDER BY coalesce(l.part, l.line_type), l.feature_name, i.number""",
        organization_id(business.shop),
    )
    assert len(found) > 14
    return found


LINE_COLUMNS: dict[str, str] = {
    "amount": "amount = amount + 1",
    "quantity": "quantity = quantity + 0.5",
    "unit_amount": "unit_amount = unit_amount + 0.01",
    "included": "included = included + 1",
    "used": "used = used + 1",
    "overage": "overage = overage + 1",
    "description": "description = 'free of charge'",
    "evidence": "evidence = NULL",
    "empty evidence": "evidence = '{}'",
    "part": "part = CASE part WHEN 'usage' THEN 'minimum' ELSE 'usage' END",
    "usage_period": "usage_period = usage_period + 1",
    "subscription_id": "subscription_id = gen_random_uuid()",
    "feature_id": "feature_id = (SELECT f.id FROM features f WHERE f.id <> invoice_lines.feature_id LIMIT 1)",
    "invoice_id": "invoice_id = (SELECT id FROM invoices WHERE id <> invoice_lines.invoice_id LIMIT 1), position = 99",
}
NOT_OF_BASE = {
    "included",
    "used",
    "overage",
    "part",
    "usage_period",
    "subscription_id",
    "feature_id",
    "description",
}
NOT_OF_MINIMUM = {"included", "used", "overage"}


@pytest.mark.parametrize("column", LINE_COLUMNS)
def test_a_changed_line_is_found(business: Business, column: str) -> None:
    tried = 0
    for line, number, kind, feature, _ in lines_of(business):
        if kind == "plan_base" and column in NOT_OF_BASE:
            continue
        if kind in ("minimum", "plan_minimum") and column in NOT_OF_MINIMUM:
            continue
        if kind == "plan_minimum" and column == "feature_id":
            continue
        told = business.verify(
            number, f"UPDATE invoice_lines SET {LINE_COLUMNS[column]} WHERE id = %s", line, chain=False
        )
        free = (
            column == "invoice_id" and not told.invoice.total
        )  # nothing of nothing, elsewhere: there it is found
        assert free or told.all_differences, (kind, feature)
        tried += 1
    assert tried > 8


def test_a_line_that_was_taken_away_or_added_is_found(business: Business) -> None:
    line, number, *_ = lines_of(business)[-1]
    told = business.verify(number, "DELETE FROM invoice_lines WHERE id = %s", line)
    assert any("the lines sum to" in each for each in told.all_differences)
    told = business.verify(
        number,
        """INSERT INTO invoice_lines (id, invoice_id, position, line_type, charge_type, description, quantity, unit_amount, amount)
           SELECT gen_random_uuid(), invoice_id, 99, 'fee', 'standard', 'a fee', 1, 5, 500 FROM invoice_lines WHERE id = %s""",
        line,
    )
    assert "the line holds no evidence it could be derived from" in told.all_differences


def scalars(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from scalars(each, (*path, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from scalars(each, (*path, place))
    else:
        yield path, value


def other(value: Any) -> Any:
    """Something else of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case None:
            return "1"
        case str() if value.replace(".", "", 1).lstrip("-").isdecimal():
            return str(int(value.split(".")[0]) + 1)
        case str() if "T" in value and value.startswith("2025-"):
            return value.replace("2025-", "2024-", 1)
    return f"{value}x"


UNSEEN: set[tuple[str, str]] = {("plan_base", "priceId"), ("plan_base", "period")}
"""What of the evidence is said and not proved: prices can be edited, and nothing else names them."""


def test_every_word_of_the_evidence_is_checked(business: Business) -> None:
    """Whatever is changed in what a line froze makes a difference, and never a crash."""
    tried, unseen = 0, []
    for line, number, kind, feature, evidence in lines_of(business):
        for path, value in scalars(evidence):
            if (kind, path[0]) in UNSEEN:
                continue
            told = business.verify(
                number,
                "UPDATE invoice_lines SET evidence = jsonb_set(evidence, %s, %s) WHERE id = %s",
                [str(each) for each in path],
                json.dumps(other(value)),
                line,
                chain=False,
            )
            if not told.all_differences:
                unseen.append((kind, feature, path, value, other(value)))
            tried += 1
    assert unseen == []
    assert tried > 400


def test_a_forged_price_is_found_however_well_the_line_agrees_with_it(business: Business) -> None:
    """Whoever doubles a price must double it in the catalogue too, where versions are many and never edited."""
    line = next(each for each in lines_of(business) if each[2:4] == ("usage", "eu_calls"))
    evidence = json.loads(json.dumps(line[4]).replace('"0.003"', '"0.006"').replace('"0.060"', '"0.12"'))
    told = business.verify(
        line[1],
        "UPDATE invoice_lines SET evidence = %s, unit_amount = 0.006, amount = 12 WHERE id = %s",
        json.dumps(evidence),
        line[0],
    )
    assert any("has the price" in each and "0.003" in each for each in told.all_differences)


# One invoice alone --------------------------------------------------------------------------------------------


def test_an_invoice_that_differs_names_the_events_of_its_customer_and_no_others(business: Business) -> None:
    ada, bob = business.event("ada", "request_10", "request"), business.event("bob", "api_calls_11")
    where = business.where(ada)
    gone = business.event("bob", "api_calls_12")
    loose = business.event("bob", "fees_3", "fees")
    told = business.verify(
        3,
        """WITH one AS (UPDATE events SET value = value + 1 WHERE id = ANY(%s)),
                two AS (DELETE FROM events WHERE id = %s),
              three AS (UPDATE events SET batch = -7 WHERE id = %s)
           DELETE FROM event_keys WHERE event_id = %s""",
        [ada, bob],
        gone,
        loose,
        business.event("bob", "fees_4", "fees"),
    )
    assert told.differences == [f"the event {shown(ada)} was changed since it was stored: {where}"]
    assert told.outcome == "different"
    assert told.first_difference is not None and told.first_difference.startswith("the digest of the events")


def test_an_event_that_was_given_to_another_customer_is_named_to_both(business: Business) -> None:
    event = business.event("ada", "request_10", "request")
    where = business.where(event)
    given = """UPDATE events e SET customer_id = (SELECT id FROM customers WHERE external_id = 'bob'
                                      AND organization_id = (SELECT organization_id FROM customers
                                                              WHERE id = e.customer_id)) WHERE id = %s"""
    for number in (3, 4):  # of ada, of bob
        told = business.verify(number, given, event)
        assert told.differences == [f"the event {shown(event)} was changed since it was stored: {where}"]
        assert any(each.startswith("the number of events") for each in told.all_differences)


def test_an_invoice_of_somebody_else_stays_verified(business: Business) -> None:
    told = business.verify(
        4, "DELETE FROM events WHERE id = %s", business.event("ada", "request_10", "request")
    )
    assert (told.outcome, told.all_differences) == ("verified", [])


def test_what_nobody_can_say_whose_it_was_is_said_to_everybody(business: Business) -> None:
    event = business.keyless()
    where = business.where(event)
    told = business.verify(
        4,
        "WITH one AS (DELETE FROM events WHERE id = %s) UPDATE events SET value = 77 WHERE id = %s",
        event,
        business.event("bob", "request_10", "request"),
    )
    assert f"an event that had no key is gone: {where}" in told.differences
