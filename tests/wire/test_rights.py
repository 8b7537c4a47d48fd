"""Commands run as the user that the client proved to be; Valkey's ACL decides."""

import pytest

from tests.servers import Connection, Valkey, Valqd, until


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


def refused(reply, code):
    assert isinstance(reply, Exception), reply
    assert str(reply).split()[0] == code, reply


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
