"""What is not ours cannot be told from Valkey: the same bytes come back, however the request is cut."""

import contextlib
import re
import select
import signal
import socket
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import Connection, Valkey, Valqd, request, until
from tests.wire.expect import SPEAKS_S

HELLO3 = request("HELLO", "3")


def said(line):
    """Commands, written as ``GET a | PING``."""
    return b"".join(request(*command.split()) for command in line.split("|"))


SCRIPTS = {
    "strings": request("SET", "a", "1") + request("GET", "a") + request("INCR", "a") + request("GET", "none"),
    "inline": b'SET a "x y"\r\nGET a\r\n\r\nget a\n' + request("GET", "a"),
    "resp3": HELLO3 + request("HSET", "h", "f", "v") + request("HGETALL", "h") + request("SMEMBERS", "none"),
    "errors": request("GET") + request("NOSUCH", "a") + request("SET", "a", "b", "c") + request("LPUSH", "h2", "x")
    + request("GET", "h2"),
    "transaction": request("MULTI") + request("SET", "t", "1") + request("INCR", "t") + request("EXEC")
    + request("MULTI") + request("NOSUCH") + request("EXEC") + request("MULTI") + request("DISCARD")
    + request("WATCH", "t") + request("SET", "t", "5") + request("MULTI") + request("GET", "t") + request("EXEC"),
    "blocking": request("RPUSH", "l", "x") + request("BLPOP", "l", "1") + request("BLPOP", "l", "0.05")
    + request("PING"),
    "pubsub": request("SUBSCRIBE", "c1", "c2") + request("PING") + request("GET", "a")
    + request("UNSUBSCRIBE", "c2", "c1") + request("GET", "a"),
    "pubsub resp3": HELLO3 + request("SUBSCRIBE", "c1") + request("GET", "a") + request("UNSUBSCRIBE", "c1")
    + request("PING"),
    "reply off": request("CLIENT", "REPLY", "OFF") + request("SET", "r", "1") + request("CLIENT", "REPLY", "ON")
    + request("GET", "r") + request("CLIENT", "REPLY", "SKIP") + request("GET", "r") + request("PING"),
    "databases": request("SELECT", "3") + request("SET", "only3", "1") + request("DBSIZE") + request("SELECT", "99")
    + request("SELECT", "0") + request("EXISTS", "only3"),
    "names": request("CLIENT", "SETNAME", "joe") + request("CLIENT", "GETNAME") + request("CLIENT", "SETNAME", "a b")
    + request("ECHO", "hi") + request("PING", "x") + request("PING", "x", "y"),
    # Before 9.0 Valkey has no reply for an AUTH that fails behind another reply: each comes first here.
    "auth": request("AUTH", "nobody", "wrong") + request("AUTH", "a", "b", "c") + request("HELLO", "9"),
    "auth without need": request("AUTH", "wrong") + request("HELLO", "3", "FROB"),
    "auth by hello": request("HELLO", "3", "AUTH", "nobody", "x") + request("PING"),
    "hello behind others": said("UNWATCH | HELLO 3 | UNSUBSCRIBE c | SUBSCRIBE c | GET none | PING"),
    "skip multi": said("CLIENT REPLY SKIP | MULTI | SET a 1 | EXEC | GET a"),
    "pubsub back to resp2": said("HELLO 3 | SUBSCRIBE c | GET none | HELLO 2 | CLIENT REPLY SKIP | PING | GET a"),
    "skip wait": said("SET a 1 | WATCH a | CLIENT REPLY SKIP | WAIT 0 1 | GET a | WAIT 0 1 | PING"),
    "skip hello": said("CLIENT REPLY SKIP | HELLO 3 | UNSUBSCRIBE c | GET none | PING"),
    "skip reset": said("HELLO 3 | CLIENT REPLY SKIP | RESET | HGETALL none | PING"),
    "skip unsubscribe": said("CLIENT REPLY SKIP | UNSUBSCRIBE c | GET none | PING"),
    "unsubscribe behind reply off": said(
        "GET a | CLIENT REPLY OFF | SUNSUBSCRIBE | GET a | CLIENT REPLY ON | GET a | UNSUBSCRIBE c | GET none"
    ),
    "skip subscribe": said("HELLO 3 | CLIENT REPLY SKIP | SUBSCRIBE c | GET none | PING"),
    "reset behind reply off": said("AUTH default x | CLIENT REPLY OFF | RESET | PING"),
    "reset behind a silent command": said("CLIENT REPLY SKIP | GET none | CLIENT REPLY OFF | RESET | PING"),
    "reply off behind reset": said("WATCH a | RESET | CLIENT REPLY OFF | GET a | SUBSCRIBE c"),
    "reset of a subscriber": said("SUBSCRIBE c | RESET | PUNSUBSCRIBE | CLIENT REPLY ON | CLIENT REPLY SKIP | PING")
    + said("GET a"),
    "reply off is refused": said("SET a 1 | SUBSCRIBE c | CLIENT REPLY OFF | WAIT 0 1 | PING | UNSUBSCRIBE | GET a"),
    "select and auth behind reply off": said("CLIENT REPLY OFF | SELECT 100 | AUTH no no | CLIENT REPLY ON | PING"),
    "select behind skip": said("SELECT 2 | CLIENT REPLY SKIP | SELECT 100 | PING | SET two 1 | DBSIZE"),
    "refused subscribe": said("SUBSCRIBE | SELECT 1 | SET a 1 | SUBSCRIBE c | GET a | UNSUBSCRIBE c | GET a"),
    "no database": said("SELECT 01 | SELECT 1 | SELECT 007 | SET a 1 | SELECT 0 | EXISTS a"),
    "refused sync": said("SYNC x | RESET | GET none | PSYNC | GET none"),
    "large unsubscribe": said("SUBSCRIBE c | UNSUBSCRIBE " + "x" * 40_000 + " y | UNSUBSCRIBE c | GET none | PING"),
    "large unsubscribe resp3": said("HELLO 3 | UNSUBSCRIBE " + "x" * 40_000 + " | SUBSCRIBE c | PING | UNSUBSCRIBE c")
    + said("GET none"),
    "many unsubscribed": said("GET a | PUNSUBSCRIBE " + "a b c " * 8000 + " | SELECT 1 | GET a | RESET | GET a"),
    "unsubscribe and wait": said("GETDEL l | UNSUBSCRIBE " + " ".join(["x" * 900] * 60) + " | WAIT " + "x" * 20_000),
    "reset": request("SELECT", "2") + request("MULTI") + request("RESET") + request("DBSIZE"),
    "large": request("SET", "big", b"\r\n\0" * 60_000) + request("GET", "big") + request("APPEND", "big", "x"),
    "quit": request("SET", "a", "2") + request("QUIT") + request("GET", "a"),
    "unbalanced quotes": request("PING") + b'SET "a\r\n' + request("PING"),
    "bad multibulk": request("PING") + b"*x\r\n" + request("PING"),
    "bad bulk": request("SET", "a", "1") + b"*2\r\n$3\r\nGET\r\n:1\r\n" + request("PING"),
    "simple string for a bulk": request("GET", "a") + b"*2\r\n$3\r\nGET\r\n+abc\r\n" + request("PING"),
    "negative bulk": b"*2\r\n$3\r\nGET\r\n$-5\r\n",
    "huge announcement": b"*2\r\n$3\r\nGET\r\n$2147483648\r\n",
    "garbage": b"\xff\xfe garbage" * 7000,
}  # fmt: skip
CLOSING = {"quit", "unbalanced quotes", "bad multibulk", "bad bulk", "simple string for a bulk", "negative bulk",
           "huge announcement", "garbage"}  # fmt: skip


