"""Group commit: those who asked together are answered a few at a time."""

import asyncio
from decimal import Decimal

from tallystick.app import wall
from tallystick.core.events import UsageEvent
from tallystick.flows.batcher import Batcher
from tallystick.flows.books import Books
from tallystick.flows.commits import ANSWERS_AT_ONCE
from tallystick.flows.drafts import Accepted, Draft
from tallystick.store.db import Database
from tests.audit import organization_id
from tests.conftest import MakeOrganization, beside_the_server
from tests.shop import open_shop

ASKED = 5 * ANSWERS_AT_ONCE


def test_others_have_their_turn_between_the_answers_of_a_commit(
    make_organization: MakeOrganization, database_url: str
) -> None:
    """So a check need not wait until all who share a commit are answered."""
    shop = make_organization()
    open_shop(shop, "ada")
    answered: list[int] = []

    async def ask(batcher: Batcher, number: int) -> None:
        event = UsageEvent("api_calls", "ada", Decimal(1), key=str(number))
        (outcome,) = await batcher.submit(organization_id(shop), [Draft(event)])
        assert isinstance(outcome, Accepted)
        answered.append(number)

    async def act(_: Database) -> set[int]:
        """How many were answered each time that somebody else had their turn."""
        batcher, seen = Batcher(database_url, Books(), wall), set[int]()
        batcher.start()
        asking = asyncio.gather(*(ask(batcher, number) for number in range(ASKED)))
        while not asking.done():
            await asyncio.sleep(0)
            seen.add(len(answered))
        await asking
        await batcher.stop()
        return seen

    seen = beside_the_server(database_url, act)
    assert answered == list(range(ASKED))
    assert (
        max(later - before for before, later in zip(sorted(seen), sorted(seen)[1:], strict=False))
        <= ANSWERS_AT_ONCE
    )
