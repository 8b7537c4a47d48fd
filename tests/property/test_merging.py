"""Merging is never visible: every reply is what the commands, run one by one in some order that respects each client's
own, would have answered.

Many sessions, driven without sockets, share one coalescer; its calls go to a real Valkey, whose clock stands still
until it is moved.  Requests arrive in pieces, functions are flushed, clients leave before they are answered.  The order
in which answers are dealt out is a serial order of the commands: the same commands are then run alone, in that order
and at the same times, on another database.  Every reply, and all that is left in the queues, must be the same.
"""

import sys
from contextlib import suppress
from itertools import product
from types import SimpleNamespace, coroutine

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import Connection, Valkey, as_map, request
from valqd.commands.grammar import parse
from valqd.commands.request import fcall, function_call, queue_key
from valqd.errors import CommandError
from valqd.io import steps
from valqd.io.worker import Worker
from valqd.lua.bundle import whole_source
from valqd.protocol import relay
from valqd.protocol.calls import error_line
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.host import Identity, WorkerState
from valqd.protocol.lone_calls import Listener, LoneCall
from valqd.protocol.relay import RelayReplies
from valqd.protocol.session import Session
from valqd.protocol.whole import parse as parse_whole

AUTO = b"1000:2:60000"  # leases, attempts and dead letters that are soon over
MAX_BODY_BYTES = 1 << 20
START_MS = 1_700_000_000_000


class Lane:
    """A shared lane and its relay lane, on an empty Valkey, that send when they are told to."""

    def __init__(self, connection):
        self.coalescer = Coalescer()
        self.up = self.relays = self.flush_planned = True
        self.relay = SimpleNamespace(coalescer=Coalescer(), up=True, flush_planned=True)
        self.relay_lanes = {2: self.relay}
        self._relay_replies = RelayReplies()
        self.state = WorkerState(AUTO, MAX_BODY_BYTES, Identity())
        self.log = []  # of each command as it is answered: its reply, and whether its client had left by then
        self.given_back = []  # queues and receipts
        self.gone_again = 0  # how often the functions are flushed between their loading and the next call
        self._connection = connection
        self._now_ms = START_MS
        connection.call("FLUSHALL")
        load(connection, clock(START_MS))

    def wake(self):
        pass

    def send(self):
        """The end of a turn of the loop: send all open calls (but those of the relay lane, to keep one order)."""
        self._connection.send_raw(b"".join(self.coalescer.take()))

    def settle(self):
        """Deal out all replies, and send what these lead to, until nobody asks for anything."""
        while self.coalescer.sent or not (self.coalescer.idle and self.relay.coalescer.idle):
            self.send()
            self._read()
            while self.coalescer.must_resend:
                load(self._connection, self.clock)
                if self.gone_again:
                    self.gone_again -= 1
                    self._connection.call("FUNCTION", "FLUSH")
                self._connection.send_raw(b"".join(self.coalescer.resend()))
                self._read()
            self._connection.send_raw(b"".join(self.relay.coalescer.take()))
            while self.relay.coalescer.sent:
                assert self._relay_replies.feed(self._connection.socket.recv(20), self.relay.coalescer)

    def _read(self):
        while self.coalescer.sent:
            self.coalescer.deliver(self._connection.read())

    @property
    def clock(self):
        """The command that set the backend's clock."""
        return next((command for command, *_ in reversed(self.log) if command[0] == "FCALL"), clock(START_MS))

    def pass_time(self, ms):
        """What is sent from now on comes so much later."""
        self._now_ms += ms
        command = clock(self._now_ms)
        self.coalescer.add(Noted(self.log, command), LoneCall(request(*command), lambda reply: b"+%b\r\n" % reply))

    def flush_functions(self):
        """What is sent from now on finds no library."""
        self.coalescer.add(Listener(), LoneCall(request("FUNCTION", "FLUSH"), lambda reply: None))


class Releases:
    """The lane, as far as a worker gives messages back on it: notes that as a command of its own."""

    is_over = False
    users = 0

    def __init__(self, lane):
        self.coalescer = self
        self._lane = lane

    def join(self, who, route, items, units, count, extra):
        receipts = parse_whole(items)
        self._lane.given_back += [(route.queue, receipt) for receipt in receipts]
        who = Noted(self._lane.log, ("returned", route.queue, *receipts))
        self._lane.coalescer.join(who, route, items, units, count, extra)

    def wake(self):
        pass


