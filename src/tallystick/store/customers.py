"""Customers, and how they stand: which subscriptions they hold or held."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from tallystick.core import ids
from tallystick.core.subscriptions import USABLE, Life, Standing, Status
from tallystick.core.times import Anchor
from tallystick.store.db import Conn, rows

_CUSTOMER = (
    "id, external_id, email, full_name, tax_document, timezone, address, metadata, created_at, updated_at"
)


@dataclass(frozen=True, slots=True)
class Customer:
    id: UUID
    external_id: str | None
    email: str
    full_name: str | None
    tax_document: str | None
    timezone: str | None
    address: dict[str, Any] | None
    metadata: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime

    @property
    def reference(self) -> str:
        """How answers name this customer: the caller's id if there is one, else the public id."""
        return self.external_id or ids.show(ids.CUSTOMER, self.id)


async def insert(conn: Conn, *, organization_id: UUID, customer: Customer) -> bool:
    """False when the external id is taken."""
    cursor = await conn.execute(
        """INSERT INTO customers (id, organization_id, external_id, email, full_name, tax_document, timezone,
                                  address, metadata, created_at, updated_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (organization_id, external_id) DO NOTHING""",
        (
            customer.id,
            organization_id,
            customer.external_id,
            customer.email,
            customer.full_name,
            customer.tax_document,
            customer.timezone,
            Jsonb(customer.address) if customer.address is not None else None,
            Jsonb(customer.metadata) if customer.metadata is not None else None,
            customer.created_at,
            customer.updated_at,
        ),
    )
    return cursor.rowcount == 1


async def find(conn: Conn, *, organization_id: UUID, reference: str) -> Customer | None:
    """By public id (anything that starts with cus_) or by the caller's own id."""
    public = ids.read(ids.CUSTOMER, reference) if reference.startswith("cus_") else None
    if reference.startswith("cus_") and public is None:
        return None
    async with conn.cursor(row_factory=class_row(Customer)) as cursor:
        if public is not None:
            await cursor.execute(
                f"SELECT {_CUSTOMER} FROM customers WHERE organization_id = %s AND id = %s",
                (organization_id, public),
            )
        else:
            await cursor.execute(
                f"SELECT {_CUSTOMER} FROM customers WHERE organization_id = %s AND external_id = %s",
                (organization_id, reference),
            )
        return await cursor.fetchone()


async def of_ids(conn: Conn, *, organization_id: UUID, customer_ids: set[UUID]) -> dict[UUID, Customer]:
    async with conn.cursor(row_factory=class_row(Customer)) as cursor:
        await cursor.execute(
            f"SELECT {_CUSTOMER} FROM customers WHERE organization_id = %s AND id = ANY(%s)",
            (organization_id, list(customer_ids)),
        )
        return {each.id: each for each in await cursor.fetchall()}


async def page(
    conn: Conn,
    *,
    organization_id: UUID,
    before: UUID | None,
    limit: int,
    external_id: str | None = None,
    search: str | None = None,
) -> list[Customer]:
    """Newest first."""
    async with conn.cursor(row_factory=class_row(Customer)) as cursor:
        await cursor.execute(
            f"""SELECT {_CUSTOMER} FROM customers
                 WHERE organization_id = %(organization)s
                   AND (%(before)s::uuid IS NULL OR id < %(before)s)
                   AND (%(external)s::text IS NULL OR external_id = %(external)s)
                   AND (%(search)s::text IS NULL OR strpos(lower(email), lower(%(search)s)) > 0
                        OR strpos(lower(coalesce(full_name, '')), lower(%(search)s)) > 0)
                 ORDER BY id DESC LIMIT %(limit)s""",
            {
                "organization": organization_id,
                "before": before,
                "limit": limit,
                "external": external_id,
                "search": search,
            },
        )
        return await cursor.fetchall()


async def identities(conn: Conn, *, organization_id: UUID, references: list[str]) -> dict[str, UUID]:
    """Who these references name; what names nobody is absent."""
    public = {named: each for each in references if (named := ids.read(ids.CUSTOMER, each)) is not None}
    external = {each for each in references if not each.startswith("cus_")}
    found = await rows(
        conn,
        """SELECT id, external_id FROM customers
            WHERE organization_id = %s AND (id = ANY(%s) OR external_id = ANY(%s))""",
        (organization_id, list(public), list(external)),
    )
    by_id = {public[each[0]]: each[0] for each in found if each[0] in public}
    return by_id | {each[1]: each[0] for each in found if each[1] in external}


async def update(conn: Conn, *, organization_id: UUID, customer: Customer) -> None:
    """Raises UniqueViolation when the external id belongs to somebody else."""
    await conn.execute(
        """UPDATE customers SET external_id = %s, email = %s, full_name = %s, tax_document = %s, timezone = %s,
                  address = %s, metadata = %s, updated_at = %s
            WHERE id = %s AND organization_id = %s""",
        (
            customer.external_id,
            customer.email,
            customer.full_name,
            customer.tax_document,
            customer.timezone,
            Jsonb(customer.address) if customer.address is not None else None,
            Jsonb(customer.metadata) if customer.metadata is not None else None,
            customer.updated_at,
            customer.id,
            organization_id,
        ),
    )


async def lock(conn: Conn, *, organization_id: UUID, customer_id: UUID) -> None:
    """What changes a customer's standing happens one after the other."""
    await conn.execute(
        "SELECT FROM customers WHERE id = %s AND organization_id = %s FOR NO KEY UPDATE",
        (customer_id, organization_id),
    )


async def standings(conn: Conn, *, organization_id: UUID, references: list[str]) -> dict[str, Standing]:
    """How the customers named by these references stand; unknown references are absent."""
    public = {named: each for each in references if (named := ids.read(ids.CUSTOMER, each)) is not None}
    external = [each for each in references if not each.startswith("cus_")]
    found = await rows(
        conn,
        """SELECT c.id, c.external_id, s.id, s.plan_id, s.status, s.anchor_at, s.anchor_day,
                  s.billing_interval, s.timezone, s.ended_at, s.cancel_at, s.zones, s.price_id
             FROM customers c LEFT JOIN subscriptions s ON s.customer_id = c.id AND s.anchor_at IS NOT NULL
            WHERE c.organization_id = %s AND (c.id = ANY(%s) OR c.external_id = ANY(%s))
            ORDER BY c.id, s.id DESC""",
        (organization_id, list(public), external),
    )
    people: dict[UUID, tuple[str | None, list[Life]]] = {}
    for each in found:
        lives = people.setdefault(each[0], (each[1], []))[1]
        if each[2] is not None:
            lives.append(
                Life(
                    subscription_id=each[2],
                    plan_id=each[3],
                    status=Status(each[4]),
                    anchor=Anchor(
                        each[5],
                        each[6],
                        each[7] == "weekly",
                        tuple((first, zone) for first, zone in each[11]),
                    ),
                    zone=each[8],
                    ends_at=each[9] or each[10],
                    price_id=each[12],
                )
            )
    asked = set(references)
    answer: dict[str, Standing] = {}
    for customer_id, (external_id, lives) in people.items():
        standing = Standing(
            customer_id,
            external_id or ids.show(ids.CUSTOMER, customer_id),
            next((life for life in lives if life.status in USABLE), None),
            tuple(life for life in lives if life.status is Status.CANCELED),
        )
        if customer_id in public:
            answer[public[customer_id]] = standing
        if external_id is not None and external_id in asked:
            answer[external_id] = standing
    return answer
