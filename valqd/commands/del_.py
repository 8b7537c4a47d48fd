"""VALQ.DEL: removes messages by id, whatever their state.  (``del`` cannot be a module's name.)"""

from __future__ import annotations

from valqd.commands.positionals import MESSAGES_ARGUMENT, QUEUE_ARGUMENT
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command


def _build(args: Arguments) -> Request:
    return Request.on_ids("del", args.get("queue"), (), args.every("id"))


SPEC = Command(
    name="del",
    summary="Removes messages by id, whatever their state.",
    arguments=(
        QUEUE_ARGUMENT,
        MESSAGES_ARGUMENT,
    ),
    build=_build,
    reply="Integer: how many were removed.",
    complexity="O(log N) for each id; more than 1,000 ids in steps, outside MULTI.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=("A DEDUP key that is held for a WINDOW stays held: push a replacement under another.",),
    example=(("VALQ.DEL orders 4 5 99", "(integer) 2"),),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "delete"),
)
