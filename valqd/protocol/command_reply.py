"""Completes Valkey's replies to COMMAND with the daemon's own commands, without touching the rest of their bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from valqd.commands import introspection, table
from valqd.commands.keys import getkeys, getkeysandflags
from valqd.errors import CommandError
from valqd.protocol.encoding import encode
from valqd.protocol.replies import split_elements
from valqd.protocol.requests import encode_request


def _with_count(raw: bytes, added: int, elements: Sequence[bytes]) -> bytes:
    """The aggregate ``raw`` with ``added`` more entries, whose bytes are ``elements``."""
    head, _, rest = raw.partition(b"\r\n")
    return b"%b%d\r\n%b%b" % (head[:1], int(head[1:]) + added, rest, b"".join(elements))


#: A longer pattern finds none of our commands: to compile it would take time from everybody.
_MAX_PATTERN_BYTES = 64
#: So many rows of ours are in one reply at most: each is about as large as a thousand requests for it.
_MOST_ROWS = 64
_GLOB_PART = re.compile(rb"\*+|\?|\[(\^?)((?:\\.|[^\]\\]-.|[^\]\\])*\\?)\]?|\\?(.)", re.DOTALL)
_CLASS_PART = re.compile(rb"([^\\])-(.)|\\?(.)", re.DOTALL)


def _glob(pattern: bytes) -> re.Pattern[bytes]:
    r"""Valkey's glob-style ``pattern`` in lower case (``*``, ``?``, ``[a-c]``, ``[^a]``, ``\`` before any of these)."""

    def class_part(part: re.Match[bytes]) -> bytes:
        if part[3] is not None:
            return re.escape(part[3])
        return b"%b-%b" % (re.escape(min(part[1], part[2])), re.escape(max(part[1], part[2])))

    def one(part: re.Match[bytes]) -> bytes:
        if part[0][:1] == b"*":
            return b".*"
        if part[0] == b"?":
            return b"."
        if part[3] is not None:
            return re.escape(part[3])
        if not part[2]:
            return b"." if part[1] else b"(?!)"
        return b"[%b%b]" % (part[1], _CLASS_PART.sub(class_part, part[2]))

    return re.compile(_GLOB_PART.sub(one, pattern), re.DOTALL)


def _filtered(names: list[bytes], by: bytes, value: bytes) -> list[bytes]:
    if by == b"ACLCAT":
        return introspection.names_in_category(value)
    if by == b"PATTERN" and len(value) <= _MAX_PATTERN_BYTES:
        matches = _glob(value.lower()).fullmatch
        return [name for name in names if matches(name)]
    return []


# Clients ask for all when they connect, and to encode all takes many milliseconds.


@cache
def _all_info(resp: int) -> list[bytes]:
    return [encode(row, resp) for row in introspection.ENTRIES]


@cache
def _all_docs(resp: int) -> list[bytes]:
    return [encode(name, resp) + encode(doc, resp) for name, doc in introspection.DOCS]


def complete(argv: list[bytes], raw: bytes, resp: int) -> bytes:
    """Valkey's reply ``raw`` to COMMAND, COMMAND COUNT, LIST, INFO or DOCS (``argv``), with our commands in it.

    Errors come back as they are.
    """
    sub = argv[1].upper() if len(argv) > 1 else b""
    if raw[:1] == b"-":
        return raw
    if sub == b"" or (sub == b"INFO" and len(argv) == 2):
        rows = _all_info(resp)
        return _with_count(raw, len(rows), rows)
    if sub == b"COUNT":
        return b":%d\r\n" % (int(raw[1:-2]) + len(introspection.ENTRIES))
    if sub == b"LIST":
        names = introspection.command_names()
        if len(argv) == 5 and argv[2].upper() == b"FILTERBY":
            names = _filtered(names, argv[3].upper(), argv[4])
        rows = [encode(name, resp) for name in names]
        return _with_count(raw, len(rows), rows)
    if sub == b"INFO":
        elements = split_elements(raw)
        ours = [(at, row) for at, name in enumerate(argv[2:]) if (row := introspection.command_info(name)) is not None]
        for at, row in ours[:_MOST_ROWS]:
            elements[at] = encode(row, resp)
        return raw[: raw.index(b"\n") + 1] + b"".join(elements)
    if len(argv) == 2:
        docs = _all_docs(resp)
    else:
        names = list(dict.fromkeys(map(bytes.lower, argv[2:])))  # each once
        pairs = [pair for name in names if (pair := introspection.command_doc(name)) is not None]
        docs = [encode(name, resp) + encode(doc, resp) for name, doc in pairs]
    return _with_count(raw, len(docs) if raw[:1] == b"%" else 2 * len(docs), docs)


def asked_instead(argv: list[bytes], resp: int) -> tuple[bytes, Callable[[bytes], bytes]] | None:
    """For COMMAND about our commands: what is sent instead, and what makes the reply complete."""
    sub = argv[1].upper() if len(argv) > 1 else b""
    if sub in (b"GETKEYS", b"GETKEYSANDFLAGS") and len(argv) > 2 and table.is_ours(argv[2]):
        try:
            keys = getkeys(argv[2:]) if sub == b"GETKEYS" else getkeysandflags(argv[2:])
        except CommandError as error:
            answer = error.resp()
        else:
            answer = encode(keys, resp)
        # Valkey does not know the command: let it count the keys of one that it knows, and answer in its place.
        known = encode_request([b"COMMAND", b"GETKEYS", b"GET", b"k"])
        return known, lambda reply: reply if reply[:1] == b"-" else answer
    if sub in (b"", b"COUNT", b"LIST", b"INFO", b"DOCS"):
        return encode_request(argv), lambda reply: complete(argv, reply, resp)
    return None
