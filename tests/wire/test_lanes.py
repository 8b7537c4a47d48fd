"""Between its two lanes no client loses a command, an answer, its place or its state."""

import contextlib
import re
import signal
import socket
import struct
import time

import pytest

from tests.servers import Connection, Valkey, Valqd, as_map, request, until
from tests.wire.expect import blocked, noticed, pop, refused

LARGE_NAME = "x" * 60_000


@pytest.fixture(scope="module")
def pair():
    """A Valkey of this module's own, and a daemon."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        yield valkey, daemon


@pytest.fixture
def client(pair):
    with Connection(pair[1].port, timeout_s=5) as connection:
        yield connection


@pytest.fixture
def beside(pair):
    with Connection(pair[1].port) as connection:
        yield connection


@pytest.fixture
def direct(pair):
    with Connection(pair[0].port) as connection:
        yield connection


def in_two_parts(client, beside, before, command, meanwhile=lambda: None):
    """Send ``before`` and the head of a large command, and its rest when the head was read."""
    whole = request(*command)
    client.send_raw(before + whole[: len(whole) // 2])
    noticed(beside)
    meanwhile()
    client.send_raw(whole[len(whole) // 2 :])


@pytest.mark.parametrize("command", ["SET", "PUBLISH"])
def test_nothing_of_the_daemons_own_gets_into_a_silent_large_command(client, beside, direct, command):
    body = b"x" * 150_000
    in_two_parts(client, beside, request("CLIENT", "REPLY", "SKIP"), (command, "silent", body))
    assert client.call("PING") == b"PONG"
    if command == "SET":
        assert direct.call("GET", "silent") == body
    assert client.call("VALQ.PUSH", "silent", "x").isdigit()


def test_a_call_that_is_repeated_waits_for_the_end_of_a_large_command(client, beside, direct, queue):
    def loaded_again():
        until(lambda: b"valq1" in str(direct.call("FUNCTION", "LIST")).encode(), 5, "functions loaded")
        noticed(beside)

    assert client.call("VALQ.PUSH", queue, "x") == b"1"
    before = request("FUNCTION", "FLUSH") + request("VALQ.PUSH", queue, "y")
    in_two_parts(client, beside, before, ("SET", "large", b"x" * 200_000), loaded_again)
    assert [client.read() for _ in range(3)] == [b"OK", b"2", b"OK"]
    assert direct.call("STRLEN", "large") == 200_000


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


def test_a_clients_name_is_that_of_one_connection(pair, direct):
    def named():
        return direct.call("CLIENT", "LIST").count(b" name=joe ")

    with Connection(pair[1].port) as client:
        assert client.call("CLIENT", "SETNAME", "joe") == b"OK"
        assert client.call("LRANGE", "none", "0", "-1") == []
        until(lambda: named() == 1, 5, "one")
        assert client.call("CLIENT", "GETNAME") == b"joe"
    until(lambda: named() == 0, 5, "none")


def test_no_clients_name_goes_with_anothers(pair, direct):
    def names():
        return sorted(re.findall(rb" name=(c\d) ", direct.call("CLIENT", "LIST")))

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Connection(pair[1].port)) for _ in range(3)]
        for number, client in enumerate(clients, 1):
            assert client.call("SELECT", "9") == b"OK"
            assert client.call("CLIENT", "SETNAME", f"c{number}") == b"OK"
        until(lambda: names() == [b"c3"], 5, "the last one's")
        assert clients[0].call("LRANGE", "none", "0", "-1") == []
        until(lambda: names() == [b"c1", b"c3"], 5, "the first has its own lane")
        assert clients[2].call("LRANGE", "none", "0", "-1") == []
        until(lambda: names() == [b"c1", b"c2", b"c3"], 5, "and the last")
        assert clients[1].call("CLIENT", "GETNAME") == b"c2"
        until(lambda: names() == [b"c1", b"c2", b"c3"], 5, "and the second")
    until(lambda: names() == [], 5, "all are gone")


def test_a_name_goes_along_to_another_database(pair, direct):
    def named():
        return re.findall(rb" name=wanderer .* db=(\d+) ", direct.call("CLIENT", "LIST"))

    with Connection(pair[1].port) as client:
        assert client.call("CLIENT", "SETNAME", "wanderer") == b"OK"
        for db in (b"0", b"7", b"7", b"3"):
            assert client.call("SELECT", db) == b"OK"
            until(lambda db=db: named() == [db], 5, "named")
    until(lambda: named() == [], 5, "gone")


def test_no_lane_keeps_the_name_of_who_left_before_it_was_answered(pair, direct, beside):
    valkey, daemon = pair
    for _ in range(5):
        valkey.signal(signal.SIGSTOP)
        with Connection(daemon.port) as client:
            client.send("CLIENT", "SETNAME", "ghost")
            noticed(beside)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        noticed(beside)
        valkey.signal(signal.SIGCONT)
        until(lambda: b" name=ghost " not in direct.call("CLIENT", "LIST"), 5, "it is gone")


def test_lanes_of_identities_that_nobody_has_any_more_are_few(pair, direct):
    """Valkey takes any password of a user that has none: each is another identity."""
    with Connection(pair[1].port) as client:
        before = len(direct.call("CLIENT", "LIST").splitlines())
        for number in range(100):
            assert client.call("AUTH", "default", f"password{number}") == b"OK"
        assert client.call("VALQ.LIST") is not None
    with contextlib.ExitStack() as stack:
        for number in range(60):
            leaving = stack.enter_context(Connection(pair[1].port))
            leaving.send("AUTH", "default", f"other{number}")
    until(lambda: len(direct.call("CLIENT", "LIST").splitlines()) <= before + 40, 5, "closed")


def test_what_the_daemon_asks_for_itself_is_in_no_monitor(pair, direct):
    with Connection(pair[1].port, timeout_s=5) as monitor:
        assert monitor.call("MONITOR") == b"OK"
        time.sleep(0.2)  # until the daemon asks anew who may do anything
        with Connection(pair[1].port) as client:
            assert client.call("LRANGE", "asked", "0", "-1") == []
        assert b'"LRANGE" "asked"' in monitor.read()


@pytest.mark.parametrize("resp", [2, 3])
@pytest.mark.parametrize("names", [("x" * 40_000,), ("abc",) * 5000], ids=["one", "many"])
def test_a_large_unsubscribe_that_is_cut_is_answered(pair, beside, resp, names):
    with Connection(pair[1].port, resp, timeout_s=5) as client:
        client.call("LRANGE", "none", "0", "-1")
        in_two_parts(client, beside, b"", ("UNSUBSCRIBE", *names))
        assert [client.read()[1] for _ in names] == [name.encode() for name in names]
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
        time.sleep(0.3)  # the daemon speaks with Valkey for itself
        assert beside.call("LRANGE", "watched", "0", "-1") == []
        beside.call("LRANGE", "the-end", "0", "-1")
        lines = b""
        while b"the-end" not in lines:
            lines += monitor.socket.recv(65536)
    assert b'"LRANGE" "watched"' in lines
    assert not re.search(rb"valq1_due|valqd-mark|replication", lines)


def test_a_call_that_is_repeated_is_not_behind_what_changes_its_meaning(pair, client, beside, direct, queue):
    with Connection(pair[1].port) as other:
        for number, (after, replies) in enumerate(
            [
                ([("SELECT", "3")], [b"OK"]),
                ([("WATCH", "k"), ("MULTI",), ("GET", "k"), ("EXEC",)], [b"OK", b"OK", b"QUEUED", [None]]),
                ([("BLPOP", "none", "0.2")], [None]),
                ([("CLIENT", "REPLY", "OFF"), ("CLIENT", "REPLY", "ON")], [b"OK"]),
                ([("QUIT",)], [b"OK"]),
            ]
        ):
            with Connection(pair[1].port, timeout_s=5) as client:
                client.call("CLIENT", "ID")
                client.send_raw(request("FUNCTION", "FLUSH") + request("VALQ.PUSH", queue, number))
                client.send_raw(b"".join(request(*command) for command in after))
                assert client.read() == b"OK"
                assert client.read() == b"%d" % (number + 1)
                assert [client.read() for _ in replies] == replies
            assert pop(other, queue)["body"] == b"%d" % number


@pytest.mark.parametrize(
    "before", ["VALQ.PUSH {q} x", "LRANGE none 0 0 | VALQ.PUSH {q} x", "VALQ.PUSH {q} x | WAIT 0 0"]
)
def test_who_has_left_takes_nothing_by_what_it_sent_last(pair, direct, queue, before):
    for number in range(5):
        with Connection(pair[1].port) as client:
            client.call("CLIENT", "ID")
            lines = [*before.format(q=queue).split(" | "), f"BLPOP {queue}{number} 0"]
            client.send_raw(b"".join(request(*line.split()) for line in lines))
        time.sleep(0.1)
        direct.call("RPUSH", f"{queue}{number}", "job")
        assert direct.call("LLEN", f"{queue}{number}") == 1


@pytest.mark.parametrize(
    "large",
    [("BLPOP", LARGE_NAME, "1"), ("WATCH", LARGE_NAME), ("SUBSCRIBE", LARGE_NAME), ("SET", "k", LARGE_NAME)],
    ids=lambda command: command[0],
)
def test_a_call_to_be_repeated_and_a_large_command_do_not_wait_for_each_other(client, beside, direct, queue, large):
    client.call("CLIENT", "ID")
    direct.call("FUNCTION", "FLUSH")
    before = request("LRANGE", "none", "0", "0") + request("VALQ.PUSH", queue, "x")
    in_two_parts(client, beside, before, large, lambda: time.sleep(0.2))
    assert client.read() == []
    assert client.read() == b"1"
    assert client.read() in (None, b"OK", [b"subscribe", LARGE_NAME.encode(), 1])


def test_what_follows_while_a_call_is_repeated_waits(pair, beside, direct, queue):
    for number in range(20):
        with Connection(pair[1].port, timeout_s=5) as client:
            client.call("CLIENT", "ID")
            direct.call("FUNCTION", "FLUSH")
            client.send_raw(request("LRANGE", "none", "0", "0") + request("VALQ.PUSH", queue, number))
            time.sleep(0.0005 * number)
            client.send_raw(request("MULTI") + request("GET", "none") + request("EXEC"))
            replies = [client.read() for _ in range(5)]
            assert replies == [[], b"%d" % (number + 1), b"OK", b"QUEUED", [None]]


def test_a_repeated_pop_of_who_has_left_is_given_back(pair, beside, direct, queue):
    beside.call("VALQ.PUSH", queue, "x")
    with Connection(pair[1].port) as client:
        client.call("CLIENT", "ID")
        direct.call("FUNCTION", "FLUSH")
        client.send_raw(request("LRANGE", "none", "0", "0") + request("VALQ.POP", queue))
    until(lambda: as_map(beside.call("VALQ.INFO", queue))[b"ready_msgs"] == 1, 5, "given back")
    time.sleep(0.1)
    assert as_map(beside.call("VALQ.INFO", queue))[b"inflight_msgs"] == 0


@pytest.mark.parametrize("resp", [2, 3])
def test_after_a_refused_monitor_a_pop_waits_as_ever(pair, direct, queue, resp):
    direct.call("ACL", "SETUSER", "nomon", "reset", "on", ">pw", "~*", "&*", "+@all", "-monitor")
    with Connection(pair[1].port, resp, timeout_s=5) as client:
        client.call("AUTH", "nomon", "pw")
        assert "NOPERM" in str(client.call("MONITOR"))
        began = time.monotonic()
        assert client.call("VALQ.POP", queue, "BLOCK", "300") is None
        assert time.monotonic() - began >= 0.29


def test_a_refused_setinfo_costs_nothing(pair, direct):
    direct.call("ACL", "SETUSER", "plain", "reset", "on", ">pw", "~*", "+@all", "-client|setinfo")
    with Connection(pair[1].port, timeout_s=5) as client:
        assert client.call("CLIENT", "SETINFO", "lib-ver", "1") == b"OK"
        assert client.call("AUTH", "plain", "pw") == b"OK"
        assert client.call("TYPE", "none") == b"none"


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


def test_help_is_the_same_in_a_transaction(client):
    client.send("VALQ.HELP", "push")
    outside = client.socket.recv(65536)
    client.send_raw(request("MULTI") + request("VALQ.HELP", "push") + request("EXEC"))
    client.socket.settimeout(2)
    inside = client.read_raw(len(b"+OK\r\n+QUEUED\r\n*1\r\n") + len(outside))
    assert inside == b"+OK\r\n+QUEUED\r\n*1\r\n" + outside


@pytest.mark.parametrize("wait_ms", ["300", "0"])
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
        assert answers[0] is None if wait_ms == "300" else as_map(answers[0])[b"body"] == b"hello"


# ---- when the backend goes


def test_a_skip_that_was_lost_with_the_backend_silences_nothing():
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
        assert client.call("GET", "none") is None
        assert client.call("PING") == b"PONG"


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


def test_calls_behind_reply_off_find_their_functions(client, beside, direct, queue):
    assert client.call("VALQ.PUSH", queue, "x") == b"1"
    direct.call("FUNCTION", "FLUSH")
    client.send("CLIENT", "REPLY", "OFF")
    client.send("VALQ.PUSH", queue, "y")
    client.send("VALQ.PUSH", queue, "z")
    assert client.call("CLIENT", "REPLY", "ON") == b"OK"
    assert [pop(beside, queue)["body"] for _ in range(3)] == [b"x", b"y", b"z"]


@pytest.mark.parametrize(
    "command", [("VALQ.HELP", "PUSH"), ("VALQ.PUSH", "{q}", "y"), ("VALQ.INFO", "{q}")], ids=" ".join
)
def test_a_transaction_finds_its_functions(client, direct, queue, command):
    assert client.call("VALQ.PUSH", queue, "x") == b"1"
    direct.call("FUNCTION", "FLUSH")
    assert client.call("MULTI") == b"OK"
    assert client.call(*[word.format(q=queue) for word in command]) == b"QUEUED"
    (result,) = client.call("EXEC")
    assert result
    assert "not found" not in str(result)


def test_functions_are_looked_for_after_each_reply_skip(client, beside, direct, queue):
    client.send_raw(request("CLIENT", "REPLY", "SKIP") + request("VALQ.HELP"))
    assert client.call("PING") == b"PONG"
    direct.call("FUNCTION", "FLUSH")
    client.send_raw(request("CLIENT", "REPLY", "SKIP") + request("VALQ.PUSH", queue, "x"))
    assert client.call("PING") == b"PONG"
    assert pop(beside, queue)["body"] == b"x"
    direct.call("FUNCTION", "FLUSH")
    client.send_raw(request("MULTI") + request("VALQ.PUSH", queue, "y") + request("EXEC"))
    assert [client.read() for _ in range(3)] == [b"OK", b"QUEUED", [b"2"]]


@pytest.mark.parametrize("before", [("MULTI",), ("CLIENT", "REPLY", "OFF")], ids=" ".join)
def test_who_sends_a_command_and_no_more_has_sent_it(pair, beside, queue, before):
    for number in range(30):
        with Connection(pair[1].port, timeout_s=5) as client:
            client.call("CLIENT", "ID")
            after = request("EXEC") if before == ("MULTI",) else b""
            client.send_raw(request(*before) + request("VALQ.PUSH", queue, number) + after)
            client.socket.shutdown(socket.SHUT_WR)
            client.read_until_closed()
    until(lambda: as_map(beside.call("VALQ.INFO", queue))[b"ready_msgs"] == 30, 5, "all are there")


def test_a_transaction_does_not_fetch_the_functions(client, direct, queue):
    direct.call("CONFIG", "RESETSTAT")
    for _ in range(10):
        assert client.call("MULTI") == b"OK"
        client.call("VALQ.PUSH", queue, "x")
        assert len(client.call("EXEC")) == 1
    assert b"cmdstat_function|list" not in direct.call("INFO", "commandstats")


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
