"""Who clients are, when passwords, users and databases change: each is asked, told and let in as by Valkey."""

import contextlib
import signal
import threading
import time

import pytest

from tests.servers import Connection, Valkey, Valqd, as_map, request, until
from tests.wire.expect import blocked, noticed, refused


def test_new_clients_are_asked_for_a_password_that_the_default_user_got(resp):
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, resp) as before,
        Connection(daemon.port, resp) as private,
    ):
        assert before.call("VALQ.PUSH", "q", "x") == b"1"
        assert private.call("LRANGE", "none", "0", "-1") == []
        direct.call("ACL", "SETUSER", "default", "resetpass", ">pw")

        def asked():
            with Connection(daemon.port) as new:
                return isinstance(new.call("PING"), Exception)

        until(asked, 10, "a password is needed")
        for command in (("PING",), ("GET", "k"), ("VALQ.PUSH", "q", "x"), ("LRANGE", "none", "0", "-1")):
            with Connection(daemon.port) as new:
                for _ in range(2):
                    refused(new.call(*command), "NOAUTH")
                assert new.call("AUTH", "pw") == b"OK"
                assert not isinstance(new.call(*command), Exception)
        for connection in (before, private):
            assert connection.call("PING") == b"PONG"
            assert connection.call("SET", "k", "1") == b"OK"
            for _ in range(40):  # and leaves its own lane for one that was opened before
                assert connection.call("GET", "k") == b"1"
            assert isinstance(connection.call("VALQ.PUSH", "q", "x"), bytes)
        direct.call("ACL", "SETUSER", "default", "nopass")

        def welcome():
            with Connection(daemon.port) as new:
                return new.call("PING") == b"PONG"

        until(welcome, 10, "no password is needed")
        with Connection(daemon.port) as new:
            assert new.call("GET", "k") == b"1"
            assert isinstance(new.call("VALQ.PUSH", "q", "x"), bytes)
            assert new.call("LRANGE", "none", "0", "-1") == []


@pytest.mark.parametrize("path", ["", "/3"], ids=["0", "3"])
@pytest.mark.parametrize("how", ["SELECT 1", "SELECT 0", "RESET"])
def test_no_lane_of_who_came_before_there_was_a_password_lets_others_in(path, how):
    with (
        Valkey() as valkey,
        Valqd(valkey.url + path) as daemon,
        Connection(valkey.port) as direct,
        contextlib.ExitStack() as stack,
    ):
        for command in ("PING", "SELECT 1", "SELECT 0", "RESET"):  # their lanes stay open
            before = stack.enter_context(Connection(daemon.port))
            assert not isinstance(before.call(*command.split()), Exception)
            assert before.call("SET", "k", "v") == b"OK"
        direct.call("ACL", "SETUSER", "default", "resetpass", ">pw")

        def asked():
            with Connection(daemon.port) as new:
                return isinstance(new.call("PING"), Exception)

        until(asked, 10, "a password is needed")
        with Connection(daemon.port) as new:
            new.call(*how.split())
            for command in (("GET", "k"), ("VALQ.PUSH", "q", "x"), ("VALQ.INFO", "q"), ("LRANGE", "none", "0", "-1")):
                refused(new.call(*command), "NOAUTH")
            refused(new.call("SELECT", "1"), "NOAUTH")
            assert new.call("AUTH", "pw") == b"OK"
            assert new.call("SELECT", "1") == b"OK"
            assert new.call("GET", "k") == b"v"


def test_a_backend_that_has_no_room_does_not_make_a_password_needless():
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey("--requirepass", "pw"))
        daemon = stack.enter_context(Valqd(f"valkey://:pw@127.0.0.1:{valkey.port}"))
        direct = stack.enter_context(Connection(valkey.port))
        direct.call("AUTH", "pw")
        assert direct.call("CONFIG", "SET", "maxclients", "8") == b"OK"
        while not str(stack.enter_context(Connection(valkey.port)).call("AUTH", "pw")).startswith("ERR max number"):
            pass
        time.sleep(0.15)  # what was found out for earlier clients is not known any more
        with Connection(daemon.port, timeout_s=2) as client:
            client.send_raw(ELEVEN[:5])
            # Valkey answers: what breaks the protocol for who has not authenticated was passed on.
            assert client.read_until_closed() == b"-ERR max number of clients reached\r\n"
        until(lambda: "the backend turns connections away: its maxclients is reached" in daemon.output(), what="said")


