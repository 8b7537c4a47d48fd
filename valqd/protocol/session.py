"""One client's state machine: which lane each of its commands takes, and in which order.

    client ─▶ framer ─▶ ┌ plain PUSH, POP, ACK (fastpath) ┐
                        ├ any other VALQ command ─────────┴▶ shared lane (coalescer), while the private lane is quiet
                        ├ the same, rewritten to FCALL ────▶ private lane, inside MULTI or behind foreign commands
                        ├ handshake of a clean client ─────▶ answered, or shared lane (handshake)
                        ├ its simple commands ─────────────▶ shared relay lane (relay)
                        └ all else, byte for byte (foreign) ▶ private lane

Replies leave in request order because at any moment only one lane has replies outstanding for this client: a command
for the other lane makes the session hold (its bytes wait in the framer) until the first is quiet.  Everything that
decides order must live here; it must not know sockets or loops, which are the ``Host``'s.

Bound: the framer's (see framing); the host stops reading from a client that is held with bytes buffered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from valqd.commands import grammar, table
from valqd.commands.help_text import help_lines
from valqd.commands.request import Request, function_call
from valqd.errors import BackendReplaced, CommandError
from valqd.protocol import foreign, handshake, relay
from valqd.protocol.calls import Route, error_line, nothing_popped
from valqd.protocol.calm import Calm
from valqd.protocol.encoding import encode
from valqd.protocol.fastpath import MAX_BYTES_AT_ONCE
from valqd.protocol.framing import BROKEN_REQUEST, MAX_ARGUMENTS, Frame, Kind, RequestFramer
from valqd.protocol.host import Host, Identity, WorkerState
from valqd.protocol.lone_calls import LoneCall
from valqd.protocol.private_calls import ANY_QUEUE
from valqd.protocol.private_side import PrivateSide
from valqd.protocol.requests import echo_call, encode_request, join_merged

#: Commands under way over the shared lane beyond which a client's next ones wait.
_MAX_PENDING = 1024
#: The same for commands that are not merged, any of which may bring a large reply.
_MAX_PENDING_LONE = 32
#: Of those that look at many messages, the next waits for the last.
_LONG = frozenset({"scan", "peek"})
#: As so many bytes each message that a POP asks for counts towards its client's share of what may be under way.
_BYTES_A_MESSAGE = 64
#: How often a client's commands may wait because earlier ones are on the other shared lane (VALQ commands', or relay).
#: One that goes on mixing the two gets a private lane, where nothing has to wait.
_MOST_CHANGES = 4
#: Frames taken from one client before others have their turn.
_MAX_FRAMES = 512


class Session:
    """One client.  A ``Recipient`` of the coalescer's deals."""

    def __init__(self, host: Host, worker: WorkerState, client_id: int) -> None:
        self.host = host
        self.worker = worker
        self.client_id = client_id
        self.framer = RequestFramer(table.is_ours, worker.max_body_bytes)
        self.framer.unauthenticated = bool(worker.password_needed)
        self.resp = 2
        self.templates = worker.templates[2]
        self.identity = worker.first_identity
        self.lane = host.enter_lane(self.identity)
        self.client_name = b""
        self.client_info: dict[bytes, bytes] = {}  # what CLIENT SETINFO told: LIB-NAME, LIB-VER
        self.private = PrivateSide(self)
        # Order on the shared lane (see Recipient)
        self.last_seq = 0
        self.last_queue: bytes | None = None  # pushed to or popped from since the last fence
        self._backend_run = host.backend_run()  # the process that all was written to, as far as WAIT was told
        self.pending = 0  # deals whose answers have not come
        self._taken_bytes = 0  # by the fast path or relayed, since ``pending`` was 0 last
        self.relayed = False  # what is pending is on the relay lane
        self._relayed_last = False  # so was what came last: the next most likely is, too
        self._relay_share = relay.FIRST_SHARE_BYTES  # so much of it may be there at once
        self._needs_private = False  # simple commands do not take the relay lane any more
        self._changes = 0  # how often a command had to wait until it could take the other shared lane
        self._calm = Calm()
        self._gone = False  # it has hung up
        self.closed = False  # nothing is taken from it, or written to it, any more
        # Holding: bytes wait in the framer until what is awaited has come
        self.held = False
        self._resume: Callable[[], None] | None = None  # when a lane is awaited: runs first once it is quiet
        self._unread = False  # it does not read its replies
        self._advancing = False  # frames are being taken: what ends a hold need not take the next
        self._sends_one = True  # its chunks are probably one command each
        self._likely = 0  # how many foreign requests its next chunk probably holds: as many as the last

    @property
    def gone(self) -> bool:
        """Whether it has hung up, as far as can be told: no messages are handed to it any more."""
        return self._gone or self.host.is_closing()

    @property
    def passes_through(self) -> bool:
        """Whether what it sent last were commands that pass through, or may have been."""
        return self._relayed_last or self.private.replies is not None

    def left(self) -> None:
        """The client has hung up; it may still read."""
        self._gone = True

    def end(self) -> None:
        """Its connection is gone, or will be: take no more frames, and write nothing."""
        self._gone = self.closed = True

    def close(self, *, gently: bool = False) -> None:
        """End, and close its connection as soon as everything written so far has left.  Twice is as good as once.

        ``gently``: see Host.
        """
        if not self.closed:
            self.end()
            self.host.close(gently=gently)

    # ---- bytes in

    def receive(self, data: bytes) -> None:
        """Bytes from the client."""
        framer, lane = self.framer, self.lane
        if (
            self._sends_one
            and lane.up
            and framer.empty
            and self.private.replies is None
            and not (self.held or self.relayed or framer.unauthenticated)
            and self.templates.take_alone(data, self, lane.coalescer)
        ):
            self._joined(1, len(data), False)
            return
        while not self.held and framer.empty:
            taken = self._take_at_once(data)
            if taken == len(data):  # of most chunks, all is taken at once
                return
            if not taken:
                break
            data = data[taken:]
        framer.feed(data)
        if not self.held:
            self._advance()

    def _take_at_once(self, data: bytes) -> int:
        """Take what can be taken of ``data``, which begins with a frame, without cutting it; how many bytes."""
        if self.framer.unauthenticated:
            return 0
        if self._relayed_last and (taken := self._relay_what_is_simple(data)):
            return taken
        private = self.private
        lane = self.lane
        taken = 0
        if lane.up and not self.relayed and (private.replies is None or not private.must_be_used):
            taken, deals, enough = self.templates.run(data, self, lane.coalescer)
            if taken:
                self._sends_one = data.rfind(b"*") == 0
                self._joined(deals, taken, enough)
                if self.held or taken == len(data):
                    return taken
                data = data[taken:]
            if (request := self.templates.seen_whole(data)) is not None:
                self._share(request, self.worker.routes.of(request))
                return taken + len(data)
        if private.replies is not None and self._calm.is_due() and self._can_leave_private(data):
            self._calm.back_off()
            self._changes = 0
            private.leave()
        if private.replies is None:
            return taken + self._relay_what_is_simple(data)
        if not (self.pending or private.mute) and (count := foreign.count_plain(data, self._likely)):
            self._likely = count
            private.send_plain(data, count)
            return taken + len(data)
        return taken

    def _joined(self, deals: int, size: int, enough: bool) -> None:
        """The fast path has joined so many deals, of ``size`` bytes of the client.

        Hot: what ``wake`` and ``_has_its_share`` look at is looked at here.
        """
        self.pending += deals
        self._taken_bytes += size
        lane = self.lane
        if not lane.flush_planned:
            lane.wake()
        if enough or self.pending >= _MAX_PENDING or self._taken_bytes >= MAX_BYTES_AT_ONCE:
            self.wait_for_shared()

    def _advance(self, *, waited: bool = False) -> None:
        """Take what was fed.  ``waited``: it was not looked at yet, so that much of it may be taken at once."""
        self.private.begin_batch()
        self._advancing = True
        try:
            while waited and not (self.held or self.closed or self._unread) and (data := self.framer.peek()):
                if not (taken := self._take_at_once(data)):
                    self.framer.peeked_in_vain()
                    break
                self.framer.take(taken)
            self._take_frames()
        finally:
            self._advancing = False
            self.private.end_batch()

    def _take_frames(self) -> None:
        taken = 0
        while not (self.held or self.closed or self._unread):
            if self._has_its_share():
                self.wait_for_shared()
                break
            if self.private.has_many_due:
                self.wait_for_private()
                break
            if taken == _MAX_FRAMES:
                self.held = True
                self.host.call_soon(lambda: self.go_on(lambda: None))
                break
            frame = self.framer.next()
            if frame is None:
                break
            self._take(frame)
            taken += 1

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if kind is Kind.COMMAND and table.is_ours(frame.argv[0]):
            self._ours(frame.argv)
        elif kind is Kind.OVERSIZED:
            if len(frame.argv) >= MAX_ARGUMENTS:
                why = f"has more than {MAX_ARGUMENTS} arguments"
            else:
                why = f"is larger than max_body_bytes ({self.worker.max_body_bytes}) and 64 KiB more"
            self._answer_here(CommandError(f"the command {why}"))
        elif kind is Kind.COMMAND or (kind is Kind.STREAM and frame.argv):
            self.private.streaming = kind is Kind.STREAM
            self._foreign(frame)
        else:
            self.when_shared_quiet(lambda: self._pass_on(frame))

    def _pass_on(self, frame: Frame) -> None:
        """Pass on the rest of a large frame, or bytes that break the protocol, which Valkey is to answer by closing.

        The rest of a frame whose lane was lost is dropped: on another connection it would be read as commands.
        """
        private, raw = self.private, frame.raw
        if frame.kind is Kind.BROKEN:
            if private.streaming and private.replies is None:
                raw = BROKEN_REQUEST
            private.is_broken = True
            private.open()
        private.streaming = frame.kind is Kind.STREAM
        if private.replies is not None:
            private.send(raw)
            if frame.kind is Kind.STREAM_END:
                private.stream_ended()

    # ---- holding

    def hold(self) -> None:
        """Take no further frames until ``finish`` or ``go_on``."""
        self.held = True

    def when_shared_quiet(self, then: Callable[[], None]) -> None:
        """Run ``then`` at once if no answer is due from the shared lane, else as ``resume_if_quiet`` does."""
        self._when(not self.pending, then)

    def _when(self, is_quiet: bool, then: Callable[[], None]) -> None:
        if is_quiet:
            then()
        else:
            assert self._resume is None, "what waited would never run"
            self.held = True
            self._resume = then

    def _has_its_share(self) -> bool:
        """Whether as much of it is under way over the shared lane as one client may have there at once.

        The rest waits until all of that is answered, so that its pipeline is not ahead of everybody else's.
        """
        return self.pending >= _MAX_PENDING or self._taken_bytes >= MAX_BYTES_AT_ONCE

    def when_private_quiet(self, then: Callable[[], None]) -> None:
        """Run ``then`` at once if no answer is due from the private lane, else as ``resume_if_quiet`` does."""
        self._when(self.private.is_quiet, then)

    def wait_for_shared(self) -> None:
        """Take no more frames before the shared lane has answered all."""
        self.when_shared_quiet(lambda: None)

    def wait_for_private(self) -> None:
        """Take no more frames before the private lane has answered all."""
        self.when_private_quiet(lambda: None)

    def resume_if_quiet(self) -> None:
        """Go on once neither lane owes an answer, unless the client does not read."""
        if self._resume is not None and not (self._unread or self.pending) and self.private.is_quiet:
            then, self._resume = self._resume, None
            self.go_on(then)

    def set_unread(self, unread: bool) -> None:
        """The client does not read its replies: it gets no more of them; or it reads again."""
        self._unread = unread
        if unread:
            return
        self.resume_if_quiet()
        if not (self.held or self.framer.empty):
            self.go_on(lambda: None)

    def finish(self, data: bytes) -> None:
        """End a hold: ``data`` answers the command that caused it."""
        self.go_on(lambda: self.host.write(data))

    def go_on(self, first: Callable[[], None]) -> None:
        """End a hold: run ``first``, then take frames again."""
        if self.closed:
            return
        self.held = False
        try:
            first()
            if self._advancing:  # the hold began and ended within one frame: what called this takes the next
                return
            self._advance(waited=True)
        except Exception as error:  # whose reply has led here has other clients' to deal out
            self.host.failed(error)
            return
        self.host.session_resumed()

    # ---- answers

    def answer(self, data: bytes) -> None:
        """One deal's bytes from a shared lane."""
        self.pending -= 1
        if self.relayed and len(data) > relay.LARGE_REPLY_BYTES:
            self.leave_relay_lane()  # such replies would hold up others
        if not self.pending:
            self._taken_bytes = 0
            if self.relayed:
                self.relayed = False
                self._relay_share = min(2 * self._relay_share, relay.MOST_SHARE_BYTES)
        if not self.closed:
            self.host.write(data)
            if self._resume is not None and not self.pending:
                self.resume_if_quiet()

    def answer_fragments(self, fragments: list[bytes]) -> None:
        """One deal's bytes in pieces."""
        if not self.closed:
            for fragment in fragments[:-1]:
                self.host.write(fragment)
        self.answer(fragments[-1])

    def undelivered(self, route: Route, data: bytes) -> bool:
        """Messages were popped for this client after it left; whether they are given back."""
        return self.host.release(route.queue, data)

    def _answer_here(self, value: Any) -> None:
        """Answer a VALQ command without the backend, when all before it is answered; what comes behind waits as well.

        Inside MULTI, or where replies do not simply follow requests, the backend is made to give the answer.
        """
        data = encode(value, self.resp)
        private = self.private
        if private.in_multi and isinstance(value, CommandError):
            # As with any command that cannot be queued, EXEC must refuse: a call that Valkey refuses, with our words.
            private.send_watched(b"*1\r\n$5\r\nFCALL\r\n", lambda raw: data if raw[:1] == b"-" else raw)
        elif private.alters_replies:
            echo = echo_call(value)
            self.when_shared_quiet(lambda: private.calls.with_library(lambda: private.send_plain(echo, 1)))
        else:
            self._when(not self.pending and private.is_quiet, lambda: self.host.write(data))

    # ---- VALQ commands

    def _ours(self, argv: list[bytes]) -> None:
        try:
            request = grammar.parse(argv, self.resp, self.worker.max_body_bytes)
        except CommandError as error:
            self._answer_here(error)
            return
        private = self.private
        if private.must_ask_if_counted:
            private.ask_if_counted(lambda: self._ours(argv))
            return
        takes_time = request.block_ms is not None or request.steps is not None
        if takes_time and not (private.is_quiet or private.alters_replies):
            # Over the private lane it would neither wait nor go in steps; once that is quiet, the shared one will do.
            self.when_private_quiet(lambda: self._ours(argv))
            return
        if self.relayed:
            self._changes += 1
            self.when_shared_quiet(lambda: self._ours(argv))
            return
        if request.fair:  # now that it will not come here again
            request = request._replace(queues=self.worker.in_turn(request.queues))
        if not request.function:
            self._answer_here(help_lines(*request.args))
        elif private.must_be_used:
            self.when_shared_quiet(lambda: private.calls.rewrite(request))
        elif not self.lane.up:
            self._answer_here(self.lane.why_down)
        else:
            route = self.worker.routes.of(request)
            self._share(request, route)
            self.templates.learn_from(argv, request, route, self.worker.max_body_bytes)

    def _share(self, request: Request, route: Route | None) -> None:
        """Send over the shared lane; merged, if it has a route."""
        if self.gone and request.is_lost_with_its_client:
            self.when_shared_quiet(lambda: self.host.write(nothing_popped(request, self.resp)))
            return
        if request.queues:
            self.last_queue = request.queues[0]
        if request.block_ms is not None:
            self.when_shared_quiet(lambda: self._hold_for(self.host.block, request))
        elif request.steps is not None:
            self.when_shared_quiet(lambda: self._hold_for(self.host.run_steps, request))
        else:
            if route is None:
                call = function_call(request, b"e%d" % self.resp, self.worker.auto_create)
                self.ask(encode_request(call), lambda reply: self._shape(reply, request))
            else:
                join_merged(self.lane.coalescer, self, route, request, self.resp)
                self.pending += 1
                self._taken_bytes += sum(map(len, request.args)) + _BYTES_A_MESSAGE * request.wanted
                self.lane.wake()
            most = 1 if request.function in _LONG else _MAX_PENDING_LONE
            has_many = route is None and (self._needs_private or self.pending >= most)
            if has_many or self._has_its_share():
                self.wait_for_shared()

    def ask(self, request: bytes, shape: Callable[[Any], bytes | None]) -> None:
        """Send over the shared lane what merges with nothing.

        ``shape`` turns its reply into the answer's bytes (None: it has answered itself).
        """
        self.lane.coalescer.add(self, LoneCall(request, shape))
        self.pending += 1
        self.lane.wake()

    def _hold_for(self, run: Callable[[Request], None], request: Request) -> None:
        self.hold()
        run(request)

    def _shape(self, reply: Any, request: Request) -> bytes | None:
        if isinstance(reply, Exception):
            return error_line(reply)
        fragments: list[bytes] = reply if type(reply) is list else [reply]
        if self.gone and request.function == "mpop" and self.host.release(b"", b"".join(fragments)):
            return nothing_popped(request, self.resp)
        if sum(map(len, fragments)) > relay.LARGE_REPLY_BYTES:
            self.leave_relay_lane()
        self.answer_fragments(fragments)
        return None

    # ---- foreign commands

    def _may_relay(self) -> bool:
        """Whether simple commands of this (clean) client may take the relay lane."""
        return self._changes < _MOST_CHANGES and self._may_return()

    def _may_return(self) -> bool:
        """The same, whatever it mixed before."""
        allowed = self.worker.relaying and not self._needs_private
        return allowed and self.lane.up and self.lane.relays and self.lane.relay_lanes[self.resp].up

    def _can_leave_private(self, data: bytes) -> bool:
        """Whether it has long sent nothing that needs its private lane, and a relay lane stands for ``data``."""
        is_spare = not self.pending and self.private.is_spare and self._may_return()
        is_long_enough = self._calm.saw(is_spare and relay.is_all_simple(data))
        return is_long_enough and self.lane.relay_lanes[self.resp].is_ready()

    def _relay_what_is_simple(self, data: bytes) -> int:
        """Send over the relay lane what ``data`` begins with, if it may go there; how many bytes."""
        self._relayed_last = False
        may_follow = self.private.replies is None and (self.relayed or not self.pending)
        if may_follow and self._may_relay() and (calls := relay.cut_simple(data, self._relay_share)):
            self._relayed_last = True
            return self._relay(calls)
        return 0

    def _relay(self, calls: list[relay.RelayCall]) -> int:
        """Send over the relay lane, while nothing of this client is under way over the other one; how many bytes."""
        lane = self.lane.relay_lanes[self.resp]
        size = 0
        for call in calls:
            lane.coalescer.add(self, call)
            size += call.size
        self.last_seq = 0  # the other lane numbers its calls itself
        self.last_queue = self.last_queue or ANY_QUEUE
        self.relayed = True
        self._sends_one = False
        self.pending += len(calls)
        self._taken_bytes += size
        if not lane.flush_planned:
            lane.wake()
        if self._taken_bytes >= self._relay_share or self.pending >= relay.MAX_REQUESTS:
            self.wait_for_shared()
        return size

    def _foreign(self, frame: Frame) -> None:
        name = frame.argv[0].upper()
        if self.private.replies is None:
            is_relayed = self._may_relay() and self._is_simple(frame)
            if self.pending and self.relayed is not is_relayed:
                self._changes += is_relayed
                self.when_shared_quiet(lambda: self._foreign(frame))
                return
            if is_relayed:
                self._relay([relay.RelayCall(encode_request(frame.argv), 1)])
                if self._taken_bytes > relay.MOST_SHARE_BYTES and self.framer.buffered_bytes:  # it pipelines large ones
                    self.leave_relay_lane()
                return
            if handshake.take(self, name, frame):
                return
        self._calm.disturb()
        self.when_shared_quiet(lambda: foreign.forward(self.private, name, frame))

    def _is_simple(self, frame: Frame) -> bool:
        is_small = frame.kind is Kind.COMMAND and len(frame.raw) <= relay.MAX_REQUEST_BYTES
        return is_small and relay.is_simple(frame.argv)

    def fence(self, then: Callable[[], None]) -> None:
        """Before WAIT: have it cover what this client wrote over the shared lane, then run ``then``."""
        queue, run = self.last_queue, self.host.backend_run()
        if run != self._backend_run and not self.private.alters_replies:
            self._backend_run, self.last_queue = run, None
            self._answer_here(BackendReplaced())
        elif queue is None or self.private.alters_replies:  # then WAIT does not wait, is refused, or gets no reply
            then()
        else:
            self.last_queue = None
            self.private.calls.fence(queue, then)

    def leave_relay_lane(self) -> None:
        """From now on simple commands of this client take its private lane, and lone calls go one by one."""
        self._needs_private = True

    # ---- state

    def accepted_as(self, identity: Identity) -> None:
        """The backend has accepted this client as ``identity``."""
        self._set_identity(identity)
        self.framer.unauthenticated = False

    def begin(self) -> None:
        """``worker.password_needed`` is known (again), for which a new client is held: take its frames."""
        self._set_identity(self.identity)  # its lane may be another now
        self.framer.unauthenticated = bool(self.worker.password_needed)
        self.go_on(lambda: None)

    def _set_identity(self, identity: Identity) -> None:
        self.identity = identity
        self.lane = self.host.enter_lane(identity)

    def set_resp(self, resp: int) -> None:
        """The backend has accepted HELLO."""
        self.resp = resp
        self.templates = self.worker.templates[resp]

    def reset(self) -> None:
        """The backend has accepted RESET."""
        self.private.reset()
        self.client_name = b""  # but what SETINFO told stays
        self.set_resp(2)
        self._set_identity(Identity())
        self.framer.unauthenticated = bool(self.worker.password_needed)
