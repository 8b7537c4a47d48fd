"""No client is more than its share ahead of the others, and what a lane holds unanswered is bounded."""

import contextlib
import sys

import pytest

from tests.servers import Connection, Valkey, Valqd, request
from tests.wire.expect import blocked, info, message, noticed, until_pop
from tests.wire.test_isolation import rss_kb, valkey_stopped

MIB = 1 << 20


@pytest.fixture(scope="module")
def pair():
    """A Valkey of this module's own, and a daemon."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        yield valkey, daemon


def test_a_lane_that_has_32_mib_unanswered_takes_no_more(pair, queue):
    valkey, daemon = pair
    push = request("VALQ.PUSH", queue, b"x" * MIB)
    with Connection(daemon.port) as flooding:
        flooding.call("VALQ.CREATE", queue)
        flooding.socket.settimeout(0.5)
        sent = 0
        with valkey_stopped(valkey), contextlib.suppress(TimeoutError):
            while sent < 128 * len(push):
                sent += flooding.socket.send(push[sent % len(push) :])
        assert sent < 48 * MIB  # what the sockets hold comes on top
        flooding.socket.settimeout(10)
        flooding.send_raw(push[sent % len(push) :])
        pushed = sent // len(push) + 1
        assert [flooding.read() for _ in range(pushed)] == [b"%d" % number for number in range(1, pushed + 1)]
        flooding.call("VALQ.DELETE", queue)


@pytest.mark.parametrize(("body_bytes", "most"), [(10, 32), (100_000, 1)], ids=["small replies", "after a large reply"])
def test_commands_that_are_not_merged_are_taken_in_small_shares(pair, queue, body_bytes, most):
    valkey, daemon = pair
    with Connection(daemon.port) as flooding, Connection(daemon.port) as other, Connection(daemon.port) as beside:
        other.call("VALQ.MPUSH", queue, "201", *["x"] * 200, "x" * body_bytes)
        flooding.call("VALQ.SHOW", queue, "201")
        beside.call("PING")
        with valkey_stopped(valkey):
            flooding.send_raw(b"".join(request("VALQ.CANCEL", queue, id_) for id_ in range(1, 201)))
            noticed(beside)
            other.send("VALQ.INFO", queue)
            noticed(beside)
        assert 0 < message(other.read())["cancelled_total"] <= most
        assert [flooding.read() for _ in range(200)] == [1] * 200


def test_simple_commands_are_taken_in_shares(pair, queue):
    valkey, daemon = pair
    piece = b"x" * 15_000
    with Connection(daemon.port) as flooding, Connection(daemon.port) as other, Connection(daemon.port) as beside:
        for connection in (flooding, other, beside):
            assert connection.call("GET", queue) is None
        with valkey_stopped(valkey):
            for _ in range(40):
                flooding.send("APPEND", queue, piece)
                noticed(beside)
            other.send("STRLEN", queue)
            noticed(beside)
        assert 0 < other.read() <= 5 * len(piece)  # the fifth fills 64 KiB
        assert [flooding.read() for _ in range(40)] == [len(piece) * count for count in range(1, 41)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no /proc that tells a process's memory")
@pytest.mark.parametrize("command", [("WATCH", "a"), ("SELECT", "0")])
def test_what_waits_behind_a_blocking_command_is_not_remembered_one_by_one(pair, command):
    _, daemon = pair
    pipeline = request(*command) * 10_000
    with Connection(daemon.port) as client, Connection(daemon.port) as beside:
        client.send("BLPOP", "never", "2")
        noticed(beside)
        client.socket.settimeout(0.5)
        before, sent = rss_kb(daemon.pid), 0
        with contextlib.suppress(TimeoutError):
            while sent < 8 * MIB:
                sent += client.socket.send(pipeline)
        assert rss_kb(daemon.pid) - before < 10 * 1024
        client.socket.settimeout(5)
        assert client.read() is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems cannot tell while unread bytes wait")
def test_a_waiting_client_that_left_with_much_unread_is_let_go_when_something_comes(pair, queue):
    """Else it would be asked for again and again, and every message be taken for nobody and given back."""
    with Connection(pair[1].port) as other:
        with Connection(pair[1].port) as leaving:
            leaving.send_raw(request("VALQ.POP", queue, "BLOCK", "0") + request("SET", "unread", "x" * 1000) * 200)
            blocked(other, queue)
        other.call("VALQ.PUSH", queue, "x")
        assert until_pop(other, queue)["attempts"] == 1
        blocked(other, queue, 0)
        assert info(other, queue)["delivered_total"] <= 2
