"""One client's own backend connection: bytes go through untouched in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from valqd.io.client import Client
    from valqd.io.worker import Worker

_CONNECT_TIMEOUT_S = 5.0
#: While it connects, its client is not read from beyond this.
_MAX_UNSENT_BYTES = 64 * 1024
#: How long the lane of a client that has left waits for what it popped, to give it back.
_POPPED_S = 5.0
_REST_BYTES = 64 * 1024


class PrivateLane(asyncio.Protocol):
    """Bound: the transport's write buffer, or what waits for it; beyond it the client is not read from."""

    def __init__(self, client: Client, worker: Worker) -> None:
        self._client: Client | None = client
        self._worker = worker
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._paused = False
        self._ending: asyncio.TimerHandle | None = None
        self._task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        try:
            await self._worker.backend.connect(lambda: self, _CONNECT_TIMEOUT_S)
        except OSError:
            self._lost(backend_down=True)

    def send(self, data: bytes) -> None:
        """Send to the backend; in order, as soon as connected."""
        if self._transport is None:
            self._unsent.append(data)
            self._unsent_bytes += len(data)
            if self._client is not None and self._unsent_bytes > _MAX_UNSENT_BYTES:
                self._client.private_full(True)
        elif not self._transport.is_closing():  # else: the client is about to learn of it
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: send what waited."""
        transport = cast(asyncio.Transport, transport)
        if self._client is None:
            transport.abort()
            return
        self._transport = transport
        if self._paused:
            transport.pause_reading()
        self._client.private_full(False)
        transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        """Bytes of the backend."""
        if self._client is not None:
            private = self._client.session.private
            private.received(data)
            if self._ending is not None and not private.pops_due:
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Valkey closed this connection, or is gone: a fresh connection tells which."""
        if exc is not None:
            self._read_rest()
        if self._ending is not None:
            self.close()
        elif self._client is not None:
            self._task = asyncio.ensure_future(self._find_out())

    def _read_rest(self) -> None:
        """Take Valkey's last words (a protocol error): a write that fails ends the transport with them unread.

        Its socket stays open until ``connection_lost`` returns.
        """
        transport = self._transport
        if transport is not None and transport.get_extra_info("sslcontext") is None:
            with contextlib.suppress(OSError):
                while data := os.read(transport.get_extra_info("socket").fileno(), _REST_BYTES):
                    self.data_received(data)

    async def _find_out(self) -> None:
        try:
            await self._worker.backend.connect(_Probe, _CONNECT_TIMEOUT_S)
        except OSError:
            self._lost(backend_down=True)
        else:
            self._lost(backend_down=False)

    def _lost(self, backend_down: bool) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.private_lost(backend_down, sent=self._transport is not None)

    def pause_reading(self) -> None:
        """The client does not take more."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The client takes more again."""
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The backend does not take more."""
        if self._client is not None:
            self._client.private_full(True)

    def resume_writing(self) -> None:
        """The backend takes more again."""
        if self._client is not None:
            self._client.private_full(False)

    def client_left(self) -> None:
        """The client is gone: close, as soon as no message is on its way to it."""
        if self._client is None or self._transport is None or not self._client.session.private.pops_due:
            self.close()
        elif self._ending is None:
            self._ending = self._worker.loop.call_later(_POPPED_S, self.close)
            self.resume_reading()

    def close(self) -> None:
        """Close for good."""
        self._client = None
        if self._ending is not None:
            self._ending.cancel()
        self._task.cancel()
        if self._transport is not None:
            self._transport.abort()


class _Probe(asyncio.Protocol):
    """Connects and leaves."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()
