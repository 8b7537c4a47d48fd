"""What an operator does to the daemon while it runs, and what he is told: kills, users, outages, unix sockets."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.crash.daemons import WORKERS, answers_at, server_of
from tests.servers import (
    LINUX_ONLY,
    ROOT,
    Connection,
    Valkey,
    Valqd,
    as_map,
    children,
    free_port,
    listening_sockets,
    request,
    until,
)  # fmt: skip
from tests.wire.expect import blocked, message, refused


def test_a_killed_daemons_port_is_free_though_clients_do_not_read():
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Valqd(workers=2))
        for _ in range(4):
            client = stack.enter_context(Connection(first.port))
            client.call("SET", "large", "x" * 1_000_000)
            client.send_raw(request("GET", "large") * 50)
        first.kill()
        again = stack.enter_context(Valqd(workers=2, port=first.port, data_dir=Path(first.folder) / "data"))
        with Connection(again.port) as connection:
            assert connection.call("STRLEN", "large") == 1_000_000


@LINUX_ONLY
def test_a_worker_that_dies_is_replaced_and_a_killed_daemons_port_is_free_at_once(valkey):
    port = free_port()
    with Valqd(valkey.url, port=port, workers=2) as daemon:

        def workers():
            found = children(daemon.pid)
            return found if len(found) == 2 else []

        before = until(workers, what="two workers")
        os.kill(before[0], signal.SIGKILL)
        until(lambda: "was ended by signal 9" in daemon.output(), what="seen")
        until(lambda: workers() and before[0] not in workers(), what="replaced")
        daemon.wait_ready()
        for _ in range(8):
            with Connection(daemon.port) as connection:
                assert isinstance(connection.call("VALQ.PUSH", "replaced", "x"), bytes)
        daemon.kill()
        with Valqd(valkey.url, port=port, workers=2) as again, Connection(again.port) as connection:
            assert connection.call("PING") == b"PONG"


def test_users_and_passwords_that_were_saved_outlive_the_embedded_valkey(tmp_path):
    def check(port):
        with Connection(port) as stranger, Connection(port) as worker, Connection(port) as owner:
            refused(stranger.call("VALQ.PUSH", "q", "x"), "NOAUTH")
            assert worker.call("AUTH", "worker", "pw") == b"OK"
            refused(worker.call("VALQ.PUSH", "other", "x"), "NOPERM")
            assert owner.call("AUTH", "sesame") == b"OK"
            worker.send("VALQ.POP", "q", "BLOCK", 5000)
            assert isinstance(owner.call("VALQ.PUSH", "q", "x", "DELAY", "0.2"), bytes)
            assert as_map(worker.read())[b"body"] == b"x"  # the daemon, too, may still do its part

    with Valqd(data_dir=tmp_path) as daemon:
        with Connection(daemon.port) as connection:
            data = ("+@hash", "+@list", "+@sortedset", "+@keyspace", "+set", "+time", "-@dangerous")
            assert connection.call("ACL", "SETUSER", "worker", "on", ">pw", "~valq:{q}:*", "+fcall", *data) == b"OK"
            assert connection.call("CONFIG", "SET", "requirepass", "sesame") == b"OK"
            assert connection.call("ACL", "SAVE") == b"OK"
            os.kill(server_of(connection), signal.SIGKILL)
        until(lambda: "connected again" in daemon.output(), what="connected again")
        assert "it was ended by signal 9 (Killed), and its log ended: " in daemon.output()
        check(daemon.port)
    with Valqd(data_dir=tmp_path) as daemon:
        check(daemon.port)


def test_the_embedded_valkey_starts_again_though_its_default_user_may_do_nothing(tmp_path):
    with Valqd(data_dir=tmp_path) as daemon, Connection(daemon.port) as admin:
        admin.call("ACL", "SETUSER", "admin", "on", ">pw", "~*", "+@all")
        admin.call("ACL", "SETUSER", "default", "-@all")
        assert admin.call("AUTH", "admin", "pw") == b"OK"
        assert admin.call("ACL", "SAVE") == b"OK"
    with Valqd(data_dir=tmp_path) as daemon, Connection(daemon.port) as admin:
        refused(admin.call("GET", "k"), "NOPERM")
        assert admin.call("AUTH", "admin", "pw") == b"OK"
        assert admin.call("VALQ.PUSH", "q", "x") == b"1"


def errors(direct, code: str) -> int:
    """How often Valkey has answered an error of this code."""
    found = re.search(rf"errorstat_{code}:count=(\d+)", direct.call("INFO", "errorstats").decode())
    return int(found[1]) if found else 0


def test_while_the_daemons_own_user_is_refused_blocked_pops_look_for_themselves():
    with Valkey() as valkey, Connection(valkey.port) as direct:
        assert direct.call("ACL", "SETUSER", "daemon", "on", ">pw", "~*", "&*", "+@all") == b"OK"
        url = valkey.url.replace("//", "//daemon:pw@")
        with Valqd(url) as daemon, Connection(daemon.port) as waiting, Connection(daemon.port) as pushing:
            waiting.send("VALQ.POP", "q", "BLOCK", 10_000)
            blocked(pushing, "q")
            assert direct.call("ACL", "DELUSER", "daemon") == 1
            until(lambda: "daemon's own connection is refused" in daemon.output(), what="said")
            assert pushing.call("VALQ.PUSH", "q", "x") == b"1"
            waiting.socket.settimeout(4)
            assert as_map(waiting.read())[b"body"] == b"x"
            tried = errors(direct, "WRONGPASS")
            until(lambda: errors(direct, "WRONGPASS") >= tried + 2, 10, "it tries again")
            assert daemon.output().count("daemon's own connection is refused") == 1


@pytest.mark.parametrize("taken", ["-mget", "-client|tracking"])
def test_a_daemon_that_may_not_watch_says_so_and_blocked_pops_look_for_themselves(taken):
    with Valkey() as valkey, Connection(valkey.port) as direct:
        assert direct.call("ACL", "SETUSER", "daemon", "on", ">pw", "~*", "&*", "+@all", taken) == b"OK"
        with (
            Valqd(valkey.url.replace("//", "//daemon:pw@")) as daemon,
            Connection(daemon.port, timeout_s=5) as waiting,
            Connection(daemon.port) as pushing,
        ):
            waiting.send("VALQ.POP", "q", "BLOCK", 0)
            blocked(pushing, "q")
            pushing.call("VALQ.PUSH", "q", "x")
            assert as_map(waiting.read())[b"body"] == b"x"
            until(lambda: "blocked POPs only look once a second" in daemon.output(), what="said")


def test_a_read_only_backend_is_said_once():
    with Valkey() as valkey, Connection(valkey.port) as direct:
        with Valqd(valkey.url) as daemon, Connection(daemon.port) as connection:
            for number in range(200):
                connection.call("VALQ.PUSH", f"q{number}", "x")
            direct.call("REPLICAOF", "127.0.0.1", "1")
            refused(connection.call("VALQ.PUSH", "q", "x"), "READONLY")
        with Valqd(valkey.url) as daemon:
            until(lambda: "READONLY" in daemon.output(), what="said")
            tried = errors(direct, "READONLY")
            until(lambda: errors(direct, "READONLY") >= tried + 2, 10, "it tries again")
            assert daemon.output().count("READONLY") == 1


@LINUX_ONLY
def test_connections_are_kept_alive_on_both_sides():
    def timers(port, remote):
        """The timers of established connections of this host to or from a port; 2 is keepalive's."""
        found = []
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, peer, state, _, timer, *_ = line.split()
            if state == "01" and int((peer if remote else local).partition(":")[2], 16) == port:
                found.append(timer.partition(":")[0])
        return found

    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port) as connection:
        connection.call("CLIENT", "ID")  # opens a lane of its own
        connection.call("VALQ.PUSH", "q", "x")
        until(lambda: timers(daemon.port, remote=False) == ["02"], what="the client's is kept alive")
        until(lambda: timers(valkey.port, remote=True).count("02") >= 3, what="control's and the lanes' are, too")


