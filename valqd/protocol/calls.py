"""Calls on the shared lane: what each asks of the backend, and how its reply is dealt out.

One class for each shape of a merged call's reply; those of one client alone are in ``lone_calls``.  A call knows who
gets which part (its deals); when calls are opened, joined and sent is the coalescer's.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from valqd.commands.request import Request, fcall, queue_key
from valqd.lua import FUNCTION_PREFIX
from valqd.protocol.encoding import NULL, bulk

#: Nothing joins a call that holds as many items.  Even the 1,023 pushes that one may then hold (see coalescer) are far
#: below the 8,000 values at which Lua's ``unpack`` stops.
MAX_ITEMS = 512
#: Nothing joins a call that holds as many bytes.
MAX_CALL_BYTES = 1 << 20
#: Merged pops aim at replies of at most this many bytes (by the queue's recent body sizes).
MAX_POP_REPLY_BYTES = 512 << 10

#: What Valkey adds to a function's error; before 9.1 it names the function.
_PLACE = re.compile(rb" script: (?:%b\w+, )?on @user_function:\d+\.\r\n\Z" % FUNCTION_PREFIX.encode())

#: What an ACK of one id answers, by whether it counts.
_BITS = (b":0\r\n", b":1\r\n")


class Recipient(Protocol):
    """Who gets a deal: a client's session, or a parked POP."""

    last_seq: int  #: sequence number of the newest call that holds one of its commands
    last_queue: bytes | None  #: queue of its newest merged command

    @property
    def gone(self) -> bool:
        """Whether it is not there to take messages any more."""

    def answer(self, data: bytes) -> None:
        """Take the reply bytes of one deal."""

    def answer_fragments(self, fragments: list[bytes]) -> None:
        """The same, in pieces: a large body among them is not copied to be joined."""

    def undelivered(self, route: Route, data: bytes) -> bool:
        """Popped messages came back for a recipient that is gone; False if they cannot be given back (NOACK)."""


#: One recipient's part of a call: (recipient, count, extra).  ``count`` is how many commands the part stands for, in a
#: CountCall how many ids; ``extra`` is what the call type needs to answer them (PopCall: a command's null reply).
Deal = tuple[Recipient, int, Any]


class Route:
    """What calls must share to be merged: function, queue and fixed arguments.  Interned by ``Routes``."""

    __slots__ = ("call_type", "head", "head_args", "max_items", "queue")

    def __init__(self, function: str, queue: bytes, fixed: Sequence[bytes]) -> None:
        self.call_type = _CALL_TYPES[function]
        self.queue = queue
        args = fcall(function, (queue_key(queue),), *fixed)
        self.head = b"".join([bulk(arg) for arg in args])
        self.head_args = len(args)
        self.max_items = MAX_ITEMS


def nothing_popped(request: Request, resp: int) -> bytes:
    """What a POP or MPOP answers when nothing is ready."""
    return NULL[resp] if request.args[0] == b"" else b"*0\r\n"


def error_line(error: Exception) -> bytes:
    """A backend's error reply as it goes to a client: without the position inside the function that raised it."""
    text = str(error).encode("utf-8", "surrogateescape").replace(b"\r", b" ").replace(b"\n", b" ")
    return without_place(b"-%b\r\n" % text)


def without_place(reply: bytes) -> bytes:
    """A reply; an error without the position inside the function that raised it."""
    return _PLACE.sub(b"\r\n", reply) if reply[:1] == b"-" else reply


class Call(ABC):
    """One request on the shared lane (or a few of one client, see ``has_several_replies``), and who gets which part."""

    __slots__ = ("deals", "seq", "size")

    seq: int  #: the coalescer numbers calls as they are opened, which is the order in which they are sent
    size: int  #: bytes of what it asks
    deals: list[Deal]

    #: Whether its replies are taken by ``add`` before ``deliver`` gets the last.
    has_several_replies = False

    @property
    @abstractmethod
    def is_function(self) -> bool:
        """Whether it calls one of our functions."""

    @abstractmethod
    def encode(self) -> list[bytes]:
        """The request as it goes to the backend, in pieces."""

    def add(self, reply: Any) -> bool:
        """Take one of several replies; whether it was the last."""
        return True

    @abstractmethod
    def deliver(self, reply: Any) -> None:
        """Deal the backend's reply (as hiredis parsed it) out to the recipients, in the order they joined."""

    @abstractmethod
    def fail(self, error: bytes) -> None:
        """Answer every command of this call with ``error`` (a whole RESP error)."""


class MergedCall(Call):
    """A call of one of our functions for all who joined it."""

    __slots__ = ("items", "route", "units")

    is_function = True

    def __init__(self, route: Route, seq: int) -> None:
        self.seq = seq
        self.size = 0
        self.deals = []
        self.route = route
        self.items: list[bytes] = []  # arguments, encoded as bulks; one entry may hold several
        self.units = 0  # pushes, pops or ids: what MAX_ITEMS bounds

    @staticmethod
    def deal_of(items: int, request: Request, resp: int) -> tuple[int, int, Any]:
        """For one command that has ``items`` of them: the units that it adds, and the count and extra of its deal."""
        return 1, 1, None

    def encode(self) -> list[bytes]:  # noqa: D102 - see Call
        return [b"*%d\r\n%b" % (self.route.head_args + self.arg_count(), self.route.head), *self.items]

    def arg_count(self) -> int:
        """Arguments in ``items``."""
        return self.units

    def deal_each(self, values: list[Any], encoded: Callable[[Any], bytes]) -> None:
        """Deal out a reply of one value for each command."""
        at = 0
        for recipient, count, _ in self.deals:
            recipient.answer(b"".join(map(encoded, values[at : at + count])))
            at += count

    def fail(self, error: bytes) -> None:  # noqa: D102 - see Call
        for recipient, count, extra in self.deals:
            recipient.answer(error * self.commands(count, extra))

    def commands(self, count: int, extra: Any) -> int:
        """How many commands a deal stands for."""
        return count