class Noted(Listener):
    """The recipient of one command that no client has sent."""

    def __init__(self, log, command):
        super().__init__(lambda data: log.append((command, *map(plain, parse_whole(data)), False)))


@coroutine
def ask(lane, argv, begun=False):
    """What a command in steps awaits: whoever runs it sends the call, and goes on with the reply."""
    reply = yield argv
    if isinstance(reply, Exception):
        raise steps.Failed(error_line(reply))
    return reply


class Client:
    """The host of one session: notes each reply in the order in which all clients are answered."""

    def __init__(self, lane):
        self._lane = lane
        self._worker = Worker.__new__(Worker)  # gives messages back
        self._worker.state = lane.state
        self._worker.lanes = SimpleNamespace(leave=lambda lane: None)
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._unsent = b""
        self.commands = []
        self.answered = 0
        self.session = Session(self, lane.state, 1)
        self.session._changes = -sys.maxsize  # who mixes in its pipelines merges nothing any more

    def backend_run(self):
        return "run"

    def enter_lane(self, identity):
        return self._lane

    def is_closing(self):
        return False

    def say(self, commands):
        self.commands += commands
        self._unsent += b"".join(request(*command) for command in commands)

    def deliver(self, percent, to_star=False):
        """A piece of what it has said arrives; ``to_star``: up to something that begins like a request."""
        size = len(self._unsent) * percent // 100
        if to_star:
            size = max(0, self._unsent.rfind(b"*", 0, size))
        piece, self._unsent = self._unsent[:size], self._unsent[size:]
        if piece:
            self.session.receive(piece)

    def write(self, data):
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not Ellipsis:
            self._lane.log.append((self.commands[self.answered], plain(reply), self.session.gone))
            self.answered += 1

    def run_steps(self, parsed):
        self._go_on(steps.run_steps(self.session, parsed), None)

    def _go_on(self, running, reply):
        with suppress(StopIteration):
            call = request(*running.send(reply))
            self._lane.coalescer.add(Listener(), LoneCall(call, lambda reply: self._go_on(running, reply)))

    def release(self, queue, data):
        return self._worker.release(Releases(self._lane), queue, data)

    def session_resumed(self):
        pass


def plain(reply):
    """A reply that can be compared: errors as text."""
    if isinstance(reply, Exception):
        return str(reply)
    return [plain(item) for item in reply] if isinstance(reply, list) else reply


def clock(now_ms):
    """The command that stops the backend's clock at ``now_ms``."""
    return ("FCALL", "valq1_test_clock", "0", str(now_ms), "STILL")


def load(connection, clock):
    """Set the clock; when the functions are not there, load them first."""
    if connection.call(*clock) != b"OK":
        assert connection.call("FUNCTION", "LOAD", whole_source(test_clock=True)) == b"valq1"
        assert connection.call(*clock) == b"OK"


def command(name, *words):
    return st.tuples(st.just(f"VALQ.{name}"), *(st.just(word) if isinstance(word, str) else word for word in words))


