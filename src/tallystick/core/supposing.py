"""Terms that were never in force, for periods that were lived: what a simulation rates by."""

from collections.abc import Callable, Sequence

from tallystick.core.catalog import Stretch, Terms
from tallystick.core.subscriptions import periods_per_invoice
from tallystick.core.times import Anchor, Period, boundary, index_at


def overridden(
    lived: Sequence[Stretch], span: Period, revise: Callable[[Terms], Terms], otherwise: Terms
) -> tuple[Stretch, ...]:
    """The stretches of a period with something of their terms put otherwise for all of it.

    Stretches that differed in nothing else are one now. Where the plan did not have the feature, it has it as
    `otherwise` says.
    """
    found: list[Stretch] = []
    before: Stretch | None = None
    for part, terms in lived or ((span, otherwise),):
        now = revise(terms)
        joins = before is not None and before[0].end == part.start and not _alike(before[1], terms)
        if joins and _alike(found[-1][1], now):
            found[-1] = (Period(found[-1][0].start, part.end), now)
        else:
            found.append((part, now))
        before = (part, terms)
    return tuple(each for each in found if each[1].enabled)


def _alike(one: Terms, other: Terms) -> bool:
    """Whether two versions promise the same."""

    def said(terms: Terms) -> tuple[object, ...]:
        return (
            terms.enabled,
            terms.included,
            terms.unlimited,
            terms.overage_enabled,
            terms.price,
            terms.minimum,
            terms.maximum,
        )

    return said(one) == said(other)


def bases_begun(anchor: Anchor, interval: str, span: Period, zone: str) -> int:
    """How many billing periods of that interval, counted from the anchor, begin within `span`: each is charged
    its base there, in advance."""
    length = periods_per_invoice(interval)
    if length is None:
        return int(anchor.at in span)
    index = index_at(anchor, span.start, zone)
    if boundary(anchor, index, zone) < span.start:
        index += 1
    found = 0
    while boundary(anchor, index, zone) < span.end:
        found += index % length == 0
        index += 1
    return found
