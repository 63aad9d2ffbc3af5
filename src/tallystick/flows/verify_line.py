"""Derive one invoice line again, and compare it with the line that was issued, field by field.

The line's frozen basis and the raw events go through the very functions that made it. What the basis froze must
have been published (terms and meters are versions, never edited) for a period that was closed.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from itertools import takewhile
from typing import Any, Final
from uuid import UUID

from tallystick.core import ids
from tallystick.core.adjustments import Rated, Usage, rate_period
from tallystick.core.catalog import Terms, minimum_over
from tallystick.core.evidence import Basis, PlanPeriod, frozen_basis, frozen_span
from tallystick.core.invoicing import (
    Line,
    Part,
    difference_line,
    overdraft_line,
    plan_minimum_line,
    usage_lines,
)
from tallystick.core.meters import Fold, Meter, merge
from tallystick.core.money import ZERO, from_minor, text
from tallystick.core.price_shapes import to_json
from tallystick.core.pricing import Percentage
from tallystick.core.proof import set_digest
from tallystick.core.times import Period, show_instant
from tallystick.errors import TallystickError
from tallystick.flows.read_usage import Piece, Reader, joined, slices
from tallystick.flows.settle_late import billed_so_far
from tallystick.store import archives, catalog, invoices, late, wallets
from tallystick.store.archives import Archived
from tallystick.store.db import Conn
from tallystick.store.invoices import Invoice, InvoiceLine
from tallystick.store.late import ClosedPeriod
from tallystick.store.organizations import Organization
from tallystick.store.proving import Span
from tallystick.store.wallets import WalletKey

UNREADABLE: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    TallystickError,
)
"""What evidence may do to its reader when somebody wrote into it."""

_UNIT: Final = "\0"
"""Stands for the unit's name, which no line keeps: no text of the database holds a NUL."""

_EVER: Final = datetime.min.replace(tzinfo=UTC)
_NOT_CLOSED: Final = "the period the line bills is none that was closed"
_KEPT: Final = {
    "used": "the usage",
    "included": "the included units",
    "overage": "the billed units",
    "components": "the components",
    "exact": "the exact amount",
    "amountNow": "what the period comes to",
    "featuresAmount": "what the features come to",
    "amountBefore": "what its earlier lines said",
    "overdrawn": "what the balance was overdrawn by",
}
_COLUMNS: Final = (  # of the line; what the evidence says of the same
    ("used", "used"),
    ("included", "included"),
    ("overage", "overage"),
    ("quantity", "overage"),
    ("unit_amount", None),
    ("charge_type", None),
    ("line_type", None),
)


class Outcome(StrEnum):
    VERIFIED = "verified"
    DIFFERENT = "different"
    NOT_VERIFIED = "not_verified"  # nothing differs, and what it was made of is archived


def outcome(differences: Sequence[str], needs: Sequence[Archived]) -> Outcome:
    if differences:
        return Outcome.DIFFERENT
    return Outcome.NOT_VERIFIED if needs else Outcome.VERIFIED


@dataclass(slots=True)
class LineReport:
    line: InvoiceLine
    events: int = 0
    differences: list[str] = field(default_factory=list)
    needs: list[Archived] = field(default_factory=list)  # months whose events it cannot be derived without

    @property
    def outcome(self) -> Outcome:
        return outcome(self.differences, self.needs)


