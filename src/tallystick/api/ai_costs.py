"""What AI calls cost: what the providers ask, the margin, and what customers paid (behaviour.md §8)."""

from datetime import date
from typing import Any, Final
from uuid import UUID

from tallystick.api.customers import find as find_customer
from tallystick.api.operations import Call, Operation, Reply
from tallystick.api.usage import named
from tallystick.api.usage_summary import instant
from tallystick.api.wire import Out
from tallystick.core import limits
from tallystick.core.money import text
from tallystick.core.times import Period, is_zone, show_instant
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.store import ai_costs, catalog
from tallystick.store.ai_costs import Summed

_FIELDS: Final = {"model": "model", "feature": "featureCode", "customer": "customerId", "day": "day"}


class AiCostGroup(Out, kw_only=True):
    """Costs in rate units (10000 = 1.00), each event's rounded up; `revenue_exact` in major units, not rounded."""

    group: dict[str, str]
    events: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    provider_cost: int
    margin: int
    revenue: int
    revenue_exact: str


class AiCosts(Out, kw_only=True):
    object: str = "ai_costs"
    start: str
    end: str
    timezone: str
    currency: str
    group_by: list[str]
    total: AiCostGroup | None
    groups: list[AiCostGroup]
    livemode: bool


async def report(call: Call[None]) -> Reply:
    query = call.query
    errors: list[FieldError] = []
    group_by = query["groupBy"].split(",") if query.get("groupBy") else []
    if not set(group_by) <= _FIELDS.keys() or len(set(group_by)) < len(group_by):
        errors.append(FieldError("groupBy", f"takes each of {', '.join(_FIELDS)} at most once"))
    timezone = query.get("timezone") or call.organization.timezone
    if not is_zone(timezone):
        errors.append(FieldError("timezone", f"{timezone!r} is not an IANA time zone"))
    start, end = instant(query, "start", errors), instant(query, "end", errors)
    if errors:
        raise InvalidRequest(*errors)
    end = end or call.now + limits.FUTURE_MAX
    start = start or end - limits.SUMMARY_DEFAULT
    if start >= end:
        raise InvalidRequest(FieldError("end", "must be later than start"))
    asked: dict[str, Any] = {
        "organization_id": call.organization.id,
        "span": Period(start, end),
        "timezone": timezone,
        "customer_id": (await find_customer(call, query["customerId"])).id
        if query.get("customerId")
        else None,
        "feature_id": await _feature_id(call, query["featureCode"]) if query.get("featureCode") else None,
        "model": query.get("model"),
    }
    totals = await ai_costs.summed(call.conn, **asked, group_by=[], limit=1)
    groups = (
        await ai_costs.summed(call.conn, **asked, group_by=group_by, limit=limits.SUMMARY_GROUPS_MAX + 1)
        if group_by
        else []
    )
    if len(groups) > limits.SUMMARY_GROUPS_MAX:
        raise InvalidRequest(
            FieldError(
                "groupBy",
                f"makes more than {limits.SUMMARY_GROUPS_MAX} groups; narrow the span or the filters",
            )
        )
    people = await named(call, {each for found in groups for each in found.group if isinstance(each, UUID)})
    return Reply(
        AiCosts(
            start=show_instant(start),
            end=show_instant(end),
            timezone=timezone,
            currency=call.organization.currency,
            group_by=group_by,
            total=_show(totals[0], [], people) if totals else None,
            groups=[_show(each, group_by, people) for each in groups],
            livemode=call.live,
        )
    )


async def _feature_id(call: Call[Any], code: str) -> UUID:
    for each in await catalog.features(call.conn, organization_id=call.organization.id):
        if each.code == code:
            return each.id
    raise Problem("feature_not_found", f"There is no feature {code!r}.", param="featureCode")


def _show(summed: Summed, group_by: list[str], people: dict[UUID, str]) -> AiCostGroup:
    return AiCostGroup(
        group={
            _FIELDS[name]: people[value] if isinstance(value, UUID) else _text(value)
            for name, value in zip(group_by, summed.group, strict=True)
        },
        events=summed.events,
        input_tokens=summed.input_tokens,
        output_tokens=summed.output_tokens,
        cache_read_tokens=summed.cache_read_tokens,
        cache_write_tokens=summed.cache_write_tokens,
        provider_cost=summed.provider_cost,
        margin=summed.margin,
        revenue=summed.total,
        revenue_exact=text(summed.exact_total),
    )


def _text(value: date | str) -> str:
    return value.isoformat() if isinstance(value, date) else value


OPERATIONS = (
    Operation(
        name="ai.costs",
        method="GET",
        path="/ai/costs",
        summary="What AI calls cost and brought in: in all, and by model, feature, customer or day",
        resource="usage",
        returns=AiCosts,
        handler=report,
        query=("start", "end", "groupBy", "customerId", "featureCode", "model", "timezone"),
        errors=("customer_not_found", "feature_not_found"),
    ),
)
