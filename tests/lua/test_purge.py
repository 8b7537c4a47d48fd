"""purge, del, and how long they hold the server."""

import itertools
import re

import pytest

from tests.lua.conftest import AUTO

STATES = {"main": 7, "ready": 4, "inflight": 3, "delayed": 2, "dlq": 1, "all": 10}


def stocked(q):
    """4 ready, 3 in flight, 2 delayed, 1 dead; plain messages and records in each of the first two."""
    q.create(attempts=1)
    q.push("dead", priority=9)
    q.nack(q.pop()["receipt"])
    for _ in range(2):
        q.push("record", priority=1)
        q.push("later", delay=99999)
    q.fill(5)
    q.ids(3)
    assert q.counts() == (4, 3, 2, 1)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("mode", ["n2", "e2"])
def test_purge_removes_the_state_it_names(q, state, mode):
    stocked(q)
    removed = q.do("purge", "n2", "", state) if mode == "n2" else q.steps("purge", state)[0]
    assert removed == STATES[state]
    gone = {"main": (0, 0, 2, 1), "ready": (0, 3, 2, 1), "inflight": (4, 0, 2, 1), "delayed": (4, 3, 0, 1),
            "dlq": (4, 3, 2, 0), "all": (0, 0, 0, 0)}  # fmt: skip
    assert q.counts() == gone[state]
    assert q.push("new") == b"11"
    assert q.ids()[-1] == 11


@pytest.mark.parametrize("pushed", [10, 200])  # into the bucket of the last that goes, and beyond it
def test_purge_in_steps_leaves_what_came_after_it_began(q, pushed):
    q.fill(100_000)
    first, token = q.do("purge", "e2", "", "ready")
    assert token
    q.fill(pushed)
    total = first
    while token:
        removed, token = q.do("purge", "e2", token, "ready")
        total += removed
    assert total == 100_000
    assert q.ids() == list(range(100_001, 100_001 + pushed))


def worked_ms(q):
    """For how long the server has had a processor."""
    found = re.findall(rb"used_cpu_(?:user|sys):(\S+)", q.link.ok("INFO", "cpu"))
    return sum(map(float, found)) * 1000


@pytest.mark.parametrize("function", ["purge", "delete"])
def test_200_000_messages_go_without_holding_the_server(q, function):
    q.create()
    q.fill(200_000)
    q.ids(1000)
    at = [worked_ms(q)]
    if function == "purge":
        assert steps_with(q, "all", lambda: at.append(worked_ms(q))) == 200_000
    else:
        q.do("delete", "n2")
        assert q.stored() == []
    at.append(worked_ms(q))
    assert max(after - before for before, after in itertools.pairwise(at)) < 50
    assert q.pop() is None


def test_del_removes_from_any_state_and_stale_receipts_count_nothing(q):
    stocked(q)
    assert q.do("del", "n2", 1, 2, 3, "6-1", "7-2", 9, 10, 10, 99) == 6
    assert q.counts() == (2, 1, 1, 0)
    assert q.ids() == [7, 8]


def test_purge_of_a_missing_queue(q):
    assert str(q.fcall("purge", "n2", "", "all")) == "NOQUEUE no such queue 'orders'"
    assert q.do("push_many", AUTO, "x") == 1


def test_purge_of_a_queue_that_is_deleted_between_steps_ends(q):
    q.fill(100_000)
    removed, token = q.do("purge", "e2", "", "ready")
    assert removed
    assert token
    q.do("delete", "n2")
    assert q.do("purge", "e2", token, "ready") == [0, b""]


def test_purge_of_a_queue_that_is_made_anew_between_steps_leaves_the_new_one_alone(q):
    q.fill(100_000)
    _, token = q.do("purge", "e2", "", "ready")
    q.do("delete", "n2")
    q.pass_time(1)
    q.push(*"abc")
    assert q.do("purge", "e2", token, "ready") == [0, b""]
    q.fill(200)
    assert q.ids() == list(range(1, 204))


def steps_with(q, state, between):
    """Purge in steps, with something between them; how many were removed."""
    total, token = 0, b""
    while True:
        removed, token = q.do("purge", "e2", token, state)
        total += removed
        if not token:
            return total
        between()


def test_purge_misses_nothing_though_what_it_passed_over_goes(q):
    q.push(*["x"] * 4000, priority=1)
    calls = []

    def between():
        calls.append(1)
        if len(calls) == 1:
            q.push(*["new"] * 5, priority=31)
        elif len(calls) == 2:
            q.ids(5)

    assert steps_with(q, "ready", between) == 4000
    assert q.counts() == (0, 5, 0, 0)


def test_purge_misses_nothing_though_messages_move_on_meanwhile(q):
    q.create(vt=1000)
    q.push(*["x"] * 5000, priority=1)
    moves = iter([lambda: q.ids(50), lambda: q.pass_time(1000)])
    assert steps_with(q, "main", lambda: next(moves, lambda: None)()) == 5000
    assert q.counts() == (0, 0, 0, 0)


def test_purge_goes_back_to_the_first_index_for_what_came_there_meanwhile(q):
    q.fill(4100)
    q.push(*["x"] * 2000, priority=1)
    pops = iter([lambda: q.ids(500)])
    steps_with(q, "main", lambda: next(pops, lambda: None)())
    assert q.counts() == (0, 0, 0, 0)


def purged(q, state, *between):
    """Purge in steps, with each of these between two; how many were removed."""
    total, token, left = 0, b"", list(between)
    for _ in range(30):
        removed, token = q.do("purge", "e2", token, state)
        total += removed
        if not token:
            return total
        if left:
            left.pop(0)()
    raise AssertionError("it does not end")


def test_purge_of_records_leaves_what_came_after_it_began_however_much(q):
    q.push(*["old"] * 2005, priority=1)

    def new():
        q.push(*["new"] * 4100, priority=31)

    def fewer():
        q.ids(105)

    assert purged(q, "ready", new, lambda: None, fewer) == 2005
    assert q.counts() == (3995, 105, 0, 0)


def test_purge_looks_at_each_state_from_its_beginning(q):
    q.create(attempts=9)
    q.push(*["old"] * 2500, priority=1)
    for _ in range(3):
        q.ids(1000)
    q.push(*["old"] * 10, priority=1)

    def new():
        q.push(*["new"] * 5, priority=9)
        assert len(q.ids(5)) == 5

    assert purged(q, "main", new) == 2510
    assert q.counts() == (0, 5, 0, 0)


def test_purge_of_a_whole_bucket_leaves_what_came_after_it_began(q):
    buckets = 502 * 128
    q.fill(buckets)
    assert purged(q, "ready", lambda: q.fill(10)) == buckets
    assert q.ids() == list(range(buckets + 1, buckets + 11))


def test_purge_of_ready_leaves_those_in_flight_of_the_same_bucket(q):
    q.fill(300)
    q.ids(3)
    assert q.do("purge", "n2", "", "ready") == 297
    assert q.nack(1, 2, 3) == 3
    assert [message["body"] for message in q.pop(9)] == [b"x"] * 3


def test_purge_of_what_lies_behind_a_bucket_that_went_half_way(q):
    q.fill(256)
    q.ids(99)
    assert q.ack(*range(1, 129)) == 128
    assert q.do("purge", "n2", "", "ready") == 128
    assert q.counts() == (0, 0, 0, 0)


def test_purge_that_reaches_the_end_in_a_step_from_the_start_does_not_look_again(q):
    q.push(*["x"] * 4005, priority=1)
    assert q.steps("purge", "ready") == (4005, 3)
    q.fill(502 * 128)
    assert q.steps("purge", "ready") == (502 * 128, 2)