class PushCall(MergedCall):
    """Plain pushes; the reply is the first id, or one id or error text for each body."""

    __slots__ = ()

    def deliver(self, reply: Any) -> None:  # noqa: D102 - see Call
        if type(reply) is int:
            first = reply
            one = _id_format(first, self.units)
            for recipient, count, _ in self.deals:
                if not one:
                    recipient.answer(ids(first, count))
                elif count == 1:
                    recipient.answer(one % first)
                else:
                    recipient.answer(one * count % tuple(range(first, first + count)))
                first += count
        elif type(reply) is list:
            self.deal_each(reply, _id_or_error)
        else:
            self.fail(error_line(reply))


class PushRecordsCall(PushCall):
    """Pushes with options: each item is the options and a body."""

    __slots__ = ()

    def arg_count(self) -> int:  # noqa: D102 - see Call
        return 2 * self.units


class PopCall(MergedCall):
    """Pops; the reply is, for each run, the exact bytes for its client; runs left out got nothing.

    Each item is a run of POPs that one client sent one after another: how many, and what each asks for (two arguments).
    """

    __slots__ = ()

    @staticmethod
    def deal_of(items: int, request: Request, resp: int) -> tuple[int, int, Any]:  # noqa: D102 - see Call
        return request.wanted, 1, nothing_popped(request, resp)

    def arg_count(self) -> int:  # noqa: D102 - see Call
        return 2 * len(self.items)

    def deliver(self, reply: Any) -> None:  # noqa: D102 - see Call
        if type(reply) is not list:
            self.fail(error_line(reply))
            return
        runs = iter(reply)
        total = 0
        for recipient, count, extra in self.deals:
            run = next(runs, None)
            if run is None:
                recipient.answer(extra * count)
                continue
            if type(run) is list:
                if not recipient.gone:
                    total += sum(map(len, run))
                    recipient.answer_fragments(run)
                    continue
                run = b"".join(run)
            total += len(run)
            if recipient.gone and recipient.undelivered(self.route, run):
                recipient.answer(extra * count)
            else:
                recipient.answer(run)
        if total > MAX_POP_REPLY_BYTES:
            self.route.max_items = max(1, min(MAX_ITEMS, MAX_POP_REPLY_BYTES * self.units // total))
        elif self.route.max_items < MAX_ITEMS:
            self.route.max_items = min(MAX_ITEMS, self.route.max_items * 2)


class CountCall(MergedCall):
    """ACK and NACK; the reply is the number of ids when all count, else 0 or 1 for each id.

    A deal's extra is True when its ids belong to one command, None when each id is its own.
    """

    __slots__ = ()

    @staticmethod
    def deal_of(items: int, request: Request, resp: int) -> tuple[int, int, Any]:  # noqa: D102 - see Call
        return items, items, True

    def deliver(self, reply: Any) -> None:  # noqa: D102 - see Call
        if type(reply) is int:
            for recipient, count, extra in self.deals:
                if extra is None:
                    recipient.answer(b":1\r\n" if count == 1 else b":1\r\n" * count)
                else:
                    recipient.answer(b":%d\r\n" % count)
        elif type(reply) is list:
            at = 0
            for recipient, count, extra in self.deals:
                part = reply[at : at + count]
                at += count
                if extra is None:
                    recipient.answer(b"".join([_BITS[bit] for bit in part]))
                else:
                    recipient.answer(b":%d\r\n" % sum(part))
        else:
            self.fail(error_line(reply))

    def commands(self, count: int, extra: Any) -> int:  # noqa: D102 - see Call
        return count if extra is None else 1


class ExtendCall(MergedCall):
    """EXTEND; the reply is a deadline or an error text for each command."""

    __slots__ = ()

    def arg_count(self) -> int:  # noqa: D102 - see Call
        return 2 * self.units

    def deliver(self, reply: Any) -> None:  # noqa: D102 - see Call
        if type(reply) is list:
            self.deal_each(reply, _deadline_or_error)
        else:
            self.fail(error_line(reply))


_CALL_TYPES: dict[str, type[MergedCall]] = {
    "push_many": PushCall,
    "push_records": PushRecordsCall,
    "pop_many": PopCall,
    "ack_many": CountCall,
    "nack_many": CountCall,
    "extend_many": ExtendCall,
}


def _id_format(first: int, count: int) -> bytes:
    """The format of an id as a bulk string, if ``count`` ids from ``first`` on have as many digits; else empty."""
    width = len(str(first))
    return b"$%d\r\n%%d\r\n" % width if first + count <= 10**width else b""


def ids(first: int, count: int) -> bytes:
    """``count`` consecutive ids as bulk strings."""
    numbers = range(first, first + count)
    if one := _id_format(first, count):
        return one * count % tuple(numbers)
    return b"".join([ids(number, 1) for number in numbers])


def _id_or_error(value: int | bytes) -> bytes:
    return ids(value, 1) if isinstance(value, int) else b"-%b\r\n" % value


def _deadline_or_error(value: int | bytes) -> bytes:
    return b":%d\r\n" % value if isinstance(value, int) else b"-%b\r\n" % value
