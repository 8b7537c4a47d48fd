"""VALQ.SHOW: all that is known of one message."""

from __future__ import annotations

from valqd.commands.queue_options import QUEUE_ARGUMENT
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, Positional
from valqd.commands.values import ID


def _build(args: Arguments) -> Request:
    return Request("show", "show", (args.get("queue"),), (args.get("id"),))


SPEC = Command(
    name="show",
    summary="Returns all that is known of one message.",
    arguments=(QUEUE_ARGUMENT, Positional("id", ID, "an id or a receipt")),
    build=_build,
    reply=(
        "Map: id, state, body, attempts, and what there is of the rest: the receipt's n, deadline or due time, "
        "priority, headers, dedup key, enqueued_at, last_error, died_at."
    ),
    complexity="O(log N).",
    errors=(
        ("NOQUEUE", "there is no such queue"),
        ("NOMSG", "there is no such message"),
        ("STALE", "the receipt's lease is over"),
    ),
    example=(("VALQ.SHOW orders 7", '1# "id" => "7"\n2# "state" => "ready"\n3# "body" => "hello"\n...'),),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "access", "update"),
)
