"""Pub/Sub, MONITOR and pushes: where replies do not match requests."""

import re
import signal
import time

import pytest

from tests.servers import Connection, Valkey, Valqd, as_map, request, until
from tests.wire.expect import SPEAKS_S, blocked, noticed, refused
from tests.wire.lanes.parts import in_two_parts


@pytest.mark.parametrize("resp", [2, 3])
def test_a_transaction_after_pubsub_is_one(pair, resp, queue):
    with Connection(pair[1].port, resp, timeout_s=5) as client:
        client.call("SUBSCRIBE", "a")
        if resp == 2:
            client.call("UNSUBSCRIBE", "a")
        assert client.call("MULTI") == b"OK"
        assert client.call("VALQ.PUSH", queue, "x") == b"QUEUED"
        assert client.call("SELECT", "1") == b"QUEUED"
        assert client.call("EXEC") == [b"1", b"OK"]
        assert client.call("VALQ.PUSH", queue, "x") == b"1"  # in the other database


def test_a_subscription_in_a_transaction_counts_from_its_end(client, queue):
    client.send_raw(request("MULTI") + request("SUBSCRIBE", "a", "b") + request("EXEC"))
    assert [client.read(), client.read()] == [b"OK", b"QUEUED"]
    assert client.read() == [[b"subscribe", b"a", 1]]
    assert client.read() == [b"subscribe", b"b", 2]
    refused(client.call("VALQ.PUSH", queue, "x"), "ERR", "only")
    refused(client.call("SELECT", "1"), "ERR", "only")


def test_who_was_refused_a_subscription_goes_on_as_before(client, direct, queue):
    refused(client.call("SUBSCRIBE"), "ERR", "arguments")
    assert client.call("SELECT", "1") == b"OK"
    assert client.call("VALQ.PUSH", queue, "x") == b"1"
    direct.call("SELECT", "1")
    assert direct.call("EXISTS", f"valq:{{{queue}}}:queue") == 1


@pytest.mark.parametrize("resp", [2, 3])
def test_who_may_not_ping_is_not_kept_waiting_after_pubsub(pair, direct, resp, queue):
    direct.call("ACL", "SETUSER", "mute", "on", ">pw", "~*", "&*", "+@all", "-ping")
    with Connection(pair[1].port, timeout_s=5) as client:
        client.call("HELLO", str(resp), "AUTH", "mute", "pw")
        client.call("SUBSCRIBE", "a")
        if resp == 2:
            client.call("UNSUBSCRIBE", "a")
        assert client.call("VALQ.PUSH", queue, "x") == b"1"
        assert client.call("SET", queue, "x") == b"OK"


def test_a_resp3_subscriber_who_may_not_ping_blocks_and_gets_its_own_refusals(pair, direct, beside, queue):
    direct.call("ACL", "SETUSER", "mute", "on", ">pw", "~*", "&*", "+@all", "-ping")
    with Connection(pair[1].port, timeout_s=5) as client:
        client.call("HELLO", "3", "AUTH", "mute", "pw")
        client.call("SUBSCRIBE", "a")
        client.send_raw(request("PING") + request("VALQ.POP", queue, "BLOCK", "0"))
        refused(client.read(), "NOPERM", "'ping'")
        blocked(beside, queue)
        beside.call("VALQ.PUSH", queue, "x")
        assert client.read()[b"body"] == b"x"


@pytest.mark.parametrize("before", [("SUBSCRIBE", "a"), ("CLIENT", "REPLY", "OFF")], ids=" ".join)
def test_reset_where_a_password_is_needed_is_answered(before):
    with Valkey("--requirepass", "pw") as valkey, Valqd(f"valkey://:pw@127.0.0.1:{valkey.port}") as daemon:
        for server in (valkey, daemon):
            with Connection(server.port, timeout_s=5) as client:
                assert client.call("AUTH", "pw") == b"OK"
                client.send(*before)
                if before[0] == "SUBSCRIBE":
                    client.read()
                assert client.call("RESET") == b"RESET"
                refused(client.call("PING"), "NOAUTH")
                assert client.call("AUTH", "pw") == b"OK"
                assert client.call("PING") == b"PONG"