@pytest.fixture(scope="module")
def pair():
    """Two Valkeys alike, one of them behind a valqd."""
    at_once = ("--repl-diskless-sync-delay", "0")
    with Valkey() as plain, Valkey(*at_once) as behind, Valqd(behind.url) as daemon:
        yield plain, behind, daemon


def without_ids(data: bytes) -> bytes:
    """The ids of connections, which HELLO tells, differ."""
    return re.sub(rb"(\$2\r\nid\r\n):\d+", rb"\1:ID", data)


CLOSED = b"(closed)"


def converse(port: int, chunks, closes: bool, expected: int | None = None) -> bytes:
    """Send the chunks; all that comes back, with CLOSED at the end, or until a connection that stays is quiet."""
    with Connection(port) as connection, Connection(port) as beside:
        connection.socket.settimeout(5 if closes or expected else 0.25)
        got, is_quiet = b"", False
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                connection.send_raw(chunk)
        while not (is_quiet or got.endswith(CLOSED)):
            if expected is not None and len(without_ids(got)) >= expected:
                connection.socket.settimeout(0.02)  # and no more than that
            try:
                got += next_bytes(connection)
            except TimeoutError:
                is_quiet = closes or expected is not None or is_still(beside, connection)
        return without_ids(got)


def is_still(beside, connection):
    """Whether the server has been around its loop, and nothing has come by that: it is not the machine that stalls."""
    for _ in range(3):
        beside.call("PING")
    return select.select([connection.socket], [], [], 0)[0] == []


