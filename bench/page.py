"""The page of the docs: every number of one run, as Markdown, and the picture beside it."""

import msgspec

from bench import growth_report, prepaid_report, report, storage, visible, workers
from bench.growth_report import GOAL_RATIO, WORST_S
from bench.load import ratio
from bench.plot import Bar, bars

BEGIN = "<!-- written by python -m bench.everything --write: begin -->"
END = "<!-- end of what is written by that command -->"
INTRODUCTION = """# Benchmarks

What Tallystick does on one machine, on one day, beside what that very machine could do at best. Everything below the line
was written by `make bench`, which takes some minutes; each part has a command of its own that prints it, and
[bench/README.md](../bench/README.md) says how it is measured and what the words mean. On your machine the numbers are
others: run it there.

"""


class Document(msgspec.Struct, frozen=True, rename="camel"):
    measured_at: str  # the day
    took_s: float
    quick: bool  # then no number means anything
    machine: dict[str, object]
    ingest: report.Report
    workers: workers.Report
    visible: visible.Report
    storage: storage.Report
    prepaid: prepaid_report.Report
    growth: growth_report.Report

    @property
    def is_right(self) -> bool:
        errors = self.ingest.errors + self.workers.errors + self.growth.errors + self.visible.late
        return not errors and self.prepaid.is_right


def written(before: str | None, block: str) -> str:
    """The page with the block in it; whatever somebody wrote around the old one stays."""
    whole = f"{BEGIN}\n{block}{END}\n"
    if before is None or BEGIN not in before or END not in before:
        return (INTRODUCTION if before is None else before.rstrip("\n") + "\n\n") + whole
    head, _, rest = before.partition(BEGIN)
    return head + whole.rstrip("\n") + rest.partition(END)[2]


def picture(document: Document) -> str:
    """What comes in over HTTP, over the paler bar of the ceiling that it is compared with."""
    options, ceilings = document.ingest.options, document.ingest.ceilings
    rows = []
    for name, load, handler, insert in (
        ("single events", document.ingest.singles, ceilings.handler_singles, ceilings.insert_singles),
        (
            f"batches of {options.events_per_batch}",
            document.ingest.batches,
            ceilings.handler_batches,
            ceilings.insert_gathered,
        ),
        (
            f"bulks of {options.events_per_bulk:,}",
            document.ingest.bulks,
            ceilings.handler_bulks,
            ceilings.insert_gathered,
        ),
    ):
        tops = {"a bare handler": handler.events_per_s}
        if insert is not None:
            tops["a bare INSERT"] = insert.rows_per_s
        for against, top in tops.items():
            said = f"{load.events_per_s:,.0f} of {top:,.0f}"
            rows.append(Bar(f"{name}, {against}", load.events_per_s, top, said))
    return bars("Events a second, of the most this machine could do without the other half", rows)


def page(document: Document, *, image: str) -> str:
    machine, postgres = document.machine, document.growth.postgres
    memory = f"{int(str(machine['memoryBytes'])) / 2**30:.0f} GiB"
    parts = [
        f"Measured on {document.measured_at} by `make bench` (`python -m bench.everything --write`), in "
        f"{document.took_s / 60:.0f} minutes, on one machine: {machine['cores']} cores of {machine['processor']}, "
        f"{memory} of memory, Python {machine['python']}, PostgreSQL {postgres['server_version']} with "
        f"`shared_buffers` {postgres['shared_buffers']}, `fsync` {postgres['fsync']}. Server, PostgreSQL and load "
        "generator share the cores.",
        f"![Events a second beside their ceilings]({image})",
        _ingest(document.ingest),
        _workers(document.workers),
        _visible(document.visible),
        _storage(document.storage),
        _prepaid(document.prepaid),
        _growth(document.growth),
    ]
    return "\n\n".join(parts) + "\n"


def _ingest(told: report.Report) -> str:
    rows = []
    for kind, name in (("singles", "single events"), ("batches", "batches"), ("bulks", "bulks")):
        load, shares = getattr(told, kind), told.ratios[kind]
        insert = "insert" if kind == "singles" else "insertGathered"
        rows.append(
            [name, f"{load.events_per_s:,.0f}", f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}"]
            + [f"{shares[each]:.0%}" if each in shares else "" for each in ("handler", insert, "copy")]
            + [f"{load.generator_us:.0f}"]
        )
    heads = ["", "events/s", "p50 ms", "p99 ms", "÷ bare handler", "÷ bare INSERT", "÷ COPY", "client µs"]
    text = _section("Taking events in", "bench.ingest", _table(heads, rows))
    if told.restart is None:
        return text
    weight = told.restart.idle_memory_bytes
    memory = "not readable here" if weight is None else f"{weight / 2**20:.0f} MiB"
    return (
        f"{text}\n\nWith one worker, from the start of the process to the first accepted event: "
        f"{told.restart.first_event_s:.2f} s; idle memory, PostgreSQL included: {memory}."
    )


