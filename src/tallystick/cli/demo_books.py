"""What became of the demo's customers, as anybody can read it from the API, and how it is shown."""

from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from tallystick.cli import terminal
from tallystick.cli.demo_http import Caller
from tallystick.web.format import money


@dataclass(slots=True)
class Account:
    """One customer: what they hold and what it came to. Amounts in minor units."""

    customer: str
    timezone: str | None
    plan: str = ""
    invoices: int = 0
    invoiced: int = 0
    owed: int = 0


@dataclass(frozen=True, slots=True)
class Books:
    currency: str
    accounts: list[Account]
    example: dict[str, str] | None  # an invoice with a usage line, to look into

    @property
    def invoices(self) -> int:
        return sum(each.invoices for each in self.accounts)

    @property
    def invoiced(self) -> int:
        return sum(each.invoiced for each in self.accounts)

    @property
    def owed(self) -> int:
        return sum(each.owed for each in self.accounts)

    def to_json(self) -> dict[str, Any]:
        return {
            "currency": self.currency,
            "invoices": self.invoices,
            "invoiced": self.invoiced,
            "owed": self.owed,
            "customers": [asdict(each) for each in self.accounts],
        }


def read(api: Caller) -> Books:
    customers = api.every("/customers")
    accounts = {each["externalId"]: Account(each["externalId"], each["timezone"]) for each in customers}
    for each in api.get("/subscriptions")["data"]:
        accounts[each["customerId"]].plan = each["plan"]["name"]
    totals: dict[str, int] = {}
    currency = "USD"
    for invoice in api.every("/invoices"):
        account = accounts[invoice["customerId"]]
        account.invoices += 1
        account.invoiced += invoice["total"]
        account.owed += invoice["total"] if invoice["status"] == "outstanding" else 0
        totals[invoice["id"]] = invoice["total"]
        currency = invoice["currency"]
    ranked = sorted(accounts.values(), key=lambda each: (-each.invoiced, each.customer))
    return Books(currency, ranked, _example(api, max(totals, key=lambda each: totals[each], default=None)))


def _example(api: Caller, invoice_id: str | None) -> dict[str, str] | None:
    """The greatest invoice and the first of its lines that bills usage."""
    if invoice_id is None:
        return None
    for line in api.get(f"/invoices/{invoice_id}")["lineItems"]:
        if line["lineType"] == "feature_overage":
            path = f"/api/v1/invoices/{invoice_id}"
            return {
                "invoice": path,
                "events": f"{path}/lines/{line['id']}/events",
                "evidence": f"{path}/evidence",
            }
    return None


def show(books: Books, base_url: str, api_key: str) -> None:
    table = Table(title="What each customer was invoiced, and still owes", box=box.SIMPLE_HEAD)
    for name in ("customer", "time zone", "plan"):
        table.add_column(name, no_wrap=True)
    for name in ("invoices", "invoiced", "owed"):
        table.add_column(name, justify="right")
    for each in books.accounts:
        owed = money(each.owed, books.currency) if each.owed else ""
        invoiced = money(each.invoiced, books.currency) if each.invoices else ""
        table.add_row(
            each.customer, each.timezone, each.plan, str(each.invoices or ""), invoiced, f"[red]{owed}[/]"
        )
    table.add_section()
    table.add_row(
        "all",
        "",
        "",
        str(books.invoices),
        money(books.invoiced, books.currency),
        money(books.owed, books.currency),
    )
    terminal.people.print(table)
    terminal.say(f"\n  API reference  {base_url}/api/reference")
    _show_command("All invoices", f"{base_url}/api/v1/invoices", api_key)
    if books.example is not None:
        _show_command("The greatest one, with its lines", base_url + books.example["invoice"], api_key)
        _show_command(
            "The very events behind one of its usage lines", base_url + books.example["events"], api_key
        )
        _show_command("What makes each line re-derivable", base_url + books.example["evidence"], api_key)


def _show_command(what: str, url: str, api_key: str) -> None:
    terminal.say(f"\n[dim]# {what}[/]")
    terminal.people.print(f"curl -s -H 'x-api-key: {api_key}' {url}", soft_wrap=True, markup=False)
