"""Cuts a client's byte stream into request frames exactly where Valkey would, keeping the raw bytes.

What decides where one request ends and the next begins lives here (and, for replies, in ``replies.py``); ``fastpath``,
``relay`` and ``foreign`` only take whole requests in plain form before it.
It knows nothing of sessions, lanes or which commands exist; it is told by ``is_whole`` which commands it must
deliver in one piece.  Frames of all other commands that grow large are passed on in pieces as they arrive, so that
a 512 MB SET never lies in the daemon's memory.

Rules followed (Valkey's ``networking.c``): a request that starts with ``*`` is a multibulk, anything else is an
inline command up to LF; lengths are plain decimals without plus or leading zeros; CRLF follows them and bulks.  At the
first violation the stream is ``BROKEN``: the bytes from there on are for Valkey itself to answer and to close.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

import hiredis

from valqd.protocol.inline import split_inline
from valqd.protocol.whole import MAX_CHUNK_BYTES, may_be_huge, parse

#: A line (an inline command, or a length) that is longer is an error in Valkey: PROTO_INLINE_MAX_SIZE.
MAX_LINE_BYTES = 64 * 1024
#: A frame of a command that need not be whole is passed on in pieces beyond this many bytes.
STREAM_THRESHOLD_BYTES = 32 * 1024
#: Valkey's default ``proto-max-bulk-len``; a longer argument of one of our commands is a protocol error.
MAX_BULK_BYTES = 512 * 1024 * 1024
#: Requests of ours with more arguments are dropped, like those that are too large.
MAX_ARGUMENTS = 1024 * 1024
#: What may come with a body of the largest size.
_OVERHEAD_BYTES = 64 * 1024
#: So much is shown by ``peek``: more than is taken of one client at once.
_MOST_SEEN_BYTES = 128 * 1024

#: Breaks the protocol, and holds nothing to be run: in place of a broken request whose head went elsewhere.
BROKEN_REQUEST = b"*1\r\n!\r\n"
#: What Valkey takes of a client that has yet to authenticate.
_UNAUTHENTICATED_ARGUMENTS = 10
_UNAUTHENTICATED_BULK_BYTES = 16 * 1024
_INT_MAX = 2**31 - 1
_EMPTY_LINES = re.compile(rb"(?:\r?\n|\*0\r\n){1,1000}")  # not more: ``re`` remembers each
_DECIMAL = re.compile(rb"(?:0|-?[1-9][0-9]*)\Z")
#: Most lengths are small: to look them up takes a fifth of the time of reading them.  Each is within every bound.
_SMALL = {b"%d" % value: value for value in range(1024)}


class Kind(Enum):
    """What ``RequestFramer.next`` found."""

    COMMAND = auto()  #: a whole request: ``raw`` and ``argv``
    STREAM = auto()  #: a piece of a large request: ``raw``; the first piece carries ``argv`` = [name]
    STREAM_END = auto()  #: its last piece
    #: A whole-only request that is too large, and was dropped; ``argv`` holds what came before that was seen.
    OVERSIZED = auto()
    BROKEN = auto()  #: a protocol error: ``raw`` is everything not yet taken, and so is every later frame


class Frame(NamedTuple):
    """One cut of the stream; ``raw`` holds the very bytes received (of a whole-only command none: argv is enough)."""

    kind: Kind
    raw: bytes
    argv: list[bytes]


_COMMAND, _STREAM, _STREAM_END, _OVERSIZED, _BROKEN = Kind  # found five times as fast as by way of their class


class _ProtocolError(Exception):
    """The bytes at _pos break the protocol."""


class RequestFramer:
    """Incremental framer for one client.

    ``is_whole(name)`` says whether a command (its first argument, any case) must be delivered in one piece; those that
    are larger than a body of ``max_body_bytes`` makes them are dropped and reported as OVERSIZED.  The buffer is
    bounded by the largest whole command, and by ``STREAM_THRESHOLD_BYTES`` plus one read for all others.
    """

    def __init__(self, is_whole: Callable[[bytes], bool], max_body_bytes: int) -> None:
        self._is_whole = is_whole
        self._most_bytes = max_body_bytes + _OVERHEAD_BYTES
        self._buf = b""
        self._pos = 0  # parsing position; bytes before _start are consumed
        self._start = 0  # where the current frame begins
        self._pending: list[bytes] = []  # received but not yet joined to _buf
        self._pending_bytes = 0
        self._is_fresh = False  # bytes came since ``next`` tried last to cut all at once
        self._vain_bytes = 0  # how many were buffered when nothing of them could be taken whole
        self._need = 0  # bytes of _buf + _pending below which nothing new can be found
        # COMMAND while arguments are collected, STREAM or OVERSIZED while the rest is skipped over, BROKEN for good.
        self._kind: Kind | None = None  # what the multibulk under way is, so far as is known; None: between requests
        self._argv: list[bytes] = []  # its arguments so far, unless they were passed on
        self._must_be_whole = False  # its name is known, and ``is_whole`` says so of it
        self._args_left = 0  # its arguments still to come
        self._bulk_left = 0  # bytes of its current bulk (with CRLF) still to come, if it is streamed or dropped
        self._dropped = 0  # its bytes that were let go of, and not passed on
        self._cut: deque[tuple[bytes, list[bytes]]] = deque()  # requests that were cut at once, not in _buf any more
        self._cut_bytes = 0
        self.unauthenticated = False  #: more than Valkey takes of such a client is a protocol error
        self.empty = True  #: between frames with nothing buffered: the next byte received starts a request

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and not yet delivered as frames."""
        return self._cut_bytes + len(self._buf) - self._start + self._pending_bytes

    def feed(self, data: bytes) -> None:
        """Take bytes from the client; parses nothing."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._is_fresh = True
        self.empty = False

    def drop(self) -> None:
        """Let go of all bytes: nobody takes frames any more."""
        self._buf = b""
        self._pending = []
        self._cut.clear()
        self._argv = []
        self._pending_bytes = self._cut_bytes = self._start = self._pos = 0

    def peek(self) -> bytes:
        """What waits between two frames, or the beginning of it; none when a frame has begun, or was cut already."""
        if self._cut or self._kind is not None:
            return b""
        if not self._is_fresh and 2 * (len(self._buf) - self._start) > self._vain_bytes > 0:
            return b""  # to look at it again for each frame would take a time that grows with its square
        if self._pending:
            self._join()
        return self._buf[self._start : self._start + _MOST_SEEN_BYTES]

    def peeked_in_vain(self) -> None:
        """Nothing of what ``peek`` returned was taken: it returns nothing until most of that is gone, or more comes."""
        self._vain_bytes = len(self._buf) - self._start

    def take(self, count: int) -> None:
        """So many of the bytes that ``peek`` returned were taken."""
        self._start = self._pos = self._start + count
        if self._start == len(self._buf):
            self._buf = b""
            self._start = self._pos = 0
            self.empty = True

    def next(self) -> Frame | None:
        """The next frame, or None until more bytes come."""
        if self._cut:
            return self._next_cut()
        available = len(self._buf) + self._pending_bytes
        if available < self._need:
            return None
        if available == self._start:
            self._buf = b""  # lets go of the frames delivered
            self._start = self._pos = self._need = 0
            self.empty = self._kind is None
            return None
        if self._is_fresh:
            self._is_fresh = False
            self._join()
            if self._cut_at_once():
                return self._next_cut()
        try:
            if self._kind is None:
                return self._begin()
            if self._kind is _COMMAND:
                return self._collect()
            if self._kind is not _BROKEN:
                return self._skip()
        except _ProtocolError:
            pass
        return self._break()

    def _join(self) -> None:
        rest = self._buf[self._start :] if self._start else self._buf
        self._buf = b"".join([rest, *self._pending]) if rest or len(self._pending) > 1 else self._pending[0]
        self._pending = []
        self._pos -= self._start
        self._start = self._pending_bytes = self._need = 0

    def _cut_at_once(self) -> bool:
        """Cut what is buffered if it is nothing but small whole requests, written as clients do; hiredis is fast."""
        data = self._buf
        if len(data) > MAX_CHUNK_BYTES or data[:1] != b"*" or data[-2:] != b"\r\n":
            return False
        if self._kind is not None or self.unauthenticated or may_be_huge(data):
            return False
        requests = parse(data)
        if requests is None or not all(requests):
            return False
        try:
            raws = [hiredis.pack_command(tuple(argv)) for argv in requests]
        except TypeError:  # there are other values than strings
            return False
        if b"".join(raws) != data:
            return False
        self._cut.extend(zip(raws, requests, strict=True))
        self._cut_bytes = len(data)
        self._buf = b""
        return True

    def _next_cut(self) -> Frame:
        raw, argv = self._cut.popleft()
        self._cut_bytes -= len(raw)
        return Frame(_COMMAND, b"" if self._is_whole(argv[0]) else raw, argv)

    def _break(self) -> Frame:
        """The stream is broken: all that is there."""
        # Without the head of a request, its rest could be read as commands.
        raw = BROKEN_REQUEST if self._dropped else self._buf[self._start :]
        if self._kind is _COMMAND:
            self._dropped = 0
        self._kind = _BROKEN
        self._buf = b""
        self._start = self._pos = self._need = 0
        return Frame(_BROKEN, raw, [])

    def _begin(self) -> Frame | None:
        """Pass over what is no request and has no reply; the frame that begins behind it."""
        while self._pos < len(self._buf):
            if empty := _EMPTY_LINES.match(self._buf, self._pos):
                self._start = self._pos = empty.end()
            elif self._buf[self._pos] != 0x2A:
                frame = self._inline()
                if frame is None or frame.argv:  # a line of blanks is passed over
                    return frame
            else:
                count = self._length(_INT_MAX)
                if count is None:
                    return None
                if self.unauthenticated and count > _UNAUTHENTICATED_ARGUMENTS:
                    raise _ProtocolError
                if count > 0:
                    self._kind = _COMMAND
                    self._args_left = count
                    return self._collect()
                self._start = self._pos  # "*0" and "*-1"
        return None

    def _inline(self) -> Frame | None:
        end = self._buf.find(b"\n", self._pos)
        if end < 0 and len(self._buf) - self._pos <= MAX_LINE_BYTES:
            return None
        line = self._buf[self._pos : end].removesuffix(b"\r")
        argv = split_inline(line) if end >= 0 and len(line) <= MAX_LINE_BYTES else None
        if argv is None or b"\0" in line:  # Valkey looks for the end of the line no further than a NUL
            raise _ProtocolError
        raw = self._buf[self._start : end + 1]
        self._start = self._pos = end + 1
        return Frame(_COMMAND, raw, argv)

    def _length(self, most: int, least: int = -(2**63)) -> int | None:
        """The number of a ``*n`` or ``$n`` line at _pos, which moves past it; None while it is incomplete."""
        end = self._buf.find(b"\r", self._pos, self._pos + MAX_LINE_BYTES)
        if end + 1 >= len(self._buf) or (end < 0 and len(self._buf) - self._pos <= MAX_LINE_BYTES):
            return None
        digits = self._buf[self._pos + 1 : end]  # of a line that is too long, too many
        value = _SMALL.get(digits)
        if value is None and len(digits) <= 20 and _DECIMAL.match(digits) and least <= int(digits) <= most:
            value = int(digits)
        if value is None or self._buf[end + 1] != 0x0A:  # Valkey 9.1 refuses other than LF, earlier ones do not look
            self._let_go()
            raise _ProtocolError
        self._pos = end + 2
        return value

    def _bulk_length(self) -> int | None:
        """How long the bulk at _pos is, which moves past its ``$n`` line; None while that is incomplete."""
        if self._pos < len(self._buf) and self._buf[self._pos] != 0x24:
            raise _ProtocolError
        length = self._length(MAX_BULK_BYTES if self._must_be_whole else 2**63, least=0)
        if length is not None and self.unauthenticated and length > _UNAUTHENTICATED_BULK_BYTES:
            raise _ProtocolError
        return length

    def _collect(self) -> Frame | None:
        """Take arguments until the request is whole, or is seen to be too large for that."""
        buf, size, argv = self._buf, len(self._buf), self._argv
        while self._args_left:
            before = self._pos
            length = self._bulk_length()
            if length is None:
                return self._wait_for(size + 1)
            if not argv and length > MAX_LINE_BYTES:  # Valkey may wait for such a name
                raise _ProtocolError
            request_bytes = self._dropped + self._pos - self._start + length  # an MPUSH is bounded as one body is
            if self._must_be_whole and (request_bytes > self._most_bytes or len(argv) >= MAX_ARGUMENTS):
                self._kind = _OVERSIZED
                self._let_go()
                self._bulk_left = length + 2
                return self._skip()
            end = self._pos + length
            if end + 2 > size:
                self._pos = before
                return self._wait_for(end + 2)
            if buf[end : end + 2] != b"\r\n":  # Valkey 9.1 refuses it, earlier ones do not look
                raise _ProtocolError
            argv.append(buf[self._pos : end])
            if len(argv) == 1:
                self._must_be_whole = self._is_whole(argv[0])
            self._pos = end + 2
            self._args_left -= 1
        return self._finish(_COMMAND)

    def _wait_for(self, need: int) -> Frame | None:
        """Go on collecting when _buf has so many bytes; or stream the request if it is large and need not be whole."""
        self._let_go()
        if self._argv and not self._must_be_whole and need - self._start > STREAM_THRESHOLD_BYTES:
            self._kind = _STREAM
            del self._argv[1:]
            return self._skip()  # with what is there of a bulk whose length is known
        self._need = need
        return None

    def _let_go(self) -> None:
        """Of a request that must be whole, let go of bytes that are in _argv: else each feed would copy them all."""
        if self._must_be_whole and (self._pos - self._start > MAX_LINE_BYTES or self._kind is _OVERSIZED):
            self._dropped += self._pos - self._start
            self._start = self._pos

    def _skip(self) -> Frame | None:
        """Pass over arguments, of which only lengths are looked at, as far as bytes are there."""
        while self._args_left:
            if not self._bulk_left:
                length = self._bulk_length()
                if length is None:
                    return self._piece()
                self._bulk_left = length + 2
            step = min(self._bulk_left, len(self._buf) - self._pos)
            self._pos += step
            self._bulk_left -= step
            if self._bulk_left:
                return self._piece()
            self._args_left -= 1
        return self._finish(_STREAM_END if self._kind is _STREAM else _OVERSIZED)

    def _piece(self) -> Frame | None:
        """All that was passed over of a STREAM; of an OVERSIZED it is dropped."""
        raw = self._buf[self._start : self._pos]
        self._start = self._pos
        if not raw or self._must_be_whole:
            return None
        argv, self._argv = self._argv, []
        return Frame(_STREAM, raw, argv)

    def _finish(self, kind: Kind) -> Frame:
        argv, self._argv = self._argv, []
        raw = b"" if self._must_be_whole else self._buf[self._start : self._pos]  # only what passes on is copied
        self._start = self._pos
        if self._start > MAX_LINE_BYTES and 2 * self._start > len(self._buf):
            self._buf = self._buf[self._start :]  # a large body must not stay here while what follows it waits
            self._start = self._pos = 0
        self._kind = None
        self._must_be_whole = False
        self._dropped = 0
        return Frame(kind, raw, argv)
