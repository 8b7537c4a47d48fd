"""What daemons use: due, sweep, arm, disarm, fence, echo."""

import re
import struct

import pytest

from tests.lua.conftest import AUTO, Link, flat
from valqd.lua import bundle


def due(q, daemon="me", lease_ms=1000, limit=100):
    _, *sweep = q.do("due", daemon, lease_ms, limit, keys=["valq::daemons"])
    return sweep or None


def arm(q, daemon="me", *waited_ms, count=None, takes=1):
    """Clients that have waited so long, for `takes` messages each; or `count` of them, of which the first have."""
    waited_ms = waited_ms or (0,)
    places = b"".join(struct.pack("<dd", ms, takes) for ms in waited_ms)
    return q.do("arm", daemon, count or len(waited_ms), places)[0]


@pytest.fixture
def woken(functions_server, q):
    """Whether daemon `name` was woken since it was asked last, as its control connection would learn it."""
    listening = Link(functions_server.port, 3)
    listening.ok("CLIENT", "TRACKING", "ON")

    def watch(name):
        listening.ok("MGET", f"valq:{{orders}}:wake:{name}")

    told = set()

    def was(name):
        reply = listening.call("PING")  # what was told before comes before its answer
        while not isinstance(reply, bytes | str):
            told.update(reply[1])
            reply = listening.read()
        key = f"valq:{{orders}}:wake:{name}".encode()
        was_told = key in told
        told.discard(key)
        return was_told

    was.watch = watch
    yield was
    listening.close()


def test_one_daemon_holds_the_sweepers_lease(q):
    assert due(q, "a")[:2] == [1, -1]
    assert due(q, "a")[0] == 0
    assert due(q, "b") is None
    q.pass_time(1001)
    assert due(q, "b")[0] == 1


def test_a_lease_is_as_long_as_its_holder_asked_for_whoever_asks_meanwhile(q):
    assert due(q, "far", lease_ms=5000)[0] == 1
    q.pass_time(2000)
    assert due(q, "near", lease_ms=600) is None
    q.pass_time(3001)
    assert due(q, "near", lease_ms=600)[0] == 1
    q.pass_time(500)
    assert due(q, "far", lease_ms=5000) is None
    q.pass_time(101)
    assert due(q, "far", lease_ms=5000)[0] == 1


def test_queue_is_named_when_something_of_it_is_due(q):
    q.create(vt=1000)
    q.push("x")
    due(q)
    q.pop()
    fresh, next_ms, *names = due(q)
    assert (fresh, names) == (0, [])
    assert 0 < next_ms <= 1000
    q.pass_time(1000)
    assert due(q)[2:] == [b"orders"]
    assert due(q)[2:] == []
    q.sweep()
    assert q.counts() == (1, 0, 0, 0)


def test_only_what_is_due_is_named_of_many_timers(q):
    queues = [q.other(f"q{number}") for number in range(50)]
    for number, queue in enumerate(queues):
        queue.push("x", delay=100 * (number + 1))
    assert due(q)[2:] == []
    told = []
    for _ in range(10):
        q.pass_time(500)
        told += [sorted(due(q, limit=3)[2:] + due(q, limit=100)[2:])]
    assert told == [sorted(f"q{n}".encode() for n in range(at, at + 5)) for at in range(0, 50, 5)]


def test_timers_are_met_after_long_silence_and_when_the_clock_was_set_back(q):
    q.push("x", delay=1000)
    q.other("later").push("x", delay=500_000)
    q.pass_time(400_000)
    assert due(q)[2:] == [b"orders"]
    q.pass_time(-300_000)
    q.other("third").push("x", delay=1000)
    assert due(q)[2:] == []
    q.pass_time(1000)
    assert due(q)[2:] == [b"third"]
    q.pass_time(400_000)
    assert due(q)[2:] == [b"later"]


def test_a_timer_that_is_set_earlier_is_told_once(q):
    q.push("x", delay=90_000)
    q.push("y", delay=5000)
    q.push("z", delay=1500)
    q.pass_time(1500)
    assert due(q)[2:] == [b"orders"]
    assert due(q)[1:] == [-1]
    q.sweep()
    q.pass_time(3500)
    assert due(q)[2:] == [b"orders"]


