r"""Recognises plain PUSH, POP and ACK, and options seen before, in a client's bytes without parsing them.

A client repeats itself: ``*3\r\n$9\r\nVALQ.PUSH\r\n$6\r\norders\r\n$`` is the same 33 bytes before every body that it
pushes to ``orders``.  The session parses such a command once, the long way, and teaches its prefix here; from then on a
chunk is compared with known prefixes, and the bulks behind them (``100\r\n<body>\r\n``) go into the merged call as the
very bytes received.  So do the options behind a PUSH's body; and a POP with options, or an MPOP, repeats itself to the
byte: its parse is remembered.
What does not fit exactly (another spelling, a cut frame, a large body) is left to the framer, which decides alone what
Valkey would make of it.

Knows byte layouts only; it must not decide whether a client may use it (order, lanes, transactions: the session's).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import cache

from valqd.commands.request import Request
from valqd.commands.values import ID_PATTERN
from valqd.protocol.calls import MAX_ITEMS, Recipient, Route
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.encoding import NULL, bulk
from valqd.protocol.requests import encode_request

#: Bodies beyond this take the framer's way, which joins cut frames once.
MAX_BODY_BYTES = 64 * 1024
#: One client's share of a merged call, and so of everybody's time: its other bytes wait until it is answered.
MAX_BYTES_AT_ONCE = 64 * 1024
#: Prefixes remembered, and options; beyond it all are forgotten, and each is learned again by its next command, or two.
MAX_TEMPLATES = 10_000
#: Longer requests are not remembered whole.
MAX_WHOLE_BYTES = 1024
#: Lengths of prefixes tried for one chunk: queues whose names have yet other lengths go the long way.
MAX_LENGTHS = 16
#: Options remembered for one prefix, and how long they may be.
MAX_SUFFIXES = 16
MAX_SUFFIX_BYTES = 256
#: Bytes by which a prefix's length is looked up: they tell the commands and the length of the queue's name apart.
_HEAD = 22

#: The length of a larger body is parsed, even when its command is all that a chunk holds.
_MOST_ALONE_BYTES = 1023

#: How many pops a run is, as an argument.
_POPS = [bulk(b"%d" % pops) for pops in range(MAX_ITEMS + 1)]

_ID = re.compile(ID_PATTERN)
_ID_BULK = re.compile(rb"\$[1-9][0-9]?\r\n%b\r\n" % ID_PATTERN)
_ID_BULKS = re.compile(rb"(?:\$[1-9][0-9]?\r\n%b\r\n)+" % ID_PATTERN)


@cache
def _heads(most_bytes: int) -> dict[int, bytes]:
    """How a bulk begins, by how many bytes it has in all (with ``$9`` if 15)."""
    heads = [(size, b"$%d\r\n" % size) for size in range(min(most_bytes, _MOST_ALONE_BYTES) + 1)]
    return {len(head) + size + 2: head for size, head in heads}


def _bulk_at(data: bytes, start: int, most_bytes: int) -> tuple[int, int]:
    """Where the length at ``start`` ends, and where its bulk does: beyond ``data`` if it is unusual, or larger."""
    eol = data.find(b"\r\n", start, start + 8)
    digits = data[start:eol]
    if eol < 0 or not digits.isdigit() or (digits[0] == 0x30 and len(digits) > 1) or int(digits) > most_bytes:
        return eol, len(data) + 1
    return eol, eol + 4 + int(digits)


def _prefix(argv: list[bytes], size: int) -> bytes:
    """A command's bytes up to the ``$`` of its argument ``size``."""
    return b"*%d\r\n%b$" % (len(argv), b"".join(map(bulk, argv[:size])))


