"""Verify much at once: hand out pieces of work, the longest first, and put together what comes back.

What a piece is done by, and where, is the caller's: `Do` takes a function of a connection and its arguments. Long
lines are cut into slices of time and chains into stretches, so that one big customer holds nobody up. Everything
that is read was written once and for all: others may go on writing meanwhile.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from uuid import UUID

from tallystick.core import ids
from tallystick.errors import Problem
from tallystick.flows import verify_chain
from tallystick.flows.name_tampering import tell_keys
from tallystick.flows.read_usage import Piece
from tallystick.flows.verify_chain import ChainReport
from tallystick.flows.verify_many import Verified, check_part, read_slice, verify_long, verify_some
from tallystick.store import invoices, organizations
from tallystick.store.archives import Archived
from tallystick.store.db import Conn
from tallystick.store.invoices import ToVerify
from tallystick.store.organizations import Organization
from tallystick.store.proving import Span

_BUNDLE_EVENTS: Final = 25_000
_BUNDLE_INVOICES: Final = 100
_SLICE_EVENTS: Final = 100_000
_SLICES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be verified; nothing named: all there is."""

    invoice_id: UUID | None = None
    organization_id: UUID | None = None
    chains: bool = True  # else only of those who have an invoice that differs, and only its customers' events


class Do(Protocol):
    async def __call__(self, act: Callable[..., Awaitable[Any]], *given: Any) -> Any: ...


class Progress(Protocol):
    """In events: how many there are to look at, and how many were looked at."""

    def expect(self, events: int) -> None: ...

    def looked(self, events: int) -> None: ...


@dataclass(slots=True)
class Chain:
    """One organization's chain that was looked at, keys included."""

    organization_id: UUID
    report: ChainReport
    keys: list[str]

    @property
    def differences(self) -> list[str]:
        return [*self.report.differences, *self.keys]


@dataclass(slots=True)
class Report:
    invoices: int = 0
    lines: int = 0
    events: int = 0  # that lines list
    wrong: list[Verified] = field(default_factory=list)
    unverified: list[Verified] = field(default_factory=list)  # nothing differs, and some of it is archived
    chains: list[Chain] = field(default_factory=list)

    @property
    def different(self) -> bool:
        return bool(self.wrong or any(each.differences for each in self.chains))

    @property
    def needs(self) -> list[Archived]:
        """Months without whose events some of it could not be verified."""
        found = {each.month: each for one in self.unverified for each in one.needs}
        found |= {each.month: each for chain in self.chains for each in chain.report.needs}
        return [found[month] for month in sorted(found)]

    @property
    def chained(self) -> int:
        return sum(each.report.events for each in self.chains)


async def verify_all(
    conn: Conn,
    do: Do,
    wanted: Wanted,
    progress: Progress,
    *,
    at_once: int,
    slice_events: int = _SLICE_EVENTS,
) -> Report:
    """`at_once`: so many pieces are handed out before one has come back."""
    owners = await _owners(conn, wanted)
    await verify_chain.learn_newest(conn)
    work = _Work(conn, do, progress, Report(), slice_events)
    room = asyncio.Semaphore(at_once)
    try:
        async with asyncio.TaskGroup() as tasks:
            async for piece in work.pieces(owners, wanted):
                await room.acquire()
                tasks.create_task(piece).add_done_callback(lambda _: room.release())
        if not wanted.chains:
            concerned: defaultdict[UUID, set[UUID]] = defaultdict(set)
            for each in work.report.wrong:
                concerned[each.organization_id].add(each.customer_id)
            for organization_id, customers in concerned.items():
                await work.chain(organization_id, sorted(customers))
    except* Exception as group:
        raise group.exceptions[0] from None
    work.report.wrong.sort(key=lambda each: (each.organization_id, each.invoice_id))
    work.report.unverified.sort(key=lambda each: (each.organization_id, each.invoice_id))
    work.report.chains.sort(key=lambda each: each.organization_id)
    return work.report


