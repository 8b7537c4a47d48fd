"""VALQ.LIST: names of the queues.  (``list`` would hide the builtin.)"""

from __future__ import annotations

from valqd.commands.request import Request, Steps
from valqd.commands.spec import Arguments, Command, Option, OptionValue
from valqd.commands.values import PATTERN


def _build(args: Arguments) -> Request:
    return Request("list", (), (args.get("match"),), steps=Steps.TOKEN)


SPEC = Command(
    name="list",
    summary="Returns the names of the queues.",
    arguments=(
        Option(
            "MATCH",
            (OptionValue("pattern", PATTERN),),
            "only names that match this glob-style pattern; between two * it may have 32 characters if ? or [] are "
            "among them",
        ),
    ),
    build=_build,
    reply="Array of names, sorted by bytes: those of the queues that the client's user may read.",
    complexity="O(N) with N the keys of the database; in bounded steps, outside MULTI.",
    notes=("A queue that is created or deleted meanwhile may or may not be named.",),
    example=(
        ("VALQ.LIST", '1) "mails"\n2) "orders"'),
        ("VALQ.LIST MATCH ord*", '1) "orders"'),
    ),
    flags=("readonly", "noscript"),
)
