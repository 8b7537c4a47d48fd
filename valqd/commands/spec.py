"""The description of a command.  One ``Command`` drives parser, arity, HELP, COMMAND and the docs.

Everything is validated when it is made, so a bad entry stops the import.  Nothing here parses: see ``grammar``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from valqd.commands.request import Request
from valqd.commands.values import ValueType
from valqd.errors import QUEUE_CODES

_TOKEN = re.compile(r"[A-Z]+\Z")
_NAME = re.compile(r"[a-z][a-z0-9_-]*\Z")
#: In the order that Valkey names them.
FLAGS = ("write", "readonly", "denyoom", "noscript", "blocking", "loading", "stale", "fast")
_KEY_FLAGS = frozenset({"RW", "RO", "OW", "RM", "access", "update", "insert", "delete", "variable_flags"})


class SpecError(ValueError):
    """An entry that contradicts itself."""


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise SpecError(what)


@dataclass(frozen=True, slots=True)
class Positional:
    """An argument at a fixed place.  Optional ones follow all required ones; only the last may be repeated.

    ``alternative`` names another kind of value that its type takes: ``id|receipt`` is shown for ``id``.
    """

    name: str
    type: ValueType
    doc: str = ""
    optional: bool = False
    repeated: bool = False
    alternative: str = ""

    def __post_init__(self) -> None:
        _check(_NAME.match(self.name) is not None, f"positional name {self.name!r}")
        _check(not (self.optional and self.repeated), f"{self.name} is optional and repeated")
        _check(not self.alternative or _NAME.match(self.alternative) is not None, f"{self.name}|{self.alternative}")

    @property
    def label(self) -> str:
        """What it is shown as: ``id|receipt``."""
        return f"{self.name}|{self.alternative}" if self.alternative else self.name

    def syntax(self) -> str:
        """As in ``id|receipt [id|receipt ...]``."""
        name = "|".join(self.type.words) or self.label
        return f"{name} [{name} ...]" if self.repeated else name

    def ranges(self) -> str:
        """What values are taken; empty for words, which the syntax shows."""
        return "" if self.type.words else self.type.range


@dataclass(frozen=True, slots=True)
class Counted:
    """A number at a fixed place (named ``count``), and that many arguments after it."""

    name: str
    type: ValueType
    count: str
    most: int  #: the largest count taken
    doc: str = ""

    def __post_init__(self) -> None:
        _check(_NAME.match(self.name) is not None and _NAME.match(self.count) is not None, f"counted {self.name!r}")
        _check(self.most > 0, f"{self.name} counts to {self.most}")

    def syntax(self) -> str:
        """As in ``numkeys queue [queue ...]``."""
        return f"{self.count} {self.name} [{self.name} ...]"

    def ranges(self) -> str:
        """What values are taken, as in ``count: 1 to 1000; body: ...``."""
        return f"{self.count}: 1 to {self.most}; each {self.name}: {self.type.range}"


@dataclass(frozen=True, slots=True)
class OptionValue:
    """One of the values that follow an option's word."""

    name: str
    type: ValueType

    def __post_init__(self) -> None:
        _check(_NAME.match(self.name) is not None, f"value name {self.name!r}")


