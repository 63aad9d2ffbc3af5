"""The same events from CSV, NDJSON and Parquet are the same events; what a format cannot say is told, never guessed."""

import gzip
import json
import os
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tallystick.cli.sources import formats
from tallystick.cli.sources.source import NotReadable, chunks
from tallystick.core.limits import BODY_BYTES_MAX, ROWS_PER_CHUNK_MAX
from tallystick.core.mapping import ColumnMapping
from tests import shop
from tests.conftest import PROGRAM, Organization
from tests.scenarios.importing import AT, event, importing, run, summary, used
from tests.scenarios.witnesses import until

MAP = [
    "--map",
    "customerId=account",
    "--map",
    "value=qty",
    "--map",
    "timestamp=at",
    "--map",
    "eventId=request",
]
SET = ["--set", "featureCode=api_calls"]
ROWS: list[dict[str, Any]] = [
    {"account": "ada", "qty": Decimal("2.50"), "at": datetime(2026, 1, 15, 10, tzinfo=UTC), "request": "a"},
    {"account": "ada", "qty": Decimal("0.1"), "at": datetime(2026, 1, 15, 11, tzinfo=UTC), "request": "b"},
    {"account": "ada", "qty": None, "at": None, "request": "c"},
]
TOTAL = Decimal("3.6")


def in_csv(file: Path, delimiter: str = ",") -> None:
    lines = [["account", "qty", "at", "request", 'region, or "none"']]
    lines += [[each["account"], each["qty"] or "", each["at"] or "", each["request"], 'e"u'] for each in ROWS]
    quoted = [delimiter.join('"' + str(cell).replace('"', '""') + '"' for cell in line) for line in lines]
    text = "\r\n".join(quoted).encode("utf-8-sig")
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)


def in_ndjson(file: Path) -> None:
    file.write_text("\n".join(json.dumps(each, default=_plain) for each in ROWS))


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else json.loads(str(value))


def in_parquet(file: Path, **columns: Any) -> None:
    found = {
        "account": pyarrow.array([each["account"] for each in ROWS]).dictionary_encode(),
        "qty": pyarrow.array([each["qty"] for each in ROWS], pyarrow.decimal128(38, 12)),
        "at": pyarrow.array([each["at"] for each in ROWS], pyarrow.timestamp("ns", "America/New_York")),
        "request": [each["request"] for each in ROWS],
    }
    parquet.write_table(pyarrow.table(found | columns), file)


def test_the_same_events_in_any_format_are_the_same_events(
    organization: Organization, database_url: str, tmp_path: Path
) -> None:
    """Whichever comes first is stored; to all others they are there already, with the same content."""
    in_csv(tmp_path / "events.csv.gz")
    in_csv(tmp_path / "semicolons.csv", ";")
    in_csv(tmp_path / "tabs.tsv", "\t")
    in_ndjson(tmp_path / "events.jsonl")
    in_parquet(tmp_path / "events.parquet")
    in_csv(tmp_path / "called-otherwise", "|")
    ways = {
        "events.csv.gz": [],
        "semicolons.csv": ["--delimiter", ";"],
        "tabs.tsv": [],
        "events.jsonl": [],
        "events.parquet": [],
        "called-otherwise": ["--format", "csv", "--delimiter", "|"],
    }
    for place, (name, more) in enumerate(ways.items()):
        done = run(tmp_path / name, organization, database_url, "--json", *MAP, *SET, *more)
        found = summary(done)
        assert (found["stored"], found["alreadyThere"]) == ((0, 3) if place else (3, 0)), name
        assert used(organization) == TOTAL


def test_rows_without_keys_are_the_same_rows_in_any_format(
    organization: Organization, database_url: str, tmp_path: Path
) -> None:
    in_csv(tmp_path / "events.csv")
    in_parquet(tmp_path / "events.parquet")
    keyless = [each for each in MAP if each != "eventId=request"][:-1]
    assert (
        summary(run(tmp_path / "events.csv", organization, database_url, "--json", *keyless, *SET))["stored"]
        == 3
    )
    found = summary(run(tmp_path / "events.parquet", organization, database_url, "--json", *keyless, *SET))
    assert (found["stored"], found["alreadyThere"]) == (0, 3)


