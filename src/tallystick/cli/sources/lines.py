"""Numbered lines of a file, plain or gzipped; of a line that is too long no more is kept than shows that it is."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from tallystick.core.limits import BODY_BYTES_MAX

_GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"


class Lines:
    """Lines as bytes, with their ends."""

    def __init__(self, raw: BinaryIO, lines: BinaryIO, size: int) -> None:
        self._raw = raw
        self._lines = lines
        self.size = size
        self.number = 0  # of the line that was read last
        self.damage: str | None = None

    @property
    def position(self) -> int:
        """Bytes of the file that were read: of a gzipped one, compressed bytes."""
        return self._raw.tell()

    def __iter__(self) -> Iterator[bytes]:
        try:
            while line := self._lines.readline(BODY_BYTES_MAX + 1):
                rest = line
                while not rest.endswith(b"\n") and len(rest) > BODY_BYTES_MAX:
                    rest = self._lines.readline(BODY_BYTES_MAX + 1)  # too long to keep, and refused for it
                self.number += 1
                yield line.removeprefix(_BOM) if self.number == 1 else line
        except (EOFError, OSError, zlib.error) as error:
            self.damage = f"The file is damaged after line {self.number}: {error}"


@contextmanager
def opened(file: Path) -> Iterator[Lines]:
    with file.open("rb") as raw:
        zipped = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        lines: Any = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if zipped else raw
        yield Lines(raw, lines, file.stat().st_size)
