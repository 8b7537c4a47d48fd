"""Who may call functions himself (a user limited to some queues may) can hold up nobody with them.

The daemon refuses what is too much before it calls a function; these see what no daemon has looked at.
"""

import pytest

from tests.lua.conftest import AUTO


def test_a_pattern_that_would_be_looked_for_byte_by_byte_for_seconds_is_refused(q):
    q.push("a" * 1000)
    reply = q.fcall("scan", "n2", "0", "", "", "", "*" + "?" * 32 + "b*", "100", "")
    assert str(reply) == "ERR too many characters between two * of a pattern when ? or [] are among them"
    assert q.do("scan", "n2", "0", "", "", "", "*" + "?" * 31 + "b*", "100", "") == [b"0", []]


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


def test_what_a_daemon_may_merge_into_one_call_is_served(q):
    q.fill(10_600)
    *singles, many = q.do("pop_many", AUTO, *("1", "") * 511, "1", "2,10000,,")
    assert len(singles) == 511
    assert many.startswith(b"*10000\r\n")


def test_one_pop_gets_so_many_messages_at_most(q):
    q.fill(10_002)
    assert len(q.do("pop", "n2", AUTO, "20000", "", "")) == 10_000


def test_one_peek_shows_so_many_messages_at_most(q):
    q.fill(1002)
    assert len(q.do("peek", "n2", "ready", "20000", "0", "")) == 1000


def test_one_queue_has_so_many_posts_at_most(q):
    q.create()
    place = bytes(16)
    for number in range(1024):
        assert q.do("arm", f"many/{number}", "1", place) == [[0, -1]]
    assert str(q.fcall("arm", "many/1024", "1", place)) == "ERR too many daemons wait for one queue"
    assert q.do("arm", "many/0", "2", place) == [[0, -1]]  # that is there
    q.do("disarm", "many/1")
    assert q.do("arm", "many/1024", "1", place) == [[0, -1]]


def test_a_post_names_the_places_of_so_many_clients_at_most(q):
    q.create()
    reply = q.fcall("arm", "me/0", "200", bytes(16) * 129)
    assert str(reply) == "ERR this is no registration of clients that wait"
    assert q.do("arm", "me/0", "200", bytes(16) * 128) == [[0, -1]]
