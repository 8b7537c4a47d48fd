"""One client's connection: the I/O shell of a session.

How it ends:

    it sends no more (eof_received) ──▶ what it sent is still to take effect? ─no─▶ closed ──▶ connection_lost
                                          └yes─▶ ending: is answered, for _ENDING_S at most ─▶ closed ──┘
    its connection is lost (connection_lost) ──▶ the same, of one that is held and reads? ─no─▶ ended (_end)
                                                   └yes─▶ ending, in worker.ending ─▶ ended: leaves its lanes
    the daemon closes it (close) ──▶ once all is written, or after _STUCK_S without progress ──▶ connection_lost

A private lane ends by itself, when it has sent all (PrivateLane.client_left).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import sys
from collections.abc import Callable
from enum import Flag, auto
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from valqd.commands.request import Request
from valqd.errors import BackendDown, CommandError, NotAuthenticated
from valqd.io.outbox import Outgoing
from valqd.io.private_lane import PrivateLane
from valqd.io.steps import run_steps
from valqd.protocol.client_kill import ClientInfo
from valqd.protocol.host import Identity
from valqd.protocol.session import Session

if TYPE_CHECKING:
    from valqd.io.shared_lane import SharedLane
    from valqd.io.waiters import Waiter
    from valqd.io.worker import Worker

#: While a session holds, its client is not read from once this much waits.
_HELD_BYTES = 64 * 1024
#: The same while it waits for others: that it has left is only seen once all is read that was on its way before.
_WAITING_BYTES = 4 * 1024 * 1024
#: How long, at most, a client that has hung up is owed answers.
_ENDING_S = 5.0
_ENDING_TICK_S, _LONGEST_ENDING_TICK_S = 0.01, 0.3
#: How often is looked whether a client that waits, and is not read from, has left.
_LOOK_S = 1.0
#: How long what a client sends is read and dropped after it was closed gently.
_LINGER_S = 1.0
#: A client that is being closed, and takes nothing of what it is still owed for so long, loses it.
_STUCK_S = 5.0
#: Many write a whole pipeline before they read.  So Valkey's answers are kept for clients that do not read yet: for so
#: many of a worker's, and together so many bytes.  Beyond that, who does not read is not read from.  (Who only sends
#: VALQ commands is not from the first: it would take messages that it does not read from others, who would.)
_MOST_SPILLING = 64
_SPILLED_BYTES = 128 * 1024 * 1024
#: Seen even when unread bytes come before it; systems other than Linux cannot tell.
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)
#: A read of this size means that more is waiting.
_LARGE_READ_BYTES = 128 * 1024
#: A client's only command, if no larger, need not wait for room in its lane.
_SMALL_READ_BYTES = 4 * 1024

log = logging.getLogger(__name__)


class Stop(Flag):
    """Why a client is not read from; it is read from again when no reason is left."""

    NONE = 0
    UNREAD = auto()  #: it does not read its replies: too much is unsent
    LANE_FULL = auto()  #: its shared lane has too much unanswered
    PRIVATE_FULL = auto()  #: the backend does not take what its private lane sends
    HELD = auto()  #: its session holds, and enough waits already
    SHUTDOWN = auto()  #: the daemon stops
    TURN = auto()  #: it sent much: others have their turn


def _address(name: str | tuple[Any, ...] | None) -> bytes:
    """A socket's name as Valkey shows it."""
    if name is None:  # it was gone before it was accepted
        return b"?:0"
    if isinstance(name, str):  # a unix socket's
        return b"%b:0" % os.fsencode(name)
    host, port = name[:2]
    if "." in host:
        host = host.removeprefix("::ffff:")  # an IPv4 client, on a socket that takes both
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()


