"""One client's VALQ commands over its private lane: as FCALLs, which are repeated when the functions were missing.

Inside MULTI, or where no reply is seen, nothing could be repeated: there the functions are looked for first.  Bounds:
calls are kept until they are answered, _MAX_REPEATABLE_BYTES of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from valqd.commands.request import Request, fcall, function_call, queue_key
from valqd.errors import PASSING_WRITE_ERRORS
from valqd.protocol.calls import nothing_popped, without_place
from valqd.protocol.coalescer import MISSING_FUNCTION, REPLACED
from valqd.protocol.lone_calls import Listener, LoneCall
from valqd.protocol.private_replies import Gap, PrivateReplies
from valqd.protocol.requests import encode_own, encode_request

if TYPE_CHECKING:
    from valqd.protocol.private_side import PrivateSide

#: A client's calls on its own lane are kept until they are answered, since they may have to be repeated: beyond this
#: its next commands wait.
_MAX_REPEATABLE_BYTES = 256 * 1024
#: Stands for simple commands of others when WAIT needs a queue to write to.
ANY_QUEUE = b"valqd"
_MISSING_FUNCTION = b"-%b\r\n" % MISSING_FUNCTION.encode()
_REPLACED = b"-%b\r\n" % REPLACED.encode()
#: How often the functions are loaded for one WAIT when they are gone again and again.
_MAX_LOADS = 3


class PrivateCalls:
    """Of one private side."""

    def __init__(self, side: PrivateSide) -> None:
        self._side = side
        self._library_probed = False  # in this MULTI, or since replies stopped telling
        self._repeatable_bytes = 0  # of the calls that are not answered and could be repeated

    def look_again(self) -> None:
        """What was found out about the library no longer holds: probe again before the next call that needs it."""
        self._library_probed = False

    def forget(self) -> None:
        """No answers come any more to the calls under way."""
        self._repeatable_bytes = 0

    @property
    def are_due(self) -> bool:
        """Whether a call is under way that may have to be repeated."""
        return self._repeatable_bytes > 0

    def with_library(self, then: Callable[[], None]) -> None:
        """Run ``then``, which sends a function call.

        Inside MULTI, or where no reply is seen, a call that finds no library could not be repeated.  So a function that
        does nothing is called first over the shared lane, which loads the library if it is missing.
        """
        session = self._side.session
        lane = session.lane
        if self._side.alters_replies and not self._library_probed and lane.up:
            self._library_probed = True
            session.hold()
            probe = LoneCall(encode_own(fcall("echo", (), b"array")), lambda reply: b"")
            lane.coalescer.add(Listener(lambda answer: session.go_on(then)), probe)
            lane.wake()
        else:
            then()

    def rewrite(self, request: Request) -> None:
        """Send a VALQ command as the FCALL that it is; nothing that would be lost with a client that has hung up."""
        session = self._side.session
        if session.gone and request.is_lost_with_its_client and not self._side.alters_replies:
            session.when_private_quiet(lambda: session.host.write(nothing_popped(request, session.resp)))
            return
        self.with_library(lambda: self._rewrite(request))

    def _rewrite(self, request: Request) -> None:
        session = self._side.session
        # With n3 the function returns maps, and Valkey writes them in the version that the connection speaks.
        mode = b"n3" if self._side.resp_is_unknown else b"n%d" % session.resp
        call = encode_request(function_call(request, mode, session.worker.auto_create))
        pops = request.function in ("pop", "mpop")
        if self._side.in_multi:
            if pops:
                self._side.queue_in_multi(lambda raw: self._given_back(request, raw))
            self._side.send_watched(call, without_place)
            return

        def answered(raw: bytes) -> bytes:
            self._repeatable_bytes -= len(call)
            return self._given_back(request, raw) if pops and raw[:1] != b"-" else without_place(raw)

        def answered_again(raw: bytes) -> bytes:
            self._side.pops_due -= pops
            return answered(_REPLACED if raw == _MISSING_FUNCTION else raw)

        replies = self._side.open()

        def watch(raw: bytes) -> bytes | Gap:
            if raw != _MISSING_FUNCTION:
                return answered(raw)
            gap = replies.leave_gap()
            self._side.pops_due += pops
            session.host.load_library(lambda failure: self._repeat(replies, call, gap, answered_again, failure))
            return gap

        if not self._side.alters_replies:
            self._repeatable_bytes += len(call)
        self._side.send_watched(call, watch, pops)
        if self._repeatable_bytes > _MAX_REPEATABLE_BYTES:
            session.wait_for_private()

    def _given_back(self, request: Request, raw: bytes) -> bytes:
        """``raw``, or if the client has left, a reply without messages: they go back to their queue."""
        session = self._side.session
        if not session.gone or request.is_lost_with_its_client or self._side.identity_is_unknown:
            return raw  # NOACK: nothing can be given back; unknown: its queue may be another database's
        session.host.release(request.queues[0] if request.function == "pop" else b"", raw)
        return nothing_popped(request, session.resp)

    def _repeat(
        self, replies: PrivateReplies, call: bytes, gap: Gap, shape: Callable[[bytes], bytes], failure: bytes | None
    ) -> None:
        """The library was loaded, or not (``failure``): repeat the call that had found none, or answer it by that."""
        if self._side.replies is not replies or self._side.session.closed:
            return
        if failure is None:
            replies.expect_again(gap, shape)
            self._side.send_own(call)
        else:
            replies.fill(gap, shape(failure))
            self._side.received(b"")  # it, and what came behind it

    def fence(self, queue: bytes, then: Callable[[], None], *, loads: int = _MAX_LOADS) -> None:
        """Before WAIT: write something on this connection, a key of ``queue``; run ``then`` when that is done.

        WAIT waits for what its own connection wrote last, and so for all that the shared lane wrote before.  If the
        backend refuses the write, its error is WAIT's answer, and unless that error passes the client's simple commands
        leave the relay lane.  What was written before is not covered then: the next WAIT tries again.
        """
        replies = self._side.open()
        outcome: list[bytes] = []

        def swallow(raw: bytes) -> bytes:
            outcome.append(raw)
            return b""

        def go_on() -> None:
            session = self._side.session
            reply = outcome[0] if outcome else self._side.why_lost.resp()
            if reply == _MISSING_FUNCTION and loads:
                session.hold()

                def loaded(failure: bytes | None) -> None:
                    if failure is None:
                        session.go_on(partial(self.fence, queue, then, loads=loads - 1))
                    else:
                        session.last_queue = queue
                        session.finish(failure)

                session.host.load_library(loaded)
            elif reply == _MISSING_FUNCTION:
                session.last_queue = queue
                session.host.write(_REPLACED)
            elif reply[:1] == b"-":
                if not reply.startswith(PASSING_WRITE_ERRORS):
                    session.leave_relay_lane()
                if not (queue == ANY_QUEUE and reply.startswith(b"-NOPERM ")):  # there it never may
                    session.last_queue = queue
                session.host.write(reply)
            else:
                then()

        replies.expect_own(swallow)
        self._side.send(encode_own(fcall("fence", [queue_key(queue)])))
        self._side.session.when_private_quiet(go_on)