def test_a_deleted_queues_timer_goes_with_the_next_sweep(q):
    q.push("x", delay=3_600_000)
    q.do("delete", "n2")
    assert due(q)[2:] == [b"orders"]
    q.sweep()
    assert due(q)[1:] == [-1]


@pytest.mark.parametrize(
    "make",
    [
        lambda q: q.push("x", delay=700),
        lambda q: q.push("x", ttl=700),
        lambda q: q.push("x", dedup="k", dedup_window=700),
        lambda q: (q.push("x"), q.do("pause", "n2", "OUT", 700)),
    ],
    ids=["delay", "ttl", "dedup window", "pause"],
)
def test_every_deadline_is_noted(q, make):
    q.create()
    make(q)
    assert 0 < due(q)[1] <= 700


def test_sweep_after_a_new_library_finds_what_is_due(q):
    q.create(vt=1000)
    q.push("x")
    q.pop()
    source = q.link.ok("FUNCTION", "LIST", "WITHCODE")[0][7]
    q.link.ok("FUNCTION", "LOAD", "REPLACE", source)
    q.pass_time(0)
    assert due(q)[1] == -1
    assert q.do("sweep", "1", 1000) == 0
    assert 0 < due(q)[1] <= 1000


def test_sweep_is_bounded_and_says_when_there_is_more(q):
    q.create(vt=1000, attempts=1)
    for _ in range(5):
        q.fill(100)
        q.ids(100)
        q.pass_time(1)
    q.pass_time(1000)
    assert q.do("sweep", "", 200) == 1
    q.sweep()
    assert q.counts() == (0, 0, 0, 500)
    assert q.other("none").do("sweep", "1", 10) == 0


def test_arm_tells_what_is_ready_and_when_to_look_again(q):
    assert arm(q) == [0, -1]
    q.push("x")
    assert arm(q) == [1, -1]
    q.pop()
    ready, next_ms = arm(q)
    assert (ready, 0 < next_ms <= 30000) == (0, True)
    q.do("pause", "n2", "OUT", "")
    q.push("y")
    assert arm(q)[0] == 0


@pytest.mark.parametrize(
    "happening",
    [
        lambda q: q.push("x"),
        lambda q: q.do("push_many", AUTO, "x"),
        lambda q: q.push("x", priority=1),
        lambda q: q.push("x", delay=50),
        lambda q: q.nack(2),
        lambda q: q.do("redrive", "n2", "", "ALL", "", ""),
        lambda q: (q.pass_time(60000), q.do("sweep", "", 100)),
        lambda q: q.do("delete", "n2"),
    ],
    ids=["push", "merged push", "record", "short delay", "nack", "redrive", "lease over", "delete"],
)
def test_waiting_daemon_is_woken_by(q, woken, happening):
    q.create(vt=30000, attempts=3)
    q.push("dead")
    q.nack(q.pop()["receipt"], kind="FATAL")
    q.push("in flight")
    q.pop()
    woken.watch("me")
    assert arm(q)[0] == 0
    happening(q)
    assert woken("me")


def test_lifted_pause_wakes_and_a_held_one_does_not(q, woken):
    q.push("x")
    q.do("pause", "n2", "OUT", "")
    woken.watch("me")
    arm(q)
    q.push("y")
    assert not woken("me")
    q.do("pause", "n2", "NONE", "")
    assert woken("me")


def test_as_many_daemons_are_woken_as_messages_first_come_first_served(q, woken):
    q.create()
    for name, waited_ms in (("a", 20), ("b", 10)):
        woken.watch(name)
        arm(q, name, waited_ms)
    q.push("x")
    assert woken("a")
    assert not woken("b")
    q.push("y")
    assert woken("b")


def in_turn(q, name, pops):
    """Bodies that `pops` waiting clients of daemon `name` get."""
    replies = q.do("pop_many", AUTO, pops, f"2,,,,{name}")
    return re.findall(rb"\$4\r\nbody\r\n\$\d+\r\n(.*?)\r\n", b"".join(replies))


