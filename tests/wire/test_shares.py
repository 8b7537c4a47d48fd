"""No client is more than its share ahead of the others, and what a lane holds unanswered is bounded."""

import contextlib

import pytest

from tests.servers import LINUX_ONLY, Connection, Valkey, Valqd, peak_mib, request, rss_mib, until
from tests.wire.expect import blocked, info, message, noticed, stopped, until_pop

MIB = 1 << 20


@pytest.fixture(scope="module")
def pair():
    """A Valkey of this module's own, and a daemon."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        yield valkey, daemon


@LINUX_ONLY
def test_a_lane_that_has_32_mib_unanswered_takes_no_more(pair, queue):
    """Of all its clients together: one alone is stopped before, by its share."""
    valkey, daemon = pair
    push = request("VALQ.PUSH", queue, b"x" * MIB)
    with contextlib.ExitStack() as stack:
        beside, *clients = [stack.enter_context(Connection(daemon.port)) for _ in range(65)]
        beside.call("VALQ.CREATE", queue)

        def arrived():
            return sum(client.arrived_bytes for client in clients)

        with stopped(valkey):
            for client in clients[:32]:  # at once they would all come in together, and none be whole before the others
                client.send_raw(push)
                until(lambda client=client: client.arrived_bytes == len(push), 10, "it has come whole")
            for client in clients[32:]:
                client.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    client.send_raw(push)
            assert sum(client.sent_bytes for client in clients) > 48 * MIB
            for _ in range(20):
                noticed(beside)
            assert 32 * MIB < arrived() < 48 * MIB  # of each that it stops it has read a piece
        for client in clients:
            client.socket.settimeout(10)
            client.send_raw(push[client.sent_bytes :])
        assert sorted(int(client.read()) for client in clients) == list(range(1, 65))
        beside.call("VALQ.DELETE", queue)


@pytest.mark.parametrize(("body_bytes", "most"), [(10, 32), (100_000, 1)], ids=["small replies", "after a large reply"])
def test_commands_that_are_not_merged_are_taken_in_small_shares(pair, queue, body_bytes, most):
    valkey, daemon = pair
    with Connection(daemon.port) as flooding, Connection(daemon.port) as other, Connection(daemon.port) as beside:
        other.call("VALQ.MPUSH", queue, "201", *["x"] * 200, "x" * body_bytes)
        flooding.call("VALQ.SHOW", queue, "201")
        beside.call("PING")
        with stopped(valkey):
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
        with stopped(valkey):
            for _ in range(40):
                flooding.send("APPEND", queue, piece)
                noticed(beside)
            other.send("STRLEN", queue)
            noticed(beside)
        assert 0 < other.read() <= 5 * len(piece)  # the fifth fills 64 KiB
        assert [flooding.read() for _ in range(40)] == [len(piece) * count for count in range(1, 41)]


@LINUX_ONLY
@pytest.mark.parametrize("command", [("WATCH", "a"), ("SELECT", "0")])
def test_what_waits_behind_a_blocking_command_is_not_remembered_one_by_one(pair, queue, command):
    waiting = request(*command)
    with (
        Valqd(pair[0].url) as daemon,  # of its own: one that has had much in use before does not grow
        Connection(daemon.port) as client,
        Connection(daemon.port) as beside,
    ):
        client.send("BLPOP", queue, "0")
        noticed(beside)
        client.socket.settimeout(0.5)
        before = rss_mib(daemon.pid)
        with contextlib.suppress(TimeoutError):
            client.send_raw(waiting * 500_000)
        # It reads about 4 MiB, and may keep them; a small object for each of so many commands takes as much again.
        until(lambda: client.arrived_bytes > 90_000 * len(waiting), 10, "it was read")
        assert peak_mib(daemon.pid) - before < 20
        client.socket.settimeout(5)
        assert beside.call("RPUSH", queue, "x") == 1
        assert client.read() == [queue.encode(), b"x"]


@LINUX_ONLY  # other systems cannot tell while unread bytes wait
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


def test_many_pops_in_a_row_are_answered_after_one_that_asked_for_many_large_bodies(pair, queue):
    """Such a reply makes that fewer are merged, never more."""
    with Connection(pair[1].port) as client:
        assert client.call("VALQ.POP", queue) is None  # from now on such a command is known by how it looks
        for _ in range(5):
            client.call("VALQ.PUSH", queue, "x" * MIB)
        assert len(client.call("VALQ.POP", queue, "COUNT", "10000", "NOACK")) == 5
        client.send_raw(request("VALQ.POP", queue) * 600)
        assert [client.read() for _ in range(600)] == [None] * 600
