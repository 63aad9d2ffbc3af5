"""Settings: the environment and `.env`, read once into one frozen value. Nobody else reads os.environ."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from tallystick.core import limits

DEFAULT_DATA_DIR = Path("data")


@dataclass(frozen=True, slots=True)
class Settings:
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    data_dir: Path = DEFAULT_DATA_DIR
    database_url: str | None = None  # None: the embedded PostgreSQL in data_dir
    public_url: str | None = None  # how customers reach us; None: as the request was addressed
    log_level: str = "info"
    rate_limit: int = 0  # requests a second per API key; 0: as many as come
    rate_burst: int = 0  # of those, so many at once
    own_cores: bool | None = None  # None: `serve` decides, and tells its processes
    key_generation_mb: int = limits.KEY_GENERATION_MB  # a generation of keys is frozen when it is larger
    sweep_every_s: float = 5.0

    @property
    def base_url(self) -> str:
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")


class BadSetting(ValueError):
    """A TALLYSTICK_* value that cannot be used; the message names it."""


def load(environment: Mapping[str, str] | None = None, *, dotenv: Path = Path(".env")) -> Settings:
    """TALLYSTICK_* from the environment, then from `.env`, then the defaults."""
    known: dict[str, str] = {}
    if dotenv.is_file():
        known.update({name: value for name, value in dotenv_values(dotenv).items() if value is not None})
    known.update(os.environ if environment is None else environment)
    get = known.get
    rate = _whole(known, "TALLYSTICK_RATE_LIMIT", 0, most=limits.RATE_LIMIT_MAX)
    return Settings(
        host=get("TALLYSTICK_HOST") or "127.0.0.1",
        port=_whole(known, "TALLYSTICK_PORT", 8000, most=65_535),
        workers=workers(get("TALLYSTICK_WORKERS") or "auto"),
        data_dir=Path(get("TALLYSTICK_DATA_DIR") or DEFAULT_DATA_DIR),
        database_url=get("TALLYSTICK_DATABASE_URL") or None,
        public_url=get("TALLYSTICK_PUBLIC_URL") or None,
        log_level=(get("TALLYSTICK_LOG_LEVEL") or "info").lower(),
        rate_limit=rate,
        rate_burst=_whole(
            known, "TALLYSTICK_RATE_BURST", 2 * rate, least=min(rate, 1), most=limits.RATE_BURST_MAX
        ),
        own_cores=_own_cores(get("TALLYSTICK_OWN_CORES") or "auto"),
        key_generation_mb=_whole(
            known, "TALLYSTICK_KEY_GENERATION_MB", limits.KEY_GENERATION_MB, least=1, most=1_000_000
        ),
    )


def workers(text: str) -> int:
    """A number of processes; `auto` is one per core, at most four."""
    if text == "auto":
        return max(1, min(4, os.cpu_count() or 1))
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise BadSetting(f"workers must be auto or 1 to 64, not {text!r}")
    return int(text)


def _own_cores(text: str) -> bool | None:
    known = {"auto": None, "yes": True, "no": False}  # "yes" is what `serve` tells its processes
    if text not in known:
        raise BadSetting(f"TALLYSTICK_OWN_CORES must be auto or no, not {text!r}")
    return known[text]


def _whole(known: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int) -> int:
    text = known.get(name) or str(default)
    short = text.isascii() and text.isdecimal() and len(text) < 10
    if not short or not least <= int(text) <= most:
        raise BadSetting(f"{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)
