"""Blocked POPs: woken at the moment something is ready, in order, through whichever daemon it came."""

import contextlib
import re
import select
import statistics
import time

import pytest

from tests.servers import Connection, Valkey, Valqd, as_map, request, until
from tests.wire.expect import blocked, noticed, parked, refused


@pytest.fixture(scope="module")
def pair():
    """Two daemons on one Valkey."""
    with Valkey() as valkey, Valqd(valkey.url) as first, Valqd(valkey.url) as second:
        yield valkey, first, second


@pytest.fixture
def waiting(pair):
    with Connection(pair[1].port) as connection:
        yield connection


@pytest.fixture
def pushing(pair):
    with Connection(pair[2].port) as connection:
        yield connection


def test_a_push_through_another_daemon_wakes(waiting, pushing, queue):
    waiting.send("VALQ.POP", queue, "BLOCK", "0")
    blocked(pushing, queue, 1)
    start = time.monotonic()
    pushing.call("VALQ.PUSH", queue, "hello")
    assert as_map(waiting.read())[b"body"] == b"hello"
    assert time.monotonic() - start < 5  # but for a wake it would look within 15 s


def test_waiters_of_any_daemon_are_counted_and_served_first_come_first_served(pair, pushing, queue):

    def served_in_order(queue):
        with contextlib.ExitStack() as stack:
            waiters = []
            for number in range(6):
                waiter = stack.enter_context(Connection(pair[1 + number % 2].port))
                waiter.send("VALQ.POP", queue, "BLOCK", "0")
                waiters.append(waiter)
                blocked(pushing, queue, number + 1)
                time.sleep(0.1)  # how long a client has waited is known to the ms, plus what a call takes
            order = []
            for number in range(6):
                blocked(pushing, queue, 6 - number)  # who was served has left, and its daemon waits for its next client
                pushing.call("VALQ.PUSH", queue, str(number))
                order += answered(waiters, 1, b"%d" % number)
        return order == waiters

    assert any(served_in_order(f"{queue}.{round_}") for round_ in range(3))  # a daemon that stalls loses its turn


def answered(waiters, count, *bodies):
    """The first so many of the clients that got messages, which are these."""
    served = []
    while len(served) < count:
        ready = select.select([waiter.socket for waiter in waiters if waiter not in served], [], [], 10)[0]
        assert ready
        served += [waiter for waiter in waiters if waiter.socket in ready]
    assert sorted(as_map(waiter.read())[b"body"] for waiter in served) == sorted(bodies)
    return served


@pytest.mark.parametrize("delay", [(), ("DELAY", "0.2")], ids=["pushed", "due"])
@pytest.mark.parametrize("first_daemon_has", ["111111000000", "011011000011", "101010101010"])
def test_messages_that_come_at_once_go_to_the_first_in_line_at_any_daemon(
    pair, pushing, queue, first_daemon_has, delay
):

    def first_are_served(queue):
        with contextlib.ExitStack() as stack:
            waiters = []
            for number, has in enumerate(first_daemon_has):
                if number == 7:  # between who is served and who is not: how long each has waited is known to about a ms
                    time.sleep(0.2)
                waiter = stack.enter_context(Connection(pair[1 if has == "1" else 2].port))
                waiter.send("VALQ.POP", queue, "BLOCK", "0")
                waiters.append(waiter)
                blocked(pushing, queue, number + 1)
            pushing.call("VALQ.MPUSH", queue, "7", *"abcdefg", *delay)
            served = answered(waiters, 7, *map(str.encode, "abcdefg"))
            blocked(pushing, queue, 5)
        return set(served) == set(waiters[:7])

    assert any(first_are_served(f"{queue}.{round_}") for round_ in range(3))  # a daemon that stalls loses its turn


