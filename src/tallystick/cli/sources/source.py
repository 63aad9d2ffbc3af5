"""What every format has in common: numbered rows, and chunks of them that one transaction takes."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from tallystick.core.limits import BODY_BYTES_MAX, ROWS_PER_CHUNK_MAX
from tallystick.core.mapping import Cells
from tallystick.errors import Problem

_CHUNK_BYTES_MAX: Final = 8 * BODY_BYTES_MAX


class NotReadable(Exception):
    """The file cannot be read as what it is said to be; the message says why and what to do."""


class Row(NamedTuple):
    """One row of a file: what it says, or why it does not say anything."""

    number: int  # from 1, as an editor or a query would number it
    said: Any | Problem
    size: int  # about so many bytes of memory
    text: bytes | None = None  # word for word, where that is JSON or cannot be read as anything


class Source(Protocol):
    """An open file."""

    noun: str  # what its numbers count
    cells: Cells
    size: int

    @property
    def columns(self) -> Sequence[str] | None:
        """None: every row names its own."""
        ...

    @property
    def damage(self) -> str | None:
        """Known when its rows are at their end."""
        ...

    @property
    def position(self) -> int:
        """How much of `size` was read."""
        ...

    def rows(self) -> Iterator[Row]: ...


def chunks(source: Source) -> Iterator[list[Row]]:
    """As many rows as one transaction takes, and not more than fit into little memory."""
    chunk: list[Row] = []
    held = 0
    for row in source.rows():
        chunk.append(row)
        held += row.size
        if len(chunk) == ROWS_PER_CHUNK_MAX or held > _CHUNK_BYTES_MAX:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
