"""Every command with every option in random order, on the functions in a real Valkey, beside a model of the contract.

Requests are built by the grammar and called in each of the daemon's ways: native, encoded, and joined with others.
After every step all that can be asked of every queue is compared, and the keys are checked against each other.  With
VALQD_SOAK set this takes ten minutes.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.lua.conftest import Link, flat
from tests.property.checks import SLOTS, STATES, Checks
from tests.property.model import REDRIVE_STEP, TRIM_STEP, Model, Refused, Settings
from tests.servers import Valkey
from valqd.commands.grammar import parse
from valqd.lua import bundle
from valqd.protocol.framing import MAX_BULK_BYTES

SOAK_S = 600
START_MS = 1_700_000_000_000
NAMES = ("orders", "mails", "dead")
PURGED = {"MAIN": STATES[:2], "ALL": STATES, **{state.upper(): (state,) for state in STATES}}

names = st.sampled_from(NAMES)
some = st.integers(1, 3)
bodies = st.sampled_from([b"", b"a", b"bb" * 20, b"\r\n\0\xff", b"x" * 1024, b"x" * 1025, b"x" * 16384])
waits = st.sampled_from([0, 1, 250, 1000, 5000])
leases = st.sampled_from([1000, 2000, 30000])
#: native, encoded, joined with others; for RESP2 and RESP3
forms = st.sampled_from(["n2", "n3", "e2", "e3", "j2", "j3"])
picks = st.lists(st.tuples(st.integers(-12, 3), st.sampled_from([None, None, 0, 0, -1])), min_size=1, max_size=4)
maybe = st.booleans()


def seconds(ms):
    return b"%d.%03d" % divmod(ms, 1000)


class QueueMachine(Checks, RuleBasedStateMachine):
    link: Link  #: set by the test

    def __init__(self):
        super().__init__()
        self.link.ok("FLUSHALL")
        self.model = Model(START_MS)
        self.set_clock()

    def set_clock(self):
        self.link.ok("FCALL", "valq1_test_clock", 0, self.model.now, "STILL")

    def same(self, expected, form, *words):
        """Send a command and compare what it answers with what ``expected()`` does to the model."""
        try:
            wanted = expected()
        except Refused as refused:
            wanted = f"refused: {refused}"
        try:
            got = self.send(form, *words)
        except Refused as refused:
            got = f"refused: {refused}"
        assert got == wanted, (form, words)
        return got

    def pick(self, name, pairs):
        """Ids and receipts of messages of the queue, old ones, wrong ones and some that never were."""
        queue = self.model.queues.get(name)
        last = queue.seq if queue else 0
        found = {}
        for back, delivery in pairs:
            number = max(1, last + back if back <= 0 else back)
            message = queue.messages.get(number) if queue else None
            n = None if delivery is None else max(1, (message.deliveries if message else 1) + delivery)
            found[number] = b"%d" % number if n is None else b"%d-%d" % (number, n)
        return list(found.values())

    # Commands

    @initialize(jitter=maybe)
    def begin(self, jitter):
        given = {"backoff": ("LINEAR", 500, 5000, 50)} if jitter else {}
        words = ["BACKOFF", "LINEAR", "0.5", "5", "JITTER", 50] if jitter else []
        self.same(lambda: self.model.create("orders", Settings(**given)) and b"OK", "n2", "CREATE", "orders", *words)

    @rule(
        name=names,
        update=maybe,
        form=forms,
        vt=st.none() | leases,
        attempts=st.none() | st.integers(1, 3),
        retention=st.none() | st.sampled_from([0, 60000, 61500]),
        backoff=st.none() | st.just("NONE") | st.tuples(st.sampled_from(["FIXED", "LINEAR", "EXP"]), waits, waits),
        jitter=st.sampled_from([0, 0, 50]),
        length=st.none() | st.sampled_from([0, 3, 6]),
        size=st.none() | st.sampled_from([0, 60, 3000]),
        overflow=st.none() | st.sampled_from(["REFUSE", "DROPHEAD"]),
        dlq=st.none() | st.none() | st.just("NONE") | names,
        max_lease=st.none() | st.sampled_from([0, 1000, 5000]),
    )
    def configure(
        self, name, update, form, vt, attempts, retention, backoff, jitter, length, size, overflow, dlq, max_lease
    ):
        words = ["UPDATE" if update else "CREATE", name]
        given = {"vt": vt, "attempts": attempts, "retention": retention, "max_length": length, "max_bytes": size}
        given |= {"overflow": overflow, "max_lease": max_lease}
        given = {field: value for field, value in given.items() if value is not None}
        tokens = {"vt": "VT", "attempts": "MAXATTEMPTS", "retention": "RETENTION", "max_length": "MAXLEN"}
        tokens |= {"max_bytes": "MAXBYTES", "overflow": "OVERFLOW", "max_lease": "MAXLEASE"}
        for field, value in given.items():
            words += [tokens[field], seconds(value) if field in ("vt", "retention", "max_lease") else value]
        if backoff == "NONE":
            words += ["BACKOFF", "NONE"]
            given["backoff"] = None
        elif backoff:
            kind, base, cap = backoff[0], min(backoff[1:]), max(backoff[1:])
            words += ["BACKOFF", kind, seconds(base), seconds(cap)]
            jitter = jitter if base >= 250 else 0  # a wait that may be none is no wait that the model can tell
            words += ["JITTER", jitter] if jitter else []
            given["backoff"] = (kind, base, cap, jitter)
        if dlq and dlq != name:
            words += ["DLQ", dlq]
            given["dlq"] = None if dlq == "NONE" else dlq
        if len(words) == 2:
            return

        def expected():
            if update:
                queue = self.model.queue(name)
            elif name in self.model.queues:
                raise Refused("QUEUEEXISTS")
            if given.get("dlq") and self.model.leads_back(name, given["dlq"]):
                raise Refused("ERR")
            if not update:
                self.model.create(name, Settings(**given))
                return b"OK"
            vars(queue.settings).update(given)
            if queue.settings.max_bytes:
                for message in queue.messages.values():  # they become records, whose leases count from delivery
                    message.plain = message.plain and message.state == "inflight"
            return b"OK"

        self.same(expected, form, *words)

    @rule(name=names, form=forms)
    def delete(self, name, form):
        def expected():
            self.model.queue(name)
            del self.model.queues[name]
            return b"OK"

        self.same(expected, form, "DELETE", name)
        if name not in self.model.queues:
            left = set(self.link.ok("KEYS", f"valq:{{{name}}}:*"))
            assert left <= {f"valq:{{{name}}}:sources".encode()}  # of a queue that never was, but was named as a target

    @rule(
        name=names,
        form=forms,
        contents=st.lists(bodies, min_size=1, max_size=3),
        many=maybe,
        delay=st.none() | st.none() | waits | st.just(18446744073709551615000),
        at=maybe,
        ttl=st.none() | st.none() | st.sampled_from([1, 1000, 3000]),
        dedup=st.none() | st.none() | st.sampled_from([b"k", b"\0l"]),
        window=st.none() | st.sampled_from([1000, 4000]),
        vt=st.none() | st.none() | leases,
        attempts=st.none() | st.none() | some,
        priority=st.none() | st.none() | st.sampled_from([0, 1, 31]),
        headers=st.none() | st.none() | st.lists(st.sampled_from([b"f", b"\r\n"]), min_size=2, max_size=2),
    )
    def push(self, name, form, contents, many, delay, at, ttl, dedup, window, vt, attempts, priority, headers):
        words, options = [], {}
        if delay is not None:
            if at and delay < 10**9:
                due = self.model.now + delay - 500
                words += ["AT", due]
                options["due"] = due
            else:
                words += ["DELAY", seconds(delay)]
                options["due"] = self.model.now + delay
        for token, field, value, ms in (
            ("TTL", "ttl", ttl, True),
            ("VT", "vt", vt, True),
            ("MAXATTEMPTS", "max_attempts", attempts, False),
            ("PRIORITY", "priority", priority, False),
        ):
            if value is not None:
                words += [token, seconds(value) if ms else value]
                options[field] = value
        if dedup:
            words += ["DEDUP", dedup] + (["WINDOW", seconds(window)] if window else ["UNTILDONE"])
            options |= {"dedup": dedup, "window": window, "until_done": not window}
        if headers:
            words += ["HEADERS", 1, *headers]
            options["headers"] = headers
        contents = contents if many else contents[:1]

        def expected():
            queue = self.model.queue(name) if name in self.model.queues else self.model.create(name, Settings())
            ids = [b"%d" % number for number in queue.push(contents, **options)]
            return ids if many else ids[0]

        command = ["MPUSH", name, len(contents), *contents] if many else ["PUSH", name, contents[0]]
        self.same(expected, form, *command, *words)

    @rule(name=names, form=forms, contents=st.lists(bodies, min_size=1, max_size=20))
    def push_plain(self, name, form, contents):
        for body in contents:
            self.same(lambda body=body: self.plain_push(name, body), form, "PUSH", name, body)

    def plain_push(self, name, body):
        queue = self.model.queue(name) if name in self.model.queues else self.model.create(name, Settings())
        return b"%d" % queue.push([body])[0]

    @rule(
        queues=st.lists(names, min_size=1, max_size=3, unique=True),
        form=forms | st.sampled_from(["j2", "j3"]),
        several=maybe,
        count=st.none() | st.integers(1, 12),
        vt=st.none() | leases,
        noack=maybe,
        meta=maybe,
        wait=waits,
    )
    def pop(self, queues, form, several, count, vt, noack, meta, wait):
        self.model.now += wait
        self.set_clock()
        queues = queues if several else queues[:1]
        words = [] if count is None else ["COUNT", count]
        words += ["VT", seconds(vt)] if vt else []
        words += ["NOACK"] if noack else []
        words += ["WITHMETA"] if meta else []
        wanted = []
        for name in queues:
            if name in self.model.queues and len(wanted) < (count or 1):
                queue = self.model.queue(name)
                taken = queue.pop((count or 1) - len(wanted), vt, noack)
                wanted += [self.delivery(queue, message, noack, meta, several) for message in taken]
        command = ["MPOP", len(queues), *queues] if several else ["POP", queues[0]]
        got = self.send(form, *command, *words)
        if count is None:
            got = [] if got is None else [got]
        got = [flat(message) for message in got]
        if form == "n3":  # maps come in the order of Lua's tables
            for message in [*got, *wanted]:
                if headers := message.get("headers"):
                    message["headers"] = sorted(zip(headers[::2], headers[1::2], strict=True))
        assert got == wanted, (form, words)

    def delivery(self, queue, message, noack, meta, several):
        found = {"queue": queue.name.encode()} if several else {}
        found |= {"id": b"%d" % message.id, "body": message.body, "attempts": message.attempts}
        found["receipt"] = None if noack else b"%d-%d" % (message.id, message.deliveries)
        if meta:
            found |= {"enqueued_at": message.enqueued_at, "deadline": None if noack else message.at}
            found |= {"priority": message.priority, "headers": message.headers}
            found |= {"age_ms": self.model.now - message.enqueued_at, "last_error": message.last_error}
        elif message.headers:
            found["headers"] = message.headers
        return found

    @rule(name=names, form=forms, pairs=picks)
    def ack(self, name, form, pairs):
        chosen = self.pick(name, pairs)
        self.same(lambda: self.model.queue(name).ack(chosen), form, "ACK", name, *chosen)

    @rule(name=names, form=forms, pairs=picks)
    def remove(self, name, form, pairs):
        chosen = self.pick(name, pairs)
        self.same(lambda: self.model.queue(name).remove(chosen), form, "DEL", name, *chosen)

    @rule(
        name=names,
        form=forms,
        pairs=picks,
        kind=st.sampled_from([None, "FAIL", "SILENT", "FATAL"]),
        delay=st.none() | waits,
        reason=st.sampled_from([b"", b"broken"]),
    )
    def nack(self, name, form, pairs, kind, delay, reason):
        chosen = self.pick(name, pairs)
        words = [] if delay is None or kind == "FATAL" else ["DELAY", seconds(delay)]
        words += [kind] if kind else []
        words += ["REASON", reason] if reason else []
        wait = delay if words[:1] == ["DELAY"] else None
        self.same(
            lambda: self.model.queue(name).nack(chosen, kind or "FAIL", wait, reason),
            form,
            "NACK",
            name,
            *chosen,
            *words,
        )

    @rule(name=names, form=forms, pairs=picks, ms=leases, wait=waits)
    def extend(self, name, form, pairs, ms, wait):
        self.model.now += wait
        self.set_clock()
        chosen = self.pick(name, pairs)[0]
        self.same(lambda: self.model.queue(name).extend(chosen, ms), form, "EXTEND", name, chosen, seconds(ms))

    @rule(name=names, form=forms, pairs=picks)
    def cancel(self, name, form, pairs):
        chosen = self.pick(name, pairs)[0]
        self.same(lambda: self.model.queue(name).cancel(chosen), form, "CANCEL", name, chosen)

    @rule(name=names, form=forms, what=st.sampled_from([*PURGED, None]))
    def purge(self, name, form, what):
        words = [what] if what else []
        self.same(lambda: self.model.queue(name).purge(PURGED[what or "MAIN"]), form, "PURGE", name, *words)

    @rule(name=names, what=st.sampled_from([*PURGED]), contents=st.lists(bodies, min_size=1, max_size=9))
    def purge_while_pushing(self, name, what, contents):
        """What comes while a purge goes on, step by step, stays."""
        with suppress(Refused):
            queue = self.model.queue(name)
            if queue.settings.max_length or queue.settings.max_bytes or queue.is_paused("in"):
                return
            expected = queue.purge(PURGED[what])
            request = parse([b"VALQ", b"PURGE", name.encode(), what.encode()], 2, MAX_BULK_BYTES)
            removed, token = self.step(request)
            for body in contents:
                self.same(lambda body=body: self.plain_push(name, body), "n2", "PUSH", name, body)
                if token:
                    more, token = self.step(request, token)
                    removed += more
            while token:
                more, token = self.step(request, token)
                removed += more
            assert removed == expected

    @rule(name=names, form=forms, pairs=st.none() | picks, limit=st.none() | some, to=st.none() | names)
    def redrive(self, name, form, pairs, limit, to):
        chosen = None if pairs is None else self.pick(name, pairs)
        words = [] if chosen is None else ["ID", len(chosen), *chosen]
        words += ["TO", to] if to else []
        words += ["LIMIT", limit] if limit else []

        def expected():
            if name not in self.model.queues:
                raise Refused("NOQUEUE")
            target = self.model.queue(to or name)  # what is due there comes before what is due here
            return self.model.queue(name).redrive(target, chosen, limit, stepped=form[0] != "n")

        self.same(expected, form, "REDRIVE", name, *words)

    @rule(name=names, form=forms, what=st.sampled_from(["IN", "OUT", "ALL", "NONE"]), ms=st.sampled_from([0, 1000]))
    def pause(self, name, form, what, ms):
        ms = 0 if what == "NONE" else ms
        words = ["FOR", seconds(ms)] if ms else []

        def expected():
            self.model.queue(name).pause(what, ms)
            return b"OK"

        self.same(expected, form, "PAUSE", name, what, *words)

    @rule(name=names, ms=st.sampled_from([1, 999, 1000, 5000, 30000, 60000]), first=maybe)
    def time_passes(self, name, ms, first):
        self.model.now += ms
        self.set_clock()
        with suppress(Refused):
            self.model.queue(name).trim()
        while self.link.ok("FCALL", "valq1_sweep", 1, f"valq:{{{name}}}:queue", "1" if first else "", 1000):
            pass

    # What must hold after every step

    def check_step(self):
        assert [name.decode() for name in self.send("n2", "LIST")] == sorted(self.model.queues)
        for name in sorted(self.model.queues):  # what is due there may die into another: each first settles
            queue = self.model.queue(name)
            self.send("n2", "INFO", name)
            self.learn_jitter(queue)
        for name in sorted(self.model.queues):
            queue = self.model.queue(name)
            self.check_info(queue)
            self.check_messages(queue)
            self.check_keys(queue)

    def check_invariants(self, *args, **kwargs):
        super().check_invariants(*args, **kwargs)
        self.check_step()


def in_small_steps(source):
    """The library with steps so small that few messages need several."""
    steps = (("PURGE_STEP", 2000, 3), ("PURGE_BUCKETS", 500, 1), ("REDRIVE_STEP", 300, REDRIVE_STEP))
    steps += (
        ("TRIM_STEP", 2000, TRIM_STEP),
        ("DROP_PAGE", 500, 2),
        ("STRIDE", 500, 1),
        ("FIRST_STRIDE", 8, 1),
        ("MOST_BUCKETS", 2000, 0),
        ("RECORD_BATCH", 256, 2),
        ("LOOK", 32, 1),
        ("PAGE_BUCKETS", 500, 1),
        ("MOST_VALUES", 2000, 2),
        ("FEW_RECORDS", 512, 2),
        ("MOST_HELD_BYTES", 1048576, 1),
        ("ACK_BATCH", 1000, 2),
        ("reply.FRAGMENT_BYTES", 16384, 5),
        ("SPARSE_SLOTS", 64, SLOTS // 2),
        ("queue.SLOTS", 128, SLOTS),
    )
    for setting, large, small in steps:
        source, found = re.subn(rf"^((?:local )?{setting} =) {large}$", rf"\1 {small}", source, flags=re.MULTILINE)
        assert found == 1, setting
    return source


@pytest.fixture
def link():
    with Valkey() as server:
        connection = Link(server.port)
        connection.ok("FUNCTION", "LOAD", in_small_steps(bundle.whole_source(test_clock=True)))
        yield connection
        connection.close()


def test_functions_do_what_the_contract_says(link):
    QueueMachine.link = link
    soak = bool(os.environ.get("VALQD_SOAK"))
    until = time.monotonic() + (SOAK_S if soak else 0)
    while True:
        run_state_machine_as_test(
            QueueMachine,
            settings=settings(
                max_examples=400 if soak else 60,
                stateful_step_count=50,
                derandomize=not soak,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        if time.monotonic() >= until:
            break
