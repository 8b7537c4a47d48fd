"""Sees to it that leases, delays, dead letters and retention end by themselves, when nobody pops.

Every worker asks for the sweeper's lease; the one that holds it sweeps for all.  Which queue needs a sweep, and when,
the functions remember in the backend's memory (volatile): who gets the lease anew looks at every queue once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from valqd.commands.request import fcall, queue_key
from valqd.errors import ControlLost, StartError
from valqd.io.control import Control
from valqd.io.registration import Registration
from valqd.protocol.coalescer import is_missing_function

#: Other keys that match SCAN's pattern are no queues: who may write such a key could have it swept in vain for ever.
_QUEUE_KEY = re.compile(rb"valq:\{[^{}]+\}:queue", re.DOTALL)
#: Of no queue: a user who may call functions on some queues is not to take the sweeper's lease.
_DAEMONS_KEY = b"valq::daemons"
_LEADER_TICK_S = 0.1
_FOLLOWER_TICK_S = 0.25
#: The pause while no queue has a timer: what falls due meanwhile is swept that much later at most (clients that wait
#: for it have timers of their own).
_IDLE_TICK_S = 0.25
#: The library is gone and no queue is there.
_NO_QUEUES_TICK_S = 0.5
#: Until a queue whose sweep was refused is looked at again; with more than so many of them, all queues.
_LOOK_AGAIN_S = 1.0
_MOST_AGAIN = 100
_LONGEST_PAUSE_S = 10.0
#: Failovers are looked for this often.
_ROLE_EVERY_S = 0.8
_CANNOT_SWEEP = "leases, delays and dead letters wait, since a sweep is refused"
#: The sweeper's lease lasts for so many calls at least: about five are made between two renewals.
_LEASE_CALLS = 12
_LEASE_MS = 600
_LONGEST_LEASE_MS = 10_000
#: While much is swept, the lease is renewed this often: two daemons must not take turns at looking at all queues.
_RENEW_S = 0.2
#: A timer is met this exactly, unless asking takes so long that more than this share of Valkey's time would go to it.
_SHORTEST_TICK_S = 0.005
_ASKING_SHARE = 0.05
_DUE_LIMIT = 1000
#: Queues swept, and messages of each, before the lease is looked at again.  Valkey serves nobody else meanwhile: as
#: many queues only while little is due in them.
_SWEEP_BATCH = 50
_SWEEP_LIMIT = 1000
_LONGEST_BATCH_S = 0.005
_SCAN_COUNT = 1000

log = logging.getLogger(__name__)


class _LeaseLost(Exception):
    """Another daemon sweeps now, and looks at all queues."""


class _ReadOnly(Exception):
    """The backend takes no writes now: no queue needs to be tried."""


class Sweeper:
    """One worker's sweeper."""

    def __init__(self, control: Control, daemon: bytes, registration: Registration) -> None:
        self._control = control
        self._daemon = daemon
        self._registration = registration
        # All times are time.monotonic() seconds.
        self._known_since: int | None = None  # since when the backend's memory knows this daemon, as it says
        self._role: list[bytes] | None = None  # the backend's, and its replication id: lines of INFO
        self._role_seen_at = -math.inf
        self._dbs: list[int] = [0]  # those that held keys when they were looked for last
        #: queues are due that the backend does not remember any more (a sweep failed, a failover): look at every one
        self._look_at_all = False
        self._look_not_before = 0.0  # a sweep was refused: neither ``_again`` nor all before this
        self._look_at_all_not_before = 0.0  # nor all before this: looking took much of Valkey's time
        self._again: set[tuple[int, bytes]] = set()  # databases and keys of queues whose sweep was refused
        self._leased_at = 0.0  # when the lease was asked for last
        self._asking_s = 0.0  # how long the answer took
        self._no_queues = False  # the library is gone, and no queue was found that would need it
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            try:
                pause_s = await self._tick()
            except StartError as error:  # the library cannot be loaded, for now
                self._refused(error)
                pause_s = _NO_QUEUES_TICK_S
            except (_LeaseLost, _ReadOnly):
                pause_s = _FOLLOWER_TICK_S
            except ControlLost:
                self._look_at_all = True
                self._look_at_all_not_before = 0.0
                pause_s = _FOLLOWER_TICK_S
            except Exception:
                log.exception("sweep failed")
                self._look_at_all = True  # the queues that it took from the timers are to be looked at
                pause_s = 1.0
            await asyncio.sleep(pause_s)

    async def _due(self, limit: int) -> Any:
        """Ask for the lease and for the queues that need a sweep now; the reply, which may be an error."""
        lease_ms = min(_LONGEST_LEASE_MS, max(_LEASE_MS, int(1000 * _LEASE_CALLS * self._asking_s)))
        call = fcall("due", (_DAEMONS_KEY,), self._daemon, b"%d" % lease_ms, b"%d" % limit)
        call[0] = b"FCALL_RO"  # CLIENT PAUSE WRITE does not hold it
        self._leased_at = time.monotonic()
        reply = await self._control.call(call)
        self._asking_s = time.monotonic() - self._leased_at
        if isinstance(reply, list) and reply[0] != self._known_since:
            self._known_since = reply[0]
            self._registration.arm_all()  # the memory has begun anew, or has dropped this daemon
            await self._control.replace_older_library()
        return reply

    async def _keep_lease(self) -> None:
        """While much is swept: renew the lease, and sweep what falls due meanwhile.

        Raises _LeaseLost when another daemon has it.
        """
        if time.monotonic() - self._leased_at > _RENEW_S:
            reply = await self._due(_SWEEP_BATCH)
            if isinstance(reply, list):
                if len(reply) == 1:
                    raise _LeaseLost
                self._look_at_all |= bool(reply[1])  # what was noted so far has been forgotten
                if names := reply[3:]:
                    await self._find_dbs()
                    for db in self._dbs:
                        for name in names:
                            await self._sweep_step(db, [queue_key(name)], everything=False)

    async def _tick(self) -> float:
        """Ask once, and sweep what is due; the pause before the next time, seconds."""
        reply = await self._due(_DUE_LIMIT)
        if isinstance(reply, Exception):
            if is_missing_function(reply):
                return _LEADER_TICK_S if await self._load_if_needed() else _NO_QUEUES_TICK_S
            self._refused(reply)
            self._registration.look_each_second()  # asking is the sign of life
            return _FOLLOWER_TICK_S
        self._no_queues = False
        if len(reply) == 1:
            self._control.complaints.over(_CANNOT_SWEEP)  # for this one: another sweeps, and would say so
            return _FOLLOWER_TICK_S
        if time.monotonic() - self._role_seen_at > _ROLE_EVERY_S:
            await self._see_role()
        _, fresh, next_ms, *names = reply
        now = time.monotonic()
        may_look = now >= self._look_not_before
        if fresh or (self._look_at_all and may_look and now >= self._look_at_all_not_before):
            self._look_at_all = False
            await self._sweep_all()
        else:
            if self._again and may_look:
                await self._sweep_again()
            if names:
                await self._find_dbs()
        more = False
        for db in self._dbs:
            more |= await self._sweep(db, [queue_key(name) for name in names], everything=False)
        if more or len(names) == _DUE_LIMIT:
            return 0.0
        if next_ms < 0:
            return _IDLE_TICK_S
        next_s: float = (next_ms + 1) / 1000
        return min(_LEADER_TICK_S, max(next_s, _SHORTEST_TICK_S, self._asking_s / _ASKING_SHARE))

    async def _see_role(self) -> None:
        """What another node's daemons did while it was the primary is in no timer of this one: look at all queues."""
        self._role_seen_at = time.monotonic()
        info = await self._control.call([b"INFO", b"replication"])
        if isinstance(info, Exception):
            self._refused(info)
            return
        role = re.findall(rb"^(?:role|master_replid):.*$", info, re.MULTILINE)
        if self._role not in (None, role):
            self._look_at_all = True
            self._look_not_before = self._look_at_all_not_before = 0.0
        self._role = role

    async def _load_if_needed(self) -> bool:
        """Load the library again if there are queues to sweep.  If there are none, the first command on one will."""
        if not self._no_queues:
            self._look_at_all = False
            await self._find_dbs()
            for db in self._dbs:
                async for keys in self._queues(db):
                    if keys:
                        await self._control.load_library()
                        return True
            self._no_queues = not self._look_at_all  # it is set where looking was refused
        return False

    async def _find_dbs(self) -> None:
        info = await self._control.call([b"INFO", b"keyspace"])
        if isinstance(info, Exception):
            self._refused(info)
            return
        self._dbs = [int(db) for db in re.findall(rb"^db(\d+):", info, re.MULTILINE)]

    async def _sweep_all(self) -> None:
        self._again.clear()
        began_at = time.monotonic()
        await self._find_dbs()
        for db in self._dbs:
            async for keys in self._queues(db):
                await self._keep_lease()  # also where only other keys are
                await self._sweep(db, keys, everything=True)
        now = time.monotonic()
        self._look_at_all_not_before = now + min((now - began_at) / _ASKING_SHARE, _LONGEST_PAUSE_S)
        self._note_if_over()

    async def _sweep_again(self) -> None:
        again, self._again = self._again, set()
        for db, key in again:
            await self._sweep(db, [key], everything=True)
        self._note_if_over()

    def _note_if_over(self) -> None:
        if not (self._look_at_all or self._again):
            self._control.complaints.over(_CANNOT_SWEEP)

    async def _queues(self, db: int) -> AsyncIterator[list[bytes]]:
        """The keys of all queues of a database, some at a time."""
        cursor = b"0"
        while True:
            scan = [b"SCAN", cursor, b"MATCH", b"valq:{*}:queue", b"COUNT", b"%d" % _SCAN_COUNT, b"TYPE", b"hash"]
            (reply,) = await self._control.calls([scan], db)
            if isinstance(reply, Exception):
                self._refused(reply)
                return
            cursor, keys = reply
            yield [key for key in keys if _QUEUE_KEY.fullmatch(key)]
            if cursor == b"0":
                return

    async def _sweep(self, db: int, keys: list[bytes], everything: bool) -> bool:
        """One bounded step for each queue; whether some need more, and so are due again: no queue holds up others."""
        more = False
        done, batch = 0, 1
        while done < len(keys):
            await self._keep_lease()
            began_at = time.monotonic()
            more |= await self._sweep_step(db, keys[done : done + batch], everything)
            done += batch
            is_quick = time.monotonic() - began_at < _LONGEST_BATCH_S
            batch = min(2 * batch, _SWEEP_BATCH) if is_quick else max(1, batch // 2)
        return more

    async def _sweep_step(self, db: int, keys: list[bytes], everything: bool) -> bool:
        """As ``_sweep``, all at once.  ``everything``: look at all in a queue, not only at what is known to be due."""
        more = False
        flag = b"1" if everything else b""
        replies = await self._control.calls([fcall("sweep", [key], flag, b"%d" % _SWEEP_LIMIT) for key in keys], db)
        for key, reply in zip(keys, replies, strict=True):
            if is_missing_function(reply):
                self._look_at_all = True  # when they are there again, as ``_tick`` sees to
            elif isinstance(reply, Exception):
                if str(reply).startswith("READONLY"):
                    self._refused(reply)
                    raise _ReadOnly
                self._refused(f"{repr(key)[1:]}: {reply}", (db, key))
            more |= reply == 1
        return more

    def _refused(self, why: object, queue: tuple[int, bytes] | None = None) -> None:
        """A sweep was refused: look again later, at ``queue`` (database, key), or at all.

        At all when it is not known which queue it was, or when there are many.
        """
        self._control.complaints.say(_CANNOT_SWEEP, why)
        if queue is None or len(self._again) >= _MOST_AGAIN:
            self._look_at_all = True
        else:
            self._again.add(queue)
        now = time.monotonic()
        if now >= self._look_not_before:  # one that is refused again and again puts off nobody else's turn
            self._look_not_before = now + _LOOK_AGAIN_S

    def close(self) -> None:
        """Stop."""
        self._task.cancel()
