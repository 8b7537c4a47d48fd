"""What clients send before they work, answered without a backend connection of their own.

A client that has no private lane is clean: all that Valkey would know of it is its identity, protocol version and name.
Its PING, ECHO, CLIENT SETNAME, SETINFO and MAINT_NOTIFICATIONS are sent over the shared lane of its identity, where the
answer is the same for every client of that identity; AUTH and SELECT are proved by the backend on such a lane; HELLO is
put together from the backend's own.  What is not exactly one of these forms is left to the private lane (False).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from valqd.errors import BackendDown
from valqd.protocol.calls import error_line
from valqd.protocol.encoding import bulk, encode
from valqd.protocol.framing import Frame, Kind
from valqd.protocol.requests import encode_request

if TYPE_CHECKING:
    from valqd.protocol.host import Identity
    from valqd.protocol.session import Session


def take(session: Session, name: bytes, frame: Frame) -> bool:
    """Handle a clean client's request if it is a handshake; whether it was."""
    handler = _HANDLERS.get(name)
    if handler is None or frame.kind is not Kind.COMMAND:
        return False
    return handler(session, frame)


def _ask(
    session: Session, frame: Frame, then: Callable[[bool], None] = lambda is_accepted: None, *, is_bulk: bool = False
) -> None:
    """Send it over the shared lane.

    ``then`` is told whether it was accepted.  ``is_bulk``: the answer is a bulk string, not a status.
    """
    if not session.lane.up:
        session.when_shared_quiet(lambda: session.host.write(_refusal(session, session.lane.why_down.resp())))
        return

    def shape(reply: Any) -> bytes:
        then(not isinstance(reply, Exception))
        if isinstance(reply, Exception):
            return _refusal(session, error_line(reply))
        return bulk(reply) if is_bulk else b"+%b\r\n" % reply

    session.ask(encode_request(frame.argv), shape)


def _refusal(session: Session, error: bytes) -> bytes:
    """``error``; the client's connection is closed before it gets that, if this is how it is to learn of the outage."""
    if session.worker.closes_on_loss and BackendDown.is_said_by(error):
        session.close()
    return error


def _ping(session: Session, frame: Frame) -> bool:
    _ask(session, frame, is_bulk=len(frame.argv) > 1)
    return True


def _echo(session: Session, frame: Frame) -> bool:
    _ask(session, frame, is_bulk=True)
    return True


def _client(session: Session, frame: Frame) -> bool:
    argv = frame.argv
    if len(argv) == 3 and argv[1].upper() == b"SETNAME":
        _set_name(session, frame)
    elif len(argv) == 4 and argv[1].upper() == b"SETINFO":
        told = {argv[2].upper(): argv[3]}
        _ask(session, frame, lambda is_accepted: session.client_info.update(told if is_accepted else {}))
    elif argv[1:2] and argv[1].upper() == b"MAINT_NOTIFICATIONS":
        _ask(session, frame)  # clients of Redis ask for it at first; Valkey knows no such thing
    else:
        return False
    return True


def _set_name(session: Session, frame: Frame) -> None:
    name, names = frame.argv[2], session.lane.names
    before = names.get(session)

    def then(is_accepted: bool) -> None:
        if is_accepted:
            session.client_name = name
        elif names.pop(session, None) is not None and before is not None:
            session.lane.take_name(session, before)

    if session.lane.up:  # now: the client may be gone when the answer comes
        names.pop(session, None)
        names[session] = name
    _ask(session, frame, then)


def _quit(session: Session, frame: Frame) -> bool:
    def leave() -> None:
        session.host.write(b"+OK\r\n")
        session.close()

    session.when_shared_quiet(leave)
    return True


def _prove(session: Session, identity: Identity, request: bytes, then: Callable[[], None]) -> None:
    """Hold; have the backend check ``identity`` by ``request`` (AUTH or SELECT), and run ``then`` as that."""

    def done(error: bytes | None) -> None:
        if error is not None:
            _unproved(session, error)
        elif not session.closed:
            session.accepted_as(identity)
            then()

    session.hold()
    session.host.prove(identity, request, done)


def _become(session: Session, identity: Identity, frame: Frame) -> bool:
    def start() -> None:
        _prove(session, identity, encode_request(frame.argv), lambda: session.finish(b"+OK\r\n"))

    session.when_shared_quiet(start)
    return True


