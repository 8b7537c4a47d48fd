"""What Valkey refuses has no effect, and the session must not believe that it had."""

import contextlib
import socket

import pytest

from tests.servers import Connection, Valkey, Valqd, request
from tests.wire.expect import exact, refused

#: What each user lacks.
USERS = {
    "nomulti": "-multi", "nodiscard": "-discard", "nounsubscribe": "-unsubscribe", "noreply": "-client|reply",
    "noquit": "-quit", "noreplconf": "-replconf",
}  # fmt: skip


@pytest.fixture(scope="module")
def pair():
    """Two Valkeys alike, one of them behind a valqd."""
    with Valkey() as plain, Valkey() as behind, Valqd(behind.url) as daemon:
        for valkey in (plain, behind):
            with Connection(valkey.port) as admin:
                for user, rule in USERS.items():
                    rules = ("on", ">pw", "allkeys", "allchannels", "+@all", rule)
                    assert admin.call("ACL", "SETUSER", user, *rules) == b"OK"
        yield plain, behind, daemon


def said(line):
    """Commands, written as ``GET a | PING``."""
    return b"".join(request(*command.split()) for command in line.split(" | "))


CLOSED = b"(closed)"


def answers(port, user, writes, expected=None):
    """What comes back for each write until it is quiet, with CLOSED at the end of all; ``expected`` may take longer."""
    with Connection(port) as connection, Connection(port) as beside:
        if user:
            assert connection.call("AUTH", user, "pw") == b"OK"
        found = []
        for number, write in enumerate(writes):
            connection.send_raw(said(write))
            for _ in range(0 if expected else 3):  # it is not the machine that stalls
                beside.call("PING")
            got = b""
            with contextlib.suppress(TimeoutError):
                while not got.endswith(CLOSED):
                    wait_s = 0.3 if expected is None else 5 if len(got) < len(expected[number]) else 0.1
                    connection.socket.settimeout(wait_s)
                    try:
                        got += connection.socket.recv(1 << 16) or CLOSED
                    except ConnectionError:
                        got += CLOSED
            found.append(got)
        return found


@pytest.mark.parametrize(
    ("user", "writes"),
    [
        ("nomulti", ["MULTI | SELECT 99 | EXEC | PING"]),
        ("nomulti", ["MULTI | AUTH default wrong | EXEC | PING"]),
        ("nomulti", ["GET a", "MULTI | SELECT 3 | EXEC | CLIENT NO-EVICT ON", "DBSIZE"]),
        ("nounsubscribe", ["UNSUBSCRIBE a b", "PING", "GET a | SELECT 99 | PING"]),
        ("", ["GET a", "MULTI | UNSUBSCRIBE a b | EXEC | LPUSH none x | HGET none y | SELECT 99 | PING"]),
        ("", ["MULTI | UNSUBSCRIBE a b | EXEC | PING | SELECT 99", "PING"]),
        ("noreply", ["CLIENT REPLY SKIP", "GET a", "PING"]),
        ("noreply", ["GET a | CLIENT REPLY SKIP | GET a | PING", "SELECT 99 | PING"]),
        ("", ["GET a | CLIENT REPLY SKIP | GET a | PING", "SELECT 99 | PING"]),
        ("", ["MULTI | WATCH k | SELECT 1 | EXEC | PING", "SELECT 99 | PING"]),
        ("", ["MULTI | MULTI | SELECT 99 | SELECT 1 | EXEC | PING", "EXEC"]),
        ("nodiscard", ["MULTI | SET a b | DISCARD", "SET a b", "EXEC", "GET a"]),
        ("", ["GET a", "MULTI | SET a b | DISCARD | GET a", "DISCARD"]),
        ("", ["REPLCONF ACK 0", "PING", "REPLCONF GETACK *", "SELECT 99 | PING", "REPLCONF capa eof | PING"]),
        ("", ["REPLCONF ACK | PING", "REPLCONF ACK | SELECT 1 | GET a", "REPLCONF bogus 1 ACK 0 | SELECT 99 | PING"]),
        ("noreplconf", ["REPLCONF ACK 0 | PING", "REPLCONF ACK 0 | SELECT 99 | PING", "GET a | REPLCONF GETACK *"]),
        ("", ["GET a | CLIENT REPLY SKIP | REPLCONF ACK 0 | PING", "SELECT 99 | PING"]),
        ("", ["GET a", "QUIT | NOSUCH | SET afterquit 1"]),
        ("", ["MULTI | QUIT | SET afterquit 1"]),
        ("noquit", ["GET a", "QUIT | SELECT 99 | PING"]),
    ],
)
def test_the_same_comes_back_as_from_valkey(pair, user, writes):
    plain, _, daemon = pair
    expected = answers(plain.port, user, writes)
    assert answers(daemon.port, user, writes, expected) == expected


@pytest.mark.parametrize("private", [True, False])
def test_what_follows_quit_is_not_run(pair, queue, private):
    _, behind, daemon = pair
    with Connection(daemon.port) as client, Connection(behind.port) as direct:
        if private:
            client.call("OBJECT", "ENCODING", "none")
        client.send_raw(request("QUIT") + request("VALQ.PUSH") + request("VALQ.PUSH", queue, "x"))
        assert client.read_until_closed() == b"+OK\r\n"
        assert not direct.call("EXISTS", f"valq:{{{queue}}}:queue")


@pytest.mark.parametrize("how", ["OFF", "SKIP"])
def test_a_quit_that_is_not_answered_is_one(pair, queue, how):
    _, behind, daemon = pair
    with Connection(daemon.port) as client, Connection(behind.port) as direct:
        quit_and_push = request("QUIT") + request("VALQ.PUSH", queue, "x")
        client.send_raw(request("PING") + request("CLIENT", "REPLY", how) + quit_and_push)
        assert client.read_until_closed() == b"+PONG\r\n"
        assert not direct.call("EXISTS", f"valq:{{{queue}}}:queue")


