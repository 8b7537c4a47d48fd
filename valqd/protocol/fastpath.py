r"""Recognises plain PUSH, POP and ACK in a client's bytes without parsing them.

A client repeats itself: ``*3\r\n$9\r\nVALQ.PUSH\r\n$6\r\norders\r\n$`` is the same 33 bytes before every body that it
pushes to ``orders``.  The session parses such a command once, the long way, and teaches its prefix here; from then on a
chunk is compared with known prefixes, and the bulks behind them (``100\r\n<body>\r\n``) go into the merged call as the
very bytes received.  What does not fit exactly (another spelling, a cut frame, a large body) is left to the framer,
which decides alone what Valkey would make of it.

Knows byte layouts only; it must not decide whether a client may use it (order, lanes, transactions: the session's).
"""

from __future__ import annotations

import re
from enum import Enum, auto

from valqd.protocol.calls import MAX_ITEMS, Recipient, Route
from valqd.protocol.coalescer import Coalescer

#: Bodies beyond this take the framer's way, which joins cut frames once.
MAX_BODY_BYTES = 64 * 1024
#: Prefixes remembered; beyond it all are forgotten (they are learned again in one command each).
MAX_TEMPLATES = 10_000
#: Lengths of prefixes tried for one chunk: queues whose names have yet other lengths go the long way.
MAX_LENGTHS = 16
#: Bytes by which a prefix's length is looked up: they tell the commands and the length of the queue's name apart.
_HEAD = 20

_IDS = re.compile(rb"(?:\$[1-9]\d?\r\n[1-9]\d{0,18}(?:-[1-9]\d{0,9})?\r\n)+")


class Kind(Enum):
    """The plain commands that a template can stand for."""

    PUSH = auto()  #: prefix, then one bulk: the body
    POP = auto()  #: the whole request
    ACK = auto()  #: prefix, then one bulk: an id or a receipt


class Template:
    """What a plain command to one queue looks like up to its last argument's ``$``, and where it goes."""

    __slots__ = ("kind", "null", "prefix", "route", "run_argument")

    def __init__(self, kind: Kind, prefix: bytes, route: Route, null: bytes = b"") -> None:
        self.kind = kind
        self.prefix = prefix
        self.route = route
        self.null = null
        self.run_argument = b""  # POP: the bulk that says what each POP of a run asks for


class Templates:
    """All templates of a worker, for one protocol version (a POP's reply differs by it)."""

    def __init__(self) -> None:
        self._by_prefix: dict[bytes, Template] = {}
        self._lengths: dict[bytes, tuple[int, ...]] = {}

    def learn(self, template: Template) -> None:
        """Remember a template; one too short to be told apart is not worth it."""
        prefix = template.prefix
        lengths = self._lengths.get(prefix[:_HEAD], ())
        if len(prefix) < _HEAD or prefix in self._by_prefix:
            return
        if len(lengths) == MAX_LENGTHS and len(prefix) not in lengths:
            return
        if len(self._by_prefix) >= MAX_TEMPLATES:
            self._by_prefix.clear()
            self._lengths.clear()
        self._by_prefix[prefix] = template
        if len(prefix) not in lengths:
            self._lengths[prefix[:_HEAD]] = (*lengths, len(prefix))

    def run(self, data: bytes, who: Recipient, coalescer: Coalescer) -> tuple[int, int]:
        """Join the plain commands at the start of ``data``; (bytes taken, deals made)."""
        size = len(data)
        pos = deals = 0
        while pos < size:
            for length in self._lengths.get(data[pos : pos + _HEAD], ()):
                template = self._by_prefix.get(data[pos : pos + length])
                if template is not None:
                    break
            else:
                break
            if template.kind is Kind.POP:
                end, made = self._pops(data, pos, template, who, coalescer)
            else:
                end, made = self._bulks(data, pos, template, who, coalescer)
            if end == pos:
                break
            pos = end
            deals += made
        return pos, deals

    @staticmethod
    def _pops(data: bytes, pos: int, template: Template, who: Recipient, coalescer: Coalescer) -> tuple[int, int]:
        request = template.prefix
        step = len(request)
        reps = 1
        end = pos + step
        while reps < MAX_ITEMS and data.startswith(request, end):
            reps += 1
            end += step
        items = b"%b%b" % (_REPS[reps], template.run_argument)
        coalescer.join(who, template.route, items, 2, reps, reps, template.null)
        return end, 1

    @staticmethod
    def _bulks(data: bytes, pos: int, template: Template, who: Recipient, coalescer: Coalescer) -> tuple[int, int]:
        prefix = template.prefix
        start = pos + len(prefix)
        eol = data.find(b"\r\n", start, start + 8)
        if eol < 0 or not (digits := data[start:eol]).isdigit() or (digits[0] == 0x30 and len(digits) > 1):
            return pos, 0
        body_bytes = int(digits)
        if body_bytes > MAX_BODY_BYTES:
            return pos, 0
        end = eol + 2 + body_bytes + 2
        if end > len(data):
            return pos, 0
        if not data.startswith(prefix, end):  # alone
            items = data[start - 1 : end]
            count = 1
        else:
            # A run: all bulks of one size, as far as they go.  Each frame is as long as the first exactly when the
            # next prefix starts where it ends, so no body can pass for a frame.
            step = end - pos
            head = data[pos : eol + 2]
            count = 1
            while count < MAX_ITEMS and end + step <= len(data) and data.startswith(head, end):
                count += 1
                end += step
            items = data[pos:end].replace(prefix, b"$")
            if len(items) != count * (step - len(prefix) + 1):  # a body holds the prefix
                items = b"".join([data[at - 1 : at + step - len(prefix)] for at in range(start, end, step)])
        if template.kind is Kind.ACK and (items.count(b"\r") != 2 * count or not _IDS.fullmatch(items)):
            return pos, 0
        coalescer.join(who, template.route, items, count, count, count, None)
        return end, 1


_REPS = [b"$%d\r\n%d\r\n" % (len(str(reps)), reps) for reps in range(MAX_ITEMS + 1)]
