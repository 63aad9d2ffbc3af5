"""Reckoning: what the lines of a usage period must come to by what they froze themselves, whatever else is known."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from tallystick.core.adjustments import Charge, Rated
from tallystick.core.evidence import frozen_basis, frozen_components, frozen_span
from tallystick.core.invoicing import Part, charges_in_money, true_up_in_money
from tallystick.core.money import to_minor
from tallystick.core.pricing import total


class FrozenLine(NamedTuple):
    """As much of an issued line as its own arithmetic needs. `amount` is minor units."""

    id: UUID
    part: str
    feature_id: UUID | None
    amount: int
    currency: str
    evidence: Mapping[str, Any]


def reckon(lines: Sequence[FrozenLine]) -> list[int]:
    """What each must say, in minor units, of all lines of one feature and usage period, or of all that speak of no
    feature, in the order they were made.

    A line of usage is the sum of its components, rounded once; what came late lifts all lines so far to what the
    period now comes to. Raises what evidence does to its reader when somebody wrote into it.
    """
    usage = [each for each in lines if each.part == Part.USAGE]
    charges = tuple(_charge(each) for each in usage)
    owed: dict[UUID, int] = {}
    if usage:
        amounts = charges_in_money(Rated(charges), usage[0].currency)
        owed = dict(zip((each.id for each in usage), amounts, strict=True))
    for place, each in enumerate(lines):
        match each.part:
            case Part.USAGE:
                pass
            case Part.MINIMUM:
                (true_up,) = frozen_components(each.evidence)
                owed[each.id] = true_up_in_money(Rated(charges, true_up), each.currency)
            case Part.DIFFERENCE:
                owed[each.id] = each.evidence["amountNow"] - _said(lines[:place])
            case Part.PLAN_MINIMUM:
                minimum = to_minor(Decimal(each.evidence["minimum"]), each.currency)
                lifted = [before for before in lines[:place] if before.part == Part.PLAN_MINIMUM]
                owed[each.id] = max(0, minimum - each.evidence["featuresAmount"]) - _said(lifted)
            case _:
                owed[each.id] = to_minor(total(frozen_components(each.evidence)), each.currency)
    return [owed[each.id] for each in lines]


def _said(lines: Sequence[FrozenLine]) -> int:
    return sum(each.amount for each in lines)


def _charge(line: FrozenLine) -> Charge:
    span = frozen_span(line.evidence["span"])
    feature_id = line.feature_id or line.id  # evidence names neither: whose it is makes no difference here
    terms = dict(frozen_basis(line.evidence, feature_id, feature_id).stretches)[span]
    return Charge(
        span,
        terms,
        used=Decimal(line.evidence["used"]),
        included=None,
        billable=Decimal(line.evidence["overage"]),
        components=frozen_components(line.evidence),
    )
