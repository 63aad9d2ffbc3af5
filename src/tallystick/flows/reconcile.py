"""Reconcile: what must be true of the books, rule by rule, each with the first who break it.

The rules are asked of one organization at a time, under one snapshot, beside whatever goes on. They look behind
every shortcut: rollups, counters, keys and totals are kept so that reading is fast, and events decide.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Final
from uuid import UUID

import psycopg

from tallystick.core import ids
from tallystick.core.catalog import Catalogue, stretches
from tallystick.core.evidence import frozen_components
from tallystick.core.invoicing import Part
from tallystick.core.meters import Aggregation, Meter, in_force
from tallystick.core.money import ZERO, text, to_minor
from tallystick.core.pricing import total
from tallystick.core.subscriptions import Life, Status
from tallystick.core.times import show_instant
from tallystick.flows.books import load_catalogue
from tallystick.flows.measure_usage import measure_usage
from tallystick.flows.verify_chain import verify_chain, verify_keys
from tallystick.store import organizations, proving, subscriptions
from tallystick.store import reconcile as store
from tallystick.store.db import Conn, Database
from tallystick.store.organizations import Organization
from tallystick.store.reconcile import FIRST_MAX, UsageLine

OVERDUE_AFTER: Final = timedelta(hours=1)
"""Sweeps come every few seconds, and what failed is tried again every hour."""


@dataclass(slots=True)
class Finding:
    """How many break a rule, and the first of them in words."""

    rule: str
    promise: str
    offenders: int = 0
    first: list[str] = None  # type: ignore[assignment]
