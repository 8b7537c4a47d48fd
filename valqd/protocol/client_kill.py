"""Which clients a CLIENT KILL means that have no connection to Valkey, and so cannot be found by it there.

Valkey checks the filters and kills the connections that it knows; once it has accepted them, the daemon goes through
its clients without a lane of their own by the same rules (``clientMatchesFilter`` in Valkey's ``networking.c``): of a
filter that is given twice the last counts, ids are collected, a value that is not set never equals one that is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class ClientInfo(NamedTuple):
    """What Valkey would know of a client that is neither in a transaction nor subscribed."""

    id: int
    addr: bytes  #: ``host:port``
    laddr: bytes
    user: bytes
    name: bytes
    lib_name: bytes
    lib_ver: bytes
    db: int
    age_s: float
    idle_s: float
    blocked: bool


def _ip(addr: bytes) -> bytes:
    host, _, port = addr.rpartition(b":")
    return host.strip(b"[]") if port != b"0" else b""  # a unix socket's is its path, and 0


_FILTERS: dict[bytes, Callable[[ClientInfo, bytes], bool]] = {
    b"ADDR": lambda client, value: client.addr == value,
    b"LADDR": lambda client, value: client.laddr == value,
    b"IP": lambda client, value: _ip(client.addr) == value,
    b"USER": lambda client, value: client.user == value,
    b"NAME": lambda client, value: client.name == value,
    b"LIB-NAME": lambda client, value: client.lib_name == value,
    b"LIB-VER": lambda client, value: client.lib_ver == value,
    b"DB": lambda client, value: client.db == int(value),
    b"TYPE": lambda client, value: value.lower() == b"normal",
    b"FLAGS": lambda client, value: not value.strip(b"b" if client.blocked else b"N"),
    b"CAPA": lambda client, value: False,
    b"MAXAGE": lambda client, value: client.age_s >= int(value),
    b"IDLE": lambda client, value: client.idle_s >= int(value),
    b"SKIPME": lambda client, value: True,
}


def meant_by(argv: list[bytes]) -> Callable[[ClientInfo], bool] | None:
    """Of a CLIENT KILL that Valkey accepts, whether it means a client; None: it names one connection by its address."""
    if len(argv) < 4:
        return None
    values: dict[bytes, bytes] = {}
    ids: dict[bytes, set[int]] = {}
    at = 2
    while at < len(argv):
        name = argv[at].upper()
        at += 1
        if name.removeprefix(b"NOT-") == b"ID":
            while at < len(argv) and argv[at].isdigit() and len(argv[at]) <= 20:  # a longer one Valkey refuses
                ids.setdefault(name, set()).add(int(argv[at]))
                at += 1
        elif at < len(argv):
            values[name] = argv[at]
            at += 1

    def is_meant(client: ClientInfo) -> bool:
        if (b"ID" in ids and client.id not in ids[b"ID"]) or client.id in ids.get(b"NOT-ID", ()):
            return False
        for name, value in values.items():
            test = _FILTERS.get(name.removeprefix(b"NOT-"))
            if test is None:  # of a later Valkey
                return False
            if (value != b"" and test(client, value)) == name.startswith(b"NOT-"):
                return False
        return True

    return is_meant
