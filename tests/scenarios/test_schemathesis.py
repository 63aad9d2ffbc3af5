"""Requests made up from the server's own OpenAPI document: none breaks it, and every answer is as described."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS

from tallystick.api import openapi
from tallystick.api.stream_route import NDJSON
from tests.conftest import Organization, Server, open_one
from tests.shop import add_customer, open_shop

EXAMPLES_PER_OPERATION = 15


@pytest.fixture(scope="module")
def shop(server: Server, database_url: str) -> Iterator[Organization]:
    """Somewhere to aim at: a customer with a plan, and one without."""
    made = open_one(database_url, server.base_url, clock="2026-03-20T12:00:00Z")
    open_shop(made, "ada")
    add_customer(made, "bob")
    yield made
    made.http.close()


# The very document the server answers with: `test_wire` holds the two together.
document = schemathesis.openapi.from_dict(openapi.document())
schemathesis.serializer.alias(NDJSON, "application/json")  # a stream of one line, or of none


@schemathesis.deserializer(NDJSON)
def _line(_: object, answer: Any) -> Any:
    return json.loads(answer.content or b"{}")


ASKED: Any = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    ]
)


@document.parametrize()
@settings(
    max_examples=EXAMPLES_PER_OPERATION,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_no_request_breaks_the_server(case: schemathesis.Case[Any], shop: Organization) -> None:
    case.call_and_validate(
        base_url=shop.base_url,
        headers={"x-api-key": shop.api_key},
        checks=ASKED,
    )