class Published:
    """What was published of the terms and meters that lines were made with, closed of periods, and archived, read once."""

    def __init__(self) -> None:
        self.archived: list[Archived] | None = None  # before it was looked up
        self._terms: dict[UUID, list[Terms]] = {}  # by plan
        self._meters: dict[UUID, Meter] = {}
        self._closed: dict[tuple[UUID, int], ClosedPeriod] = {}

    async def terms(self, conn: Conn, organization_id: UUID, plan_id: UUID, wanted: set[UUID]) -> list[Terms]:
        """Every version of a plan's promises."""
        if not wanted <= {each.id for each in self._terms.get(plan_id, ())}:
            self._terms[plan_id] = await catalog.terms(
                conn, organization_id=organization_id, plan_ids=[plan_id]
            )
        return self._terms[plan_id]

    async def meter(self, conn: Conn, organization_id: UUID, meter_id: UUID) -> Meter | None:
        if meter_id not in self._meters:
            found = await catalog.meters(conn, organization_id=organization_id)
            self._meters.update({each.id: each for _, each in found})
        return self._meters.get(meter_id)

    async def look_up(self, conn: Conn, organization_id: UUID, lines: Iterable[InvoiceLine]) -> None:
        """The closed periods that these lines bill, after the lines were read: a period's position only moves on."""
        if self.archived is None:
            self.archived = await archives.of_organization(conn, organization_id=organization_id)
        wanted = {period for line in lines if (period := _period_of(line)) is not None} - self._closed.keys()
        for each in await late.closed_of(conn, periods=wanted) if wanted else ():
            self._closed[each.subscription_id, each.period_index] = each

    def closed(self, line: InvoiceLine) -> ClosedPeriod | None:
        period = _period_of(line)
        return None if period is None else self._closed.get(period)

    async def minimum(self, conn: Conn, organization_id: UUID, closed: ClosedPeriod) -> Decimal | None:
        found = await catalog.minimums(conn, organization_id=organization_id)
        return minimum_over(found.get(closed.plan_id, ()), closed.span)


