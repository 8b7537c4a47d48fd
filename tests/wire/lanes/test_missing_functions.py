"""Functions that were flushed are loaded again, and no call is lost, doubled or out of its place."""

import contextlib
import re
import socket
import threading
import time

import pytest

from tests.servers import Connection, as_map, request, until
from tests.wire.expect import noticed, pop
from tests.wire.lanes.parts import in_two_parts
from valqd.protocol.coalescer import REPLACED

LARGE_NAME = "x" * 60_000


def test_a_call_that_is_repeated_waits_for_the_end_of_a_large_command(client, beside, direct, queue):
    def loaded_again():
        until(lambda: b"valq1" in str(direct.call("FUNCTION", "LIST")).encode(), 5, "functions loaded")
        noticed(beside)

    assert client.call("VALQ.PUSH", queue, "x") == b"1"
    before = request("FUNCTION", "FLUSH") + request("VALQ.PUSH", queue, "y")
    in_two_parts(client, beside, before, ("SET", "large", b"x" * 200_000), loaded_again)
    assert [client.read() for _ in range(3)] == [b"OK", b"2", b"OK"]
    assert direct.call("STRLEN", "large") == 200_000


def test_a_call_that_is_repeated_is_not_behind_what_changes_its_meaning(pair, client, beside, direct, queue):
    with Connection(pair[1].port) as other:
        for number, (after, replies) in enumerate(
            [
                ([("SELECT", "3")], [b"OK"]),
                ([("WATCH", "k"), ("MULTI",), ("GET", "k"), ("EXEC",)], [b"OK", b"OK", b"QUEUED", [None]]),
                ([("BLPOP", "none", "0.2")], [None]),
                ([("CLIENT", "REPLY", "OFF"), ("CLIENT", "REPLY", "ON")], [b"OK"]),
                ([("QUIT",)], [b"OK"]),
            ]
        ):
            with Connection(pair[1].port, timeout_s=5) as client:
                client.call("CLIENT", "ID")
                client.send_raw(request("FUNCTION", "FLUSH") + request("VALQ.PUSH", queue, number))
                client.send_raw(b"".join(request(*command) for command in after))
                assert client.read() == b"OK"
                assert client.read() == b"%d" % (number + 1)
                assert [client.read() for _ in replies] == replies
            assert pop(other, queue)["body"] == b"%d" % number


@pytest.mark.parametrize(
    "large",
    [("BLPOP", LARGE_NAME, "1"), ("WATCH", LARGE_NAME), ("SUBSCRIBE", LARGE_NAME), ("SET", "k", LARGE_NAME)],
    ids=lambda command: command[0],
)
def test_a_call_to_be_repeated_and_a_large_command_do_not_wait_for_each_other(client, beside, direct, queue, large):
    client.call("CLIENT", "ID")
    direct.call("FUNCTION", "FLUSH")
    before = request("LRANGE", "none", "0", "0") + request("VALQ.PUSH", queue, "x")
    in_two_parts(client, beside, before, large, lambda: time.sleep(0.2))
    assert client.read() == []
    assert client.read() == b"1"
    assert client.read() in (None, b"OK", [b"subscribe", LARGE_NAME.encode(), 1])


def test_what_follows_while_a_call_is_repeated_waits(pair, beside, direct, queue):
    for number in range(20):
        with Connection(pair[1].port, timeout_s=5) as client:
            client.call("CLIENT", "ID")
            direct.call("FUNCTION", "FLUSH")
            client.send_raw(request("LRANGE", "none", "0", "0") + request("VALQ.PUSH", queue, number))
            time.sleep(0.0005 * number)
            client.send_raw(request("MULTI") + request("GET", "none") + request("EXEC"))
            replies = [client.read() for _ in range(5)]
            assert replies == [[], b"%d" % (number + 1), b"OK", b"QUEUED", [None]]


def test_a_repeated_pop_of_who_has_left_is_given_back(pair, beside, direct, queue):
    beside.call("VALQ.PUSH", queue, "x")
    with Connection(pair[1].port) as client:
        client.call("CLIENT", "ID")
        direct.call("FUNCTION", "FLUSH")
        client.send_raw(request("LRANGE", "none", "0", "0") + request("VALQ.POP", queue))
    until(lambda: as_map(beside.call("VALQ.INFO", queue))[b"ready_msgs"] == 1, 5, "given back")
    time.sleep(0.1)
    until(lambda: as_map(beside.call("VALQ.INFO", queue))[b"inflight_msgs"] == 0, 10, "given back, if it came only now")


