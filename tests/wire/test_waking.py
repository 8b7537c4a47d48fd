"""Who waits is found again and woken in few calls; connections ask little of the backend, and lose no last words."""

import asyncio
import contextlib
import re
import signal
import statistics
import time

import pytest

from tests.servers import Connection, Valkey, Valqd, until
from tests.wire.expect import blocked, message, noticed
from valqd.io import registration
from valqd.io.backend import Backend
from valqd.io.control import Control


@pytest.fixture(scope="module")
def pair():
    """A Valkey of this module's own, and a daemon."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        yield valkey, daemon


def calls(direct, command: str) -> int:
    """How often the backend has run a command."""
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", direct.call("INFO", "commandstats").decode())
    return int(found[1]) if found else 0


def tracked(direct) -> int:
    """How many keys the backend watches for clients."""
    return int(re.search(rb"tracking_total_keys:(\d+)", direct.call("INFO", "stats"))[1])


async def test_who_waits_is_registered_again_now_and_then(valkey, valqd, queue, monkeypatch):
    """Valkey may have forgotten it without a word (SWAPDB)."""
    monkeypatch.setattr(registration, "REARM_S", 0.05)
    monkeypatch.setattr(registration, "_TICK_S", 0.01)
    with Connection(valqd.port) as pushing:
        pushing.call("VALQ.PUSH", queue, "x")
    control = Control(Backend.from_url(valkey.url))
    await control.start()
    waits = (0, queue.encode())
    woken = asyncio.Event()
    registered = registration.Registration(
        control, b"d", {waits}, lambda _: (1, [(time.monotonic(), 1)]), lambda _: woken.set()
    )
    try:
        async with asyncio.timeout(3):
            await woken.wait()
    finally:
        registered.close()
        await control.close()


def test_many_that_wait_are_served_in_few_calls(pair, queue):
    with contextlib.ExitStack() as stack:
        pushing, direct = stack.enter_context(Connection(pair[1].port)), stack.enter_context(Connection(pair[0].port))
        waiters = [stack.enter_context(Connection(pair[1].port)) for _ in range(128)]
        for waiter in waiters:
            waiter.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue, len(waiters))
        before = calls(direct, "fcall")
        pushing.call("VALQ.MPUSH", queue, len(waiters), *range(len(waiters)))
        bodies = {message(waiter.read())["body"] for waiter in waiters}
        assert bodies == {b"%d" % number for number in range(len(waiters))}
        assert calls(direct, "fcall") - before < 16  # 4, 16, 64 and the rest at a time, and registrations


def test_many_that_connect_cost_few_questions(pair):
    valkey, daemon = pair
    with Connection(valkey.port) as direct:
        before, began = calls(direct, "ping"), time.monotonic()
        for _ in range(200):
            with Connection(daemon.port) as connection:
                assert isinstance(connection.call("VALQ.HELP"), list)
        assert calls(direct, "ping") - before <= (time.monotonic() - began) / 0.1 + 1


def test_valkeys_last_words_come_though_its_connection_was_written_to_after_its_end(pair):
    valkey, daemon = pair
    with (
        Connection(daemon.port, timeout_s=5) as client,
        Connection(daemon.port) as beside,
        Connection(valkey.port) as direct,
    ):
        lane = client.call("CLIENT", "ID")
        noticed(beside)
        valkey.signal(signal.SIGSTOP)
        client.send_raw(b"*1\r\n$x\r\n" + b"x" * 100_000)  # more than Valkey reads before it closes
        noticed(beside)
        daemon.signal(signal.SIGSTOP)
        client.send_raw(b"x" * 1000)  # it is the first that the daemon finds
        valkey.signal(signal.SIGCONT)
        until(lambda: direct.call("CLIENT", "LIST", "ID", lane) == b"", what="closed")
        daemon.signal(signal.SIGCONT)
        assert client.read_until_closed() == b"-ERR Protocol error: invalid bulk length\r\n"


def test_valkey_remembers_no_keys_of_queues_that_nobody_waits_for(pair, queue):
    """What it tracks for the daemon counts as its memory, and stays when these keys are gone."""
    valkey, daemon = pair
    with (
        Connection(daemon.port) as waiting,
        Connection(daemon.port) as pushing,
        Connection(valkey.port) as direct,
    ):
        waiting.send("VALQ.POP", queue, "BLOCK", "0")
        blocked(pushing, queue)
        before = tracked(direct)
        assert before
        for number in range(50):
            pushing.call("VALQ.PUSH", f"{queue}{number}", "x", "DELAY", 0.001)
        swept = calls(direct, "fcall")
        until(lambda: calls(direct, "fcall") > swept, what="a sweep")
        assert tracked(direct) == before


@pytest.fixture
def limited():
    """A Valkey, a daemon whose user has no rights on some queues, and one that has all."""
    with Valkey() as valkey:
        with Connection(valkey.port) as direct:
            keys = ("~valq:{ok*", "~valq::daemons")
            assert direct.call("ACL", "SETUSER", "daemon", "on", ">pw", *keys, "+@all") == b"OK"
        url = valkey.url.replace("valkey://", "valkey://daemon:pw@")
        with Valqd(url) as daemon, Valqd(valkey.url) as other:
            yield valkey, daemon, other


def test_a_queue_that_the_daemon_may_not_use_keeps_no_other_from_being_registered(limited):
    valkey, daemon, other = limited
    queues = [f"ok{number}" for number in range(5)]
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(Connection(valkey.port))
        pushing = stack.enter_context(Connection(other.port))
        waiting = [stack.enter_context(Connection(daemon.port)) for _ in range(6)]
        for connection, name in zip(waiting, [*queues, "bad"], strict=True):
            connection.send("VALQ.POP", name, "BLOCK", "0")
        for name in queues:
            blocked(pushing, name)
        control = re.search(rb"id=(\d+) .* name=valqd .* user=daemon ", direct.call("CLIENT", "LIST"))
        assert direct.call("CLIENT", "KILL", "ID", control[1].decode()) == 1
        until(lambda: "connected again" in daemon.output(), 5, "connected again")
        until(lambda: tracked(direct) >= len(queues), 5, "they are registered again")
        took = []
        for connection, name in zip(waiting, queues, strict=False):
            began = time.monotonic()
            pushing.call("VALQ.PUSH", name, "x")
            assert message(connection.read())["body"] == b"x"
            took.append(time.monotonic() - began)
        assert statistics.median(took) < 0.5  # else they would be looked at once a second, all at the same moment


def test_of_a_queue_that_the_daemon_may_not_use_nothing_is_kept(limited):
    valkey, daemon, _ = limited
    with Connection(valkey.port) as direct, Connection(daemon.port) as client:
        for number in range(5):
            client.call("VALQ.POP", f"bad{number}", "BLOCK", "5")

        def nothing_is_refused():
            direct.call("CONFIG", "RESETSTAT")
            client.call("VALQ.POP", "ok", "BLOCK", "300")  # long enough to be registered
            until(lambda: calls(direct, "fcall") >= 3, 10, "popped, registered, taken back")
            stats = direct.call("INFO", "commandstats").decode()
            return re.findall(r"cmdstat_fcall:.*rejected_calls=(\d+)", stats) == ["0"]

        until(nothing_is_refused, 15, "the others are forgotten")
