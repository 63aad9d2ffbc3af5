"""An organization's own prices of AI models, with effective dates, and its own names for them."""

from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta

from tallystick.api.ai_models import RatesOut, show_rates
from tallystick.api.features import Deleted
from tallystick.api.operations import Call, Operation, Page, Reply, page_of, whole
from tallystick.api.wire import In, Out
from tallystick.core import ids
from tallystick.core.limits import MODEL_CHARS_MAX, TOKEN_PRICE_MAX
from tallystick.core.price_shapes import decimal_of
from tallystick.core.times import parse_instant, show_instant
from tallystick.core.tokens import Override, Rates, TokenPrices
from tallystick.errors import FieldError, InvalidRequest
from tallystick.flows import publish_ai_prices
from tallystick.store import ai
from tallystick.store.ai import Alias
from tallystick.store.db import new_id

ModelName = Annotated[str, Meta(pattern=r"^[!-~]+$(?!\n)", max_length=MODEL_CHARS_MAX)]
"""Printable, without spaces, as providers name their models."""


class CreateAiPrice(In, kw_only=True):
    """Decimals as strings: major units per million tokens. A cache without a price of its own costs what input
    costs; the price replaces the catalogue's as a whole, steps too."""

    model: ModelName
    input_per_million: Any
    output_per_million: Any
    cache_read_per_million: Any = None
    cache_write_per_million: Any = None
    valid_from: str | None = None
    valid_until: str | None = None


class AiPriceOut(RatesOut, kw_only=True):
    id: str
    model: str
    valid_from: str
    valid_until: str | None
    created_at: str
    object: str = "ai_price"
    livemode: bool


class CreateAiAlias(In, kw_only=True):
    alias: ModelName
    model: ModelName


class AiAliasOut(Out, kw_only=True):
    id: str
    alias: str
    model: str
    created_at: str
    object: str = "ai_alias"
    livemode: bool


async def create(call: Call[CreateAiPrice]) -> Reply:
    override = await publish_ai_prices.set_price(
        call.conn, organization_id=call.organization.id, override=_read(call)
    )
    return Reply(_show(override, live=call.live), status=201)


async def list_all(call: Call[None]) -> Reply:
    limit, before = call.page(ids.AI_PRICE)
    found = await ai.page(
        call.conn,
        organization_id=call.organization.id,
        model=call.query.get("model"),
        before=before,
        limit=limit + 1,
    )
    return Reply(page_of([_show(each, live=call.live) for each in found], limit, lambda each: each.id))


async def delete(call: Call[None]) -> Reply:
    identity = call.identity(ids.AI_PRICE, "id", "price_not_found")
    await publish_ai_prices.drop_price(
        call.conn, organization_id=call.organization.id, override_id=identity, now=call.now
    )
    return Reply(Deleted(id=call.path["id"], object="ai_price", livemode=call.live))


async def create_alias(call: Call[CreateAiAlias]) -> Reply:
    alias = Alias(new_id(), call.body.alias, call.body.model, call.now)
    await publish_ai_prices.set_alias(call.conn, organization_id=call.organization.id, alias=alias)
    return Reply(_show_alias(alias, live=call.live), status=201)


async def list_aliases(call: Call[None]) -> Reply:
    found = await ai.aliases(call.conn, organization_id=call.organization.id)
    return Reply(whole([_show_alias(each, live=call.live) for each in found]))


async def delete_alias(call: Call[None]) -> Reply:
    identity = call.identity(ids.AI_ALIAS, "id", "not_found")
    await publish_ai_prices.drop_alias(call.conn, organization_id=call.organization.id, alias_id=identity)
    return Reply(Deleted(id=call.path["id"], object="ai_alias", livemode=call.live))


def _read(call: Call[CreateAiPrice]) -> Override:
    """The price that is asked for. Raises InvalidRequest with every guilty field."""
    body, errors = call.body, list[FieldError]()
    given = _rate("inputPerMillion", body.input_per_million, errors)
    sold = _rate("outputPerMillion", body.output_per_million, errors)
    read = written = None
    if body.cache_read_per_million is not None:
        read = _rate("cacheReadPerMillion", body.cache_read_per_million, errors)
    if body.cache_write_per_million is not None:
        written = _rate("cacheWritePerMillion", body.cache_write_per_million, errors)
    dates = {}
    for name, sent in (("validFrom", body.valid_from), ("validUntil", body.valid_until)):
        dates[name] = None if sent is None else parse_instant(sent)
        if sent is not None and dates[name] is None:
            errors.append(FieldError(name, "must be an ISO 8601 date and time"))
    start, end = dates["validFrom"] or call.now, dates["validUntil"]
    if end is not None and end <= start:
        errors.append(FieldError("validUntil", "must be after validFrom"))
    if errors:
        raise InvalidRequest(*errors)
    prices = TokenPrices(Rates(given, sold, read, written))
    return Override(new_id(), body.model, prices, start, end, call.now)


def _rate(name: str, given: Any, errors: list[FieldError]) -> Decimal:
    rate = decimal_of(given)
    if rate is None or rate > TOKEN_PRICE_MAX:
        errors.append(FieldError(name, f'must be a decimal of 0 to {TOKEN_PRICE_MAX}, such as "2.5"'))
        return Decimal(0)
    return rate


def _show(override: Override, *, live: bool) -> AiPriceOut:
    rates: dict[str, Any] = show_rates(override.prices.base)
    return AiPriceOut(
        **rates,
        id=ids.show(ids.AI_PRICE, override.id),
        model=override.model,
        valid_from=show_instant(override.valid_from),
        valid_until=None if override.valid_until is None else show_instant(override.valid_until),
        created_at=show_instant(override.created_at),
        livemode=live,
    )


def _show_alias(alias: Alias, *, live: bool) -> AiAliasOut:
    return AiAliasOut(
        id=ids.show(ids.AI_ALIAS, alias.id),
        alias=alias.name,
        model=alias.model,
        created_at=show_instant(alias.created_at),
        livemode=live,
    )


OPERATIONS = (
    Operation(
        name="ai.createPrice",
        method="POST",
        path="/ai/prices",
        summary="Let a model cost what you say, in place of the catalogue, from an instant on",
        resource="plan",
        body=CreateAiPrice,
        returns=AiPriceOut,
        handler=create,
        status=201,
    ),
    Operation(
        name="ai.listPrices",
        method="GET",
        path="/ai/prices",
        summary="Your own prices of AI models, the newest first",
        resource="plan",
        returns=Page[AiPriceOut],
        handler=list_all,
        query=("model", "limit", "cursor"),
    ),
    Operation(
        name="ai.deletePrice",
        method="DELETE",
        path="/ai/prices/{id}",
        summary="Take an own price back; what was priced by it keeps its price",
        resource="plan",
        returns=Deleted,
        handler=delete,
        errors=("price_not_found",),
    ),
    Operation(
        name="ai.createAlias",
        method="POST",
        path="/ai/aliases",
        summary="Let a name of your own mean a model",
        resource="plan",
        body=CreateAiAlias,
        returns=AiAliasOut,
        handler=create_alias,
        status=201,
        errors=("model_not_found", "duplicate"),
    ),
    Operation(
        name="ai.listAliases",
        method="GET",
        path="/ai/aliases",
        summary="Your own names of AI models",
        resource="plan",
        returns=Page[AiAliasOut],
        handler=list_aliases,
    ),
    Operation(
        name="ai.deleteAlias",
        method="DELETE",
        path="/ai/aliases/{id}",
        summary="Take a name back",
        resource="plan",
        returns=Deleted,
        handler=delete_alias,
        errors=("not_found",),
    ),
)
