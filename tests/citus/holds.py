"""Which tests hold on a Citus cluster too: those are marked `citus`, and `pytest -m citus` runs them there.

TALLYSTICK_TEST_DATABASE_URL=postgresql://… pytest -m citus
"""

from typing import Final

MODULES: Final = frozenset(
    {
        "tests/scenarios/test_wire.py",
        "tests/scenarios/test_check.py",
        "tests/scenarios/test_usage_summary.py",
        "tests/scenarios/test_periods.py",
        "tests/flows/test_exactly_once.py",
    }
)
"""Whole files."""

BUT: Final[dict[str, str]] = {}
"""Not these of them: the test's name (without parameters), and why."""
