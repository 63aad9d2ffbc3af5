"""AI models and what a token of each costs: the catalogue as this organization pays it (behaviour.md §8)."""

from typing import Any

from tallystick.api.operations import Call, Operation, Page, Reply, page_of
from tallystick.api.wire import Out
from tallystick.core.limits import MODEL_CHARS_MAX
from tallystick.core.money import text
from tallystick.core.times import show_instant
from tallystick.core.tokens import ModelPrice, Rates, TokenPrices
from tallystick.errors import FieldError, InvalidRequest
from tallystick.flows import price_tokens
from tallystick.flows.price_tokens import PriceBook
from tallystick.providers.ai_prices import AiModel, Dated


class RatesOut(Out, kw_only=True):
    """Major units per million tokens. A cache without a price of its own costs what input costs."""

    input_per_million: str
    output_per_million: str
    cache_read_per_million: str | None
    cache_write_per_million: str | None


class StepOut(RatesOut, kw_only=True):
    """The rates of all tokens of a call with more input tokens than that."""

    above_input_tokens: int


class PriceOut(RatesOut, kw_only=True):
    steps: list[StepOut]


class HoursOut(Out, kw_only=True):
    """Of the day, in UTC; past midnight where `until` is the earlier."""

    start: str
    until: str


class DatedPriceOut(Out, kw_only=True):
    """Of the prices of a model the last that rules at an instant is asked then; null: not by the token."""

    valid_from: str | None
    hours: HoursOut | None
    price: PriceOut | None


class AiModelOut(Out, kw_only=True):
    """`price` is what a call costs now; without one the model is not `active`: it cannot be billed by the token."""

    id: str
    provider: str | None
    model_id: str
    display_name: str
    active: bool
    deprecated: bool
    price: PriceOut | None
    source: str | None
    valid_from: str | None
    object: str = "ai_model"
    livemode: bool


class AiModelWithHistory(AiModelOut, kw_only=True):
    """With what the catalogue knows of its prices over time."""

    catalogue_prices: list[DatedPriceOut]


async def list_all(call: Call[None]) -> Reply:
    limit, words, provider = call.limit(), call.query.get("search", ""), call.query.get("provider")
    if len(words) > MODEL_CHARS_MAX:
        raise InvalidRequest(FieldError("search", f"must be at most {MODEL_CHARS_MAX} characters"))
    book = await _book(call)
    found = book.catalogue().search(words, provider=provider)
    cursor = call.query.get("cursor")
    if cursor is not None:
        if book.catalogue().exactly(cursor) is None:
            raise InvalidRequest(FieldError("cursor", "is not a cursor of this list"))
        found = [each for each in found if each.id > cursor]
    shown = [
        AiModelOut(**_fields(each, book.price_of(each, call.now), live=call.live))
        for each in found[: limit + 1]
    ]
    return Reply(page_of(shown, limit, lambda each: each.id))


async def get(call: Call[None]) -> Reply:
    """By any name that usage may be reported under: bare, `provider/name`, an alias, an own model's."""
    name, book = call.path["model"], await _book(call)
    found = book.find(name, call.now)
    listed = book.catalogue().exactly(name if found is None else found.model)
    if found is None and listed is None:
        raise price_tokens.unknown(book, name)
    dated = () if listed is None else listed.dated
    return Reply(
        AiModelWithHistory(
            **_fields(listed, found, live=call.live), catalogue_prices=[_show_dated(each) for each in dated]
        )
    )


async def _book(call: Call[None]) -> PriceBook:
    return (await call.services.books.current(call.conn, call.organization.id)).prices


def _fields(listed: AiModel | None, found: ModelPrice | None, *, live: bool) -> dict[str, Any]:
    own = "" if found is None else found.model
    return {
        "id": own if listed is None else listed.id,
        "provider": None if listed is None else listed.provider,
        "model_id": own if listed is None else listed.name,
        "display_name": own if listed is None else listed.title,
        "active": found is not None,
        "deprecated": listed is not None and listed.deprecated,
        "price": None if found is None else _show_price(found.prices),
        "source": None if found is None else found.source,
        "valid_from": None if found is None or found.valid_from is None else show_instant(found.valid_from),
        "livemode": live,
    }


def show_rates(rates: Rates) -> dict[str, str | None]:
    """The fields of RatesOut."""
    return {
        "input_per_million": text(rates.input),
        "output_per_million": text(rates.output),
        "cache_read_per_million": None if rates.cache_read is None else text(rates.cache_read),
        "cache_write_per_million": None if rates.cache_write is None else text(rates.cache_write),
    }


def _show_price(prices: TokenPrices) -> PriceOut:
    fields: dict[str, Any] = show_rates(prices.base)
    steps = []
    for step in prices.steps:
        rates: dict[str, Any] = show_rates(step.rates)
        steps.append(StepOut(above_input_tokens=step.above, **rates))
    return PriceOut(**fields, steps=steps)


def _show_dated(dated: Dated) -> DatedPriceOut:
    return DatedPriceOut(
        valid_from=None if dated.valid_from is None else show_instant(dated.valid_from),
        hours=None
        if dated.hours is None
        else HoursOut(start=dated.hours[0].isoformat("minutes"), until=dated.hours[1].isoformat("minutes")),
        price=None if dated.prices is None else _show_price(dated.prices),
    )


OPERATIONS = (
    Operation(
        name="ai.listModels",
        method="GET",
        path="/ai/models",
        summary="AI models that usage can be reported for, with what a million tokens cost now",
        resource="plan",
        returns=Page[AiModelOut],
        handler=list_all,
        query=("search", "provider", "limit", "cursor"),
    ),
    Operation(
        name="ai.getModel",
        method="GET",
        path="/ai/models/{model}",
        summary="What a name means, and what its tokens cost now and in the catalogue over time",
        resource="plan",
        returns=AiModelWithHistory,
        handler=get,
        errors=("model_not_found",),
    ),
)
