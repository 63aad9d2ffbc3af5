"""What only a cluster can show: where the tables lie, how they get there, and that no node is seen before another."""

import asyncio
import json
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from tallystick.store import citus, migrate
from tallystick.store.db import CONNECTION, connect, head_position, one_moment, rows
from tallystick.store.key_generations import table
from tests import story
from tests.audit import audit, organization_id, select
from tests.citus.cluster import database_beside
from tests.conftest import PROGRAM, MakeOrganization, open_one, serving
from tests.flows.test_key_generations import freeze
from tests.shop import done, invoices_of, open_shop, refused, set_clock, track, track_batch


def test_every_table_lies_where_it_belongs(cluster_url: str) -> None:
    with psycopg.connect(cluster_url, autocommit=True) as conn:
        lies: dict[str, str] = dict(
            conn.execute("SELECT table_name::text, citus_table_type FROM citus_tables").fetchall()
        )
        groups = conn.execute(
            "SELECT DISTINCT colocation_id FROM citus_tables WHERE citus_table_type = 'distributed'"
        ).fetchall()
        ours = {
            name
            for (name,) in conn.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
                " AND NOT relispartition AND NOT relation_is_a_known_shard(oid)"
            )
        }
    assert {each for each in ours if lies.get(each) == "distributed"} == set(citus.BY_CUSTOMER)
    assert {each for each in ours if lies.get(each) == "reference"} == set(citus.EVERYWHERE)
    assert {each for each in ours if each not in lies} == set(citus.UNKNOWN)
    assert len(groups) == 1


def test_laying_out_twice_does_nothing(cluster_url: str) -> None:
    again = migrate.spread(cluster_url)
    assert (again.by_customer, again.everywhere, again.on_coordinator) == ([], [], [])
    told = subprocess.run(
        [PROGRAM, "migrate", "--citus", "--json", "--database-url", cluster_url],
        check=True,
        capture_output=True,
    )
    assert json.loads(told.stdout) == {"migrations": [], "citus": again.told()}


@pytest.fixture
def another(cluster_url: str) -> Iterator[str]:
    with database_beside(cluster_url, "another") as made:
        yield made


def test_a_database_with_events_moves_with_all_it_holds(another: str) -> None:
    migrate.migrate(another)
    with serving(another) as server:
        shop = open_one(another, server.base_url, clock=story.OPENED)
        story.live(shop)
        sold = [each["total"] for customer in ("ada", "bob") for each in invoices_of(shop, customer)]
    told = subprocess.run(
        [PROGRAM, "migrate", "--citus", "--json", "--database-url", another], check=True, capture_output=True
    )
    assert set(json.loads(told.stdout)["citus"]["byCustomer"]) == set(citus.BY_CUSTOMER)
    with psycopg.connect(another) as conn:
        left = conn.execute(
            """SELECT inhrelid::regclass FROM pg_inherits
                WHERE inhparent IN ('events'::regclass, 'event_keys'::regclass) AND pg_relation_size(inhrelid) > 0"""
        ).fetchall()
    assert left == [], "nothing stays on the coordinator"
    with serving(another) as server:
        shop.http.base_url = server.base_url
        assert sold == [each["total"] for customer in ("ada", "bob") for each in invoices_of(shop, customer)]
        audit(another, shop)
    verified = subprocess.run([PROGRAM, "verify", "--all", "--database-url", another], check=False)
    assert verified.returncode == 0
    shop.http.close()


