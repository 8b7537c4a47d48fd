"""Where the backing Valkey is, and how to connect to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast
from urllib.parse import unquote_to_bytes, urlsplit

import hiredis

from valqd.config import Settings
from valqd.errors import SettingError
from valqd.io.keepalive import keep_alive
from valqd.protocol.requests import encode_own

CONNECT_TIMEOUT_S = 5.0
_TURNED_AWAY = b"-ERR max number of clients "
#: How the log tells of it, and why.
TURNS_AWAY = ("the backend turns connections away", "its maxclients is reached")
_DEFAULT_PORT = 6379
#: A backend's host that has gone silent is given up after a minute.
_KEEPALIVE_S = 30
_UNANSWERED_S = 60
#: A unix socket whose backlog is full is tried again after so long.
_BACKLOG_FULL_S = 0.02
_NO_LINGER = struct.pack("ii", 1, 0)

_NOT_YET = object()
#: A longer error reply may show U+FFFD for bytes that are no UTF-8, if it was cut.
_MAX_ERROR_BYTES = 4096
_ERROR_LINE = re.compile(rb"^-(.*?)\r\n", re.MULTILINE)

_UNIX_URL = re.compile(r"unix:(?://)?(?:([^/@:]*):([^/@]*)@)?(.*?)(?:\?db=([0-9]{1,9}))?", re.DOTALL)
_ESCAPES = "in a user or password, write @ as %40, : as %3A, / as %2F, # as %23, ? as %3F, % as %25"


def refuse_files(settings: Settings) -> None:
    """Raises SettingError for a file that would not be used."""
    for name in ("backend_ca_file", "backend_cert_file", "backend_key_file"):
        if getattr(settings, name):
            raise SettingError(name, "is only of use with valkeys:// in backend")


@cache
def _tls_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Read once: workers that are started again use what the start has checked."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if cert_file:
        context.load_cert_chain(cert_file, key_file or None, password=_no_passphrase)
    return context


def _no_passphrase() -> str:
    raise SettingError("backend_key_file", "is encrypted: give a key without a passphrase")


def _unquoted(part: str | None) -> bytes | None:
    return None if part is None else unquote_to_bytes(os.fsencode(part))


@dataclass(frozen=True)
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
    cert_file: str = ""
    key_file: str = ""

    @classmethod
    def from_settings(cls, settings: Settings) -> Backend:
        """The backend that the settings name.  Raises SettingError."""
        backend = replace(
            cls.from_url(settings.backend),
            ca_file=settings.backend_ca_file,
            cert_file=settings.backend_cert_file,
            key_file=settings.backend_key_file,
        )
        if backend.tls:
            backend._check_files()
        else:
            refuse_files(settings)
        return backend

    @classmethod
    def from_url(cls, url: str) -> Backend:
        """Parse ``valkey://``, ``valkeys://``, ``redis://``, ``rediss://`` or ``unix://``.

        Raises SettingError for anything else.
        """
        if unix := _UNIX_URL.fullmatch(url):
            user, password, path, db = unix.groups()
            if not path or ("@" in path[1:] and not path.startswith("/")):
                raise SettingError("backend", f"names no socket: unix://[user:password@]/path[?db=n] ({_ESCAPES})")
            return cls(path=path, user=_unquoted(user), password=_unquoted(password), db=int(db or 0))
        # No error repeats the URL: it may hold a password.
        if not url.startswith(("valkey://", "valkeys://", "redis://", "rediss://")):
            raise SettingError("backend", "must begin with valkey://, valkeys://, redis://, rediss:// or unix://")
        try:
            parts = urlsplit(url)
            port = _DEFAULT_PORT if parts.port is None else parts.port
            if port == 0:
                raise ValueError
        except ValueError:
            raise SettingError(
                "backend",
                f"no valid URL: the port must be 1 to 65535, an IPv6 address stand in brackets ({_ESCAPES})",
            ) from None
        db = parts.path.strip("/")
        if (db and not (db.isascii() and db.isdigit() and len(db) < 10)) or parts.query or parts.fragment:
            raise SettingError("backend", f"after host and port only /db may follow, a number ({_ESCAPES})")
        if parts.username and parts.password is None:
            raise SettingError(
                "backend", "names a user without a password: user:password@host, or user:@host if it has none"
            )
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port,
            tls=parts.scheme in ("valkeys", "rediss"),
            user=_unquoted(parts.username),
            password=_unquoted(parts.password),
            db=int(db or 0),
        )

    def _check_files(self) -> None:
        """Raises SettingError when the files for TLS are of no use."""
        for setting, path in (("ca", self.ca_file), ("cert", self.cert_file), ("key", self.key_file)):
            if path and not os.access(path, os.R_OK):
                raise SettingError(f"backend_{setting}_file", f"cannot read {path!r}")
        if self.key_file and not self.cert_file:
            raise SettingError("backend_key_file", "is only of use with backend_cert_file")
        try:
            _tls_context(self.ca_file, self.cert_file, self.key_file)
        except OSError as error:  # ssl.SSLError is one
            files = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            why = getattr(error, "reason", None) or error.strerror or error
            hint = " (is its key in backend_key_file?)" if self.cert_file and not self.key_file else ""
            raise SettingError("backend", f"the certificates cannot be used ({files}): {why}{hint}") from None

    def __str__(self) -> str:
        user = f"{self.user.decode(errors='replace')}@" if self.user else ""
        if self.path:
            return f"unix://{user}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'valkeys' if self.tls else 'valkey'}://{user}{host}:{self.port}"

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Open one connection; its transport.  Raises OSError (ssl.SSLError and TimeoutError are OSErrors)."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if self.path:
                return await self._connect_unix(factory)
            tls = _tls_context(self.ca_file, self.cert_file, self.key_file) if self.tls else None
            transport, _ = await loop.create_connection(factory, self.host, self.port, ssl=tls)
            if not transport.is_closing():
                keep_alive(transport.get_extra_info("socket"), _KEEPALIVE_S, _UNANSWERED_S)
            return transport

    async def _connect_unix(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Wait while its backlog is full, as the system does for TCP (asyncio's own loop would not notice)."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            while True:
                try:
                    connection.connect(self.path)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_BACKLOG_FULL_S)
            transport, _ = await asyncio.get_running_loop().create_unix_connection(factory, sock=connection)
            return transport
        except BaseException:
            connection.close()
            raise

    async def ping(self, timeout_s: float = CONNECT_TIMEOUT_S) -> bytes:
        """What a new connection is answered to a PING, an error too.  Raises OSError when there is no answer."""
        reader = asyncio.StreamReader()
        async with asyncio.timeout(timeout_s):
            transport = await self.connect(lambda: asyncio.StreamReaderProtocol(reader))
            try:
                transport.write(encode_own([b"PING"]))
                if answer := await reader.read(1024):
                    return answer
                raise ConnectionResetError
            finally:
                transport.abort()


def is_turned_away(answer: bytes) -> bool:
    """Whether it is what Valkey says to a connection that it closes at once: the reply to nothing."""
    return answer.startswith(_TURNED_AWAY)


class ReplyProtocol(asyncio.Protocol, ABC):
    """A backend connection whose replies are parsed: the base of the shared lanes and the control connection."""

    transport: asyncio.Transport  #: there once ``Backend.connect`` has returned

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._cut_line = b""  # the start of an error reply whose end is still to come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: nothing is sent yet."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        """Parse, and hand on each reply in order."""
        reader = self._reader
        reader.feed(data)
        error_lines = None
        try:
            while (reply := reader.gets()) is not _NOT_YET:
                if isinstance(reply, hiredis.ReplyError) and "\ufffd" in str(reply):
                    if error_lines is None:
                        error_lines = _ERROR_LINE.finditer(self._cut_line + data)
                    reply = _as_sent(reply, error_lines)
                self.reply_received(reply)
        except hiredis.ProtocolError:
            self.transport.abort()
        if not data.endswith(b"\n"):
            start = data.rfind(b"\n") + 1
            line = data[start:] if start else self._cut_line + data
            self._cut_line = line if line.startswith(b"-") and len(line) < _MAX_ERROR_BYTES else b""
        elif self._cut_line:
            self._cut_line = b""

    def reset(self) -> None:
        """Close at once, and leave nothing behind.

        Whoever guesses passwords would else use up the ports to the backend, each of which rests for a minute.
        """
        with contextlib.suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    @abstractmethod
    def reply_received(self, reply: Any) -> None:
        """One whole reply; error replies are hiredis.ReplyError objects."""


def _as_sent(error: hiredis.ReplyError, lines: Iterator[re.Match[bytes]]) -> hiredis.ReplyError:
    """The error with bytes that are no UTF-8 as surrogates: hiredis puts U+FFFD for them.

    ``lines``: what was read and looks like an error, behind the last one that was asked for.
    """
    text = str(error)
    for line in lines:
        if line[1].decode(errors="replace") == text:
            return hiredis.ReplyError(line[1].decode(errors="surrogateescape"))
    return error
