"""A backend behind a forwarder: what answers at its address need not be Valkey."""

import contextlib
import os
import signal
import socket
import time

import pytest

from tests.crash.forwarder import Forwarder
from tests.servers import LINUX_ONLY, Connection, Valkey, Valqd, children, listening_sockets, request, until
from tests.wire.expect import blocked, bodies, info, noticed, refused, stopped


def test_a_backend_whose_address_accepts_and_closes_is_gone():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(daemon.port, timeout_s=5) as clean,
        Connection(daemon.port, timeout_s=5) as private,
    ):
        assert clean.call("VALQ.PUSH", "q", "before") == b"1"
        assert private.call("CLIENT", "ID") > 0
        forwarder.lose_target()
        until(lambda: "NOBACKEND" in str(clean.call("GET", "x")), 5, "it is seen")
        for connection in (clean, private):
            for command in (("VALQ.PUSH", "q", "lost"), ("SET", "k", "lost"), ("CLIENT", "ID")):
                for _ in range(3):
                    refused(connection.call(*command), "NOBACKEND")
        forwarder.target_is_gone = False
        until(lambda: clean.call("VALQ.PUSH", "q", "after") == b"2", 5, "it is back")
        assert clean.call("GET", "k") is None
        assert info(clean, "q")["pushed_total"] == 2


@pytest.mark.parametrize("command", ["ACK", "NACK", "DEL"])
def test_a_command_in_steps_that_loses_the_backend_may_have_been_applied(command):
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(daemon.port, timeout_s=5) as client,
    ):
        ids = client.call("VALQ.MPUSH", "q", "1500", *["x"] * 1500)
        assert len(client.call("VALQ.POP", "q", "COUNT", "1500")) == 1500
        forwarder.held_back = ids[-1]  # the second step
        client.send(f"VALQ.{command}", "q", *ids)
        until(lambda: forwarder.holds, 5, "it is under way")
        forwarder.lose_target()
        forwarder.held_back = None
        refused(client.read(), "NOBACKEND", "may have been applied")


def test_what_was_done_before_a_step_was_refused_is_told():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(daemon.port, timeout_s=5) as client,
        Connection(valkey.port) as direct,
    ):
        ids = client.call("VALQ.MPUSH", "q", "1500", *["x"] * 1500)
        forwarder.held_back = ids[-1]
        client.send("VALQ.DEL", "q", *ids)
        until(lambda: forwarder.holds, 5, "the second step is under way")
        direct.call("DEL", "valq:{q}:queue")
        forwarder.held_back = None
        assert client.read() == 1000


@LINUX_ONLY  # elsewhere the kernel also shares connections out in another way
def test_a_worker_that_waits_for_the_backend_takes_no_connections():
    with Valkey() as valkey, Forwarder(valkey.port) as forwarder, Valqd(forwarder.url, workers=2) as daemon:
        for _ in range(2):  # the older of the two: first one, then the other
            forwarder.holds, forwarder.held_back = 0, b"PERSISTENCE"
            os.kill(min(children(daemon.pid)), signal.SIGKILL)
            until(lambda: forwarder.holds, 10, "it is started again")
            for _ in range(20):
                with Connection(daemon.port, timeout_s=3) as connection:
                    assert isinstance(connection.call("VALQ.HELP", "pop"), list)
            forwarder.held_back = None
            until(lambda: listening_sockets(daemon.port) == 2, 5, "both take connections")


@pytest.mark.parametrize("word", [b"HELLO", b"PERSISTENCE", b"LIBRARYNAME", b"PROTO-MAX-BULK-LEN"])
def test_a_signal_while_the_backend_lets_the_start_wait_is_a_stop(word):
    with Valkey() as valkey, Forwarder(valkey.port) as forwarder:
        forwarder.held_back = word
        with Valqd(forwarder.url, wait=False) as daemon:
            until(lambda: forwarder.holds, 10, "it waits")
            daemon.signal(signal.SIGTERM)
            assert daemon.process.wait(15) == 0


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def test_a_login_that_is_under_way_at_a_stop_is_answered():
    with Valkey() as valkey, Forwarder(valkey.port) as forwarder, Valqd(forwarder.url) as daemon:
        with Connection(valkey.port) as direct:
            direct.call("ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all")
        with Connection(daemon.port, timeout_s=5) as client:
            assert client.call("PING") == b"PONG"
            forwarder.held_back = b"AUTH"
            client.send("AUTH", "u", "pw")
            until(lambda: forwarder.holds, 5, "it is under way")
            daemon.signal(signal.SIGTERM)
            until(lambda: not listens(daemon.port), 5, "it stops")
            forwarder.held_back = None
            assert client.read() == b"OK"
            assert daemon.process.wait(10) == 0


