"""Where a command's queues are among its arguments: key specifications, and the keys of one call.

What COMMAND INFO states and what COMMAND GETKEYS finds come from the same place, the SPEC.  A key here is the argument
that names a queue; the keys behind it in Valkey are ``valq:{<queue>}:...``.
"""

from __future__ import annotations

from typing import NamedTuple

from valqd.commands.reply_values import Set, Status, Value
from valqd.commands.spec import Command, Counted, Option
from valqd.commands.table import lookup
from valqd.commands.values import QUEUE
from valqd.errors import CommandError

#: How a queue named by an option is used: messages may be put there.
_OPTION_KEY_FLAGS = ("RW", "insert")


class KeySpec(NamedTuple):
    """One way to find keys.  ``word`` empty: at the first argument; else after that option's word."""

    flags: tuple[str, ...]
    word: str
    counted: bool = False  #: a number comes first, and that many keys
    removable: bool = False  #: NONE in its place is no key


def key_specs(command: Command) -> list[KeySpec]:
    """The key specifications of a command, in the order of its arguments."""
    fixed = [
        KeySpec(command.key_flags, "", isinstance(positional, Counted))
        for positional in command.positionals
        if positional.type is QUEUE
    ]
    return fixed + [
        KeySpec(_OPTION_KEY_FLAGS, option.token, removable=option.removable)
        for option in options_naming_queues(command)
    ]


def options_naming_queues(command: Command) -> list[Option]:
    """The options that name another queue."""
    return [slot.option for slot in command.slots() if any(value.type is QUEUE for value in slot.option.values)]


def has_movable_keys(command: Command) -> bool:
    """Whether the keys cannot all be found from fixed places."""
    return any(spec.word or spec.counted for spec in key_specs(command))


def legacy_range(command: Command, name_items: int) -> tuple[int, int, int]:
    """First key, last key and step as in COMMAND INFO; zeros if no key is at a fixed place."""
    fixed = any(not spec.word and not spec.counted for spec in key_specs(command))
    return (name_items, name_items, 1) if fixed else (0, 0, 0)


def key_spec_values(command: Command, name_items: int) -> Set:
    """The key specifications as COMMAND INFO shows them; ``name_items`` is 1, or 2 for a subcommand."""
    rows: list[Value] = []
    for spec in key_specs(command):
        begin: dict[str, Value]
        if spec.word:
            start = name_items + command.required
            begin = {"type": "keyword", "spec": {"keyword": spec.word, "startfrom": start}}
        else:
            begin = {"type": "index", "spec": {"index": name_items}}
        find: dict[str, Value]
        if spec.counted:
            find = {"type": "keynum", "spec": {"keynumidx": 0, "firstkey": 1, "keystep": 1}}
        else:
            find = {"type": "range", "spec": {"lastkey": 0, "keystep": 1, "limit": 0}}
        rows.append({"flags": _flags(spec.flags), "begin_search": begin, "find_keys": find})
    return Set(rows)


def _flags(flags: tuple[str, ...]) -> Set:
    return Set(Status(flag) for flag in flags)


def getkeys(argv: list[bytes]) -> list[bytes]:
    """The arguments of the call ``argv`` that name queues, as COMMAND GETKEYS answers.

    Raises ``CommandError`` in Valkey's words: for a command that is not there, or has no keys, or other arity.
    """
    return [key for key, _ in _keys(argv)]


def getkeysandflags(argv: list[bytes]) -> list[Value]:
    """As ``getkeys``, each with how it is used, as COMMAND GETKEYSANDFLAGS answers."""
    return [[key, _flags(flags)] for key, flags in _keys(argv)]


def _keys(argv: list[bytes]) -> list[tuple[bytes, tuple[str, ...]]]:
    try:
        command, start = lookup(argv)
    except CommandError:
        raise CommandError("Invalid command specified") from None
    specs = key_specs(command)
    if not specs:
        raise CommandError("The command has no key arguments")
    given = len(argv) - start
    if given < command.fewest or (command.arity > 0 and given != command.fewest):
        raise CommandError("Invalid number of arguments specified for command")
    found: list[tuple[bytes, tuple[str, ...]]] = []
    for spec in specs:
        if spec.counted:
            digits = argv[start]
            count = int(digits) if digits.isdigit() and len(digits) < 10 else 0
            if not 0 < count < given:
                raise CommandError("Invalid arguments specified for command")
            found += [(key, spec.flags) for key in argv[start + 1 : start + 1 + count]]
        elif spec.word:
            first = start + command.required
            place = next((i for i in range(first, len(argv) - 1) if argv[i].upper() == spec.word.encode()), None)
            if place is not None and not (spec.removable and argv[place + 1].upper() == b"NONE"):
                found.append((argv[place + 1], spec.flags))
        else:
            found.append((argv[start], spec.flags))
    return found
