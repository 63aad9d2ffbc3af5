"""A month of events as a Parquet file: written beside its place, put there whole, and read back.

Numbers that must stay exact, ids and properties are text as PostgreSQL says them; times are microseconds in UTC.
Rows lie in order of (customer_id, occurred_at, id). Needs pyarrow, which only who archives has to install.
"""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tallystick.core.retention import COLUMNS, Kind
from tallystick.errors import TallystickError

_MARK: Final = "tallystick."
_ROWS_PER_GROUP: Final = 50_000


class FileError(TallystickError):
    """A file of events is not what it should be, or cannot be written or read; the message says which and why."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


def _arrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise FileError(
            "Parquet files need pyarrow, which is not installed: pip install 'tallystick[parquet]'"
        ) from None


def require() -> None:
    """Raises FileError where files can be neither written nor read."""
    _arrow()


def _schema(arrow: Any, facts: Mapping[str, str] | None = None) -> Any:
    types = {
        Kind.TEXT: arrow.string(),
        Kind.TIME: arrow.timestamp("us", tz="UTC"),
        Kind.COUNT: arrow.int64(),
        Kind.FLAG: arrow.bool_(),
        Kind.BYTES: arrow.binary(),
    }
    marked = {f"{_MARK}{name}": text for name, text in (facts or {}).items()}
    return arrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()], metadata=marked)


@dataclass(frozen=True, slots=True)
class Written:
    """What a file is, on disk and whole."""

    path: Path
    size_bytes: int
    sha256: bytes


class MonthFile:
    """Writes `path` under another name first; `settle` says it is whole. Left without that, nothing is there."""

    def __init__(self, path: Path) -> None:
        self._arrow, self._parquet = _arrow()
        self.path = path
        self.unsettled = path.with_name(f".{path.name}.unfinished")
        self._rows: list[Sequence[Any]] = []
        self._facts: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._parquet.ParquetWriter(
                self.unsettled, _schema(self._arrow), compression="zstd", write_statistics=True
            )
        except OSError as error:
            raise FileError(f"{self.unsettled} cannot be written: {error.strerror or error}") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(Exception):
            self._writer.close()
        self.unsettled.unlink(missing_ok=True)

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        self._rows += rows
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            schema = _schema(self._arrow)
            columns = zip(*self._rows, strict=True)
            arrays = [
                self._arrow.array(column, type=field.type)
                for column, field in zip(columns, schema, strict=True)
            ]
            try:
                self._writer.write_batch(self._arrow.RecordBatch.from_arrays(arrays, schema=schema))
            except OSError as error:
                raise FileError(f"{self.unsettled} cannot be written: {error}") from None
            self._rows = []

    def finish(self, facts: Mapping[str, str]) -> None:
        """All rows are in; `facts` go into the file. It is on disk then, and not yet in its place."""
        self._flush()
        self._writer.add_key_value_metadata({f"{_MARK}{name}": text for name, text in facts.items()})
        try:
            self._writer.close()
            with self.unsettled.open("rb+") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(f"{self.unsettled} cannot be written: {error}") from None

    def settle(self) -> Written:
        """Put it in its place; a file of that name was an earlier attempt's, or a copy."""
        found = Written(self.path, self.unsettled.stat().st_size, sha256_of(self.unsettled))
        self.unsettled.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return found


def sha256_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").digest()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None


def facts_of(path: Path) -> dict[str, str]:
    """What a file says of itself."""
    arrow, parquet = _arrow()
    try:
        found = parquet.read_metadata(path).metadata or {}
    except (OSError, arrow.ArrowInvalid) as error:
        raise FileError(f"{path} cannot be read as a file of events: {error}") from None
    mark = _MARK.encode()
    return {
        name.removeprefix(mark).decode(): text.decode()
        for name, text in found.items()
        if name.startswith(mark)
    }


def read(path: Path, *, rows_at_once: int = 5_000) -> Iterator[list[tuple[Any, ...]]]:
    """The rows as they were written, some at a time."""
    arrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=rows_at_once, columns=list(COLUMNS)):
                yield list(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    except (OSError, arrow.ArrowInvalid, KeyError) as error:
        raise FileError(f"{path} cannot be read as a file of events: {error}") from None
