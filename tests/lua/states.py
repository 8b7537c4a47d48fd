"""The packed numbers that a queue keeps in one field: how tests read and write them, and what they were before."""

NAMES = ("seq", "head", "plain", "due", "delivered", "acked")
_SIZE = 7


def read(packed):
    """All numbers by name."""
    flags = {"may_have_ready": packed[-2], "may_have_records": packed[-1]}
    numbers = {name: int.from_bytes(packed[at * _SIZE : (at + 1) * _SIZE], "big") for at, name in enumerate(NAMES)}
    return numbers | flags


def changed(packed, **numbers):
    """The same with other numbers."""
    raw = bytearray(packed)
    for name, value in numbers.items():
        at = NAMES.index(name) * _SIZE
        raw[at : at + _SIZE] = value.to_bytes(_SIZE, "big")
    return bytes(raw)


def unpack_fields(link, key):
    """Make the queue's hash what it was before revision 2 of the library: a field for each number."""
    numbers = read(link.ok("HGET", key, "state"))
    link.ok("HSET", key, *[item for name in NAMES for item in (name, numbers[name])])
    link.ok("HDEL", key, "state")
