"""What scenarios have in common: lives through months, and connections by hand."""

from collections.abc import Callable, Iterator

import pytest

from tests.audit import audit, organization_id, select
from tests.conftest import MakeOrganization, Organization, Server
from tests.scenarios.wire import Wire


@pytest.fixture
def open_at(
    make_organization: MakeOrganization, database_url: str
) -> Iterator[Callable[[str], Organization]]:
    """An organization whose clock begins there; afterwards its books must balance."""
    made: list[Organization] = []

    def begin(clock: str) -> Organization:
        made.append(make_organization(clock=clock))
        return made[-1]

    yield begin
    for shop in made:
        audit(database_url, shop)
        numbers = select(
            database_url,
            "SELECT number FROM invoices WHERE organization_id = %s ORDER BY number",
            organization_id(shop),
        )
        assert [each[0] for each in numbers] == list(range(1, len(numbers) + 1))


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    opened = Wire(server)
    yield opened
    opened.close()
