"""Signals and stops: what ends, what is waited for, and what is left behind."""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.crash.daemons import WORKERS, alive, answers_at, server_of
from tests.servers import ROOT, Connection, Valkey, Valqd, free_port, request, until
from tests.wire.expect import blocked, message, noticed, stopped


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_who_signals_twice_gets_what_one_signal_does(workers, number):
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Valqd(workers=workers))
        with Connection(daemon.port) as connection:
            server = server_of(connection)
        assert alive(server)
        for _ in range(5):
            daemon.signal(number)
            time.sleep(0.01)
        assert daemon.process.wait(8) == 0
        assert not alive(server)


def test_two_signals_are_as_one_where_the_backend_has_a_name():
    """Names are looked up in threads of the loop's, which signals must not reach either."""
    with Valkey() as valkey:
        for gap_s in (0.002, 0.01, 0.03):
            with Valqd(valkey.url.replace("127.0.0.1", "localhost")) as daemon:
                daemon.signal(signal.SIGTERM)
                time.sleep(gap_s)
                with contextlib.suppress(ProcessLookupError):
                    daemon.signal(signal.SIGTERM)
                assert daemon.process.wait(8) == 0


def test_a_script_without_end_does_not_keep_the_embedded_valkey_from_stopping():
    with Valqd(shutdown_timeout=2) as daemon, Connection(daemon.port) as busy:
        server = server_of(busy)
        busy.call("CONFIG", "SET", "busy-reply-threshold", "100")
        busy.send("EVAL", "while true do end", 0)
        with Connection(daemon.port) as other:
            until(lambda: "BUSY" in str(other.call("LRANGE", "l", "0", "-1")), 10, "busy")
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
        assert not alive(server)


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_waits_and_all_processes(workers, number):
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Valqd(workers=workers))
        connection, *waiting = [stack.enter_context(Connection(daemon.port)) for _ in range(7)]
        server = server_of(connection)
        for waiter in waiting:
            waiter.send("VALQ.POP", "q", "BLOCK", 0)
        blocked(connection, "q", 6)
        daemon.signal(number)
        assert [waiter.read() for waiter in waiting] == [None] * 6
        assert daemon.process.wait(8) == 0
        assert not alive(server)
        assert "ERROR" not in daemon.output()


@WORKERS
@pytest.mark.parametrize("after_s", [0, 0.05, 0.2])
def test_a_signal_while_it_starts_is_a_stop_like_any_other(workers, after_s):
    with Valqd(workers=workers, wait=False) as daemon:
        until(lambda: (Path(daemon.folder) / "data" / "valqd.lock").exists(), 10, "it has begun")
        time.sleep(after_s)
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(15) == 0
        assert "ERROR" not in daemon.output()


@pytest.mark.parametrize("gap_s", [0.002, 0.01])
def test_a_second_signal_while_the_backend_says_nothing_changes_nothing(gap_s):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Valqd(f"valkey://127.0.0.1:{silent.getsockname()[1]}", wait=False) as daemon,
        silent.accept()[0] as connection,
    ):
        assert connection.recv(5)
        for _ in range(2):
            daemon.signal(signal.SIGTERM)
            time.sleep(gap_s)
        assert daemon.process.wait(10) == 0


