"""pop, pop_many, mpop: what they give, in the very bytes of each protocol version."""

import struct

import pytest

from tests.lua.conftest import AUTO, Link, flat


def e(q, spec, reps=1):
    return q.do("pop_many", AUTO, str(reps), spec)


def test_plain_delivery_is_the_exact_reply_of_resp2_and_resp3(q):
    q.fill(2, b"hi")
    assert e(q, "") == [
        b"*8\r\n$2\r\nid\r\n$1\r\n1\r\n$4\r\nbody\r\n$2\r\nhi\r\n$8\r\nattempts\r\n:1\r\n$7\r\nreceipt\r\n$3\r\n1-1\r\n"
    ]
    assert e(q, "3,,,") == [
        b"%4\r\n$2\r\nid\r\n$1\r\n2\r\n$4\r\nbody\r\n$2\r\nhi\r\n$8\r\nattempts\r\n:1\r\n$7\r\nreceipt\r\n$3\r\n2-1\r\n"
    ]


@pytest.mark.parametrize(
    ("spec", "nothing"), [("", b"$-1\r\n"), ("3,,,", b"_\r\n"), ("2,5,,", b"*0\r\n"), ("3,5,,M", b"*0\r\n")]
)
def test_nothing_ready_is_a_null_or_an_empty_array(q, spec, nothing):
    q.create()
    reply = e(q, spec, 3)
    assert reply == [nothing * 3]
    q.fill(1)
    assert e(q, spec, 2)[0].endswith(nothing)


def test_runs_of_all_kinds_are_served_in_order(q):
    q.fill(9)
    reply = q.do("pop_many", AUTO, "2", "", "1", "3,,,", "1", "2,3,,M", "1", "3,2,60000,", "2", "3,,,N")
    assert [reply[0].count(b"*8\r\n"), reply[1].count(b"%4\r\n")] == [2, 1]
    assert reply[2].startswith(b"*3\r\n*20\r\n")
    assert reply[3].startswith(b"*2\r\n%4\r\n")
    assert b"$1\r\n9\r\n" in reply[4]
    assert reply[4].endswith(b"$7\r\nreceipt\r\n_\r\n_\r\n")
    assert q.counts() == (0, 8, 0, 0)


@pytest.mark.parametrize("resp", [2, 3])
@pytest.mark.parametrize("flags", ["", "M"])
@pytest.mark.parametrize("count", ["", "4"])
def test_encoded_reply_reads_as_the_native_one(functions_server, q, resp, flags, count):
    """The encoded reply, merged or not, is what Valkey itself would send for the native one."""
    link = Link(functions_server.port, resp)
    replies = []
    for mode in ("native", "encoded", "merged"):
        name = f"q-{mode}"
        other = q.other(name)
        other.create()
        other.push("a", priority=2, headers={"h": "v"})
        other.push("b")
        other.push("c" * 2000)
        other.nack(*[message["receipt"] for message in other.pop(3)][1:])
        other.ack(1)
        other.push("d", priority=2, headers={"h": "v"})
        key = other.key
        if mode == "merged":
            reply = link.ok("FCALL", "valq1_pop_many", 1, key, AUTO, 1, f"{resp},{count},,{flags}")[0]
        else:
            reply = link.ok("FCALL", "valq1_pop", 1, key, f"{mode[0]}{resp}", AUTO, count, "", flags)
        if mode != "native":
            link._reader.feed(reply)
            reply = link._reader.gets()
        replies.append(without_times(reply))
    link.close()
    assert replies[0] == replies[1] == replies[2]


def without_times(reply):
    if isinstance(reply, dict):
        return {k: without_times(v) for k, v in reply.items() if k not in (b"enqueued_at", b"deadline", b"age_ms")}
    if isinstance(reply, list):
        if b"enqueued_at" in [item for item in reply if isinstance(item, bytes)]:
            return without_times({str(k).encode() if isinstance(k, int) else k: v for k, v in pairs(reply)})
        return [without_times(item) for item in reply]
    return reply


