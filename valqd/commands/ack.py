"""VALQ.ACK: acknowledges messages, which are then gone."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT, RECEIPTS_ARGUMENT
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command


def _build(args: Arguments) -> Request:
    return Request.on_ids("ack", args.get("queue"), (), args.every("id"), "ack_many")


SPEC = Command(
    name="ack",
    summary="Acknowledges messages: they are done, and gone.",
    arguments=(
        QUEUE_ARGUMENT,
        RECEIPTS_ARGUMENT,
    ),
    build=_build,
    reply="Integer: how many were acknowledged.",
    complexity="O(log N) for each id; more than 1,000 ids in steps, outside MULTI.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=(
        "An id acknowledges the message in whatever state it is; a receipt only while that delivery holds the lease. "
        "What is not there, or whose lease is over, is not counted.",
    ),
    example=(
        ("VALQ.ACK orders 1-1", "(integer) 1"),
        ("VALQ.ACK orders 1-1 2", "(integer) 1"),
    ),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "delete"),
)
