"""Group reads: a group that takes long keeps nobody waiting but those who are in it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from tallystick.app import wall
from tallystick.core.events import UsageEvent
from tallystick.flows.books import Books
from tallystick.flows.check_usage import Ask, Checked
from tallystick.flows.checker import Checker
from tallystick.store.db import Database
from tests.audit import organization_id
from tests.conftest import MakeOrganization, Organization, beside_the_server
from tests.shop import add_feature, add_plan, open_shop, subscribe

STAYS_OR_NOT = pytest.mark.parametrize(
    "stays", [False, True], ids=["the loop goes on", "it stays with its question"]
)


@STAYS_OR_NOT
def test_who_waits_for_a_group_that_takes_long_is_told_by_the_second_lane(
    make_organization: MakeOrganization, database_url: str, stays: bool
) -> None:
    """Wallets are locked away for a while: who asks about a wallet waits, who asks about a meter does not."""
    prepaid, metered = two_shops(make_organization)

    async def act(database: Database) -> list[Checked]:
        async with without_wallets(database, prepaid, metered, stays) as checker:
            waiting = asyncio.create_task(ask(checker, prepaid, "ada"))
            await until_someone_waits(database)
            told = await asyncio.wait_for(ask(checker, metered, "bob"), timeout=30)
            assert not waiting.done()
        return [await waiting, told]

    assert [each.refusal for each in beside_the_server(database_url, act)] == [None, None]


@STAYS_OR_NOT
def test_who_reads_for_others_and_hangs_up_leaves_the_lane_to_them(
    make_organization: MakeOrganization, database_url: str, stays: bool
) -> None:
    """Both lanes wait for wallets; the first reader goes, and so does one of those who wait for a lane."""
    prepaid, metered = two_shops(make_organization)

    async def act(database: Database) -> list[Checked]:
        async with without_wallets(database, prepaid, metered, stays) as checker:
            first = asyncio.create_task(ask(checker, prepaid, "ada"))
            await until_someone_waits(database)
            second = asyncio.create_task(ask(checker, prepaid, "ada"))
            await until_someone_waits(database, 2)
            gone = asyncio.create_task(ask(checker, metered, "bob"))
            waiting = asyncio.create_task(ask(checker, metered, "bob"))
            await asyncio.sleep(0)
            gone.cancel()
            first.cancel()
            told = await asyncio.wait_for(waiting, timeout=30)
            assert not second.done()
        assert first.cancelled()
        assert gone.cancelled()
        return [await second, told]

    assert [each.refusal for each in beside_the_server(database_url, act)] == [None, None]


def two_shops(make_organization: MakeOrganization) -> tuple[Organization, Organization]:
    """Ada's, who has a wallet, and Bob's, who has none."""
    prepaid, metered = make_organization(), make_organization()
    sell_credits(prepaid)
    open_shop(metered, "bob")
    return prepaid, metered


@asynccontextmanager
async def without_wallets(
    database: Database, prepaid: Organization, metered: Organization, stays: bool
) -> AsyncIterator[Checker]:
    """One that knows Ada and Bob, while wallets are locked away; stopped when it has answered everybody."""
    checker = Checker(database.conninfo, Books(), wall, beside=stays)
    await asyncio.gather(ask(checker, prepaid, "ada"), ask(checker, metered, "bob"))
    async with database.reading() as conn, conn.transaction():
        await conn.execute("LOCK TABLE wallets IN ACCESS EXCLUSIVE MODE")
        yield checker
    await checker.stop()


def sell_credits(shop: Organization) -> None:
    add_feature(shop)
    promises = {"api_calls": {"creditsPerUnit": 3}}
    add_plan(shop, "free", price=None, promises=promises, model="credits", grants={"includedCredits": 30})
    subscribe(shop, "ada", "free")


async def ask(checker: Checker, shop: Organization, customer: str) -> Checked:
    event = UsageEvent("api_calls", customer, Decimal(1))
    return await checker.submit(organization_id(shop), Ask(event, with_properties=False))


async def until_someone_waits(database: Database, many: int = 1) -> None:
    """For the wallets."""
    async with asyncio.timeout(30), database.reading() as conn:
        for _ in itertools.repeat(None):
            found = await conn.execute(
                "SELECT FROM pg_locks WHERE relation = 'wallets'::regclass AND NOT granted"
            )
            if len(await found.fetchall()) >= many:
                return
            await asyncio.sleep(0.01)