def test_commands_are_told_of_while_subscribed(pair):
    with Connection(pair[1].port, 3, timeout_s=5) as client:
        client.call("SUBSCRIBE", "a")
        assert client.call("COMMAND", "GETKEYS", "VALQ.PUSH", "q", "b") == [b"q"]


def test_where_no_reply_can_be_found_keys_are_not_those_of_another_command(pair):
    asks = ("COMMAND", "GETKEYS", "VALQ.PUSH", "q", "b")
    with Connection(pair[1].port, 3, timeout_s=5) as client:
        client.call("MULTI")
        client.call("SUBSCRIBE", "a")
        client.call(*asks)
        refused(client.call("EXEC")[1], "ERR Invalid command")
    with Connection(pair[1].port, timeout_s=5) as monitor:
        assert monitor.call("MONITOR") == b"OK"
        monitor.send(*asks)
        while not isinstance(reply := monitor.read(), Exception):
            assert isinstance(reply, bytes), "what other commands did"
        refused(reply, "ERR")


def test_who_subscribes_in_a_transaction_while_it_monitors_goes_on_to_monitor(pair, direct):
    with Connection(pair[1].port, 3, timeout_s=5) as monitor:
        assert monitor.call("MONITOR") == b"OK"
        monitor.send_raw(request("MULTI") + request("SUBSCRIBE", "ch") + request("EXEC"))
        time.sleep(SPEAKS_S)
        direct.call("SET", "seen", "1")
        seen = []
        while not seen or b'"SET" "seen"' not in seen[-1]:
            seen.append(monitor.socket.recv(65536))
        assert b"fCALL" not in b"".join(seen)


@pytest.mark.parametrize("again", ["MONITOR", "SYNC"])
def test_what_the_daemon_asks_for_itself_is_in_no_monitor(pair, direct, again):
    with Connection(pair[1].port, timeout_s=5) as monitor:
        assert monitor.call("MONITOR") == b"OK"
        time.sleep(SPEAKS_S)
        with Connection(pair[1].port) as client:
            assert client.call("LRANGE", "asked", "0", "-1") == []
        assert b'"LRANGE" "asked"' in monitor.read()
        monitor.send(again)  # has no answer
        refused(monitor.call("GET", "x"), "ERR Replica can't interact")
        time.sleep(SPEAKS_S)
        with Connection(pair[1].port) as client:
            assert client.call("LRANGE", "asked", "0", "-1") == []
        assert b'"LRANGE" "asked"' in monitor.read()


def test_a_monitor_shows_of_a_push_in_a_transaction_what_its_client_sent(pair, beside, queue):
    with Connection(pair[1].port, timeout_s=5) as monitor:
        assert monitor.call("MONITOR") == b"OK"
        for words in ("MULTI", f"VALQ.PUSH {queue} x", "EXEC"):
            beside.call(*words.split())
        seen = [monitor.read()]
        while b'"EXEC"' not in seen[-1]:
            seen.append(monitor.read())
        sent = [line.partition(b"] ")[2] for line in seen if b" lua] " not in line]
        assert sent[0] == b'"MULTI"'
        assert sent[1].startswith(b'"FCALL" "valq1_push')
        assert sent[2:] == [b'"EXEC"']


