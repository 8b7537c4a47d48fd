"""cancel and pause."""

import pytest

from tests.lua.conftest import AUTO


@pytest.mark.parametrize("plain", [True, False])
def test_waiting_message_is_removed(q, plain):
    q.push("x", **({} if plain else {"priority": 1}))
    q.push("later", delay=9999)
    assert [q.do("cancel", "n2", i) for i in (1, 2, 3, 1)] == [1, 1, 0, 0]
    assert q.counts() == (0, 0, 0, 0)
    assert q.info()["cancelled_total"] == 2


@pytest.mark.parametrize("end", ["nack", "silent", "fatal", "lease", "ack"])
@pytest.mark.parametrize("plain", [True, False])
def test_message_in_flight_is_told_by_extend_and_not_delivered_again(q, end, plain):
    q.create(vt=1000)
    q.push("x", **({} if plain else {"priority": 1}))
    receipt = q.pop()["receipt"]
    assert q.do("cancel", "n2", receipt) == 1
    assert q.do("cancel", "n2", 1) == 1
    assert str(q.extend(receipt, 1000)) == "CANCELLED message 1 was cancelled"
    if end == "ack":
        assert q.ack(receipt) == 1
    elif end == "lease":
        q.pass_time(1000)
    else:
        assert q.nack(receipt, kind={"nack": "FAIL", "silent": "SILENT", "fatal": "FATAL"}[end]) == 1
    assert q.counts() == (0, 0, 0, 0)
    assert (q.info()["cancelled_total"], q.info()["acked_total"]) == ((0, 1) if end == "ack" else (1, 0))


def test_stale_receipt_cancels_nothing(q):
    q.push("x")
    q.nack(q.pop()["receipt"])
    assert str(q.fcall("cancel", "n2", "1-1")) == "STALE the lease of receipt 1-1 is over"
    assert q.counts() == (1, 0, 0, 0)


def test_paused_in_refuses_pushes_and_out_gives_nothing(q):
    q.push("x")
    q.do("pause", "n2", "IN", "")
    for refusal in (q.push("y"), q.fcall("push_many", AUTO, "y")):
        assert str(refusal) == "PAUSED queue 'orders' takes no pushes: it is paused (see VALQ.PAUSE)"
    assert q.info()["paused"] == b"IN"
    q.do("pause", "n2", "OUT", "")
    assert q.push("y") == b"2"
    assert q.pop() is None
    assert q.do("pop_many", AUTO, "1", "2,5,,") == [b"*0\r\n"]
    q.do("pause", "n2", "NONE", "")
    assert q.ids() == [1, 2]


def test_leases_and_acks_go_on_while_paused(q):
    q.create(vt=1000)
    q.fill(2)
    q.ids(2)
    q.do("pause", "n2", "ALL", "")
    assert q.ack("1-1") == 1
    q.pass_time(1000)
    assert q.counts() == (1, 0, 0, 0)


def test_pause_for_ends_by_itself(q):
    q.push("x")
    q.do("pause", "n2", "ALL", 1000)
    q.pass_time(999)
    assert q.pop() is None
    q.pass_time(1)
    assert q.ids() == [1]
    assert q.push("y") == b"2"
    assert q.info()["paused"] == b"NONE"
