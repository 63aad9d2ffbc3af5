"""The one JSON shape of a price, read strictly and written plainly (decimals as strings, major units)."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, assert_never

from tallystick.core.limits import BASIS_POINTS_MAX, TIERS_MAX
from tallystick.core.meters import number
from tallystick.core.money import ZERO, fits, text
from tallystick.core.pricing import Flat, Graduated, Package, Percentage, PerUnit, Price, Tier, Volume
from tallystick.errors import FieldError, InvalidRequest, must

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "per_unit": ("unitAmount",),
    "flat": ("amount",),
    "graduated": ("tiers", "chargeFlatAtZero"),
    "volume": ("tiers", "chargeFlatAtZero"),
    "package": ("packageSize", "packageAmount", "freeUnits"),
    "percentage": ("basisPoints", "fixedAmount", "minAmount", "maxAmount", "freeEvents", "freeAmount"),
}


def to_json(price: Price) -> dict[str, object]:
    match price:
        case PerUnit():
            return {"model": "per_unit", "unitAmount": text(price.unit_amount)}
        case Flat():
            return {"model": "flat", "amount": text(price.amount)}
        case Graduated() | Volume():
            return {
                "model": "graduated" if isinstance(price, Graduated) else "volume",
                "tiers": [_show_tier(tier) for tier in price.tiers],
                "chargeFlatAtZero": price.charge_flat_at_zero,
            }
        case Package():
            return {
                "model": "package",
                "packageSize": text(price.size),
                "packageAmount": text(price.amount),
                "freeUnits": text(price.free_units),
            }
        case Percentage():
            return {
                "model": "percentage",
                "basisPoints": text(price.basis_points),
                "fixedAmount": text(price.fixed_amount),
                "minAmount": None if price.min_amount is None else text(price.min_amount),
                "maxAmount": None if price.max_amount is None else text(price.max_amount),
                "freeEvents": price.free_events,
                "freeAmount": text(price.free_amount),
            }
    assert_never(price)


def model_of(price: Price) -> str:
    return str(to_json(price)["model"])


def _show_tier(tier: Tier) -> dict[str, str | None]:
    return {
        "upTo": None if tier.up_to is None else text(tier.up_to),
        "unitAmount": text(tier.unit_amount),
        "flatAmount": text(tier.flat_amount),
    }


def from_json(stored: object) -> Price:
    """A price that was stored by us. Raises Broken when it is not one."""
    try:
        return parse(stored)
    except InvalidRequest as wrong:
        must(False, f"a stored price can be read: {wrong}", price=stored)
        raise


def parse(raw: object, where: str = "price") -> Price:
    """A price as somebody asked for it. Raises InvalidRequest with every guilty field, unknown ones included."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest(FieldError(where, "must be an object with a `model`"))
    model = raw.get("model")
    if not isinstance(model, str) or model not in _FIELDS:
        raise InvalidRequest(FieldError(f"{where}.model", f"must be one of {', '.join(_FIELDS)}"))
    read = _Reader(raw, where)
    read.only("model", *_FIELDS[model])
    price = _read(model, read)
    if read.errors or price is None:
        raise InvalidRequest(*read.errors)
    return price


def _read(model: str, read: "_Reader") -> Price | None:
    match model:
        case "per_unit":
            return PerUnit(read.amount("unitAmount"))
        case "flat":
            return Flat(read.amount("amount"))
        case "graduated" | "volume":
            tiers, at_zero = read.tiers(), read.flag("chargeFlatAtZero")
            return Graduated(tiers, at_zero) if model == "graduated" else Volume(tiers, at_zero)
        case "package":
            size = read.amount("packageSize")
            if not size and not read.blames("packageSize"):
                read.wrong("packageSize", "must be more than 0")
            return Package(size, read.amount("packageAmount"), read.amount("freeUnits", ZERO))
        case "percentage":
            points = read.amount("basisPoints")
            if points > BASIS_POINTS_MAX:
                read.wrong("basisPoints", f"must be at most {BASIS_POINTS_MAX} (100 %)")
            lowest, highest = read.bound("minAmount"), read.bound("maxAmount")
            known = not read.blames("minAmount") and not read.blames("maxAmount")
            if known and lowest is not None and highest is not None and lowest > highest:
                read.wrong("minAmount", "is more than maxAmount")
            return Percentage(
                points,
                read.amount("fixedAmount", ZERO),
                lowest,
                highest,
                read.count("freeEvents"),
                read.amount("freeAmount", ZERO),
            )
    return None


