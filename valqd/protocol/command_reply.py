"""Completes Valkey's replies to COMMAND with the daemon's own commands, without touching the rest of their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from valqd.commands import introspection
from valqd.protocol.encoding import encode
from valqd.protocol.replies import split_elements


def _with_count(raw: bytes, added: int, elements: Sequence[bytes]) -> bytes:
    """The aggregate ``raw`` with ``added`` more entries, whose bytes are ``elements``."""
    head, _, rest = raw.partition(b"\r\n")
    return b"%b%d\r\n%b%b" % (head[:1], int(head[1:]) + added, rest, b"".join(elements))


def complete(argv: list[bytes], raw: bytes, resp: int) -> bytes:
    """Valkey's reply ``raw`` to the COMMAND request ``argv``, with our commands in it.

    Errors and replies that cannot hold our commands come back as they are.
    """
    sub = argv[1].upper() if len(argv) > 1 else b""
    if raw[:1] == b"-":
        return raw
    if sub == b"" or (sub == b"INFO" and len(argv) == 2):
        rows = [encode(row, resp) for row in introspection.command_info_entries()]
        return _with_count(raw, len(rows), rows)
    if sub == b"COUNT" and len(argv) == 2:
        return b":%d\r\n" % (int(raw[1:-2]) + len(introspection.command_info_entries()))
    if sub == b"LIST":
        names = introspection.command_names()
        if len(argv) == 5:
            if argv[2].upper() != b"FILTERBY" or argv[3].upper() != b"PATTERN":
                return raw
            pattern = argv[4].decode("latin-1").lower()
            names = [name for name in names if fnmatchcase(name.decode(), pattern)]
        rows = [encode(name, resp) for name in names]
        return _with_count(raw, len(rows), rows)
    if sub == b"INFO":
        elements = split_elements(raw)
        for at, name in enumerate(argv[2:]):
            if (row := introspection.command_info(name)) is not None:
                elements[at] = encode(row, resp)
        return raw[: raw.index(b"\n") + 1] + b"".join(elements)
    if sub == b"DOCS":
        if len(argv) == 2:
            pairs = introspection.command_docs()
        else:
            pairs = [pair for name in argv[2:] if (pair := introspection.command_doc(name)) is not None]
        added = len(pairs) if raw[:1] == b"%" else 2 * len(pairs)
        return _with_count(raw, added, [encode(name, resp) + encode(doc, resp) for name, doc in pairs])
    return raw
