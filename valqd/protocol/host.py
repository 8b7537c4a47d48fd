"""What a session stands on: the identity it acts as, its I/O shell, and what all sessions of a worker share."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from valqd.commands.request import Request
from valqd.errors import CommandError
from valqd.protocol.client_kill import ClientInfo
from valqd.protocol.coalescer import Coalescer, Routes
from valqd.protocol.fastpath import Templates

#: Combinations of queues whose turns are remembered; beyond it all begin anew.
_MAX_TURNS = 10_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose commands a lane carries: the ACL user that the client proved to be, and its database."""

    user: bytes | None = None
    password: bytes | None = None
    db: int = 0
    db_first: bool = False  #: the client selected its database as the user that it was before AUTH

    def as_user(self, user: bytes | None, password: bytes) -> Identity:
        """The same client after AUTH."""
        return Identity(user, password, self.db, db_first=self.db > 0)

    def in_db(self, db: int) -> Identity:
        """The same client after SELECT."""
        return replace(self, db=db, db_first=False)

    def greeting(self) -> list[list[bytes]]:
        """The requests that make a new backend connection this identity's."""
        select = [b"SELECT", b"%d" % self.db]
        requests = [select] if self.db_first else []
        if self.password is not None:
            requests.append([b"AUTH", *([self.user] if self.user is not None else []), self.password])
        if self.db:
            requests.append(select)
        return requests

    def sent_first(self, count: int) -> int:
        """How many of ``count`` requests, the greeting and what follows it, are sent before one is answered.

        Valkey before 9 leaves out the error of a refused AUTH while it has others to send, of a SELECT before it.
        """
        return 1 if self.db_first else count

    def refusal(self, errors: list[bytes | None]) -> bytes | None:
        """Why the backend refuses this identity, or None.

        ``errors`` holds, for each request of the greeting, its error reply or None.  With ``db_first``, SELECT was sent
        before and after AUTH: perhaps only one of the two users has the right to it, so one success is enough.
        """
        if self.db_first:
            selected, *errors = errors
            if selected is None:
                errors = errors[:1]
        return next(filter(None, errors), None)


class CallLane(Protocol):
    """A multiplexed backend connection, as far as calls are sent on it."""

    coalescer: Coalescer
    up: bool  #: False: it has no connection, and nothing may be joined
    flush_planned: bool  #: what is joined now is sent in this turn without ``wake``

    def wake(self) -> None:
        """Calls were joined: send them in this turn of the loop."""


class RelayLane(CallLane, Protocol):
    """One for simple foreign commands, whose calls are RelayCalls."""

    def is_ready(self) -> bool:
        """Whether its connection stands and was accepted; if there is none, one is opened for who asks next."""


class Lane(CallLane, Protocol):
    """The one of an identity, for VALQ commands and handshakes."""

    identity: Identity
    why_down: CommandError  #: what to answer at once when it is not ``up``
    relays: bool  #: whether simple foreign commands may take ``relay_lanes``
    #: the name that each session gave while it had no private lane, oldest first; the connection bears the last one
    names: dict[object, bytes]

    @property
    def relay_lanes(self) -> Mapping[int, RelayLane]:
        """Those of the same identity, by protocol version."""

    def take_name(self, session: object, name: bytes) -> None:
        """A session's name, which is what the lane is called from now on."""


