"""What COMMAND tells of our commands, in the shapes of Valkey's own replies.

Each command is there under both spellings: ``valq.push``, and ``valq|push`` as a subcommand of ``valq``.  Values are
as in ``reply_values``: maps and sets where Valkey has them in RESP3, which are arrays in RESP2.
"""

from __future__ import annotations

from valqd.commands.argument_docs import argument_docs
from valqd.commands.keys import has_movable_keys, key_spec_values, legacy_range
from valqd.commands.reply_values import Set, Status, Value
from valqd.commands.spec import FLAGS, Command
from valqd.commands.table import COMMANDS

_CONTAINER = b"valq"
_GROUP = "valq"

Row = list[Value]


def _categories(command: Command) -> list[str]:
    return [
        *(["@write"] if "write" in command.flags else []),
        *(["@read"] if "readonly" in command.flags else []),
        "@fast" if "fast" in command.flags else "@slow",
        *(["@blocking"] if "blocking" in command.flags else []),
    ]


def _info(command: Command, name: bytes, name_items: int) -> Row:
    flags = {*command.flags} | ({"movablekeys"} if has_movable_keys(command) else set())
    arity = command.arity + (name_items - 1 if command.arity > 0 else 1 - name_items)
    return [
        name,
        arity,
        Set(Status(flag) for flag in (*FLAGS, "movablekeys") if flag in flags),
        *legacy_range(command, name_items),
        Set(Status(category) for category in _categories(command)),
        Set(),  # tips
        key_spec_values(command, name_items),
        [],  # subcommands
    ]


def _docs(command: Command) -> dict[str, Value]:
    docs: dict[str, Value] = {
        "summary": command.summary,
        "since": command.since,
        "group": _GROUP,
        "complexity": command.complexity,
    }
    arguments = argument_docs(command)
    if arguments:
        docs["arguments"] = arguments
    return docs


_SUBCOMMANDS = [_info(command, b"valq|" + command.name.encode(), 2) for command in COMMANDS]
#: Our rows of COMMAND and COMMAND INFO, one for each name of its own; row[0] is the name, lower case.
ENTRIES: list[Row] = [
    *(_info(command, command.full_name.encode(), 1) for command in COMMANDS),
    [_CONTAINER, -1, Set(), 0, 0, 0, Set([Status("@slow")]), Set(), Set(), list(_SUBCOMMANDS)],
]
_SUBCOMMAND_DOCS: list[tuple[bytes, dict[str, Value]]] = [
    (b"valq|" + command.name.encode(), _docs(command)) for command in COMMANDS
]
#: Our pairs of COMMAND DOCS: name and map.
DOCS: list[tuple[bytes, dict[str, Value]]] = [
    *((command.full_name.encode(), _docs(command)) for command in COMMANDS),
    (
        _CONTAINER,
        {
            "summary": "A container for the commands of the job queue.",
            "since": COMMANDS[0].since,
            "group": _GROUP,
            "complexity": "Depends on subcommand.",
            "subcommands": dict(_SUBCOMMAND_DOCS),
        },
    ),
]


_INFO_BY_NAME = {row[0]: row for row in [*ENTRIES, *_SUBCOMMANDS]}
_DOCS_BY_NAME = dict([*DOCS, *_SUBCOMMAND_DOCS])


def command_info(name: bytes) -> Row | None:
    """The row of one name in any letter case; ``valq|push`` is one too.  None if it is not ours."""
    return _INFO_BY_NAME.get(name.lower())


def command_doc(name: bytes) -> tuple[bytes, dict[str, Value]] | None:
    """The pair of one name in any letter case; ``valq|push`` is one too.  None if it is not ours."""
    docs = _DOCS_BY_NAME.get(name.lower())
    return None if docs is None else (name.lower(), docs)


def command_names() -> list[bytes]:
    """Our names of COMMAND LIST: subcommands too, as in Valkey."""
    return list(_DOCS_BY_NAME)


def names_in_category(category: bytes) -> list[bytes]:
    """Our names of an ACL category (``write``, in any letter case)."""
    wanted = "@" + category.decode("latin-1").lower()
    of_container = [_CONTAINER] if wanted == "@slow" else []
    return of_container + [
        prefix + command.name.encode()
        for command in COMMANDS
        if wanted in _categories(command)
        for prefix in (b"valq.", b"valq|")
    ]
