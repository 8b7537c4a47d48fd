"""What a client was in the middle of when the backend went: it is told, nothing of it is run later, and it goes on."""

import contextlib
import signal

import pytest

from tests.servers import Connection, Valkey, Valqd, as_map, request, until
from tests.wire.expect import blocked, noticed, refused


def gone(daemon):
    """Wait until the daemon knows that its backend is gone."""
    with Connection(daemon.port) as connection:
        until(lambda: "NOBACKEND" in str(connection.call("VALQ.LIST")), 5, "gone")


def back(daemon):
    """Wait until commands are served again."""
    with Connection(daemon.port) as connection:
        until(lambda: connection.call("VALQ.LIST") == [], 5, "back")


@pytest.mark.parametrize("command", ["SET", "VALQ.PUSH"])
@pytest.mark.parametrize("lane", ["its own", "none"])
def test_the_rest_of_a_command_whose_head_is_lost_is_never_run(command, lane):
    body = b"y" * 200_000 + b"\r\nSET injected 1\r\n" + b"y" * 200_000
    whole = request(command, "k", body)
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        client = stack.enter_context(Connection(daemon.port))
        if lane == "its own":
            client.call("LRANGE", "none", "0", "-1")
        client.send_raw(whole[:100_000])
        valkey.kill()
        gone(daemon)
        valkey.start()
        back(daemon)
        client.send_raw(whole[100_000:])
        if command == "SET":  # its head was on its way
            refused(client.read(), "NOBACKEND")
        else:  # held until it is whole
            assert client.read() == b"1"
        assert client.call("PING") == b"PONG"
        with Connection(valkey.port) as direct:
            assert direct.call("EXISTS", "injected") == 0


def test_nothing_of_a_broken_command_whose_head_is_lost_is_run():
    body = b"y" * 100_000 + b"\r\nSET injected 1\r\n" + b"y" * 100_000
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=5) as client:
        whole = request("SET", "k", body, "x").replace(b"$1\r\nx\r\n", b"\r\nSET injected 2\r\n")
        client.send_raw(whole[:60_000])
        valkey.kill()
        gone(daemon)
        valkey.start()
        back(daemon)
        client.send_raw(whole[60_000:])
        lost, broken, rest = client.read_until_closed().split(b"\r\n")
        assert lost.startswith(b"-NOBACKEND ")
        assert broken.startswith(b"-ERR Protocol error: ")
        assert not rest
        with Connection(valkey.port) as direct:
            assert direct.call("EXISTS", "injected") == 0


@pytest.mark.parametrize("resp", [2, 3])
@pytest.mark.parametrize(
    "named",
    ["CLIENT SETNAME bob", "HELLO {resp} SETNAME bob", "MULTI|CLIENT SETNAME bob|EXEC", "RESET|CLIENT SETNAME bob"],
)
def test_a_name_that_a_lane_of_ones_own_got_outlives_it(resp, named):
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, resp, timeout_s=5) as client:
        assert client.call("CLIENT", "SETNAME", "joe") == b"OK"
        client.call("CLIENT", "ID")  # opens a lane of its own
        assert client.call("CLIENT", "SETINFO", "LIB-NAME", "lib") == b"OK"
        for command in named.format(resp=resp).split("|"):
            assert not isinstance(client.call(*command.split()), Exception)
        valkey.kill()
        gone(daemon)
        valkey.start()
        back(daemon)
        assert client.call("CLIENT", "GETNAME") == b"bob"
        assert b" lib-name=lib " in client.call("CLIENT", "INFO")


def test_who_sends_much_while_the_backend_is_away_is_answered_and_goes_on():
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        client = stack.enter_context(Connection(daemon.port, timeout_s=5))
        valkey.kill()
        gone(daemon)
        client.send_raw(request("SET", "k", b"x" * (8 << 20)))
        refused(client.read(), "NOBACKEND")
        valkey.start()
        back(daemon)
        client.send_raw(request("SET", "k", b"x" * (8 << 20)))
        assert client.read() == b"OK"


