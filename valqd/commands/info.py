"""VALQ.INFO: settings and counts of a queue."""

from __future__ import annotations

from valqd.commands.queue_options import QUEUE_ARGUMENT
from valqd.commands.request import Request, Steps
from valqd.commands.spec import Arguments, Command


def _build(args: Arguments) -> Request:
    return Request("info", "info", (args.get("queue"),), (), steps=Steps.REPEATED)


SPEC = Command(
    name="info",
    summary="Returns the settings and the counts of a queue.",
    arguments=(QUEUE_ARGUMENT,),
    build=_build,
    reply=(
        "Map: visibility_timeout, max_delivery_attempts, retention_period (as given, seconds), id_sequence, msgs "
        "(ready + inflight), ready_msgs, inflight_msgs, delayed_msgs, dlq_msgs, created_at (unix ms), "
        "oldest_ready_age_ms, pushed_total, delivered_total, acked_total, redelivered_total, dead_total and more."
    ),
    complexity="O(1), and O(log N) for each lease, delay or message that has fallen due since.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=(
        "Counts are exact at the moment of the reply: a lease that is over counts as what it has become, which is why "
        "this command writes.",
        "oldest_ready_age_ms is that of the first id. A message that was redriven from another queue is as old as it "
        "was there.",
    ),
    example=(
        (
            "VALQ.INFO orders",
            "1# visibility_timeout => (integer) 30\n"
            "2# max_delivery_attempts => (integer) 5\n"
            "3# retention_period => (integer) 86400\n"
            "4# id_sequence => (integer) 3\n"
            "5# msgs => (integer) 3\n"
            "6# ready_msgs => (integer) 2\n"
            "7# inflight_msgs => (integer) 1\n"
            "...",
        ),
    ),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "access", "update"),
)