class Client(Outgoing, asyncio.Protocol):
    """A client of the daemon.  Bounds: what it may have unread, unsent or held is limited by not reading from it."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.outbox)
        self._worker = worker
        #: Whether what is written now does not reach the client: its connection was reset, or is being closed.
        self.is_closing: Callable[[], bool]
        self._stop = Stop.NONE
        self._lane: SharedLane | None = None
        self.private_lane: PrivateLane | None = None
        self.waiter: Waiter | None = None
        self._steps: asyncio.Task[None] | None = None  # goes on to its end without the client, as one call would
        self._ending: asyncio.Task[None] | None = None
        self._is_lost = False  # its connection is
        self._looking: asyncio.TimerHandle | None = None
        self.is_spilling = False  #: it is read from, though it has yet to read much

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept, or answer as Valkey does when there are too many clients."""
        transport = self.transport = cast(asyncio.Transport, transport)
        self.is_closing = transport.is_closing
        self._since = self.written_at = self._worker.loop.time()
        self.session = Session(self, self._worker.state, self._worker.next_client_id())
        log.debug("client %d: from %s", self.session.client_id, transport.get_extra_info("peername"))
        if len(self._worker.clients) >= (most := self._worker.settings.max_clients):
            self._worker.control.complaints.say("clients are turned away", f"max_clients is {most}")
            transport.write(b"-ERR max number of clients reached\r\n")
            self.session.close()
            return
        self._worker.clients.add(self)
        if not self._worker.default_user.is_known:
            self.session.hold()
            self._worker.default_user.ask(self._default_user_known)

    def _default_user_known(self) -> None:
        if not self.session.closed:
            self.session.begin()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        session = self.session
        if session.closed:
            return
        session.receive(data)
        if self.is_spilling:
            self.stop_if_unread()
        if len(data) >= _LARGE_READ_BYTES:  # libuv would read on, up to 32 times, before it looks at anybody else
            self._set_stop(Stop.TURN, True)
            self._worker.loop.call_soon(self._set_stop, Stop.TURN, False)
        lane = self._lane
        if (
            lane is not None
            and (session.pending > 1 or len(data) > _SMALL_READ_BYTES)
            and (lane.relay_lanes[session.resp] if session.relayed else lane).full_for(self)
        ):
            self._set_stop(Stop.LANE_FULL, True)
        if session.held and not self._may_send_more:
            self._set_stop(Stop.HELD, True)

    def eof_received(self) -> bool:
        """It sends no more, and most likely is gone: no messages for it, but other answers that are on their way.

        What waits (POP … BLOCK, or BLPOP in Valkey) would take something for nobody: then it is closed at once.
        """
        self.session.left()
        self.flush()
        if not self._may_end_later:
            return False
        self._ending = asyncio.ensure_future(self._close_when_answered())
        return True

    @property
    def _may_end_later(self) -> bool:
        """Whether what it sent is still to take effect, as in Valkey, though it has hung up."""
        private = self.session.private
        return self.is_owed and not (self.waiter is not None or private.may_block or private.streaming)

    async def _close_when_answered(self) -> None:
        tick_s = _ENDING_TICK_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDING_S):
                while self.is_owed:
                    await asyncio.sleep(tick_s)
                    tick_s = min(2 * tick_s, _LONGEST_ENDING_TICK_S)
        self.session.close()
        if self._is_lost:
            self._end()

    @property
    def is_owed(self) -> bool:
        """Whether anything that it sent is still to be answered."""
        session, private = self.session, self.session.private
        awaits = session.pending > 0 or session.held or private.outstanding > 0 or private.is_broken
        return awaits and not session.closed

    def pause_writing(self) -> None:
        """The client does not read, for now."""
        self.is_spilling = self.session.passes_through and len(self._worker.spilling) < _MOST_SPILLING
        if self.is_spilling:
            self._worker.spilling.add(self)
        else:
            self._stop_unread()

    def stop_if_unread(self) -> None:
        """Stop a client that is spilling, when all that are have too much unread."""
        unread = sum(client.transport.get_write_buffer_size() for client in self._worker.spilling)
        if unread > _SPILLED_BYTES:
            self._stop_unread()

    def _stop_unread(self) -> None:
        """Stop reading from it, and from the backend for it."""
        self.session.set_unread(True)
        self._set_stop(Stop.UNREAD, True)
        if self.private_lane is not None:
            self.private_lane.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._end_spilling()
        if Stop.UNREAD not in self._stop:
            return
        self._set_stop(Stop.UNREAD, False)
        self.session.set_unread(False)
        if self.private_lane is not None:
            self.private_lane.resume_reading()

    def _end_spilling(self) -> None:
        self.is_spilling = False
        self._worker.spilling.discard(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        log.debug("client %d: gone", self.session.client_id)
        self._is_lost = True
        self._end_spilling()
        self._worker.clients.discard(self)
        self.session.left()
        reads = Stop.UNREAD not in self._stop
        if self._ending is None and self.session.held and reads and self._may_end_later:
            self._ending = asyncio.ensure_future(self._close_when_answered())
        if self._is_ending:
            self._worker.ending.add(self)
        else:
            self._end()

    @property
    def _is_ending(self) -> bool:
        return self._ending is not None and not self._ending.done()

    def _end(self) -> None:
        """Nothing of what it sent is still to take effect."""
        self._worker.ending.discard(self)
        self.session.end()
        self.session.framer.drop()  # client and session refer to each other: Python may free them much later
        if self._looking is not None:
            self._looking.cancel()
        self._leave_lane()
        if self.private_lane is not None:
            self.private_lane.client_left()
        if self.waiter is not None:
            self.waiter.client_gone()

    def _set_stop(self, reason: Stop, on: bool) -> None:
        before = self._stop
        self._stop = before | reason if on else before & ~reason
        if bool(before) != bool(self._stop) and not self.transport.is_closing():
            if self._stop:
                self.transport.pause_reading()
                if self._looking is None:
                    self._look_later()
            else:
                self.transport.resume_reading()

    def _look_later(self) -> None:
        self._looking = self._worker.loop.call_later(_LOOK_S, self._look_whether_left)

    def _look_whether_left(self) -> None:
        """Drop a client that waits, and has left.

        While it is not read from, the loop does not tell that.  What waits for it, here or in Valkey, would take a
        message for nobody.
        """
        self._looking = None
        if self._stop and not (self._is_waiting and self.drop_if_left()):
            self._look_later()

    @property
    def _is_waiting(self) -> bool:
        """Whether it waits for what others do, and would take a message if it came."""
        return self.waiter is not None or self.session.private.may_block

    @property
    def _may_send_more(self) -> bool:
        """Whether a client whose session holds is still read from."""
        most = _WAITING_BYTES if self._is_waiting else _HELD_BYTES
        return self.session.framer.buffered_bytes <= most

    # ---- Host

    def close(self, *, gently: bool = False) -> None:
        """Close once everything written has left.

        ``gently``: to close upon bytes that were not read would take from the client what it has not read.
        """
        self.flush()
        if self.waiter is not None:
            self.waiter.client_gone()
        if not gently:
            self._close_transport()
            return
        self._set_stop(self._stop, False)  # what it sends from now on is dropped
        with contextlib.suppress(OSError, RuntimeError):
            self.transport.write_eof()
        self._worker.loop.call_later(_LINGER_S, self._close_transport)

    def _close_transport(self) -> None:
        self.transport.close()
        self._abort_when_stuck(sys.maxsize)

    def _abort_when_stuck(self, unsent_before: int) -> None:
        """Without this, one that does not read would keep its place for as long as it likes."""
        unsent = self.transport.get_write_buffer_size()
        if unsent >= unsent_before:
            self.transport.abort()
        elif unsent:
            self._worker.loop.call_later(_STUCK_S, self._abort_when_stuck, unsent)

    def enter_lane(self, identity: Identity) -> SharedLane:
        """Leave the shared lane that it has, for that of an identity that was proved."""
        lane = self._worker.lanes.get(identity)
        lane.users += 1
        if self._lane is not None:
            if lane is not self._lane:
                name = self._lane.forget_name(self.session)
                if name is not None:
                    lane.take_name(self.session, name)
            self._worker.lanes.leave(self._lane)
        self._lane = lane
        if self._is_lost and not self._is_ending:  # its SELECT was answered too late: it will not leave this one
            self._leave_lane()
        return lane

    def _leave_lane(self) -> None:
        if self._lane is not None:
            if Stop.SHUTDOWN not in self._stop:  # the lane goes too, and a backend that hangs is not to be waited for
                self._lane.forget_name(self.session)
            self._worker.lanes.leave(self._lane)
            self._lane = None

    def prove(self, identity: Identity, request: bytes, done: Callable[[bytes | None], None]) -> None:
        """Have the backend check an identity."""
        self._worker.lanes.prove(identity, request, done)

    def open_private(self, greeting: bytes) -> None:
        """Connect a private lane."""
        self.private_lane = PrivateLane(self, self._worker, greeting)
        if self._lane is not None:
            self._lane.forget_name(self.session)

    def greet_private(self, greeting: bytes) -> None:
        """Send more of the private lane's greeting."""
        if self.private_lane is not None:
            self.private_lane.greet(greeting)

    def private_greeted(self) -> None:
        """What the client sends may follow the greeting."""
        if self.private_lane is not None:
            self.private_lane.greeted()

    def close_private(self) -> bool:
        """Close the private lane, over which nothing is due; False if it was lost, as its session will hear."""
        lane = self.private_lane
        if lane is None or lane.is_lost:
            return False
        lane.close()
        self.private_lane = None
        return True

    def refuse_private(self) -> None:
        """No private lane for a client that has yet to authenticate."""
        if self.close_private():
            self._private_gone(NotAuthenticated(), sent=False)

    def send_private(self, data: bytes) -> None:
        """Send on the private lane."""
        if self.private_lane is not None:  # else: Valkey has closed it, and the client is being closed
            self.private_lane.send(data)

    def block(self, request: Request) -> None:
        """Run a POP or MPOP that may wait."""
        if self.session.gone:  # it has hung up before its turn came, and would take something for nobody
            self.session.close()
        else:
            self.waiter = self._worker.waiters.block(self, request)

    def run_steps(self, request: Request) -> None:
        """Run a command that takes several calls."""
        lane = self._lane
        assert lane is not None
        lane.users += 1  # it stays open to the last step, though this client leave
        self._steps = asyncio.ensure_future(run_steps(self.session, request))
        self._steps.add_done_callback(lambda _: self._worker.lanes.leave(lane))

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` in the next turn of the loop."""
        self._worker.loop.call_soon(lambda: None if self.session.closed else callback())

    def backend_run(self) -> str:
        """Which process the backend is."""
        return self._worker.control.run_id

    def load_library(self, done: Callable[[bytes | None], None]) -> None:
        """Make sure that the backend has the functions."""
        self._worker.loader.load(done)

    def clients_paused(self, for_ms: int) -> None:
        """CLIENT PAUSE and UNPAUSE."""
        self._worker.clients_paused(for_ms)

    def kill_clients(self, is_meant: Callable[[ClientInfo], bool]) -> int:
        """Close clients for a CLIENT KILL."""
        return self._worker.kill_clients(is_meant)

    def release(self, queue: bytes, data: bytes) -> bool:
        """Give popped messages back that could not be handed over."""
        return self._worker.release(self.session.lane, queue, data)

    # ---- what the worker asks

    def info(self) -> ClientInfo:
        """What Valkey would know of it."""
        session, now = self.session, self._worker.loop.time()
        # What it has sent is under way, or its answer leaves in this turn; one that waits has been idle since it does.
        is_served = bool(self._parts) or (self.is_owed and self.waiter is None and Stop.UNREAD not in self._stop)
        here = self.transport.get_extra_info("sockname")
        # On a unix socket both are its path, whatever the client's own end is bound to (bytes: an abstract name).
        there = here if isinstance(here, str) else self.transport.get_extra_info("peername")
        return ClientInfo(
            id=session.client_id,
            addr=_address(there),
            laddr=_address(here),
            user=session.identity.user or b"default",
            name=session.client_name,
            lib_name=session.client_info.get(b"LIB-NAME", b""),
            lib_ver=session.client_info.get(b"LIB-VER", b""),
            db=session.identity.db,
            age_s=now - self._since,
            idle_s=0.0 if is_served else now - max(self.written_at, self.waiter.since if self.waiter else 0),
            blocked=self.waiter is not None,
        )

    def stop_reading(self) -> None:
        """Take no further commands (shutdown)."""
        self._set_stop(Stop.SHUTDOWN, True)

    @property
    def has_hung_up(self) -> bool:
        """Whether the system knows that it has closed its connection, or sends no more."""
        return bool(self._peer.poll(0))

    @cached_property
    def _peer(self) -> select.poll:
        peer = select.poll()
        peer.register(self.transport.get_extra_info("socket"), _PEER_CLOSED)
        return peer

    def drop_if_left(self) -> bool:
        """Abort its connection if it has closed it while it is not read from; whether it was so.

        Of a client that is read from, the loop tells by itself.
        """
        if not (self._stop and self.has_hung_up):
            return False
        self.transport.abort()
        return True

    # ---- what lanes tell

    def lane_has_room(self) -> None:
        """The shared lane takes more again."""
        self._set_stop(Stop.LANE_FULL, False)

    def private_full(self, full: bool) -> None:
        """The private lane's backend takes no more, or takes more again."""
        self._set_stop(Stop.PRIVATE_FULL, full)

    def private_lost(self, backend_down: bool, sent: bool) -> None:
        """The private lane's connection is gone: with the backend, or because Valkey closed it.

        ``sent``: it had been connected, so that what was sent may have been applied.
        """
        self.private_lane = None
        if self.session.closed:
            return
        works_on_queues = self.waiter is not None or self.session.private.calls.are_due
        if backend_down and (works_on_queues or not self._worker.state.closes_on_loss):
            self._private_gone(BackendDown(under_way=sent), sent)
        else:
            self.session.close(gently=True)

    def _private_gone(self, error: CommandError, sent: bool) -> None:
        """There is no private lane any more: what was to be answered by it gets ``error``."""
        self._set_stop(Stop.PRIVATE_FULL, False)
        self.session.private.lost(error, sent)

    def failed(self, error: Exception) -> None:
        """A mistake of the daemon's, for which nobody else is to suffer."""
        log.error("client %d: its commands could not be taken", self.session.client_id, exc_info=error)
        self.session.close()

    def session_resumed(self) -> None:
        """A hold has ended; maybe another has begun, in which more may be sent."""
        if not self.session.held or self._may_send_more:
            self._set_stop(Stop.HELD, False)
