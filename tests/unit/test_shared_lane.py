"""A relay lane that the backend refuses: nobody waits for it, and after a while another is tried."""

import asyncio
from types import SimpleNamespace

import pytest

from valqd.io import shared_lane
from valqd.io.shared_lane import SharedLane
from valqd.protocol.host import Identity
from valqd.protocol.lone_calls import Listener
from valqd.protocol.relay import RelayCall


class Backend:
    """Takes every connection, and notes it; a connection that is closed is lost at once."""

    def __init__(self):
        self.connections = []

    async def connect(self, factory):
        connection = factory()
        loop = asyncio.get_running_loop()
        close = lambda: loop.call_soon(connection.connection_lost, None)  # noqa: E731
        there = SimpleNamespace(setsockopt=lambda *option: None)
        info = lambda name: there  # noqa: E731
        transport = SimpleNamespace(write=lambda data: None, close=close, abort=close, get_extra_info=info)
        connection.connection_made(transport)
        self.connections.append(connection)
        return connection.transport


@pytest.mark.parametrize("resp", [2, 3])
def test_a_refused_relay_lane_is_left_alone_for_a_while(monkeypatch, resp):
    monkeypatch.setattr(shared_lane, "_NO_RELAY_S", 0.05)

    async def run():
        backend = Backend()
        lanes = SimpleNamespace(
            backend=backend,
            loop=asyncio.get_running_loop(),
            outbox=SimpleNamespace(flush=lambda: None, flush_answers=lambda: None),
            complaints=SimpleNamespace(say=lambda what, why: None, over=lambda what: None),
            may_busy_wait=False,
            lane_up=lambda: None,
            discard=lambda lane: None,
        )
        lane = SharedLane(lanes, Identity())
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
