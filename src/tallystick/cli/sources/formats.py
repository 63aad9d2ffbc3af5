"""Which format a file has, and the way to open it."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

from tallystick.cli.sources import delimited, ndjson, parquet
from tallystick.cli.sources.source import NotReadable, Source
from tallystick.core.mapping import ColumnMapping


class Format(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"


_ENDINGS: Final = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
    ".json": Format.NDJSON,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
}
_NAMED_DELIMITERS: Final = {"tab": "\t", "\\t": "\t"}


def format_of(file: Path) -> Format:
    """By the end of its name; NDJSON where that says nothing."""
    return _ENDINGS.get(_ending(file), Format.NDJSON)


def delimiter_of(file: Path, given: str | None) -> str:
    """What parts the cells of a CSV. Raises NotReadable."""
    found = "\t" if given is None and _ending(file) == ".tsv" else given or ","
    found = _NAMED_DELIMITERS.get(found, found)
    if len(found) != 1 or found in '"\r\n':
        raise NotReadable(f"A delimiter is one character, or `tab`, and not {found!r}.")
    return found


@contextmanager
def opened(file: Path, kind: Format, mapping: ColumnMapping, delimiter: str) -> Iterator[Source]:
    """Raises NotReadable."""
    match kind:
        case Format.CSV:
            with delimited.opened(file, delimiter) as csv:
                yield csv
        case Format.NDJSON:
            with ndjson.opened(file) as lines:
                yield lines
        case Format.PARQUET:
            with parquet.opened(file, mapping) as table:
                yield table


def _ending(file: Path) -> str:
    name = file.name.lower().removesuffix(".gz")
    return Path(name).suffix
