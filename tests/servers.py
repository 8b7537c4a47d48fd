"""Real servers for tests: a valkey-server and a valqd, each on a free port, stopped by their own pid."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hiredis
import pytest

from valqd.io.embedded import server_binary

ROOT = Path(__file__).parent.parent
#: The valkey-server that tests run; VALKEY_SERVER names another (an older version).
SERVER = os.environ.get("VALKEY_SERVER") or server_binary()
#: valkey-cli, or Redis's, which does the same; None: the system has neither.
CLI = shutil.which("valkey-cli") or shutil.which("redis-cli")
#: For tests that look into /proc (what says "(Linux)" here does), or at what only Linux's sockets do.
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, or what only Linux's sockets do")


def _own_ports() -> tuple[socket.socket, range]:
    """Ports that no other test process gives out, and the socket whose port says that they are taken.

    Below those that systems give to outgoing connections.
    """
    for first in range(20_000, 32_000, 500):
        guard = socket.socket()
        try:
            guard.bind(("127.0.0.1", first))
        except OSError:
            guard.close()
        else:
            return guard, range(first + 1, first + 500)
    raise RuntimeError("no ports left for tests")


_guard, _own = _own_ports()
_ports = itertools.cycle(_own)


def free_port() -> int:
    """A port that nobody listens on, and that was not given out for long."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable")


def listening_sockets(port: int) -> int:
    """How many sockets listen on the port (Linux)."""
    sockets = Path("/proc/net/tcp").read_text().splitlines()
    return sum(f":{port:04X} 00000000:0000 0A" in line for line in sockets)


def children(pid: int) -> list[int]:
    """The processes that this one has started, oldest first (Linux)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rss_mib(pid: int, field="VmRSS") -> float:
    """The memory that a process has in use, in MiB (Linux)."""
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{field}:")[2].split()[0]) / 1024


def peak_mib(pid: int) -> float:
    """The most that it has had in use since it was started (Linux)."""
    return rss_mib(pid, "VmHWM")


def until(condition, timeout_s=5.0, what="condition"):
    """Poll ``condition`` until it is true; its value."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        time.sleep(0.005)


class Process:
    """A server process that accepts connections on ``port`` while it lives."""

    process: subprocess.Popen
    port: int

    def wait_ready(self, timeout_s=20):
        def ready():
            assert self.process.poll() is None, f"{self} ended: {self.output()}"
            with contextlib.suppress(OSError), Connection(self.port) as connection:
                reply = connection.call("PING")
                return reply == b"PONG" or isinstance(reply, hiredis.ReplyError)
            return False

        try:
            until(ready, timeout_s, f"{self} ready")
        except BaseException:  # nobody else would stop it
            self.kill()
            raise

    def output(self) -> str:
        return ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s=15) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


class Valkey(Process):
    """A valkey-server without persistence unless ``options`` say otherwise."""

    def __init__(self, *options: str, port: int | None = None, folder: str | None = None):
        self.port = port or free_port()
        self._own_folder = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="valkey-")
        self.options = options
        self.start()

    def start(self):
        command = [SERVER, "--port", str(self.port), "--dir", self.folder, "--save", "", "--daemonize", "no"]
        command += ["--enable-debug-command", "yes", "--bind", "127.0.0.1", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_ready()

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    def __exit__(self, *exc):
        super().__exit__(*exc)
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class Valqd(Process):
    """A valqd daemon; ``options`` are flags by name."""

    def __init__(self, backend: str = "", port: int | None = None, wait=True, environment=None, **options):
        self.port = port or free_port()
        self.folder = tempfile.mkdtemp(prefix="valqd-")
        self._errors = Path(self.folder) / "stderr"
        command = [sys.executable, "-m", "valqd"]
        flags = {"listen": f"127.0.0.1:{self.port}", **options}
        if backend:
            flags["backend"] = backend
        flags.setdefault("data_dir", self.folder + "/data")
        for name, value in flags.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        self.command = command
        env = {name: value for name, value in os.environ.items() if not name.startswith("VALQD_")}
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=errors, env={**env, **(environment or {})})
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_s=20):
        def announced():  # a worker of a daemon that was killed may still answer at the same port
            assert self.process.poll() is None, f"{self} ended: {self.output()}"
            return f"pid {self.pid}" in self.output()

        until(announced, timeout_s, f"{self} ready")
        super().wait_ready(timeout_s)

    def output(self) -> str:
        return self._errors.read_text(errors="replace")

    def __exit__(self, *exc):
        super().__exit__(*exc)
        output = self.output()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert "Traceback" not in output, output
        assert self.process.returncode in (0, -signal.SIGKILL), (self.process.returncode, output)


class Connection:
    """A raw socket that speaks RESP; error replies are returned, not raised."""

    def __init__(self, port: int, resp: int = 2, timeout_s: float = 10.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self.sent_bytes = 0
        if resp == 3:
            assert isinstance(self.call("HELLO", "3"), dict)

    def send_raw(self, data: bytes):
        """Raises TimeoutError when nothing more is taken for the timeout; ``sent_bytes`` counts what was."""
        rest = memoryview(data)
        while rest:
            sent = self.socket.send(rest)
            self.sent_bytes += sent
            rest = rest[sent:]

    def send(self, *args):
        self.send_raw(request(*args))

    @property
    def arrived_bytes(self) -> int:
        """How much of what was sent the other side has read; the rest is in the buffers of both sockets (Linux)."""
        time.sleep(0.25)  # a confirmation may be late by 0.2 s: until then what has arrived would count twice
        near, far = (f"0100007F:{name[1]:04X}" for name in (self.socket.getsockname(), self.socket.getpeername()))
        waiting = 0
        for line in Path("/proc/net/tcp").read_text().splitlines():
            _, local, remote, _, queues, *_ = line.split()
            if (local, remote) == (near, far):
                waiting += int(queues.partition(":")[0], 16)  # not confirmed by the other side's system
            elif (local, remote) == (far, near):
                waiting += int(queues.partition(":")[2], 16)  # not read by its process
        return self.sent_bytes - waiting

    def read(self):
        while (reply := self._reader.gets()) is Ellipsis:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionResetError("closed")
            self._reader.feed(data)
        return reply

    def call(self, *args):
        self.send(*args)
        return self.read()

    def read_raw(self, size: int) -> bytes:
        """Exactly ``size`` raw bytes (not to be mixed with ``read``)."""
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                break
            data += chunk
        return data

    def read_until_closed(self) -> bytes:
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := self.socket.recv(65536):
                data += chunk
        return data

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def request(*args) -> bytes:
    """A multibulk request."""
    parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def as_map(reply) -> dict:
    """A map reply of either protocol version."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
