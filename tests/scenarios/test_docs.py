"""What the documents say to type does what they say it does."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MakeOrganization

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/usage.md", "docs/invoices.md")
EXPECTED_REFUSALS = {"duplicate", "customer_not_found"}


def blocks(page: str, language: str = "bash") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.fixture
def told(make_organization: MakeOrganization) -> str:
    """Everything the pages' commands print, read as one session."""
    organization = make_organization()
    script = f"URL={organization.base_url}\nKEY={organization.api_key}\n"
    script += "\n".join(f"{block}\necho" for page in PAGES for block in blocks(page))
    done = subprocess.run(
        ["bash", "-eu"], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pages_can_be_typed_from_top_to_bottom(told: str) -> None:
    refused = set(re.findall(r'"type":"\w+_error","code":"(\w+)"', told))
    refused |= set(re.findall(r'"error":"(\w+):', told))
    assert refused == EXPECTED_REFUSALS
    assert "\n303\n" in told, "the sandbox card pays"
    assert "\n3150\n" in told, "the README's total"
    assert '"summary":{"events":1,"quantity":"1250"' in told
    assert '"overage":"250"' in told


def test_every_bash_block_of_the_docs_is_tried() -> None:
    written = {
        page.relative_to(ROOT).as_posix() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    }
    assert {page for page in written if blocks(page)} <= set(PAGES)


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_the_readme_shows_fields_that_answers_have() -> None:
    """The shortened JSON of the README names nothing that the contract does not."""
    shown = set(re.findall(r'"(\w+)":', "".join(blocks("README.md", "json"))))
    known = set(re.findall(r'"(\w+)"', (ROOT / "contract/openapi.json").read_text()))
    evidence = {
        "price",
        "model",
        "version",
        "unitAmount",
        "used",
        "included",
        "overage",
        "exact",
        "events",
        "count",
    }
    assert shown <= known | evidence | {"digest", "chainPosition"}, json.dumps(
        sorted(shown - known - evidence)
    )
