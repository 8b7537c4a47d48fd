"""How a daemon, and the processes that belong to it, are seen from outside."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT, free_port

WORKERS = pytest.mark.parametrize("workers", [1, 2])


def alive(pid: int) -> bool:
    """Whether the process runs; on Linux, one that has ended does not, though nobody has waited for it."""
    status = Path(f"/proc/{pid}/status")
    try:
        os.kill(pid, 0)
        return sys.platform != "linux" or "\nState:\tZ" not in status.read_text()
    except (ProcessLookupError, FileNotFoundError):  # the latter: it was just waited for
        return False


def server_of(connection) -> int:
    """The process id of the backend."""
    return int(connection.call("INFO", "server").partition(b"process_id:")[2].split()[0])


def start_refused(*arguments, **environment) -> str:
    """What a start that fails says: one line, without the password that the tests use."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VALQD_")} | environment
    command = [sys.executable, "-m", "valqd", "--listen", f"127.0.0.1:{free_port()}", "--max-clients", "100"]
    command += map(str, arguments)
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("valqd: ")
    assert ended.stderr.count("\n") == 1
    assert "sesame" not in ended.stderr
    return ended.stderr


def answers_at(path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(path)
        client.sendall(b"PING\r\n")
        return client.recv(10) == b"+PONG\r\n"
    return False