async def _owners(conn: Conn, wanted: Wanted) -> dict[UUID, Organization]:
    if wanted.invoice_id is not None and not await invoices.exists(conn, invoice_id=wanted.invoice_id):
        raise Problem("invoice_not_found", f"There is no invoice {ids.show(ids.INVOICE, wanted.invoice_id)}.")
    found = {each.id: each for each in await organizations.every(conn)}
    if wanted.organization_id is not None:
        if wanted.organization_id not in found:
            shown = ids.show(ids.ORGANIZATION, wanted.organization_id)
            raise Problem("not_found", f"There is no organization {shown}.")
        found = {wanted.organization_id: found[wanted.organization_id]}
    return found


@dataclass(slots=True)
class _Work:
    conn: Conn
    do: Do
    progress: Progress
    report: Report
    slice_events: int

    async def pieces(
        self, owners: dict[UUID, Organization], wanted: Wanted
    ) -> AsyncIterator[Coroutine[Any, Any, None]]:
        """Long lines first, then the chains, then invoices by the bundle."""
        chains = list(owners) if wanted.chains else []
        bundle: list[ToVerify] = []
        async for each in invoices.to_verify(
            self.conn, organization_id=wanted.organization_id, invoice_id=wanted.invoice_id
        ):
            self.progress.expect(each.events)
            if each.events > 2 * self.slice_events:
                yield self._long(owners[each.organization_id], each)
                continue
            while chains:
                yield self.chain(chains.pop(0), None)
            bundle.append(each)
            if len(bundle) == _BUNDLE_INVOICES or sum(one.events for one in bundle) > _BUNDLE_EVENTS:
                yield self._bundle(bundle)
                bundle = []
        if bundle:
            yield self._bundle(bundle)
        for organization_id in chains:
            yield self.chain(organization_id, None)

    async def _bundle(self, bundle: Sequence[ToVerify]) -> None:
        for found in await self.do(verify_some, bundle):
            self._note(found)
        self.progress.looked(sum(each.events for each in bundle))

    async def _long(self, organization: Organization, wanted: ToVerify) -> None:
        """One invoice with a long line: it is put together here, and its slices are read over there."""

        async def read(span: Span, amounts: bool) -> Piece:
            piece: Piece = await self.do(read_slice, span, amounts)
            self.progress.looked(piece.fold.events)
            return piece

        parts = min(wanted.events // self.slice_events, _SLICES_MAX)
        self._note(await verify_long(self.conn, organization, wanted, read=read, parts=parts))

    def _note(self, found: Verified) -> None:
        self.report.invoices += 1
        self.report.lines += found.lines
        self.report.events += found.events
        if found.differences:
            self.report.wrong.append(found)
        elif found.needs:
            self.report.unverified.append(found)

    async def chain(self, organization_id: UUID, customers: Sequence[UUID] | None) -> None:
        """A chain and its keys; `customers`: name only what may be theirs."""

        async def part(stretch: verify_chain.Stretch) -> Any:
            found = await self.do(check_part, organization_id, stretch, customers)
            self.progress.looked(found[0].events)
            return found

        stretches = await verify_chain.stretches(self.conn, organization_id)
        self.progress.expect(verify_chain.EVENTS_PER_STRETCH * len(stretches))
        lost, loose, *parts = await asyncio.gather(
            self.do(_lost, organization_id, customers),
            self.do(verify_chain.unchained, organization_id),
            *(part(each) for each in stretches),
        )
        checked = [found for found, _ in parts]
        told = await verify_chain.conclude(
            self.conn, organization_id, checked, loose=loose, customers=customers
        )
        unkeyed = [each for _, found in parts for each in found]
        self.report.chains.append(Chain(organization_id, told, tell_keys(lost, unkeyed, told.named)))


async def _lost(conn: Conn, organization_id: UUID, customers: Sequence[UUID] | None) -> Any:
    return await verify_chain.lost(conn, organization_id, customers=customers)
