"""A full disk is answered with 503, loses nothing that was acknowledged, and is survived without a restart."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tallystick.store.embedded import embedded_postgres
from tests.conftest import Server, free_port, open_one, private_dir
from tests.shop import open_shop

SMALL, LARGER = "130m", "600m"
REQUESTS_MAX = 4_000

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
            acknowledged = _fill(shop.http)
            subprocess.run(["mount", "-o", f"remount,size={LARGER}", str(small_disk)], check=True)
            server.wait_until_ready()
            after = _send(shop.http, "after")
            assert after.status_code in (200, 201), after.text
            shop.http.close()
            with psycopg.connect(embedded.conninfo) as conn:
                kept = {key for (key,) in conn.execute("SELECT event_key FROM events").fetchall()}
        assert acknowledged <= kept
    finally:
        server.stop()


def _fill(http: httpx.Client) -> set[str]:
    """Send until there is no room; returns the keys that were acknowledged."""
    acknowledged: set[str] = set()
    for number in range(REQUESTS_MAX):
        answer = _send(http, f"batch-{number}")
        if answer.status_code == 503:
            assert answer.json()["code"] == "unavailable"
            assert answer.headers["Retry-After"]
            return acknowledged
        assert answer.status_code == 200, answer.text
        acknowledged |= {each["eventId"] for each in answer.json()["successful"]}
    raise AssertionError("the disk never filled")


def _send(http: httpx.Client, prefix: str) -> httpx.Response:
    padding = [{"property": f"p{index}", "value": secrets.token_hex(450)} for index in range(8)]
    events = [
        {
            "customerId": "ada",
            "featureCode": "api_calls",
            "eventId": f"{prefix}-{index}",
            "properties": padding,
        }
        for index in range(60)
    ]
    return http.post("/api/v1/usage/events/batch", json={"events": events})
