"""What a client's own lane brought leaves before what others get in the same turn; one that fails holds up nobody."""

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


async def test_a_client_that_cannot_be_written_to_costs_the_others_nothing(caplog):
    sent = []
    outbox = Outbox(asyncio.get_running_loop())
    bad, other = Outgoing(outbox), Outgoing(outbox)
    bad.transport, other.transport = Transport("bad", sent), Transport("other", sent)
    bad.transport.write = lambda data: 1 / 0
    bad.transport.abort = lambda: sent.append("aborted")
    for _ in range(2):
        bad.write(b"x")
        other.write(b"a")
        await asyncio.sleep(0)
    assert sent == ["aborted", ("other", b"a")] * 2
    assert caplog.messages == ["a client could not be written to"] * 2


async def test_answers_leave_at_once_unless_somebody_may_be_told_of_what_they_say():
    sent = []
    outbox = Outbox(asyncio.get_running_loop())
    one = Outgoing(outbox)
    one.transport = Transport("one", sent)
    one.write(b"a")
    outbox.flush_answers()
    assert sent == [("one", b"a")]
    outbox.private_lanes = 1
    one.write(b"b")
    outbox.flush_answers()
    assert len(sent) == 1
    await asyncio.sleep(0)
    assert sent[1:] == [("one", b"b")]
