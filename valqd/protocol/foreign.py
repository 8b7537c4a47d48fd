"""Commands that are not ours: what the session must know about the few that change a connection's state.

Everything passes to Valkey byte for byte; a command that is not in ``SPECIAL`` has one reply and changes nothing that
concerns order or identity.  Watching a reply never changes it, COMMAND's excepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from valqd.commands import introspection, table
from valqd.errors import BackendDown, CommandError
from valqd.protocol import command_reply
from valqd.protocol.encoding import encode
from valqd.protocol.framing import Frame, Kind
from valqd.protocol.host import Identity
from valqd.protocol.replies import split_elements
from valqd.protocol.whole import WholeParser, may_be_huge

if TYPE_CHECKING:
    from valqd.protocol.session import Session

#: Names (as clients spelled them) known to be neither ours nor special.  Bounded: beyond it, others go the long way.
_PLAIN_NAMES: set[bytes] = set()
_MAX_PLAIN_NAMES = 2048

_parser = WholeParser()


def count_plain(data: bytes) -> int:
    """How many requests ``data`` holds if all are whole multibulks of plain foreign commands; else 0.

    hiredis reads some bytes as a request that Valkey refuses as a protocol error; they pass to Valkey all the same,
    which answers and closes.
    """
    if data[0] != 0x2A or len(data) > 64 * 1024 or may_be_huge(data):
        return 0
    requests = _parser.parse(data)
    if requests is None:
        return 0
    try:
        for argv in requests:
            if type(argv) is not list or argv[0] not in _PLAIN_NAMES:
                return 0
    except (IndexError, TypeError):  # no name, or one that is an array
        return 0
    return len(requests)


def forward(session: Session, name: bytes, frame: Frame) -> None:
    """Send one foreign request on the private lane; ``name`` is in upper case."""
    special = SPECIAL.get(name)
    if special is None:
        if frame.kind is Kind.COMMAND and len(_PLAIN_NAMES) < _MAX_PLAIN_NAMES and len(name) < 64:
            _PLAIN_NAMES.add(frame.argv[0])
        session.send_plain(frame.raw, 1)
    elif session.in_multi and name not in _AT_ONCE_IN_MULTI:
        _queue_in_multi(session, name, frame)
    else:
        special(session, frame.argv, frame.raw)


def _queue_in_multi(session: Session, name: bytes, frame: Frame) -> None:
    """Inside MULTI a command only takes effect with EXEC."""
    effect = _EFFECTS.get(name)
    if effect is not None:
        place = session.open_private().asked - session.multi_began
        session.queued_in_multi.append((place, lambda: effect(session, frame.argv)))
    session.send_plain(frame.raw, 1)


def _ok(raw: bytes) -> bool:
    return raw[:1] != b"-"


def _multi(session: Session, argv: list[bytes], raw: bytes) -> None:
    """What follows is taken to be inside; a refusal (the user may not) tells that all of it was run at once."""
    if len(argv) != 1 or session.in_multi:
        session.send_plain(raw, 1)
        return
    effects = session.queued_in_multi

    def watch(reply: bytes) -> bytes:
        if not _ok(reply):
            for _, effect in effects:
                effect()
            if session.queued_in_multi is effects:
                session.leave_multi()
        return reply

    session.send_watched(raw, watch)
    session.multi_began = session.open_private().asked
    session.in_multi = True


def _exec(session: Session, argv: list[bytes], raw: bytes) -> None:
    effects = session.queued_in_multi
    session.leave_multi()
    if len(argv) != 1:  # refused, and the transaction with it
        session.send_plain(raw, 1)
        return

    def watch(reply: bytes) -> bytes:
        if reply[:1] == b"*" and reply[:3] != b"*-1":
            results = split_elements(reply)
            for place, effect in effects:
                if _ok(results[place]):
                    effect()
        return reply

    if effects and not session.silent:
        session.send_watched(raw, watch)
    else:
        session.send_plain(raw, 1)


def _discard(session: Session, argv: list[bytes], raw: bytes) -> None:
    if len(argv) == 1:
        session.leave_multi()
    session.send_plain(raw, 1)


def _select_effect(session: Session, argv: list[bytes]) -> None:
    if len(argv) == 2 and argv[1].isdigit():
        session.set_db(int(argv[1]))


def _auth_effect(session: Session, argv: list[bytes]) -> None:
    if len(argv) in (2, 3):
        user = argv[1] if len(argv) == 3 else None
        db = session.identity.db
        session.set_identity(Identity(user, argv[-1], db, db_first=db > 0))


def _hello_effect(session: Session, argv: list[bytes]) -> None:
    if len(argv) < 2:
        return
    at = 2
    while at < len(argv):
        option = argv[at].upper()
        if option == b"AUTH" and at + 2 < len(argv):
            _auth_effect(session, [b"AUTH", argv[at + 1], argv[at + 2]])
            at += 3
        else:
            at += 2
    if argv[1] in (b"2", b"3"):
        session.set_resp(int(argv[1]))


_EFFECTS: dict[bytes, Callable[[Session, list[bytes]], None]] = {
    b"SELECT": _select_effect,
    b"AUTH": _auth_effect,
    b"HELLO": _hello_effect,
}


def _watched_effect(session: Session, argv: list[bytes], raw: bytes) -> None:
    """A command that changes who or what the session is, if the backend accepts it."""
    effect = _EFFECTS[argv[0].upper()]

    def watch(reply: bytes) -> bytes:
        if _ok(reply):
            effect(session, argv)
        return reply

    if session.silent or session.open_private().uncounted:  # nothing will tell: take it as accepted
        effect(session, argv)
    session.send_watched(raw, watch)


def _reset(session: Session, argv: list[bytes], raw: bytes) -> None:
    private = session.open_private()
    if len(argv) != 1:
        session.send_plain(raw, 1)
    elif private.uncounted or session.silent:
        private.stop_counting()
        session.may_count_again = False
        private.add_marker(b"+RESET\r\n", ends=True, swallowed=False)
        session.send_raw(raw)
        session.reset()
    else:
        session.leave_multi()

        def watch(reply: bytes) -> bytes:
            if _ok(reply):
                session.reset()
            return reply

        session.send_watched(raw, watch)


def _client(session: Session, argv: list[bytes], raw: bytes) -> None:
    if len(argv) == 3 and argv[1].upper() == b"REPLY":
        what = argv[2].upper()
        if what == b"OFF":
            session.open_private()
            session.silent = True
            session.send_raw(raw)
            return
        if what == b"SKIP":
            session.open_private()
            session.skip_next = not session.silent
            session.send_raw(raw)
            return
        if what == b"ON":
            session.silent = session.skip_next = False
    elif len(argv) > 1 and argv[1].upper() in (b"PAUSE", b"UNPAUSE"):
        for_ms = int(argv[2]) if len(argv) > 2 and argv[2].isdigit() and len(argv[2]) < 10 else 0

        def watch(reply: bytes) -> bytes:
            if _ok(reply):
                session.host.clients_paused(for_ms)
            return reply

        if argv[1].upper() == b"UNPAUSE" or for_ms:
            session.send_watched(raw, watch)
            return
    elif len(argv) > 1 and argv[1].upper() not in _STATELESS_CLIENT:
        session.has_state = True
    session.send_plain(raw, 1)


def _watch(session: Session, argv: list[bytes], raw: bytes) -> None:
    session.open_private()
    session.has_state = True
    session.send_plain(raw, 1)


def _subscribe(session: Session, argv: list[bytes], raw: bytes) -> None:
    """Replies stop matching requests: each channel is confirmed by a message, in RESP3 by a push."""
    private = session.open_private()
    if session.in_multi:
        session.send_plain(raw, 1)
        return
    unsubscribes = b"UNSUBSCRIBE" in argv[0].upper()
    if unsubscribes and session.resp == 2 and not private.uncounted:
        session.send_plain(raw, max(1, len(argv) - 1))
        return
    _stop_counting(session, raw, may_count_again=session.resp == 3 or unsubscribes)


def _stop_counting(session: Session, raw: bytes, *, may_count_again: bool = False, stream: bool = False) -> None:
    """Send a request from which on replies do not match requests, as soon as all that are due have come."""
    private = session.open_private()

    def send() -> None:
        if session.private is not private:  # the backend went away before
            session.host.write(BackendDown().resp())
            return
        private.stop_counting()
        private.raw = stream
        session.may_count_again = may_count_again
        session.send_raw(raw)

    session.when_private_quiet(send)


def ask_if_counted(session: Session, then: Callable[[], None]) -> None:
    """Does an uncounted connection answer one to one again?  Its own reply to a PING tells; then run ``then``."""
    private = session.open_private()
    session.marks += 1
    mark = b"valqd-mark-%d-%d" % (session.client_id, session.marks)
    private.add_marker(b"$%d\r\n%b\r\n" % (len(mark), mark), ends=True, swallowed=True)
    if session.resp == 2:  # still subscribed
        private.add_marker(b"*2\r\n$4\r\npong\r\n$%d\r\n%b\r\n" % (len(mark), mark), ends=False, swallowed=True)
    session.may_count_again = False
    session.hold_for_mark(then)
    session.send_raw(b"*2\r\n$4\r\nPING\r\n$%d\r\n%b\r\n" % (len(mark), mark))


def _monitor(session: Session, argv: list[bytes], raw: bytes) -> None:
    _stop_counting(session, raw)


def _sync(session: Session, argv: list[bytes], raw: bytes) -> None:
    _stop_counting(session, raw, stream=True)


def _command(session: Session, argv: list[bytes], raw: bytes) -> None:
    sub = argv[1].upper() if len(argv) > 1 else b""
    if sub in (b"GETKEYS", b"GETKEYSANDFLAGS") and len(argv) > 2 and table.is_ours(argv[2]):
        try:
            keys = introspection.getkeys(argv[2:]) if sub == b"GETKEYS" else introspection.getkeysandflags(argv[2:])
        except CommandError as error:
            answer = error.resp()
        else:
            answer = encode(keys, session.resp)
        # Valkey does not know the command: let it count the keys of one that it knows, and answer in its place.
        session.send_watched(b"*4\r\n$7\r\nCOMMAND\r\n$7\r\nGETKEYS\r\n$3\r\nGET\r\n$1\r\nk\r\n", _instead(answer))
    elif sub in (b"", b"COUNT", b"LIST", b"INFO", b"DOCS"):
        resp = session.resp
        session.send_watched(raw, lambda reply: command_reply.complete(argv, reply, resp))
    else:
        session.send_plain(raw, 1)


def _instead(answer: bytes) -> Callable[[bytes], bytes]:
    return lambda reply: answer if _ok(reply) else reply


def _wait(session: Session, argv: list[bytes], raw: bytes) -> None:
    if session.must_ask_if_counted():
        ask_if_counted(session, lambda: _wait(session, argv, raw))
        return
    session.fence()
    session.send_plain(raw, 1)


#: Subcommands of CLIENT that leave nothing behind on the connection.
_STATELESS_CLIENT = frozenset({b"ID", b"INFO", b"LIST", b"GETNAME", b"KILL", b"HELP"})

#: Run at once even inside MULTI (all others are queued by it).
_AT_ONCE_IN_MULTI = frozenset({b"MULTI", b"EXEC", b"DISCARD", b"RESET", b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"})

SPECIAL: dict[bytes, Callable[[Session, list[bytes], bytes], None]] = {
    b"MULTI": _multi,
    b"EXEC": _exec,
    b"DISCARD": _discard,
    b"SELECT": _watched_effect,
    b"AUTH": _watched_effect,
    b"HELLO": _watched_effect,
    b"RESET": _reset,
    b"CLIENT": _client,
    b"SUBSCRIBE": _subscribe,
    b"PSUBSCRIBE": _subscribe,
    b"SSUBSCRIBE": _subscribe,
    b"UNSUBSCRIBE": _subscribe,
    b"PUNSUBSCRIBE": _subscribe,
    b"SUNSUBSCRIBE": _subscribe,
    b"WATCH": _watch,
    b"MONITOR": _monitor,
    b"SYNC": _sync,
    b"PSYNC": _sync,
    b"COMMAND": _command,
    b"WAIT": _wait,
    b"WAITAOF": _wait,
}
