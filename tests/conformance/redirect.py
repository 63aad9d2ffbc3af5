"""Point an unmodified commet-sdk at another host.

Its base URL is no argument: since 3.x a constant `_BASE_URL` that the HTTP modules copy by name,
before that a table `_BASE_URLS` keyed by environment. Call this before making a client.
"""

import importlib
import importlib.util
from typing import Any


def redirect(base_url: str) -> None:
    for name in ("commet._shared", "commet._http", "commet._async_http"):
        if importlib.util.find_spec(name) is None:
            continue
        module: Any = importlib.import_module(name)
        if hasattr(module, "_BASE_URL"):
            module._BASE_URL = base_url
        if hasattr(module, "_BASE_URLS"):
            module._BASE_URLS.update(dict.fromkeys(module._BASE_URLS, base_url))
