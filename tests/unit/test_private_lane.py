"""A client's own lane that is not open yet: what its client sends meanwhile is bounded."""

import asyncio
from types import SimpleNamespace

from valqd.io.private_lane import _MAX_UNSENT_BYTES, PrivateLane


async def test_until_it_is_open_its_client_sends_so_much_at_most():
    async def connect(factory):
        await asyncio.get_running_loop().create_future()

    told = []
    worker = SimpleNamespace(backend=SimpleNamespace(connect=connect), leaving=set())
    lane = PrivateLane(SimpleNamespace(private_full=told.append), worker, b"")
    lane.send(b"x" * _MAX_UNSENT_BYTES)
    assert told == []
    lane.send(b"x")
    assert told == [True]
    lane.close()
