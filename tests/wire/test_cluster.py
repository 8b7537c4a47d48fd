"""A backend in cluster mode that holds all slots: queues of different slots, which no one command may name."""

import contextlib

import pytest

from tests.servers import Connection, Valkey, Valqd, as_map, free_port, until
from tests.wire.expect import refused
from valqd.lua.bundle import whole_source

QUEUES = [b"a", b"b", b"c", b"d"]


@pytest.fixture(scope="module")
def clustered():
    with Valkey("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as valkey:
        with Connection(valkey.port) as direct:
            assert direct.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383) == b"OK"
            until(lambda: b"cluster_state:ok" in direct.call("CLUSTER", "INFO"), 15, "all slots served")
            assert len({direct.call("CLUSTER", "KEYSLOT", b"valq:{%b}:queue" % queue) for queue in QUEUES}) == 4
        with Valqd(valkey.url) as valqd:
            yield valqd


@pytest.fixture
def client(clustered, resp):
    with Connection(clustered.port, resp) as connection:
        for queue in QUEUES:
            connection.call("VALQ.DELETE", queue)
        yield connection


def test_queues_of_all_slots_are_listed(client):
    for queue in QUEUES:
        client.call("VALQ.PUSH", queue, "x")
    assert client.call("VALQ.LIST") == QUEUES
    client.call("MULTI")
    client.call("VALQ.LIST")
    assert client.call("EXEC") == [QUEUES]


def test_waiters_on_queues_of_several_slots_stay_registered_and_are_woken(clustered):
    with contextlib.ExitStack() as stack:
        pusher, *waiting = [stack.enter_context(Connection(clustered.port)) for _ in range(1 + len(QUEUES))]

        def blocked():
            return [as_map(pusher.call("VALQ.INFO", queue))[b"blocked_clients"] for queue in QUEUES]

        for queue, connection in zip(QUEUES, waiting, strict=True):
            pusher.call("VALQ.DELETE", queue)
            pusher.call("VALQ.CREATE", queue)
            connection.send("VALQ.POP", queue, "BLOCK", 20_000)
        until(lambda: blocked() == [1, 1, 1, 1], what="all blocked")
        assert pusher.call("FUNCTION", "LOAD", "REPLACE", whole_source()) == b"valq1"
        until(lambda: blocked() == [1, 1, 1, 1], what="registered again, all at once")
        for queue, connection in zip(QUEUES, waiting, strict=True):
            pusher.call("VALQ.PUSH", queue, b"for " + queue)
            assert as_map(connection.read())[b"body"] == b"for " + queue


def test_leases_end_by_themselves_in_all_slots(client):
    for queue in QUEUES:
        client.call("VALQ.CREATE", queue, "VT", 1, "MAXATTEMPTS", 1)
        client.call("VALQ.PUSH", queue, "x")
        client.call("VALQ.POP", queue)
    for queue in QUEUES:
        until(lambda queue=queue: as_map(client.call("VALQ.INFO", queue))[b"dlq_msgs"] == 1, what="dead letter")


def test_a_command_that_names_queues_of_two_slots_is_refused_by_valkey(client):
    refused(client.call("VALQ.MPOP", 2, "a", "b"), "CROSSSLOT")
    assert client.call("VALQ.PUSH", "a", "x") == b"1"


def test_no_list_is_short_since_the_cluster_is_down():
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with Valkey(*options) as valkey, Connection(valkey.port) as direct:
        assert direct.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383) == b"OK"
        until(lambda: b"cluster_state:ok" in direct.call("CLUSTER", "INFO"), 15, "all slots served")
        with Valqd(valkey.url) as valqd, Connection(valqd.port) as client:
            client.call("VALQ.PUSH", "a", "x")
            assert client.call("VALQ.LIST") == [b"a"]
            assert direct.call("CLUSTER", "DELSLOTSRANGE", 0, 16383) == b"OK"
            refused(client.call("VALQ.LIST"), "ERR", "to access")  # as each version words it


def test_a_node_that_serves_only_some_slots_is_warned_of():
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with Valkey(*options) as valkey, Connection(valkey.port) as direct:
        for last, is_warned in ((16382, True), (16383, False)):
            direct.call("CLUSTER", "FLUSHSLOTS")
            assert direct.call("CLUSTER", "ADDSLOTSRANGE", 0, last) == b"OK"
            with Valqd(valkey.url) as valqd:
                assert ("does not serve all slots" in valqd.output()) == is_warned
