"""Transactions, refused ones too, leave a client's order, database and rights as they would be on Valkey."""

import contextlib

import pytest

from tests.servers import Connection, Valkey, Valqd, request, until
from tests.wire.expect import info, message, refused


@pytest.fixture(scope="module")
def limited():
    """A Valkey whose users lack one command each, and a daemon."""
    with Valkey() as valkey:
        with Connection(valkey.port) as admin:
            for user, rule in (("nomulti", "-multi"), ("nopause", "-client|pause")):
                rules = ("on", ">pw", "allkeys", "allchannels", "+@all", rule)
                assert admin.call("ACL", "SETUSER", user, *rules) == b"OK"
        with Valqd(valkey.url) as daemon:
            yield valkey, daemon


def run(connection, together: bool, *commands):
    """All replies, of commands that are sent in one write or one by one."""
    if not together:
        return [connection.call(*command) for command in commands]
    connection.send_raw(b"".join(request(*command) for command in commands))
    return [connection.read() for _ in commands]


TOGETHER = pytest.mark.parametrize("together", [True, False], ids=["one write", "one by one"])


def dbs_of(valkey, queue) -> list[int]:
    """The databases in which there is such a queue."""
    found = []
    with Connection(valkey.port) as direct:
        for db in range(16):
            direct.call("SELECT", db)
            if direct.call("EXISTS", f"valq:{{{queue}}}:queue"):
                found.append(db)
    return found


@TOGETHER
def test_two_transactions_in_a_row_are_both_answered(client, queue, together):
    transaction = [("MULTI",), ("VALQ.PUSH", queue, "x"), ("EXEC",)]
    for first in (1, 3):
        replies = run(client, together, *transaction, *transaction)
        assert replies == [b"OK", b"QUEUED", [b"%d" % first], b"OK", b"QUEUED", [b"%d" % (first + 1)]]


@TOGETHER
def test_a_refused_discard_leaves_the_transaction_open_and_aborted(client, queue, together):
    commands = [("MULTI",), ("DISCARD", "x"), ("VALQ.PUSH", queue, "x"), ("EXEC",)]
    multi, error, queued, aborted = run(client, together, *commands)
    assert (multi, queued) == (b"OK", b"QUEUED")
    refused(error, "ERR wrong number of arguments")
    refused(aborted, "EXECABORT")
    refused(client.call("VALQ.INFO", queue), "NOQUEUE")
    assert client.call("VALQ.PUSH", queue, "y") == b"1"


@TOGETHER
def test_a_refused_exec_ends_the_transaction_as_valkey_does(valkey, client, queue, together):
    commands = [("MULTI",), ("VALQ.PUSH", queue, "x"), ("EXEC", "x"), ("SELECT", "5"), ("EXEC",)]
    multi, queued, aborted, selected, error = run(client, together, *commands)
    assert (multi, queued, selected) == (b"OK", b"QUEUED", b"OK")
    refused(aborted, "EXECABORT")
    refused(error, "ERR EXEC without MULTI")
    assert client.call("VALQ.PUSH", queue, "y") == b"1"
    assert dbs_of(valkey, queue) == [5]


@TOGETHER
def test_a_refused_multi_begins_no_transaction(valkey, client, queue, together):
    error, selected, pushed = run(client, together, ("MULTI", "x"), ("SELECT", "5"), ("VALQ.PUSH", queue, "1"))
    refused(error, "ERR wrong number of arguments")
    assert (selected, pushed) == (b"OK", b"1")
    assert dbs_of(valkey, queue) == [5]


@TOGETHER
@pytest.mark.parametrize("watch", [[], [("WATCH", "k")]], ids=["", "watch"])
def test_behind_a_refused_multi_another_begins_a_transaction(limited, queue, watch, together):
    valkey, daemon = limited
    commands = [("MULTI",), *watch, ("AUTH", "default", "none"), ("MULTI",), ("VALQ.PUSH", queue, "x"), ("SELECT", "5")]
    with Connection(daemon.port) as client:
        assert client.call("AUTH", "nomulti", "pw") == b"OK"
        error, *oks = run(client, together, *commands, ("EXEC",), ("VALQ.PUSH", queue, "y"))
        refused(error, "NOPERM")
        assert oks == [b"OK"] * (2 + len(watch)) + [b"QUEUED"] * 2 + [[b"1", b"OK"], b"1"]
    assert dbs_of(valkey, queue) == [0, 5]


@TOGETHER
@pytest.mark.parametrize("before", [[("MULTI", "x")], [("MULTI",), ("EXEC", "x")]], ids=["multi", "exec"])
def test_a_pop_behind_a_refusal_that_leaves_no_transaction_waits(client, valqd, queue, before, together):
    pop = ("VALQ.POP", queue, "BLOCK", "20000")
    if together:
        client.send_raw(b"".join(request(*command) for command in [*before, pop]))
        replies = [client.read() for _ in before]
    else:
        replies = run(client, together, *before)
        client.send(*pop)
    assert "wrong number of arguments" in str(replies[-1])
    with Connection(valqd.port) as pushing:
        pushing.call("VALQ.CREATE", queue, "NX")
        until(lambda: info(pushing, queue)["blocked_clients"] == 1, 5, "blocked")
        pushing.call("VALQ.PUSH", queue, "x")
    assert message(client.read())["body"] == b"x"


