"""Tamper with the database in a transaction that is undone, and hear what verify says of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tallystick.flows.read_usage import reading_one_by_one
from tallystick.flows.verify import InvoiceReport, verify_invoice
from tallystick.flows.verify_chain import verify_chain, verify_keys
from tallystick.flows.verify_many import verify_some
from tallystick.store import invoices, organizations
from tallystick.store.db import CONNECTION, Conn, connect, rows
from tallystick.store.invoices import ToVerify
from tallystick.store.organizations import Organization as Stored
from tests.audit import organization_id
from tests.conftest import Organization


@dataclass
class Business:
    """The story, told once, and what is in the database because of it."""

    database_url: str
    shop: Organization
    other: Organization

    def select(self, query: Any, *params: object) -> list[tuple[Any, ...]]:
        async def act(conn: Conn) -> list[tuple[Any, ...]]:
            return list(await rows(conn, query, params))

        found: list[tuple[Any, ...]] = self.within(act)
        return found

    def within(self, act: Callable[[Conn], Any]) -> Any:
        """Do something in a transaction that is undone."""

        async def inside() -> Any:
            async with (
                await connect(self.database_url, CONNECTION) as conn,
                conn.transaction(force_rollback=True),
            ):
                return await act(conn)

        return asyncio.run(inside())

    def find(self, tamper: Callable[[Conn], Any] | None = None) -> list[str]:
        """Everything that `verify --all` would say of the organization; both ways of looking must agree."""

        async def act(conn: Conn) -> list[str]:
            if tamper is not None:
                await tamper(conn)
            told = await _everything(conn, organization_id(self.shop), one_by_one=False)
            assert told == await _everything(conn, organization_id(self.shop), one_by_one=True)
            return told

        found: list[str] = self.within(act)
        return found

    def changed(self, query: Any, *params: object) -> list[str]:
        async def tamper(conn: Conn) -> None:
            cursor = await conn.execute(query, params)
            assert cursor.rowcount == 1

        return self.find(tamper)

    def verify(self, invoice: int, query: Any, *params: object, chain: bool = True) -> InvoiceReport:
        """One invoice alone, as the API does it."""

        async def act(conn: Conn) -> InvoiceReport:
            await conn.execute(query, params)
            organization = await _organization(conn, organization_id(self.shop))
            ((identity,),) = await rows(
                conn,
                "SELECT id FROM invoices WHERE organization_id = %s AND number = %s",
                (organization.id, invoice),
            )
            found = await invoices.get(conn, organization_id=organization.id, invoice_id=identity)
            assert found is not None
            return await verify_invoice(conn, organization, found, chain=chain)

        found: InvoiceReport = self.within(act)
        return found

    def event(self, customer: str, key: str | None, feature: str = "api_calls") -> UUID:
        found = self.select(
            """SELECT e.id FROM events e JOIN customers c ON c.id = e.customer_id
                WHERE c.organization_id = %s AND c.external_id = %s AND e.feature_code = %s AND e.voids IS NULL
                  AND e.event_key IS NOT DISTINCT FROM %s AND e.adjusts IS NULL ORDER BY e.id LIMIT 1""",
            organization_id(self.shop),
            customer,
            feature,
            key,
        )
        identity: UUID = found[0][0]
        return identity

    def where(self, event: UUID) -> str:
        """batch 7, position 4, place 2 of 5"""
        ((batch, position, place, count),) = self.select(
            """SELECT b.batch, b.position,
                      (SELECT count(*) FROM events o WHERE o.batch = e.batch AND o.id <= e.id), b.events
                 FROM events e JOIN ingest_batches b ON b.batch = e.batch WHERE e.id = %s""",
            event,
        )
        return f"batch {batch}, position {position}, place {place} of {count}"

    def keyless(self) -> UUID:
        """The second of three events that came together and without keys."""
        found = self.select(
            """SELECT e.id FROM events e JOIN ingest_batches b ON b.batch = e.batch
                WHERE b.organization_id = %s AND b.events = 3 AND e.event_key IS NULL ORDER BY e.id OFFSET 1 LIMIT 1""",
            organization_id(self.shop),
        )
        identity: UUID = found[0][0]
        return identity


async def _organization(conn: Conn, identity: UUID) -> Stored:
    found = await organizations.get(conn, organization_id=identity)
    assert found is not None
    return found


async def _everything(conn: Conn, identity: UUID, *, one_by_one: bool) -> list[str]:
    organization = await _organization(conn, identity)
    chain = await verify_chain(conn, organization, one_by_one=one_by_one)
    told = [*chain.differences, *await verify_keys(conn, organization, told=chain.named)]
    found = await rows(
        conn,
        "SELECT id, number, customer_id FROM invoices WHERE organization_id = %s ORDER BY number",
        (identity,),
    )
    if not one_by_one:  # all of them in one bundle
        wanted = [ToVerify(invoice_id, identity, customer_id, 0) for invoice_id, _, customer_id in found]
        numbers = {invoice_id: number for invoice_id, number, _ in found}
        reports = sorted(await verify_some(conn, wanted), key=lambda each: numbers[each.invoice_id])
        return told + [
            f"{numbers[each.invoice_id]}: {words}" for each in reports for _, words in each.differences
        ]
    for invoice_id, number, _ in found:
        invoice = await invoices.get(conn, organization_id=identity, invoice_id=invoice_id)
        assert invoice is not None
        report = await verify_invoice(conn, organization, invoice, read=reading_one_by_one(conn), chain=False)
        told += [f"{number}: {each}" for each in report.all_differences]
    return told
