"""Simple commands of others over a lane that all share."""

import contextlib
import random
import re
import time

import pytest

from tests.servers import Connection, Valkey, Valqd, request, until
from tests.wire.expect import noticed, refused, stopped
from valqd.protocol import relay

KEPT = {"H": ("HSET", "1", "1", "v"), "L": ("RPUSH", "1", "v", "w"), "R": ("RPUSH", "1", "v", "w"),
        "S": ("SADD", "1", "1"), "Z": ("ZADD", "1", "1", "1")}  # fmt: skip


@pytest.fixture
def fresh():
    """A daemon that has seen no large reply yet, and a connection to its Valkey."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        yield daemon, direct


@pytest.mark.parametrize("name", relay.COMMANDS)
def test_each_is_answered_as_by_valkey(pair, direct, resp, name):
    command = request(name, *["1"] * (abs(relay.COMMANDS[name]) - 1))
    answers = []
    for port in (pair[0].port, pair[1].port):
        direct.call("FLUSHALL")
        with Connection(port, resp) as client:
            for kept in ((), KEPT.get(name[0], ("SET", "1", "1")), ("SET", "1", "x"), ("LPUSH", "1", "x")):
                if kept:  # of the type that it wants, and of others
                    direct.call("DEL", "1")
                    direct.call(*kept)
                client.send_raw(command)
                answers.append(client.socket.recv(1000))
    assert answers[:4] == answers[4:]


@pytest.mark.parametrize(
    "pause",
    [
        "PAUSE 60000 WRITE",
        "PAUSE 2147483647 WRITE",
        "PAUSE 60000 WRITE | PAUSE 10 WRITE",
        "MULTI | PAUSE 60000 WRITE | EXEC",
    ],
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


@pytest.mark.parametrize(
    ("asks", "body_bytes", "lanes"),
    [
        ("VALQ.POP {q}", 70_000, 0), ("VALQ.MPOP 1 {q}", 60_000, 0), ("VALQ.MPOP 1 {q}", 70_000, 1),
        ("GET {q}", 60_000, 0), ("GET {q}", 70_000, 1),
    ],
)  # fmt: skip
def test_who_gets_large_replies_to_what_is_not_merged_asks_for_what_is_not_a_queues_by_a_lane_of_its_own(
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


def test_those_of_a_pipeline_and_queue_commands_take_effect_and_are_answered_in_order(fresh, queue):
    with Connection(fresh[0].port) as client:
        for number in range(1, 20):
            words = [
                ("SET", queue, number), ("GET", queue), ("VALQ.PUSH", queue, "x" * number), ("INCR", queue),
                ("PING",), ("VALQ.POP", queue, "NOACK"), ("GET", queue), ("SET", queue), ("ECHO", number),
            ]  # fmt: skip
            client.send_raw(b"".join(request(*map(str, command)) for command in words))
            got = [client.read() for _ in words]
            assert got[:5] == [b"OK", b"%d" % number, b"%d" % number, number + 1, b"PONG"]
            assert b"x" * number in got[5]
            assert got[6] == b"%d" % (number + 1)
            assert "wrong number of arguments" in str(got[7])
            assert got[8] == b"%d" % number


def test_many_clients_that_pipeline_each_get_their_own(fresh, queue):
    daemon, direct = fresh
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Connection(daemon.port, resp=2 + at % 2)) for at in range(20)]
        connections = direct.call("CLIENT", "LIST").count(b"\n")
        for turn in range(50):
            for number, client in enumerate(clients):
                key = f"{queue}:{number}"
                value = f"{number}:{turn}" + "v" * (turn * number % 60)  # of one length, and of many
                client.send_raw(request("SET", key, value) * 9 + request("GET", key) * 7)
            for number, client in enumerate(clients):
                value = f"{number}:{turn}" + "v" * (turn * number % 60)
                assert [client.read() for _ in range(16)] == [b"OK"] * 9 + [value.encode()] * 7
        assert direct.call("CLIENT", "LIST").count(b"\n") <= connections + 1


def test_who_may_do_little_else_shares_it_too(queue):
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        assert direct.call("ACL", "SETUSER", "quiet", "on", ">pw", "allkeys", "+get", "+set", "+ping") == b"OK"
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Connection(daemon.port)) for _ in range(3)]
            for client in clients:
                assert client.call("AUTH", "quiet", "pw") == b"OK"
            for client in clients * 3:
                client.send_raw(request("SET", queue, "v") + request("GET", queue) * 2)
            for client in clients * 3:
                assert [client.read() for _ in range(3)] == [b"OK", b"v", b"v"]
            assert direct.call("ACL", "LOG") == []


def test_who_is_told_that_a_script_runs_too_long_is_told_so_once_for_each(queue):
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        direct.call("CONFIG", "SET", "busy-reply-threshold", "50")
        with Connection(daemon.port) as client, Connection(daemon.port) as other, Connection(valkey.port) as slow:
            assert client.call("SET", queue, "v") == b"OK"
            slow.send("EVAL", "while true do end", "0")
            until(lambda: str(direct.call("PING")).startswith("BUSY"), 5, "the script is over its time")
            for each in (client, other):
                each.send_raw(request("GET", queue) * 3)
            for each in (client, other):
                assert [str(each.read())[:4] for _ in range(3)] == ["BUSY"] * 3
                each.send_raw(request("GET", queue) * 2 + request("VALQ.LEN", queue) + request("GET", queue))
                assert [str(each.read())[:4] for _ in range(4)] == ["BUSY", "BUSY", "ERR ", "BUSY"]
            assert direct.call("SCRIPT", "KILL") == b"OK"
            until(lambda: client.call("GET", queue) == b"v", 5, "it is over")
            assert other.call("GET", queue) == b"v"


def test_when_their_connection_is_closed_those_under_way_may_have_been_applied(fresh, queue, resp):
    daemon, direct = fresh
    with Connection(daemon.port, resp, timeout_s=5) as client, Connection(daemon.port, resp, timeout_s=5) as other:
        assert client.call("SET", queue, "v") == b"OK"
        assert other.call("GET", queue) == b"v"
        try:
            assert direct.call("CLIENT", "PAUSE", "60000", "WRITE") == b"OK"
            client.send_raw(request("SET", queue, "w") * 2)
            other.send_raw(request("GET", queue))
            with Connection(daemon.port) as beside:
                noticed(beside)  # both are under way
            waiting = until(lambda: [c for c in lanes_of(direct) if b" cmd=set " in c], 5, "it is under way")
            assert direct.call("CLIENT", "KILL", "ID", re.search(rb"id=(\d+)", waiting[0])[1]) == 1
            for each, count in ((client, 2), (other, 1)):
                for _ in range(count):
                    refused(each.read(), "NOBACKEND")
        finally:
            direct.call("CLIENT", "UNPAUSE")
        assert other.call("SET", queue, "x") == b"OK"
        assert client.call("GET", queue) == b"x"


def lanes_of(direct):
    return direct.call("CLIENT", "LIST").splitlines()


def test_a_wrong_password_is_tried_once(fresh):
    daemon, direct = fresh
    assert direct.call("ACL", "SETUSER", "u", "on", ">pw", "allkeys", "+@all") == b"OK"
    with Connection(daemon.port) as client:
        for _ in range(3):
            refused(client.call("AUTH", "u", "wrong"), "WRONGPASS")
        assert client.call("AUTH", "u", "pw") == b"OK"
        assert client.call("SET", "k", "v") == b"OK"
    assert int(re.search(rb"acl_access_denied_auth:(\d+)", direct.call("INFO", "stats"))[1]) == 3


def test_who_mixes_them_with_queue_commands_has_these_merged_with_those_of_others(fresh, queue):
    daemon, direct = fresh
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Connection(daemon.port)) for _ in range(20)]
        for _ in range(5):
            for client in clients:
                for words in (("SET", queue, "1"), ("VALQ.PUSH", queue, "x")):
                    client.call(*words)
        direct.call("CONFIG", "RESETSTAT")
        for _ in range(10):
            for words in (("SET", queue, "1"), ("VALQ.PUSH", queue, "x")):
                with stopped(daemon):  # so that they arrive together
                    for client in clients:
                        client.send(*words)
                for client in clients:
                    client.read()
        calls = int(re.search(rb"cmdstat_fcall:calls=(\d+)", direct.call("INFO", "commandstats"))[1])
    assert calls < 100  # for 200 pushes


def test_a_pipeline_of_hundreds_needs_no_lane_of_its_own(fresh, queue):
    daemon, direct = fresh
    with Connection(daemon.port) as client:
        assert client.call("GET", queue) is None
        before = len(lanes_of(direct))
        client.send_raw(b"".join(request("SET", f"{queue}{number}", "v" * (number % 7)) for number in range(300)))
        assert [client.read() for _ in range(300)] == [b"OK"] * 300
        client.send_raw(b"".join(request("STRLEN", f"{queue}{number}") for number in range(300)))
        assert [client.read() for _ in range(300)] == [number % 7 for number in range(300)]
        assert len(lanes_of(direct)) == before


def test_who_pipelines_large_ones_gets_a_lane_of_its_own(fresh, queue):
    daemon, direct = fresh
    with Connection(daemon.port) as client:
        assert client.call("GET", queue) is None
        before = len(lanes_of(direct))
        client.send_raw(b"".join(request("SET", f"{queue}{number}", "v" * 4000) for number in range(100)))
        assert [client.read() for _ in range(100)] == [b"OK"] * 100
        client.send_raw(b"".join(request("STRLEN", f"{queue}{number}") for number in range(100)))
        assert [client.read() for _ in range(100)] == [4000] * 100
        assert len(lanes_of(direct)) == before + 1


def test_who_goes_on_to_mix_simple_and_queue_commands_in_a_pipeline_gets_a_lane_of_its_own(fresh, queue, resp):
    daemon, direct = fresh
    with Connection(daemon.port, resp) as client:
        assert client.call("GET", queue) is None
        before = len(lanes_of(direct))
        for number in range(1, 21):  # one by one, nothing has to wait for another lane
            assert client.call("VALQ.PUSH", queue, number) == b"%d" % number
            assert client.call("INCR", queue) == number
        assert len(lanes_of(direct)) == before
        client.send_raw((request("VALQ.PUSH", queue, "x") + request("INCR", queue)) * 20)
        answers = [client.read() for _ in range(40)]
        assert answers == [answer for number in range(21, 41) for answer in (b"%d" % number, number)]
        assert len(lanes_of(direct)) == before + 1
        assert client.call("VALQ.DELETE", queue) == b"OK"


@pytest.mark.parametrize("first", ["VALQ.PUSH", "INCR"])
def test_the_fourth_time_that_one_waits_for_the_other_a_client_gets_a_lane_of_its_own(fresh, queue, first):
    daemon, direct = fresh
    with Connection(daemon.port) as client:
        assert client.call("GET", "none") is None
        before = len(lanes_of(direct))
        commands = [request("VALQ.PUSH", queue, "x"), request("INCR", queue)]
        if first == "INCR":
            commands.reverse()
        for number in range(1, 5):
            assert len(lanes_of(direct)) == before
            client.send_raw(b"".join(commands))
            assert {client.read(), client.read()} == {number, b"%d" % number}
            if number < 4:
                assert client.call("GET", "none") is None
        assert client.call("GET", "none") is None
        assert len(lanes_of(direct)) == before + 1


@pytest.mark.parametrize("seed", range(5))
def test_a_pipeline_that_mixes_is_answered_as_if_sent_one_by_one_however_it_is_cut(pair, queue, resp, seed):
    chance = random.Random(seed)
    kinds = ["SET k {n}", "GET k", "INCR n", "VALQ.PUSH q {n}", "VALQ.POP q", "VALQ.ACK q {n}-1", "VALQ.CANCEL q 99"]
    drawn = [chance.choice([*kinds, "VALQ.ACK"]).format(n=chance.randint(1, 40)).split() for _ in range(200)]
    commands = [["VALQ.CREATE", "q"], *drawn]

    def on(prefix):
        return [tuple(prefix + word if word in ("k", "n", "q") else word for word in words) for words in commands]

    def plain(reply):
        return str(reply).replace(queue + "a", queue + "b") if isinstance(reply, Exception) else reply

    with Connection(pair[1].port, resp, timeout_s=10) as mixing, Connection(pair[1].port, resp) as one_by_one:
        data = b"".join(request(*words) for words in on(queue + "a"))
        while data:
            size = chance.randint(1, 2000)
            mixing.send_raw(data[:size])
            data = data[size:]
        answers = [plain(mixing.read()) for _ in commands]
        assert answers == [plain(one_by_one.call(*words)) for words in on(queue + "b")]


def test_who_mixes_no_more_gives_its_lane_up(fresh, queue):
    daemon, direct = fresh
    with Connection(daemon.port) as client:
        assert client.call("GET", queue) is None
        before = len(lanes_of(direct))
        client.send_raw((request("VALQ.PUSH", queue, "x") + request("INCR", "n")) * 5)
        assert [client.read() for _ in range(10)][-2:] == [b"5", 5]
        assert len(lanes_of(direct)) == before + 1
        calm(client, queue, 40)
        until(lambda: len(lanes_of(direct)) == before, what="it is closed")


def test_a_large_reply_of_many_small_messages_leaves_its_client_on_the_relay_lane(pair, direct, queue):
    with Connection(pair[1].port) as client:
        client.call("VALQ.MPUSH", queue, 100, *["x" * 1000] * 100)
        assert client.call("GET", "none") is None
        known = direct.call("CLIENT", "LIST").count(b"\n")
        assert len(client.call("VALQ.POP", queue, "COUNT", 100)) == 100
        assert client.call("GET", "none") is None
        assert direct.call("CLIENT", "LIST").count(b"\n") == known


def calm(client, queue, reads):
    for number in range(reads):
        assert client.call("SET", queue, number) == b"OK"
        client.send_raw(request("GET", queue) * 2)
        assert [client.read(), client.read()] == [b"%d" % number] * 2


def test_a_lane_of_its_own_that_is_not_needed_any_more_is_given_up(fresh, queue, resp):
    daemon, direct = fresh
    with Connection(daemon.port, resp) as client:
        assert client.call("CLIENT", "SETNAME", "joe") == b"OK"
        calm(client, queue, 1)
        before = len(lanes_of(direct))
        for turn in range(1, 4):  # each time it takes longer
            assert client.call("LRANGE", "none", "0", "-1") == []
            assert isinstance(client.call("COMMAND", "COUNT"), int)
            calm(client, queue, 7 * 2**turn)
            assert len(lanes_of(direct)) == before + 1
            calm(client, queue, 5 * 2**turn)
            until(lambda: len(lanes_of(direct)) == before, 5, "it is closed")
            assert sum(b" name=joe " in lane for lane in lanes_of(direct)) == 1
            assert client.call("VALQ.PUSH", queue, "x")
        assert client.call("WAIT", "0", "0") == 0


@pytest.mark.parametrize(
    "words",
    ["CLIENT ID", "MULTI | EXEC", "WATCH k", "SELECT 2", "READONLY", "CLIENT NO-EVICT ON", "WAIT 0 0"],
)
def test_a_lane_that_may_mean_something_is_kept(fresh, queue, words):
    daemon, direct = fresh
    with Connection(daemon.port) as client:
        assert client.call("LRANGE", "none", "0", "-1") == []
        for command in words.split(" | "):
            client.call(*command.split())
        calm(client, queue, 4)  # a database has shared lanes of its own
        before = len(lanes_of(direct))
        calm(client, queue, 40)
        assert len(lanes_of(direct)) == before
