"""Valkey's ACL decides: a user of one queue can do everything there, and nothing elsewhere."""

import struct

import pytest

from tests.lua.conftest import AUTO, Link, Queue, flat
from valqd.lua import bundle


@pytest.fixture
def worker(q, functions_server):
    """A user with the smallest rule."""
    commands = [f"+{name.lower()}" for name in [*bundle.CALLED_COMMANDS, "FCALL"]]
    q.link.ok("ACL", "SETUSER", "worker", "reset", "on", "nopass", "~valq:{orders}:*", *commands)
    connection = Link(functions_server.port)
    connection.ok("AUTH", "worker", "x")
    yield Queue(connection, "orders")
    connection.close()


def test_everything_can_be_done_in_the_users_queue(worker):
    worker.create(vt=1000, max_bytes=10**6, backoff="FIXED:0:0:0").do("delete", "n2")
    worker.fill(300)
    worker.push("x", priority=1, ttl=9999, dedup="k", dedup_window=1000, headers={"a": "b"})
    worker.push("y", delay=5)
    worker.ids(10)
    assert worker.extend("1-1", 5000)
    assert worker.ack("1-1", 2, 250) == 3
    assert worker.nack("3-1") == 1
    assert worker.nack("4-1", kind="FATAL") == 1
    assert worker.do("redrive", "n2", "", "ALL", "", "") == 1
    assert worker.do("cancel", "n2", 5) == 1
    assert worker.do("del", "n2", 6) == 1
    for state in ("ready", "inflight", "delayed", "dlq"):
        worker.do("peek", "n2", state, 5, 0, "")
        worker.do("peek", "n2", state, 5, 0, "1")
    assert worker.show(7)
    assert worker.do("scan", "n2", "0", "", "", "", "", 1000, "")
    assert worker.update(max_length=1000) == b"OK"
    assert worker.do("pause", "n2", "ALL", 5) == b"OK"
    assert worker.info()
    assert worker.do("purge", "n2", "", "all") > 200
    assert worker.do("fence") == b"OK"
    assert worker.do("delete", "n2") == b"OK"


@pytest.mark.parametrize(
    ("function", "args"),
    [
        ("create", ("n2", "")), ("push_many", (AUTO, "x")), ("pop", ("n2", AUTO, "", "", "")), ("ack", ("n2", "1")),
        ("info", ("n2",)), ("delete", ("n2",)), ("purge", ("n2", "", "all")),
    ],
)  # fmt: skip
def test_other_queues_are_refused(worker, function, args):
    reply = worker.other("secret").fcall(function, *args)
    assert str(reply).startswith("NOPERM ")


@pytest.mark.parametrize("key", ["valq::daemons", "valq:{orders}:queue"])
def test_a_user_of_one_queue_does_not_get_the_sweepers_lease(q, worker, key):
    q.other("secret").push("x", delay=1)
    q.pass_time(10)
    assert "NOPERM" in str(reply := worker.fcall("due", "me", 1000, 10, keys=[key])) or "daemons" in str(reply)
    assert q.do("due", "me", 1000, 10, keys=["valq::daemons"])[1:] == [1, -1, b"secret"]


@pytest.mark.parametrize("function", ["arm", "disarm", "create", "push_many"])
def test_a_key_that_is_no_queues_names_nobody_elses_queue(q, worker, function):
    q.other("order").create()
    q.other("order").do("arm", "post/0", 1, struct.pack("<dd", 0, 1))
    calls = {
        "arm": ("evil/0", 1, struct.pack("<dd", 1e12, 1e9)), "disarm": ("post/0",), "create": ("n2", ""),
        "push_many": (AUTO, "x"),
    }  # fmt: skip
    reply = worker.fcall(function, *calls[function], keys=["valq:{orders}:abcd"])
    assert str(reply) == "ERR this is no queue's key"
    assert flat(q.other("order").do("info", "n2"))["blocked_clients"] == 1


def test_list_leaves_out_what_the_user_may_not_read(q, worker):
    q.create()
    q.other("secret").create()
    assert worker.do("list", "n2", "", "", keys=[]) == [b"orders"]
    assert q.do("list", "n2", "", "", keys=[]) == [b"orders", b"secret"]


def test_refusal_inside_a_function_is_in_valkeys_own_words(q, functions_server):
    q.create()
    q.link.ok("ACL", "SETUSER", "reader", "reset", "on", "nopass", "~*", "+fcall", "+hmget", "+time")
    connection = Link(functions_server.port)
    connection.ok("AUTH", "reader", "x")
    reply = str(connection.call("FCALL", "valq1_push_many", 1, q.key, AUTO, "x"))
    connection.close()
    assert reply.startswith("NOPERM ")
    assert "script:" not in reply


def test_a_call_that_is_refused_half_way_leaves_nothing_to_the_next(q, functions_server):
    """The hot functions use one table for every queue that they open."""
    q.create()
    q.push("x")
    q.nack(q.pop()["receipt"])
    other = q.other("other").create()
    other.push("y")
    everything_but = ["~*", "+@all", "-zadd"]
    q.link.ok("ACL", "SETUSER", "half", "reset", "on", "nopass", *everything_but)
    connection = Link(functions_server.port)
    connection.ok("AUTH", "half", "x")
    reply = connection.call("FCALL", "valq1_pop_many", 1, q.key, AUTO, "1", "")  # counts a redelivery, and fails
    connection.close()
    assert str(reply).startswith("NOPERM ")
    assert len(other.do("pop_many", AUTO, "1", "")) == 1
    assert other.info()["redelivered_total"] == 0
    assert other.info()["delivered_total"] == 1


def test_who_dies_in_a_call_that_was_refused_half_way_takes_nobody_along(q, functions_server):
    q.create(attempts=1, vt=1000)
    q.push("x", dedup="k", dedup_until_done=1)
    q.pop()
    q.pass_time(1000)
    other = q.other("other").create()
    other.push("y")
    receipt = other.pop()["receipt"]
    q.link.ok("ACL", "SETUSER", "half", "reset", "on", "nopass", "~*", "+@all", "-hdel")
    connection = Link(functions_server.port)
    connection.ok("AUTH", "half", "x")
    assert str(connection.call("FCALL", "valq1_ack_many", 1, q.key, "9")).startswith("NOPERM ")
    connection.close()
    assert other.do("nack_many", "FATAL", "", "", receipt) == 1
    assert other.counts() == (0, 0, 0, 1)
