"""Commands run as the user that the client proved to be; Valkey's ACL decides."""

import re
import time

import pytest

from tests.servers import ROOT, Connection, Valkey, Valqd, as_map, request, until
from tests.wire.expect import refused
from valqd.lua.bundle import CALLED_COMMANDS


def documented_rules(page, user):
    """The rules for ``user`` that a page of the documentation gives, as the words after its name."""
    return [rule.split() for rule in re.findall(rf"ACL SETUSER {user} ((?:.+\n)+)", (ROOT / page).read_text())]


@pytest.fixture(scope="module")
def guarded():
    """A Valkey with a password, and a daemon that knows it."""
    with Valkey("--requirepass", "secret") as valkey:
        with Connection(valkey.port) as admin:
            admin.call("AUTH", "secret")
            admin.call("ACL", "SETUSER", "worker", "on", ">w", "resetkeys", "~valq:{orders}:*", "+@all", "-@admin")
        with Valqd(f"valkey://:secret@127.0.0.1:{valkey.port}") as daemon:
            yield valkey, daemon


@pytest.fixture
def connection(guarded):
    with Connection(guarded[1].port) as connection:
        yield connection


@pytest.fixture
def admin(guarded):
    with Connection(guarded[0].port) as admin:
        admin.call("AUTH", "secret")
        yield admin


def test_the_daemons_credentials_are_never_lent(connection):
    for command in (("VALQ.PUSH", "orders", "x"), ("VALQ.LIST",), ("PING",), ("GET", "k"), ("CLIENT", "SETNAME", "x")):
        refused(connection.call(*command), "NOAUTH")
    refused(connection.call("HELLO", "3"), "NOAUTH")


@pytest.mark.parametrize("transaction", [False, True], ids=["shared lane", "private lane"])
def test_a_user_limited_to_a_queue_has_that_queue_and_no_other(connection, transaction):
    assert connection.call("AUTH", "worker", "w") == b"OK"
    assert connection.call("VALQ.CREATE", "orders", "NX") == b"OK"

    def call(*command):
        if not transaction:
            return connection.call(*command)
        assert connection.call("MULTI") == b"OK"
        queued = connection.call(*command)
        replies = connection.call("EXEC")
        return queued if isinstance(replies, Exception) else replies[0]

    identifier = call("VALQ.PUSH", "orders", "x")
    assert identifier.isdigit()
    refused(call("VALQ.PUSH", "others", "x"), "NOPERM")
    refused(call("VALQ.POP", "others"), "NOPERM")
    assert call("VALQ.LIST") == [b"orders"]
    assert call("VALQ.ACK", "orders", identifier) == 1


def test_a_missing_queue_of_ones_own_is_created_by_pushing(connection):
    connection.call("AUTH", "worker", "w")
    connection.call("VALQ.DELETE", "orders")
    assert connection.call("VALQ.PUSH", "orders", "x") == b"1"


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md", "docs/operating.md"])
def test_the_documented_rule_for_a_user_is_enough_and_no_more(admin, page):
    (rule,) = documented_rules(page, "worker")
    admin.call("ACL", "SETUSER", "documented", "reset", *rule)

    def dry_run(command, queue):
        values = {
            "SET": ["x"],
            "TIME": [],
            "SCAN": ["0"],
            "HLEN": [],
            "HKEYS": [],
            "ZCARD": [],
            "DEL": [],
            "EXISTS": [],
        }
        key = [] if command in ("TIME", "SCAN") else [f"valq:{{{queue}}}:queue"]
        return admin.call(
            "ACL", "DRYRUN", "documented", command, *key, *values.get(command, ["1", "1", "1"][: arity(command)])
        )

    def arity(command):
        needed = abs(admin.call("COMMAND", "INFO", command)[0][1])
        return max(0, needed - 2)

    for command in CALLED_COMMANDS:
        assert dry_run(command, "orders") == b"OK", command
        if command not in ("TIME", "SCAN"):
            assert b"no permissions" in dry_run(command, "others"), command
    assert admin.call("ACL", "DRYRUN", "documented", "FCALL", "valq1_pop", "1", "valq:{orders}:queue") == b"OK"
    assert b"no permissions" in admin.call("ACL", "DRYRUN", "documented", "FLUSHALL")
    admin.call("ACL", "DELUSER", "documented")


def test_the_shortest_documented_rule_is_what_the_functions_call():
    (rule,) = documented_rules("docs/operating.md", "worker")
    assert rule[3:] == ["+fcall", *(f"+{command.lower()}" for command in CALLED_COMMANDS)]