def next_bytes(connection: Connection) -> bytes:
    try:
        return connection.socket.recv(1 << 20) or CLOSED
    except ConnectionError:
        return CLOSED


def fresh(*servers):
    for server in servers:
        with Connection(server.port) as connection:
            connection.call("FLUSHALL")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_bytes_come_back(pair, name):
    plain, behind, daemon = pair
    fresh(plain, behind)
    closes = name in CLOSING
    expected = converse(plain.port, [SCRIPTS[name]], closes)
    assert expected.endswith(CLOSED) == closes
    assert expected.removesuffix(CLOSED)
    assert converse(daemon.port, [SCRIPTS[name]], closes, None if closes else len(expected)) == expected


STEADY = ["strings", "inline", "resp3", "errors", "transaction", "databases", "reset", "names", "reply off"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.sampled_from(STEADY), st.data())
def test_any_chunking_gives_the_same_bytes(pair, name, data):
    plain, behind, daemon = pair
    script = SCRIPTS[name]
    cuts = sorted(data.draw(st.lists(st.integers(1, len(script) - 1), max_size=5, unique=True)))
    chunks = [script[a:b] for a, b in zip([0, *cuts], [*cuts, len(script)], strict=True)]
    fresh(plain, behind)
    if name not in _KNOWN:
        _KNOWN[name] = converse(plain.port, [script], False)
    assert converse(daemon.port, chunks, False, len(_KNOWN[name])) == _KNOWN[name]


_KNOWN: dict[str, bytes] = {}


def test_a_frame_cut_at_every_byte(pair):
    _, _, daemon = pair
    whole = request("VALQ.PUSH", "cut", "a\r\nb") + request("GET", "none") + b"PING\r\n"
    with Connection(daemon.port) as connection:
        for at in range(1, len(whole)):
            connection.send_raw(whole[:at])
            time.sleep(0.0005)
            connection.send_raw(whole[at:])
            assert connection.read() == b"%d" % at
            assert connection.read() is None
            assert connection.read() == b"PONG"


def test_messages_reach_subscribers_and_valq_works_beside_them(pair):
    _, _, daemon = pair
    with Connection(daemon.port, 3) as subscriber, Connection(daemon.port) as publisher:
        subscriber.send("SUBSCRIBE", "news")
        assert subscriber.read()[0] == b"subscribe"
        assert publisher.call("PUBLISH", "news", "hello") == 1
        assert subscriber.read() == [b"message", b"news", b"hello"]
        assert subscriber.call("VALQ.PUSH", "beside", "x") == b"1"
        assert subscriber.call("VALQ.POP", "beside")[b"body"] == b"x"
        subscriber.send("VALQ.POP", "beside", "BLOCK", "2000")
        publisher.call("VALQ.PUSH", "beside", "y")
        assert subscriber.read()[b"body"] == b"y"