def test_nothing_comes_in_time(waiting, queue, pair):
    for options, nothing in (((), None), (("COUNT", "3"), [])):

        def took_s(options=options, nothing=nothing):
            start = time.monotonic()
            assert waiting.call("VALQ.POP", queue, "BLOCK", "150", *options) == nothing
            return time.monotonic() - start

        on_time(took_s, 0.15, lambda: 0.45)


def test_no_wait_ends_before_its_time(waiting, queue):
    waiting.call("VALQ.CREATE", queue)
    for _ in range(50):
        start = time.monotonic()
        assert waiting.call("VALQ.POP", queue, "BLOCK", "1") is None
        assert time.monotonic() - start >= 0.001


def test_waiters_are_served_first_come_first_served(pair, pushing, queue):
    waiters = []
    for number in range(10):
        waiter = Connection(pair[1].port)
        waiter.send("VALQ.POP", queue, "BLOCK", "0")
        waiters.append(waiter)
        blocked(pushing, queue, number + 1)
    pushing.call("VALQ.MPUSH", queue, "4", *"abcd")
    pushing.call("VALQ.MPUSH", queue, "6", *"efghij")
    assert [as_map(waiter.read())[b"body"] for waiter in waiters] == [letter.encode() for letter in "abcdefghij"]
    for waiter in waiters:
        waiter.close()


@pytest.mark.parametrize("served", [2, 3, 5, 8])
def test_who_waits_at_several_queues_is_not_overtaken(pair, pushing, queue, served):
    """Two of three wait at one queue, and what they ask for is merged."""
    with contextlib.ExitStack() as stack:
        waiters = []
        for number in range(9):
            waiter = stack.enter_context(Connection(pair[1].port))
            waiter.send(*(("VALQ.MPOP", "2", "other", queue) if number % 3 == 1 else ("VALQ.POP", queue)), "BLOCK", "0")
            waiters.append(waiter)
            blocked(pushing, queue, number + 1)
        bodies = [b"%d" % number for number in range(served)]
        pushing.call("VALQ.MPUSH", queue, str(served), *bodies)
        assert [as_map(waiter.read())[b"body"] for waiter in waiters[:served]] == bodies
        blocked(pushing, queue, 9 - served)


def test_who_waits_at_one_queue_is_not_overtaken_by_who_is_woken_for_another(pair, pushing, queue):
    with Connection(pair[1].port) as one, Connection(pair[1].port) as several:
        one.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue, 1)
        several.send("VALQ.MPOP", "2", queue, queue + "b", "BLOCK", "0")
        blocked(pushing, queue, 2)
        pushing.send_raw(request("MULTI") + request("VALQ.PUSH", queue + "b", "x") + request("VALQ.PUSH", queue, "y"))
        pushing.send("EXEC")
        assert as_map(one.read())[b"body"] == b"y"
        assert as_map(several.read())[b"body"] == b"x"
        assert [pushing.read() for _ in range(4)][-1] == [b"1", b"1"]


def test_nobody_is_stranded_where_lines_cross(pair, pushing, queue):
    """Each gets what it may have, whichever of the queues is looked at first."""
    other = queue + "b"
    waits = (("POP", queue), ("MPOP", "3", queue, other, queue), ("POP", other), ("MPOP", "2", other, queue))
    lines = ((1, 0), (2, 1), (2, 2), (3, 3))  # at either queue, when so many of them wait
    with contextlib.ExitStack() as stack:
        waiters = [stack.enter_context(Connection(pair[1].port, timeout_s=5)) for _ in waits]
        for _ in range(20):
            for waiter, (command, *words), (here, there) in zip(waiters, waits, lines, strict=True):
                waiter.send(f"VALQ.{command}", *words, "BLOCK", "0")
                blocked(pushing, queue, here)
                blocked(pushing, other, there)
            pushing.call("MULTI")
            for name in (other, queue, other, other):
                pushing.call("VALQ.PUSH", name, name)
            pushing.call("EXEC")
            assert [as_map(waiter.read())[b"body"].decode() for waiter in waiters] == [queue, other, other, other]


