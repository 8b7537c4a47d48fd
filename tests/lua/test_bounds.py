"""Who may call functions himself (a user limited to some queues may) can hold up nobody with them.

The daemon refuses what is too much before it calls a function; these see what no daemon has looked at.
"""

import re

import pytest

from tests.lua.conftest import AUTO, flat


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("*" + "a" * 1000 + "*", True), ("*" + "?" * 32 + "*", True), ("*" + "?" + "a" * 32 + "*", False),
        ("?" * 100 + "*" + "?" * 100, True), ("*" + "[a-c]" * 32 + "*", True), ("*" + "[ab*]" * 17 + "*", False),
        ("*" + r"\*?" * 17 + "*", False), ("*" + r"\?" * 100 + "*", True), ("[a-c]" * 200, True),
    ],
)  # fmt: skip
def test_a_pattern_that_would_be_looked_for_byte_by_byte_for_long_is_refused(q, pattern, taken):
    q.push("b")
    reply = q.fcall("scan", "n2", "0", "", "", "", pattern, "100", "")
    if taken:
        assert reply == [b"0", []]
    else:
        assert str(reply) == "ERR too much between two * of a pattern when ? or [] are among it"


def test_what_is_looked_for_byte_by_byte_is_found_in_the_first_mib(q):
    q.push("x" * (1 << 20) + "ab")
    for pattern, found in (("*a?*", 0), ("*ab*", 1), ("*ab", 1), ("*x?*", 1)):
        assert len(scanned(q, pattern)[0]) == found


@pytest.mark.parametrize("runs", [("11001", ""), ("1001", "2,11,,"), ("-20000", "", "11001", ""), ("2", "2,9999,,")])
def test_one_call_is_asked_for_so_many_messages_at_most(q, runs):
    q.push("x")
    assert str(q.fcall("pop_many", AUTO, *runs)) == "ERR too many messages in one call"
    assert q.counts() == (1, 0, 0, 0)


def test_a_call_that_is_refused_leaves_what_is_due_to_the_next(q):
    q.create(vt=1000, attempts=1)
    q.push("x")
    q.pop()
    q.pass_time(2000)
    assert str(q.fcall("pop_many", AUTO, "11001", "")) == "ERR too many messages in one call"
    assert q.info()["dead_total"] == 1
    assert q.counts() == (0, 0, 0, 1)


@pytest.mark.parametrize("headers", ["1e309", "1e17", "nan", "1", "-1"])
def test_a_push_without_its_headers_is_refused(q, headers):
    q.create()
    assert str(q.fcall("push", "e2", AUTO, "1", "0", headers, "body")) == "ERR headers are missing"
    assert q.counts() == (0, 0, 0, 0)


def test_a_push_without_a_body_is_refused(q):
    q.create()
    assert str(q.fcall("push", "e2", AUTO, "1", "0", "1", "f", "v")) == "ERR a push needs a body"
    assert q.counts() == (0, 0, 0, 0)


def test_what_a_daemon_may_merge_into_one_call_is_served(q):
    q.fill(10_600)
    *singles, many = q.do("pop_many", AUTO, *("1", "") * 511, "1", "2,10000,,")
    assert len(singles) == 511
    assert many.startswith(b"*10000\r\n")


def test_one_pop_gets_so_many_messages_at_most(q):
    q.fill(10_002)
    assert len(q.do("pop", "n2", AUTO, "20000", "", "")) == 10_000


MIB = 1 << 20


def large(q):
    """Messages 1 to 10, of 9 MiB each, of which 8 are more than 64 MiB; and two small ones."""
    for _ in range(5):
        q.push(*["x" * 9 * MIB] * 2)
    q.push("small", "small")


def test_a_pop_of_several_large_messages_ends_at_64_mib(q):
    large(q)
    assert q.ids(100) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert q.ids(100) == [9, 10, 11, 12]


