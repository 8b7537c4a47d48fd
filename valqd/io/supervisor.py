"""The daemon's parent process: the port, the embedded Valkey, and the workers.

One worker runs in this very process.  Several are children that share the port (SO_REUSEPORT) and are restarted
when they die; SIGTERM and SIGINT reach all of them, and the embedded Valkey stops last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from valqd.config import Settings
from valqd.errors import StartError
from valqd.io.backend import Backend
from valqd.io.embedded import EmbeddedServer
from valqd.io.worker import Worker

_BACKLOG = 1024
#: A worker that dies is restarted after this long, so that one that cannot live does not spin.
_RESTART_S = 0.3

log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Run the daemon until it is told to stop.  Raises StartError."""
    with contextlib.ExitStack() as stack:
        server: EmbeddedServer | None = None
        listening = stack.enter_context(_listening(settings))
        if settings.backend:
            backend = Backend.from_settings(settings)
        else:
            server = stack.enter_context(EmbeddedServer(settings.data_dir, settings.appendfsync))
            backend = Backend(path=server.socket_path)

        def tick() -> None:
            if server is not None and server.respawn_if_dead():
                log.error("the embedded Valkey died and was started again")

        def announce() -> None:
            where = "embedded Valkey" if server is not None else f"backend {backend}"
            log.info("valqd %s on %s, %s, pid %d", _version(), _address(listening), where, os.getpid())

        if settings.workers == 1:
            _run_worker(settings, backend, 0, listening, announce, tick)
        else:
            _Supervisor(settings, backend, listening, tick).run(announce)


def _version() -> str:
    from valqd import __version__

    return __version__


def _address(listening: socket.socket) -> str:
    name = listening.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The bound socket.  With several workers on TCP it only reserves the port: each worker binds its own."""
    if settings.listen.startswith("unix:"):
        path = settings.listen.removeprefix("unix:")
        _remove_stale_socket(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target: str | tuple[str, int] = path
    else:
        host, _, port = settings.listen.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        target = (host, int(port))
    with contextlib.closing(listening):
        try:
            listening.bind(target)
            if settings.workers > 1 and listening.family != socket.AF_UNIX:
                # The port is free: now reserve it in a way that workers can share.
                target = listening.getsockname()[:2]
                reserved = _reuse_port(listening.family)
                listening.close()
                reserved.bind(target)
                listening = reserved
            else:
                listening.listen(_BACKLOG)
        except OSError as error:
            raise StartError(f"listen {settings.listen}: {error.strerror or error}") from None
        try:
            yield listening
        finally:
            listening.close()
            if isinstance(target, str):
                with contextlib.suppress(OSError):
                    os.unlink(target)


def _reuse_port(family: int) -> socket.socket:
    shared = socket.socket(family, socket.SOCK_STREAM)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return shared


def _remove_stale_socket(path: str) -> None:
    """Remove a socket that nobody listens on."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(Path(path).stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)


def _run_worker(
    settings: Settings,
    backend: Backend,
    number: int,
    listening: socket.socket,
    ready: Callable[[], None],
    tick: Callable[[], None],
) -> None:
    """Run one worker's event loop: uvloop's where there is one."""

    async def main() -> None:
        await Worker(settings, backend, number).run(listening, ready, tick)

    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


class _Supervisor:
    def __init__(self, settings: Settings, backend: Backend, reserved: socket.socket, tick: Callable[[], None]) -> None:
        self._settings = settings
        self._backend = backend
        self._reserved = reserved
        self._tick = tick
        self._numbers: dict[int, int] = {}  # worker pid -> its number
        self._restart_at: dict[int, float] = {}

    def run(self, announce: Callable[[], None]) -> None:
        wanted = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        try:
            for number in range(self._settings.workers):
                with os.fdopen(self._start(number), "rb") as reader:
                    if not reader.read(1):  # it ended before it was ready, and has said why
                        raise _WorkerFailed
            announce()
            while True:
                self._tick()
                received = signal.sigtimedwait(wanted, 0.2)
                self._reap()
                if received is not None and received.si_signo != signal.SIGCHLD:
                    return
        except _WorkerFailed:
            raise SystemExit(1) from None
        finally:
            self._stop()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)

    def _start(self, number: int) -> int:
        """Fork one worker; a pipe that gets a byte when it is ready."""
        reader, writer = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            os.close(writer)
            self._numbers[pid] = number
            return reader
        status = 1
        try:
            os.close(reader)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})

            def orphaned() -> None:
                if os.getppid() != parent:
                    os.kill(os.getpid(), signal.SIGTERM)

            _run_worker(self._settings, self._backend, number, self._own_socket(), lambda: _tell(writer), orphaned)
            status = 0
        except StartError as error:
            print(f"valqd: {error}", file=sys.stderr)
        except BaseException:
            log.exception("worker %d failed", number)
        finally:
            logging.shutdown()
            os._exit(status)

    def _own_socket(self) -> socket.socket:
        if self._reserved.family == socket.AF_UNIX:
            return self._reserved
        own = _reuse_port(self._reserved.family)
        own.bind(self._reserved.getsockname())
        return own

    def _reap(self) -> None:
        """Note the workers that died; start again those whose pause is over."""
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if (number := self._numbers.pop(pid, None)) is not None:
                log.error("worker %d (pid %d) ended with status %d; it is started again", number, pid, status)
                self._restart_at[number] = time.monotonic() + _RESTART_S
        for number, when in list(self._restart_at.items()):
            if time.monotonic() >= when:
                del self._restart_at[number]
                os.close(self._start(number))

    def _stop(self) -> None:
        for pid in self._numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + self._settings.shutdown_timeout + 2
        for pid in self._numbers:
            while os.waitpid(pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.02)


class _WorkerFailed(Exception):
    """A worker ended before it was ready."""


def _tell(writer: int) -> None:
    with contextlib.suppress(OSError):
        os.write(writer, b".")
        os.close(writer)
