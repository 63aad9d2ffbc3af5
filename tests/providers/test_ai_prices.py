"""Our reading of the catalogue says what the library itself would charge, for every model of it."""

import warnings
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import genai_prices.data
import pytest
from genai_prices import Usage
from genai_prices.types import ModelInfo, Provider
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.core.limits import FRACTION_DIGITS_MAX
from tallystick.core.money import fits
from tallystick.core.tokens import ModelPrice, Rates, TokenCounts, charge
from tallystick.providers.ai_prices import AiModel, Dated, GenaiPrices, bundled
from tests.literals import D, at

NOON = at("2026-06-01T12:00")
CATALOGUE = bundled()
ALL = [(provider, info) for provider in genai_prices.data.providers for info in provider.models]


def ours(provider: Provider, info: ModelInfo) -> AiModel:
    found = CATALOGUE.exactly(f"{provider.id}/{info.id}")
    assert found is not None
    return found


def theirs(info: ModelInfo, provider: Provider, counts: TokenCounts, when: datetime) -> Decimal:
    usage = Usage(
        input_tokens=counts.input,
        output_tokens=counts.output,
        cache_read_tokens=counts.cache_read,
        cache_write_tokens=counts.cache_write,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return info.calc_price(usage, provider, genai_request_timestamp=when).total_price


BY_THE_TOKEN = {
    "input_mtok",
    "output_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
}
"""What an event reports; a model that asks for more than that is priced for its text alone."""


@cache
def moments() -> tuple[datetime, ...]:
    """Around every instant at which a price of the catalogue begins or ends, and hours of a day."""
    found = {NOON, at("2020-01-01")}
    for model in CATALOGUE.search(""):
        for each in model.dated:
            if each.valid_from is not None:
                found |= {each.valid_from, each.valid_from - timedelta(microseconds=1)}
            for hour in each.hours or ():
                of_a_day = datetime.combine(at("2026-11-01").date(), hour, NOON.tzinfo)
                found |= {of_a_day, of_a_day - timedelta(microseconds=1)}
    return tuple(sorted(found))


sizes = st.sampled_from([0, 1, 999, 32_000, 100_001, 128_001, 200_000, 200_001, 256_001, 272_001, 600_000])


@settings(max_examples=1_000)
@given(st.sampled_from(range(len(ALL))), sizes, sizes, sizes, sizes, st.data())
def test_a_call_costs_what_the_library_says(
    which: int, fresh: int, out: int, read: int, written: int, data: st.DataObject
) -> None:
    provider, info = ALL[which]
    when = data.draw(st.sampled_from(moments()))
    price = ours(provider, info).price_at(when)
    counts = TokenCounts(fresh + read + written, out, read, written)
    if price is None:
        assert info.get_prices(when).input_mtok is None
        return
    asked = {name for name, value in vars(info.get_prices(when)).items() if value is not None}
    if asked <= BY_THE_TOKEN:
        exact = charge(info.id, counts, price, 0).cost.exact.total
        # Each of the four prices is kept to so many digits; the library's few longer ones are off by less.
        assert abs(exact - theirs(info, provider, counts, when)) <= 2 * D(10) ** -FRACTION_DIGITS_MAX


def test_every_price_has_digits_that_a_bill_can_hold() -> None:
    for model in CATALOGUE.search(""):
        for each in model.dated:
            if each.prices is not None:
                for rates in (each.prices.base, *(step.rates for step in each.prices.steps)):
                    for rate in rates:
                        assert rate is None or (isinstance(rate, Decimal) and fits(rate) and rate >= 0)


def test_every_model_is_there_under_its_id() -> None:
    assert len(CATALOGUE.search("")) == len(ALL)
    for provider, info in ALL:
        found = CATALOGUE.find(f"{provider.id}/{info.id}")
        if ours(provider, info).priced:
            assert found is not None
            assert found.id == f"{provider.id}/{info.id}"
        else:
            assert found is None, "what has no price by the token cannot be billed by it"


def test_a_bare_name_never_chooses_between_prices() -> None:
    """Whoever is found by a bare name makes the model, or asks what everybody asks."""
    several, models = 0, CATALOGUE.search("")
    for name in {info.id for _, info in ALL}:
        found = CATALOGUE.find(name)
        if found is not None:
            continue
        sellers = [each for each in models if each.name.lower() == name.lower() and each.priced]
        if len(sellers) > 1:
            several += 1
            assert set(CATALOGUE.nearest(name, 100)) == {each.id for each in sellers}
            assert len({each.dated for each in sellers}) > 1
    assert several > 0


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gpt-4o", "openai/gpt-4o"),  # and not the first in the alphabet that lists it
        ("GPT-4O", "openai/gpt-4o"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("azure/gpt-4o", "openai/gpt-4o"),  # a provider that asks what another does
        ("gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("anthropic/claude-sonnet-4.6", "anthropic/claude-sonnet-4-6"),
        ("claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5"),
        ("openrouter/anthropic/claude-sonnet-4.6", "openrouter/anthropic/claude-sonnet-4.6"),
        ("github-copilot/gpt-4o", None),  # nothing by the token
        ("openai/claude-sonnet-4-5", None),  # not from them
        ("meta-llama/Llama-3.3-70B-Instruct", None),  # from several, at different prices
        ("gpt-4o-nonexistent", None),
        ("gpt-99", None),
        ("", None),
        ("/", None),
        ("/gpt-4o", None),
        ("openai/", None),
        ("x" * 201, None),
    ],
)
def test_what_a_name_means(name: str, meant: str | None) -> None:
    found = CATALOGUE.find(name)
    assert (None if found is None else found.id) == meant


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("gpt-4oo", "gpt-4o"), ("openai/gpt-4oo", "openai/gpt-4o"), ("claude-sonet-4-5", "claude-sonnet-4-5")],
)
def test_a_mistyped_name_is_near_the_right_one(name: str, nearest: str) -> None:
    assert CATALOGUE.find(name) is None
    found = CATALOGUE.nearest(name, 3)
    assert found[0] == nearest
    assert all(CATALOGUE.find(each) is not None for each in found)


