"""CLIENT: what it changes on a connection (REPLY, TRACKING, ...) and for other clients (PAUSE, KILL)."""

from __future__ import annotations

from collections.abc import Callable

from valqd.protocol import client_kill
from valqd.protocol.private_side import PrivateSide
from valqd.protocol.requests import encode_own
from valqd.protocol.watched import if_ok, ok, unless_subscribed

#: Subcommands that leave nothing behind on the connection.
_STATELESS = frozenset({
    b"ID", b"INFO", b"LIST", b"GETNAME", b"KILL", b"HELP", b"UNBLOCK", b"GETREDIR", b"TRACKINGINFO",
})  # fmt: skip


def handle(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    """One that is not queued in MULTI."""
    sub = argv[1].upper() if len(argv) > 1 else b""
    if sub == b"REPLY" and len(argv) == 3:
        _reply(side, argv, raw)
    elif sub in (b"PAUSE", b"UNPAUSE", b"KILL"):
        _of_others(side, argv, raw)
    elif not sub or sub in _STATELESS:
        side.send_plain(raw, 1)
    else:
        _sets_state(side, argv, raw)


def effect(side: PrivateSide, argv: list[bytes]) -> None:
    """What one that was accepted changes: for all clients, or for its own connection."""
    sub = argv[1].upper()
    if sub in (b"PAUSE", b"UNPAUSE"):
        for_ms = int(argv[2]) if sub == b"PAUSE" else 0
        if sub == b"UNPAUSE" or for_ms:
            side.session.host.clients_paused(for_ms)
    elif sub == b"SETNAME":
        side.session.client_name = argv[2]
    elif sub == b"SETINFO":
        side.session.client_info[argv[2].upper()] = argv[3]
    elif sub not in _STATELESS:
        side.has_state = True


def kills_here(side: PrivateSide, argv: list[bytes]) -> Callable[[bytes], bytes]:
    """Watches the reply to a CLIENT KILL: those are killed, too, that only the daemon knows.

    It counts connections to Valkey, as INFO does, and lanes among them: the clients on these are not added to it.
    """
    is_meant = client_kill.meant_by(argv)

    def watch(reply: bytes) -> bytes:
        if is_meant is None or reply[:1] != b":":
            return reply
        return b":%d\r\n" % max(int(reply[1:]), side.session.host.kill_clients(is_meant))

    return watch


@unless_subscribed
def _reply(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    what = argv[2].upper()
    if what == b"ON":
        side.silent = side.skip_next = False
    if what not in (b"OFF", b"SKIP"):
        side.send_plain(raw, 1)
    elif side.tells_nothing:
        _silence(side, what, raw)
    else:
        _silence_if_allowed(side, what, raw)


def _silence_if_allowed(side: PrivateSide, what: bytes, raw: bytes) -> None:
    """OFF and SKIP are answered only when they are refused: so ON is first, which needs the same right."""
    refused = False

    def answered(reply: bytes) -> bytes:
        nonlocal refused
        refused = not ok(reply)
        return reply if refused else b""

    side.open().expect_own(answered)
    side.send(encode_own([b"CLIENT", b"REPLY", b"ON"]))
    side.session.when_private_quiet(lambda: None if refused else _silence(side, what, raw))


def _silence(side: PrivateSide, what: bytes, raw: bytes) -> None:
    side.open()
    if what == b"OFF":
        side.silent = True
        side.calls.look_again()
    else:
        side.skip_next = True
    side.send(raw)


@unless_subscribed
def _of_others(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    """What concerns clients whose commands do not come this way."""
    if argv[1].upper() == b"KILL":
        side.send_watched(raw, kills_here(side, argv))
    else:
        side.send_watched(raw, if_ok(lambda: effect(side, argv)))


def _sets_state(side: PrivateSide, argv: list[bytes], raw: bytes) -> None:
    """What this leaves behind, if it is accepted, most often cannot be made again on another connection."""
    side.has_state |= side.tells_nothing
    side.send_watched(raw, if_ok(lambda: effect(side, argv)))