@WORKERS
def test_a_unix_socket_that_a_killed_daemon_left_is_taken_over(valkey, tmp_path, workers):
    path = str(tmp_path / "s")
    for _ in range(3):  # workers may still have it when the next one comes
        with Valqd(valkey.url, wait=False, listen=f"unix:{path}", workers=workers) as daemon:
            until(lambda output=daemon.output: f" on unix:{path}" in output(), 10, "started")
            assert answers_at(path)
            daemon.kill()


def test_a_unix_socket_whose_rights_were_changed_goes_with_its_daemon(valkey, tmp_path):
    path = str(tmp_path / "s")
    with Valqd(valkey.url, wait=False, listen=f"unix:{path}"):
        until(lambda: answers_at(path), 10, "it answers")
        Path(path).chmod(0o660)
    assert not os.path.lexists(path)


def test_connections_that_a_busy_backend_at_a_unix_socket_has_no_room_for_wait(tmp_path, loops_environment):
    path = str(tmp_path / "s")
    with (
        Valkey("--unixsocket", path, "--tcp-backlog", "16") as valkey,
        Valqd(f"unix://{path}", environment=loops_environment) as daemon,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(Connection(daemon.port)) for _ in range(60)]
        assert [client.call("PING") for client in clients] == [b"PONG"] * 60
        valkey.signal(signal.SIGSTOP)
        for client in clients:
            client.send("CLIENT", "ID")
        time.sleep(0.3)
        valkey.signal(signal.SIGCONT)
        assert all(isinstance(client.read(), int) for client in clients)


