"""Ids that went long ago: messages on both sides of them are found, and how many there were costs nothing."""

import pytest

from tests.lua.conftest import flat

BUCKET = 128
#: How many buckets have gone between two messages: from none to more than anybody wants to look through.
GAPS = (0, 1, 6, 7, 8, 9, 499, 500, 501, 508, 509, 2000, 10**7, 3)


@pytest.fixture
def ids(q):
    """A plain message each time, and so many buckets that have gone behind its own."""
    q.create()
    found = []
    for gap in GAPS:
        found.append(int(q.push("plain")))
        urgent = q.push(*["urgent"] * (BUCKET - 1), priority=1)
        assert q.ack(*urgent) == BUCKET - 1
        q.skip_ids(gap * BUCKET)
    found.append(int(q.push("plain")))
    return found


def peek(q, count=100, offset=0, reverse=""):
    return [int(flat(message)["id"]) for message in q.do("peek", "n2", "ready", count, offset, reverse)]


def scan(q, count):
    cursor, found = b"0", []
    while True:
        cursor, messages = q.do("scan", "n2", cursor, "", "", "", "", count, "")
        found += [int(flat(message)["id"]) for message in messages]
        if cursor == b"0":
            return found


def test_messages_on_both_sides_of_a_gap_are_found_in_order(q, ids):
    assert peek(q) == ids
    assert peek(q, reverse="1") == ids[::-1]
    for offset in range(len(ids) + 1):
        assert peek(q, count=2, offset=offset) == ids[offset : offset + 2]
    for count in (1, 3, 1000):
        assert scan(q, count) == ids
    assert [q.ids(1) for _ in ids] == [[message] for message in ids]
    assert scan(q, 4) == ids  # in flight


def test_purge_ends_behind_the_last_gap(q, ids):
    assert q.steps("purge", "ready") == (len(ids), 1)
    assert q.counts() == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        ("peek", ("n2", "ready", 100, 0, "")),
        ("peek", ("n2", "ready", 100, 0, "1")),
        ("peek", ("n2", "ready", 1, len(GAPS), "")),
        ("scan", ("n2", "0", "", "", "", "", 1000, "")),
        ("purge", ("n2", "", "ready")),
        ("pop", ("n2", "", 100, "", "")),
    ],
)
def test_gaps_cost_nothing(q, ids, function, args):
    calls, _ = q.calls_of(function, *args)
    assert sum(calls.values()) < 5 * BUCKET * len(ids)  # some for each slot of the buckets that are there


def test_what_is_there_costs_no_more_than_a_gap_before_it(q):
    q.create()
    q.push("plain")
    assert q.ack(*q.push(*["urgent"] * (BUCKET - 1), priority=1)) == BUCKET - 1
    q.skip_ids(600 * BUCKET)
    q.fill(700 * BUCKET)
    calls, _ = q.calls_of("peek", "n2", "ready", 10, 0, "")
    assert "HKEYS" not in calls
    assert sum(calls.values()) < BUCKET