def test_the_next_is_woken_when_the_first_has_left(q, woken):
    q.create()
    for name, waited_ms in (("a", 20), ("b", 10)):
        woken.watch(name)
        arm(q, name, waited_ms)
    q.push("x")
    assert not woken("b")
    q.do("disarm", "a")
    assert woken("b")
    assert in_turn(q, "b", 4) == [b"x"]


def test_messages_that_come_at_once_go_to_those_who_have_waited_longest(q, woken):
    q.create()
    arm(q, "a", 90, 70, 50, 40, 30)
    woken.watch("b")
    arm(q, "b", 80, 60, 20, 10)
    q.push(*"12345")
    assert in_turn(q, "b", 4) == [b"1", b"2"]
    assert in_turn(q, "a", 4) == [b"3", b"4", b"5"]
    assert not woken("c")
    q.push("6")
    assert in_turn(q, "b", 1) == []  # the fourth of a has waited longer
    assert in_turn(q, "a", 1) == [b"6"]


@pytest.mark.parametrize("order", [("", "2,,,,a"), ("2,,,,a", "")], ids=["asks first", "waited first"])
def test_who_asks_now_and_who_has_waited_are_served_in_one_call_by_their_own_rules(q, order):
    q.create()
    for name, waited_ms in (("b", 20), ("a", 10)):
        arm(q, name, waited_ms)
    q.push("1")
    got = dict(zip(order, q.do("pop_many", AUTO, "1", order[0], "1", order[1]), strict=True))
    assert b"$4\r\nbody\r\n$1\r\n1\r\n" in got[""]
    assert got["2,,,,a"] == b"$-1\r\n"  # it is b's turn before


def test_who_has_no_turn_yet_is_not_woken(q, woken):
    q.create()
    arm(q, "a", *range(200, 100, -1), count=300)  # of more than are told, the rest came with the last of them
    woken.watch("b")
    arm(q, "b", 50)
    q.push(*"x" * 100)
    assert not woken("b")
    assert len(in_turn(q, "a", 4)) == 4
    assert arm(q, "b", 50)[0] == 0
    q.push(*"y" * 400)
    assert woken("b")


def test_what_falls_due_goes_to_who_has_waited_longest_whoever_asks_first(q, woken):
    q.push("x", delay=1000)
    for name, waited_ms in (("a", 20), ("b", 10)):
        woken.watch(name)
        arm(q, name, waited_ms)
    q.pass_time(1000)
    assert in_turn(q, "b", 1) == []
    assert woken("a")
    assert not woken("b")
    assert in_turn(q, "a", 1) == [b"x"]


def test_a_client_that_takes_many_leaves_what_is_for_others_in_line(q):
    q.create()
    arm(q, "a", 30)
    arm(q, "b", 20, takes=10)
    arm(q, "c", 10)
    q.push("1", "2")
    assert [message["body"] for message in many_in_turn(q, "b", 10)] == [b"1"]
    assert in_turn(q, "a", 1) == [b"2"]
    arm(q, "a", 5)
    arm(q, "b", 20, takes=10)
    q.push(*"x" * 11)
    assert in_turn(q, "c", 1) == [b"x"]  # there is one for it too
    assert in_turn(q, "a", 1) == []
    assert len(many_in_turn(q, "b", 10)) == 10


def many_in_turn(q, name, count):
    """What one client of daemon `name` gets that waits for up to `count` messages of this queue and another."""
    keys = ["valq:{none}:queue", q.key]
    return list(map(flat, q.do("mpop", "n2", AUTO, count, "", "", name, keys=keys)))


@pytest.mark.parametrize("waiting", [("0", 1), ("x", 1), ("1", 0), ("1", 1.5), ("2", 3)])
def test_a_registration_that_is_none_is_refused(q, waiting):
    count, places = waiting
    q.create()
    assert q.do("arm", "me", count, b"\0" * int(16 * places)) == [[0, 1000]]
    assert q.push("x") == b"1"


def test_what_else_a_daemon_is_woken_for_does_not_keep_its_turn(q):
    q.create()
    arm(q, "gone", 20)
    arm(q, "b", 10)
    q.push("x")
    for at in (40, 80, 120):
        assert in_turn(q, "b", 1) == []
        q.pass_time(40)
        q.push("later", delay=500 - at)  # each is the next timer: all are to look when that is
    assert in_turn(q, "b", 1) == [b"x"]


