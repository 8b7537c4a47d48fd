"""peek, show, scan: look, and move nothing."""

import pytest

from tests.lua.conftest import flat


def peek(q, state="ready", count=10, offset=0, reverse=""):
    return [int(flat(m)["id"]) for m in q.do("peek", "n2", state, count, offset, reverse)]


def mixed(q):
    q.push("urgent", priority=5)
    q.fill(300)
    for _ in range(3):
        q.push("record", headers={"a": "b"})
        q.fill(2)
    q.push("urgent", priority=9)


def test_peek_is_the_order_of_pop_from_any_offset(q):
    mixed(q)
    order = peek(q, count=1000)
    for offset in (0, 1, 2, 3, 127, 128, 129, 130, 257, 301, 310, 311, 400):
        assert peek(q, offset=offset) == order[offset : offset + 10]
    assert peek(q, count=20, reverse="1") == order[::-1][:20]
    assert peek(q, count=1000, reverse="1") == order[::-1]
    q.ack(2, 3, 200)
    taken = q.ids(150)
    rest = [i for i in order if i not in (2, 3, 200) and i not in taken]
    assert peek(q, count=1000) == rest
    assert peek(q, offset=100, count=50) == rest[100:150]
    assert q.ids(1000) == rest


def test_peek_tells_any_mixture_in_order(q):
    for step in range(6):
        q.fill(130 * (step % 3))
        q.push(*["r"] * 200, headers={"a": "b"})
        q.push(*["p"] * 90, priority=step)
        q.push(*["d"] * 300, delay=9999)
        q.fill(7)
    q.ids(700)
    q.ack(*range(800, 900), *range(2000, 2060))
    order = peek(q, count=1000) + peek(q, count=1000, offset=1000)
    assert len(order) == q.counts()[0] > 1000
    assert peek(q, count=1000, reverse="1") == order[::-1][:1000]
    for offset in range(0, len(order) + 20, 9):
        assert peek(q, offset=offset) == order[offset : offset + 10], offset
    assert q.ids() + q.ids() == order


@pytest.mark.parametrize(("offset", "reverse"), [(0, "1"), (18000, ""), (20000, "")])
def test_peek_passes_over_what_it_does_not_return(q, offset, reverse):
    q.fill(20000)
    q.push("last")
    for _ in range(40):
        q.push(*["later"] * 500, delay=99999)
    calls, found = q.calls_of("peek", "n2", "ready", 1, offset, reverse)
    assert int(flat(found[0])["id"]) == (20001 if reverse else offset + 1)
    assert sum(calls.values()) < 200


def test_peek_of_other_states_by_time(q):
    q.create(attempts=1)
    for delay in (3000, 1000, 2000):
        q.push("x", delay=delay)
    q.fill(3)
    q.ids(1, vt=9000)
    q.ids(2, vt=5000)
    assert peek(q, "delayed") == [2, 3, 1]
    assert peek(q, "delayed", count=1, offset=1) == [3]
    assert peek(q, "inflight", count=2) == [5, 6]
    assert peek(q, "inflight", reverse="1")[0] == 4
    q.nack(5)
    assert peek(q, "dlq") == [5]
    assert q.counts() == (0, 2, 3, 1)


@pytest.mark.parametrize("state", ["inflight", "delayed", "dlq"])
def test_peek_tells_those_of_one_time_by_id(q, state):
    q.create(attempts=1)
    if state == "delayed":
        q.push(*["x"] * 30, delay=5000)
        q.push(*["x"] * 30, delay=6000)
    else:
        q.fill(60)
        q.ids(30, vt=1000)
        q.ids(30, vt=2000)
    if state == "dlq":
        q.pass_time(1000)
        q.sweep()
        q.pass_time(1000)
        q.sweep()
    expected = list(range(1, 61))
    for offset in (0, 5, 29, 30, 31, 55, 60, 100):
        for count in (1, 4, 30, 31, 100):
            assert peek(q, state, count=count, offset=offset) == expected[offset : offset + count]
            assert peek(q, state, count=count, reverse="1") == expected[::-1][:count]


