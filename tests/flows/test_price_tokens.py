"""Which price a call gets: the organization's own, its alias's, the catalogue's; and the memory of it."""

from dataclasses import replace
from uuid import UUID

import pytest

from tallystick.core.tokens import Override, Rates, TokenCounts, TokenPrices
from tallystick.errors import Problem
from tallystick.flows.books import Books
from tallystick.flows.price_tokens import PriceBook, price
from tallystick.flows.publish_ai_prices import drop_alias, drop_price, set_alias, set_price
from tallystick.store import db
from tallystick.store.ai import Alias
from tallystick.store.db import Conn, Database
from tests.audit import organization_id
from tests.conftest import MakeOrganization, beside_the_server
from tests.literals import D, U, at

NOW = at("2026-03-20T12:00")
MILLION = TokenCounts(1_000_000, 0)


def own(number: int, model: str, rate: str, start: str = "2026-01-01", end: str | None = None) -> Override:
    prices = TokenPrices(Rates(D(rate), D(rate)))
    return Override(U(number), model, prices, at(start), None if end is None else at(end), NOW)


def costs(book: PriceBook, model: str, moment: str = "2026-03-20T12:00") -> int:
    return price(book, model, MILLION, 0, at(moment)).cost.total


@pytest.mark.parametrize(
    ("moment", "total"),
    [
        ("2026-01-31T23:59:59", 25_000),  # the catalogue's
        ("2026-02-01", 20_000),
        ("2026-03-01", 10_000),  # began later, rules alone
        ("2026-03-31T23:59:59", 10_000),
        ("2026-04-01", 20_000),  # what was before it rules again
    ],
)
def test_the_price_is_that_of_the_moment_of_the_call(moment: str, total: int) -> None:
    newest_first = (
        own(2, "openai/gpt-4o", "1", "2026-03-01", "2026-04-01"),
        own(1, "openai/gpt-4o", "2", "2026-02-01"),
    )
    book = PriceBook(overrides={"openai/gpt-4o": newest_first})
    for name in ("gpt-4o", "openai/gpt-4o", "gpt-4o-2024-08-06"):
        assert costs(book, name, moment) == total


def test_own_before_alias_before_catalogue() -> None:
    book = PriceBook(
        overrides={"best": (own(1, "best", "7"),), "house": (own(2, "house", "3"),)},
        aliases={"best": "gpt-4o", "gpt-4o-mini": "house", "quick": "gpt-4o"},
    )
    assert costs(book, "Best") == 70_000
    assert costs(book, "gpt-4o-mini") == 30_000
    assert costs(book, "quick") == costs(book, "gpt-4o") == 25_000
    renamed = PriceBook(
        overrides={"openai/gpt-4o": (own(1, "openai/gpt-4o", "9"),)}, aliases={"gpt-4o": "gpt-4.1"}
    )
    assert costs(renamed, "gpt-4o") == 90_000, "its own price, though set under another name"
    assert costs(book, "best", "2025-12-31") == 25_000, "its own price had not begun: the alias rules"


def test_what_is_kept_names_what_was_asked_and_what_it_was_priced_as() -> None:
    kept = price(PriceBook(), "gpt-4o-2024-08-06", TokenCounts(1500, 300), 2000, NOW)
    assert (kept.model, kept.priced_as) == ("gpt-4o-2024-08-06", "openai/gpt-4o")
    assert kept.source.startswith("genai-prices ")
    assert (kept.cost.subtotal, kept.cost.margin, kept.cost.total) == (38 + 30, 14, 82)
    assert kept.holds


def test_an_unknown_model_is_refused_with_the_nearest_names() -> None:
    book = PriceBook(overrides={"house-large": (own(1, "house-large", "3"),)})
    with pytest.raises(Problem) as refused:
        price(book, "house-larg", MILLION, 0, NOW)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert isinstance(refused.value.details, dict)
    assert refused.value.details["nearest"][0] == "house-large"
    with pytest.raises(Problem):
        price(PriceBook(aliases={"a": "b", "b": "gpt-4o"}), "a", MILLION, 0, NOW)  # one step, never two


def test_every_process_prices_by_what_was_published_last(
    database_url: str, make_organization: MakeOrganization
) -> None:
    organization: UUID = organization_id(make_organization())

    async def act(database: Database) -> None:
        here, there = Books(), Books()

        async def seen(conn: Conn) -> set[tuple[int, int]]:
            found = [(await each.current(conn, organization)).prices for each in (here, there)]
            return {(costs(each, "gpt-4o"), costs(each, "gpt-4o-mini")) for each in found}

        async with database.reading() as conn:
            before = await seen(conn)
            override = await set_price(
                conn, organization_id=organization, override=replace(own(1, "gpt-4o", "2"), id=db.new_id())
            )
            assert await seen(conn) == {(20_000, 1_500)} != before
            alias = Alias(db.new_id(), "gpt-4o-mini", "gpt-4o", NOW)
            await set_alias(conn, organization_id=organization, alias=alias)
            assert await seen(conn) == {(20_000, 20_000)}
            await drop_price(conn, organization_id=organization, override_id=override.id, now=NOW)
            assert await seen(conn) == {(25_000, 25_000)}
            await drop_alias(conn, organization_id=organization, alias_id=alias.id)
            assert await seen(conn) == before == {(25_000, 1_500)}

    beside_the_server(database_url, act)
