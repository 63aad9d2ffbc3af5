"""A file of refused messages. What was kept may be dropped from the queue."""

import os
from collections.abc import Mapping, Sequence
from io import FileIO
from typing import Any, NamedTuple

from tallystick.api import wire
from tallystick.errors import Problem


class Refused(NamedTuple):
    """A message, and why it is no usage."""

    stream: str
    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes
    problem: Problem


class RefusedFile:
    """NDJSON, appended to a file without a buffer. What is written is on disk when `write` returns."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._torn = False  # the last line is not whole

    def write(self, refused: Sequence[Refused]) -> None:
        """Raises OSError where not all of it could be written; some of it may be."""
        lines = (b"\n" if self._torn else b"") + wire.encode_lines([_entry(each) for each in refused])
        self._torn = True
        if self._file.write(lines) != len(lines):
            raise OSError("the disk is full")
        os.fsync(self._file.fileno())
        self._torn = False


def _entry(refused: Refused) -> dict[str, Any]:
    return {
        "stream": refused.stream,
        "sequence": refused.sequence,
        "subject": refused.subject,
        "code": refused.problem.code,
        "error": refused.problem.message,
        "headers": dict(refused.headers),
        "data": _said(refused.data),
    }


def _said(data: bytes) -> Any:
    """JSON where it is, on one line and with its numbers as they were; else its text."""
    try:
        return wire.parse(data) if data else ""
    except Problem:
        return data.decode(errors="replace")