@dataclass(slots=True)
class Checking:
    """One invoice that is being checked; what several of its lines need is read once."""

    conn: Conn
    organization: Organization
    invoice: Invoice
    read: Reader
    published: Published
    parts: int = 1
    read_already: dict[tuple[Basis, int], list[Piece]] = field(default_factory=dict)

    async def line(self, line: InvoiceLine) -> LineReport:
        report = LineReport(line)
        try:
            if line.line_type in ("plan_base", "one_time"):
                report.differences += _at_a_price(line, self.invoice.currency)
            elif line.part is None or line.evidence is None:
                report.differences.append("the line holds no evidence it could be derived from")
            elif line.part == Part.PLAN_MINIMUM:
                report.differences += await self._plan_minimum(line, line.evidence)
            elif line.part == Part.OVERDRAFT:
                await self._overdraft(report, line.evidence)
            elif line.feature_id is None:
                report.differences.append("the line names no feature whose usage it bills")
            else:
                await self._usage(report, line.feature_id, line.evidence)
        except UNREADABLE as error:
            report.differences.append(f"the line cannot be derived from its evidence: {error!r}")
        return report

    async def _usage(self, report: LineReport, feature_id: UUID, proof: Mapping[str, Any]) -> None:
        line = report.line
        basis = frozen_basis(proof, feature_id, feature_id)
        report.differences += await self._unpublished(line, proof, basis)
        report.needs = self._archived(Period(basis.stretches[0][0].start, basis.stretches[-1][0].end))
        if report.needs:
            return
        pieces = await self._pieces(basis, _after(line, proof))
        rated = _rated(basis, pieces)
        if line.part == Part.DIFFERENCE:
            made = await self._difference(line, proof, basis, rated)
            listed = pieces
        else:
            made = _made_again(line, proof, basis, rated, self.invoice.currency)
            listed = [
                piece
                for piece, (span, _) in zip(pieces, basis.stretches, strict=True)
                if line.part == Part.USAGE and span == frozen_span(proof["span"])
            ]
        report.events = sum(piece.listed for piece in listed)
        report.differences += _compare(line, proof, made, listed)

    def _archived(self, span: Period) -> list[Archived]:
        return archives.touching(self.published.archived or (), span)

    async def _pieces(self, basis: Basis, after: int) -> list[Piece]:
        """What the events of each stretch come to, and the leaves of those after a position."""
        if (basis, after) not in self.read_already:
            pieces = []
            for wanted, amounts in _spans(self.organization.id, self.invoice.customer_id, basis, after):
                parts = [self.read(each, amounts) for each in slices(wanted, self.parts)]
                pieces.append(joined(basis.meter, await asyncio.gather(*parts)))
            self.read_already[basis, after] = pieces
        return self.read_already[basis, after]

    async def _difference(
        self, line: InvoiceLine, proof: Mapping[str, Any], basis: Basis, rated: Rated
    ) -> Line | None:
        """Taken from what the period's earlier lines said, as it was when the line was made."""
        assert line.feature_id is not None
        earlier = await self._earlier(line)
        billed = billed_so_far([each for each in earlier if each.feature_id == line.feature_id])
        return difference_line(
            basis,
            rated,
            billed,
            feature_id=line.feature_id,
            feature_name=line.feature_name or "",
            unit=_UNIT,
            currency=self.invoice.currency,
            after=billed.position,
            policy=proof["policy"],
        )

    async def _earlier(self, line: InvoiceLine) -> list[InvoiceLine]:
        """The lines of the same period that were made before."""
        assert line.subscription_id is not None and line.usage_period is not None
        told = await invoices.lines_of_period(
            self.conn, subscription_id=line.subscription_id, index=line.usage_period
        )
        return list(takewhile(lambda each: each.id != line.id, told))

    async def _plan_minimum(self, line: InvoiceLine, proof: Mapping[str, Any]) -> list[str]:
        """A plan's minimum lifts what the features' lines had said by then, and nothing else."""
        closed = self.published.closed(line)
        if closed is None:
            return [_NOT_CLOSED]
        lived = _lived(proof)
        earlier = await self._earlier(line)
        made = plan_minimum_line(
            lived,
            minimum=Decimal(proof["minimum"]),
            features_minor=sum(each.amount for each in earlier if each.part != Part.PLAN_MINIMUM),
            before_minor=sum(each.amount for each in earlier if each.part == Part.PLAN_MINIMUM),
            currency=self.invoice.currency,
        )
        asked = await self.published.minimum(self.conn, self.organization.id, closed)
        return [
            *_other_period(closed, line, lived, self.invoice),
            *_differ("the minimum", None if asked is None else text(asked), proof["minimum"]),
            *_compare(line, proof, made, ()),
        ]

    async def _overdraft(self, report: LineReport, proof: Mapping[str, Any]) -> None:
        """What a balance was overdrawn by stands in the ledger, and each posting of usage is what its events took."""
        line = report.line
        closed = self.published.closed(line)
        if closed is None:
            report.differences.append(_NOT_CLOSED)
            return
        assert line.subscription_id is not None
        lived = _lived(proof)
        told = await wallets.overdraft(
            self.conn,
            key=WalletKey(self.invoice.customer_id, line.subscription_id),
            period_index=lived.index,
        )
        report.events = told.events
        # What it paid for may have happened at any time before, and come late.
        unlike, report.needs = told.unlike, self._archived(lived.period)
        if any(taken < posted for _, posted, taken in unlike):
            report.needs = self._archived(Period(_EVER, lived.period.end))
        if report.needs:
            unlike = [each for each in unlike if each[2] > each[1]]
        made = overdraft_line(lived, overdrawn=told.overdrawn, currency=self.invoice.currency)
        report.differences += [
            *_other_period(closed, line, lived, self.invoice),
            *_differ("what the movements until then come to", text(told.left), text(ZERO)),
            *(
                f"batch {batch}: its events took {text(taken)}, the ledger says {text(posted)}"
                for batch, posted, taken in unlike
            ),
            *_compare(line, proof, made, ()),
        ]

    async def _unpublished(self, line: InvoiceLine, proof: Mapping[str, Any], basis: Basis) -> list[str]:
        """Where the basis is none that the catalogue and the closed period can have given."""
        closed = self.published.closed(line)
        if closed is None:
            return [_NOT_CLOSED]
        found = list(_other_period(closed, line, basis, self.invoice))
        wanted = {terms.id for _, terms in basis.stretches}
        versions = await self.published.terms(self.conn, self.organization.id, closed.plan_id, wanted)
        ours = [
            each
            for each in versions
            if each.feature_id == line.feature_id and each.valid_from < closed.period_end
        ]
        cuts = {closed.period_start, closed.period_end, *(each.valid_from for each in ours)}
        for span, terms in basis.stretches:
            found += _other_terms(terms, ours)
            if not {span.start, span.end} <= cuts:
                found.append(f"the terms changed at no such instant: {_shown(span)}")
        meter = await self.published.meter(self.conn, self.organization.id, basis.meter.id)
        if line.part == Part.DIFFERENCE and meter is not None and meter.late_policy != proof["policy"]:
            found.append(
                f"late usage of the meter goes by {meter.late_policy}, the line says {proof['policy']}"
            )
        return [*found, *_other_meter(basis.meter, meter)]