@pytest.mark.parametrize("resp", [2, 3])
@pytest.mark.parametrize("names", [("x" * 40_000,), ("abc",) * 5000], ids=["one", "many"])
def test_a_large_unsubscribe_that_is_cut_is_answered(pair, beside, resp, names):
    with Connection(pair[1].port, resp, timeout_s=5) as client:
        client.call("LRANGE", "none", "0", "-1")
        in_two_parts(client, beside, b"", ("UNSUBSCRIBE", *names))
        first = client.read()
        if isinstance(first, Exception):  # by Valkey 8.0
            refused(first, "NOSUB")
        else:
            assert [first[1], *(client.read()[1] for _ in names[1:])] == [name.encode() for name in names]
        assert client.call("SELECT", "1") == b"OK"
        assert client.call("SUBSCRIBE", "c")[1] == b"c"
        client.call("UNSUBSCRIBE", "c")
        assert client.call("WAIT", "0", "1") == 0
        assert client.call("GET", "none") is None
        assert client.call("RESET") == b"RESET"
        assert client.call("PING") == b"PONG"


@pytest.mark.parametrize("resp", [2, 3])
@pytest.mark.parametrize("command", ["SUBSCRIBE", "UNSUBSCRIBE"])
def test_a_monitor_that_subscribes_goes_on(pair, beside, resp, command):
    with Connection(pair[1].port, resp, timeout_s=5) as monitor:
        assert monitor.call("MONITOR") == b"OK"
        monitor.call(command, "ch")
        time.sleep(SPEAKS_S)
        assert beside.call("LRANGE", "watched", "0", "-1") == []
        beside.call("LRANGE", "the-end", "0", "-1")
        lines = b""
        while b"the-end" not in lines:
            lines += monitor.socket.recv(65536)
    assert b'"LRANGE" "watched"' in lines
    assert not re.search(rb"valq1_due|valqd-mark|replication", lines)


@pytest.mark.parametrize("resp", [2, 3])
def test_after_a_refused_monitor_a_pop_waits_as_ever(pair, direct, queue, resp):
    direct.call("ACL", "SETUSER", "nomon", "reset", "on", ">pw", "~*", "&*", "+@all", "-monitor")
    with Connection(pair[1].port, resp, timeout_s=5) as client:
        client.call("AUTH", "nomon", "pw")
        assert "NOPERM" in str(client.call("MONITOR"))
        began = time.monotonic()
        assert client.call("VALQ.POP", queue, "BLOCK", "300") is None
        assert time.monotonic() - began >= 0.29


@pytest.mark.parametrize("wait_ms", ["2000", "0"])
def test_no_answer_gets_into_a_push(pair, direct, beside, queue, wait_ms):
    """The client waits for a message, and does not read the push that comes meanwhile."""
    large = b"x" * (16 << 20)
    with Connection(pair[1].port, 3, timeout_s=10) as client:
        client.call("SUBSCRIBE", "ch")
        client.call("VALQ.CREATE", queue)
        client.send("VALQ.POP", queue, "BLOCK", wait_ms)
        blocked(beside, queue)
        direct.call("PUBLISH", "ch", large)
        if wait_ms == "0":
            beside.call("VALQ.PUSH", queue, "hello")
        until(lambda: as_map(beside.call("VALQ.INFO", queue))[b"blocked_clients"] == 0, 5, "answered")
        got = [client.read(), client.read()]
        answers = [each for each in got if not isinstance(each, list)]
        assert [[b"message", b"ch", large]] == [list(each) for each in got if isinstance(each, list)]
        assert len(answers) == 1
        assert answers[0] is None if wait_ms != "0" else as_map(answers[0])[b"body"] == b"hello"


@pytest.mark.parametrize("own", [("VALQ.PUSH", "q"), ("VALQ.HELP", "pop")], ids=["an error", "help"])
def test_what_the_daemon_answers_itself_waits_for_the_rest_of_a_push_and_what_came_before(pair, direct, beside, own):
    large = b"x" * 500_000  # more than is read at once
    with Connection(pair[1].port, 3, timeout_s=10) as client:
        client.call("SUBSCRIBE", "ch")
        for _ in range(10):
            pair[0].signal(signal.SIGSTOP)
            client.send("ECHO", "first")
            noticed(beside)
            direct.send("PUBLISH", "ch", large)
            client.send(*own)
            noticed(beside)
            pair[0].signal(signal.SIGCONT)
            replies = [reply for reply in (client.read() for _ in range(3)) if reply != [b"message", b"ch", large]]
            assert replies[0] == b"first"
            assert len(replies) == 2
            assert direct.read() == 1


