"""Servers that all tests share."""

import itertools

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import Connection, Valkey, Valqd

# A machine that stalls proves nothing.
settings.register_profile("valqd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("valqd")

_names = itertools.count(1)


@pytest.fixture(scope="session")
def valkey():
    """A Valkey that tests share (each with queues and keys of its own)."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def valqd(valkey):
    """A daemon on the shared Valkey."""
    with Valqd(valkey.url) as daemon:
        yield daemon


@pytest.fixture
def queue():
    """A queue name that no other test uses."""
    return f"q{next(_names)}"


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def resp(request):
    """Both protocol versions."""
    return request.param


@pytest.fixture
def client(valqd, resp):
    """A connection to the daemon, in both protocol versions."""
    with Connection(valqd.port, resp) as connection:
        yield connection


@pytest.fixture
def direct(valkey):
    """A connection to the Valkey itself."""
    with Connection(valkey.port) as connection:
        yield connection
