"""Daemons that the wire tests share, besides those of all tests."""

import pytest

from tests.servers import Connection, Valqd


@pytest.fixture(scope="session")
def other_valqd(valkey):
    """A second daemon on the shared Valkey."""
    with Valqd(valkey.url) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def strict_valqd(valkey):
    """A daemon that creates no queues by itself."""
    with Valqd(valkey.url, auto_create="no") as daemon:
        yield daemon


@pytest.fixture
def strict(strict_valqd, resp):
    """A connection to a daemon with auto_create off."""
    with Connection(strict_valqd.port, resp) as connection:
        yield connection


@pytest.fixture
def other(other_valqd, resp):
    """A connection to the second daemon."""
    with Connection(other_valqd.port, resp) as connection:
        yield connection


@pytest.fixture
def connect(valqd, resp):
    """Further connections to the daemon; all are closed at the end."""
    opened = []

    def open_one():
        opened.append(Connection(valqd.port, resp))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()
