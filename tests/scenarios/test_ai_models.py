"""What AI models cost an organization, as its API tells it: the catalogue, its own prices, its own names."""

from typing import Any

import pytest

from tests.conftest import MakeOrganization, Organization
from tests.scenarios.wire import refusal
from tests.shop import API, Json, done

OWN = {"model": "gpt-4o", "inputPerMillion": "2", "outputPerMillion": "8"}


@pytest.fixture
def shop(make_organization: MakeOrganization) -> Organization:
    return make_organization(clock="2026-03-20T12:00:00Z")


def model(shop: Organization, name: str) -> Json:
    return done(shop.http.get(f"{API}/ai/models/{name}"))


def own_price(shop: Organization, **fields: Any) -> Json:
    return done(shop.http.post(f"{API}/ai/prices", json=OWN | fields))


def alias(shop: Organization, name: str, meant: str) -> Json:
    return done(shop.http.post(f"{API}/ai/aliases", json={"alias": name, "model": meant}))


def test_a_model_says_what_it_costs_in_decimals(shop: Organization) -> None:
    found = model(shop, "openai/gpt-4o")
    assert (found["id"], found["provider"], found["modelId"]) == ("openai/gpt-4o", "openai", "gpt-4o")
    assert found["active"] is True
    assert found["price"] == {
        "inputPerMillion": "2.5",
        "outputPerMillion": "10",
        "cacheReadPerMillion": "1.25",
        "cacheWritePerMillion": None,
        "steps": [],
    }
    assert found["source"].startswith("genai-prices ")
    assert [each["price"] for each in found["cataloguePrices"]] == [found["price"]]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gpt-4o", "openai/gpt-4o"),
        ("GPT-4o", "openai/gpt-4o"),
        ("gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("anthropic/claude-sonnet-4.6", "anthropic/claude-sonnet-4-6"),
        ("groq/openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
    ],
)
def test_a_model_is_found_by_any_of_its_names(shop: Organization, name: str, meant: str) -> None:
    assert model(shop, name)["id"] == meant


def test_steps_are_shown(shop: Organization) -> None:
    (step,) = model(shop, "google/gemini-2.5-pro")["price"]["steps"]
    assert (step["aboveInputTokens"], step["inputPerMillion"]) == (200_000, "2.5")


def test_an_unknown_model_is_answered_with_names_that_look_alike(shop: Organization) -> None:
    error = refusal(shop.http.get(f"{API}/ai/models/gpt-4oo"), 404, "model_not_found")
    assert error["details"]["nearest"][0] == "gpt-4o"
    assert "'gpt-4o'" in error["message"]


def test_a_name_that_several_sell_at_different_prices_is_not_guessed(shop: Organization) -> None:
    name = "meta-llama/Llama-3.3-70B-Instruct"
    error = refusal(shop.http.get(f"{API}/ai/models/{name}"), 404, "model_not_found")
    assert error["details"]["nearest"]
    for each in error["details"]["nearest"]:
        assert each.endswith(f"/{name}")
        assert model(shop, each)["id"] == each


def test_a_model_without_a_price_by_the_token_is_shown_and_not_active(shop: Organization) -> None:
    found = model(shop, "github-copilot/gpt-4o")
    assert (found["active"], found["price"]) == (False, None)


def test_the_list_has_every_model_once(shop: Organization) -> None:
    seen: list[str] = []
    query: dict[str, str] = {"limit": "100"}
    while True:
        page = done(shop.http.get(f"{API}/ai/models", params=query))
        seen += [each["id"] for each in page["data"]]
        if not page["hasMore"]:
            break
        query["cursor"] = page["nextCursor"]
    assert seen == sorted(set(seen))
    assert len(seen) > 2000
    assert {"openai/gpt-4o", "anthropic/claude-sonnet-4-6"} <= set(seen)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"search": "gpt-4o mini openai", "provider": "openai"}, {"openai/gpt-4o-mini"}),
        ({"search": "GPT-4O", "provider": "nobody"}, set()),
        ({"search": "no such model"}, set()),
    ],
)
def test_a_search_finds_every_word(shop: Organization, query: dict[str, str], ids: set[str]) -> None:
    found = {each["id"] for each in done(shop.http.get(f"{API}/ai/models", params=query))["data"]}
    assert found >= ids
    assert bool(found) is bool(ids)
    assert all(word in each for each in found for word in query["search"].lower().split())


