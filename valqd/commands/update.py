"""VALQ.UPDATE: changes a queue's settings."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.queue_options import BY_NAME, BY_POSITION, fields, named_queues
from valqd.commands.request import Request, Steps
from valqd.commands.spec import Arguments, Command


def _build(args: Arguments) -> Request:
    pairs = [item for name, value in fields(args).items() for item in (name.encode(), value)]
    return Request("update", named_queues(args), tuple(pairs), steps=Steps.ARGS_ONCE)


SPEC = Command(
    name="update",
    summary="Changes the settings of a queue.",
    arguments=(QUEUE_ARGUMENT, *BY_POSITION, *BY_NAME),
    build=_build,
    reply="OK.",
    complexity="O(1); with MAXBYTES O(N log N) with N the messages not counted yet, in bounded steps.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=(
        "By position all three numbers are given; by name, only what is named changes. A new visibility timeout holds "
        "for deliveries from then on; fewer attempts also for messages that wait: those that have had as many go to "
        "the DLQ within a second, delayed ones when they are due.",
        "An option is taken away by BACKOFF NONE, MAXLEN 0, MAXBYTES 0, OVERFLOW REFUSE, DLQ NONE, MAXLEASE 0. "
        "JITTER is part of BACKOFF and is given with it: BACKOFF without JITTER has none. A queue named NONE (in upper "
        "or lower case) cannot be a dead letter queue.",
    ),
    example=(
        ("VALQ.UPDATE orders 60 3 86400", "OK"),
        ("VALQ.UPDATE orders MAXLEN 5000 OVERFLOW DROPHEAD", "OK"),
        ("VALQ.UPDATE orders MAXLEN 0", "OK"),
    ),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "update"),
    needs_more=True,
    optional_together=True,
)
