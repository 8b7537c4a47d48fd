"""All commands, and the way from a name to its SPEC.  Both spellings, ``VALQ.PUSH`` and ``VALQ PUSH``, any case."""

from __future__ import annotations

from valqd.commands import (
    ack,
    cancel,
    create,
    del_,
    delete,
    extend,
    help_,
    info,
    list_,
    mpop,
    mpush,
    nack,
    pause,
    peek,
    pop,
    purge,
    push,
    redrive,
    scan,
    show,
    update,
)
from valqd.commands.spec import Command
from valqd.errors import CommandError, shown

#: In the order of the docs: queues, then the way of a message, then looking at it, then the DLQ.
COMMANDS: tuple[Command, ...] = (
    create.SPEC,
    update.SPEC,
    delete.SPEC,
    list_.SPEC,
    info.SPEC,
    purge.SPEC,
    pause.SPEC,
    push.SPEC,
    mpush.SPEC,
    pop.SPEC,
    mpop.SPEC,
    ack.SPEC,
    nack.SPEC,
    extend.SPEC,
    del_.SPEC,
    cancel.SPEC,
    peek.SPEC,
    show.SPEC,
    scan.SPEC,
    redrive.SPEC,
    help_.SPEC,
)

_BY_WORD = {command.name.upper().encode(): command for command in COMMANDS}
_BY_NAME = {b"VALQ." + word: command for word, command in _BY_WORD.items()}
if len(_BY_WORD) != len(COMMANDS):
    raise ValueError("two commands of one name")


def is_ours(name: bytes) -> bool:
    """Whether a command whose first argument is ``name`` is for us: VALQ or VALQ.anything."""
    head = name[:5].upper()
    return head == b"VALQ." or head == b"VALQ"


def lookup(argv: list[bytes]) -> tuple[Command, int]:
    """The command that ``argv``, which is for us, names, and how many of its items are the name: 1 or 2.

    ``VALQ`` alone is HELP.  Raises ``CommandError`` if there is none of that name.
    """
    name = argv[0].upper()
    if name != b"VALQ":
        command, items, word = _BY_NAME.get(name), 1, argv[0][5:]
    elif len(argv) == 1:
        return help_.SPEC, 1
    else:
        command, items, word = _BY_WORD.get(argv[1].upper()), 2, argv[1]
    if command is None:
        raise _unknown(word)
    return command, items


def named(word: bytes) -> Command:
    """The command of that name: ``push``, ``valq.push`` or ``valq|push``.  Raises ``CommandError`` if there is none."""
    upper = word.upper().replace(b"VALQ|", b"VALQ.", 1)
    command = _BY_WORD.get(upper) or _BY_NAME.get(upper)
    if command is None:
        raise _unknown(word[5:] if upper.startswith(b"VALQ.") else word)
    return command


def _unknown(word: bytes) -> CommandError:
    return CommandError(f"unknown command 'VALQ.{shown(word)}', try VALQ.HELP")
