"""A queue that was last touched by an older revision of the library."""

import pytest

from tests.lua import states
from tests.lua.conftest import AUTO

CALLS = {
    "push": ("n2", AUTO, "", 0, 0, "new"),
    "push_many": (AUTO, "new", "newer"),
    "pop": ("n2", AUTO, 9, "", ""),
    "pop_many": (AUTO, "3", "2,9,,"),
    "ack": ("n2", "1", "5"),
    "ack_many": ("1-1", "2", "5"),
    "nack": ("n2", "FAIL", "", "", "1", "5"),
    "extend": ("n2", "5-1", 99_000),
    "cancel": ("n2", "3"),
    "del": ("n2", "1", "5"),
    "info": ("n2",),
    "show": ("n2", "5"),
    "peek": ("n2", "ready", 9, 0, ""),
    "scan": ("n2", "0", "", "", "", "", 9, ""),
    "update": ("n2", "max_length", 9),
    "pause": ("n2", "in", 1000),
    "purge": ("n2", "", "main"),
    "redrive": ("n2", "", "ALL", "", ""),
    "sweep": ("1", 1000),
    "arm": ("me/0", 1, bytes(16)),
    "delete": ("n2",),
}


def filled(queue):
    """All states: plain and with options, in flight, ready, delayed and dead."""
    queue.create()
    queue.push("taken", "taken", "urgent", "dead", "taken, urgent")
    assert queue.ids(5) == [1, 2, 3, 4, 5]
    assert queue.nack("3", "4", kind="SILENT", delay=0) == 2
    assert queue.ids(2) == [3, 4]
    assert queue.nack("4", kind="FATAL") == 1
    assert queue.nack("3", kind="SILENT", delay=0) == 1
    queue.push("plain", "plain")
    queue.push("later", delay=5000)
    assert queue.ack("2") == 1
    return queue


@pytest.mark.parametrize("function", CALLS)
def test_fields_of_their_own_are_read_and_packed(q, function):
    before, now = filled(q.other("b")), filled(q.other("n"))
    states.unpack_fields(q.link, before.key)
    replies = [str(queue.fcall(function, *CALLS[function])) for queue in (before, now)]
    assert replies[0] == replies[1]
    assert set(q.link.ok("HMGET", before.key, *states.NAMES)) == {None}
    if function == "delete":
        assert before.stored() == now.stored() == []
        return
    packed = [states.read(q.link.ok("HGET", queue.key, "state")) for queue in (before, now)]
    assert packed[0] == packed[1]
    assert before.info() == now.info()
    assert before.ids() == now.ids()


def test_what_the_functions_write_is_not_taken_for_an_older_one(q):
    states.unpack_fields(q.link, filled(q).key)
    q.link.ok("HDEL", q.key, "head")
    assert str(q.fcall("pop", "n2", AUTO, "", "", "")) == "ERR this is no queue"


def test_records_whose_size_is_not_noted_stop_counting_towards_max_bytes_too(q):
    ids = q.push("twelve bytes", "twelve bytes", priority=1)
    q.push("seven b", priority=1)
    without_size = "local m = cmsgpack.unpack(ARGV[1]) m.b = nil return cmsgpack.pack(m)"
    meta = f"valq:{{{q.name}}}:meta"
    for message_id in ids:
        q.link.ok("HSET", meta, message_id, q.link.ok("EVAL", without_size, 0, q.link.ok("HGET", meta, message_id)))
    assert int(q.link.ok("HGET", q.key, "bytes")) == 31
    assert q.ack(*ids) == 2
    assert int(q.link.ok("HGET", q.key, "bytes")) == 7
