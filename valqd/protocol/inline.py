"""Inline commands: a line of words, as a person types it into a terminal."""

from __future__ import annotations

import re

_SPACE = b" \t\n\r\v\f\0"
#: What ends a word outside quotes.
_ENDS = b" \t\n\r\0"
_DOUBLE, _SINGLE, _BACKSLASH = b"\"'\\"
_ESCAPES = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
_HEX = re.compile(rb"x([0-9a-fA-F]{2})")


def split_inline(line: bytes) -> list[bytes] | None:
    """Split an inline command into arguments as Valkey 9.1's ``sdssplitargs`` does; None for unbalanced quotes.

    An earlier Valkey takes some of these lines for protocol errors; it says so when they reach it.
    """
    args: list[bytes] = []
    pos = 0
    while True:
        while pos < len(line) and line[pos] in _SPACE:
            pos += 1
        if pos >= len(line):
            return args
        found = _word(line, pos)
        if found is None:
            return None
        word, pos = found
        args.append(word)


def _word(line: bytes, pos: int) -> tuple[bytes, int] | None:
    r"""The word that begins at ``pos``, and where it ends; None for unbalanced quotes.

    Quotes may begin and end within it.  Double ones take ``\n \r \t \b \a \xHH`` escapes, single ones only ``\'``;
    an escape with nothing behind it is none, as no quote could close then.
    """
    word = bytearray()
    quote = 0
    end = len(line)
    while pos < end:
        char = line[pos]
        if quote == _DOUBLE and char == _BACKSLASH and pos + 2 < end:
            escaped = _HEX.match(line, pos + 1) if pos + 4 < end else None
            word.append(int(escaped[1], 16) if escaped else _ESCAPES.get(line[pos + 1], line[pos + 1]))
            pos += 4 if escaped else 2
            continue
        if quote == _SINGLE and line.startswith(b"\\'", pos) and pos + 2 < end:
            word.append(_SINGLE)
            pos += 2
            continue
        if quote and char == quote:
            quote = 0
        elif not quote and char in (_DOUBLE, _SINGLE):
            quote = char
        elif not quote and char in _ENDS:
            break
        else:
            word.append(char)
        pos += 1
    return None if quote else (bytes(word), pos)
