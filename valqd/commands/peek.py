"""VALQ.PEEK: looks at messages in one state without taking them."""

from __future__ import annotations

from valqd.commands.positionals import QUEUE_ARGUMENT
from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, OneOf, Option, OptionValue
from valqd.commands.values import LUA_INTEGER_MAX, PAGE, integer

_DEFAULT_COUNT = b"10"


def _build(args: Arguments) -> Request:
    state = args.get("state", b"READY").lower()
    window = (args.get("count", _DEFAULT_COUNT), args.get("offset", b"0"), args.get("rev"))
    return Request("peek", (args.get("queue"),), (state, *window))


SPEC = Command(
    name="peek",
    summary="Returns messages in one state, in order, and leaves them where they are.",
    arguments=(
        QUEUE_ARGUMENT,
        OneOf(
            "state",
            (
                Option("READY", doc="in the order they would be delivered (the default)"),
                Option("INFLIGHT", doc="by deadline"),
                Option("DELAYED", doc="by due time"),
                Option("DLQ", doc="by the time they died"),
            ),
        ),
        Option("COUNT", (OptionValue("n", PAGE),), "at most n messages; default 10"),
        OneOf(
            "from",
            (
                Option("OFFSET", (OptionValue("n", integer(0, LUA_INTEGER_MAX)),), "skip the first n"),
                Option("REV", doc="from the other end, in reverse order"),
            ),
        ),
    ),
    build=_build,
    reply="Array of maps, each as SHOW returns it.",
    complexity="O(log N + M) with M the messages returned; READY also 1 for every 128 ids skipped.",
    errors=(("NOQUEUE", "there is no such queue"),),
    notes=(
        "PEEK, SHOW and SCAN first do what is due, for about 1,000 messages: when more fall due at once, they may show "
        "some in their former state for a moment. Messages of one time are told by id (of more than 2,000, in any "
        "order).",
        "A reply that has 64 MiB of bodies and headers takes no more messages, as with POP COUNT.",
    ),
    example=(("VALQ.PEEK orders DLQ COUNT 1", '1) 1# "id" => "7"\n   2# "state" => "dlq"\n   ...'),),
    flags=("write", "noscript"),
    key_flags=("RW", "access", "update"),
)
