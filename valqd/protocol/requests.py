"""Requests as bytes: FCALLs from parsed commands, and what comes back for those that popped."""

from __future__ import annotations

from typing import Any

import hiredis

from valqd.commands.request import Request, fcall
from valqd.errors import CommandError
from valqd.protocol.calls import Recipient, Route, bulk, bulk_pieces
from valqd.protocol.coalescer import Coalescer

#: A POP's null, by protocol version.
NULL = {2: b"$-1\r\n", 3: b"_\r\n"}
#: Bodies beyond this travel without being copied into a larger piece.
_LARGE_BODY_BYTES = 16 * 1024


def encode_request(argv: list[bytes]) -> bytes:
    """A request as the canonical multibulk."""
    return b"*%d\r\n%b" % (len(argv), b"".join([bulk(arg) for arg in argv]))


def nothing_popped(request: Request, resp: int) -> bytes:
    """What a POP or MPOP answers when nothing is ready."""
    return NULL[resp] if request.args[0] == b"" else b"*0\r\n"


def join_merged(
    coalescer: Coalescer, who: Recipient, route: Route, request: Request, resp: int, post: bytes = b""
) -> None:
    """Join one parsed command to its route's open call.  ``post``: of a POP that has waited, where."""
    assert request.merge is not None
    items = request.merge.items
    function = request.merge.function
    if request.command == "push" and len(items[-1]) > _LARGE_BODY_BYTES:
        coalescer.join(who, route, [*map(bulk, items[:-1]), *bulk_pieces(items[-1])], 1, 1, None)
        return
    if post:
        items = (b"%b,%b" % (items[0] or b"2,,,", post),)
    encoded = b"".join([bulk(item) for item in items])
    if function == "pop_many":
        count = int(request.args[0] or 1)
        coalescer.join(who, route, b"$1\r\n1\r\n" + encoded, count, 1, nothing_popped(request, resp))
    elif function in ("push_many", "push_records", "extend_many"):
        coalescer.join(who, route, encoded, 1, 1, None)
    else:
        coalescer.join(who, route, encoded, len(items), len(items), True)


def echo_call(value: Any) -> bytes:
    """The call that makes the backend answer ``value`` itself, so that it takes its place among other replies."""
    if isinstance(value, CommandError):
        kind, values = b"error", [str(value).encode()]
    else:
        kind, values = b"array", [str(line).encode() for line in value]
    return encode_request(fcall("echo", (), kind, *values))


def parse_popped(data: bytes) -> list[Any]:
    """The replies in the bytes of one deal of a POP call."""
    reader = hiredis.Reader()
    reader.feed(data)
    replies = []
    while (reply := reader.gets()) is not False:
        replies.append(reply)
    return replies
