"""What an invoice can be asked: its usage lines, the events and the evidence behind them, why, and whether it verifies."""

from decimal import Decimal
from typing import Any

from tests.conftest import Organization
from tests.shop import API, Json, done, invoices_of


def usage_of(invoice: Json, feature: str | None = None) -> list[Json]:
    """The usage lines of an invoice; of one feature, or of all."""
    return [
        line
        for line in invoice["lineItems"]
        if line["lineType"] == "feature_overage" and feature in (None, line["featureName"])
    ]


def events_of(shop: Organization, invoice: Json, line: Json, limit: int = 100) -> tuple[list[Json], Json]:
    """Every event of a line, page by page, and the summary, which is the same on each page."""
    path = f"{API}/invoices/{invoice['id']}/lines/{line['id']}/events"
    found: list[Json] = []
    query = {"limit": str(limit)}
    while True:
        page = done(shop.http.get(path, params=query))
        found += page["data"]
        if not page["hasMore"]:
            return found, page["summary"]
        query["cursor"] = page["nextCursor"]


def evidence_of(shop: Organization, invoice: Json) -> dict[str, Json]:
    """What each line froze, by the line's id."""
    told = done(shop.http.get(f"{API}/invoices/{invoice['id']}/evidence"))["lines"]
    return {each["lineId"]: each["evidence"] for each in told}


def explained(shop: Organization, invoice: Json, line: Json) -> Json:
    return done(shop.http.get(f"{API}/invoices/{invoice['id']}/lines/{line['id']}/explain"))


def verified(shop: Organization, customer: str) -> list[Json]:
    """Every invoice of a customer, each of which must be what its events say; oldest first."""
    found = invoices_of(shop, customer)
    for invoice in found:
        report = verify(shop, invoice)
        proofs = evidence_of(shop, invoice)
        for line, told in zip(invoice["lineItems"], report["lines"], strict=True):
            proven(shop, invoice, line, proofs[line["id"]], told["events"])
    return found


def verify(shop: Organization, invoice: Json) -> Json:
    report = done(shop.http.post(f"{API}/invoices/{invoice['id']}/verify"))
    assert (report["status"], report["firstDifference"], report["differences"]) == ("verified", None, [])
    assert [each["lineId"] for each in report["lines"]] == [each["id"] for each in invoice["lineItems"]]
    assert all((each["status"], each["differences"]) == ("verified", []) for each in report["lines"])
    assert sum(each["events"] for each in report["lines"]) == report["events"]
    assert invoice["total"] == sum(each["amount"] for each in invoice["lineItems"])
    return report


def proven(shop: Organization, invoice: Json, line: Json, proof: Json, count: int) -> None:
    """A line's events, evidence and explanation tell one story."""
    told = explained(shop, invoice, line)
    assert (told["id"], told["invoiceId"], told["amount"]) == (line["id"], invoice["id"], line["amount"])
    assert (told["text"], told["evidence"]) == (" ".join(told["sentences"]), proof)
    assert told["sentences"]
    assert told["eventsKept"] == count
    money = f"{Decimal(line['amount']).scaleb(-2):.2f} {invoice['currency']}"
    assert money in told["sentences"][-1]
    for sentence in told["sentences"]:
        assert sentence[0].isupper() or sentence[0].isdigit(), sentence
        assert sentence.endswith("."), sentence
        assert "None" not in sentence and "{" not in sentence, sentence
    if line["lineType"] == "plan_base":
        return
    listed, summary = events_of(shop, invoice, line)
    assert (len(listed), summary["events"]) == (count, count)
    assert [each["ts"] for each in listed] == sorted(each["ts"] for each in listed)
    parts = [
        (Decimal(each["quantity"]), Decimal(each["unitAmount"]), Decimal(each["amount"]))
        for each in proof["components"]
    ]
    assert [quantity * rate for quantity, rate, _ in parts] == [amount for *_, amount in parts]
    for part in proof["components"]:
        assert any(f"{part['quantity']} × {part['unitAmount']}" in each for each in told["sentences"])
    if proof["part"] != "difference":
        assert sum(amount for *_, amount in parts) == Decimal(proof["exact"])
    if proof["part"] == "overdraft":
        return
    if proof["part"] != "minimum":
        assert summary["quantity"] == line["usedDecimal"]
        assert proof["events"]["count"] == count
        match proof["meter"]:
            case {"aggregation": "count"}:
                assert line["usedDecimal"] == str(count)
            case {"aggregation": "sum", "aggregationProperty": None}:
                assert Decimal(line["usedDecimal"]) == sum(Decimal(each["valueDecimal"]) for each in listed)


def late_events(shop: Organization, customer: str) -> list[Json]:
    """All late events of a customer, in the order they arrived."""
    page = done(shop.http.get(f"{API}/usage/late-events", params={"customerId": customer, "limit": "100"}))
    assert not page["hasMore"]
    found: list[Json] = page["data"]
    return found[::-1]


def preview(shop: Organization, price: Json, **asked: Any) -> Json:
    return done(shop.http.post(f"{API}/rating/preview", json={"price": price, **asked}))