def test_each_of_merged_pops_of_several_large_messages_has_64_mib(q):
    large(q)
    first, one, second = q.do("pop_many", AUTO, "1", "2,100,,", "1", "", "1", "2,100,,")
    assert [first[0][:4], one[0][:4], second[0][:4]] == [b"*8\r\n", b"*8\r\n", b"*3\r\n"]
    assert [b"".join(part).count(b"receipt") for part in (first, one, second)] == [8, 1, 3]


def receipts(part):
    """In one run's replies, encoded."""
    return (b"".join(part) if isinstance(part, list) else part).count(b"receipt")


def test_merged_pops_of_several_that_follow_each_other_have_64_mib_each(q):
    large(q)
    assert [receipts(part) for part in q.do("pop_many", AUTO, "1", "2,100,,", "1", "2,100,,")] == [8, 4]


def test_a_pop_of_several_behind_merged_ones_of_one_message_has_64_mib(q):
    large(q)
    large(q)
    assert [receipts(part) for part in q.do("pop_many", AUTO, "1", "", "1", "2,100,,")] == [1, 8]


def test_merged_pops_of_one_large_message_each_all_get_one(q):
    large(q)
    assert [receipts(part) for part in q.do("pop_many", AUTO, "5", "", *("1", "3,,,") * 5)] == [5, 1, 1, 1, 1, 1]


def test_an_mpop_of_several_large_messages_ends_at_64_mib_of_all_its_queues(q):
    other, small = q.other("other"), q.other("small")
    large(other)
    q.push("x" * 9 * MIB)
    small.push("x")
    keys = [q.key, other.key, small.key]
    messages = [flat(message) for message in q.do("mpop", "n2", AUTO, "100", "", "", keys=keys)]
    assert [message["queue"] for message in messages] == [q.name.encode()] + [b"other"] * 7


def test_an_mpop_that_has_waited_ends_at_64_mib_of_all_its_queues_too(q):
    other = q.other("other")
    large(q)
    large(other)
    messages = q.do("mpop", "n2", AUTO, "100", "", "", "daemon/0", keys=[q.key, other.key])
    assert {flat(message)["queue"] for message in messages} == {q.name.encode()}


def test_an_mpop_passes_over_a_paused_queue(q):
    other = q.other("other")
    q.push("x")
    other.push("y")
    assert q.do("pause", "n2", "OUT", "") == b"OK"
    assert len(q.do("mpop", "n2", AUTO, "10", "", "", keys=[q.key, other.key])) == 1


def test_a_message_whose_body_is_lost_is_looked_at(q):
    q.push("x", priority=1)
    assert q.link.ok("DEL", f"valq:{{{q.name}}}:body") == 1
    assert len(q.do("peek", "n2", "ready", "10", "0", "")) == 1


def test_what_is_lost_takes_no_room_in_a_pop(q):
    large(q)
    assert q.link.ok("DEL", f"valq:{{{q.name}}}:body") == 1
    q.push("a", "b")
    assert q.ids(100) == [11, 12, 13, 14]


def test_a_peek_of_what_is_lost_tells_of_the_others(q):
    q.push("x")
    q.push("y", priority=1)
    assert len(q.ids(2)) == 2
    lost = [key for key in q.stored() if b":log" in key or b":msgs" in key]
    assert lost
    q.link.ok("DEL", *lost)
    assert len(q.do("peek", "n2", "inflight", "10", "0", "")) == 1


def test_a_peek_of_several_large_messages_ends_at_64_mib(q):
    large(q)
    assert [len(q.do("peek", "n2", "ready", "100", offset, "")) for offset in ("0", "3")] == [8, 9]


