"""What a worker remembers of its clients is bounded, and nothing of one client lasts in it."""

from tests.servers import request
from valqd.protocol import foreign, host
from valqd.protocol.framing import MAX_BULK_BYTES
from valqd.protocol.host import Identity, WorkerState


def test_turns_of_fair_pops_are_bounded(monkeypatch):
    monkeypatch.setattr(host, "_MAX_TURNS", 10)
    state = WorkerState(b"", MAX_BULK_BYTES, Identity())
    queues = (b"a", b"b", b"c")
    assert [state.in_turn(queues)[0] for _ in range(4)] == [b"a", b"b", b"c", b"a"]
    for number in range(8):
        state.in_turn((b"%d" % number, b"x"))
    assert state.in_turn(queues)[0] == b"b"
    state.in_turn((b"one more", b"x"))
    assert state.in_turn(queues)[0] == b"a"


def test_turns_of_empty_queues_are_shared_out_evenly():
    state = WorkerState(b"", MAX_BULK_BYTES, Identity())
    queues = tuple(b"%d" % number for number in range(20))
    orders = [state.in_turn(queues) for _ in range(2000)]
    assert all(sorted(order) == sorted(queues) for order in orders)
    assert 800 < sum(order.index(b"0") < order.index(b"1") for order in orders) < 1200


def test_names_of_commands_are_bounded(monkeypatch):
    monkeypatch.setattr(foreign, "_MAX_PLAIN_NAMES", 2)
    monkeypatch.setattr(foreign, "_PLAIN_NAMES", set())
    for name in (b"ONE", b"TWO", b"THREE"):
        foreign.remember(name)
    assert foreign.count_plain(request("THREE"), 1) == 1
    assert foreign.count_plain(request("ONE"), 1) == 0