@dataclass(frozen=True, slots=True)
class Option:
    """A word and the values that follow it; without values it is a flag.

    ``name`` is what it sets: a positional of the same name cannot be given as well.  ``most`` > 0: a number comes
    first, and that many groups of ``values``.  ``removable``: the word NONE in place of the values unsets it.
    ``nested`` options are taken only where this one is given, before or after it.
    """

    token: str
    values: tuple[OptionValue, ...] = ()
    doc: str = ""
    name: str = ""
    most: int = 0
    removable: bool = False
    nested: tuple[Option | OneOf, ...] = ()

    def __post_init__(self) -> None:
        _check(_TOKEN.match(self.token) is not None, f"option word {self.token!r}")
        if not self.name:
            object.__setattr__(self, "name", self.token.lower())
        _check(_NAME.match(self.name) is not None, f"{self.token} sets {self.name!r}")
        _check(bool(self.values) or not (self.most or self.removable), f"{self.token} has no values")
        _check(bool(self.doc), f"{self.token} is not documented")

    def syntax(self) -> str:
        """As in ``DEDUP key [WINDOW seconds | UNTILDONE]``."""
        names = ["|".join(value.type.words) or value.name for value in self.values]
        if self.most:
            group = " ".join(names)
            names = ["n", group, f"[{group} ...]"]
        return " ".join([self.token, *names, *(f"[{inner.syntax()}]" for inner in self.nested)])

    def ranges(self) -> str:
        """What its values may be, as in ``0 to 60 seconds`` or ``n: 1 to 9; field: ...``; empty for a flag."""
        values = [value for value in self.values if not value.type.words]
        if len(values) == 1 and not self.most:
            return values[0].type.range
        count = [f"n: 1 to {self.most}"] if self.most else []
        return "; ".join([*count, *(f"{value.name}: {value.type.range}" for value in values)])


@dataclass(frozen=True, slots=True)
class OneOf:
    """Options of which at most one may be given.  ``args.get(name)`` is the word of the one that was."""

    name: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        _check(_NAME.match(self.name) is not None and len(self.options) > 1, f"choice {self.name!r}")

    def syntax(self) -> str:
        """As in ``SILENT | FAIL``."""
        return " | ".join(option.syntax() for option in self.options)


Argument: TypeAlias = Positional | Counted | Option | OneOf


class Arguments:
    """What was parsed: canonical bytes by name.  Made anew for each command."""

    __slots__ = ("many", "one", "resp")

    def __init__(self, resp: int) -> None:
        self.resp = resp  #: the client's protocol version, 2 or 3
        self.one: dict[str, bytes] = {}
        self.many: dict[str, tuple[bytes, ...]] = {}

    def get(self, name: str, default: bytes = b"") -> bytes:
        """A single value, or ``default`` if it was not given."""
        return self.one.get(name, default)

    def every(self, name: str) -> tuple[bytes, ...]:
        """The values of a repeated or counted argument, or of an option with several; empty if not given."""
        return self.many.get(name, ())