queues = st.sampled_from("aab")
ids = st.sampled_from("123456")
handles = st.one_of(ids, *[st.tuples(ids, st.sampled_from("1112")).map("-".join)] * 2)
some = st.integers(1, 3).map(str)
waits = st.sampled_from(["0.25", "1"])  # s
PREFIX = b"*3\r\n$9\r\nVALQ.PUSH\r\n$1\r\na\r\n$1\r\nx\r\n"  # a body that looks like a request
bodies = st.one_of(st.binary(max_size=12), st.just(b"x" * 1500), st.just(PREFIX))
mergeable = st.one_of(
    command("PUSH", queues, bodies),
    command("PUSH", queues, st.sampled_from([b"x", b"yy"])),
    *[command("POP", queues)] * 2,
    command("POP", queues, "COUNT", some),
    command("POP", queues, "NOACK"),
    command("POP", queues, "VT", "0.25", "WITHMETA"),
    command("ACK", queues, handles),
    command("ACK", queues, handles, handles, handles),
    command("NACK", queues, handles),
    command("NACK", queues, handles, handles, st.sampled_from(["SILENT", "FATAL"])),
    command("NACK", queues, handles, "DELAY", waits, "REASON", some),
    *[command("EXTEND", queues, handles, some)] * 3,
)
with_options = st.one_of(
    command("PUSH", queues, bodies, waits),
    command("PUSH", queues, bodies, "PRIORITY", some, "MAXATTEMPTS", "1"),
    command("PUSH", queues, bodies, "TTL", "1", "HEADERS", "1", "field", bodies),
    command("PUSH", queues, bodies, "DEDUP", st.sampled_from(["key", "other"]), "WINDOW", "1"),
    command("PUSH", queues, bodies, "DEDUP", st.sampled_from(["key", "done"]), "UNTILDONE", "VT", "0.25"),
)
others = st.one_of(
    command("MPUSH", queues, "2", bodies, bodies),
    command("MPUSH", queues, "2", bodies, bodies, "DELAY", waits, "PRIORITY", some),
    command("MPOP", "2", queues, queues),  # one queue twice, too
    command("MPOP", "3", queues, queues, queues, "COUNT", some, "ORDER"),
    command("DEL", queues, handles, handles),
    command("CANCEL", queues, handles),
    command("PEEK", queues, st.sampled_from(["READY", "INFLIGHT", "DELAYED", "DLQ"]), "COUNT", some),
    command("UPDATE", queues, "MAXLEN", st.sampled_from(["0", "3"])),
    command("PAUSE", queues, st.sampled_from(["IN", "OUT"]), "FOR", "0.25"),
    st.tuples(st.just("INCR"), st.just("counter")),
    st.tuples(st.just("GET"), st.just("counter")),
    st.tuples(st.just("SET"), st.just("counter"), st.sampled_from(["10", "777", "+", "x y"])),
)
in_steps = st.one_of(command("INFO", queues), command("LIST"), command("LIST", "MATCH", queues))
wrong = st.one_of(
    command("PUSH", queues),
    command("PUSH", queues, bodies, "PRIORITY", "32"),
    command("MPUSH", queues, "2", bodies),
    command("POP", queues, "COUNT", "0"),
    command("ACK", queues, "x1"),
    command("EXTEND", queues, handles, "0"),
    command("INFO"),
)
said = st.one_of(mergeable, mergeable, with_options, others, in_steps, in_steps, wrong)
#: What all say in one round: few commands, again and again, so that many can be merged.
palettes = st.lists(st.tuples(said, st.sampled_from([1, 1, 3])), min_size=4, max_size=10)
events = st.sampled_from(["nothing"] * 6 + ["time", "flush", "leave", "send"])


@pytest.fixture(autouse=True)
def driven_here(monkeypatch):
    """Commands in steps run without a loop; clients that pipeline simple commands stay on the relay lane."""
    monkeypatch.setattr(steps, "ask", ask)
    monkeypatch.setattr(relay, "MAX_REQUESTS", 1000)


@pytest.fixture(scope="module")
def valkey():
    with Valkey() as server:
        yield server


def alone(connection, command):
    """What the command answers when nothing is merged."""
    argv = [word if isinstance(word, bytes) else word.encode() for word in command]
    if command[0] == "returned":
        reply = connection.call(*fcall("nack_many", [queue_key(argv[1])], b"RETURN", b"0", b"", *argv[2:]))
        return sum(reply) if isinstance(reply, list) else plain(reply)
    if not command[0].startswith("VALQ."):
        return plain(connection.call(*argv))
    try:
        parsed = parse(argv, 2, MAX_BODY_BYTES)
    except CommandError as error:
        return str(error)
    if command[0] != "VALQ.PUSH" or len(command) > 3:
        return plain(connection.call(*function_call(parsed, b"n2", AUTO)))
    # A plain PUSH does not look at what is due.  The function with options does, and messages would die earlier.
    reply = connection.call(*fcall("push_many", [queue_key(argv[1])], AUTO, argv[2]))
    reply = reply[0] if isinstance(reply, list) else reply
    return b"%d" % reply if isinstance(reply, int) else reply.decode() if isinstance(reply, bytes) else str(reply)


def receipts(command, reply):
    """Queue and receipt of what a POP or MPOP took, if it can be given back."""
    messages = map(as_map, reply if "COUNT" in command else [reply or []])
    queue = command[1].encode()
    return [(m.get(b"queue", queue), m[b"receipt"]) for m in messages if m.get(b"receipt")]


def left(connection):
    """All that there is to know of the queues."""
    peeks = [("VALQ.PEEK", *each, "COUNT", "1000") for each in product("ab", ["READY", "INFLIGHT", "DELAYED", "DLQ"])]
    return {command: alone(connection, command) for command in [*peeks, ("VALQ.INFO", "a"), ("VALQ.INFO", "b")]}


