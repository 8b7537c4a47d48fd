"""A client's name is that of one connection of the backend, and of no other client's."""

import contextlib
import re
import signal
import socket
import struct

from tests.servers import Connection, until
from tests.wire.expect import noticed, refused


def test_a_clients_name_is_that_of_one_connection(pair, direct):
    def named():
        return direct.call("CLIENT", "LIST").count(b" name=joe ")

    with Connection(pair[1].port) as client:
        assert client.call("CLIENT", "SETNAME", "joe") == b"OK"
        assert client.call("CLIENT", "SETINFO", "lib-name", "lib") == b"OK"
        assert client.call("LRANGE", "none", "0", "-1") == []
        until(lambda: named() == 1, 5, "one")
        assert b" lib-name=lib " in client.call("CLIENT", "INFO")
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


def names_of(direct):
    """Of the names that tests give, those that lanes have."""
    return re.findall(rb" name=(joe|jim|ann) ", direct.call("CLIENT", "LIST"))


def test_a_name_that_was_given_anew_goes_with_its_client(pair, direct):
    with Connection(pair[1].port) as other:
        with Connection(pair[1].port) as client:
            for who, name in ((client, "joe"), (other, "ann"), (client, "jim")):
                assert who.call("CLIENT", "SETNAME", name) == b"OK"
            until(lambda: names_of(direct) == [b"jim"], 5, "the last one's")
            refused(other.call("CLIENT", "SETNAME", "a n"), "ERR")
        until(lambda: names_of(direct) == [b"ann"], 5, "the other's")
    until(lambda: names_of(direct) == [], 5, "gone")


def test_a_name_that_is_given_in_hello_is_that_of_the_lane_and_goes_with_its_client(pair, direct):
    with Connection(pair[1].port) as other:
        with Connection(pair[1].port) as client:
            for who, name in ((client, "joe"), (other, "ann"), (client, "jim")):
                assert isinstance(who.call("HELLO", "3", "SETNAME", name), dict)
                until(lambda name=name: names_of(direct) == [name.encode()], 5, "the last one's")
        until(lambda: names_of(direct) == [b"ann"], 5, "the other's")
    until(lambda: names_of(direct) == [], 5, "gone")


def test_a_name_in_hello_needs_no_right_and_leaves_nothing_in_the_log_of_refusals(pair, direct):
    direct.call("ACL", "SETUSER", "nameless", "reset", "on", ">pw", "~*", "+@all", "-client|setname")

    def named():
        return b" name=joe " in direct.call("CLIENT", "LIST")

    with Connection(pair[1].port) as client:
        assert isinstance(client.call("HELLO", "3", "AUTH", "nameless", "pw", "SETNAME", "joe"), dict)
        until(named, 5, "named")
    until(lambda: not named(), 5, "gone")
    assert b"nameless" not in str(direct.call("ACL", "LOG")).encode()


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
        beside.call("PING")  # over the same lane, behind it
        until(lambda: b" name=ghost " not in direct.call("CLIENT", "LIST"), 5, "it is gone")


def test_lanes_of_identities_that_nobody_has_any_more_are_few(pair, direct):
    """Valkey takes any password of a user that has none: each is another identity."""
    with Connection(pair[1].port) as client:
        before = len(direct.call("CLIENT", "LIST").splitlines())
        for number in range(100):
            assert client.call("AUTH", "default", f"password{number}") == b"OK"
        assert client.call("VALQ.LIST") == []
    with contextlib.ExitStack() as stack:
        for number in range(60):
            leaving = stack.enter_context(Connection(pair[1].port))
            leaving.send("AUTH", "default", f"other{number}")
    until(lambda: len(direct.call("CLIENT", "LIST").splitlines()) <= before + 40, 5, "closed")


def test_a_refused_setinfo_costs_nothing(pair, direct):
    direct.call("ACL", "SETUSER", "plain", "reset", "on", ">pw", "~*", "+@all", "-client|setinfo")
    with Connection(pair[1].port, timeout_s=5) as client:
        assert client.call("CLIENT", "SETINFO", "lib-ver", "1") == b"OK"
        assert client.call("AUTH", "plain", "pw") == b"OK"
        assert client.call("TYPE", "none") == b"none"
