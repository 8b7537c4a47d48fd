"""Commands that take several calls, so that none holds Valkey for long: see ``Steps``."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from valqd.commands.request import MOST_IDS, Request, Steps, function_call
from valqd.errors import BackendDown, CommandError
from valqd.protocol.calls import error_line
from valqd.protocol.encoding import encode
from valqd.protocol.host import Lane
from valqd.protocol.lone_calls import Listener, LoneCall
from valqd.protocol.requests import encode_request
from valqd.protocol.session import Session

log = logging.getLogger(__name__)


class Failed(Exception):
    """The error reply for the client."""

    def __init__(self, resp: bytes) -> None:
        super().__init__(resp)
        self.resp = resp


async def run_steps(session: Session, request: Request) -> None:
    """Run ``request`` over the session's shared lane and finish its hold with the answer."""
    lane = session.lane
    try:
        if request.steps is Steps.IDS:
            data = encode(await _for_all_ids(lane, request, session), session.resp)
        elif request.steps is Steps.TOKEN:
            data = encode(await _until_done(lane, request, session), session.resp)
        else:
            data = await _until_answered(lane, request, session)
    except Failed as failed:
        data = failed.resp
    except Exception:  # a mistake of the daemon's, for which its client is not to wait for ever
        log.exception("a command that takes several calls failed")
        data = CommandError("internal error: valqd's log tells more; the command may have been applied").resp()
    session.finish(data)


async def ask(lane: Lane, argv: list[bytes], begun: bool = False) -> Any:
    """The reply to one call, as hiredis parsed it.  ``begun``: the command has done a part of its work.

    Raises Failed when the call could not be sent, or was answered by an error.
    """
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def fail(error: bytes) -> None:
        if not future.done():  # done: this task was cancelled, since the daemon ends
            future.set_exception(Failed(error))

    def take(reply: Any) -> None:
        if isinstance(reply, Exception):
            fail(error_line(reply))
        elif not future.done():
            future.set_result(reply)

    if lane.up:
        lane.coalescer.add(Listener(), LoneCall(encode_request(argv), take))
        lane.wake()
    else:
        fail(lane.why_down.resp())
    try:
        return await future
    except Failed as failed:
        if begun and BackendDown.is_said_by(failed.resp):  # if this call was not sent, those before it were
            raise Failed(BackendDown(under_way=True).resp()) from None
        raise


async def _until_answered(lane: Lane, request: Request, session: Session) -> bytes:
    """The answer to ``request``, asked as often as there is more to do before there is one."""
    begun = False
    while True:
        reply = await ask(lane, function_call(request, b"e%d" % session.resp, session.worker.auto_create), begun)
        if reply is not None:
            assert isinstance(reply, bytes)
            return reply
        begun = True
        if request.steps is Steps.ARGS_ONCE:
            request = request._replace(args=())


async def _for_all_ids(lane: Lane, request: Request, session: Session) -> int:
    total = 0
    fixed, ids = request.split_ids()
    for start in range(0, len(ids), MOST_IDS):
        some = request._replace(args=(*fixed, *ids[start : start + MOST_IDS]))
        try:
            total += int(await ask(lane, function_call(some, b"n2", session.worker.auto_create), start > 0))
        except Failed as failed:
            if not start or not failed.resp.startswith(b"-NOQUEUE "):
                raise
            break  # deleted meanwhile: what was done before is told
    return total


async def _until_done(lane: Lane, request: Request, session: Session) -> int | list[bytes]:
    parts: list[Any] = []
    token = b""
    fixed, ids = request.split_ids()
    while True:
        some = request._replace(args=(*fixed, *ids[:MOST_IDS])) if ids else request
        argv = function_call(some, b"e%d" % session.resp, session.worker.auto_create, token)
        part, token = await ask(lane, argv, begun=bool(token))
        parts.append(part)
        if ids:
            token, taken = _from_the_start(token)
            ids = ids[taken:]
        if not token:
            return sum(parts) if isinstance(part, int) else sorted(set().union(*parts))


def _from_the_start(token: bytes) -> tuple[bytes, int]:
    """The token of a command with ids, as if none of them were done; and how many are, which need not be sent again."""
    parts = token.split(b":")  # see functions/redrive.lua
    if len(parts) < 3:
        return token, 0
    return b":".join([*parts[:2], b"0", *parts[3:]]), int(parts[2])