def pairs(items):
    return zip(items[::2], items[1::2], strict=True)


@pytest.mark.parametrize("size", [16383, 16384, 70000])
def test_large_body_is_a_fragment_of_its_own(q, size):
    body = b"y" * size
    q.push(body)
    q.push("small")
    run = e(q, "", 2)[0]
    if size < 16384:
        assert isinstance(run, bytes)
    else:
        assert run[1] == body
        assert run[0].endswith(b"$%d\r\n" % size)
        run = b"".join(run)
    assert run.count(b"*8\r\n") == 2
    assert body in run


def test_withmeta_tells_the_rest(q):
    q.create(vt=5000)
    q.push("x", priority=4, headers={"a": "1"})
    q.push("y")
    first, second = q.pop(2, flags="M")
    assert (first["priority"], first["headers"], first["last_error"]) == (4, [b"a", b"1"], None)
    assert (second["priority"], second["headers"]) == (0, [])
    assert second["deadline"] - second["enqueued_at"] - second["age_ms"] == 5000
    q.nack(second["receipt"], reason="boom")
    assert q.pop(flags="M")["last_error"] == b"boom"


def test_headers_only_when_the_message_has_some(q):
    q.push("x")
    assert list(q.pop()) == ["id", "body", "attempts", "receipt"]


def test_noack_takes_plain_messages_and_records_for_good(q):
    q.push("a")
    q.push("b", priority=1)
    assert [message["receipt"] for message in q.pop(5, flags="N")] == [None, None]
    assert q.counts() == (0, 0, 0, 0)
    assert q.info()["delivered_total"] == 2


def test_vt_of_pop_wins_over_messages_and_queues(q):
    q.push("plain")
    q.push("record", vt=60000)
    q.ids(vt=100)
    q.pass_time(100)
    assert q.counts() == (2, 0, 0, 0)


def test_returned_messages_take_their_old_place_before_younger_ones(q):
    q.fill(5)
    receipts = [message["receipt"] for message in q.pop(3)]
    q.nack(receipts[2], receipts[0])
    assert q.ids() == [1, 3, 4, 5]


@pytest.mark.parametrize("count", [150, 1200, 3000])
def test_leases_that_end_together_come_back_in_order(q, count):
    q.create(vt=1000)
    q.fill(count + 5)
    assert q.ids(count) == list(range(1, count + 1))
    q.pass_time(1000)
    assert q.ids(count + 5) == list(range(1, count + 6))


def test_delays_that_fall_due_together_keep_their_order(q):
    for _ in range(120):
        q.push("x", delay=500)
    q.push("young")
    q.pass_time(500)
    assert q.ids() == list(range(1, 122))


def test_attempts_used_up_never_cost_another_message_its_place(q):
    q.create(vt=1000, attempts=1)
    q.fill(2)
    q.ids(1)
    q.pass_time(1000)
    assert q.ids() == [2]
    assert q.counts() == (0, 1, 0, 1)


def test_lowered_attempts_hold_for_messages_that_wait(q):
    q.create(attempts=5)
    q.push("x")
    for _ in range(3):
        q.nack(q.pop()["receipt"])
    q.update(max_delivery_attempts=3)
    assert q.pop() is None
    assert q.counts() == (0, 0, 0, 1)


@pytest.mark.parametrize("dlq", [{}, {"dead_letter_queue": "graves"}], ids=["own", "another"])
def test_lowered_attempts_end_what_waits_though_nobody_pops(q, dlq):
    q.create(attempts=5, **dlq)
    q.fill(1300)
    q.push("has its own", max_attempts=3)
    receipts = [message["receipt"] for message in q.pop(1301)]
    q.nack(*receipts[:1000])
    q.nack(*receipts[1000:1300], delay=1000)
    q.nack(receipts[1300])
    q.push("new")
    q.update(max_delivery_attempts=1)
    steps = 1
    while q.do("sweep", "", 1000):
        steps += 1
    assert steps > 2
    q.pass_time(1000)
    q.sweep()
    assert [message["body"] for message in q.pop(10)] == [b"has its own", b"new"]
    graves = q.other("graves") if dlq else q
    assert sum(graves.counts()) - (0 if dlq else 2) == 1300
    assert q.info()["dead_total"] == 1300
    assert not q.link.ok("HGET", q.key, "limits") or dlq