class Template(ABC):
    """What a command looks like, as far as it repeats itself: ``prefix`` is how it begins."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix

    @abstractmethod
    def take(self, data: bytes, pos: int, who: Recipient, coalescer: Coalescer) -> int:
        """Join the command at ``pos``, maybe with those like it that follow, as one deal.

        Where they end; ``pos``: it is cut, or unusual, and nothing was joined.
        """

    def take_alone(self, data: bytes, who: Recipient, coalescer: Coalescer) -> bool:
        """Join the command if it is all of ``data``.  The hottest path; False: ``take`` is to look at it."""
        return False

    def fills(self, size: int) -> bool:
        """Whether ``size`` bytes taken may bring as large a reply as one client should get at once."""
        return False


class PopTemplate(Template):
    """A POP of one message: the prefix is the whole request.

    ``wanted`` is the argument that says what each POP of a run asks for, ``null`` its reply when there is nothing.
    """

    def __init__(self, prefix: bytes, route: Route, wanted: bytes, null: bytes) -> None:
        super().__init__(prefix)
        self._route = route
        self._wanted = wanted
        self._alone = _POPS[1] + wanted
        self._null = null

    def take(self, data: bytes, pos: int, who: Recipient, coalescer: Coalescer) -> int:  # noqa: D102 - see Template
        prefix = self.prefix
        step = len(prefix)
        pops = 1
        end = pos + step
        most = self._route.max_items
        while pops < most and data.startswith(prefix, end):
            pops += 1
            end += step
        coalescer.join(who, self._route, _POPS[pops] + self._wanted, pops, pops, self._null)
        return end

    def take_alone(self, data: bytes, who: Recipient, coalescer: Coalescer) -> bool:  # noqa: D102 - see Template
        if len(data) != len(self.prefix):
            return False
        coalescer.join(who, self._route, self._alone, 1, 1, self._null)
        return True

    def fills(self, size: int) -> bool:  # noqa: D102 - see Template
        return size >= len(self.prefix) * self._route.max_items


class PushTemplate(Template):
    """A PUSH without options: the prefix ends with the body's ``$``, and any bytes are a body."""

    def __init__(self, prefix: bytes, route: Route, most_bytes: int = MAX_BODY_BYTES) -> None:
        super().__init__(prefix)
        self._route = route
        self._most_bytes = min(most_bytes, MAX_BODY_BYTES)
        self._item_at = len(prefix) - 1  # where the body's bulk begins in a command that is alone
        self._heads = _heads(self._most_bytes)

    def take(self, data: bytes, pos: int, who: Recipient, coalescer: Coalescer) -> int:  # noqa: D102 - see Template
        prefix = self.prefix
        start = pos + len(prefix)
        size = len(data)
        eol, end = _bulk_at(data, start, self._most_bytes)
        if end > size:
            return pos
        if end == size or not data.startswith(prefix, end):  # alone
            if data[end - 2 : end] != b"\r\n" or not self.takes(data, eol + 2, end - 2):
                return pos
            coalescer.join(who, self._route, data[start - 1 : end], 1, 1, None)
            return end
        # A run: all bulks of one size, as far as they go.  Each frame is as long as the first exactly when the next
        # prefix starts where it ends, so no body can pass for a frame.
        step = end - pos
        next_head = b"\r\n" + data[pos : eol + 2]
        most = min(MAX_ITEMS, MAX_BYTES_AT_ONCE // step + 1)
        count = 1
        while count < most and end + step <= size and data.startswith(next_head, end - 2):
            count += 1
            end += step
        if data[end - 2 : end] != b"\r\n":
            return pos
        bulks = data[pos:end].replace(prefix, b"$")
        if len(bulks) != count * (step - len(prefix) + 1):  # a body holds the prefix
            bulks = b"".join([data[at - 1 : at + step - len(prefix)] for at in range(start, end, step)])
        if not self.takes_all(bulks, count):
            return pos
        coalescer.join(who, self._route, bulks, count, count, None)
        return end

    def take_alone(self, data: bytes, who: Recipient, coalescer: Coalescer) -> bool:  # noqa: D102 - see Template
        head = self._heads.get(len(data) - self._item_at)
        if head is None:
            return False
        item = data[self._item_at :]
        if item[: len(head)] != head or item[-2:] != b"\r\n":
            return False
        coalescer.join(who, self._route, item, 1, 1, None)
        return True

    def takes(self, data: bytes, start: int, end: int) -> bool:
        """Whether the argument at ``start`` to ``end`` is plain."""
        return True

    def takes_all(self, bulks: bytes, count: int) -> bool:
        """Whether all ``count`` arguments are plain."""
        return True


class AckTemplate(PushTemplate):
    """An ACK of one id or receipt: as a PUSH, but not every argument is plain."""

    def take_alone(self, data: bytes, who: Recipient, coalescer: Coalescer) -> bool:  # noqa: D102 - see Template
        item = data[self._item_at :]
        head = self._heads.get(len(item))
        if head is None or item[: len(head)] != head or _ID_BULK.fullmatch(item) is None:
            return False
        coalescer.join(who, self._route, item, 1, 1, None)
        return True

    def takes(self, data: bytes, start: int, end: int) -> bool:  # noqa: D102 - see PushTemplate
        return _ID.fullmatch(data, start, end) is not None

    def takes_all(self, bulks: bytes, count: int) -> bool:  # noqa: D102 - see PushTemplate
        return bulks.count(b"\r") == 2 * count and _ID_BULKS.fullmatch(bulks) is not None


class OptionsPushTemplate(Template):
    """A PUSH with options: the prefix ends with the body's ``$``, and what follows the body repeats itself too."""

    def __init__(self, prefix: bytes, most_bytes: int) -> None:
        super().__init__(prefix)
        self._most_bytes = min(most_bytes, MAX_BODY_BYTES)
        self._suffixes: dict[bytes, tuple[Route, bytes]] = {}  # route, and its arguments before the body

    def learn(self, suffix: bytes, route: Route, options: bytes) -> None:
        """Remember what follows the body; the oldest makes way."""
        if suffix not in self._suffixes and len(self._suffixes) >= MAX_SUFFIXES:
            del self._suffixes[next(iter(self._suffixes))]
        self._suffixes[suffix] = (route, options)

    def take(self, data: bytes, pos: int, who: Recipient, coalescer: Coalescer) -> int:  # noqa: D102 - see Template
        start = pos + len(self.prefix)
        _, end = _bulk_at(data, start, self._most_bytes)
        if data[end - 2 : end] == b"\r\n":
            for suffix, (route, options) in self._suffixes.items():
                if data.startswith(suffix, end):  # as many bulks as the prefix announces: the command ends with it
                    coalescer.join(who, route, options + data[start - 1 : end], 1, 1, None)
                    return end + len(suffix)
        return pos


class Templates:
    """All templates of a worker, for one protocol version: a POP's null differs by it (``resp``, 2 or 3)."""

    def __init__(self, resp: int) -> None:
        self._null = NULL[resp]
        self._by_prefix: dict[bytes, Template] = {}
        self._lengths: dict[bytes, tuple[int, ...]] = {}
        self._seen_once: set[int] = set()  # hashes of options of PUSH
        self._suffixes_learned = 0  # since all were forgotten last
        self._whole: dict[bytes, Request] = {}  # whole POPs with options, as clients send them

    def learn_from(self, argv: list[bytes], request: Request, route: Route | None, most_bytes: int) -> None:
        """Learn what this command looks like, if clients are likely to send its like again.

        ``route``: None if it is not merged.  ``most_bytes``: the largest body that is taken.
        """
        arguments = len(argv) - (2 if argv[0].upper() == b"VALQ" else 1)
        if request.function in ("pop", "mpop"):
            if route is not None and request.merge is not None and arguments == 1:
                self.learn(PopTemplate(encode_request(argv), route, bulk(request.merge.items[-1]), self._null))
            elif not request.fair:
                self.learn_whole(encode_request(argv), request)
        elif request.function in ("push", "ack") and route is not None:
            at = len(argv) - arguments + 1  # the argument behind the queue
            if arguments == 2:
                template = PushTemplate if request.function == "push" else AckTemplate
                self.learn(template(_prefix(argv, at), route, most_bytes))
            elif request.function == "push" and self._is_repeated(argv[at + 1 :]):
                self._learn_options(argv, at, request, route, most_bytes)

    def _is_repeated(self, options: list[bytes]) -> bool:
        """Whether options come again: many are unique, and to learn them would be work for nothing."""
        key = hash(tuple(options))
        if key in self._seen_once:
            return True
        if len(self._seen_once) >= MAX_TEMPLATES:
            self._seen_once.clear()
        self._seen_once.add(key)
        return False

    def _learn_options(self, argv: list[bytes], at: int, request: Request, route: Route, most_bytes: int) -> None:
        assert request.merge is not None
        suffix = b"".join(map(bulk, argv[at + 1 :]))
        if len(suffix) > MAX_SUFFIX_BYTES:
            return
        self._suffixes_learned += 1
        if self._suffixes_learned > MAX_TEMPLATES:
            self._forget()
        prefix = _prefix(argv, at)
        self.learn(OptionsPushTemplate(prefix, most_bytes))
        template = self._by_prefix.get(prefix)
        if isinstance(template, OptionsPushTemplate):
            before_body = b"".join(map(bulk, request.merge.items[:-1]))
            template.learn(suffix, route, before_body)

    def learn(self, template: Template) -> None:
        """Remember a template; one too short to be told apart is not worth it."""
        prefix = template.prefix
        if len(self._by_prefix) >= MAX_TEMPLATES and prefix not in self._by_prefix:
            self._forget()
        lengths = self._lengths.get(prefix[:_HEAD], ())
        if len(prefix) < _HEAD or prefix in self._by_prefix or b"*" in prefix[1:]:  # two of them could overlap
            return
        if len(prefix) not in lengths:
            if len(lengths) == MAX_LENGTHS:
                return
            self._lengths[prefix[:_HEAD]] = (*lengths, len(prefix))
        self._by_prefix[prefix] = template

    def _forget(self) -> None:
        self._by_prefix.clear()
        self._lengths.clear()
        self._suffixes_learned = 0

    def learn_whole(self, data: bytes, request: Request) -> None:
        """Remember what a request asks for that clients send again and again, the same to the byte."""
        if len(data) <= MAX_WHOLE_BYTES:
            if len(self._whole) >= MAX_TEMPLATES:
                self._whole.clear()
            self._whole[data] = request

    def seen_whole(self, data: bytes) -> Request | None:
        """What ``data`` asks for, if it is such a request."""
        return self._whole.get(data) if len(data) <= MAX_WHOLE_BYTES else None

    def take_alone(self, data: bytes, who: Recipient, coalescer: Coalescer) -> bool:
        """Join the plain command that is all of ``data``, as most are: what ``run`` would do too, but not as fast."""
        for length in self._lengths.get(data[:_HEAD], ()):
            template = self._by_prefix.get(data[:length])
            if template is not None:
                return template.take_alone(data, who, coalescer)
        return False

    def run(self, data: bytes, who: Recipient, coalescer: Coalescer) -> tuple[int, int, bool]:
        """Join the plain commands at the start of ``data``, as far as one client's share goes.

        (bytes taken, deals made, whether its share is used up).
        """
        size = len(data)
        if size > MAX_BYTES_AT_ONCE:
            size = MAX_BYTES_AT_ONCE
        pos = deals = 0
        while pos < size:
            for length in self._lengths.get(data[pos : pos + _HEAD], ()):
                template = self._by_prefix.get(data[pos : pos + length])
                if template is not None:
                    break
            else:
                break
            end = template.take(data, pos, who, coalescer)
            if end == pos:
                break
            deals += 1
            if end < size and template.fills(end - pos):
                return end, deals, True
            pos = end
        return pos, deals, pos >= MAX_BYTES_AT_ONCE
