"""What the daemon sends for itself is spelled ``sELECT``, so that a client's MONITOR can leave it out.

Valkey takes a command's name in any case, and MONITOR shows it as it was sent: so the requests of any daemon's control
connection, and those that bring a new lane into its client's state, are told from what clients send, by every daemon.
Calls made for clients (PUSH as FCALL) are shown.
"""

from __future__ import annotations

import re

from valqd.protocol.replies import ReplyScanner

_OWN = re.compile(rb'\+[\d.]+ \[\d+ [^"]+\] "[a-z][A-Z_]+"')
_BY_FUNCTION = re.compile(rb"\+[\d.]+ \[\d+ lua\] ")
#: By then a line has told whether it is to be left out; the addresses of unix sockets are paths.
_MAX_HEAD_BYTES = 256


class MonitorFilter:
    """Takes the daemons' own lines, and those of the functions that they call, out of what MONITOR brings.

    Lines are replies of their own: what looks like one inside a value or a message is none.  Bound: the head of a line,
    until it is clear whether it stays.
    """

    def __init__(self, scanner: ReplyScanner) -> None:
        """``scanner``: knows how far what came before has got."""
        self.was_refused = False  #: MONITOR was
        self._scanner = scanner
        self._is_answered = False  # MONITOR is: a push may come before
        self._head = b""  # the start of a line, too short to tell whether it stays
        self._inside = not scanner.at_boundary  # in the rest of a reply whose start has told
        self._drops = False  # what it told
        self._drops_functions = False  # the last call was a daemon's own, and so are the lines of its function

    def feed(self, data: bytes) -> bytes:
        """Bytes of the backend; those that the client gets."""
        out: list[bytes] = []
        start = 0
        for end in self._scanner.feed(data):
            self._take(data[start : end.offset], out)
            self._inside = False
            start = end.offset
        if rest := data[start:]:
            head = self._head + rest
            if head[:1] == b"+" and len(head) <= _MAX_HEAD_BYTES and not self._inside:
                self._head = head
            else:
                self._take(rest, out)
                self._inside = True
        return b"".join(out)

    def end(self) -> bytes:
        """What was kept back."""
        head, self._head = self._head, b""
        return head

    def _take(self, piece: bytes, out: list[bytes]) -> None:
        piece, self._head = self._head + piece, b""
        if not self._inside:
            if not self._is_answered and piece[:1] != b">":
                self._is_answered = True
                self.was_refused = piece[:1] == b"-"
            if _BY_FUNCTION.match(piece):
                self._drops = self._drops_functions
            else:
                self._drops = self._drops_functions = _OWN.match(piece) is not None
        if not self._drops:
            out.append(piece)