def test_the_log_says_why_there_is_no_backend():
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        valkey.kill()
        until(lambda: f"backend {valkey.url} cannot be reached: " in daemon.output(), 5, "said")
        valkey.start()
        until(lambda: "connected again" in daemon.output(), 5, "connected again")
        assert daemon.output().count("cannot be reached") == 1


def test_a_body_that_the_backend_does_not_take_fails_alone():
    with (
        Valkey("--proto-max-bulk-len", "1mb") as valkey,
        Valqd(valkey.url) as daemon,
        Connection(daemon.port) as large,
        Connection(daemon.port) as other,
    ):
        other.send("VALQ.POP", "q", "BLOCK", "0")
        refusal = large.call("VALQ.PUSH", "q", "x" * (1 << 20) + "x")
        assert "larger than max_body_bytes (1048576)" in str(refusal)
        assert large.call("VALQ.PUSH", "q", "x" * (1 << 20)) == b"1"
        assert message(other.read())["body"] == b"x" * (1 << 20)
        assert large.call("VALQ.PUSH", "q", "y", "HEADERS", 1, "a", "x" * ((1 << 20) - 6)) == b"2"
        assert message(other.call("VALQ.POP", "q"))["body"] == b"y"
        assert "max_body_bytes is 1048576" in daemon.output()
        with Connection(valkey.port) as direct:
            direct.call("CONFIG", "SET", "proto-max-bulk-len", "2mb")
            direct.call("CLIENT", "KILL", "TYPE", "normal")
        until(lambda: "max_body_bytes is 2097152" in daemon.output(), 5, "asked again")
        with Connection(daemon.port) as larger:  # clients that were there keep to what they were told
            until(lambda: larger.call("VALQ.PUSH", "q", "x" * (3 << 19)) == b"3", 5, "taken")


@LINUX_ONLY  # elsewhere the kernel also shares connections out in another way
def test_while_a_worker_is_to_be_started_again_the_others_take_all_connections():
    with (
        Valkey() as valkey,
        Valqd(valkey.url, workers=2) as daemon,
    ):
        for oldest in (True, True, False, True, False):  # each time it is started again later
            until(lambda: listening_sockets(daemon.port) == 2, 15, "both listen")
            killed = sorted(children(daemon.pid))[0 if oldest else -1]
            os.kill(killed, signal.SIGKILL)
            until(lambda pid=killed: f"(pid {pid}) was ended" in daemon.output(), 5, "it is seen")
            for _ in range(20):
                with Connection(daemon.port, timeout_s=3.0) as connection:
                    assert connection.call("PING") == b"PONG"


@LINUX_ONLY
def test_an_embedded_valkey_at_its_limit_of_file_size_refuses_writes_and_goes_on(tmp_path):
    with Valqd(data_dir=tmp_path / "data") as daemon, Connection(daemon.port) as client:
        server = server_of(client)
        before = resource.prlimit(server, resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        body = "x" * 4096
        until(lambda: "MISCONF" in str(client.call("VALQ.PUSH", "q", body)), 10, "refused")
        resource.prlimit(server, resource.RLIMIT_FSIZE, before)
        until(lambda: isinstance(client.call("VALQ.PUSH", "q", body), bytes), 10, "taken again")
        assert server_of(client) == server


@LINUX_ONLY
@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "backend"])
def test_children_can_be_waited_for_though_who_started_the_daemon_ignored_theirs(valkey, tmp_path, embedded):
    port = free_port()
    backend = [] if embedded else ["--backend", valkey.url]
    options = ["--listen", f"127.0.0.1:{port}", "--data-dir", str(tmp_path / "data"), "--workers", "2", *backend]
    script = "import os, signal as s, sys; s.signal(s.SIGCHLD, s.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", script, sys.executable, "-m", "valqd", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    try:

        def rewritten():
            with contextlib.suppress(OSError), Connection(port) as connection:
                if embedded and "aof_rewrites:0" in str(connection.call("INFO", "persistence")):
                    connection.call("BGREWRITEAOF")
                return "aof_rewrite_in_progress:0" in str(connection.call("INFO", "persistence"))

        until(rewritten, 20, "it runs")
        time.sleep(0.5)
        until(rewritten, 5, "a rewrite ends")
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"is started again in" in said
    assert b"Traceback" not in said


@LINUX_ONLY
def test_a_worker_that_ends_leaves_the_unix_socket_to_the_others(valkey, tmp_path):
    path = str(tmp_path / "s")
    with Valqd(valkey.url, wait=False, listen=f"unix:{path}", workers=2) as daemon:
        until(lambda: "valqd " in daemon.output() and answers_at(path), 10, "it runs")
        os.kill(children(daemon.pid)[0], signal.SIGTERM)
        until(lambda: "is started again in" in daemon.output(), 5, "it has ended")
        assert answers_at(path)