def test_what_replconf_is_refused_with_is_no_other_commands_reply(pair, queue):
    _, behind, daemon = pair
    with Connection(daemon.port) as client, Connection(behind.port) as direct:
        client.send_raw(said("REPLCONF ACK | SELECT 1 | PING"))
        refused(client.read(), "ERR syntax error")
        assert [client.read(), client.read()] == [b"OK", b"PONG"]
        assert client.call("VALQ.PUSH", queue, "x") == b"1"
        assert direct.call("SELECT", "1") == b"OK"
        assert direct.call("EXISTS", f"valq:{{{queue}}}:queue") == 1


def test_a_select_behind_a_refused_multi_moves_nobody(pair, queue):
    _, behind, daemon = pair
    with Connection(daemon.port) as client, Connection(behind.port) as direct:
        client.call("AUTH", "nomulti", "pw")
        client.send_raw(said("MULTI | SELECT 99 | COMMAND COUNT | EXEC"))
        multi, select, count, execute = (client.read() for _ in range(4))
        refused(multi, "NOPERM")
        refused(select, "ERR DB index is out of range")
        assert count > 200
        refused(execute, "ERR EXEC without MULTI")
        assert client.call("VALQ.PUSH", queue, "x") == b"1"
        assert direct.call("EXISTS", f"valq:{{{queue}}}:queue")


def test_a_refused_skip_takes_no_reply_away(pair, queue):
    _, _, daemon = pair
    with Connection(daemon.port) as client:
        client.call("AUTH", "noreply", "pw")
        client.call("VALQ.PUSH", queue, "one")
        refused(client.call("CLIENT", "REPLY", "SKIP"), "NOPERM")
        exact(client, b"$1\r\n2\r\n", "VALQ.PUSH", queue, "two")
        client.send_raw(request("CLIENT", "REPLY", "SKIP") + request("VALQ.POP", queue) + request("PING"))
        refused(client.read(), "NOPERM")
        assert client.read()[3] == b"one"
        assert client.read() == b"PONG"


@pytest.mark.parametrize(
    "line", ["AUTH noreply pw", "AUTH noreply wrong", "SELECT 1", "GET a | SELECT 1", "HELLO 2 AUTH nomulti pw"]
)
def test_a_half_closed_client_is_owed_the_answer_to_who_it_is(pair, line):
    plain, _, daemon = pair
    found = []
    for server in (plain, daemon):
        with Connection(server.port) as client:
            client.send_raw(said(line))
            client.socket.shutdown(socket.SHUT_WR)
            found.append(client.read_until_closed()[:5])
    assert found[0]
    assert found[1] == found[0]


def test_monitor_behind_another_commands_error_shows_nothing_of_the_daemons_own(pair, queue):
    _, behind, daemon = pair
    with Connection(daemon.port) as client, Connection(daemon.port) as beside, Connection(behind.port) as direct:
        beside.call("VALQ.CREATE", queue)  # there is something to sweep
        client.send_raw(said("SUBSCRIBE c | UNSUBSCRIBE c"))
        assert [client.read()[0] for _ in range(2)] == [b"subscribe", b"unsubscribe"]
        client.send_raw(said("NOSUCH | MONITOR"))
        refused(client.read(), "ERR unknown command")
        assert client.read() == b"OK"
        for _ in range(30):  # for three ticks of the sweeper
            direct.call("DEBUG", "SLEEP", "0.01")
        direct.call("ECHO", "end")
        shown = []
        while not shown or b'"end"' not in shown[-1]:
            shown.append(client.read())
        assert not [line for line in shown if b"alq" in line]


@pytest.mark.parametrize("private", [False, True])
def test_an_error_of_a_function_does_not_name_the_place(pair, queue, private):
    _, behind, daemon = pair
    with Connection(daemon.port) as client, Connection(behind.port) as direct:
        client.call("VALQ.CREATE", queue)
        direct.call("HSET", f"valq:{{{queue}}}:queue", "limits", "no table")
        if private:
            client.send_raw(request("LRANGE", queue, "0", "-1") + request("VALQ.POP", queue))
            assert client.read() == []
            error = str(client.read())
        else:
            error = str(client.call("VALQ.POP", queue))
        assert error.startswith("ERR ")
        assert "script" not in error


def test_line_ends_are_checked_as_by_valkey(pair):
    """By Valkey 9.1 more strictly than before."""
    plain, _, daemon = pair
    whole = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n"
    ends = [at for at in range(len(whole)) if whole[at : at + 2] == b"\r\n"]
    refused_at = set()
    for at in ends:
        for instead in (b"x\n", b"\rx", b"xx"):
            found = []
            for server in (plain, daemon):
                with (
                    Connection(server.port, timeout_s=10 if found else 0.5) as client,
                    Connection(server.port) as beside,
                ):
                    client.send_raw(whole[:at] + instead + whole[at + 2 :])
                    for _ in range(10):  # so that it is not the machine that stalls
                        beside.call("PING")
                    with contextlib.suppress(TimeoutError):
                        found.append(client.socket.recv(100))
            assert len(found) in (0, 2), whole[:at] + instead + whole[at + 2 :]
            assert found[:1] == found[1:], whole[:at] + instead + whole[at + 2 :]
            refused_at |= {at} if found else set()
    assert len(refused_at) > 2


def test_who_sends_what_is_no_request_and_no_more_is_told(pair):
    for server in (pair[0], pair[2]):
        with Connection(server.port, timeout_s=3) as client:
            client.send_raw(b"*1\r\n$x\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            assert client.read_until_closed() == b"-ERR Protocol error: invalid bulk length\r\n"