@pytest.fixture(scope="module")
def guarded():
    """A Valkey with a password, and a daemon that knows it."""
    with Valkey("--requirepass", "pw") as valkey, Valqd(f"valkey://:pw@127.0.0.1:{valkey.port}") as daemon:
        yield valkey, daemon


ELEVEN = request("MSET", *"abcdefghij")
LARGE = request("SET", "large", b"x" * (1 << 20))


@pytest.mark.parametrize("data", [LARGE[:40], ELEVEN[:5], LARGE[:40] + b"x" * 100, ELEVEN], ids=range(4))
@pytest.mark.parametrize("before", [b"", b"PING\r\n", request("AUTH", "wrong"), request("GET", "k")], ids=range(4))
def test_who_has_not_authenticated_is_closed_as_by_valkey_for_much(guarded, data, before):
    replies = []
    for server in guarded:
        with Connection(server.port, timeout_s=5) as connection:
            connection.send_raw(before + data)
            replies.append(connection.read_until_closed())
    assert replies[0] == replies[1]
    assert b"-ERR Protocol error: unauthenticated" in replies[1]


@pytest.mark.parametrize("data", [LARGE[:40], ELEVEN[:5]], ids=["bulk", "arguments"])
@pytest.mark.parametrize("before", [("HELLO 2",), ("HELLO 3",), ("RESET",), ("AUTH pw", "RESET")], ids=" ".join)
def test_who_has_only_said_hello_or_was_reset_has_not_authenticated(guarded, data, before):
    for server in guarded:
        with Connection(server.port, timeout_s=5) as connection:
            for command in before:
                connection.call(*command.split())
            connection.send_raw(data)
            assert b"-ERR Protocol error: unauthenticated" in connection.read_until_closed()


@pytest.mark.parametrize("before", [b"", request("LRANGE", "none", "0", "-1")], ids=["clean", "private lane"])
def test_who_has_authenticated_may_send_much(guarded, before):
    with Connection(guarded[1].port) as connection, Connection(guarded[1].port) as unauthenticated:
        refused(unauthenticated.call("PING"), "NOAUTH")
        refused(unauthenticated.call("AUTH", "x" * 16_384), "WRONGPASS")
        assert connection.call("AUTH", "pw") == b"OK"
        if before:
            connection.send_raw(before)
            assert connection.read() == []
        connection.send_raw(LARGE)
        assert connection.read() == b"OK"
        assert connection.call("MSET", *"abcdefghij") == b"OK"
        assert connection.call("VALQ.PUSH", "much", b"x" * (1 << 20)).isdigit()
        connection.send_raw(request("VALQ.MPUSH", "much", "12", *"abcdefghijkl"))
        assert len(connection.read()) == 12
        assert unauthenticated.call("AUTH", "pw") == b"OK"
        unauthenticated.send_raw(LARGE)
        assert unauthenticated.read() == b"OK"


