"""One client's state machine: which lane each of its commands takes, and in which order.

    client ─▶ framer ─▶ ┌ plain PUSH, POP, ACK (fastpath) ┐
                        ├ any other VALQ command ─────────┴▶ shared lane (coalescer), while the private lane is quiet
                        ├ the same, rewritten to FCALL ────▶ private lane, inside MULTI or behind foreign commands
                        ├ handshake of a clean client ─────▶ answered or relayed (handshake)
                        └ all else, byte for byte (foreign) ▶ private lane

Replies leave in request order because at any moment only one lane has replies outstanding for this client: a command
for the other lane makes the session hold (its bytes wait in the framer) until the first is quiet.  Everything that
decides order must live here; it must not know sockets or loops, which are the ``Host``'s.

Bound: the framer's (see framing); the host stops reading from a client that is held with bytes buffered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from valqd.commands import grammar, introspection, table
from valqd.commands.request import Merge, Request, fcall, function_call, queue_key
from valqd.errors import BackendDown, CommandError
from valqd.protocol import foreign, handshake, relay
from valqd.protocol.calls import Call, Route, bulk, error_line
from valqd.protocol.encoding import encode
from valqd.protocol.fastpath import AckTemplate, PopTemplate, PushTemplate
from valqd.protocol.framing import Frame, Kind, RequestFramer
from valqd.protocol.host import Host, Identity, Shared
from valqd.protocol.private import PrivateReplies, Slot
from valqd.protocol.relay import ReplyType
from valqd.protocol.requests import NULL, echo_call, encode_request, join_merged, nothing_popped

#: Stands for relayed writes when WAIT needs a queue to write to.
_ANY_QUEUE = b"valqd"
#: Commands under way over the shared lane beyond which a client's next ones wait.
_MAX_PENDING = 1024
#: Frames taken from one client before others have their turn.
_MAX_FRAMES = 512
_MISSING_FUNCTION = b"-ERR Function not found\r\n"


class Session:
    """One client.  A ``Recipient`` of the coalescer's deals."""

    def __init__(self, host: Host, shared: Shared, client_id: int) -> None:
        self.host = host
        self.shared = shared
        self.client_id = client_id
        self.framer = RequestFramer(table.is_ours, shared.limits.max_body_bytes)
        self.resp = 2
        self.templates = shared.templates[2]
        self.identity = shared.first_identity
        self.lane = host.lane(self.identity)
        self.client_info: dict[bytes, bytes] = {}  # CLIENT SETNAME and SETINFO, by their request's name part
        self.private: PrivateReplies | None = None
        # Order on the shared lane (see Recipient)
        self.last_seq = 0
        self.last_call: Call | None = None
        self.pending = 0  # deals whose answers have not come
        self.gone = False  # it has hung up, as far as can be told: no messages are handed to it any more
        self.closed = False  # nor is anything else
        # Holding: bytes wait in the framer until what is awaited has come
        self._to_send: list[bytes] | None = None  # for the private lane, while frames are taken
        self._held = False
        self._unread = False
        self._resume: Callable[[], None] | None = None  # runs first when the lane awaited is quiet
        # State that the backend's connection holds
        self.in_multi = False
        self.needs_private = False  # it gets large replies, which would hold up others on the shared lane
        self.has_state = False  # WATCH, CLIENT TRACKING and the like: cannot be made again on another connection
        self.silent = False  # CLIENT REPLY OFF
        self.skip_next = False  # CLIENT REPLY SKIP
        self.multi_began = 0  # replies expected before the first of its commands
        #: what EXEC will change in this session, if the element at that place of its reply is no error
        self.queued_in_multi: list[tuple[int, Callable[[], None]]] = []
        self._library_probed = False  # in this MULTI
        self.may_count_again = False  # Pub/Sub may be over, or never was in the way (RESP3)
        self.marks = 0  # how often that was asked
        self._after_mark: Callable[[], None] | None = None  # runs when the answer has come
        self._cut_push = bytearray()  # a push whose end is still to come
        self._last_queue: bytes | None = None  # pushed to or popped from since the last fence

    # ---- bytes in

    @property
    def held_bytes(self) -> int:
        """Bytes that wait because the session holds."""
        return self.framer.buffered_bytes if self._held else 0

    def receive(self, data: bytes) -> None:
        """Bytes from the client."""
        framer = self.framer
        if not self._held and framer.empty:
            private = self.private
            lane = self.lane
            if lane.up and not framer.unauthenticated and (private is None or not self._must_use_private()):
                taken, deals, enough = self.templates.run(data, self, lane.coalescer)
                if taken:
                    self.pending += deals
                    lane.wake()
                    if taken == len(data):
                        return
                    data = data[taken:]
                    if enough:
                        framer.feed(data)
                        self._wait_for_answers()
                        return
                if (request := self.templates.repeated.get(data)) is not None:
                    self._share(request)
                    return
            if private is None:
                if self._may_relay() and not framer.unauthenticated and (kinds := relay.reply_types(data)):
                    self._relay(data, kinds)
                    return
            elif not self.pending and not self.silent and not self.skip_next:
                count = foreign.count_plain(data)
                if count:
                    if not private.uncounted:
                        private.expect(count)
                    self.send_raw(data)
                    return
        framer.feed(data)
        if not self._held:
            self._advance()

    def _advance(self) -> None:
        outermost = self._to_send is None
        if self._to_send is None:
            self._to_send = []
        taken = 0
        while not self._held and not self.closed:
            if self.pending >= _MAX_PENDING:
                self._wait_for_answers()
                break
            if taken == _MAX_FRAMES:
                self._held = True
                self.host.call_soon(lambda: self._go_on(lambda: None))
                break
            frame = self.framer.next()
            if frame is None:
                break
            self._take(frame)
            taken += 1
        if outermost:
            to_send, self._to_send = self._to_send, None
            if to_send:
                self.host.send_private(to_send[0] if len(to_send) == 1 else b"".join(to_send))

    def send_raw(self, data: bytes) -> None:
        """Send bytes on the private lane; those of the frames that came together are sent together."""
        if self._to_send is None:
            self.host.send_private(data)
        else:
            self._to_send.append(data)

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if kind is Kind.COMMAND and table.is_ours(frame.argv[0]):
            self._ours(frame.argv)
        elif kind is Kind.OVERSIZED:
            limit = self.shared.limits.max_body_bytes
            self._answer_here(CommandError(f"the command is larger than max_body_bytes ({limit}) allows"))
        elif kind is Kind.COMMAND or (kind is Kind.STREAM and frame.argv):
            self._foreign(frame)
        else:  # the rest of a large frame, or bytes that Valkey will refuse: its answer, its way to close
            self.when_shared_quiet(lambda: self._pass_on(frame.raw))

    def _pass_on(self, raw: bytes) -> None:
        self.open_private()
        self.send_raw(raw)

    # ---- holding

    def hold(self) -> None:
        """Take no further frames until ``finish``."""
        self._held = True

    def when_shared_quiet(self, then: Callable[[], None]) -> None:
        """Run ``then`` as soon as no answer is due from the shared lane."""
        if self.pending:
            self._held = True
            self._resume = then
        else:
            then()

    def _wait_for_answers(self) -> None:
        """Take no more before all is answered, so that one client's pipeline is not ahead of everybody else's."""
        self.when_shared_quiet(lambda: None)

    def when_private_quiet(self, then: Callable[[], None]) -> None:
        """Run ``then`` as soon as no answer is due from the private lane."""
        if self.private is not None and self.private.outstanding:
            self._held = True
            self._resume = then
        else:
            then()

    def hold_for_mark(self, then: Callable[[], None]) -> None:
        """Hold until the private lane's marker has come, then run ``then``."""
        self._held = True
        self._after_mark = then

    def _resume_if_quiet(self) -> None:
        if self._resume is not None and not self._unread:
            then, self._resume = self._resume, None
            self._go_on(then)

    def set_unread(self, unread: bool) -> None:
        """The client does not read its replies: it gets no more of them; or it reads again."""
        self._unread = unread
        if not (unread or self.pending or (self.private and self.private.outstanding)):
            self._resume_if_quiet()

    def finish(self, data: bytes) -> None:
        """End a hold: ``data`` answers the command that caused it."""
        if not self.closed:
            self._go_on(lambda: self.host.write(data))

    def _go_on(self, first: Callable[[], None]) -> None:
        self._held = False
        first()
        if not self._held and (waiting := self.framer.take_back()):
            self.receive(waiting)
        else:
            self._advance()
        if not self._held:
            self.host.session_resumed()

    # ---- answers

    def answer(self, data: bytes) -> None:
        """One deal's bytes from the shared lane."""
        self.pending -= 1
        if not self.closed:
            self.host.write(data)
            if len(data) > relay.LARGE_REPLY_BYTES:
                self.needs_private = True
            if not self.pending:
                self._resume_if_quiet()

    def answer_fragments(self, fragments: list[bytes]) -> None:
        """One deal's bytes in pieces."""
        for fragment in fragments[:-1]:
            self.host.write(fragment)
        self.answer(fragments[-1])

    def undelivered(self, route: Route, data: bytes) -> None:
        """Messages were popped for this client after it left."""
        self.host.release(route.queue, data)

    def _answer_here(self, value: Any) -> None:
        """Answer a VALQ command without the backend, in its turn."""
        data = value.resp() if isinstance(value, CommandError) else encode(value, self.resp)
        if self.in_multi and isinstance(value, CommandError):
            # As with any command that cannot be queued, EXEC must refuse: a call that Valkey refuses, with our words.
            self._send_watched(b"*1\r\n$5\r\nFCALL\r\n", lambda raw: data if raw[:1] == b"-" else raw)
        elif self.in_multi or self.silent or self.skip_next or (self.private and self.private.uncounted):
            self._send_watched(echo_call(value), lambda raw: raw)
        elif self.private is not None and self.private.outstanding:
            self.when_private_quiet(lambda: self.host.write(data))
        elif self.pending and self.last_call is not None:
            self.last_call.deals.append((self, 0, data))
            self.pending += 1
        else:
            self.host.write(data)

    # ---- VALQ commands

    def _must_use_private(self) -> bool:
        """Whether a VALQ command has to take the private lane to keep its place (and MULTI its meaning)."""
        private = self.private
        return private is not None and (
            private.outstanding > 0
            or private.uncounted
            or self.in_multi
            or self.silent
            or self.skip_next
            or not private.at_boundary  # the rest of a push is still to come
        )

    def _ours(self, argv: list[bytes]) -> None:
        try:
            request = grammar.parse(argv, self.resp, self.shared.limits)
        except CommandError as error:
            self._answer_here(error)
            return
        if request.fair:
            request = request._replace(queues=self.shared.rotated(request.queues))
        if self.must_ask_if_counted():
            foreign.ask_if_counted(self, lambda: self._ours(argv))
        elif not request.function:
            self._help(request)
        elif request.block_ms is not None and self._private_will_be_quiet():
            self.when_private_quiet(lambda: self._ours(argv))
        elif self._must_use_private():
            self._rewrite(request)
        elif not self.lane.up:
            self._answer_here(BackendDown())
        else:
            self._share(request)
            self._learn(argv, request)

    def _private_will_be_quiet(self) -> bool:
        """Whether all that keeps a command from the shared lane are replies that are still to come."""
        private = self.private
        return (
            private is not None
            and private.outstanding > 0
            and not (private.uncounted or self.in_multi or self.silent or self.skip_next)
        )

    def must_ask_if_counted(self) -> bool:
        """Whether a command whose reply must be found has to ask first if replies match requests again."""
        private = self.private
        return private is not None and private.uncounted and self.may_count_again and not self.silent

    def _help(self, request: Request) -> None:
        try:
            self._answer_here(introspection.help_lines(request.args[0] if request.args else None))
        except CommandError as error:
            self._answer_here(error)

    def _share(self, request: Request) -> None:
        """Send over the shared lane."""
        if request.queues:
            self._last_queue = request.queues[0]
        if request.block_ms is not None:
            self.when_shared_quiet(lambda: self._hold_for(self.host.block, request))
        elif request.stepped or request.command in ("list", "info"):
            self.when_shared_quiet(lambda: self._hold_for(self.host.run_steps, request))
        else:
            merge = request.merge
            coalescer = self.lane.coalescer
            if merge is None:
                call = function_call(request, b"e%d" % self.resp, self.shared.auto_create)
                coalescer.lone(self, encode_request(call), lambda reply: self._shape(reply, request))
            else:
                join_merged(coalescer, self, self._route(request, merge), request, self.resp)
            self.pending += 1
            self.lane.wake()

    def _hold_for(self, run: Callable[[Request], None], request: Request) -> None:
        self.hold()
        run(request)

    def _shape(self, reply: Any, request: Request) -> bytes:
        if type(reply) is list:
            reply = b"".join(reply)
        if type(reply) is bytes:
            if self.gone and request.command == "mpop":
                self.host.release(b"", reply)
                return nothing_popped(request, self.resp)
            return reply
        return error_line(reply)

    def _route(self, request: Request, merge: Merge) -> Route:
        return self.shared.routes.get(merge.function, request.queues[0], merge.takes_auto, merge.fixed)

    def _learn(self, argv: list[bytes], request: Request) -> None:
        """Teach the fast path what this command looks like, if clients are likely to send its like again."""
        merge = request.merge
        arguments = len(argv) - (2 if argv[0].upper() == b"VALQ" else 1)
        if request.command in ("pop", "mpop"):
            if merge is not None and arguments == 1:
                prefix, wanted = encode_request(argv), bulk(merge.items[0])
                self.templates.learn(PopTemplate(prefix, self._route(request, merge), wanted, NULL[self.resp]))
            elif not request.fair:
                self.templates.learn_whole(encode_request(argv), request)
        elif request.command in ("push", "ack") and merge is not None and arguments == 2:
            prefix = b"*%d\r\n%b$" % (len(argv), b"".join([bulk(arg) for arg in argv[:-1]]))
            template = PushTemplate if request.command == "push" else AckTemplate
            most_bytes = self.shared.limits.max_body_bytes
            self.templates.learn(template(prefix, self._route(request, merge), most_bytes))

    def _rewrite(self, request: Request) -> None:
        """Send over the private lane, as the FCALL that it is."""
        if self.in_multi and not self._library_probed:
            # Inside MULTI a missing library could not be made good any more.
            self._library_probed = True
            self.hold()
            self.host.load_library(lambda: self._rewrite_after_probe(request))
            return
        call = encode_request(function_call(request, b"n%d" % self.resp, self.shared.auto_create))

        def watch(raw: bytes) -> bytes | Slot:
            if raw[:1] != b"-":
                return raw
            private = self.private
            if raw == _MISSING_FUNCTION and private is not None:
                slot = Slot()
                self.host.load_library(lambda: self._repeat(private, call, slot))
                private.outstanding += 1  # not quiet before the repeated call is answered
                return slot
            return raw.partition(b" script: valq")[0].rstrip(b"\r\n") + b"\r\n"

        self._send_watched(call, watch)

    def _rewrite_after_probe(self, request: Request) -> None:
        if not self.closed:
            self._go_on(lambda: self._rewrite(request))

    def _repeat(self, private: PrivateReplies, call: bytes, slot: Slot) -> None:
        if self.private is private and not self.closed:
            private.outstanding -= 1
            private.expect_again(slot)
            self.send_raw(call)

    # ---- foreign commands

    def _may_relay(self) -> bool:
        """Whether simple commands of this (clean) client may ride on the shared lane."""
        allowed = self.shared.relaying and not (self.needs_private or self.silent or self.skip_next)
        return allowed and self.resp == 2 and self.lane.up

    def _relay(self, request: bytes, kinds: list[ReplyType]) -> None:
        """Send simple requests over the shared lane."""
        self.lane.coalescer.relay(self, request, kinds)
        self._last_queue = self._last_queue or _ANY_QUEUE
        self.pending += 1
        self.lane.wake()

    def _foreign(self, frame: Frame) -> None:
        name = frame.argv[0].upper()
        if self.private is None:
            if handshake.take(self, name, frame):
                return
            if frame.kind is Kind.COMMAND and self._may_relay() and len(frame.raw) <= relay.MAX_REQUEST_BYTES:
                kind = relay.reply_type(frame.argv)
                if kind is not None and self.pending < relay.MAX_REQUESTS:
                    self._relay(encode_request(frame.argv), [kind])
                    return
        self.when_shared_quiet(lambda: foreign.forward(self, name, frame))

    def open_private(self) -> PrivateReplies:
        """The private lane's expectations; opens the lane if there is none."""
        if self.private is None:
            self.private = PrivateReplies()
            self._replay(self.private)
        return self.private

    def _replay(self, private: PrivateReplies) -> None:
        """Bring a new backend connection into this client's state; the replies are swallowed."""
        requests = self.identity.greeting()
        if self.resp != 2:
            requests.append([b"HELLO", b"%d" % self.resp])
        requests += [[*name.split(b" "), value] for name, value in self.client_info.items()]
        for _ in requests:
            private.expect_own(self._swallow_or_close)
        if requests:
            self.send_raw(b"".join([encode_request(request) for request in requests]))

    def _swallow_or_close(self, raw: bytes) -> bytes:
        if raw[:1] == b"-":  # this identity has lost its rights since it was proved
            self.host.close()
            return raw
        return b""

    def send_plain(self, raw: bytes, replies: int) -> None:
        """Send client bytes on the private lane that will be answered by ``replies`` replies."""
        private = self.open_private()
        skip, self.skip_next = self.skip_next, False
        if not (private.uncounted or self.silent or skip):
            private.expect(replies)
        self.send_raw(raw)
        if skip:
            self._fence_skip()

    def _send_watched(self, raw: bytes, watch: Callable[[bytes], bytes | Slot]) -> None:
        private = self.open_private()
        skip, self.skip_next = self.skip_next, False
        if not (private.uncounted or self.silent or skip):
            private.expect_special(watch)
        self.send_raw(raw)
        if skip:
            self._fence_skip()

    def send_watched(self, raw: bytes, watch: Callable[[bytes], bytes]) -> None:
        """Send client bytes whose one reply goes through ``watch``."""
        self._send_watched(raw, watch)

    def _fence_skip(self) -> None:
        """A silent command is under way: a reply of our own asking tells when it is done."""
        if not (self.in_multi or self.silent) and self.private is not None and not self.private.uncounted:
            self.private.expect_own(lambda raw: b"")
            self.send_raw(b"*1\r\n$4\r\nPING\r\n")

    def private_bytes(self, data: bytes) -> None:
        """Bytes from the private lane.  What is held of a push is bounded by what Valkey buffers for a subscriber."""
        private = self.private
        if private is None:
            return
        out = private.feed(data)
        if self.pending or self._cut_push:  # answers of the shared lane must not get into the middle of a push
            self._cut_push += out
            out = b""
            if private.at_boundary:
                out = bytes(self._cut_push)
                self._cut_push.clear()
        if out:
            self.host.write_first(out)
        if self._after_mark is not None and not private.awaits_marker:
            then, self._after_mark = self._after_mark, None
            self._go_on(then)
        elif self._resume is not None and not private.outstanding and not self.pending:
            self._resume_if_quiet()

    def private_lost(self, sent: bool) -> None:
        """The backend is down and with it the private lane: its open replies become errors.

        A client whose connection held state that cannot be made again is closed.  ``sent``: it was connected.
        """
        private, self.private = self.private, None
        if private is None:
            return
        if private.at_boundary and not self.silent:
            self.host.write(BackendDown(under_way=sent).resp() * (1 if private.uncounted else private.owed))
        has_state = sent and (self.in_multi or self.has_state)
        if has_state or private.uncounted or self.silent or not private.at_boundary:
            self.host.close()
            return
        self.has_state = False
        self.leave_multi()
        self._resume_if_quiet()

    def fence(self) -> None:
        """Before WAIT: a write on the private lane, so that WAIT covers what the shared lane wrote before."""
        queue = self._last_queue
        if self.last_call is not None and self.last_call.route.queue:
            queue = self.last_call.route.queue
        self._last_queue = self.last_call = None
        if queue is not None and not self.in_multi:
            call = fcall("fence", [queue_key(queue)])
            private = self.open_private()
            if self.silent:
                self.send_raw(encode_request(call))
            elif not private.uncounted:
                private.expect_own(lambda raw: b"")
                self.send_raw(encode_request(call))

    # ---- state

    def set_identity(self, identity: Identity) -> None:
        """The backend has accepted this client as ``identity``."""
        self.identity = identity
        self.lane = self.host.lane(identity)
        self.framer.unauthenticated = False

    def set_db(self, db: int) -> None:
        """The backend has accepted SELECT."""
        self.set_identity(replace(self.identity, db=db, db_first=False))

    def set_resp(self, resp: int) -> None:
        """The backend has accepted HELLO."""
        self.resp = resp
        self.templates = self.shared.templates[resp]

    def reset(self) -> None:
        """The backend has accepted RESET."""
        self.leave_multi()
        self.silent = self.skip_next = self.has_state = False
        self.client_info.clear()
        self.set_resp(2)
        self.set_identity(Identity())

    def leave_multi(self) -> None:
        """EXEC, DISCARD or RESET."""
        self.in_multi = self._library_probed = False
        self.queued_in_multi = []