def test_a_daemon_that_does_not_sweep_sees_to_who_was_woken_and_does_not_ask(q):
    q.create()
    due(q, "gone")
    for name, waited_ms in (("gone", 20), ("b", 10)):
        arm(q, name, waited_ms)
    q.push("x")
    assert due(q, "b") is None
    q.pass_time(100)
    assert due(q, "b", limit=0) is None
    assert due(q, "b") == [0, -1, b"orders"]
    assert due(q, "b") is None


def test_a_daemon_that_is_woken_and_does_not_ask_loses_its_turn(q, woken):
    q.create()
    for name, waited_ms in (("gone", 20), ("b", 10)):
        woken.watch(name)
        arm(q, name, waited_ms)
    q.push("x")
    assert woken("gone")
    assert in_turn(q, "b", 1) == []
    _, next_ms, *names = due(q)
    assert (0 < next_ms <= 100, names) == (True, [])
    q.pass_time(100)
    assert due(q)[2:] == [b"orders"]
    q.sweep()
    assert woken("b")
    assert in_turn(q, "b", 1) == [b"x"]
    assert due(q)[1] > 1000  # b has asked: the next to come is the end of its lease


def test_who_waits_for_nothing_costs_no_sweep(q):
    q.create()
    arm(q, "a", 20)
    arm(q, "b", 10)
    q.push("x")
    assert in_turn(q, "a", 1) == [b"x"]
    assert due(q)[1] > 1000
    q.do("sweep", "1", 100)
    assert due(q)[1] > 1000


def test_disarmed_or_forgotten_daemon_is_not_woken(q, woken):
    q.create()
    woken.watch("me")
    arm(q)
    q.do("disarm", "me")
    q.push("x")
    assert not woken("me")


def test_a_wake_up_comes_once_even_to_a_daemon_that_asks_again_at_once(q, woken):
    q.create()
    woken.watch("me")
    arm(q)
    q.push("x")
    assert woken("me")
    woken.watch("me")
    assert not woken("me")


def test_the_daemon_whose_client_has_waited_longest_is_woken_first(q, woken):
    q.create()
    for name, waited_ms in (("a", 100), ("b", 900), ("c", 500)):
        woken.watch(name)
        arm(q, name, waited_ms)
    arm(q, "a", 100)
    for name in ("b", "c", "a"):
        q.push("x")
        assert woken(name)


def test_who_waits_in_another_database_takes_nobodys_place(q, woken):
    q.create()
    for name in ("a/1", "b/0", "c/0"):
        woken.watch(name)
        arm(q, name)
        q.pass_time(1)
    q.push("x")
    assert woken("b/0")
    assert not woken("c/0")
    assert q.info()["blocked_clients"] == 3


def test_blocked_clients_are_what_daemons_report(q):
    q.create()
    arm(q, "a", 9, 8, 7, 6, 5)
    arm(q, "b")
    assert q.info()["blocked_clients"] == 6
    q.do("disarm", "a")
    assert q.info()["blocked_clients"] == 1
    arm(q, "b")
    q.push("x")
    q.pop()
    assert q.info()["blocked_clients"] == 1  # woken, but not served


def test_a_daemon_that_gives_no_sign_of_life_is_forgotten(q, woken):
    q.create()
    for name, waited_ms in (("silent/0", 30), ("sweeping/0", 20), ("asking/0", 10)):
        woken.watch(name)
        arm(q, name, waited_ms)
    for _ in range(2):
        q.pass_time(2000)
        due(q, "sweeping")
        due(q, "asking")
    assert q.info()["blocked_clients"] == 2
    for name in ("sweeping/0", "asking/0"):
        q.push("x")
        assert woken(name)


def test_a_daemon_learns_that_it_was_forgotten(q):
    def known_since(daemon="me"):
        q.pass_time(5)
        return q.do("due", daemon, 1000, 10, keys=["valq::daemons"])[0]

    first = known_since()
    assert known_since() == first
    q.link.ok("FUNCTION", "LOAD", "REPLACE", bundle.whole_source(test_clock=True))
    second = known_since()
    assert second > first
    q.pass_time(5000)
    known_since("other")
    assert known_since() > second  # the other has buried it


