"""VALQ.SHOW: all that is known of one message."""

from __future__ import annotations

from valqd.commands.positionals import MESSAGE_ARGUMENT, QUEUE_ARGUMENT
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command


def _build(args: Arguments) -> Request:
    return Request("show", (args.get("queue"),), (args.get("id"),))


SPEC = Command(
    name="show",
    summary="Returns all that is known of one message.",
    arguments=(
        QUEUE_ARGUMENT,
        MESSAGE_ARGUMENT,
    ),
    build=_build,
    reply=(
        "Map: id, state (ready, inflight, delayed or dlq), body, attempts (used so far), deliveries (the "
        "receipt's n), deadline (null unless inflight), due (null unless delayed), priority, headers (a map, empty if "
        "there are none), dedup (its key, or null), visibility_timeout (seconds) and max_attempts (null: the queue's), "
        "expires_at (null without TTL, and from its death on), enqueued_at, last_error, failed_at and died_at (null: "
        "none, never), cancelled (1: CANCEL came while it was in flight; else 0). Times are unix ms."
    ),
    complexity="O(log N).",
    errors=(
        ("NOQUEUE", "there is no such queue"),
        ("NOMSG", "there is no such message"),
        ("STALE", "the receipt's lease is over"),
    ),
    notes=(
        "attempts can go down: NACK SILENT gives one back, and REDRIVE sets them to 0. deliveries only grow. In "
        "another queue (DLQ, REDRIVE TO) both begin at 0.",
        "last_error is the REASON of the last NACK, or 'lease expired'; failed_at is when that was. After a NACK "
        "without a reason last_error is null; SILENT without a reason leaves both as they were. died_at is the last "
        "death, and outlives REDRIVE.",
        "visibility_timeout is a bulk string where it is not whole (0.25). A time beyond 64 bits is told as "
        "9223372036854774784.",
    ),
    example=(("VALQ.SHOW orders 7", '1# "id" => "7"\n2# "state" => "ready"\n3# "body" => "hello"\n...'),),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "access", "update"),
)
