"""Tokens and what they cost: rounded up where it is deducted, exact beside it."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.limits import TOKEN_PRICE_MAX, TOKENS_PER_EVENT_MAX
from tallystick.core.money import ZERO, to_rate_up
from tallystick.core.tokens import (
    ModelPrice,
    Override,
    Rates,
    Step,
    TokenCounts,
    TokenPrices,
    charge,
    cost,
    read_counts,
)
from tallystick.errors import Broken, InvalidRequest
from tests.literals import D, U, at

SONNET = Rates(D("3"), D("15"), D("0.3"), D("3.75"))
BIGINT_MAX = 2**63 - 1

prices = st.integers(0, TOKEN_PRICE_MAX * 10**12).map(lambda digits: Decimal(digits).scaleb(-12))
rates = st.builds(Rates, prices, prices, st.none() | prices, st.none() | prices)
margins = st.integers(0, 10_000)


@st.composite
def any_counts(draw: st.DrawFn) -> TokenCounts:
    tokens = st.one_of(st.integers(0, 5_000), st.integers(0, TOKENS_PER_EVENT_MAX))
    put_in, read = draw(tokens), draw(tokens)
    read = min(put_in, read)
    return TokenCounts(put_in, draw(tokens), read, draw(st.integers(0, put_in - read)))


@pytest.mark.parametrize(
    ("counts", "margin_bps", "costs", "total", "exact"),
    [
        (TokenCounts(1000, 500), 2000, (30, 75, 0, 0), 126, "0.0126"),
        (TokenCounts(0, 0), 2000, (0, 0, 0, 0), 0, "0"),
        (TokenCounts(1, 0), 0, (1, 0, 0, 0), 1, "0.000003"),  # a token is never free
        (TokenCounts(1, 0), 1, (1, 0, 0, 0), 2, "0.0000030003"),  # nor is the smallest margin
        (TokenCounts(34, 0), 0, (2, 0, 0, 0), 2, "0.000102"),  # 1.02 units are two
        (TokenCounts(1_000_000, 0), 0, (30_000, 0, 0, 0), 30_000, "3"),
        (TokenCounts(1_000_000, 0, 1_000_000), 0, (0, 0, 3_000, 0), 3_000, "0.3"),  # all of it was cached
        (TokenCounts(10_000, 2000, 7000, 1000), 2000, (60, 300, 21, 38), 503, "0.05022"),
        (TokenCounts(1, 1, 1), 0, (0, 1, 1, 0), 2, "0.0000153"),  # each is rounded, not their sum
    ],
)
def test_what_a_call_costs(
    counts: TokenCounts, margin_bps: int, costs: tuple[int, ...], total: int, exact: str
) -> None:
    found = cost(counts, SONNET, margin_bps)
    assert (found.input, found.output, found.cache_read, found.cache_write) == costs
    assert found.total == total
    assert found.exact.total == D(exact)


def test_a_cache_without_a_price_costs_what_input_costs() -> None:
    found = cost(TokenCounts(1_000_000, 0, 400_000, 100_000), Rates(D("3"), D("15")), 0)
    assert (found.input, found.cache_read, found.cache_write) == (15_000, 12_000, 3_000)


@pytest.mark.parametrize(
    ("tokens", "price"),
    [
        (0, "1.25"),
        (200_000, "1.25"),  # the last call of the first step
        (200_001, "2.5"),
        (500_001, "5"),
    ],
)
def test_a_step_prices_all_of_the_call(tokens: int, price: str) -> None:
    steps = (Step(200_000, Rates(D("2.5"), D("15"))), Step(500_000, Rates(D("5"), D("30"))))
    stepped = ModelPrice("google/gemini", TokenPrices(Rates(D("1.25"), D("10")), steps), "catalogue")
    found = charge("gemini", TokenCounts(tokens, 1_000_000), stepped, 0)
    assert found.rates.input == D(price)
    assert found.cost.exact.input == tokens * D(price) / 1_000_000
    assert found.cost.output == {"1.25": 100_000, "2.5": 150_000, "5": 300_000}[price]


@given(any_counts(), rates, margins)
def test_the_parts_make_the_whole(counts: TokenCounts, at_rates: Rates, margin_bps: int) -> None:
    found = cost(counts, at_rates, margin_bps)
    assert found.subtotal == found.input + found.output + found.cache_read + found.cache_write
    assert found.total == found.subtotal + found.margin <= BIGINT_MAX
    assert min(found[:7]) >= 0


@given(any_counts(), rates, margins)
def test_nothing_is_rounded_in_the_exact_amounts(
    counts: TokenCounts, at_rates: Rates, margin_bps: int
) -> None:
    """By fractions, which have no digits to lose."""
    of = Fraction(at_rates.input)
    read = of if at_rates.cache_read is None else Fraction(at_rates.cache_read)
    write = of if at_rates.cache_write is None else Fraction(at_rates.cache_write)
    fresh = counts.input - counts.cache_read - counts.cache_write
    subtotal = (
        fresh * of
        + counts.output * Fraction(at_rates.output)
        + counts.cache_read * read
        + counts.cache_write * write
    ) / 1_000_000
    exact = cost(counts, at_rates, margin_bps).exact
    assert Fraction(exact.subtotal) == subtotal
    assert Fraction(exact.total) == subtotal * (10_000 + margin_bps) / 10_000


@given(any_counts(), rates, margins)
def test_what_is_deducted_covers_the_exact_amount_and_by_little(
    counts: TokenCounts, at_rates: Rates, margin_bps: int
) -> None:
    """Four costs and a margin, each rounded up by less than a unit; the margin is of rounded costs."""
    found = cost(counts, at_rates, margin_bps)
    for rounded, exact in zip(found[:4], found.exact[:4], strict=True):
        assert rounded - 1 < exact * 10_000 <= rounded
    assert 0 <= found.total - found.exact.total * 10_000 < 4 * 2 + 1


@given(any_counts(), rates, margins, st.integers(1, 5_000))
def test_more_tokens_never_cost_less(
    counts: TokenCounts, at_rates: Rates, margin_bps: int, more: int
) -> None:
    before = cost(counts, at_rates, margin_bps).total
    assert cost(counts._replace(input=counts.input + more), at_rates, margin_bps).total >= before
    assert cost(counts._replace(output=counts.output + more), at_rates, margin_bps).total >= before


@given(any_counts(), rates, margins)
def test_what_is_kept_tells_whether_it_was_changed(
    counts: TokenCounts, at_rates: Rates, margin_bps: int
) -> None:
    kept = charge("m", counts, ModelPrice("p/m", TokenPrices(at_rates), "catalogue"), margin_bps)
    assert kept.holds
    tampered = kept.cost._replace(total=kept.cost.total + 1)
    assert not type(kept)("m", "p/m", counts, at_rates, margin_bps, tampered, "catalogue", None).holds


@given(prices)
def test_a_rate_is_rounded_up_and_only_where_it_must(exact: Decimal) -> None:
    assert to_rate_up(exact) - 1 < exact * 10_000 <= to_rate_up(exact)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"inputTokens": 10, "outputTokens": 0}, TokenCounts(10, 0)),
        ({"inputTokens": 0, "outputTokens": 7, "cacheReadTokens": None}, TokenCounts(0, 7)),
        (
            {"inputTokens": 10, "outputTokens": 2, "cacheReadTokens": 4, "cacheWriteTokens": 6},
            TokenCounts(10, 2, 4, 6),
        ),
        (
            {"inputTokens": TOKENS_PER_EVENT_MAX, "outputTokens": 0},
            TokenCounts(TOKENS_PER_EVENT_MAX, 0),
        ),
    ],
)
def test_counts_are_read(sent: dict[str, Any], read: TokenCounts) -> None:
    assert read_counts(sent) == read


@pytest.mark.parametrize(
    ("sent", "guilty"),
    [
        ({}, ["inputTokens", "outputTokens"]),
        ({"inputTokens": 1}, ["outputTokens"]),
        ({"inputTokens": True, "outputTokens": 1}, ["inputTokens"]),
        ({"inputTokens": D("1.5"), "outputTokens": "1"}, ["inputTokens", "outputTokens"]),
        ({"inputTokens": -1, "outputTokens": 10**12 + 1}, ["inputTokens", "outputTokens"]),
        ({"inputTokens": 9, "outputTokens": 0, "cacheReadTokens": 10}, ["cacheReadTokens"]),
        (
            {"inputTokens": 9, "outputTokens": 0, "cacheReadTokens": 4, "cacheWriteTokens": 6},
            ["cacheWriteTokens"],
        ),
        ({"inputTokens": 9, "outputTokens": 0, "cacheWriteTokens": D("2")}, ["cacheWriteTokens"]),
    ],
)
def test_counts_that_cannot_be_are_named(sent: dict[str, Any], guilty: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_counts(sent)
    assert [field for field, _ in refused.value.errors] == guilty


def test_cached_tokens_beyond_the_input_never_reach_a_price() -> None:
    with pytest.raises(Broken):
        cost(TokenCounts(1, 0, 2), SONNET, 0)


@pytest.mark.parametrize(
    ("until", "moment", "rules"),
    [
        (None, "2026-01-31T23:59:59Z", False),
        (None, "2026-02-01", True),  # the start is included
        (None, "2036-02-01", True),
        ("2026-03-01", "2026-02-28T23:59:59Z", True),
        ("2026-03-01", "2026-03-01", False),  # the end is not
    ],
)
def test_when_an_override_rules(until: str | None, moment: str, rules: bool) -> None:
    own = Override(
        U(1), "m", TokenPrices(SONNET), at("2026-02-01"), at(until) if until else None, at("2026-01-01")
    )
    assert (at(moment) in own) is rules


def test_the_value_of_an_event_is_all_its_tokens_once() -> None:
    assert TokenCounts(10_000, 2000, 7000, 1000).total == 12_000
    assert cost(TokenCounts(0, 0), Rates(ZERO, ZERO), 0).total == 0
