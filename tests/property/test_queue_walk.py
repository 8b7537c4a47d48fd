"""The machine of test_queue_model on a walk that goes where messages are: most of its commands find what they name."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.property.test_queue_model import NAMES, PURGED, SOAK_S, QueueMachine, link  # noqa: F401 - a fixture

STEPS = 60
BODIES = [b"", b"a", b"bb" * 20, b"\r\n\0\xff", b"x" * 1024, b"x" * 1025]
FORMS = ["n2", "n3", "e2", "e3"]
JOINED = [*FORMS, "j2", "j3"]
SOMEWHERE = ["inflight", "inflight", "ready", "delayed", "dlq"]


class Walker(QueueMachine):
    """Names messages in the state ``wanted``, mostly."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)
        self.wanted = "inflight"
        self.begin(jitter=False)

    def one(self, values):
        return self.random.choice(values)

    def perhaps(self, chance, values):
        return self.one(values) if self.random.random() < chance else None

    def pick(self, name, pairs):
        queue = self.model.queues.get(name)
        messages = queue.messages if queue else {}
        fitting = [number for number in messages if messages[number].state == self.wanted] or list(messages)
        found = {}
        for _ in range(self.one([1, 1, 2, 4])):
            number = self.perhaps(0.85 if fitting else 0, fitting)
            if number is None:
                number = max(1, (queue.seq if queue else 0) + self.random.randint(-12, 2))
            delivery = self.one([None, 0, 0, 0, -1, 1])
            n = max(1, (messages[number].deliveries if number in messages else 1) + (delivery or 0))
            found[number] = b"%d" % number if delivery is None else b"%d-%d" % (number, n)
        return list(found.values())

    # Steps

    def walk_configure(self):
        delays = [0, 250, 1000, 5000]
        backoff = (self.one(["FIXED", "LINEAR", "EXP"]), self.one(delays), self.one(delays))
        self.configure(
            name=self.one(NAMES),
            update=self.random.random() < 0.8,
            form=self.one(FORMS),
            vt=self.perhaps(0.3, [1000, 2000, 30000]),
            attempts=self.perhaps(0.4, [1, 2, 3]),
            retention=self.perhaps(0.2, [0, 60000, 61500]),
            backoff=self.perhaps(0.3, ["NONE", backoff]),
            jitter=0,
            length=self.perhaps(0.3, [0, 3, 6, 12]),
            size=self.perhaps(0.2, [0, 60, 3000]),
            overflow=self.perhaps(0.3, ["REFUSE", "DROPHEAD"]),
            dlq=self.perhaps(0.4, ["NONE", *NAMES]),
            max_lease=self.perhaps(0.3, [0, 1000, 5000]),
        )

    def walk_push(self):
        self.push(
            name=self.one(NAMES),
            form=self.one(JOINED),
            contents=[self.one(BODIES) for _ in range(self.random.randint(1, 3))],
            many=self.random.random() < 0.4,
            delay=self.perhaps(0.3, [0, 1, 250, 1000, 5000, 18446744073709551615000]),
            at=self.random.random() < 0.3,
            ttl=self.perhaps(0.25, [1, 1000, 3000]),
            dedup=self.perhaps(0.3, [b"k", b"\0l"]),
            window=self.perhaps(0.5, [1000, 4000]),
            vt=self.perhaps(0.2, [1000, 2000]),
            attempts=self.perhaps(0.3, [1, 2, 3]),
            priority=self.perhaps(0.4, [0, 1, 31]),
            headers=self.perhaps(0.3, [[b"f", b"v"], [b"valq-id", b"v"]]),
        )

    def walk_push_plain(self):
        contents = [self.one(BODIES) for _ in range(self.random.randint(1, 8))]
        self.push_plain(name=self.one(NAMES), form=self.one(JOINED), contents=contents)

    def walk_pop(self):
        self.pop(
            queues=self.random.sample(NAMES, self.random.randint(1, 3)),
            form=self.one(JOINED),
            several=self.random.random() < 0.3,
            count=self.perhaps(0.6, range(1, 9)),
            vt=self.perhaps(0.2, [1000, 2000]),
            noack=self.random.random() < 0.1,
            meta=self.random.random() < 0.4,
            wait=self.one([0, 0, 1, 250, 1000]),
        )

    def walk_ack(self):
        self.wanted = self.one(SOMEWHERE)
        self.ack(name=self.one(NAMES), form=self.one(JOINED), pairs=None)

    def walk_remove(self):
        self.wanted = self.one(SOMEWHERE)
        self.remove(name=self.one(NAMES), form=self.one(FORMS), pairs=None)

    def walk_cancel(self):
        self.wanted = self.one(SOMEWHERE)
        self.cancel(name=self.one(NAMES), form=self.one(FORMS), pairs=None)

    def walk_nack(self):
        self.wanted = "inflight"
        self.nack(
            name=self.one(NAMES),
            form=self.one(JOINED),
            pairs=None,
            kind=self.one([None, "FAIL", "SILENT", "FATAL"]),
            delay=self.perhaps(0.4, [0, 1, 250, 1000]),
            reason=self.one([b"", b"broken"]),
        )

    def walk_extend(self):
        self.wanted = "inflight"
        ms, wait = self.one([1000, 2000, 30000]), self.one([0, 0, 1, 250])
        self.extend(name=self.one(NAMES), form=self.one(JOINED), pairs=None, ms=ms, wait=wait)

    def walk_redrive(self):
        self.wanted = "dlq"
        pairs, limit, to = self.perhaps(0.4, [()]), self.perhaps(0.3, [1, 2, 3]), self.perhaps(0.4, NAMES)
        self.redrive(name=self.one(NAMES), form=self.one(FORMS), pairs=pairs, limit=limit, to=to)

    def walk_purge(self):
        self.purge(name=self.one(NAMES), form=self.one(FORMS), what=self.one([*PURGED, None]))

    def walk_purge_while_pushing(self):
        contents = [b"a"] * self.random.randint(1, 9)
        self.purge_while_pushing(name=self.one(NAMES), what=self.one([*PURGED]), contents=contents)

    def walk_pause(self):
        what = self.one(["IN", "OUT", "ALL", "NONE", "NONE", "NONE"])
        self.pause(name=self.one(NAMES), form=self.one(FORMS), what=what, ms=self.one([0, 1000, 1000]))

    def walk_time(self):
        ms = self.one([1, 250, 999, 1000, 1000, 2000, 5000, 30000, 60000])
        self.time_passes(name=self.one(NAMES), ms=ms, first=self.random.random() < 0.3)

    def walk_delete(self):
        self.delete(name=self.one(NAMES), form=self.one(FORMS))


WEIGHTS = {
    Walker.walk_configure: 50,
    Walker.walk_push: 220,
    Walker.walk_push_plain: 60,
    Walker.walk_pop: 240,
    Walker.walk_ack: 60,
    Walker.walk_remove: 20,
    Walker.walk_cancel: 40,
    Walker.walk_nack: 140,
    Walker.walk_extend: 80,
    Walker.walk_redrive: 70,
    Walker.walk_purge: 5,
    Walker.walk_purge_while_pushing: 10,
    Walker.walk_pause: 30,
    Walker.walk_time: 90,
    Walker.walk_delete: 4,
}


def walk(seed):
    walker = Walker(seed)
    for step in walker.random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS):
        step(walker)
        walker.check_step()


@pytest.mark.parametrize("seed", range(8))
def test_functions_do_what_the_contract_says_where_messages_are(link, seed):  # noqa: F811 - the fixture
    Walker.link = link
    walk(seed)
    until = time.monotonic() + (SOAK_S / 8 if os.environ.get("VALQD_SOAK") else 0)
    while time.monotonic() < until:
        seed += 8
        walk(seed)