def test_waiters_of_different_users_are_served_first_come_first_served(pair, pushing, queue):
    valkey, daemon, _ = pair
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(Connection(valkey.port))
        waiters = []
        for user in ("default", "ann", "bob", "ann", "bob", "bob", "ann", "default"):
            waiter = stack.enter_context(Connection(daemon.port))
            if user != "default":
                assert admin.call("ACL", "SETUSER", user, "on", ">pw", "allkeys", "+@all") == b"OK"
                assert waiter.call("AUTH", user, "pw") == b"OK"
            waiter.send("VALQ.POP", queue, "BLOCK", "0")
            waiters.append(waiter)
            blocked(pushing, queue, len(waiters))
        for number, waiter in enumerate(waiters):
            pushing.call("VALQ.PUSH", queue, str(number))
            assert as_map(waiter.read())[b"body"] == b"%d" % number


def on_time(took_s, due_s, late_s):
    """Never before it is due, and mostly no more than ``late_s()`` after it: in three rounds, since machines stall."""
    for _ in range(3):
        took = [took_s() for _ in range(3)]
        assert min(took) > due_s - 0.001
        late = late_s()
        if statistics.median(took) < due_s + late:
            return
    raise AssertionError(f"after {took} s, not {due_s} and at most {late} more")


@pytest.fixture
def soon_s(waiting, pushing, queue):
    """How late a wake may be by what one by a push takes here and now.

    The least is far from 100 ms, at which a sweeper would tick that knew no timer, the most from the second at which
    who waits looks for itself.
    """

    def wake_s():
        waiting.send("VALQ.POP", queue + "now", "BLOCK", "0", "NOACK")
        blocked(pushing, queue + "now", 1)
        start = time.monotonic()
        pushing.call("VALQ.PUSH", queue + "now", "x")
        assert as_map(waiting.read())[b"body"] == b"x"
        return time.monotonic() - start

    return lambda: min(max(0.02, 20 * statistics.median(wake_s() for _ in range(7))), 0.3)


@pytest.mark.parametrize("delay", [0.3, 1.3])  # s; of what is more than a second ahead only the sweeper knows
def test_a_delay_that_falls_due_wakes_on_time(waiting, pushing, queue, delay, soon_s):
    def took_s():
        waiting.send("VALQ.POP", queue, "BLOCK", "0", "NOACK")
        blocked(pushing, queue, 1)
        start = time.monotonic()
        pushing.call("VALQ.PUSH", queue, "later", delay)
        assert as_map(waiting.read())[b"body"] == b"later"
        return time.monotonic() - start

    on_time(took_s, delay, soon_s)


def test_a_lease_that_ends_wakes_on_time(waiting, pushing, queue, soon_s):
    def took_s():
        id_ = pushing.call("VALQ.PUSH", queue, "again")
        start = time.monotonic()
        pushing.call("VALQ.POP", queue, "VT", "0.4")
        waiting.send("VALQ.POP", queue, "BLOCK", "0")
        receipt = as_map(waiting.read())[b"receipt"]
        took = time.monotonic() - start
        assert receipt == id_ + b"-2"
        assert pushing.call("VALQ.ACK", queue, receipt) == 1
        return took

    on_time(took_s, 0.4, soon_s)


def test_a_nack_and_a_lifted_pause_wake(waiting, pushing, queue):
    pushing.call("VALQ.PUSH", queue, "x")
    receipt = as_map(pushing.call("VALQ.POP", queue))[b"receipt"]
    waiting.send("VALQ.POP", queue, "BLOCK", "0")
    blocked(pushing, queue, 1)
    pushing.call("VALQ.NACK", queue, receipt)
    receipt = as_map(waiting.read())[b"receipt"]
    pushing.call("VALQ.PAUSE", queue, "OUT")
    pushing.call("VALQ.NACK", queue, receipt)
    waiting.send("VALQ.POP", queue, "BLOCK", "0")
    blocked(pushing, queue, 1)
    pushing.call("VALQ.PAUSE", queue, "NONE")
    assert as_map(waiting.read())[b"receipt"] == b"1-3"


