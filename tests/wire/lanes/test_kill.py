"""CLIENT KILL by filters reaches clients that have no connection to Valkey."""

import contextlib
import re
import socket
import struct
import sys
import time

import pytest

from tests.servers import Connection, Valqd, request, until
from tests.wire.expect import blocked, bodies, noticed, stopped


@pytest.fixture(autouse=True)
def _lanes_are_back(pair):
    """Those that the test before has killed."""
    with Connection(pair[1].port) as connection:
        until(lambda: connection.call("VALQ.CREATE", "kill", "NX") == b"OK", 5, "the lane is back")


@contextlib.contextmanager
def victim(port, name="joe"):
    """A client that only said who it is; its own address."""
    with Connection(port) as connection:
        for command in (
            ("CLIENT", "SETNAME", name),
            ("CLIENT", "SETINFO", "LIB-NAME", "lib"),
            ("CLIENT", "SETINFO", "LIB-VER", "1.2"),
            ("SELECT", "9"),
        ):
            until(lambda command=command: connection.call(*command) == b"OK", 5, "its lane is back")
        yield connection, f"127.0.0.1:{connection.socket.getsockname()[1]}"


def is_closed(connection) -> bool:
    try:
        connection.call("PING")  # its lane may have been killed: an answer it is
    except ConnectionError:
        return True
    return False


def kill(port, *filters):
    """The reply to a CLIENT KILL of another client."""
    with Connection(port) as killer:
        reply = killer.call("CLIENT", "KILL", *filters)
        return str(reply) if isinstance(reply, Exception) else reply


FILTERS = [
    "NAME joe", "NAME jim", "NAME jim NAME joe", "name joe", "NOT-NAME joe", "NOT-NAME jim", "NAME",
    "LIB-NAME lib", "LIB-NAME bil", "NOT-LIB-NAME lib", "LIB-VER 1.2", "LIB-VER 1.3", "LIB-NAME lib LIB-VER 1.3",
    "DB 9", "DB 0", "NOT-DB 9", "NOT-DB 0", "USER default", "NOT-USER default",
    "TYPE normal", "TYPE pubsub", "TYPE replica TYPE normal", "NOT-TYPE normal",
    "FLAGS N", "FLAGS O FLAGS N", "FLAGS b", "NOT-FLAGS b", "NOT-FLAGS N", "CAPA r", "NOT-CAPA r",
    "IP 127.0.0.1", "IP 127.0.0.2", "NOT-IP 127.0.0.1", "NOT-IP 1.2.3.4", "ADDR {addr}", "NOT-ADDR {addr}",
    "ADDR 127.0.0.1:1", "LADDR 127.0.0.1:{port}", "LADDR 127.0.0.1:1",
    "ID 999999999", "NOT-ID 999999999", "NOT-ID 999999998 999999999 NAME joe", "NAME joe NONE such",
    "NAME joe SKIPME no", "NAME joe SKIPME maybe", "NAME joe TYPE normal DB 9 LIB-NAME lib USER default",
]  # fmt: skip


def test_an_id_of_many_digits_is_refused(pair):
    for server in pair:
        with Connection(server.port) as killer:
            assert str(killer.call("CLIENT", "KILL", "ID", "9" * 5000)).startswith("ERR ")
            assert killer.call("PING") == b"PONG"


@pytest.mark.parametrize("filters", FILTERS)
def test_it_is_killed_by_the_filters_that_would_kill_it_in_valkey(pair, filters):
    ends = []
    for server in pair:
        with victim(server.port) as (client, addr):
            reply = kill(server.port, *filters.format(addr=addr, port=server.port).split())
            killed = is_closed(client)
            ends.append((killed, reply if isinstance(reply, str) else reply >= killed))  # lanes are counted, too
    assert ends[0] == ends[1]


def test_it_is_killed_by_its_age_and_by_how_long_it_has_been_idle(pair):
    ages = ("MAXAGE 3600", "MAXAGE 2", "IDLE 3600", "IDLE 2", "IDLE 3600 IDLE 2", "MAXAGE 2 IDLE 2")
    names = [f"joe{number}" for number in range(len(ages))]
    with contextlib.ExitStack() as stack:
        victims = {server: [stack.enter_context(victim(server.port, name))[0] for name in names] for server in pair}
        last = stack.enter_context(Connection(pair[0].port))

        def age_s():
            return int(re.search(rb" age=(\d+) ", last.call("CLIENT", "INFO"))[1])

        until(lambda: age_s() > 2, 10, "all are over 2 s old: Valkey counts whole seconds")
        ends = []
        for server in pair:
            assert not is_closed(victims[server][-1])  # old, but not idle
            for name, age in reversed(list(zip(names, ages, strict=True))):  # first the one that has just asked
                kill(server.port, "NAME", name, *age.split())
            ends.append([is_closed(client) for client in victims[server]])
    assert ends[0] == ends[1]


