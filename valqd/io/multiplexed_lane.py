"""A multiplexed backend connection, of an identity that clients proved to be.

    sessions ──join──▶ Coalescer ──one write a turn──▶ Valkey ──replies in order──▶ Coalescer ──▶ sessions

A lane authenticates as its clients did, never as the daemon.  When its connection is lost, calls that were sent get an
error that says they may have been applied, others get NOBACKEND; the lane reconnects by itself.  Bounds: beyond
MAX_BACKLOG_BYTES of requests, or MAX_BACKLOG_CALLS, unanswered, clients that send more are not read from until half of
it is gone.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from valqd.errors import BackendDown, CommandError, NotAuthenticated, Refused
from valqd.io.backend import CONNECT_TIMEOUT_S, TURNS_AWAY, ReplyProtocol, is_turned_away
from valqd.io.busy_wait import BusyWait
from valqd.io.outbox import write_pieces
from valqd.protocol.calls import error_line
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.host import Identity
from valqd.protocol.lone_calls import Listener, ProofCall
from valqd.protocol.requests import encode_own, encode_request

if TYPE_CHECKING:
    from valqd.io.client import Client
    from valqd.io.lanes import SharedLanes

MAX_BACKLOG_BYTES = 32 << 20
MAX_BACKLOG_CALLS = 10_000
_RETRY_S = (0.02, 0.05, 0.1, 0.2, 0.5)
#: A connection that lived this long is worth an attempt without a pause.
_STABLE_S = 0.2
_HELLO = encode_own([b"HELLO"])
_NO_CONNECTION = "clients' commands cannot reach the backend"
#: When more clients than that sent something in a turn, the next turn's first command waits for the others.
_FEW = 2
#: Large bodies of one turn are sent once there are as many bytes of them.
_MANY_BYTES = 256 << 10


class LaneConnection(ReplyProtocol):
    """The connection of a lane, which opens another when it is lost."""

    def __init__(self, lane: MultiplexedLane) -> None:
        super().__init__()
        self._lane = lane
        self.ended = asyncio.Event()
        self.since = lane.loop.time()
        self.is_turned_away = False

    def reply_received(self, reply: Any) -> None:
        """One whole reply."""
        self._lane.reply_received(self, reply)

    def data_received(self, data: bytes) -> None:
        """Parse, and hand on each reply in order."""
        super().data_received(data)
        self._lane.batch_done()

    def connection_lost(self, exc: Exception | None) -> None:
        """The backend closed, or went away."""
        self._lane.connection_lost(self)
        self.ended.set()


class MultiplexedLane(ABC):
    """One identity's lane.  ``up`` is True while its connection stands, and before the first attempt has failed.

    An identity that the backend refuses has no lane any more.  But clients that have yet to authenticate keep theirs,
    down, when it asks for a password.
    """

    def __init__(self, lanes: SharedLanes, identity: Identity) -> None:
        self._lanes = lanes
        self.identity = identity
        self.coalescer = Coalescer()
        self.up = True
        self.why_down: CommandError = BackendDown()
        self.loop = lanes.loop
        self.refused: bytes | None = None  #: the backend's error reply to this identity
        self._connection: LaneConnection | None = None
        self._greeting_unsent: list[bytes] = []
        self._greeting_due = 0  # replies to it still to come
        self._errors: list[bytes | None] = []  # what they were so far
        self.flush_planned = False
        self._busy_wait = BusyWait(self.loop, self.coalescer, lanes.may_busy_wait)
        self._paused: set[Client] = set()  # that wait for room
        self._proofs: list[Callable[[bytes | None], None]] = []
        self._closed = False
        self.needed = asyncio.Event()  #: there is something to send, and no connection that it can be sent on
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect, and stay so."""
        if self._task is None and not self._closed:
            self._task = asyncio.ensure_future(self._stay_connected())

    @property
    @abstractmethod
    def is_used(self) -> bool:
        """Whether clients have it."""

    def greeting(self) -> list[list[bytes]]:
        """The requests that a new connection begins with."""
        return self.identity.greeting()

    @abstractmethod
    def new_connection(self) -> LaneConnection:
        """What is to be connected."""

    @abstractmethod
    async def rest(self) -> None:
        """After its connection was lost: wait until another is to be opened."""

    @abstractmethod
    def tried(self) -> None:
        """It is connected, or cannot be."""

    @abstractmethod
    def ended(self) -> None:
        """The backend has refused its identity for good."""

    # ---- connection

    async def _stay_connected(self) -> None:
        attempt = 0
        while not self._closed:
            connection = await self._connect()
            if connection is None or connection.ended.is_set():
                self._down(BackendDown())
            else:
                self._greet(connection)
                giving_up = self.loop.call_later(CONNECT_TIMEOUT_S, self._give_up_silent, connection)
                await connection.ended.wait()
                giving_up.cancel()
                if self.refused is not None:
                    if not (self.is_used and self.refused.startswith(b"-NOAUTH")):
                        self._down(Refused(self.refused))
                        self.ended()
                        return
                    self.refused = None
                    self._down(NotAuthenticated())
                elif self.loop.time() - connection.since > _STABLE_S:
                    attempt = 0  # one lost connection need not mean that the backend is down: try at once
                    await self.rest()
                    continue
            await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
            attempt += 1

    async def _connect(self) -> LaneConnection | None:
        """A new connection; None if there is none to be had."""
        connection = self.new_connection()
        try:
            await self._lanes.backend.connect(lambda: connection)
        except OSError as error:
            self._lanes.complaints.say(_NO_CONNECTION, error.strerror or str(error) or "no answer")
            return None
        self._lanes.complaints.over(_NO_CONNECTION)
        return connection

    def _greet(self, connection: LaneConnection) -> None:
        """Send the identity; calls follow when it is accepted."""
        self._connection = connection
        requests = self.greeting() or [[b"PING"]]  # has the default user a password by now?
        self._greeting_due = len(requests)
        self._errors = []
        encode = encode_request if self._proofs else encode_own  # MONITOR shows what clients ask for
        self._greeting_unsent = list(map(encode, requests))
        self._send_greeting(connection)

    def _send_greeting(self, connection: LaneConnection) -> None:
        """All that is left of it, or what must be answered first."""
        left = len(self._greeting_unsent)
        now = left if self._errors else self.identity.sent_first(left)
        connection.transport.write(b"".join(self._greeting_unsent[:now]))
        del self._greeting_unsent[:now]

    def _give_up_silent(self, connection: LaneConnection) -> None:
        """Who accepts connections may have no backend behind it, and never answer: the next one may be answered."""
        if connection is self._connection and self._greeting_due:
            connection.transport.abort()

    def _greeted(self) -> None:
        refused = self.identity.refusal(self._errors)
        if refused is not None and not self.greeting() and not refused.startswith(b"-NOAUTH"):
            refused = None  # a user who may not PING
        if refused is None:
            self.up = True
            self._answer_proofs(None)
            self._plan_flush()
            self.tried()
            return
        if refused.startswith(b"-BUSY "):  # Valkey before 9 lets nobody SELECT while a script is over its time
            self._answer_proofs(refused)
            self._down(BackendDown())
        else:
            self.refused = refused
        if self._connection is not None:
            self._connection.reset()

    @property
    def is_greeting(self) -> bool:
        """Whether the backend has yet to accept its connection's identity."""
        return self._greeting_due > 0

    @property
    def is_over(self) -> bool:
        """Whether what is joined to it is not sent any more: it was closed, or the backend refuses its identity."""
        return self._closed or self.refused is not None

    @property
    def busy(self) -> bool:
        """Whether it owes an answer."""
        return bool(self._proofs or self.coalescer.sent or not self.coalescer.idle)

    def _answer_proofs(self, error: bytes | None) -> None:
        proofs, self._proofs = self._proofs, []
        for done in proofs:
            done(error)

    def _down(self, why: CommandError) -> None:
        self.up = False  # first: whoever is answered now must join nothing any more
        self.why_down = why
        self.coalescer.fail_unsent(why.resp())
        self._answer_proofs(why.resp())
        self._resume_paused()
        self._lanes.outbox.flush()
        self.tried()

    def fail_all(self, why: CommandError) -> None:
        """It is about to be closed: answer what joined it."""
        self.coalescer.fail_sent(BackendDown(under_way=True).resp())
        self._down(why)

    def connection_lost(self, connection: LaneConnection) -> None:
        """The backend closed, or went away."""
        if connection is not self._connection:
            return
        self._connection = None
        self.coalescer.fail_sent(BackendDown(under_way=not connection.is_turned_away).resp())
        if connection.is_turned_away or self._greeting_due:  # who accepts connections may have no backend behind it
            self._down(BackendDown())
        self._resume_paused()
        self._lanes.outbox.flush()

    def close(self) -> None:
        """Stop for good."""
        self._closed = True
        self.up = False
        if self._task is not None:
            self._task.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.transport.abort()

    # ---- replies

    def reply_received(self, connection: LaneConnection, reply: Any) -> None:
        """One reply of the backend, in order."""
        if isinstance(reply, Exception) and is_turned_away(error_line(reply)):
            connection.is_turned_away = True
            self._lanes.complaints.say(*TURNS_AWAY)
        elif self._greeting_due:
            self._greeting_due -= 1
            self._errors.append(error_line(reply) if isinstance(reply, Exception) else None)
            if not self._greeting_due:
                self._greeted()
            elif self._greeting_unsent:
                self._send_greeting(connection)
        elif self.coalescer.sent:
            self.coalescer.deliver(reply)
        # else: an error that the backend sends before it closes the connection

    def batch_done(self) -> None:
        """All replies of one read were dealt out."""
        coalescer = self.coalescer
        if coalescer.recovering:
            if coalescer.must_resend:
                self._lanes.loader.load(self._resend)
        elif not (coalescer.idle or self.flush_planned):  # what came while it was recovering
            self._plan_flush()
        self._busy_wait.answered()
        if self._paused and self._half_empty():
            self._resume_paused()
        self._lanes.outbox.flush_answers()

    def _resend(self, load_failure: bytes | None) -> None:
        if not self.coalescer.must_resend:  # the connection was lost meanwhile
            return
        if load_failure is not None:
            self.coalescer.give_up(load_failure)
        elif self._connection is not None and (pieces := self.coalescer.resend()):
            write_pieces(self._connection.transport, pieces)
        self._plan_flush()

    # ---- requests

    def wake(self) -> None:
        """Calls were joined: send them in this turn."""
        coalescer = self.coalescer
        if coalescer.unsent_large_bytes >= _MANY_BYTES:
            self._flush()  # while they are in the processor's caches, and the backend has something to do meanwhile
        elif self.flush_planned:
            return
        elif coalescer.sent or coalescer.crowd > _FEW:
            self._plan_flush()  # at its end, with what others send
        else:
            self._flush()  # the backend is idle: every microsecond of waiting would be one of doing nothing

    def is_ready(self) -> bool:
        """Whether its connection stands and was accepted; if there is none, one is opened for who asks next."""
        if self._connection is None:
            self.start()
            self.needed.set()
        return self._connection is not None and not self._greeting_due and self.refused is None

    def _plan_flush(self) -> None:
        self.flush_planned = True
        self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self.flush_planned = False
        coalescer = self.coalescer
        connection = self._connection
        if connection is None or self._greeting_due or self.refused is not None:
            self.start()
            self.needed.set()
            return  # sent when a connection is ready
        if coalescer.recovering:
            return  # sent when that is over
        if not coalescer.idle:
            was_idle = not coalescer.sent
            write_pieces(connection.transport, coalescer.take())
            self._busy_wait.sent(was_idle)

    def _half_empty(self) -> bool:
        coalescer = self.coalescer
        return coalescer.backlog_bytes < MAX_BACKLOG_BYTES // 2 and len(coalescer.sent) < MAX_BACKLOG_CALLS // 2

    def full_for(self, client: Client) -> bool:
        """Whether ``client`` must wait; it is told by ``lane_has_room``."""
        coalescer = self.coalescer
        if coalescer.backlog_bytes < MAX_BACKLOG_BYTES and len(coalescer.sent) < MAX_BACKLOG_CALLS:
            return False
        self._paused.add(client)
        return True

    def _resume_paused(self) -> None:
        paused, self._paused = self._paused, set()
        for client in paused:
            client.lane_has_room()

    # ---- identities

    def prove(self, request: bytes, done: Callable[[bytes | None], None]) -> None:
        """Have the backend check the identity (again); ``done`` gets its error reply or None."""
        if self.refused is not None:
            done(self.refused)
        elif self._connection is None or self._greeting_due:
            self._proofs.append(done)
        else:
            who = Listener(lambda error: done(error or None))
            self.coalescer.add(who, ProofCall(request + _HELLO))
            self.wake()
