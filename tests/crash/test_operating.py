"""What an operator does to the daemon, and what he is told: starts that cannot work, signals, kills, users, outages."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers import ROOT, Connection, Valkey, Valqd, as_map, free_port, listening_sockets, request, until
from tests.wire.expect import blocked, message, noticed, refused


@pytest.fixture(autouse=True, scope="module")
def hanging_up_counts():
    """Also where the tests run under nohup, which a daemon takes as a wish to outlive its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


WORKERS = pytest.mark.parametrize("workers", [1, 2])


@pytest.fixture(params=["uvloop", "asyncio"])
def loops_environment(request, tmp_path):
    """What a daemon is started with so that it has uvloop, or has not."""
    if request.param == "uvloop":
        return {}
    folder = tmp_path / "without"
    folder.mkdir()
    (folder / "uvloop.py").write_text("raise ImportError")
    return {"PYTHONPATH": str(folder)}


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "127.0.0.1:6379"], "backend: must begin with valkey://"),
        (["--backend", "valkey://:sesame@[::1"], "backend: no valid URL"),
        (["--backend", "valkey://u:p#sesame@h:1"], "write @ as %40"),
        (["--backend", "valkey://:sesame@h:x"], "backend: no valid URL"),
        (["--backend", "valkey://h:1/?db=1"], "only /db may follow"),
        (["--backend", "valkey://h:1", "--backend-ca-file", "/ca"], "backend_ca_file: is only of use with valkeys://"),
        (["--backend", "valkey://127.0.0.1:1"], "backend valkey://127.0.0.1:1: "),
        (["--backend", "valkey://a..b:1"], "backend valkey://a..b:1: no valid host name"),
        (["--backend", "valkey://127.0.0.1/\u00b2"], "only /db may follow"),
        (["--config", "/no/such/file"], "config: cannot read /no/such/file"),
        (["--data-dir", "/dev/null/x"], "data_dir /dev/null/x: "),
        (["--workers", "2", "--backend", "valkey://127.0.0.1:1"], "backend valkey://127.0.0.1:1: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_start_that_cannot_work_is_refused_in_one_line(arguments, said):
    assert said in start_refused(*arguments)


def test_an_unknown_setting_is_refused_and_what_kubernetes_sets_is_not(valkey):
    assert "VALQD_NO_SUCH: unknown setting" in start_refused(VALQD_NO_SUCH="1")
    assert "VALQD_PORT: unknown setting" in start_refused(VALQD_PORT="7000")  # there is no service of that name
    of_services = {
        "VALQD_VALKEY_SERVICE_HOST": "10.0.0.2",
        "VALQD_VALKEY_PORT": "tcp://10.0.0.2:6379",
        "VALQD_SERVICE_HOST": "10.0.0.1",
        "VALQD_SERVICE_PORT_RESP": "6390",
        "VALQD_PORT": "tcp://10.0.0.1:6390",
        "VALQD_PORT_6390_TCP_ADDR": "10.0.0.1",
    }
    with Valqd(valkey.url, environment=of_services) as daemon, Connection(daemon.port) as connection:
        assert connection.call("PING") == b"PONG"


def test_a_port_in_use_and_a_folder_in_use_are_refused():
    with Valqd() as daemon:
        assert "Address already in use" in start_refused("--listen", f"127.0.0.1:{daemon.port}")
        said = start_refused("--data-dir", daemon.folder + "/data")
        assert f"in use by another valqd (valqd pid {daemon.pid}, its Valkey pid " in said


def test_a_data_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "users.acl").mkdir()
    assert f"data_dir {tmp_path}: " in start_refused("--data-dir", tmp_path)
    (tmp_path / "users.acl").rmdir()
    (tmp_path / "valkey.sock").mkdir()
    assert f"data_dir {tmp_path}: " in start_refused("--data-dir", tmp_path)
    (tmp_path / "valkey.sock").rmdir()
    (tmp_path / "valkey.log").mkdir()
    assert f"data_dir {tmp_path}: Is a directory (valkey.log)" in start_refused("--data-dir", tmp_path)
    (tmp_path / "valqd.lock").unlink()
    (tmp_path / "valqd.lock").mkdir()
    assert f"data_dir {tmp_path}: Is a directory (valqd.lock)" in start_refused("--data-dir", tmp_path)


