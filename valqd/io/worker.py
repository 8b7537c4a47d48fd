"""One worker process: the listening socket, its clients, and everything they share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from itertools import count
from typing import Any, cast

from valqd.commands.request import MOST_IDS
from valqd.config import Settings
from valqd.errors import PASSING_WRITE_ERRORS, ControlLost
from valqd.io.backend import Backend
from valqd.io.client import Client
from valqd.io.control import Control
from valqd.io.default_user import DefaultUser
from valqd.io.lanes import SharedLanes
from valqd.io.loader import FunctionLoader
from valqd.io.outbox import Outbox
from valqd.io.private_lane import PrivateLane
from valqd.io.process import STOP_TICK_S, available_cores, is_told_to_stop, keep_freed_memory, raise_file_limit
from valqd.io.shared_lane import SharedLane
from valqd.io.sweeper import Sweeper
from valqd.io.waiters import Waiters
from valqd.protocol.client_kill import ClientInfo
from valqd.protocol.encoding import bulk
from valqd.protocol.framing import MAX_BULK_BYTES
from valqd.protocol.host import Identity, Lane, WorkerState
from valqd.protocol.lone_calls import Listener
from valqd.protocol.whole import parse

#: Connections that the system holds until they are accepted.
BACKLOG = 1024
#: While the daemon stops: how often is looked whether all is answered, and all clients are gone.
_TICK_S = 0.02
#: Of shutdown_timeout, what is left for the end of the process when clients are not waited for any longer.
_LEAVING_S = 0.5
#: Far beyond the ids that Valkey gives: CLIENT KILL ID must not hit another one.
_IDS_OF_A_WORKER = 10**12
#: How long a stop waits for commands that may wait in Valkey for ever (BLPOP).
_GRACE_S = 1.0
#: How often, and how many times, the messages of a client that left are given back while the backend refuses it.
_GIVE_BACK_S, _GIVE_BACK_TRIES = 1.0, 25

log = logging.getLogger(__name__)


class Worker:
    """What the clients of one process share."""

    def __init__(self, settings: Settings, backend: Backend, number: int = 0) -> None:
        self.settings = settings
        self.backend = backend
        self.loop = asyncio.get_running_loop()
        self.clients: set[Client] = set()
        self.spilling: set[Client] = set()  # that are read from, though they have yet to read much
        self.ending: set[Client] = set()  # that are gone, and had sent what is still to take effect
        self.leaving: set[PrivateLane] = set()  # whose clients have left, and had sent something last
        self.outbox = Outbox(self.loop)
        self.state = WorkerState(settings.auto_create_argument, settings.max_body_bytes, Identity(db=backend.db))
        self.state.closes_on_loss = settings.backend_loss == "close"
        self._number = number
        self._ids = count((number + 1) * _IDS_OF_A_WORKER + 1)
        self._daemon = b"%b-%d" % (os.urandom(6).hex().encode(), number)
        self.control = Control(backend)
        self.waiters = Waiters(self.control, self.state, self._daemon, self.release)
        clients_backend = replace(backend, user=None, password=None)  # clients bring their own credentials
        self.loader = FunctionLoader(self.control.load_library)
        self.lanes = SharedLanes(
            clients_backend,
            self.state.first_identity,
            self.outbox,
            self.loader,
            self.waiters.registration.arm_all,
            self._lane_refused,
            may_busy_wait=available_cores() > settings.workers,
        )
        self.default_user = DefaultUser(clients_backend, self.state, self.lanes.renew_first)
        self._paused: asyncio.TimerHandle | None = None
        self._applying: asyncio.Task[None] | None = None
        self.clients_paused(0)

    def next_client_id(self) -> int:
        """A number that no other client of this daemon has."""
        return next(self._ids)

    async def run(self, listening: socket.socket, ready: Callable[[], None], tick: Callable[[], None]) -> None:
        """Serve until a signal (they are blocked) says to stop; ``tick`` runs about ten times a second.

        Raises StartError.
        """
        starting = asyncio.ensure_future(self._start())  # however long the backend loads its data
        while not starting.done():
            if is_told_to_stop():
                starting.cancel()
                return
            tick()
            await asyncio.wait({starting}, timeout=STOP_TICK_S)
        await starting
        self.control.connected.append(self._apply_backend_config_again)
        keep_freed_memory()
        max_clients = raise_file_limit(self.settings.max_clients, warn=self._number == 0)
        self.settings = replace(self.settings, max_clients=max_clients)
        sweeper = Sweeper(self.control, self._daemon, self.waiters.registration)
        self.lanes.get(self.state.first_identity)
        is_exposed = listening.family != socket.AF_UNIX and not ip_address(listening.getsockname()[0]).is_loopback
        self.default_user.ask(self._warn_if_open if is_exposed and self._number == 0 else lambda: None)
        create: Callable[..., Awaitable[asyncio.AbstractServer]] = self.loop.create_server
        if listening.family == socket.AF_UNIX:
            create = self.loop.create_unix_server
            if sys.version_info >= (3, 13):  # its file is all workers', and the supervisor's to remove
                create = partial(create, cleanup_socket=False)
        server = await create(lambda: Client(self), sock=listening, backlog=BACKLOG)
        ready()
        while not is_told_to_stop():
            tick()
            await asyncio.sleep(STOP_TICK_S)
        log.info("told to stop: %d clients", len(self.clients))
        server.close()
        await self._finish(sweeper)

    async def _start(self) -> None:
        await self.control.start()
        await self._apply_backend_config()

    async def _apply_backend_config(self) -> None:
        """What the backend's own settings mean for the daemon.

        A body that it does not take would cost a shared lane its connection.
        """
        with contextlib.suppress(ControlLost):
            config = await self.control.config(b"proto-max-bulk-len", b"maxmemory", b"maxmemory-policy")
            policy = config.get(b"maxmemory-policy", b"").decode()
            if policy.startswith("allkeys") and config.get(b"maxmemory") != b"0" and self._number == 0:
                log.warning("the backend's maxmemory-policy is %s: messages may be evicted; set noeviction", policy)
            most = min(int(config.get(b"proto-max-bulk-len", MAX_BULK_BYTES)), self.settings.max_body_bytes)
            if most != self.state.max_body_bytes:
                if self._number == 0:
                    log.warning("max_body_bytes is %d: the least of its setting and the proto-max-bulk-len", most)
                self.state.max_body_bytes = most

    def _apply_backend_config_again(self) -> None:
        """It may be another backend now."""
        self._applying = asyncio.ensure_future(self._apply_backend_config())

    def _warn_if_open(self) -> None:
        """Beyond this host, that is: Valkey's protected mode does not see who comes through valqd."""
        if self.state.password_needed is False:
            log.warning(
                "%s: whoever reaches it may do anything: give the default user a password "
                "(ACL SETUSER default '>password', see 'An open port' in docs/operating.md)",
                self.settings.listen,
            )

    async def _finish(self, sweeper: Sweeper) -> None:
        """Answer what is under way, within shutdown_timeout; then close."""
        for client in self.clients:
            client.stop_reading()
        self.waiters.stop_all()
        loop = self.loop
        deadline = loop.time() + self.settings.shutdown_timeout - _LEAVING_S
        grace_ends = loop.time() + _GRACE_S

        def is_awaited(client: Client) -> bool:
            private = client.session.private
            may_never_end = private.may_block or private.streaming  # the rest of a large command is not read any more
            return client.is_owed and (loop.time() < grace_ends or not may_never_end)

        def is_busy() -> bool:  # for clients that have left, too
            owes_messages = any(lane.owes_messages for lane in self.leaving)
            return self.lanes.busy or owes_messages or any(client.is_owed for client in self.ending)

        while (self.clients or is_busy()) and loop.time() < deadline:
            for client in list(self.clients):
                if not is_awaited(client):
                    client.session.close()  # at once, whatever others wait for: it can connect elsewhere
            await asyncio.sleep(_TICK_S)
        for client in list(self.clients):
            client.session.close()
        sweeper.close()
        self.waiters.registration.close()
        self.default_user.close()
        self.lanes.close()
        await self.control.close()

    # ---- what the parts tell each other

    def clients_paused(self, for_ms: int) -> None:
        """While CLIENT PAUSE holds, simple commands take private lanes: one that waits must not hold up another."""
        if self._paused is not None:
            if for_ms and self._paused.when() > self.loop.time() + for_ms / 1000:
                return  # of two pauses Valkey keeps the one that ends later
            self._paused.cancel()
            self._paused = None
        self.state.relaying = for_ms == 0 and not self.state.closes_on_loss  # a lost shared lane is many clients'
        if for_ms:
            self._paused = self.loop.call_later(for_ms / 1000, self.clients_paused, 0)

    def kill_clients(self, is_meant: Callable[[ClientInfo], bool]) -> int:
        """Close clients that have no lane of their own; how many."""
        meant = [c for c in self.clients if not (c.private_lane or c.session.closed) and is_meant(c.info())]
        for client in meant:
            client.session.close()
        return len(meant)

    def _lane_refused(self, lane: SharedLane) -> None:
        """The backend no longer knows this identity: Valkey would have closed its clients."""
        for client in list(self.clients):
            if client.session.lane is lane:
                client.session.close()

    def release(self, lane: Lane, queue: bytes, data: bytes) -> bool:
        """Messages were popped for a client that is gone: give them back, and their attempts, if they have receipts."""
        receipts: dict[bytes, list[bytes]] = {}
        for reply in parse(data) or ():
            messages = reply if isinstance(reply, list) and reply and isinstance(reply[0], list | dict) else [reply]
            for message in messages:
                fields = _as_map(message)
                receipt = fields.get(b"receipt")
                if receipt:
                    receipts.setdefault(fields.get(b"queue", queue), []).append(receipt)
        for name, given_back in receipts.items():
            for start in range(0, len(given_back), MOST_IDS):
                some = given_back[start : start + MOST_IDS]
                self._give_back(cast(SharedLane, lane), name, some, _GIVE_BACK_TRIES)
        return bool(receipts)

    def _give_back(self, lane: SharedLane, queue: bytes, receipts: list[bytes], tries: int) -> None:
        if lane.is_over:
            lane = self.lanes.get(lane.identity)
        lane.users += 1  # so that it stays open

        def answered(answer: bytes) -> None:
            if answer.startswith(PASSING_WRITE_ERRORS) and tries > 1:
                # A receipt counts once: to repeat it does no harm.
                self.loop.call_later(_GIVE_BACK_S, self._give_back, lane, queue, receipts, tries - 1)
            elif answer[:1] == b"-":
                why = answer.decode("utf-8", "replace").strip()
                log.warning("a message of a client that left stays leased: %s", why)
            self.lanes.leave(lane)

        route = self.state.routes.get("nack_many", queue, (b"RETURN", b"0", b""))
        items = b"".join([bulk(receipt) for receipt in receipts])
        lane.coalescer.join(Listener(answered), route, items, len(receipts), len(receipts), True)
        lane.wake()


def _as_map(message: Any) -> dict[Any, Any]:
    if isinstance(message, dict):
        return message
    if isinstance(message, list):
        return dict(zip(message[::2], message[1::2], strict=False))
    return {}
