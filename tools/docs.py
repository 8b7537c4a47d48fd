"""Writes docs/commands.md from the SPECs: ``python -m tools.docs --write`` (or ``--check``)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from valqd.commands.spec import Command
from valqd.commands.table import COMMANDS

PATH = Path("docs/commands.md")
_PROMPT = "127.0.0.1:6390> "

_INTRO = """\
# Commands

<!-- Written by `python -m tools.docs --write`. Edit the SPECs in valqd/commands/ instead. -->

`VALQ.PUSH orders hello` and `VALQ PUSH orders hello` are the same command, in any letter case; `VALQ` alone is
`VALQ.HELP`. `valkey-cli` and `redis-cli` complete and hint both spellings.

- **Options** come after the arguments at fixed places, in any order, each once, in any letter case. An unknown option,
  a number out of range, an argument too many: an error that names it, and nothing is changed.
- **Durations** are in seconds, digits with or without a decimal fraction (`5`, `0.25`; of at most 30 digits), unless a
  name says ms. They are rounded up to whole milliseconds, so that nothing is due early.
- **Queue names** are 1 to 255 bytes without `{`, `}`, white space or control characters (the Unicode ones too).
- **Ids** are decimals. A **receipt**, `<id>-<n>`, names one delivery, and can be given wherever an id can. Once that
  lease is over, ACK, NACK and DEL do not count it, and EXTEND, CANCEL and SHOW answer an error (CANCEL of a
  message that is gone: 0). REDRIVE needs ids.
- **Examples** show what `valkey-cli -3` (RESP3) prints, if the queues and messages that they name are there. Each
  stands for itself: they are not one session.
- **Maps** are maps in RESP3, and in RESP2 flat arrays: each field, then its value. Their order is not promised.
- **Errors** begin with a stable code. All commands answer `ERR` for what is wrong with their arguments, `NOBACKEND`
  when the backing Valkey cannot be reached, and whatever Valkey itself refuses (`NOPERM`, `OOM`, `READONLY`, ...) in
  its own words.

## Rights

A command runs as the user of the connection, and Valkey's ACL decides. A rule that is enough for all commands on the
queue `orders` and on no other queue:

    ACL SETUSER worker on >secret ~valq:{orders}:* +fcall +@hash +@list +@sortedset +@keyspace +set +time -@dangerous

Without rights on a queue every command on it answers `NOPERM`, creation included. `VALQ.LIST` leaves out what the user
may not read. A command that names other queues (DLQ, TO, MPOP) needs rights on all.
"""


def render() -> str:
    """The whole page."""
    parts = [_INTRO, "## Overview\n\n" + "\n".join(_overview()) + "\n"]
    parts += ["\n".join(_section(command)) + "\n" for command in COMMANDS]
    return "\n".join(parts)


def _overview() -> Iterator[str]:
    yield "| command | |"
    yield "|---|---|"
    for command in COMMANDS:
        title = command.full_name.upper()
        yield f"| [{title}](#{title.lower().replace('.', '')}) | {command.summary} |"


def _section(command: Command) -> Iterator[str]:
    yield f"## {command.full_name.upper()}"
    yield ""
    yield f"    {command.syntax()}"
    yield ""
    yield command.summary
    for note in command.notes:
        yield ""
        yield note
    rows = list(_arguments(command))
    if rows:
        yield ""
        yield "| argument | meaning | values |"
        yield "|---|---|---|"
        yield from rows
    yield ""
    yield f"**Reply:** {command.reply}"
    yield ""
    yield f"**Complexity:** {command.complexity}"
    if command.errors:
        yield ""
        yield "**Errors:** " + "; ".join(f"`{code}`: {when}" for code, when in command.errors) + "."
    yield ""
    yield "```"
    for sent, shown in command.example:
        yield _PROMPT + sent
        yield shown
    yield "```"


def _arguments(command: Command) -> Iterator[str]:
    for argument in command.positionals:
        yield _row(argument.syntax(), argument.doc, argument.ranges())
    for slot in command.slots():
        yield _row(slot.option.syntax(), slot.option.doc, slot.option.ranges())


def _row(syntax: str, doc: str, values: str) -> str:
    return "| " + " | ".join([f"`{syntax}`".replace("|", "\\|"), doc.replace("|", "\\|"), values]).rstrip() + " |"


def main(arguments: list[str]) -> int:
    """Exit status: 0 if the page is (now) as it should be, 1 if it differs, 2 for bad usage."""
    if arguments == ["--write"]:
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(render(), encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        if PATH.is_file() and PATH.read_text(encoding="utf-8") == render():
            return 0
        sys.stderr.write(f"{PATH} is not what the SPECs say: run python -m tools.docs --write\n")
        return 1
    sys.stderr.write("usage: python -m tools.docs --write | --check\n")
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
