"""What a client's own lane brought leaves before what others get in the same turn."""

import asyncio

from valqd.io.outbox import Outbox, Outgoing


class Transport:
    def __init__(self, name, sent):
        self._name, self._sent = name, sent

    def is_closing(self):
        return False

    def write(self, data):
        self._sent.append((self._name, data))


async def test_what_is_to_come_first_leaves_first_and_behind_its_own():
    sent = []
    outbox = Outbox(asyncio.get_running_loop())
    one, other = Outgoing(outbox), Outgoing(outbox)
    one.transport, other.transport = Transport("one", sent), Transport("other", sent)
    one.write(b"+OK\r\n")
    other.write(b"a")
    other.write_now(b"b")
    await asyncio.sleep(0)
    assert sent == [("other", b"ab"), ("one", b"+OK\r\n")]