@pytest.mark.parametrize(
    ("command", "answered"),
    [
        (("VALQ.POP", "q"), lambda answer: answer[b"body"] == b"first"),
        (("VALQ.NOPE",), lambda answer: str(answer).startswith("ERR unknown command")),
        (("VALQ.HELP", "pop"), lambda answer: isinstance(answer, list)),
    ],
    ids=["pop", "nope", "help"],
)
def test_no_answer_overtakes_another_while_a_push_is_half_there(command, answered):
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, 3, timeout_s=5) as client,
        Connection(daemon.port) as beside,
    ):
        client.call("SUBSCRIBE", "ch")
        assert client.call("VALQ.PUSH", "q", "first") == b"1"
        forwarder.held_back, forwarder.cuts = b"PUSH_MANY", True
        client.send("VALQ.PUSH", "q", "second")
        until(lambda: forwarder.holds == 1, 5, "it is under way")
        assert direct.call("PUBLISH", "ch", "x" * 60_000) == 1
        until(lambda: forwarder.holds == 2, 5, "half a push has come")
        time.sleep(0.05)
        client.send(*command)
        noticed(beside)
        forwarder.cuts = False
        assert client.read() == [b"message", b"ch", b"x" * 60_000]
        time.sleep(0.1)
        forwarder.held_back = None
        assert client.read() == b"2"
        assert answered(client.read())


def test_whole_pushes_are_not_held_back_with_one_that_is_half_there():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, 3, timeout_s=5) as client,
    ):
        client.call("SUBSCRIBE", "ch")
        assert client.call("VALQ.PUSH", "q", "first") == b"1"
        forwarder.held_back, forwarder.cuts = b"PUSH_MANY", True
        client.send("VALQ.PUSH", "q", "second")
        until(lambda: forwarder.holds == 1, 5, "it is under way")
        direct.send_raw(request("PUBLISH", "ch", "whole") * 3 + request("PUBLISH", "ch", "x" * 60_000))
        for _ in range(3):
            assert client.read() == [b"message", b"ch", b"whole"]
        forwarder.cuts = False
        assert client.read() == [b"message", b"ch", b"x" * 60_000]
        forwarder.held_back = None
        assert client.read() == b"2"


def test_a_user_whose_lane_is_refused_takes_no_wake_with_it():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as pushing,
        Connection(daemon.port, timeout_s=5) as other,
        contextlib.ExitStack() as stack,
    ):
        direct.call("ACL", "SETUSER", "u", "on", ">pw", "allkeys", "+@all")
        leaving = [stack.enter_context(Connection(daemon.port, timeout_s=5)) for _ in range(6)]
        for client in leaving:
            assert client.call("AUTH", "u", "pw") == b"OK"
            client.send("VALQ.POP", "q", "BLOCK", "0")
        blocked(pushing, "q", 6)
        forwarder.held_back = b"AUTH"
        direct.call("ACL", "DELUSER", "u")
        until(lambda: forwarder.holds, 5, "its lane is opened again")
        assert pushing.call("VALQ.PUSH", "q", "woken for") == b"1"
        noticed(pushing)
        time.sleep(0.1)
        forwarder.held_back = None
        for client in leaving:
            client.read_until_closed()
        assert bodies([other.call("VALQ.POP", "q", "BLOCK", "0")]) == [b"woken for"]
        other.send("VALQ.POP", "q", "BLOCK", "0")
        blocked(pushing, "q", 1)
        assert pushing.call("VALQ.PUSH", "q", "for the other") == b"2"
        assert bodies([other.read()]) == [b"for the other"]


def test_daemons_far_from_their_backend_sweep_too():
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        forwarder = stack.enter_context(Forwarder(valkey.port))
        daemons = [stack.enter_context(Valqd(forwarder.url)) for _ in range(3)]
        direct = stack.enter_context(Connection(valkey.port))
        with Connection(daemons[0].port) as client:
            client.call("VALQ.CREATE", "far", "VT", "1", "MAXATTEMPTS", "1")
            client.call("VALQ.PUSH", "far", "x")
            forwarder.delay_s = 0.2
            client.call("VALQ.POP", "far")
        until(lambda: direct.call("ZCARD", "valq:{far}:dlq") == 1, 40, "the lease has ended")


def test_no_command_of_the_private_lane_overtakes_one_of_the_shared_lane():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(daemon.port, timeout_s=5) as client,
        Connection(daemon.port) as beside,
    ):
        for _ in range(2):  # known as plain from now on
            assert client.call("LRANGE", "none", "0", "-1") == []
        forwarder.held_back = b"PUSH_MANY"
        client.send("VALQ.PUSH", "q", "x")
        until(lambda: forwarder.holds, 5, "it is under way")
        client.send("LRANGE", "none", "0", "-1")
        noticed(beside)
        time.sleep(0.05)
        forwarder.held_back = None
        assert [client.read(), client.read()] == [b"1", []]


