"""MAXLEN, MAXBYTES, OVERFLOW."""

import pytest

from tests.lua.conftest import AUTO
from tests.lua.test_push import records
from valqd.commands.request import packed


def test_length_counts_ready_delayed_and_in_flight(q):
    q.create(max_length=3, attempts=1)
    q.push("a")
    q.push("b", delay=9999)
    q.push("c")
    q.ids(1)
    assert str(q.push("d")) == "FULL queue 'orders' is full: MAXLEN is 3"
    q.nack(1)
    assert q.push("d") == b"4"


@pytest.mark.parametrize("function", ["push_many", "push_records"])
def test_merged_pushes_are_refused_one_by_one(q, function):
    q.create(max_length=2)
    options = [packed([b"1", b"priority", b"1", b"0"])] if function == "push_records" else []
    reply = q.do(function, AUTO, *[*options, b"x"] * 3)
    assert reply[:2] == [1, 2]
    assert reply[2].startswith(b"FULL ")
    assert q.push("x") != b"3"
    q.ack(1)
    assert q.push("x") == b"3"


def test_drophead_makes_room_with_the_oldest(q):
    q.create(max_length=3, overflow="DROPHEAD")
    for body in "abcde":
        q.push(body)
    assert [m["body"] for m in q.pop(9)] == [b"c", b"d", b"e"]
    assert str(q.push("f")).startswith("FULL ")
    assert q.info()["dropped_total"] == 2
    assert q.counts() == (0, 3, 0, 0)


def test_drophead_spares_what_is_urgent_and_young(q):
    q.create(max_length=4, overflow="DROPHEAD")
    q.push("plain")
    q.push("high", priority=9)
    q.push("top", priority=31)
    q.push("late")
    for body in ("more", "still more"):
        q.push(body, priority=1)
    assert [m["body"] for m in q.pop(9)] == [b"top", b"more", b"still more", b"late"]
    assert q.info()["dropped_total"] == 2


def test_drophead_that_cannot_be_enough_drops_nothing(q):
    q.create(max_length=3, overflow="DROPHEAD")
    q.push("a")
    q.push("b")
    q.ids(1)
    assert str(q.push("c", "d", "e", "f")).startswith("FULL ")
    assert str(q.push("c", "d", "e")).startswith("FULL ")
    assert q.counts() == (1, 1, 0, 0)


def test_drophead_stays_quick_over_many_drops(q):
    q.create(max_length=10, overflow="DROPHEAD")
    for _ in range(10):
        q.do("push_many", AUTO, *["x"] * 200)
    assert q.ids() == list(range(1991, 2001))
    assert len([key for key in q.stored() if b"log" in key]) <= 2


@pytest.mark.parametrize("overflow", ["REFUSE", "DROPHEAD"])
def test_bytes_are_those_of_all_bodies_but_the_dead(q, overflow):
    q.create(max_bytes=1000, overflow=overflow, attempts=1)
    for _ in range(3):
        q.push("x" * 300)
    assert str(q.push("x" * 1001)) == "FULL queue 'orders' is full: MAXBYTES is 1000, and 1001 come at once"
    if overflow == "DROPHEAD":
        assert q.push("x" * 400) == b"4"
        assert q.counts() == (3, 0, 0, 0)
        return
    assert str(q.push("x" * 101)) == "FULL queue 'orders' is full: MAXBYTES is 1000"
    q.nack(q.pop()["receipt"])
    assert q.push("x" * 400) == b"4"
    q.ack(2)
    assert q.push("x" * 300) == b"5"
    assert str(q.push("x")).startswith("FULL ")


@pytest.mark.parametrize("way_out", ["purge", "del", "ack", "retention"])
def test_the_bytes_of_the_dead_are_taken_off_once(q, way_out):
    q.create(max_bytes=1000, attempts=1, retention=60_000)
    q.push("x" * 600)
    q.nack(q.pop()["receipt"])
    if way_out == "purge":
        assert q.do("purge", "n2", "", "dlq") == 1
    elif way_out == "retention":
        q.pass_time(60_000)
        q.sweep()
    else:
        assert q.do(way_out, "n2", 1) == 1
    assert q.counts() == (0, 0, 0, 0)
    assert q.push("x" * 600) == b"2"
    assert str(q.push("x" * 401)).startswith("FULL ")


def test_drophead_by_bytes_drops_no_more_than_it_needs(q):
    q.create(max_bytes=1000, overflow="DROPHEAD")
    for size in (100, 200, 300, 400):
        q.push("x" * size)
    q.push("y" * 250)
    assert q.ids() == [3, 4, 5]


