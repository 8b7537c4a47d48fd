"""What a client still expects from its private lane, and what happens to each reply on its way to the client.

Bytes of the backend pass to the client untouched.  This module only counts whole replies, so that the session knows
when the lane is quiet, and cuts out the few that the daemon asked for itself (swallowed), wants to see (watched),
completes (``COMMAND`` with the names of our own commands) or must ask for again (a VALQ call that found no library).

    expected:  [3 plain] [watched: SELECT] [12 plain] [swallowed: fence]      oldest first; replies come in this order

A lane whose replies no longer match requests one to one (Pub/Sub, MONITOR) is ``uncounted``: all bytes pass, nothing is
expected, until a reply comes that is one of the markers.  Bounds: one entry a run of plain requests or a special reply,
_MAX_EXPECTED of them (and what one frame adds); a special reply is held until it is whole; what follows a repeated call
is held until its reply is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import copy

from hiredis import PushNotification

from valqd.protocol.replies import ReplyScanner
from valqd.protocol.whole import parse


class Gap:
    """A gap in the client's output: what comes behind it waits until the reply that belongs there has come, again."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data: bytes | None = None


#: Takes one whole raw reply; returns what the client gets instead (b"" for nothing), or the gap that it leaves.
ReplyFilter = Callable[[bytes], "bytes | Gap"]

#: Entries of special replies and of runs of plain ones beyond which the client's next commands wait.
_MAX_EXPECTED = 1024

#: Chunks up to this size are counted by hiredis, which is fast but builds every value; larger ones by the scanner.
_SMALL_CHUNK_BYTES = 16 * 1024


