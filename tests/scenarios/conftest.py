"""What scenarios have in common: lives through months, and connections by hand."""

from collections.abc import Callable, Iterator

import pytest

from tests import shop
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
    for each in made:
        audit(database_url, each)
        numbers = select(
            database_url,
            "SELECT number FROM invoices WHERE organization_id = %s ORDER BY number",
            organization_id(each),
        )
        assert [found[0] for found in numbers] == list(range(1, len(numbers) + 1))


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    opened = Wire(server)
    yield opened
    opened.close()


@pytest.fixture
def organization(make_organization: MakeOrganization) -> Iterator[Organization]:
    """Its clock stands at noon of the day of the events; `ada` holds the plan `pro`."""
    made = make_organization(clock="2026-01-10T12:00:00Z")
    shop.open_shop(made, "ada")
    shop.done(made.http.post(f"{shop.API}/test-clock", json={"frozenTime": "2026-01-15T12:00:00Z"}))
    yield made