def happen(event, data, lane, client):
    if event == "time":
        lane.pass_time(data.draw(st.sampled_from([1, 250, 1000, 60000])))
    elif event == "flush":
        lane.flush_functions()
    elif event == "leave":
        client.session.left()
    elif event == "send":
        lane.send()


@pytest.mark.parametrize("part", range(20))  # later on in a run, Hypothesis mostly varies examples that it has had
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_replies_are_those_of_the_commands_run_one_by_one(valkey, part, data):
    with Connection(valkey.port) as merged, Connection(valkey.port) as single:
        single.call("SELECT", "1")
        lane = Lane(merged)
        clients = [Client(lane) for _ in range(data.draw(st.integers(2, 4)))]
        for queue in data.draw(st.sampled_from(["ab", "ab", "a", ""])):
            clients[0].say([("VALQ.MPUSH", queue, "6", *"abcdef"), ("VALQ.POP", queue, "COUNT", "4")])
        for _ in range(data.draw(st.integers(1, 5))):
            batches = st.lists(st.sampled_from(data.draw(palettes)), max_size=10)
            for client in clients:
                if not client.session.gone:
                    client.say([command for command, times in data.draw(batches) for _ in range(times)])
            for client in clients * 2:
                client.deliver(data.draw(st.just(100) | st.integers(0, 99)), data.draw(st.booleans()))
                happen(data.draw(events), data, lane, client)
            lane.settle()
        for client in clients:
            client.deliver(100)
        lane.settle()
        assert [client.answered for client in clients] == [len(client.commands) for client in clients]
        load(merged, lane.clock)
        left_merged = left(merged)
        load(single, clock(START_MS))
        taken_by_nobody = []
        for command, reply, gone in lane.log:
            if gone and "NOACK" in command and reply is None:
                continue  # it was not run
            expected = alone(single, command)
            takes = command[0] in ("VALQ.POP", "VALQ.MPOP") and "NOACK" not in command
            if gone and takes and not isinstance(expected, str):
                taken_by_nobody += receipts(command, expected)
                expected = [] if "COUNT" in command else None
            assert reply == expected, command
        assert sorted(lane.given_back) == sorted(taken_by_nobody)
        assert left_merged == left(single)


def test_what_arrives_in_one_turn_is_merged(valkey):
    with Connection(valkey.port) as merged:
        lane = Lane(merged)
        clients = [Client(lane) for _ in range(50)]
        for _ in range(3):  # the first round is parsed, the others are recognised
            for client in clients:
                client.say([("VALQ.PUSH", "m", "x")])
                client.deliver(100)
            lane.settle()
        merged.call("CONFIG", "RESETSTAT")
        for client in clients:
            client.say([("VALQ.PUSH", "m", "x"), ("VALQ.PUSH", "m", "y"), ("VALQ.POP", "m")])
            client.deliver(100)
        lane.settle()
        assert b"cmdstat_fcall:calls=2," in merged.call("INFO", "commandstats")
        assert all(client.answered == 6 for client in clients)


def test_functions_that_are_gone_again_when_a_call_is_repeated_are_loaded_again(valkey):
    with Connection(valkey.port) as merged:
        lane = Lane(merged)
        client = Client(lane)
        lane.flush_functions()
        client.say([("VALQ.PUSH", "q", "x"), ("VALQ.POP", "q", "NOACK")])
        client.deliver(100)
        lane.gone_again = 2
        lane.settle()
        assert [reply[:4] if isinstance(reply, list) else reply for _, reply, _ in lane.log] == [
            b"1",
            [b"id", b"1", b"body", b"x"],
        ]


def test_a_call_is_not_repeated_when_a_later_one_found_functions_that_another_daemon_loaded(valkey):
    with Connection(valkey.port) as merged:
        lane = Lane(merged)
        client, other = Client(lane), Client(lane)
        lane.flush_functions()
        other.say([("VALQ.PUSH", "b", "y")])
        client.say([("VALQ.PUSH", "a", "x")])
        for each in (other, client):
            each.deliver(100)
        source = whole_source(test_clock=True)
        lane.coalescer.add(Listener(), LoneCall(request("FUNCTION", "LOAD", source), lambda reply: None))
        client.say([("VALQ.POP", "a")])
        client.deliver(100)
        lane.settle()
        (_, other_push, _), (_, push, _), (_, pop, _) = lane.log
        assert (other_push, pop) == (b"1", None)
        assert push.startswith("NOBACKEND ")
        assert "was not applied" in push
