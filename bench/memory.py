"""How much memory this process has resident: now, and at most."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Resident(msgspec.Struct, frozen=True, rename="camel"):
    """Bytes: before the work, at each quarter of it, and at most."""

    before: int
    quarters: list[int]
    peak: int


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def forget_peak() -> None:
    """From here on; where the kernel does not allow it, the peak is that of the whole life of the process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
