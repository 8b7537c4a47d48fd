"""push and push_many."""

import pytest

from tests.lua.conftest import AUTO
from valqd.commands.request import packed

ALL_BYTES = bytes(range(256)) * 4


@pytest.mark.parametrize("body", [b"", b"\0", b"\r\n", ALL_BYTES, b"x" * 1024, b"x" * 1025, b"x" * 16383, b"x" * 16384])
def test_body_comes_back_byte_for_byte(q, body):
    q.push(body)
    q.push(body, priority=1)
    q.do("push_many", AUTO, body)
    assert [message["body"] for message in q.pop(10)] == [body] * 3


def test_ids_count_up_by_one_whatever_is_pushed(q):
    assert q.push("a") == b"1"
    assert q.push("b", delay=1000) == b"2"
    assert q.push("c", "d") == [b"3", b"4"]
    assert q.do("push_many", AUTO, "e", "x" * 2000, "g") == 5
    assert q.push("h") == b"8"


def test_missing_queue_is_made_only_with_auto(q):
    assert str(q.fcall("push_many", "", "a")) == "NOQUEUE no such queue 'orders'"
    assert q.stored() == []
    q.do("push_many", "1500:7:60000", "a")
    info = q.info()
    assert (info["visibility_timeout"], info["max_delivery_attempts"], info["retention_period"]) == (b"1.5", 7, 60)


def test_order_is_by_priority_then_id(q):
    for priority in (0, 3, 31, 3, 0):
        q.push("x", priority=priority)
    assert q.ids() == [3, 2, 4, 1, 5]


def test_plain_and_large_messages_keep_their_order(q):
    q.do("push_many", AUTO, *["s", "x" * 3000] * 200)
    assert q.ids() == list(range(1, 401))


def test_delay_fires_at_its_millisecond_and_takes_its_old_place(q):
    q.push("late", delay=1000)
    q.push("young")
    q.pass_time(999)
    assert q.counts() == (1, 0, 1, 0)
    q.pass_time(1)
    assert q.ids() == [1, 2]


@pytest.mark.parametrize("delay", [2**53, 2**63, 18446744073709551615000])
def test_delay_of_the_whole_range_stays_delayed(q, delay):
    q.push("x", delay=delay)
    q.pass_time(10**12)
    assert q.pop() is None
    assert q.counts() == (0, 0, 1, 0)
    assert q.show(1)["due"] > 10**15
    assert q.do("show", "e2", "1")
    q.pass_time(-(10**12))


def test_at_in_the_past_is_ready_at_once(q):
    q.push("x", at=1)
    assert q.ids() == [1]


def test_ttl_expires_silently_in_every_waiting_state(q):
    q.create()
    q.push("ready", ttl=500)
    q.push("delayed", ttl=500, delay=1000)
    q.push("stays")
    q.pass_time(500)
    assert q.counts() == (1, 0, 0, 0)
    assert q.info()["expired_total"] == 2


def test_message_in_flight_outlives_its_ttl_only_until_it_comes_back(q):
    q.push("x", ttl=500)
    receipt = q.pop()["receipt"]
    q.pass_time(600)
    assert q.counts() == (0, 1, 0, 0)
    assert q.nack(receipt) == 1
    assert q.counts() == (0, 0, 0, 0)
    assert q.info()["expired_total"] == 1


@pytest.mark.parametrize(("ttl", "dead", "expired"), [(1001, 1, 0), (1000, 0, 1)])
def test_who_died_before_its_ttl_was_over_is_dead_however_late_that_is_settled(q, ttl, dead, expired):
    q.push("x", ttl=ttl, vt=1000, max_attempts=1)
    q.pop()
    q.pass_time(5000)
    assert q.counts() == (0, 0, 0, dead)
    assert (q.info()["dead_total"], q.info()["expired_total"]) == (dead, expired)


def test_own_vt_and_attempts_win_over_the_queues(q):
    q.push("x", vt=1000, max_attempts=1)
    q.pop()
    q.pass_time(1000)
    assert q.counts() == (0, 0, 0, 1)


def test_headers_are_in_the_map_in_order_and_binary_safe(q):
    q.push("x", headers={"b": ALL_BYTES, "a": ""})
    assert q.pop()["headers"] == [b"b", ALL_BYTES, b"a", b""]


def test_many_are_all_or_nothing(q):
    q.create(max_length=3)
    assert str(q.push("a", "b", "c", "d")).startswith("FULL ")
    assert q.counts() == (0, 0, 0, 0)
    assert q.push("a", "b", "c") == [b"1", b"2", b"3"]


