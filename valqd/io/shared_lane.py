"""The lanes that clients of one identity share: for VALQ commands and handshakes, and for simple commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from valqd.io.multiplexed_lane import LaneConnection, MultiplexedLane
from valqd.protocol.host import Identity
from valqd.protocol.lone_calls import Listener, LoneCall
from valqd.protocol.relay import RelayReplies
from valqd.protocol.requests import encode_own

if TYPE_CHECKING:
    from valqd.io.lanes import SharedLanes

#: After a large value, simple commands take lanes of their own for so long.
_NO_RELAY_S = 60.0


class SharedLane(MultiplexedLane):
    """For VALQ commands and handshakes.  Its relay lanes are closed with it, and opened when they are needed."""

    def __init__(self, lanes: SharedLanes, identity: Identity) -> None:
        super().__init__(lanes, identity)
        self.users = 0
        self.names: dict[object, bytes] = {}
        self.relay_lanes = {resp: RelayLane(self, resp) for resp in (2, 3)}
        self.relays = True
        self.start()

    @property
    def is_used(self) -> bool:
        """Whether clients have it."""
        return self.users > 0

    def new_connection(self) -> LaneConnection:
        """What is to be connected."""
        return LaneConnection(self)

    async def rest(self) -> None:
        """Open another connection at once: whether the backend is back is to be known."""

    def tried(self) -> None:
        """It is connected, or cannot be."""
        if self.up:
            self._lanes.lane_up()
            if self.identity.password is None:
                for relay in self.relay_lanes.values():
                    relay.start()  # who came before there was a password goes on when there is one

    def renew_relay(self, resp: int) -> None:
        """Have another relay lane in place of one that was refused: a password may have been set back."""
        if not self.is_over:
            self.relay_lanes[resp] = RelayLane(self, resp)

    def ended(self) -> None:
        """The backend has refused its identity for good."""
        for relay in self.relay_lanes.values():
            relay.fail_all(self.why_down)
            relay.close()
        self._lanes.discard(self)

    def close(self) -> None:
        """Stop for good."""
        for relay in self.relay_lanes.values():
            relay.close()
        super().close()

    @property
    def busy(self) -> bool:
        """Whether it owes an answer."""
        return super().busy or any(relay.busy for relay in self.relay_lanes.values())

    # ---- what it is called

    def forget_name(self, session: object) -> bytes | None:
        """A client is gone, or has another lane: only that is to be called as it called this one.  Its name."""
        was_called_so = next(reversed(self.names), None) is session
        name = self.names.pop(session, None)
        if was_called_so:
            self._set_name(next(reversed(self.names.values()), b""))
        return name

    def take_name(self, session: object, name: bytes) -> None:
        """A client's name, which is what the lane is called from now on."""
        self.names.pop(session, None)  # so that it is the last one
        self.names[session] = name
        self._set_name(name)

    def _set_name(self, name: bytes) -> None:
        if self.up:  # to give a name in HELLO needs no right, as CLIENT SETNAME does
            call = LoneCall(encode_own([b"HELLO", b"2", b"SETNAME", name]), lambda reply: None)
            self.coalescer.add(Listener(), call)
            self.wake()


class RelayLane(MultiplexedLane):
    """For simple foreign commands of the same clients (see relay): its calls are all RelayCalls.

    ``resp``: the protocol version of these clients, and so its own.
    """

    def __init__(self, shared: SharedLane, resp: int) -> None:
        super().__init__(shared._lanes, shared.identity)
        self._shared = shared
        self._resp = resp

    @property
    def is_used(self) -> bool:
        """Whether clients have it."""
        return self._shared.is_used

    def greeting(self) -> list[list[bytes]]:
        """The requests that a new connection begins with."""
        return [*super().greeting(), [b"HELLO", b"%d" % self._resp]]

    def new_connection(self) -> LaneConnection:
        """What is to be connected."""
        return _RelayConnection(self)

    async def rest(self) -> None:
        """Wait until something is to be sent."""
        self.needed.clear()
        if self.coalescer.idle:
            await self.needed.wait()

    def tried(self) -> None:
        """It is connected, or cannot be."""

    def ended(self) -> None:
        """The backend has refused its identity: its clients take lanes of their own, and hear it there."""
        self.loop.call_later(_NO_RELAY_S, self._shared.renew_relay, self._resp)

    def suspend(self) -> None:
        """For a while it is not used: one client's unread values must not gather here."""
        if self._shared.relays:
            self._shared.relays = False
            self.loop.call_later(_NO_RELAY_S, self._start_again)

    def _start_again(self) -> None:
        self._shared.relays = True


class _RelayConnection(LaneConnection):
    """Replies to RelayCalls are not parsed."""

    def __init__(self, lane: RelayLane) -> None:
        super().__init__(lane)
        self._relay_lane = lane
        self._replies = RelayReplies()

    def data_received(self, data: bytes) -> None:
        """Cut them."""
        lane = self._relay_lane
        if lane.is_greeting:
            super().data_received(data)
            return
        if not self._replies.feed(data, lane.coalescer):
            lane.suspend()
        lane.batch_done()