def test_columns_become_properties(organization: Organization, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text(
        "customerId,eventId,timestamp,region,note,empty\n"
        f'ada,a,{AT},eu,"naïve, ""quoted""\nin two lines",\n'
        f"ada,b,{AT},us,plain,\n"
    )
    more = ["--json", *SET, "--property", "zone=region", "--all-properties"]
    assert summary(run(file, organization, database_url, *more))["stored"] == 2
    listed = shop.done(organization.http.get(f"{shop.API}/usage/events", params={"customerId": "ada"}))[
        "data"
    ]
    kept = {each["eventId"]: {one["property"]: one["value"] for one in each["properties"]} for each in listed}
    assert kept == {
        "a": {"zone": "eu", "note": 'naïve, "quoted"\nin two lines'},
        "b": {"zone": "us", "note": "plain"},
    }


def test_bad_rows_are_refused_alone_with_the_line_they_begin_in(
    organization: Organization, database_url: str, tmp_path: Path
) -> None:
    file, refused = tmp_path / "events.csv", tmp_path / "refused.ndjson"
    rows = [
        b"customerId,eventId,timestamp,value",
        b'ada,"a\nof two lines",%b,2' % AT.encode(),
        b"ada,b,2026-01-15 10:00:00,1",
        b"ada,c,%b,1.5,x" % AT.encode(),
        b"",
        b'ada,d,%b,"1,5"' % AT.encode(),
        b"ad\xe4,e,%b,1" % AT.encode(),
        b"nobody,f,%b,1" % AT.encode(),
        b"ada,g,%b,3" % AT.encode(),
    ]
    file.write_bytes(b"\n".join(rows))
    done = run(file, organization, database_url, "--json", "--refused", str(refused), *SET)
    found = summary(done, code=1)
    assert (found["stored"], found["refused"]) == (2, 5)
    notes = [json.loads(line) for line in refused.read_text().splitlines()]
    assert [(note["line"], note["code"]) for note in notes] == [
        (4, "validation_error"),
        (5, "validation_error"),
        (7, "validation_error"),
        (8, "validation_error"),
        (9, "customer_not_found"),
    ]
    reasons = ["--timezone", "5 cells, the header 4", "must be a number", "UTF-8", "nobody"]
    assert all(reason in note["error"] for reason, note in zip(reasons, notes, strict=True)), notes
    assert notes[4]["data"] == {"customerId": "nobody", "eventId": "f", "timestamp": AT, "value": "1"}
    assert used(organization) == 5


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        (b'ada,"b" and more,%b,1\nada,c,%b,1\n' % (AT.encode(), AT.encode()), "row that begins in line 3"),
        (b'ada,"never closed,%b,1\nada,c,%b,1\n' % (AT.encode(), AT.encode()), "row that begins in line 3"),
        (b"ada," + b"x" * BODY_BYTES_MAX + b",,1\n", "longer than"),
    ],
)
def test_where_cells_end_is_not_guessed(
    organization: Organization, database_url: str, tmp_path: Path, rest: bytes, told: str
) -> None:
    file = tmp_path / "events.csv"
    file.write_bytes(b"customerId,eventId,timestamp,value\nada,a,%b,2\n" % AT.encode() + rest)
    found = summary(run(file, organization, database_url, "--json", *SET), code=1)
    assert told in found["damage"]
    assert found["stored"] == 1
    assert used(organization) == 2


