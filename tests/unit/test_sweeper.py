"""Whose turn it is to be looked at again when sweeps are refused."""

import asyncio
from types import SimpleNamespace

import pytest
from hiredis import ReplyError

from valqd.io import sweeper as sweeper_module
from valqd.io.sweeper import Sweeper


@pytest.fixture
async def sweeper():
    """One whose backend never answers."""

    async def call(request):
        await asyncio.get_running_loop().create_future()

    control = SimpleNamespace(call=call, complaints=SimpleNamespace(say=lambda *_: None))
    sweeper = Sweeper(control, b"d", SimpleNamespace())
    yield sweeper
    sweeper.close()


async def test_a_queue_that_is_refused_again_and_again_puts_off_nobodys_turn(sweeper, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(sweeper_module, "time", SimpleNamespace(monotonic=lambda: now))
    sweeper._refused("NOREPLICAS", (0, b"victim"))
    turn = sweeper._look_not_before
    assert turn > now
    for _ in range(5):
        now += 0.1
        sweeper._refused("WRONGTYPE", (0, b"evil"))
    assert sweeper._look_not_before == turn
    now = turn + 0.1
    sweeper._refused("WRONGTYPE", (0, b"evil"))
    assert sweeper._look_not_before > now  # the next turn


@pytest.mark.parametrize(
    ("keys", "pause_s"), [([b"valq:{q}:queue"], sweeper_module._LEADER_TICK_S), ([], sweeper_module._NO_QUEUES_TICK_S)]
)
async def test_once_the_functions_are_there_again_it_is_soon_asked_what_is_due(sweeper, keys, pause_s):
    loads = []

    async def call(request):
        return b"db0:keys=1" if request[0] == b"INFO" else ReplyError("ERR Function not found")

    async def calls(requests, db):
        return [[b"0", keys]]

    async def load_library():
        loads.append(1)

    sweeper._control = SimpleNamespace(call=call, calls=calls, load_library=load_library)
    assert await sweeper._tick() == pause_s
    assert len(loads) == len(keys)