@pytest.mark.parametrize("again", ["at once", "later"])
def test_who_waits_for_valkey_is_told_that_it_was_killed(again):
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        clients = [stack.enter_context(Connection(daemon.port, timeout_s=5)) for _ in range(10)]
        for client in clients:
            client.call("LRANGE", "none", "0", "-1")
            client.send("BLPOP", "none", "0")
        with Connection(valkey.port) as direct:
            until(lambda: direct.call("INFO", "clients").count(b"blocked_clients:10\r\n"), 5, "all wait")
        if again == "at once":  # before the daemon knows
            daemon.signal(signal.SIGSTOP)
        valkey.kill()
        if again == "at once":
            valkey.start()
            daemon.signal(signal.SIGCONT)
        for client in clients:
            refused(client.read(), "NOBACKEND", "may have been applied")
        if again == "later":
            valkey.start()
        back(daemon)
        for client in clients:
            assert client.call("LRANGE", "none", "0", "-1") == []


@pytest.mark.parametrize("behind", [("MONITOR",), ("VALQ.PUSH", "q", "x")], ids=lambda words: words[0])
def test_what_waits_behind_a_command_that_is_lost_is_answered_too(behind):
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, timeout_s=5) as client,
    ):
        client.send_raw(request("BLPOP", "none", "0") + request(*behind))
        until(lambda: b"blocked_clients:1\r\n" in direct.call("INFO", "clients"), 5, "it waits")
        valkey.kill()
        for _ in range(2):
            refused(client.read(), "NOBACKEND")


@pytest.mark.parametrize("has_own_lane", [True, False], ids=["own lane", "no lane"])
def test_what_follows_a_multi_that_was_not_sent_is_not_run_outside_of_it(has_own_lane):
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=5) as client:
        client.call(*(("LRANGE", "none", "0", "-1") if has_own_lane else ("PING",)))
        valkey.kill()
        gone(daemon)
        client.send("MULTI")
        refused(client.read(), "NOBACKEND")
        valkey.start()
        back(daemon)
        with contextlib.suppress(ConnectionError):
            client.send_raw(request("VALQ.PUSH", "q", "x") + request("SET", "k", "v") + request("EXEC"))
            assert client.read_until_closed() == b""
        with Connection(daemon.port) as other:
            assert other.call("GET", "k") is None
            assert other.call("VALQ.LIST") == []


@pytest.mark.parametrize("becomes", [("SELECT", "5"), ("AUTH", "default", "x"), ("HELLO", "3", "AUTH", "default", "x")])
def test_what_follows_a_select_or_auth_that_was_not_sent_is_not_run_elsewhere_or_as_another(becomes):
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=5) as other:
        assert other.call("PING") == b"PONG"
        with Connection(valkey.port) as direct:
            direct.call("CONFIG", "SET", "maxclients", "3")  # the daemon's two, and this one
            with Connection(daemon.port, timeout_s=5) as client:
                client.send_raw(request(*becomes) + request("SET", "k", "v") + request("VALQ.PUSH", "q", "x"))
                answer = client.read_until_closed()
            direct.call("CONFIG", "SET", "maxclients", "1000")
        assert answer.startswith(b"-NOBACKEND ")
        assert answer.count(b"\r\n") == 1
        assert other.call("GET", "k") is None
        assert other.call("VALQ.LIST") == []


@pytest.mark.parametrize("becomes", ["SELECT 5", "AUTH default x", "RESET", "MULTI|SELECT 5|EXEC"])
def test_what_follows_a_select_whose_answer_was_lost_is_not_run_elsewhere(becomes):
    commands = [command.split() for command in becomes.split("|")]
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(daemon.port, timeout_s=5) as client,
        Connection(daemon.port) as beside,
    ):
        noticed(beside)
        if becomes == "RESET":
            client.call("SELECT", "7")
        client.call("CLIENT", "ID")  # opens a lane of its own
        valkey.signal(signal.SIGSTOP)
        client.send_raw(b"".join(request(*command) for command in commands))
        noticed(beside)  # it is on its way
        valkey.kill()
        valkey.start()
        back(daemon)
        errors = b""
        while errors.count(b"\r\n") < len(commands):
            errors += client.socket.recv(65536)
        assert errors.count(b"-NOBACKEND ") == len(commands)
        with contextlib.suppress(ConnectionError):
            client.send("SET", "k", "v")
        assert client.read_until_closed() == b""
        with Connection(valkey.port) as direct:
            assert b"keys=" not in direct.call("INFO", "keyspace")


