"""ack, ack_many and the fencing of receipts."""

import pytest

from tests.lua.conftest import AUTO


def test_ack_in_every_state_by_id(q):
    q.create(attempts=1)
    q.push("ready")
    q.push("inflight", priority=9)
    q.push("delayed", delay=9000)
    q.push("dead", priority=8)
    assert q.ids(2) == [2, 4]
    q.nack(4)
    assert q.counts() == (1, 1, 1, 1)
    assert q.ack(1, 2, 3, 4) == 4
    assert q.counts() == (0, 0, 0, 0)
    assert q.info()["acked_total"] == 4


def test_receipt_counts_only_while_its_delivery_holds_the_lease(q):
    q.create(vt=1000)
    q.push("x")
    old = q.pop()["receipt"]
    q.pass_time(1000)
    assert q.ack(old) == 0
    new = q.pop()["receipt"]
    assert (old, new) == (b"1-1", b"1-2")
    assert q.ack(old) == 0
    assert q.ack(new) == 1
    assert q.ack(new) == 0


def test_receipts_are_never_reused(q):
    q.create(attempts=1)
    q.push("x")
    seen = [q.pop()["receipt"]]
    q.nack(seen[0], kind="SILENT")
    seen.append(q.pop()["receipt"])
    q.nack(seen[1])
    assert q.counts() == (0, 0, 0, 1)
    assert q.do("redrive", "n2", "", "ALL", "", "") == 1
    seen.append(q.pop()["receipt"])
    assert seen == [b"1-1", b"1-2", b"1-3"]
    assert q.ack(*seen[:2]) == 0


def test_late_worker_cannot_ack_even_when_more_is_due_than_one_call_settles(q):
    q.create(vt=1000)
    q.fill(1500)
    q.ids(1500)
    q.pass_time(1000)
    assert q.do("ack_many", *[f"{i}-1" for i in range(1500, 1000, -1)]) == [0] * 500


def test_a_lease_that_is_over_and_not_settled_yet_holds_for_ids_alone(q):
    q.fill(300)
    for i in range(300):
        q.ids(1, vt=1000 + i)
    q.pass_time(2000)
    assert q.do("ack_many", "299", "298-1", "1-1", "297", "296-1") == [1, 0, 0, 1, 0]
    q.sweep()
    assert q.counts() == (298, 0, 0, 0)


def test_many_tell_which_when_not_all(q):
    q.fill(300)
    q.ids(300)
    assert q.do("ack_many", *[f"{i}-1" for i in range(1, 201)]) == 200
    assert q.do("ack_many", "200-1", "201-1", "201-1", "202", "203-2", "999-1", "301") == [0, 1, 0, 1, 0, 0, 0]
    assert q.info()["acked_total"] == 202


@pytest.mark.parametrize("ids", [("1-1", "1-1"), ("1", "1-1"), ("1", "1")])
def test_named_twice_counts_once(q, ids):
    q.push("x")
    q.pop()
    assert q.ack(*ids) == 1


@pytest.mark.parametrize("large", [False, True])
def test_acked_in_any_order_everything_is_gone(q, large):
    count = 400
    q.do("push_many", AUTO, *[b"x" * 1500 if large and i % 3 == 0 else b"x" for i in range(count)])
    q.ids(count)
    assert q.ack(*[f"{i}-1" for i in range(count, 0, -1)]) == count
    assert q.stored() in ([q.key.encode()], [f"valq:{{orders}}:{s}".encode() for s in ("gone", "log:3", "queue")])


def test_unknown_ids_count_nothing(q):
    q.create()
    assert q.ack(1, "1-1", "99999999999999999999") == 0
    assert str(q.other("none").fcall("ack", "n2", 1)) == "NOQUEUE no such queue 'none'"


def test_ack_of_a_waiting_message_in_the_middle_is_not_delivered(q):
    q.fill(10)
    assert q.ack(4, 1, 10) == 3
    assert q.counts() == (7, 0, 0, 0)
    assert q.ids() == [2, 3, 5, 6, 7, 8, 9]


def test_many_records_that_wait_are_acked_by_their_ids(q):
    q.push(*"abcde", priority=1)
    assert q.ack(1, 2, 3, 4, 5) == 5
