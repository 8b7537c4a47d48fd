"""Dead letter queues that cannot take what they are to take, or belong to somebody else."""

import pytest

from tests.lua.conftest import Link, Queue, flat

MIB = 1 << 20
MESSAGES = {"plain": {}, "records": {"priority": 1}}


def spoil(q, name):
    """A key of the queue graves is not what it must be."""
    q.link.ok("DEL", f"valq:{{graves}}:{name}")
    q.link.ok("SET", f"valq:{{graves}}:{name}", "x")


@pytest.fixture
def pair(q):
    """A queue whose dead go to another, which has some."""
    graves = q.other("graves").create()
    graves.push("older", priority=1)
    graves.push("plain", "plain")
    return q.create(attempts=2, vt=1000, dead_letter_queue="graves"), graves


@pytest.mark.parametrize("key", ["body", "meta", "ready", "gone", "log:0"])
@pytest.mark.parametrize("options", MESSAGES.values(), ids=MESSAGES)
def test_a_queue_that_cannot_take_the_dead_harms_nobody(pair, key, options):
    q, _ = pair
    q.push("dies", max_attempts=1)
    q.push("lives", **options)
    assert len(q.pop(2)) == 2
    q.pass_time(1000)
    spoil(q, key)
    assert q.counts() == (1, 0, 0, 1)
    q.sweep()
    assert q.counts() == (1, 0, 0, 1)
    assert [message["body"] for message in q.pop(5)] == [b"lives"]
    info = q.info()
    assert (info["dead_total"], info["expired_total"]) == (1, 0)
    assert q.do("redrive", "n2", "", "ALL", "", "") == 1
    assert q.pop()["body"] == b"dies"


@pytest.mark.parametrize("key", ["body", "meta", "ready", "gone"])
def test_a_queue_that_cannot_take_the_dead_keeps_its_own(pair, key):
    q, graves = pair
    for body in ("first", "second"):
        q.push(body)
        spoil(q, key)
        assert q.nack(q.pop()["receipt"], kind="FATAL") == 1
    q.link.ok("DEL", f"valq:{{graves}}:{key}")
    graves.push("newer")
    found = [message["body"] for message in graves.pop(10)]
    assert [body for body in found if body not in (b"first", b"second", b"older")] == [b"plain", b"plain", b"newer"]
    q.sweep()
    assert q.counts()[3] + graves.counts()[0] >= 2  # the dead are in one of the two
    kept = [graves.link.ok("HSTRLEN", "valq:{graves}:body", i) for i in range(20)]
    assert int(graves.link.ok("HGET", graves.key, "bytes") or 0) == sum(kept) or key in ("body", "meta")


def test_what_a_queue_cannot_take_is_where_it_was_when_it_is_moved_by_hand(pair):
    q, graves = pair
    q.update(dead_letter_queue="")
    q.push("dies", priority=3)
    assert q.nack(q.pop()["receipt"], kind="FATAL") == 1
    spoil(q, "ready")
    reply = q.fcall("redrive", "n2", "", "ALL", "graves", "", keys=[q.key, graves.key])
    assert str(reply).startswith("WRONGTYPE ")
    assert q.counts() == (0, 0, 0, 1)
    assert flat(q.do("peek", "n2", "dlq", 1, 0, "")[0])["body"] == b"dies"
    q.link.ok("DEL", "valq:{graves}:ready")
    assert not q.link.ok("HGET", graves.key, "bytes") or int(q.link.ok("HGET", graves.key, "bytes")) == len("older")
    assert q.do("redrive", "n2", "", "ALL", "graves", "", keys=[q.key, graves.key]) == 1
    assert (q.counts(), graves.pop()["body"]) == ((0, 0, 0, 0), b"dies")


def test_who_may_write_to_a_queue_lends_his_right_only_by_naming_it(q, functions_server):
    graves = q.other("graves").create()
    q.create(attempts=1)
    q.link.ok("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", "~valq:{orders}:*")
    user = Link(functions_server.port)
    user.ok("AUTH", "limited", "x")
    assert Queue(user, "orders").update(dead_letter_queue="graves") == b"OK"
    user.close()
    q.push("x")
    q.nack(q.pop()["receipt"], kind="FATAL")
    for fields in ({"visibility_timeout": 5000}, {"max_bytes": 1000}, {}):
        assert q.update(**fields) == b"OK"  # by who may do anything
        q.sweep()
        assert (graves.counts(), q.counts()) == ((0, 0, 0, 0), (0, 0, 0, 1))
    assert q.update(dead_letter_queue="graves") == b"OK"
    q.sweep()
    assert (graves.counts(), q.counts()) == ((1, 0, 0, 0), (0, 0, 0, 0))


