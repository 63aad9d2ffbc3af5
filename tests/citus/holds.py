"""Which tests hold on a Citus cluster too: those are marked `citus`, and `pytest -m citus` runs them there.

TALLYSTICK_TEST_DATABASE_URL=postgresql://… pytest -m citus

Not marked, and why: `flows/test_settle_races` keeps a batch open while it closes, and on a cluster a close waits for it;
`flows/test_tampering` tampers by SQL that Citus refuses (joins that are not by customer, volatile functions in updates);
crashes, faults and a full disk are tried on the embedded PostgreSQL (`citus/test_nodes` has a cluster's own). What is
neither here nor there has not been tried.
"""

from typing import Final

MODULES: Final = frozenset(
    {
        "tests/flows/test_check_usage.py",
        "tests/flows/test_close_sets.py",
        "tests/flows/test_exactly_once.py",
        "tests/flows/test_key_generations.py",
        "tests/flows/test_limits.py",
        "tests/flows/test_pay_in_short.py",
        "tests/flows/test_wallet_races.py",
        "tests/scenarios/test_ai_costs.py",
        "tests/scenarios/test_check.py",
        "tests/scenarios/test_corrections.py",
        "tests/scenarios/test_late_events.py",
        "tests/scenarios/test_overdraft.py",
        "tests/scenarios/test_periods.py",
        "tests/scenarios/test_purchases.py",
        "tests/scenarios/test_reconcile.py",
        "tests/scenarios/test_reservations.py",
        "tests/scenarios/test_retention.py",
        "tests/scenarios/test_usage_summary.py",
        "tests/scenarios/test_verify_command.py",
        "tests/scenarios/test_wire.py",
    }
)
"""Whole files."""

BUT: Final[dict[str, str]] = {
    "test_a_customer_and_a_span_are_looked_for_in_their_month_alone": "reads the plan of a table that is on one node",
    "test_the_server_freezes_what_is_large_and_builds_its_filter": (
        "empty pages of all shards are a good part of its generation, which is followed before it has keys to count"
    ),
    "test_a_filter_that_was_made_while_its_generation_filled_misses_no_key": (
        "shards do not grow with their keys as it counts on"
    ),
    "test_what_was_not_there_yet_when_a_filter_was_begun_is_told_later": "a cluster is read after the freeze, all of it",
}
"""Not these of them: the test's name (without parameters), and why."""
