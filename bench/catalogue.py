"""What must exist before events can be counted: plans without a hard limit, and their subscribers."""

import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from threading import local
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from bench.events import FEATURE, SPREAD, VERSION, Crowd, Target
from tallystick.core.limits import CREDITS_MAX

THREADS: Final = 4
CARD: Final = "cardNumber=4242424242424242&expiry=12%2F34&cvc=123"


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan with the one feature, and who holds it."""

    plan: str
    model: str
    crowd: Crowd
    promised: dict[str, object]
    grants: dict[str, int] = field(default_factory=dict)


_PRICED: Final[dict[str, object]] = {"enabled": True, "unitPrice": 100}
METERED: Final = Offer("bench", "metered", SPREAD, {"includedAmount": 0, "overage": _PRICED})
BALANCE: Final = Offer(
    "balance", "balance", Crowd("balance"), {"overage": _PRICED}, {"includedBalance": CREDITS_MAX}
)
CREDITS: Final = Offer(
    "credits", "credits", Crowd("hot", 1), {"creditsPerUnit": 1}, {"includedCredits": CREDITS_MAX}
)


class Refused(Exception):
    """The server did not accept a step of the preparation."""


class Api:
    """Plain calls over a connection per thread; 409 is an answer, since a prepared server may be given."""

    def __init__(self, target: Target) -> None:
        self._target, self._mine = target, local()

    def _connection(self) -> HTTPConnection:
        held = getattr(self._mine, "connection", None)
        if held is None:
            kind = HTTPSConnection if self._target.address.scheme == "https" else HTTPConnection
            held = self._mine.connection = kind(self._target.address.netloc, timeout=60)
        assert isinstance(held, HTTPConnection)
        return held

    def _send(self, path: str, body: str, content_type: str) -> tuple[int, bytes]:
        headers = {"x-api-key": self._target.api_key, "commet-version": VERSION}
        connection = self._connection()
        connection.request("POST", path, body.encode(), headers | {"content-type": content_type})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def post(self, path: str, body: object) -> dict[str, Any] | None:
        """The answer, or None when it exists already."""
        full = f"{self._target.address.path.rstrip('/')}/api/v1{path}"
        status, content = self._send(full, json.dumps(body), "application/json")
        if status == 409:
            return None
        if not 200 <= status < 300:
            raise Refused(f"POST {path} answered {status}: {content[:500].decode(errors='replace')}")
        answer: dict[str, Any] = json.loads(content)
        return answer

    def pay(self, checkout_url: str) -> None:
        """The sandbox card form; its address is the secret, its host is what we talk to anyway."""
        url = urlsplit(checkout_url)
        path = url.path + (f"?{url.query}" if url.query else "")
        status, content = self._send(path, CARD, "application/x-www-form-urlencoded")
        if status != 303:
            raise Refused(f"the checkout answered {status}: {content[:500].decode(errors='replace')}")


def prepare(target: Target, *offers: Offer) -> None:
    """Everything the benchmark needs, through the public API; what is there already is left alone."""
    api = Api(target)
    feature = api.post("/features", {"name": "API calls", "code": FEATURE, "type": "usage"})
    for offer in offers:
        _publish(api, offer, feature)
    for offer in offers:
        names = offer.crowd.names
        for start in range(0, len(names), 100):
            batch = [{"email": f"{name}@example.com", "id": name} for name in names[start : start + 100]]
            _only_duplicates(api.post("/customers/batch", {"customers": batch}))
        _for_each(names, partial(_subscribe, api, offer.plan))


def _publish(api: Api, offer: Offer, feature: dict[str, Any] | None) -> None:
    named = {"name": "Bench", "code": offer.plan, "consumptionModel": offer.model, "isFree": False}
    plan = api.post("/plans", named)
    if (feature is None) != (plan is None):
        raise Refused(
            f"only one of the feature {FEATURE} and the plan {offer.plan} exists: not prepared by this command"
        )
    if feature is not None and plan is not None:
        monthly = {"billingInterval": "monthly", "price": 0, "isDefault": True}
        api.post(f"/plans/{plan['id']}/prices", monthly | offer.grants)
        api.post(f"/plans/{plan['id']}/features", {"featureId": feature["id"]} | offer.promised)


def _only_duplicates(answer: dict[str, Any] | None) -> None:
    others = [one for one in answer["failed"] if "duplicate" not in one["error"]] if answer else []
    if others:
        raise Refused(f"a customer was refused: {others[0]}")


def _subscribe(api: Api, plan: str, name: str) -> None:
    subscription = api.post("/subscriptions", {"customerId": name, "planCode": plan})
    if subscription is not None and subscription["checkoutUrl"]:
        api.pay(subscription["checkoutUrl"])


def _for_each(names: Sequence[str], step: Callable[[str], None]) -> None:
    console = Console(stderr=True)
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in track(
            pool.map(step, names),
            description="subscribing customers",
            total=len(names),
            console=console,
            transient=True,
            disable=not sys.stderr.isatty(),
        ):
            pass
