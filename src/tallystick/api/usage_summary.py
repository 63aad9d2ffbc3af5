"""Usage summaries: what a usage chart is drawn from, and what an invoice line can be compared with."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tallystick.api.operations import Call, Operation, Reply
from tallystick.api.wire import MISSING, Maybe, Out
from tallystick.core import limits
from tallystick.core.meters import Total
from tallystick.core.money import text
from tallystick.core.times import is_zone, parse_instant, show_instant
from tallystick.core.windows import Window
from tallystick.errors import FieldError, InvalidRequest
from tallystick.flows.summarize_usage import Question, summarize_usage
from tallystick.store.measuring import Group


class UsageTotal(Out, kw_only=True):
    quantity: str
    events: int


class UsageGroup(Out, kw_only=True):
    group: dict[str, str | None]
    quantity: str
    events: int


class UsageWindow(Out, kw_only=True):
    start: str
    end: str
    quantity: str
    events: int
    groups: list[UsageGroup] | Maybe = MISSING


class UsageSummary(Out, kw_only=True):
    object: str = "usage_summary"
    feature_code: str
    customer_id: str
    aggregation: str
    timezone: str
    start: str
    end: str
    window: str | None
    group_by: list[str]
    total: UsageTotal
    groups: list[UsageGroup]
    series: list[UsageWindow]
    livemode: bool


async def summary(call: Call[None]) -> Reply:
    question = _question(call)
    found = await summarize_usage(
        call.conn,
        call.services.books,
        organization_id=call.organization.id,
        question=question,
        now=call.now,
    )
    names = question.group_by
    return Reply(
        UsageSummary(
            feature_code=question.feature_code,
            customer_id=found.reference,
            aggregation=found.aggregation.value,
            timezone=found.zone,
            start=show_instant(found.span.start),
            end=show_instant(found.span.end),
            window=question.window.value if question.window else None,
            group_by=list(names),
            total=UsageTotal(quantity=text(found.total.quantity), events=found.total.events),
            groups=_groups(names, found.groups),
            series=[
                UsageWindow(
                    start=show_instant(piece.window.start),
                    end=show_instant(piece.window.end),
                    quantity=text(piece.usage.quantity),
                    events=piece.usage.events,
                    groups=_groups(names, piece.groups) if names else MISSING,
                )
                for piece in found.series
            ],
            livemode=call.live,
        )
    )


def _groups(names: Sequence[str], found: Sequence[tuple[Group, Total]]) -> list[UsageGroup]:
    return [
        UsageGroup(
            group=dict(zip(names, group, strict=True)), quantity=text(usage.quantity), events=usage.events
        )
        for group, usage in found
    ]


def _question(call: Call[Any]) -> Question:
    """The query, or every field of it that is wrong."""
    errors: list[FieldError] = []
    query = call.query
    feature = query.get("featureCode") or query.get("feature") or query.get("eventType")
    if not feature:
        errors.append(FieldError("featureCode", "is required"))
    reference = query.get("customerId") or query.get("externalId")
    if not reference:
        errors.append(FieldError("customerId", "is required"))
    window = query.get("window")
    if window is not None and window not in list(Window):
        errors.append(FieldError("window", f"must be one of {', '.join(Window)}"))
    zone = query.get("timezone")
    if zone is not None and not is_zone(zone):
        errors.append(FieldError("timezone", f"{zone!r} is not an IANA time zone"))
    start, end = instant(query, "start", errors), instant(query, "end", errors)
    group_by = _properties(query.get("groupBy"), errors)
    if errors:
        raise InvalidRequest(*errors)
    return Question(
        reference=reference or "",
        feature_code=feature or "",
        start=start,
        end=end,
        window=Window(window) if window is not None else None,
        zone=zone,
        group_by=group_by,
    )


def instant(query: Mapping[str, str], name: str, errors: list[FieldError]) -> datetime | None:
    """An instant of a query; one that is none joins the errors."""
    given = query.get(name)
    if given is None:
        return None
    found = parse_instant(given)
    if found is None:
        errors.append(FieldError(name, "must be an ISO 8601 date and time"))
    elif found.year > limits.YEAR_MAX:
        errors.append(FieldError(name, f"lies behind the year {limits.YEAR_MAX}"))
    return found


def _properties(given: str | None, errors: list[FieldError]) -> tuple[str, ...]:
    """Names of properties, parted by commas."""
    if given is None:
        return ()
    names = tuple(given.split(","))
    if not all(0 < len(name) <= limits.PROPERTY_NAME_CHARS_MAX for name in names):
        errors.append(
            FieldError("groupBy", f"a property's name has 1 to {limits.PROPERTY_NAME_CHARS_MAX} characters")
        )
    elif len(names) > limits.SUMMARY_GROUP_BY_MAX:
        errors.append(FieldError("groupBy", f"takes at most {limits.SUMMARY_GROUP_BY_MAX} properties"))
    elif len(set(names)) < len(names):
        errors.append(FieldError("groupBy", "names a property twice"))
    return names


OPERATIONS = (
    Operation(
        name="usage.summary",
        method="GET",
        path="/usage/summary",
        summary="What a customer used of a feature: in all, by windows of time, by properties",
        resource="usage",
        returns=UsageSummary,
        handler=summary,
        query=("customerId", "featureCode", "start", "end", "window", "groupBy", "timezone"),
        requires=("customerId", "featureCode"),
        errors=("customer_not_found", "feature_not_found"),
    ),
)