def test_the_documented_rule_for_the_daemon_is_enough(guarded, admin):
    (rule,) = documented_rules("README.md", "daemon")
    admin.call("ACL", "SETUSER", "daemon", "reset", *rule)
    admin.call("ACL", "LOG", "RESET")
    with Valqd(f"valkey://daemon:secret@127.0.0.1:{guarded[0].port}") as daemon, Connection(daemon.port) as connection:
        connection.call("AUTH", "worker", "w")
        connection.call("VALQ.PURGE", "orders")
        connection.send("VALQ.POP", "orders", "BLOCK", "5000")
        with Connection(daemon.port) as other:
            other.call("AUTH", "worker", "w")
            other.call("VALQ.PUSH", "orders", "x", "DELAY", "0.3")
        assert connection.read()[3] == b"x"
    denied = [entry for entry in admin.call("ACL", "LOG") if b"daemon" in entry]
    assert denied == []
    admin.call("ACL", "DELUSER", "daemon")


def test_a_wrong_password_changes_nothing(connection):
    assert connection.call("AUTH", "worker", "w") == b"OK"
    refused(connection.call("AUTH", "worker", "wrong"), "WRONGPASS")
    refused(connection.call("AUTH", "nobody", "w"), "WRONGPASS")
    refused(connection.call("VALQ.PUSH", "others", "x"), "NOPERM")
    assert isinstance(connection.call("VALQ.PUSH", "orders", "x"), bytes)


def test_hello_proves_a_user_too(guarded):
    with Connection(guarded[1].port) as connection:
        refused(connection.call("HELLO", "3", "AUTH", "worker", "wrong"), "WRONGPASS")
        assert connection.call("HELLO", "3", "AUTH", "worker", "w")[b"proto"] == 3
        assert isinstance(connection.call("VALQ.PUSH", "orders", "x"), bytes)


def test_rights_that_are_taken_away_are_gone_at_once(guarded, admin):
    admin.call("ACL", "SETUSER", "leaver", "on", ">l", "resetkeys", "~valq:{orders}:*", "+@all", "-@admin")
    with Connection(guarded[1].port) as connection:
        connection.call("AUTH", "leaver", "l")
        assert isinstance(connection.call("VALQ.PUSH", "orders", "x"), bytes)
        admin.call("ACL", "SETUSER", "leaver", "resetkeys")
        refused(connection.call("VALQ.PUSH", "orders", "x"), "NOPERM")
        admin.call("ACL", "DELUSER", "leaver")

        def closed():
            try:
                return isinstance(connection.call("VALQ.PUSH", "orders", "x"), Exception) and False
            except OSError:
                return True

        until(closed, 3, "closed, as Valkey does")
    with Connection(guarded[1].port) as connection:
        refused(connection.call("AUTH", "leaver", "l"), "WRONGPASS")


def test_the_keys_of_a_command_are_told_to_who_may_ask(admin, connection):
    admin.call("ACL", "SETUSER", "asker", "on", ">w", "~*", "+@all", "-command|getkeys")
    assert connection.call("AUTH", "asker", "w") == b"OK"
    refused(connection.call("COMMAND", "GETKEYS", "VALQ.PUSH", "orders", "x"), "NOPERM")


def test_wait_says_when_it_cannot_cover_what_was_written(admin, connection):
    admin.call("ACL", "SETUSER", "writer", "on", ">w", "~k", "+set", "+wait")
    assert connection.call("AUTH", "writer", "w") == b"OK"
    assert connection.call("SET", "k", "v") == b"OK"
    refused(connection.call("WAIT", "0", "0"), "NOPERM")
    assert connection.call("SET", "k", "w") == b"OK"
    assert connection.call("WAIT", "0", "0") == 0


