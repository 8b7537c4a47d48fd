"""The contract of a queue in plain Python: what every command does to its messages, speed and storage aside.

Durations and times are ms; time stands still until the test moves ``Model.now``.  A command that
fails raises ``Refused`` and has changed nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: How many messages a call drops in a queue far over its limits, if it brings no more; as the tests set it.
TRIM_STEP = 3
#: Dead letters that one call of REDRIVE looks at, as the tests set it.
REDRIVE_STEP = 2


class Refused(Exception):
    """The error code that a command is answered with."""


@dataclass
class Message:
    id: int
    body: bytes
    enqueued_at: int
    state: str = "ready"
    deliveries: int = 0
    attempts: int = 0
    priority: int = 0
    vt: int | None = None
    expires_at: int | None = None
    max_attempts: int | None = None
    dedup: bytes | None = None
    until_done: bool = False
    headers: list[bytes] = field(default_factory=list)
    last_error: bytes | None = None
    failed_at: int | None = None
    died_at: int | None = None
    cancelled: int = 0
    at: int = 0  #: deadline in flight, due time when delayed
    earliest: int = 0  #: with jitter, `at` may turn out to be as early as this
    leased_at: int | None = None  #: from when MAXLEASE counts; plain deliveries count from their first EXTEND
    plain: bool = False

    @property
    def moment(self):
        """Order within a state that is ordered by time."""
        return float(self.died_at if self.state == "dlq" else self.at), self.id


COUNTERS = ("delivered", "acked", "redelivered", "dead", "expired", "nacked", "cancelled", "deduplicated", "dropped")


@dataclass
class Settings:
    vt: int = 30000
    attempts: int = 5
    retention: int = 86400000
    backoff: tuple[str, int, int, int] | None = None  #: kind, base, cap, jitter in percent
    max_length: int = 0
    max_bytes: int = 0
    overflow: str = "REFUSE"
    dlq: str | None = None
    max_lease: int = 0


class Queue:
    def __init__(self, model: Model, name: str, settings: Settings):
        self.model = model
        self.name = name
        self.settings = settings
        self.created_at = model.now
        self.seq = 0
        self.messages: dict[int, Message] = {}
        self.holders: dict[bytes, tuple[int, int | None]] = {}  #: dedup key -> id, end of its window
        self.paused = {"in": 0, "out": 0}
        self.totals = dict.fromkeys(COUNTERS, 0)
        self.gone = 0
        self.trimming = False  #: a push has left messages over the limits for the sweep

    @property
    def now(self):
        return self.model.now

    def is_paused(self, way):
        return self.paused[way] > self.now

    def pause(self, what, for_ms):
        until = self.now + for_ms if for_ms else 1 << 60
        self.paused = {way: until if what in (way.upper(), "ALL") else 0 for way in ("in", "out")}

    def in_state(self, state):
        found = [message for message in self.messages.values() if message.state == state]
        if state == "ready":
            return sorted(found, key=lambda message: (-message.priority, message.id))
        return sorted(found, key=lambda message: message.moment)

    # What ends a message, or a delivery

    def free(self, message):
        if message.until_done and self.holders.get(message.dedup, (0,))[0] == message.id:
            del self.holders[message.dedup]

    def drop(self, message):
        self.free(message)
        del self.messages[message.id]
        self.gone += 1

    def expire(self, message):
        self.drop(message)
        self.totals["expired"] += 1

    def die(self, message, why):
        self.totals["dead"] += 1
        self.free(message)
        message.expires_at, message.died_at, message.state = None, self.now, "dlq"
        if self.settings.dlq:
            target = self.model.queues.get(self.settings.dlq) or self.model.create(self.settings.dlq, Settings())
            target.seq += 1
            ours = {b"valq-queue": self.name.encode(), b"valq-id": b"%d" % message.id}
            ours |= {b"valq-attempts": b"%d" % message.attempts, b"valq-reason": why}
            pairs = zip(message.headers[::2], message.headers[1::2], strict=True)
            headers = [*ours.items(), *(pair for pair in pairs if pair[0] not in ours)]
            target.messages[target.seq] = Message(
                target.seq,
                message.body,
                self.now,
                priority=message.priority,
                headers=[item for pair in headers for item in pair],
                last_error=message.last_error,
                failed_at=message.failed_at,
                died_at=self.now,
            )
            self.drop(message)

    def give_back(self, message, delay, why, failures=None, ended=None):
        message.plain = False
        is_last = message.attempts >= (message.max_attempts or self.settings.attempts)
        if message.cancelled:
            self.totals["cancelled"] += 1
            self.drop(message)
        elif message.expires_at is not None and message.expires_at <= (ended if ended and is_last else self.now):
            self.expire(message)
        elif is_last:
            self.die(message, why)
        else:
            jitter = 0
            if delay is None:
                delay, jitter = self.backoff(failures or message.attempts)
            message.state, message.at = ("delayed", self.now + delay) if delay else ("ready", 0)
            message.earliest = message.at - delay * jitter // 100 - 1 if jitter and delay else 0

    def backoff(self, attempts):
        """How long it waits, and the percentage by which that may be shorter."""
        if not self.settings.backoff:
            return 0, 0
        kind, base, cap, jitter = self.settings.backoff
        factor = {"FIXED": 1, "LINEAR": attempts, "EXP": 2 ** (attempts - 1)}[kind]
        return int(min(base * factor, cap)), jitter

    def settle(self):
        for message in sorted(self.in_state("inflight"), key=lambda message: message.id):
            if message.at <= self.now:
                message.failed_at, message.last_error = self.now, b"lease expired"
                self.give_back(message, None, b"lease expired", ended=message.at)
        for message in self.in_state("delayed"):
            if message.at <= self.now:
                message.state = "ready"
        for message in list(self.messages.values()):
            if message.expires_at is not None and message.expires_at <= self.now and message.state != "inflight":
                self.expire(message)
        for message in self.in_state("dlq"):
            if self.settings.retention and message.died_at + self.settings.retention <= self.now:
                self.drop(message)
        self.holders = {key: held for key, held in self.holders.items() if held[1] is None or held[1] > self.now}

    # Commands

    def excess(self, count=0, size=0):
        """Messages and bytes over the limits, with ``count`` more of ``size`` in all."""
        length, limit = self.settings.max_length, self.settings.max_bytes
        alive = [message for message in self.messages.values() if message.state != "dlq"]
        over_bytes = sum(len(message.body) for message in alive) + size - limit if limit else 0
        return len(alive) + count - length if length else 0, over_bytes

    def make_room(self, count, size, spent=0, keeps=False):
        """How many were dropped; ``spent`` have been by the same call before.  ``keeps``: none may be."""
        length, limit = self.settings.max_length, self.settings.max_bytes
        over, over_bytes = self.excess(count, size)
        if over <= 0 and over_bytes <= 0:
            return 0
        ready = sorted(self.in_state("ready"), key=lambda message: message.id)
        if keeps or self.settings.overflow != "DROPHEAD" or over > len(ready):
            raise Refused("FULL")
        if (length and count > length) or (limit and size > limit):
            raise Refused("FULL")
        dropped, freed = [], 0

        def enough():
            return len(dropped) >= over and freed >= over_bytes

        def fair():
            made_up = (not length or len(dropped) >= count) and (not limit or freed >= size)
            return len(dropped) >= TRIM_STEP - spent and made_up

        while not enough() and not fair():
            if len(dropped) == len(ready):
                raise Refused("FULL")
            freed += len(ready[len(dropped)].body)
            dropped.append(ready[len(dropped)])
        self.trimming |= not enough()
        for message in dropped:
            self.drop(message)
        self.totals["dropped"] += len(dropped)
        return len(dropped)

    def trim(self):
        """What the sweep drops."""
        while self.trimming:
            ready = self.in_state("ready")
            self.trimming = self.settings.overflow == "DROPHEAD" and max(self.excess()) > 0 and bool(ready)
            if self.trimming:
                self.drop(min(ready, key=lambda message: message.id))
                self.totals["dropped"] += 1

    def push(self, bodies, due=None, ttl=None, dedup=None, window=None, until_done=False, **options):
        if self.is_paused("in"):
            raise Refused("PAUSED")
        if dedup in self.holders:
            self.totals["deduplicated"] += len(bodies)
            return [self.holders[dedup][0]] * len(bodies)
        added = bodies[:1] if dedup else bodies
        self.make_room(len(added), sum(map(len, added)))
        plain = not (due or ttl or dedup or options or self.settings.max_bytes)
        ids = []
        for body in added:
            self.seq += 1
            message = Message(self.seq, body, self.now, plain=plain and len(body) <= 1024, **options)
            message.dedup, message.until_done = dedup, until_done
            if ttl:
                message.expires_at = self.now + ttl
            if due and due > self.now:
                message.state, message.at = "delayed", due
            self.messages[self.seq] = message
            ids.append(self.seq)
        if dedup:
            self.holders[dedup] = (self.seq, None if until_done else self.now + window)
            self.totals["deduplicated"] += len(bodies) - 1
        return ids * (len(bodies) if dedup else 1)

    def pop(self, count, vt=None, noack=False):
        taken = []
        for message in self.in_state("ready"):
            if len(taken) == count or self.is_paused("out"):
                break
            if message.attempts >= (message.max_attempts or self.settings.attempts):
                self.die(message, b"attempts used up")
                continue
            message.attempts += 1
            message.deliveries += 1
            self.totals["redelivered"] += message.deliveries > 1
            message.state = "inflight"
            message.at = self.now + (vt or message.vt or self.settings.vt)
            message.leased_at = self.now if not message.plain or self.settings.max_lease else None
            taken.append(message)
            if noack:
                self.drop(message)
        self.totals["delivered"] += len(taken)
        return taken

    def find(self, text):
        """The message that an id or receipt names (or None), and whether the receipt, if it is one, holds."""
        number, _, delivery = text.partition(b"-")
        message = self.messages.get(int(number))
        holds = not delivery or (
            message is not None and message.state == "inflight" and message.deliveries == int(delivery)
        )
        return message, holds

    def ack(self, names):
        found = self.remove(names)
        self.totals["acked"] += found
        return found

    def remove(self, names):
        count = 0
        for name in names:
            message, holds = self.find(name)
            if message and holds:
                self.drop(message)
                count += 1
        return count

    def nack(self, names, kind, delay, reason):
        count = 0
        for name in names:
            message, holds = self.find(name)
            if not message or not holds or message.state != "inflight":
                continue
            count += 1
            message.plain = False
            if kind == "SILENT":
                if reason:
                    message.failed_at, message.last_error = self.now, reason
                message.attempts -= 1
                self.give_back(message, delay, reason or b"attempts used up", failures=message.attempts + 1)
                continue
            message.failed_at, message.last_error = self.now, reason or None
            if kind == "FATAL" and not message.cancelled:
                self.die(message, reason or b"nack")
            else:
                self.give_back(message, delay, reason or b"nack")
        self.totals["nacked"] += count
        return count

    def extend(self, name, ms):
        message, holds = self.find(name)
        if not message:
            raise Refused("NOMSG")
        if not holds:
            raise Refused("STALE")
        if message.state != "inflight":
            raise Refused("NOTINFLIGHT")
        if message.cancelled:
            raise Refused("CANCELLED")
        deadline = self.now + ms
        if self.settings.max_lease:
            message.leased_at = self.now if message.leased_at is None else message.leased_at
            deadline = min(deadline, max(message.at, message.leased_at + self.settings.max_lease))
        message.at = deadline
        return deadline

    def cancel(self, name):
        message, holds = self.find(name)
        if message and not holds:
            raise Refused("STALE")
        if not message or message.state == "dlq":
            return 0
        if message.state == "inflight":
            message.cancelled = 1
            self.free(message)
        else:
            self.totals["cancelled"] += 1
            self.drop(message)
        return 1

    def purge(self, states):
        found = [message for message in self.messages.values() if message.state in states]
        for message in found:
            self.drop(message)
        return len(found)

    def redrive(self, target, names, limit, stepped):
        if target is not self and target.is_paused("in"):
            raise Refused("PAUSED")
        found = self.in_state("dlq") if names is None else [self.find(name)[0] for name in names if b"-" not in name]
        moved = spent = 0
        for place, message in enumerate(found):
            if moved == limit:
                break
            if stepped and place % REDRIVE_STEP == 0:
                spent = 0
            if not message or message.state != "dlq" or message.id not in self.messages:
                continue
            try:
                spent += target.make_room(1, len(message.body), spent, keeps=target is self)
            except Refused:
                if not moved:
                    raise
                break
            moved += 1
            message.attempts, message.state = 0, "ready"
            if target is not self:
                target.seq += 1
                copy = Message(**{**vars(message), "id": target.seq, "deliveries": 0, "dedup": None})
                copy.until_done = False
                target.messages[target.seq] = copy
                self.drop(message)
        return moved


class Model:
    def __init__(self, now: int):
        self.now = now
        self.queues: dict[str, Queue] = {}

    def queue(self, name) -> Queue:
        if name not in self.queues:
            raise Refused("NOQUEUE")
        self.queues[name].settle()
        return self.queues[name]

    def create(self, name, settings) -> Queue:
        self.queues[name] = Queue(self, name, settings)
        return self.queues[name]

    def leads_back(self, name, target) -> bool:
        while target and target != name:
            target = self.queues[target].settings.dlq if target in self.queues else None
        return target == name