def test_drophead_by_bytes_drops_nothing_when_it_is_not_enough(q):
    q.create(max_bytes=1000, overflow="DROPHEAD")
    q.push("x" * 600)
    q.push("x" * 300)
    q.ids(1)
    assert str(q.push("x" * 500)).startswith("FULL ")
    assert q.counts() == (1, 1, 0, 0)


@pytest.mark.parametrize("limit", ["max_bytes", "max_length"])
def test_drophead_reads_and_removes_in_pages(q, limit):
    q.create(overflow="DROPHEAD", **{limit: 20_000 if limit == "max_bytes" else 2000})
    q.push(*["x" * 10] * 2000)
    bodies = ["y" * 20_000] if limit == "max_bytes" else ["y"] * 2000
    calls, _ = q.calls_of("push", "n2", AUTO, "1", 0, 0, *bodies)
    assert (q.info()["dropped_total"], q.ids(1)) == (2000, [2001])
    sizes = calls.pop("HSTRLEN", 0)
    assert sizes == (2000 if limit == "max_bytes" else 0)
    assert sum(calls.values()) < 200


def test_drophead_drops_the_oldest_of_all_kinds(q):
    q.create(max_length=1001, overflow="DROPHEAD")
    for i in range(1000):
        q.push("x", **({"priority": i % 31} if i % 3 else {}))
    q.push("later", delay=9999)
    taken = set(q.ids(20))
    q.push(*["new"] * 600)
    left = [i for i in range(1, 1001) if i not in taken]
    assert sorted(q.ids()) == left[600:] + list(range(1002, 1602))


def test_a_limit_that_was_lowered_is_reached_in_steps(q):
    q.fill(7000)
    q.push("urgent", priority=5)
    q.update(max_length=10, overflow="DROPHEAD")
    q.sweep()
    assert q.counts()[0] == 7001, "only a push makes others make way"
    assert q.push("x") == b"7002"
    assert q.counts()[0] == 5002
    assert q.do("push_many", AUTO, "y", "z") == 7003
    assert q.counts()[0] == 3004, "one call drops no more for several clients"
    assert q.do("due", "me", 1000, 10, keys=["valq::daemons"])[3:] == [b"orders"]
    assert q.do("sweep", "", 1000) == 1
    assert q.counts()[0] == 1004
    q.sweep()
    assert q.info()["dropped_total"] == 6994
    assert q.ids(20) == [7001, *range(6995, 7001), 7002, 7003, 7004]


def test_a_limit_of_bytes_that_was_lowered_is_reached_in_steps(q):
    q.create(max_bytes=10**6, overflow="DROPHEAD")
    for _ in range(10):
        q.push(*["x" * 10] * 500)
    q.update(max_bytes=100)
    assert q.push("y" * 20) == b"5001"
    assert q.counts()[0] == 3001
    q.sweep()
    assert q.ids() == [*range(4993, 5001), 5001]


def test_a_limit_that_is_raised_again_or_refuses_ends_the_steps(q):
    q.fill(5000)
    for options in ({"max_length": 9000}, {"max_length": 9, "overflow": ""}):
        q.update(max_length=10, overflow="DROPHEAD")
        q.push("x")
        left = q.counts()[0]
        q.update(**options)
        q.sweep()
        q.update(max_length=10, overflow="DROPHEAD")
        q.sweep()
        assert q.counts()[0] == left


def test_a_queue_within_its_limits_drops_all_that_must_go(q):
    q.create(max_length=6000, overflow="DROPHEAD")
    q.fill(6000)
    q.push(*["y"] * 5000)
    assert q.ids(1) == [5001]
    assert q.counts() == (5999, 1, 0, 0)


@pytest.mark.parametrize("count", [10, 2500])
def test_bytes_that_were_there_before_the_limit_count(q, count):
    q.create()
    q.fill(count, b"x" * 10)
    q.ids(5)
    q.update(max_bytes=count * 10 + 100)
    q.sweep()
    assert str(q.push("x" * 101)).startswith("FULL ")
    assert str(q.push("x" * 100)) == f"b'{count + 1}'"
    q.ack("1-1")
    assert str(q.push("x" * 10)) == f"b'{count + 2}'"
    assert q.ids(9) == (list(range(6, 15)) if count > 10 else [6, 7, 8, 9, 10, 11, 12])


def test_update_counts_what_is_there_before_it_answers(q):
    q.fill(5000, b"x" * 10)
    steps = ["max_bytes", "49000"]
    calls = 0
    while (reply := q.do("update", "e2", *steps)) is None:
        steps = []
        calls += 1
    assert (reply, 3 <= calls <= 6) == (b"+OK\r\n", True)
    assert str(q.push("x")).startswith("FULL ")
    assert q.do("update", "n2") == b"OK"
    assert q.info()["max_bytes"] == 49000