def spans_of(organization_id: UUID, customer_id: UUID, line: InvoiceLine) -> list[tuple[Span, bool]]:
    """What will be read for a line: each span, and whether its events are wanted one by one."""
    proof = line.evidence
    if line.feature_id is None or proof is None or line.part in (None, Part.PLAN_MINIMUM):
        return []
    try:
        basis = frozen_basis(proof, line.feature_id, line.feature_id)
        return _spans(organization_id, customer_id, basis, _after(line, proof))
    except UNREADABLE:  # which the check will say
        return []


def _spans(organization_id: UUID, customer_id: UUID, basis: Basis, after: int) -> list[tuple[Span, bool]]:
    amounts = any(isinstance(terms.price, Percentage) for _, terms in basis.stretches)
    return [
        (Span(organization_id, customer_id, basis.meter, span, basis.position, after), amounts)
        for span, _ in basis.stretches
    ]


def _after(line: InvoiceLine, proof: Mapping[str, Any]) -> Any:
    """What a line of late usage has news of begins after a position."""
    return proof["afterPosition"] if line.part == Part.DIFFERENCE else 0


def _period_of(line: InvoiceLine) -> tuple[UUID, int] | None:
    if line.subscription_id is None or line.usage_period is None:
        return None
    return line.subscription_id, line.usage_period


def _rated(basis: Basis, pieces: Sequence[Piece]) -> Rated:
    """Each stretch is rated by all that was used until its end."""
    rows = []
    so_far, amounts = Fold(), tuple[Decimal, ...]()
    for (span, terms), piece in zip(basis.stretches, pieces, strict=True):
        so_far = merge(basis.meter, [so_far, piece.fold])
        amounts += piece.amounts
        rows.append((span, terms, Usage(so_far.quantity, amounts)))
    return rate_period(rows)


def _made_again(
    line: InvoiceLine, proof: Mapping[str, Any], basis: Basis, rated: Rated, currency: str
) -> Line | None:
    assert line.feature_id is not None
    for each in usage_lines(
        basis,
        rated,
        feature_id=line.feature_id,
        feature_name=line.feature_name or "",
        unit=_UNIT,
        currency=currency,
    ):
        if each.part == line.part and (each.evidence or {}).get("span") == proof.get("span"):
            return each
    return None


def _compare(
    line: InvoiceLine, proof: Mapping[str, Any], made: Line | None, listed: Sequence[Piece]
) -> Iterator[str]:
    told: set[str] = set()
    if line.part in (Part.USAGE, Part.DIFFERENCE):
        yield from (differences := list(_events(proof, listed)))
        told.update(["events"] if differences else [])
    if made is None:
        yield from _differ("the amount", None, line.amount)
        return
    expected = made.evidence or {}
    for key in [*_KEPT, *sorted((expected.keys() | proof.keys()) - _KEPT.keys() - {"events"})]:
        if expected.get(key) != proof.get(key):
            told.add(key)
            yield from _differ(_KEPT.get(key, f"the evidence's {key}"), expected.get(key), proof.get(key))
    for name, kept_as in _COLUMNS:
        value, said = getattr(made, name), getattr(line, name)
        same_as_kept = kept_as in told and said is not None and text(said) == proof.get(kept_as)
        if value != said and not same_as_kept:
            told.add(name)
            yield from _differ(f"the {name.replace('_', ' ')} on the line", value, said)
    yield from (amounts := list(_differ("the amount", made.amount, line.amount)))
    before, _, after = made.description.partition(_UNIT)
    if not told and not amounts and not _reads(line.description, before, after):
        yield from _differ("the words", f"{before}…{after}", line.description)


