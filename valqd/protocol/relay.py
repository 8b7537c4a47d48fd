"""Simple foreign commands of clean clients share a connection: one write and one read for many clients.

    clients' requests ──▶ RelayCall: the bytes of one client ──one write a turn──▶ Valkey
    clients ◀── RelayReplies: cut behind as many replies ◀─────one read────────────┘

A command is simple when it does nothing to its connection, never blocks, has one reply, and is not likely to bring
much.  Requests and replies pass as they are: patterns tell where each ends.

Anything else (another name, or one in mixed case, another number of arguments, a client that already has a private
lane) sends a request to the private lane.  A request is only sent if it is in canonical form, so that no bytes
of one client can break the lane of the others.
"""

from __future__ import annotations

import re
from collections import deque
from functools import cache
from itertools import accumulate, islice
from typing import cast

import hiredis

from valqd.protocol.calls import Call
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.replies import ReplyScanner
from valqd.protocol.whole import may_be_huge, parse

#: Larger requests take the private lane.
MAX_REQUEST_BYTES = 32 * 1024
#: Most requests in one call, and calls of one client under way beyond which its next requests wait.
MAX_REQUESTS = 32
#: When so many bytes of one client's requests are under way, the rest waits, for who knows how much they bring: few at
#: first, then twice as many after every answer.
FIRST_SHARE_BYTES, MOST_SHARE_BYTES = 128, 8 * 1024
#: After one reply of this size the lane is not used for a while: one client's unread values would gather there.  A
#: client that gets as much at once is moved to a private lane.
LARGE_REPLY_BYTES = 64 * 1024

#: How many arguments each has (its name included; negative: at least so many).
COMMANDS = {
    "SET": -3, "SETEX": 4, "SETNX": 3, "SETRANGE": 4, "MSET": -3, "GET": 2, "GETSET": 3, "GETEX": -2, "GETDEL": 2,
    "MGET": -2, "APPEND": 3, "STRLEN": 2, "INCR": 2, "DECR": 2, "INCRBY": 3, "DECRBY": 3, "INCRBYFLOAT": 3,
    "DEL": -2, "UNLINK": -2, "EXISTS": -2, "TYPE": 2, "EXPIRE": 3, "EXPIREAT": 3, "PEXPIRE": 3, "PEXPIREAT": 3,
    "TTL": 2, "PTTL": 2, "PERSIST": 2,
    "HSET": -4, "HSETNX": 4, "HGET": 3, "HMGET": -3, "HGETALL": 2, "HDEL": -3, "HEXISTS": 3, "HLEN": 2, "HINCRBY": 4,
    "HINCRBYFLOAT": 4,
    "LPUSH": -3, "RPUSH": -3, "LPOP": 2, "RPOP": 2, "LLEN": 2,
    "SADD": -3, "SREM": -3, "SPOP": 2, "SISMEMBER": 3, "SCARD": 2,
    "ZADD": -4, "ZREM": -3, "ZSCORE": 3, "ZINCRBY": 4, "ZRANK": 3, "ZCARD": 2,
    "PUBLISH": 3,
}  # fmt: skip
#: The same, by both spellings: the least and the most.
_ARGUMENTS = {
    spelling.encode(): (abs(count), count if count > 0 else MAX_REQUEST_BYTES)
    for name, count in COMMANDS.items()
    for spelling in (name, name.lower())
}
#: Requests with no more and no longer arguments are told by a pattern, and replies no longer.  (For 1,023 it would take
#: 0.1 s more to make.)
_MOST_ARGUMENTS = 5
_MOST_BYTES = 511
#: The first request's name lies within so many bytes.
_MOST_HEAD_BYTES = 64
#: So many arguments behind the name are written out in it: a counted repetition takes a third longer to match.
_WRITTEN_OUT = 3


def _one_of(tails: dict[bytes, bytes]) -> bytes:
    """The pattern of one of the keys and what may follow it: a tree, for ``re`` tries alternatives one by one."""
    by_first: dict[bytes, dict[bytes, bytes]] = {}
    for key, tail in tails.items():
        by_first.setdefault(key[:1], {})[key[1:]] = tail
    parts = [re.escape(first) + _one_of(rests) if first else rests[b""] for first, rests in by_first.items()]
    return parts[0] if len(parts) == 1 else b"(?:%b)" % b"|".join(parts)


def _patterns() -> tuple[bytes, bytes]:
    """Of a simple request in canonical form, and of a reply that is no array."""
    bulk = rb"\$" + _one_of({b"%d\r\n" % size: rb".{%d}\r\n" % size for size in range(_MOST_BYTES + 1)})
    requests = {}
    for count in range(1, _MOST_ARGUMENTS + 1):
        names = [name for name, (least, most) in _ARGUMENTS.items() if least <= count <= most]
        if names:
            heads = _one_of({b"$%d\r\n%b\r\n" % (len(name), name): b"" for name in names})
            bulks = bulk * (count - 1) if count <= _WRITTEN_OUT + 1 else rb"(?:%b){%d}" % (bulk, count - 1)
            requests[b"*%d\r\n" % count] = heads + bulks
    return _one_of(requests), rb"(?:[+:_,#(-][^\r\n]*\r\n|\$-1\r\n|%b)" % bulk


_REQUEST, _REPLY = _patterns()
#: Requests one by one, or in a group all that is left: so ``findall`` copies nothing but that.
_REQUESTS = re.compile(rb"%b|(.+)" % _REQUEST, re.DOTALL)


