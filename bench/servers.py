"""The servers that are measured, on loopback, and a connection to set them up with."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hiredis

from valqd.io.embedded import allocator_settings, server_binary


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Connection:
    """A blocking RESP2 connection; error replies are raised."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)

    def send(self, *words: Any) -> None:
        """Send a command."""
        self._socket.sendall(hiredis.pack_command(words))

    def read(self) -> Any:
        """Read a reply."""
        while (reply := self._reader.gets()) is Ellipsis:
            data = self._socket.recv(1 << 20)
            if not data:
                raise ConnectionResetError
            self._reader.feed(data)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def call(self, *words: Any) -> Any:
        """Send a command and read its reply."""
        self.send(*words)
        return self.read()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()


def as_map(reply: list[Any]) -> dict[bytes, Any]:
    """A RESP2 map."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


class Server:
    """A child process that listens on ``port``."""

    def __init__(self, port: int, *command: str, environment: dict[str, str] | None = None) -> None:
        self.port = port
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(0.02)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait()


class Servers:
    """A Valkey without persistence with the baseline's functions, a valqd before it, and beanstalkd if it is there."""

    def __enter__(self) -> Servers:
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        binary = server_binary()
        environment = allocator_settings(binary)
        self.jemalloc_is_preloaded = "LD_PRELOAD" in environment
        self.valkey = self._stack.enter_context(Server(port, binary, *options, environment=environment))
        self.valqd = self._stack.enter_context(self.another())
        self.beanstalkd: Server | None = None
        beanstalkd = shutil.which("beanstalkd")
        if beanstalkd:
            port = free_port()
            self.beanstalkd = self._stack.enter_context(
                Server(port, beanstalkd, "-l", "127.0.0.1", "-p", str(port), "-z", "2000000")
            )
        baseline = Path(__file__).with_name("baseline.lua").read_text()
        with Connection(self.valkey.port) as connection:
            connection.call("FUNCTION", "LOAD", "REPLACE", baseline)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def another(self, workers: int = 1) -> Server:
        """A valqd on the same Valkey."""
        port = free_port()
        command = [sys.executable, "-m", "valqd", "--listen", f"127.0.0.1:{port}", "--workers", str(workers)]
        return Server(port, *command, "--backend", f"valkey://127.0.0.1:{self.valkey.port}", "--max-clients", "2000")

    def clear(self) -> None:
        """Remove all keys, and wait until their memory is free."""
        with Connection(self.valkey.port) as connection:
            connection.call("FLUSHALL", "SYNC")