@pytest.mark.parametrize("others", [0, 600], ids=["few records", "many"])
def test_a_scan_of_several_large_messages_ends_at_64_mib(q, others):
    for _ in range(6):
        large(q)
    if others:
        q.push(*["small"] * others, priority=1)
    found, cursor, most, calls = [], b"0", 0, 0
    while True:
        cursor, messages = q.do("scan", "n2", cursor, "", "", "", "", "1000", "")
        messages = [flat(message) for message in messages]
        found += [int(message["id"]) for message in messages]
        calls += 1
        most = max(most, sum(len(message["body"]) for message in messages))
        if cursor == b"0":
            break
    assert sorted(found) == list(range(1, 73 + others))
    assert 64 * MIB <= most < (256 if others else 73) * MIB  # of a hash, ten and some at a time are looked at
    assert calls <= 12  # of 60 times 9 MiB


@pytest.mark.parametrize("size", ["0/0", "1/0", "-1/0", "'x'"])
def test_a_size_that_is_none_does_not_keep_a_pop_from_its_end(q, size):
    q.push(*["x"] * 600, priority=1)
    meta = f"valq:{{{q.name}}}:meta"
    absurd = f"local m = cmsgpack.unpack(ARGV[1]) m.b = {size} return cmsgpack.pack(m)"
    q.link.ok("HSET", meta, "3", q.link.ok("EVAL", absurd, 0, q.link.ok("HGET", meta, "3")))
    q.link.socket.settimeout(10)
    assert q.ids(1000) == list(range(1, 601))


def test_a_header_that_is_no_text_hinders_nobody(q):
    q.push("x", "y", headers={"h": "v"})
    meta = f"valq:{{{q.name}}}:meta"
    absurd = "local m = cmsgpack.unpack(ARGV[1]) m.h = {'h', 7} return cmsgpack.pack(m)"
    q.link.ok("HSET", meta, "1", q.link.ok("EVAL", absurd, 0, q.link.ok("HGET", meta, "1")))
    assert len(q.do("peek", "n2", "ready", "10", "0", "")) == 2
    assert q.ids(10) == [1, 2]


def test_headers_count_in_a_scan_too(q):
    for _ in range(10):
        q.push("body", headers={"h": "x" * 9 * MIB})
    cursor, messages = q.do("scan", "n2", "0", "", "", "", "", "1000", "")
    assert (cursor, messages) == (b"1", [])
    assert len(q.do("scan", "n2", cursor, "", "", "", "", "1000", "")[1]) == 8


def test_a_reply_of_several_messages_with_many_headers_ends_in_time(q):
    headers = {f"h{number}": "x" for number in range(128)}
    q.push(*["body"] * 1500, headers=headers)
    assert 1000 < len(q.ids(10_000)) < 1024  # of 128 times 512 bytes, and some


