"""VALQ.DELETE: deletes a queue with all its messages."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.request import Request, Steps
from valqd.commands.spec import Arguments, Command


def _build(args: Arguments) -> Request:
    return Request("delete", (args.get("queue"),), (), steps=Steps.REPEATED)


SPEC = Command(
    name="delete",
    summary="Deletes a queue with all its messages.",
    arguments=(QUEUE_ARGUMENT,),
    build=_build,
    reply="OK.",
    complexity="O(N/128) with N the messages; of a large queue in bounded steps, outside MULTI.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=("Outside MULTI, a very large queue is emptied first, in steps between which other commands may run.",),
    example=(
        ("VALQ.DELETE orders", "OK"),
        ("VALQ.DELETE orders", "(error) NOQUEUE no such queue 'orders'"),
    ),
    flags=("write", "noscript"),
    key_flags=("RM", "delete"),
)
