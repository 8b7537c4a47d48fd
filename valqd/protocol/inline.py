"""Inline commands: a line of words, as a person types it into a terminal."""

from __future__ import annotations

import re


def split_inline(line: bytes) -> list[bytes] | None:
    r"""Split an inline command into arguments as Valkey's ``sdssplitargs`` does.

    Double quotes take ``\n \r \t \b \a \xHH`` escapes, single quotes only ``\'``; a closing quote must be followed by
    white space or the end.  Returns None for unbalanced quotes.
    """
    space = b" \t\n\r\v\f\0"
    ends = b" \t\n\r\0"  # of a word without quotes
    escapes = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
    args: list[bytes] = []
    pos, end = 0, len(line)
    while True:
        while pos < end and line[pos] in space:
            pos += 1
        if pos >= end:
            return args
        current = bytearray()
        quote = 0
        while True:
            if pos >= end:
                if quote:
                    return None
                break
            char = line[pos]
            if quote == 0x22 and char == 0x5C and pos + 1 < end:  # backslash inside double quotes
                if line[pos + 1] == 0x78 and re.match(rb"[0-9a-fA-F]{2}", line[pos + 2 : pos + 4]):
                    current.append(int(line[pos + 2 : pos + 4], 16))
                    pos += 4
                    continue
                current.append(escapes.get(line[pos + 1], line[pos + 1]))
                pos += 2
                continue
            if quote == 0x27 and line[pos : pos + 2] == b"\\'":
                current.append(0x27)
                pos += 2
                continue
            if quote and char == quote:
                if pos + 1 < end and line[pos + 1] not in space:
                    return None
                pos += 1
                break
            if not quote and char in (0x22, 0x27):
                quote = char
            elif not quote and char in ends:
                break
            else:
                current.append(char)
            pos += 1
        args.append(bytes(current))
