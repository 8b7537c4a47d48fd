"""What was refused, lost or changed for a while is made good, and nobody is left without an answer."""

import contextlib
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crash.forwarder import Forwarder
from tests.servers import CLI, Connection, Valkey, Valqd, as_map, request, until
from tests.wire.expect import blocked, info, refused


def count(direct, section: str, field: str) -> int:
    """A number of Valkey's INFO; 0 if it is not there."""
    found = re.search(rf"^{field}(\d+)", direct.call("INFO", section).decode(), re.MULTILINE)
    return int(found[1]) if found else 0


def writes_refused(direct) -> int:
    return count(direct, "errorstats", "errorstat_NOREPLICAS:count=")


def test_the_database_of_the_backend_url_is_where_clients_begin():
    with (
        Valkey() as valkey,
        Valqd(valkey.url + "/5") as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as clean,
        Connection(daemon.port) as private,
        Connection(daemon.port) as waiter,
    ):
        assert clean.call("SET", "plain", "1") == b"OK"
        assert private.call("RPUSH", "list", "x") == 1
        assert private.call("MULTI") == b"OK"
        assert private.call("VALQ.PUSH", "q", "x") == b"QUEUED"
        assert private.call("EXEC") == [b"1"]
        assert clean.call("VALQ.PUSH", "q", "y") == b"2"
        assert len(clean.call("VALQ.POP", "q", "COUNT", "2", "VT", "0.2")) == 2
        waiter.send("VALQ.POP", "other", "BLOCK", "0")
        blocked(clean, "other")
        clean.call("VALQ.PUSH", "other", "z", "0.2")
        assert as_map(waiter.read())[b"body"] == b"z"
        assert direct.call("DBSIZE") == 0
        direct.call("SELECT", "5")
        until(lambda: direct.call("ZCARD", "valq:{q}:ready") == 2, 3, "swept")
        assert direct.call("EXISTS", "plain", "list", "valq:{q}:queue", "valq:{other}:queue") == 4
        assert clean.call("SELECT", "0") == b"OK"
        assert clean.call("VALQ.PUSH", "zero", "x") == b"1"
        direct.call("SELECT", "0")
        assert direct.call("EXISTS", "valq:{zero}:queue") == 1


def test_a_login_that_is_refused_for_a_while_leaves_no_connection_behind():
    with Valkey() as valkey, Connection(valkey.port) as direct:

        def password(value):
            direct.call("ACL", "SETUSER", "daemon", "on", "resetpass", f">{value}", "allkeys", "allchannels", "+@all")

        password("secret")
        with Valqd(f"valkey://daemon:secret@127.0.0.1:{valkey.port}") as daemon, Connection(daemon.port) as client:
            assert client.call("VALQ.PUSH", "q", "x") == b"1"

            def connections():
                return count(direct, "clients", "connected_clients:")

            def logins():
                return direct.call("CLIENT", "LIST").count(b" user=daemon ")

            time.sleep(0.2)  # what only looked whether clients need a password has gone
            before = connections()
            denied = count(direct, "stats", "acl_access_denied_auth:")
            password("other")
            assert direct.call("CLIENT", "KILL", "USER", "daemon") == 1
            until(lambda: count(direct, "stats", "acl_access_denied_auth:") >= denied + 2, 10, "refused")
            password("secret")
            until(lambda: logins() == 1, 5, "logged in again")
            until(lambda: connections() == before, 3, "as many connections as before")
            assert client.call("VALQ.PUSH", "q", "x") == b"2"


def failed_calls(connection) -> int:
    """Function calls that ended with an error."""
    stats = connection.call("INFO", "commandstats").decode()
    return int(re.search(r"cmdstat_fcall:.*failed_calls=(\d+)", stats)[1]) if "cmdstat_fcall:" in stats else 0


def test_sweeps_that_were_refused_are_made_good():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as connection,
    ):
        for queue in ("late", "due"):
            connection.call("VALQ.PUSH", queue, "x", *(["1"] if queue == "due" else []))
        connection.call("VALQ.POP", "late", "VT", "1")
        direct.call("CONFIG", "SET", "min-replicas-to-write", "1")
        until(lambda: writes_refused(direct) >= 2, 5, "sweeps refused")
        assert direct.call("ZCARD", "valq:{late}:inflight") == 1
        assert direct.call("ZCARD", "valq:{due}:delayed") == 1
        direct.call("CONFIG", "SET", "min-replicas-to-write", "0")
        until(lambda: direct.call("ZCARD", "valq:{late}:inflight") == 0, 3, "the lease is over")
        until(lambda: direct.call("ZCARD", "valq:{due}:delayed") == 0, 3, "the delay is over")
        for queue in ("late", "due"):
            assert as_map(connection.call("VALQ.PEEK", queue, "READY")[0])[b"state"] == b"ready"


