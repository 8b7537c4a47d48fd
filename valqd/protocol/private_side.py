"""One client's side of its private lane: opening it, what goes over it, and the state that its connection holds.

    foreign commands ──▶ send_plain, send_watched ─┐
    VALQ commands as FCALL ─▶ (private_calls) ─────┤──▶ private lane ──▶ received ──▶ client
    Pub/Sub ─▶ stop_counting, ask_if_counted ──────┘        (what is expected: private_replies)

Which lane a command takes, and when, is the session's to decide.  Inside MULTI, after CLIENT REPLY OFF or SKIP, and
while replies do not match requests (Pub/Sub, MONITOR), it can only be this one.

Bounds: what is held of a push is bounded by what Valkey buffers for a subscriber; the rest is ``PrivateReplies``'.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from valqd.errors import BackendDown, CommandError
from valqd.protocol.monitor import MonitorFilter
from valqd.protocol.private_calls import ANY_QUEUE, PrivateCalls
from valqd.protocol.private_replies import Gap, PrivateReplies
from valqd.protocol.replay import replay
from valqd.protocol.requests import encode_own

if TYPE_CHECKING:
    from valqd.protocol.session import Session

#: How a mark is answered where a connection only takes Pub/Sub.
_REFUSED = b"-ERR Can't execute 'hello': only "
#: Commands under way that may wait for others beyond which the client's next ones wait.
_MAX_WAITING = 1024


class Transaction:
    """A MULTI under way, and what its EXEC will do."""

    def __init__(self) -> None:
        self.began = 0  # replies expected before the first of its commands
        self.subscribes = False
        self.discarded_at = 0  # which of all replies is DISCARD's: nothing is sent behind it before it comes
        #: what will change in this session by the element (maybe an error) at that place of EXEC's reply: takes that
        #: element, returns what the client gets instead
        self.effects: list[tuple[int, Callable[[bytes], bytes]]] = []
        self.changes: set[bytes] = set()  # commands of these names change the session


class PrivateSide:
    """Of one session.  ``replies`` is None while the lane is not open."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.replies: PrivateReplies | None = None
        self.why_lost: CommandError = BackendDown()  # of the lane before
        # State that the backend's connection holds
        self.multi: Transaction | None = None
        self.has_state = False  # CLIENT TRACKING and the like: cannot be made again on another connection
        self.was_special = False  # a command was sent that means something to its connection
        self.watches = False  # WATCH, and no EXEC, DISCARD or UNWATCH since
        self.changes_at = 0  # which of all replies tells whether it is another user, or in another database, now
        self.silent = False  # CLIENT REPLY OFF
        self.skip_next = False  # CLIENT REPLY SKIP
        self.streaming = False  # the first pieces of a large frame were sent, and its end was not
        self.is_broken = False  # a protocol error was passed on: Valkey is to answer it, and to close
        self.identity_is_unknown = False  # it may be another user, or in another database, than the session
        self.resp_is_unknown = False  # it may speak another protocol version than the session
        self.pops_due = 0  # replies still to come that may hold popped messages
        self.may_count_again = False  # while uncounted: Pub/Sub may be over, or never was in the way (RESP3)
        self.may_be_subscribed = False
        #: which of all replies (1: the first on this lane) are those of blocking commands under way, oldest first
        self._waiting_places: deque[int] = deque()
        self.calls = PrivateCalls(self)
        self._behind_stream: list[bytes] = []  # the daemon's own requests, kept until the large frame has ended
        self._marks = 0  # marks sent so far: each is another, so that no old answer is taken for a new one
        self._after_mark: Callable[[], None] | None = None  # runs when ``ask_if_counted`` has its answer
        self._batch: list[bytes] | None = None  # between begin_batch and end_batch: what was sent in that time
        self._cut_push = bytearray()  # bytes held back because an answer must not get into the middle of a push
        self._monitor: MonitorFilter | None = None  # while it is in MONITOR
        self._may_be_refused = False  # SYNC was sent; the first byte of the answer tells

    # ---- what the session asks

    @property
    def outstanding(self) -> int:
        """Replies that are still to come."""
        return self.replies.outstanding if self.replies is not None else 0

    @property
    def has_many_due(self) -> bool:
        """Whether no more may be sent before all is answered (the rest of a large frame has to)."""
        has_many = self.replies is not None and self.replies.has_many
        return (has_many or len(self._waiting_places) > _MAX_WAITING) and not self.streaming

    @property
    def is_quiet(self) -> bool:
        """Whether neither a reply nor the rest of a push is still to come: what is written now is in its place.

        Among replies that do not match requests nothing is written.
        """
        replies = self.replies
        return replies is None or (not replies.outstanding and (replies.at_boundary or replies.uncounted))

    @property
    def uncounted(self) -> bool:
        """Whether replies do not match requests."""
        return self.replies is not None and self.replies.uncounted

    @property
    def in_multi(self) -> bool:
        """Whether commands are queued for EXEC."""
        return self.multi is not None

    @property
    def mute(self) -> bool:
        """Whether the next command gets no reply."""
        return self.silent or self.skip_next

    @property
    def tells_nothing(self) -> bool:
        """Whether the session cannot learn how the next command ends: its reply does not come, or cannot be found."""
        return self.mute or self.uncounted

    @property
    def alters_replies(self) -> bool:
        """Whether even what the daemon answers itself has to take its place here."""
        return self.in_multi or self.tells_nothing

    @property
    def may_block(self) -> bool:
        """Whether a command that may wait until another client does something (BLPOP) is under way."""
        return bool(self._waiting_places)

    @property
    def message_may_come(self) -> bool:
        """Whether popped messages may be on their way to the client.

        Not if the next reply is that of a blocking command: what was sent behind it has not been run.
        """
        replies, waiting = self.replies, self._waiting_places
        return self.pops_due > 0 and not (replies is not None and waiting and replies.answered + 1 == waiting[0])

    @property
    def must_be_used(self) -> bool:
        """Whether a VALQ command has to come this way to keep its place (and MULTI its meaning)."""
        return not self.is_quiet or self.alters_replies or self.identity_is_unknown

    @property
    def must_ask_if_counted(self) -> bool:
        """Whether a command whose reply must be found has to ask first if replies match requests again."""
        return self.may_count_again and self.can_ask

    @property
    def can_ask(self) -> bool:
        """Whether a mark among replies that do not match requests would be answered."""
        raw = self.replies is not None and self.replies.raw
        return self.uncounted and not (raw or self.silent or self.in_multi)

    @property
    def is_spare(self) -> bool:
        """Whether another connection would do as well: nothing is due, and no command was one of its connection's."""
        return self.is_quiet and not (self.was_special or self.has_state or self.streaming or self.is_broken)

    # ---- opening

    def open(self) -> PrivateReplies:
        """What is expected; opens the lane if it is not."""
        if self.replies is None:
            self.replies = PrivateReplies()
            replay(self.session, self.replies)
        return self.replies

    # ---- sending

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        if self._batch is None:
            self.session.host.send_private(data)
        else:
            self._batch.append(data)

    def send_own(self, data: bytes) -> None:
        """Send what the daemon asks itself, but not in the middle of a client's large frame."""
        if self.streaming:
            self._behind_stream.append(data)
        else:
            self.send(data)

    def send_when_quiet(self, send: Callable[[], None]) -> None:
        """Run ``send``, which sends the request that the session has just taken, when nothing is due any more.

        If that is large, its first piece has not left until then: ``streaming`` is not yet true, and the daemon's own
        requests need not wait for its end.
        """
        streaming, self.streaming = self.streaming, False

        def go_on() -> None:
            self.streaming = streaming
            send()

        self.session.when_private_quiet(go_on)

    def stream_ended(self) -> None:
        """The last piece of a large frame was sent."""
        behind, self._behind_stream = self._behind_stream, []
        for data in behind:
            self.send(data)

    def begin_batch(self) -> None:
        """What follows is sent together, by ``end_batch``."""
        self._batch = []

    def end_batch(self) -> None:
        """Send what came since ``begin_batch``."""
        batch, self._batch = self._batch, None
        if batch:
            self.session.host.send_private(batch[0] if len(batch) == 1 else b"".join(batch))

    def send_plain(self, raw: bytes, count: int) -> None:
        """Send requests of the client that will be answered by ``count`` replies."""
        self._send_expecting(raw, lambda replies: replies.expect(count))

    def send_unanswered(self, raw: bytes) -> None:
        """Send a request of the client that has no reply unless it is refused."""
        self.skip_next = True  # as if the client had said so
        self.send_plain(raw, 1)

    def send_waiting(self, raw: bytes) -> None:
        """Send a request of the client that may wait until another client does something."""
        self.send_plain(raw, 1)
        place = self.open().asked
        if not self._waiting_places or self._waiting_places[-1] != place:  # the same: this one has no reply
            self._waiting_places.append(place)

    def send_watched(self, raw: bytes, watch: Callable[[bytes], bytes | Gap], pops: bool = False) -> None:
        """Send a request whose one reply goes through ``watch``.  ``pops``: it may hold popped messages."""
        self._send_expecting(raw, lambda replies: replies.expect_special(self._counted_pop(watch) if pops else watch))

    def _send_expecting(self, raw: bytes, expect: Callable[[PrivateReplies], None]) -> None:
        """Send; ``expect`` notes the replies, unless there are none or they cannot be told from others."""
        replies = self.open()
        skip, self.skip_next = self.skip_next, False
        if not (replies.uncounted or self.silent or skip):
            expect(replies)
        self.send(raw)
        if skip:
            self.calls.look_again()
            self._fence_skip()

    def _counted_pop(self, watch: Callable[[bytes], bytes | Gap]) -> Callable[[bytes], bytes | Gap]:
        self.pops_due += 1

        def counted(raw: bytes) -> bytes | Gap:
            self.pops_due -= 1
            return watch(raw)

        return counted

    def _fence_skip(self) -> None:
        """The command behind CLIENT REPLY SKIP was sent: the reply to a mark sent behind it tells when it is done.

        If a reply comes before that of the mark, SKIP (or what has no reply) was refused, and it is the client's.
        """
        if not self.alters_replies and self.replies is not None:
            request, answer = self._new_mark()
            self.replies.expect_until((answer, _REFUSED))
            self.send_own(request)

    def _new_mark(self) -> tuple[bytes, bytes]:
        """A request and how its reply begins, which is not to be mistaken.

        A wrong HELLO changes nothing, and is answered alike to anybody at any time (no right, no password, BUSY,
        LOADING, MASTERDOWN), but where a connection only takes Pub/Sub.
        """
        self._marks += 1
        mark = b"valqd-mark-%d-%d" % (self.session.client_id, self._marks)
        return encode_own([b"HELLO", b"2", mark]), b"-ERR Syntax error in HELLO option '%b'" % mark

    def queue_in_multi(self, effect: Callable[[bytes], bytes]) -> None:
        """The next command to be queued changes this session by ``effect``, if EXEC runs it (see Transaction)."""
        assert self.multi is not None
        self.multi.effects.append((self.open().asked - self.multi.began, effect))

    # ---- Pub/Sub and the like

    def stop_counting(self, raw: bytes, *, stream: bool = False, monitor: bool = False) -> None:
        """Send a request from which on replies do not match requests, as soon as all that are due have come.

        ``stream``: a replication stream begins, unless it is refused.  ``monitor``: the request is MONITOR.  What is in
        MONITOR stays there: Valkey answers neither another one nor SYNC.
        """
        if self._monitor is not None:
            self.send(raw)
            return
        replies = self.open()

        def send() -> None:
            if self.replies is not replies:  # the lane was lost, or refused, before
                self.session.host.write(self.why_lost.resp())
                self.session.close(gently=True)
                return
            replies.stop_counting()
            self.skip_next = False
            self.calls.look_again()
            self._may_be_refused |= stream and not replies.raw
            replies.raw = stream
            self._monitor = MonitorFilter(replies.scanner()) if monitor else None
            self.may_count_again = not monitor
            self.send(raw)

        self.send_when_quiet(send)

    @property
    def is_subscribed(self) -> bool:
        """Whether the backend only takes what has to do with Pub/Sub (RESP2) and refuses the rest."""
        return self.uncounted and self._monitor is None and self.session.resp == 2

    def set_resp(self, resp: int) -> None:
        """HELLO was accepted, or nothing will tell.  In RESP2 a subscriber's messages come among its replies."""
        if resp == 2 and self.session.resp == 3 and self.may_be_subscribed:
            self.open().stop_counting()
            self.may_count_again = True
        self.session.set_resp(resp)

    def reset_uncounted(self, raw: bytes) -> None:
        """Send RESET while replies do not match requests."""
        self.open().stop_counting()
        self.send(raw)
        self.session.reset()
        self.ask_if_counted(lambda: None)

    def ask_if_counted(self, then: Callable[[], None], hello: bytes = b"") -> None:
        """Does an uncounted connection answer one to one again?  The reply to a mark tells; then run ``then``.

        ``hello``: the client's own, sent before, whose refusal looks like the mark's.
        """
        replies = self.open()
        request, answer = self._new_mark()
        replies.await_marker(ends=answer, goes_on=_REFUSED, behind_one=bool(hello))
        self.may_count_again = False
        self._after_mark = then
        self.session.hold()
        self.send(hello + request)

    # ---- from the backend

    def received(self, data: bytes) -> None:
        """Bytes from the backend."""
        session, replies = self.session, self.replies
        assert replies is not None, "from a lane that is not open"
        if self._may_be_refused:
            self._may_be_refused = False
            if data[:1] == b"-":
                replies.raw = False
                self.may_count_again = True
        out = replies.feed(data)
        waiting = self._waiting_places
        while waiting and waiting[0] <= replies.answered:
            waiting.popleft()
        if self._monitor is not None:
            out = self._monitor.feed(out)
            if self._monitor.was_refused or not replies.uncounted:
                self.may_count_again = self._monitor.was_refused
                out += self._monitor.end()
                self._monitor = None
        if self._cut_push or session.pending or (session.held and not replies.outstanding):
            # An answer of the shared lane, or of the daemon, may come, and must not get into the middle of a push.
            self._cut_push += out
            held_back = len(self._cut_push)
            is_counted = self._monitor is None or replies.at_boundary  # its filter alters how many there are
            whole = replies.whole_bytes(held_back) if is_counted else 0
            out = bytes(self._cut_push[:whole])
            del self._cut_push[:whole]
        if out and not session.closed:  # closed gently, it takes no more
            session.host.write_now(out)
        if self._after_mark is not None and not replies.awaits_marker:
            then, self._after_mark = self._after_mark, None
            self.may_be_subscribed &= replies.uncounted or session.resp == 3  # which has no mark that would tell
            session.go_on(then)
        else:
            session.resume_if_quiet()

    def lost(self, error: CommandError, sent: bool) -> None:
        """The lane is gone, or there is none to be had: its open replies become errors.

        A client whose connection held state that cannot be made again is closed.  ``sent``: it was connected.
        """
        replies, self.replies, self.why_lost = self.replies, None, error
        assert replies is not None, "a lane that is not open"
        self.pops_due = 0
        self.calls.forget()
        self._waiting_places.clear()
        self._behind_stream = []
        if replies.at_boundary and not self.silent:
            # Uncounted: if it was never sent, the request that stopped the counting is to be answered (SUBSCRIBE).
            owed = replies.owed if not replies.uncounted else 0 if sent else 1
            self.session.host.write(error.resp() * owed)
        # What follows a MULTI, or a SELECT, is sent without looking: it is not to be run outside of it, or elsewhere.
        # Behind a DISCARD nothing is in the MULTI any more.
        multi = self.multi
        in_multi = multi is not None and multi.discarded_at <= replies.answered
        in_doubt = (in_multi or self.changes_at > replies.answered) and isinstance(error, BackendDown)
        has_state = in_doubt or (sent and (self.has_state or self.watches or self.may_be_subscribed))
        if has_state or replies.uncounted or self.mute or self.is_broken or not replies.at_boundary:
            self.session.close(gently=True)  # what it has sent beyond this is not to be run without that state
            return
        if sent:  # WAIT on another connection covers nothing that was written on this one
            self.session.last_queue = self.session.last_queue or ANY_QUEUE
        self.reset()
        self.session.resume_if_quiet()

    def leave(self) -> None:
        """Do without the lane until it is needed again.  It must be spare; one that is lost is left to ``lost``."""
        session = self.session
        if not session.host.close_private():
            return
        self.replies = None
        self.calls.forget()
        self.reset()
        session.last_queue = session.last_queue or ANY_QUEUE  # WAIT on another connection covers nothing of this one
        if session.client_name:
            session.lane.take_name(session, session.client_name)

    # ---- state

    def untold(self, names: Collection[bytes]) -> None:
        """Commands of these names were sent, and no reply will tell whether they were accepted."""
        self.identity_is_unknown = self.has_state = True
        self.resp_is_unknown |= b"HELLO" in names

    def await_identity(self) -> None:
        """The reply to what was sent last tells who it is: if it is lost, what is behind it is not to be run."""
        self.changes_at = self.open().asked

    def leave_multi(self) -> None:
        """EXEC, DISCARD or RESET, or MULTI was refused: commands run at once again."""
        self.multi = None
        self.calls.look_again()

    def reset(self) -> None:
        """Nothing is left of what its connection held: RESET, or there is no connection any more."""
        self.leave_multi()
        self.silent = self.skip_next = self.may_be_subscribed = False
        self.has_state = self.watches = self.identity_is_unknown = self.resp_is_unknown = self.was_special = False
        self.changes_at = 0