@pytest.mark.parametrize("second", [1, 2])
def test_a_port_is_in_use_from_the_start(second):
    """Though no worker serves it yet: they wait for their backend."""
    with Valkey() as valkey:
        valkey.signal(signal.SIGSTOP)
        with Valqd(valkey.url, workers=2, wait=False) as first:

            def listens():
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", first.port)):
                    return True

            until(listens, 5, "it listens")
            try:
                said = start_refused("--listen", f"127.0.0.1:{first.port}", "--workers", second)
                assert "Address already in use" in said
            finally:
                valkey.signal(signal.SIGCONT)
            first.wait_ready()


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_who_signals_twice_gets_what_one_signal_does(workers, number):
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Valqd(workers=workers))
        with Connection(daemon.port) as connection:
            server = server_of(connection)
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


def test_a_password_that_is_missing_or_wrong_is_said():
    with Valkey("--requirepass", "sesame") as valkey:
        assert "it wants a password: [user]:password@" in start_refused("--backend", valkey.url)
        wrong = valkey.url.replace("//", "//:mustard@")
        assert "WRONGPASS" in start_refused("--backend", wrong)


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
        assert time.monotonic() - since < 6


def test_a_stop_closes_who_is_owed_nothing_at_once_though_others_are_waited_for(valkey):
    with Valqd(valkey.url) as daemon, Connection(daemon.port) as slow, Connection(daemon.port, timeout_s=1) as idle:
        assert idle.call("PING") == b"PONG"
        slow.send("DEBUG", "SLEEP", 2)
        noticed(idle)
        daemon.signal(signal.SIGTERM)
        assert idle.read_until_closed() == b""
        assert slow.read() == b"OK"


@pytest.mark.parametrize("private", [False, True], ids=["shared lane", "private lane"])
def test_what_was_popped_for_who_has_left_is_given_back_before_a_stop_ends(valkey, queue, private):
    with Valqd(valkey.url) as daemon, Connection(valkey.port) as direct, Connection(daemon.port) as beside:
        noticed(beside)
        with Connection(daemon.port) as leaving:
            leaving.call("VALQ.PUSH", queue, "x")
            leaving.call("CLIENT", "ID" if private else "NONE")
            direct.send("DEBUG", "SLEEP", 1)
            time.sleep(0.2)  # Valkey has it
            leaving.send_raw(request("LRANGE", "none", "0", "-1") * private + request("VALQ.POP", queue))
            noticed(beside)
            leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # by a reset
        noticed(beside)
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(15) == 0
        assert direct.read() == b"OK"
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


def test_a_worker_that_dies_is_replaced_and_a_killed_daemons_port_is_free_at_once(valkey):
    port = free_port()
    with Valqd(valkey.url, port=port, workers=2) as daemon:

        def children():
            return Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()

        before = until(lambda: len(children()) == 2 and children(), what="two workers")
        os.kill(int(before[0]), signal.SIGKILL)
        until(lambda: "was ended by signal 9" in daemon.output(), what="seen")
        until(lambda: len(children()) == 2 and before[0] not in children(), what="replaced")
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


@pytest.mark.skipif(sys.platform != "linux", reason="no other system shows the timers of another process's sockets")
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


def answers_at(path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(path)
        client.sendall(b"PING\r\n")
        return client.recv(10) == b"+PONG\r\n"
    return False


def test_a_unix_socket_that_a_killed_daemon_left_is_taken_over(valkey, tmp_path):
    path = str(tmp_path / "s")
    for _ in range(2):
        with Valqd(valkey.url, wait=False, listen=f"unix:{path}") as daemon:
            until(lambda: answers_at(path), 10, "it answers")
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel shares connections out in another way")
def test_while_a_worker_is_to_be_started_again_the_others_take_all_connections():
    with (
        Valkey() as valkey,
        Valqd(valkey.url, workers=2) as daemon,
    ):
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")

        for oldest in (True, True, False, True, False):  # each time it is started again later
            until(lambda: listening_sockets(daemon.port) == 2, 15, "both listen")
            killed = sorted(map(int, children.read_text().split()))[0 if oldest else -1]
            os.kill(killed, signal.SIGKILL)
            until(lambda pid=killed: f"(pid {pid}) was ended" in daemon.output(), 5, "it is seen")
            for _ in range(20):
                with Connection(daemon.port, timeout_s=3.0) as connection:
                    assert connection.call("PING") == b"PONG"


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
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"is started again in" in said
    assert b"Traceback" not in said


def test_a_worker_that_ends_leaves_the_unix_socket_to_the_others(valkey, tmp_path):
    path = str(tmp_path / "s")
    with Valqd(valkey.url, wait=False, listen=f"unix:{path}", workers=2) as daemon:
        until(lambda: "valqd " in daemon.output() and answers_at(path), 10, "it runs")
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
        os.kill(int(children.read_text().split()[0]), signal.SIGTERM)
        until(lambda: "is started again in" in daemon.output(), 5, "it has ended")
        assert answers_at(path)
