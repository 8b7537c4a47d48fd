"""VALQ.HELP: what there is.  (``help`` would hide the builtin.)"""

from __future__ import annotations

from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, Positional
from valqd.commands.values import COMMAND_NAME


def _build(args: Arguments) -> Request:
    """Raises ``CommandError`` if there is no command of that name."""
    from valqd.commands.table import named  # not before all SPECs are made: the table imports this module

    word = args.get("command")
    if word:
        named(word)
    return Request("", (), (word,) if word else ())


SPEC = Command(
    name="help",
    summary="Returns helpful text about the commands.",
    arguments=(Positional("command", COMMAND_NAME, "the name of one, such as push or valq.push", optional=True),),
    build=_build,
    reply="Array of lines; for one command its syntax, options, notes, reply, complexity and errors.",
    complexity="O(1).",
    notes=("VALQ alone is VALQ.HELP. The daemon answers it by itself.",),
    example=(
        (
            "VALQ.HELP delete",
            "1) VALQ.DELETE queue\n2)     Deletes a queue with all its messages.\n3) ...",
        ),
    ),
    flags=("noscript", "loading", "stale", "fast"),
)