def test_an_own_price_rules_from_its_day_to_its_end(
    shop: Organization, make_organization: MakeOrganization
) -> None:
    own_price(shop, validFrom="2026-03-21T00:00:00Z", validUntil="2026-03-23T00:00:00Z")
    rules = {}
    for day in (20, 21, 22, 23):
        if day > 20:
            done(shop.http.post(f"{API}/test-clock", json={"frozenTime": f"2026-03-{day}T00:00:00Z"}))
        found = model(shop, "gpt-4o")
        rules[day] = (found["price"]["inputPerMillion"], found["source"].partition("_")[0])
    catalogue = model(make_organization(clock="2026-03-20T12:00:00Z"), "gpt-4o")["source"]
    assert rules == {20: ("2.5", catalogue), 21: ("2", "aip"), 22: ("2", "aip"), 23: ("2.5", catalogue)}


def test_an_own_price_is_found_under_every_name_of_its_model(shop: Organization) -> None:
    made = own_price(shop)
    assert made["model"] == "openai/gpt-4o"
    for name in ("gpt-4o", "openai/gpt-4o", "gpt-4o-2024-08-06"):
        assert model(shop, name)["source"] == made["id"]
    listed = done(shop.http.get(f"{API}/ai/models", params={"search": "openai/gpt-4o"}))["data"]
    assert {each["id"]: each["source"] for each in listed}["openai/gpt-4o"] == made["id"]


def test_the_price_that_began_last_rules(shop: Organization) -> None:
    older = own_price(shop, validFrom="2026-01-01T00:00:00Z")
    newer = own_price(shop, validFrom="2026-02-01T00:00:00Z", inputPerMillion="1")
    assert model(shop, "gpt-4o")["source"] == newer["id"]
    done(shop.http.delete(f"{API}/ai/prices/{newer['id']}"))
    assert model(shop, "gpt-4o")["source"] == older["id"]
    listed = done(shop.http.get(f"{API}/ai/prices", params={"model": "OpenAI/gpt-4o"}))["data"]
    assert [each["id"] for each in listed] == [older["id"]]
    refusal(shop.http.delete(f"{API}/ai/prices/{newer['id']}"), 404, "price_not_found")


def test_a_model_nobody_knows_can_have_a_price(shop: Organization) -> None:
    refusal(shop.http.get(f"{API}/ai/models/our-llama"), 404, "model_not_found")
    made = own_price(shop, model="our-llama", cacheReadPerMillion="0.000000000001")
    found = model(shop, "Our-Llama")
    assert (found["id"], found["provider"], found["source"]) == ("our-llama", None, made["id"])
    assert found["price"]["cacheReadPerMillion"] == "0.000000000001"
    error = refusal(shop.http.get(f"{API}/ai/models/our-lama"), 404, "model_not_found")
    assert "our-llama" in error["details"]["nearest"]


def test_an_alias_means_its_model_until_it_is_taken_back(shop: Organization) -> None:
    made = alias(shop, "fast/one", "gpt-4o-mini")
    assert model(shop, "fast/one")["id"] == "openai/gpt-4o-mini"
    again = shop.http.post(f"{API}/ai/aliases", json={"alias": "Fast/One", "model": "gpt-4o"})
    refusal(again, 409, "duplicate")
    assert done(shop.http.get(f"{API}/ai/aliases"))["data"] == [made]
    done(shop.http.delete(f"{API}/ai/aliases/{made['id']}"))
    refusal(shop.http.get(f"{API}/ai/models/fast/one"), 404, "model_not_found")
    refusal(shop.http.delete(f"{API}/ai/aliases/{made['id']}"), 404, "not_found")


def test_an_own_price_goes_before_an_alias_and_an_alias_before_the_catalogue(shop: Organization) -> None:
    alias(shop, "gpt-4o", "gpt-4o-mini")
    assert model(shop, "gpt-4o")["id"] == "openai/gpt-4o-mini"
    assert model(shop, "openai/gpt-4o")["id"] == "openai/gpt-4o"
    own_price(shop, model="house-model")
    alias(shop, "best", "house-model")
    assert model(shop, "best")["id"] == "house-model"
    own_price(shop, model="best", inputPerMillion="7")
    assert model(shop, "best")["price"]["inputPerMillion"] == "7"


def test_an_alias_means_a_model_that_has_a_price(shop: Organization) -> None:
    error = refusal(
        shop.http.post(f"{API}/ai/aliases", json={"alias": "a", "model": "gpt-4oo"}), 404, "model_not_found"
    )
    assert error["details"]["nearest"][0] == "gpt-4o"
    itself = shop.http.post(f"{API}/ai/aliases", json={"alias": "gpt-4o", "model": "GPT-4o"})
    refusal(itself, 400, "validation_error", "model")
