"""What is over and not settled yet, since one call settles a bounded number, counts as over all the same."""

import pytest

from tests.lua.conftest import AUTO
from valqd.commands.request import packed


def over_and_not_settled(q, **options):
    """300 leases that are over, of which one call settles 200."""
    q.push(*["x"] * 300, **options)
    for at in range(300):
        q.ids(1, vt=1000 + at)
    q.pass_time(2000)


@pytest.mark.parametrize("options", [{}, {"priority": 1}], ids=["plain", "records"])
def test_a_receipt_of_a_lease_that_is_over_and_not_settled_yet_does_nothing(q, options):
    over_and_not_settled(q, **options)
    assert str(q.extend("300-1", 1000)) == "STALE the lease of receipt 300-1 is over"


@pytest.mark.parametrize("options", [{}, {"priority": 1}], ids=["plain", "records"])
@pytest.mark.parametrize(
    "call", [("ack", "n2"), ("nack", "n2", "FAIL", "", ""), ("del", "n2"), ("ack_many",), ("nack_many", "FAIL", "", "")]
)
def test_nobody_ends_a_lease_that_is_over_and_not_settled_yet(q, options, call):
    over_and_not_settled(q, **options)
    assert q.do(*call, "300-1") in (0, [0])


@pytest.mark.parametrize("function", ["push_records", "push_many"])
def test_each_call_may_settle_what_stands_in_its_way(q, function):
    q.create(max_length=600, vt=1000, attempts=1)
    options = [packed([b"1", b"priority", b"1", b"0"])] if function == "push_records" else []
    for _ in range(12):
        q.push(*["old"] * 600)
        for at in range(3):
            q.pop(200, vt=1000 + at)
        q.pass_time(5000)
        assert isinstance(q.do(function, AUTO, *[*options, b"x"] * 600), int)
        q.do("purge", "n2", "", "all")


def test_what_a_refused_push_had_settled_is_kept(q):
    for how in ("paused", "full"):
        each = q.other(how).create(vt=1000, attempts=1, max_length=3)
        each.fill(3)
        each.ids(3)
        if how == "paused":
            each.do("pause", "n2", "IN", "")
        each.pass_time(1000)
        assert isinstance(each.push("1", "2", "3", "4"), Exception)
        assert (each.info()["dead_total"], each.counts()) == (3, (0, 0, 0, 3))


def test_what_a_step_settles_is_shared_among_its_kinds(q):
    q.create()
    q.push(*["x"] * 300, ttl=1000)
    for key in range(300):
        q.push("x", dedup=key, dedup_window=1000)
    q.pass_time(1000)
    assert q.do("sweep", "", 200) == 1
    left = [q.link.ok("ZCARD", f"valq:{{orders}}:{index}") for index in ("expiry", "windows")]
    assert left == [200, 200]


def test_what_expires_together_is_counted(q):
    q.create()
    q.push(*["x"] * 3, ttl=1000)
    q.push("y", priority=1, ttl=500)
    q.pass_time(1000)
    q.sweep()
    assert q.info()["expired_total"] == 4


def test_a_window_that_is_over_leaves_nothing_to_be_done(q):
    q.create()
    q.push("x", dedup="k", dedup_window=1000)
    q.pass_time(1000)
    q.sweep()
    assert b"valq:{orders}:windows" not in q.stored()


def test_delays_that_end_together_come_back_in_order(q):
    q.push(*["x"] * 1500, delay=1000)
    q.pass_time(1000)
    assert q.ids(700) + q.ids(800) == list(range(1, 1501))


def test_a_ttl_that_ends_in_flight_is_looked_at_once(q):
    q.create(vt=60_000)
    q.push("x", ttl=1000)
    q.pop()
    q.pass_time(1000)
    assert q.do("sweep", "", 200) == 0
    assert b"valq:{orders}:expiry" not in q.stored()


def test_what_one_step_can_settle_it_does_though_other_kinds_are_due(q):
    q.create(vt=30_000)
    q.push("a", dedup="k", dedup_window=1000)
    q.push("b", ttl=1000)
    q.fill(400)
    q.pop(2)
    q.pop(66, vt=32_000)
    for _ in range(334):
        q.pop(1)
        q.pass_time(1)
    q.pass_time(33_000)
    assert q.ids(4) == [1, 3, 4, 5]


@pytest.mark.parametrize("call", [("ack", "n2"), ("ack_many",), ("nack", "n2", "FAIL", "", ""), ("del", "n2")])
def test_a_lease_that_ends_just_now_is_over_though_it_is_not_settled_yet(q, call):
    q.push(*["x"] * 300)
    for at in range(300):
        q.ids(1, vt=1000 + at)
    q.pass_time(1299)
    assert q.do(*call, "300-1") in (0, [0])
    assert str(q.extend("299-1", 1000)).startswith("STALE ")


@pytest.mark.parametrize("call", [("ack", "n2"), ("ack_many",)])
def test_a_lease_that_is_over_and_not_settled_yet_is_so_where_no_record_is_left(q, call):
    q.other("graves").create()
    q.create(attempts=1, dead_letter_queue="graves")
    over_and_not_settled(q)
    assert q.do(*call, "300-1") in (0, [0])
    assert q.other("graves").counts()[0] == 200


def test_a_ttl_that_ends_just_now_is_over_though_it_is_not_settled_yet(q):
    for at in range(1100):
        q.push("x", ttl=100 + at)
    q.pass_time(1199)
    assert q.pop() is None
    assert q.info()["expired_total"] == 1100
