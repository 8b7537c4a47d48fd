"""What the start says of the backend and of the port that it is given."""

import contextlib
import ctypes.util
import ipaddress
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.crash.daemons import WORKERS, server_of, start_refused
from tests.servers import LINUX_ONLY, Connection, Valkey, Valqd, free_port, listening_sockets, request, until
from valqd.errors import StartError
from valqd.io import embedded
from valqd.io.embedded import EmbeddedServer
from valqd.lua import bundle


@pytest.mark.parametrize(
    ("info", "named"),
    [
        ("redis_version:7.4.1", "Redis 7.4.1"),
        ("redis_version:7.2.4\r\nvalkey_version:7.1.9", "Valkey 7.1.9"),
        (None, "something else"),
    ],
)
def test_a_backend_that_is_no_valkey_of_7_2_or_higher_is_refused_by_name_and_version(info, named):
    def answer(server):
        with server.accept()[0] as connection:
            told = b"_\r\n" if info is None else b"$%d\r\n%b\r\n" % (len(info), info.encode())
            for reply in (b"%1\r\n$5\r\nproto\r\n:3\r\n", told):
                connection.recv(4096)
                connection.sendall(reply)
            connection.recv(4096)

    with socket.create_server(("127.0.0.1", free_port())) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        said = start_refused("--backend", f"valkey://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert "needs Valkey 7.2 or higher" in said
    assert named in said


@pytest.mark.parametrize(
    ("host", "password", "warned"), [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("127.0.0.1", False, False)]
)
def test_an_open_port_without_a_password_is_warned_of(host, password, warned):
    options = ("--requirepass", "pw") if password else ()
    with Valkey(*options) as valkey:
        url = valkey.url.replace("//", "//:pw@") if password else valkey.url
        port = free_port()
        with Valqd(url, port=port, listen=f"{host}:{port}") as daemon:
            if warned:
                until(lambda: "whoever reaches it may do anything" in daemon.output(), what="said")
            with Connection(daemon.port) as connection:
                connection.send_raw(request("PING"))
                connection.read()
            assert ("whoever reaches it may do anything" in daemon.output()) == warned
            assert ("ACL SETUSER default" in daemon.output()) == warned


@pytest.mark.parametrize(("step", "stays"), [(1, True), (-1, False)], ids=["newer", "older"])
def test_only_a_library_of_a_lower_revision_is_replaced(step, stays):
    there = f"-- revision: {bundle.REVISION + step}\n"
    source = bundle.whole_source().replace(f"-- revision: {bundle.REVISION}\n", there)
    with Valkey() as valkey, Connection(valkey.port) as direct:
        assert direct.call("FUNCTION", "LOAD", source) == b"valq1"
        with Valqd(valkey.url) as daemon, Connection(daemon.port) as client:
            assert client.call("VALQ.PUSH", "q", "x") == b"1"
            assert f"pid {daemon.pid}; backend {valkey.url}\n" in daemon.output()
        assert (there.encode() in direct.call("FUNCTION", "LIST", "WITHCODE")[0][-1]) is stays


def test_a_library_of_a_lower_revision_that_another_daemon_loads_later_is_replaced():
    now = f"-- revision: {bundle.REVISION}\n"
    older = bundle.whole_source().replace(now, f"-- revision: {bundle.REVISION - 1}\n")
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port) as client:
        client.call("VALQ.PUSH", "q", "x")
        assert client.call("FUNCTION", "LOAD", "REPLACE", older) == b"valq1"
        until(lambda: now.encode() in client.call("FUNCTION", "LIST", "WITHCODE")[0][-1], what="replaced")


