"""COMMAND INFO, DOCS, LIST, GETKEYS and HELP have the shapes that Valkey's own entries have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from valqd.commands import introspection
from valqd.commands.help_text import help_lines
from valqd.commands.keys import getkeys, getkeysandflags
from valqd.commands.reply_values import Set, Status
from valqd.commands.table import COMMANDS
from valqd.errors import CommandError
from valqd.protocol.encoding import encode

ROWS: list[Any] = [*introspection.ENTRIES]
ALL_ROWS: list[Any] = [*ROWS, *ROWS[-1][9]]
DOCS: list[tuple[bytes, Any]] = [*introspection.DOCS]
ALL_DOCS = [*DOCS, *DOCS[-1][1]["subcommands"].items()]

ARGUMENT_TYPES = {"string", "integer", "double", "key", "pattern", "unix-time", "pure-token", "oneof", "block"}


def row(name: bytes) -> Any:
    return introspection.command_info(name)


def test_every_command_is_there_in_both_spellings() -> None:
    names = {command.name for command in COMMANDS}
    assert [entry[0] for entry in ROWS] == [*(c.full_name.encode() for c in COMMANDS), b"valq"]
    assert {entry[0] for entry in ROWS[-1][9]} == {b"valq|" + name.encode() for name in names}
    assert set(introspection.command_names()) == {entry[0] for entry in ALL_ROWS} == {name for name, _ in ALL_DOCS}


def test_one_entry_is_found_by_name_in_any_case() -> None:
    assert introspection.command_info(b"VALQ.Push") == row(b"valq.push")
    assert row(b"VALQ|push")[0] == b"valq|push"
    assert introspection.command_info(b"get") is None
    assert introspection.command_doc(b"get") is None
    for name, docs in ALL_DOCS:
        assert introspection.command_doc(name.upper()) == (name, docs)


@pytest.mark.parametrize("entry", ALL_ROWS, ids=lambda entry: entry[0].decode())
def test_info_row_has_valkeys_shape(entry: Any) -> None:
    name, arity, flags, first, last, step, categories, tips, specs, subcommands = entry
    assert isinstance(name, bytes)
    assert isinstance(arity, int)
    for flag_set in (flags, categories):
        assert isinstance(flag_set, Set)
        assert all(isinstance(flag, Status) for flag in flag_set)
    assert all(category.startswith("@") for category in categories)
    assert isinstance(tips, Set)
    assert isinstance(specs, Set)
    assert (first == 0) == (last == 0) == (step == 0)
    for spec in specs:
        assert list(spec) == ["flags", "begin_search", "find_keys"]
        assert list(spec["begin_search"]) == list(spec["find_keys"]) == ["type", "spec"]
        assert spec["begin_search"]["type"] in ("index", "keyword")
        assert spec["find_keys"]["type"] in ("range", "keynum")
    assert isinstance(subcommands, list)


def test_info_of_push_is_encoded_as_valkey_would() -> None:
    spec = (
        b"$5\r\nflags\r\n~2\r\n+RW\r\n+insert\r\n"
        b"$12\r\nbegin_search\r\n%2\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n%1\r\n$5\r\nindex\r\n:1\r\n"
        b"$9\r\nfind_keys\r\n%2\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n%3\r\n"
        b"$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n"
    )
    assert encode(row(b"valq.push"), 3) == (
        b"*10\r\n$9\r\nvalq.push\r\n:-3\r\n~4\r\n+write\r\n+denyoom\r\n+noscript\r\n+fast\r\n:1\r\n:1\r\n:1\r\n"
        b"~2\r\n+@write\r\n+@fast\r\n~0\r\n~1\r\n%3\r\n" + spec + b"*0\r\n"
    )
    assert encode(row(b"valq.push"), 2).startswith(b"*10\r\n$9\r\nvalq.push\r\n:-3\r\n*4\r\n+write\r\n")


def test_arity_and_keys_of_a_subcommand_count_one_word_more() -> None:
    assert (row(b"valq.push")[1], row(b"valq|push")[1]) == (-3, -4)
    assert (row(b"valq.delete")[1], row(b"valq|delete")[1]) == (2, 3)
    assert row(b"valq.push")[3:6] == [1, 1, 1]
    assert row(b"valq|push")[3:6] == [2, 2, 1]


def test_keys_that_are_not_at_fixed_places_are_declared_movable() -> None:
    movable = {entry[0] for entry in ROWS if "movablekeys" in entry[2]}
    assert movable == {b"valq.mpop", b"valq.redrive", b"valq.create", b"valq.update"}
    assert row(b"valq.mpop")[3:6] == [0, 0, 0]
    assert row(b"valq.redrive")[8][1]["begin_search"] == {"type": "keyword", "spec": {"keyword": "TO", "startfrom": 2}}
    starts = [row(name)[8][1]["begin_search"]["spec"]["startfrom"] for name in (b"valq.update", b"valq|update")]
    assert starts == [2, 3]


@pytest.mark.parametrize(("name", "docs"), ALL_DOCS, ids=lambda item: item.decode() if isinstance(item, bytes) else "")
def test_docs_have_valkeys_shape(name: bytes, docs: Any) -> None:
    assert list(docs)[:4] == ["summary", "since", "group", "complexity"]
    specs = row(name)[8]
    for argument in arguments(docs):
        assert argument["type"] in ARGUMENT_TYPES
        assert isinstance(argument["name"], str)
        assert ("arguments" in argument) == (argument["type"] in ("oneof", "block"))
        assert "token" in argument or argument["type"] != "pure-token"
        assert isinstance(argument.get("flags", Set()), Set)
        assert all(isinstance(flag, Status) for flag in argument.get("flags", ()))
        if "key_spec_index" in argument:
            assert argument["type"] == "key"
            assert argument["key_spec_index"] < len(specs)


def arguments(docs: Any) -> Iterator[Any]:
    for argument in docs.get("arguments", ()):
        yield argument
        yield from arguments(argument)


@pytest.mark.parametrize(
    ("name", "counted"), [(b"valq.mpush", ["queue", "count", "body"]), (b"valq.mpop", ["numkeys", "queue"])]
)
def test_docs_of_what_is_counted(name: bytes, counted: list[str]) -> None:
    arguments = dict(DOCS)[name]["arguments"][: len(counted)]
    assert [argument["name"] for argument in arguments] == counted
    assert arguments[-1]["flags"] == ("multiple",)


def test_docs_of_options() -> None:
    arguments = dict(DOCS)[b"valq.push"]["arguments"]
    by_name = {argument["name"]: argument for argument in arguments}
    assert by_name["queue"] == {"name": "queue", "type": "key", "display_text": "queue", "key_spec_index": 0}
    assert next(argument for argument in arguments if argument.get("token") == "VT") == {
        "name": "seconds",
        "type": "double",
        "display_text": "seconds",
        "token": "VT",
        "flags": Set([Status("optional")]),
    }
    assert by_name["due"]["type"] == "oneof"
    assert [argument["token"] for argument in by_name["due"]["arguments"]] == ["DELAY", "AT"]
    assert by_name["headers"]["token"] == "HEADERS"
    assert by_name["headers"]["arguments"][1]["flags"] == ("multiple",)
    assert by_name["dedup"]["arguments"][0]["token"] == "DEDUP"
    assert by_name["dedup"]["arguments"][1]["flags"] == ("optional",)


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("VALQ.PUSH q m", ["q"]),
        ("valq push q m", ["q"]),
        ("VALQ.EXTEND q 1 60", ["q"]),  # takes no more and no less
        ("VALQ.MPOP 2 a b COUNT 3", ["a", "b"]),
        ("VALQ MPOP 2 a b", ["a", "b"]),
        ("VALQ.REDRIVE q", ["q"]),
        ("VALQ.REDRIVE q LIMIT 4 to b", ["q", "b"]),
        ("VALQ REDRIVE q TO b", ["q", "b"]),
        ("VALQ.CREATE q DLQ d", ["q", "d"]),
        ("VALQ.CREATE q DLQ NONE", ["q"]),
        ("VALQ.UPDATE q DLQ d", ["q", "d"]),
    ],
)
def test_getkeys(line: str, keys: list[str]) -> None:
    argv = line.encode().split()
    assert getkeys(argv) == [key.encode() for key in keys]
    flagged: Any = getkeysandflags(argv)
    assert [key for key, _ in flagged] == getkeys(argv)
    assert all(isinstance(flags, Set) and flags[0] == "RW" for _, flags in flagged)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("VALQ.LIST", "The command has no key arguments"),
        ("VALQ", "The command has no key arguments"),
        ("VALQ.NOSUCH a", "Invalid command specified"),
        ("GET a", "Invalid command specified"),
        ("VALQ.PUSH q", "Invalid number of arguments specified for command"),
        ("VALQ.DELETE q r", "Invalid number of arguments specified for command"),
        ("VALQ.MPOP 9 a", "Invalid arguments specified for command"),
        ("VALQ.MPOP x a", "Invalid arguments specified for command"),
    ],
)
def test_getkeys_refuses_as_valkey_does(line: str, text: str) -> None:
    with pytest.raises(CommandError) as caught:
        getkeys(line.encode().split())
    assert str(caught.value) == f"ERR {text}"


def test_help_names_every_command() -> None:
    lines = help_lines(None)
    assert lines[0] == "VALQ.<command> [<arg> ...]. Commands are:"
    for command in COMMANDS:
        at = next(i for i, line in enumerate(lines) if line.split(" ")[0] == command.name.upper())
        assert lines[at + 1].strip() == command.summary


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_of_one_command_tells_all_of_it(command: Any) -> None:
    lines = help_lines(command.name.encode())
    assert lines[0] == command.syntax()
    assert lines[1].strip() == command.summary
    for heading in ("Reply:", "Complexity:"):
        assert heading in lines
    notes = [line.strip() for line in lines[lines.index("Notes:") + 1 : lines.index("Reply:")]] if command.notes else []
    told = " ".join(notes)
    for line in (line for note in command.notes for line in note.splitlines()):
        assert line in told
        assert any(line.startswith(begun) for begun in notes)  # on a line of its own
    for slot in command.slots():
        assert any(line.startswith(slot.option.token) for line in lines)
    encode(lines, 2)


def test_help_of_an_unknown_command_is_an_error() -> None:
    with pytest.raises(CommandError, match=r"unknown command 'VALQ\.NOSUCH'"):
        help_lines(b"NOSUCH")
    for word in (b"valq.nosuch", b"VALQ|nosuch"):
        with pytest.raises(CommandError, match=r"unknown command 'VALQ\.nosuch'"):
            help_lines(word)
