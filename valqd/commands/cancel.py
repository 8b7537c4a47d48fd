"""VALQ.CANCEL: withdraws a message, telling the worker that has it."""

from __future__ import annotations

from valqd.commands.positionals import MESSAGE_ARGUMENT, QUEUE_ARGUMENT
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command


def _build(args: Arguments) -> Request:
    return Request("cancel", (args.get("queue"),), (args.get("id"),))


SPEC = Command(
    name="cancel",
    summary="Withdraws a message; a worker that has it learns so from its next EXTEND.",
    arguments=(
        QUEUE_ARGUMENT,
        MESSAGE_ARGUMENT,
    ),
    build=_build,
    reply="Integer: 1 if the message was removed or marked, 0 if it neither waits nor is in flight.",
    complexity="O(log N).",
    errors=(("NOQUEUE", "there is no such queue"), ("STALE", "the receipt's lease is over")),
    notes=(
        "A waiting message is removed. For one in flight the next EXTEND answers CANCELLED, and it is not delivered "
        "again, however its delivery ends; it is counted as cancelled then, unless it is acked, deleted or purged.",
        "The reply is 1 in both cases. To know which it was, send VALQ.SHOW before it in the same MULTI. A DEDUP key "
        "that is held for a WINDOW stays held: push a replacement under another.",
    ),
    example=(("VALQ.CANCEL orders 6", "(integer) 1"),),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "delete"),
)
