"""Commands that take several calls, so that none holds Valkey for long: INFO, LIST, PURGE, REDRIVE, UPDATE."""

from __future__ import annotations

from valqd.commands.request import Request, fcall, function_call
from valqd.errors import BackendDown
from valqd.io.asking import LaneError, ask
from valqd.io.shared_lane import SharedLane
from valqd.protocol.calls import error_line
from valqd.protocol.encoding import encode
from valqd.protocol.session import Session


class _Failed(Exception):
    """The error reply for the client."""

    def __init__(self, resp: bytes) -> None:
        super().__init__(resp)
        self.resp = resp


async def run_steps(session: Session, request: Request) -> None:
    """Run ``request`` over the session's shared lane and finish its hold with the answer."""
    lane = session.lane
    assert isinstance(lane, SharedLane)
    try:
        if request.command == "list":
            data = encode(await _list(lane, request), session.resp)
        elif request.command == "info":
            data = await _until_answered(lane, request, request, session)
        elif request.command == "update":  # done with the first call, but for counting
            data = await _until_answered(lane, request, request._replace(args=()), session)
        else:
            data = encode(await _until_done(lane, request, session), session.resp)
    except _Failed as failed:
        data = failed.resp
    session.finish(data)


async def _ask(lane: SharedLane, argv: list[bytes]) -> object:
    if not lane.up:
        raise _Failed(BackendDown().resp())
    reply = await ask(lane, argv)
    if isinstance(reply, LaneError):
        raise _Failed(reply.resp)
    if isinstance(reply, Exception):
        raise _Failed(error_line(reply))
    return reply


async def _call(lane: SharedLane, argv: list[bytes]) -> list[object]:
    reply = await _ask(lane, argv)
    assert isinstance(reply, list)
    return reply


async def _until_answered(lane: SharedLane, request: Request, again: Request, session: Session) -> bytes:
    """The answer to ``request``, or to ``again`` as often as there is more to do before there is one."""
    while True:
        reply = await _ask(lane, function_call(request, b"e%d" % session.resp, session.shared.auto_create))
        if reply is not None:
            assert isinstance(reply, bytes)
            return reply
        request = again


async def _list(lane: SharedLane, request: Request) -> list[bytes]:
    names: set[bytes] = set()
    cursor = b"0"
    while True:
        reply = await _call(lane, fcall("list", (), *request.args, cursor))
        assert isinstance(reply[1], list)
        names.update(reply[1])
        assert isinstance(reply[0], bytes)
        cursor = reply[0]
        if cursor == b"0":
            return sorted(names)


async def _until_done(lane: SharedLane, request: Request, session: Session) -> int:
    total = 0
    token = b""
    while True:
        argv = function_call(request, b"e%d" % session.resp, session.shared.auto_create, token)
        count, next_token = await _call(lane, argv)
        assert isinstance(count, int)
        assert isinstance(next_token, bytes)
        total += count
        token = next_token
        if not token:
            return total