@dataclass(frozen=True, slots=True)
class Command:
    """One command.  ``example`` is a session as valkey-cli shows it, without the prompt: lines of (sent, shown)."""

    name: str  #: lower case, without ``valq.``
    summary: str
    arguments: tuple[Argument, ...]
    build: Callable[[Arguments], Request]
    reply: str
    complexity: str
    example: tuple[tuple[str, str], ...]
    flags: tuple[str, ...]
    key_flags: tuple[str, ...] = ()  #: how it uses its queues' keys, as in Valkey's key specifications
    errors: tuple[tuple[str, str], ...] = ()  #: (code, when), besides ERR
    notes: tuple[str, ...] = ()  #: paragraphs for the docs
    excludes: tuple[tuple[str, str], ...] = ()  #: pairs of names that cannot be given together
    needs_more: bool = False  #: required arguments alone are too few
    optional_together: bool = False  #: optional positionals: all of them or none
    since: str = "0.1.0"

    def __post_init__(self) -> None:
        _check(_NAME.match(self.name) is not None, f"command name {self.name!r}")
        where = f"valq.{self.name}"
        for text in (self.summary, self.reply, self.complexity):
            _check(text.endswith("."), f"{where}: {text!r} is not a sentence")
        _check(set(self.flags) <= set(FLAGS) and set(self.key_flags) <= _KEY_FLAGS, f"{where}: unknown flag")
        _check({code for code, _ in self.errors} <= QUEUE_CODES, f"{where}: unknown error code")
        _check(bool(self.example), f"{where} has no example")
        seen_optional = seen_last = False
        names: list[str] = []
        for positional in self.positionals:
            _check(not seen_last, f"{where}: {positional.name} comes after a repeated argument")
            optional = isinstance(positional, Positional) and positional.optional
            _check(optional or not seen_optional, f"{where}: {positional.name} comes after an optional one")
            seen_optional |= optional
            seen_last = isinstance(positional, Counted) or positional.repeated
            names.append(positional.name)
        _check(len(set(names)) == len(names), f"{where}: a positional name twice")
        options = [slot.option for slot in self.slots()]
        _check(len({option.token for option in options}) == len(options), f"{where}: an option word twice")
        known = {*names, *(option.name for option in options)}
        _check(all({*pair} <= known for pair in self.excludes), f"{where}: excludes a name it does not have")
        started = False
        for argument in self.arguments:
            _check(not (started and isinstance(argument, Positional | Counted)), f"{where}: positional after option")
            started = started or isinstance(argument, Option | OneOf)

    @property
    def full_name(self) -> str:
        """``valq.push``."""
        return f"valq.{self.name}"

    @property
    def positionals(self) -> tuple[Positional | Counted, ...]:
        """The arguments at fixed places, in order."""
        return tuple(arg for arg in self.arguments if isinstance(arg, Positional | Counted))

    @property
    def required(self) -> int:
        """How many arguments come before all options and optional ones, the name not counted."""
        return sum(2 if isinstance(arg, Counted) else not arg.optional for arg in self.positionals)

    @property
    def fewest(self) -> int:
        """The least number of arguments, the name not counted."""
        return self.required + self.needs_more

    @property
    def most(self) -> int | None:
        """The largest number of arguments, the name not counted; None where options or repetition leave it open."""
        if any(isinstance(arg, Option | OneOf | Counted) or arg.repeated for arg in self.arguments):
            return None
        return len(self.arguments)

    @property
    def arity(self) -> int:
        """As in COMMAND INFO: with the name, negative for "at least"."""
        return self.fewest + 1 if self.most == self.fewest else -(self.fewest + 1)

    def slots(self) -> Iterator[Slot]:
        """Every option, nested ones too, with where it stands."""
        yield from _slots(self.arguments, None)

    def syntax(self) -> str:
        """As in ``VALQ.PUSH queue body [delay] [DELAY seconds | AT unix-ms] ...``."""
        parts = [self.full_name.upper()]
        optional = self.optional_syntax()
        for argument in self.arguments:
            if isinstance(argument, Option | OneOf):
                parts.append(f"[{argument.syntax()}]")
            elif isinstance(argument, Counted) or not argument.optional:
                parts.append(argument.syntax())
            elif optional:
                parts.append(optional)
                optional = ""
        return " ".join(parts)

    def optional_syntax(self, form: str = "{}") -> str:
        """Of the optional positionals, if there are some: ``[a [b]]``, or ``[a b]`` if all or none are given."""
        names = [form.format(arg.name) for arg in self.positionals if isinstance(arg, Positional) and arg.optional]
        if self.optional_together and names:
            return f"[{' '.join(names)}]"
        return " ".join(f"[{name}" for name in names) + "]" * len(names)


@dataclass(frozen=True, slots=True)
class Slot:
    """An option in its place: ``choice`` it belongs to, names it ``excludes`` by that, ``parent`` it needs."""

    option: Option
    choice: OneOf | None
    parent: Option | None

    @property
    def excludes(self) -> frozenset[str]:
        """Names of the other options of the choice."""
        others = self.choice.options if self.choice else ()
        return frozenset(option.name for option in others if option is not self.option)


def _slots(arguments: tuple[Argument, ...], parent: Option | None) -> Iterator[Slot]:
    for argument in arguments:
        choice = argument if isinstance(argument, OneOf) else None
        options = choice.options if choice else (argument,)
        for option in options:
            if isinstance(option, Option):
                yield Slot(option, choice, parent)
                yield from _slots(option.nested, option)