def records(*pushes):
    """Arguments of push_records for (body, options, headers ...) each."""
    for body, options, *headers in pushes:
        pairs = [str(item).encode() for pair in options.items() for item in pair]
        yield packed([b"%d" % len(options), *pairs, b"%d" % (len(headers) // 2), *headers])
        yield body


def test_pushes_with_options_are_each_by_themselves(q):
    pushes = [
        (b"first", {"max_attempts": 2}),
        (b"urgent", {"priority": 3}),
        (b"later", {"delay": 1000}, b"field", ALL_BYTES),
        (b"large" * 1000, {"priority": 3, "vt": 5000}),
    ]
    assert q.do("push_records", AUTO, *records(*pushes)) == 1
    assert q.do("push_many", AUTO, "plain") == 5
    assert q.do("push_records", AUTO, *records((b"last", {"max_attempts": 1}))) == 6
    assert q.ids() == [2, 4, 1, 5, 6]
    q.pass_time(1000)
    message = q.pop()
    assert (message["body"], message["headers"]) == (b"later", [b"field", ALL_BYTES])


def test_pushes_with_options_over_many_buckets_keep_their_ids(q):
    pushes = [(b"%d" % number, {"ttl": 60000}) for number in range(1, 501)]
    assert q.do("push_records", AUTO, *records(*pushes)) == 1
    assert q.do("push_many", AUTO, *[f"{number}" for number in range(501, 600)]) == 501
    assert [message["body"] for message in q.pop(1000)] == [b"%d" % number for number in range(1, 600)]


def test_one_dedup_key_twice_in_one_call(q):
    window, done = {"dedup": "k", "dedup_window": 1000}, {"dedup": "d", "dedup_until_done": 1}
    pushes = [(b"a", window), (b"b", done), (b"c", window), (b"d", {"priority": 1}), (b"e", done)]
    assert q.do("push_records", AUTO, *records(*pushes)) == [1, 2, 1, 3, 2]
    assert q.ids() == [3, 1, 2]
    assert q.info()["deduplicated_total"] == 2


def test_a_push_with_options_that_finds_no_room_is_refused_alone(q):
    q.create(max_bytes=10)
    pushes = [(b"x" * 6, {"priority": 1}), (b"y" * 6, {"priority": 2}), (b"z" * 4, {"priority": 3})]
    reply = q.do("push_records", AUTO, *records(*pushes))
    assert (reply[0], reply[2]) == (1, 2)
    assert reply[1] == b"FULL queue 'orders' is full: MAXBYTES is 10"
    assert [message["body"] for message in q.pop(10)] == [b"z" * 4, b"x" * 6]


def test_pushes_with_options_make_way_for_each_other(q):
    q.create(max_length=2, overflow="DROPHEAD")
    pushes = [(b"%d" % number, {"priority": number % 2}) for number in range(5)]
    assert q.do("push_records", AUTO, *records(*pushes)) == 1
    assert [message["body"] for message in q.pop(10)] == [b"3", b"4"]
    assert q.info()["dropped_total"] == 3


def test_a_call_that_fails_halfway_leaves_nothing_to_the_next(q):
    q.create()
    push = list(records((b"a", {"delay": 1000})))
    assert "Bad data format" in str(q.fcall("push_records", AUTO, *push, b"\xc1", b"x"))
    assert q.do("push_many", AUTO, "b") == 1
    assert q.do("push_records", AUTO, *push) == 2
    q.pass_time(1000)
    assert [message["body"] for message in q.pop(10)] == [b"b", b"a"]


def test_a_message_given_back_after_a_call_that_failed_halfway_is_not_lost(q):
    q.create()
    push = list(records((b"a", {"delay": 1000})))
    assert "Bad data format" in str(q.fcall("push_records", AUTO, *push, b"\xc1", b"x"))
    q.push("b")
    assert q.do("nack_many", "FAIL", "", "", q.pop()["receipt"]) == 1
    assert q.counts() == (1, 0, 0, 0)
    assert q.pop()["body"] == b"b"


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("ready", {"priority": 1}),
        ("delayed", {"delay": 60_000}),
        ("windows", {"dedup": "k", "dedup_window": 60_000}),
        ("meta", {"priority": 1}),
        ("body", {"priority": 1}),
    ],
)
def test_a_push_that_fails_halfway_takes_nothing_of_what_is_there(q, key, options):
    q.push("a", "b")
    for _ in range(2):
        q.link.ok("SET", f"valq:{{orders}}:{key}", "x")
        assert str(q.push("refused", **options)).startswith("WRONGTYPE ")
        q.link.ok("DEL", f"valq:{{orders}}:{key}")
        assert int(q.push("after")) > 2
    again = q.push("again", **options)
    assert int(again) > 2
    bodies = [message["body"] for message in q.pop(20) if message["body"] != b"refused"]
    assert sorted(bodies) == sorted([b"a", b"b", b"after", b"after"] + ([b"again"] if "delay" not in options else []))
    ids = [i for i in range(1, 20) if q.link.ok("ZSCORE", "valq:{orders}:inflight", i)]
    assert q.ack(*ids) == len(ids)


def test_a_refused_push_writes_nothing(q):
    q.create()
    assert q.do("pause", "n2", "IN", "60000") == b"OK"
    q.link.ok("CONFIG", "RESETSTAT")
    assert str(q.fcall("push_many", AUTO, "x")).startswith("PAUSED ")
    assert b"cmdstat_hset:" not in q.link.ok("INFO", "commandstats")


def test_a_due_time_beyond_all_integers_is_told_as_the_largest(q):
    q.push("x", delay=2**64 - 1)
    assert b"$3\r\ndue\r\n:9223372036854774784\r\n" in q.do("show", "e2", 1)