class Host(Protocol):
    """What the session asks of its I/O shell."""

    def write(self, data: bytes) -> None:
        """Send to the client, at the end of this turn of the loop at the latest."""

    def write_now(self, data: bytes) -> None:
        """Send at once what the private lane brought, behind what ``write`` was given for this client.

        While there are private lanes, answers of shared lanes leave later, at the end of the turn.  So when Valkey
        tells one client that a key has changed (client side caching) and answers the command of another that changed
        it, the first hears of it first.
        """

    def close(self, *, gently: bool) -> None:
        """Close the client's connection when everything written has left.  For ``Session.close`` alone.

        ``gently``: it may still be sending, and is to read what was written all the same.
        """

    @property
    def is_closing(self) -> Callable[[], bool]:
        """Tells whether what is written now does not reach the client."""

    def enter_lane(self, identity: Identity) -> Lane:
        """The shared lane of an identity that was proved: this client's from now on, in place of the one before."""

    def prove(self, identity: Identity, request: bytes, done: Callable[[bytes | None], None]) -> None:
        """Have the backend check an identity; ``done`` gets its error reply, or None.

        ``request`` is what the client sent to prove it (AUTH or SELECT).
        """

    def backend_run(self) -> str:
        """Which process the backend is, as far as is known: another one after a restart or a failover."""

    def open_private(self, greeting: bytes) -> None:
        """Connect a private lane, and send ``greeting``; what ``send_private`` is given waits for ``private_greeted``.

        If there is no connection to be had, or it is lost, ``PrivateSide.lost`` is to be called.
        """

    def greet_private(self, greeting: bytes) -> None:
        """Send the rest of the greeting, which had to wait for the answer to its first request."""

    def private_greeted(self) -> None:
        """The greeting was accepted: send what waits for that."""

    def refuse_private(self) -> None:
        """The backend wants a password that this client has not given: close the lane, and fail what waits (NOAUTH)."""

    def send_private(self, data: bytes) -> None:
        """Send on the private lane."""

    def close_private(self) -> bool:
        """Close the private lane, over which nothing is due; False if it was lost, as ``PrivateSide`` is to hear."""

    def block(self, request: Request) -> None:
        """Run a POP or MPOP that may wait.  The session holds; the answer goes to ``Session.finish``."""

    def run_steps(self, request: Request) -> None:
        """Run a command that takes several calls.  The session holds; the answer goes to ``Session.finish``."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` in the next turn of the loop, unless the client is gone by then."""

    def load_library(self, done: Callable[[bytes | None], None]) -> None:
        """Make sure that the backend has the functions; ``done`` gets why that failed, as an error reply, or None."""

    def release(self, queue: bytes, data: bytes) -> bool:
        """Give the messages in ``data``, replies to POPs of a client that is gone, back to ``queue``.

        False: they have no receipts, and are lost unless the client reads all the same.
        Empty ``queue``: of MPOP, whose maps name the queue of each message.
        """

    def clients_paused(self, for_ms: int) -> None:
        """The client's CLIENT PAUSE was accepted, for so many ms; 0: UNPAUSE."""

    def kill_clients(self, is_meant: Callable[[ClientInfo], bool]) -> int:
        """Close this worker's clients that have no private lane and that ``is_meant`` picks out; how many."""

    def failed(self, error: Exception) -> None:
        """What the client sent could not be taken, by a mistake of the daemon's: log it, and close the client."""

    def session_resumed(self) -> None:
        """A hold has ended, and maybe another begun: a client that was not read from because of it may be again."""


class WorkerState:
    """What all sessions of a worker share."""

    def __init__(self, auto_create: bytes, max_body_bytes: int, first_identity: Identity) -> None:
        self.first_identity = first_identity  # of a client that has just connected
        self.auto_create = auto_create
        self.max_body_bytes = max_body_bytes  # the least of the setting and of what the backend takes
        self.routes = Routes(auto_create)
        self.templates = {resp: Templates(resp) for resp in (2, 3)}
        self._turns: dict[int, int] = {}  # of MPOP … FAIR, by the hash of its queues
        self.password_needed: bool | None = None  # whether a client has to authenticate first; None: not known yet
        #: False during a CLIENT PAUSE: a simple command that it holds back would hold up all others of a relay lane.
        #: Always with ``closes_on_loss``: a relay lane that is lost is many clients'.
        self.relaying = True
        self.closes_on_loss = False  # clients whose command is not a VALQ one, when the backend is away

    def in_turn(self, queues: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The queues, each time beginning with the next one, and the others at random.

        In order, the turn of an empty queue would always fall to the same one, the next that has something.
        """
        if len(self._turns) >= _MAX_TURNS:
            self._turns.clear()
        key = hash(queues)
        first = self._turns.get(key, 0) % len(queues)
        self._turns[key] = first + 1
        others = queues[first + 1 :] + queues[:first]
        return (queues[first], *random.sample(others, len(others)))
