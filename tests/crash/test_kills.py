"""Nothing that was answered is lost, whichever side is killed under load."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from tests.servers import (
    LINUX_ONLY,
    ROOT,
    Connection,
    Valkey,
    Valqd,
    as_map,
    free_port,
    peak_mib,
    request,
    rss_mib,
    until,
)  # fmt: skip
from tests.wire.expect import blocked, info, noticed, stopped

MIB = 1 << 20


class Load:
    """Producers and workers that live through broken connections, and remember what they were told."""

    def __init__(self, port: int, pairs: int):
        self._port = port
        self.pairs = pairs
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.pushed: set[bytes] = set()
        self.acked: list[bytes] = []
        self.in_doubt: set[bytes] = set()  # bodies whose ACK may have been applied, though nobody said so
        self.errors: set[str] = set()
        self._threads = [
            threading.Thread(target=run, args=(number,)) for number in range(pairs) for run in (self._push, self._work)
        ]
        for thread in self._threads:
            thread.start()

    def goes_on(self):
        """Wait until both sides have been answered many times since, and for a while."""
        pushed, acked = len(self.pushed), len(self.acked)
        time.sleep(0.7)
        until(lambda: len(self.pushed) > pushed + 100 and len(self.acked) > acked + 100, 10, "answered under load")

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _connect(self):
        while not self._stop.is_set():
            try:
                return Connection(self._port)
            except OSError:
                time.sleep(0.01)
        return None

    def _forever(self, step):
        connection = self._connect()
        while not self._stop.is_set():
            try:
                reply = step(connection)
            except OSError:
                connection.close()
                connection = self._connect()
                continue
            if isinstance(reply, Exception):
                self.errors.add(str(reply).partition(" ")[0])
                time.sleep(0.005)
        if connection is not None:
            connection.close()

    def _push(self, number):
        count = 0

        def step(connection):
            nonlocal count
            count += 1
            body = b"%d:%d" % (number, count)
            reply = connection.call("VALQ.PUSH", "load", body)
            if isinstance(reply, bytes):
                with self._lock:
                    self.pushed.add(body)
            return reply

        self._forever(step)

    def _work(self, number):
        def step(connection):
            popped = connection.call("VALQ.POP", "load", "BLOCK", "100")
            if popped is None or isinstance(popped, Exception):
                return popped
            message = as_map(popped)
            try:
                acked = connection.call("VALQ.ACK", "load", message[b"receipt"])
            except OSError:
                self.in_doubt.add(message[b"body"])
                raise
            if acked == 1:
                with self._lock:
                    self.acked.append(message[b"body"])
            elif "may have been applied" in str(acked):
                self.in_doubt.add(message[b"body"])
            return acked

        self._forever(step)


def drain(connection) -> set[bytes]:
    bodies = set()

    def empty():
        while popped := connection.call("VALQ.POP", "load", "COUNT", "1000"):
            messages = [as_map(message) for message in popped]
            bodies.update(message[b"body"] for message in messages)
            connection.call("VALQ.ACK", "load", *(message[b"receipt"] for message in messages))
        return as_map(connection.call("VALQ.INFO", "load"))[b"msgs"] == 0

    until(empty, 20, "drained")
    return bodies


def check(load, connection, kills):
    left = drain(connection)
    assert load.acked
    assert len(load.in_doubt) <= kills * load.pairs  # each worker has one ACK under way, or none
    assert len(load.acked) == len(set(load.acked)), "acknowledged twice"
    assert not left & set(load.acked), "acknowledged, and still there"
    info = as_map(connection.call("VALQ.INFO", "load"))
    assert info[b"pushed_total"] == info[b"acked_total"]
    # What was pushed with an answer was acknowledged: by an answered ACK, by one whose answer was lost, or just now.
    assert load.pushed
    assert load.pushed <= set(load.acked) | load.in_doubt | left


def test_nothing_answered_is_lost_when_the_daemon_is_killed():
    port = free_port()
    with Valkey() as valkey, contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Valqd(valkey.url, port=port))
        with Connection(port) as connection:
            connection.call("VALQ.CREATE", "load", "1", "1000")
        load = Load(port, 6)
        for _ in range(2):
            load.goes_on()
            daemon.kill()
            daemon = stack.enter_context(Valqd(valkey.url, port=port))
        load.goes_on()
        load.stop()
        assert load.errors == set()
        with Connection(port) as connection:
            check(load, connection, kills=2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_message_for_who_waited_at_a_daemon_that_is_gone_goes_to_the_next_in_line(valkey, number, queue):
    with (
        Valqd(valkey.url) as gone,
        Valqd(valkey.url) as other,
        Connection(gone.port) as first,
        Connection(other.port) as second,
        Connection(other.port) as pushing,
    ):
        for waiter, count in ((first, 1), (second, 2)):
            waiter.send("VALQ.POP", queue, "BLOCK", "0")
            blocked(pushing, queue, count)
        gone.signal(number)
        pushing.call("VALQ.PUSH", queue, "hello")
        start = time.monotonic()
        assert as_map(second.read())[b"body"] == b"hello"
        assert time.monotonic() - start < 5


def test_nothing_answered_is_lost_when_valkey_is_killed():
    with (
        Valkey("--appendonly", "yes", "--appendfsync", "always") as valkey,
        Valqd(valkey.url) as daemon,
        Connection(daemon.port) as waiting,
        Connection(daemon.port) as connection,
    ):
        connection.call("VALQ.CREATE", "load", "1", "1000")
        waiting.send("VALQ.POP", "patient", "BLOCK", "0")
        load = Load(daemon.port, 6)
        for _ in range(2):
            load.goes_on()
            valkey.kill()
            until(lambda: str(connection.call("VALQ.PUSH", "beside", "x")).startswith("NOBACKEND"), 10, "NOBACKEND")
            valkey.start()
        until(lambda: isinstance(connection.call("VALQ.PUSH", "beside", "x"), bytes), 5, "service again")
        load.stop()
        assert load.errors <= {"NOBACKEND", "LOADING"}
        connection.call("VALQ.PUSH", "patient", "at last")
        assert as_map(waiting.read())[b"body"] == b"at last"
        check(load, connection, kills=2)


def is_written(connection):
    """With appendfsync everysec Valkey may write up to 2 s late, while an fsync is under way."""
    return b"\r\naof_buffer_length:0\r\n" in connection.call("INFO", "persistence")


def test_an_embedded_valkey_keeps_its_data_when_both_are_killed(tmp_path):
    with Valqd(data_dir=tmp_path / "data") as daemon:
        with Connection(daemon.port) as connection:
            connection.call("VALQ.PUSH", "kept", "safe")
            until(lambda: is_written(connection), 5, "written")
            server = int(connection.call("INFO", "server").partition(b"process_id:")[2].split()[0])
        daemon.signal(signal.SIGSTOP)  # it starts no other
        os.kill(server, signal.SIGKILL)  # first: it would end by itself once its daemon is gone
        daemon.kill()
    with Valqd(data_dir=tmp_path / "data") as again, Connection(again.port) as connection:
        assert as_map(connection.call("VALQ.POP", "kept"))[b"body"] == b"safe"


def test_what_an_embedded_valkey_writes_is_its_users_alone_whoever_made_the_folder(tmp_path):
    tmp_path.chmod(0o755)
    with Valqd(data_dir=tmp_path) as daemon, Connection(daemon.port) as connection:
        connection.call("VALQ.PUSH", "q", "a secret")
        assert connection.call("ACL", "SAVE") == b"OK"
        assert sorted(path.name for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077) == []


def test_an_embedded_valkey_that_dies_is_started_again():
    with Valqd() as daemon, Connection(daemon.port) as connection:
        connection.call("VALQ.PUSH", "kept", "safe")
        until(lambda: is_written(connection), 5, "written")
        server = int(connection.call("INFO", "server").partition(b"process_id:")[2].split()[0])
        os.kill(server, signal.SIGKILL)

        def served():
            with Connection(daemon.port) as fresh:
                popped = fresh.call("VALQ.POP", "kept")
                return isinstance(popped, list) and as_map(popped)[b"body"] == b"safe"

        until(served, 10, "served again")


def test_what_clients_of_redis_ask_for_leaves_their_blocked_pops_where_they_are():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, 3) as waiting:
        assert isinstance(waiting.call("CLIENT", "MAINT_NOTIFICATIONS", "ON"), Exception)
        waiting.send("VALQ.POP", "q", "BLOCK", 0)
        with Connection(daemon.port) as pushing:
            blocked(pushing, "q")
            valkey.kill()
            valkey.start()
            until(lambda: pushing.call("VALQ.PUSH", "q", "x") == b"1", what="served again")
            assert as_map(waiting.read())[b"body"] == b"x"


def test_flushed_functions_are_loaded_again_unseen(valkey, valqd, queue):
    with Connection(valkey.port) as direct, Connection(valqd.port) as connection:
        for _ in range(20):
            direct.call("FUNCTION", "FLUSH")
            connection.send_raw(b"".join(request("VALQ.PUSH", queue, body) for body in "abc"))
            assert all(isinstance(connection.read(), bytes) for _ in range(3))
            direct.call("FUNCTION", "FLUSH")
            connection.send_raw(
                request("SET", "k", "1")
                + request("VALQ.PUSH", queue, "d")
                + request("INCR", "k")
                + request("VALQ.POP", queue)
            )
            assert connection.read() == b"OK"
            assert isinstance(connection.read(), bytes)
            assert connection.read() == 2
            assert as_map(connection.read())[b"attempts"] == 1
            direct.call("FUNCTION", "FLUSH")
            assert connection.call("MULTI") == b"OK"
            assert connection.call("VALQ.PUSH", queue, "e") == b"QUEUED"
            assert isinstance(connection.call("EXEC")[0], bytes)
        assert as_map(connection.call("VALQ.INFO", queue))[b"pushed_total"] == 100


@pytest.mark.parametrize(
    ("before", "last"),
    [
        ([], [("VALQ.POP", "q")]),
        ([("LRANGE", "k", 0, -1)], [("LRANGE", "k", 0, -1), ("VALQ.POP", "q")]),
        ([("LRANGE", "k", 0, -1)], [("LRANGE", "k", 0, -1), ("VALQ.MPOP", 2, "other", "q")]),
        ([("MULTI",), ("SELECT", 0), ("VALQ.POP", "q", "COUNT", 2)], [("EXEC",)]),
    ],
    ids=["shared lane", "private lane", "several queues", "transaction"],
)
def test_a_client_that_leaves_before_its_reply_uses_up_no_attempt(before, last, resp):
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        connection = stack.enter_context(Connection(daemon.port))
        direct = stack.enter_context(Connection(valkey.port))

        def lanes():
            return direct.call("CLIENT", "LIST").count(b"\n")

        connection.call("VALQ.PUSH", "q", "x")
        connection.call("VALQ.CREATE", "other")
        lanes_before = lanes()
        leaving = Connection(daemon.port, resp)
        assert leaving.call("PING") == b"PONG"  # it is not held any more, to find out whether it needs a password
        for command in before:
            leaving.call(*command)
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            leaving.send_raw(b"".join(request(*command) for command in last))
            noticed(connection)
            leaving.close()
            noticed(connection)
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        until(lambda: as_map(connection.call("VALQ.INFO", "q"))[b"delivered_total"] == 1, 5, "delivered")
        popped = until(lambda: connection.call("VALQ.POP", "q"), 10, "given back")
        assert as_map(popped)[b"attempts"] == 1
        assert as_map(popped)[b"receipt"] == b"1-2"
        until(lambda: lanes() <= lanes_before, what="its lane closed")


@LINUX_ONLY
def test_a_stopped_backend_bounds_memory_and_loses_nothing():
    clients, pushes = 40, 6
    push = request("VALQ.PUSH", "big", os.urandom(MIB))
    with Valkey() as valkey, Valqd(valkey.url) as daemon, contextlib.ExitStack() as stack:
        stop = threading.Event()
        connections = [stack.enter_context(Connection(daemon.port, timeout_s=120)) for _ in range(clients)]
        offered, answered, acknowledged = ([0] * clients for _ in range(3))

        def pipeline(number):
            def offer():
                offered[number] += pushes
                connections[number].send_raw(push * pushes)

            def take():
                for _ in range(pushes):
                    acknowledged[number] += isinstance(connections[number].read(), bytes)
                    answered[number] += 1

            offer()
            while not stop.is_set():
                offer()  # before the last is answered: one whole pipeline of each client is always under way
                take()
            take()

        def arrived_mib():
            """What the daemon has read of what was not answered."""
            return (sum(connection.arrived_bytes for connection in connections) - sum(answered) * len(push)) / MIB

        threads = [threading.Thread(target=pipeline, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        until(lambda: any(answered), 10, "they are served")
        with stopped(valkey):
            until(lambda: all(offered) and arrived_mib() > 32, 40, "all send, and the lane is full")
            time.sleep(1)  # it would read on, if it did
            assert sum(offered) - sum(answered) >= clients * pushes  # MiB: more than it may have in use
            stop.set()
        for thread in threads:
            thread.join()
        assert peak_mib(daemon.pid) < 200 < clients * pushes
        with Connection(daemon.port) as connection:
            assert as_map(connection.call("VALQ.INFO", "big"))[b"ready_msgs"] == sum(acknowledged) > 0


@LINUX_ONLY
def test_a_client_that_never_reads_bounds_memory():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port) as connection:
        connection.call("SET", "big", b"x" * 500_000)
        before = rss_mib(daemon.pid)
        get = request("GET", "big")
        with Connection(daemon.port, timeout_s=0.5) as deaf:
            with pytest.raises(TimeoutError):
                deaf.send_raw(get * 1_000_000)
            assert deaf.arrived_bytes > 1000 * len(get)  # what it has read asks for 500 MB
            assert peak_mib(daemon.pid) - before < 200
            assert connection.call("PING") == b"PONG"


@LINUX_ONLY
def test_a_lane_that_opens_for_a_client_that_does_not_read_bounds_memory():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as connection,
    ):

        def answered():
            """How many of the large values Valkey has written, or keeps, for it."""
            found = re.search(rb"cmdstat_getrange:calls=(\d+)", direct.call("INFO", "commandstats"))
            return int(found[1]) if found else 0

        connection.call("SET", "big", b"x" * 8_000_000)
        assert connection.call("STRLEN", "big") == 8_000_000
        before = rss_mib(daemon.pid)
        with Connection(daemon.port, timeout_s=60) as deaf:
            assert deaf.call("PING") == b"PONG"
            with stopped(valkey):
                deaf.send_raw(request("GET", "big") + request("GETRANGE", "big", "0", "-1") * 100)
                noticed(connection)
            until(lambda: answered() == 100, 60, "Valkey has 800 MB for it")
            time.sleep(0.5)  # the daemon would take them, if it did
            assert peak_mib(daemon.pid) - before < 200
            for _ in range(101):  # it reads after all
                assert len(deaf.read()) == 8_000_000


@LINUX_ONLY
def test_clients_that_left_in_the_middle_of_a_body_own_nothing():
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        for _ in range(12):
            with Connection(daemon.port) as client:
                client.send_raw(b"*3\r\n$9\r\nVALQ.PUSH\r\n$1\r\nq\r\n$60000000\r\n" + b"x" * 40_000_000)
        with Connection(daemon.port) as client:
            assert isinstance(client.call("VALQ.HELP"), list)
        assert rss_mib(daemon.pid) < 250


def test_twenty_sidecars_deliver_once_and_sweep_once():
    with Valkey() as valkey:
        daemons = [Valqd(valkey.url, wait=False) for _ in range(20)]
        try:
            for daemon in daemons:
                daemon.wait_ready(60)
            connections = [Connection(daemon.port) for daemon in daemons]
            connections[0].call("VALQ.CREATE", "q", "60", "2")
            for number, connection in enumerate(connections):
                connection.call("VALQ.PUSH", "q", str(number))
            popped = [as_map(connection.call("VALQ.POP", "q")) for connection in connections]
            assert sorted(int(message[b"body"]) for message in popped) == list(range(20))
            for connection, message in zip(connections, popped, strict=True):
                assert connection.call("VALQ.EXTEND", "q", message[b"receipt"], "1") > 0
            with Connection(valkey.port) as direct:
                until(lambda: as_map(connections[7].call("VALQ.INFO", "q"))[b"ready_msgs"] == 20, 5, "leases over")
                direct.call("CONFIG", "RESETSTAT")
                began = time.monotonic()
                time.sleep(1)
                stats = direct.call("INFO", "commandstats").decode()
                seconds = time.monotonic() - began
                asked = sum(int(calls) for calls in re.findall(r"^cmdstat_fcall_ro:calls=(\d+)", stats, re.MULTILINE))
                swept = sum(int(calls) for calls in re.findall(r"^cmdstat_fcall:calls=(\d+)", stats, re.MULTILINE))
                assert 0 < asked < 200 * seconds  # each asks for the sweeper's lease, some times a second
                assert swept < 20 * seconds  # one sweeps, and there is nothing to do
            for connection in connections:
                connection.close()
        finally:
            for daemon in daemons:
                daemon.__exit__()


@LINUX_ONLY
@pytest.mark.parametrize("before", [b"", request("MULTI")], ids=["pipeline", "transaction"])
def test_a_stopped_backend_bounds_memory_of_lanes_of_their_own(before):
    clients, pushes = 60, 8
    push = request("VALQ.PUSH", "big", os.urandom(MIB))

    def pipeline(connection):
        connection.send_raw(request("CLIENT", "ID") + before + push * pushes)
        replies = [connection.read() for _ in range(pushes + (2 if before else 1))]
        if before:
            replies = connection.call("EXEC")
        pushed.append(sum(isinstance(reply, bytes) and reply.isdigit() for reply in replies))

    with Valkey() as valkey, Valqd(valkey.url) as daemon, contextlib.ExitStack() as stack:
        pushed = []
        connections = [stack.enter_context(Connection(daemon.port, timeout_s=120)) for _ in range(clients)]
        assert all(connection.call("CLIENT", "ID") for connection in connections)
        threads = [threading.Thread(target=pipeline, args=(connection,)) for connection in connections]
        with stopped(valkey):
            for thread in threads:
                thread.start()
            # Each has brought the daemon a body, and has seven more.
            for connection in connections:  # one by one: to look at all takes 15 s, and a stop of 60 s may end lanes
                until(lambda connection=connection: connection.arrived_bytes > MIB, 30, "it sends")
            time.sleep(1)  # it would read on, if it did
        for thread in threads:
            thread.join()
        assert peak_mib(daemon.pid) < 400 < clients * pushes
        with Connection(daemon.port) as connection:
            ready_msgs = as_map(connection.call("VALQ.INFO", "big"))[b"ready_msgs"]
            assert ready_msgs == sum(pushed) == clients * pushes


def test_a_server_whose_daemon_was_killed_as_it_started_does_not_go_on():
    child = "import os, sys; from valqd.io.embedded import _in_child; _in_child({}); print('goes on')"
    for parent, goes_on in (("os.getppid()", True), ("1", False)):
        done = subprocess.run([sys.executable, "-c", child.format(parent)], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, "goes on" in done.stdout) == ((0, True) if goes_on else (1, False))


def test_what_falls_due_while_another_daemon_takes_over_is_not_missed():
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        sweeping = stack.enter_context(Valqd(valkey.url))
        with Connection(sweeping.port) as connection:
            connection.send_raw(b"".join(request("VALQ.PUSH", f"q{n}", "x", "DELAY", "3600") for n in range(5000)))
            assert [connection.read() for _ in range(5000)] == [b"1"] * 5000
        daemon = stack.enter_context(Valqd(valkey.url))
        direct = stack.enter_context(Connection(valkey.port))
        pushing = stack.enter_context(Connection(daemon.port))
        until(lambda: direct.call("FCALL_RO", "valq1_due", 1, "valq::daemons", "other", 600, 0)[1:] == [], 5, "swept")
        sweeping.kill()
        for db in range(
            1, 13
        ):  # in databases in which nothing was before, before, while and after the lease changes hands
            for connection in (pushing, direct):
                connection.call("SELECT", db)
            pushing.call("VALQ.PUSH", "late", "x", "DELAY", "0.05")
            time.sleep(0.1)
        for db in range(1, 13):
            direct.call("SELECT", db)
            until(lambda: direct.call("ZCARD", "valq:{late}:delayed") == 0, 8, f"ready in {db}")


def test_the_worker_of_the_docs_goes_on_through_restarts():
    code, _ = re.findall(r"```python\n(.*?)```", (ROOT / "docs/delivery.md").read_text(), re.DOTALL)
    port = free_port()
    code = code.replace("port=6390", f"port={port}").replace('"BLOCK", 3000', '"BLOCK", 300')
    with (
        Valkey("--appendonly", "yes", "--appendfsync", "always") as valkey,
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as worker,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(worker.kill)
        hanging = threading.Timer(120, worker.kill)
        hanging.start()
        stack.callback(hanging.cancel)

        def works_on(body):
            with Connection(port) as pushing:
                until(
                    lambda: isinstance(pushing.call("VALQ.PUSH", "orders", body, "DEDUP", body), bytes), what="pushed"
                )
            assert worker.stdout.readline() == f"working on {body}\n"

        with Valqd(valkey.url, port=port) as daemon:
            works_on("first")
            valkey.stop()
            time.sleep(0.3)
            valkey.start()
            works_on("second")
            daemon.kill()
        with Valqd(valkey.url, port=port):
            works_on("third")
        with Valqd(valkey.url, port=port):
            works_on("fourth")
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(10) == 0
            with Connection(port) as connection:
                assert info(connection, "orders")["msgs"] == 0


def test_a_stop_waits_for_what_clients_that_are_gone_had_sent():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        with Connection(daemon.port) as client, Connection(daemon.port) as beside:
            assert client.call("PING") == b"PONG"
            os.kill(valkey.pid, signal.SIGSTOP)
            try:
                slow = ("EVAL", "for i = 1, 3e7 do end", "0")  # what follows waits for it
                lines = (("GET", "k"), slow, ("VALQ.DELETE", "none"), ("VALQ.PUSH", "q", "x"))
                client.send_raw(b"".join(request(*words) for words in lines))
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                noticed(beside)
                daemon.signal(signal.SIGTERM)
                time.sleep(0.5)
            finally:
                os.kill(valkey.pid, signal.SIGCONT)
        assert daemon.process.wait(10) == 0
        assert direct.call("EXISTS", "valq:{q}:queue") == 1
