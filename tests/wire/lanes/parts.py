"""A large command in two parts."""

from tests.servers import request
from tests.wire.expect import noticed


def in_two_parts(client, beside, before, command, meanwhile=lambda: None):
    """Send ``before`` and the head of a large command, and its rest when the head was read."""
    whole = request(*command)
    client.send_raw(before + whole[: len(whole) // 2])
    noticed(beside)
    meanwhile()
    client.send_raw(whole[len(whole) // 2 :])
