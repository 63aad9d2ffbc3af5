"""What a call of an AI model costs an organization: by its own price, or by what its alias means, or by the catalogue."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from tallystick.core import ids
from tallystick.core.limits import NEAREST_NAMES_SHOWN
from tallystick.core.near_names import NearNames
from tallystick.core.tokens import ModelPrice, Override, TokenCharge, TokenCounts, charge
from tallystick.errors import Problem
from tallystick.providers.ai_prices import AiModel, AiPrices, bundled
from tallystick.store import ai
from tallystick.store.db import Conn


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All that decides the price of an organization's AI calls, in one value. Names are in lower case."""

    catalogue: Callable[[], AiPrices] = bundled
    overrides: Mapping[str, Sequence[Override]] = field(default_factory=dict)
    """By model, the latest start first."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """From a name to the model it means."""

    def find(self, model: str, at: datetime) -> ModelPrice | None:
        """The price of a call at `at`: the organization's own under any name of the model; else that of what its
        alias means; else the catalogue's."""
        name = model.lower()
        listed = self.catalogue().find(name)
        own = self._own(name, listed, at)
        if own is None and name in self.aliases:
            name = self.aliases[name]
            listed = self.catalogue().find(name)
            own = self._own(name, listed, at)
        return listed.price_at(at) if own is None and listed is not None else own

    def price_of(self, listed: AiModel, at: datetime) -> ModelPrice | None:
        """What the organization pays for a model of the catalogue."""
        return self._own(listed.id.lower(), None, at) or listed.price_at(at)

    def nearest(self, model: str) -> list[str]:
        """Names that would have found a price, and look like this one."""
        theirs = self.catalogue().nearest(model, NEAREST_NAMES_SHOWN)
        names = NearNames([*self.overrides, *self.aliases, *theirs])
        ours = names.nearest(model, NEAREST_NAMES_SHOWN)
        return (ours + [each for each in theirs if each not in ours])[:NEAREST_NAMES_SHOWN]

    def _own(self, name: str, listed: AiModel | None, at: datetime) -> ModelPrice | None:
        if not self.overrides:
            return None
        for key in (name,) if listed is None else (name, listed.id.lower()):
            for each in self.overrides.get(key, ()):
                if at in each:
                    source = ids.show(ids.AI_PRICE, each.id)
                    return ModelPrice(each.model, each.prices, source, each.valid_from)
        return None


async def load_prices(conn: Conn, organization_id: UUID) -> PriceBook:
    """What the organization says of prices now; `flows.books` keeps it as long as the version stands."""
    overrides: defaultdict[str, list[Override]] = defaultdict(list)
    for each in await ai.overrides(conn, organization_id=organization_id):
        overrides[each.model.lower()].append(each)
    aliases = await ai.aliases(conn, organization_id=organization_id)
    return PriceBook(
        overrides={model: tuple(each) for model, each in overrides.items()},
        aliases={each.name.lower(): each.model.lower() for each in aliases},
    )


def price(book: PriceBook, model: str, counts: TokenCounts, margin_bps: int, at: datetime) -> TokenCharge:
    """What a call of `model` at `at` costs. Raises model_not_found, with the nearest names, when nobody has a price."""
    found = book.find(model, at)
    if found is None:
        raise unknown(book, model)
    return charge(model, counts, found, margin_bps)


def unknown(book: PriceBook, model: str, *, param: str = "model") -> Problem:
    """The refusal of a name that nobody has a price for."""
    near = book.nearest(model)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return Problem(
        "model_not_found",
        f"There is no price for a model {model!r}.{hint}",
        param=param,
        details={"model": model, "nearest": near},
    )
