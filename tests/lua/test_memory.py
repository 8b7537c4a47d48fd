"""Memory: what a waiting message costs, that it comes back, and a full server."""

import pytest

from tests.lua.conftest import AUTO


def used(q):
    q.link.ok("MEMORY", "PURGE")
    return int(q.link.ok("INFO", "memory").split(b"used_memory:")[1].split()[0])


def test_a_waiting_message_costs_at_most_115_percent_of_a_list_element(q):
    count, body = 60_000, b"x" * 100
    base = used(q)
    for at in range(0, count, 500):
        q.link.ok("RPUSH", "list", *[body] * min(500, count - at))
    floor = used(q) - base
    q.link.ok("DEL", "list")
    base = used(q)
    q.fill(count, body)
    assert used(q) - base <= 1.15 * floor


@pytest.mark.parametrize("step", [None, 100])
@pytest.mark.parametrize("how", ["popped", "waiting"])
def test_memory_comes_back_when_all_or_all_but_every_100th_are_acked(q, step, how):
    count, body = 60_000, b"x" * 100
    warm = q.other("warm")
    warm.fill(1000, body)  # a server keeps what its first calls take
    warm.do("pop", "e2", AUTO, "1000", "", "")
    warm.ack(*range(1, 1001))
    warm.sweep()
    q.create(vt=3600_000)
    base = used(q)
    q.fill(count, body)
    peak = used(q)
    if how == "popped":
        for _ in range(count // 1000):
            q.do("pop", "e2", AUTO, "1000", "", "")
    suffix = "-1" if how == "popped" else ""
    for at in range(1, count + 1, 1000):
        q.ack(*[f"{i}{suffix}" for i in range(at, at + 1000) if not step or i % step])
    q.sweep()
    kept = count // step if step else 0
    assert sum(q.counts()) == kept
    assert used(q) - base - kept * 500 <= 0.02 * (peak - base)
    if step:
        assert q.show(step)["body"] == body
        if how == "waiting":
            assert q.ids(5) == [step * i for i in range(1, 6)]
        else:
            assert q.ack(f"{step}-1") == 1


def test_full_server_can_be_drained_but_not_filled(q):
    q.create(attempts=1)
    q.fill(50)
    q.push("record", headers={"a": "b"})
    q.link.ok("CONFIG", "SET", "maxmemory", 1)
    try:
        for call in (("push_many", AUTO, "x"), ("push", "n2", AUTO, "", 0, 0, "x")):
            assert str(q.fcall(*call)).startswith("OOM ")
        assert q.ids(10) == list(range(1, 11))
        assert isinstance(q.extend("1-1", 1000), int)
        assert q.ack("1-1") == 1
        assert q.nack("2-1") == 1
        assert q.do("redrive", "n2", "", "ALL", "", "") == 1
        assert q.do("del", "n2", 3) == 1
        assert q.do("cancel", "n2", 4) == 1
        assert q.info()["ready_msgs"] == 42
        assert q.do("purge", "n2", "", "all") > 40
        q.sweep()
        assert q.do("delete", "n2") == b"OK"
    finally:
        q.link.ok("CONFIG", "SET", "maxmemory", 0)


@pytest.mark.parametrize("slot", [1, 128])
def test_the_first_and_the_last_message_of_a_bucket_leave_it_when_it_is_sparse(q, slot):
    q.create(vt=3600_000)
    q.fill(50 * 128)
    while q.ids(1000):
        pass
    kept = range(slot, 50 * 128, 2 * 128)  # one in every other bucket: the next one does not do its work
    q.ack(*sorted({*range(1, 50 * 128 + 1)} - {*kept}))
    q.sweep()
    assert q.link.ok("HLEN", "valq:{orders}:gone") == 0
    assert q.ack(*kept) == len(kept)


@pytest.mark.parametrize("way", ["cancel", "ack"])
def test_what_is_removed_while_it_waits_has_the_sweeper_come(q, way):
    q.fill(300)
    q.do("due", "me", 1000, 9, keys=["valq::daemons"])
    q.do(way, "n2", "7")
    q.pass_time(5001)
    assert q.do("due", "me", 1000, 9, keys=["valq::daemons"])[3:] == [b"orders"]
