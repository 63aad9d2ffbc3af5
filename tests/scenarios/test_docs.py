"""What the documents say to type does what they say it does."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tallystick.core import limits
from tallystick.core.proof import GENESIS
from tallystick.store.db import Conn
from tests.conftest import PROGRAM, MakeOrganization, Organization
from tests.core import calendar_walk
from tests.core.calendar_walk import Case, zone_of
from tests.tampering import Business

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/proof.md",
    "docs/usage.md",
    "docs/invoices.md",
    "docs/prices.md",
    "docs/late.md",
    "docs/simulations.md",
    "docs/ai.md",
    "docs/prepaid.md",
    "docs/import.md",
)
OF_THEIR_OWN = ("docs/retention.md",)
"""Pages whose commands need a database of their own: `test_retention` types them."""
EXPECTED_REFUSALS = {"duplicate", "customer_not_found", "model_not_found", "insufficient_credits"}


def blocks(page: str, language: str = "bash") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.fixture
def told(make_organization: MakeOrganization, database_url: str) -> str:
    """Everything the pages' commands print, read as one session."""
    return typed(make_organization(), database_url, *PAGES)


def typed(organization: Organization, database_url: str, *pages: str) -> str:
    script = f"URL={organization.base_url}\nKEY={organization.api_key}\n"
    script += "\n".join(f"{block}\necho" for page in pages for block in blocks(page))
    environment = os.environ | {
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
        "TALLYSTICK_DATABASE_URL": database_url,
        "TALLYSTICK_ORGANIZATION": organization.id,
    }
    with TemporaryDirectory() as folder:  # some of them make files
        done = subprocess.run(
            ["bash", "-eu"],
            input=script,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
            cwd=folder,
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
    assert shown("docs/usage.md", "usage_summary") in [
        json.loads(line) for line in told.splitlines() if line.startswith('{"object":"usage_summary"')
    ]
    (refused_line,) = (block for block in blocks("docs/usage.md", "json") if block.startswith('{"line"'))
    assert json.loads(refused_line) in [
        json.loads(line) for line in told.splitlines() if line.startswith('{"line"')
    ]


def shown(page: str, kind: str) -> object:
    """The JSON of a page that shows an answer whole."""
    (found,) = (block for block in blocks(page, "json") if f'"object": "{kind}"' in block)
    return json.loads(found)


def test_the_report_on_the_page_of_simulations_is_what_its_commands_answer(told: str) -> None:
    answers = [json.loads(line) for line in told.splitlines() if '"object":"simulation"' in line]
    priced, planned, listed = answers
    (shown,) = map(json.loads, blocks("docs/simulations.md", "json"))
    assert shown == part_of(priced, shown)
    ((base, usage),) = [(each["base"], each["features"][0]["newAmount"]) for each in planned["customers"]]
    assert (base["oldAmount"], base["newAmount"], usage) == (3 * 2900, 3 * 4900, 0)
    assert listed["data"][0]["id"] == planned["id"]
    page = (ROOT / "docs/simulations.md").read_text().replace("\n", " ")
    sizes = f"At most {limits.SIMULATION_MONTHS_MAX} months, {limits.SIMULATION_PERIODS_MAX:,} periods"
    assert f"{sizes} and {limits.SIMULATION_CUSTOMERS_MAX:,} customers at once" in page


def test_what_the_page_of_prepaid_plans_shows_is_what_its_commands_answer(told: str) -> None:
    answers = [
        each for line in told.splitlines() if line.startswith("{") for each in objects_in(json.loads(line))
    ]
    for shown in map(json.loads, blocks("docs/prepaid.md", "json")):
        assert any(all(each.get(name) == value for name, value in shown.items()) for each in answers), shown
    (words,) = blocks("docs/prepaid.md", "text")
    assert f"\n{words}verified\n" in told


def objects_in(answer: Any) -> Iterator[dict[str, Any]]:
    if isinstance(answer, dict):
        yield answer
    for each in answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ():
        yield from objects_in(each)


def test_the_dry_run_on_the_page_of_imports_is_what_its_commands_answer(told: str) -> None:
    (shown,) = map(json.loads, blocks("docs/import.md", "json"))
    (answered,) = [json.loads(line) for line in told.splitlines() if '"dryRun"' in line]
    assert shown == part_of(answered, shown)
    assert '"eventId":"r-2"' in told


def test_the_models_on_the_page_of_ai_cost_what_its_commands_answer(told: str) -> None:
    answers = [json.loads(line) for line in told.splitlines() if '"object":"ai_model"' in line]
    listed, catalogue, own, alias = answers
    cost, shown = map(json.loads, blocks("docs/ai.md", "json"))
    assert shown == part_of(catalogue, shown)
    assert "openai/gpt-4o" in [each["id"] for each in listed["data"]]
    assert (own["price"]["inputPerMillion"], alias["id"]) == ("2.2", "openai/gpt-4o")
    (refusal,) = (json.loads(line)["error"] for line in told.splitlines() if "model_not_found" in line)
    assert refusal["details"]["nearest"][0] == "gpt-4o"
    example = next(
        each
        for each in json.loads((ROOT / "contract/cases/worked.json").read_text())
        if each["id"] == "ai.cost_cached"
    )
    assert cost == example


def test_the_page_of_proof_shows_what_its_commands_answer(told: str) -> None:
    (shown,) = map(json.loads, blocks("docs/proof.md", "json"))
    (answered,) = [
        json.loads(line) for line in told.splitlines() if '"object":"invoice_verification"' in line
    ]
    assert shown == part_of(answered, shown)
    explained, verdict, *_ = blocks("docs/proof.md", "text")
    for each in (explained, verdict):
        assert any(reads(line, each.strip().replace("\n", " ")) for line in told.splitlines())


def test_each_tampering_on_the_page_of_proof_is_told_in_the_words_it_shows(
    make_organization: MakeOrganization, database_url: str
) -> None:
    shop = make_organization()
    typed(shop, database_url, "README.md")
    business = Business(database_url, shop, shop)
    page = (ROOT / "docs/proof.md").read_text()
    tried = re.findall(r"```sql\n(.*?)```\n\n```text\n(.*?)```", page, flags=re.DOTALL)
    assert len(tried) >= 5
    for statement, words in tried:

        async def tamper(conn: Conn, statement: str = statement) -> None:
            assert (await conn.execute(statement.encode())).rowcount >= 1

        said = [re.sub(r"^\d+: ", "", each) for each in business.find(tamper)]
        shown = words.splitlines()
        assert len(said) == len(shown), said
        assert all(map(reads, said, shown)), (said, shown)
    assert business.find() == []
    (kept,) = [each for each in blocks("docs/proof.md", "sql") if each.startswith("SELECT")]
    assert len(business.select(kept.encode())[0][1]) == len(GENESIS.hex())


def reads(said: str, shown: str) -> bool:
    """Whether a sentence is the one that is shown; `…` stands for what differs from one day to the next."""
    return re.fullmatch(".+".join(map(re.escape, shown.split("…"))), said) is not None


def part_of(whole: Any, shown: Any) -> Any:
    """Of a whole answer, what is shown of it."""
    if isinstance(shown, dict):
        return {name: part_of(whole[name], each) for name, each in shown.items()}
    if isinstance(shown, list):
        return [part_of(*pair) for pair in zip(whole, shown, strict=True)]
    return whole


def test_every_bash_block_of_the_docs_is_tried() -> None:
    written = {
        page.relative_to(ROOT).as_posix() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    }
    assert {page for page in written if blocks(page)} <= {*PAGES, *OF_THEIR_OWN}


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


def friendly(instant: str) -> str:
    """As the page shows it: no `T`, no zone, no seconds where there are none."""
    return instant.replace("T", " ").removesuffix("Z").removesuffix(":00")


def rows_about(case: Case) -> list[str]:
    """Every row the page of periods may have about a case."""
    found = []
    for row in case["expected"]["periods"]:
        local, start, end = (friendly(row[name]) for name in ("localStart", "start", "end"))
        cells = [row["index"], zone_of(case["given"], row["index"]), local, start, end, row["days"]]
        found.append(f"| `{case['id']}` | {' | '.join(map(str, cells))} |")
    for row in case["expected"].get("billing", ()):
        found.append(
            f"| `{case['id']}` | {row['index']} | {friendly(row['start'])} | {friendly(row['end'])} |"
        )
    return found


def test_every_number_on_the_page_of_periods_is_from_the_table() -> None:
    cases = calendar_walk.load()
    (example,) = map(json.loads, blocks("docs/periods.md", "json"))
    assert example in cases
    page = re.sub(r"```.*?```", "", (ROOT / "docs/periods.md").read_text(), flags=re.DOTALL)
    shown = re.findall(r"^\| `[\w.]+` \| \d.*$", page, flags=re.MULTILINE)
    known = {row for case in cases for row in rows_about(case)}
    assert [row for row in shown if row not in known] == []
    words = "".join(line for line in page.splitlines(keepends=True) if line.strip() not in shown)
    assert set(re.findall(r"\d[\d:.-]*\d|\d", words)) == {"0", "00:00"}, (
        "what is not in the table may be wrong"
    )
    assert len(shown) > 20
