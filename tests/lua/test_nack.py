"""nack and nack_many: kinds, delays, backoff."""

import pytest


def test_fail_uses_the_attempt_and_silent_gives_it_back(q):
    q.create(attempts=2)
    q.push("x")
    q.nack(q.pop()["receipt"], kind="SILENT")
    assert (q.show(1)["attempts"], q.show(1)["deliveries"]) == (0, 1)
    q.nack(q.pop()["receipt"])
    q.nack(q.pop()["receipt"])
    assert q.counts() == (0, 0, 0, 1)
    assert q.info()["nacked_total"] == 3
    assert q.show(1)["deliveries"] == 3


def test_fatal_is_dead_now_with_its_reason(q):
    q.push("x")
    q.nack(q.pop()["receipt"], kind="FATAL", reason="bad input")
    shown = q.show(1)
    assert (shown["state"], shown["last_error"]) == (b"dlq", b"bad input")
    assert shown["died_at"] is not None


def test_delay_holds_it_back_then_it_takes_its_old_place(q):
    q.fill(2)
    q.nack(q.pop()["receipt"], delay=500)
    assert q.ids(1) == [2]
    q.nack(2)
    q.pass_time(500)
    assert q.ids() == [1, 2]


def test_only_deliveries_in_flight_count(q):
    q.fill(3)
    q.ids(2)
    assert q.do("nack_many", "FAIL", "", "", "1-1", "1-1", "3", "2-2", "9", "2") == [1, 0, 0, 0, 0, 1]
    q.ids(2)
    assert q.do("nack_many", "SILENT", "", "", "1-2", "2-2") == 2


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        ("FIXED:1000:9000:0", [1000, 1000, 1000, 1000]),
        ("LINEAR:1000:3000:0", [1000, 2000, 3000, 3000]),
        ("EXP:1000:6000:0", [1000, 2000, 4000, 6000]),
    ],
)
def test_backoff_decides_without_a_delay(q, backoff, waits):
    q.create(attempts=9, backoff=backoff)
    q.push("x")
    for wait in waits:
        q.nack(q.pop()["receipt"])
        q.pass_time(wait - 1)
        assert q.pop() is None
        q.pass_time(1)
    assert q.pop() is not None


def test_backoff_holds_for_leases_that_end_too(q):
    q.create(vt=1000, backoff="FIXED:5000:5000:0")
    q.push("x")
    q.pop()
    q.pass_time(1000)
    assert q.counts() == (0, 0, 1, 0)
    q.pass_time(5000)
    assert q.counts() == (1, 0, 0, 0)


def test_jitter_only_shortens_and_differs_by_message(q):
    q.create(backoff="FIXED:10000:10000:50")
    q.fill(50)
    q.nack(*[message["receipt"] for message in q.pop(50)])
    now = q.show(1)["failed_at"]
    waits = [q.show(i)["due"] - now for i in range(1, 51)]
    assert all(5000 <= wait <= 10001 for wait in waits)
    assert len(set(waits)) > 25


def test_silent_waits_as_a_failure_would_unless_a_delay_is_given(q):
    q.create(attempts=9, backoff="LINEAR:1000:9000:0")
    q.push("x")
    q.nack(q.pop()["receipt"], kind="SILENT")
    q.pass_time(999)
    assert q.pop() is None
    q.pass_time(1)
    q.nack(q.pop()["receipt"], kind="SILENT", delay=0)
    assert q.pop()["attempts"] == 1


def test_the_last_reason_is_kept_whatever_the_kind_and_no_older_one(q):
    q.create(attempts=9)
    q.push("x")
    for kind, reason, kept in (
        ("SILENT", "busy", b"busy"),
        ("SILENT", "", b"busy"),
        ("FAIL", "broken", b"broken"),
        ("FAIL", "", None),
        ("FATAL", "", None),
    ):
        q.nack(q.pop()["receipt"], kind=kind, reason=reason)
        assert q.show(1)["last_error"] == kept
    assert q.show(1)["failed_at"] is not None


def test_what_a_daemon_could_not_hand_over_goes_back_and_is_no_nack(q):
    q.push("x")
    assert q.do("nack_many", "RETURN", "0", "", q.pop()["receipt"]) == 1
    assert q.pop()["attempts"] == 1
    assert q.info()["nacked_total"] == 0


def test_who_is_named_twice_dies_once_though_much_is_due(q):
    q.create(vt=99_000)
    q.push("x")
    (receipt,) = [q.pop()["receipt"]]
    q.push(*["over"] * 1500, ttl=1000)
    q.pass_time(1000)
    assert q.nack(receipt, receipt, b"1", kind="FATAL") == 1
    assert q.counts() == (0, 0, 0, 1)
    assert q.show(1)["state"] == b"dlq"


def test_a_delivery_that_is_named_twice_dies_once(q):
    q.create(attempts=1)
    q.push("x")
    receipt = q.pop()["receipt"]
    assert q.do("nack_many", "FAIL", "", "", receipt, "1", receipt) == [1, 0, 0]
    assert (q.counts(), q.info()["dead_total"]) == ((0, 0, 0, 1), 1)


def test_who_was_cancelled_does_not_die(q):
    q.create()
    q.push("x")
    receipt = q.pop()["receipt"]
    assert q.do("cancel", "n2", receipt) == 1
    assert q.nack(receipt, kind="FATAL") == 1
    assert q.counts() == (0, 0, 0, 0)