def test_a_key_that_only_looks_like_a_queues_is_not_swept():
    with Valkey() as valkey, Connection(valkey.port) as direct:
        with Valqd(valkey.url) as daemon, Connection(daemon.port) as client:
            client.call("VALQ.PUSH", "q", "x")
        assert direct.call("COPY", "valq:{q}:queue", "valq:{q}:no}:queue") == 1
        with Valqd(valkey.url) as daemon, Connection(daemon.port) as client:  # looks at all queues at its start
            client.call("VALQ.PUSH", "q", "y", "0.3")
            until(lambda: info(client, "q")["ready_msgs"] == 2 and direct.call("ZCARD", "valq:{q}:ready"), 3, "swept")
            assert "refused" not in daemon.output()


def test_a_queue_that_cannot_be_swept_is_tried_again_alone():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(valkey.port) as direct:
        with Connection(daemon.port) as connection:
            for queue in ("bad", "good"):
                connection.call("VALQ.PUSH", queue, "x", "1")
        direct.call("HSET", "valq:{bad}:queue", "limits", "junk")
        until(lambda: direct.call("ZCARD", "valq:{good}:delayed") == 0, 3, "the other queue's delay is over")
        until(lambda: "{bad}" in daemon.output(), 3, "it says so")

        def is_tried_alone():
            direct.call("CONFIG", "RESETSTAT")
            until(lambda: failed_calls(direct) >= 3, 20, "it is tried again")
            return b"cmdstat_scan" not in direct.call("INFO", "commandstats")

        assert any(is_tried_alone() for _ in range(3))  # who stalls loses the sweeper's lease, and then looks at all
        with Connection(daemon.port) as connection:
            for db in range(1, 9):  # databases in which nothing was before
                connection.call("SELECT", db)
                connection.call("VALQ.PUSH", "q", "x", "0.02")
                direct.call("SELECT", db)
                time.sleep(0.13)
        for db in range(1, 9):
            direct.call("SELECT", db)
            until(lambda: direct.call("ZCARD", "valq:{q}:delayed") == 0, 2, "the delay is over")
        direct.call("SELECT", 0)
        direct.call("HSET", "valq:{bad}:queue", "limits", "")
        until(lambda: direct.call("ZCARD", "valq:{bad}:delayed") == 0, 3, "its delay is over")


def test_the_library_is_loaded_again_though_looking_for_queues_was_refused():
    with Valkey() as valkey, Connection(valkey.port) as direct:
        direct.call("ACL", "SETUSER", "daemon", "on", ">pw", "allkeys", "allchannels", "+@all")
        with Valqd(f"valkey://daemon:pw@127.0.0.1:{valkey.port}") as daemon:
            with Connection(daemon.port) as connection:
                connection.call("VALQ.PUSH", "q", "x", "1")
            direct.call("ACL", "SETUSER", "daemon", "-scan")
            direct.call("FUNCTION", "FLUSH")
            until(lambda: "a sweep is refused" in daemon.output(), 5, "it says so")
            denied = count(direct, "stats", "acl_access_denied_cmd:")
            until(lambda: count(direct, "stats", "acl_access_denied_cmd:") >= denied + 2, 10, "it looks again")
            direct.call("ACL", "SETUSER", "daemon", "+scan")
            until(lambda: direct.call("ZCARD", "valq:{q}:delayed") == 0, 5, "the delay is over")


def test_waiters_are_woken_again_when_the_library_could_not_be_loaded_for_a_while():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as waiting,
        Connection(daemon.port, timeout_s=5) as pushing,
    ):
        waiting.socket.settimeout(4)
        waiting.send("VALQ.POP", "q", "BLOCK", "0")
        blocked(pushing, "q")
        direct.send_raw(request("FUNCTION", "FLUSH") + request("CONFIG", "SET", "min-replicas-to-write", "1"))
        assert [direct.read(), direct.read()] == [b"OK", b"OK"]
        until(lambda: "a sweep is refused: backend" in daemon.output(), 5, "loading refused")
        assert isinstance(pushing.call("VALQ.PUSH", "q", "x"), Exception)
        direct.call("CONFIG", "SET", "min-replicas-to-write", "0")
        pushing.call("VALQ.PUSH", "q", "y")
        assert as_map(waiting.read())[b"body"] == b"y"