def test_a_client_that_leaves_while_it_waits_takes_nothing(pair, pushing, queue):
    leaving = Connection(pair[1].port)
    leaving.send("VALQ.POP", queue, "BLOCK", "0")
    blocked(pushing, queue, 1)
    leaving.close()
    pushing.call("VALQ.PUSH", queue, "stays")
    popped = until(lambda: pushing.call("VALQ.POP", queue), 2, "still there")
    assert as_map(popped)[b"attempts"] == 1


def test_who_leaves_is_counted_no_more_though_others_wait(pair, pushing, queue):
    with parked(pair[1].port, queue, "VALQ.POP", queue, "BLOCK", "0", count=3) as waiters:
        waiters[1].close()
        blocked(pushing, queue, 2)


def test_clients_that_hang_up_while_they_wait_take_nothing_for_good(pair, pushing, queue):
    queues = [f"{queue}.{number}" for number in range(150)]
    leaving = [Connection(pair[1].port) for _ in queues]
    for connection, name in zip(leaving, queues, strict=True):
        connection.send("VALQ.POP", name, "BLOCK", "0", "NOACK")
    for name in queues:
        pushing.call("VALQ.CREATE", name)
        blocked(pushing, name)
    for connection, name in zip(leaving, queues, strict=True):
        connection.close()
        pushing.send("VALQ.PUSH", name, "stays")
    assert [pushing.read() for _ in queues] == [b"1"] * len(queues)
    blocked(pushing, queues[-1], 0)
    assert [name for name in queues if pushing.call("VALQ.POP", name) is None] == []


def test_commands_behind_a_blocked_pop_wait_for_it(waiting, pushing, queue):
    waiting.send("VALQ.POP", queue, "BLOCK", "0")
    waiting.send("PING")
    waiting.send("VALQ.POP", queue)
    blocked(pushing, queue, 1)
    pushing.call("VALQ.PUSH", queue, "x")
    assert as_map(waiting.read())[b"body"] == b"x"
    assert waiting.read() == b"PONG"
    assert waiting.read() is None


def test_mpop_takes_from_the_first_queue_that_has_something(waiting, pushing, queue):
    waiting.send("VALQ.MPOP", "2", queue + "1", queue + "2", "BLOCK", "0")
    blocked(pushing, queue + "2", 1)
    pushing.call("VALQ.PUSH", queue + "2", "x")
    message = as_map(waiting.read())
    assert (message[b"queue"], message[b"body"]) == (queue.encode() + b"2", b"x")


def test_fair_mpop_rotates(pushing, queue):
    names = [queue + suffix for suffix in "abc"]
    for name in names:
        pushing.call("VALQ.MPUSH", name, "3", *"xyz")
    served = [as_map(pushing.call("VALQ.MPOP", "3", *names, "FAIR"))[b"queue"] for _ in range(6)]
    assert sorted(served[:3]) == sorted(name.encode() for name in names)
    assert sorted(served[3:]) == sorted(name.encode() for name in names)
    ordered = [as_map(pushing.call("VALQ.MPOP", "3", *names))[b"queue"] for _ in range(3)]
    assert ordered == [names[0].encode(), names[1].encode(), names[2].encode()]


def test_inside_multi_nothing_waits(waiting, queue):
    assert waiting.call("MULTI") == b"OK"
    assert waiting.call("VALQ.POP", queue, "BLOCK", "0") == b"QUEUED"
    assert waiting.call("EXEC") == [None]