def test_no_auth_is_left_unanswered_while_its_user_comes_and_goes():
    answers, stop = set(), threading.Event()

    def authenticate(port):
        while not stop.is_set():
            try:
                with Connection(port, timeout_s=5) as connection:
                    for _ in range(3):
                        reply = connection.call("AUTH", "fleeting", "pw")
                        answers.add(reply if isinstance(reply, bytes) else str(reply).split()[0])
            except TimeoutError:
                answers.add("no answer")
            except ConnectionError:
                answers.add("closed")

    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        threads = [threading.Thread(target=authenticate, args=(daemon.port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            direct.call("ACL", "SETUSER", "fleeting", "on", ">pw", "allkeys", "+@all")
            time.sleep(0.002)
            direct.call("ACL", "DELUSER", "fleeting")
        stop.set()
        for thread in threads:
            thread.join()
        assert answers <= {b"OK", "WRONGPASS", "NOBACKEND", "closed"}
        assert {b"OK", "WRONGPASS"} <= answers
        with Connection(daemon.port) as connection:
            direct.call("ACL", "SETUSER", "fleeting", "on", ">pw", "allkeys", "+@all")
            assert connection.call("AUTH", "fleeting", "pw") == b"OK"
            assert connection.call("VALQ.PUSH", "q", "x") == b"1"


@pytest.mark.parametrize("hello", [("AUTH", "pw"), ("HELLO", "3", "AUTH", "default", "pw")], ids=["AUTH", "HELLO"])
@pytest.mark.parametrize(
    "first", [None, ("PING",), ("VALQ.PUSH", "q", "x"), ("GET", "k"), ("LRANGE", "none", "0", "-1")]
)
def test_clients_log_in_to_the_database_of_the_backend_url(first, hello, guarded):
    valkey, _ = guarded
    with (
        Valqd(f"valkey://:pw@127.0.0.1:{valkey.port}/5") as daemon,
        Connection(daemon.port, timeout_s=5) as client,
        Connection(valkey.port) as direct,
    ):
        if first:
            for _ in range(2):
                refused(client.call(*first), "NOAUTH")
        assert not isinstance(client.call(*hello), Exception)
        direct.call("AUTH", "pw")
        direct.call("FLUSHALL")
        assert client.call("VALQ.PUSH", "q", "x") == b"1"
        assert client.call("RPUSH", "list", "x") == 1
        assert client.call("SET", "k", "x") == b"OK"
        assert direct.call("DBSIZE") == 0
        direct.call("SELECT", "5")
        assert direct.call("EXISTS", "valq:{q}:queue", "list", "k") == 3


def test_a_lane_that_is_refused_leaves_no_connection_behind(guarded):
    valkey, _ = guarded
    with (
        Valqd(f"valkey://:pw@127.0.0.1:{valkey.port}/5") as daemon,
        Connection(daemon.port, timeout_s=5) as client,
        Connection(valkey.port) as direct,
    ):
        direct.call("AUTH", "pw")
        before = direct.call("CLIENT", "LIST").count(b"\n")
        for _ in range(20):
            refused(client.call("LRANGE", "none", "0", "-1"), "NOAUTH")
        until(lambda: direct.call("CLIENT", "LIST").count(b"\n") < before + 5, 5, "they are closed")


@pytest.mark.parametrize("private", [False, True])
def test_who_selected_a_database_before_a_password_was_needed_can_still_log_in(private):
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, timeout_s=5) as client,
    ):
        assert client.call("SELECT", "9") == b"OK"
        direct.call("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-select")
        direct.call("CONFIG", "SET", "requirepass", "pw")
        assert client.call("AUTH", "pw") == b"OK"
        assert client.call("AUTH", "default", "pw") == b"OK"
        direct.call("CONFIG", "SET", "requirepass", "")
        with Connection(daemon.port, timeout_s=5) as other:
            assert other.call("SELECT", "9") == b"OK"
            assert other.call("AUTH", "narrow", "pw") == b"OK"  # who may not select, but has selected
            for connection in (client, other):
                if private:
                    assert connection.call("RPUSH", "list", "x") > 0
                assert int(connection.call("VALQ.PUSH", "q", "x")) > 0
        direct.call("SELECT", "9")
        assert direct.call("EXISTS", "valq:{q}:queue") == 1


def test_who_spoke_resp3_before_a_password_was_needed_still_does():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, 3, timeout_s=5) as client,
    ):
        direct.call("CONFIG", "SET", "requirepass", "pw")
        refused(client.call("CONFIG", "GET", "none"), "NOAUTH")
        assert client.call("AUTH", "pw") == b"OK"
        for command in (("CONFIG", "GET", "none"), ("HGETALL", "none")):
            assert client.call(*command) == {}


