"""What a call of an AI model costs an organization: by its own price, or by what its alias means, or by the catalogue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tallystick.core import ids
from tallystick.core.limits import NEAREST_NAMES_SHOWN
from tallystick.core.near_names import NearNames
from tallystick.core.tokens import ModelPrice, Override, TokenCharge, TokenCounts, charge
from tallystick.errors import Problem
from tallystick.providers.ai_prices import AiPrices


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All that decides the price of an organization's AI calls, in one value. Names are in lower case."""

    catalogue: AiPrices
    overrides: Mapping[str, Sequence[Override]] = field(
        default_factory=dict
    )  # by model, the latest start first
    aliases: Mapping[str, str] = field(default_factory=dict)  # from a name to what it means

    def find(self, model: str, at: datetime) -> ModelPrice | None:
        """The price of a call at `at`: the organization's own, under that name or what an alias or the catalogue
        makes of it; else the catalogue's."""
        name = model.lower()
        if self.overrides or self.aliases:
            if (own := self._own(name, at)) is not None:
                return own
            name = self.aliases.get(name, name)
            if (own := self._own(name, at)) is not None:
                return own
        listed = self.catalogue.find(name)
        if listed is None:
            return None
        return self._own(listed.id.lower(), at) or listed.price_at(at)

    def nearest(self, model: str) -> list[str]:
        """Names that would have found a price, and look like this one."""
        theirs = self.catalogue.nearest(model, NEAREST_NAMES_SHOWN)
        names = NearNames([*self.overrides, *self.aliases, *theirs])
        ours = names.nearest(model, NEAREST_NAMES_SHOWN)
        return (ours + [each for each in theirs if each not in ours])[:NEAREST_NAMES_SHOWN]

    def _own(self, name: str, at: datetime) -> ModelPrice | None:
        for each in self.overrides.get(name, ()):
            if at in each:
                return ModelPrice(each.model, each.prices, ids.show(ids.AI_PRICE, each.id), each.valid_from)
        return None


def price(book: PriceBook, model: str, counts: TokenCounts, margin_bps: int, at: datetime) -> TokenCharge:
    """What a call of `model` at `at` costs. Raises model_not_found, with the nearest names, when nobody has a price."""
    found = book.find(model, at)
    if found is None:
        near = book.nearest(model)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise Problem(
            "model_not_found",
            f"There is no price for a model {model!r}.{hint}",
            param="model",
            details={"model": model, "nearest": near},
        )
    return charge(model, counts, found, margin_bps)