def test_many_waiters_cost_the_backend_nothing_but_the_sweep(queue):
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        direct = stack.enter_context(Connection(valkey.port))
        pushing, *waiters = [stack.enter_context(Connection(daemon.port)) for _ in range(301)]
        for waiter in waiters:
            waiter.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue, 300)
        time.sleep(0.2)  # whether clients need a password was asked for the last time

        def ticks():
            found = re.search(rb"cmdstat_fcall_ro:calls=(\d+)", direct.call("INFO", "commandstats"))
            return int(found[1]) if found else 0

        def called():
            direct.call("CONFIG", "RESETSTAT")
            until(lambda: ticks() >= 12, 10, "twelve ticks of the sweeper")
            return set(re.findall(rb"cmdstat_(\S+?):", direct.call("INFO", "commandstats")))

        sweep = {b"fcall_ro", b"time", b"info", b"config|resetstat"}
        if called() != sweep:  # they were just then registered again, as they are every 15 s
            assert called() == sweep
        pushing.call("VALQ.MPUSH", queue, "300", *map(str, range(300)))
        assert sorted(int(as_map(waiter.read())[b"body"]) for waiter in waiters) == list(range(300))


def test_a_wake_that_comes_while_all_who_wait_are_asked_for_another_queue_is_not_lost(pair, pushing, queue):
    _, first, second = pair
    with contextlib.ExitStack() as stack:
        waiters = [stack.enter_context(Connection(first.port)) for _ in range(3)]
        elsewhere = stack.enter_context(Connection(second.port))
        queues = (f"{queue}a", f"{queue}b")
        for waiter in waiters:
            waiter.send("VALQ.MPOP", 2, *queues, "BLOCK", 0, "NOACK")
        for round_ in range(40):
            time.sleep(0.01)
            began = time.monotonic()
            pushing.call("VALQ.PUSH", queues[0], "x")
            time.sleep(0.0001 * (round_ % 10))
            elsewhere.call("VALQ.PUSH", queues[1], "y")
            served = []
            while len(served) < 2:
                for ready in select.select([waiter.socket for waiter in waiters], [], [], 5)[0]:
                    waiter = next(waiter for waiter in waiters if waiter.socket is ready)
                    waiter.read()
                    served.append(waiter)
            assert time.monotonic() - began < 5  # a wake that is lost is made up for within 15 s
            for waiter in served:
                waiter.send("VALQ.MPOP", 2, *queues, "BLOCK", 0, "NOACK")


@pytest.mark.parametrize("gap_s", [0, 0.0003, 0.001])
def test_who_asked_first_is_served_first_though_the_message_came_in_between(pair, pushing, queue, gap_s):
    _, first, _ = pair
    with Connection(first.port) as one, Connection(first.port) as two, Connection(first.port) as beside:
        pushing.call("VALQ.CREATE", queue)
        for _ in range(20):
            noticed(beside)  # the daemon has nothing to read from either: it will read in the order in which they send
            one.send("VALQ.POP", queue, "BLOCK", 5000, "NOACK")
            time.sleep(gap_s)
            pushing.send("VALQ.PUSH", queue, "first")
            two.send("VALQ.POP", queue, "BLOCK", 5000, "NOACK")
            pushing.read()
            assert as_map(one.read())[b"body"] == b"first"
            pushing.call("VALQ.PUSH", queue, "second")
            assert as_map(two.read())[b"body"] == b"second"


def test_who_moved_up_in_line_keeps_its_own_timeout(pair, pushing, queue):
    _, first, _ = pair
    with Connection(first.port) as one, Connection(first.port) as two:
        pushing.call("VALQ.CREATE", queue)
        for _ in range(5):
            one.send("VALQ.POP", queue, "BLOCK", 8000, "NOACK")
            pushing.send("VALQ.PUSH", queue, "x")
            began = time.monotonic()
            two.send("VALQ.POP", queue, "BLOCK", 300, "NOACK")
            pushing.read()
            assert as_map(one.read())[b"body"] == b"x"
            assert two.read() is None
            assert 0.299 < time.monotonic() - began < 7  # and it has a timer at all