def test_a_damaged_parquet_keeps_what_was_whole(
    organization: Organization, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "events.parquet"
    count = 3 * ROWS_PER_CHUNK_MAX
    table = pyarrow.table({"customerId": ["ada"] * count, "eventId": [f"key {n:06}" for n in range(count)]})
    parquet.write_table(
        table, file, row_group_size=ROWS_PER_CHUNK_MAX, compression="gzip", use_dictionary=False
    )
    whole = file.read_bytes()
    starts = parquet.ParquetFile(file).metadata.row_group(2).column(1).data_page_offset
    file.write_bytes(whole[: starts + 40] + b"\0" * 200 + whole[starts + 240 :])
    found = summary(run(file, organization, database_url, "--json", *SET), code=1)
    assert found["damage"].startswith("The file is damaged after row ")
    assert found["stored"] == 2 * ROWS_PER_CHUNK_MAX
    file.write_bytes(whole)
    again = summary(run(file, organization, database_url, "--json", *SET))
    assert again["alreadyThere"] == found["stored"]
    assert used(organization) == count


@pytest.mark.parametrize(
    ("columns", "zone", "why"),
    [
        (
            {"qty": pyarrow.array([0.1, 0.2, None])},
            None,
            "column 'qty' is of type double: a float is not exact",
        ),
        ({"qty": pyarrow.array([1.5, 2, 3], pyarrow.float32())}, None, "of type float"),
        ({"at": pyarrow.array([0, 1, 2], pyarrow.timestamp("us"))}, None, "no zone.*--timezone"),
        ({"at": pyarrow.array([0, 1, 2], pyarrow.date32())}, None, "a date says no time"),
        ({"request": pyarrow.array([b"a", b"b", b"c"])}, None, "write it as text"),
        ({"request": pyarrow.array([["a"], [], None])}, None, "write it as text"),
        ({"request": pyarrow.array([{"x": 1.5}] * 3)}, None, "a float is not exact"),
        ({"at": pyarrow.array([0, 1, 2], pyarrow.timestamp("us"))}, "Asia/Tokyo", None),
        ({"request": pyarrow.array([1, 2, 3], pyarrow.uint64())}, None, None),
        ({"unused": pyarrow.array([0.1, 0.2, None])}, None, None),
    ],
)
def test_a_column_that_an_event_cannot_be_made_of_is_told_before_anything_is_read(
    tmp_path: Path, columns: Any, zone: str | None, why: str | None
) -> None:
    file = tmp_path / "events.parquet"
    in_parquet(file, **columns)
    fields = dict(each.split("=") for each in MAP[1::2])
    mapping = ColumnMapping(fields, {"featureCode": "x"}, zone=zone)
    if why is not None:
        with (
            pytest.raises(NotReadable, match=why),
            formats.opened(file, formats.Format.PARQUET, mapping, ","),
        ):
            pass
        return
    with formats.opened(file, formats.Format.PARQUET, mapping, ",") as source:
        rows = [row.said for chunk in chunks(source) for row in chunk]
    assert len(rows) == 3
    if zone:
        assert isinstance(rows[0], dict)
        assert rows[0]["at"] == "1969-12-31T15:00:00+00:00"


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("events.csv", ["--map", "customerId=acount"], "nearest: account"),
        ("events.csv", ["--map", "custmerId=account"], "nearest: customerId"),
        ("events.csv", ["--map", "customerId=account"], "--set featureCode=CODE"),
        ("events.csv", ["--map", "customerId"], "is not NAME=VALUE"),
        ("events.csv", ["--map", "ts=at", "--map", "timestamp=at"], "said twice"),
        ("events.csv", [*MAP, *SET, "--timezone", "Mars/Phobos"], "zone data"),
        ("events.csv", [*MAP, *SET, "--delimiter", "||"], "one character"),
        ("events.csv", [*MAP, *SET, "--delimiter", ";"], "Is --delimiter another one?"),
        ("plain.csv", [*SET, "--delimiter", ";"], "the columns are 'customerId,value'"),
        ("events.csv", ["--format", "parquet"], "no Parquet file"),
        ("events.jsonl", [*MAP, *SET, "--delimiter", ";"], "only for CSV"),
        ("events.jsonl", [*MAP, *SET, "--property", "regio"], "no column 'regio'"),
        ("events.parquet", [*SET, "--map", "customerId=acount"], "nearest: account"),
        ("events.parquet", [*MAP, *SET, "--format", "csv"], "UTF-8"),
        ("empty.csv", [], "must be a header"),
        ("twice.csv", [], "names a column twice: a"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_exit_code_2(
    organization: Organization, database_url: str, tmp_path: Path, name: str, arguments: list[str], why: str
) -> None:
    in_csv(tmp_path / "events.csv")
    in_ndjson(tmp_path / "events.jsonl")
    in_parquet(tmp_path / "events.parquet")
    (tmp_path / "plain.csv").write_text("customerId,value\nada,1\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "twice.csv").write_text("a,b,a\n")
    done = run(tmp_path / name, organization, database_url, *arguments)
    assert done.returncode == 2, done.stderr
    assert why in " ".join(done.stderr.replace("│", " ").split()), done.stderr


def test_who_lacks_pyarrow_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError('pyarrow')")
    in_parquet(tmp_path / "events.parquet")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [PROGRAM, "import", tmp_path / "events.parquet"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert done.returncode == 2
    assert "tallystick[parquet]" in done.stderr


@pytest.mark.parametrize("kind", formats.Format)
def test_an_import_that_was_killed_is_made_whole_by_the_next(
    organization: Organization, database_url: str, tmp_path: Path, kind: formats.Format
) -> None:
    """Its rows have no keys, so which occurrence of a content a row is must come out the same."""
    file, count = tmp_path / f"events.{kind}", 20 * ROWS_PER_CHUNK_MAX
    values = [number % 5 for number in range(count)]
    match kind:
        case formats.Format.CSV:
            file.write_text("customerId,timestamp,value\n" + "".join(f"ada,{AT},{each}\n" for each in values))
        case formats.Format.NDJSON:
            file.write_text("".join(f"{event(value=each)}\n" for each in values))
        case formats.Format.PARQUET:
            columns = {"customerId": ["ada"] * count, "timestamp": [AT] * count, "value": values}
            parquet.write_table(pyarrow.table(columns), file)
    more = [] if kind is formats.Format.NDJSON else SET
    killed = subprocess.Popen(importing(file, organization, database_url, *more))
    until(lambda: used(organization) > 0, "the first chunk is stored")
    killed.kill()
    killed.wait()
    begun = used(organization)
    assert 0 < begun < sum(values)
    found = summary(run(file, organization, database_url, "--json", *more))
    assert 0 < found["stored"] < count
    assert found["stored"] + found["alreadyThere"] == count
    assert used(organization) == sum(values)


@pytest.mark.parametrize("kind", formats.Format)
def test_memory_holds_a_chunk_however_long_the_file_is(tmp_path: Path, kind: formats.Format) -> None:
    """Of ten chunks no more is read than the one that is in hand, and a buffer of the file beyond it."""
    file, count = tmp_path / "events", 10 * ROWS_PER_CHUNK_MAX
    match kind:
        case formats.Format.CSV:
            file.write_text("customerId,featureCode\n" + "ada,calls\n" * count)
        case formats.Format.NDJSON:
            file.write_text((event(eventId="k") + "\n") * count)
        case formats.Format.PARQUET:
            table = pyarrow.table({"customerId": ["ada"] * count, "featureCode": ["calls"] * count})
            parquet.write_table(table, file)
    with formats.opened(file, kind, ColumnMapping(), ",") as source:
        read = 0
        for chunk in chunks(source):
            read += len(chunk)
            assert len(chunk) <= ROWS_PER_CHUNK_MAX
            if kind is formats.Format.PARQUET:
                assert source.position <= read
            else:  # beyond what was given, a buffer of the file was read, and no more
                assert source.position <= read * file.stat().st_size / count + 64 * 1024
        assert read == count


def test_long_rows_make_short_chunks(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    long = "x" * 100_000
    file.write_text("customerId,note\n" + f"ada,{long}\n" * 300)
    with formats.opened(file, formats.Format.CSV, ColumnMapping(), ",") as source:
        assert max(len(chunk) for chunk in chunks(source)) < 100
