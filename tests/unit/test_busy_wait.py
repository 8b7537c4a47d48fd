"""The loop is kept awake only for what is near or for a client that is alone, only while that pays, never for long."""

from types import SimpleNamespace

import pytest

from valqd.io import busy_wait
from valqd.io.busy_wait import AWAIT_COMMAND_S, AWAIT_REPLY_S, BusyWait


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
        self.crowd = 1

    def send(self, clients=2):
        self.sent.append(SimpleNamespace(deals=[None] * clients))


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
    calls.send()
    busy.sent(was_idle=True)
    assert [loop.turn() for _ in range(3)] == [False] * 3
    calls.sent.clear()
    busy.answered()
    assert loop.turn()


def test_not_for_longer_than_it_may(clock):
    loop, calls, busy = waiting()
    calls.send()
    busy.sent(was_idle=True)
    assert not loop.turn()
    clock[0] += AWAIT_REPLY_S
    assert loop.turn()
    assert not loop.ready


def test_a_slow_backend_is_slept_for_until_it_is_near_again(clock):
    loop, calls, busy = waiting()

    def call(took_s):
        calls.send()
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
        calls.send()
        busy.sent(was_idle=True)
        assert not loop.ready
        calls.sent.clear()
        busy.answered()


class Alone:
    """A client that is alone, and waits ``pause_s`` before it sends again."""

    def __init__(self, clock, pause_s):
        self.clock, self.pause_s = clock, pause_s
        self.loop, self.calls, self.busy = waiting()

    def command(self, clients=1):
        """Whether it was still awake when the command came, and stays so when it is answered."""
        self.clock[0] += self.pause_s
        was_awake = not self.loop.turn()
        self.calls.send(clients)
        self.busy.sent(was_idle=True)
        self.loop.turn()
        self.calls.sent.clear()
        self.busy.answered()
        return was_awake, not self.loop.turn()


def test_awake_for_the_next_command_of_a_client_that_is_alone(clock):
    client = Alone(clock, AWAIT_COMMAND_S / 2)
    assert [client.command() for _ in range(3)] == [(False, True), (True, True), (True, True)]
    assert client.command(clients=2) == (True, False)
    clock[0] += AWAIT_COMMAND_S
    assert client.loop.turn()


def test_a_client_that_takes_its_time_is_not_waited_for_but_now_and_then(clock):
    client = Alone(clock, 2 * AWAIT_COMMAND_S)
    awake = [client.command() for _ in range(200)]
    assert not any(was for was, _ in awake)
    assert 3 <= sum(stays for _, stays in awake) <= 3 + 200 // 64
    client.pause_s = AWAIT_COMMAND_S / 2
    assert (True, True) in [client.command() for _ in range(70)]


def test_not_when_many_clients_send(clock):
    loop, calls, busy = waiting()
    calls.crowd = 50
    calls.send(clients=50)
    busy.sent(was_idle=True)
    assert loop.turn(), "its turns would only get smaller"