def test_an_answer_that_comes_when_its_client_was_hung_up_on_costs_nobody_elses():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, timeout_s=5) as client,
        Connection(daemon.port, timeout_s=5) as other,
    ):
        own_lane = client.call("CLIENT", "ID")
        forwarder.held_back = b"PUSH_MANY"
        for connection in (client, other):
            connection.send("VALQ.PUSH", "q", "x")
        until(lambda: forwarder.holds, 5, "both are under way")
        assert direct.call("CLIENT", "KILL", "ID", str(own_lane)) == 1
        assert client.read_until_closed() == b""
        forwarder.held_back = None
        assert other.read().isdigit()


def test_what_comes_while_the_functions_cannot_be_loaded_is_told_so_too():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, timeout_s=5) as first,
        Connection(daemon.port, timeout_s=5) as second,
    ):
        assert first.call("VALQ.PUSH", "q", "x") == b"1"
        direct.call("ACL", "SETUSER", "default", "-function|load")
        forwarder.held_back = b"LIBRARYNAME"
        direct.call("FUNCTION", "FLUSH")
        first.send("VALQ.PUSH", "q", "x")
        until(lambda: forwarder.holds, 5, "they are looked for")
        second.send("VALQ.PUSH", "q", "x")
        with Connection(daemon.port) as beside:
            noticed(beside)
        forwarder.held_back = None
        for client in (first, second):
            refused(client.read(), "ERR the queue functions cannot be loaded")


def test_a_sweep_that_is_lost_with_its_connection_is_made_good():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as client,
    ):
        client.call("VALQ.CREATE", "q", "VT", "1", "MAXATTEMPTS", "1")
        client.call("VALQ.PUSH", "q", "x")
        client.call("VALQ.POP", "q")
        forwarder.held_back = b"VALQ1_SWEEP"
        until(lambda: forwarder.holds, 5, "the lease has ended")
        forwarder.lose_target()
        forwarder.held_back, forwarder.target_is_gone = None, False
        until(lambda: direct.call("ZCARD", "valq:{q}:dlq") == 1, 5, "it is swept")


def test_what_comes_while_the_functions_are_loaded_again_is_run_behind_what_waits_for_them():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Valqd(valkey.url) as other_daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, timeout_s=5) as client,
        Connection(daemon.port) as beside,
        Connection(other_daemon.port) as other,
    ):
        assert client.call("VALQ.PUSH", "q", "x") == b"1"
        forwarder.held_back = b"LIBRARYNAME"
        direct.call("FUNCTION", "FLUSH")
        client.send("VALQ.PUSH", "q", "y")
        until(lambda: forwarder.holds, 5, "they are looked for")
        assert other.call("VALQ.CREATE", "r", "NX") == b"OK"  # they are there
        client.send("VALQ.PUSH", "q", "z")
        noticed(beside)
        time.sleep(0.05)
        forwarder.held_back = None
        assert [client.read(), client.read()] == [b"2", b"3"]
        assert bodies(client.call("VALQ.POP", "q", "COUNT", "3")) == [b"x", b"y", b"z"]


def test_a_backend_whose_address_accepts_and_is_silent_is_tried_again():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(daemon.port, timeout_s=12) as client,
    ):
        assert client.call("VALQ.PUSH", "q", "before") == b"1"
        forwarder.is_silent = True
        forwarder.close_all()
        until(lambda: forwarder.left_alone >= 2, 5, "the lane and the daemon's own are tried again")
        client.send("VALQ.PUSH", "q", "unsent")
        time.sleep(0.2)  # it has come to a lane that is not answered
        forwarder.is_silent = False
        refused(client.read(), "NOBACKEND", "was not sent")
        until(lambda: client.call("VALQ.PUSH", "q", "after") == b"2", 5, "it is back")


@pytest.mark.parametrize(
    "write", [("VALQ.PUSH", "q", "x"), ("SET", "k", "x"), ("RPUSH", "k", "x")], ids=["push", "relayed", "own lane"]
)
def test_wait_does_not_tell_of_another_backend_what_was_written_to_the_one_before(write):
    with (
        Valkey() as old,
        Valkey() as new,
        Forwarder(old.port) as forwarder,
        Valqd(forwarder.url) as daemon,
        Connection(daemon.port, timeout_s=5) as client,
    ):
        assert not isinstance(client.call(*write), Exception)
        with stopped(daemon):  # so that it hears of all its connections at once
            forwarder.switch_to(new.port)
        until(lambda: "connected again" in daemon.output(), 15, "control is back")
        refused(client.call("WAIT", "0", "0"), "NOBACKEND", "may be lost")
        until(lambda: not isinstance(client.call(*write), Exception), 5, "the lane is back")
        assert client.call("WAIT", "0", "0") == 0
        with Connection(daemon.port) as late:
            late.call(*write)
            assert late.call("WAIT", "0", "0") == 0
