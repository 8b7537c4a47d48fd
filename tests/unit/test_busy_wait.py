"""The loop is kept awake only for a near backend, only while it owes an answer, and never for long."""

import pytest

from valqd.io import busy_wait
from valqd.io.busy_wait import MOST_S, BusyWait


class Loop:
    def __init__(self):
        self.ready = []

    def call_soon(self, callback):
        self.ready.append(callback)

    def turn(self):
        """Run what is ready; whether the loop would have slept."""
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()
        return not self.ready


class Calls:
    def __init__(self):
        self.sent = []


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(busy_wait, "perf_counter", lambda: now[0])
    return now


def waiting(allowed=True):
    loop, calls = Loop(), Calls()
    return loop, calls, BusyWait(loop, calls, allowed)


def test_awake_until_the_answer_comes(clock):
    loop, calls, busy = waiting()
    calls.sent.append("call")
    busy.sent(was_idle=True)
    assert [loop.turn() for _ in range(3)] == [False] * 3
    calls.sent.clear()
    busy.answered()
    assert loop.turn()


def test_not_for_longer_than_it_may(clock):
    loop, calls, busy = waiting()
    calls.sent.append("call")
    busy.sent(was_idle=True)
    assert not loop.turn()
    clock[0] += MOST_S
    assert loop.turn()
    assert not loop.ready


def test_a_slow_backend_is_slept_for_until_it_is_near_again(clock):
    loop, calls, busy = waiting()

    def call(took_s):
        calls.sent.append("call")
        busy.sent(was_idle=True)
        awake = bool(loop.ready)
        clock[0] += took_s
        loop.turn()
        calls.sent.clear()
        busy.answered()
        loop.turn()
        return awake

    assert call(0.002)  # not known yet
    assert not call(0.0001)  # it was slow
    assert call(0.0001)  # it was near


def test_not_without_a_core_to_spare(clock):
    loop, calls, busy = waiting(allowed=False)
    for _ in range(2):
        calls.sent.append("call")
        busy.sent(was_idle=True)
        assert not loop.ready
        calls.sent.clear()
        busy.answered()
