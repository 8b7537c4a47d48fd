"""VALQ.SCAN: goes through all messages of a queue, a few at a time."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.push import MAX_HEADER_FIELD_BYTES
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, Option, OptionValue, Positional
from valqd.commands.values import BATCH, BODY, CURSOR, PATTERN, text, words

_DEFAULT_COUNT = b"10"


def _build(args: Arguments) -> Request:
    header = args.every("header")
    field, value = header or (b"", b"")
    call = (
        args.get("cursor"),
        args.get("state").lower(),
        field,
        value,
        args.get("match"),
        args.get("count", _DEFAULT_COUNT),
        b"1" if header else b"",
    )
    return Request("scan", (args.get("queue"),), call)


SPEC = Command(
    name="scan",
    summary="Goes through the messages of a queue, a few at a time.",
    arguments=(
        QUEUE_ARGUMENT,
        Positional("cursor", CURSOR, "where to go on, 0 at first"),
        Option("STATE", (OptionValue("state", words("READY", "INFLIGHT", "DELAYED", "DLQ")),), "only this state"),
        Option(
            "HEADER",
            (OptionValue("field", text(1, MAX_HEADER_FIELD_BYTES)), OptionValue("value", BODY)),
            "only messages with this header",
        ),
        Option(
            "MATCH",
            (OptionValue("pattern", PATTERN),),
            "only bodies that match this glob-style pattern; a part between two * that has ? or [] may be 32 "
            "characters long, a set counting as many as it has ranges, and is looked for in the first MiB only",
        ),
        Option(
            "COUNT", (OptionValue("n", BATCH),), "about how many to look at, never more than 1000 in a call; default 10"
        ),
    ),
    build=_build,
    reply="Array of the next cursor, 0 at the end, and an array of maps, each as SHOW returns it.",
    complexity="O(COUNT) for each call, O(N) for all of a queue.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=(
        "SCAN's own guarantees: a message that is there from beginning to end is returned, one that comes or goes "
        "meanwhile may be, and one may be returned twice. A call may return none before the end. A cursor that SCAN "
        "cannot have returned for this queue is refused. A call that has looked at 64 MiB of bodies and headers looks "
        "at no more messages, but for those that lie together: of more than 512 messages with options, some ten.",
    ),
    example=(
        ("VALQ.SCAN orders 0 STATE dlq COUNT 100", '1) "1"\n2) (empty array)'),
        ("VALQ.SCAN orders 1 STATE dlq COUNT 100", '1) "0"\n2) 1) 1# "id" => "7"\n      ...'),
    ),
    flags=("write", "noscript"),
    key_flags=("RW", "access", "update"),
)