def priced(rate: str) -> Any:
    info = ModelInfo(id="m", match=genai_prices.types.ClauseEquals("m"))
    info.prices = genai_prices.types.ModelPrice(input_mtok=D(rate))
    return info


def test_what_a_binary_fraction_left_is_no_price() -> None:
    catalogue = GenaiPrices([Provider("p", "P", "", models=[priced("0.18000000000000002")])], "test")
    found = catalogue.find("p/m")
    assert found is not None
    assert found.price_at(NOON) == ModelPrice("p/m", found.dated[0].prices, "test")  # type: ignore[arg-type]
    assert charge("m", TokenCounts(1_000_000, 0), found.price_at(NOON), 0).cost.total == 1_800  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hours", "hour", "rules"),
    [
        (("16:30", "00:30"), "16:29", False),
        (("16:30", "00:30"), "16:30", True),
        (("16:30", "00:30"), "00:29", True),  # past midnight
        (("16:30", "00:30"), "00:30", False),
        (("01:00", "04:00"), "01:00", True),
        (("01:00", "04:00"), "04:00", False),
        (("00:00", "00:00"), "00:00", False),  # no time at all
    ],
)
def test_hours_of_the_day(hours: tuple[str, str], hour: str, rules: bool) -> None:
    start, end = (at(f"2026-01-01T{each}").time() for each in hours)
    assert Dated(None, hours=(start, end)).rules(at(f"2026-01-01T{hour}")) is rules
    assert Dated(None, hours=(start, end)).rules(at(f"2026-01-01T{hour}:00+00:00")) is rules


def test_prices_follow_the_day_the_call_was_made() -> None:
    """Of each model whose price changed: the day before and the day itself."""
    changed = 0
    for model in CATALOGUE.search(""):
        for before, after in zip(model.dated, model.dated[1:], strict=False):
            if after.valid_from is None or before.hours or any(each.hours for each in model.dated):
                continue
            then, since = (
                model.price_at(moment)
                for moment in (after.valid_from - timedelta(seconds=1), after.valid_from)
            )
            assert (None if then is None else then.prices) == before.prices
            assert (None if since is None else since.prices) == after.prices
            changed += before.prices != after.prices
    assert changed > 0


def test_rates_are_values() -> None:
    assert Rates(D("2.50"), D("10")) == Rates(D("2.5"), D("10.0"))