@pytest.mark.parametrize("resp", ["e2", "e3"])
def test_show_tells_all_that_is_known(q, resp):
    q.push("x", priority=2, ttl=5000, vt=1500, max_attempts=3, dedup="k", dedup_window=900, headers={"a": "b"}, delay=7)
    shown = q.show(1)
    assert (shown["state"], shown["priority"], shown["dedup"], shown["max_attempts"]) == (b"delayed", 2, b"k", 3)
    assert shown["visibility_timeout"] == b"1.5"
    assert shown["due"] == shown["enqueued_at"] + 7
    assert shown["expires_at"] == shown["enqueued_at"] + 5000
    assert shown["deadline"] is None
    assert q.do("show", resp, 1).startswith(b"%" if resp == "e3" else b"*")


def test_show_errors(q):
    q.push("x")
    q.nack(q.pop()["receipt"])
    assert str(q.fcall("show", "n2", "2")) == "NOMSG no message 2 in queue 'orders'"
    assert str(q.fcall("show", "n2", "1-1")) == "STALE the lease of receipt 1-1 is over"
    assert flat(q.do("show", "n2", "1"))["deliveries"] == 1


def scan(q, state="", header=(), match="", count=10, between=None):
    cursor, found = "0", []
    field, value, has = (*header, "1") if header else ("", "", "")
    while True:
        cursor, messages = q.do("scan", "n2", cursor, state, field, value, match, count, has)
        assert len(messages) <= max(count * 20, 600)
        found += [int(flat(m)["id"]) for m in messages]
        if cursor == b"0":
            return found
        if between:
            between()


@pytest.mark.parametrize("records", [20, 1500])
def test_scan_finds_every_message_in_every_state(q, records):
    q.create(attempts=1)
    q.fill(500)
    for _ in range(records // 500 or 1):
        q.push(*["record"] * min(records, 500), headers={"kind": "r"})
    q.push("later", delay=9999)
    q.ids(40)
    q.nack(7, 8)
    everything = set(range(1, q.info()["id_sequence"] + 1))
    assert set(scan(q)) == everything
    assert set(scan(q, "inflight")) == set(range(1, 41)) - {7, 8}
    assert set(scan(q, "dlq")) == {7, 8}
    assert set(scan(q, header=("kind", "r"), count=100)) == set(range(501, 501 + records))
    assert scan(q, match="l?te[r]") == [501 + records]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*a-b.c*", True), ("*a.b.c*", False), ("*-b?c*", True), (r"*\-b\.*%*", True), ("*.c%*", True),
        ("*.c%-*", False), ("*[.]c*", True), ("*c%", True),
    ],
)  # fmt: skip
def test_scan_takes_what_lua_patterns_mean_literally(q, pattern, found):
    q.push("xa-b.c%")
    assert scan(q, match=pattern) == ([1] if found else [])


def test_a_scan_stays_bounded_when_few_records_become_many(q):
    q.push(*["first"] * 100, priority=1)
    seen = scan(q, count=20, between=lambda: q.push(*["more"] * 300, priority=1) if q.info()["msgs"] < 1500 else None)
    assert set(range(1, 101)) <= set(seen)
    for cursor in (1, 4 * 50 + 1):
        next_cursor, messages = q.do("scan", "n2", cursor, "", "", "", "", 10, "")
        assert int(next_cursor) % 4 == 2  # as many records are scanned
        assert len(messages) < 100


def test_scan_misses_none_that_stays_while_others_move(q):
    q.create(vt=1000)
    q.fill(600)
    seen = scan(q, count=20, between=lambda: [q.nack(m["receipt"]) for m in q.pop(5)])
    assert set(seen) == set(range(1, 601))


def refused(q, *cursors):
    replies = {cursor: q.fcall("scan", "n2", cursor, "", "", "", "", 10, "") for cursor in cursors}
    for cursor, reply in replies.items():
        assert not isinstance(reply, Exception) or str(reply) == (
            f"ERR invalid cursor '{cursor}': must be 0, or the cursor of the last reply"
        )
    return [cursor for cursor, reply in replies.items() if isinstance(reply, Exception)]


