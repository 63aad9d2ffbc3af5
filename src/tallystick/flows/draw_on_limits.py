"""Hard limits: how much of each is used, held while a batch is decided, and kept as the batch leaves it."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from tallystick.core.admission import Limit, limit_reached
from tallystick.core.meters import Aggregation, Fold, Measured, Meter, fold, merge
from tallystick.core.windows import Ruled
from tallystick.errors import Problem
from tallystick.flows.drafts import Work
from tallystick.flows.measure_usage import measure_usage
from tallystick.store import measuring, usage
from tallystick.store.db import Conn
from tallystick.store.usage import CounterKey


class Limits:
    """The counters that a batch draws on, locked."""

    def __init__(self, drawn: dict[CounterKey, "Drawn"]) -> None:
        self._drawn = drawn

    @classmethod
    async def held(cls, conn: Conn, drawing: Sequence[Work]) -> "Limits":
        """Lock the counters, in one order; what was never counted is measured."""
        spans, values = _wanted(drawing)
        if not spans:
            return cls({})
        await usage.counting(conn, customers={key.customer_id for key in spans})
        counters = await usage.lock_counters(conn, keys=list(spans))
        drawn: dict[CounterKey, Drawn] = {}
        for key, limit in spans.items():
            used = counters[key] if _is_told_by_counter(limit) else None
            drawn[key] = await measured(conn, key.customer_id, limit, used=used, values=values[key])
        return cls(drawn)

    async def foresee(self, conn: Conn, drawing: Sequence[Work]) -> None:
        """Look up what these draw on as well, and lock nothing; what was drawn on before stays as it was left."""
        spans, values = _wanted(drawing)
        unknown = [key for key in spans if key not in self._drawn]
        counters = await usage.counted(conn, keys=unknown) if unknown else {}
        for key, limit in spans.items():
            drawn = self._drawn.get(key)
            if drawn is None:
                used = counters.get(key) if _is_told_by_counter(limit) else None
                drawn = await measured(conn, key.customer_id, limit, used=used, values=values[key])
            elif new := values[key] - drawn.met:
                found = await measured(conn, key.customer_id, limit, used=drawn.used, values=new)
                drawn = replace(drawn, met=drawn.met | found.met)
            self._drawn[key] = drawn

    def refusal(self, each: Work) -> Problem | None:
        """Draw on every limit of an event, or on none: then why not."""
        after = {}
        for limit in each.admitted.limits:
            key = _counter(each, limit)
            after[key] = self._drawn[key].plus(limit.meter, limit.adds)
            if after[key].passes(limit, self._drawn[key]):
                return limit_reached(limit, self._drawn[key].used)
        self._drawn.update(after)
        return None

    async def keep(self, conn: Conn) -> None:
        if self._drawn:
            await usage.set_counters(conn, used={key: each.used for key, each in self._drawn.items()})


async def measured(
    conn: Conn,
    customer_id: UUID,
    limit: Limit,
    *,
    used: Decimal | None = None,
    values: Collection[bytes] = (),
) -> "Drawn":
    """How much of a limit is used (`used`, where a counter knows), and which of `values` were met."""
    at, met = None, frozenset[bytes]()
    if used is None:
        _, used, at = await measure_usage(conn, customer_id=customer_id, meter=limit.meter, span=limit.period)
    if values:
        part = Ruled(limit.meter, (limit.period.start, limit.period.end))
        met = await measuring.met_in(conn, customer_id=customer_id, part=part, values=list(values))
    return Drawn(used, at, met)


def _is_told_by_counter(limit: Limit) -> bool:
    """Else what is used of it must be measured each time."""
    return limit.meter.adds_up and limit.throughout


def _wanted(drawing: Sequence[Work]) -> tuple[dict[CounterKey, Limit], dict[CounterKey, set[bytes]]]:
    """The counters that are drawn on, and the distinct values that are new to them perhaps."""
    spans: dict[CounterKey, Limit] = {}
    values: defaultdict[CounterKey, set[bytes]] = defaultdict(set)
    for each in drawing:
        for limit in each.admitted.limits:
            key = _counter(each, limit)
            spans.setdefault(key, limit)
            if limit.adds.distinct is not None:
                values[key].add(limit.adds.distinct)
    return spans, values


def _counter(each: Work, limit: Limit) -> CounterKey:
    return CounterKey(each.standing.customer_id, limit.subscription_id, limit.feature_id, limit.period.start)


@dataclass(frozen=True, slots=True)
class Drawn:
    """How much of a limit is used; since when, for LATEST; which of the batch's values were met, for UNIQUE."""

    used: Decimal
    at: datetime | None
    met: frozenset[bytes]

    def passes(self, limit: Limit, before: "Drawn") -> bool:
        """Whether getting here goes beyond the limit; what uses no more than before never does."""
        return self.used > limit.included and self.used > before.used

    def plus(self, meter: Meter, adds: Measured) -> "Drawn":
        match meter.aggregation:
            case Aggregation.UNIQUE:
                if adds.distinct is None:  # so many that nobody named: all of them new
                    return replace(self, used=self.used + adds.quantity)
                if adds.distinct in self.met:
                    return self
                return replace(self, used=self.used + 1, met=self.met | {adds.distinct})
            case Aggregation.MAX:
                return replace(self, used=max(self.used, adds.quantity))
            case Aggregation.LATEST:
                before = Fold(1, self.used, at=self.at)
                after = merge(meter, [before, fold(meter, [adds])])
                return replace(self, used=after.quantity, at=after.at)
        return replace(self, used=self.used + adds.quantity)
