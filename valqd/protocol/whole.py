"""Parses bytes that are nothing but whole RESP values, fast, by hiredis; anything else is left to the framers.

hiredis keeps the start of a value that is cut, and cannot be asked whether it does: between two elements of an array
its buffer is empty.  So each parse ends with a value of our own, which comes out as itself only if none was cut.
"""

from __future__ import annotations

import re
from typing import Any

import hiredis

#: Larger chunks are left to the framers, which cut them one frame at a time.
MAX_CHUNK_BYTES = 64 * 1024

_NOT_YET = object()
_END = b"#t\r\n"
#: TypeError: a map with keys that Python cannot hash.
_NOT_PARSED = (hiredis.HiredisError, TypeError, MemoryError)
#: For maps alone hiredis makes no room.
_KINDS = [
    (kind, re.compile(rb"\%b\d{3}" % kind), re.compile(rb"\%b(\d{1,20})\r\n" % kind))
    for kind in (b"*", b"~", b">", b"|")
]  # one pattern for all kinds would take ten times as long
_LEAST_ELEMENT_BYTES = 3


def may_be_huge(data: bytes) -> bool:
    """Whether a client's bytes may announce more elements than they hold, for which hiredis would make room.

    It does so for each aggregate, and they can be nested.  Of fewer than 100 elements each they are harmless.
    """
    if not any(kind in data and many.search(data) is not None for kind, many, _ in _KINDS):
        return False
    announced = sum(sum(map(int, count.findall(data))) for kind, _, count in _KINDS if kind in data)
    return _LEAST_ELEMENT_BYTES * announced > len(data)


class WholeParser:
    """A reader for one chunk after another; it remembers nothing of a chunk that was not whole."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)

    def parse(self, data: bytes, likely: int = 0) -> list[Any] | None:
        """All values in ``data``; None when it does not end with a whole one, or holds what hiredis cannot parse.

        ``likely``: how many values there probably are.  A right guess has them built in one step, as one array.
        """
        if likely > 1 and (array := self._parse_array(b"*%d\r\n%b" % (likely, data))) is not None:
            return array
        reader = self._reader
        gets = reader.gets
        values: list[Any] = []
        try:
            reader.feed(data)
            while (value := gets()) is not _NOT_YET:
                values.append(value)
            reader.feed(_END)
            if gets() is True:
                return values
        except _NOT_PARSED:
            pass
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        return None

    def _parse_array(self, data: bytes) -> list[Any] | None:
        reader = self._reader
        gets = reader.gets
        try:
            reader.feed(data)
            values = gets()
            if type(values) is list and gets() is _NOT_YET:
                reader.feed(_END)  # not before: what follows the array may be a client's, and cut
                if gets() is True:
                    return values
        except _NOT_PARSED:
            pass
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        return None


#: For all clients: it remembers nothing of any, and a reader of its own would keep up to 16 KiB for each.
parse = WholeParser().parse
