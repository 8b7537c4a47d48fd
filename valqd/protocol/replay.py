"""Brings a client's new private lane into the state that its session has, before the client's own bytes.

    identity (AUTH, SELECT) ─▶ protocol version and name (HELLO) ─▶ CLIENT SETINFO

The answers are swallowed; the last one tells whether the lane may be used.  Knows requests only: connecting, and what
becomes of a client that is refused, is the host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from valqd.protocol.requests import encode_own

if TYPE_CHECKING:
    from valqd.protocol.private_replies import PrivateReplies
    from valqd.protocol.session import Session


def replay(session: Session, replies: PrivateReplies) -> None:
    """Connect the lane and greet; ``replies`` are what is expected of it."""
    identity = session.identity
    greeting = identity.greeting()
    requests = list(greeting)
    has_hello = session.resp != 2 or bool(session.client_name)
    if has_hello:  # to give a name in HELLO needs no right
        named = [b"SETNAME", session.client_name] if session.client_name else []
        requests.append([b"HELLO", b"%d" % session.resp, *named])
    requests += [[b"CLIENT", b"SETINFO", *told] for told in session.client_info.items()]
    encoded = list(map(encode_own, requests))
    at_once = identity.sent_first(len(requests))
    errors: list[bytes | None] = []

    def swallow(raw: bytes) -> bytes:
        errors.append(raw if raw[:1] == b"-" else None)
        if len(errors) == len(requests):
            of_hello = errors[len(greeting)] if has_hello else None  # what CLIENT SETINFO answers changes nothing
            _greeted(session, identity.refusal(errors[: len(greeting)]) or of_hello)
        elif len(errors) == at_once:
            session.host.greet_private(b"".join(encoded[at_once:]))
        return b""

    for _ in requests:
        replies.expect_own(swallow)
    session.host.open_private(b"".join(encoded[:at_once]))


def _greeted(session: Session, error: bytes | None) -> None:
    host = session.host
    if error is None:
        host.private_greeted()
    elif error.startswith(b"-NOAUTH"):  # it has yet to authenticate
        host.call_soon(host.refuse_private)
    else:  # this identity has lost its rights since it was proved
        host.write(error)
        session.close()