def test_a_name_that_was_given_in_hello_needs_no_right_again():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, timeout_s=5) as client,
    ):
        direct.call("ACL", "SETUSER", "narrow", "on", ">pw", "~*", "+@all", "-client|setname")
        assert isinstance(client.call("HELLO", "3", "AUTH", "narrow", "pw", "SETNAME", "bob"), dict)
        assert client.call("MULTI") == b"OK"
        assert client.call("CLIENT", "GETNAME") == b"QUEUED"
        assert client.call("EXEC") == [b"bob"]


def test_clients_whose_lane_is_lost_when_the_default_user_got_a_password_are_told_so():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as connection,
        Connection(daemon.port) as waiting,
    ):
        connection.call("VALQ.PUSH", "q", "x", "60")
        waiting.send("VALQ.MPOP", "2", "q", "r", "BLOCK", "0")
        blocked(connection, "q")
        direct.call("CONFIG", "SET", "requirepass", "sesame")
        direct.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        until(lambda: "NOAUTH" in str(connection.call("VALQ.PUSH", "q", "y")), 5, "the lane is refused")
        connection.send_raw(request("VALQ.PUSH", "q", "y") * 20)  # merged, more than a stranger's request may hold
        for _ in range(20):
            refused(connection.read(), "NOAUTH")
        connection.close()
        direct.call("CONFIG", "SET", "requirepass", "")
        with Connection(daemon.port) as again:
            until(lambda: again.call("VALQ.PUSH", "r", "z") == b"1", 5, "the lane is accepted")
        assert as_map(waiting.read())[b"body"] == b"z"


def test_a_password_that_was_withdrawn_is_refused_on_a_busy_lane_and_no_reply_is_anothers():
    """Valkey before 9 says nothing to a refused AUTH while it has other replies to send."""
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        direct, holding = (stack.enter_context(Connection(valkey.port)) for _ in range(2))
        direct.call("ACL", "SETUSER", "u", "on", ">old", "~*", "+@all")
        direct.call("MSET", "ka", "a", "kb", "b")
        one, other = (stack.enter_context(Connection(daemon.port, timeout_s=5)) for _ in range(2))
        late, beside = (stack.enter_context(Connection(daemon.port, timeout_s=5)) for _ in range(2))
        for connection in (one, other):
            assert connection.call("AUTH", "u", "old") == b"OK"
            assert connection.call("GET", "ka") == b"a"
        direct.call("ACL", "SETUSER", "u", "resetpass", ">new")
        for _ in range(5):
            holding.send("DEBUG", "SLEEP", "0.1")
            time.sleep(0.02)
            one.send("GET", "ka")
            noticed(beside)
            late.send("AUTH", "u", "old")
            noticed(beside)
            other.send("GET", "kb")
            assert (one.read(), other.read()) == (b"a", b"b")
            refused(late.read(), "WRONGPASS")
            assert holding.read() == b"OK"
        assert late.call("AUTH", "u", "new") == b"OK"
        assert late.call("VALQ.PUSH", "q", "x") == b"1"


@pytest.mark.parametrize("before", ["LRANGE none 0 -1", "HELLO 3", "SELECT 1", "RESET"])
def test_much_may_follow_a_login_at_once(before, guarded):
    with Connection(guarded[1].port, timeout_s=5) as client:
        client.call(*before.split())
        follows = request("VALQ.PUSH", "f", "x" * 20_000) + request("VALQ.MPUSH", "f", "12", *"abcdefghijkl")
        client.send_raw(request("AUTH", "pw") + follows)
        assert client.read() == b"OK"
        assert isinstance(client.read(), bytes)
        assert len(client.read()) == 12
        assert client.call("VALQ.DELETE", "f") == b"OK"


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("before", [(), ("SELECT", "3")])
@pytest.mark.parametrize("login", [("AUTH", "default", "no"), ("HELLO", "3", "AUTH", "default", "no")])
def test_a_wrong_password_is_refused_in_any_state(private, before, login, guarded):
    valkey, daemon = guarded
    with Connection(daemon.port, timeout_s=5) as client, Connection(valkey.port) as direct:
        direct.call("AUTH", "pw")
        assert client.call("AUTH", "pw") == b"OK"
        if before:
            assert client.call(*before) == b"OK"
        if private:
            assert client.call("LRANGE", "none", "0", "-1") == []
        connections = direct.call("CLIENT", "LIST").count(b"\n")
        for _ in range(3):
            client.send_raw(request("PING") + request(*login) + request("ECHO", "x"))
            assert client.read() == b"PONG"
            refused(client.read(), "WRONGPASS")  # Valkey before 9 would leave this out
            assert client.read() == b"x"
            refused(client.call(*login), "WRONGPASS")
        assert isinstance(client.call("VALQ.PUSH", "wrong", "x"), bytes)
        assert as_map(client.call("VALQ.POP", "wrong"))[b"body"] == b"x"
        # The second shared lane of its identity may have been on its way.
        until(lambda: direct.call("CLIENT", "LIST").count(b"\n") <= connections + 1, 5, "no connection is left behind")