def test_who_hangs_up_while_the_backends_connections_are_lost_is_counted_no_more():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as asking,
    ):
        asking.call("VALQ.CREATE", "q")
        for _ in range(5):
            with Connection(daemon.port) as waiting:
                waiting.send("VALQ.POP", "q", "BLOCK", "0")
                blocked(asking, "q")
                direct.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            until(lambda: not isinstance(asking.call("VALQ.INFO", "q"), Exception), 5, "the lane is back")
            blocked(asking, "q", 0)


def test_sigterm_ends_what_waits_in_valkey_and_pops_in_a_row():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as in_valkey,
        Connection(daemon.port, timeout_s=5) as in_a_row,
    ):
        in_valkey.send("BLPOP", "none", "0")
        in_a_row.send_raw(request("VALQ.POP", "q", "BLOCK", "0") * 2)
        until(lambda: count(direct, "clients", "blocked_clients:") == 1, 5, "BLPOP waits")
        with Connection(daemon.port) as other:
            blocked(other, "q")
        daemon.signal(signal.SIGTERM)
        assert [in_a_row.read(), in_a_row.read()] == [None, None]
        assert daemon.process.wait(8) == 0


@pytest.mark.parametrize("resp", [2, 3])
def test_without_a_backend_new_clients_get_an_error_for_anything(resp):
    stateful = [("MULTI",), ("SUBSCRIBE", "ch"), ("WATCH", "k")]
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        old, *idle = [stack.enter_context(Connection(daemon.port, resp, timeout_s=5)) for _ in range(4)]
        valkey.kill()
        until(lambda: isinstance(old.call("VALQ.PUSH", "q", "x"), Exception), 2, "NOBACKEND")
        for command in (*stateful, ("VALQ.POP", "q"), ("PING",), ("LRANGE", "l", "0", "-1")):
            with Connection(daemon.port, timeout_s=5) as new:
                refused(new.call(*command), "NOBACKEND")
        for connection, command in zip(idle, stateful, strict=True):
            refused(connection.call(*command), "NOBACKEND")


