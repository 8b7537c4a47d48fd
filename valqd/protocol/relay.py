"""Simple foreign commands of clean clients share a connection: one write and one read for many clients.

    clients' requests ──▶ RelayCall: the bytes of one client, and an ECHO ──one write a turn──▶ Valkey
    clients ◀── RelayReplies: cut where the echo comes ◀──────────────────one read─────────────┘

A command is simple when it does nothing to its connection, never blocks, and is not likely to bring much.  Its reply is
not looked at.  Behind the requests of each client goes an ECHO of bytes that nobody can know before (they could be
stored, and asked for): in what the backend sends, these tell where the client's replies end.

Anything else (another name, or one in mixed case, another number of arguments, RESP3, a client that already has a
private lane) sends a request to the private lane.  A request is only sent if it is in canonical form, so that no bytes
of one client can break the lane of the others.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise

import hiredis

from valqd.protocol.calls import Call
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.replies import ReplyScanner
from valqd.protocol.whole import WholeParser, may_be_huge, parse

#: Larger requests take the private lane.
MAX_REQUEST_BYTES = 32 * 1024
#: Most requests in one call.
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
#: Requests with no more and no longer arguments are recognized by a pattern.  (With 1,023 it would take 0.1 s to make.)
_MOST_ARGUMENTS = 5
_MOST_BYTES = 511

_MARK_BYTES = 16
_MARKS_AT_ONCE = 256
_random = random.SystemRandom()
_ends: list[bytes] = []


def _after_digits(digits: str) -> bytes:
    """The pattern of a bulk behind the first ``digits`` of its length."""
    rest = [rb"\r\n.{%b}" % digits.encode()]
    if digits != "0":
        longer = [digits + digit for digit in "0123456789" if int(digits + digit) <= _MOST_BYTES]
        rest += [number[-1].encode() + _after_digits(number) for number in longer]
    return b"(?:%b)" % b"|".join(rest)


def _pattern() -> re.Pattern[bytes]:
    """Of one or more simple requests in canonical form."""
    bulk = rb"\$(?:%b)\r\n" % b"|".join(digit.encode() + _after_digits(digit) for digit in "0123456789")
    requests = []
    for count in range(1, _MOST_ARGUMENTS + 1):
        names = [name for name, (least, most) in _ARGUMENTS.items() if least <= count <= most]
        if names:
            heads = b"|".join(rb"%d\r\n%b" % (len(name), name) for name in names)
            requests.append(rb"%d\r\n\$(?:%b)\r\n(?:%b){%d}" % (count, heads, bulk, count - 1))
    return re.compile(rb"(?:\*(?:%b)){1,%d}+" % (b"|".join(requests), MAX_REQUESTS), re.DOTALL)


_SIMPLE = _pattern()


def is_simple(argv: list[bytes]) -> bool:
    """Whether a request is a simple command's."""
    least, most = _ARGUMENTS.get(argv[0], (1, 0))
    return least <= len(argv) <= most


def simple_bytes(data: bytes, most: int) -> int:
    """How many bytes ``data`` begins with that are whole simple requests in canonical form, for one call.

    Not all that are: of small ones ``most`` bytes, of large ones only if nothing else follows.
    """
    if found := _SIMPLE.match(data, 0, most):
        return found.end()
    requests = None if len(data) > MAX_REQUEST_BYTES or may_be_huge(data) else parse(data)
    if not requests or len(requests) > MAX_REQUESTS:
        return 0
    try:
        are_simple = all(map(is_simple, requests))
        return len(data) if are_simple and data == b"".join(map(hiredis.pack_command, map(tuple, requests))) else 0
    except (LookupError, TypeError):  # not a list, or of what is no string
        return 0


def _new_end() -> bytes:
    """A reply to ECHO that there never was before, and that nobody can guess."""
    if not _ends:
        data = _random.randbytes(_MARK_BYTES * _MARKS_AT_ONCE)
        marks = [data[at : at + _MARK_BYTES] for at in range(0, len(data), _MARK_BYTES)]
        _ends.extend(b"$%d\r\n%b\r\n" % (_MARK_BYTES, mark) for mark in marks)
    return _ends.pop()


class RelayCall(Call):
    """Simple requests of one client, and what shows where their replies end."""

    __slots__ = ("_requests", "end")

    is_function = False

    def __init__(self, requests: bytes) -> None:
        self.size = len(requests)
        self.deals = []
        self._requests = requests
        self.end = _new_end()  #: the last reply, which no client gets

    @property
    def count(self) -> int:
        """How many requests there are."""
        return len(WholeParser().parse(self._requests) or ())  # what others have sent must not matter

    def encode(self) -> list[bytes]:  # noqa: D102 - see Call
        return [b"%b*2\r\n$4\r\neCHO\r\n%b" % (self._requests, self.end)]

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
        """Deliver what is whole; False if others had better not come this way, for ECHO was refused, or much came."""
        is_well = True
        at = 0
        while coalescer.sent and at < len(data):
            call = coalescer.sent[0]
            assert isinstance(call, RelayCall)
            if self._cut is None and (end := data.find(call.end, at)) >= 0:
                replies = data[at:end]
                at = end + len(call.end)
            else:
                cut = self._cut = self._cut or _CutReplies(call)
                at += cut.feed(data[at:])
                if cut.replies is None:
                    break
                replies = cut.replies
                is_well &= not cut.refused
                self._cut = None
            is_well &= len(replies) <= LARGE_REPLY_BYTES or not _holds_large_one(replies)
            coalescer.deliver(replies)
        return is_well


def _holds_large_one(replies: bytes) -> bool:
    starts = [0, *(end.offset for end in ReplyScanner().feed(replies))]
    return any(end - start > LARGE_REPLY_BYTES for start, end in pairwise(starts))


class _CutReplies:
    """The replies to one call that came in several pieces, or without their end.

    ECHO is refused when the user may not, or a script is over its time: so replies are counted.
    """

    def __init__(self, call: RelayCall) -> None:
        self.replies: bytes | None = None  #: when they are whole
        self.refused = False  #: ECHO was
        self._end_of_all = call.end
        self._count = call.count
        self._bytes = bytearray()
        self._scanner = ReplyScanner()
        self._counted = 0  # whole replies

    def feed(self, data: bytes) -> int:
        """Take what belongs to the call; how many bytes."""
        end_of_all = self._end_of_all
        before = len(self._bytes)
        self._bytes += data
        end = self._bytes.find(end_of_all, max(0, before - len(end_of_all)))
        if end >= 0:
            taken = end + len(end_of_all) - before
        else:
            ends = self._scanner.feed(data, self._count + 1 - self._counted)
            if self._counted + len(ends) <= self._count:
                self._counted += len(ends)
                return len(data)
            self.refused = True
            taken = ends[self._count - self._counted].offset
            end = self._bytes.rindex(b"\n", 0, before + taken - 1) + 1  # a refusal is one line
        with memoryview(self._bytes) as whole:
            self.replies = bytes(whole[:end])
        return taken
