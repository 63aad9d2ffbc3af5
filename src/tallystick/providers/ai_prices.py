"""What providers of AI models ask for a token: a catalogue behind a Protocol, and the one that `genai-prices` is.

Its data comes with the package, so a price changes with an upgrade that somebody made, never by itself; nothing
here asks the network. Only the default tier's prices for text tokens are read (ruling 28).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from tallystick.core.limits import FRACTION_DIGITS_MAX, MODEL_CHARS_MAX, MODEL_NAMES_KEPT_MAX
from tallystick.core.money import ZERO, plain
from tallystick.core.near_names import NearNames
from tallystick.core.tokens import ModelPrice, Rates, Step, TokenPrices

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

_PLACES: Final = Decimal(1).scaleb(-FRACTION_DIGITS_MAX)


class Dated(NamedTuple):
    """Prices and when they are asked: from an instant on, or at hours of the day (UTC), or always."""

    prices: TokenPrices | None  # None: not by the token
    valid_from: datetime | None = None
    hours: tuple[time, time] | None = None  # start included, end excluded; past midnight where end < start

    def rules(self, at: datetime) -> bool:
        if self.valid_from is not None:
            return at >= self.valid_from
        if self.hours is None:
            return True
        start, end = self.hours
        hour = at.astimezone(UTC).time()
        return start <= hour < end if start <= end else hour >= start or hour < end


@dataclass(frozen=True, slots=True)
class AiModel:
    """A model as the catalogue knows it. Of its prices the last that rules at an instant is asked then."""

    id: str  # provider/name
    provider: str
    name: str
    title: str
    source: str
    dated: tuple[Dated, ...]
    deprecated: bool = False

    def price_at(self, at: datetime) -> ModelPrice | None:
        """None: it is not priced by the token then."""
        ruling = self.dated[0]
        for each in reversed(self.dated):
            if each.rules(at):
                ruling = each
                break
        if ruling.prices is None:
            return None
        return ModelPrice(self.id, ruling.prices, self.source, ruling.valid_from)

    @property
    def priced(self) -> bool:
        """Whether it ever had a price by the token."""
        return any(each.prices is not None for each in self.dated)


class AiPrices(Protocol):
    """A catalogue of models. Names are compared without regard to case."""

    def find(self, name: str) -> AiModel | None:
        """The model that a bare name or `provider/name` means; None when it is unknown or means several."""
        ...

    def exactly(self, identity: str) -> AiModel | None:
        """The model of that very id."""
        ...

    def nearest(self, name: str, count: int) -> list[str]:
        """Names that mean a model and look like `name`."""
        ...

    def search(self, words: str, *, provider: str | None = None) -> Sequence[AiModel]:
        """The models that have every word in their id or title, by id."""
        ...


class GenaiPrices:
    """The catalogue of `genai-prices`, as the installed version has it."""

    def __init__(self, providers: "Sequence[Provider]", source: str) -> None:
        self.source = source
        self._providers = list(providers)
        self._by_provider = {each.id: each for each in providers}
        self._by_id: dict[str, AiModel] = {}
        self._by_name: defaultdict[str, list[AiModel]] = defaultdict(list)
        for provider in providers:
            for info in provider.models:
                model = _model(provider, info, source)
                self._by_id[model.id.lower()] = model
                self._by_name[info.id.lower()].append(model)
        self._all = sorted(self._by_id.values(), key=lambda each: each.id)
        self._found: dict[str, AiModel | None] = {}
        self._near_ids = NearNames(each.id for each in self._all if each.priced)
        self._near_names = NearNames(each.name for each in self._all if self.find(each.name) is not None)

    def find(self, name: str) -> AiModel | None:
        try:
            return self._found[name]
        except KeyError:
            found = self._look_up(name.lower()) if len(name) <= MODEL_CHARS_MAX else None
        if len(self._found) >= MODEL_NAMES_KEPT_MAX:
            self._found.clear()
        self._found[name] = found
        return found

    def exactly(self, identity: str) -> AiModel | None:
        return self._by_id.get(identity.lower())

    def nearest(self, name: str, count: int) -> list[str]:
        sellers = [each.id for each in self._sellers(name.lower())]
        if len(sellers) > 1:
            return sellers[:count]  # it means each of these
        return (self._near_ids if "/" in name else self._near_names).nearest(name, count)

    def search(self, words: str, *, provider: str | None = None) -> Sequence[AiModel]:
        wanted = words.lower().split()
        return [
            each
            for each in self._all
            if provider in (None, each.provider)
            and all(word in each.id.lower() or word in each.title.lower() for word in wanted)
        ]

    def _look_up(self, name: str) -> AiModel | None:
        """The provider that is named; else the one that makes what is called so; else the only one that sells it.

        A provider knows a model by its id, and then by the library's own rules: `gpt-4o-2024-08-06` is `gpt-4o`.
        """
        from genai_prices.data_snapshot import find_provider_by_id

        head, slash, rest = name.partition("/")
        provider = find_provider_by_id(self._providers, head) if slash and head else None
        if provider is not None and (found := self._of(provider, rest)) is not None:
            return found if found.priced else None
        maker = next(
            (each for each in self._providers if each.model_match and each.model_match.is_match(name)), None
        )
        if maker is not None and (found := self._of(maker, name)) is not None and found.priced:
            return found
        sellers = self._sellers(name)
        alike = {each.dated for each in sellers}
        return sellers[0] if len(alike) == 1 else None

    def _sellers(self, name: str) -> list[AiModel]:
        return [each for each in self._by_name.get(name, ()) if each.priced]

    def _of(self, provider: "Provider", name: str) -> AiModel | None:
        if (found := self._by_id.get(f"{provider.id}/{name}")) is not None:
            return found
        for seller in (provider.id, *(provider.fallback_model_providers or ())):
            if seller in self._by_provider:
                info = self._by_provider[seller].find_model(name)
                if info is not None:
                    return self._by_id[f"{seller}/{info.id}".lower()]
        return None


@cache
def bundled() -> GenaiPrices:
    """The catalogue that was installed with us; reading it takes a moment, once per process."""
    from genai_prices.data import providers

    return GenaiPrices(providers, f"genai-prices {version('genai-prices')}")


def _model(provider: "Provider", info: "ModelInfo", source: str) -> AiModel:
    return AiModel(
        id=f"{provider.id}/{info.id}",
        provider=provider.id,
        name=info.id,
        title=info.name or info.id,
        source=source,
        dated=_dated(info),
        deprecated=bool(info.deprecated),
    )


def _dated(info: "ModelInfo") -> tuple[Dated, ...]:
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    if not isinstance(info.prices, list):
        return (Dated(_prices(info.prices)),)
    found = []
    for each in info.prices:
        match each.constraint:
            case None:
                found.append(Dated(_prices(each.prices)))
            case StartDateConstraint(start_date=day):
                start = datetime.combine(day, time(), UTC)
                found.append(Dated(_prices(each.prices), valid_from=start))
            case TimeOfDateConstraint(start_time=start_time, end_time=end_time):
                found.append(Dated(_prices(each.prices), hours=(_utc(start_time), _utc(end_time))))
    return tuple(found) or (Dated(None),)


def _utc(hour: time) -> time:
    return datetime.combine(date(2000, 1, 1), hour, hour.tzinfo or UTC).astimezone(UTC).time()


def _prices(given: Any) -> TokenPrices | None:
    """The library's tier rule: the highest threshold that the input tokens exceed prices all of the call."""
    if given.input_mtok is None:
        return None
    asked = (given.input_mtok, given.output_mtok, given.cache_read_mtok, given.cache_write_mtok)
    starts = sorted({tier.start for each in asked for tier in getattr(each, "tiers", ())})
    return TokenPrices(_rates(asked, None), tuple(Step(start, _rates(asked, start)) for start in starts))


def _rates(asked: Sequence[Any], above: int | None) -> Rates:
    given, sold, read, written = (_price(each, above) for each in asked)
    return Rates(given or ZERO, sold or ZERO, read, written)


def _price(asked: Any, above: int | None) -> Decimal | None:
    """To as many digits as our own prices have: beyond them the library carries what a binary fraction left."""
    if asked is None:
        return None
    price = getattr(asked, "base", asked)
    for tier in getattr(asked, "tiers", ()):
        if above is not None and tier.start <= above:
            price = tier.price
    return plain(price.quantize(_PLACES))
