"""VALQ.MPUSH: adds several messages, all or none."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.push import ERRORS, OPTIONS, push_request
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, Counted
from valqd.commands.values import BODY

MAX_BODIES = 100_000


def _build(args: Arguments) -> Request:
    return push_request(args, args.every("body"), b"1")


SPEC = Command(
    name="mpush",
    summary="Adds several messages to a queue, all or none.",
    arguments=(
        QUEUE_ARGUMENT,
        Counted("body", BODY, "count", MAX_BODIES, "how many messages, and their bodies"),
        *OPTIONS,
    ),
    build=_build,
    reply="Array of bulk strings: the ids, in the order of the bodies.",
    complexity="O(N) with N the bodies, O(N log M) with options.",
    errors=ERRORS,
    notes=(
        "A missing queue is created as by PUSH.",
        "The options hold for each of the messages. With DEDUP only the first body is added; all get its id.",
        "The whole command, with its options and the protocol's own bytes, may hold 64 KiB more than max_body_bytes: "
        "that bounds all bodies together. Each message has the headers for itself: 1,000,000 and "
        "64 MiB in all, at most.",
    ),
    example=(("VALQ.MPUSH orders 2 one two PRIORITY 3", '1) "4"\n2) "5"'),),
    flags=("write", "denyoom", "noscript"),
    key_flags=("RW", "insert"),
)
