"""What ends a wait, and what is said of who waits."""

from types import SimpleNamespace

import pytest

from valqd.commands.grammar import parse
from valqd.commands.values import Limits
from valqd.io.waiters import Waiters
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.host import Identity, WorkerState


@pytest.fixture
async def waiting():
    """One client that waits for ten messages, at a lane that is down; and the answers it gets."""
    state = WorkerState(b"", Limits(), Identity())
    waiters = Waiters(SimpleNamespace(connected=[], up=False, clustered=False), state, b"d", lambda *_: None)
    lane = SimpleNamespace(identity=Identity(), up=False, coalescer=Coalescer(), wake=lambda: None)
    answers = []
    session = SimpleNamespace(lane=lane, resp=2, gone=False, finish=answers.append)
    client = SimpleNamespace(session=session, has_hung_up=False, drop_if_left=lambda: False)
    client.waiter = waiters.block(client, parse([b"VALQ.POP", b"q", b"COUNT", b"10", b"BLOCK", b"0"], 2, Limits()))
    yield waiters, client.waiter, answers
    waiters.registration.close()


async def test_how_many_messages_a_waiter_takes_is_registered(waiting):
    waiters, waiter, _ = waiting
    assert waiters._line((0, b"q")) == (1, [(waiter.since, 10)])


@pytest.mark.parametrize(
    "code", ["NOBACKEND", "LOADING", "BUSY", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF"]
)
async def test_an_error_that_passes_ends_no_wait(waiting, code):
    _, waiter, answers = waiting
    waiter.answer(f"-{code} for now\r\n".encode())
    assert (answers, waiter.parked) == ([], True)


async def test_a_refusal_ends_the_wait(waiting):
    _, waiter, answers = waiting
    waiter.answer(b"-NOPERM no\r\n")
    assert (answers, waiter.parked) == ([b"-NOPERM no\r\n"], False)
