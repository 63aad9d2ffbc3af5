"""NDJSON: one JSON object a line, as a request would send it. A line that cannot be read is refused alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tallystick.api import wire
from tallystick.cli.sources import lines
from tallystick.cli.sources.lines import Lines
from tallystick.cli.sources.source import Row
from tallystick.core.limits import BODY_BYTES_MAX
from tallystick.core.mapping import Cells
from tallystick.errors import Problem


class Ndjson:
    noun = "line"
    cells = Cells.JSON
    columns: Sequence[str] | None = None

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.size = lines.size

    @property
    def damage(self) -> str | None:
        return self._lines.damage

    @property
    def position(self) -> int:
        return self._lines.position

    def rows(self) -> Iterator[Row]:
        for line in self._lines:
            if text := line.strip():
                yield Row(self._lines.number, _parsed(text), len(text), text)


@contextmanager
def opened(file: Path) -> Iterator[Ndjson]:
    with lines.opened(file) as found:
        yield Ndjson(found)


def _parsed(text: bytes) -> Any | Problem:
    try:
        if len(text) > BODY_BYTES_MAX:
            raise Problem("payload_too_large", f"The line is longer than {BODY_BYTES_MAX} bytes.")
        return wire.parse(text, "line")
    except Problem as problem:
        return problem
