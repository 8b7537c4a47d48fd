"""Sends a command to the functions in each of the daemon's ways: native, encoded, and joined with others."""

from __future__ import annotations

import hiredis

from tests.lua.conftest import Link
from tests.property.model import Refused
from valqd.commands.grammar import parse
from valqd.commands.request import Steps, function_call
from valqd.protocol.framing import MAX_BULK_BYTES

AUTO = b"30000:5:86400000"


def parsed(data):
    """The value of encoded bytes; several replies as a list."""
    reader = hiredis.Reader(notEnoughData=Ellipsis)
    reader.feed(data)
    found = []
    while (reply := reader.gets()) is not Ellipsis:
        found.append(as_resp2(reply))
    return found


def as_resp2(value):
    """Maps as flat arrays."""
    if isinstance(value, dict):
        value = [item for pair in value.items() for item in pair]
    return [as_resp2(item) for item in value] if isinstance(value, list) else value


def joined(reply):
    return reply if isinstance(reply, bytes) else b"".join(reply)


class Sending:
    """Of a machine that has a ``link``."""

    link: Link

    def send(self, form, *words):
        """The reply to a command, or its error's code as Refused."""
        argv = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        resp = int(form[1])
        request = parse([b"VALQ", *argv], resp, MAX_BULK_BYTES)
        if form[0] == "j" and request.merge:
            reply = self.joined_call(request)
        elif form[0] == "n":
            reply = self.link.call(*function_call(request, b"n%d" % resp, AUTO))
        elif request.steps is Steps.TOKEN:
            reply, token = 0, b""
            while not isinstance(reply, Exception):
                step, token = self.step(request, token)
                reply = step if isinstance(step, Exception) else reply + step
                if not token:
                    break
        else:
            while (reply := self.link.call(*function_call(request, b"e%d" % resp, AUTO))) is None:
                pass
            if not isinstance(reply, Exception):
                (reply,) = parsed(joined(reply))
        if isinstance(reply, Exception):
            raise Refused(str(reply).split()[0])
        return reply

    def step(self, request, token=b""):
        """One step of a command that takes several: what it did (or its error), and the token for the next."""
        reply = self.link.call(*function_call(request, b"e2", AUTO, token))
        return (reply, b"") if isinstance(reply, Exception) else reply

    def joined_call(self, request):
        merge = request.merge
        head = ["FCALL", "valq1_" + merge.function, 1, b"valq:{%b}:queue" % request.queues[0]]
        head += [AUTO] if request.takes_auto else []
        reply = self.link.call(*head, *merge.fixed, *merge.items)
        if isinstance(reply, Exception):
            return reply
        if merge.function in ("push_many", "push_records"):
            found = reply[0] if isinstance(reply, list) else reply
            return hiredis.ReplyError(found.decode()) if isinstance(found, bytes) else b"%d" % found
        if merge.function == "pop_many":
            if not reply:
                return [] if merge.items[1].split(b",")[1:2] not in ([], [b""]) else None
            return parsed(joined(reply[0]))[0]
        if merge.function == "extend_many":
            return hiredis.ReplyError(reply[0].decode()) if isinstance(reply[0], bytes) else reply[0]
        return sum(reply) if isinstance(reply, list) else reply
