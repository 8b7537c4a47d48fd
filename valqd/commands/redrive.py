"""VALQ.REDRIVE: gives dead letters another life."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.request import Request, Steps
from valqd.commands.spec import Arguments, Command, OneOf, Option, OptionValue
from valqd.commands.values import LUA_INTEGER_MAX, MESSAGE_ID, QUEUE, integer

MAX_IDS = 10_000


def _build(args: Arguments) -> Request:
    queue, target = args.get("queue"), args.get("to")
    if target == queue:
        target = b""
    ids = args.every("id")
    queues = (queue, target) if target else (queue,)
    call = (b"ID" if ids else b"ALL", target, args.get("limit"), *ids)
    return Request("redrive", queues, call, steps=Steps.TOKEN, ids=len(ids))


SPEC = Command(
    name="redrive",
    summary="Moves messages from the DLQ to ready.",
    arguments=(
        QUEUE_ARGUMENT,
        OneOf(
            "which",
            (
                Option("ALL", doc="all of them (the default)"),
                Option("ID", (OptionValue("id", MESSAGE_ID),), "these", most=MAX_IDS),
            ),
        ),
        Option("TO", (OptionValue("queue", QUEUE),), "to this queue instead of the one they died in"),
        Option("LIMIT", (OptionValue("n", integer(1, LUA_INTEGER_MAX)),), "at most n"),
    ),
    build=_build,
    reply="Integer: how many were moved.",
    complexity="O(N log M) with N the messages moved; in bounded steps, outside MULTI.",
    errors=(
        ("NOQUEUE", "there is no such queue, or no such target"),
        (
            "FULL",
            "a limit of the queue that takes them is reached, and none was moved (else the reply tells how many); "
            "DROPHEAD makes room only for messages from another queue",
        ),
        ("PAUSED", "the other queue (TO) is paused IN"),
    ),
    notes=(
        "The oldest first; with ID, in the order given. Attempts begin at zero; the last error and times are kept; a "
        "TTL does not come back. Give ids: a receipt finds nothing, its delivery is over. With TO the user needs "
        "rights on both queues; on a cluster both must be in one hash slot.",
        "What died into another queue (DLQ q2) is a message like others there, and is not moved by this: POP it from "
        "q2 and PUSH it again, as delivery.md shows.",
        "What dies again goes to the end of the DLQ. Who calls it with LIMIT n in a loop has to stop when as many were "
        "moved as there were at the beginning, or the same messages may go round for ever.",
    ),
    example=(
        ("VALQ.REDRIVE orders ID 2 7 9 TO retries", "(integer) 2"),
        ("VALQ.REDRIVE orders LIMIT 100", "(integer) 12"),
    ),
    flags=("write", "noscript"),
    key_flags=("RW", "access", "delete"),
)
