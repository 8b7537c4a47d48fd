"""Requests as bytes, and as parts of merged calls."""

from __future__ import annotations

from typing import Any

from valqd.commands.request import Request, fcall
from valqd.errors import CommandError
from valqd.protocol.calls import Recipient, Route
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.encoding import bulk

#: Bodies beyond this travel without being copied into a larger piece.
_LARGE_BODY_BYTES = 16 * 1024


def encode_request(argv: list[bytes]) -> bytes:
    """A request as the canonical multibulk."""
    return b"*%d\r\n%b" % (len(argv), b"".join([bulk(arg) for arg in argv]))


def encode_own(argv: list[bytes]) -> bytes:
    """A request of the daemon's own, spelled ``sELECT``: Valkey takes any case, and ``monitor`` tells it by that."""
    return encode_request([argv[0][:1].lower() + argv[0][1:].upper(), *argv[1:]])


def join_merged(
    coalescer: Coalescer, who: Recipient, route: Route, request: Request, resp: int, post: bytes = b""
) -> None:
    """Join one parsed command to its route's open call.  ``post``: of a POP that has waited, where."""
    assert request.merge is not None
    items = request.merge.items
    if post:
        items = (*items[:-1], b"%b,%b" % (items[-1] or b"2,,,", post))
    *first, last = items
    is_large = len(last) > _LARGE_BODY_BYTES
    encoded = [*map(bulk, first), b"$%d\r\n" % len(last), last, b"\r\n"] if is_large else b"".join(map(bulk, items))
    coalescer.join(who, route, encoded, *route.call_type.deal_of(len(items), request, resp))


def echo_call(value: Any) -> bytes:
    """The call that makes the backend answer ``value`` itself, so that it takes its place among other replies."""
    if isinstance(value, CommandError):
        kind, values = b"error", [str(value).encode()]
    else:
        kind, values = b"array", [str(line).encode() for line in value]
    return encode_request(fcall("echo", (), kind, *values))
