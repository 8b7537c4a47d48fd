"""Each module has a Valkey of its own, whose functions may be flushed and whose users may change."""

import pytest

from tests.servers import Connection, Valkey, Valqd


@pytest.fixture(scope="module")
def pair():
    """A Valkey of this module's own, and a daemon."""
    with Valkey() as valkey, Valqd(valkey.url) as daemon:
        yield valkey, daemon


@pytest.fixture
def client(pair):
    with Connection(pair[1].port, timeout_s=5) as connection:
        yield connection


@pytest.fixture
def beside(pair):
    with Connection(pair[1].port) as connection:
        yield connection


@pytest.fixture
def direct(pair):
    with Connection(pair[0].port) as connection:
        yield connection