def test_monitor_shows_what_clients_send_and_nothing_of_the_daemons_own(pair):
    _, valkey, daemon = pair
    with Connection(daemon.port) as monitor, Connection(valkey.port) as direct, Connection(daemon.port) as other:
        other.call("SELECT", "3")
        other.call("VALQ.CREATE", "watched", "60")  # now there is something to sweep
        assert monitor.call("MONITOR") == b"OK"
        other.send("BLPOP", "seen", "0")  # opens a lane, in database 3
        shown = [monitor.read()]
        time.sleep(SPEAKS_S)
        direct.call("SELECT", "3")
        direct.call("RPUSH", "seen", "1")
        assert other.read() == [b"seen", b"1"]
        shown = [line.split(b"] ")[1] for line in (*shown, monitor.read(), monitor.read())]
        assert shown == [b'"BLPOP" "seen" "0"', b'"SELECT" "3"', b'"RPUSH" "seen" "1"']
        looks_like_one = b'a\n+1700000000.1 [0 127.0.0.1:5] "sELECT" "0"\nb'
        assert monitor.call("ECHO", looks_like_one) == looks_like_one
        assert b'] "ECHO" "a' in monitor.read()


def test_tracking_pushes_arrive(pair):
    _, _, daemon = pair
    with Connection(daemon.port, 3) as tracking, Connection(daemon.port) as other:
        assert tracking.call("CLIENT", "TRACKING", "ON") == b"OK"
        tracking.call("GET", "tracked")
        other.call("SET", "tracked", "1")
        assert tracking.read() == [b"invalidate", [b"tracked"]]


def test_a_large_push_is_not_cut_by_an_answer_from_the_other_lane(pair):
    _, valkey, daemon = pair
    body, messages = b"m" * (1 << 20), 40

    def publish():
        with Connection(valkey.port) as direct:
            for _ in range(messages):
                direct.call("PUBLISH", "large", body)

    with Connection(valkey.port) as direct, Connection(daemon.port) as client:
        direct.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
        client.call("HELLO", "3")
        client.call("SUBSCRIBE", "large")
        publisher = threading.Thread(target=publish)
        publisher.start()
        received = answers = open_calls = 0
        while received < messages or open_calls:
            while received < messages and open_calls < 8:
                client.send("VALQ.PUSH", "beside-a-large-push", "x")
                open_calls += 1
            reply = client.read()
            if isinstance(reply, bytes):
                assert reply.isdigit()
                open_calls -= 1
                answers += 1
            else:
                assert reply == [b"message", b"large", body]
                received += 1
        publisher.join()
        assert answers


def test_reply_off_silences_valq_commands_too(pair):
    _, _, daemon = pair
    with Connection(daemon.port) as connection:
        connection.send("CLIENT", "REPLY", "OFF")
        connection.send("VALQ.PUSH", "silent", "x")
        connection.send("VALQ.NONSENSE")
        connection.send("VALQ.HELP")
        assert connection.call("CLIENT", "REPLY", "ON") == b"OK"
        connection.send("CLIENT", "REPLY", "SKIP")
        connection.send("VALQ.PUSH", "silent", "y")
        assert connection.call("PING") == b"PONG"
        assert connection.call("VALQ.PUSH", "silent", "z") == b"3"


def test_pipelined_mixtures_are_answered_in_order(pair):
    _, _, daemon = pair
    with Connection(daemon.port) as connection:
        expected = []
        stream = b""
        for number in range(200):
            stream += request("VALQ.PUSH", "mixed", number)
            expected.append(b"%d" % (number + 1))
            if number % 3 == 0:
                stream += request("SET", f"k{number}", number) + request("APPEND", f"k{number}", "!")
                expected += [b"OK", len(str(number)) + 1]
            if number % 7 == 0:
                stream += request("VALQ.PUSH", "mixed")
                expected.append("ERR wrong number of arguments for 'valq.push' command")
            if number % 11 == 0:
                stream += (
                    request("MULTI") + request("VALQ.ACK", "mixed", number + 1) + request("PING") + request("EXEC")
                )
                expected += [b"OK", b"QUEUED", b"QUEUED", [1, b"PONG"]]
        connection.send_raw(stream)
        replies = [connection.read() for _ in expected]
        assert [str(reply) if isinstance(reply, Exception) else reply for reply in replies] == expected


def test_a_bad_valq_command_in_a_transaction_aborts_it(pair):
    _, _, daemon = pair
    with Connection(daemon.port) as connection:
        assert connection.call("MULTI") == b"OK"
        assert connection.call("VALQ.PUSH", "aborted", "x") == b"QUEUED"
        assert str(connection.call("VALQ.PUSH", "aborted")) == "ERR wrong number of arguments for 'valq.push' command"
        assert str(connection.call("EXEC")).startswith("EXECABORT")
        assert str(connection.call("VALQ.INFO", "aborted")).startswith("NOQUEUE")


