"""Half load, for some seconds: the minutes, the picture and the verdict."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
from bench.soak_report import Minute, Report, slope, slope_error

from tests.measuring.test_events import load

ROOT = Path(__file__).parents[2]
ENDS_WITHIN_S = 300


def test_a_short_soak_finds_everything_stored_that_was_answered(tmp_path: Path) -> None:
    plot = tmp_path / "soak.svg"
    words = ["--minutes", "0.06", "--every-s", "1", "--full-seconds", "0.3", "--plot", str(plot), "--json"]
    command = [sys.executable, "-m", "bench.soak", "--customers", "10", "--connections", "4", *words]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=ENDS_WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["answered"] == told["stored"] > 0
    assert told["errors"] == 0
    assert len(told["minutes"]) >= 3
    assert all(
        each["serverBytes"] > 0 and each["postgresBytes"] > each["bufferBytes"] > 0
        for each in told["minutes"]
    )
    assert done.stderr.count(" min ") >= 3  # a line for each
    assert ElementTree.fromstring(plot.read_text()).tag.endswith("svg")


def test_one_event_missing_is_not_right() -> None:
    whole = report(answered=10, stored=10)
    assert whole.is_right
    assert not msgspec.structs.replace(whole, stored=9).is_right
    assert not msgspec.structs.replace(whole, soaked=msgspec.structs.replace(load(1), errors=1)).is_right


def test_what_fills_in_the_first_fifth_is_no_growth() -> None:
    filling = [minute(at, server_bytes=at * 100) for at in (1, 2)]
    steady = [minute(at, server_bytes=200) for at in range(3, 11)]
    assert report(minutes=filling + steady).server_bytes_per_hour == 0
    growing = [minute(at, server_bytes=200 + at) for at in range(3, 11)]
    assert round(report(minutes=filling + growing).server_bytes_per_hour) == 60


def test_a_slope_says_how_far_it_may_be_off() -> None:
    assert slope_error([(0, 5), (1, 7), (2, 9)]) == 0, "on one line"
    assert slope_error([(0, 5), (1, 7)]) == 0, "too few to tell"
    scattered = [(0.0, 0.0), (1.0, 3.0), (2.0, 0.0), (3.0, 3.0)]
    assert slope(scattered) == 0.6
    assert round(slope_error(scattered), 4) == 0.8485  # sqrt((9 - 1.8 on the line) / 2 / 5)


def report(*, answered: int = 0, stored: int = 0, minutes: list[Minute] | None = None) -> Report:
    return Report({}, {}, 1, 0.5, load(1), load(1), minutes or [], answered, stored)


def minute(at: int, *, server_bytes: int) -> Minute:
    return Minute(at, 1, 1, 1, server_bytes, 0, 1, 1, 0, 0, 0)