@pytest.mark.parametrize("behind", [(), ("VALQ.PUSH", "q", "x"), ("WAIT", "0", "0"), ("MULTI",)])
def test_a_subscriber_is_closed_when_the_backend_is_lost(behind):
    """Its subscriptions are gone: it has to learn of it, also when its replies matched its requests again."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, 3, timeout_s=5) as client:
        if behind == ("MULTI",):
            client.send_raw(request("MULTI") + request("SUBSCRIBE", "ch") + request("EXEC") + request("ECHO", "last"))
            while client.read() != b"last":
                pass
        else:
            client.call("SUBSCRIBE", "ch")
            if behind:
                client.call("UNSUBSCRIBE", "another")
                assert not isinstance(client.call(*behind), Exception)
        valkey.kill()
        assert client.read_until_closed() == b""


def test_clients_that_a_full_lane_has_stopped_are_answered_when_its_connection_is_lost():
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        daemon = stack.enter_context(Valqd(valkey.url))
        direct = stack.enter_context(Connection(valkey.port))
        clients = [stack.enter_context(Connection(daemon.port, timeout_s=60)) for _ in range(60)]

        def lane(field):
            """A number of the one connection that is held up."""
            for line in direct.call("CLIENT", "LIST").decode().splitlines():
                if " flags=b " in line:
                    return int(dict(pair.split("=", 1) for pair in line.split())[field])
            return 0

        assert [client.call("PING") for client in clients] == [b"PONG"] * 60
        direct.call("CLIENT", "PAUSE", "60000", "WRITE")
        with ThreadPoolExecutor(len(clients)) as pool:
            pushes = [pool.submit(client.call, "VALQ.PUSH", "big", b"x" * (1 << 20)) for client in clients]
            until(lambda: lane("qbuf") > 32_000_000, 30, "the lane is full")
            assert direct.call("CLIENT", "KILL", "ID", str(lane("id"))) == 1
            direct.call("CLIENT", "UNPAUSE")
            answers = [push.result() for push in pushes]
        assert {str(answer).split()[0] for answer in answers if isinstance(answer, Exception)} == {"NOBACKEND"}
        assert all(isinstance(client.call("VALQ.PUSH", "big", "y"), bytes) for client in clients)


def test_daemons_that_look_at_many_queues_come_to_rest():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as first,
        Valqd(valkey.url),
        Connection(first.port) as connection,
        Connection(valkey.port) as direct,
    ):
        connection.call("VALQ.CREATE", "q")
        copy = "for i = 1, 40000 do redis.call('COPY', KEYS[1], 'valq:{' .. i .. '}:queue') end"
        direct.call("EVAL", copy, 1, "valq:{q}:queue")  # so many that to look at them outlasts the sweeper's lease

        def sweeps():
            return count(direct, "commandstats", "cmdstat_fcall:calls=")

        def at_rest():
            before = sweeps()
            time.sleep(0.3)
            return sweeps() - before < 10

        first.signal(signal.SIGSTOP)
        before = sweeps()
        until(lambda: sweeps() > before + 1000, 30, "the second has the lease, and looks at all queues")
        first.signal(signal.SIGCONT)
        until(at_rest, 60, "nothing is left to do")


def test_daemons_that_look_at_many_other_keys_come_to_rest():
    with (
        Valkey() as valkey,
        Forwarder(valkey.port) as forwarder,
        Valqd(forwarder.url) as first,
        Valqd(forwarder.url),
        Connection(first.port) as connection,
        Connection(valkey.port) as direct,
    ):
        connection.call("VALQ.CREATE", "q")
        direct.call("DEBUG", "POPULATE", 150_000)
        forwarder.delay_s = 0.003  # a step of SCAN takes 6 ms: all of them outlast the sweeper's lease

        def steps():
            return count(direct, "commandstats", "cmdstat_scan:calls=")

        def at_rest():
            before = steps()
            time.sleep(1)
            return steps() == before

        direct.call("FUNCTION", "FLUSH")  # who gets the lease looks at all
        until(lambda: steps() > 20, 5, "one looks")
        until(at_rest, 15, "and then nobody")


def test_one_queues_many_deaths_do_not_hold_up_anothers():
    with Valkey() as valkey, Valqd(valkey.url) as daemon, Connection(daemon.port, timeout_s=30) as connection:
        for queue in ("big", "small"):
            connection.call("VALQ.CREATE", queue, "MAXATTEMPTS", "1", "DLQ", "dead")
        connection.call("VALQ.MPUSH", "big", "40000", *["x"] * 40_000)
        connection.call("VALQ.PUSH", "small", "x")
        connection.call("VALQ.POP", "small", "VT", "1.5")
        for _ in range(4):
            connection.call("VALQ.POP", "big", "COUNT", "10000", "VT", "1.2")
        with Connection(valkey.port) as direct:
            until(lambda: direct.call("ZCARD", "valq:{small}:inflight") == 0, 10, "the small queue is swept")
            assert direct.call("ZCARD", "valq:{big}:inflight") > 0
            until(lambda: direct.call("ZCARD", "valq:{big}:inflight") == 0, 60, "and the big one")


def test_what_happened_on_another_node_meanwhile_falls_due():
    with (
        Valkey("--repl-diskless-sync-delay", "0") as first,
        Valkey("--replicaof", f"127.0.0.1 {first.port}") as second,
        Connection(first.port) as at_first,
        Connection(second.port) as at_second,
        Valqd(first.url) as daemon,
        Connection(daemon.port) as early,
        contextlib.ExitStack() as stack,
    ):

        def is_primary(direct):
            return b"role:master" in direct.call("INFO", "replication")

        def failover(old, new):
            assert old.call("FAILOVER") == b"OK"
            until(lambda: is_primary(new) and not is_primary(old), 10, "failed over")
            until(lambda: b"master_link_status:up" in old.call("INFO", "replication"), 10, "replica again")

        until(lambda: b"state=online" in at_first.call("INFO", "replication"), 10, "replica")
        assert early.call("VALQ.PUSH", "q", "x") == b"1"
        until(lambda: at_second.call("EXISTS", "valq:{q}:queue"), 5, "replicated, and the functions before")
        connection = stack.enter_context(Connection(stack.enter_context(Valqd(second.url)).port))
        failover(at_first, at_second)
        until(lambda: isinstance(connection.call("VALQ.PUSH", "q", "x", "1.5"), bytes), 5, "the other daemon may write")
        connection.call("VALQ.POP", "q", "VT", "1.5")
        failover(at_second, at_first)
        until(lambda: at_first.call("ZCARD", "valq:{q}:inflight") == 0, 6, "the lease is over")
        until(lambda: at_first.call("ZCARD", "valq:{q}:delayed") == 0, 6, "the delay is over")


def test_a_wait_whose_registration_is_refused_is_registered_soon_though_another_is_not_refused():
    with (
        Valkey() as valkey,
        Valqd(valkey.url) as daemon,
        Valqd(valkey.url) as other_daemon,
        Connection(valkey.port) as direct,
        Connection(daemon.port) as first,
        Connection(daemon.port) as second,
        Connection(other_daemon.port) as pushing,
    ):
        for queue in ("q", "p"):
            pushing.call("VALQ.CREATE", queue)
        direct.call("CONFIG", "SET", "min-replicas-to-write", "1")
        before = writes_refused(direct)
        first.send("VALQ.POP", "q", "BLOCK", "0")
        until(lambda: "registration is refused" in daemon.output(), what="it is refused")
        assert writes_refused(direct) > before
        direct.call("CONFIG", "SET", "min-replicas-to-write", "0")
        second.send("VALQ.POP", "p", "BLOCK", "0")
        blocked(pushing, "p")
        blocked(pushing, "q")


def test_who_is_blocked_at_a_daemon_that_cannot_ask_looks_for_itself():
    with Valkey() as valkey, Connection(valkey.port) as direct:
        direct.call("ACL", "SETUSER", "mute", "on", ">pw", "allkeys", "allchannels", "+@all", "-fcall_ro")
        with (
            Valqd(valkey.url.replace("//", "//mute:pw@")) as mute,
            Valqd(valkey.url) as other,
            Connection(mute.port, timeout_s=3) as waiting,
            Connection(other.port) as pushing,
        ):
            waiting.send("VALQ.POP", "q", "BLOCK", "0")
            blocked(pushing, "q")
            until(lambda: count(direct, "commandstats", r"cmdstat_client\|tracking:calls=") >= 4, 10, "it looks again")
            pushing.call("VALQ.PUSH", "q", "x")
            assert as_map(waiting.read())[b"body"] == b"x"


def test_what_the_embedded_valkey_holds_moves_to_another_valkey(tmp_path):
    assert CLI is not None, "install redis-tools or valkey-tools: see .ci/run"
    with Valqd() as daemon, Connection(daemon.port) as client:
        client.call("VALQ.MPUSH", "q", 300, *range(300))
        client.call("VALQ.PUSH", "q", "urgent", "PRIORITY", "9")
        client.call("VALQ.POP", "q", "VT", "1")
        dump = [CLI, "-p", str(daemon.port), "--rdb", str(tmp_path / "dump.rdb")]
        subprocess.run(dump, check=True, capture_output=True, timeout=30)
    with (
        Valkey("--appendonly", "no", folder=str(tmp_path)) as valkey,
        Valqd(valkey.url) as daemon,
        Connection(daemon.port) as client,
    ):
        assert client.call("CONFIG", "SET", "appendonly", "yes") == b"OK"
        until(lambda: info(client, "q")["inflight_msgs"] == 0, 5, "its lease is over")
        popped = [as_map(message) for message in client.call("VALQ.POP", "q", "COUNT", 400)]
        assert [message[b"body"] for message in popped] == [b"urgent", *(b"%d" % body for body in range(300))]
        assert [message[b"attempts"] for message in popped] == [2, *[1] * 300]
        # Until then Valkey does not stop.
        until(lambda: count(client, "persistence", "aof_rewrite_in_progress:") == 0, 10, "its file is written")


def test_a_replica_whose_address_is_no_text_stops_no_sweep():
    with Valkey() as valkey, Connection(valkey.port) as replica, Connection(valkey.port) as direct:
        replica.call("REPLCONF", "ip-address", b"\xe4")
        replica.send("PSYNC", "?", "-1")
        until(lambda: b"ip=\xe4" in direct.call("INFO", "replication"), 5, "it is shown")
        with Valqd(valkey.url) as daemon, Connection(daemon.port) as connection:
            connection.call("VALQ.PUSH", "q", "x", "DELAY", "0.1")
            until(lambda: direct.call("ZCARD", "valq:{q}:ready") == 1, 3, "it is ready by itself")