def test_a_pause_of_writes_does_not_hold_up_the_daemon_itself():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(daemon.port) as client,
        Connection(valkey.port) as direct,
    ):
        client.call("VALQ.PUSH", "any", "x")  # there is a queue to look after, and nothing to do, which would be held
        began = sweeps(direct)
        until(lambda: sweeps(direct) > began + 2, what="a new daemon has looked at every queue")
        direct.call("CLIENT", "PAUSE", "10000", "WRITE")
        try:
            calls = sweeps(direct)
            until(lambda: sweeps(direct) > calls + 2, 5, "the sweeper goes on asking")
            assert b"blocked_clients:0\r\n" in direct.call("INFO", "clients")
        finally:
            direct.call("CLIENT", "UNPAUSE")


def sweeps(direct):
    return int(direct.call("INFO", "commandstats").partition(b"cmdstat_fcall_ro:calls=")[2].split(b",")[0] or 0)


@contextlib.contextmanager
def replicated(pair):
    """A client of the daemon, a replica of its Valkey, and a client of the replica."""
    _, behind, daemon = pair
    with (
        Valkey("--replicaof", f"127.0.0.1 {behind.port}") as replica,
        Connection(daemon.port) as connection,
        Connection(replica.port) as direct,
    ):
        until(lambda: b"master_link_status:up" in direct.call("INFO", "replication"), 10, "replica")
        yield connection, replica, direct


@pytest.mark.parametrize(
    ("command", "replies"), [("VALQ.PUSH", (b"1", b"2", b"3")), ("SET", (b"OK",) * 3)], ids=["push", "relayed"]
)
def test_wait_does_not_count_a_replica_that_has_not_got_the_write(pair, command, replies):
    write = (command, "behind", "x")
    with replicated(pair) as (connection, replica, _), Connection(pair[2].port) as clean:
        assert connection.call(*write) == replies[0]
        assert connection.call("WAIT", "1", "8000") == 1
        replica.process.send_signal(signal.SIGSTOP)
        # One has a lane of its own since its WAIT, over which its SET goes; what the other writes first is relayed.
        for client, reply in zip((connection, clean), replies[1:], strict=True):
            assert client.call(*write) == reply
            assert client.call("WAIT", "1", "200") == 0
        replica.process.send_signal(signal.SIGCONT)
        assert clean.call("WAIT", "1", "8000") == 1


def test_wait_covers_a_push(pair):
    with replicated(pair) as (connection, _, direct):
        for number in range(1, 20):
            connection.send_raw(request("VALQ.PUSH", "covered", "x") + request("WAIT", "1", "8000"))
            assert connection.read() == b"%d" % number
            assert connection.read() == 1
            assert direct.call("LLEN", "valq:{covered}:log:0") == 2 * number


@pytest.mark.parametrize("between", [(), ("PING",), ("ECHO", "x"), ("CLIENT", "SETNAME", "x"), ("HELLO", "2")], ids=str)
def test_wait_covers_a_push_that_is_known_from_others(pair, between):
    """A write of its own, here the only thing that says DEL, has to go before WAIT."""
    _, behind, daemon = pair

    def fences():
        return fences_of(direct)

    with Connection(daemon.port) as other, Connection(daemon.port) as connection, Connection(behind.port) as direct:
        direct.call("CONFIG", "RESETSTAT")
        for _ in range(3):
            other.call("VALQ.PUSH", "known", "x")
        connection.call("VALQ.PUSH", "known", "x")
        if between:
            connection.call(*between)
        assert fences() == b""
        assert connection.call("WAIT", "0", "0") == 0
        assert fences() == b"1"


def fences_of(direct):
    return direct.call("INFO", "commandstats").partition(b"cmdstat_del:calls=")[2].partition(b",")[0]


