"""Tells the backend on which queues this daemon has clients waiting, so that a push through any daemon wakes them.

    arm: "post 4f…/0 has 3 clients on q, for 12, 9 and 2 ms" ─▶ ready after all?  ─▶ wake
                                                             └▶ next timer of q  ─▶ wake then
    a push, anywhere ─▶ its function sets valq:{q}:wake:4f…/0 ─▶ Valkey tracks it ─▶ invalidated ─▶ wake

A post is this worker's clients in one database.  Registration is volatile: it is repeated when the backend's memory has
begun anew (see sweeper), when Valkey has forgotten what it tracked, and all the same every REARM_S.
Bounds: one timer a queue that somebody waits for.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from valqd.commands.request import fcall, queue_key
from valqd.errors import ControlLost, StartError
from valqd.io.control import Control
from valqd.protocol.coalescer import is_missing_function

REARM_S = 15.0
#: How often the backend is asked for each queue while registration fails.
_TICK_S = 1.0
_ARM_BATCH = 500
#: Clients at different daemons are served in the order in which they came, as far as they are among so many at theirs.
MOST_IN_ORDER = 128
#: Valkey is to remember the keys that the next command reads, and no others: it would keep them when they are gone.
_TRACK_NEXT = ([b"CLIENT", b"TRACKING", b"ON", b"OPTIN"], [b"CLIENT", b"CACHING", b"YES"])
_CANNOT_ARM = "blocked POPs only look once a second, since their registration is refused"

log = logging.getLogger(__name__)

#: A queue as waiters know it: database and name.
QueueId = tuple[int, bytes]
#: How many clients wait for a queue; of the first MOST_IN_ORDER, since when (monotonic s) and for how many messages.
Line = tuple[int, list[tuple[float, int]]]


class Registration:
    """One worker's.

    ``queues`` are those that somebody waits for, as they change; ``line`` tells who waits, ``wake`` is told that
    something may be ready.
    """

    def __init__(
        self,
        control: Control,
        daemon: bytes,
        queues: Collection[QueueId],
        line: Callable[[QueueId], Line],
        wake: Callable[[QueueId], None],
    ) -> None:
        self._control = control
        self._daemon = daemon
        self._queues = queues
        self._line = line
        self._wake = wake
        self._timers: dict[QueueId, asyncio.TimerHandle] = {}
        self._to_arm: set[QueueId] = set()
        self._to_disarm: set[QueueId] = set()
        self._known: set[QueueId] = set()  # Valkey has been told of them
        self._asked = asyncio.Event()
        self._refused: set[QueueId] = set()  # who waits for them is woken by nobody: looked at each second
        self._denied: set[QueueId] = set()  # of these, for want of rights: only ``arm_all`` tries again
        self._tasks = [asyncio.ensure_future(self._keep_armed()), asyncio.ensure_future(self._run())]
        control.connected.append(self.arm_all)
        control.invalidated = self._invalidated

    def arm(self, queue: QueueId) -> None:
        """Somebody waits for ``queue``, or others than before."""
        if queue not in self._denied:
            self._to_arm.add(queue)
            self._asked.set()

    def arm_all(self) -> None:
        """Register again: what became ready meanwhile is found by that."""
        self._denied.clear()
        self._to_arm.update(self._queues)
        self._asked.set()

    def look_each_second(self) -> None:
        """The backend may forget what this daemon registers: do not rely on it until the next registration succeeds."""
        self._refused.update(self._queues)

    def disarm(self, queue: QueueId) -> None:
        """Nobody waits any more."""
        self._refused.discard(queue)
        self._denied.discard(queue)
        if queue in self._known:
            self._to_disarm.add(queue)
            self._asked.set()
        if timer := self._timers.pop(queue, None):
            timer.cancel()

    def _invalidated(self, keys: list[bytes] | None) -> None:
        """Wake keys of this daemon were set; None: Valkey has forgotten what it tracked."""
        if keys is None:
            self.arm_all()
            return
        mark = b"}:wake:%b/" % self._daemon
        for key in keys:
            name, is_ours, db = key.rpartition(mark)
            if is_ours:
                queue = (int(db), name.removeprefix(b"valq:{"))
                if queue in self._queues:
                    self._wake(queue)
                else:
                    self.disarm(queue)

    def close(self) -> None:
        """Stop the tasks."""
        for task in self._tasks:
            task.cancel()
        for timer in self._timers.values():
            timer.cancel()

    async def _keep_armed(self) -> None:
        while True:
            for _ in range(int(REARM_S / _TICK_S)):
                await asyncio.sleep(_TICK_S)
                try:
                    for queue in list(self._refused if self._control.up else self._queues):
                        self._wake(queue)
                        self.arm(queue)
                except Exception:
                    log.exception("waking blocked clients failed")
            self.arm_all()

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            await asyncio.sleep(0)  # all who ask in this turn
            arm, self._to_arm = self._to_arm, set()
            disarm, self._to_disarm = self._to_disarm, set()
            try:
                batch = 1 if self._control.clustered else _ARM_BATCH
                for db, names in _by_db(batch, arm):
                    await self._arm(db, names)
                for db, names in _by_db(batch, disarm.difference(self._queues)):
                    await self._disarm(db, names)
            except ControlLost:
                pass  # all is armed again when the connection is back
            except StartError as error:  # the library cannot be loaded, for now
                self._control.complaints.say(_CANNOT_ARM, error)
            except Exception:
                log.exception("registration failed")
            else:
                continue
            self._refused |= arm.intersection(self._queues)
            self._to_disarm |= disarm

    def post(self, db: int) -> bytes:
        """What this worker's clients in a database are called."""
        return b"%b/%d" % (self._daemon, db)

    async def _arm(self, db: int, names: list[bytes]) -> None:
        names = [name for name in names if (db, name) in self._queues]
        if not names:
            return
        post = self.post(db)
        now = time.monotonic()
        watch = [b"MGET", *(b"valq:{%b}:wake:%b" % (name, post) for name in names)]
        call = fcall("arm", [queue_key(name) for name in names], post)
        for name in names:
            count, first = self._line((db, name))
            places = [number for since, takes in first for number in ((now - since) * 1000, takes)]
            call += [b"%d" % count, struct.pack(f"<{len(places)}d", *places)]
        if self._control.up:
            self._known.update((db, name) for name in names)
        replies = await self._control.calls([*_TRACK_NEXT, watch, call], db)
        refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if refused is None:
            self._refused.difference_update((db, name) for name in names)
            if not self._refused:
                self._control.complaints.over(_CANNOT_ARM)
        elif is_missing_function(refused):
            await self._control.load_library()
            self.arm_all()
            return
        elif _is_noperm(refused) and len(names) > 1:  # the others are not to suffer from one
            for part in _halves(names):
                await self._arm(db, part)
            return
        else:
            waiting = {(db, name) for name in names}.intersection(self._queues)
            self._refused |= waiting
            if _is_noperm(refused):
                self._denied |= waiting
            self._control.complaints.say(_CANNOT_ARM, refused)
        if isinstance(replies[-1], list):
            self._armed(db, names, replies[-1])

    def _armed(self, db: int, names: list[bytes], found: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        for name, (ready, next_ms) in zip(names, found, strict=True):
            queue = (db, name)
            if timer := self._timers.pop(queue, None):
                timer.cancel()
            if ready:
                self._wake(queue)
            elif next_ms >= 0 and queue in self._queues:
                self._timers[queue] = loop.call_later((next_ms + 1) / 1000, self._timer, queue)

    def _timer(self, queue: QueueId) -> None:
        del self._timers[queue]
        self._wake(queue)

    async def _disarm(self, db: int, names: list[bytes]) -> None:
        requests = [fcall("disarm", [queue_key(name) for name in names], self.post(db))]
        if not self._queues:
            requests.append([b"CLIENT", b"TRACKING", b"OFF"])
        replies = await self._control.calls(requests, db)
        told = {(db, name) for name in names}
        refused = replies[0] if isinstance(replies[0], Exception) else None
        if refused is not None and not _is_noperm(refused):
            self._to_disarm |= told  # with the next registration
        elif refused is not None and len(names) > 1:
            for part in _halves(names):
                await self._disarm(db, part)
        else:  # what may not be taken back could not be registered either
            self._known -= told


def _is_noperm(refused: Exception) -> bool:
    """Whether the daemon's user has no rights on (at least) one of the queues."""
    return str(refused).startswith("NOPERM") and str(refused).endswith(" key")  # no command: that is about them all


def _halves(names: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    middle = len(names) // 2
    return names[:middle], names[middle:]


def _by_db(most: int, queues: Iterable[QueueId]) -> list[tuple[int, list[bytes]]]:
    """Batches of ``most`` names at the most, by database."""
    by_db: dict[int, list[bytes]] = {}
    for db, name in queues:
        by_db.setdefault(db, []).append(name)
    return [(db, names[start : start + most]) for db, names in by_db.items() for start in range(0, len(names), most)]