def test_a_stop_waits_for_slow_commands_and_not_for_blocked_ones(valkey):
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Valqd(valkey.url))
        slow, beside, *others = [stack.enter_context(Connection(daemon.port)) for _ in range(5)]
        never = (request("BLPOP", "nothing", 0), request("WAIT", 9, 0), b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$999999\r\nx")
        for connection, sent in zip(others, never, strict=True):
            connection.send_raw(sent)
        noticed(beside)
        slow.send("DEBUG", "SLEEP", 2)
        noticed(beside)
        since = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert slow.read() == b"OK"
        assert daemon.process.wait(15) == 0
        assert time.monotonic() - since < 8


def test_a_stop_closes_who_is_owed_nothing_at_once_though_others_are_waited_for(valkey):
    with Valqd(valkey.url) as daemon, Connection(daemon.port) as slow, Connection(daemon.port) as idle:
        assert idle.call("PING") == b"PONG"
        slow.send("DEBUG", "SLEEP", 4)
        noticed(idle)
        daemon.signal(signal.SIGTERM)
        assert idle.read_until_closed() == b""
        assert select.select([slow.socket], [], [], 0)[0] == []  # which is waited for
        assert slow.read() == b"OK"


@pytest.mark.parametrize("private", [False, True], ids=["shared lane", "private lane"])
def test_what_was_popped_for_who_has_left_is_given_back_before_a_stop_ends(valkey, queue, private):
    with Valqd(valkey.url) as daemon, Connection(daemon.port) as beside, Connection(daemon.port) as leaving:
        noticed(beside)
        leaving.call("VALQ.PUSH", queue, "x")
        leaving.call("CLIENT", "ID" if private else "NONE")
        with stopped(valkey):
            leaving.send_raw(request("LRANGE", "none", "0", "-1") * private + request("VALQ.POP", queue))
            noticed(beside)
            leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # by a reset
            leaving.close()
            noticed(beside)
            daemon.signal(signal.SIGTERM)
            until(lambda: "told to stop" in daemon.output(), 10, "it stops")
        assert daemon.process.wait(15) == 0
    with Valqd(valkey.url) as daemon, Connection(daemon.port) as other:
        assert message(other.call("VALQ.POP", queue))["attempts"] == 1


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "backend"])
def test_a_daemon_without_standard_files_starts_and_stops_like_any_other(valkey, tmp_path, embedded):
    port = free_port()
    backend = [] if embedded else ["--backend", valkey.url]
    command = [sys.executable, "-m", "valqd", "--listen", f"127.0.0.1:{port}", "--data-dir", str(tmp_path), *backend]
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=ROOT)
    try:

        def answers():
            with contextlib.suppress(OSError), Connection(port) as connection:
                return connection.call("PING") == b"PONG"

        until(answers, 20, "it runs")
        process.terminate()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()


def test_a_stop_is_told_of(valkey):
    with Valqd(valkey.url) as daemon:
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
        said = [line.partition(" INFO ")[2] for line in daemon.output().splitlines()]
        assert said[-2:] == ["told to stop: 0 clients", "valqd has stopped"]


def test_nobody_connects_to_a_daemon_that_stops(loops_environment):
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url, workers=2, environment=loops_environment))
        for _ in range(4):
            client = stack.enter_context(Connection(daemon.port))
            client.call("SET", "large", "x" * 1_000_000)
            client.send_raw(request("GET", "large") * 50)
        daemon.signal(signal.SIGTERM)

        def refused():
            refusals = (ConnectionRefusedError, ConnectionResetError)  # reset: at the very moment of the end
            with contextlib.suppress(*refusals), socket.create_connection(("127.0.0.1", daemon.port)):
                return False
            return True

        until(refused, 2, "connections are refused")
        assert all(refused() for _ in range(20))


@WORKERS
def test_an_embedded_valkey_that_was_started_again_stops_with_its_daemon(workers):
    for ended_by in (signal.SIGTERM, signal.SIGKILL):
        with Valqd(workers=workers) as daemon:
            until(lambda output=daemon.output: " on 127.0.0.1:" in output(), what="all workers ready")
            with Connection(daemon.port) as connection:
                os.kill(server_of(connection), signal.SIGKILL)

            def server(port=daemon.port):
                with contextlib.suppress(ConnectionError), Connection(port) as fresh:
                    info = fresh.call("INFO", "server")
                    return isinstance(info, bytes) and int(info.partition(b"process_id:")[2].split()[0])
                return None

            again = until(server, what="started again")
            daemon.signal(ended_by)
            assert daemon.process.wait(5) == (0 if ended_by == signal.SIGTERM else -signal.SIGKILL)
            until(lambda pid=again: not alive(pid), 5, "its Valkey ended")


@WORKERS
def test_a_daemon_that_stops_leaves_its_successors_unix_socket_alone(valkey, tmp_path, workers):
    path = str(tmp_path / "s")
    options = {"wait": False, "listen": f"unix:{path}", "workers": workers}
    with Valqd(valkey.url, **options) as old:
        until(lambda: answers_at(path), 10, "it answers")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(path)
            client.sendall(request("BLPOP", "nothing", "0"))  # makes the stop take a second
            time.sleep(0.2)
            old.signal(signal.SIGTERM)
            until(lambda: not answers_at(path), 5, "it listens no more")
            with Valqd(valkey.url, **options):
                until(lambda: answers_at(path), 10, "the new one answers")
                assert old.process.wait(15) == 0
                assert answers_at(path)
        assert not os.path.lexists(path)
