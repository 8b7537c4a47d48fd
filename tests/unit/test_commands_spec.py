"""A SPEC that contradicts itself is refused when it is made; the pages made from the SPECs are up to date."""

from __future__ import annotations

import dataclasses
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from tools import docs
from valqd import commands
from valqd.commands import grammar, push
from valqd.commands.spec import Command, OneOf, Option, OptionValue, Positional, SpecError
from valqd.commands.table import COMMANDS
from valqd.commands.values import BODY, QUEUE, VISIBILITY
from valqd.lua import bundle
from valqd.protocol.framing import MAX_BULK_BYTES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Push"},
        {"summary": "No full stop"},
        {"flags": ("nosuchflag",)},
        {"key_flags": ("nosuchflag",)},
        {"errors": (("NOSUCHCODE", "never"),)},
        {"example": ()},
        {"excludes": (("delay", "nosuchname"),)},
        {"arguments": (Positional("a", BODY, optional=True), Positional("b", BODY))},
        {"arguments": (Positional("a", BODY, repeated=True), Positional("b", BODY))},
        {"arguments": (Positional("a", BODY), Positional("a", BODY))},
        {"arguments": (Option("X", doc="x"), Positional("a", BODY))},
        {"arguments": (Option("X", doc="x"), Option("X", doc="x"))},
    ],
)
def test_command_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        dataclasses.replace(push.SPEC, **{"excludes": (), **change})


def test_option_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(SpecError):
        Option("lower", doc="x")
    with pytest.raises(SpecError):
        Option("UNDOCUMENTED")
    with pytest.raises(SpecError):
        Option("X", doc="x", removable=True)
    with pytest.raises(SpecError):
        OneOf("one", (Option("X", doc="x"),))
    with pytest.raises(SpecError):
        Positional("a", QUEUE, optional=True, repeated=True)
    with pytest.raises(SpecError):
        OptionValue("Bad name", VISIBILITY)


def test_every_command_has_a_file_of_its_own_and_is_in_the_table() -> None:
    files = {module.name.rstrip("_") for module in pkgutil.iter_modules(commands.__path__)}
    assert {command.name for command in COMMANDS} <= files
    for path in (ROOT / "valqd/commands").glob("*.py"):
        if "\nSPEC = Command(" in path.read_text():
            assert path.stem.rstrip("_") in {command.name for command in COMMANDS}


def test_page_is_what_the_specs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert docs.main(["--check"]) == 0


def test_check_finds_a_difference_and_write_repairs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert docs.main(["--check"]) == 1
    assert "--write" in capsys.readouterr().err
    assert docs.main(["--write"]) == 0
    assert docs.main(["--check"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]
    assert docs.main([]) == 2


def test_page_names_every_command_option_and_error() -> None:
    page = docs.render()
    for command in COMMANDS:
        section = page.split(f"\n## {command.full_name.upper()}\n")[1].split("\n## ")[0]
        assert command.syntax() in section
        for slot in command.slots():
            assert f"`{slot.option.token}" in section
        for code, _ in command.errors:
            assert f"`{code}`" in section


def test_examples_are_commands_that_parse() -> None:
    from valqd.commands.grammar import parse

    for command in COMMANDS:
        assert any(sent.startswith(command.full_name.upper()) for sent, _ in command.example)
        for sent, _ in command.example:
            parse(sent.encode().split(), 2, MAX_BULK_BYTES)


@pytest.mark.parametrize("command", [spec for spec in COMMANDS if spec.name != "help"], ids=lambda spec: spec.name)
def test_flags_are_those_of_the_functions_that_the_command_calls(command: Command) -> None:
    sources = bundle.function_sources()
    name = command.full_name.upper()
    argvs = [sent.encode().split() for sent, _ in command.example if sent.split()[0] == name]
    requests = [grammar.parse(argv, 2, MAX_BULK_BYTES) for argv in argvs]
    called = {request.function for request in requests}
    called |= {request.merge.function for request in requests if request.merge}
    assert called
    for name in called:
        flags = bundle.header(name, sources[name])["Flags"].split()
        assert ("denyoom" in command.flags) == ("deny-oom" in flags), name
        assert ("readonly" in command.flags) == ("no-writes" in flags), name