def test_who_has_just_asked_is_not_idle_though_nothing_was_written_to_it_for_long(pair, beside, queue):
    valkey, daemon = pair
    beside.call("VALQ.CREATE", queue)
    sets, waits = request("SET", queue, "1"), request("VALQ.POP", queue, "BLOCK", "0")
    with contextlib.ExitStack() as stack:
        clients, killers = (
            [stack.enter_context(Connection(daemon.port, timeout_s=5)) for _ in range(4)] for _ in range(2)
        )
        for client, killer in zip(clients, killers, strict=True):
            client.call("PING")
            killer.call("CLIENT", "ID")
        time.sleep(1)  # Valkey takes whole seconds, and no 0
        with stopped(valkey):  # so that what was asked last and CLIENT KILL are answered together
            for client, asked in zip(clients, (waits, sets + waits, sets, b""), strict=True):
                client.send_raw(asked)
            noticed(beside)
            for client, killer in zip(clients, killers, strict=True):
                port = client.socket.getsockname()[1]
                killer.send("CLIENT", "KILL", "ADDR", f"127.0.0.1:{port}", "IDLE", "1")
            noticed(beside)
        knows_idle = [killer.read() for killer in killers] == [0, 0, 0, 1]  # Valkey 8.0 does not
        for number in range(2):
            beside.call("VALQ.PUSH", queue, number)
        assert [is_closed(client) for client in clients] == [False, False, False, knows_idle]


def test_a_client_that_was_gone_before_it_was_accepted_is_no_trouble_to_who_kills(pair, beside):
    with Connection(pair[1].port) as killer:
        killer.call("CLIENT", "ID")
        for _ in range(10):
            killer.send("CLIENT", "KILL", "TYPE", "pubsub")
            for _ in range(3):
                gone = socket.create_connection(("127.0.0.1", pair[1].port))
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # by a reset
                gone.close()
            assert killer.read() == 0


def own_id(client) -> int:
    fields = client.call("HELLO")
    return fields[fields.index(b"id") + 1]


def test_it_is_killed_by_the_id_that_hello_gave(pair):
    with Connection(pair[1].port) as client, Connection(pair[1].port) as other:
        number = own_id(client)
        assert number > 10**12, "Valkey's own ids are not to be taken for it"
        assert kill(pair[1].port, "ID", number) == 1
        assert is_closed(client)
        assert not is_closed(other)


def test_who_may_not_kill_kills_nobody(pair, direct):
    assert direct.call("ACL", "SETUSER", "meek", "on", "nopass", "+@all", "-client|kill", "~*") == b"OK"
    with victim(pair[1].port) as (client, _), Connection(pair[1].port) as killer:
        assert killer.call("AUTH", "meek", "x") == b"OK"
        assert "NOPERM" in str(killer.call("CLIENT", "KILL", "NAME", "joe"))
        assert not is_closed(client)


def test_exec_kills_not_the_command_that_is_queued(pair):
    with victim(pair[1].port) as (client, _), Connection(pair[1].port) as killer:
        number = own_id(client)
        assert killer.call("MULTI") == b"OK"
        assert killer.call("CLIENT", "KILL", "ID", number) == b"QUEUED"
        assert killer.call("ECHO", "x") == b"QUEUED"
        assert not is_closed(client)
        assert killer.call("EXEC") == [1, b"x"]
        assert is_closed(client)


def test_a_killed_worker_takes_nothing_more(pair, beside):
    with Connection(pair[1].port) as worker:
        number = own_id(worker)
        worker.send("VALQ.POP", "kill", "BLOCK", "20000")
        blocked(beside, "kill", 1)
        assert kill(pair[1].port, "ID", number + 1000) == 0
        assert kill(pair[1].port, "ID", number) == 1
        with pytest.raises(ConnectionError):
            worker.read()
    assert beside.call("VALQ.PUSH", "kill", "m") == b"1"
    assert bodies(beside.call("VALQ.POP", "kill", "COUNT", "9")) == [b"m"]


def test_a_subscriber_in_resp3_kills_too(pair):
    with Connection(pair[1].port) as client, Connection(pair[1].port, 3) as killer:
        number = own_id(client)
        killer.send("SUBSCRIBE", "ch")
        killer.read()
        assert killer.call("CLIENT", "KILL", "ID", number) == 1
        assert is_closed(client)


def test_clients_of_a_unix_socket_are_killed_whatever_name_their_end_has(valkey, tmp_path):
    path = str(tmp_path / "s")

    @contextlib.contextmanager
    def local(name):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            if name is not None:
                client.bind(name)
            client.connect(path)
            client.sendall(request("CLIENT", "SETNAME", "local"))
            assert client.recv(10) == b"+OK\r\n"
            yield client

    names = [None, str(tmp_path / "c"), *([""] if sys.platform == "linux" else [])]  # the last: an abstract one
    with Valqd(valkey.url, wait=False, listen=f"unix:{path}") as daemon, contextlib.ExitStack() as stack:
        until(lambda: f" on unix:{path}, " in daemon.output(), 10, "it listens")
        clients = [stack.enter_context(local(name)) for name in names]
        with local(None) as killer:
            killer.sendall(request("CLIENT", "ID"))
            assert killer.recv(10).startswith(b":")
            killer.sendall(request("CLIENT", "KILL", "ADDR", f"{path}:0"))
            assert killer.recv(10) == b":%d\r\n" % len(names)
        assert [client.recv(10) for client in clients] == [b""] * len(names)
