"""Finds where replies end in a backend's byte stream, without building them.

Used where bytes go to clients as they are, on private and relay lanes: the daemon only needs to know how many replies
have gone by and where one stops.  Memory use does not depend on the size of a reply: bulks are skipped, never held.
"""

from __future__ import annotations

from typing import NamedTuple

_BULKS = b"$=!"
#: Longer lines are of scalars (a line of MONITOR holds a whole command), of which only the first byte counts.
_MAX_HEADER_BYTES = 64
_AGGREGATES = {ord("*"): 1, ord("%"): 2, ord("~"): 1, ord(">"): 1, ord("|"): 2}


class ReplyEnd(NamedTuple):
    """One top-level reply ends before ``offset`` in the chunk just fed; a push is not the reply to a request."""

    offset: int
    is_push: bool


class ReplyScanner:
    """Incremental scanner of RESP2 and RESP3 replies.

    Its only buffer is the start of a header line cut by a chunk border.
    """

    def __init__(self) -> None:
        self._line = b""  # the start of a header line whose end has not come yet
        self._bulk_left = 0  # bytes of a bulk (with its CRLF) still to come
        self._elements_left = 0  # elements still to come of the current top-level reply
        self._is_push = False

    @property
    def at_boundary(self) -> bool:
        """True when the bytes fed so far end with a whole reply."""
        return not self._elements_left and not self._bulk_left and not self._line

    def feed(self, data: bytes, most: int = 1 << 62, pos: int = 0) -> list[ReplyEnd]:
        """Move over ``data`` from ``pos`` on; the ends of all top-level replies finished by it, as offsets into it.

        Behind ``most`` of them it stops, and is of no further use.
        """
        ends: list[ReplyEnd] = []
        size = len(data)
        while pos < size and len(ends) < most:
            if self._bulk_left:
                step = min(self._bulk_left, size - pos)
                self._bulk_left -= step
                pos += step
                if self._bulk_left == 0 and self._elements_left == 0:
                    ends.append(ReplyEnd(pos, self._is_push))
                continue
            eol = data.find(b"\n", pos)
            if eol < 0:
                self._line += data[pos : pos + _MAX_HEADER_BYTES - len(self._line)]
                break
            line = self._line + data[pos:eol] if self._line else data[pos:eol]
            self._line = b""
            pos = eol + 1
            self._header(line)
            if self._elements_left == 0 and self._bulk_left == 0:
                ends.append(ReplyEnd(pos, self._is_push))
        return ends

    def _header(self, line: bytes) -> None:
        """Account for one header line (without LF, with CR)."""
        kind = line[0] if line else 0
        if self._elements_left == 0:
            self._elements_left = 1
            self._is_push = kind == 0x3E
        if kind in _AGGREGATES:
            self._elements_left += max(int(line[1:-1]), 0) * _AGGREGATES[kind]
        elif kind in _BULKS and (length := int(line[1:-1])) >= 0:
            self._bulk_left = length + 2
        # else: a scalar, a null, or what Valkey never sends; each is one line
        if kind != 0x7C:  # attributes come before the reply they describe and do not stand for it
            self._elements_left -= 1


def split_elements(reply: bytes) -> list[bytes]:
    """The raw elements of one whole aggregate reply (a map's keys and values in turn)."""
    head = reply.index(b"\n") + 1
    body = reply[head:]
    elements: list[bytes] = []
    start = 0
    for end in ReplyScanner().feed(body):
        elements.append(body[start : end.offset])
        start = end.offset
    return elements
