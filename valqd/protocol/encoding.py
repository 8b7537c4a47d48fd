"""Values to RESP2 or RESP3 bytes, for what the daemon puts together itself.

Replies are HELP, COMMAND, HELLO, errors, and what the steps of one command add up to (LIST, PURGE ...).  Messages are
encoded by the functions in Valkey and never pass through here.  Must not know what the values mean.
"""

from __future__ import annotations

from collections.abc import Mapping

from valqd.commands.reply_values import Set, Status, Value
from valqd.errors import CommandError

#: By protocol version.
NULL = {2: b"$-1\r\n", 3: b"_\r\n"}


def bulk(value: bytes) -> bytes:
    """A bulk string: what a request's arguments are, too."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def encode(value: Value, resp: int) -> bytes:
    """The reply bytes of ``value`` for protocol version ``resp`` (2 or 3).

    bytes and str are bulk strings (str as UTF-8), ``Status`` a simple string, list and tuple an array, dict a map,
    ``CommandError`` an error.  Raises TypeError for anything else.
    """
    out: list[bytes] = []
    _append(out, value, resp)
    return b"".join(out)


def _append(out: list[bytes], value: Value, resp: int) -> None:
    if isinstance(value, bytes):
        out.append(bulk(value))
    elif isinstance(value, Status):
        if "\r" in value or "\n" in value:
            raise ValueError("a simple string holds a line break")
        out.append(b"+%b\r\n" % value.encode())
    elif isinstance(value, str):
        _append(out, value.encode(), resp)
    elif isinstance(value, int):
        out.append(b":%d\r\n" % value)
    elif value is None:
        out.append(NULL[resp])
    elif isinstance(value, CommandError):
        out.append(value.resp())
    elif isinstance(value, Mapping):
        out.append(b"%%%d\r\n" % len(value) if resp == 3 else b"*%d\r\n" % (2 * len(value)))
        for key, item in value.items():
            _append(out, key, resp)
            _append(out, item, resp)
    elif isinstance(value, list | tuple):
        out.append((b"~%d\r\n" if resp == 3 and isinstance(value, Set) else b"*%d\r\n") % len(value))
        for item in value:
            _append(out, item, resp)
    else:
        raise TypeError(f"no RESP form for {type(value).__name__}")
