"""VALQ.MPOP: takes messages from the first of several queues that has some."""

from __future__ import annotations

from valqd.commands.pop import ERRORS, OPTIONS, block_ms, pop_arguments
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, Counted, OneOf, Option
from valqd.commands.values import QUEUE

MAX_QUEUES = 1000


def _build(args: Arguments) -> Request:
    return Request(
        "mpop",
        args.every("queue"),
        pop_arguments(args),
        takes_auto=True,
        block_ms=block_ms(args),
        fair="fair" in args.one,
    )


SPEC = Command(
    name="mpop",
    summary="Takes the next message from the first of several queues that has one.",
    arguments=(
        Counted("queue", QUEUE, "numkeys", MAX_QUEUES, "how many queues, and their names"),
        *OPTIONS,
        OneOf(
            "order",
            (
                Option("ORDER", doc="the first queue, as given, that has something (the default)", name="in-order"),
                Option("FAIR", doc="each call begins with another queue, in turn; the others at random"),
            ),
        ),
    ),
    build=_build,
    reply="As POP, with queue in each map; with COUNT the maps may come from several queues, one queue after another.",
    complexity="O(Q) with Q the queues, and as POP for each message.",
    errors=ERRORS,
    notes=(
        "FAIR: of calls that name the same queues, each begins one queue further on than the last, and looks at the "
        "others in a random order; every worker process counts for itself. A queue named three times has three turns.",
        "The user needs rights on all the queues. On a cluster all must be in one hash slot.",
    ),
    example=(
        (
            "VALQ.MPOP 2 urgent orders",
            '1# "queue" => "orders"\n2# "id" => "2"\n3# "body" => "later"\n4# "attempts" => (integer) 1\n'
            '5# "receipt" => "2-1"',
        ),
    ),
    flags=("write", "noscript", "blocking"),
    key_flags=("RW", "access", "update"),
)
