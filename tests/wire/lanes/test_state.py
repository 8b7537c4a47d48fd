"""Between its two lanes no client loses a command, an answer, its place or its state."""

import contextlib
import signal
import socket
import struct
import time

import pytest

from tests.servers import Connection, Valkey, Valqd, request, until
from tests.wire.expect import blocked, noticed, refused
from tests.wire.lanes.parts import in_two_parts


@pytest.mark.parametrize("command", ["SET", "PUBLISH"])
def test_nothing_of_the_daemons_own_gets_into_a_silent_large_command(client, beside, direct, command):
    body = b"x" * 150_000
    in_two_parts(client, beside, request("CLIENT", "REPLY", "SKIP"), (command, "silent", body))
    assert client.call("PING") == b"PONG"
    if command == "SET":
        assert direct.call("GET", "silent") == body
    assert client.call("VALQ.PUSH", "silent", "x").isdigit()


@pytest.mark.parametrize("silent", [("OFF",), ("SKIP",)], ids=" ".join)
def test_a_select_that_nothing_tells_of_is_followed(client, direct, queue, silent):
    client.send_raw(request("SELECT", "2") + request("CLIENT", "REPLY", *silent) + request("SELECT", "1"))
    assert client.read() == b"OK"
    if silent == ("OFF",):
        assert client.call("CLIENT", "REPLY", "ON") == b"OK"
    assert client.call("VALQ.PUSH", queue, "x") == b"1"
    assert client.call("SET", queue, "x") == b"OK"
    direct.call("SELECT", "1")
    assert direct.call("EXISTS", f"valq:{{{queue}}}:queue", queue) == 2


def test_what_follows_a_skipped_command_is_run_after_it(client, queue):
    since = time.monotonic()
    client.send_raw(
        request("CLIENT", "REPLY", "SKIP") + request("BLPOP", "none", "0.3") + request("VALQ.PUSH", queue, "x")
    )
    assert client.read() == b"1"
    assert time.monotonic() - since > 0.25


def test_a_select_in_a_transaction_that_nothing_tells_of_is_followed(client, direct, queue):
    for words in (("CLIENT", "REPLY", "OFF"), ("MULTI",), ("SELECT", "1"), ("EXEC",)):
        client.send(*words)
    assert client.call("CLIENT", "REPLY", "ON") == b"OK"
    assert client.call("VALQ.PUSH", queue, "x") == b"1"
    direct.call("SELECT", "1")
    assert direct.call("EXISTS", f"valq:{{{queue}}}:queue") == 1


def test_a_hello_that_nothing_tells_of_is_followed(client, queue):
    client.send_raw(
        request("CONFIG", "GET", "hz")
        + request("CLIENT", "REPLY", "SKIP")
        + request("HELLO", "3")
        + request("VALQ.PUSH", queue, "m")
        + request("VALQ.POP", queue)
    )
    client.read()
    assert client.read() == b"1"
    assert isinstance(client.read(), dict)
    assert isinstance(client.call("COMMAND", "DOCS", "valq.push")[b"valq.push"], dict)


@pytest.mark.parametrize(
    "before", ["VALQ.PUSH {q} x", "LRANGE none 0 0 | VALQ.PUSH {q} x", "VALQ.PUSH {q} x | WAIT 0 0"]
)
def test_who_has_left_takes_nothing_by_what_it_sent_last(pair, direct, beside, queue, before):
    noticed(beside)
    known = direct.call("CLIENT", "LIST").count(b"\n")
    for number in range(5):
        with Connection(pair[1].port) as client:
            client.call("CLIENT", "ID")
            lines = [*before.format(q=queue).split(" | "), f"BLPOP {queue}{number} 0"]
            client.send_raw(b"".join(request(*line.split()) for line in lines))
        noticed(beside)
        until(lambda: direct.call("CLIENT", "LIST").count(b"\n") <= known, 10, "its lane is closed")
        direct.call("RPUSH", f"{queue}{number}", "job")
        assert direct.call("LLEN", f"{queue}{number}") == 1


