"""The table of operations: every route there is, in order of matching."""

from typing import Final

from tallystick.api import (
    access,
    ai_costs,
    ai_models,
    ai_prices,
    api_keys,
    check_routes,
    corrections,
    credit_packs,
    customers,
    domain_events,
    features,
    invoices,
    late_events,
    ledger,
    plan_features,
    plan_prices,
    plans,
    proofs,
    purchases,
    rating,
    reservations,
    simulations,
    subscriptions,
    test_clock,
    transactions,
    upcoming,
    usage,
    usage_summary,
)
from tallystick.api.operations import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (
    *customers.OPERATIONS,
    *features.OPERATIONS,
    *plans.OPERATIONS,
    *plan_prices.OPERATIONS,
    *plan_features.OPERATIONS,
    *rating.OPERATIONS,
    *subscriptions.OPERATIONS,
    *upcoming.OPERATIONS,
    *credit_packs.OPERATIONS,
    *purchases.OPERATIONS,
    *ledger.OPERATIONS,
    *late_events.OPERATIONS,
    *corrections.OPERATIONS,
    *check_routes.OPERATIONS,
    *usage.OPERATIONS,
    *usage_summary.OPERATIONS,
    *reservations.OPERATIONS,
    *access.OPERATIONS,
    *invoices.OPERATIONS,
    *proofs.OPERATIONS,
    *simulations.OPERATIONS,
    *transactions.OPERATIONS,
    *ai_models.OPERATIONS,
    *ai_prices.OPERATIONS,
    *ai_costs.OPERATIONS,
    *domain_events.OPERATIONS,
    *test_clock.OPERATIONS,
    *api_keys.OPERATIONS,
)

CHECK: Final = "/usage/check"
TRACK: Final = "/usage/events"
TRACK_BATCH: Final = "/usage/events/batch"
TRACK_BULK: Final = "/usage/events/bulk"
TRACK_STREAM: Final = "/usage/events/stream"
CLOUD_EVENTS: Final = "/events"
PREFIXES: Final = ("/api/v1", "/api")
"""The current prefix, and the one from before there were versions."""
