"""Single calls on a shared lane for the daemon's own code, awaited."""

from __future__ import annotations

import asyncio
from typing import Any

from valqd.io.shared_lane import SharedLane
from valqd.protocol.calls import NoDelivery
from valqd.protocol.requests import encode_request


class _Asker(NoDelivery):
    """A recipient that is a future: the reply as hiredis parsed it, or the bytes of an error of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def shape(self, reply: Any) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)

    def answer(self, data: bytes) -> None:
        if not self.reply.done():
            self.reply.set_result(LaneError(data))


class LaneError(Exception):
    """The lane lost its backend; ``resp`` is the error reply."""

    def __init__(self, resp: bytes) -> None:
        super().__init__(resp)
        self.resp = resp


async def ask(lane: SharedLane, argv: list[bytes]) -> Any:
    """Send one request over ``lane``; its reply, where errors are exception objects (returned, not raised)."""
    asker = _Asker()
    lane.coalescer.lone(asker, encode_request(argv), asker.shape)
    lane.wake()
    return await asker.reply
