"""Why a line says what it says, in plain sentences: from its evidence alone, so that they are true years later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tallystick.core.evidence import frozen_span
from tallystick.core.invoicing import Part
from tallystick.core.meters import Aggregation
from tallystick.core.money import exponent, from_minor, text, to_minor
from tallystick.core.times import show_instant

_MEASURED = {
    Aggregation.SUM: "the sum of {what}",
    Aggregation.COUNT: "the number of events",
    Aggregation.UNIQUE: "the number of distinct values of {what}",
    Aggregation.MAX: "the largest {what}",
    Aggregation.LATEST: "the newest {what}",
}


@dataclass(frozen=True, slots=True)
class Dropped:
    """Events of the meter's code that did not count, by reason."""

    reason: str
    events: int


def explain(
    *,
    line_type: str,
    part: str | None,
    description: str,
    amount: int,
    currency: str,
    proof: Mapping[str, Any] | None,
    dropped: Sequence[Dropped],
) -> list[str]:
    if proof is None:
        return [f"{description}: {money(amount, currency)}."]
    if line_type == "plan_base":
        period = proof["period"]
        return [
            f"The base price of {description}, {money(amount, currency)}, is charged in advance for the period "
            f"from {period['start']} to {period['end']} ({period['timezone']})."
        ]
    if line_type == "one_time":
        return [f"{description} was bought once, and {money(amount, currency)} was paid for it at once."]
    if part == Part.PLAN_MINIMUM:
        return [
            _period(proof),
            f"The plan's usage costs at least {proof['minimum']} {currency} a period; its features come to "
            f"{money(proof['featuresAmount'], currency)}, and {money(proof['amountBefore'], currency)} had been "
            f"added before. The line is what is missing: {money(amount, currency)}.",
        ]
    if part == Part.OVERDRAFT:
        return [
            _period(proof),
            "Usage is paid from the balance as it arrives; each movement stands in the subscription's ledger.",
            *(_component(each, currency) for each in proof["components"]),
            _rounding(proof, amount, currency, part),
        ]
    sentences = [_period(proof), _meter(proof)]
    if part in (Part.USAGE, Part.DIFFERENCE):
        sentences.append(_events(proof, dropped))
    if part == Part.USAGE:
        sentences += _usage(proof)
    if part == Part.DIFFERENCE:
        sentences += _difference(proof, currency)
    sentences += [_component(each, currency) for each in proof["components"]]
    sentences.append(_rounding(proof, amount, currency, part))
    return sentences


def money(minor: int, currency: str) -> str:
    return f"{from_minor(minor, currency):.{exponent(currency)}f} {currency}"


def _period(proof: Mapping[str, Any]) -> str:
    period = proof["period"]
    return (
        f"The usage period runs from {period['start']} up to, not including, {period['end']}, "
        f"as days are counted in {period['timezone']}."
    )


def _meter(proof: Mapping[str, Any]) -> str:
    meter = proof["meter"]
    what = meter["aggregationProperty"] or "value"
    measured = _MEASURED[Aggregation(meter["aggregation"])].format(what=what)
    said = f"Usage is {measured} over events named {meter['eventCode']} (meter version {meter['version']})"
    filters = [
        f"{each['property']} {each['operator'].replace('_', ' ')} {each['value']!r}"
        for each in meter["filters"]
    ]
    return f"{said} with {' and '.join(filters)}." if filters else f"{said}."


def _events(proof: Mapping[str, Any], dropped: Sequence[Dropped]) -> str:
    kept = proof["events"]["count"]
    said = f"{kept:,} {'event' if kept == 1 else 'events'} counted"
    if not dropped:
        return f"{said}; none was left out."
    reasons = "; ".join(f"{each.events:,} because {each.reason}" for each in dropped)
    return f"{said}; left out: {reasons}."


def _usage(proof: Mapping[str, Any]) -> list[str]:
    used, billed = proof["used"], proof["overage"]
    if proof["included"] is None:
        return [f"They amount to {used}, and the plan sets no limit."]
    said = [f"They amount to {used}, of which {proof['included']} are included and {billed} are billed."]
    if len(proof["terms"]) > 1:
        span = frozen_span(proof["span"])
        said.append(
            f"The price changed within the period; this line speaks of {show_instant(span.start)} to "
            f"{show_instant(span.end)}, and its tiers go on counting from what was used before."
        )
    return said


def _difference(proof: Mapping[str, Any], currency: str) -> list[str]:
    return [
        "They arrived after the period had been billed, so the period was rated again: it now comes to "
        f"{money(proof['amountNow'], currency)}, and its lines had said {money(proof['amountBefore'], currency)}. "
        f"The meter's policy is {proof['policy'].replace('_', ' ')}."
    ]


def _component(part: Mapping[str, str], currency: str) -> str:
    return f"{part['label'].capitalize()}: {part['quantity']} × {part['unitAmount']} {currency} = {part['amount']} {currency}."


def _rounding(proof: Mapping[str, Any], amount: int, currency: str, part: str | None) -> str:
    if part == Part.DIFFERENCE:
        return f"The line is the difference: {money(amount, currency)}."
    exact = text(Decimal(proof["exact"]))
    if Decimal(exact) == from_minor(amount, currency):
        return f"Together that is exactly {money(amount, currency)}."
    if part == Part.MINIMUM:
        return f"Of that {exact} {currency}, the usage as it was rounded leaves {money(amount, currency)}."
    if amount < to_minor(Decimal(exact), currency):
        return f"Of that {exact} {currency}, what was rounded before leaves {money(amount, currency)} to the maximum."
    return f"Together that is {exact} {currency}, rounded once, half up, to {money(amount, currency)}."
