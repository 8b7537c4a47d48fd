"""VALQ.PURGE: removes the messages of a queue in one or all states."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.request import Request, Steps
from valqd.commands.spec import Arguments, Command, OneOf, Option


def _build(args: Arguments) -> Request:
    state = args.get("state", b"MAIN").lower()
    return Request("purge", (args.get("queue"),), (state,), steps=Steps.TOKEN)


SPEC = Command(
    name="purge",
    summary="Removes messages: those ready or in flight, unless a state is named.",
    arguments=(
        QUEUE_ARGUMENT,
        OneOf(
            "state",
            (
                Option("MAIN", doc="ready and inflight (the default)"),
                Option("READY", doc="ready"),
                Option("INFLIGHT", doc="delivered and not acknowledged yet"),
                Option("DELAYED", doc="not due yet"),
                Option("DLQ", doc="dead letters"),
                Option("ALL", doc="all of these"),
            ),
        ),
    ),
    build=_build,
    reply="Integer: how many were removed.",
    complexity="O(N) with N the messages removed; in bounded steps, outside MULTI.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=("Messages pushed after it began are not removed. Outside MULTI other commands may run between two steps.",),
    example=(("VALQ.PURGE orders DLQ", "(integer) 12"),),
    flags=("write", "noscript"),
    key_flags=("RW", "delete"),
)