def test_no_wait_says_that_it_covers_what_it_could_not(admin, connection):
    assert connection.call("AUTH", "worker", "w") == b"OK"
    assert isinstance(connection.call("VALQ.PUSH", "orders", "x"), bytes)
    refused(connection.call("VALQ.POP", "others"), "NOPERM")
    for _ in range(3):
        refused(connection.call("WAIT", "0", "0"), "NOPERM")
    assert isinstance(connection.call("VALQ.PUSH", "orders", "x"), bytes)
    assert connection.call("WAIT", "0", "0") == 0
    assert isinstance(connection.call("VALQ.PUSH", "orders", "x"), bytes)
    admin.call("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        for _ in range(3):
            refused(connection.call("WAIT", "0", "0"), "NOREPLICAS")
    finally:
        admin.call("CONFIG", "SET", "min-replicas-to-write", "0")
    assert connection.call("WAIT", "0", "0") == 0


def test_wait_covers_what_was_written_before_the_functions_were_lost(admin, connection):
    assert connection.call("AUTH", "secret") == b"OK"
    assert connection.call("SET", "k", "v") == b"OK"
    assert admin.call("FUNCTION", "FLUSH") == b"OK"
    assert connection.call("WAIT", "0", "0") == 0
    assert connection.call("PING") == b"PONG"


@pytest.mark.parametrize("command", [("GET", "k"), ("VALQ.PUSH", b"q\xfe", "x"), ("LRANGE", "l", "0", "-1")], ids=str)
def test_a_refusal_keeps_bytes_that_are_no_text(guarded, admin, command):
    valkey, daemon = guarded
    user = b"us\xffer"
    assert admin.call("ACL", "SETUSER", user, "on", ">pw", "resetkeys", "nocommands") == b"OK"
    replies = []
    for port in (valkey.port, daemon.port):
        with Connection(port) as connection:
            assert connection.call("AUTH", user, "pw") == b"OK"
            connection.send(*(command if command[0] != "VALQ.PUSH" or port != valkey.port else ("FCALL", "f", "0")))
            replies.append(connection.socket.recv(1000))
    assert b"us\xffer" in replies[1]
    assert replies[1] == replies[0]


@pytest.mark.parametrize("login", ["AUTH", "HELLO 3 AUTH"])
def test_who_logs_in_by_a_long_password_that_comes_in_pieces_is_that_user(guarded, admin, login):
    password = "p" * 40_000
    admin.call("ACL", "SETUSER", "long", "on", f">{password}", "resetkeys", "~valq:{longs}:*", "+@all")
    whole = request(*login.split(), "long", password)
    with Connection(guarded[1].port, timeout_s=5) as client:
        assert client.call("AUTH", "worker", "w") == b"OK"
        client.send_raw(whole[:35_000])
        time.sleep(0.1)
        client.send_raw(whole[35_000:])
        assert not isinstance(client.read(), Exception)
        assert client.call("VALQ.PUSH", "longs", "x") == b"1"
        refused(client.call("VALQ.PUSH", "orders", "x"), "NOPERM")
        assert as_map(client.call("VALQ.POP", "longs"))[b"body"] == b"x"
    admin.call("DEL", *admin.call("KEYS", "valq:{longs}:*"))


@pytest.fixture
def talkative(guarded, admin):
    """A client that may not be silent."""
    admin.call("ACL", "SETUSER", "talkative", "on", ">pw", "allkeys", "+@all", "-client|reply")
    with Connection(guarded[1].port, timeout_s=5) as client:
        assert client.call("AUTH", "talkative", "pw") == b"OK"
        yield client


def test_who_may_not_be_silent_is_not_taken_to_be(talkative):
    refused(talkative.call("CLIENT", "REPLY", "OFF"), "NOPERM")
    began = time.monotonic()
    assert talkative.call("VALQ.POP", "talks", "BLOCK", "300") is None
    assert time.monotonic() - began >= 0.3
    assert talkative.call("VALQ.POP", "no queue") is not None


def test_replies_behind_a_refused_skip_are_in_their_places(guarded, talkative, admin):
    commands = ("CLIENT REPLY SKIP", "MULTI", "SELECT 5", "EXEC", "VALQ.PUSH talks x", "SELECT 0")
    talkative.send_raw(b"".join(request(*command.split()) for command in commands))
    refused(talkative.read(), "NOPERM")
    assert [talkative.read() for _ in range(3)] == [b"OK", b"QUEUED", [b"OK"]]
    assert talkative.read() == b"1"
    assert talkative.read() == b"OK"
    admin.call("SELECT", "5")
    assert admin.call("EXISTS", "valq:{talks}:queue") == 1
    admin.call("FLUSHDB")


@pytest.mark.parametrize("before", [0, 1], ids=["alone", "behind another"])
@pytest.mark.parametrize("command", ["SUBSCRIBE ch", "MONITOR", "WAIT 0 0", "LRANGE none 0 -1"])
def test_what_needs_a_connection_of_its_own_is_told_of_a_password_that_came_later(command, before):
    with (
        Valkey() as valkey,
        Connection(valkey.port) as admin,
        Valqd(valkey.url) as daemon,
        Connection(daemon.port, 3, timeout_s=5) as client,
    ):
        assert client.call("SET", "k", "v") == b"OK"
        assert admin.call("CONFIG", "SET", "requirepass", "pw") == b"OK"
        client.send_raw(request("LRANGE", "none", "0", "-1") * before + request(*command.split()))
        for _ in range(before + 1):
            refused(client.read(), "NOAUTH")