def test_scan_refuses_cursors_that_none_can_have_answered(q):
    q.create()
    assert refused(q, 0, 1, 2, 3, 4, 8, 999999, 2**64 - 1) == [1, 2, 3, 4, 8, 999999, 2**64 - 1]
    q.fill(10)
    nothing = [2, 3, 4, 5, 7, 44, 45, 4 * 10 + 3, 999999, 2**64 - 1]
    assert refused(q, 0, 1, 8, 40, 41, *nothing) == nothing
    assert str(q.other("none").fcall("scan", "n2", 3, "", "", "", "", 10, "")).startswith("NOQUEUE ")


@pytest.mark.parametrize("records", [100, 600, 5000])
def test_scan_takes_every_cursor_it_has_given_whatever_became_of_the_queue(q, records):
    q.fill(300)
    for _ in range(records // 100):
        q.push(*["r"] * 100, headers={"a": "b"})
    given, cursor = [], "0"
    while cursor != b"0":
        cursor, _ = q.do("scan", "n2", cursor, "", "", "", "", 10, "")
        given.append(int(cursor))
    assert refused(q, *given) == []
    assert q.steps("purge", "all")[0] == records + 300
    assert refused(q, *given) == []


@pytest.mark.parametrize(
    ("pattern", "body", "found"),
    [
        ("*", "", True), ("", "x", True), ("a*c", "abc", True), ("a*c", "abcd", False), ("a?c", "ac", False),
        ("[a-c]x", "bx", True), ("[^a-c]x", "bx", False), ("[^a-c]x", "dx", True), ("\\*", "*", True),
        ("\\*", "x", False), ("a*b*c", "aXbYbZc", True), ("*%d+*", "a%d+b", True), ("*\0*", "a\0b", True),
        ("*\0*", "ab", False), ("[]", "x", False), ("a[", "a[", False), ("*aa", "aaa", True), ("aa*aa", "aaa", False),
        ("[*-]", "?", True), ("[*-]", "^", False), ("[\\]-[", "-", True), ("[\\]-[", "\\", False),
        ("a", "ab", False), ("[c-a]x", "bx", True), ("a\0b", "a\0c", False), ("[^]x", "ax", True),
        ("[\0-b]x", "ax", True),
    ],
)  # fmt: skip
def test_patterns_are_valkeys(q, pattern, body, found):
    q.push(body)
    assert scan(q, match=pattern) == ([1] if found else [])


def test_a_pattern_of_many_stars_does_not_hold_the_server(q):
    q.push("a" * 20000)
    assert scan(q, match="*a" * 30 + "*b") == []


def test_show_tells_what_has_fallen_due(q):
    q.push("x", delay=1000)
    q.pass_time(1000)
    assert q.show(1)["state"] == b"ready"


def test_scan_finds_a_header_without_a_name(q):
    q.push("x", headers={"": "v"})
    q.push("y")
    assert scan(q, header=("", "v")) == [1]


def test_peek_passes_over_the_bucket_of_the_head(q):
    q.fill(300)
    q.ids(3)
    assert peek(q, offset=200, count=2) == [204, 205]
    assert peek(q, offset=126, count=2) == [130, 131]


def test_peek_passes_over_many_buckets_at_once(q):
    q.fill(500 * 128 + 1)
    assert peek(q, offset=500 * 128 - 1) == [64_000, 64_001]
    assert peek(q, offset=500 * 128) == [64_001]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_scan_finds_the_last_message_alone(q, count):
    q.fill(5)
    cursor, found = b"0", []
    while True:
        cursor, messages = q.do("scan", "n2", cursor, "", "", "", "", count, "")
        found += [int(flat(message)["id"]) for message in messages]
        if cursor == b"0":
            break
    assert found == [1, 2, 3, 4, 5]
