"""Bodies of requests: read whole where they are small, piece by piece where they may go on for long."""

import zlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Receive

from tallystick.core import limits
from tallystick.errors import FieldError, InvalidRequest, Problem

_DRAINED_BYTES_MAX: Final = 32 * 1024 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS  # how zlib is told that a gzip header comes first


class ClientGone(Exception):
    """The caller hung up before its request was complete; nobody is left to answer."""


async def read_body(receive: Receive, most: int = limits.BODY_BYTES_MAX) -> bytes:
    """The body, or 413. What is too large is read and dropped, so that the connection stays usable."""
    message = await receive()
    if not message.get("more_body", False) and message["type"] == "http.request":
        body: bytes = message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        return body
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= most:
            chunks.append(chunk)
        elif size > _DRAINED_BYTES_MAX:
            break
        if not message.get("more_body", False):
            break
        message = await receive()
    if size > most:
        raise _too_large(most)
    return b"".join(chunks)


def _too_large(most: int) -> Problem:
    return Problem("payload_too_large", f"The body is larger than {most} bytes.")


async def pieces(receive: Receive) -> AsyncIterator[bytes]:
    """The body as it arrives; the next piece is asked for when the last one is done with."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def inflated(compressed: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What a gzip of any number of members holds, in pieces that are bounded however well it is compressed."""
    member = None
    async for piece in compressed:
        full = False
        while piece or full:
            member = member or zlib.decompressobj(_GZIP)
            try:
                found = member.decompress(piece, limits.INFLATED_BYTES_AT_ONCE)
            except zlib.error:
                raise _no_gzip("is broken") from None
            yield found
            full = len(found) == limits.INFLATED_BYTES_AT_ONCE and not member.eof
            piece = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:
                member = None
    if member is not None:
        raise _no_gzip("ends early")


def _no_gzip(reason: str) -> Problem:
    return InvalidRequest(FieldError("Content-Encoding", f"the gzip of the body {reason}"))
