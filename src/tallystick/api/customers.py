"""Customers: who is billed (behaviour.md §2)."""

from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from psycopg.errors import UniqueViolation

from tallystick.api import wire
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.wire import MISSING, In, Maybe, Out
from tallystick.core import ids, limits
from tallystick.core.times import is_zone, show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.store import customers, db
from tallystick.store.customers import Customer
from tallystick.store.db import new_id

Email = Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+$(?!\n)", max_length=limits.EMAIL_CHARS_MAX)]
Reference = Annotated[str, Meta(min_length=1, max_length=limits.EXTERNAL_ID_CHARS_MAX)]
Name = Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)]
Line = Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)]


class Address(In, kw_only=True):
    line1: Line
    city: Line
    postal_code: Line
    country: Annotated[str, Meta(pattern=r"^[A-Za-z]{2}$(?!\n)")]
    line2: Line | None = None
    state: Line | None = None
    region: Line | None = None


class CreateCustomer(In, kw_only=True):
    email: Email
    id: Reference | None = None
    external_id: Reference | None = None
    full_name: Name | None = None
    tax_document: Name | None = None
    timezone: str | None = None
    metadata: dict[str, Any] | None = None
    address: Address | None = None


class UpdateCustomer(In, kw_only=True):
    email: Email | Maybe = MISSING
    external_id: Reference | None | Maybe = MISSING
    full_name: Name | None | Maybe = MISSING
    tax_document: Name | None | Maybe = MISSING
    timezone: str | None | Maybe = MISSING
    metadata: dict[str, Any] | None | Maybe = MISSING
    address: Address | None | Maybe = MISSING


class CreateCustomers(In, kw_only=True):
    customers: Annotated[list[Any], Meta(min_length=1, max_length=limits.CUSTOMERS_PER_BATCH_MAX)]


class CustomerOut(Out, kw_only=True):
    id: str
    external_id: str | None
    full_name: str | None
    email: str
    tax_document: str | None
    document_type: str | None = None
    timezone: str | None
    metadata: dict[str, Any] | None
    created_at: str
    updated_at: str
    object: str = "customer"
    livemode: bool


class BatchDone(Out, kw_only=True):
    id: str
    external_id: str | None
    email: str


class BatchFailed(Out, kw_only=True):
    index: int
    error: str
    data: Any


class CustomerBatch(Out, kw_only=True):
    successful: list[BatchDone]
    failed: list[BatchFailed]
    object: str = "customer_batch"
    livemode: bool


def show(customer: Customer, *, live: bool) -> CustomerOut:
    return CustomerOut(
        id=ids.show(ids.CUSTOMER, customer.id),
        external_id=customer.external_id,
        full_name=customer.full_name,
        email=customer.email,
        tax_document=customer.tax_document,
        timezone=customer.timezone,
        metadata=customer.metadata,
        created_at=show_instant(customer.created_at),
        updated_at=show_instant(customer.updated_at),
        livemode=live,
    )


async def find(call: Call[Any], reference: str) -> Customer:
    customer = await customers.find(call.conn, organization_id=call.organization.id, reference=reference)
    if customer is None:
        raise Problem("customer_not_found", f"There is no customer {reference!r}.", param="customerId")
    return customer


def _check(timezone: object, metadata: object) -> None:
    if isinstance(timezone, str) and not is_zone(timezone):
        raise InvalidRequest(FieldError("timezone", f"{timezone!r} is not an IANA time zone"))
    wire.bounded_metadata(metadata)


async def _create(call: Call[Any], body: CreateCustomer) -> tuple[Customer, bool]:
    """Idempotent on the caller's id: an existing customer is returned and nothing changes."""
    if body.id is not None and body.external_id is not None and body.id != body.external_id:
        raise InvalidRequest(FieldError("externalId", "disagrees with id"))
    external_id = body.id if body.id is not None else body.external_id
    if external_id is not None and external_id.startswith("cus_"):
        raise InvalidRequest(FieldError("id", "must not begin with cus_, which marks our own ids"))
    _check(body.timezone, body.metadata)
    customer = Customer(
        id=new_id(),
        external_id=external_id,
        email=body.email,
        full_name=body.full_name,
        tax_document=body.tax_document,
        timezone=body.timezone,
        address=msgspec.to_builtins(body.address) if body.address else None,
        metadata=body.metadata if body.metadata is not None else {},
        created_at=call.now,
        updated_at=call.now,
    )
    if await customers.insert(call.conn, organization_id=call.organization.id, customer=customer):
        return customer, True
    assert external_id is not None
    return await find(call, external_id), False


