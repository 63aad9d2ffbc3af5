"""Past one machine: which tables lie on which node of a Citus cluster, and how they get there.

Everything hot belongs to a customer, and lies with the rest of that customer. The catalogue is everywhere. What is
left stays on the coordinator, and Citus is told of it: a transaction that writes there and on a worker is then
committed in two phases. (Of tables that it does not know it would commit the worker first, and a coordinator that
dies in between would have forgotten the notch of events that are stored.)
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection, sql
from psycopg.errors import ConnectionFailure, InternalError, LockNotAvailable
from psycopg.rows import TupleRow

log = logging.getLogger("tallystick.migrate")

BY_CUSTOMER: Final[tuple[LiteralString, ...]] = (
    "events",
    "event_keys",
    "usage_hours",
    "usage_sets",
    "distinct_values",
    "limit_counters",
    "wallets",
    "ledger_entries",
    "ai_costs",
)
"""Hot: in `citus.shard_count` shards by `customer_id`, all of a customer's on one node. The first is what the others lie
with."""

EVERYWHERE: Final[tuple[LiteralString, ...]] = (
    "features",
    "meters",
    "plans",
    "plan_prices",
    "plan_features",
    "plan_minimums",
    "credit_packs",
    "ai_model_prices",
    "ai_model_aliases",
    "ingest_batches",
    "archived_months",
    "archived_shares",
)
"""On every node. The catalogue: small, read by all, changed by people; who references comes after what is referenced.
And the notches of the chains: which events a period was rated with is asked where the events are; so is which of them
are in a file."""

UNKNOWN: Final[tuple[LiteralString, ...]] = ("migrations",)
"""Written by nothing that writes elsewhere too; Citus need not know of it. All others stay on the coordinator."""


# Connections -----------------------------------------------------------------------------------------------


async def adapt(conn: AsyncConnection[TupleRow]) -> None:
    """Let a new connection speak as the database behind it understands: nothing changes where that has no Citus."""
    cursor = await conn.execute("SELECT FROM pg_extension WHERE extname = 'citus'")
    if await cursor.fetchone() is not None:
        conn.cursor_factory = Cursor
        await conn.execute(_SETTINGS)


_SETTINGS: Final = """
    SELECT set_config('plan_cache_mode', 'force_custom_plan', false),
           set_config('citus.multi_shard_modify_mode', 'sequential', false),
           set_config('citus.enable_deadlock_prevention', 'off', false)"""
"""Citus finds the shards of a statement by its values: it has no generic plan of what joins several. It writes one shard
after the other, in one order, over one connection to each node: so that batches cannot deadlock, and what a node holds
of a transaction becomes visible at once. As that order is kept, no batch need wait for another to leave a shard."""


def is_citus(conn: AsyncConnection[TupleRow]) -> bool:
    """Whether it was adapted: who locks rows of several customers must then do so one after the other."""
    return issubclass(conn.cursor_factory, Cursor)


def grouped_by(conn: AsyncConnection[TupleRow], customer: LiteralString) -> LiteralString:
    """What a lateral aggregate over one customer's rows must say to Citus, so that it can be asked of that customer's
    shard. PostgreSQL would sort for it, and knows already. A customer without rows then has no row, instead of zeros.
    """
    return f"GROUP BY {customer}" if is_citus(conn) else ""


def sized_by(conn: AsyncConnection[TupleRow], function: LiteralString, table: LiteralString) -> LiteralString:
    """SQL for what `pg_relation_size` or `pg_total_relation_size` says of a table, on whichever nodes it lies."""
    here: LiteralString = f"pg_{function}({table})"
    if not is_citus(conn):
        return here
    return f"""CASE WHEN EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = {table})
                    THEN citus_{function}({table}) ELSE {here} END"""


async def lie_with_events(conn: AsyncConnection[TupleRow], table: str) -> None:
    """Spread a table, empty as yet, over the nodes as `events` is, so that it can be filled where it will stay."""
    if is_citus(conn):
        await conn.execute(
            f"""SELECT create_distributed_table(%s, 'customer_id', colocate_with => '{BY_CUSTOMER[0]}')
                  FROM pg_dist_partition WHERE logicalrelid = '{BY_CUSTOMER[0]}'::regclass""",
            (table,),
        )


async def lie_everywhere(conn: AsyncConnection[TupleRow], table: str) -> None:
    """Put a table on every node, where `events` is spread over them."""
    if is_citus(conn):
        await conn.execute(
            f"""SELECT create_reference_table(%s)
                  FROM pg_dist_partition WHERE logicalrelid = '{BY_CUSTOMER[0]}'::regclass""",
            (table,),
        )


async def nothing_half_committed(conn: AsyncConnection[TupleRow]) -> None:
    """Wait until what this coordinator has prepared is committed on every worker. Raises OperationalError when a node
    was lost in between, so that what it has yet to commit can neither be seen there nor waited for."""
    for _ in range(_LOOKS_MAX):
        cursor = await conn.execute(_HALF_COMMITTED)
        if await cursor.fetchone() is None:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
    raise psycopg.OperationalError(
        "a node was lost in the middle of a commit and has yet to finish it: Citus does so within minutes, "
        "`SELECT recover_prepared_transactions()` at once"
    )


async def gate(conn: AsyncConnection[TupleRow]) -> str | None:
    """The name of the shard that everybody locks who stores events or says that the catalogue has changed: the heads.

    None where nothing is laid out yet, so that all there is lies on one node.
    """
    cursor = await conn.execute(
        """SELECT shard_name(logicalrelid, shardid)::text FROM pg_dist_shard
            WHERE logicalrelid = 'organization_heads'::regclass"""
    )
    found = await cursor.fetchone()
    return None if found is None else str(found[0])


async def look_everywhere(conn: AsyncConnection[TupleRow], gate: str) -> None:
    """Begin a REPEATABLE READ transaction in which all nodes show the same batches. Raises OperationalError, after
    which it is to be tried again.

    Each node has a snapshot of its own, taken when it is first asked, and a batch is committed on one after the other.
    So all nodes are asked while nobody is between: who commits lets go of the heads only when every node has
    committed. Whoever comes meanwhile waits for milliseconds; the lock goes with the savepoint, the snapshots stay.
    LOCK is first, because it is no look at the coordinator itself.
    """
    await conn.execute("SET LOCAL citus.max_adaptive_executor_pool_size = 1")  # another connection looks anew
    await conn.execute("SET LOCAL citus.enable_manual_changes_to_shards = on")  # a lock is one
    await conn.execute("SAVEPOINT gate")
    await conn.execute(
        "SET LOCAL lock_timeout = '5 s'"
    )  # behind whom we wait, everybody waits who stores events
    await conn.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier(gate)))
    await conn.execute(f"SELECT 1 FROM {BY_CUSTOMER[-1]} LIMIT 1")
    await nothing_half_committed(conn)
    await conn.execute("ROLLBACK TO SAVEPOINT gate")


_HALF_COMMITTED: Final = """
    SELECT FROM run_command_on_workers($$
        SELECT coalesce(string_agg(gid, ' '), '') FROM pg_prepared_xacts
         WHERE database = current_database() AND gid LIKE 'citus_0_%' $$)
     WHERE NOT success OR result <> ''"""
"""Transactions that this coordinator has prepared on a worker. Those of wallets and the like may be on their way, and
end at once; what stays was left behind."""
_LOOKS_MAX, _LOOK_AGAIN_S = 50, 0.02


class Cursor(AsyncCursor[Any]):
    """Says to Citus what the statements of this room say to PostgreSQL.

    While shards are moved, what asks for sizes or would make a table beside `events` raises LockNotAvailable.
    """

    async def execute(self, query: Any, *args: Any, **kwargs: Any) -> "Cursor":
        with _as_locks():
            return await super().execute(_unfenced(query), *args, **kwargs)

    async def fetchone(self) -> Any:
        with _as_locks():
            return await super().fetchone()


def _unfenced(query: Any) -> Any:
    """`OFFSET 0` keeps PostgreSQL from planning a lateral probe as anything else, and before it `LIMIT 1` from looking for
    more than the one there is; Citus takes neither there, and each shard is small enough for its own planner."""
    if not isinstance(query, str):
        return query
    return query.replace(" LIMIT 1 OFFSET 0", "").replace(" OFFSET 0", "")


@contextmanager
def _as_locks() -> Iterator[None]:
    try:
        yield
    except InternalError as error:
        if "could not acquire the lock required" in str(error):  # to lay a table beside `events`
            raise LockNotAvailable("shards are being moved") from error
        raise
    except ConnectionFailure as error:
        if "to get size of relation" in str(error):
            raise LockNotAvailable("a shard is not where it was a moment ago, or its node is away") from error
        raise


# Tables ----------------------------------------------------------------------------------------------------


class NoCitus(RuntimeError):
    """The database cannot be spread over nodes; the message says what an operator can do about it."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a run had to do; nothing, where all was laid out already."""

    nodes: int  # that hold shards
    by_customer: list[str]
    everywhere: list[str]
    on_coordinator: list[str]

    def told(self) -> dict[str, int | list[str]]:
        return {
            "byCustomer": self.by_customer,
            "everywhere": self.everywhere,
            "onCoordinator": self.on_coordinator,
            "nodes": self.nodes,
        }