def test_who_hangs_up_before_its_wait_begins_takes_nothing(pair, pushing, queue):
    pushing.call("VALQ.CREATE", queue)
    for _ in range(50):
        with Connection(pair[1].port) as leaving:
            leaving.send("VALQ.POP", queue, "BLOCK", 5000)
    with Connection(pair[1].port) as waiting:
        waiting.send("VALQ.POP", queue, "BLOCK", 5000)
        blocked(pushing, queue, 1)
        pushing.call("VALQ.PUSH", queue, "x")
        assert as_map(waiting.read())[b"attempts"] == 1


def test_who_moved_up_in_line_and_leaves_takes_nothing_along(pair, pushing, queue):
    _, first, _ = pair
    pushing.call("VALQ.CREATE", queue)
    with Connection(first.port) as one:
        for _ in range(5):
            with Connection(first.port) as two:
                one.send("VALQ.POP", queue, "BLOCK", 5000)
                pushing.send("VALQ.PUSH", queue, "x")
                two.send("VALQ.POP", queue, "BLOCK", 5000)
                pushing.read()
                served = select.select([one.socket, two.socket], [], [], 10)[0]
                if served == [two.socket]:  # the daemon has read the other one first
                    assert as_map(two.read())[b"body"] == b"x"
                    pushing.call("VALQ.PUSH", queue, "x")
                assert as_map(one.read())[b"body"] == b"x"
            blocked(pushing, queue, 0)
            pushing.call("VALQ.PUSH", queue, "y")
            popped = as_map(pushing.call("VALQ.POP", queue, "NOACK"))
            assert (popped[b"body"], popped[b"attempts"]) == (b"y", 1)


def test_fair_turns_are_those_of_the_same_queues(pushing, queue):
    served = []
    for name in "abcd":
        pushing.call("VALQ.MPUSH", f"{queue}{name}", 4, *"wxyz")
    for _ in range(4):
        for pair_of_queues in ("ab", "cd"):
            names = [f"{queue}{name}" for name in pair_of_queues]
            served.append(as_map(pushing.call("VALQ.MPOP", 2, *names, "FAIR"))[b"queue"][-1:])
    assert b"".join(served) == b"acbdacbd"


@pytest.mark.parametrize("flush", ["FLUSHALL", "FLUSHDB"])
def test_who_is_blocked_when_everything_is_flushed_is_woken_all_the_same(queue, flush):
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, timeout_s=5) as waiting,
        Connection(daemon.port) as pushing,
    ):
        waiting.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue)
        assert direct.call(flush, "SYNC") == b"OK"
        pushing.call("VALQ.PUSH", queue, "x")
        assert as_map(waiting.read())[b"body"] == b"x"


def test_a_push_wakes_who_waits_in_its_database_though_another_has_waited_longer_in_the_next(pair, pushing, queue):
    _, first, second = pair
    with (
        Connection(first.port) as elsewhere,
        Connection(first.port) as watching,
        Connection(second.port, timeout_s=5) as waiting,
    ):
        for connection in (elsewhere, watching):
            assert connection.call("SELECT", "1") == b"OK"
        elsewhere.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(watching, queue, 1)
        waiting.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue, 2)
        pushing.call("VALQ.PUSH", queue, "x")
        assert as_map(waiting.read())[b"body"] == b"x"


def test_clients_that_one_daemon_has_blocked_in_two_databases_are_all_counted(pair, pushing, queue):
    with contextlib.ExitStack() as stack:
        watching, *waiters = [stack.enter_context(Connection(pair[1].port)) for _ in range(4)]
        for connection in (watching, *waiters[1:]):
            assert connection.call("SELECT", "1") == b"OK"
        for waiter in waiters:
            waiter.send("VALQ.POP", queue, "BLOCK", "0")
        for connection in (pushing, watching):
            blocked(connection, queue, 3)


