"""Group commit: those who asked together are answered a few at a time."""

import asyncio
import itertools
import math
import time
from decimal import Decimal

import pytest

from tallystick.app import wall
from tallystick.core.events import UsageEvent
from tallystick.flows import commits
from tallystick.flows.batcher import Batcher
from tallystick.flows.books import Books
from tallystick.flows.commits import ANSWERS_AT_ONCE, LONG_TURN_S
from tallystick.flows.drafts import Accepted, Draft
from tallystick.store.db import Database
from tests.audit import organization_id
from tests.conftest import MakeOrganization, beside_the_server
from tests.shop import open_shop

ASKED = 8 * ANSWERS_AT_ONCE


def test_others_have_their_turn_between_the_answers_of_a_commit(
    make_organization: MakeOrganization, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a check need not wait until all who share a commit are answered."""
    monkeypatch.setattr(commits, "LONG_TURN_S", math.inf)  # however long this machine takes for one
    seen = answered_by_turns(make_organization, database_url, turn_s=0)
    assert max(later - before for before, later in itertools.pairwise(seen)) <= ANSWERS_AT_ONCE


def test_where_the_others_are_a_crowd_more_are_answered_at_a_time(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """Between two turns of theirs twice as many as before, so that checks do not starve ingest."""
    seen = answered_by_turns(make_organization, database_url, turn_s=2 * LONG_TURN_S)
    steps = [later - before for before, later in itertools.pairwise(seen) if later > before]
    assert steps[:3] == [ANSWERS_AT_ONCE, 2 * ANSWERS_AT_ONCE, 4 * ANSWERS_AT_ONCE]


def answered_by_turns(make_organization: MakeOrganization, database_url: str, *, turn_s: float) -> list[int]:
    """Of those who share a commit, how many were answered each time that somebody else had their turn, of that length."""
    shop = make_organization()
    open_shop(shop, "ada")
    answered: list[int] = []

    async def ask(batcher: Batcher, number: int) -> None:
        event = UsageEvent("api_calls", "ada", Decimal(1), key=str(number))
        (outcome,) = await batcher.submit(organization_id(shop), [Draft(event)])
        assert isinstance(outcome, Accepted)
        answered.append(number)

    async def act(_: Database) -> list[int]:
        batcher, seen = Batcher(database_url, Books(), wall), [0]
        batcher.start()
        asking = asyncio.gather(*(ask(batcher, number) for number in range(ASKED)))
        while not asking.done():
            asyncio.get_running_loop().call_soon(time.sleep, turn_s)
            await asyncio.sleep(0)
            seen.append(len(answered))
        await asking
        await batcher.stop()
        return seen

    seen = beside_the_server(database_url, act)
    assert answered == list(range(ASKED))
    return seen
