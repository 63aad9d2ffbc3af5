"""Files of events on their way through `tallystick import`."""

import json
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests import shop
from tests.conftest import PROGRAM, Organization

AT = "2026-01-15T10:00:00Z"


def run(
    file: Path, organization: Organization, database_url: str, *more: str
) -> "subprocess.CompletedProcess[str]":
    command = importing(file, organization, database_url, *more)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def importing(file: Path, organization: Organization, database_url: str, *more: str) -> list[str]:
    whose = ["--organization", organization.id, "--database-url", database_url]
    return [str(PROGRAM), "import", str(file), *whose, *more]


def summary(done: "subprocess.CompletedProcess[str]", code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def used(organization: Organization, customer: str = "ada") -> Decimal:
    answer = organization.http.get(f"{shop.API}/feature-access/api_calls", params={"customerId": customer})
    return Decimal(str(shop.done(answer)["consumption"]["unitsUsed"]))


def event(**fields: Any) -> str:
    return json.dumps({"feature": "api_calls", "customerId": "ada", "timestamp": AT, **fields})
