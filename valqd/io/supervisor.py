"""The daemon's parent process: the port, the embedded Valkey, and the workers.

One worker runs in this very process.  Several are children that share the port (SO_REUSEPORT) and are restarted
when they die; SIGTERM, SIGINT and SIGHUP reach all of them, and the embedded Valkey stops last.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from valqd import __version__
from valqd.config import Settings
from valqd.errors import StartError
from valqd.io.backend import Backend, refuse_files
from valqd.io.embedded import EmbeddedServer
from valqd.io.keepalive import keep_alive
from valqd.io.process import STOP_TICK_S, how_it_ended, is_told_to_stop, stop_if_told, stop_signals
from valqd.io.worker import BACKLOG, Worker

#: A worker that dies is restarted after this long, and twice as long each time that it dies soon again.
_RESTART_S = 0.3
_LONGEST_RESTART_S = 10.0
#: The port of a daemon that was killed is free when its workers have seen it.
_BIND_FOR_S = 1.5
#: How long the end of a worker's loop may take.
_LEAVING_S = 1.0
#: Of clients, as Valkey has it.
_KEEPALIVE_S = 300

log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Run the daemon until it is told to stop.  Raises StartError, and KeyboardInterrupt when told before it runs.

    Signals are blocked, and looked for ten times a second: a handler's exception can be lost in whatever it comes upon,
    and a second signal must not end the daemon before its Valkey.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who starts this may ignore it: then nobody could wait for children
    with contextlib.ExitStack() as stack:
        server: EmbeddedServer | None = None
        listening = stack.enter_context(_listening(settings))
        if settings.backend:
            backend = Backend.from_settings(settings)
        else:
            refuse_files(settings)
            server = stack.enter_context(EmbeddedServer(settings.data_dir, settings.appendfsync))
            backend = server.backend

        def announce() -> None:
            where = f"backend {backend}"
            if server is not None:
                where = f"embedded Valkey in {server.folder}{', with jemalloc' if server.preloads_jemalloc else ''}"
            log.info("valqd %s on %s, pid %d; %s", __version__, _address(listening), os.getpid(), where)

        tick = server.respawn_if_dead if server is not None else lambda: None
        if settings.workers == 1:
            _run_worker(settings, backend, 0, listening, announce, tick)
        else:
            _Supervisor(settings, backend, listening, tick, server).run(announce)
    log.info("valqd has stopped")


def _address(listening: socket.socket) -> str:
    name = listening.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket: the first worker's, or on a unix socket all workers'.  Nobody else can listen there."""
    if settings.listen.startswith("unix:"):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target: str | tuple[Any, ...] = settings.listen.removeprefix("unix:")
    else:
        host, _, port = settings.listen.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        keep_alive(listening, _KEEPALIVE_S)  # its connections inherit it
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        target = (host, int(port))
        if family == socket.AF_INET6:  # a link-local one has a scope
            with contextlib.suppress(OSError, UnicodeError):
                target = socket.getaddrinfo(host, int(port), family)[0][4]
    with contextlib.closing(listening):
        try:
            _bind(listening, target)
            listening.listen(BACKLOG)
            if settings.workers > 1 and listening.family != socket.AF_UNIX:
                # Nobody else has the port: only now others, our workers, may have it too.
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except (OSError, TypeError) as error:  # TypeError: no name that could be looked up
            why = getattr(error, "strerror", None) or error
            raise StartError(f"listen {settings.listen}: {why}") from None
        mine = _file(target)
        try:
            yield listening
        finally:
            # A newcomer that found this one closed has its own socket there.
            if isinstance(target, str) and mine is not None and _file(target) == mine:
                os.unlink(target)


def _file(target: str | tuple[Any, ...]) -> tuple[int, int] | None:
    """What tells a unix socket's file from another of the same path; None if there is none."""
    with contextlib.suppress(OSError):
        if isinstance(target, str):
            found = Path(target).stat()
            return found.st_ino, found.st_mtime_ns
    return None


def _bind(listening: socket.socket, target: str | tuple[Any, ...]) -> None:
    """Bind, waiting a moment for a port that is in use, or a path.  Raises OSError."""
    deadline = time.monotonic() + _BIND_FOR_S
    while True:
        try:
            if isinstance(target, str):
                _remove_stale_socket(target)
            listening.bind(target)
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            stop_if_told()
            time.sleep(0.05)


def _sharing_port_of(listening: socket.socket) -> socket.socket:
    """Another socket of the same port, still to listen; the kernel shares connections out.  Raises StartError."""
    own = socket.socket(listening.family, socket.SOCK_STREAM)
    keep_alive(own, _KEEPALIVE_S)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        own.bind(listening.getsockname())
    except OSError as error:
        raise StartError(f"listen {_address(listening)}: {error.strerror or error}") from None
    return own