@pytest.mark.parametrize("there", [True, False])
def test_fence_is_a_write_that_changes_nothing(q, there):
    if there:
        q.push("x")
    before = q.stored()
    dirty = q.link.ok("INFO", "persistence")
    assert q.do("fence") == b"OK"
    assert q.stored() == before
    assert changes(q.link.ok("INFO", "persistence")) > changes(dirty)


def changes(info):
    return int(info.split(b"rdb_changes_since_last_save:")[1].split()[0])


def test_echo_answers_as_told(q):
    def echo(*args):
        return q.link.call("FCALL", "valq1_echo", 0, *args)

    assert str(echo("error", "ERR no")) == "ERR no"
    q.link.send("FCALL", "valq1_echo", 0, "array", "a", "", "b c")
    assert q.link.read_raw(17) == b"*3\r\n+a\r\n+\r\n+b c\r\n"


def test_what_is_no_queue_does_not_keep_others_from_being_armed(q):
    q.create()
    q.push("x")
    q.link.ok("HSET", "valq:{evil}:queue", "created_at", "1")
    one = struct.pack("<dd", 0, 1)
    armed = q.do("arm", "me", 1, one, 1, one, keys=["valq:{evil}:queue", q.key])
    assert armed[1][0] == 1


def test_a_clock_that_is_set_back_gives_the_sweepers_lease_away(q):
    assert due(q, "gone") is not None
    assert due(q, "me") is None
    q.pass_time(-3_600_000)
    assert due(q, "me")[0] == 1


def test_who_waits_for_many_is_served_by_fewer(q):
    q.create()
    arm(q, "me/0", 20, 10, takes=10)
    q.push("x", "y", "z")
    assert len(q.do("mpop", "n2", AUTO, "10", "", "", "me/0")) == 3
    assert q.info()["blocked_clients"] == 1


def test_who_was_seen_last_before_the_clock_was_set_back_does_not_count(q):
    q.create()
    arm(q, "gone/0")
    assert q.info()["blocked_clients"] == 1
    q.pass_time(-3_600_000)
    assert q.info()["blocked_clients"] == 0


def test_who_waits_asks_again_when_a_pop_ended_before_what_is_ready(q):
    q.create(attempts=3)
    q.push(*["x"] * 6000)
    q.nack(*[message["receipt"] for message in q.pop(6000)])
    q.update(max_delivery_attempts=1)
    assert q.pop() is None
    assert q.counts()[0] > 0
    assert q.do("due", "me", 1000, 10, keys=["valq::daemons"])[3:] == [b"orders"]


def test_a_client_that_takes_many_is_one_that_was_served(q):
    q.create()
    arm(q, "a", 20, 10, takes=10)
    q.push(*"x" * 10)
    assert len(many_in_turn(q, "a", 10)) == 10
    assert q.info()["blocked_clients"] == 1


def test_who_asks_late_still_gets_what_nobody_has_taken(q):
    q.create()
    arm(q, "a", 20)
    arm(q, "b", 10)
    q.push("x")
    q.pass_time(150)
    assert in_turn(q, "a", 1) == [b"x"]


def test_a_queue_of_one_name_in_another_database_keeps_its_timer(q):
    q.push("x", delay=5000)
    q.link.ok("SELECT", 5)
    try:
        q.push("y", delay=1000)
        q.pass_time(1000)
        assert due(q)[2:] == [b"orders"]
        q.sweep()
    finally:
        q.link.ok("SELECT", 0)
    q.sweep()
    q.pass_time(4000)
    assert due(q)[2:] == [b"orders"]


def test_a_pause_keeps_its_timer_when_something_falls_due_before(q):
    q.push("x", delay=1000)
    q.do("pause", "n2", "OUT", 5000)
    q.pass_time(1000)
    assert due(q)[2:] == [b"orders"]
    q.sweep()
    assert 0 < due(q)[1] <= 4000


def test_what_an_update_has_yet_to_count_is_left_to_the_sweep(q):
    q.fill(5000)
    assert q.do("update", "e2", "max_bytes", "49000") is None
    assert due(q)[2:] == [b"orders"]