ALL_WAYS = {
    "sweep": ("sweep", "", 1000),
    "redrive": ("redrive", "n2", "", "ALL", "", ""),
    "purge": ("purge", "n2", "", "dlq"),
    "update": ("update", "n2", "dead_letter_queue", ""),
    "delete": ("delete", "n2"),
}


@pytest.mark.parametrize("way", ALL_WAYS)
def test_one_call_moves_so_many_bytes_of_dead_at_most_and_whatever_comes_next_the_others(pair, way):
    q, graves = pair
    large = "x" * 8 * MIB
    for _ in range(9):
        q.push(large, large)
    receipts = [message["receipt"] for _ in range(3) for message in q.pop(20)]
    assert q.nack(*receipts, kind="FATAL") == 18
    moved = graves.counts()[0] - 3
    assert moved == 16
    assert q.counts() == (0, 0, 0, 2)
    assert q.do("due", "me", 1000, 9, keys=["valq::daemons"])[3:] == [b"orders"]
    q.do(*ALL_WAYS[way])
    assert graves.counts() == (18 + 3, 0, 0, 0)
    assert buried(graves) == list(range(1, 19))
    assert way == "delete" or q.counts() == (0, 0, 0, 0)


def test_all_that_one_call_names_are_moved_at_once_and_in_order(pair):
    q, graves = pair
    q.fill(1500)
    receipts = [message["receipt"] for message in q.pop(1500)]
    assert q.nack(*receipts, kind="FATAL") == 1500
    assert (graves.counts()[0], q.counts()) == (1500 + 3, (0, 0, 0, 0))
    assert buried(graves) == list(range(1, 1501))


def buried(graves):
    """The ids that its dead letters had, in the order in which it gives them."""
    letters = []
    while batch := graves.pop(2000):
        letters += batch
    return [int(flat(letter["headers"])["valq-id"]) for letter in letters if "headers" in letter]


def test_one_step_of_a_redrive_moves_so_many_bytes_at_most(q):
    target = q.other("target").create()
    q.create()
    count = 50
    for _ in range(count):
        q.push("x" * MIB)
    assert q.nack(*[message["receipt"] for message in q.pop(count)], kind="FATAL") == count
    keys = [q.key, target.key]
    for ids in ((), range(1, count + 1)):
        moved, token = q.do("redrive", "e2", "", "ID" if ids else "ALL", "target", "", *ids, keys=keys)
        assert 10 <= moved <= 35
        while token:
            moved, token = q.do("redrive", "e2", token, "ID" if ids else "ALL", "target", "", *ids, keys=keys)
        if not ids:
            assert target.counts() == (count, 0, 0, 0)
            assert target.nack(*[message["receipt"] for message in target.pop(count)], kind="FATAL") == count
            q, target, keys = target, q, keys[::-1]
            continue
    assert (q.counts(), target.counts()) == ((0, 0, 0, 0), (count, 0, 0, 0))


def test_who_is_not_registered_settles_nothing(q):
    q.create(vt=1000, attempts=1)
    q.push("dies")
    q.push("ready")
    q.pop()
    q.pass_time(1000)
    assert q.do("arm", "me/0", "1", "not places") == [[0, 1000]]
    assert q.do("arm", "me/0", "1", bytes(16)) == [[1, 86_400_000]]
    assert q.info()["dead_total"] == 1


def test_those_that_wait_for_their_queue_are_all_moved_by_the_sweep(pair):
    q, _ = pair
    for _ in range(2):
        q.fill(600)
        spoil(q, "ready")
        assert q.nack(*[message["receipt"] for message in q.pop(600)], kind="FATAL") == 600
    q.link.ok("DEL", "valq:{graves}:ready")
    assert q.counts()[3] == 1200
    q.sweep()
    assert q.counts() == (0, 0, 0, 0)
