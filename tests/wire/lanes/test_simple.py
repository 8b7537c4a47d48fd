"""Simple commands of others over the shared lane."""

import time

import pytest

from tests.servers import Connection, request
from tests.wire.expect import noticed
from valqd.protocol import relay

KEPT = {"H": ("HSET", "1", "1", "v"), "L": ("RPUSH", "1", "v", "w"), "R": ("RPUSH", "1", "v", "w"),
        "S": ("SADD", "1", "1"), "Z": ("ZADD", "1", "1", "1")}  # fmt: skip


@pytest.mark.parametrize("name", relay._COMMANDS)
def test_each_is_answered_as_by_valkey(pair, direct, name):
    command = request(name, *["1"] * (abs(relay._COMMANDS[name][0]) - 1))
    answers = []
    for port in (pair[0].port, pair[1].port):
        direct.call("FLUSHALL")
        with Connection(port) as client:
            for kept in ((), KEPT.get(name[0], ("SET", "1", "1")), ("SET", "1", "x"), ("LPUSH", "1", "x")):
                if kept:  # of the type that it wants, and of others
                    direct.call("DEL", "1")
                    direct.call(*kept)
                client.send_raw(command)
                answers.append(client.socket.recv(1000))
    assert answers[:4] == answers[4:]


@pytest.mark.parametrize(
    "pause", ["PAUSE 60000 WRITE", "PAUSE 60000 WRITE | PAUSE 10 WRITE", "MULTI | PAUSE 60000 WRITE | EXEC"]
)
def test_one_that_a_pause_holds_back_holds_up_no_other(pair, beside, pause):
    with Connection(pair[1].port) as writer, Connection(pair[1].port, timeout_s=5) as reader:
        writer.call("SET", "k", "1")
        for words in pause.split(" | "):
            assert not isinstance(beside.call(*["CLIENT"] * words.startswith("PAUSE"), *words.split()), Exception)
        time.sleep(0.03)  # the shorter pause is over
        writer.send("SET", "k", "2")
        noticed(reader)
        for _ in range(3):
            assert reader.call("GET", "k") == b"1"  # though the other waits
        assert beside.call("CLIENT", "UNPAUSE") == b"OK"
        assert writer.read() == b"OK"
        assert writer.call("GET", "k") == b"2"


@pytest.mark.parametrize("asks", ["VALQ.POP {q}", "VALQ.MPOP 1 {q}", "GET {q}"])
@pytest.mark.parametrize(("body_bytes", "lanes"), [(60_000, 0), (70_000, 1)])
def test_who_gets_large_replies_asks_for_what_is_not_a_queues_by_a_lane_of_its_own(
    pair, direct, queue, asks, body_bytes, lanes
):
    def connections():
        return direct.call("CLIENT", "LIST").count(b"\n")

    with Connection(pair[1].port) as client:
        client.call("VALQ.PUSH", queue, "x" * body_bytes)
        direct.call("SET", queue, "x" * body_bytes)
        assert client.call("GET", "none") is None
        known = connections()
        assert str(client.call(*asks.format(q=queue).split())).count("x") >= body_bytes
        assert client.call("GET", "none") is None
        assert connections() - known == lanes
