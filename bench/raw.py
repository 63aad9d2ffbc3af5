"""The raw handler: what uvicorn and msgspec can do when nothing is stored. Run as `uvicorn bench.raw:app`."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from bench.events import BATCH_PATH, BULK_PATH


class Event(msgspec.Struct, rename="camel"):
    customer_id: str
    feature_code: str
    event_id: str
    value: float = 1


class Batch(msgspec.Struct):
    events: list[Event]


class Answer(msgspec.Struct):
    successful: list[Event]
    failed: list[Event] = []


type_of_scope = MutableMapping[str, Any]
_one, _many = msgspec.json.Decoder(Event).decode, msgspec.json.Decoder(Batch).decode
_encode = msgspec.json.Encoder().encode


async def app(
    scope: type_of_scope,
    receive: Callable[[], Awaitable[type_of_scope]],
    send: Callable[[type_of_scope], Awaitable[None]],
) -> None:
    """Read the body, decode it, echo what was understood in the shape of the real answer."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    if scope["method"] != "POST":
        answer = b"{}"
    elif scope["path"] in (BATCH_PATH, BULK_PATH):
        answer = _encode(Answer(_many(body).events))
    else:
        answer = _encode(_one(body))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
