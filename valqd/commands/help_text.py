"""VALQ.HELP: lines in the style of Valkey's HELP subcommands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from textwrap import wrap

from valqd.commands.reply_values import Status
from valqd.commands.spec import Command, Option, Positional
from valqd.commands.table import COMMANDS, named

_WIDTH = 80
_INDENT = "    "


def help_lines(word: bytes | None = None) -> list[Status]:
    """The lines on all commands, or on the one named ``word``.  Raises ``CommandError`` if there is none."""
    return _lines(named(word) if word else None)


@cache
def _lines(command: Command | None) -> list[Status]:
    return [Status(line) for line in (_on_one(command) if command else _on_all())]


def _on_all() -> Iterator[str]:
    yield "VALQ.<command> [<arg> ...]. Commands are:"
    for command in COMMANDS:
        yield _short(command)
        yield from _indented(command.summary)
    yield "VALQ <command> is the same as VALQ.<command>, in any letter case."
    yield "VALQ.HELP <command> tells more about one."


def _short(command: Command) -> str:
    """Name and positional arguments, as in ``PUSH <queue> <body> [<delay>] [<option> ...]``."""
    parts = [command.name.upper()]
    optional = command.optional_syntax("<{}>")
    for argument in command.positionals:
        if not isinstance(argument, Positional):
            parts.append(f"<{argument.count}> <{argument.name}> [<{argument.name}> ...]")
        elif argument.type.words:
            parts.append("|".join(argument.type.words))
        elif argument.optional:
            parts += [optional] if optional else []
            optional = ""
        else:
            parts.append(f"<{argument.label}>" + (f" [<{argument.label}> ...]" if argument.repeated else ""))
    if any(command.slots()):
        parts.append("[<option> ...]")
    return " ".join(parts)


def _on_one(command: Command) -> Iterator[str]:
    yield command.syntax()
    yield from _indented(command.summary)
    for argument in command.positionals:
        name = argument.label if isinstance(argument, Positional) else argument.count
        yield "|".join(argument.type.words) or f"<{name}>"
        yield from _indented(f"{': '.join(filter(None, [argument.doc, argument.ranges()]))}.")
    for slot in command.slots():
        yield _option_syntax(slot.option)
        ranges = slot.option.ranges()
        yield from _indented(f"{slot.option.doc}." + (f" ({ranges})" if ranges else ""))
    if command.notes:
        yield "Notes:"
        for note in command.notes:
            yield from _indented(note)
    yield "Reply:"
    yield from _indented(command.reply)
    yield "Complexity:"
    yield from _indented(command.complexity)
    if command.errors:
        yield "Errors:"
        for code, when in command.errors:
            yield from _indented(f"{code}: {when}.")


def _option_syntax(option: Option) -> str:
    """Without nested options, which have lines of their own."""
    return option.syntax().split(" [", 1)[0] if option.nested else option.syntax()


def _indented(text: str) -> list[str]:
    return [_INDENT + line for part in text.splitlines() for line in wrap(part, _WIDTH - len(_INDENT))]
