"""No client's bytes are another client's trouble, whatever they are and wherever they are cut."""

import contextlib
import re
import socket
import time

import pytest

from tests.servers import LINUX_ONLY, Connection, Valkey, Valqd, peak_mib, request, rss_mib, until
from tests.wire.expect import (
    blocked,
    bodies,
    counts,
    drain,
    info,
    message,
    noticed,
    parked,
    refused,
    show,
    stopped,
)  # fmt: skip

SPELLINGS = [("VALQ.PUSH",), ("VALQ", "PUSH")]
ONE_OR_TWO_WORDS = pytest.mark.parametrize("push", SPELLINGS, ids=["one word", "two words"])


@pytest.fixture(scope="module")
def pair():
    """A Valkey of this module's own, and a daemon."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        yield valkey, daemon


def in_db(valkey, db, queue) -> bool:
    """Whether the queue is in that database."""
    with Connection(valkey.port) as direct:
        direct.call("SELECT", db)
        return direct.call("EXISTS", f"valq:{{{queue}}}:queue") == 1


# ---- what the fast path learns


@ONE_OR_TWO_WORDS
@pytest.mark.parametrize(("learned", "other"), [(("DELAY", "0"), ("DELAY", "60")), (("0",), ("60",))])
def test_a_push_without_delay_does_not_teach_that_the_next_has_none(connect, queue, push, learned, other):
    first, second = connect(), connect()
    for connection in (first, second, first):
        first.call(*push, queue, "tick", *learned)
        shown = show(connection, queue, connection.call(*push, queue, "tick", *other))
        assert (shown["state"], shown["body"]) == (b"delayed", b"tick")
    assert {item["body"] for item in map(message, first.call("VALQ.PEEK", queue))} == {b"tick"}


@ONE_OR_TWO_WORDS
def test_a_push_of_the_default_priority_does_not_teach_that_the_next_has_it(connect, queue, push):
    first, second = connect(), connect()
    for connection in (first, second, first):
        first.call(*push, queue, "tick", "PRIORITY", "0")
        shown = show(connection, queue, connection.call(*push, queue, "tick", "PRIORITY", "9"))
        assert (shown["priority"], shown["body"]) == (9, b"tick")


@ONE_OR_TWO_WORDS
@pytest.mark.parametrize(("learned", "bad"), [(("DELAY", "0"), ("DELAY", "banana")), (("0",), ("banana",))])
def test_a_push_without_delay_does_not_teach_to_take_anything_for_a_delay(connect, queue, push, learned, bad):
    first, second = connect(), connect()
    for connection in (first, second, first):
        first.call(*push, queue, "tick", *learned)
        refused(connection.call(*push, queue, "tick", *bad), "ERR")
    assert drain(first, queue) == [b"tick"] * 3


def test_each_client_is_answered_in_its_own_protocol_version_whatever_others_speak(pair, queue):
    with Connection(pair[1].port, 2) as flat, Connection(pair[1].port, 3) as mapped:
        for _ in range(3):
            for connection, kind in ((flat, list), (mapped, dict)):
                connection.call("VALQ.PUSH", queue, "x")
                assert isinstance(connection.call("VALQ.POP", queue), kind)


# ---- a foreign request cut between two arguments


@pytest.fixture(params=["private lane", "relayed"])
def cut(request, pair):
    """A client of which only the first of two arguments has come."""
    with Connection(pair[1].port) as connection:
        if request.param == "private lane":
            connection.call("LRANGE", "none", "0", "-1")
            connection.send_raw(b"*4\r\n$6\r\nLRANGE\r\n")
        else:
            connection.call("SET", "plain", "1")
            connection.send_raw(b"*3\r\n$3\r\nSET\r\n")
        connection.rest = {
            "private lane": (b"$4\r\nnone\r\n$1\r\n0\r\n$2\r\n-1\r\n", []),
            "relayed": (b"$3\r\nown\r\n$1\r\nv\r\n", b"OK"),
        }[request.param]
        yield connection


@pytest.fixture
def beside(pair, cut):
    """Another client, with a private lane, that comes when the first is cut."""
    with Connection(pair[1].port) as connection:
        assert connection.call("LRANGE", "none", "0", "-1") == []
        yield connection


def test_a_cut_request_leaves_the_order_of_anothers_replies_alone(beside, queue):
    beside.send_raw(request("STRLEN", "x") + request("BLPOP", "none", "1"))
    beside.send("VALQ.PUSH", queue, "m")
    assert [beside.read() for _ in range(3)] == [0, None, b"1"]


@pytest.mark.parametrize("together", [True, False], ids=["one write", "one by one"])
def test_a_cut_request_leaves_anothers_database_alone(pair, beside, queue, together):
    if together:
        beside.send_raw(request("SELECT", "5") + request("VALQ.PUSH", queue, "m"))
        assert [beside.read(), beside.read()] == [b"OK", b"1"]
    else:
        assert beside.call("SELECT", "5") == b"OK"
        assert beside.call("VALQ.PUSH", queue, "m") == b"1"
    assert in_db(pair[0], 5, queue)
    assert not in_db(pair[0], 0, queue)


@pytest.mark.parametrize("together", [True, False], ids=["one write", "one by one"])
def test_a_cut_request_leaves_anothers_transaction_alone(pair, beside, queue, together):
    commands = [("MULTI",), ("SET", "undone", "1"), ("VALQ.PUSH", queue, "m"), ("DISCARD",)]
    if together:
        beside.send_raw(b"".join(request(*command) for command in commands))
        replies = [beside.read() for _ in commands]
    else:
        replies = [beside.call(*command) for command in commands]
    assert replies == [b"OK", b"QUEUED", b"QUEUED", b"OK"]
    assert beside.call("EXISTS", "undone") == 0
    assert not in_db(pair[0], 0, queue)


def test_a_cut_request_is_served_when_its_rest_has_come(beside, cut, queue):
    for number in range(1, 4):
        beside.send_raw(request("STRLEN", "x") + request("VALQ.PUSH", queue, "m"))
        assert [beside.read(), beside.read()] == [0, b"%d" % number]
    rest, reply = cut.rest
    cut.send_raw(rest)
    assert cut.read() == reply
    assert message(cut.call("VALQ.POP", queue))["body"] == b"m"


# ---- bytes that are no request


@pytest.mark.parametrize("private", [False, True], ids=["clean", "private lane"])
@pytest.mark.parametrize(
    "poison",
    [
        b"PING a\0b\r\n",
        b"ECHO a\0b\r\n",
        b"SELECT 0\0\r\n",
        b"*1\r\n$4\r\nPINGxx",
        b"*2\r\n$3\r\nGETxx$1\r\nkxx",
        b"*2\r\n$9\r\nVALQ.HELPxx$4\r\npushxx",
    ],
)
def test_strange_bytes_of_one_client_hold_up_nobody(pair, queue, poison, private):
    with Connection(pair[1].port, timeout_s=5) as old, Connection(pair[1].port) as strange:
        old.call("SET", "there", "1")
        if private:
            strange.call("LRANGE", "none", "0", "-1")
        for number in range(1, 3):
            strange.send_raw(poison)
            with Connection(pair[1].port, timeout_s=5) as new:
                for connection in (old, new):
                    assert connection.call("PING") == b"PONG"
                    assert connection.call("GET", "there") == b"1"
                    assert connection.call("LRANGE", "none", "0", "-1") == []
                    assert isinstance(connection.call("VALQ.PUSH", queue, number), bytes)


@pytest.mark.parametrize("private", [False, True], ids=["clean", "private lane"])
def test_an_announcement_of_2_billion_arguments_holds_up_nobody(pair, private):
    with Connection(pair[1].port, timeout_s=2) as other, Connection(pair[1].port) as announcing:
        if private:
            announcing.call("LRANGE", "none", "0", "-1")
        announcing.send_raw(b"*2147483647\r\n")
        assert other.call("PING") == b"PONG"
        announcing.send_raw(b"$3\r\nGET\r\n")
        assert other.call("PING") == b"PONG"


# ---- waiting


def test_an_mpop_that_names_a_queue_twice_ends_and_leaves_nothing_behind(pair, queue):
    port = pair[1].port
    with Connection(port) as twice, Connection(port) as pushing:
        assert twice.call("VALQ.MPOP", "2", queue, queue, "BLOCK", "200") is None
        with parked(port, queue, "VALQ.POP", queue, "BLOCK", "0") as (waiter,):
            pushing.call("VALQ.PUSH", queue, "x")
            assert message(waiter.read())["body"] == b"x"
        with parked(port, queue, "VALQ.MPOP", "2", queue, queue, "BLOCK", "0") as (waiter,):
            pushing.call("VALQ.PUSH", queue, "y")
            assert message(waiter.read())["body"] == b"y"
        assert twice.call("VALQ.MPOP", "2", queue, queue, "BLOCK", "1") is None


POPS = {"pop": ("VALQ.POP", "{q}"), "mpop": ("VALQ.MPOP", "2", "{q}", "{q}2")}
BEFORE = {
    "behind LRANGE": (request("LRANGE", "none", "0", "-1"), [[]]),
    "behind a skipped PING": (request("CLIENT", "REPLY", "SKIP") + request("PING"), []),
    "behind a skipped VALQ command": (request("CLIENT", "REPLY", "SKIP") + request("VALQ.POP", "nothing"), []),
}


@pytest.mark.parametrize("kind", POPS)
@pytest.mark.parametrize("before", BEFORE)
def test_a_pipelined_pop_really_waits(valqd, resp, queue, kind, before):
    data, replies = BEFORE[before]
    command = [part.format(q=queue) for part in POPS[kind]]
    with Connection(valqd.port, resp) as waiter, Connection(valqd.port) as pushing:
        start = time.monotonic()
        waiter.send_raw(data + request(*command, "BLOCK", "150"))
        assert [waiter.read() for _ in replies] == replies
        assert waiter.read() is None
        assert time.monotonic() - start > 0.149
        waiter.send_raw(data + request(*command, "BLOCK", "20000"))
        assert [waiter.read() for _ in replies] == replies
        blocked(pushing, queue)
        pushing.call("VALQ.PUSH", queue, "x")
        assert message(waiter.read())["body"] == b"x"
        assert waiter.call("PING") == b"PONG"


@pytest.mark.parametrize(("leaves", "stays"), [("0", "5"), ("5", "0")])
def test_a_waiter_that_leaves_takes_no_waiter_of_another_database_along(pair, queue, leaves, stays):
    port = pair[1].port
    with contextlib.ExitStack() as stack:
        leaving, first, second, pushing = [stack.enter_context(Connection(port)) for _ in range(4)]
        leaving.call("SELECT", leaves)
        pushing.call("SELECT", leaves)
        leaving.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue)
        pushing.call("SELECT", stays)
        for waiter in (first, second):
            waiter.call("SELECT", stays)
            waiter.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue, 3)  # of any database
        leaving.close()
        for _ in range(20):
            pushing.call("PING")
        start = time.monotonic()
        pushing.call("VALQ.MPUSH", queue, "2", "x", "y")
        assert {message(waiter.read())["body"] for waiter in (first, second)} == {b"x", b"y"}
        assert time.monotonic() - start < 5


def test_a_broken_queue_does_not_keep_waiters_of_others_asleep(queue):
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(daemon.port) as evil,
        Connection(daemon.port) as pushing,
        Connection(valkey.port) as direct,
        parked(daemon.port, queue, "VALQ.POP", queue, "BLOCK", "0") as (waiter,),
    ):
        evil.send("VALQ.MPOP", "2", "evil", "beside", "BLOCK", "0")
        blocked(pushing, "beside", 1)
        direct.call("HSET", "valq:{evil}:queue", "created_at", "1")
        direct.call("FUNCTION", "FLUSH")
        blocked(pushing, queue)
        pushing.call("VALQ.PUSH", queue, "x")
        assert message(waiter.read())["body"] == b"x"


# ---- clients that do not read


@pytest.mark.parametrize("options", [(), ("PRIORITY", "1")], ids=["plain", "with options"])
def test_who_sends_in_small_pieces_is_no_more_than_its_share_ahead_of_others(pair, queue, options):
    valkey, daemon = pair
    with Connection(daemon.port) as flooding, Connection(daemon.port) as other, Connection(daemon.port) as beside:
        for connection in (flooding, other):
            connection.call("VALQ.PUSH", queue, "first")
        noticed(beside)
        with stopped(valkey):
            for _ in range(2500):
                flooding.send_raw(request("VALQ.PUSH", queue, "x", *options) * 4)
            for _ in range(2):
                noticed(beside)  # it has read what it wanted
            other.send("VALQ.PUSH", queue, "y")
            noticed(beside)  # before the first share is answered, and the next taken
        assert int(other.read()) < 4000  # 64 KiB are about 1,770 commands; the read that fills them may bring as many
        assert [int(flooding.read()) for _ in range(10_000)][-1] == 10_003


def test_a_client_that_never_reads_takes_only_a_share_of_the_messages(pair, queue):
    port, body = pair[1].port, b"b" * 20_000
    with Connection(port, timeout_s=30) as other:
        for _ in range(30):
            other.call("VALQ.MPUSH", queue, "100", *[body] * 100)
        with Connection(port, timeout_s=1) as deaf:
            deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)  # or the system reads for it
            with contextlib.suppress(TimeoutError):
                deaf.send_raw(request("VALQ.POP", queue) * 30_000)
            seen = []

            def settled():
                seen.append(counts(other, queue))
                time.sleep(0.01)
                return len(seen) > 50 and seen[-50:] == seen[-1:] * 50

            until(settled, 10, "it gets no more")
        ready = seen[-1].get("ready", 0)
        assert ready >= 1500, seen[-1]
        popped = 0
        while got := bodies(other.call("VALQ.POP", queue, "COUNT", "500")):
            assert set(got) == {body}
            popped += len(got)
        assert popped >= ready
        other.call("VALQ.DELETE", queue)


@LINUX_ONLY
def test_what_the_daemon_answers_itself_waits_for_a_client_that_does_not_read(pair):
    count = 30_000
    with (
        Valqd(pair[0].url) as daemon,  # of its own: one that has had much in use before does not grow
        Connection(daemon.port, timeout_s=30) as deaf,
        Connection(daemon.port) as other,
    ):
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        before = rss_mib(daemon.pid)
        deaf.send_raw(b"VALQ\r\n" * count)
        for _ in range(500):
            noticed(other)
        assert peak_mib(daemon.pid) - before < 20
        answers = [deaf.read() for _ in range(count)]
        assert all(isinstance(answer, list) for answer in answers)
        assert sum(map(len, answers[0])) * count > 40 << 20  # twice what it stayed below


def test_after_a_large_value_simple_commands_do_not_ride_together():
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        direct = stack.enter_context(Connection(valkey.port))
        clients = [stack.enter_context(Connection(daemon.port)) for _ in range(5)]
        direct.call("SET", "large", b"x" * 100_000)

        def connections():
            return int(re.search(rb"connected_clients:(\d+)", direct.call("INFO", "clients"))[1])

        for client in clients:
            assert client.call("GET", "none") is None
        until(lambda: connections() == 5, what="control's, the three shared lanes and this one")
        for number, client in enumerate(clients):
            assert client.call("GET", "large") == b"x" * 100_000
            assert connections() == 5 + number  # the first came over the shared lane, the others by their own


# ---- limits and waits


def test_the_largest_body_is_a_limit_also_for_plain_pushes_in_a_row(valkey, queue):
    with Valqd(valkey.url, max_body_bytes=1024) as daemon, Connection(daemon.port) as connection:
        pushed = 0
        for _ in range(3):
            connection.send_raw(request("VALQ.PUSH", queue, "small") * 200)
            assert all(isinstance(connection.read(), bytes) for _ in range(200))
            for push in SPELLINGS:
                assert isinstance(connection.call(*push, queue, "small"), bytes)
                refused(connection.call(*push, queue, "x" * 60_000), "ERR", "max_body_bytes")
                refused(connection.call(*push, queue, "x" * 1025), "ERR", "max_body_bytes")
                assert isinstance(connection.call(*push, queue, "x" * 1024), bytes)
            connection.send_raw(request("VALQ.PUSH", queue, "small") + request("VALQ.PUSH", queue, "x" * 60_000))
            assert isinstance(connection.read(), bytes)
            refused(connection.read(), "ERR", "max_body_bytes")
            pushed += 205
            assert info(connection, queue)["pushed_total"] == pushed


@pytest.mark.parametrize("together", [True, False], ids=["one write", "one by one"])
def test_wait_keeps_its_place_on_a_connection_that_is_subscribed(valqd, queue, together):
    commands = [("SUBSCRIBE", "ch"), ("VALQ.PUSH", queue, "m"), ("WAIT", "0", "0"), ("ECHO", "z")]
    with Connection(valqd.port, 3) as connection:
        if together:
            connection.send_raw(b"".join(request(*command) for command in commands))
            replies = [connection.read() for _ in commands]
        else:
            replies = [connection.call(*command) for command in commands]
        assert replies == [[b"subscribe", b"ch", 1], b"1", 0, b"z"]
        assert connection.call("PING", "nothing else came") == b"nothing else came"


def test_a_client_that_valkey_hangs_up_on_gets_nothing_more_and_others_are_served(pair, queue):
    valkey, daemon = pair
    with Connection(valkey.port) as direct, Connection(daemon.port) as other:
        for _ in range(10):
            with Connection(daemon.port, timeout_s=5) as client:
                own_lane = client.call("CLIENT", "ID")
                client.send_raw(request("VALQ.PUSH", queue, "x") * 2000)
                assert direct.call("CLIENT", "KILL", "ID", str(own_lane)) == 1
                client.read_until_closed()
            assert isinstance(other.call("VALQ.PUSH", queue, "y"), bytes)


@pytest.mark.parametrize(("count", "bad"), [(1, 0), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize(("command", "argument"), [("VALQ.PUSH", "hello"), ("VALQ.ACK", "1-1")])
def test_a_bulk_without_its_end_of_line_breaks_no_shared_lane(pair, queue, command, argument, count, bad):
    valkey, daemon = pair
    with Connection(daemon.port) as victim, Connection(valkey.port) as direct:

        def shared_lanes():
            listed = direct.call("CLIENT", "LIST", "TYPE", "normal").splitlines()
            return {line.split()[0] for line in listed if b" cmd=fcall " in line and b" name=valqd " not in line}

        victim.call("VALQ.CREATE", queue)
        victim.call(command, queue, argument)  # known from now on
        before = shared_lanes()
        requests = [request(command, queue, argument)] * count
        requests[bad] = requests[bad][:-2] + b"XX"
        for _ in range(5):
            with Connection(daemon.port) as sender:
                sender.send_raw(b"".join(requests))
                for _ in range(5):
                    assert isinstance(victim.call(command, queue, argument), bytes | int)
        assert shared_lanes() == before


@pytest.mark.parametrize("command", ["GET", "GETRANGE"], ids=["relay lane", "private lane"])
def test_a_pipeline_is_taken_whole_though_its_client_reads_only_then(pair, command):
    value, count = b"v" * 5000, 4000
    read = ("GET", "late") if command == "GET" else ("GETRANGE", "late", "0", "-1")
    with Connection(pair[1].port, timeout_s=20) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        client.send_raw((request("SET", "late", value) + request(*read)) * count)
        assert all(client.read() == b"OK" and client.read() == value for _ in range(count))


@LINUX_ONLY
@pytest.mark.parametrize("command", ["GET", "GETRANGE"], ids=["relay lane", "private lane"])
def test_of_those_that_never_read_so_much_is_kept_at_most(pair, command):
    read = ("GET", "late") if command == "GET" else ("GETRANGE", "late", "0", "-1")
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Valqd(pair[0].url))
        other = stack.enter_context(Connection(daemon.port))
        other.call("SET", "late", "v" * 20_000)
        for _ in range(6):
            deaf = stack.enter_context(Connection(daemon.port, timeout_s=1))
            deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            with contextlib.suppress(TimeoutError):
                deaf.send_raw(request(*read) * 5_000)  # 100 MB of replies
            noticed(other)
        until(lambda: peak_mib(daemon.pid) > 100, 60, "much is kept")
        time.sleep(1)  # more would be, if it was
        assert peak_mib(daemon.pid) < 300
