"""Merging is never visible: every reply is what the commands, run one by one in some order that respects each client's
own, would have answered.

Many sessions, driven without sockets, share one coalescer; its calls go to a real Valkey.  The order in which answers
are dealt out is a serial order of the commands: the same commands are then run alone, in that order, on another
database, and every reply must be the same.
"""

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import Connection, Valkey, request
from valqd.commands.grammar import Limits, parse
from valqd.commands.request import function_call
from valqd.errors import CommandError
from valqd.lua.bundle import whole_source
from valqd.protocol import relay
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.host import Identity, Shared
from valqd.protocol.session import Session

AUTO = b"30000:5:86400000"
LIMITS = Limits(max_body_bytes=1 << 20)


class Lane:
    """A shared lane that sends when it is told to."""

    def __init__(self, connection):
        self.coalescer = Coalescer()
        self.up = True
        self._connection = connection

    def wake(self):
        pass

    def turn(self):
        """The end of a turn of the loop: send all open calls, and deal out their replies."""
        pieces = self.coalescer.take()
        if pieces:
            self._connection.send_raw(b"".join(pieces))
        while self.coalescer.sent:
            self.coalescer.deliver(self._connection.read())


class Client:
    """The host of one session: notes each reply in the order in which all clients are answered."""

    def __init__(self, lane, shared, log):
        self._lane = lane
        self._log = log
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._raw = b""
        self.commands = []
        self.answered = 0
        self.session = Session(self, shared, 1)

    def lane(self, identity):
        return self._lane

    def send(self, commands, cuts):
        self.commands += commands
        stream = b"".join(request(*command) for command in commands)
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if start < end:
                self.session.receive(stream[start:end])

    def write(self, data):
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not Ellipsis:
            self._log.append((self.commands[self.answered], plain(reply)))
            self.answered += 1

    def session_resumed(self):
        pass


def plain(reply):
    """A reply that can be compared: errors as text, times (unix ms) left out."""
    if isinstance(reply, Exception):
        return str(reply)
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    return "time" if isinstance(reply, int) and reply > 10**12 else reply


queues = st.sampled_from(["a", "b"])
ids = st.integers(1, 12).map(str)
handles = st.one_of(ids, st.tuples(ids, st.integers(1, 3)).map(lambda pair: f"{pair[0]}-{pair[1]}"))
PREFIX = b"*3\r\n$9\r\nVALQ.PUSH\r\n$1\r\na\r\n$1\r\nx\r\n"  # a body that looks like a request
bodies = st.one_of(st.binary(max_size=12), st.just(b"x" * 1500), st.just(PREFIX))
commands = st.one_of(
    st.tuples(st.just("VALQ.PUSH"), queues, bodies),
    st.tuples(st.just("VALQ.PUSH"), queues, bodies),
    st.tuples(st.just("VALQ.POP"), queues),
    st.tuples(st.just("VALQ.POP"), queues),
    st.tuples(st.just("VALQ.POP"), queues, st.just("COUNT"), st.integers(1, 3).map(str)),
    st.tuples(st.just("VALQ.POP"), queues, st.just("NOACK")),
    st.tuples(st.just("VALQ.ACK"), queues, handles),
    st.tuples(st.just("VALQ.ACK"), queues, handles, handles),
    st.tuples(st.just("VALQ.NACK"), queues, handles),
    st.tuples(st.just("VALQ.NACK"), queues, handles, st.just("FATAL")),
    st.tuples(st.just("VALQ.EXTEND"), queues, handles, st.just("60")),
    st.tuples(st.just("VALQ.PUSH"), queues),  # bad: arity
    st.tuples(st.just("VALQ.ACK"), queues, st.just("x1")),  # bad: id
    st.tuples(st.just("VALQ.POP"), queues, st.just("COUNT"), st.just("0")),  # bad: range
    st.tuples(st.just("VALQ.DEL"), queues, ids),
    st.tuples(st.just("INCR"), st.just("counter")),
    st.tuples(st.just("GET"), st.just("counter")),
)


@pytest.fixture(autouse=True)
def no_private_lanes(monkeypatch):
    """Clients that pipeline simple commands stay on the shared lane here, however many they send."""
    monkeypatch.setattr(relay, "MAX_REQUESTS", 1000)


@pytest.fixture(scope="module")
def valkey():
    with Valkey() as server, Connection(server.port) as connection:
        connection.call("FUNCTION", "LOAD", "REPLACE", whole_source())
        yield server


def alone(connection, command):
    """What the command answers when nothing is merged."""
    argv = [word if isinstance(word, bytes) else word.encode() for word in command]
    if not command[0].startswith("VALQ."):
        return plain(connection.call(*argv))
    try:
        parsed = parse(argv, 2, LIMITS)
    except CommandError as error:
        return str(error)
    reply = connection.call(*function_call(parsed, b"e2", AUTO))
    if isinstance(reply, Exception):
        return str(reply)
    reader = hiredis.Reader(notEnoughData=Ellipsis)
    reader.feed(b"".join(reply) if isinstance(reply, list) else reply)
    return plain(reader.gets())


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_replies_are_those_of_the_commands_run_one_by_one(valkey, data):
    with Connection(valkey.port) as merged, Connection(valkey.port) as single:
        single.call("SELECT", "1")
        merged.call("FLUSHALL")
        lane, log = Lane(merged), []
        shared = Shared(AUTO, LIMITS, Identity())
        clients = [Client(lane, shared, log) for _ in range(data.draw(st.integers(2, 5)))]
        for _ in range(data.draw(st.integers(1, 4))):
            for client in clients:
                batch = data.draw(st.lists(commands, max_size=6))
                size = len(b"".join(request(*command) for command in batch))
                cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=2)))
                client.send(batch, cuts)
            lane.turn()
        assert [client.answered for client in clients] == [len(client.commands) for client in clients]
        for command, reply in log:
            assert alone(single, command) == reply, command
        for queue in ("a", "b"):
            assert info(merged, queue) == info(single, queue)


def info(connection, queue):
    """INFO without what depends on the time."""
    reply = connection.call("FCALL", "valq1_info", "1", f"valq:{{{queue}}}:queue", "n2")
    if isinstance(reply, Exception):
        return str(reply)
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    return {name: value for name, value in fields.items() if name not in (b"created_at", b"oldest_ready_age_ms")}


def test_what_arrives_in_one_turn_is_merged(valkey):
    with Connection(valkey.port) as merged:
        merged.call("FLUSHALL")
        lane, log = Lane(merged), []
        shared = Shared(AUTO, LIMITS, Identity())
        clients = [Client(lane, shared, log) for _ in range(50)]
        for _ in range(3):  # the first round is parsed, the others are recognised
            for client in clients:
                client.send([("VALQ.PUSH", "m", "x")], [])
            lane.turn()
        merged.call("CONFIG", "RESETSTAT")
        for client in clients:
            client.send([("VALQ.PUSH", "m", "x"), ("VALQ.PUSH", "m", "y"), ("VALQ.POP", "m")], [])
        lane.turn()
        assert b"cmdstat_fcall:calls=2," in merged.call("INFO", "commandstats")
        assert all(client.answered == 6 for client in clients)
