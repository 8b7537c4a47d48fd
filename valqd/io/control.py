"""The daemon's own connection to the backend: version check, function library, timers, wake-ups.

Speaks RESP3 as the daemon's user; while somebody waits for a queue, Valkey tracks keys that it read (see
registration): a change of one arrives as a push.
Bound: callers await their replies; nothing is queued while the connection is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from hiredis import PushNotification

from valqd.errors import ControlLost, StartError
from valqd.io.backend import CONNECT_TIMEOUT_S, Backend, ReplyProtocol
from valqd.io.complaints import Complaints
from valqd.lua import LIBRARY_NAME, bundle
from valqd.protocol.requests import encode_own

_RETRY_S = 0.1
#: The log tells of a backend that has not answered for so long.
_SILENT_S = 5.0
#: The answer to a younger connection may come first when a backend that was stopped goes on.
_OVERTAKEN_S = 0.5
#: OpenSSL's codes for a certificate whose issuer is not known.
_NO_ISSUER = (18, 19, 20, 21)
_LEAST_VERSION = (7, 2)
_REFUSED = "the daemon's own connection is refused; nothing is swept, and blocked POPs only look once a second"
_SILENT = "backend {} does not answer"
_UNREACHABLE = "backend {} cannot be reached"
_REVISION = re.compile(rb"^-- revision: (\d+)$", re.MULTILINE)

log = logging.getLogger(__name__)


class _Connection(ReplyProtocol):
    def __init__(self, invalidated: Callable[[list[bytes] | None], None]) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self._replies: deque[asyncio.Future[Any]] = deque()
        self._invalidated = invalidated

    def reply_received(self, reply: Any) -> None:
        if type(reply) is PushNotification:
            if reply[0] == b"invalidate":
                self._invalidated(reply[1])
        elif self._replies:
            future = self._replies.popleft()
            if not future.done():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        for future in self._replies:
            if not future.done():
                future.set_exception(ControlLost())
        self._replies.clear()

    def send(self, requests: list[list[bytes]]) -> list[asyncio.Future[Any]]:
        if self.ended.is_set():
            raise ControlLost
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in requests]
        self._replies.extend(futures)
        self.transport.write(b"".join(map(encode_own, requests)))
        return futures


class Control:
    """Keeps the connection; ``connected`` callbacks run after each reconnection, once the library is there."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._connection: _Connection | None = None
        self._db: int | None = backend.db  # None: not known
        self._selecting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.up = False  #: calls can be made: it is greeted, and its library is there
        self.run_id = ""  #: of the Valkey process that it is, or was last, connected to
        self.clustered = False  #: keys of different queues must not stand in one command
        self.connected: list[Callable[[], None]] = []
        #: gets tracked keys that changed; None: Valkey has forgotten what it tracked (FLUSHALL)
        self.invalidated: Callable[[list[bytes] | None], None] = lambda keys: None
        self.complaints = Complaints()

    async def start(self) -> None:
        """Connect for the first time.  Raises StartError with the reason when the backend cannot be used."""
        try:
            await self._open()
        except TimeoutError:
            hint = " (does it speak TLS? else valkey://)" if self._backend.tls else ""
            raise StartError(f"backend {self._backend}: no answer within {CONNECT_TIMEOUT_S:g} s{hint}") from None
        except ControlLost:
            hint = " (does it want TLS? then valkeys://)"
            if self._backend.tls:
                hint = "" if self._backend.cert_file else " (does it want a certificate? then backend_cert_file)"
            raise StartError(f"backend {self._backend}: it closed the connection{hint}") from None
        except UnicodeError:  # from the encoding of names
            raise StartError(f"backend {self._backend}: no valid host name") from None
        except ssl.SSLCertVerificationError as error:
            hint = " (is its CA in backend_ca_file?)" if error.verify_code in _NO_ISSUER else ""
            raise StartError(f"backend {self._backend}: {error.verify_message}{hint}") from None
        except OSError as error:
            raise StartError(f"backend {self._backend}: {error.strerror or error}") from None
        self._task = asyncio.ensure_future(self._stay_connected())

    async def close(self) -> None:
        """Stop for good."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            self._connection.transport.abort()

    async def _stay_connected(self) -> None:
        while True:
            assert self._connection is not None
            await self._connection.ended.wait()
            self.up = False
            log.warning("backend %s: connection lost", self._backend)
            while True:
                await asyncio.sleep(_RETRY_S)
                try:
                    await self._open()
                    break
                except (OSError, ControlLost) as error:
                    why = getattr(error, "strerror", None) or str(error) or "it closed, or does not answer"
                    self.complaints.say(_UNREACHABLE.format(self._backend), why)
                except StartError as error:
                    self.complaints.say(_REFUSED, error)
                    await asyncio.sleep(1)
                except Exception:
                    log.exception("connecting again failed")
                    await asyncio.sleep(1)
            self.complaints.forget(_REFUSED)
            self.complaints.forget(_UNREACHABLE.format(self._backend))
            log.warning("backend %s: connected again", self._backend)
            for callback in self.connected:
                callback()

    async def _open(self) -> None:
        self.up = False
        connection = _Connection(self.invalidated)
        await self._backend.connect(lambda: connection)
        self._connection = connection
        try:
            await self._greet()
            await self._load()
            self.up = True
        except BaseException:
            connection.transport.abort()
            raise

    async def _greet(self) -> None:
        backend = self._backend
        auth: list[bytes] = []
        if backend.password is not None:
            auth = [b"AUTH", backend.user or b"default", backend.password]
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await self._checked([b"HELLO", b"3", *auth, b"SETNAME", b"valqd"])
        info = await self._wait_until_loaded()
        version = re.search(r"^valkey_version:(\d+)\.(\d+)(\S*)", info, re.MULTILINE)
        other = re.search(r"^redis_version:(\S+)", info, re.MULTILINE)
        if version is None:
            found = f"Redis {other[1]}" if other else "something else"
            raise StartError(f"backend {backend}: valqd needs Valkey 7.2 or higher, this is {found}")
        if (int(version[1]), int(version[2])) < _LEAST_VERSION:
            found = f"{version[1]}.{version[2]}{version[3]}"
            raise StartError(f"backend {backend}: valqd needs Valkey 7.2 or higher, this is Valkey {found}")
        self.run_id = next(iter(re.findall(r"^run_id:(\w+)", info, re.MULTILINE)), "")
        self.clustered = re.search(r"^(?:server|redis)_mode:cluster", info, re.MULTILINE) is not None
        if self.clustered:
            await self._warn_of_other_nodes()
        if backend.db:
            await self._checked([b"SELECT", b"%d" % backend.db])
        self._db = backend.db

    async def _warn_of_other_nodes(self) -> None:
        (nodes,) = await self._ask([[b"CLUSTER", b"NODES"]])
        if isinstance(nodes, Exception):  # the daemon's user may not ask
            return
        own = next((line for line in nodes.splitlines() if b"myself" in line), b"")
        if b"0-16383" not in own.split():
            log.warning(
                "backend %s: this node of a cluster does not serve all slots: valqd needs one that does, "
                "what is in the other slots answers MOVED, and nothing may be swept",
                self._backend,
            )

    async def _wait_until_loaded(self) -> str:
        """INFO server; Valkey answers LOADING to what follows while it reads its data."""
        told = False
        while True:
            info = await self._checked([b"INFO", b"server", b"persistence"])
            text = info.decode("utf-8", "replace") if isinstance(info, bytes) else ""  # of something else than Valkey
            if "\nloading:1" not in text:
                return text
            if not told:
                told = True
                log.warning("backend %s: it is loading its data", self._backend)
            await asyncio.sleep(_RETRY_S)

    async def _checked(self, request: list[bytes]) -> Any:
        (reply,) = await self._ask([request])
        if isinstance(reply, Exception):
            if str(reply).startswith("NOAUTH"):
                raise StartError(
                    f"backend {self._backend}: it wants a password: [user]:password@ before its host or path"
                )
            name = b" ".join(request[:2]) if request[0] == b"FUNCTION" else request[0]
            remedy = " (raise maxmemory until the functions are loaded)" if str(reply).startswith("OOM") else ""
            text = f"backend {self._backend}: {name.decode()} was refused: {reply}{remedy}"
            raise StartError(text, refusal=str(reply))
        return reply

    async def load_library(self) -> None:
        """Make sure that the function library is there, in this revision or a higher one.

        Raises ControlLost, and StartError when the backend refuses it.
        """
        if not self.up:
            raise ControlLost
        await self._load()

    async def replace_older_library(self) -> None:
        """Load the library if a daemon of an older version, which found none, has loaded its own.

        Raises as load_library.
        """
        if self.up and (await self._there())[1] < bundle.REVISION:
            await self._load()

    async def _there(self) -> tuple[bytes, int]:
        """The library's source in the backend (empty: there is none), and its revision."""
        reply = await self._checked([b"FUNCTION", b"LIST", b"LIBRARYNAME", LIBRARY_NAME.encode(), b"WITHCODE"])
        code: bytes = reply[0][b"library_code"] if reply else b""
        revision = _REVISION.search(code)
        return code, int(revision[1]) if revision else 0

    async def _load(self) -> None:
        source = bundle.whole_source().encode()
        code, revision = await self._there()
        if code != source and revision <= bundle.REVISION:
            await self._checked([b"FUNCTION", b"LOAD", b"REPLACE", source])

    async def config(self, *names: bytes) -> dict[bytes, bytes]:
        """The backend's settings of these names, as far as it tells.  Raises ControlLost."""
        reply = await self.call([b"CONFIG", b"GET", *names])
        return reply if isinstance(reply, dict) else {}

    async def call(self, request: list[bytes]) -> Any:
        """One request in the backend's default database; error replies are returned.  Raises ControlLost."""
        return (await self.calls([request]))[0]

    async def calls(self, requests: list[list[bytes]], db: int | None = None) -> list[Any]:
        """Several requests, pipelined, in ``db``; if that is refused, so is each of them.  Raises ControlLost."""
        wanted = self._backend.db if db is None else db
        async with self._selecting:
            if not self.up:  # now: it may have been lost while this waited
                raise ControlLost
            if wanted != self._db:
                before, self._db = self._db, None
                (selected,) = await self._ask([[b"SELECT", b"%d" % wanted]])
                if isinstance(selected, Exception):
                    self._db = before
                    return [selected] * len(requests)
                self._db = wanted
            replies = self._ask(requests)  # sent in this database, whatever is selected before they are answered
        return await replies

    def _ask(self, requests: list[list[bytes]]) -> Awaitable[list[Any]]:
        """Send now; the replies."""
        assert self._connection is not None
        return self._answers(self._connection, self._connection.send(requests))

    async def _answers(self, connection: _Connection, replies: list[asyncio.Future[Any]]) -> list[Any]:
        watching: asyncio.Task[None] | None = None

        def watch() -> None:
            nonlocal watching
            watching = asyncio.ensure_future(self._watch(connection))

        timer = asyncio.get_running_loop().call_later(_SILENT_S, watch)
        try:
            answers = await asyncio.gather(*replies)
        finally:
            timer.cancel()
            if watching is not None:
                watching.cancel()
        self.complaints.over(_SILENT.format(self._backend))
        return answers

    async def _watch(self, connection: _Connection) -> None:
        """Complain of a silent backend.  If it answers others, only this connection leads nowhere, and is given up.

        A proxy may keep it, to a node that is gone.
        """
        while True:
            self.complaints.say(_SILENT.format(self._backend), f"for {_SILENT_S:g} s")
            with contextlib.suppress(OSError):
                if not (await self._backend.ping()).startswith(b"-BUSY "):
                    await asyncio.sleep(_OVERTAKEN_S)
                    connection.transport.abort()
                    return
            await asyncio.sleep(_SILENT_S)