def test_headers_and_reasons_of_all_messages_of_a_call_are_bounded(q):
    q.create()
    many, long = ["x", ""] * 2001, ["x", "y" * (1 << 17)]
    for headers in (many, long):
        push = ("push", "e2", AUTO, "1", "1", "priority", "1", len(headers) // 2, *headers)
        assert str(q.fcall(*push, *["body"] * 520)) == "ERR too many headers for so many messages"
        assert isinstance(q.do(*push, "body"), bytes)
    nack = ("nack", "e2", "FAIL", "", "y" * (1 << 16))
    assert str(q.fcall(*nack, *range(1, 1026))) == "ERR too long a reason for so many messages"
    assert q.do(*nack, *range(1, 1001)) == b":0\r\n"


def test_packed_options_without_their_headers_are_refused(q):
    q.create()
    packed = b"\x93\x00\xcd\x0f\x96\x01"  # [0, 3990, 1]
    assert str(q.fcall("push_records", AUTO, packed, "x")) == "ERR headers are missing"


@pytest.mark.parametrize("value", ["0.7", "1e3", "inf", "nan", "-1", "", "1" * 16])
def test_a_setting_that_is_no_whole_number_is_refused(q, value):
    q.create()
    for field in ("visibility_timeout", "max_delivery_attempts", "retention_period"):
        assert str(q.fcall("update", "n2", field, value)) == f"ERR {field} must be a whole number"
    assert q.info()["visibility_timeout"] == 30


@pytest.mark.parametrize(("state", "count", "offset"), [("delayed", "-1", "0"), ("ready", "nan", "-5")])
def test_a_peek_for_less_than_nothing_shows_one(q, state, count, offset):
    for _ in range(3):
        q.push("x")
        q.push("y", delay=1000)
    assert len(q.do("peek", "n2", state, count, offset, "")) == 1


def test_nothing_in_a_queues_keys_breaks_the_form_of_a_reply(q):
    """Who may write them could otherwise put words into the mouth of the server, for others on the same connection."""
    q.push("x", priority=1)
    forged = b"\x81\xa2ok\xaax\r\n$6\r\nABC"  # {ok = ...}
    sound = b"\x85\xa1t\x01\xa1n\x00\xa1a\x00\xa1s\xa1r"  # and one field more
    q.link.ok("HSET", "valq:{orders}:meta", "1", sound + b"\xa1h\x92\xa1f" + forged)
    assert b"+" not in q.do("show", "e2", "1")
    q.link.ok("HSET", "valq:{orders}:meta", "1", sound + b"\xa1p\xcb\x7f\xf8\0\0\0\0\0\0")  # not a number
    assert b"$8\r\npriority\r\n:0\r\n" in q.do("show", "e2", "1")
    q.link.ok(
        "HSET", "valq:{orders}:meta", "1", sound.replace(b"\xa1a\0", b"\xa1a\xcb\x7f\xf8\0\0\0\0\0\0") + b"\xa1m\1"
    )
    assert b"$8\r\nattempts\r\n:0\r\n" in q.do("pop_many", AUTO, "1", "")[0]


def test_a_walk_over_an_index_whose_scores_are_no_ids_ends(q):
    q.create(max_bytes=10, overflow="DROPHEAD")
    q.link.ok("HSET", q.key, "bytes", 10**12)
    q.link.ok("ZADD", "valq:{orders}:ready", 100, 5)
    assert q.do("push_many", AUTO, "x")[0].startswith(b"FULL")


def test_a_queue_with_absurd_numbers_or_limits_is_none(q):
    q.create()
    state = q.link.ok("HGET", q.key, "state")
    for field, value in (("state", b"\x1f" + state[1:]), ("limits", b"\x90" * 5000)):
        before = q.link.ok("HGET", q.key, field)
        q.link.ok("HSET", q.key, field, value)
        assert str(q.fcall("info", "n2")) == "ERR this is no queue"
        q.link.ok("HSET", q.key, field, before)
    assert q.counts() == (0, 0, 0, 0)


def test_buckets_whose_logs_are_gone_cost_no_walk_each(q):
    q.fill(300)
    for first in range(0, 5000, 1000):
        q.link.ok(
            "HSET", "valq:{orders}:gone", *(n for at in range(first, first + 1000) for n in (10**6 * (at + 1), 100))
        )
    state = q.link.ok("HGET", q.key, "state")
    q.link.ok(
        "HSET",
        q.key,
        "state",
        (2**40).to_bytes(7, "big") + (400).to_bytes(7, "big") + (9).to_bytes(7, "big") + state[21:],
    )
    before = processor_seconds(q)
    q.pop()
    assert processor_seconds(q) - before < 5  # it was over a minute


def test_one_peek_shows_so_many_messages_at_most(q):
    q.fill(1002)
    assert len(q.do("peek", "n2", "ready", "20000", "0", "")) == 1000


def test_one_queue_has_so_many_posts_at_most(q):
    q.create()
    place = bytes(16)
    for number in range(1024):
        assert q.do("arm", f"many/{number}", "1", place) == [[0, -1]]
    q.other("other").create()
    armed = q.do("arm", "many/1024", "1", place, "1", place, keys=[q.key, "valq:{other}:queue"])
    assert armed == [[0, 1000], [0, -1]]  # who waits looks again in a second, and other queues are armed
    assert q.do("arm", "many/0", "2", place) == [[0, -1]]  # that is there
    q.do("disarm", "many/1")
    assert q.do("arm", "many/1024", "1", place) == [[0, -1]]


def test_a_post_names_the_places_of_so_many_clients_at_most(q):
    q.create()
    assert q.do("arm", "me/0", "200", bytes(16) * 129) == [[0, 1000]]
    for post, keys in (("x" * 65, [q.key]), ("me/0", [])):
        reply = q.fcall("arm", post, *["1", bytes(16)] * len(keys), keys=keys)
        assert str(reply) == "ERR this is no registration of clients that wait"
    assert q.do("arm", "me/0", "200", bytes(16) * 128) == [[0, -1]]


@pytest.mark.parametrize(
    "call", [("delete", "n2"), ("purge", "n2", "", "dlq"), ("update", "n2", "dead_letter_queue", "")]
)
def test_made_up_dead_letters_that_wait_hold_up_nobody(q, call):
    q.other("graves").create()
    q.create(dead_letter_queue="graves")
    for start in range(0, 100_000, 1000):
        pairs = [item for number in range(start, start + 1000) for item in (1, f"junk{number}")]
        q.link.ok("ZADD", "valq:{orders}:forward", *pairs)
    before = processor_seconds(q)
    assert q.do(*call) in (b"OK", 0)
    assert processor_seconds(q) - before < 1  # all of them would take several


def test_dead_letters_that_wait_are_moved_in_steps_before_a_stepped_delete(q):
    q.other("graves").create()
    q.create(dead_letter_queue="graves")
    for number in range(3000):
        q.link.send("ZADD", "valq:{orders}:forward", 1, f"junk{number}")
    for _ in range(3000):
        q.link.read()
    steps = 0
    while (reply := q.do("delete", "e2")) is None:
        steps += 1
    assert (steps > 2, reply) == (True, b"+OK\r\n")


WIDE = b"[" + b"\x01-\xfe" * 340 + b"]"


@pytest.mark.parametrize("pattern", [b"*" + WIDE[:400] + b"]*", WIDE + b"*", b"*" + b"[\x01-\xfe]" * 15 + b"\xff*"])
def test_wide_sets_in_a_pattern_hold_up_nobody(q, pattern):
    q.push(*[b"\xff" * 1000] * 500)
    before = processor_seconds(q)
    assert scanned(q, pattern)[0] == []
    for number in range(200):
        q.other(f"q{number}").create()
    assert q.do("list", "n2", "", b"\xff" + pattern, keys=[]) == []
    assert processor_seconds(q) - before < 10  # it was over a minute


def processor_seconds(q):
    """What the server has used so far: unlike the time that passes, other processes do not add to it."""
    return float(re.search(rb"used_cpu_user:([\d.]+)", q.link.ok("INFO", "cpu"))[1])


def scanned(q, pattern):
    """The ids of all messages that match, and in how many steps these were found."""
    ids, cursor, steps = [], b"0", 0
    while True:
        cursor, found = q.do("scan", "n2", cursor, "", "", "", pattern, "1000", "")
        ids += [int(flat(message)["id"]) for message in found]
        steps += 1
        if cursor == b"0":
            return ids, steps


@pytest.mark.parametrize(("size", "count"), [(1000, 500), (100_000, 30)], ids=["plain", "records"])
def test_a_step_looks_for_a_pattern_in_so_many_bytes_at_most(q, size, count):
    q.push(*[b"x" * size + b"y"] * count)
    assert q.ids(5, vt=1000) == [1, 2, 3, 4, 5]
    assert q.nack("2", kind="FATAL") == 1
    ids, steps = scanned(q, "*xy")
    assert sorted(ids) == list(range(1, count + 1))
    assert steps >= size * count // 400_000


def test_a_pattern_is_as_long_as_the_daemon_lets_it_be(q):
    q.push("x")
    assert (
        str(q.fcall("scan", "n2", "0", "", "", "", "x" * 1025, "1", "")) == "ERR a pattern is at most 1024 bytes long"
    )


@pytest.mark.parametrize("count", ["-1", "0", "nan", "-inf"])
@pytest.mark.parametrize("options", [{}, {"priority": 1}], ids=["plain", "records"])
def test_who_asks_for_less_than_one_message_gets_none_and_it_ends(q, count, options):
    q.push("x", **options)
    q.push("y", **options)
    assert q.do("pop", "n2", AUTO, count, "", "") == []
    assert q.do("mpop", "n2", AUTO, count, "", "", keys=[q.key]) == []
    assert q.counts() == (2, 0, 0, 0)


@pytest.mark.parametrize("reps", ["-1", "nan", "inf"])
def test_a_run_of_fewer_pops_than_none_is_refused(q, reps):
    q.push("x", priority=1)
    q.push("y", priority=1)
    assert str(q.fcall("pop_many", AUTO, "1", "", reps, "3,,,")) == "ERR too many messages in one call"
    assert q.counts() == (2, 0, 0, 0)


@pytest.mark.parametrize("name", ["x", "", "-1", "01", "0x1", "1e0"])
def test_what_is_no_id_names_nothing_and_the_call_ends(q, name):
    q.push("dead", "inflight", "ready")
    q.pop()
    q.nack("1", kind="FATAL")
    q.pop()
    assert q.do("redrive", "n2", "", "ID", "", "", name) == 0
    assert q.do("del", "n2", name) == q.do("cancel", "n2", name) == q.nack(name, kind="FATAL") == 0
    assert q.ack(name, "3", "03") == 1
    assert str(q.extend(name, 1000)).startswith("NOMSG ")
    assert q.counts() == (0, 1, 0, 1)


def test_what_stands_before_what_is_no_id_is_done_whole(q):
    q.push("dead", "deleted", "extended", vt=60_000)
    q.ids()
    assert q.nack("1-1", "x", kind="FATAL") == 1
    assert q.do("del", "n2", "2", "x") == 1
    assert q.do("extend_many", "3-1", "100", "x", "1")[0] > 0
    assert q.counts() == (0, 1, 0, 1)
    q.pass_time(100)
    q.sweep()
    assert q.counts() == (1, 0, 0, 1)


@pytest.mark.parametrize("broken", ["seq 9007199254740991", "seq 72057594037927935", "head 0", "short", "long"])
def test_a_queue_whose_ids_could_not_be_counted_is_none(q, broken):
    q.push("x")
    if " " in broken:
        name, number = broken.split()
        q.set_state(**{name: int(number)})
    else:
        state = q.link.ok("HGET", q.key, "state")
        q.link.ok("HSET", q.key, "state", state[:-1] if broken == "short" else state + b"\0")
    for function, args in (("scan", ("n2", "0", "", "", "", "", "10", "")), ("pop", ("n2", AUTO, "", "", ""))):
        assert str(q.fcall(function, *args)) == "ERR this is no queue"
    assert str(q.fcall("sweep", "1", 1000)) == "ERR this is no queue"


def test_buckets_that_cannot_be_are_not_walked_through(q):
    q.push("x")
    gone = [item for bucket in range(70368744177600, 70368744177664 + 1) for item in (bucket, 100)]
    q.link.ok("HSET", "valq:{orders}:gone", *gone)
    assert q.do("sweep", "1", 1000) in (0, 1)
    assert q.do("scan", "n2", "0", "", "", "", "", "10", "")[0] == b"0"
    assert q.ids() == [1]


def test_what_is_long_is_not_kept(q):
    """Lua's memory is not the one that maxmemory bounds."""

    def kb():
        return q.link.ok("INFO", "memory").partition(b"used_memory_vm_functions:")[2].split()[0]

    q.push("x")
    for number in range(20):
        q.do("pop_many", AUTO, "1", f"2,,,,{number}" + "x" * 1_000_000)
    q.link.ok("EVAL", "collectgarbage()", 0)
    for _ in range(50):
        q.do("pop_many", AUTO, "1", "")
    assert int(kb()) < 15_000_000