@TOGETHER
@pytest.mark.parametrize(("db", "lands_in"), [("999", 0), ("3", 3)])
def test_a_select_in_a_transaction_counts_if_it_succeeded(valkey, client, queue, db, lands_in, together):
    *_, results, pushed = run(client, together, ("MULTI",), ("SELECT", db), ("EXEC",), ("VALQ.PUSH", queue, "x"))
    if lands_in:
        assert results == [b"OK"]
    else:
        refused(results[0], "ERR DB index is out of range")
    assert pushed == b"1"
    assert dbs_of(valkey, queue) == [lands_in]
    assert message(client.call("VALQ.POP", queue))["body"] == b"x"


@TOGETHER
def test_a_select_of_a_discarded_transaction_does_not_count(valkey, client, queue, together):
    commands = [("MULTI",), ("SELECT", "3"), ("DISCARD",), ("VALQ.PUSH", queue, "x")]
    assert run(client, together, *commands) == [b"OK", b"QUEUED", b"OK", b"1"]
    assert dbs_of(valkey, queue) == [0]


@TOGETHER
def test_what_follows_a_multi_without_rights_runs_at_once(limited, queue, together):
    valkey, daemon = limited
    with Connection(daemon.port) as connection:
        assert connection.call("AUTH", "nomulti", "pw") == b"OK"
        error, selected, pushed = run(connection, together, ("MULTI",), ("SELECT", "5"), ("VALQ.PUSH", queue, "x"))
        refused(error, "NOPERM")
        assert (selected, pushed) == (b"OK", b"1")
        assert dbs_of(valkey, queue) == [5]
        assert message(connection.call("VALQ.POP", queue))["body"] == b"x"


def test_a_skip_behind_a_refused_multi_is_one(limited, queue):
    with Connection(limited[1].port, timeout_s=5) as connection:
        assert connection.call("AUTH", "nomulti", "pw") == b"OK"
        connection.send_raw(
            b"".join(request(*words.split()) for words in ("MULTI", "CLIENT REPLY SKIP", "GET a", "ECHO b"))
        )
        refused(connection.read(), "NOPERM")
        assert connection.read() == b"b"  # GET has no reply
        assert connection.call("VALQ.POP", queue, "BLOCK", "50") is None
        assert connection.call("PING") == b"PONG"


def answers(valkey):
    with Connection(valkey.port, timeout_s=0.2) as probe, contextlib.suppress(TimeoutError):
        return probe.call("PING") == b"PONG"


def test_who_subscribes_behind_a_refused_multi_is_subscribed(limited, queue):
    valkey, daemon = limited
    with Connection(daemon.port, timeout_s=5) as connection, Connection(valkey.port) as direct:
        assert connection.call("AUTH", "nomulti", "pw") == b"OK"
        connection.send_raw(request("MULTI") + request("SUBSCRIBE", "c"))
        refused(connection.read(), "NOPERM")
        assert connection.read()[0] == b"subscribe"
        direct.send_raw(request("DEBUG", "SLEEP", "3") + request("PUBLISH", "c", "x"))
        until(lambda: not answers(valkey), 5, "it sleeps")
        connection.send("SELECT", "1")  # its reply comes behind the message
        assert connection.read()[0] == b"message"
        refused(connection.read(), "ERR Can't execute 'select'")
        assert connection.call("UNSUBSCRIBE", "c")[0] == b"unsubscribe"
        assert connection.call("VALQ.PUSH", queue, "x") == b"1"
        assert dbs_of(valkey, queue) == [0]


def test_a_refused_pause_of_clients_changes_nothing(limited, queue):
    valkey, daemon = limited
    with (
        Connection(daemon.port) as refused_one,
        Connection(daemon.port, timeout_s=5) as other,
        Connection(valkey.port) as direct,
    ):

        def lanes():
            return len(direct.call("CLIENT", "LIST").splitlines())

        assert refused_one.call("AUTH", "nopause", "pw") == b"OK"
        for pause in (("20000",), ("20000", "WRITE"), ("20000", "ALL")):
            refused(refused_one.call("CLIENT", "PAUSE", *pause), "NOPERM")
        assert other.call("SET", "k", "0") == b"OK"
        before = lanes()
        for number in range(1, 20):
            assert other.call("SET", "k", number) == b"OK"
            assert other.call("GET", "k") == b"%d" % number
            assert other.call("VALQ.PUSH", queue, "x") == b"%d" % number
        until(lambda: lanes() <= before, 3, "simple commands still share a lane")


def test_an_info_that_settles_thousands_of_leases_keeps_its_place(client, queue):
    for first in (5001, 5003, 5005):
        if first == 5001:
            client.call("VALQ.MPUSH", queue, "5000", *["x"] * 5000)
        popped = client.call("VALQ.POP", queue, "COUNT", "5000", "VT", "0.001")
        assert len(popped) == 5000
        client.send_raw(
            request("VALQ.INFO", queue) + request("VALQ.PUSH", queue, "a") + request("VALQ.PUSH", queue, "b")
        )
        settled, *ids = [client.read() for _ in range(3)]
        assert message(settled)["delivered_total"] >= 5000
        assert ids == [b"%d" % first, b"%d" % (first + 1)]
