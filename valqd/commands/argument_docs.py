"""The arguments of a command as COMMAND DOCS describes them, so that valkey-cli hints them.

The same shapes as Valkey's own entries: blocks for what belongs together, "oneof" for a choice, tokens for option
words, and flags as simple strings (valkey-cli insists on that).
"""

from __future__ import annotations

from collections.abc import Sequence

from valqd.commands.keys import options_naming_queues
from valqd.commands.reply_values import Set, Status, Value
from valqd.commands.spec import Command, Counted, OneOf, Option, OptionValue, Positional
from valqd.commands.values import QUEUE

Doc = dict[str, Value]


def argument_docs(command: Command) -> list[Value]:
    """The value of ``arguments`` in a command's documentation."""
    docs: list[Value] = []
    optional: list[Positional] = []
    for argument in command.arguments:
        if isinstance(argument, Positional) and argument.optional:
            optional.append(argument)
            continue
        if optional:
            docs.append(_optional_positionals(optional, command.optional_together))
            optional = []
        if isinstance(argument, Positional):
            docs.append(_leaf(argument, multiple=argument.repeated))
        elif isinstance(argument, Counted):
            docs.append({"name": argument.count, "type": "integer", "display_text": argument.count})
            docs.append(_leaf(argument, multiple=True))
        else:
            docs.append(_option_or_choice(argument, command))
    if optional:
        docs.append(_optional_positionals(optional, command.optional_together))
    return docs


def _flagged(doc: Doc, optional: bool, multiple: bool = False) -> Doc:
    flags = [*(["optional"] if optional else []), *(["multiple"] if multiple else [])]
    if flags:
        doc["flags"] = Set(Status(flag) for flag in flags)
    return doc


def _leaf(argument: Positional | Counted | OptionValue, multiple: bool = False, optional: bool = False) -> Doc:
    """One value.  A few words to choose from are a "oneof" of tokens, and so are two kinds of it, without tokens."""
    if argument.type.words:
        words: list[Value] = [
            {"name": word.lower(), "type": "pure-token", "display_text": word.lower(), "token": word}
            for word in argument.type.words
        ]
        return {**_flagged({"name": argument.name, "type": "oneof"}, optional, multiple), "arguments": words}
    if isinstance(argument, Positional) and argument.alternative:
        kinds: list[Value] = [
            {"name": kind, "type": argument.type.docs_type, "display_text": kind}
            for kind in (argument.name, argument.alternative)
        ]
        return {**_flagged({"name": argument.name, "type": "oneof"}, optional, multiple), "arguments": kinds}
    doc: Doc = {"name": argument.name, "type": argument.type.docs_type, "display_text": argument.name}
    if argument.type is QUEUE and not isinstance(argument, OptionValue):
        doc["key_spec_index"] = 0
    return _flagged(doc, optional, multiple)


def _optional_positionals(arguments: Sequence[Positional], together: bool) -> Doc:
    """``[a b c]``, or ``[a [b [c]]]``: a block within a block."""
    first = arguments[0]
    if len(arguments) == 1:
        return _leaf(first, optional=True)
    inner: list[Value]
    if together:
        inner = [_leaf(argument) for argument in arguments]
    else:
        inner = [_leaf(first), _optional_positionals(arguments[1:], together)]
    return {**_flagged({"name": f"{first.name}-block", "type": "block"}, optional=True), "arguments": inner}


def _option_or_choice(argument: Option | OneOf, command: Command) -> Doc:
    if isinstance(argument, Option):
        return _option(argument, command, optional=True)
    inner: list[Value] = [_option(option, command, optional=False) for option in argument.options]
    return {**_flagged({"name": argument.name, "type": "oneof"}, optional=True), "arguments": inner}


def _option(option: Option, command: Command, optional: bool) -> Doc:
    values = option.values
    simple = len(values) < 2 and not option.most and not (values and values[0].type.words)
    if simple and not option.nested:
        return _flagged(_token(option, command), optional)
    inner: list[Value]
    doc: Doc = {"name": option.name, "type": "block"}
    if simple:  # the word belongs to the value: "DEDUP key [WINDOW ...]"
        inner = [_token(option, command)]
    else:
        doc["token"] = option.token
        inner = [*_groups(option)]
    inner += [_option_or_choice(nested, command) for nested in option.nested]
    return {**_flagged(doc, optional), "arguments": inner}


def _groups(option: Option) -> list[Doc]:
    if not option.most:
        return [_leaf(value) for value in option.values]
    number: Doc = {"name": "n", "type": "integer", "display_text": "n"}
    if len(option.values) == 1:
        return [number, _leaf(option.values[0], multiple=True)]
    group: list[Value] = [_leaf(value) for value in option.values]
    return [number, {**_flagged({"name": "data", "type": "block"}, False, multiple=True), "arguments": group}]


def _token(option: Option, command: Command) -> Doc:
    """A flag, or a word with one value."""
    if not option.values:
        word = option.token.lower()
        return {"name": word, "type": "pure-token", "display_text": word, "token": option.token}
    value = option.values[0]
    doc: Doc = {"name": value.name, "type": value.type.docs_type, "display_text": value.name}
    if value.type is QUEUE:
        doc["key_spec_index"] = 1 + options_naming_queues(command).index(option)
    doc["token"] = option.token
    return doc
