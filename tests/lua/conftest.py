"""The functions as the daemon calls them: one real Valkey for all of these tests, whose clock they move."""

from __future__ import annotations

import pytest

from tests.lua import states
from tests.servers import Connection, Valkey, request
from valqd.lua import bundle

AUTO = "30000:5:86400000"
START_MS = 1_700_000_000_000


class Link(Connection):
    """A connection on which a test can move the functions' clock; ``ok`` raises error replies."""

    now_ms = START_MS

    def pipeline(self, calls):
        self.send_raw(b"".join(request(*call) for call in calls))
        return [self.read() for _ in calls]

    def ok(self, *args):
        reply = self.call(*args)
        if isinstance(reply, Exception):
            raise reply
        return reply


class Queue:
    """Functions on one queue, in mode n2 unless told otherwise."""

    def __init__(self, link: Link, name: str):
        self.link = link
        self.name = name
        self.key = f"valq:{{{name}}}:queue"

    def fcall(self, function, *args, keys=None):
        keys = [self.key] if keys is None else keys
        return self.link.call("FCALL", f"valq1_{function}", len(keys), *keys, *args)

    def do(self, function, *args, keys=None):
        reply = self.fcall(function, *args, keys=keys)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def other(self, name):
        return Queue(self.link, name)

    def create(self, vt=30000, attempts=5, retention=86400000, **options):
        pairs = [item for pair in options.items() for item in pair]
        settings = ("visibility_timeout", vt, "max_delivery_attempts", attempts, "retention_period", retention)
        assert self.do("create", "n2", "", *settings, *pairs) == b"OK"
        return self

    def update(self, **options):
        return self.fcall("update", "n2", *[item for pair in options.items() for item in pair])

    def push(self, *bodies, headers=None, **options):
        """One body: its id; several: their ids."""
        pairs = [item for pair in options.items() for item in pair]
        fields = [item for pair in (headers or {}).items() for item in pair]
        many = "1" if len(bodies) > 1 else ""
        return self.fcall("push", "n2", AUTO, many, len(options), *pairs, len(fields) // 2, *fields, *bodies)

    def fill(self, count, body=b"x", batch=500):
        calls = [
            ("FCALL", "valq1_push_many", 1, self.key, AUTO, *([body] * min(batch, count - at)))
            for at in range(0, count, batch)
        ]
        for at in range(0, len(calls), 50):
            self.link.pipeline(calls[at : at + 50])

    def pop(self, count="", vt="", flags=""):
        reply = self.do("pop", "n2", AUTO, count, vt, flags)
        if count == "":
            return flat(reply)
        return [flat(message) for message in reply]

    def ids(self, count=1000, vt="", flags=""):
        return [int(message["id"]) for message in self.pop(count, vt, flags)]

    def ack(self, *ids):
        return self.do("ack", "n2", *ids)

    def nack(self, *ids, kind="FAIL", delay="", reason=""):
        return self.do("nack", "n2", kind, delay, reason, *ids)

    def extend(self, receipt, ms):
        return self.fcall("extend", "n2", receipt, ms)

    def show(self, message_id):
        return flat(self.do("show", "n2", message_id))

    def info(self):
        return flat(self.do("info", "n2"))

    def counts(self):
        """ready, inflight, delayed, dlq."""
        info = self.info()
        return tuple(info[f"{state}_msgs"] for state in ("ready", "inflight", "delayed", "dlq"))

    def calls_of(self, function, *args):
        """How often each command is called within one call of the function, and what it returns."""
        self.link.ok("CONFIG", "RESETSTAT")
        reply = self.do(function, *args)
        lines = self.link.ok("INFO", "commandstats").decode().split("\r\n")
        pairs = [line.removeprefix("cmdstat_").split(":calls=") for line in lines if ":calls=" in line]
        return {name.upper(): int(rest.split(",")[0]) for name, rest in pairs}, reply

    def sweep(self):
        while self.do("sweep", "", 1000):
            pass

    def steps(self, function, *args):
        """A stepped function in e-mode: total, and how many calls it took."""
        total, calls, token = 0, 0, b""
        while True:
            count, token = self.do(function, "e2", token, *args)
            total, calls = total + count, calls + 1
            if not token:
                return total, calls

    def stored(self):
        return sorted(self.link.ok("KEYS", f"valq:{{{self.name}}}:*"))

    def set_state(self, **numbers):
        """Overwrite some of the numbers that its hash keeps packed."""
        self.link.ok("HSET", self.key, "state", states.changed(self.link.ok("HGET", self.key, "state"), **numbers))

    def skip_ids(self, count):
        """As if so many messages had come and gone."""
        seq = states.read(self.link.ok("HGET", self.key, "state"))["seq"]
        self.set_state(seq=seq + count)

    def pass_time(self, ms):
        """Move time on by ``ms`` for every function, also of a library that was loaded since; else it stands still."""
        self.link.now_ms += ms
        self.link.ok("FCALL", "valq1_test_clock", 0, self.link.now_ms, "STILL")


def flat(reply):
    """A flat map of mode n2 as a dict with names as text."""
    if reply is None:
        return None
    assert reply
    found = dict(zip(reply[::2], reply[1::2], strict=True))
    return {name.decode(): value for name, value in found.items()}


@pytest.fixture(scope="session")
def functions_server():
    with Valkey() as server:
        yield server


@pytest.fixture
def link(functions_server):
    """An empty Valkey, and the library freshly loaded: nothing volatile is left of another test.  Time stands still."""
    connection = Link(functions_server.port)
    connection.ok("FLUSHALL")
    connection.ok("FUNCTION", "LOAD", "REPLACE", bundle.whole_source(test_clock=True))
    Queue(connection, "any").pass_time(0)
    yield connection
    connection.close()


@pytest.fixture
def q(link):
    """A queue that is not there yet."""
    return Queue(link, "orders")