@pytest.mark.parametrize(
    ("set_by", "answers", "closes"),
    [
        ("CLIENT NO-TOUCH on", [b"OK"], True),
        ("CLIENT REPLY OFF|CLIENT NO-TOUCH on|CLIENT REPLY ON", [b"OK"], True),
        ("CLIENT REPLY OFF|CLIENT ID|CLIENT REPLY ON", [b"OK"], False),
    ],
)
def test_who_has_set_what_only_its_connection_knew_is_closed_in_an_outage(set_by, answers, closes):
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=5) as client:
        client.send_raw(b"".join(request(*command.split()) for command in set_by.split("|")))
        assert [client.read() for _ in answers] == answers
        valkey.kill()
        gone(daemon)
        if closes:
            assert client.read_until_closed() == b""
        else:
            refused(client.call("GET", "k"), "NOBACKEND")


def test_who_was_closed_in_an_outage_takes_no_room_once_it_has_left():
    with Valkey() as valkey, Valqd(valkey.url, max_clients=1) as daemon:

        def is_taken() -> bool:
            with Connection(daemon.port) as client:
                return "max number of clients" not in str(client.call("VALQ.HELP"))

        until(is_taken, 5, "who saw that the daemon is ready has left")
        with Connection(daemon.port, timeout_s=5) as client:
            until(lambda: client.call("WATCH", "k") == b"OK", 5, "it watches")
            client.send("VALQ.POP", "q", "BLOCK", "0")
            with Connection(valkey.port) as direct:
                until(lambda: b"cmdstat_mget:" in direct.call("INFO", "commandstats"), 10, "it waits")
            valkey.kill()
            assert client.read_until_closed() == b""
        until(is_taken, 5, "there is room")


def test_who_is_closed_in_the_middle_of_a_large_transaction_gets_all_answers():
    transaction = request("MULTI") + request("SET", "k", "x" * 3000) * 500 + request("EXEC")
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=5) as client:
        valkey.kill()
        gone(daemon)
        client.send_raw(transaction)
        answers = b""
        while data := client.socket.recv(65536):  # no reset
            answers += data
        assert answers.startswith(b"-NOBACKEND ")
        assert answers.endswith(b"\r\n")


def test_what_follows_a_discard_that_was_not_sent_is_answered():
    commands = [("MULTI",), ("SET", "k", "inside"), ("DISCARD",), ("SET", "k", "v")]
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=5) as client:
        valkey.kill()
        gone(daemon)
        client.send_raw(b"".join(request(*command) for command in commands))
        for _ in commands:
            refused(client.read(), "NOBACKEND")
        valkey.start()
        back(daemon)
        assert client.call("SET", "k", "v") == b"OK"


@pytest.mark.parametrize(
    ("setting", "value", "code"), [("maxmemory", "1mb", "OOM"), ("min-replicas-to-write", "1", "NOREPLICAS")]
)
def test_what_keeps_the_functions_from_being_loaded_is_told_as_valkey_words_it(setting, value, code):
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port) as client:
        with Connection(valkey.port) as direct:
            direct.send_raw(request("FUNCTION", "FLUSH") + request("CONFIG", "SET", setting, value))
            assert [direct.read(), direct.read()] == [b"OK", b"OK"]
        refused(client.call("VALQ.PUSH", "q", "x"), code)