@pytest.mark.parametrize(
    "commands",
    ["SET a b | WAIT 0 0", "SET a b | TYPE a | WAIT 0 0", "VALQ.PUSH {q} a | WAIT 0 0", "TYPE x | RESET"],
)
def test_what_was_sent_before_the_end_takes_effect(pair, direct, queue, commands):
    first, *others = [request(*command.format(q=queue).split()) for command in commands.split(" | ")]
    for number in range(10):
        with Connection(pair[1].port, timeout_s=5) as client:
            client.send_raw(first)
            client.read()
            client.send_raw(b"".join(others) + request("SADD", queue, number))
    until(lambda: direct.call("SCARD", queue) == 10, 5, "all took effect")


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("commands", ["TYPE a | WAIT 0 0", "VALQ.PUSH {q} x | LRANGE n 0 0", "GET a | VALQ.PUSH {q} x"])
def test_what_has_to_wait_for_answers_takes_effect_though_nobody_reads_them(pair, direct, queue, commands, resets):
    lines = [request(*command.format(q=queue).split()) for command in commands.split(" | ")]
    for number in range(30):
        with Connection(pair[1].port, timeout_s=5) as client:
            assert client.call("PING") == b"PONG"
            client.send_raw(b"".join(lines) + request("SADD", f"{queue}:set", number))
            if resets:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: direct.call("SCARD", f"{queue}:set") == 30, 5, "all took effect")


def test_help_is_the_same_in_a_transaction(client):
    client.send("VALQ.HELP", "push")
    outside = client.socket.recv(65536)
    client.send_raw(request("MULTI") + request("VALQ.HELP", "push") + request("EXEC"))
    client.socket.settimeout(2)
    inside = client.read_raw(len(b"+OK\r\n+QUEUED\r\n*1\r\n") + len(outside))
    assert inside == b"+OK\r\n+QUEUED\r\n*1\r\n" + outside


def test_a_skip_that_was_lost_with_the_backend_shifts_no_answers():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=5) as client:
        client.call("LRANGE", "none", "0", "-1")
        client.send("CLIENT", "REPLY", "SKIP")
        noticed_by = Connection(daemon.port)
        noticed(noticed_by)
        valkey.kill()
        until(lambda: "NOBACKEND" in str(noticed_by.call("VALQ.LIST")), 5, "gone")
        valkey.start()
        until(lambda: noticed_by.call("VALQ.LIST") == [], 5, "back")
        noticed_by.close()
        assert client.read_until_closed() == b""  # to answer what it silenced would shift all answers by one


def test_a_pipeline_of_hellos_without_a_backend_is_answered():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=5) as client:
        valkey.kill()
        until(lambda: "NOBACKEND" in str(client.call("VALQ.LIST")), 5, "gone")
        client.send_raw(request("HELLO", "3") * 1000)
        for _ in range(1000):
            refused(client.read(), "NOBACKEND")


def test_a_protocol_error_without_a_backend_ends_the_connection():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=5) as client:
        valkey.kill()
        until(lambda: "NOBACKEND" in str(client.call("VALQ.LIST")), 5, "gone")
        client.send_raw(b"*1\r\n!bad\r\n")
        assert client.read_until_closed() == b""


def test_a_stop_does_not_wait_for_pops_in_a_row_of_several_clients():
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        clients = [stack.enter_context(Connection(daemon.port, timeout_s=5)) for _ in range(3)]
        for client in clients[:2]:
            client.send_raw(request("VALQ.POP", "q", "BLOCK", "0") * 2)
        blocked(clients[2], "q", 2)
        daemon.signal(signal.SIGTERM)
        for client in clients[:2]:
            assert [client.read(), client.read()] == [None, None]
        assert daemon.process.wait(5) == 0


@pytest.mark.parametrize("first", ["SINTER none", "GET none", "GET none | SET other 1"])
@pytest.mark.parametrize("blocks", ["", " BLOCK 10"])
def test_fair_begins_with_the_next_queue_behind_other_commands_too(client, queue, first, blocks):
    both = [queue, queue + "2"]
    for name in both:
        client.call("VALQ.MPUSH", name, "6", *"abcdef")
    served = []
    for _ in range(6):
        lines = [*first.split(" | "), f"VALQ.MPOP 2 {' '.join(both)} FAIR{blocks}"]
        client.send_raw(b"".join(request(*line.split()) for line in lines))
        for _ in lines[1:]:
            client.read()
        served.append(client.read()[1].decode())
    assert served in (both * 3, both[::-1] * 3)


