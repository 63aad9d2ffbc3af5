"""What the shared fixtures hand to these tests, and how a story is told in a process of its own."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx

HERE = Path(__file__).parent
STORY_SECONDS_MAX = 180

TEST_CARD = {"cardNumber": "4242424242424242", "expiry": "12/34", "cvc": "123"}


class Server(Protocol):
    base_url: str


class Organization(Protocol):
    id: str
    api_key: str
    http: httpx.Client


class MakeOrganization(Protocol):
    def __call__(
        self, *, clock: str | None = None, mode: str = "sandbox", timezone: str = "UTC"
    ) -> Organization: ...


class StoryFailed(AssertionError):
    """The SDK, or the story, stopped half-way."""


def tell(
    command: Sequence[str],
    *,
    cwd: Path,
    server: Server,
    organization: Organization,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Run one story against the server; it prints one JSON document, returned here."""
    run = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ
        | {"COMMET_BASE_URL": server.base_url, "COMMET_API_KEY": organization.api_key}
        | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=STORY_SECONDS_MAX,
        check=False,
    )
    if run.returncode != 0:
        raise StoryFailed(f"{' '.join(command)} ended with {run.returncode}\n{run.stderr}")
    return json.loads(run.stdout)
