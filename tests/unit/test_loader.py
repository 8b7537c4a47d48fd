"""The functions are loaded once for all who find none meanwhile, and again for who does later."""

import asyncio

from valqd.errors import ControlLost
from valqd.io.loader import FunctionLoader


async def test_once_for_all_who_ask_meanwhile_and_again_for_who_asks_later():
    loads, told = [], []

    async def load():
        loads.append(len(told))
        await asyncio.sleep(0.01)
        if len(loads) == 2:
            raise ControlLost

    loader = FunctionLoader(load)
    for count in (3, 1):
        for _ in range(count):
            loader.load(told.append)
            await asyncio.sleep(0)
        await asyncio.sleep(0.03)
    assert loads == [0, 3]
    assert told[:3] == [None] * 3
    assert told[3].startswith(b"-NOBACKEND ")
