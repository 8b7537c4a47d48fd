"""The shared lanes of one worker: opened for an identity when it is first proved, closed when nobody uses them.

Bounds: one to three connections for each identity that clients have, and for _MOST_IDLE that none has any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from valqd.io.backend import Backend
from valqd.io.complaints import Complaints
from valqd.io.loader import FunctionLoader
from valqd.io.outbox import Outbox
from valqd.io.shared_lane import SharedLane
from valqd.protocol.host import Identity

#: A lane that no client uses is closed after this long, or when there are more of them.
_IDLE_S = 30.0
_MOST_IDLE = 32


class SharedLanes:
    """The lanes of one worker process, by identity."""

    def __init__(
        self,
        backend: Backend,
        first_identity: Identity,
        outbox: Outbox,
        loader: FunctionLoader,
        lane_up: Callable[[], None],
        lane_refused: Callable[[SharedLane], None],
        may_busy_wait: bool,
    ) -> None:
        self.backend = backend
        self._first_identity = first_identity
        self.outbox = outbox
        self.loop = asyncio.get_running_loop()
        self.lane_up = lane_up
        self.loader = loader
        self._lane_refused = lane_refused
        self.may_busy_wait = may_busy_wait
        self.complaints = Complaints()
        self._open: set[SharedLane] = set()
        self._lanes: dict[Identity, SharedLane] = {}  # of those that are open, the ones that new clients get
        self._idle: dict[SharedLane, asyncio.TimerHandle] = {}  # had no users, in the order in which they had none

    def get(self, identity: Identity) -> SharedLane:
        """The identity's lane; opened if there is none."""
        lane = self._lanes.get(identity)
        if lane is None or lane.refused is not None:
            lane = self._lanes[identity] = SharedLane(self, identity)
            self._open.add(lane)
        return lane

    def prove(self, identity: Identity, request: bytes, done: Callable[[bytes | None], None]) -> None:
        """Have the backend check an identity; ``done`` gets its error reply, or None.  ``request``: AUTH or SELECT."""
        lane = self.get(identity)
        lane.prove(request, done)
        self._close_later(lane)

    def renew_first(self) -> None:
        """Who connects or selects a database from now on gets a new lane; the old ones stay while they have users."""
        for identity in [each for each in self._lanes if each.password is None]:
            self._close_later(self._lanes.pop(identity))
        self.get(self._first_identity)

    def leave(self, lane: SharedLane) -> None:
        """A client of ``lane`` is gone, or has become another."""
        lane.users -= 1
        self._close_later(lane)

    def _close_later(self, lane: SharedLane) -> None:
        """Close it after a while, if it has no users; of many such lanes, those that had none for longest at once."""
        if lane.users or lane is self._lanes.get(self._first_identity):
            return
        self._forget_timer(lane)
        self._idle[lane] = self.loop.call_later(_IDLE_S, self._close_if_idle, lane)
        for oldest in list(self._idle)[:-_MOST_IDLE]:
            if oldest.users:
                self._forget_timer(oldest)
            elif not oldest.busy:
                self._close_if_idle(oldest)

    def _forget_timer(self, lane: SharedLane) -> None:
        timer = self._idle.pop(lane, None)
        if timer is not None:
            timer.cancel()

    def _close_if_idle(self, lane: SharedLane) -> None:
        self._forget_timer(lane)
        if not (lane.users or lane.busy):
            lane.close()
            self.discard(lane)
        elif not lane.users:
            self._idle[lane] = self.loop.call_later(_IDLE_S, self._close_if_idle, lane)

    def discard(self, lane: SharedLane) -> None:
        """Forget a lane that was refused or closed."""
        self._forget_timer(lane)
        self._open.discard(lane)
        if self._lanes.get(lane.identity) is lane:
            del self._lanes[lane.identity]
        if lane.refused is not None:
            self._lane_refused(lane)

    @property
    def busy(self) -> bool:
        """Whether one of them owes an answer."""
        return any(lane.busy for lane in self._open)

    def close(self) -> None:
        """Close all."""
        for lane in self._open:
            lane.close()