def test_whoever_has_no_citus_is_told_so(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        if conn.execute("SELECT FROM pg_extension WHERE extname = 'citus'").fetchone() is not None:
            pytest.skip("this database has Citus")
    refused = subprocess.run(
        [PROGRAM, "migrate", "--citus", "--database-url", database_url], check=False, capture_output=True
    )
    assert refused.returncode == 1
    assert b"this database has no Citus" in refused.stderr


def test_a_batch_of_one_customer_and_its_notch_are_committed_in_two_phases(
    cluster_url: str, make_organization: MakeOrganization
) -> None:
    shop = make_organization()
    open_shop(shop, "ada")

    def prepared() -> int:
        with psycopg.connect(cluster_url) as conn:
            found = conn.execute(
                "SELECT coalesce(max(xmin::text::bigint), 0) FROM pg_dist_transaction"
            ).fetchone()
        assert found is not None
        return int(found[0])

    before = prepared()
    done(track(shop, key="k"))
    assert prepared() > before


def test_a_generation_is_not_frozen_before_every_commit_has_reached_its_node(
    cluster_url: str, make_organization: MakeOrganization
) -> None:
    """A worker that was lost between preparing and committing may hold keys that nobody sees yet."""
    shop = make_organization()
    open_shop(shop, "ada")
    done(track(shop, key="k"))
    with psycopg.connect(cluster_url, autocommit=True) as conn:
        ((host, port),) = conn.execute(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE groupid > 0 ORDER BY groupid LIMIT 1"
        ).fetchall()
        conn.execute("ALTER SYSTEM SET citus.recover_2pc_interval = '1d'")
        conn.execute("SELECT pg_reload_conf()")
        worker = psycopg.connect(
            psycopg.conninfo.make_conninfo(cluster_url, host=host, port=port), autocommit=True
        )
        worker.execute("BEGIN")
        worker.execute("PREPARE TRANSACTION 'citus_0_1_1_1'")
        try:
            before = current(cluster_url)
            with pytest.raises(psycopg.OperationalError, match="in the middle of a commit"):
                freeze(cluster_url)
            assert current(cluster_url) == before
        finally:
            worker.execute("ROLLBACK PREPARED 'citus_0_1_1_1'")
            worker.close()
            conn.execute("ALTER SYSTEM RESET citus.recover_2pc_interval")
            conn.execute("SELECT pg_reload_conf()")
    assert freeze(cluster_url) == before + 1
    refused(track(shop, key="k"), 409, "duplicate")


def current(url: str) -> int:
    ((number,),) = select(url, "SELECT number FROM key_generations WHERE frozen_at IS NULL")
    return int(number)


def test_a_new_generation_and_a_new_month_lie_where_the_older_ones_do(cluster_url: str) -> None:
    number = freeze(cluster_url)
    with psycopg.connect(cluster_url) as conn:
        apart = conn.execute(
            """SELECT inhrelid::regclass FROM pg_inherits LEFT JOIN pg_dist_partition p ON p.logicalrelid = inhrelid
                WHERE inhparent IN ('events'::regclass, 'event_keys'::regclass)
                  AND p.colocationid IS DISTINCT FROM
                      (SELECT colocationid FROM pg_dist_partition WHERE logicalrelid = 'events'::regclass)"""
        ).fetchall()
        found = conn.execute("SELECT to_regclass(%s)::text", (table(number),)).fetchone()
    assert (apart, found) == ([], (table(number),))


def test_a_close_begins_when_nobody_is_between_two_nodes(
    cluster_url: str, make_organization: MakeOrganization
) -> None:
    organization = organization_id(make_organization())

    async def inside() -> None:
        async with (
            await connect(cluster_url, CONNECTION) as storing,
            await connect(cluster_url, CONNECTION) as closing,
        ):

            async def look() -> int:
                async with one_moment(closing):
                    return await head_position(closing, organization_id=organization)

            before = await look()
            async with storing.transaction():
                await storing.execute(
                    "UPDATE organization_heads SET position = position + 1 WHERE organization_id = %s",
                    (organization,),
                )
                looking = asyncio.create_task(look())
                await asyncio.sleep(0.5)
                assert not looking.done()
            assert await looking == before + 1
            await storing.execute(
                "UPDATE organization_heads SET position = position - 1 WHERE organization_id = %s",
                (organization,),
            )

    asyncio.run(inside())


def test_a_customer_lies_on_one_node_and_customers_on_several(
    cluster_url: str, make_organization: MakeOrganization
) -> None:
    shop = make_organization(clock="2025-01-15T00:00:00Z")
    customers = [f"customer_{number}" for number in range(12)]
    open_shop(shop, *customers)
    sent = [{"featureCode": "api_calls", "customerId": each, "eventId": "k"} for each in customers]
    assert track_batch(shop, sent)["failed"] == []

    async def inside() -> list[tuple[object, ...]]:
        async with await connect(cluster_url, CONNECTION) as conn:
            return list(
                await rows(
                    conn,
                    """SELECT DISTINCT n.nodeport FROM customers c, pg_dist_placement p
                         JOIN pg_dist_node n USING (groupid)
                        WHERE c.organization_id = %s
                          AND p.shardid = get_shard_id_for_distribution_column('events', c.id)""",
                    (organization_id(shop),),
                )
            )

    assert len(asyncio.run(inside())) > 1
    assert audit(cluster_url, shop) == 12
    set_clock(shop, "2025-03-01T00:00:00Z")
    audit(cluster_url, shop)