@contextlib.contextmanager
def loading():
    """A Valkey that takes a minute to load its data, unless it is told to ``load_at_once``."""
    with Valkey() as valkey:
        with Connection(valkey.port) as direct:
            direct.call("CONFIG", "SET", "rdbcompression", "no")
            direct.call("DEBUG", "POPULATE", "300", "key", "2000")
            direct.call("SAVE")
        valkey.kill()
        valkey.options = ("--key-load-delay", "200000", "--loading-process-events-interval-bytes", "1024")
        valkey.wait_ready = lambda: None
        valkey.start()

        def loads():
            with contextlib.suppress(OSError), Connection(valkey.port) as direct:
                return b"loading:1" in direct.call("INFO", "persistence")

        until(loads, 10, "it loads")
        yield valkey


def load_at_once(valkey):
    with Connection(valkey.port) as direct:
        assert direct.call("CONFIG", "SET", "key-load-delay", "0") == b"OK"


def test_a_backend_that_loads_its_data_is_waited_for():
    with loading() as valkey, Valqd(valkey.url, wait=False) as daemon:
        until(lambda: "it is loading its data" in daemon.output(), 20, "it waits")
        load_at_once(valkey)
        daemon.wait_ready()
        with Connection(daemon.port) as client:
            assert client.call("DBSIZE") == 300


@LINUX_ONLY
def test_no_worker_that_waits_for_the_backend_outlives_its_daemon():
    with loading() as valkey, Valqd(valkey.url, workers=2, wait=False) as daemon:
        until(lambda: "it is loading its data" in daemon.output(), 20, "it waits")
        daemon.kill()
        until(lambda: not listening_sockets(daemon.port), 10, "nobody has the port")
        with Connection(valkey.port) as direct:
            assert b"loading:1" in direct.call("INFO", "persistence")


def test_a_damaged_append_only_file_is_named(tmp_path):
    folder = tmp_path / "data"
    with Valqd(data_dir=folder) as daemon, Connection(daemon.port) as client:
        client.call("VALQ.PUSH", "q", "x")
        assert f"pid {daemon.pid}; embedded Valkey in {folder}" in daemon.output()
    (written,) = (folder / "appendonlydir").glob("*.incr.aof")
    with written.open("ab") as file:
        file.write(b"\0" * 4096)  # as after a power cut
    said = start_refused("--data-dir", str(folder))
    assert "the embedded Valkey did not start" in said
    assert "append only file" in said


def test_what_an_embedded_valkey_says_before_it_has_a_log_is_told(tmp_path, monkeypatch):
    server = tmp_path / "server"
    server.write_text("#!/bin/sh\necho a library is missing >&2\nexit 127\n")
    server.chmod(0o700)
    monkeypatch.setattr(embedded, "server_binary", lambda: str(server))
    said = r"it ended with exit status 127, and its log ended: a library is missing \(see .*/valkey\.log\)$"
    with pytest.raises(StartError, match=said), EmbeddedServer(str(tmp_path / "data"), "everysec"):
        pass


@pytest.fixture
def server_built_with(tmp_path):
    """Makes what says of itself, as valkey-server does, with which allocator it was built."""

    def build(allocator):
        server = tmp_path / "server"
        server.write_text(f"#!/bin/sh\necho Valkey server v=9.1.2 malloc={allocator} bits=64\n")
        server.chmod(0o700)
        return str(server)

    return build


@LINUX_ONLY
@pytest.mark.parametrize(
    ("built_with", "library", "preloaded"),
    [
        ("libc", "libm.so.6", "libm.so.6"),  # any library that every system has
        ("libc", "libmissing.so.2", None),
        ("jemalloc-5.3.0", "libm.so.6", None),
    ],
)
def test_an_allocator_is_preloaded_if_it_is_there_and_the_server_has_none_of_its_own(
    server_built_with, monkeypatch, built_with, library, preloaded
):
    monkeypatch.setattr(embedded, "_JEMALLOC", library)
    settings = embedded.allocator_settings(server_built_with(built_with))
    assert settings.get("LD_PRELOAD") == preloaded
    assert ("MALLOC_TRIM_THRESHOLD_" in settings) == (preloaded is None)