def _unproved(session: Session, error: bytes) -> None:
    """It stays who, and in the database, it was; if only because the backend was away, it is closed."""
    if BackendDown.is_said_by(error):
        _close_with(session, _refusal(session, error))
    else:
        session.finish(error)


def _close_with(session: Session, error: bytes) -> None:
    """What it has sent behind this, without looking, is not to be run as another user, or in another database."""
    if not session.closed:
        session.host.write(error)
        session.close(gently=True)


def _auth(session: Session, frame: Frame) -> bool:
    if len(frame.argv) not in (2, 3):
        return False
    user = frame.argv[1] if len(frame.argv) == 3 else None
    return _become(session, session.identity.as_user(user, frame.argv[-1]), frame)


def _select(session: Session, frame: Frame) -> bool:
    if session.framer.unauthenticated:  # Valkey words the refusal
        return False
    if len(frame.argv) != 2 or not frame.argv[1].isdigit() or len(frame.argv[1]) > 6:
        return False
    db = int(frame.argv[1])
    if frame.argv[1] != b"%d" % db:  # Valkey takes no leading zeros
        return False
    return _become(session, session.identity.in_db(db), frame)


class Hello(NamedTuple):
    """What a HELLO asks for."""

    resp: int | None = None
    user: bytes = b""
    password: bytes | None = None
    name: bytes | None = None
    is_plain: bool = True  #: as far as can be told, the backend accepts its form

    @classmethod
    def of(cls, argv: list[bytes]) -> Hello:
        """Of a request's arguments, the name included."""
        hello = cls()
        if len(argv) > 1:
            hello = cls(int(argv[1])) if argv[1] in (b"2", b"3") else cls(is_plain=False)
        at = 2
        while at < len(argv):
            option = argv[at].upper()
            if option == b"AUTH" and at + 2 < len(argv):
                hello = hello._replace(user=argv[at + 1], password=argv[at + 2])
                at += 3
            elif option == b"SETNAME" and at + 1 < len(argv) and all(33 <= char <= 126 for char in argv[at + 1]):
                hello = hello._replace(name=argv[at + 1])
                at += 2
            else:
                hello = hello._replace(is_plain=False)
                at += 1
        return hello


def _hello(session: Session, frame: Frame) -> bool:
    hello = Hello.of(frame.argv)
    if not hello.is_plain or (hello.password is None and session.framer.unauthenticated):
        return False

    def start() -> None:
        # Held until the answer is there: the frames after HELLO are to be read in the new protocol version.
        if hello.password is None:
            session.hold()
            _ask_hello(session, hello)
        else:
            identity = session.identity.as_user(hello.user, hello.password)
            request = encode_request([b"AUTH", hello.user, hello.password])
            _prove(session, identity, request, lambda: _ask_hello(session, hello))

    session.when_shared_quiet(start)
    return True


def _ask_hello(session: Session, hello: Hello) -> None:
    """Ask the backend for its own HELLO, of which the answer is made; the session holds."""

    def failed(error: bytes) -> bytes:
        if hello.password is not None:  # and so it is another user now
            _close_with(session, _refusal(session, error))
            return b""
        return _refusal(session, error)

    def shape(reply: Any) -> bytes:
        if not isinstance(reply, list):
            return failed(error_line(reply))
        session.set_resp(hello.resp or session.resp)
        if hello.name is not None:
            session.client_name = hello.name
            if not session.closed:  # nobody would take the name away again
                session.lane.take_name(session, hello.name)
        return _welcome(session, reply)

    if session.lane.up:
        session.ask(b"*1\r\n$5\r\nHELLO\r\n", shape)
        session.wait_for_shared()
    else:
        session.finish(failed(session.lane.why_down.resp()))


def _welcome(session: Session, reply: list[Any]) -> bytes:
    """The backend's ``reply`` to HELLO (of RESP2) as this client's, in the protocol version that it speaks now."""
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    fields[b"proto"] = session.resp
    fields[b"id"] = session.client_id
    modules = fields.get(b"modules", [])
    fields[b"modules"] = [dict(zip(module[::2], module[1::2], strict=True)) for module in modules]
    return encode(fields, session.resp)


_HANDLERS = {
    b"PING": _ping,
    b"ECHO": _echo,
    b"CLIENT": _client,
    b"QUIT": _quit,
    b"AUTH": _auth,
    b"SELECT": _select,
    b"HELLO": _hello,
}