def test_a_blocking_pop_waits_though_a_push_is_half_there(pair, direct, beside, queue):
    large = b"x" * (16 << 20)
    with Connection(pair[1].port, 3, timeout_s=10) as client:
        client.call("SUBSCRIBE", "ch")
        beside.call("VALQ.CREATE", queue)
        for number in range(5):
            direct.send("PUBLISH", "ch", large)
            client.socket.recv(1)
            client.send("VALQ.POP", queue, "BLOCK", "0")
            assert direct.read() == 1
            client.read_raw(len(b"3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$16777216\r\n") + len(large) + 2)
            blocked(beside, queue)
            beside.call("VALQ.PUSH", queue, number)
            assert client.read()[b"body"] == b"%d" % number


@pytest.mark.parametrize(("resp", "after"), [(2, ("UNSUBSCRIBE", "ch")), (2, ("PING",)), (3, ("PING",))])
def test_who_has_used_pubsub_goes_on_after_valkey_was_busy(pair, direct, beside, resp, after, queue):
    with Connection(pair[1].port, resp, timeout_s=5) as client, Connection(pair[0].port) as running:
        client.call("SUBSCRIBE", "ch")
        client.call(*after)
        direct.call("CONFIG", "SET", "lua-time-limit", "50")
        try:
            running.send("EVAL", "while true do end", "0")
            until(lambda: "BUSY" in str(direct.call("GET", "k")), 5, "it is busy")
            client.call("VALQ.PUSH", queue, "x")
        finally:
            direct.call("SCRIPT", "KILL")
            direct.call("CONFIG", "SET", "lua-time-limit", "5000")
        running.read()
        client.call("UNSUBSCRIBE", "ch")
        assert isinstance(client.call("VALQ.PUSH", queue, "y"), bytes)
        assert client.call("SELECT", "0") == b"OK"
        assert as_map(client.call("VALQ.POP", queue))[b"body"] in (b"x", b"y")


@pytest.mark.parametrize("before", [[], ["VALQ.HELP nope"]])
def test_a_hello_that_a_subscriber_is_refused_is_not_taken_for_the_daemons(pair, direct, queue, before):
    commands = ["SUBSCRIBE c", *before, "HELLO 3", "UNSUBSCRIBE c", f"VALQ.PUSH {queue} x"]
    with Connection(pair[1].port, timeout_s=5) as client:
        client.send_raw(b"".join(request(*command.split()) for command in commands))
        replies = [client.read() for _ in commands]
        refused(replies[-3], "ERR Can't execute 'hello'")
        assert [replies[-2][0], replies[-1]] == [b"unsubscribe", b"1"]
        assert client.call("SELECT", "1") == b"OK"
        client.call("SUBSCRIBE", "c")
        client.call("UNSUBSCRIBE", "c")
        assert client.call("VALQ.PUSH", queue, "in 1") == b"1"
        assert client.call("VALQ.POP", queue)[3] == b"in 1"


def test_who_was_refused_to_replicate_twice_waits_for_messages_as_ever(pair, direct, queue):
    direct.call("ACL", "SETUSER", "nosync", "on", ">pw", "~*", "&*", "+@all", "-sync")
    with Connection(pair[1].port, timeout_s=5) as client:
        assert client.call("AUTH", "nosync", "pw") == b"OK"
        client.send_raw(request("SYNC") * 2)
        for _ in range(2):
            refused(client.read(), "NOPERM")
        since = time.monotonic()
        assert client.call("VALQ.POP", queue, "BLOCK", "300") is None
        assert time.monotonic() - since > 0.25