def test_a_call_inside_a_pipeline_tells_why_there_are_no_functions():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port, timeout_s=5) as client,
    ):
        assert client.call("VALQ.PUSH", "q", "x") == b"1"
        direct.send_raw(request("FUNCTION", "FLUSH") + request("CONFIG", "SET", "min-replicas-to-write", "1"))
        assert [direct.read(), direct.read()] == [b"OK", b"OK"]
        client.send_raw(request("LRANGE", "none", "0", "-1") + request("VALQ.PUSH", "q", "y") + request("LLEN", "none"))
        assert client.read() == []
        refused(client.read(), "NOREPLICAS")
        assert client.read() == 0
        direct.call("CONFIG", "SET", "min-replicas-to-write", "0")
        assert client.call("VALQ.PUSH", "q", "z") == b"2"
        assert as_map(client.call("VALQ.POP", "q"))[b"body"] == b"x"


def test_a_wait_tells_why_there_are_no_functions():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        direct.call("ACL", "SETUSER", "default", "-function|load")
        with Connection(daemon.port) as client:
            assert client.call("FUNCTION", "FLUSH") == b"OK"
        with Connection(daemon.port, timeout_s=5) as client:
            assert client.call("SET", "a", "b") == b"OK"
            refused(client.call("WAIT", "0", "0"), "ERR the queue functions cannot be loaded")
            direct.call("ACL", "SETUSER", "default", "+function|load")
            assert client.call("SET", "a", "c") == b"OK"
            assert client.call("WAIT", "0", "0") == 0


def test_what_comes_while_the_functions_are_loaded_again_waits_for_nobody():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(Connection(daemon.port, timeout_s=5)) for _ in range(10)]
        assert [client.call("VALQ.PUSH", "q", "x") for client in clients] == [b"%d" % number for number in range(1, 11)]
        for _ in range(20):
            direct.call("FUNCTION", "FLUSH")
            for client in clients:
                client.send("VALQ.PUSH", "q", "x")
                with Connection(valkey.port):  # some time goes by
                    pass
            assert all(isinstance(client.read(), bytes) for client in clients)


@contextlib.contextmanager
def one_waits(*login):
    """A connection of a backend, and two clients of its daemon: one waits in queue q."""
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as waiting,
        Connection(daemon.port, timeout_s=5) as pushing,
    ):
        if login:
            direct.call("ACL", "SETUSER", login[0], "on", f">{login[1]}", "~*", "+@all")
            for client in (waiting, pushing):
                assert client.call("AUTH", *login) == b"OK"
        pushing.call("VALQ.CREATE", "q")
        waiting.send("VALQ.POP", "q", "BLOCK", "0")
        blocked(pushing, "q")
        yield direct, waiting, pushing


def places_again(direct, waiting, pushing):
    """Connections are taken again: all goes on."""
    direct.call("CONFIG", "SET", "maxclients", "1000")
    until(lambda: isinstance(pushing.call("VALQ.PUSH", "q", "hello"), bytes), 5, "taken again")
    assert as_map(waiting.read())[b"body"] == b"hello"


def test_a_users_clients_stay_when_their_lane_is_turned_away():
    with one_waits("u", "pw") as (direct, waiting, pushing):
        direct.call("CONFIG", "SET", "maxclients", "1")
        direct.call("CLIENT", "KILL", "USER", "u")
        until(lambda: "NOBACKEND" in str(pushing.call("VALQ.PUSH", "q", "x")), 5, "gone")
        places_again(direct, waiting, pushing)


def test_what_is_pushed_while_a_users_lane_is_down_comes_when_it_is_up():
    with one_waits("u", "pw") as (direct, waiting, pushing), Connection(pushing.socket.getpeername()[1]) as other:
        assert other.call("PING") == b"PONG"
        direct.call("CONFIG", "SET", "maxclients", "1")
        direct.call("CLIENT", "KILL", "USER", "u")
        until(lambda: "NOBACKEND" in str(pushing.call("VALQ.LIST")), 5, "gone")
        assert other.call("VALQ.PUSH", "q", "hello") == b"1"
        direct.call("CONFIG", "SET", "maxclients", "1000")
        assert as_map(waiting.read())[b"body"] == b"hello"


