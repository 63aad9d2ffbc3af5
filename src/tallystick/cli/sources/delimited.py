"""CSV and its relatives: a header, then cells of text between delimiters, quoted as RFC 4180 has it, in UTF-8.

A row with more or fewer cells than the header is refused alone. A quote in the wrong place is damage: where a cell
ends is then anybody's guess, and what is guessed is not billed.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tallystick.cli.sources import lines
from tallystick.cli.sources.lines import Lines
from tallystick.cli.sources.source import NotReadable, Row
from tallystick.core.limits import BODY_BYTES_MAX
from tallystick.core.mapping import Cells
from tallystick.errors import FieldError, InvalidRequest, Problem


class Delimited:
    noun = "line"
    cells = Cells.TEXT

    def __init__(self, lines: Lines, delimiter: str) -> None:
        self._lines = lines
        self._reader = csv.reader(self._decoded(), delimiter=delimiter, strict=True)
        self._unreadable: Problem | None = None
        self._quoted_wrongly: str | None = None
        self.size = lines.size
        self.columns: Sequence[str] = self._header()

    @property
    def damage(self) -> str | None:
        return self._lines.damage or self._quoted_wrongly

    @property
    def position(self) -> int:
        return self._lines.position

    def rows(self) -> Iterator[Row]:
        """A row is numbered by the line it begins in."""
        while True:
            begins = self._lines.number + 1
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                self._quoted_wrongly = f"The file is damaged in the row that begins in line {begins}: {error}"
                return
            if cells is None or self._lines.damage is not None:
                return  # a row that damage has cut short is none
            problem, self._unreadable = self._unreadable, None
            if problem is None and len(cells) != len(self.columns) and cells:
                problem = InvalidRequest(
                    FieldError("", f"the row has {len(cells)} cells, the header {len(self.columns)}")
                )
            if cells or problem:
                size = sum(map(len, cells))
                text = b"" if problem is None else repr(cells).encode(errors="replace")
                said = problem or dict(zip(self.columns, cells, strict=True))
                yield Row(begins, said, size, text or None)

    def _header(self) -> list[str]:
        try:
            names = next(self._reader, [])
        except csv.Error as error:
            raise NotReadable(f"The header cannot be read: {error}. Is --delimiter another one?") from None
        if self._lines.damage is not None or self._unreadable is not None:
            raise NotReadable(self._lines.damage or "The header is not text in UTF-8.")
        named = [each for each in names if each]
        if not named:
            raise NotReadable("The first line must be a header that names the columns.")
        twice = sorted({each for each in named if named.count(each) > 1})
        if twice:
            raise NotReadable(f"The header names a column twice: {', '.join(twice)}")
        return names

    def _decoded(self) -> Iterator[str]:
        for line in self._lines:
            if len(line) > BODY_BYTES_MAX:
                raise csv.Error(f"a line is longer than {BODY_BYTES_MAX} bytes")
            try:
                yield line.decode()
            except UnicodeDecodeError:
                self._unreadable = InvalidRequest(FieldError("", "the row is not text in UTF-8"))
                yield line.decode(errors="replace")


@contextmanager
def opened(file: Path, delimiter: str) -> Iterator[Delimited]:
    with lines.opened(file) as found:
        yield Delimited(found, delimiter)
