"""One client's own backend connection: bytes go through untouched in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, cast

from valqd.io.backend import TURNS_AWAY, is_turned_away

if TYPE_CHECKING:
    from valqd.io.client import Client
    from valqd.io.worker import Worker

#: Until it is open, its client is not read from beyond this.
_MAX_UNSENT_BYTES = 64 * 1024
#: How long, at most, the lane of a client that has left stays for what it sent, and to give back what it popped.
_LEAVING_S = 5.0
_REST_BYTES = 64 * 1024
#: How long the daemon's own connection is waited for, to tell whether the backend was started again.
_CONTROL_TICKS, _CONTROL_TICK_S = 200, 0.01


class PrivateLane(asyncio.Protocol):
    """Bound: the transport's write buffer, or what waits for it; beyond it the client is not read from."""

    def __init__(self, client: Client, worker: Worker, greeting: bytes) -> None:
        self._client: Client | None = client
        self._worker = worker
        self._greeting = greeting
        self._transport: asyncio.Transport | None = None
        self._greeted = False  # the client's own bytes may follow
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._paused = False
        self._ending: asyncio.TimerHandle | None = None
        self._task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        try:
            await self._worker.backend.connect(lambda: self)
        except OSError:
            self._lost(backend_down=True)
        else:
            if self._paused:  # uvloop begins to read behind ``connection_made``, whatever that said
                self.pause_reading()

    def send(self, data: bytes) -> None:
        """Send to the backend; in order, as soon as the greeting is answered."""
        transport = self._transport
        if transport is None or not self._greeted:
            self._unsent.append(data)
            self._unsent_bytes += len(data)
            if self._client is not None and self._unsent_bytes > _MAX_UNSENT_BYTES:
                self._client.private_full(True)
        elif not transport.is_closing():  # else: the client is about to learn of it
            transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: greet.  What the client sent must not be read together with that, as CLIENT INFO would tell."""
        self._worker.outbox.private_lanes += 1
        transport = cast(asyncio.Transport, transport)
        if self._client is None:
            transport.abort()
            return
        self._transport = transport
        if self._paused:
            transport.pause_reading()
        if self._greeting:
            transport.write(self._greeting)
        else:
            self.greeted()

    def greet(self, greeting: bytes) -> None:
        """Send more of the greeting: its first part is answered."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(greeting)

    def greeted(self) -> None:
        """The backend has answered the greeting: send what waited."""
        self._greeted = True
        unsent, self._unsent = self._unsent, []
        if self._client is not None and self._transport is not None:
            self._client.private_full(False)
            self._transport.write(b"".join(unsent))
            if self._ending is not None:
                self._end_if_done()

    def data_received(self, data: bytes) -> None:
        """Bytes of the backend."""
        if self._client is not None:
            self._client.session.private.received(data)
            if self._client is not None and self._client.is_spilling:
                self._client.stop_if_unread()
            if self._ending is not None:
                self._end_if_done()

    def connection_lost(self, exc: Exception | None) -> None:
        """Valkey closed this connection, or is gone."""
        self._worker.outbox.private_lanes -= 1
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
        """Find out whether the backend went away, or only closed this connection.

        One that answers may have died and be back: then its run id, of INFO, is another.
        """
        control = self._worker.control
        was = control.run_id
        try:
            if is_turned_away(await self._worker.backend.ping()):
                control.complaints.say(*TURNS_AWAY)
            for _ in range(_CONTROL_TICKS):  # its connection, if it was lost too, tells when it is back
                if control.up:
                    break
                await asyncio.sleep(_CONTROL_TICK_S)
        except OSError:
            self._lost(backend_down=True)
        else:
            self._lost(backend_down=control.run_id != was or not control.up)

    def _lost(self, backend_down: bool) -> None:
        """The connection is gone for good; ``backend_down``: with the backend, else Valkey has closed it."""
        if self._ending is not None:
            self.close()
        client, self._client = self._client, None
        if client is not None:
            client.private_lost(backend_down, sent=self._greeted)

    def pause_reading(self) -> None:
        """The client does not take more."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The client takes more again."""
        self._paused = False
        if self._transport is not None:
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
        """The client is gone, maybe right after it sent its last command: that still takes effect, as in Valkey."""
        self._ending = self._worker.loop.call_later(_LEAVING_S, self.close)
        self._worker.leaving.add(self)
        self.resume_reading()
        self._end_if_done()

    @property
    def owes_messages(self) -> bool:
        """Whether messages may be on their way to it, which its client's having left gives back."""
        return self._client is not None and self._client.session.private.message_may_come

    def _end_if_done(self) -> None:
        """Have Valkey close, once all was sent and no message is on its way to the client that has left."""
        transport = self._transport
        if self._client is None or transport is None or not self._greeted or transport.is_closing():
            return
        private = self._client.session.private
        if transport.can_write_eof():
            if not private.message_may_come:
                transport.write_eof()
        elif not private.pops_due:  # over TLS, what is still to come would not be read
            transport.close()

    @property
    def is_lost(self) -> bool:
        """Whether its connection was closed, and is being found out why."""
        return self._transport is not None and self._transport.is_closing()

    def close(self) -> None:
        """Close for good."""
        self._client = None
        self._worker.leaving.discard(self)
        if self._ending is not None:
            self._ending.cancel()
        self._task.cancel()
        if self._transport is not None:
            self._transport.abort()
