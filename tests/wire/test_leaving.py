"""Clients that leave: what they sent takes effect as in Valkey, and nothing is taken for nobody."""

import contextlib
import select
import signal
import socket
import struct
import time

import pytest

from tests.servers import LINUX_ONLY, Connection, Valkey, Valqd, request, until
from tests.wire.expect import blocked, info, noticed, parked, stopped, until_pop


@pytest.fixture(scope="module")
def pair():
    """A Valkey of this module's own, and a daemon."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        yield valkey, daemon


@pytest.mark.parametrize("known", [True, False], ids=["after a reply", "at once"])
def test_a_half_closed_client_gets_its_replies_and_then_the_end(pair, queue, known):
    port = pair[1].port
    for number in range(1, 101 if known else 4):
        if not known:
            time.sleep(0.15)  # what was found out for earlier clients is not known any more
        with Connection(port, timeout_s=5) as connection:
            if known:
                assert connection.call("PING") == b"PONG"
            connection.send_raw(request("PING") + request("VALQ.PUSH", queue, "x") + request("GET", "none"))
            connection.socket.shutdown(socket.SHUT_WR)
            pushed = b"$%d\r\n%d\r\n" % (len(str(number)), number)
            assert connection.read_until_closed() == b"+PONG\r\n" + pushed + b"$-1\r\n"


@pytest.mark.parametrize(
    ("refuse", "allow", "code"),
    [
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", b"NOREPLICAS"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", b"READONLY"),
    ],
)
def test_what_was_popped_for_a_client_that_left_is_given_back_when_valkey_takes_writes_again(
    pair, queue, refuse, allow, code
):
    valkey, daemon = pair
    with contextlib.ExitStack() as stack:
        beside, direct = (stack.enter_context(Connection(server.port)) for server in (daemon, valkey))
        stack.callback(lambda: direct.call(*allow.split()))  # others use this Valkey, too
        beside.call("VALQ.CREATE", queue, "VT", "600")
        beside.call("VALQ.PUSH", queue, "x")
        with Connection(daemon.port) as leaving:
            leaving.call("PING")
            with stopped(valkey):
                leaving.send("VALQ.POP", queue)
                noticed(beside)
                leaving.close()
                noticed(beside)
                daemon.signal(signal.SIGSTOP)  # so that it hears of the message when Valkey refuses writes
            try:
                until(lambda: direct.call("ZCARD", f"valq:{{{queue}}}:inflight") == 1, 5, "popped")
                assert direct.call(*refuse.split()) == b"OK"
            finally:
                daemon.signal(signal.SIGCONT)
        until(lambda: code in direct.call("INFO", "errorstats"), 5, "the first attempt was refused")
        assert direct.call(*allow.split()) == b"OK"
        until(lambda: info(beside, queue)["ready_msgs"] == 1, 5, "given back")
        assert until_pop(beside, queue)["attempts"] == 1


def leave_by_a_reset(client):
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("before", [(), ("LRANGE", "none", "0", "-1")], ids=["shared lane", "private lane"])
@pytest.mark.parametrize("others", [0, 33], ids=["alone", "with more than stay open"])
def test_what_was_popped_for_the_last_client_of_an_identity_is_given_back(pair, queue, before, others):
    """Nobody uses the shared lane that it is given back on; it is the first to be closed when there are many."""
    valkey, daemon = pair
    with contextlib.ExitStack() as stack:
        beside, direct = (stack.enter_context(Connection(server.port)) for server in (daemon, valkey))
        assert beside.call("SELECT", "9") == b"OK"
        beside.call("VALQ.CREATE", queue, "VT", "600")
        beside.call("VALQ.PUSH", queue, "x")
        clients = []
        for number in range(others + 1):
            direct.call("ACL", "SETUSER", f"last{number}", "on", "nopass", "+@all", "~*", "&*")
            clients.append(stack.enter_context(Connection(daemon.port)))
            assert clients[-1].call("AUTH", f"last{number}", "x") == b"OK"
            assert clients[-1].call("SELECT", "9") == b"OK"
        popping = clients[0]
        if before:
            popping.call(*before)
        with stopped(valkey):
            popping.send_raw((request(*before) if before else b"") + request("VALQ.POP", queue))
            noticed(beside)
            for client in clients:
                leave_by_a_reset(client)
            noticed(beside)
        until(lambda: info(beside, queue)["delivered_total"] == 1, 5, "delivered")
        until(lambda: info(beside, queue)["ready_msgs"] == 1, 10, "given back")
        assert until_pop(beside, queue)["attempts"] == 1


def blocked_in_valkey(direct, count):
    """Wait until so many clients are blocked in Valkey's own commands."""
    until(lambda: b"blocked_clients:%d\r\n" % count in direct.call("INFO", "clients"), 4, "blocked in Valkey")


