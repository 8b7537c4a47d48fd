"""create, update, delete, list, info."""

import shutil
import subprocess

import pytest

from tests.lua.conftest import AUTO, Queue


def test_create_twice_is_refused_and_with_nx_leaves_it_as_it_is(q):
    q.create(vt=2000)
    again = ("visibility_timeout", 9000, "max_delivery_attempts", 1, "retention_period", 60000)
    assert str(q.fcall("create", "n2", "", *again)) == "QUEUEEXISTS queue 'orders' is already there"
    assert q.do("create", "n2", "1", *again) == b"OK"
    assert q.info()["visibility_timeout"] == 2


def test_info_has_the_fields_of_the_spec_in_order(q):
    q.create(vt=1500)
    names = list(q.info())
    assert names[:16] == [
        "visibility_timeout", "max_delivery_attempts", "retention_period", "id_sequence", "msgs", "ready_msgs",
        "inflight_msgs", "delayed_msgs", "dlq_msgs", "created_at", "oldest_ready_age_ms", "pushed_total",
        "delivered_total", "acked_total", "redelivered_total", "dead_total",
    ]  # fmt: skip
    more = {"expired_total", "nacked_total", "cancelled_total", "deduplicated_total", "blocked_clients", "paused"}
    more |= {"backoff", "max_length", "max_bytes", "overflow", "dead_letter_queue", "max_lease"}
    assert more <= set(names)
    assert q.info()["visibility_timeout"] == b"1.5"


def test_counts_are_exact_and_so_are_totals(q):
    q.create(vt=1000, attempts=2)
    q.fill(6)
    q.push("late", delay=99999)
    q.ids(4)
    q.ack("1-1")
    q.pass_time(1000)
    assert q.counts() == (5, 0, 1, 0)
    q.ids(2)
    q.pass_time(1000)
    info = q.info()
    assert q.counts() == (3, 0, 1, 2)
    assert (info["pushed_total"], info["delivered_total"], info["acked_total"]) == (7, 6, 1)
    assert (info["redelivered_total"], info["dead_total"], info["msgs"]) == (2, 2, 3)


def test_oldest_ready_age_looks_at_all_priorities(q):
    q.push("old", priority=0, headers={"a": "b"})
    q.pass_time(500)
    q.push("urgent", priority=9)
    q.pass_time(500)
    q.push("plain")
    assert q.info()["oldest_ready_age_ms"] == 1000


def test_oldest_ready_age_is_that_of_the_smallest_id_though_one_from_elsewhere_is_older(q):
    other = q.other("other")
    other.create(attempts=1)
    other.push("dead")
    other.nack(other.pop()["receipt"])
    q.pass_time(1000)
    q.push("plain")
    assert other.do("redrive", "n2", "", "ALL", "orders", "", keys=[other.key, q.key]) == 1
    q.pass_time(10)
    assert q.counts()[0] == 2
    assert q.info()["oldest_ready_age_ms"] == 10


def test_info_settles_in_steps_and_says_so(q):
    q.create(vt=1000)
    for _ in range(30):  # leases that end at different times
        q.fill(100)
        q.ids(100)
        q.pass_time(1)
    q.pass_time(1000)
    calls = 0
    while (reply := q.do("info", "e2")) is None:
        calls += 1
    assert calls >= 1
    assert b"$10\r\nready_msgs\r\n:3000\r\n" in reply


def test_update_changes_what_is_named_and_empty_removes(q):
    q.create(max_length=5, backoff="EXP:1000:60000:20")
    q.update(visibility_timeout=2000, max_length="")
    info = q.info()
    assert (info["visibility_timeout"], info["max_delivery_attempts"], info["max_length"]) == (2, 5, None)
    assert info["backoff"] == b"EXP 1 60 JITTER 20"
    assert str(q.other("none").update(max_length=1)) == "NOQUEUE no such queue 'none'"


def test_new_visibility_timeout_holds_from_then_on(q):
    q.create(vt=1000)
    q.fill(2)
    q.ids(1)
    q.update(visibility_timeout=60000)
    q.ids(1)
    q.pass_time(1000)
    assert q.counts() == (1, 1, 0, 0)


def test_shorter_retention_holds_for_the_dead_that_are_there(q):
    q.create(attempts=1)
    q.push("x")
    q.nack(q.pop()["receipt"])
    q.pass_time(30_000)
    assert q.counts() == (0, 0, 0, 1)
    q.update(retention_period=60000)
    q.pass_time(29_999)
    assert q.counts() == (0, 0, 0, 1)
    q.pass_time(1)
    assert q.counts() == (0, 0, 0, 0)


