"""The functions are loaded once for all who find none meanwhile, and again for who does later."""

import asyncio

import pytest

from valqd.errors import ControlLost, StartError
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


async def answer_after(error):
    """What who asks for functions is told, when loading them raises this."""

    async def load():
        raise error

    told = []
    FunctionLoader(load).load(told.append)
    await asyncio.sleep(0.01)
    return told


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ("OOM command not allowed", b"-OOM command not allowed\r\n"),
        ("READONLY You can't write", b"-READONLY You can't write\r\n"),
        ("BUSY a script", b"-BUSY a script\r\n"),
        ("NOPERM no", b"-ERR the queue functions cannot be loaded: why\r\n"),
    ],
)
async def test_what_tells_of_the_backends_state_is_passed_on_in_its_words(refusal, told):
    assert await answer_after(StartError("why", refusal=refusal)) == [told]


async def test_who_asked_is_told_though_loading_failed_in_an_unexpected_way(caplog):
    (told,) = await answer_after(KeyError("library_code"))
    assert told.startswith(b"-ERR internal error")
    assert caplog.records[0].exc_info