def _reads(words: str, before: str, after: str) -> bool:
    return len(words) >= len(before) + len(after) and words.startswith(before) and words.endswith(after)


def _events(proof: Mapping[str, Any], listed: Sequence[Piece]) -> Iterator[str]:
    said = proof["events"]
    count = sum(piece.listed for piece in listed)
    digest = set_digest(piece.leaves for piece in listed)
    if count != said["count"]:
        yield from _differ("the number of events", count, said["count"])
    else:
        yield from _differ("the digest of the events", digest, said["digest"])


def _at_a_price(line: InvoiceLine, currency: str) -> Iterator[str]:
    """A base price or a purchase is what its evidence says: prices can be edited, and what was frozen counts."""
    said = (line.evidence or {})["amount"]
    for what, found in (
        ("the amount", text(from_minor(line.amount, currency))),
        ("the unit amount", text(line.unit_amount)),
    ):
        if found != said:
            yield f"{what}: the evidence gives {said}, the line says {found}"
    if line.quantity != 1:
        yield f"the quantity: a price is charged once, the line says {text(line.quantity)}"


def _lived(proof: Mapping[str, Any]) -> PlanPeriod:
    return PlanPeriod(
        proof["period"]["index"],
        frozen_span(proof["instants"]),
        proof["period"]["timezone"],
        proof["chainPosition"],
    )


def _other_period(
    closed: ClosedPeriod, line: InvoiceLine, basis: Basis | PlanPeriod, invoice: Invoice
) -> Iterator[str]:
    said = (basis.period, basis.index, basis.timezone, invoice.customer_id)
    if said != (closed.span, line.usage_period, closed.timezone, closed.customer_id):
        yield (
            f"the period: what was closed is {_shown(closed.span)} ({closed.timezone}), "
            f"the line says {_shown(basis.period)} ({basis.timezone})"
        )
    if basis.position > closed.position:
        yield (
            f"the chain position: the period was last rated at {closed.position}, "
            f"the line says {basis.position}"
        )


def _shown(span: Period) -> str:
    return f"{show_instant(span.start)} to {show_instant(span.end)}"


def _other_terms(said: Terms, versions: Sequence[Terms]) -> Iterator[str]:
    """The price is that of the version it names. The rest may be the best of several, and is that of some version."""
    named = next((each for each in versions if each.id == said.id), None)
    name = f"the terms {ids.show(ids.PLAN_FEATURE, said.id)}"
    if named is None:
        yield f"{name} were not published for the period"
        return
    if (named.version, named.price) != (said.version, said.price):
        yield (
            f"{name}: version {named.version} has the price {to_json(named.price)}, "
            f"the line says version {said.version}, {to_json(said.price)}"
        )
    for each in ("included", "unlimited", "overage_enabled", "minimum", "maximum"):
        known = {getattr(version, each) for version in versions}
        if getattr(said, each) not in known:
            yield f"{name}: no version says {each.replace('_', ' ')} {getattr(said, each)}, as the line does"


def _other_meter(said: Meter, published: Meter | None) -> Iterator[str]:
    name = f"the meter {ids.show(ids.METER, said.id)}"
    if published is None:
        yield f"{name} was never published"
        return
    for each in ("feature_id", "version", "event_code", "aggregation", "property_name", "filters"):
        known, found = getattr(published, each), getattr(said, each)
        if known != found:
            yield f"{name}: its {each.replace('_', ' ')} is {known}, the line says {found}"


def _differ(what: str, derived: object, said: object) -> Iterator[str]:
    if derived != said:
        yield f"{what}: the events give {_word(derived)}, the line says {_word(said)}"


def _word(value: object) -> str:
    match value:
        case None:
            return "none"
        case Decimal():
            return text(value)
        case list() if value and all(isinstance(each, Mapping) and "label" in each for each in value):
            return "; ".join(
                f"{each['label']}: {each.get('quantity')} × {each.get('unitAmount')}" for each in value
            )
    return str(value)
