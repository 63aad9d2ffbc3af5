"""Each story is told once per test run; the tests then ask what was answered."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .install import node_sdk, python_sdk
from .shapes import Catalogue
from .shop import open_shop
from .world import HERE, MakeOrganization, Server, tell

CLOCK = "2026-01-15T10:00:00Z"

Told = dict[str, Any]


@pytest.fixture(scope="session")
def told_before() -> dict[str, Told]:
    return {}


@pytest.fixture
def node_story(server: Server, make_organization: MakeOrganization, told_before: dict[str, Told]) -> Told:
    """What @commet/node 7.10.0 was answered."""
    if "node" not in told_before:
        told_before["node"] = _told_by_node("story.mjs", server, make_organization)
    return told_before["node"]


@pytest.fixture
def node_prepaid_story(
    server: Server, make_organization: MakeOrganization, told_before: dict[str, Told]
) -> Told:
    """The same of plans that are paid beforehand."""
    if "node prepaid" not in told_before:
        told_before["node prepaid"] = _told_by_node("story_prepaid.mjs", server, make_organization)
    return told_before["node prepaid"]


def _told_by_node(story: str, server: Server, make_organization: MakeOrganization) -> Told:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        pytest.skip("the Node SDK needs node and npm on the PATH")
    node_sdk()
    told: Told = tell(
        [node, "--import", "./redirect.mjs", story],
        cwd=HERE,
        server=server,
        organization=make_organization(clock=CLOCK),
    )
    return told


@pytest.fixture(scope="session")
def commet_9_7_0() -> Path:
    return python_sdk("9.7.0")


@pytest.fixture
def python_story(
    server: Server, make_organization: MakeOrganization, told_before: dict[str, Told], commet_9_7_0: Path
) -> Told:
    """What commet-sdk 9.7.0 was answered: `told` as the SDK parsed it, `answers` as they came."""
    if "9.7.0" not in told_before:
        told_before["9.7.0"] = _told_by("story_9_7_0", commet_9_7_0, server, make_organization)
    return told_before["9.7.0"]


@pytest.fixture
def prepaid_story(
    server: Server, make_organization: MakeOrganization, told_before: dict[str, Told], commet_9_7_0: Path
) -> Told:
    """The same of plans that are paid beforehand."""
    if "prepaid" not in told_before:
        told_before["prepaid"] = _told_by("story_prepaid_9_7_0", commet_9_7_0, server, make_organization)
    return told_before["prepaid"]


def _told_by(story: str, sdk: Path, server: Server, make_organization: MakeOrganization) -> Told:
    told: Told = tell(
        [sys.executable, "-m", f"conformance.{story}"],
        cwd=HERE.parent,
        server=server,
        organization=make_organization(clock=CLOCK),
        environment={"PYTHONPATH": str(sdk)},
    )
    return told


@pytest.fixture
def first_story(server: Server, make_organization: MakeOrganization, told_before: dict[str, Told]) -> Told:
    """What commet-sdk 0.1.0 was answered, in a shop opened through the current API."""
    if "0.1.0" not in told_before:
        organization = make_organization()
        open_shop(organization, server)
        told_before["0.1.0"] = tell(
            [sys.executable, "-m", "conformance.story_0_1_0"],
            cwd=HERE.parent,
            server=server,
            organization=organization,
            environment={"PYTHONPATH": str(python_sdk("0.1.0"))},
        )
    return told_before["0.1.0"]


@pytest.fixture(scope="session")
def catalogue(commet_9_7_0: Path) -> Catalogue:
    """The shapes commet-sdk 9.7.0 itself declares."""
    declared = subprocess.run(
        [sys.executable, "-m", "conformance.types_9_7_0"],
        cwd=HERE.parent,
        env=os.environ | {"PYTHONPATH": str(commet_9_7_0)},
        capture_output=True,
        text=True,
        check=True,
    )
    return Catalogue.of(json.loads(declared.stdout))
