"""VALQ.PAUSE: stops and restarts the flow into or out of a queue."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, Option, OptionValue, Positional
from valqd.commands.values import SPAN, words
from valqd.errors import CommandError


def _build(args: Arguments) -> Request:
    direction = args.get("direction")
    for_ms = args.get("for")
    if for_ms and direction == b"NONE":
        raise CommandError("NONE and FOR cannot be given together")
    return Request("pause", (args.get("queue"),), (direction, for_ms))


SPEC = Command(
    name="pause",
    summary="Pauses a queue, or lets it go on.",
    arguments=(
        QUEUE_ARGUMENT,
        Positional(
            "direction",
            words("IN", "OUT", "ALL", "NONE"),
            "IN: pushes are refused; OUT: nothing is delivered; ALL: both; NONE: the queue goes on",
        ),
        Option("FOR", (OptionValue("seconds", SPAN),), "go on by itself after this time"),
    ),
    build=_build,
    reply="OK.",
    complexity="O(1).",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=(
        "It replaces an earlier pause and survives restarts. Paused IN, PUSH and MPUSH answer PAUSED, and so does "
        "REDRIVE with TO this queue; what dies in another queue is still pushed to it by DLQ. Paused OUT, POP and MPOP "
        "find nothing in it, and blocked ones wait. Leases, delays and ACK go on as always. NONE takes no FOR.",
    ),
    example=(
        ("VALQ.PAUSE orders IN FOR 60", "OK"),
        ("VALQ.PUSH orders hello", "(error) PAUSED queue 'orders' takes no pushes: it is paused (see VALQ.PAUSE)"),
        ("VALQ.PAUSE orders NONE", "OK"),
    ),
    flags=("write", "noscript", "fast"),
    key_flags=("RW", "update"),
)