@pytest.mark.parametrize("error", [OSError(11, "no fork"), subprocess.TimeoutExpired("valkey-server", 5)])
def test_a_server_that_cannot_be_tried_is_run_without_another_allocator(monkeypatch, error):
    def run(*arguments, timeout, **options):
        assert timeout <= 5
        raise error

    monkeypatch.setattr(embedded.subprocess, "run", run)
    assert "LD_PRELOAD" not in embedded.allocator_settings("server")


@LINUX_ONLY
def test_what_the_operator_preloads_and_sets_stays(server_built_with, monkeypatch):
    monkeypatch.setattr(embedded, "_JEMALLOC", "libm.so.6")
    monkeypatch.setenv("LD_PRELOAD", "libdl.so.2")
    monkeypatch.setenv("MALLOC_CONF", "narenas:1")
    settings = embedded.allocator_settings(server_built_with("libc"))
    assert settings == {"LD_PRELOAD": "libdl.so.2:libm.so.6", "MALLOC_CONF": "narenas:1"}


@LINUX_ONLY
def test_the_embedded_valkey_runs_with_jemalloc_exactly_where_that_is_installed():
    with Valqd() as daemon, Connection(daemon.port) as client:
        mapped = Path(f"/proc/{server_of(client)}/maps").read_text()
        is_installed = ctypes.util.find_library("jemalloc") is not None
        assert [("libjemalloc.so" in mapped), (", with jemalloc\n" in daemon.output())] == [is_installed, is_installed]


def test_a_working_directory_that_is_gone_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(StartError, match=r"data_dir here: No such file"):
        EmbeddedServer("here", "everysec")


def test_functions_that_valkey_refuses_for_want_of_memory_are_named():
    with Valkey("--maxmemory", "1") as full:
        said = start_refused("--backend", full.url)
    assert "FUNCTION LOAD was refused: OOM " in said
    assert "raise maxmemory" in said


@pytest.mark.parametrize(
    ("policy", "maxmemory", "warned"),
    [("allkeys-lru", "1gb", 1), ("allkeys-lru", "0", 0), ("volatile-lru", "1gb", 0), ("noeviction", "1gb", 0)],
)
def test_an_eviction_policy_that_takes_messages_is_warned_of(policy, maxmemory, warned):
    options = ("--maxmemory-policy", policy, "--maxmemory", maxmemory)
    with Valkey(*options) as valkey, Valqd(valkey.url, workers=2) as daemon:
        assert daemon.output().count("maxmemory-policy is") == warned


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
    with loading() as valkey, Valqd(valkey.url, workers=2, wait=False) as first:
        until(lambda: "it is loading its data" in first.output(), 20, "it waits")
        assert "Address already in use" in start_refused("--listen", f"127.0.0.1:{first.port}", "--workers", second)
        load_at_once(valkey)
        first.wait_ready()


def test_a_password_that_is_missing_or_wrong_is_said():
    with Valkey("--requirepass", "sesame") as valkey:
        assert "it wants a password: [user]:password@" in start_refused("--backend", valkey.url)
        wrong = valkey.url.replace("//", "//:mustard@")
        assert "WRONGPASS" in start_refused("--backend", wrong)


def link_local() -> list[str]:
    """This host's link-local addresses, with their scopes."""
    table, found = Path("/proc/net/if_inet6"), []
    for line in table.read_text().splitlines() if table.exists() else []:
        address, _, _, scope, _, interface = line.split()
        if scope == "20":
            found.append(f"{ipaddress.ip_address(bytes.fromhex(address))}%{interface}")
    return found


@WORKERS
@pytest.mark.skipif(not link_local(), reason="this host has no such address")
def test_a_link_local_address_is_listened_on(valkey, workers):
    host, port = link_local()[0], free_port()
    with Valqd(valkey.url, wait=False, listen=f"[{host}]:{port}", workers=workers) as daemon:
        until(lambda: f"{port}, pid " in daemon.output(), 10, "started")
        with socket.create_connection((host, port)) as client:
            client.sendall(b"PING\r\n")
            assert client.recv(10) == b"+PONG\r\n"
