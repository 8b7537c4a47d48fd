"""Joins what is written to each client within one turn of the loop into one write."""

from __future__ import annotations

import asyncio
import logging

_LARGE_PIECE_BYTES = 16 * 1024

log = logging.getLogger(__name__)


class Outbox:
    """The clients that have bytes to send at the end of this turn.  Emptied every turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.private_lanes = 0  #: connected: by them Valkey may tell clients what others did
        self._loop = loop
        self._dirty: list[Outgoing] = []

    def add(self, outgoing: Outgoing) -> None:
        """``outgoing`` has bytes to send."""
        if not self._dirty:
            self._loop.call_soon(self.flush)
        self._dirty.append(outgoing)

    def flush(self) -> None:
        """Send now."""
        dirty, self._dirty = self._dirty, []
        now = self._loop.time()
        for outgoing in dirty:
            outgoing.written_at = now
            try:
                outgoing.flush()
            except Exception:  # a mistake of the daemon's, for which nobody else is to wait for ever
                log.exception("a client could not be written to")
                outgoing.transport.abort()

    def flush_answers(self) -> None:
        """Send what a shared lane brought: now, before other clients' commands of this turn are looked at.

        While there are private lanes it leaves at the end of the turn: a client that Valkey tells of a changed key must
        hear of that before the client that has changed it gets its answer.
        """
        if not self.private_lanes:
            self.flush()


def write_pieces(transport: asyncio.Transport, pieces: list[bytes]) -> None:
    """Write ``pieces`` at once: small ones joined, large ones without copying them."""
    if len(pieces) == 1:
        transport.write(pieces[0])
    elif max(map(len, pieces)) > _LARGE_PIECE_BYTES:
        transport.writelines(pieces)
    else:
        transport.write(b"".join(pieces))


class Outgoing:
    """A connection whose bytes of one turn are sent at its end."""

    transport: asyncio.Transport

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._parts: list[bytes] = []
        self.written_at = 0.0  #: by the loop's clock: at the end of which turn ``write`` was given something last

    def write(self, data: bytes) -> None:
        """Send ``data`` at the end of this turn."""
        if not self._parts:
            self._outbox.add(self)
        self._parts.append(data)

    def write_now(self, data: bytes) -> None:
        """Send ``data`` now, behind what this connection has to send."""
        self._parts.append(data)
        self.flush()

    def flush(self) -> None:
        """Hand everything to the transport."""
        parts = self._parts
        if len(parts) == 1:  # most are
            data = parts.pop()
            if not self.transport.is_closing():
                self.transport.write(data)
        elif parts:
            self._parts = []
            if not self.transport.is_closing():
                write_pieces(self.transport, parts)
