"""A full disk is answered with 503, loses nothing that was acknowledged, and is survived without a restart."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tallystick.store.embedded import embedded_postgres
from tests.audit import audit, stored_keys
from tests.conftest import Server, free_port, open_one, private_dir
from tests.shop import done, open_shop

SMALL, LARGER = "130m", "600m"
REQUESTS_MAX = 4_000
EVENTS = 60  # in each

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a small file system"
)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    folder = private_dir("tallystick-small-")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL},mode=0755", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"this machine lets nobody mount a file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


def test_a_full_disk_is_answered_and_survived(small_disk: Path) -> None:
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}", port, small_disk / "data", None)
    server.start()
    try:
        with embedded_postgres(server.data_dir) as embedded:
            shop = open_one(embedded.conninfo, server.base_url)
            open_shop(shop, "ada")
            acknowledged, refused = _fill(shop.http)
            subprocess.run(["mount", "-o", f"remount,size={LARGER}", str(small_disk)], check=True)
            server.wait_until_ready()
            for late in (refused, "after"):
                acknowledged |= _keys(_send(shop.http, late))
            shop.http.close()
            assert stored_keys(embedded.conninfo, shop) == dict.fromkeys(acknowledged, 1)
            assert audit(embedded.conninfo, shop) == len(acknowledged)
    finally:
        server.stop()


def _fill(http: httpx.Client) -> tuple[set[str], str]:
    """Send until there is no room; returns the keys that were acknowledged, and the batch that was not."""
    acknowledged: set[str] = set()
    for number in range(REQUESTS_MAX):
        answer = _send(http, f"batch-{number}")
        if answer.status_code == 503:
            assert answer.json()["code"] == "unavailable"
            assert answer.headers["Retry-After"]
            return acknowledged, f"batch-{number}"
        acknowledged |= _keys(answer)
    raise AssertionError("the disk never filled")


def _keys(answer: httpx.Response) -> set[str]:
    """All that were sent."""
    stored = {each["eventId"] for each in done(answer)["successful"]}
    assert len(stored) == EVENTS, answer.text[:500]
    return stored


def _send(http: httpx.Client, prefix: str) -> httpx.Response:
    """The same again for the same prefix."""
    dice = random.Random(prefix)
    padding = [{"property": f"p{index}", "value": dice.randbytes(450).hex()} for index in range(8)]
    events = [
        {
            "customerId": "ada",
            "featureCode": "api_calls",
            "eventId": f"{prefix}-{index}",
            "properties": padding,
        }
        for index in range(EVENTS)
    ]
    return http.post(
        "/api/v1/usage/events/batch", json={"events": events}, headers={"Idempotency-Key": prefix}
    )
