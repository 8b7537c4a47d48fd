"""A worker knows all of its lanes, also those that new clients do not get any more."""

import asyncio
from types import SimpleNamespace

from valqd.io.lanes import SharedLanes
from valqd.protocol.host import Identity


class Backend:
    """Where no connection is ever made."""

    async def connect(self, factory):
        await asyncio.Event().wait()


def test_a_lane_that_still_has_users_is_waited_for_and_closed_though_new_clients_get_another():
    async def run():
        nothing = lambda *_: None  # noqa: E731
        outbox = SimpleNamespace(flush=nothing)
        lanes = SharedLanes(Backend(), Identity(), outbox, None, nothing, nothing, may_busy_wait=False)
        old = lanes.get(Identity())
        old.users += 1
        lanes.renew_first()
        assert lanes.get(Identity()) is not old
        assert not lanes.busy
        old.prove(b"", nothing)
        assert lanes.busy
        lanes.close()
        assert old.is_over
        assert not old.up  # what joined it would never be sent

    asyncio.run(run())
