"""extend and extend_many."""


def test_deadline_is_now_plus_the_time_given(q):
    q.create(vt=1000)
    q.push("x")
    q.pop()
    deadline = q.extend("1-1", 5000)
    assert q.show(1)["deadline"] == deadline
    q.pass_time(4000)
    assert q.counts() == (0, 1, 0, 0)
    q.pass_time(1000)
    assert q.counts() == (1, 0, 0, 0)


def test_errors_name_what_is_wrong(q):
    q.fill(2)
    q.ids(1)
    assert str(q.extend("9", 1000)) == "NOMSG no message 9 in queue 'orders'"
    assert str(q.extend("2", 1000)) == "NOTINFLIGHT message 2 is not in flight"
    assert str(q.extend("1-2", 1000)) == "STALE the lease of receipt 1-2 is over"
    assert str(q.extend("2-1", 1000)) == "STALE the lease of receipt 2-1 is over"
    q.ack(1)
    assert str(q.extend("1-1", 1000)).startswith("NOMSG ")


def test_many_fail_each_for_itself(q):
    q.fill(2)
    q.ids(2)
    q.do("cancel", "n2", 2)
    reply = q.do("extend_many", "1-1", 1000, "2-1", 1000, "3-1", 1000)
    assert isinstance(reply[0], int)
    assert reply[1:] == [b"CANCELLED message 2 was cancelled", b"NOMSG no message 3 in queue 'orders'"]


def test_max_lease_bounds_one_delivery(q):
    q.create(vt=1000, max_lease=3000)
    q.push("x")
    q.pop()
    first = q.show(1)["deadline"]
    q.pass_time(500)
    assert q.extend("1-1", 60000) == first + 2000
    q.pass_time(2500)
    assert q.counts() == (1, 0, 0, 0)
    q.pop()
    assert q.extend("1-2", 2000) > first + 2500


def test_extended_record_keeps_its_receipt(q):
    q.push("x", priority=1)
    q.pop()
    q.extend("1", 60000)
    assert q.ack("1-1") == 1


def test_max_lease_takes_nothing_from_a_longer_lease(q):
    q.create(vt=60000, max_lease=1000)
    q.push("x")
    q.pop()
    before = q.show(1)["deadline"]
    q.pass_time(1200)
    assert q.extend("1-1", 50000) < before
    assert q.extend("1-1", 90000) < before
    assert q.counts() == (0, 1, 0, 0)