def test_a_half_closed_client_that_waits_in_valkey_takes_nothing(pair, queue):
    valkey, daemon = pair
    with Connection(daemon.port, timeout_s=5) as half, Connection(valkey.port) as direct:
        half.send("BLPOP", queue, "0")
        blocked_in_valkey(direct, 1)
        half.socket.shutdown(socket.SHUT_WR)
        assert half.read_until_closed() == b""
        blocked_in_valkey(direct, 0)
        assert direct.call("RPUSH", queue, "x") == 1
        assert direct.call("LPOP", queue) == b"x"


@pytest.mark.parametrize("wait", [("VALQ.POP", "BLOCK", "0"), ("BLPOP", "0")], ids=["here", "in Valkey"])
def test_a_half_closed_client_that_waits_is_closed_at_once_whatever_is_behind(pair, queue, wait):
    valkey, daemon = pair
    command, *options = wait
    with (
        Connection(daemon.port, timeout_s=3) as half,
        Connection(daemon.port) as other,
        Connection(valkey.port) as direct,
    ):
        assert half.call("LRANGE", queue, "0", "-1") == []
        half.send_raw(request(command, queue, *options) + request("PING") * 3)
        if command == "BLPOP":
            blocked_in_valkey(direct, 1)
        else:
            blocked(other, queue)
        half.socket.shutdown(socket.SHUT_WR)
        assert half.read_until_closed() == b""


@pytest.mark.parametrize("command", ["VALQ.POP {q}", "VALQ.POP {q} COUNT 5", "VALQ.MPOP 2 {q} other"])
def test_a_half_closed_client_takes_no_message(queue, command):
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port) as other:
        other.call("VALQ.PUSH", queue, "x")
        with Connection(daemon.port, timeout_s=5) as half:
            half.call("PING")
            other.call("PING")
            with stopped(valkey):
                half.send(*command.format(q=queue).split())
                half.socket.shutdown(socket.SHUT_WR)
                noticed(other)  # the end comes before the message
            assert b"\r\nx\r\n" not in half.read_until_closed()
            popped = until_pop(other, queue, 3)
            assert (popped["body"], popped["attempts"]) == (b"x", 1)


def test_a_half_closed_client_that_waits_takes_no_message(pair, queue):
    port = pair[1].port
    with Connection(port) as pushing, parked(port, queue, "VALQ.POP", queue, "BLOCK", "0", "NOACK") as (half,):
        half.socket.shutdown(socket.SHUT_WR)
        half.read_until_closed()
        pushing.call("VALQ.PUSH", queue, "x")
        assert until_pop(pushing, queue)["attempts"] == 1


@LINUX_ONLY
@pytest.mark.parametrize("much", [200, 600])
def test_a_waiting_client_that_closes_with_much_unread_takes_nothing(pair, queue, much):
    port = pair[1].port
    waiting = request("VALQ.POP", queue, "BLOCK", "0", "NOACK")
    with Connection(port) as other:
        for number in range(3):
            with Connection(port) as leaving:
                leaving.send_raw(waiting + request("SET", "unread", "x" * 1000) * much)
                blocked(other, queue)
            other.call("VALQ.PUSH", queue, number)
            assert until_pop(other, queue)["body"] == b"%d" % number


def test_who_leaves_behind_a_wait_and_a_pop_takes_nothing(pair, queue):
    valkey, daemon = pair
    with Connection(valkey.port) as direct, Connection(daemon.port) as other:
        for before in ((), ("VALQ.POP", queue)):
            other.call("VALQ.PUSH", queue, "a message")
            with Connection(daemon.port) as leaving:
                assert leaving.call("LRANGE", queue, "0", "-1") == []
                pops = request("VALQ.POP", queue)
                leaving.send_raw((pops if before else b"") + request("BLPOP", queue, "0") + pops)
                blocked_in_valkey(direct, 1)
            blocked_in_valkey(direct, 0)
            assert direct.call("RPUSH", queue, "an element") == 1
            assert direct.call("LPOP", queue) == b"an element"


@LINUX_ONLY
@pytest.mark.parametrize("held_by", [("VALQ.POP", "BLOCK", "100"), ("HELLO", "3")], ids=" ".join)
@pytest.mark.parametrize("much", [200, 600])
def test_who_waits_in_valkey_and_leaves_with_much_unread_takes_nothing(pair, queue, held_by, much):
    valkey, daemon = pair
    holding = (held_by[0], queue, *held_by[1:]) if held_by[0] == "VALQ.POP" else held_by
    with Connection(valkey.port) as direct:
        with Connection(daemon.port) as leaving:
            leaving.send_raw(request("BLPOP", queue, "0") + request(*holding) + request("SET", "k", "x" * 1000) * much)
            blocked_in_valkey(direct, 1)
        blocked_in_valkey(direct, 0)
        assert direct.call("RPUSH", queue, "an element") == 1
        assert direct.call("LPOP", queue) == b"an element"


