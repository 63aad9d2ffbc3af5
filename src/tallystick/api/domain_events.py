"""Domain events: what happened that somebody may want to hear of, with the data that webhooks carry."""

from typing import Any

from tallystick.api.customers import find as find_customer
from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.wire import Out
from tallystick.core import ids
from tallystick.core.times import show_instant
from tallystick.store import customers, domain_events


class DomainEventOut(Out, kw_only=True):
    id: str
    type: str
    customer_id: str | None
    data: dict[str, Any]
    created_at: str
    object: str = "domain_event"
    livemode: bool


async def list_all(call: Call[None]) -> Reply:
    limit, before = call.page(ids.DOMAIN_EVENT)
    reference = call.query.get("customerId")
    customer = None if reference is None else await find_customer(call, reference)
    found = await domain_events.page(
        call.conn,
        organization_id=call.organization.id,
        before=before,
        limit=limit + 1,
        customer_id=customer.id if customer else None,
        type_=call.query.get("type"),
    )
    people = await customers.of_ids(
        call.conn,
        organization_id=call.organization.id,
        customer_ids={each.customer_id for each in found if each.customer_id is not None},
    )
    shown = [
        DomainEventOut(
            id=ids.show(ids.DOMAIN_EVENT, each.id),
            type=each.type,
            customer_id=people[each.customer_id].reference if each.customer_id is not None else None,
            data=each.data,
            created_at=show_instant(each.created_at),
            livemode=call.live,
        )
        for each in found
    ]
    return Reply(page_of(shown, limit, lambda each: str(each.id)))


OPERATIONS = (
    Operation(
        name="domainEvents.list",
        method="GET",
        path="/domain-events",
        summary="What happened, newest first",
        resource="organization",
        returns=Page[DomainEventOut],
        handler=list_all,
        query=("limit", "cursor", "type", "customerId"),
        errors=("customer_not_found",),
    ),
)
