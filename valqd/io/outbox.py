"""Joins what is written to each client within one turn of the loop into one write."""

from __future__ import annotations

import asyncio


class Outbox:
    """The clients that have bytes to send at the end of this turn.  Emptied every turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dirty: list[Outgoing] = []

    def add(self, outgoing: Outgoing) -> None:
        """``outgoing`` has bytes to send."""
        if not self._dirty:
            self._loop.call_soon(self.flush)
        self._dirty.append(outgoing)

    def flush(self) -> None:
        """Send now: called early when a batch of replies is dealt out."""
        dirty, self._dirty = self._dirty, []
        for outgoing in dirty:
            outgoing.flush()


class Outgoing:
    """One transport's bytes of this turn."""

    __slots__ = ("_outbox", "_parts", "transport")

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self.transport = transport
        self._outbox = outbox
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send ``data`` at the end of this turn."""
        if not self._parts:
            self._outbox.add(self)
        self._parts.append(data)

    def flush(self) -> None:
        """Hand everything to the transport."""
        parts, self._parts = self._parts, []
        if self.transport.is_closing():
            return
        if len(parts) == 1:
            self.transport.write(parts[0])
        elif parts:
            self.transport.write(b"".join(parts))
