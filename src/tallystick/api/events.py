"""Usage events as answers show them, for the hot routes and the ordinary ones alike."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from tallystick.api import wire
from tallystick.api.wire import MISSING, Maybe, Out
from tallystick.core import ids
from tallystick.core.events import StoredEvent
from tallystick.core.money import plain, text
from tallystick.core.rows import Table, alike
from tallystick.core.times import show_instant
from tallystick.core.tokens import TokenCharge
from tallystick.core.wallets import Draw
from tallystick.flows.drafts import Accepted


class Property(Out, kw_only=True):
    property: str
    value: str


class Consumption(Out, kw_only=True):
    """What a prepaid event took, in credits or in rate units of the balance; integers toward zero, and exact."""

    model: str
    deducted: int
    deducted_decimal: str
    remaining: int
    remaining_decimal: str
    blocked: bool


class AiCost(Out, kw_only=True):
    """What an AI call cost by one feature: whole rate units (10000 = 1.00), each rounded up, and exact major units."""

    feature_code: str
    model: str
    priced_as: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    rates: dict[str, str | None]  # major units per million tokens
    margin_bps: int
    input_cost: int
    output_cost: int
    cache_read_cost: int
    cache_write_cost: int
    subtotal: int
    margin: int
    total: int
    exact: dict[str, str]
    price_source: str
    price_valid_from: str | None


class UsageEventOut(Out, kw_only=True):
    id: str
    feature_code: str
    value: Decimal
    value_decimal: str
    customer_id: str
    event_id: str | None
    ts: str
    created_at: str
    properties: list[Property]
    consumption: Consumption | Maybe = MISSING
    ai_costs: list[AiCost] | Maybe = MISSING
    kind: str = "event"
    reason: str | None | Maybe = MISSING
    voids: str | Maybe = MISSING  # the event this one takes back
    voided: bool | Maybe = MISSING
    object: str = "usage_event"
    livemode: bool


def show_cost(feature_code: str, charge: TokenCharge) -> AiCost:
    cost = charge.cost
    return AiCost(
        feature_code=feature_code,
        model=charge.model,
        priced_as=charge.priced_as,
        input_tokens=charge.counts.input,
        output_tokens=charge.counts.output,
        cache_read_tokens=charge.counts.cache_read,
        cache_write_tokens=charge.counts.cache_write,
        rates={name: None if rate is None else text(rate) for name, rate in charge.rates._asdict().items()},
        margin_bps=charge.margin_bps,
        input_cost=cost.input,
        output_cost=cost.output,
        cache_read_cost=cost.cache_read,
        cache_write_cost=cost.cache_write,
        subtotal=cost.subtotal,
        margin=cost.margin,
        total=cost.total,
        exact={
            **{name: text(each) for name, each in cost.exact._asdict().items()},
            "total": text(cost.exact.total),
        },
        price_source=charge.source,
        price_valid_from=None if charge.valid_from is None else show_instant(charge.valid_from),
    )


def show_consumption(draw: Draw | None) -> Consumption | Maybe:
    if draw is None:
        return MISSING
    return Consumption(
        model=draw.model.value,
        deducted=int(draw.deducted),
        deducted_decimal=text(draw.deducted),
        remaining=int(draw.remaining),
        remaining_decimal=text(draw.remaining),
        blocked=draw.blocked,
    )


def _properties(properties: Mapping[str, str]) -> list[Property]:
    """In one order, whatever the caller's was: a replay is rendered from the database, which keeps its own."""
    return [Property(property=name, value=value) for name, value in sorted(properties.items())]


def show(event: StoredEvent, reference: str, *, live: bool) -> UsageEventOut:
    return _show(ids.show(ids.EVENT, event.id), event, reference, live)


def show_all(taken: Sequence[Accepted], *, live: bool) -> list[UsageEventOut]:
    """`show` of each."""
    taken = [*taken]
    names = ids.show_all(ids.EVENT, [each.event.id for each in taken])
    return [_show(name, each.event, each.reference, live) for name, each in zip(names, taken, strict=True)]


def encode_all(taken: Sequence[Accepted], *, live: bool) -> msgspec.Raw | None:
    """`show_all` in JSON, written by a template of all that these have in common; None where they differ in more than their id,
    customer and key, or where those are more than plain text.

    The usual batch is like that, and an object of each of its events would be made only to be written down.
    """
    if not taken:
        return None
    found, references, _ = Table.of(Accepted, taken).columns
    stored = Table.of(StoredEvent, found)
    ids_of, _, features, values, occurred, received, keys, _, properties, adjusts, _, voids, voided, draws = (
        stored.columns
    )
    if any(map(any, (properties, adjusts, voids, voided, draws))):
        return None
    if not alike(features, values, occurred, received):
        return None
    if None in keys or not _is_plain("".join((*keys, *references))):
        return None
    sample = _show("<id>", stored[0]._replace(key="<key>"), "<customer>", live)
    before, _, rest = wire.encode(sample).decode().partition("<id>")
    common, _, rest = rest.partition("<customer>")
    between, _, after = rest.partition("<key>")
    shown = [
        f"{before}{name}{common}{reference}{between}{key}{after}"
        for name, reference, key in zip(ids.show_all(ids.EVENT, ids_of), references, keys, strict=True)
    ]
    return msgspec.Raw(f"[{','.join(shown)}]".encode())


def _is_plain(text: str) -> bool:
    """Whether it stands in JSON as it is."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _show(name: str, event: StoredEvent, reference: str, live: bool) -> UsageEventOut:
    shown = UsageEventOut(
        id=name,
        feature_code=event.feature,
        value=plain(event.value),
        value_decimal=text(event.value),
        customer_id=reference,
        event_id=event.key,
        ts=show_instant(event.occurred_at),
        created_at=show_instant(event.received_at),
        properties=_properties(event.properties) if event.properties else [],
        livemode=live,
    )
    if event.draw is not None:
        shown.consumption = show_consumption(event.draw)
    if event.voids is not None:
        shown.kind, shown.reason, shown.voids = "void", event.reason, ids.show(ids.EVENT, event.voids)
    elif event.adjusts is not None:
        shown.kind, shown.reason = "adjustment", event.reason
    if event.voided is not None:
        shown.voided = True
    return shown