@pytest.mark.parametrize("hello", ["2", "3"])
def test_what_follows_a_hello_in_a_transaction_is_of_its_protocol_version(pair, queue, hello):
    with Connection(pair[1].port, resp=5 - int(hello), timeout_s=5) as client:
        client.call("SUBSCRIBE", "c")
        client.call("UNSUBSCRIBE", "c")
        client.call("VALQ.PUSH", queue, "x")
        commands = [("MULTI",), ("HELLO", hello), ("EXEC",), ("VALQ.POP", queue), ("WAIT", "0", "0"), ("ECHO", "end")]
        client.send_raw(b"".join(request(*command) for command in commands))
        replies = [client.read() for _ in commands]
        assert isinstance(replies[3], dict if hello == "3" else list)
        assert replies[4:] == [0, b"end"]


@pytest.mark.parametrize(
    "commands",
    [
        "CLIENT REPLY OFF | SUBSCRIBE a | UNSUBSCRIBE a | HELLO 3 | CLIENT REPLY ON",
        "CLIENT REPLY OFF | MULTI | HELLO 3 | EXEC | CLIENT REPLY ON",
        "MULTI | SUBSCRIBE a | HELLO 3 | EXEC",
    ],
)
def test_a_protocol_version_that_nothing_tells_of_is_answered_in(pair, beside, queue, commands):
    beside.call("VALQ.PUSH", queue, "x")
    with Connection(pair[1].port, timeout_s=5) as client:
        client.send_raw(b"".join(request(*command.split()) for command in commands.split(" | ")))
        client.send("VALQ.SHOW", queue, "1")
        while not isinstance(reply := client.read(), dict) or b"body" not in reply:
            assert b"body" not in reply, "it is flat"
        assert reply[b"body"] == b"x"


def test_a_skipped_hello_of_a_subscriber_costs_no_answer(pair):
    with Connection(pair[1].port, resp=3, timeout_s=5) as client:
        client.call("SUBSCRIBE", "a")
        client.send_raw(request("CLIENT", "REPLY", "SKIP") + request("HELLO", "2"))
        assert [client.call("PING"), client.call("PING")] == [[b"pong", b""]] * 2


def test_who_has_left_behind_other_commands_gets_no_message_but_one_that_cannot_be_given_back(pair, beside, queue):
    for options in ((), ("NOACK",)):
        beside.call("VALQ.PUSH", queue, "a message")
        with Connection(pair[1].port, timeout_s=5) as client:
            client.send_raw(request("DEBUG", "SLEEP", "0.2") + request("VALQ.POP", queue, *options))
            client.socket.shutdown(socket.SHUT_WR)
            got = b"a message" in client.read_until_closed()
        if got:
            assert options  # it had been asked for before it was known that the client has left
            assert beside.call("VALQ.POP", queue, "NOACK") is None
        else:
            until(lambda: beside.call("VALQ.POP", queue, "NOACK"), 5, "it is in the queue")


@pytest.mark.parametrize("end", ["EXEC", "DISCARD"])
def test_a_silent_transaction_that_only_pops_leaves_the_client_as_it_was(client, queue, end):
    commands = ["CLIENT REPLY OFF", "MULTI", f"VALQ.POP {queue}", end, "CLIENT REPLY ON"]
    client.send_raw(b"".join(request(*command.split()) for command in commands))
    assert client.read() == b"OK"
    since = time.monotonic()
    assert client.call("VALQ.POP", queue, "BLOCK", "300") is None
    assert time.monotonic() - since > 0.25


def test_a_push_that_is_known_does_not_overtake_what_is_due_on_the_private_lane(client, beside, queue):
    for number in range(1, 4):
        assert client.call("VALQ.PUSH", queue, "x") == b"%d" % number
    client.send("BLPOP", "none", "0.2")
    noticed(beside)
    client.send("VALQ.PUSH", queue, "x")
    assert [client.read(), client.read()] == [None, b"4"]
