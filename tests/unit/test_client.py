"""When a client is not read from."""

import asyncio
import socket
from types import SimpleNamespace

import pytest

from tests.servers import LINUX_ONLY, request, until
from valqd.io.client import _HELD_BYTES, _LARGE_READ_BYTES, Client
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.framing import MAX_BULK_BYTES
from valqd.protocol.host import Identity, WorkerState


class Transport:
    is_paused = False

    def is_closing(self):
        return False

    def get_extra_info(self, name):
        return None

    def pause_reading(self):
        self.is_paused = True

    def resume_reading(self):
        self.is_paused = False

    def write(self, data):
        pass


@pytest.fixture
def users():
    """How the users of lanes become more and fewer."""
    return []


class Lane(SimpleNamespace):
    @property
    def users(self):
        return 0

    @users.setter
    def users(self, number):
        self.changes.append(number)


@pytest.fixture
def client(users):
    soon = []

    def lane(identity):
        return Lane(
            changes=users,
            coalescer=Coalescer(),
            up=True,
            relays=True,
            names={},
            relay_lanes={2: SimpleNamespace(up=False)},
            wake=lambda: None,
            full_for=lambda client: False,
            forget_name=lambda session: None,
        )

    worker = SimpleNamespace(
        outbox=SimpleNamespace(add=lambda outgoing: None),
        state=WorkerState(b"", MAX_BULK_BYTES, Identity()),
        next_client_id=lambda: 1,
        settings=SimpleNamespace(max_clients=9),
        clients=set(),
        spilling=set(),
        ending=set(),
        control=SimpleNamespace(run_id="run"),
        default_user=SimpleNamespace(is_known=True),
        lanes=SimpleNamespace(get=lane, leave=lambda lane: users.append(-1)),
        loop=SimpleNamespace(
            call_soon=lambda callback, *args: soon.append(lambda: callback(*args)),
            call_later=lambda delay, callback: None,
            time=lambda: 0.0,
        ),
        waiters=SimpleNamespace(block=lambda client, request: None),
    )
    client = Client(worker)
    client.soon = soon
    client.connection_made(Transport())
    return client


def test_who_waits_and_sends_much_is_not_read_from(client):
    client.data_received(request("VALQ.POP", "q", "BLOCK", "0"))
    client.data_received(b"x" * _HELD_BYTES)
    assert not client.transport.is_paused
    client.data_received(b"x")
    assert client.transport.is_paused


def test_who_sends_much_at_once_is_read_from_again_in_the_next_turn(client):
    client.data_received(request("VALQ.PUSH", "q", "x" * _LARGE_READ_BYTES))
    assert client.transport.is_paused
    for callback in client.soon:
        callback()
    assert not client.transport.is_paused


def test_who_has_left_uses_no_lane_when_its_select_is_answered(client, users):
    client.connection_lost(None)
    client.transport.is_closing = lambda: True
    client.enter_lane(Identity(db=5))
    assert users == [1, -1, 1, -1]  # it came, left, was given another lane, and left that


def test_a_command_in_steps_keeps_its_lane_to_the_last_though_its_client_leaves(client, users, monkeypatch):
    async def run():
        done = asyncio.Event()
        monkeypatch.setattr("valqd.io.client.run_steps", lambda session, request: done.wait())
        client.run_steps(None)
        client.connection_lost(None)
        assert users == [1, 1, -1]
        done.set()
        await asyncio.sleep(0.01)
        assert users == [1, 1, -1, -1]

    asyncio.run(run())


def test_who_is_answered_in_this_turn_is_not_idle(client):
    client.transport.get_extra_info = lambda name: ("127.0.0.1", 1)
    client._worker.loop.time = lambda: 60.0
    assert client.info().idle_s == 60
    client.write(b"+OK\r\n")
    assert client.info().idle_s == 0


@pytest.mark.parametrize(
    ("socket_name", "shown"),
    [
        (("127.0.0.1", 7000), b"127.0.0.1:7000"),
        (("::ffff:127.0.0.1", 7000, 0, 0), b"127.0.0.1:7000"),
        (("::1", 7000, 0, 0), b"[::1]:7000"),
        ("/run/valqd.sock", b"/run/valqd.sock:0"),
        (None, b"?:0"),
    ],
)
def test_its_address_is_as_valkey_shows_it(client, socket_name, shown):
    client.transport.get_extra_info = lambda name: socket_name
    assert client.info().addr == shown


@LINUX_ONLY
def test_that_it_has_hung_up_is_seen_behind_bytes_that_nobody_reads():
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        client = Client.__new__(Client)
        client.transport = SimpleNamespace(get_extra_info=lambda name: ours)
        theirs.sendall(b"not read")
        assert not client.has_hung_up
        theirs.close()
        until(lambda: client.has_hung_up, what="seen")
        ours.close()