def decimal_of(given: object) -> Decimal | None:
    """A decimal, from text or from a JSON number; None when it is neither, negative, or beyond our bounds."""
    if isinstance(given, str):
        value = number(given) if given == given.strip() else None
    elif isinstance(given, int | Decimal) and not isinstance(given, bool):
        value = Decimal(given) if fits(Decimal(given)) else None
    else:
        value = None
    return value if value is not None and value >= 0 else None


class _Reader:
    """Takes fields out of an object and remembers what was wrong with them."""

    def __init__(self, raw: Mapping[str, object], where: str) -> None:
        self._raw = raw
        self._where = where
        self.errors: list[FieldError] = []

    def wrong(self, name: str, reason: str) -> None:
        self.errors.append(FieldError(f"{self._where}.{name}", reason))

    def blames(self, name: str) -> bool:
        return any(error.field == f"{self._where}.{name}" for error in self.errors)

    def only(self, *names: str) -> None:
        for name in self._raw:
            if name not in names:
                self.wrong(str(name), f"is not a field of this price; it has {', '.join(names)}")

    def amount(self, name: str, default: Decimal | None = None) -> Decimal:
        given = self._raw.get(name)
        if given is None and default is not None:
            return default
        value = decimal_of(given)
        if value is None:
            self.wrong(
                name, "is required" if given is None else 'must be a decimal of 0 or more, such as "0.0007"'
            )
        return value or ZERO

    def bound(self, name: str) -> Decimal | None:
        return None if self._raw.get(name) is None else self.amount(name)

    def count(self, name: str) -> int:
        value = self.amount(name, ZERO)
        if value != value.to_integral_value():
            self.wrong(name, "must be a whole number")
        return int(value)

    def flag(self, name: str) -> bool:
        given = self._raw.get(name, False)
        if not isinstance(given, bool):
            self.wrong(name, "must be true or false")
        return given is True

    def tiers(self) -> tuple[Tier, ...]:
        given = self._raw.get("tiers")
        if not isinstance(given, Sequence) or isinstance(given, str) or not 1 <= len(given) <= TIERS_MAX:
            self.wrong("tiers", f"must be a list of 1 to {TIERS_MAX} tiers")
            return ()
        tiers = tuple(self._tier(index, each) for index, each in enumerate(given))
        lower = ZERO
        for index, tier in enumerate(tiers):
            last = index == len(tiers) - 1
            if self.blames(f"tiers[{index}]") or self.blames(f"tiers[{index}].upTo"):
                continue
            if tier.up_to is None and not last:
                self.wrong(f"tiers[{index}].upTo", "only the last tier is open")
            elif tier.up_to is not None and last:
                self.wrong(f"tiers[{index}].upTo", "the last tier must be open: null")
            elif tier.up_to is not None and tier.up_to <= lower:
                self.wrong(f"tiers[{index}].upTo", f"must be more than {text(lower)}, where the tier begins")
            lower = tier.up_to or lower
        return tiers

    def _tier(self, index: int, raw: object) -> Tier:
        where = f"tiers[{index}]"
        if not isinstance(raw, Mapping):
            self.wrong(where, "must be an object with upTo, unitAmount and flatAmount")
            return Tier(None)
        inner = _Reader(raw, f"{self._where}.{where}")
        inner.only("upTo", "unitAmount", "flatAmount")
        if "upTo" not in raw:
            inner.wrong("upTo", "is required; null for the last tier")
        if raw.get("unitAmount") is None and raw.get("flatAmount") is None:
            inner.wrong("unitAmount", "a tier has a unitAmount, a flatAmount or both")
        tier = Tier(inner.bound("upTo"), inner.amount("unitAmount", ZERO), inner.amount("flatAmount", ZERO))
        self.errors += inner.errors
        return tier
