"""Single keys of a queue are gone, by eviction or by hand: what was in them is lost, and the queue works on."""

import pytest

from tests.lua.conftest import AUTO, flat

KEYS = ("queue", "log:0", "log:1", "log:2", "gone", "inflight", "ready", "delayed", "dlq", "body", "meta", "expiry",
        "dedup", "windows")  # fmt: skip

CALLS = {
    "push_many": (AUTO, "x"),
    "push": ("n2", AUTO, "", 2, "dedup", "k1", "dedup_until_done", 1, 0, "x"),
    "pop_many": (AUTO, 50, ""),
    "pop": ("e2", AUTO, 300, "", "M"),
    "ack_many": ("1-1", "151-1", "20"),
    "nack_many": ("FAIL", "", "", "2-1", "158-1"),
    "extend_many": ("3-1", 5000, "158-1", 5000),
    "peek": ("e2", "ready", 1000, 0, ""),
    "show": ("e2", 151),
    "cancel": ("n2", 4),
    "del": ("n2", 5, 152, 160),
    "info": ("n2",),
    "list": ("n2", "", ""),
    "scan": ("n2", "0", "", "", "", "", 1000, ""),
    "redrive": ("n2", "", "ALL", "", ""),
    "sweep": ("1", 1000),
}


@pytest.fixture
def mixed(q):
    """Plain messages and records in each state, over three buckets."""
    q.create(attempts=3, retention=600_000)
    q.push(*["plain"] * 150)
    q.pop(10)
    q.push("until", dedup="k1", dedup_until_done=1)
    q.push("window", dedup="k2", dedup_window=50_000)
    q.push("delayed", delay=40_000, ttl=80_000)
    q.push("large" * 400, headers={"a": "b"})
    q.push("inflight", priority=31, ttl=70_000)
    q.push("dead", priority=30, max_attempts=1)
    q.nack(*[message["receipt"] for message in q.pop(2)][1:])
    q.push(*["plain"] * 120)
    assert q.counts() == (263, 11, 1, 1)
    return q


@pytest.mark.parametrize("passed_ms", [0, 45_000, 1_000_000], ids=["now", "leases are over", "all is over"])
@pytest.mark.parametrize("key", KEYS)
def test_whatever_key_is_gone_no_command_fails_and_new_messages_come(mixed, key, passed_ms):
    lost = f"valq:{{{mixed.name}}}:{key}"
    assert mixed.link.ok("DEL", lost) == 1
    mixed.pass_time(passed_ms)
    for function, args in CALLS.items():
        keys = [] if function == "list" else None
        assert "user_function" not in str(mixed.fcall(function, *args, keys=keys)), function
    mixed.push(*["new"] * 5)
    mixed.push("new", priority=5)
    bodies = []
    while messages := mixed.pop(100):
        bodies += [message["body"] for message in messages]
    assert bodies.count(b"new") == 6
    assert None not in bodies
    assert mixed.do("delete", "n2") == b"OK"
    assert key == "gone" or mixed.stored() == []


def test_what_is_left_of_a_queue_is_not_the_next_ones(q):
    for lost in ("queue", "gone"):
        q.push("old", "old")
        q.push("old", priority=1, dedup="key", dedup_window=50_000)
        q.link.ok("DEL", f"valq:{{{q.name}}}:{lost}")
        q.fcall("delete", "n2")
        assert q.push("new", dedup="key", dedup_window=50_000) == b"1"
        assert q.push("new") == b"2"
        assert [message["body"] for message in q.pop(10)] == [b"new", b"new"]
        assert q.do("delete", "n2") == b"OK"


def test_a_bucket_that_is_gone_takes_only_its_own_messages(q):
    q.push(*["old"] * 10)
    assert q.ack(*q.ids(5)) == 5
    q.link.ok("DEL", f"valq:{{{q.name}}}:log:0")
    q.push("new", "new")
    assert [flat(message)["body"] for message in q.do("peek", "n2", "ready", 10, 0, "")] == [b"new", b"new"]
    assert q.ids(10) == [11, 12]


def test_records_without_bodies_keep_nobody_from_the_others(q):
    q.push("lost", priority=5)
    q.push("plain")
    q.push("lost", priority=5)
    q.link.ok("DEL", f"valq:{{{q.name}}}:body")
    q.push("whole", priority=5)
    replies = q.do("pop_many", AUTO, 4, "")
    assert [reply.count(b"$4\r\nbody\r\n") for reply in replies] == [2]
    assert b"whole" in replies[0]
    assert b"plain" in replies[0]
    assert q.counts() == (0, 2, 0, 0)


def test_what_is_lost_is_not_taken_off_the_plain_ones(q):
    q.create(max_length=3, overflow="DROPHEAD")
    q.push("lost", "lost", "lost", priority=1)
    q.link.ok("DEL", "valq:{orders}:meta")
    q.push("a", priority=1)
    q.push("b", "c")
    assert q.counts()[0] <= 5
    bodies = [message["body"] for message in q.pop(10)]
    assert bodies == [b"a", b"b", b"c"]


def test_a_pattern_passes_over_a_message_whose_body_is_lost(q):
    q.push("lost", "lost", priority=1)
    q.push("there")
    q.link.ok("DEL", "valq:{orders}:body")
    found = q.do("scan", "n2", "0", "", "", "", "*e*", "100", "")[1]
    assert [flat(message)["body"] for message in found] == [b"there"]


def test_a_record_whose_body_is_lost_does_not_count_towards_max_bytes_for_ever(q):
    lost = q.push("twelve bytes", priority=1)
    q.push("seven b", priority=1)
    q.link.ok("HDEL", f"valq:{{{q.name}}}:body", lost)
    assert q.ack(lost) == 1
    assert int(q.link.ok("HGET", q.key, "bytes")) == 7


def test_no_number_of_messages_is_below_none(q):
    q.fill(200)
    q.pop(128)
    assert q.ack(199, 200) == 2
    q.link.ok("DEL", "valq:{orders}:gone")
    assert q.ack(198) == 1
    q.do("purge", "n2", "", "ready")
    assert q.info()["ready_msgs"] == 0
