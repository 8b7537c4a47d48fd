"""Compares all that can be asked of a queue with the model, and its keys with each other."""

from __future__ import annotations

from tests.lua import states
from tests.lua.conftest import flat
from tests.property.model import Model, Queue
from tests.property.sending import Sending

STATES = ("ready", "inflight", "delayed", "dlq")
#: Of a bucket: a fraction of the real number, so that a few messages fill several.
SLOTS = 4


class Checks(Sending):
    """Of a machine that has a ``model``."""

    model: Model

    def learn_jitter(self, queue: Queue):
        """Chance decided how long some wait: within its bounds, the model takes it over."""
        for message in queue.messages.values():
            if message.earliest:
                due = flat(self.send("n2", "SHOW", queue.name, message.id))["due"]
                assert message.earliest <= due <= message.at
                message.at, message.earliest = due, 0

    def check_info(self, queue: Queue):
        info = flat(self.send("n2", "INFO", queue.name))
        found = {state: info[f"{state}_msgs"] for state in STATES}
        wanted = {state: len(queue.in_state(state)) for state in STATES}
        assert found == wanted, queue.name
        assert {name: info[f"{name}_total"] for name in queue.totals} == queue.totals, queue.name
        assert info["id_sequence"] == info["pushed_total"] == queue.seq
        assert info["msgs"] == wanted["ready"] + wanted["inflight"]
        assert queue.seq == sum(wanted.values()) + queue.gone, "every message is in one state or accounted for"
        paused = {way for way in ("in", "out") if queue.is_paused(way)}
        assert info["paused"] == (b"ALL" if len(paused) == 2 else paused.pop().upper().encode() if paused else b"NONE")
        oldest = min(queue.in_state("ready"), key=lambda message: message.id, default=None)
        age_ms = self.model.now - oldest.enqueued_at if oldest else 0
        assert info["oldest_ready_age_ms"] == age_ms

    def check_messages(self, queue: Queue):
        for state in STATES:
            found = [flat(message) for message in self.send("n2", "PEEK", queue.name, state.upper(), "COUNT", 1000)]
            wanted = queue.in_state(state)
            assert [int(message["id"]) for message in found] == [message.id for message in wanted], (queue.name, state)
            for shown, message in zip(found, wanted, strict=True):
                expected = {
                    "id": b"%d" % message.id,
                    "state": state.encode(),
                    "body": message.body,
                    "attempts": message.attempts,
                    "deliveries": message.deliveries,
                    "deadline": message.at if state == "inflight" else None,
                    "priority": message.priority,
                    "headers": message.headers,
                    "dedup": message.dedup,
                    "max_attempts": message.max_attempts,
                    "expires_at": message.expires_at,
                    "enqueued_at": message.enqueued_at,
                    "last_error": message.last_error,
                    "failed_at": message.failed_at,
                    "died_at": message.died_at,
                    "cancelled": message.cancelled,
                }
                if message.at < 2**53:
                    expected["due"] = message.at if state == "delayed" else None
                assert {name: shown[name] for name in expected} == expected, (queue.name, state)
        scanned, cursor = [], b"0"
        while True:
            cursor, step = self.send("n2", "SCAN", queue.name, cursor, "COUNT", 7)
            scanned += [int(flat(message)["id"]) for message in step]
            if cursor == b"0":
                break
        assert sorted(scanned) == sorted(queue.messages)

    def check_keys(self, queue: Queue):
        """Records have a body, fields and one index entry each; the log's buckets count what is of no use in them."""
        read, prefix = self.link.ok, f"valq:{{{queue.name}}}:"
        records = set(read("HKEYS", prefix + "meta"))
        state = states.read(read("HGET", prefix + "queue", "state"))
        assert state["may_have_records"] or not records
        assert state["may_have_ready"] or not read("EXISTS", prefix + "ready")
        assert records == set(read("HKEYS", prefix + "body"))
        indexed = {state: read("ZRANGE", prefix + state, 0, -1) for state in STATES}
        entries = [number for state in STATES for number in indexed[state]]
        assert len(entries) == len(set(entries))
        plain_inflight = set(indexed["inflight"]) - records
        assert set(entries) - plain_inflight == records
        plain = {int(number) for number in plain_inflight}
        plain |= {message.id for message in queue.in_state("ready")} - {int(number) for number in records}
        used: dict[bytes, int] = {}
        for number in plain:
            bucket = b"%d" % ((number - 1) // SLOTS)
            used[bucket] = used.get(bucket, 0) + 1
        gone = read("HGETALL", prefix + "gone")
        for bucket, count in zip(gone[::2], gone[1::2], strict=True):
            slots = min(SLOTS, queue.seq - int(bucket) * SLOTS)
            assert used.pop(bucket, 0) == slots - int(count), (queue.name, bucket)
        assert not used
        expiring = {message.id for message in queue.messages.values() if message.expires_at is not None}
        assert {int(number) for number in read("ZRANGE", prefix + "expiry", 0, -1)} <= expiring
        held = read("HGETALL", prefix + "dedup")
        found = dict(zip(held[::2], map(int, held[1::2]), strict=True))
        assert found == {key: number for key, (number, _) in queue.holders.items()}
        windows = {key for key, (_, over_at) in queue.holders.items() if over_at is not None}
        assert set(read("ZRANGE", prefix + "windows", 0, -1)) == windows
        assert set(read("ZRANGE", prefix + "forward", 0, -1)) == set()
        bytes_kept = sum(len(message.body) for message in queue.messages.values() if message.state != "dlq")
        if queue.settings.max_bytes:
            assert int(read("HGET", prefix + "queue", "bytes") or 0) == bytes_kept