@contextlib.contextmanager
def flushed_all_the_time(valkey):
    """The functions are flushed again and again, as fast as Valkey does it."""
    over = threading.Event()

    def flush():
        with Connection(valkey.port) as flushing:
            while not over.is_set():
                flushing.send_raw(request("FUNCTION", "FLUSH") * 50)
                assert [flushing.read() for _ in range(50)] == [b"OK"] * 50

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_call_on_a_lane_of_its_own_that_never_finds_its_functions_says_that_it_did_nothing(
    pair, client, beside, queue
):
    beside.call("VALQ.CREATE", queue)
    other = request("LRANGE", "none", "0", "0")
    pushed, refusals = [], []
    with flushed_all_the_time(pair[0]):
        deadline = time.monotonic() + 30
        while not refusals and time.monotonic() < deadline:
            client.send_raw(b"".join(other + request("VALQ.PUSH", queue, number) for number in range(5)))
            for _ in range(5):
                assert client.read() == []
                reply = client.read()
                (refusals if isinstance(reply, Exception) else pushed).append(reply)
    assert refusals
    assert {str(error) for error in refusals} == {REPLACED}
    assert as_map(beside.call("VALQ.INFO", queue))[b"pushed_total"] == len(pushed)


def test_calls_behind_reply_off_find_their_functions(client, beside, direct, queue):
    assert client.call("VALQ.PUSH", queue, "x") == b"1"
    direct.call("FUNCTION", "FLUSH")
    client.send("CLIENT", "REPLY", "OFF")
    client.send("VALQ.PUSH", queue, "y")
    client.send("VALQ.PUSH", queue, "z")
    assert client.call("CLIENT", "REPLY", "ON") == b"OK"
    assert [pop(beside, queue)["body"] for _ in range(3)] == [b"x", b"y", b"z"]


@pytest.mark.parametrize(
    "command", [("VALQ.HELP", "PUSH"), ("VALQ.PUSH", "{q}", "y"), ("VALQ.INFO", "{q}")], ids=" ".join
)
def test_a_transaction_finds_its_functions(client, direct, queue, command):
    assert client.call("VALQ.PUSH", queue, "x") == b"1"
    direct.call("FUNCTION", "FLUSH")
    assert client.call("MULTI") == b"OK"
    assert client.call(*[word.format(q=queue) for word in command]) == b"QUEUED"
    (result,) = client.call("EXEC")
    assert result
    assert "not found" not in str(result)


def test_functions_are_looked_for_after_each_reply_skip(client, beside, direct, queue):
    client.send_raw(request("CLIENT", "REPLY", "SKIP") + request("VALQ.HELP"))
    assert client.call("PING") == b"PONG"
    direct.call("FUNCTION", "FLUSH")
    client.send_raw(request("CLIENT", "REPLY", "SKIP") + request("VALQ.PUSH", queue, "x"))
    assert client.call("PING") == b"PONG"
    assert pop(beside, queue)["body"] == b"x"
    direct.call("FUNCTION", "FLUSH")
    client.send_raw(request("MULTI") + request("VALQ.PUSH", queue, "y") + request("EXEC"))
    assert [client.read() for _ in range(3)] == [b"OK", b"QUEUED", [b"2"]]


@pytest.mark.parametrize("before", [("MULTI",), ("CLIENT", "REPLY", "OFF")], ids=" ".join)
def test_who_sends_a_command_and_no_more_has_sent_it(pair, beside, queue, before):
    for number in range(30):
        with Connection(pair[1].port, timeout_s=5) as client:
            client.call("CLIENT", "ID")
            after = request("EXEC") if before == ("MULTI",) else b""
            client.send_raw(request(*before) + request("VALQ.PUSH", queue, number) + after)
            client.socket.shutdown(socket.SHUT_WR)
            client.read_until_closed()
    until(lambda: as_map(beside.call("VALQ.INFO", queue))[b"ready_msgs"] == 30, 5, "all are there")


def test_a_transaction_does_not_fetch_the_functions(client, direct, queue):
    direct.call("CONFIG", "RESETSTAT")
    for _ in range(10):
        assert client.call("MULTI") == b"OK"
        client.call("VALQ.PUSH", queue, "x")
        assert len(client.call("EXEC")) == 1
    asked = re.findall(rb"^cmdstat_function\|list:calls=(\d+)", direct.call("INFO", "commandstats"), re.MULTILINE)
    assert int(asked[0] if asked else 0) < 5  # the daemon itself may ask, after what the tests before have flushed


def test_who_is_silent_again_finds_the_functions_again(client, direct, queue):
    for body in ("a", "b"):
        direct.call("FUNCTION", "FLUSH")
        client.send_raw(request("CLIENT", "REPLY", "OFF") + request("VALQ.PUSH", queue, body))
        assert client.call("CLIENT", "REPLY", "ON") == b"OK"
    assert [client.call("VALQ.POP", queue)[3] for _ in range(2)] == [b"a", b"b"]