@pytest.mark.parametrize("command", ["VALQ.CREATE {q}", "VALQ.PUSH {q} x PRIORITY 1", "VALQ.PURGE any"])
def test_wait_covers_any_write_and_once(pair, queue, command):
    _, behind, daemon = pair
    with Connection(daemon.port) as client, Connection(behind.port) as direct:
        client.call("VALQ.CREATE", "any", "NX")
        assert client.call("WAIT", "0", "0") == 0
        direct.call("CONFIG", "RESETSTAT")
        client.call(*command.format(q=queue).split())
        for _ in range(2):
            assert client.call("WAIT", "0", "0") == 0
        assert fences_of(direct) == b"1"


@pytest.mark.parametrize("before", [[], ["MULTI"]], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("command", ["COMMAND GETKEYS SET k", "CLIENT SETNAME", "HELLO 3 SETNAME", "ECHO", "WAIT 0"])
def test_no_part_of_a_large_command_is_run_by_itself(pair, before, command):
    large = b"x" * 40_000 + b"\r\nSET injected 1\r\n" + b"x" * 40_000
    replies = []
    for server in pair[0], pair[2]:
        with Connection(server.port) as connection, Connection(server.port) as beside:
            for word in before:
                connection.call(word)
            whole = request(*command.split(), large)
            connection.send_raw(whole[:40_000])
            for _ in range(10):  # it is read by now
                beside.call("PING")
            connection.send_raw(whole[40_000:])
            replies.append((str(connection.read()), beside.call("EXISTS", "injected"), connection.call("PING")))
    assert replies[0] == replies[1]
    assert replies[0][1] == 0


def test_idle_workers_share_one_backend_connection():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        before = len(direct.call("CLIENT", "LIST").splitlines())
        workers = [Connection(daemon.port) for _ in range(300)]
        for number, worker in enumerate(workers):
            worker.send("VALQ.POP", f"q{number % 3}")
            worker.send("PING")
        for worker in workers:
            assert worker.read() is None
            assert worker.read() == b"PONG"
        assert len(direct.call("CLIENT", "LIST").splitlines()) - before <= 1
        for worker in workers:
            worker.close()


def test_beyond_max_clients_valkeys_own_error():
    with Valkey() as valkey, Valqd(valkey.url, max_clients=3) as daemon:
        connections = [Connection(daemon.port) for _ in range(3)]
        assert [connection.call("PING") for connection in connections] == [b"PONG"] * 3
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=5) as refused:
            assert refused.recv(100) == b"-ERR max number of clients reached\r\n"
            assert refused.recv(100) == b""
        assert "clients are turned away: max_clients is 3" in daemon.output()
        for connection in connections:
            connection.close()


def test_what_valkey_says_before_it_closes_arrives_though_more_is_sent(valqd):
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", valqd.port), timeout=5) as client:
            client.sendall(b"*\0")
            with contextlib.suppress(ConnectionError):  # it may be closed for good by now
                for _ in range(300):  # Valkey refuses it at some time, and the daemon's next write to it fails
                    client.sendall(b"A" * 1024)
            assert client.recv(100).startswith(b"-ERR Protocol error")


@pytest.mark.parametrize("before", [[], ["SELECT 1"], ["HELLO 3"], ["ZCARD none"]])
def test_what_a_client_sends_right_before_it_leaves_takes_effect(pair, before):
    _, behind, daemon = pair
    sent = 0
    for number in range(50):
        with Connection(daemon.port) as client:
            for line in before:
                client.call(*line.split())
            client.send_raw(b"".join(request("XADD", "last words", "*", f"{number}", f"{part}") for part in range(3)))
        sent += 3
    with Connection(behind.port) as direct:
        direct.call("SELECT", "1" if before == ["SELECT 1"] else "0")
        until(lambda: direct.call("XLEN", "last words") == sent, what="all sent has taken effect")
        direct.call("FLUSHALL")
        until(lambda: b"cmd=xadd" not in direct.call("CLIENT", "LIST"), what="their lanes are closed")


def test_client_info_in_another_database_shows_no_more_than_itself(pair):
    plain, _, daemon = pair
    found = []
    for port in (plain.port, daemon.port):
        with Connection(port) as client:
            client.call("SELECT", "1")
            info = dict(field.split(b"=", 1) for field in client.call("CLIENT", "INFO").split())
            found.append((info[b"db"], info[b"qbuf"], info[b"cmd"]))
    assert found[0] == found[1]
    assert found[0][0] == b"1"