def _remove_stale_socket(path: str) -> None:
    """Remove a socket that nobody listens on."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(Path(path).stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.setblocking(False)  # somebody's whose backlog is full must not hold up the start
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
        if settings.backend:
            # The loop's end waits for a name look-up that hangs, which nothing can cancel; nothing else is left to do.
            leaving = threading.Timer(_LEAVING_S, os._exit, (0,))
            leaving.daemon = True
            with contextlib.suppress(RuntimeError):  # no more threads are allowed
                leaving.start()


class _Supervisor:
    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        listening: socket.socket,
        tick: Callable[[], None],
        server: EmbeddedServer | None,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._listening = listening
        self._is_tcp = listening.family != socket.AF_UNIX
        self._tick = tick
        self._server = server
        self._numbers: dict[int, int] = {}  # worker pid -> its number
        self._started_at: dict[int, float] = {}  # by number
        self._pauses: dict[int, float] = {}  # before its last restart, seconds
        self._restart_at: dict[int, float] = {}

    def run(self, announce: Callable[[], None]) -> None:
        try:
            for number in range(self._settings.workers):
                try:
                    reader = self._start(number)
                except OSError as error:
                    raise StartError(f"worker {number} cannot be started: {error.strerror}") from None
                if not self._is_ready(number, reader):
                    return
            announce()
            while not is_told_to_stop():
                self._tick()
                self._reap()
                time.sleep(STOP_TICK_S)
        finally:
            self._stop()

    def _is_ready(self, number: int, reader: int) -> bool:
        """Wait for a worker's byte; False: the daemon is to stop.  Raises SystemExit when it failed."""
        with os.fdopen(reader, "rb") as pipe:
            while not select.select([pipe], [], [], STOP_TICK_S)[0]:
                if is_told_to_stop():
                    return False
            if not pipe.read(1):  # it ended before it was ready, and has said why if its status is 1
                pid, _ = self._numbers.popitem()  # it was started last
                status = os.waitpid(pid, 0)[1]
                if is_told_to_stop():  # by a signal that reached both
                    return False
                if os.waitstatus_to_exitcode(status) != 1:
                    print(f"valqd: worker {number} {_end(status)} as it started", file=sys.stderr)
                raise SystemExit(1)
        return True

    def _start(self, number: int) -> int:
        """Fork one worker; a pipe that gets a byte when it is ready.  Raises OSError."""
        reader, writer = os.pipe()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        if pid:
            os.close(writer)
            self._numbers[pid] = number
            self._started_at[number] = time.monotonic()
            return reader
        status = 1
        try:
            os.close(reader)
            if self._server is not None:
                self._server.close_lock()

            def orphaned() -> None:
                if os.getppid() != parent:
                    os.kill(os.getpid(), signal.SIGTERM)

            listening = self._listening
            if number > 0 and self._is_tcp:
                listening = _sharing_port_of(listening)
                self._listening.close()  # or the port stayed taken as long as this worker lives
            _run_worker(self._settings, self._backend, number, listening, lambda: _tell(writer), orphaned)
            status = 0
        except StartError as error:
            print(f"valqd: {error}", file=sys.stderr)
        except BaseException:
            log.exception("worker %d failed", number)
        finally:
            logging.shutdown()
            os._exit(status)

    def _reap(self) -> None:
        """Note the workers that died; start again those whose pause is over."""
        for pid, number in list(self._numbers.items()):
            # Of no other child: the embedded Valkey is waited for elsewhere.
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._numbers[pid]
            now = time.monotonic()
            lasted = now - self._started_at[number] > _LONGEST_RESTART_S
            pause = _RESTART_S if lasted else min(_LONGEST_RESTART_S, 2 * self._pauses.get(number, _RESTART_S / 2))
            self._pauses[number] = pause
            self._restart_at[number] = now + pause
            if number == 0 and self._is_tcp:
                with contextlib.suppress(OSError):  # where systems do not know this
                    self._listening.shutdown(socket.SHUT_RD)  # or the kernel would give it its share of connections
            log.error("worker %d (pid %d) %s; it is started again in %.1f s", number, pid, _end(status), pause)
        for number, when in list(self._restart_at.items()):
            if time.monotonic() >= when:
                del self._restart_at[number]
                try:
                    os.close(self._start(number))
                except OSError as error:
                    why = error.strerror
                    log.error("worker %d cannot be started, in %g s again: %s", number, _LONGEST_RESTART_S, why)
                    self._restart_at[number] = time.monotonic() + _LONGEST_RESTART_S

    def _stop(self) -> None:
        self._listening.close()  # the first worker closes it too
        for pid in self._numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + self._settings.shutdown_timeout
        for pid in self._numbers:
            while os.waitpid(pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.02)


def _end(status: int) -> str:
    """How a process ended, from its wait status."""
    return how_it_ended(os.waitstatus_to_exitcode(status))


def _tell(writer: int) -> None:
    with contextlib.suppress(OSError):  # of a worker that was started again nobody asks
        os.write(writer, b".")
    os.close(writer)
