"""A connection that stays with its question answers as any other, and holds nobody up for long."""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from tallystick.store.beside import PATIENCE_MS, Staying
from tallystick.store.db import INGEST_CONNECTION, Conn, connect, pipelined, rows

HURRIED_AFTER_S = 0.05


def staying(database_url: str, act: Callable[[Conn], Awaitable[None]]) -> None:
    async def run() -> None:
        conn = await connect(database_url, INGEST_CONNECTION, Staying)
        async with conn:
            await act(conn)

    asyncio.run(run())


def test_a_quick_answer_is_there_before_anybody_else_has_a_turn(database_url: str) -> None:
    async def act(conn: Conn) -> None:
        await rows(conn, "SELECT 1")
        firsts = []
        for _ in range(20):  # the machine may be busy; that it never comes first would be no chance
            turn = asyncio.create_task(asyncio.sleep(0))
            assert await rows(conn, "SELECT %s::int", (7,)) == [(7,)]
            firsts.append(not turn.done())
            await turn
        assert any(firsts)

    staying(database_url, act)


def test_a_slow_answer_is_waited_for_while_others_go_on(database_url: str) -> None:
    async def act(conn: Conn) -> None:
        slow = asyncio.create_task(rows(conn, "SELECT 7 FROM pg_sleep(%s)", (HURRIED_AFTER_S,)))
        turns = 0
        while not slow.done():
            await asyncio.sleep(PATIENCE_MS / 1000)
            turns += 1
        assert await slow == [(7,)]
        assert turns > 5

    staying(database_url, act)


def test_who_asks_in_vain_is_told_and_may_ask_again(database_url: str) -> None:
    async def act(conn: Conn) -> None:
        for wait_s in (0, HURRIED_AFTER_S):
            with pytest.raises(psycopg.errors.DivisionByZero):
                await rows(conn, "SELECT 1 / 0 FROM pg_sleep(%s)", (wait_s,))
        asked = asyncio.create_task(rows(conn, "SELECT 1 FROM pg_sleep(60)"))
        await asyncio.sleep(HURRIED_AFTER_S)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await rows(conn, "SELECT 1") == [(1,)]

    staying(database_url, act)


def test_in_a_transaction_sent_at_once_too(database_url: str) -> None:
    async def act(conn: Conn) -> None:
        async with pipelined(conn):
            await conn.execute("CREATE TEMPORARY TABLE notches (number int) ON COMMIT DROP")
            await conn.execute("INSERT INTO notches SELECT generate_series(1, 100000)")
            assert await rows(conn, "SELECT count(*) FROM notches") == [(100_000,)]

    staying(database_url, act)


def test_an_answer_in_many_pieces_is_whole(database_url: str) -> None:
    async def act(conn: Conn) -> None:
        found = await rows(conn, "SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        assert (len(found), {len(each) for (each,) in found}) == (20_000, {1_000})

    staying(database_url, act)


def test_a_question_in_many_pieces_arrives(database_url: str) -> None:
    async def act(conn: Conn) -> None:
        text = "x" * 20_000_000
        assert await rows(conn, "SELECT length(%s)", (text,)) == [(len(text),)]

    staying(database_url, act)