def full_of_everything(q):
    q.create(vt=1000, attempts=1)
    q.fill(300)
    q.push("a", priority=1, ttl=99999, dedup="k", dedup_window=99999, headers={"h": "v"})
    q.push("b", delay=99999, dedup="u", dedup_until_done=1)
    q.push("c" * 5000)
    q.ids(5)
    q.nack(2, 3)
    q.do("pause", "n2", "IN", 9999)


def test_delete_leaves_no_key_behind(q):
    full_of_everything(q)
    assert len(q.stored()) > 10
    assert q.do("delete", "n2") == b"OK"
    assert q.stored() == []
    assert str(q.fcall("delete", "n2")) == "NOQUEUE no such queue 'orders'"
    assert q.push("again") == b"1"


@pytest.mark.parametrize("pattern", ["", "*", "or*", "o[p-s]der?"])
def test_list_finds_queues_and_nothing_else(q, pattern):
    q.create()
    q.other("other").create()
    q.link.ok("SET", "valq:{fake}:queue", "x")
    q.link.ok("HSET", "valq:{orders}:queue2", "x", "y")
    found = q.do("list", "n2", "", pattern, keys=[])
    assert found == ([b"orders", b"other"] if pattern in ("", "*") else [b"orders"])
    assert sorted(q.do("list", "e2", "", pattern, keys=[])[0]) == found  # the daemon sorts what all steps find


def test_wrong_type_is_told_in_valkeys_own_words(q):
    q.link.ok("SET", q.key, "x")
    for function, args in (("info", ("n2",)), ("push_many", (AUTO, "x")), ("pop", ("n2", AUTO, "", "", ""))):
        reply = q.fcall(function, *args)
        assert str(reply) == "WRONGTYPE Operation against a key holding the wrong kind of value"


def test_queues_of_other_databases_are_others(q, functions_server):
    q.push("x")
    q.link.ok("SELECT", 5)
    try:
        assert Queue(q.link, "orders").pop() is None
    finally:
        q.link.ok("SELECT", 0)
    assert q.ids() == [1]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("ord\\", ["ord\\"]), ("*\\", ["ord\\"]), ("*[d", ["ord"]), ("[a", ["a"]), ("b[+-.]c", ["b-c"])],
)
def test_list_takes_a_pattern_for_the_name_alone(q, pattern, names):
    for name in ("ord", "ord\\", "a", "[a", "b-c"):
        q.other(name).create()
    assert q.do("list", "n2", "", pattern, keys=[]) == [name.encode() for name in names]


LOCALES = subprocess.check_output(["locale", "-a"], text=True).split() if shutil.which("locale") else ["C"]


@pytest.mark.parametrize("locale", LOCALES)
def test_names_are_in_the_order_of_their_bytes_whatever_the_servers_locale(q, locale):
    names = ["B", "a", "b", "_a", "\u00e4", "a-", "ab", "z"]
    for name in names:
        q.other(name).create()
    q.link.ok("CONFIG", "SET", "locale-collate", locale)
    try:
        assert q.do("list", "n2", "", "", keys=[]) == sorted(name.encode() for name in names)
    finally:
        q.link.ok("CONFIG", "SET", "locale-collate", "")


def test_a_clock_that_is_set_back_makes_nobody_younger_than_new(q):
    q.push("x")
    q.pass_time(-1000)
    assert q.info()["oldest_ready_age_ms"] == 0
    assert q.pop(flags="M")["age_ms"] == 0


def test_info_tells_the_longest_lease_in_seconds(q):
    q.create(max_lease=90_000)
    assert q.info()["max_lease"] == 90


def test_info_in_a_transaction_settles_all(q):
    q.create(vt=1000)
    for _ in range(30):
        q.fill(100)
        q.ids(100)
        q.pass_time(1)
    q.pass_time(1000)
    assert q.info()["ready_msgs"] == 3000


@pytest.mark.parametrize("how", ["ready", "in flight"])
def test_a_large_queue_is_deleted_in_steps_that_are_small(q, how):
    q.create(vt=3600_000)
    q.fill(257_000)
    if how == "in flight":
        for _ in range(26):
            q.do("pop", "e2", "", "1000", "", "")
    steps = 0
    while (reply := q.do("delete", "e2")) is None:
        steps += 1
    assert reply == b"+OK\r\n"
    assert 0 < steps < 20
    assert q.stored() == []


def test_a_large_queue_is_deleted_by_one_call_where_no_other_can_follow(q):
    q.fill(257_000)
    assert q.do("delete", "n2") == b"OK"
    assert q.stored() == []


def test_a_queue_that_is_being_deleted_counts_what_it_still_has(q):
    q.fill(257_000)
    assert q.do("delete", "e2") is None
    left = q.info()["ready_msgs"]
    assert left < 257_000
    assert q.do("purge", "n2", "", "ready") == left