def test_missing_queue_is_null_with_auto_and_an_error_without(q):
    assert q.do("pop", "n2", AUTO, "", "", "") is None
    assert q.do("pop_many", AUTO, "1", "") == []
    assert q.stored() == []
    for function, args in (("pop", ("n2", "", "", "", "")), ("pop_many", ("", "1", ""))):
        assert str(q.fcall(function, *args)) == "NOQUEUE no such queue 'orders'"


def test_mpop_takes_from_the_first_queue_that_has_something(q):
    names = ["a", "b", "c"]
    keys = [q.other(name).key for name in names]
    q.other("b").push("1", "2")
    q.other("c").push("3")
    assert flat(q.do("mpop", "n2", AUTO, "", "", "", keys=keys))["queue"] == b"b"
    rest = [flat(message) for message in q.do("mpop", "n2", AUTO, "5", "", "", keys=keys)]
    assert [(message["queue"], message["body"]) for message in rest] == [(b"b", b"2"), (b"c", b"3")]
    assert q.do("mpop", "n2", AUTO, "", "", "", keys=keys) is None
    assert str(q.fcall("mpop", "n2", "", "", "", "", keys=keys)) == "NOQUEUE no such queue 'a'"


def test_head_passes_over_a_long_stretch_without_plain_messages(q):
    q.push("first")
    for _ in range(3):
        q.fill(300, b"z" * 2000)
    q.push("last")
    q.do("purge", "n2", "", "ready")
    assert q.pop() is None
    q.push("after")
    assert q.ids() == [903]


def test_one_pop_goes_through_a_bounded_number_that_is_not_delivered_any_more(q):
    q.create(attempts=3)
    q.push(*["x"] * 6000)
    q.nack(*[message["receipt"] for message in q.pop(6000)])
    last = q.push("last", priority=0)
    q.update(max_delivery_attempts=1)
    assert q.pop() is None
    assert 0 < q.counts()[3] < 6000
    while (message := q.pop()) is None:
        assert q.counts()[0] > 0
    assert message["id"] == last
    assert q.counts() == (0, 1, 0, 6000)


def all_due(q, names, count):
    """Keys of queues, in each of which so many leases are over."""
    queues = [q.other(name).create(vt=1000) for name in names]
    for each in queues:
        each.fill(count)
        each.ids(count)
    q.pass_time(2000)
    return [each.key for each in queues]


def inflight(q, names):
    return [q.link.ok("ZCARD", f"valq:{{{name}}}:inflight") for name in names]


def test_mpop_settles_no_more_than_one_call_should(q):
    keys = all_due(q, "abc", 1500)
    assert flat(q.do("mpop", "n2", AUTO, "", "", "", keys=keys))["queue"] == b"a"
    assert inflight(q, "abc") == [1, 1500, 1500]


def test_arm_settles_no_more_than_one_call_should(q):
    keys = all_due(q, "abcdefghij", 300)
    results = q.do("arm", "post/0", *[1, struct.pack("<dd", 0, 1)] * 10, keys=keys)
    assert inflight(q, "abcdefghij") == [0] * 4 + [300] * 6
    assert [ready or next_ms == 0 for ready, next_ms in results] == [True] * 10


def test_mpop_settles_no_more_than_one_call_should_though_it_finds_nothing(q):
    queues = [q.other(name).create(vt=1000, attempts=1) for name in "abc"]
    for each in queues:
        each.fill(1500)
        each.ids(1500)
    q.pass_time(2000)
    assert q.do("mpop", "n2", AUTO, "", "", "", keys=[each.key for each in queues]) is None
    assert [q.link.ok("ZCARD", f"valq:{{{name}}}:inflight") for name in "abc"] == [0, 1500, 1500]