@cache
def _replies(count: int) -> re.Pattern[bytes]:
    """The pattern of so many replies.  To make one takes 9 ms."""
    return re.compile(rb"%b{%d}" % (_REPLY, count), re.DOTALL)


def is_simple(argv: list[bytes]) -> bool:
    """Whether a request is a simple command's."""
    least, most = _ARGUMENTS.get(argv[0], (1, 0))
    return least <= len(argv) <= most


def is_all_simple(data: bytes) -> bool:
    """Whether ``data`` is nothing but small simple requests."""
    return not _REQUESTS.findall(data)[-1]


def cut_simple(data: bytes, most: int) -> list[RelayCall]:
    """Calls for the simple requests that ``data`` begins with.

    Not for all that are: of small ones ``most`` bytes, of large ones only if nothing else follows.
    """
    matches: list[bytes] = _REQUESTS.findall(data, 0, most)
    rest = matches[-1]  # what is none
    count = len(matches) - (rest != b"")
    if 0 < count <= MAX_REQUESTS:
        return [RelayCall(data[: min(most, len(data)) - len(rest)], count)]
    if count:
        ends = [request.end() for request in islice(_REQUESTS.finditer(data, 0, most), count)]
    else:
        ends = list(accumulate(map(len, _cut_large(data, most))))
    groups = [ends[at : at + MAX_REQUESTS] for at in range(0, len(ends), MAX_REQUESTS)]
    starts = [0, *(group[-1] for group in groups)]
    return [RelayCall(data[start : group[-1]], len(group)) for start, group in zip(starts, groups, strict=False)]


def _cut_large(data: bytes, most: int) -> list[bytes]:
    _, _, name, *_ = (data[:_MOST_HEAD_BYTES] + b"\r\n\r\n").split(b"\r\n", 3)
    if name not in _ARGUMENTS:
        return []
    values = None if len(data) > MAX_REQUEST_BYTES or may_be_huge(data) else parse(data)
    if not values or (len(values) > 1 and len(data) > most):
        return []
    try:
        if all(map(is_simple, values)):
            requests = list(map(hiredis.pack_command, map(tuple, values)))
            if b"".join(requests) == data:
                return requests
    except (LookupError, TypeError):  # not a list, or of what is no string
        pass
    return []


class RelayCall(Call):
    """Simple requests of one client."""

    __slots__ = ("_requests", "count")

    is_function = False

    def __init__(self, requests: bytes, count: int) -> None:
        """``count``: of the requests, and so of the replies."""
        self.size = len(requests)
        self.deals = []
        self.count = count
        self._requests = requests

    def encode(self) -> list[bytes]:  # noqa: D102 - see Call
        return [self._requests]

    def deliver(self, reply: bytes) -> None:
        """All its replies, as the backend sent them."""
        self.deals[0][0].answer(reply)

    def fail(self, error: bytes) -> None:  # noqa: D102 - see Call
        self.deals[0][0].answer(error * self.count)


class RelayReplies:
    """Cuts what the backend sends to the RelayCalls of one connection.  Bound: the replies to one call."""

    def __init__(self) -> None:
        self._cut: _CutReplies | None = None  # to the oldest call

    def feed(self, data: bytes, coalescer: Coalescer) -> bool:
        """Deliver what is whole; False if so large a reply came that others had better not come this way."""
        is_well = True
        at = 0
        while coalescer.sent and at < len(data):
            if self._cut is None:
                at = self._deliver_small(data, at, coalescer)
                if not coalescer.sent or at == len(data):
                    break
                self._cut = _CutReplies(cast("RelayCall", coalescer.sent[0]).count)
            at = self._cut.feed(data, at)
            replies = self._cut.replies
            if replies is None:
                break
            self._cut = None
            is_well &= len(replies) <= LARGE_REPLY_BYTES or not _holds_large_one(replies)
            coalescer.deliver(replies)
        return is_well

    def _deliver_small(self, data: bytes, at: int, coalescer: Coalescer) -> int:
        """Deliver to calls all of whose replies are whole and small, up to the first that is not; where that begins."""
        sent = cast("deque[RelayCall]", coalescer.sent)
        while sent and (answer := _replies(sent[0].count).match(data, at)):
            at = answer.end()
            coalescer.deliver(answer[0])
        return at


class _CutReplies:
    """The replies to one call that came in several pieces, or are not all small."""

    def __init__(self, count: int) -> None:
        self.replies: bytes | None = None  #: when they are whole
        self._left = count
        self._pieces: list[bytes] = []
        self._scanner = ReplyScanner()

    def feed(self, data: bytes, start: int) -> int:
        """Take what belongs to them, from ``start`` on; where that ends."""
        ends = self._scanner.feed(data, self._left, start)
        self._left -= len(ends)
        end = len(data) if self._left else ends[-1].offset
        self._pieces.append(data[start:end])
        if not self._left:
            self.replies = b"".join(self._pieces)
        return end


def _holds_large_one(replies: bytes) -> bool:
    """Whether one of them is large: looked at piece by piece, for such a one may have millions of elements."""
    scanner, start = ReplyScanner(), 0
    for at in range(0, len(replies), LARGE_REPLY_BYTES):
        piece = replies[at : at + LARGE_REPLY_BYTES]
        for end in scanner.feed(piece):
            if at + end.offset - start > LARGE_REPLY_BYTES:
                return True
            start = at + end.offset
        if at + len(piece) - start > LARGE_REPLY_BYTES:
            return True
    return False
