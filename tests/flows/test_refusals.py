"""Refusals on the hot routes leave nothing behind that only a search for cycles could find."""

import asyncio
import gc
import json
from typing import Any

import pytest

from tallystick.app import Application
from tallystick.settings import Settings
from tests.conftest import MakeOrganization
from tests.shop import API, open_shop

REFUSALS = 20


@pytest.mark.parametrize(
    ("path", "customer", "status"),
    [("/usage/events", "ada", 409), ("/usage/events", "bob", 404), ("/usage/check", "bob", 404)],
)
def test_a_refusal_is_gone_once_it_is_told(
    make_organization: MakeOrganization, database_url: str, path: str, customer: str, status: int
) -> None:
    """A client that retries is refused a lot, and while cycles are searched for the process answers nobody."""
    shop = make_organization()
    open_shop(shop, "ada")
    body = json.dumps({"customerId": customer, "featureCode": "api_calls", "eventId": "once"}).encode()

    async def left_behind() -> int:
        application = Application(Settings(database_url=database_url))
        await application.database.open()
        application.batcher.start()
        try:
            for _ in range(2):  # whatever is learnt at first, and the event that others repeat
                await told(application, path, body, shop.api_key)
            gc.collect()
            gc.disable()
            assert {await told(application, path, body, shop.api_key) for _ in range(REFUSALS)} == {status}
            return gc.collect()
        finally:
            gc.enable()
            await application.checker.stop()
            await application.batcher.stop()
            await application.database.close()

    assert asyncio.run(left_behind()) < REFUSALS


async def told(application: Application, path: str, body: bytes, api_key: str) -> int:
    """The status of one request to a hot route."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": API + path,
        "headers": [(b"x-api-key", api_key.encode())],
    }
    await application(scope, receive, send)
    return statuses[0]
