"""Where the backing Valkey is, and how to connect to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from valqd.errors import SettingError

_DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class Backend:
    """The address and the daemon's own credentials (never lent to a client)."""

    host: str = ""
    port: int = 0
    path: str = ""  #: unix socket; "" = TCP
    tls: bool = False
    user: bytes | None = None
    password: bytes | None = None
    db: int = 0
    ca_file: str = ""

    @classmethod
    def from_url(cls, url: str, ca_file: str = "") -> Backend:
        """Parse ``valkey://``, ``valkeys://``, ``redis://``, ``rediss://`` or ``unix://``.

        Raises SettingError for anything else.
        """
        if url.startswith("unix:"):
            path = url.removeprefix("unix:").removeprefix("//")
            if not path:
                raise SettingError("backend", f"{url!r} names no socket")
            return cls(path=path)
        parts = urlsplit(url)
        if parts.scheme not in ("valkey", "valkeys", "redis", "rediss"):
            raise SettingError(
                "backend", f"{url!r} must begin with valkey://, valkeys://, redis://, rediss:// or unix://"
            )
        try:
            port = parts.port or _DEFAULT_PORT
        except ValueError:
            raise SettingError("backend", f"{url!r} has no valid port") from None
        db = parts.path.strip("/")
        if db and not db.isdigit():
            raise SettingError("backend", f"{url!r} has a database that is no number")
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port,
            tls=parts.scheme in ("valkeys", "rediss"),
            user=unquote(parts.username).encode() if parts.username else None,
            password=unquote(parts.password).encode() if parts.password is not None else None,
            db=int(db or 0),
            ca_file=ca_file,
        )

    def __str__(self) -> str:
        return (
            f"unix://{self.path}" if self.path else f"{'valkeys' if self.tls else 'valkey'}://{self.host}:{self.port}"
        )

    async def connect(self, factory: Callable[[], asyncio.Protocol], timeout_s: float) -> None:
        """Open one connection.  Raises OSError (ssl.SSLError and TimeoutError are OSErrors)."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            if self.path:
                await loop.create_unix_connection(factory, self.path)
            else:
                context = ssl.create_default_context(cafile=self.ca_file or None) if self.tls else None
                await loop.create_connection(factory, self.host, self.port, ssl=context)


class ReplyProtocol(asyncio.Protocol):
    """A backend connection whose replies are parsed: the base of the shared lanes and the control connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: nothing is sent yet."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        """Parse, and hand on each reply in order."""
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOT_YET:
                self.reply_received(reply)
        except hiredis.ProtocolError:
            if self.transport is not None:
                self.transport.abort()

    def reply_received(self, reply: Any) -> None:
        """One whole reply; error replies are hiredis.ReplyError objects."""
        raise NotImplementedError


_NOT_YET = object()
