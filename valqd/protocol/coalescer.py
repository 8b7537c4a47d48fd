"""Merges what many clients send in one turn of the loop into few calls, and deals the replies out again.

This is where "merging is never visible" is kept.  It knows queues, calls and recipients; it must not know sockets,
loops or clocks: the shared lane sends what ``take`` returns and hands every reply, in order, to ``deliver``.

    clients' commands ──join──▶ open calls (one a route) ──take──▶ sent calls ──deliver──▶ recipients
                                 oldest … newest                    FIFO, as the backend answers

A command may join an open call only if no newer call holds a command of the same client (``last_seq``): so the calls,
run one after the other, respect every client's own order.

Bounds: nothing joins a call that holds MAX_ITEMS items or MAX_CALL_BYTES bytes.  A deal is never cut, so a call holds
less than that and one deal more: up to 1,023 pushes (the fast path's runs are of at most MAX_ITEMS), all that one ACK
or POP names, one body of any size.  How many calls may be under way is the lane's to bound, by making clients wait
(``backlog_bytes``).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hiredis import HiredisError

from valqd.commands.request import Request
from valqd.errors import BackendDown
from valqd.protocol.calls import MAX_CALL_BYTES, Call, MergedCall, Recipient, Route

#: So many routes are kept, then all anew, and none whose fixed arguments are longer than that.
MAX_ROUTES, _MAX_FIXED_BYTES = 100_000, 64
#: How often a library that is gone again and again is loaded for one call.
_MAX_RESENDS = 3
#: What Valkey answers to a call whose library is gone.
MISSING_FUNCTION = "ERR Function not found"
#: What is answered for a call that found no library, and cannot be repeated.
REPLACED = f"{BackendDown.code} the queue functions were being replaced: the command was not applied, try again"


class Coalescer:
    """The open and the sent calls of one shared lane."""

    def __init__(self) -> None:
        self._seq = 0
        self._open: dict[Route, MergedCall] = {}
        self._unsent: list[Call] = []
        self.sent: deque[Call] = deque()
        self.backlog_bytes = 0  # of the requests that are not sent, or not answered
        self.unsent_large_bytes = 0  # of the large items among what is not sent
        self.crowd = 0  # deals in what was taken last: about how many clients sent something in that turn
        self._kept: dict[Call, Any] | None = None  # while recovering: replies not dealt out yet, in order
        self._resends = 0  # how often calls were repeated since recovering began

    @property
    def idle(self) -> bool:
        """No call waits to be sent."""
        return not self._unsent

    def join(
        self,
        who: Recipient,
        route: Route,
        items: bytes | list[bytes],
        units: int,
        count: int,
        extra: Any,
    ) -> None:
        """Add one deal to the route's open call, or open one.

        ``items`` are encoded arguments (a list: their pieces); ``units`` is what they add towards MAX_ITEMS; ``count``
        and ``extra`` are the deal's, as its call type defines them.
        """
        call = self._open.get(route)
        if call is None or call.seq < who.last_seq or call.units >= route.max_items or call.size >= MAX_CALL_BYTES:
            self._seq += 1
            call = self._open[route] = route.call_type(route, self._seq)
            self._unsent.append(call)
        if isinstance(items, bytes):
            call.items.append(items)
            size = len(items)
        else:
            call.items += items
            size = sum(map(len, items))
            self.unsent_large_bytes += size
        call.units += units
        call.size += size
        self.backlog_bytes += size
        call.deals.append((who, count, extra))
        who.last_seq = call.seq
        who.last_queue = route.queue

    def add(self, who: Recipient, call: Call) -> None:
        """Add a call of one deal.  ``join``, the hottest path, does the like itself: calling this costs it a tenth."""
        self._seq += 1
        call.seq = who.last_seq = self._seq
        self._unsent.append(call)
        self.backlog_bytes += call.size
        call.deals.append((who, 1, None))

    def take(self) -> list[bytes]:
        """Close all open calls; their requests in order, in pieces, for one write."""
        out: list[bytes] = []
        self.crowd = 0
        for call in self._unsent:
            out += call.encode()
            self.crowd += len(call.deals)
        self.sent.extend(self._unsent)
        self._unsent = []
        self.unsent_large_bytes = 0
        self._open = {}
        return out

    def deliver(self, reply: Any) -> None:
        """Deal out the reply of the oldest sent call, or keep it back while ``recovering``."""
        call = self.sent[0]
        if call.has_several_replies and not call.add(reply):
            return
        self.sent.popleft()
        self.backlog_bytes -= call.size
        if self._kept is None:
            if not isinstance(reply, HiredisError) or not is_missing_function(reply):
                call.deliver(reply)
                return
            self._kept = {}
        self._kept[call] = reply
        is_last = self._resends > 0 and not self.sent  # of those that were repeated
        if is_last and (self._resends == _MAX_RESENDS or not any(map(is_missing_function, self._kept.values()))):
            self._end_kept()

    @property
    def recovering(self) -> bool:
        """The function library was missing: nothing may be sent but what ``resend`` returns."""
        return self._kept is not None

    @property
    def must_resend(self) -> bool:
        """Recovering, and every reply to what was sent before has come: load the library, then ``resend``."""
        return self._kept is not None and not self.sent

    def resend(self) -> list[bytes]:
        """The requests of the calls that found no library, in order.  All kept replies are dealt out after theirs.

        A call cannot be repeated when one of its clients already has a result of a later call, which found the library
        that another daemon had loaded: it fails, not applied.
        """
        assert self._kept is not None
        self._resends += 1
        overtaken: set[Recipient] = set()
        repeated: list[Call] = []
        for call, reply in reversed(self._kept.items()):
            who = {recipient for recipient, _, _ in call.deals}
            if not is_missing_function(reply):
                if call.is_function:
                    overtaken |= who
            elif who & overtaken:
                self._kept[call] = HiredisError(REPLACED)
            else:
                repeated.insert(0, call)
        if not repeated:
            self._end_kept()
            return []
        self.sent.extend(repeated)
        self.backlog_bytes += sum(call.size for call in repeated)
        return [piece for call in repeated for piece in call.encode()]

    def give_up(self, error: bytes) -> None:
        """The library cannot be loaded: the calls that found none fail."""
        self._end_kept(error)

    def fail_sent(self, error: bytes) -> None:
        """The connection is gone: every call that was sent may have been applied, or not."""
        kept = self._kept or {}
        unanswered = [call for call in self.sent if call not in kept]  # what was repeated is in both
        self.sent = deque()
        self.backlog_bytes = sum(call.size for call in self._unsent)
        self._end_kept(error)
        for call in unanswered:
            call.fail(error)

    def _end_kept(self, error: bytes | None = None) -> None:
        """End recovering: deal out what was kept back.  Calls that found no library fail, with ``error`` if given."""
        kept, self._kept, self._resends = self._kept or {}, None, 0
        for call, reply in kept.items():
            if is_missing_function(reply):
                call.fail(error or b"-%b\r\n" % REPLACED.encode())
            else:
                call.deliver(reply)

    def fail_unsent(self, error: bytes) -> None:
        """The backend cannot be reached: refuse what was not sent."""
        unsent, self._unsent = self._unsent, []
        self._open = {}
        self.backlog_bytes = self.unsent_large_bytes = 0
        for call in unsent:
            call.fail(error)


class Routes:
    """Interns routes, so that a route's identity is what calls are merged by.  Bounded by starting afresh."""

    def __init__(self, auto_create: bytes) -> None:
        self._auto = (auto_create,)
        self._routes: dict[tuple[str, bytes, tuple[bytes, ...]], Route] = {}

    def of(self, request: Request) -> Route | None:
        """The route of a command that may be merged; None: it is always a call of its own."""
        merge = request.merge
        if merge is None:
            return None
        fixed = self._auto + merge.fixed if request.takes_auto else merge.fixed
        return self.get(merge.function, request.queues[0], fixed)

    def get(self, function: str, queue: bytes, fixed: tuple[bytes, ...]) -> Route:
        """The one route of a function, a queue and fixed arguments."""
        key = (function, queue, fixed)
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            route = Route(function, queue, fixed)
            if sum(map(len, fixed)) <= _MAX_FIXED_BYTES:  # a NACK's reason may be long, and unique
                self._routes[key] = route
        return route


def is_missing_function(reply: Any) -> bool:
    """Whether the backend knows no such function: it was flushed, or the backend replaced."""
    return isinstance(reply, HiredisError) and str(reply) == MISSING_FUNCTION