def test_drophead_drops_a_bounded_number_while_bytes_are_counted(q):
    q.fill(70_000, b"x" * 10)
    q.update(max_bytes=1000, overflow="DROPHEAD")
    assert q.push("y" * 100) == b"70001"
    assert q.counts()[0] >= 68_000
    q.sweep()
    assert q.push("y" * 100) == b"70002"
    assert q.ids() == [*range(69_921, 70_001), 70_001, 70_002]


def test_what_is_over_and_not_settled_yet_does_not_make_a_queue_full(q):
    q.create(max_length=600)
    for at in range(600):
        q.push("old", ttl=100 + at)
    q.pass_time(5000)
    assert len(q.push(*["x"] * 600)) == 600
    assert q.counts() == (600, 0, 0, 0)


@pytest.mark.parametrize("function", ["push_records", "push_many"])
def test_a_call_that_finds_the_queue_full_settles_a_bounded_number(q, function):
    count = 50_000
    q.create(max_length=count, vt=1000)
    q.fill(count)
    for _ in range(count // 1000):
        q.do("pop", "e2", AUTO, "1000", "", "")
    q.pass_time(5000)
    options = [packed([b"1", b"priority", b"1", b"0"])] if function == "push_records" else []
    reply = q.do(function, AUTO, *[*options, b"x"] * 100)
    assert len(reply) == 100
    assert all(item.startswith(b"FULL ") for item in reply)
    assert q.link.ok("ZCARD", "valq:{orders}:inflight") > 0


def test_what_is_over_and_not_settled_yet_makes_way_before_what_lives(q):
    q.create(max_length=600, overflow="DROPHEAD")
    q.push(*["alive"] * 300)
    for at in range(300):
        q.push("old", ttl=100 + at)
    q.pass_time(5000)
    q.push(*["x"] * 200)
    assert q.counts() == (500, 0, 0, 0)
    assert q.info()["dropped_total"] == 0


def test_a_field_that_is_none_is_refused(q):
    q.create()
    assert str(q.update(pause_in=1)) == "ERR unknown field 'pause_in'"


def test_one_call_drops_no_more_for_several_clients(q):
    q.fill(7000)
    q.update(max_length=10, overflow="DROPHEAD")
    pushes = [(b"x", {"priority": 1})] * 3
    assert q.do("push_records", AUTO, *records(*pushes)) == 7001
    assert q.counts()[0] == 5003


def test_merged_pushes_are_refused_one_by_one_for_their_bytes_too(q):
    q.create(max_bytes=10)
    reply = q.do("push_many", AUTO, b"x" * 6, b"y" * 6, b"z" * 4)
    assert (reply[0], reply[2]) == (1, 2)
    assert reply[1].startswith(b"FULL ")


def test_a_body_over_the_limit_is_refused_though_more_than_it_makes_way(q):
    q.create(max_bytes=10**6, overflow="DROPHEAD")
    for _ in range(10):
        q.push(*["x" * 10] * 500)
    q.update(max_bytes=100)
    assert str(q.push("y" * 101)).startswith("FULL ")
    assert q.counts()[0] == 5000


def test_drophead_drops_nothing_for_what_delayed_ones_leave_no_room_to(q):
    for _ in range(10):
        q.push(*["later"] * 500, delay=9999)
    q.fill(3000)
    q.update(max_length=10, overflow="DROPHEAD")
    assert str(q.push("x")).startswith("FULL ")
    assert (q.counts()[0], q.info()["dropped_total"]) == (3000, 0)


def test_the_bytes_of_a_dead_letter_count_again_when_it_is_redriven(q):
    q.create(max_bytes=1000, attempts=1)
    q.push("x" * 600)
    q.nack(q.pop()["receipt"])
    assert q.do("redrive", "n2", "", "ALL", "", "") == 1
    assert str(q.push("x" * 401)).startswith("FULL ")
    assert q.push("x" * 400) == b"2"


def test_what_a_sweep_has_yet_to_drop_is_due_again(q):
    q.fill(7000)
    q.update(max_length=10, overflow="DROPHEAD")
    q.push("x")
    for _ in range(2):
        assert q.do("due", "me", 1000, 10, keys=["valq::daemons"])[3:] == [b"orders"]
        assert q.do("sweep", "", 1000) == 1


@pytest.mark.parametrize("overflow", ["REFUSE", "DROPHEAD"])
def test_only_a_push_that_is_larger_than_the_queue_is_told_that_it_is(q, overflow):
    full = "FULL queue 'orders' is full: MAXLEN is 3"
    q.create(max_length=3, overflow=overflow)
    q.push("a", "b", "c")
    q.pop()
    assert str(q.push("d", "e", "f")) == full  # which would fit into an empty queue
    assert str(q.push("d", "e", "f", "g")) == f"{full}, and 4 come at once"
