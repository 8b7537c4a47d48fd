"""Turns an argument vector into a ``Request``, by parsers compiled from the SPECs when this is imported.

The one place where arguments are parsed.  Nothing is replaced by a default or ignored: what does not fit is refused
by an error that names it.
"""

from __future__ import annotations

from typing import NamedTuple

from valqd.commands.request import Request
from valqd.commands.spec import Arguments, Command, Counted, Option, Positional
from valqd.commands.table import COMMANDS, lookup
from valqd.commands.values import Parse, integer
from valqd.errors import CommandError, shown

_NONE = b"NONE"


class _Rule(NamedTuple):
    """How one option is parsed."""

    option: Option
    choice: str  #: name of the choice it belongs to, or empty
    excludes: frozenset[str]
    labels: tuple[str, ...]  #: what an error calls each of its values
    parsers: tuple[Parse, ...]  #: of its values
    parse_count: Parse | None  #: of the number of groups of values, if one comes first


class _Parser:
    """The parser of one command."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._fewest = command.fewest
        self._most = command.most
        self._build = command.build
        plain = [arg for arg in command.positionals if isinstance(arg, Positional)]
        self._required = tuple((arg.name, arg.type.parse) for arg in plain if not arg.optional and not arg.repeated)
        self._optional = tuple((arg.name, arg.type.parse) for arg in plain if arg.optional)
        self._repeated = next((arg for arg in plain if arg.repeated), None)
        counted = next((arg for arg in command.positionals if isinstance(arg, Counted)), None)
        self._counted = (counted, integer(1, counted.most).parse) if counted else None
        self._rules = self._compile(command)
        self._nested = tuple((slot.option, slot.parent) for slot in command.slots() if slot.parent)

    @staticmethod
    def _compile(command: Command) -> dict[bytes, _Rule]:
        pairs: dict[str, set[str]] = {}
        for first, second in command.excludes:
            pairs.setdefault(first, set()).add(second)
            pairs.setdefault(second, set()).add(first)
        rules = {}
        for slot in command.slots():
            option = slot.option
            single = len(option.values) == 1 and not option.most
            rules[option.token.encode()] = _Rule(
                option,
                slot.choice.name if slot.choice else "",
                slot.excludes | pairs.get(option.name, set()),
                tuple(option.token if single else f"{option.token} {value.name}" for value in option.values),
                tuple(value.type.parse for value in option.values),
                integer(1, option.most).parse if option.most else None,
            )
        return rules

    def __call__(self, argv: list[bytes], pos: int, resp: int, max_body_bytes: int) -> Request:
        """Parse ``argv[pos:]``; the items before are the command's name."""
        given = len(argv) - pos
        if given < self._fewest or (self._most is not None and given > self._most):
            if self._counted and given == self._fewest - 1:  # nothing follows a count of 0: it is what is wrong
                self._counted[1](argv[-1], self._counted[0].count, max_body_bytes)
            raise self._arity()
        args = Arguments(resp)
        one = args.one
        for name, parse_value in self._required:
            one[name] = parse_value(argv[pos], name, max_body_bytes)
            pos += 1
        if pos < len(argv):
            pos = self._positionals(argv, pos, args, max_body_bytes)
            if pos < len(argv):
                self._options(argv, pos, args, max_body_bytes)
        return self._build(args)

    def _arity(self) -> CommandError:
        return CommandError(f"wrong number of arguments for '{self._command.full_name}' command")

    def _positionals(self, argv: list[bytes], pos: int, args: Arguments, max_body_bytes: int) -> int:
        """Take those that are counted, repeated or optional; where the options begin."""
        if self._counted:
            return self._take_counted(*self._counted, argv, pos, args, max_body_bytes)
        end = len(argv)
        if self._repeated:
            name, parse_value = self._repeated.name, self._repeated.type.parse
            first = pos
            values = []
            while pos < end and (pos == first or not self._starts_option(argv[pos])):
                values.append(parse_value(argv[pos], name, max_body_bytes))
                pos += 1
            args.many[name] = tuple(values)
            return pos
        taken = 0
        for name, parse_value in self._optional:
            if pos == end or self._starts_option(argv[pos]):
                break
            args.one[name] = parse_value(argv[pos], name, max_body_bytes)
            pos += 1
            taken += 1
        if self._command.optional_together and 0 < taken < len(self._optional):
            raise self._arity()
        return pos

    def _starts_option(self, raw: bytes) -> bool:
        """Whether ``raw`` is not another positional.  Those that an option may follow never begin with a letter."""
        return bool(self._rules) and raw[:1].isalpha()

    @staticmethod
    def _take_counted(
        spec: Counted, number: Parse, argv: list[bytes], pos: int, args: Arguments, max_body_bytes: int
    ) -> int:
        count = int(number(argv[pos], spec.count, max_body_bytes))
        pos += 1
        values = argv[pos : pos + count]
        if len(values) < count:
            raise CommandError(f"{spec.count} is {count}, but only {len(values)} more given")
        args.many[spec.name] = tuple([spec.type.parse(raw, spec.name, max_body_bytes) for raw in values])
        return pos + count

    def _options(self, argv: list[bytes], pos: int, args: Arguments, max_body_bytes: int) -> None:
        rules = self._rules
        seen = {name: name for name, _ in self._optional if name in args.one}  # name -> as the client wrote it
        end = len(argv)
        while pos < end:
            token = argv[pos].upper()
            rule = rules.get(token)
            if rule is None:
                known = ", ".join(word.decode() for word in rules)
                unknown = f"unknown option '{shown(argv[pos])}' for '{self._command.full_name}' command"
                raise CommandError(f"{unknown} (it knows {known})")
            option = rule.option
            earlier = seen.get(option.name)
            if earlier == option.token:
                raise CommandError(f"{option.token} is given twice")
            if earlier is None and rule.excludes:
                earlier = next((seen[name] for name in seen if name in rule.excludes), None)
            if earlier is not None:
                raise CommandError(f"{earlier} and {option.token} cannot be given together")
            seen[option.name] = option.token
            if rule.choice:
                args.one[rule.choice] = token
            pos = self._values(rule, argv, pos + 1, args, max_body_bytes)
        for option, parent in self._nested:
            if option.name in seen and parent.name not in seen:
                raise CommandError(f"{option.token} needs {parent.token}")

    @staticmethod
    def _values(rule: _Rule, argv: list[bytes], pos: int, args: Arguments, max_body_bytes: int) -> int:
        option, size = rule.option, len(rule.parsers)
        if size == 0:
            args.one[option.name] = b"1"
            return pos
        if option.removable and pos < len(argv) and argv[pos].upper() == _NONE:
            args.one[option.name] = b""
            return pos + 1
        groups = 1
        if rule.parse_count and pos < len(argv):
            groups = int(rule.parse_count(argv[pos], f"{option.token} n", max_body_bytes))
            pos += 1
        raws = argv[pos : pos + groups * size]
        if len(raws) < groups * size:
            raise CommandError(f"{option.token} lacks its values: {option.syntax()}")
        values = [rule.parsers[i % size](raw, rule.labels[i % size], max_body_bytes) for i, raw in enumerate(raws)]
        if size == 1 and not rule.parse_count:
            args.one[option.name] = values[0]
        else:
            args.many[option.name] = tuple(values)
        return pos + len(raws)


_PARSERS = {command.name: _Parser(command) for command in COMMANDS}


def parse(argv: list[bytes], resp: int, max_body_bytes: int) -> Request:
    """The request that ``argv`` (which ``is_ours``) asks for.

    ``resp`` is the client's protocol version, 2 or 3.  Raises ``CommandError`` if there is no such command, or it does
    not fit its SPEC.
    """
    command, pos = lookup(argv)
    return _PARSERS[command.name](argv, pos, resp, max_body_bytes)
