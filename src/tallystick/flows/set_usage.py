"""Set a total: a signed adjustment is stored beside the events, which stay as they were (behaviour.md §6.8)."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from tallystick.core.catalog import FeatureType
from tallystick.core.events import StoredEvent, UsageEvent
from tallystick.core.meters import in_force
from tallystick.errors import FieldError, InvalidRequest, Problem
from tallystick.flows.books import Books
from tallystick.flows.check_access import access_to, held
from tallystick.flows.drafts import Accepted, Draft
from tallystick.flows.ingest import ingest
from tallystick.store import customers
from tallystick.store.db import Conn


@dataclass(frozen=True, slots=True)
class Adjusted:
    event: StoredEvent
    previous: Decimal
    reference: str


async def set_usage(
    conn: Conn,
    books: Books,
    *,
    organization_id: UUID,
    reference: str,
    feature_code: str,
    value: Decimal,
    reason: str | None,
    key: str | None,
    now: datetime,
    wall: datetime,
) -> Adjusted:
    """Make the current period's total `value`. Part of the caller's transaction."""
    holding = await held(conn, books, organization_id=organization_id, reference=reference, now=now)
    feature = None
    if holding is not None:
        await customers.lock(conn, organization_id=organization_id, customer_id=holding.customer_id)
        feature = holding.catalogue.features.get(feature_code)
    if holding is None:
        raise Problem("no_active_subscription")
    if feature is None:
        raise Problem("feature_not_found", f"There is no feature {feature_code!r}.", param="featureCode")
    if feature.type is not FeatureType.USAGE:
        raise InvalidRequest(FieldError("featureCode", f"{feature_code!r} has no usage"))
    meter = in_force(holding.catalogue.versions[feature.id], holding.period.start)
    if not meter.adds_up:
        raise InvalidRequest(
            FieldError(
                "featureCode",
                f"a total of {meter.aggregation} values cannot be set; only sums and counts can",
            )
        )
    access = await access_to(conn, holding, feature)
    if access is None:
        raise Problem("feature_not_in_plan", param="featureCode")
    if not access.terms.enabled:
        raise Problem("feature_disabled", param="featureCode")
    event = UsageEvent(feature=meter.event_code, customer=reference, value=value - access.used, key=key)
    draft = Draft(event, adjusts=meter, reason=reason)
    (outcome,) = await ingest(conn, books, organization_id, [draft], wall=wall)
    if not isinstance(outcome, Accepted):
        raise outcome
    return Adjusted(outcome.event, access.used, outcome.reference)
