"""DEDUP: while a key is held, a push adds nothing."""

import pytest

from tests.lua.conftest import AUTO
from tests.lua.test_push import records


def held(q):
    return q.push("again", dedup="k", dedup_until_done=1) == b"1"


def test_window_answers_the_first_id_until_it_is_over(q):
    assert q.push("a", dedup="k", dedup_window=1000) == b"1"
    assert q.push("b", dedup="k", dedup_window=9000) == b"1"
    q.ack(q.pop()["receipt"])
    q.pass_time(999)
    assert q.push("c", dedup="k", dedup_window=1000) == b"1"
    q.pass_time(1)
    assert q.push("d", dedup="k", dedup_window=1000) == b"2"
    assert q.info()["deduplicated_total"] == 2


def test_until_done_is_held_while_it_waits_and_is_worked_on(q):
    q.create(attempts=5, vt=1000)
    q.push("a", dedup="k", dedup_until_done=1)
    assert held(q)
    q.pop()
    assert held(q)
    q.pass_time(1000)
    assert held(q)
    q.nack(q.pop()["receipt"], delay=5000)
    assert held(q)


@pytest.mark.parametrize(
    "way_out", ["acked", "acked by id", "noack", "dead", "expired", "cancelled", "deleted", "purged", "queue deleted"]
)
def test_until_done_is_free_on_every_way_out(q, way_out):
    q.create(attempts=1)
    q.push("a", dedup="k", dedup_until_done=1, **({"ttl": 500} if way_out == "expired" else {}))
    if way_out == "acked":
        q.ack(q.pop()["receipt"])
    elif way_out == "acked by id":
        q.ack(1)
    elif way_out == "noack":
        q.pop(flags="N")
    elif way_out == "dead":
        q.nack(q.pop()["receipt"])
    elif way_out == "expired":
        q.pass_time(500)
    elif way_out == "cancelled":
        q.do("cancel", "n2", 1)
    elif way_out == "deleted":
        q.do("del", "n2", 1)
    elif way_out == "purged":
        q.do("purge", "n2", "", "ready")
    else:
        q.do("delete", "n2")
    assert q.push("b", dedup="k", dedup_until_done=1) == (b"1" if way_out == "queue deleted" else b"2")


def test_another_messages_key_is_not_freed(q):
    q.push("a", dedup="k", dedup_window=1000)
    q.pass_time(1000)
    q.push("b", dedup="k", dedup_until_done=1)
    q.ack(1)
    assert q.push("c", dedup="k", dedup_until_done=1) == b"2"


def test_of_several_bodies_with_one_key_the_first_counts(q):
    assert q.push("a", "b", dedup="k", dedup_window=1000) == [b"1", b"1"]
    assert q.counts() == (1, 0, 0, 0)


@pytest.mark.parametrize("over", ["expired", "expired in flight", "dead", "window"])
def test_a_key_is_free_at_once_though_many_messages_are_over_and_not_settled_yet(q, over):
    q.create(attempts=5 if over == "expired in flight" else 1, vt=1000)
    for at in range(300):
        options = {"dedup_window": 500 + at} if over == "window" else {"dedup_until_done": 1}
        q.push("old", dedup=f"k{at}", **options, **({"ttl": 500 + at} if over.startswith("expired") else {}))
        if over in ("dead", "expired in flight"):
            q.pop(vt=1000 + at)
    q.pass_time(5000)
    assert q.push("fresh", dedup="k299", dedup_until_done=1) == b"301"
    assert q.push("fresh", dedup="k299", dedup_until_done=1) == b"301"
    q.sweep()
    assert q.push("fresh", dedup="k299", dedup_until_done=1) == b"301"
    assert q.counts()[0] == (301 if over == "window" else 1)


def test_one_in_flight_holds_its_key_beyond_its_ttl_though_much_is_not_settled_yet(q):
    q.push("a", dedup="k", dedup_until_done=1, ttl=5000)
    q.pop(vt=60000)
    for at in range(600):
        q.push("old", ttl=100 + at)
    q.pass_time(6000)
    assert held(q)


def test_an_extended_lease_holds_its_key_though_much_is_not_settled_yet(q):
    q.push("a", dedup="k", dedup_until_done=1, max_attempts=1)
    q.pop(vt=1000)
    q.extend("1-1", 60000)
    for at in range(600):
        q.push("old", ttl=100 + at)
    q.pass_time(6000)
    assert held(q)


def test_one_dedup_key_twice_in_one_call_though_much_is_not_settled_yet(q):
    for at in range(600):
        q.push("old", ttl=100 + at)
    q.pass_time(6000)
    done = {"dedup": "d", "dedup_until_done": 1}
    assert q.do("push_records", AUTO, *records((b"a", done), (b"b", done))) == [601, 601]


@pytest.mark.parametrize(
    ("over", "last_ms"), [("expired", 799), ("expired in flight", 1299), ("dead", 1299), ("window", 799)]
)
def test_a_key_is_free_as_soon_as_what_holds_it_is_over_though_that_is_not_settled_yet(q, over, last_ms):
    q.create(attempts=5 if over == "expired in flight" else 1)
    for at in range(300):
        options = {"dedup_window": 500 + at} if over == "window" else {"dedup_until_done": 1}
        q.push("old", dedup=f"k{at}", **options, **({"ttl": 500 + at} if over.startswith("expired") else {}))
        if over in ("dead", "expired in flight"):
            q.pop(vt=1000 + at)
    q.pass_time(last_ms)
    assert q.push("fresh", dedup="k299", dedup_until_done=1) == b"301"
