"""What the handlers of special foreign commands share: whether a command takes effect at all."""

from __future__ import annotations

from collections.abc import Callable

from valqd.protocol.private_side import PrivateSide

Handler = Callable[[PrivateSide, list[bytes], bytes], None]
#: What a command changes once Valkey has accepted it: its arguments are as they must be.
Effect = Callable[[PrivateSide, list[bytes]], None]


def ok(raw: bytes) -> bool:
    """Whether a reply (its bytes) is no error."""
    return raw[:1] != b"-"


def if_ok(then: Callable[[], None]) -> Callable[[bytes], bytes]:
    """Watches a reply: unless it is an error, ``then`` runs."""

    def watch(reply: bytes) -> bytes:
        if ok(reply):
            then()
        return reply

    return watch


def unless_subscribed(handler: Handler) -> Handler:
    """A command that the backend refuses, and so has no effect, where a connection only takes Pub/Sub."""

    def handle(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
        name = argv[0].upper()
        if side.must_ask_if_counted:
            side.ask_if_counted(lambda: handle(side, argv, raw))
        elif not side.is_subscribed:
            handler(side, argv, raw)
        elif side.can_ask and name == b"HELLO":
            side.ask_if_counted(lambda: None, raw)
        else:
            if side.silent:  # Pub/Sub may be over, and then it is run: no reply tells
                side.untold([name])
            side.send(raw)

    return handle