async def create(call: Call[CreateCustomer]) -> Reply:
    customer, new = await _create(call, call.body)
    return Reply(show(customer, live=call.live), 201 if new else 200)


async def create_batch(call: Call[CreateCustomers]) -> Reply:
    """Each stands alone: one that is wrong does not sink the others."""
    done: list[BatchDone] = []
    failed: list[BatchFailed] = []
    for index, raw in enumerate(call.body.customers):
        try:
            if isinstance(raw, dict) and "billingEmail" in raw and "email" not in raw:
                raw["email"] = raw.pop("billingEmail")
            customer, _ = await _create(call, wire.read(raw, CreateCustomer))
        except Problem as problem:
            failed.append(BatchFailed(index=index, error=f"{problem.code}: {problem.message}", data=raw))
            continue
        done.append(
            BatchDone(
                id=ids.show(ids.CUSTOMER, customer.id), external_id=customer.external_id, email=customer.email
            )
        )
    return Reply(CustomerBatch(successful=done, failed=failed, livemode=call.live))


async def get(call: Call[None]) -> Reply:
    return Reply(show(await find(call, call.path["id"]), live=call.live))


async def update(call: Call[UpdateCustomer]) -> Reply:
    """Only what is sent changes. A new time zone counts from the next period on."""
    customer = await find(call, call.path["id"])
    body = call.body
    _check(body.timezone, body.metadata)
    if isinstance(body.external_id, str) and body.external_id.startswith("cus_"):
        raise InvalidRequest(FieldError("externalId", "must not begin with cus_, which marks our own ids"))
    sent: dict[str, Any] = {
        name: value
        for name in ("email", "external_id", "full_name", "tax_document", "timezone", "metadata")
        if (value := getattr(body, name)) is not MISSING
    }
    if body.address is not MISSING:
        sent["address"] = msgspec.to_builtins(body.address)
    customer = replace(customer, **sent, updated_at=call.now)
    try:
        await customers.update(call.conn, organization_id=call.organization.id, customer=customer)
    except UniqueViolation:
        raise Problem("duplicate", "Another customer has this externalId.", param="externalId") from None
    await db.bump(call.conn, organization_id=call.organization.id, customer_id=customer.id)
    return Reply(show(customer, live=call.live))


async def list_all(call: Call[None]) -> Reply:
    limit, before = call.page(ids.CUSTOMER)
    found = await customers.page(
        call.conn,
        organization_id=call.organization.id,
        before=before,
        limit=limit + 1,
        external_id=call.query.get("externalId"),
        search=call.query.get("search"),
    )
    return Reply(page_of([show(each, live=call.live) for each in found], limit, lambda each: str(each.id)))


OPERATIONS = (
    Operation(
        name="customers.create",
        method="POST",
        path="/customers",
        summary="Create a customer, or return the one that has this id",
        resource="customer",
        body=CreateCustomer,
        returns=CustomerOut,
        handler=create,
        status=201,
    ),
    Operation(
        name="customers.createBatch",
        method="POST",
        path="/customers/batch",
        summary="Create up to 100 customers; each stands alone",
        resource="customer",
        body=CreateCustomers,
        returns=CustomerBatch,
        handler=create_batch,
    ),
    Operation(
        name="customers.list",
        method="GET",
        path="/customers",
        summary="List customers, newest first",
        resource="customer",
        returns=Page[CustomerOut],
        handler=list_all,
        query=("limit", "cursor", "externalId", "search"),
    ),
    Operation(
        name="customers.get",
        method="GET",
        path="/customers/{id}",
        summary="Get a customer by public id or by your own",
        resource="customer",
        returns=CustomerOut,
        handler=get,
        errors=("customer_not_found",),
    ),
    Operation(
        name="customers.update",
        method="PATCH",
        path="/customers/{id}",
        summary="Change what is sent, leave the rest",
        resource="customer",
        body=UpdateCustomer,
        returns=CustomerOut,
        handler=update,
        also=(("PUT", "/customers/{id}"),),
        errors=("customer_not_found", "duplicate"),
    ),
)
