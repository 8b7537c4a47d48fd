"""VALQ.EXTEND: moves the deadline of a delivery."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT, RECEIPT_ARGUMENT
from valqd.commands.request import Merge, Request
from valqd.commands.spec import Arguments, Command, Positional
from valqd.commands.values import VISIBILITY


def _build(args: Arguments) -> Request:
    one = args.one
    pair = (one["id"], one["seconds"])
    return Request("extend", (one["queue"],), pair, merge=Merge("extend_many", (), pair))


SPEC = Command(
    name="extend",
    summary="Moves the end of a delivery's lease.",
    arguments=(
        QUEUE_ARGUMENT,
        RECEIPT_ARGUMENT,
        Positional("seconds", VISIBILITY, "the lease ends this long from now"),
    ),
    build=_build,
    reply="Integer: the new deadline, unix ms.",
    complexity="O(log N).",
    errors=(
        ("NOQUEUE", "there is no such queue"),
        ("NOMSG", "there is no such message"),
        ("NOTINFLIGHT", "the message is not in flight"),
        ("STALE", "the receipt's lease is over"),
        ("CANCELLED", "the message was cancelled"),
    ),
    notes=("The new deadline may be sooner than the old one. The queue's MAXLEASE bounds it.",),
    example=(
        ("VALQ.EXTEND orders 3-1 60", "(integer) 1767225660000"),
        ("VALQ.EXTEND orders 1-1 60", "(error) NOMSG no message 1 in queue 'orders'"),
    ),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "update"),
)