def test_a_backend_that_turns_connections_away_is_one_that_is_gone():
    with one_waits() as (direct, waiting, pushing):
        direct.call("CONFIG", "SET", "maxclients", "1")
        direct.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        turned_away = errors_of_connections(direct)
        refusals = {str(pushing.call("VALQ.PUSH", "q", "x")) for _ in range(50)}
        assert all(refusal.startswith("NOBACKEND") for refusal in refusals), refusals
        until(lambda: errors_of_connections(direct) > turned_away + 1, 5, "turned away again and again")
        refusals = {str(pushing.call("VALQ.PUSH", "q", "x")) for _ in range(50)}
        assert all(refusal.startswith("NOBACKEND") for refusal in refusals), refusals
        assert not any("may have been applied" in refusal for refusal in refusals)
        places_again(direct, waiting, pushing)


def errors_of_connections(direct) -> int:
    """Connections that Valkey has turned away."""
    return int(direct.call("INFO", "stats").partition(b"rejected_connections:")[2].split()[0])


@pytest.mark.parametrize(
    "command", [("HELLO", "3"), ("PING",), ("SELECT", "1"), ("AUTH", "default", "x"), ("GET", "k"), ("INFO",)]
)
def test_clients_are_closed_as_by_a_valkey_that_has_stopped_if_they_are_to_be(command):
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url, backend_loss="close"))
        waiting, popping, idle, working = [stack.enter_context(Connection(daemon.port)) for _ in range(4)]
        waiting.send("BLPOP", "k", "0")
        for client in (popping, idle):
            assert client.call("GET", "k") is None
        popping.send("VALQ.POP", "q", "BLOCK", "0")
        assert working.call("VALQ.CREATE", "q") == b"OK"
        blocked(working, "q", 1)
        valkey.kill()
        gone(daemon)
        for client in (waiting, idle):
            with pytest.raises(ConnectionResetError):
                client.read()
        with Connection(daemon.port) as coming, pytest.raises(ConnectionResetError):
            coming.call(*command)
        refused(working.call("VALQ.PUSH", "q", "x"), "NOBACKEND")
        valkey.start()
        back(daemon)
        working.call("VALQ.PUSH", "q", "x")
        assert as_map(popping.read())[b"body"] == b"x"


@pytest.mark.parametrize(
    "command", [("HELLO",), ("HELLO", "3"), ("PING",), ("CLIENT", "SETNAME", "a"), ("SELECT", "1")]
)
def test_whose_handshake_is_under_way_is_closed_too_if_it_is_to_be(command):
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url, backend_loss="close"))
        client = stack.enter_context(Connection(daemon.port))
        assert client.call("PING") == b"PONG"
        valkey.signal(signal.SIGSTOP)
        client.send(*command)
        with Connection(daemon.port) as beside:
            noticed(beside)
        valkey.kill()
        with pytest.raises(ConnectionResetError):
            client.read()


def test_who_works_on_queues_behind_other_commands_is_told_of_the_loss_and_not_closed():
    with Valkey() as valkey, Valqd(valkey.url, backend_loss="close") as daemon, Connection(daemon.port) as client:
        client.call("INFO")
        valkey.signal(signal.SIGSTOP)
        client.send_raw(request("INFO") + request("VALQ.PUSH", "q", "x"))
        with Connection(daemon.port) as beside:
            noticed(beside)
        valkey.kill()
        for _ in range(2):
            refused(client.read(), "NOBACKEND")


def test_clients_that_are_closed_on_a_loss_are_not_closed_on_a_wrong_password():
    with Valkey() as valkey, Valqd(valkey.url, backend_loss="close") as daemon:
        with Connection(daemon.port) as client:
            for command in (("AUTH", "nobody", "x"), ("HELLO", "3", "AUTH", "nobody", "x")):
                refused(client.call(*command), "WRONGPASS")
            assert client.call("PING") == b"PONG"
        valkey.kill()
        gone(daemon)
        with Connection(daemon.port) as coming, pytest.raises(ConnectionResetError):
            coming.call("HELLO", "3", "AUTH", "nobody", "x")