@LINUX_ONLY
def test_who_connects_sends_much_behind_a_wait_and_leaves_takes_nothing(pair, queue):
    """It is held at first, while it is asked whether clients must authenticate."""
    waiting = request("VALQ.POP", queue, "BLOCK", "0", "NOACK") + request("SET", "k", "x" * 1000) * 600
    with Connection(pair[1].port) as other:
        for number in range(3):
            time.sleep(0.15)  # what was found out for earlier clients is not known any more
            with Connection(pair[1].port) as leaving:
                leaving.send_raw(waiting)
                blocked(other, queue)
            noticed(other)
            other.call("VALQ.PUSH", queue, number)
            assert until_pop(other, queue)["body"] == b"%d" % number


@LINUX_ONLY
def test_who_was_not_read_from_before_it_waited_takes_nothing(pair, queue):
    valkey, daemon = pair
    waiting = request("BLPOP", queue, "0") + request("HELLO", "3")
    with Connection(valkey.port) as direct:
        with Connection(daemon.port) as leaving:
            held = request("VALQ.POP", queue, "BLOCK", "1000")
            leaving.send_raw(held + waiting + request("SET", "k", "x" * 1000) * 600)
            blocked_in_valkey(direct, 1)
        blocked_in_valkey(direct, 0)
        assert direct.call("RPUSH", queue, "an element") == 1
        assert direct.call("LPOP", queue) == b"an element"


@LINUX_ONLY
def test_who_waits_here_and_leaves_with_much_unread_is_no_client_any_more(queue):
    with Valkey() as valkey, Valqd(valkey.url, max_clients=2) as daemon, Connection(daemon.port) as other:
        with Connection(daemon.port) as leaving:
            leaving.send_raw(request("VALQ.POP", queue, "BLOCK", "0") + request("SET", "k", "x" * 1000) * 200)
            blocked(other, queue)
        until(lambda: answers_ping(daemon), 5, "its place is free")


@pytest.mark.parametrize("ended", ["killed", "half closed"])
def test_who_is_to_be_closed_and_does_not_read_keeps_no_place(ended):
    """What it is still owed would wait for ever."""
    with Valkey() as valkey, Valqd(valkey.url, max_clients=2) as daemon, Connection(daemon.port) as other:
        for _ in range(8):
            other.call("VALQ.PUSH", "large", "x" * (1 << 20))
        with Connection(daemon.port) as stuck:
            address = "{}:{}".format(*stuck.socket.getsockname())
            stuck.send_raw(request("VALQ.PEEK", "large", "COUNT", "8") * 3)  # over the shared lane: no other address
            if ended == "half closed":
                stuck.socket.shutdown(socket.SHUT_WR)
            assert select.select([stuck.socket], [], [], 10)[0]  # of the first 8 MiB, no more goes into the buffers
            if ended == "killed":
                assert other.call("CLIENT", "KILL", "ADDR", address) == 1
            until(lambda: answers_ping(daemon), 30, "its place is free")


def answers_ping(daemon):
    with Connection(daemon.port) as client:
        return client.call("PING") == b"PONG"


def test_a_large_delete_goes_on_to_its_end_without_its_client(pair, queue):
    _, daemon = pair
    with Connection(daemon.port) as watching:
        for _ in range(8):
            watching.call("VALQ.MPUSH", queue, 100_000, *["x"] * 100_000)
        with Connection(daemon.port) as leaving:
            leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leaving.send("VALQ.DELETE", queue)
            until(lambda: info(watching, queue)["ready_msgs"] < 800_000, 5, "begun")
        until(lambda: queue.encode() not in watching.call("VALQ.LIST"), 60, "deleted")


@pytest.mark.parametrize("before", [(), ("GET", "none")], ids=["at once", "behind another command"])
@pytest.mark.parametrize("pop", ["VALQ.POP {q} NOACK", "VALQ.MPOP 1 {q} NOACK", "VALQ.POP {q} NOACK COUNT 3"])
def test_a_noack_pop_of_who_has_hung_up_takes_nothing_or_is_answered(pair, queue, before, pop):
    _, daemon = pair
    with Connection(daemon.port) as beside:
        for number in range(1, 21):
            beside.call("VALQ.PUSH", queue, number)
            with Connection(daemon.port) as leaving:
                assert leaving.call("PING") == b"PONG"
                leaving.send_raw((request(*before) if before else b"") + request(*pop.format(q=queue).split()))
                leaving.socket.shutdown(socket.SHUT_WR)
                got = leaving.read_until_closed()
            left = beside.call("VALQ.POP", queue, "NOACK", "COUNT", "10")
            assert (b"body" in got) == (left == []), (got, left)
