"""The whole of `make bench`, as small as it goes: what it prints, never how fast."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from bench.page import Document, page, picture

ROOT = Path(__file__).parents[2]
ENDS_WITHIN_S = 900  # so that a hang is a failure; a minute is what it takes


def test_a_quick_run_measures_every_part_and_can_be_made_a_page() -> None:
    command = [sys.executable, "-m", "bench.everything", "--quick", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=ENDS_WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["quick"] is True
    for part in ("ingest", "workers", "prepaid", "growth"):
        assert told[part]["errors"] == 0
    assert told["visible"]["late"] == 0
    assert all(
        share is None or share > 0 for kind in told["ingest"]["ratios"].values() for share in kind.values()
    )
    assert set(told["ingest"]["ratios"]) == {"singles", "batches", "bulks"}
    for stretch in told["workers"]["one"] + told["workers"]["several"] + told["workers"]["cramped"]:
        assert stretch["serverUs"] > 0
        assert stretch["postgresUs"] > 0
        assert 0 < stretch["busy"] < 1.05  # two clocks, of which one ticks in hundredths
    assert told["workers"]["ratioCeiling"] > 0.95
    for stored in (told["storage"]["plain"], told["storage"]["withProperties"]):
        parts = sum(part["bytesPerEvent"] for part in stored["parts"])
        assert parts == pytest.approx(stored["bytesPerEvent"])
    assert len(told["growth"]["compared"]) == 4
    assert told["growth"]["postgres"]["shared_buffers"] == "16MB"  # what was asked for, not the usual
    assert told["prepaid"]["books"]["wrong"] == 0

    document = msgspec.json.decode(done.stdout, type=Document)
    shown = page(document, image="benchmarks.svg")
    for part in ("ingest", "workers", "visible", "storage", "prepaid", "growth"):
        assert f"`python -m bench.{part}`" in shown
    assert "nan" not in shown
    assert ElementTree.fromstring(picture(document)).tag.endswith("svg")


def test_a_quick_run_is_not_made_the_page_of_the_docs() -> None:
    command = [sys.executable, "-m", "bench.everything", "--quick", "--write", "docs/benchmarks.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "not worth a page" in done.stderr
