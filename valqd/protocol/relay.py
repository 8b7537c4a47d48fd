"""Simple foreign commands of clean clients ride on the shared lane: one write and one read for many clients.

A command is simple when it does nothing to its connection, never blocks, and its reply has one type whatever its
arguments: then the reply that hiredis parsed can be encoded again to the very bytes that the backend sent (RESP2).
Anything else (another name, or one in mixed case, another number of arguments, RESP3, a client that already has a
private lane) sends a request to the private lane.

A request is only sent in its canonical form (one in another form is encoded again), so that no bytes of one client can
break the lane of the others.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import hiredis

from valqd.protocol.whole import may_be_huge, parse

#: Larger requests, or chunks of them, take the private lane.
MAX_REQUEST_BYTES = 16 * 1024
#: A client that pipelines more than this gets a lane of its own, where bytes pass without being taken apart.
MAX_REQUESTS = 4
#: A client that gets replies of this size is moved to a private lane: they would hold up the others.
LARGE_REPLY_BYTES = 64 * 1024


class ReplyType(Enum):
    """What a simple command answers, errors apart."""

    STATUS = "+"
    INTEGER = ":"
    BULK = "$"  #: or null


#: Arguments (the name included; negative: at least) and reply type.
_Simple = tuple[int, ReplyType]

_COMMANDS: dict[str, _Simple] = {
    "SET": (3, ReplyType.STATUS),
    "SETEX": (4, ReplyType.STATUS),
    "MSET": (-3, ReplyType.STATUS),
    "GET": (2, ReplyType.BULK),
    "GETDEL": (2, ReplyType.BULK),
    "HGET": (3, ReplyType.BULK),
    "LPOP": (2, ReplyType.BULK),
    "RPOP": (2, ReplyType.BULK),
    "SETNX": (3, ReplyType.INTEGER),
    "APPEND": (3, ReplyType.INTEGER),
    "STRLEN": (2, ReplyType.INTEGER),
    "INCR": (2, ReplyType.INTEGER),
    "DECR": (2, ReplyType.INTEGER),
    "INCRBY": (3, ReplyType.INTEGER),
    "DECRBY": (3, ReplyType.INTEGER),
    "DEL": (-2, ReplyType.INTEGER),
    "UNLINK": (-2, ReplyType.INTEGER),
    "EXISTS": (-2, ReplyType.INTEGER),
    "EXPIRE": (3, ReplyType.INTEGER),
    "TTL": (2, ReplyType.INTEGER),
    "PTTL": (2, ReplyType.INTEGER),
    "HSET": (-4, ReplyType.INTEGER),
    "HDEL": (-3, ReplyType.INTEGER),
    "HEXISTS": (3, ReplyType.INTEGER),
    "HLEN": (2, ReplyType.INTEGER),
    "LPUSH": (-3, ReplyType.INTEGER),
    "RPUSH": (-3, ReplyType.INTEGER),
    "LLEN": (2, ReplyType.INTEGER),
    "SADD": (-3, ReplyType.INTEGER),
    "SREM": (-3, ReplyType.INTEGER),
    "SISMEMBER": (3, ReplyType.INTEGER),
    "SCARD": (2, ReplyType.INTEGER),
    "ZCARD": (2, ReplyType.INTEGER),
    "ZREM": (-3, ReplyType.INTEGER),
    "PUBLISH": (3, ReplyType.INTEGER),
}
_SIMPLE = {spelling.encode(): simple for name, simple in _COMMANDS.items() for spelling in (name, name.lower())}


def reply_type(argv: list[bytes]) -> ReplyType | None:
    """What a request answers if it is simple, else None."""
    simple = _SIMPLE.get(argv[0])
    if simple is None:
        return None
    count, kind = simple
    return kind if len(argv) == count or (count < 0 and len(argv) >= -count) else None


def reply_types(data: bytes) -> list[ReplyType] | None:
    """The reply types of the requests in ``data``, if it is nothing but whole simple requests in canonical form."""
    if len(data) > MAX_REQUEST_BYTES or may_be_huge(data):
        return None
    requests = parse(data)
    if requests is None or len(requests) > MAX_REQUESTS:
        return None
    kinds: list[ReplyType] = []
    canonical: list[bytes] = []
    try:
        for argv in requests:
            kind = reply_type(argv) if type(argv) is list and argv else None
            if kind is None:
                return None
            kinds.append(kind)
            canonical.append(hiredis.pack_command(tuple(argv)))
    except TypeError:  # an array, or null, among the arguments
        return None
    return kinds if b"".join(canonical) == data else None


def encode(kind: ReplyType, reply: Any) -> bytes:
    """The reply as the backend sent it."""
    if isinstance(reply, Exception):
        return b"-%b\r\n" % str(reply).encode(errors="surrogateescape")
    if kind is ReplyType.INTEGER:
        return b":%d\r\n" % reply
    if kind is ReplyType.STATUS:
        return b"+%b\r\n" % reply
    return b"$-1\r\n" if reply is None else b"$%d\r\n%b\r\n" % (len(reply), reply)
