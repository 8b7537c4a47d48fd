"""Commands that are not ours: what the session must know about the few that change a connection's state.

Everything passes to Valkey byte for byte; a command that is not in ``SPECIAL`` has one reply and changes nothing that
concerns order or identity.  Watching a reply never changes it, those of COMMAND and CLIENT KILL excepted.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

from valqd.protocol import client_command, command_reply, handshake
from valqd.protocol.framing import Frame, Kind
from valqd.protocol.private_side import PrivateSide, Transaction
from valqd.protocol.replies import split_elements
from valqd.protocol.watched import Effect, Handler, if_ok, ok, unless_subscribed
from valqd.protocol.whole import MAX_CHUNK_BYTES, may_be_huge, parse

#: Names (as clients spelled them) known to be neither ours nor special.  Bounded by starting afresh.
_PLAIN_NAMES: set[bytes] = set()
_MAX_PLAIN_NAMES = 2048

_LISTS = frozenset({list})
_name = itemgetter(0)


def count_plain(data: bytes, likely: int) -> int:
    """How many requests ``data`` holds (probably ``likely``) if all are whole multibulks of plain commands; else 0.

    hiredis reads some bytes as a request that Valkey refuses as a protocol error; they pass to Valkey all the same,
    which answers and closes.
    """
    if data[0] != 0x2A or len(data) > MAX_CHUNK_BYTES or may_be_huge(data):
        return 0
    # Valkey reads pushes, maps, sets and attributes line by line, as inline commands.
    if (b"~" in data and b"\n~" in data) or (b"|" in data and b"\n|" in data):
        return 0
    requests = parse(data, likely)
    if requests is None or not _LISTS.issuperset(map(type, requests)):
        return 0
    try:
        return len(requests) if _PLAIN_NAMES.issuperset(map(_name, requests)) else 0
    except (LookupError, TypeError):  # no name, or one that is an array
        return 0


def remember(name: bytes) -> None:
    """Requests of that name are plain."""
    if len(_PLAIN_NAMES) >= _MAX_PLAIN_NAMES:
        _PLAIN_NAMES.clear()
    _PLAIN_NAMES.add(name)


def forward(side: PrivateSide, name: bytes, frame: Frame) -> None:
    """Send one foreign request on the private lane; ``name`` is in upper case.

    Of a large one only the name is known, and ``frame.raw`` is its first piece: those that need more than that to be
    understood pass as plain ones.
    """
    special = SPECIAL.get(name) if frame.kind is Kind.COMMAND or name in _KNOWN_BY_NAME else None
    side.was_special |= (name in SPECIAL and name != b"COMMAND") or name in _OF_THE_CONNECTION
    blocks = _blocks(name, frame) and not side.in_multi
    if blocks and side.session.gone:
        side.session.when_private_quiet(side.session.close)  # it would take something for nobody
    elif side.calls.are_due and (special is not None or blocks):
        # They may have to be repeated, behind what came since: this would change what they do, or keep them waiting.
        side.send_when_quiet(lambda: forward(side, name, frame))
    elif blocks:
        side.send_waiting(frame.raw)
    elif special is None:
        if frame.kind is Kind.COMMAND and not (name in _BLOCKING or name in _OF_THE_CONNECTION) and len(name) < 64:
            remember(frame.argv[0])
        side.send_plain(frame.raw, 1)
        if frame.kind is Kind.STREAM and name in (b"AUTH", b"HELLO"):
            side.untold([name])
            side.await_identity()
        elif frame.kind is Kind.STREAM and name == b"CLIENT":
            side.has_state = True
    elif side.multi is not None and name in _AWAIT_MULTI and not side.is_quiet:
        side.send_when_quiet(lambda: forward(side, name, frame))
    elif side.multi is not None and name in (b"MULTI", b"WATCH"):  # refused, never queued: EXEC's reply lacks them
        side.send_plain(frame.raw, 1)
        side.multi.began += 1
    elif side.multi is not None and name not in _AT_ONCE_IN_MULTI:
        _queue_in_multi(side, side.multi, name, frame)
    else:
        special(side, frame.argv, frame.raw)


def _blocks(name: bytes, frame: Frame) -> bool:
    """Whether it may wait for others, and take something then."""
    if name not in _BLOCKING:
        return False
    return not (name[:1] == b"X" and frame.kind is Kind.COMMAND and b"BLOCK" not in map(bytes.upper, frame.argv))


def _queue_in_multi(side: PrivateSide, multi: Transaction, name: bytes, frame: Frame) -> None:
    """Inside MULTI a command only takes effect with EXEC."""
    raw, resp = frame.raw, side.session.resp
    change: Callable[[bytes], bytes]
    if name == b"CLIENT" and frame.argv[1:2] and frame.argv[1].upper() == b"KILL":
        change = client_command.kills_here(side, frame.argv)
    elif (effect := _EFFECTS.get(name)) is not None:
        multi.changes.add(name)
        change = if_ok(lambda: effect(side, frame.argv))
    elif name == b"COMMAND" and not multi.subscribes and (asked := command_reply.asked_instead(frame.argv, resp)):
        raw, change = asked
    else:
        side.send_plain(raw, 1)
        return
    side.queue_in_multi(change)
    # Where MULTI was refused it runs at once, and this is not "queued", but its own reply.
    side.send_watched(raw, lambda reply: change(reply) if reply != b"+QUEUED\r\n" else reply)


@unless_subscribed
def _multi(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    """What follows is taken to be inside; a refusal (the user may not) tells that all of it was run at once."""
    if len(argv) != 1:
        side.send_plain(raw, 1)
        return
    multi = side.multi = Transaction()

    def watch(reply: bytes) -> bytes:
        if not ok(reply) and side.multi is multi:
            side.leave_multi()
        return reply

    side.send_watched(raw, watch)
    multi.began = side.open().asked


def _exec(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    multi = side.multi
    side.leave_multi()
    if multi is None or len(argv) != 1:  # refused, and the transaction with it
        side.send_plain(raw, 1)
        return
    side.watches = False
    if multi.changes and (multi.subscribes or side.silent):
        side.untold(multi.changes)
    if multi.subscribes:
        side.stop_counting(raw)
        return

    def watch(reply: bytes) -> bytes:
        if reply[:1] != b"*" or reply[:3] == b"*-1":
            return reply
        results = split_elements(reply)
        for place, effect in multi.effects:
            results[place] = effect(results[place])
        return reply[: reply.index(b"\n") + 1] + b"".join(results)

    if multi.effects and not side.silent:
        side.send_watched(raw, watch, pops=True)
        if multi.changes:
            side.await_identity()
            side.session.wait_for_private()  # what follows builds on a state that is still to be
    else:
        side.send_plain(raw, 1)


def _watch(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    side.watches = True  # by the order of requests, not of replies: even if it is refused
    side.send_plain(raw, 1)


def _unwatch(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    watched = side.watches
    side.watches &= side.tells_nothing

    def watch(reply: bytes) -> bytes:
        side.watches |= watched and not ok(reply)
        return reply

    side.send_watched(raw, watch)


def _discard(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    if len(argv) == 1 and side.silent:  # nothing will tell
        side.leave_multi()
    if len(argv) != 1 or side.silent:
        side.send_plain(raw, 1)
        return

    def done() -> None:
        side.leave_multi()
        side.watches = False

    side.send_watched(raw, if_ok(done))
    if side.multi is not None:
        side.multi.discarded_at = side.open().asked
    side.session.wait_for_private()  # the user may not be allowed to


def _quit(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    """What comes behind it is not run, unless it was refused.

    While nothing is answered (CLIENT REPLY OFF) it is not sent: Valkey would close the connection without a word, too.
    """
    leaves = False

    def watch(reply: bytes) -> bytes:
        nonlocal leaves
        leaves = ok(reply)
        return reply

    if side.mute:
        leaves = True
    else:
        side.send_watched(raw, watch)
    side.session.when_private_quiet(lambda: side.session.close(gently=True) if leaves else None)


def _replconf(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    if {b"ACK", b"GETACK"}.intersection(map(bytes.upper, argv[1::2])):
        side.send_unanswered(raw)
    else:
        side.send_plain(raw, 1)


def _select_effect(side: PrivateSide, argv: list[bytes]) -> None:
    side.session.accepted_as(side.session.identity.in_db(int(argv[1])))


def _auth_effect(side: PrivateSide, argv: list[bytes]) -> None:
    user = argv[1] if len(argv) == 3 else None
    side.session.accepted_as(side.session.identity.as_user(user, argv[-1]))


def _hello_effect(side: PrivateSide, argv: list[bytes]) -> None:
    hello = handshake.Hello.of(argv)
    if hello.password is not None:
        side.session.accepted_as(side.session.identity.as_user(hello.user, hello.password))
    if hello.resp is not None:
        side.set_resp(hello.resp)
    if hello.name is not None:
        side.session.client_name = hello.name


#: What they change in the session when they are accepted; CLIENT only inside MULTI, or see ``client_command``.
_EFFECTS: dict[bytes, Effect] = {
    b"CLIENT": client_command.effect,
    b"SELECT": _select_effect,
    b"AUTH": _auth_effect,
    b"HELLO": _hello_effect,
}


@unless_subscribed
def _watched_effect(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    """A command that changes who or what the session is, if the backend accepts it."""
    name = argv[0].upper()
    if name != b"SELECT" and not side.is_quiet:
        # Valkey before 9 leaves the error of a refused AUTH out while it has other replies to send.
        side.send_when_quiet(lambda: _watched_effect(side, argv, raw))
        return
    effect = _EFFECTS[name]
    resp = None
    if side.tells_nothing:
        side.untold([name])
        resp = handshake.Hello.of(argv).resp if name == b"HELLO" else None
    side.send_watched(raw, if_ok(lambda: effect(side, argv)))
    if name != b"HELLO" or handshake.Hello.of(argv).password is not None:
        side.await_identity()
    if name == b"HELLO":  # what follows is to be read in the protocol version that it brings
        side.session.when_private_quiet(lambda: side.set_resp(resp) if resp is not None else None)
    elif side.session.framer.unauthenticated:  # how much may follow depends on the answer
        side.session.wait_for_private()


def _reset(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    if len(argv) != 1:
        side.send_plain(raw, 1)
    elif side.tells_nothing:
        side.session.when_private_quiet(lambda: side.reset_uncounted(raw))
    else:
        side.leave_multi()
        side.send_watched(raw, if_ok(side.session.reset))
        side.await_identity()
        side.session.wait_for_private()  # what follows builds on a state that is still to be


def _subscribe(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    """Replies stop matching requests: each channel is confirmed by a message, in RESP3 by a push."""
    side.may_be_subscribed |= b"UNSUBSCRIBE" not in argv[0].upper()
    if side.multi is not None:
        side.multi.subscribes = True
        side.send_plain(raw, 1)
    else:
        side.stop_counting(raw)


@unless_subscribed
def _monitor(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    side.stop_counting(raw, monitor=True)


def _sync(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    side.stop_counting(raw, stream=True)


@unless_subscribed
def _command(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    asked = command_reply.asked_instead(argv, side.session.resp)
    if asked is None or side.uncounted:  # the reply to what stands in for it would not be found
        side.send_plain(raw, 1)
    else:
        side.send_watched(*asked)
        side.session.wait_for_private()  # to complete the reply takes some time: one at a time


@unless_subscribed
def _wait(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    side.session.fence(lambda: side.send_waiting(raw))


_PUBSUB = frozenset({
    b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE",
})  # fmt: skip

#: From them on, replies do not match requests.
_STOP_COUNTING = _PUBSUB | {b"MONITOR", b"SYNC", b"PSYNC"}

#: What they do to the connection is told by their name alone, however many arguments they have.
_KNOWN_BY_NAME = _STOP_COUNTING | {b"WATCH"}

_BLOCKING = frozenset({
    b"BLPOP", b"BRPOP", b"BLMOVE", b"BRPOPLPUSH", b"BLMPOP", b"BZPOPMIN", b"BZPOPMAX", b"BZMPOP", b"XREAD",
    b"XREADGROUP",
})  # fmt: skip

#: Behind a MULTI that was refused these change the connection at once: its answer is waited for before they are sent.
_AWAIT_MULTI = _STOP_COUNTING | {b"CLIENT", b"MULTI", b"WATCH"}

#: Change the connection, but nothing that the session has to know.
_OF_THE_CONNECTION = frozenset({b"READONLY", b"READWRITE", b"ASKING", b"SCRIPT"})

#: Go to their own handlers even inside MULTI; of all others it is only noted what EXEC will change.
_AT_ONCE_IN_MULTI = _PUBSUB | {b"EXEC", b"DISCARD", b"RESET", b"QUIT"}

SPECIAL: dict[bytes, Handler] = {
    b"MULTI": _multi,
    b"EXEC": _exec,
    b"DISCARD": _discard,
    b"SELECT": _watched_effect,
    b"AUTH": _watched_effect,
    b"HELLO": _watched_effect,
    b"RESET": _reset,
    b"QUIT": _quit,
    b"REPLCONF": _replconf,
    b"CLIENT": client_command.handle,
    **dict.fromkeys(_PUBSUB, _subscribe),
    b"WATCH": _watch,
    b"UNWATCH": _unwatch,
    b"MONITOR": _monitor,
    b"SYNC": _sync,
    b"PSYNC": _sync,
    b"COMMAND": _command,
    b"WAIT": _wait,
    b"WAITAOF": _wait,
}