def test_a_pop_for_one_passes_over_what_is_not_delivered_any_more(q):
    q.push(*["used"] * 2, priority=2)
    q.nack(*[message["receipt"] for message in q.pop(2)])
    q.push("next", priority=1)
    q.push("plain")
    q.update(max_delivery_attempts=1)
    assert [q.pop()["body"] for _ in range(2)] == [b"next", b"plain"]


@pytest.mark.parametrize("broken", ["queue", "ready"])
def test_what_mpop_took_is_delivered_though_a_later_key_is_no_queues(q, broken):
    q.push("a1", "a2")
    other = q.other("b")
    other.push("b1", priority=1)
    q.link.ok("DEL", f"valq:{{b}}:{broken}")
    q.link.ok("SET", f"valq:{{b}}:{broken}", "x")
    keys = [q.key, other.key]
    assert [flat(each)["body"] for each in q.do("mpop", "n2", AUTO, "10", "", "N", keys=keys)] == [b"a1", b"a2"]
    q.push("a3")
    assert [flat(each)["body"] for each in q.do("mpop", "n2", AUTO, "10", "", "", keys=keys)] == [b"a3"]
    if broken == "queue":
        assert str(q.fcall("mpop", "n2", AUTO, "10", "", "", keys=keys)).startswith("WRONGTYPE ")


def test_where_no_records_are_left_none_are_looked_for(q):
    assert q.ack(*q.push("option", "option", priority=1)) == 2
    q.push(*["plain"] * 3)
    assert q.ids() == [3, 4, 5]  # the first POP sees that none is ready
    assert q.ack("3") == 1  # and the first ACK that none is there
    for function, args, commands in (
        ("push_many", (AUTO, "x"), {"HMGET", "RPUSH", "HSET"}),
        ("pop_many", (AUTO, "1", ""), {"HMGET", "LRANGE", "ZADD", "HSET"}),
        ("ack_many", ("4-1",), {"HMGET", "ZREM", "HINCRBY", "HSET"}),
    ):
        calls, _ = q.calls_of(function, *args)
        del calls["FCALL"], calls["CONFIG|RESETSTAT"]
        assert calls == dict.fromkeys(commands, 1)
    q.push("option", priority=1)
    assert q.ids() == [7]
    assert q.ack("7-1", "5-1", "6-1") == 3


def test_a_call_that_fails_halfway_hides_no_record(q):
    q.push("later", delay=1000)
    assert q.ack(q.push("x", dedup="k", dedup_window=1000)) == 1
    assert q.ids() == []  # none is ready, as the queue knows now
    q.pass_time(1000)
    q.link.ok("DEL", "valq:{orders}:dedup")
    q.link.ok("SET", "valq:{orders}:dedup", "x")
    assert str(q.fcall("pop", "n2", AUTO, "", "", "")).startswith("WRONGTYPE ")
    q.link.ok("DEL", "valq:{orders}:dedup")
    q.sweep()
    assert q.pop()["body"] == b"later"


def test_mpop_that_gives_up_on_a_queue_hides_no_record_there(q):
    q.push("first")
    other = q.other("b")
    other.push("later", delay=1000)
    assert other.ack(other.push("x", dedup="k", dedup_window=1000)) == 1
    assert other.ids() == []
    q.pass_time(1000)
    q.link.ok("DEL", "valq:{b}:dedup")
    q.link.ok("SET", "valq:{b}:dedup", "x")
    keys = [q.key, other.key]
    assert [flat(each)["body"] for each in q.do("mpop", "n2", AUTO, "10", "", "", keys=keys)] == [b"first"]
    q.link.ok("DEL", "valq:{b}:dedup")
    other.sweep()
    assert other.pop()["body"] == b"later"
