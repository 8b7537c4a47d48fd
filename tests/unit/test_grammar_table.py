"""What must hold for every command, option and value: the cases are made from the SPECs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valqd.commands.grammar import parse
from valqd.commands.request import Request
from valqd.commands.spec import Command, Counted, Option, Slot
from valqd.commands.table import COMMANDS
from valqd.commands.values import ValueType
from valqd.errors import CommandError, shown
from valqd.protocol.framing import MAX_BULK_BYTES

JUNK = [
    "",
    "+5",
    " 5",
    "5 ",
    "1e3",
    "inf",
    "nan",
    "-1",
    "0x10",
    "5x",
    "5\n",
    "1.2.3",
    "٣",
    "5\x00",
    "99999999999999999999999",
]


class Borders(NamedTuple):
    """Values accepted at the borders of a range, and values refused next to them."""

    low: str
    high: str
    refused: tuple[str, ...] = ()


#: By the range that HELP and the docs state.
BORDERS = {
    "1 to 255 bytes without braces, white space or control characters": Borders("q", "q" * 255, ("a b", "q" * 256)),
    "a message id (7) or a receipt (7-1)": Borders("1", "9" * 19 + "-" + "9" * 10, ("0", "1-0", "9" * 20)),
    "a message id (7)": Borders("1", "9" * 19, ("0", "9" * 20)),
    "0, or the cursor of the last reply": Borders("0", "18446744073709551615", ("x", "18446744073709551616")),
    "any bytes, at most max_body_bytes": Borders("", "body"),
    "0 to 65536 bytes long": Borders("", "x" * 65536, ("x" * 65537,)),
    "1 to 64 bytes long": Borders("x", "x" * 64, ("", "x" * 65)),
    "1 to 256 bytes long": Borders("x", "x" * 256, ("", "x" * 257)),
    "1 to 1024 bytes long": Borders("x", "x" * 1024, ("", "x" * 1025)),
    "0.001 to 43200 seconds": Borders("0.001", "43200", ("0", "43200.001")),
    "1 to 43200 seconds": Borders("1", "43200", ("0.999", "43200.001")),
    "0 to 31536000 seconds": Borders("0", "31536000", ("31536000.001",)),
    "1 to 31536000 seconds, or 0 for no limit": Borders("1", "31536000", ("0.999", "31536000.001")),
    "60 to 31536000 seconds, or 0 for ever": Borders("60", "31536000", ("59.999", "31536000.001")),
    "0 to 18446744073709551615 seconds": Borders("0", "18446744073709551615", ("18446744073709551615.001",)),
    "0.001 to 18446744073709551615 seconds": Borders(
        "0.001", "18446744073709551615", ("0", "18446744073709551615.001")
    ),
    "an integer from 0 to 31": Borders("0", "31", ("32",)),
    "an integer from 0 to 100": Borders("0", "100", ("101",)),
    "an integer from 1 to 1000": Borders("1", "1000", ("0", "1001")),
    "an integer from 1 to 10000": Borders("1", "10000", ("0", "10001")),
    "an integer from 0 to 9007199254740991": Borders("0", "9007199254740991", ("9007199254740992",)),
    "an integer from 0 to 9007199254740991 ms": Borders("0", "9007199254740991", ("9007199254740992",)),
    "an integer from 1 to 9007199254740991": Borders("1", "9007199254740991", ("0", "9007199254740992")),
    "an integer from 0 to 18446744073709551615": Borders("0", "18446744073709551615", ("18446744073709551616",)),
    "FIXED, LINEAR or EXP": Borders("FIXED", "exp", ("FIXEDX", "0")),
    "REFUSE or DROPHEAD": Borders("REFUSE", "drophead", ("REFUSEX", "0")),
    "IN, OUT, ALL or NONE": Borders("IN", "none", ("INX", "0")),
    "READY, INFLIGHT, DELAYED or DLQ": Borders("READY", "dlq", ("READYX", "0")),
}

SLOTS = [(command, slot) for command in COMMANDS for slot in command.slots()]


def run(command: Command, *args: str | bytes) -> Request:
    argv = [command.full_name.encode(), *(arg.encode() if isinstance(arg, str) else arg for arg in args)]
    return parse(argv, 2, MAX_BULK_BYTES)


def refusal(command: Command, *args: str | bytes) -> str:
    with pytest.raises(CommandError) as caught:
        run(command, *args)
    assert caught.value.code == "ERR"
    return str(caught.value).removeprefix("ERR ")


def required(command: Command) -> list[str]:
    """The least that the fixed places take."""
    args: list[str] = []
    for positional in command.positionals:
        if isinstance(positional, Counted):
            args += ["1", low(positional.type)]
        elif not positional.optional:
            args.append("jobs" if positional.name == "queue" else low(positional.type))
    return args


def low(kind: ValueType) -> str:
    return BORDERS[kind.range].low


def written(option: Option, border: int = 0) -> list[str]:
    """The option with values at their lower or upper border (0, 1)."""
    values = [BORDERS[item.type.range][border] for item in option.values]
    return [option.token, *(["1"] if option.most else []), *values]


def given_with_parent(slot: Slot) -> list[str]:
    return written(slot.parent) if slot.parent else []


def describe(item: object) -> str:
    if isinstance(item, Command):
        return item.name
    return item.option.token if isinstance(item, Slot) else str(item)


def commands(having: Callable[[Command], object]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("command", list(filter(having, COMMANDS)), ids=describe)


def options(having: Callable[[Slot], object]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("command", "slot"), [pair for pair in SLOTS if having(pair[1])], ids=describe)


def counted(command: Command) -> Counted | None:
    return next((place for place in command.positionals if isinstance(place, Counted)), None)


each_command = commands(lambda command: True)
each_option = options(lambda slot: True)


@each_command
def test_the_least_is_enough(command: Command) -> None:
    if command.needs_more:
        refusal(command, *required(command))
    else:
        functions = {"mpush": "push", "help": ""}
        assert run(command, *required(command)).function == functions.get(command.name, command.name)


@each_command
def test_too_few_and_too_many_arguments(command: Command) -> None:
    arity = f"wrong number of arguments for '{command.full_name}' command"
    for given_count in range(command.fewest):
        assert refusal(command, *required(command)[:given_count]) == arity
    if command.most is not None:
        assert refusal(command, *["1"] * (command.most + 1)) == arity


@each_command
def test_arity_is_what_valkey_would_state(command: Command) -> None:
    assert abs(command.arity) == command.fewest + 1
    assert (command.arity > 0) == (command.most == command.fewest)


@each_command
def test_unknown_option_is_named(command: Command) -> None:
    args = [*required(command), "NOSUCHOPTION"]
    if command.name == "help":
        assert refusal(command, *args) == "unknown command 'VALQ.NOSUCHOPTION', try VALQ.HELP"
    elif any(command.slots()):
        assert refusal(command, *args).startswith(f"unknown option 'NOSUCHOPTION' for '{command.full_name}' command (")
    elif command.most is not None:
        assert "wrong number of arguments" in refusal(command, *args)
    else:
        assert refusal(command, *args) == "invalid id 'NOSUCHOPTION': must be a message id (7) or a receipt (7-1)"


@commands(lambda command: any(command.slots()))
def test_option_of_another_command_is_unknown(command: Command) -> None:
    own = {slot.option.token for slot in command.slots()}
    for _, slot in SLOTS:
        if slot.option.token not in own:
            text = refusal(command, *required(command), *written(slot.option))
            assert text.startswith(f"unknown option '{slot.option.token}' for '{command.full_name}' command (")


@each_option
def test_option_is_taken_in_any_case(command: Command, slot: Slot) -> None:
    token, *values = written(slot.option)
    parent = given_with_parent(slot)
    expected = run(command, *required(command), *parent, token, *values)
    assert run(command, *required(command), *parent, token.lower(), *values) == expected
    assert run(command, *required(command), token.title(), *values, *parent) == expected


@each_option
def test_option_given_twice_is_named(command: Command, slot: Slot) -> None:
    twice = written(slot.option) * 2
    assert (
        refusal(command, *required(command), *given_with_parent(slot), *twice) == f"{slot.option.token} is given twice"
    )


@options(lambda slot: len(written(slot.option)) > 1)
def test_option_without_its_values_is_named(command: Command, slot: Slot) -> None:
    words = written(slot.option)
    for length in range(1, len(words)):
        text = refusal(command, *required(command), *given_with_parent(slot), *words[:length])
        assert text == f"{slot.option.token} lacks its values: {slot.option.syntax()}"


@options(lambda slot: slot.parent)
def test_nested_option_needs_its_parent(command: Command, slot: Slot) -> None:
    text = refusal(command, *required(command), *written(slot.option))
    assert text == f"{slot.option.token} needs {slot.parent.token}"


@options(lambda slot: slot.choice and len(slot.choice.options) > 1)
def test_options_of_one_choice_exclude_each_other(command: Command, slot: Slot) -> None:
    for other in slot.choice.options:
        if other is not slot.option:
            parent = given_with_parent(slot)
            text = refusal(command, *required(command), *parent, *written(slot.option), *written(other))
            assert text == f"{slot.option.token} and {other.token} cannot be given together"


def option_values() -> Iterator[tuple[Command, Slot, int]]:
    for command, slot in SLOTS:
        for index in range(len(slot.option.values)):
            yield command, slot, index


@pytest.mark.parametrize(("command", "slot", "index"), list(option_values()), ids=describe)
def test_option_value_at_its_borders(command: Command, slot: Slot, index: int) -> None:
    option = slot.option
    value = option.values[index]
    for border in (0, 1):
        run(command, *required(command), *given_with_parent(slot), *written(option, border))
    label = option.token if len(option.values) == 1 and not option.most else f"{option.token} {value.name}"
    for wrong in refused(value.type):
        words = written(option)
        words[index - len(option.values)] = wrong
        text = refusal(command, *required(command), *given_with_parent(slot), *words)
        assert text.startswith((f"{label} must be ", "invalid queue name", "invalid id"))


@commands(lambda command: command.positionals and command.name != "help" and not counted(command))
def test_positional_at_its_borders(command: Command) -> None:
    places = command.positionals
    for index, positional in enumerate(places):
        before = [low(place.type) for place in places[:index]]
        after = [low(place.type) for place in places[index + 1 :]]
        for accepted in BORDERS[positional.type.range][:2]:
            run(command, *before, accepted, *after)
        for wrong in refused(positional.type):
            if positional.optional and wrong[:1].isalpha():
                continue  # taken for an unknown option, which names it too
            text = refusal(command, *before, wrong, *after)
            assert text.startswith((f"{positional.name} must be ", "invalid "))


@commands(counted)
def test_count_at_its_borders(command: Command) -> None:
    place = counted(command)
    before = required(command)[:-2]
    run(command, *before, str(place.most), *[low(place.type)] * place.most)
    for wrong in ("0", str(place.most + 1), *JUNK):
        text = refusal(command, *before, wrong, low(place.type))
        assert text == f"{place.count} must be an integer from 1 to {place.most}, not '{shown(wrong.encode())}'"


@options(lambda slot: slot.option.most)
def test_number_of_groups_at_its_borders(command: Command, slot: Slot) -> None:
    option = slot.option
    for wrong in ("0", str(option.most + 1), *JUNK):
        words = [option.token, wrong, *written(option)[2:]]
        text = refusal(command, *required(command), *words)
        assert text == f"{option.token} n must be an integer from 1 to {option.most}, not '{shown(wrong.encode())}'"


def refused(kind: ValueType) -> list[str]:
    """What a value of this type must not be."""
    numeric = kind.docs_type in ("integer", "double", "unix-time")
    return [*BORDERS[kind.range].refused, *(JUNK if numeric else [])]


def test_table_has_every_range_and_no_other() -> None:
    places = [place.type for command in COMMANDS for place in command.positionals]
    values = [value.type for _, slot in SLOTS for value in slot.option.values]
    assert {kind.range for kind in places + values} == set(BORDERS)


WORDS = [
    *(command.full_name for command in COMMANDS),
    *("VALQ", "valq", *(command.name for command in COMMANDS)),
    *sorted({slot.option.token for _, slot in SLOTS}),
    *sorted({slot.option.token.lower() for _, slot in SLOTS}),
    *("q", "1", "2", "0", "1-1", "5", "0.5", "NONE", "FIXED", "EXP", "IN", "dlq", *JUNK),
]
ARGUMENTS = st.lists(st.one_of(st.sampled_from([word.encode() for word in WORDS]), st.binary(max_size=20)), max_size=12)


@given(st.sampled_from([command.full_name.encode() for command in COMMANDS]), ARGUMENTS, st.sampled_from([2, 3]))
def test_any_arguments_give_a_request_or_a_command_error(name: bytes, args: list[bytes], resp: int) -> None:
    try:
        request = parse([name, *args], resp, MAX_BULK_BYTES)
    except CommandError as error:
        raw = error.resp()
        assert raw.startswith(b"-ERR ")
        assert raw.endswith(b"\r\n")
        assert b"\n" not in raw[:-2]
        assert b"\r" not in raw[:-2]
        assert raw[:-2].decode().isprintable()
    else:
        assert all(isinstance(arg, bytes) for arg in (*request.args, *request.queues))
        assert request.function or name == b"valq.help"


@given(ARGUMENTS)
def test_any_argv_gives_a_request_or_a_command_error(argv: list[bytes]) -> None:
    with contextlib.suppress(CommandError):
        parse([b"VALQ", *argv], 2, MAX_BULK_BYTES)
