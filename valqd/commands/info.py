"""VALQ.INFO: settings and counts of a queue."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.request import Request, Steps
from valqd.commands.spec import Arguments, Command


def _build(args: Arguments) -> Request:
    return Request("info", (args.get("queue"),), (), steps=Steps.REPEATED)


SPEC = Command(
    name="info",
    summary="Returns the settings and the counts of a queue.",
    arguments=(QUEUE_ARGUMENT,),
    build=_build,
    reply=(
        "Map. Settings: visibility_timeout (seconds), max_delivery_attempts, retention_period (seconds, 0 "
        "for ever), overflow (REFUSE or DROPHEAD), and, null where there is none, backoff (a text: kind, base-s, "
        "cap-s, and JITTER percent unless 0), max_length, max_bytes, dead_letter_queue, max_lease (seconds). Now: msgs "
        "(ready + inflight), ready_msgs, inflight_msgs, delayed_msgs, dlq_msgs, oldest_ready_age_ms (0 if none is "
        "ready), blocked_clients, paused (IN, OUT, ALL or NONE). Since created_at (unix ms): id_sequence (the last id, "
        "0 if none), pushed_total, delivered_total, acked_total, redelivered_total, dead_total, expired_total, "
        "nacked_total, cancelled_total, deduplicated_total, dropped_total."
    ),
    complexity="O(1), and O(log N) for each lease, delay or message that has fallen due since.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=(
        "Counts are exact at the moment of the reply: a lease that is over counts as what it has become, which is why "
        "this command writes.",
        "oldest_ready_age_ms: how long ago the ready message with the smallest id was pushed; one that was redriven "
        "from another queue, how long ago it was pushed there.",
        "Seconds are integers, or a bulk string with up to three decimals where they are not whole (1.5). "
        "blocked_clients: how many wait in POP or MPOP for a queue of this name, at any daemon and in any database, as "
        "the daemons told last, some ms ago.",
        "What the totals count, since the queue was created:",
        "- pushed_total: messages added, also those from other queues (DLQ, REDRIVE TO): it is id_sequence.\n"
        "- delivered_total: deliveries; redelivered_total: those that were not the first of their message.\n"
        "- acked_total: messages that ACK took, in whatever state they were; not those of POP NOACK.\n"
        "- dead_total: deaths, also of messages that were then pushed to another queue (DLQ).\n"
        "- expired_total: messages whose TTL was over.\n"
        "- nacked_total: deliveries that NACK ended, SILENT ones too.\n"
        "- cancelled_total: messages that CANCEL withdrew.\n"
        "- deduplicated_total: messages that were not added, since their DEDUP key was held.\n"
        "- dropped_total: messages that made way by OVERFLOW DROPHEAD.",
        "What PURGE, DEL and the end of retention remove is not counted.",
    ),
    example=(
        (
            "VALQ.INFO orders",
            '1# "visibility_timeout" => (integer) 30\n'
            '2# "max_delivery_attempts" => (integer) 5\n'
            '3# "retention_period" => (integer) 86400\n'
            '4# "id_sequence" => (integer) 3\n'
            '5# "msgs" => (integer) 3\n'
            '6# "ready_msgs" => (integer) 2\n'
            '7# "inflight_msgs" => (integer) 1\n'
            "...",
        ),
    ),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "access", "update"),
)
