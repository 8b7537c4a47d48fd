"""Clients that wait in POP … BLOCK and MPOP … BLOCK: parked here, costing the backend nothing.

    block ─▶ one POP (probe) ─▶ got something ─▶ answered
                             └▶ nothing ─▶ parked, and registered in the backend ─▶ wake (see registration)
        wake: POPs for the first waiters; as many as get something are answered, the rest stay where they are

Waiters of one queue are served first come first served.  Bounds: one entry a waiting client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from valqd.commands.request import Request, function_call
from valqd.errors import PASSING_ERRORS
from valqd.io.control import Control
from valqd.io.registration import MOST_IN_ORDER, Line, QueueId, Registration
from valqd.protocol.calls import Route, error_line, nothing_popped
from valqd.protocol.host import Lane, WorkerState
from valqd.protocol.lone_calls import Listener, LoneCall
from valqd.protocol.requests import encode_request, join_merged

if TYPE_CHECKING:
    from valqd.io.client import Client

#: How many waiters a wake serves first; four times as many each time that all of them got something.
_FIRST_BATCH = 4
_LARGEST_BATCH = 256
#: The loop's timers are met to the ms, and can be early.
_TIMER_S = 0.001


class Waiter:
    """One blocked command: the recipient of its POPs."""

    __slots__ = (
        "_client", "_gone", "_handle", "_nothing", "_waiters", "has_asked", "in_flight", "is_probing", "lane",
        "last_queue", "last_seq", "parked", "queues", "request", "since", "timed_out",
    )  # fmt: skip

    def __init__(self, waiters: Waiters, client: Client, lane: Lane, request: Request) -> None:
        self._waiters = waiters
        self._client = client
        self.lane = lane
        self.request = request
        self.queues: list[QueueId] = [(lane.identity.db, queue) for queue in dict.fromkeys(request.queues)]
        self._nothing = nothing_popped(request, client.session.resp)
        self._handle: asyncio.TimerHandle | None = None
        self.last_seq = 0
        self.last_queue: bytes | None = None
        self._gone = False
        self.timed_out = False  # its time is over: what the POP under way brings is the answer, even nothing
        self.in_flight = False  # a POP is under way
        self.is_probing = False  # and is the first one, before it stands in line
        self.has_asked = False  # it has sent a POP, or one before it in line has, with the same queues and lane
        self.parked = False  # it stands in line
        self.since = time.monotonic()  # exact: the loop's own clock stands still during a turn

    @property
    def gone(self) -> bool:
        """Whether its client has left: no messages are handed to it any more.

        What it waited for comes at any time: its closing of the connection may be known, and not have been read yet.
        """
        return self._gone or self._client.session.gone or self._client.has_hung_up

    @property
    def is_merged(self) -> bool:
        """Whether its POPs may join the call of those before it; an MPOP's is a call of its own."""
        return self.request.merge is not None

    def start_timer(self) -> None:
        """End the wait when its time is over.  Most need none: their first POP finds something."""
        if self.request.block_ms:
            left_s = max(0, self._ends_at - time.monotonic()) + _TIMER_S
            self._handle = asyncio.get_running_loop().call_later(left_s, self._ring)

    def pop(self, woken: QueueId | None = None) -> bool:
        """Join a POP to its lane, which the caller is to wake; False if it cannot be asked now.

        ``woken``: for this queue, in whose line it is its turn; of others, only where nobody stands before it.
        """
        if self.in_flight or not self.lane.up or self._client.drop_if_left():
            return False
        if self.request.is_lost_with_its_client and self.gone:
            return False
        request, state = self.request, self._waiters.state
        if woken is not None and len(self.queues) > 1:
            request = request._replace(queues=self._waiters.whose_turn_it_is(self, woken))
        self.in_flight = True
        self.has_asked |= len(request.queues) == len(self.request.queues)
        resp = self._client.session.resp
        post = self._waiters.registration.post(self.lane.identity.db) if self.parked else b""
        route = state.routes.of(request)
        if route is not None:
            join_merged(self.lane.coalescer, self, route, request, resp, post)
        else:
            call = function_call(request, b"e%d" % resp, state.auto_create)
            if post:
                call.append(post)
            self.lane.coalescer.add(self, LoneCall(encode_request(call), self._shape))
        return True

    def ask_whether_it_may(self) -> None:
        """By a POP of no message: who is parked without having asked, and has no right, is to be told so at once."""
        request = self.request._replace(args=(b"0", *self.request.args[1:]))
        call = encode_request(function_call(request, b"e2", self._waiters.state.auto_create))
        asked = LoneCall(call, lambda reply: error_line(reply) if isinstance(reply, Exception) else b"")
        self.lane.coalescer.add(Listener(self._may), asked)
        self.lane.wake()

    def _may(self, refusal: bytes) -> None:
        still_waits = self._client.waiter is self and not self.in_flight  # else it is told, or about to be
        if refusal and still_waits and not refusal.startswith(PASSING_ERRORS):
            self._end(refusal)

    def _shape(self, reply: Any) -> bytes:
        if isinstance(reply, Exception):
            return error_line(reply)
        data: bytes = b"".join(reply) if type(reply) is list else reply
        if data != self._nothing and self.gone and self._waiters.release(self.lane, b"", data):
            return self._nothing
        return data

    def answer(self, data: bytes) -> None:
        """What a POP brought."""
        self.in_flight = False
        self._waiters.probed(self)
        served = not (self._gone or data == self._nothing or data.startswith(PASSING_ERRORS))
        if served:
            if not (self.parked or self.timed_out or data[:1] == b"-"):
                self._waiters.hand_over(self)
            self._end(data)
        elif self.timed_out:
            self.stop()
        elif not self._gone:
            self._waiters.park(self)
        self._waiters.popped(self, served)

    def answer_fragments(self, fragments: list[bytes]) -> None:
        """As ``answer``, in pieces."""
        self.answer(b"".join(fragments))

    def wants_the_same(self, other: Waiter) -> bool:
        """Whether what comes for one would be right for the other, to the byte."""
        if self.lane is not other.lane or self._client.session.resp != other._client.session.resp:
            return False
        return self.request._replace(block_ms=other.request.block_ms) == other.request

    def change_places(self, other: Waiter) -> None:
        """Exchange clients, with how long they have waited and are to wait; what is under way for either stays."""
        for waiter in (self, other):
            if waiter._handle is not None:
                waiter._handle.cancel()
                waiter._handle = None
        self._client, other._client = other._client, self._client
        self.request, other.request = other.request, self.request
        self.since, other.since = other.since, self.since
        self.timed_out, other.timed_out = other.timed_out, self.timed_out
        for waiter in (self, other):
            waiter._client.waiter = waiter
            if waiter.parked and not waiter.timed_out:
                waiter.start_timer()

    def undelivered(self, route: Route, data: bytes) -> bool:
        """The client left while messages were on their way to it; whether they are given back."""
        return self._waiters.release(self.lane, route.queue, data)

    def client_gone(self) -> None:
        """Forget this waiter; messages that are on their way to it go back."""
        self._gone = True
        self._leave()

    @property
    def _ends_at(self) -> float:
        assert self.request.block_ms is not None
        return self.since + self.request.block_ms / 1000

    def _ring(self) -> None:
        if time.monotonic() < self._ends_at:
            self.start_timer()
        else:
            self._time_out()

    def _time_out(self) -> None:
        """The time is over.

        One that was parked behind others, and has not asked, asks now: the backend may refuse it (NOPERM, NOQUEUE), and
        it must be told that, not null.
        """
        if not (self.has_asked or self._gone):
            for queue in self.queues:
                self._waiters.wake(queue)  # who came before it is asked before it
            if self.pop():
                self.lane.wake()
        self.stop()

    def _leave(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._waiters.unpark(self)
        self._client.waiter = None

    def _end(self, data: bytes) -> None:
        self._leave()
        self._client.session.finish(data)

    def stop(self) -> None:
        """End the wait: with what a POP under way brings, else with nothing."""
        if self.in_flight:
            self.timed_out = True
        elif not self._gone:
            self._end(self._nothing)


class Waiters:
    """All waiting clients of one worker process."""

    def __init__(
        self, control: Control, state: WorkerState, daemon: bytes, release: Callable[[Lane, bytes, bytes], bool]
    ) -> None:
        self.state = state
        self.release = release
        self._parked: dict[QueueId, dict[Waiter, None]] = {}
        self._waking: dict[QueueId, _Wake] = {}
        #: how many waiters' first POPs are under way, before these stand in line
        self._probing: dict[QueueId, int] = {}
        self._missed: set[QueueId] = set()  # woken while all who wait there were being asked for another queue
        self._stopping = False
        self.registration = Registration(control, daemon, self._parked, self._line, self.wake)

    def _line(self, queue: QueueId) -> Line:
        line = self._parked[queue]
        return len(line), [(waiter.since, waiter.request.wanted) for waiter in islice(line, MOST_IN_ORDER)]

    def block(self, client: Client, request: Request) -> Waiter:
        """Start a wait; the client's session is held until it ends."""
        waiter = Waiter(self, client, client.session.lane, request)
        first = next((next(iter(self._parked[queue])) for queue in waiter.queues if queue in self._parked), None)
        # Behind probes: they will stand in line before it.
        if (first is None or any(queue in self._probing for queue in waiter.queues)) and waiter.pop():
            waiter.is_probing = True
            for queue in waiter.queues:
                self._probing[queue] = self._probing.get(queue, 0) + 1
            waiter.lane.wake()
        else:
            if first is not None and first.lane is waiter.lane and first.queues == waiter.queues:
                waiter.has_asked = first.has_asked
            self.park(waiter)
            if first is not None and not waiter.has_asked and waiter.lane.up:
                waiter.ask_whether_it_may()
        return waiter

    def whose_turn_it_is(self, waiter: Waiter, woken: QueueId) -> tuple[bytes, ...]:
        """Of the queues that a parked MPOP waits for, the woken one, and those in whose lines it is the first."""
        return tuple(
            queue
            for queue in waiter.request.queues
            if (at := (woken[0], queue)) == woken or next(iter(self._parked[at])) is waiter
        )

    def probed(self, waiter: Waiter) -> None:
        """A POP of ``waiter`` was answered; it may have been its first."""
        if waiter.is_probing:
            waiter.is_probing = False
            for queue in waiter.queues:
                self._probing[queue] -= 1
                if not self._probing[queue]:
                    del self._probing[queue]

    def park(self, waiter: Waiter) -> None:
        """Wait for a wake-up, at the end of the line, or where it stood."""
        if self._stopping:
            asyncio.get_running_loop().call_soon(waiter.stop)  # its client is to know of it first
        elif not waiter.parked:
            waiter.parked = True
            waiter.start_timer()
            for queue in waiter.queues:
                self._parked.setdefault(queue, {})[waiter] = None
                self.registration.arm(queue)

    def unpark(self, waiter: Waiter) -> None:
        """The wait is over."""
        if waiter.parked:
            waiter.parked = False
            for queue in waiter.queues:
                line = self._parked[queue]
                del line[waiter]
                if not line:
                    del self._parked[queue]
                    self._missed.discard(queue)
                    self.registration.disarm(queue)
                elif queue not in self._waking:
                    self.registration.arm(queue)  # with one client less

    # ---- waking

    def wake(self, queue: QueueId) -> None:
        """Something may be ready: serve the first in line."""
        wake = self._waking.get(queue)
        if wake is not None:
            wake.again = True
        elif queue in self._parked:
            self._waking[queue] = _Wake()
            self._serve(queue)

    def _serve(self, queue: QueueId) -> None:
        wake = self._waking[queue]
        line = self._parked.get(queue, {})
        wake.again = False
        wake.all_served = True
        lane: Lane | None = None
        some_alone = False
        for waiter in line:  # nobody comes or leaves by being asked
            if waiter.in_flight:  # it is asked for another queue, and who stands behind it waits for that
                self._missed.add(queue)
                break
            # What would overtake: another lane's POPs; and one that joins a call which was opened before an MPOP's.
            if len(wake.asked) == wake.batch or lane not in (None, waiter.lane) or (some_alone and waiter.is_merged):
                break
            if waiter.pop(queue):
                wake.asked.add(waiter)
                lane = waiter.lane
                some_alone = not waiter.is_merged
        if lane is not None:
            lane.wake()  # all at once: a push between the first POP and the others would be for one who came later
        if not wake.asked:
            del self._waking[queue]  # who waits is asked for another queue, or the lane is down, and arms when it is up

    def popped(self, waiter: Waiter, served: bool) -> None:
        """A POP of ``waiter`` was answered; ``served``: it brought something.

        The last one of a wake's batch decides: the next batch is asked for, or the queue is registered again.
        """
        for queue in waiter.queues:
            wake = self._waking.get(queue)
            if wake is None or waiter not in wake.asked:
                continue
            wake.asked.discard(waiter)
            wake.all_served = wake.all_served and served
            if wake.asked:
                continue
            if (wake.all_served or wake.again) and queue in self._parked:
                if wake.all_served:
                    wake.batch = min(wake.batch * 4, _LARGEST_BATCH)
                self._serve(queue)
            else:
                del self._waking[queue]
                if queue in self._parked:
                    self.registration.arm(queue)
        for queue in waiter.queues:
            if queue in self._missed:
                self._missed.discard(queue)
                self.wake(queue)

    def hand_over(self, waiter: Waiter) -> None:
        """A message that came for ``waiter`` goes to the first in line who wants the same; it goes to the end instead.

        It asked at once; those who stand in line by now had asked before, and got nothing.  What is under way for a
        place in line is for whoever stands there when it comes: up to the first place for which nothing is, all move up
        by one, and that place goes to the end.
        """
        for other in self._parked.get(waiter.queues[0], {}):
            if other.wants_the_same(waiter) and not other.gone:
                waiter.change_places(other)
                waiter = other
                if not other.in_flight:
                    break
        if waiter.parked:
            for queue in waiter.queues:
                line = self._parked[queue]
                del line[waiter]
                line[waiter] = None
                self.registration.arm(queue)  # which is told since when who stands in line has waited

    # ---- the end

    def stop_all(self) -> None:
        """Unblock everyone, and who comes from now on (shutdown)."""
        self._stopping = True
        for waiter in {waiter for line in self._parked.values() for waiter in line}:
            waiter.stop()


class _Wake:
    """One wake of a queue under way."""

    def __init__(self) -> None:
        self.batch = _FIRST_BATCH  # how many waiters are asked for at a time
        self.asked: set[Waiter] = set()  # those whose POPs are under way
        self.all_served = True  # every POP of this batch that was answered brought something
        self.again = False  # woken anew meanwhile