def test_who_asks_as_its_time_ends_is_not_served_before_who_came_first(pair, waiting, queue):
    with (
        Connection(pair[1].port) as second,
        Connection(pair[1].port) as pushing,
        Connection(pair[0].port) as holding,
    ):
        for _ in range(3):
            waiting.send("VALQ.POP", queue, "BLOCK", "0")
            blocked(pushing, queue)
            second.send("VALQ.MPOP", "2", queue, queue + "2", "BLOCK", "400")
            noticed(pushing)  # it stands in line, unless its time is over already
            holding.send("DEBUG", "SLEEP", "0.8")
            time.sleep(0.05)
            pushing.send("VALQ.PUSH", queue, "m")
            assert as_map(waiting.read())[b"body"] == b"m"
            assert second.read() is None
            assert holding.read() == b"OK"
            assert isinstance(pushing.read(), bytes)


def test_who_came_behind_others_and_is_not_served_is_asked_before_it_gets_nothing(pair, waiting, queue):
    """It may have no right on the queue, or another of its queues have something."""
    with Connection(pair[1].port) as other, Connection(pair[0].port) as direct:
        waiting.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(other, queue)
        direct.call("ACL", "SETUSER", "stranger", "on", ">pw", "~none", "+@all")
        with Connection(pair[1].port) as stranger:
            assert stranger.call("AUTH", "stranger", "pw") == b"OK"
            refused(stranger.call("VALQ.POP", queue, "BLOCK", "50"), "NOPERM")
        blocked(other, queue)
        other.call("VALQ.PUSH", queue + "2", "ready")
        with Connection(pair[0].port) as stopping:
            stopping.send("DEBUG", "SLEEP", "0.2")
            reply = other.call("VALQ.MPOP", "2", queue, queue + "2", "BLOCK", "20")
            assert stopping.read() == b"OK"
        assert as_map(reply)[b"body"] == b"ready"
        other.call("VALQ.PUSH", queue, "x")
        assert as_map(waiting.read())[b"body"] == b"x"


@pytest.mark.parametrize(
    "command", ["VALQ.POP {q} BLOCK 0", "VALQ.MPOP 2 {q} {q}2 BLOCK 0 NOACK", "VALQ.POP {q} BLOCK 0 COUNT 5"]
)
def test_who_has_no_right_does_not_stand_in_line_behind_others(pair, pushing, waiting, queue, command):
    valkey, daemon, _ = pair
    with Connection(valkey.port) as direct, Connection(daemon.port, timeout_s=5) as stranger:
        direct.call("ACL", "SETUSER", "stranger", "on", ">pw", "resetkeys", "~none", "+@all")
        assert stranger.call("AUTH", "stranger", "pw") == b"OK"
        waiting.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue, 1)
        refused(stranger.call(*command.format(q=queue).split()), "NOPERM")
        blocked(pushing, queue, 1)
        pushing.call("VALQ.PUSH", queue, "x")
        assert as_map(waiting.read())[b"body"] == b"x"


def test_who_was_killed_and_does_not_read_takes_no_place_in_line(pair, pushing, waiting, queue):
    valkey, daemon, _ = pair
    with Connection(valkey.port) as direct, Connection(daemon.port) as stuck, Connection(daemon.port) as killing:
        direct.call("ACL", "SETUSER", "stuck", "on", ">pw", "allkeys", "+@all")
        assert stuck.call("AUTH", "stuck", "pw") == b"OK"
        direct.call("SET", "large", "x" * 8_000_000)
        stuck.send_raw(request("GET", "large") + request("VALQ.POP", queue, "BLOCK", "0"))
        blocked(pushing, queue, 1)
        waiting.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue, 2)
        assert killing.call("CLIENT", "KILL", "USER", "stuck") >= 1
        direct.call("DEL", "large")
        pushing.call("VALQ.PUSH", queue, "x")
        got = as_map(waiting.read())
        assert (got[b"body"], got[b"attempts"]) == (b"x", 1)
