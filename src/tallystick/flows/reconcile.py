"""Reconcile: ask what must be true of the books, rule by rule, and say how many break it and who is first.

One organization at a time, beside whatever goes on. No snapshot lasts longer than a rule needs it: who stores events
meanwhile is slowed down by every second that one is held.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from tallystick.core import ids
from tallystick.errors import Problem
from tallystick.flows.rules import RULES, Asked, Found
from tallystick.store import organizations
from tallystick.store import reconcile as store
from tallystick.store.db import Conn, one_look
from tallystick.store.reconcile import FIRST_MAX, Noted


class Offender(NamedTuple):
    organization_id: UUID
    what: str

    def document(self) -> dict[str, str]:
        return {"organizationId": ids.show(ids.ORGANIZATION, self.organization_id), "what": self.what}


@dataclass(slots=True)
class Finding:
    """What a rule found in all organizations that were looked at."""

    rule: str
    promise: str
    offenders: int = 0
    first: list[Offender] = field(default_factory=list)

    def add(self, organization_id: UUID, found: Found) -> None:
        self.offenders += found.offenders
        room = FIRST_MAX - len(self.first)
        self.first += [Offender(organization_id, what) for what in found.first[:room]]


Progress = Callable[[str, int, int], None]
"""Hears which rule is asked next, how many were asked, and how many there are, each once an organization."""


async def reconcile(
    conn: Conn, *, organization_id: UUID | None, wall: datetime, progress: Progress = lambda *_: None
) -> list[Finding]:
    """Ask every rule, of one organization or (None) of all; what is found of all is noted, too.

    `conn` is the caller's own and in no transaction; `PROOF_CONNECTION` is made for it.
    """
    owners = await _owners(conn, organization_id)
    findings = [Finding(each.name, each.promise) for each in RULES]
    asked = 0

    def hear(rule: str) -> None:
        nonlocal asked
        progress(rule, asked, len(owners) * len(RULES))
        asked += 1

    for owner in owners:
        for finding, found in zip(findings, await ask(conn, owner, wall=wall, hear=hear), strict=True):
            finding.add(owner, found)
    if organization_id is None:
        async with conn.transaction():
            await store.note(
                conn,
                found=[
                    Noted(each.rule, each.offenders, [one.document() for one in each.first], wall)
                    for each in findings
                ],
            )
    return findings


async def _owners(conn: Conn, organization_id: UUID | None) -> list[UUID]:
    every = [each.id for each in await organizations.every(conn)]
    if organization_id is None:
        return every
    if organization_id not in every:
        raise Problem("not_found", f"There is no organization {ids.show(ids.ORGANIZATION, organization_id)}.")
    return [organization_id]


async def ask(
    conn: Conn, organization_id: UUID, *, wall: datetime, hear: Callable[[str], None] = lambda rule: None
) -> list[Found]:
    """What each rule finds in one organization."""
    organization = await organizations.get(conn, organization_id=organization_id)
    assert organization is not None  # none is ever deleted
    asked = Asked(conn, organization, organization.simulated_time or wall)
    found = []
    for rule in RULES:
        hear(rule.name)
        async with one_look(conn):
            found.append(await rule.find(asked))
    return found