class PrivateReplies:
    """The expected replies of one private lane."""

    def __init__(self) -> None:
        self._expected: deque[int | ReplyFilter] = deque()  # an int: so many plain ones
        self.outstanding = 0  # replies still to come
        self.asked = 0  # replies expected since the beginning
        self._own = 0  # of those still to come, how many the daemon asked for itself
        self.uncounted = False  #: replies do not match requests
        self.raw = False  #: a replication stream: not even replies can be told apart
        #: how replies begin of which the next is not the client's, and whether they end the uncounted mode
        self._markers: dict[bytes, bool] = {}
        self._behind_one = False  # before the marker comes one reply that looks like it and is the client's
        self._scanner = ReplyScanner()
        self._cut_bytes = 0  # of what was passed on, how many belong to a reply that is not whole yet
        self._held = bytearray()  # the start of a special reply, or of what may be a marker
        self._output: deque[bytes | Gap] = deque()  # what waits: a gap and all behind it

    def scanner(self) -> ReplyScanner:
        """Another scanner that has got as far."""
        return copy(self._scanner)

    def expect(self, count: int) -> None:
        """``count`` plain replies will come."""
        self.outstanding += count
        self.asked += count
        if self._expected and isinstance(self._expected[-1], int):
            self._expected[-1] += count
        else:
            self._expected.append(count)

    def expect_special(self, reply_filter: ReplyFilter) -> None:
        """One reply will come that goes through ``reply_filter``."""
        self.outstanding += 1
        self.asked += 1
        self._expected.append(reply_filter)

    def expect_own(self, reply_filter: ReplyFilter) -> None:
        """One reply will come that the daemon asked for itself."""
        self._own += 1

        def own(raw: bytes) -> bytes | Gap:
            self._own -= 1
            return reply_filter(raw)

        self.expect_special(own)

    def expect_until(self, starts: tuple[bytes, ...]) -> None:
        """A reply will come that begins like one of these, which the daemon asked for; maybe others before it."""

        def own(raw: bytes) -> bytes:
            if raw.startswith(starts):
                self._own -= 1
                return b""
            self.outstanding += 1
            self._expected.appendleft(own)
            return raw

        self._own += 1
        self.expect_special(own)

    @property
    def answered(self) -> int:
        """Replies that have come since the beginning."""
        return self.asked - self.outstanding

    @property
    def owed(self) -> int:
        """Replies still to come that the client waits for."""
        return self.outstanding - self._own

    def leave_gap(self) -> Gap:
        """For a filter: the reply that has come does not count, its call is to be repeated.  It stays outstanding."""
        self.outstanding += 1
        return Gap()

    def expect_again(self, gap: Gap, shape: Callable[[bytes], bytes]) -> None:
        """The call was repeated: its reply comes after all expected by now, and fills, shaped, the ``gap``."""

        def fill(raw: bytes) -> bytes:
            gap.data = shape(raw)
            return b""

        self.outstanding -= 1  # as a reply of its own it is counted from here on
        self.expect_special(fill)

    def fill(self, gap: Gap, data: bytes) -> None:
        """The call cannot be repeated: ``data`` is its reply.  The next ``feed`` returns it."""
        self.outstanding -= 1
        gap.data = data

    def stop_counting(self) -> None:
        """From here on replies do not match requests.  Nothing may be outstanding."""
        self.uncounted = True
        self.outstanding = self._own = 0
        self._expected.clear()

    def await_marker(self, *, ends: bytes, goes_on: bytes, behind_one: bool = False) -> None:
        """While uncounted: the next reply that begins in either way is not the client's; one ends this mode.

        ``behind_one``: a reply that goes on is the client's, and the next one is not.
        """
        self._markers = {ends: True, goes_on: False}
        self._behind_one = behind_one

    @property
    def has_many(self) -> bool:
        """Whether so many are due that the client has to wait."""
        return len(self._expected) > _MAX_EXPECTED

    @property
    def at_boundary(self) -> bool:
        """Whether the bytes passed so far end with a whole reply, and none is being asked for again."""
        return self._scanner.at_boundary and not self._output

    def whole_bytes(self, passed_on: int) -> int:
        """Of the last ``passed_on`` bytes that were passed on, how many end with a whole reply."""
        if self._output:
            return 0
        return max(0, passed_on - self._cut_bytes)

    @property
    def awaits_marker(self) -> bool:
        """Whether a marker is still to come."""
        return bool(self._markers)

    def feed(self, data: bytes) -> bytes:
        """Bytes from the backend; what the client gets of them, for now."""
        if self.raw:
            return data
        if self.at_boundary and len(data) <= _SMALL_CHUNK_BYTES:
            expected = self._expected
            if len(expected) == 1 and isinstance(expected[0], int):
                count = self._count_small(data, expected[0])
                if 0 <= count <= expected[0]:
                    self.outstanding -= count
                    if count == expected[0]:
                        expected.clear()
                    else:
                        expected[0] -= count
                    return data
            elif self.uncounted and not self._markers and self._count_small(data, 1) >= 0:
                return data
        self._output += self._cut(data)
        return self._filled()

    def _filled(self) -> bytes:
        """The output up to the first gap that is not filled."""
        out: list[bytes] = []
        while self._output:
            head = self._output[0]
            part = head.data if isinstance(head, Gap) else head
            if part is None:
                break
            out.append(part)
            self._output.popleft()
        return b"".join(out)

    def _count_small(self, data: bytes, likely: int) -> int:
        """Replies in ``data`` (pushes are none), or -1 when it does not end with a whole one."""
        if b"|" in data and (data[0] == 0x7C or b"\n|" in data):  # hiredis takes an attribute for a reply
            return -1
        replies = parse(data, likely)
        if replies is None:
            return -1
        pushes = sum([type(reply) is PushNotification for reply in replies]) if b">" in data else 0
        return len(replies) - pushes

    def _cut(self, data: bytes) -> list[bytes | Gap]:
        """What the client gets of ``data``, taken apart at the replies that are not plain."""
        out: list[bytes | Gap] = []
        start = end_before = 0
        is_rest = not (self._scanner.at_boundary or self._held)  # of a reply whose start was passed on: no marker
        for end in self._scanner.feed(data):
            end_before = end.offset
            if self.uncounted:
                raw = self._take_held(data[start : end.offset])
                start = end.offset
                if is_rest or not self._takes_as_marker(raw):
                    out.append(raw)
                is_rest = False
                continue
            if end.is_push or not self._expected:  # or an error that the backend sends before it closes
                if self._special_is_next():
                    out.append(self._take_held(data[start : end.offset]))
                    start = end.offset
                continue
            self.outstanding -= 1
            head = self._expected[0]
            if isinstance(head, int):
                if head > 1:
                    self._expected[0] = head - 1
                    continue
                self._expected.popleft()
                if self._special_is_next():
                    out.append(data[start : end.offset])
                    start = end.offset
                continue
            self._expected.popleft()
            raw = self._take_held(data[start : end.offset])
            start = end.offset
            out.append(head(raw))
        rest = data[start:]
        if rest and (self._special_is_next() or (self.uncounted and not is_rest and self._may_be_marker(rest))):
            self._held += rest
            self._cut_bytes = 0
        elif rest:
            self._cut_bytes = len(data) - end_before + (0 if end_before else self._cut_bytes + len(self._held))
            out.append(self._take_held(rest))
        elif data:
            self._cut_bytes = 0
        return out

    def _takes_as_marker(self, reply: bytes) -> bool:
        """Whether ``reply`` is the marker awaited, not the client's; it tells whether replies match requests again."""
        ends = next((ends for marker, ends in self._markers.items() if reply.startswith(marker)), None)
        if ends is None:
            return False
        if self._behind_one and not ends:
            self._behind_one = False
            return False
        self._markers.clear()
        self.uncounted = not ends
        return True

    def _take_held(self, rest: bytes) -> bytes:
        if not self._held:
            return rest
        self._held += rest
        whole = bytes(self._held)
        self._held.clear()
        return whole

    def _special_is_next(self) -> bool:
        return bool(self._expected) and not isinstance(self._expected[0], int)

    def _may_be_marker(self, rest: bytes) -> bool:
        start = bytes(self._held) + rest
        return any(marker.startswith(start[: len(marker)]) for marker in self._markers)