def test_who_has_selected_a_database_is_told_that_its_user_is_gone():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, timeout_s=5) as client,
    ):
        direct.call("ACL", "SETUSER", "u", "on", ">old", "~*", "+@all")
        assert client.call("SELECT", "3") == b"OK"
        assert client.call("AUTH", "u", "old") == b"OK"
        direct.call("ACL", "SETUSER", "u", "resetpass", ">new")
        refused(client.call("LRANGE", "opens a lane", "0", "-1"), "WRONGPASS")
        assert client.read_until_closed() == b""


@pytest.mark.parametrize(
    "commands",
    [
        [("CLIENT", "REPLY", "SKIP"), ("GET", "k"), ("AUTH", "pw"), ("GET", "k")],
        [
            ("AUTH", "pw"),
            ("LRANGE", "l", "0", "-1"),
            ("RESET",),
            ("CLIENT", "REPLY", "SKIP"),
            ("GET", "k"),
            ("AUTH", "pw"),
        ],
        [("HELLO", "3"), ("HELLO",), ("HELLO", "2", "SETNAME", "x"), ("AUTH", "pw")],
    ],
    ids=["skip", "skip after reset", "hello"],
)
@pytest.mark.parametrize("pipelined", [False, True])
def test_who_has_not_authenticated_is_answered_as_by_valkey(guarded, commands, pipelined):
    found = []
    requests = [request(*command) for command in commands]
    for server in guarded:
        with Connection(server.port, timeout_s=5) as client:
            for sent in [b"".join(requests)] if pipelined else requests:
                client.send_raw(sent)
                time.sleep(0 if pipelined else 0.02)  # some have no answer: each is most likely read alone
            client.send_raw(request("QUIT"))
            found.append(client.read_until_closed())
    assert found[0] == found[1]
    assert found[0].endswith(b"+OK\r\n")


def test_lanes_of_users_who_have_left_are_few():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        for number in range(40):
            direct.call("ACL", "SETUSER", f"u{number}", "on", ">pw", "~*", "+@all")
            with Connection(daemon.port) as client:
                assert client.call("AUTH", f"u{number}", "pw") == b"OK"
        until(lambda: direct.call("CLIENT", "LIST").count(b" user=u") == 32, 5, "as many as may be idle")


def test_a_user_who_is_deleted_amid_its_simple_commands_leaves_nothing_that_a_stop_waits_for():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        assert direct.call("ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all") == b"OK"
        begun = threading.Barrier(9)

        def ask():
            with contextlib.suppress(OSError), Connection(daemon.port, timeout_s=5) as client:
                client.call("AUTH", "u", "pw")
                client.call("VALQ.PUSH", "q", "x")
                client.call("GET", "k")
                begun.wait(30)
                while True:
                    client.call("GET", "k")

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        begun.wait(30)
        time.sleep(0.3)  # a lane that has stood for a while is opened again at once
        assert direct.call("ACL", "DELUSER", "u") == 1
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
        since = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
        assert time.monotonic() - since < 8  # it would be 9.5 s, if it waited
