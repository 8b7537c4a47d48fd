"""A relay lane that the backend refuses: nobody waits for it, and after a while another is tried."""

import asyncio
from types import SimpleNamespace

import pytest

from valqd.io import lanes as lanes_module
from valqd.io import shared_lane
from valqd.io.lanes import SharedLanes
from valqd.io.multiplexed_lane import MAX_BACKLOG_BYTES
from valqd.io.shared_lane import SharedLane
from valqd.protocol.coalescer import Routes
from valqd.protocol.host import Identity
from valqd.protocol.lone_calls import Listener, LoneCall
from valqd.protocol.relay import RelayCall


class Backend:
    """Takes every connection, and notes it; a connection that is closed is lost at once."""

    def __init__(self):
        self.connections = []
        self.sent = bytearray()

    async def connect(self, factory):
        connection = factory()
        loop = asyncio.get_running_loop()
        close = lambda: loop.call_soon(connection.connection_lost, None)  # noqa: E731
        there = SimpleNamespace(setsockopt=lambda *option: None)
        info = lambda name: there  # noqa: E731
        transport = SimpleNamespace(
            write=self.sent.extend,
            writelines=lambda pieces: self.sent.extend(b"".join(pieces)),
            close=close,
            abort=close,
            get_extra_info=info,
        )
        connection.connection_made(transport)
        self.connections.append(connection)
        return connection.transport


def lanes_at(backend):
    return SimpleNamespace(
        backend=backend,
        loop=asyncio.get_running_loop(),
        outbox=SimpleNamespace(flush=lambda: None, flush_answers=lambda: None),
        complaints=SimpleNamespace(say=lambda what, why: None, over=lambda what: None),
        may_busy_wait=False,
        lane_up=lambda: None,
        discard=lambda lane: None,
    )


@pytest.mark.parametrize("resp", [2, 3])
def test_a_refused_relay_lane_is_left_alone_for_a_while(monkeypatch, resp):
    monkeypatch.setattr(shared_lane, "_NO_RELAY_S", 0.05)

    async def run():
        backend = Backend()
        lane = SharedLane(lanes_at(backend), Identity())
        relay = lane.relay_lanes[resp]
        answers = []
        relay.coalescer.add(Listener(answers.append), RelayCall(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 1))
        relay.wake()
        await asyncio.sleep(0.01)
        backend.connections[-1].data_received(b"-ERR unknown command 'HELLO'\r\n")
        await asyncio.sleep(0.01)
        assert answers == [b"-ERR unknown command 'HELLO'\r\n"]
        assert not relay.up
        assert lane.up
        await asyncio.sleep(0.1)
        again = lane.relay_lanes[resp]
        assert again is not relay
        assert again.up
        lane.close()

    asyncio.run(run())


async def test_a_relay_lane_that_brought_a_large_value_is_used_again_after_a_while(monkeypatch):
    monkeypatch.setattr(shared_lane, "_NO_RELAY_S", 0.05)
    lane = SharedLane(lanes_at(Backend()), Identity())
    lane.relay_lanes[2].suspend()
    assert not lane.relays
    await asyncio.sleep(0.1)
    assert lane.relays
    lane.close()


async def test_a_lane_without_users_that_still_owed_something_is_closed_later(monkeypatch):
    monkeypatch.setattr(lanes_module, "_IDLE_S", 0.02)
    backend = Backend()
    outbox = SimpleNamespace(flush=lambda: None, flush_answers=lambda: None)
    lanes = SharedLanes(backend, Identity(), outbox, None, lambda: None, lambda lane: None, False)
    lane = lanes.get(Identity(b"u", b"pw"))
    lane.users += 1
    await asyncio.sleep(0.01)
    backend.connections[-1].data_received(b"+OK\r\n")
    lane.coalescer.add(Listener(), LoneCall(b"*1\r\n$4\r\nPING\r\n", lambda reply: b""))
    lane.wake()
    lanes.leave(lane)
    await asyncio.sleep(0.1)
    assert not lane.is_over
    backend.connections[-1].data_received(b"+PONG\r\n")
    await asyncio.sleep(0.1)
    assert lane.is_over
    lanes.close()


async def test_a_backend_that_closes_every_connection_at_once_is_not_asked_without_a_pause():
    class Closing(Backend):
        async def connect(self, factory):
            transport = await super().connect(factory)
            transport.close()
            return transport

    backend = Closing()
    lane = SharedLane(lanes_at(backend), Identity())
    await asyncio.sleep(0.2)
    assert 1 < len(backend.connections) < 10
    lane.close()


class Stopped:
    """A client that is not read from, since its lane is full."""

    is_told = False

    def lane_has_room(self):
        self.is_told = True


async def test_who_waits_for_room_is_read_from_again_when_half_of_it_is_free():
    client = Stopped()
    lane = SharedLane(lanes_at(Backend()), Identity())
    for backlog_bytes, is_told in ((MAX_BACKLOG_BYTES // 2, False), (MAX_BACKLOG_BYTES // 2 - 1, True)):
        lane.coalescer.backlog_bytes = MAX_BACKLOG_BYTES
        assert lane.full_for(client)
        lane.coalescer.backlog_bytes = backlog_bytes
        lane.batch_done()
        assert client.is_told == is_told
    lane.close()


async def test_who_waits_for_room_in_a_lane_that_cannot_be_connected_is_read_from_again():
    class Away(Backend):
        async def connect(self, factory):
            raise ConnectionRefusedError

    client = Stopped()
    lane = SharedLane(lanes_at(Away()), Identity())
    lane.coalescer.add(Listener(), LoneCall(b"x" * MAX_BACKLOG_BYTES, lambda reply: b""))
    assert lane.full_for(client)
    await asyncio.sleep(0.01)
    assert client.is_told
    lane.close()


async def test_a_default_user_who_may_not_ping_has_a_lane_all_the_same():
    backend = Backend()
    lane = SharedLane(lanes_at(backend), Identity())
    await asyncio.sleep(0.01)
    backend.connections[-1].data_received(b"-NOPERM User default has no permissions to run the 'ping' command\r\n")
    assert lane.up
    assert lane.is_ready()
    lane.close()


async def test_large_bodies_are_sent_while_others_of_their_turn_are_still_read():
    backend = Backend()
    lane = SharedLane(lanes_at(backend), Identity())
    await asyncio.sleep(0.01)
    backend.connections[-1].data_received(b"+PONG\r\n")
    await asyncio.sleep(0.01)
    assert lane.is_ready()
    route = Routes(b"").get("push_many", b"q", (b"",))
    pieces = [b"$102400\r\n", b"x" * 102400, b"\r\n"]

    def push_without_waiting(count):
        """How many bodies are sent at once."""
        before = backend.sent.count(pieces[1])
        for _ in range(count):
            lane.coalescer.join(Listener(), route, pieces, 1, 1, None)
            lane.wake()
        return backend.sent.count(pieces[1]) - before

    assert push_without_waiting(1) == 1  # the backend was idle
    assert push_without_waiting(2) == 0
    assert push_without_waiting(1) == 3
    assert push_without_waiting(2) == 0
    await asyncio.sleep(0.01)
    assert backend.sent.count(pieces[1]) == 6
    lane.close()