def _workers(told: workers.Report) -> str:
    rows = [
        [
            name,
            f"{each.load.events_per_s:,.0f}",
            f"{each.load.p99_ms:.0f}",
            f"{each.server_us:.1f}",
            f"{each.postgres_us:.1f}",
            f"{each.busy:.0%}",
        ]
        for name, each in told.rows
    ]
    heads = [
        "workers",
        "events/s",
        "p99 ms",
        "server, µs an event",
        "PostgreSQL, µs an event",
        "machine busy",
    ]
    table = _table(heads, rows)
    text = _section("Processor time of an event, in bulks of 1,000", "bench.workers", table)
    return f"{text}\n\n{told.verdict}"


def _visible(told: visible.Report) -> str:
    rows = [
        [each.question, str(each.asked), str(each.late), f"{each.p50_ms:.1f}", f"{each.p99_ms:.1f}"]
        for each in told.seen
    ]
    heads = ["asked right after the answer", "events", "not yet there", "p50 ms", "p99 ms"]
    return _section("From the answer to being counted everywhere", "bench.visible", _table(heads, rows))


def _storage(told: storage.Report) -> str:
    def cell(stored: storage.Stored, place: tuple[str, str]) -> str:
        found = [part.bytes_per_event for part in stored.parts if (part.table, part.part) == place]
        return f"{sum(found):.1f}"

    places = dict.fromkeys(
        (part.table, part.part) for each in (told.plain, told.with_properties) for part in each.parts
    )
    rows = [
        [f"{place[0]}: {place[1]}", cell(told.plain, place), cell(told.with_properties, place)]
        for place in places
    ]
    rows.append(["all", f"{told.plain.bytes_per_event:.1f}", f"{told.with_properties.bytes_per_event:.1f}"])
    table = _table(["bytes an event", "no properties", "two properties"], rows)
    text = _section(f"Storage, after {told.plain.events:,} keyed events", "bench.storage", table)
    return (
        f"{text}\n\nThe goal is {told.goal_bytes} bytes an event without properties. A customer has "
        f"{told.plain.per_customer_and_hour:,.0f} events in an hour here, which share lists in the index over `events`."
    )


def _prepaid(told: prepaid_report.Report) -> str:
    rows = [
        [
            name,
            f"{one.load.events_per_s:,.0f}",
            "" if one is metered else f"{ratio(one.load.events_per_s, metered.load.events_per_s):.0%}",
            f"{one.load.p99_ms:.1f}",
            f"{one.server_us:.0f}",
            f"{one.postgres_us:.0f}",
        ]
        for name, (one, metered) in told.stretches.items()
    ]
    heads = ["", "events/s", "÷ metered", "p99 ms", "server µs", "PostgreSQL µs"]
    asked = [
        [name, f"{load.requests_per_s:,.0f}", f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}"]
        for name, load in told.asked.items()
    ]
    text = _section("Prepaid usage beside metered usage", "bench.prepaid", _table(heads, rows))
    verdict = "all agree" if not told.books.wrong else f"{told.books.wrong} disagree"
    return (
        f"{text}\n\n{_table(['asking meanwhile', 'requests/s', 'p50 ms', 'p99 ms'], asked)}\n\n"
        f"{told.books.wallets:,} wallets, {told.books.events:,} events on them; events, ledger and wallets: {verdict}."
    )


def _growth(told: growth_report.Report) -> str:
    rows = [
        [
            each.name,
            f"{each.empty.events_per_s:,.0f}",
            f"{each.full.events_per_s:,.0f}",
            f"{each.ratio:.2f}",
            f"{each.full.worst(WORST_S):,.0f}",
            f"{each.full.p99_ms:.0f}",
        ]
        for each in told.compared
    ]
    heads = [
        "events/s",
        "empty",
        f"with {told.keys:,} keys",
        "÷",
        f"worst {WORST_S} s with them",
        "p99 ms with them",
    ]
    text = _section("A history", "bench.growth", _table(heads, rows))
    size = sum(told.history.values())
    return (
        f"{text}\n\nThe goal is {GOAL_RATIO:.2f} or more. These keys take {size / 2**20:,.0f} MiB, "
        f"{size / max(told.keys, 1):.0f} bytes each; "
        "`make bench-growth` and `make bench-growth-long` do it with twenty and a hundred million."
    )


def _section(title: str, module: str, table: str) -> str:
    return f"## {title}\n\n`python -m {module}`\n\n{table}"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))
