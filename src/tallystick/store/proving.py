"""Proof where the events are: leaves, sums and whole batches computed by SQL, so that no event crosses the wire.

`LEAF` gives the bytes of `core.proof.leaf`, which stays the reference: a test holds the two together over odd
values, and everything here has a readable twin in Python that must say the same of the same events.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

from tallystick.core.meters import Aggregation, Meter
from tallystick.core.money import ZERO
from tallystick.core.proof import GENESIS, LEAF_BYTES, key_hash
from tallystick.core.times import Period
from tallystick.store import citus, key_generations
from tallystick.store.db import Conn, row, rows
from tallystick.store.meter_sql import contributions
from tallystick.store.places import OWNER, RECEIVED_AT, same, within
from tallystick.store.portions import OF_EVENTS, Portion

_ATTEMPTS: Final = 3
_RECORDS_PER_PAGE: Final = 20_000
_PATIENCE: Final = "200ms"  # of deadlock_timeout, a second by default, after which autovacuum gives way
_SPANS: Final = "s"
RUNS_MAX: Final = 16
"""So many stretches of batch numbers are asked for at once: each is a look at the index over (id, batch)."""

_AS_ISO: Final = """to_char({0} AT TIME ZONE 'UTC', CASE WHEN date_trunc('second', {0}) = {0}
        THEN 'YYYY-MM-DD"T"HH24:MI:SS' ELSE 'YYYY-MM-DD"T"HH24:MI:SS.US' END)"""
_PROPERTIES: Final = """(SELECT CASE WHEN bool_and(jsonb_typeof(p.value) = 'string') OR count(*) = 0
                THEN coalesce(string_agg('\\x00'::bytea || convert_to(p.key, 'UTF8')
                                         || '\\x00'::bytea || convert_to(p.value #>> '{}', 'UTF8'),
                                         ''::bytea ORDER BY p.key COLLATE "C"), ''::bytea) END
           FROM jsonb_each(e.properties) p)"""

# A NUL cannot be in text, so the pieces are bytes. What holds only digits and letters of our own making is joined
# as text and unescaped in one go. Properties that are no text were never stored so: they have no leaf at all.
LEAF: Final[LiteralString] = f"""substr(sha256(
       decode(concat('void of ' || replace(e.voids::text, '-', '') || '\\000',
                     replace(e.id::text, '-', ''), '\\000', replace(e.customer_id::text, '-', ''), '\\000'), 'escape')
    || convert_to(e.feature_code, 'UTF8')
    || decode(concat('\\000', trim_scale(e.value), '\\000', {_AS_ISO.format("e.occurred_at")}, '+00:00\\000',
                     {_AS_ISO.format(RECEIVED_AT)}, '+00:00\\000'), 'escape')
    || convert_to(coalesce(e.event_key, ''), 'UTF8')
    || decode(concat('\\000', CASE WHEN e.timed THEN 't' END, '\\000', replace(e.adjusts::text, '-', ''), '\\000'), 'escape')
    || convert_to(coalesce(e.reason, ''), 'UTF8')
    || CASE WHEN e.properties IS NULL THEN ''::bytea
            WHEN jsonb_typeof(e.properties) = 'object' THEN {_PROPERTIES}
            WHEN jsonb_typeof(e.properties) = 'null' THEN ''::bytea END), 1, {LEAF_BYTES})"""
"""The leaf of the event `e`; NULL where its properties are none an event can have."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a meter counts of a customer in a span, as an organization's chain had it at a position.

    Leaves are wanted of what came after `after`: of events, and where that is not the beginning, of voids.
    """

    organization_id: UUID
    customer_id: UUID
    meter: Meter
    span: Period
    position: int
    after: int


class Summed(NamedTuple):
    """What the events of a span come to, and the leaves that were wanted, in order of (occurred_at, id)."""

    events: int
    quantity: Decimal
    at: datetime | None
    values: list[bytes]  # of UNIQUE: the hashes of its distinct values
    amounts: list[Decimal]
    leaves: bytes


async def sum_spans(conn: Conn, wanted: Sequence[Span], *, amounts: bool) -> list[Summed]:
    """`core.meters.fold` over each span; with `amounts`, also what each event contributed, in order.

    Of meters that say alike, many spans are read by one statement: for short ones, asking takes longest.
    """
    found: dict[Span, Summed] = {}
    for alike in _alike(wanted):
        found |= zip(alike, await _sum_alike(conn, alike, amounts), strict=True)
    return [found[each] for each in wanted]


def _alike(wanted: Sequence[Span]) -> Iterable[list[Span]]:
    """Parted by what their meters' statements look like, whatever the values in them."""
    parts: defaultdict[tuple[Any, ...], list[Span]] = defaultdict(list)
    for each in dict.fromkeys(wanted):
        counts = contributions(each.meter, of=_SPANS)
        parts[counts.alike, counts.quantity, counts.value, each.meter.aggregation].append(each)
    return parts.values()


async def _sum_alike(conn: Conn, wanted: Sequence[Span], amounts: bool) -> list[Summed]:
    meter = wanted[0].meter
    counts = contributions(meter, of=_SPANS)
    said = [contributions(each.meter, of=_SPANS).params for each in wanted]
    value = "NULL::bytea" if counts.value is None else counts.value_hash
    each = (
        "array_agg(quantity ORDER BY at, quantity) FILTER (WHERE counts AND leaf IS NOT NULL)"
        if amounts
        else "NULL::numeric[]"
    )
    values = (
        "NULL::bytea[]"
        if counts.value is None
        else "array_agg(DISTINCT value) FILTER (WHERE counts AND leaf IS NOT NULL)"
    )
    cursor = await conn.execute(
        f"""SELECT f.*
              FROM unnest(%(organizations)s::uuid[], %(customers)s::uuid[], %(starts)s::timestamptz[],
                          %(ends)s::timestamptz[], %(positions)s::bigint[], %(afters)s::bigint[]
                          {"".join(f", %({name})s::text[]" for name in counts.params)}) WITH ORDINALITY
                   AS {_SPANS} (organization_id, customer_id, low, high, position, after
                                {"".join(f", {name}" for name in counts.params)}, number)
             CROSS JOIN LATERAL (
                   SELECT s.number, count(*) FILTER (WHERE counts AND leaf IS NOT NULL) AS events, coalesce({_merged(meter)}, 0) AS quantity,
                          max(at) FILTER (WHERE counts AND leaf IS NOT NULL) AS at, {values} AS met, {each} AS amounts,
                          string_agg(leaf, ''::bytea ORDER BY at, id) FILTER (WHERE listed) AS leaves
                     FROM (SELECT e.customer_id, e.occurred_at AS at, e.id, {counts.quantity} AS quantity, {value} AS value,
                                  e.voids IS NULL AS counts, e.position > s.after AS listed, {LEAF} AS leaf
                             FROM (SELECT e.*, (SELECT b.position FROM ingest_batches b
                                                 WHERE b.batch = e.batch AND b.organization_id = s.organization_id)
                                     FROM events e
                                    WHERE e.customer_id = s.customer_id AND {within("s.low", "s.high")}
                                      AND {counts.alike} OFFSET 0) AS e
                            WHERE e.position <= s.position
                              AND CASE WHEN e.voids IS NOT NULL THEN s.after > 0
                                       ELSE e.voided IS NULL OR (SELECT v.position > s.position FROM ingest_batches v
                                                                  WHERE v.batch = e.voided) END
                            ORDER BY e.occurred_at, e.id) AS found
                    {citus.grouped_by(conn, "found.customer_id")}) AS f""",
        {
            "organizations": [each.organization_id for each in wanted],
            "customers": [each.customer_id for each in wanted],
            "starts": [each.span.start for each in wanted],
            "ends": [each.span.end for each in wanted],
            "positions": [each.position for each in wanted],
            "afters": [each.after for each in wanted],
            **{name: [str(each[name]) for each in said] for name in counts.params},
        },
        binary=True,
    )
    found = {
        number: Summed(events, quantity, at, distinct or [], contributed or [], bytes(leaves or b""))
        for number, events, quantity, at, distinct, contributed, leaves in await cursor.fetchall()
    }
    return [found.get(number, _NOTHING) for number, _ in enumerate(wanted, start=1)]


_NOTHING: Final = Summed(0, ZERO, None, [], [], b"")


def _merged(meter: Meter) -> str:
    match meter.aggregation:
        case Aggregation.MAX:
            return "max(quantity) FILTER (WHERE counts AND leaf IS NOT NULL)"
        case Aggregation.LATEST:  # of one instant the larger, as `core.meters.merge` says
            return "(array_agg(quantity ORDER BY at DESC, quantity DESC) FILTER (WHERE counts AND leaf IS NOT NULL))[1]"
        case Aggregation.UNIQUE:
            return "count(DISTINCT value) FILTER (WHERE counts AND leaf IS NOT NULL)::numeric"
    return "sum(quantity) FILTER (WHERE counts AND leaf IS NOT NULL)"


ARCHIVED: Final[LiteralString] = """EXISTS (
    SELECT FROM archived_months m JOIN archived_shares s USING (month)
     WHERE s.organization_id = %(organization)s AND {at} >= m.starts AND {at} < m.ends)"""
"""Whether the instant `{at}` lies in a month that was archived with events of `organization`, and is not back."""


# The chain ------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """How a record of the chain fares."""

    position: int
    batch: int
    follows: bool | None  # its digest from the record before it; None: that one is missing
    events_agree: bool  # and give its leaves
    marks_agree: bool  # what is beside the events' facts: the leaf they carry, what took them back
    events: int  # that are there


async def cuts(conn: Conn, *, organization_id: UUID, events: int, until: int) -> list[int]:
    """Positions that part the chain into stretches of about so many events, by what its records say they hold."""
    found: list[int] = []
    for after in range(0, until, _RECORDS_PER_PAGE):
        page = await rows(
            conn,
            """SELECT max(position)
                 FROM (SELECT position,
                              sum(least(greatest(events, 0), 10000) + 4) OVER (ORDER BY position) / %s AS stretch
                         FROM ingest_batches WHERE organization_id = %s AND position > %s AND position <= %s) AS parts
                GROUP BY stretch ORDER BY 1""",
            (events, organization_id, after, min(after + _RECORDS_PER_PAGE, until)),
        )
        found += [each[0] for each in page]
    return found


async def check_records(conn: Conn, *, organization_id: UUID, after: int, until: int) -> list[Record]:
    """Every record after a position and up to another, each judged where it lies.

    A record's own columns count as its leaves do: how many events it says, and which is the first. The events are
    digested once, whatever the planner thinks of a table it has no statistics of: just after a big import it takes
    the records for one row, and would digest everything again for each.
    """
    numbers = [
        each[0]
        for each in await rows(
            conn,
            """SELECT batch FROM ingest_batches
                WHERE organization_id = %s AND position > %s AND position <= %s ORDER BY batch""",
            (organization_id, after, until),
        )
    ]
    cursor = await conn.execute(
        f"""WITH stored AS MATERIALIZED (
                SELECT batch, count(*) AS events, (array_agg(id ORDER BY id))[1] AS first_id,
                       string_agg(coalesce(leaf, ''::bytea), ''::bytea ORDER BY id) AS leaves,
                       bool_and((carried IS NULL OR carried = leaf) AND marks) AS marks
                  FROM (SELECT e.batch, e.id, {LEAF} AS leaf, uuid_send(e.leaf) AS carried, {_MARKS} AS marks
                          FROM {_OF_RUNS} OFFSET 0) AS found
                 GROUP BY batch
            ), records AS (
                SELECT position, batch, first_event_id, events, leaves, digest,
                       lag(digest) OVER (ORDER BY position) AS before, lag(position) OVER (ORDER BY position) AS previous
                  FROM ingest_batches
                 WHERE organization_id = %(organization)s AND position >= %(after)s AND position <= %(until)s
            )
            SELECT r.position, r.batch,
                   CASE WHEN r.position = 1 THEN r.digest = sha256(%(genesis)s || int8send(1) || r.leaves)
                        WHEN r.previous = r.position - 1
                        THEN r.digest = sha256(r.before || int8send(r.position) || r.leaves) END,
                   coalesce(s.leaves = r.leaves AND s.first_id = r.first_event_id AND s.events = r.events, false),
                   coalesce(s.marks, true), coalesce(s.events, 0)
              FROM records r LEFT JOIN stored s ON s.batch = r.batch
             WHERE r.position > %(after)s ORDER BY r.position""",
        {
            "organization": organization_id,
            "after": after,
            "until": until,
            "genesis": GENESIS,
            **_runs(numbers),
        },
        binary=True,
    )
    return [Record(*each) for each in await cursor.fetchall()]


_MARKS: Final = f"""(CASE WHEN e.voided IS NULL AND e.voids IS NULL THEN true ELSE
        (e.voided IS NULL OR EXISTS (
            SELECT FROM events v WHERE v.customer_id = e.customer_id AND v.occurred_at = e.occurred_at
                                   AND v.voids = e.id AND v.batch = e.voided))
        AND (e.voids IS NULL OR EXISTS (
            SELECT FROM events o WHERE {same("o", "e", named="voids")} AND o.voided = e.batch)) END)"""
"""An event is marked as taken back exactly by the batch of its void."""

# `+ 0`: the index would be asked for each number by itself, and reads all its ranges each time.
_OF_RUNS: Final = """unnest(%(lows)s::bigint[], %(highs)s::bigint[]) AS r (low, high) CROSS JOIN LATERAL (
        SELECT * FROM events e
         WHERE e.batch >= r.low AND e.batch <= r.high AND e.batch + 0 = ANY(%(numbers)s) OFFSET 0) e"""


def _runs(numbers: Sequence[int]) -> dict[str, list[int]]:
    """Sorted batch numbers, and the few runs that hold them all, parted where the gaps are widest.

    The index over (id, batch) knows ranges of pages: one look at it for each number would read it all each time,
    one look for all of them would read what other organizations stored in between.
    """
    gaps = sorted(
        (place for place in range(1, len(numbers)) if numbers[place] - numbers[place - 1] > 1),
        key=lambda place: numbers[place - 1] - numbers[place],
    )
    cuts = [0, *sorted(gaps[: RUNS_MAX - 1]), len(numbers)]
    parts = [(numbers[low], numbers[high - 1]) for low, high in pairwise(cuts) if low < high]
    return {
        "lows": [low for low, _ in parts],
        "highs": [high for _, high in parts],
        "numbers": list(numbers),
    }


class Stored(NamedTuple):
    """A stored event as the chain sees it."""

    id: UUID
    customer_id: UUID
    batch: int
    leaf: bytes
    carries_leaf: bool  # the same one, or none
    voids: UUID | None
    voided: int | None
    marks_agree: bool


_STORED: Final = f"""e.id, e.customer_id, e.batch, coalesce({LEAF}, ''::bytea),
    coalesce(uuid_send(e.leaf) = {LEAF}, e.leaf IS NULL), e.voids, e.voided, {_MARKS}"""


def _stored(found: Sequence[tuple[Any, ...]]) -> list[Stored]:
    return [Stored(*each)._replace(leaf=bytes(each[3])) for each in found]


async def stored_in(conn: Conn, *, numbers: Sequence[int]) -> list[Stored]:
    """What is stored under some batch numbers, in order of id."""
    found = await rows(
        conn,
        f"""SELECT {_STORED}
              FROM {_OF_RUNS} ORDER BY e.id""",
        _runs(sorted(numbers)),
    )
    return _stored(found)


async def unchained(conn: Conn, portion: Portion, *, organization_id: UUID, limit: int) -> list[Stored]:
    """Events of its customers whose batch is none of its chain."""
    found = await rows(
        conn,
        f"""SELECT {_STORED} FROM events e
             WHERE e.customer_id IN (SELECT id FROM customers WHERE organization_id = %(organization)s)
               AND {OF_EVENTS} AND {OWNER} IS DISTINCT FROM %(organization)s
             ORDER BY e.batch, e.id LIMIT %(limit)s""",
        {"organization": organization_id, "limit": limit, **portion.params},
    )
    return _stored(found)


class End(NamedTuple):
    """Where the chain ends: by its head (None: there is none), and by its last record."""

    head: int | None
    head_digest: bytes | None
    last: int
    last_digest: bytes


async def end_of_chain(conn: Conn, *, organization_id: UUID) -> End:
    """In one statement, so that a server that goes on storing does not come in between."""
    found = await row(
        conn,
        """SELECT h.position, h.digest, coalesce(b.position, 0), coalesce(b.digest, %(genesis)s)
             FROM (SELECT 1) AS one
             LEFT JOIN organization_heads h ON h.organization_id = %(organization)s
             LEFT JOIN LATERAL (
                  SELECT position, digest FROM ingest_batches WHERE organization_id = %(organization)s
                   ORDER BY position DESC LIMIT 1) b ON true""",
        {"organization": organization_id, "genesis": GENESIS},
    )
    assert found is not None
    head, digest, last, last_digest = found
    return End(head, None if digest is None else bytes(digest), last, bytes(last_digest))


# Keys -----------------------------------------------------------------------------------------------------

_KEY_HASH: Final = """encode(substr(sha256(uuid_send(e.customer_id)
    || substr(sha256('\\x6b6579000000'::bytea || convert_to(e.event_key, 'UTF8')), 1, 16)), 1, 16), 'hex')::uuid"""
"""`core.proof.key_hash` of an event, at the first attempt."""


class Keyed(NamedTuple):
    """An event of which the key row or the row itself is not where the other says."""

    event_id: UUID
    customer_id: UUID


async def lost(
    conn: Conn, *, organization_id: UUID, customers: Sequence[UUID] | None, limit: int
) -> list[Keyed]:
    """Key rows whose event is not where they say, nor in an archived month; of all customers, or of some."""
    found: list[tuple[Any, ...]] = []
    for table, pages in await _keys(conn):
        for first, end in pages:
            found += await rows(
                conn,
                f"""SELECT k.event_id, k.customer_id FROM {table} k
                     WHERE (%(first)s::tid IS NULL OR (k.ctid >= %(first)s::tid AND k.ctid < %(end)s::tid))
                       AND k.customer_id IN (SELECT id FROM customers WHERE organization_id = %(organization)s)
                       AND (%(customers)s::uuid[] IS NULL OR k.customer_id = ANY(%(customers)s))
                       AND NOT EXISTS (SELECT FROM events e WHERE {same("e", "k", named="event_id")} OFFSET 0)
                       AND NOT {ARCHIVED.format(at="k.occurred_at")}
                     ORDER BY k.event_id LIMIT %(limit)s""",
                {
                    "organization": organization_id,
                    "customers": None if customers is None else list(customers),
                    "first": first,
                    "end": end,
                    "limit": limit,
                },
            )
    return [Keyed(*each) for each in sorted(found)[:limit]]


async def _keys(conn: Conn) -> list[tuple[LiteralString, Sequence[tuple[str | None, str | None]]]]:
    """Tables of keys, with the pages in which they are read; on a cluster, all at once."""
    if citus.is_citus(conn):
        return [("event_keys", [(None, None)])]
    generations = await rows(conn, "SELECT number FROM key_generations ORDER BY number")
    return [
        (key_generations.table(number), await key_generations.blocks(conn, generation=number))
        for (number,) in generations
    ]


async def unkeyed(
    conn: Conn, *, organization_id: UUID, after: int, until: int, customers: Sequence[UUID] | None, limit: int
) -> list[Keyed]:
    """Events of the chain after a position and up to another that have a key nobody guards any more.

    A key lives at the hash of its text (`core.proof.key_hash`), and at the next one only where another key of that
    hash was there first: so what is missed is looked for there, too. The generation that was open when the batch got its
    number is looked in first, and all of them for what is not there.
    """
    numbers = [
        each[0]
        for each in await rows(
            conn,
            """SELECT batch FROM ingest_batches
                WHERE organization_id = %s AND position > %s AND position <= %s ORDER BY batch""",
            (organization_id, after, until),
        )
    ]
    generations = await rows(conn, "SELECT number, first_batch FROM key_generations ORDER BY first_batch")
    suspects = await rows(
        conn,
        f"""SELECT e.id, e.customer_id, e.event_key
              FROM {_OF_RUNS}
              LEFT JOIN LATERAL (
                   SELECT k.event_id FROM event_keys k
                    WHERE k.generation = (%(generations)s::int[])[width_bucket(e.batch, %(firsts)s::bigint[])]
                      AND k.customer_id = e.customer_id
                      AND k.key_hash = {_KEY_HASH}
                   OFFSET 0) k ON true
             WHERE e.event_key IS NOT NULL AND k.event_id IS DISTINCT FROM e.id
               AND (%(customers)s::uuid[] IS NULL OR e.customer_id = ANY(%(customers)s))
             ORDER BY e.id LIMIT %(limit)s""",
        {
            "organization": organization_id,
            "customers": None if customers is None else list(customers),
            "limit": limit,
            "generations": [each[0] for each in generations],
            "firsts": [each[1] for each in generations],
            **_runs(numbers),
        },
    )
    further = [
        (event_id, customer_id, UUID(bytes=key_hash(customer_id, key, attempt)))
        for event_id, customer_id, key in suspects
        for attempt in range(_ATTEMPTS)
    ]
    guarded = await rows(
        conn,
        """SELECT s.event_id FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[]) AS s (event_id, customer_id, key_hash)
             JOIN event_keys k ON k.customer_id = s.customer_id AND k.key_hash = s.key_hash
                              AND k.event_id = s.event_id""",
        tuple(map(list, zip(*further, strict=True))) or ([], [], []),
    )
    there = {each[0] for each in guarded}
    return [Keyed(*each[:2]) for each in suspects if each[0] not in there]


async def refresh_index(conn: Conn) -> None:
    """Let the index over (id, batch) know the newest pages too, which autovacuum may not have told it yet.

    Whoever asks it reads all pages it does not know, each time. An autovacuum at work is not waited for, which would
    stop it. On a cluster the pages are elsewhere.
    """
    if citus.is_citus(conn):
        return
    async with conn.transaction():
        await conn.execute("SELECT set_config('lock_timeout', %s, true)", (_PATIENCE,))
        await conn.execute(
            """SELECT brin_summarize_new_values(i.indexrelid)
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
                 JOIN pg_inherits h ON h.inhrelid = i.indrelid
                WHERE a.amname = 'brin' AND h.inhparent = 'events'::regclass"""
        )
