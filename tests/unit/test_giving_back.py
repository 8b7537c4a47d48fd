"""Messages that were popped for who has left go back: all of them, and not for ever."""

from functools import partial
from types import SimpleNamespace

import pytest

from tests.servers import request
from valqd.io.worker import _GIVE_BACK_TRIES, Worker
from valqd.protocol.coalescer import Routes


@pytest.fixture
def later():
    return []


@pytest.fixture
def joined():
    """Who joined a call, and with how many receipts."""
    return []


@pytest.fixture
def lane(joined):
    coalescer = SimpleNamespace(join=lambda who, route, items, units, count, extra: joined.append((who, units)))
    return SimpleNamespace(is_over=False, users=0, coalescer=coalescer, wake=lambda: None)


@pytest.fixture
def worker(later):
    worker = SimpleNamespace(
        lanes=SimpleNamespace(leave=lambda lane: None),
        loop=SimpleNamespace(call_later=lambda delay_s, callback, *args: later.append(partial(callback, *args))),
        state=SimpleNamespace(routes=Routes(b"")),
    )
    worker._give_back = partial(Worker._give_back, worker)
    return worker


def test_a_backend_that_refuses_is_asked_so_often_at_most(worker, lane, joined, later):
    worker._give_back(lane, b"q", [b"1-1"], _GIVE_BACK_TRIES)
    for _ in range(3 * _GIVE_BACK_TRIES):
        joined[-1][0].answer(b"-BUSY a script\r\n")
        if later:
            later.pop()()
    assert len(joined) == _GIVE_BACK_TRIES


def test_all_of_many_messages_are_given_back(worker, lane, joined):
    messages = [request("id", number, "receipt", f"{number}-1") for number in range(1, 2501)]
    assert Worker.release(worker, lane, b"q", b"*2500\r\n" + b"".join(messages))
    assert [units for _, units in joined] == [1000, 1000, 500]