def refuse_unless_coordinator(conninfo: str) -> None:
    """Before anything is migrated. Raises NoCitus."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        _nodes(conn)


def is_laid_out(conn: Connection[TupleRow]) -> bool:
    """Whether this database has been spread over the nodes of a cluster."""
    if _version(conn) is None:
        return False
    return BY_CUSTOMER[0] in _tables(conn, "distributed")


def lay_out(conn: Connection[TupleRow]) -> Done:
    """Bring every table to where it belongs, with what it holds. Each moves in a transaction of its own, so that a run
    that was interrupted is taken up by the next. Raises NoCitus.

    Nobody should write meanwhile: a table is locked while it moves, and until all have moved, some statements fail.
    """
    nodes = _nodes(conn)
    everywhere = [each for each in EVERYWHERE if each not in _tables(conn, "reference")]
    for table in everywhere:
        conn.execute("SELECT create_reference_table(%s)", (table,))
        log.info("citus: %s is on every node", table)
    by_customer = [each for each in BY_CUSTOMER if each not in _tables(conn, "distributed")]
    for table in by_customer:
        if table == "event_keys":
            _widen_keys(conn)
        _distribute(conn, table)
        log.info("citus: %s is distributed by customer", table)
    on_coordinator = [each for each in _untold(conn) if each not in UNKNOWN]
    for table in on_coordinator:  # what references one another becomes known together
        conn.execute(
            "SELECT citus_add_local_table_to_metadata(%s, cascade_via_foreign_keys => true)", (table,)
        )
        log.info("citus: %s stays on the coordinator", table)
    return Done(nodes, by_customer, everywhere, on_coordinator)


def _widen_keys(conn: Connection[TupleRow]) -> None:
    """A primary key must name what the shard is chosen by; the hash alone tells keys apart as before."""
    for (table,) in conn.execute(
        "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'event_keys'::regclass"
    ).fetchall():
        conn.execute(
            sql.SQL(
                "ALTER TABLE {0} DROP CONSTRAINT {1}, ADD CONSTRAINT {1} PRIMARY KEY (key_hash, customer_id)"
            ).format(sql.Identifier(table), sql.Identifier(f"{table}_pkey"))
        )


def _distribute(conn: Connection[TupleRow], table: str) -> None:
    beside = "none" if table == BY_CUSTOMER[0] else BY_CUSTOMER[0]
    conn.execute("SELECT create_distributed_table(%s, 'customer_id', colocate_with => %s)", (table, beside))
    conn.execute("SELECT truncate_local_data_after_distributing_table(%s)", (table,))


def _version(conn: Connection[TupleRow]) -> str | None:
    found = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'citus'").fetchone()
    return None if found is None else found[0]


def _nodes(conn: Connection[TupleRow]) -> int:
    """How many nodes hold shards."""
    if _version(conn) is None:
        there = conn.execute("SELECT FROM pg_available_extensions WHERE name = 'citus'").fetchone()
        raise NoCitus(
            "this database has no Citus: "
            + (
                "it is installed, so put `shared_preload_libraries = 'citus'` into postgresql.conf, restart, and "
                "`CREATE EXTENSION citus` here and in the same database of every worker"
                if there
                else "install it on every node, then `CREATE EXTENSION citus` in the same database of each"
            )
        )
    coordinator = conn.execute(
        "SELECT nodename FROM pg_dist_node WHERE groupid = 0 AND noderole = 'primary' AND isactive"
    ).fetchone()
    if coordinator is None:
        raise NoCitus(
            "the nodes do not know their coordinator: `SELECT citus_set_coordinator_host('its name', its port)`, with the "
            "name the workers reach it by"
        )
    here = conn.execute("SELECT groupid FROM pg_dist_local_group").fetchone()
    if here is None or here[0] != 0:
        raise NoCitus("this is a worker: give the coordinator's URL")
    found = conn.execute(
        "SELECT count(*) FROM pg_dist_node WHERE shouldhaveshards AND isactive AND noderole = 'primary'"
    ).fetchone()
    if found is None or not found[0]:
        raise NoCitus(
            "no node may hold shards: `SELECT citus_add_node('a worker', its port)` for each worker"
        )
    return int(found[0])


def _tables(conn: Connection[TupleRow], kind: str) -> set[str]:
    """As the view `citus_tables` says, which asks every node for sizes meanwhile."""
    method, model = {"distributed": ("h", None), "reference": ("n", "t")}[kind]
    return {
        each[0]
        for each in conn.execute(
            """SELECT logicalrelid::text FROM pg_dist_partition
                WHERE partmethod = %(method)s AND (%(model)s::text IS NULL OR repmodel::text = %(model)s)""",
            {"method": method, "model": model},
        ).fetchall()
    }


def _untold(conn: Connection[TupleRow]) -> list[str]:
    """Our tables, without partitions, that Citus does not know of, or only as long as others reference them."""
    return [
        each[0]
        for each in conn.execute(
            """SELECT c.relname FROM pg_class c LEFT JOIN pg_dist_partition p ON p.logicalrelid = c.oid
                WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
                  AND NOT c.relispartition AND (p.logicalrelid IS NULL OR p.autoconverted)
                  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
                  AND NOT relation_is_a_known_shard(c.oid)
                ORDER BY c.relname"""
        ).fetchall()
    ]