@pytest.mark.parametrize(
    "call", [("ack", "n2", "1-1"), ("ack", "n2", "1-1", "2-1"), ("del", "n2", "1"), ("purge", "n2", "", "all")]
)
def test_a_queue_whose_messages_are_gone_is_swept_once_and_not_sooner_than_every_five_seconds(q, call):
    def named():
        return due(q)[2:]

    q.create(vt=3600_000)
    q.fill(3)
    q.ids(2)
    assert named() == []
    q.pass_time(5000)
    q.do(*call)
    assert named() == [b"orders"]
    q.sweep()
    q.ack("2-1", 3)
    q.pass_time(4000)
    assert named() == []
    q.pass_time(1000)
    assert named() in ([b"orders"], [])
    q.pass_time(5000)
    assert named() == []


def test_a_key_that_is_no_queue_keeps_no_other_from_being_taken_back(q):
    q.push("x")
    other = q.other("other")
    q.link.ok("SET", other.key, "no queue")
    arm(q)
    assert q.info()["blocked_clients"] == 1
    assert q.do("disarm", "me", keys=[other.key, q.key]) == b"OK"
    assert q.info()["blocked_clients"] == 0


def test_what_a_daemon_was_woken_for_that_is_gone_is_for_the_next_in_line(q, woken):
    q.create()
    due(q, "b")
    for name, waited_ms in (("a", 20), ("b", 10), *((f"gone{number}", 5) for number in range(20))):
        woken.watch(name)
        arm(q, name, waited_ms)
    q.push("x")
    assert woken("a")
    assert not woken("b")
    q.pass_time(4000)  # in one step: nobody has looked whether a has asked meanwhile
    for name in due(q, "b")[2:]:
        assert name == b"orders"
        q.sweep()
    assert woken("b")


def test_who_was_told_by_its_registration_what_is_ready_is_not_woken_for_it_too(q, woken):
    q.push("x")
    woken.watch("a")
    assert arm(q, "a", 20) == [1, -1]
    assert not woken("a")
    assert arm(q, "b", 10)[0] == 0
    assert in_turn(q, "b", 4) == []
    q.pass_time(101)
    assert in_turn(q, "b", 4) == [b"x"]


def test_who_is_woken_already_is_not_woken_by_each_push(q, woken):
    q.create()
    woken.watch("a")
    arm(q, "a")
    q.push("x")
    assert woken("a")
    woken.watch("a")
    q.push("y")
    assert not woken("a")


def test_more_clients_than_have_their_places_told_are_served_in_turn(q):
    q.create()
    arm(q, "a", *range(300, 172, -1), count=200)
    arm(q, "b", 1)
    q.push(*["x"] * 120)
    assert len(in_turn(q, "a", 120)) == 120
    q.push(*["x"] * 20)
    assert len(in_turn(q, "a", 20)) == 20
    q.push("y")
    assert in_turn(q, "b", 1) == []
    assert in_turn(q, "a", 1) == [b"y"]


def test_who_takes_less_than_its_share_is_woken_for_the_rest(q, woken):
    q.create()
    for name, waited_ms in (("a", (30, 20)), ("b", (10,))):
        woken.watch(name)
        arm(q, name, *waited_ms)
    q.push("x", "y")
    assert woken("a")
    woken.watch("a")
    assert in_turn(q, "a", 1) == [b"x"]
    assert woken("a")
    assert not woken("b")


def test_a_timer_of_almost_a_second_wakes_who_waits(q, woken):
    q.create()
    woken.watch("me")
    arm(q)
    q.push("x", delay=999)
    assert woken("me")


def test_who_waits_is_woken_by_whoever_finds_a_pause_to_be_over(q, woken):
    q.create()
    woken.watch("me")
    arm(q)
    q.do("pause", "n2", "OUT", 2000)
    q.push("x")
    woken("me")
    woken.watch("me")
    q.pass_time(2000)
    q.ack("9-1")
    assert woken("me")


def test_update_has_the_sweeper_come_for_the_dead_that_waited_for_it(q):
    q.create()
    due(q)
    assert q.update(dead_letter_queue="graves") == b"OK"
    assert due(q)[2:] == [b"orders"]
