"""Dead letters: retention, redrive, and dead letter queues of another name."""

import pytest

from tests.lua.conftest import AUTO, Link, Queue, flat


def kill(q, count, body="x"):
    for i in range(count):
        q.push(f"{body}{i}")
    return [q.nack(message["receipt"], kind="FATAL", reason="boom") for message in q.pop(count)]


def test_dead_are_kept_for_the_retention_from_when_they_died(q):
    q.create(attempts=1, retention=60000, vt=1000)
    q.push("early")
    q.push("late")
    q.ids(1)
    q.pass_time(1000)
    q.sweep()
    q.pass_time(30000)
    q.ids(1)
    q.pass_time(1000)
    assert q.counts() == (0, 0, 0, 2)
    q.pass_time(28_999)
    assert q.counts() == (0, 0, 0, 2)
    q.pass_time(1)
    assert q.counts() == (0, 0, 0, 1)
    assert q.show(2)["body"] == b"late"


def test_a_retention_that_is_made_shorter_holds_for_the_dead_though_something_was_due_just_then(q):
    q.create(attempts=1, vt=1000)
    q.push("dead")
    q.nack(q.pop()["receipt"])
    q.push("due", delay=1000)
    q.pass_time(1000)
    assert q.update(retention_period=60_000) == b"OK"
    q.pass_time(59_000)
    assert q.counts() == (1, 0, 0, 0)


def test_retention_zero_is_for_ever(q):
    q.create(retention=0)
    kill(q, 1)
    q.pass_time(10**12)
    assert q.counts() == (0, 0, 0, 1)
    q.pass_time(-(10**12))


def test_two_that_die_together_are_both_there(q):
    q.create(vt=1000, attempts=1)
    q.fill(300)
    q.ids(300)
    q.pass_time(1000)
    assert q.counts() == (0, 0, 0, 300)


def test_redrive_moves_all_oldest_first_with_attempts_at_zero(q):
    q.create(attempts=1)
    kill(q, 5)
    assert q.do("redrive", "n2", "", "ALL", "", "2") == 2
    assert [(m["id"], m["attempts"], m["receipt"]) for m in q.pop(5)] == [(b"1", 1, b"1-2"), (b"2", 1, b"2-2")]
    assert q.show(1)["last_error"] == b"boom"
    assert q.do("redrive", "n2", "", "ID", "", "", "4", "9", "4-1", "1") == 1
    assert q.counts() == (1, 2, 0, 2)


@pytest.mark.parametrize("limit", ["", "3", "12"])
def test_redrive_moves_those_that_died_in_one_ms_by_their_ids(q, limit):
    kill(q, 120)
    assert q.do("redrive", "n2", "", "ALL", "", limit) == int(limit or 120)
    assert q.ids() == list(range(1, int(limit or 120) + 1))


def test_those_that_die_in_one_ms_go_to_the_dead_letter_queue_by_their_ids(q):
    q.create(attempts=1, vt=1000, dead_letter_queue="dead")
    q.fill(1200)
    q.ids(1200)
    q.pass_time(1000)
    q.sweep()
    dead = q.other("dead")
    moved = [message["headers"] for _ in range(2) for message in dead.pop(600)]
    assert [int(flat(headers)["valq-id"]) for headers in moved] == list(range(1, 1201))


def test_redrive_is_stepped_and_moves_what_was_there(q):
    q.create(attempts=1, vt=1000)
    q.fill(2500)
    q.ids(2500)
    q.pass_time(1000)
    q.sweep()
    total, calls = q.steps("redrive", "ALL", "", "2100")
    assert (total, calls >= 3) == (2100, True)
    assert q.counts() == (2100, 0, 0, 400)


def test_redrive_into_a_queue_that_is_full_after_a_step_tells_how_many_were_moved(q):
    q.create(vt=1000, attempts=1)
    q.fill(1500)
    q.ids(1500)
    q.pass_time(1000)
    q.sweep()
    other = q.other("other").create(max_length=300)
    keys = [q.key, other.key]
    moved, token = q.do("redrive", "e2", "", "ALL", "other", "", keys=keys)
    assert (moved, token != b"") == (300, True)
    assert q.do("redrive", "e2", token, "ALL", "other", "", keys=keys) == [0, b""]
    assert str(q.fcall("redrive", "e2", "", "ALL", "other", "", keys=keys)).startswith("FULL")
    other.do("pause", "n2", "IN", "")
    assert q.do("redrive", "e2", token, "ALL", "other", "", keys=keys) == [0, b""]
    assert str(q.fcall("redrive", "e2", "", "ALL", "other", "", keys=keys)).startswith("PAUSED")


@pytest.mark.parametrize("deleted", ["orders", "other"])
def test_redrive_ends_when_a_queue_is_deleted_between_steps(q, deleted):
    q.create(vt=1000, attempts=1)
    q.fill(1500)
    q.ids(1500)
    q.pass_time(1000)
    q.sweep()
    keys = [q.key, q.other("other").create().key]
    moved, token = q.do("redrive", "e2", "", "ALL", "other", "", keys=keys)
    assert (moved, token != b"") == (300, True)
    q.other(deleted).do("delete", "n2")
    assert q.do("redrive", "e2", token, "ALL", "other", "", keys=keys) == [0, b""]
    assert str(q.fcall("redrive", "e2", "", "ALL", "other", "", keys=keys)).startswith("NOQUEUE")


def test_redrive_takes_ids_and_no_receipts_whose_lease_is_over(q):
    q.push("x")
    q.nack(q.pop()["receipt"], kind="FATAL")
    assert q.do("redrive", "n2", "", "ID", "", "", "1-1", "1-77") == 0
    assert q.do("redrive", "n2", "", "ID", "", "", "1") == 1


def test_the_dead_go_to_their_dead_letter_queue_though_it_was_deleted_before(q):
    graves = q.other("graves").create()
    q.create(vt=1000, attempts=1, dead_letter_queue="graves")
    graves.do("delete", "n2")
    q.push("x")
    q.pop()
    q.pass_time(1000)
    q.sweep()
    assert q.counts() == (0, 0, 0, 0)
    assert graves.info()["ready_msgs"] == 1


def test_redrive_to_another_queue_keeps_headers_and_history(q):
    q.create(attempts=1)
    q.push("x", headers={"a": "b"}, priority=3)
    q.nack(q.pop()["receipt"], reason="boom")
    other = q.other("other")
    call = ("redrive", "n2", "", "ALL", "other", "")
    assert str(q.fcall(*call, keys=[q.key, other.key])) == "NOQUEUE no such queue 'other'"
    other.create()
    assert q.do(*call, keys=[q.key, other.key]) == 1
    shown = other.show(1)
    assert (shown["headers"], shown["priority"], shown["last_error"]) == ([b"a", b"b"], 3, b"boom")
    assert q.counts() == (0, 0, 0, 0)


def test_dead_go_to_the_dead_letter_queue_with_where_from_and_why(q):
    q.create(dead_letter_queue="graves")
    q.push("x", headers={"h": "v"})
    q.nack(q.pop()["receipt"], kind="FATAL", reason="boom")
    grave = q.other("graves").pop()
    headers = dict(zip(grave["headers"][::2], grave["headers"][1::2], strict=True))
    assert headers == {b"h": b"v", b"valq-queue": b"orders", b"valq-id": b"1", b"valq-attempts": b"1",
                       b"valq-reason": b"boom"}  # fmt: skip
    assert q.counts() == (0, 0, 0, 0)
    assert q.info()["dead_total"] == 1


@pytest.mark.parametrize("blocked", ["paused", "full"])
def test_dead_are_never_refused_by_their_queue(q, blocked):
    graves = q.other("graves").create(max_length=1)
    graves.push("full")
    if blocked == "paused":
        graves.do("pause", "n2", "ALL", "")
    q.create(dead_letter_queue="graves")
    kill(q, 2)
    assert graves.counts() == (3, 0, 0, 0)


def test_cycles_are_refused(q):
    assert str(q.fcall("create", "n2", "", "dead_letter_queue", "orders")).startswith("ERR ")
    q.other("b").create(dead_letter_queue="c")
    q.other("c").create(dead_letter_queue="orders")
    q.create()
    assert str(q.update(dead_letter_queue="b")).startswith("ERR ")
    assert q.info()["dead_letter_queue"] is None


def test_a_chain_of_dead_letter_queues_has_an_end(q):
    for number in range(1, 100):
        q.other(f"d{number}").create(dead_letter_queue=f"d{number + 1}")
    q.other("d100").create()
    q.create()
    assert q.update(dead_letter_queue="d1") == b"OK"
    q.other("d100").update(dead_letter_queue="d101")
    assert str(q.update(dead_letter_queue="d1")).startswith("ERR ")


@pytest.mark.parametrize("pattern", ["~valq:{orders}:*", "~valq:{orders}:* %R~valq:{graves}:*"])
def test_without_rights_on_the_dead_letter_queue_the_sweeper_moves_them(q, functions_server, pattern):
    q.create(dead_letter_queue="graves")
    q.other("graves").create()
    q.fill(2)
    q.link.ok("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", *pattern.split())
    user = Link(functions_server.port)
    user.ok("AUTH", "limited", "x")
    receipts = [flat(m)["receipt"] for m in user.ok("FCALL", "valq1_pop", 1, q.key, "n2", AUTO, 2, "", "")]
    assert user.ok("FCALL", "valq1_nack", 1, q.key, "n2", "FATAL", "", "boom", *receipts) == 2
    user.close()
    assert q.counts() == (0, 0, 0, 2)
    assert q.do("due", "me", 1000, 10, keys=["valq::daemons"])[3:] == [b"orders"]
    q.sweep()
    assert q.counts() == (0, 0, 0, 0)
    assert [m["body"] for m in q.other("graves").pop(5)] == [b"x", b"x"]
    assert b"valq:{orders}:forward" not in q.stored()


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_step_of_the_sweep_moves_a_bounded_number_to_the_dead_letter_queue(q, size):
    count, most = (1800, 501) if size == 10 else (600, 250)
    graves = q.other("graves").create()
    q.create(vt=1000, attempts=1, dead_letter_queue="graves")
    for _ in range(count // 100):
        q.push(*["x" * size] * 100)
    q.push(*["back"] * 3, max_attempts=2)
    q.ids(count + 3)
    q.pass_time(1000)
    moved = 0
    while q.do("sweep", "", 1000):
        now = graves.counts()[0]
        assert 0 < now - moved <= most
        assert q.link.ok("ZCARD", "valq:{orders}:ready") == 3, "who comes back does not wait for the dead"
        moved = now
    assert graves.counts()[0] - moved <= most
    assert q.counts() == (3, 0, 0, 0)
    assert graves.counts() == (count, 0, 0, 0)


def test_dead_of_before_the_dead_letter_queue_stay(q):
    q.create()
    kill(q, 1)
    q.update(dead_letter_queue="graves")
    q.sweep()
    assert q.counts() == (0, 0, 0, 1)


@pytest.mark.parametrize("set_by", ["who may write there", "the user alone"])
def test_the_sweeper_moves_them_only_where_somebody_with_rights_sent_them(q, functions_server, set_by):
    q.other("graves").create()
    q.link.ok("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", "~valq:{orders}:*")
    user = Link(functions_server.port)
    user.ok("AUTH", "limited", "x")
    (q if set_by == "who may write there" else Queue(user, "orders")).create(
        vt=1000, attempts=1, dead_letter_queue="graves"
    )
    q.push("x")
    user.ok("FCALL", "valq1_pop", 1, q.key, "n2", AUTO, 1, "", "")
    user.close()
    q.pass_time(1000)
    q.sweep()
    moved = set_by == "who may write there"
    assert (len(q.other("graves").pop(5)), q.counts()) == ((1, (0, 0, 0, 0)) if moved else (0, (0, 0, 0, 1)))


def test_a_dead_letter_queue_remembers_who_sends_to_it_no_longer_than_that(q):
    sources = "valq:{graves}:sources"
    q.create(dead_letter_queue="graves")
    assert q.link.ok("HKEYS", sources) == [b"orders"]
    q.update(dead_letter_queue="tombs")
    assert q.link.ok("EXISTS", sources) == 0
    q.do("delete", "n2")
    assert q.link.ok("KEYS", "valq:*") == []


def test_fields_of_an_earlier_death_are_not_kept_beside_those_of_the_next(q):
    q.create(dead_letter_queue="first")
    q.other("first").create(dead_letter_queue="second")
    q.push("x", headers={"h": "v"})
    q.nack(q.pop()["receipt"], kind="FATAL", reason="boom")
    first = q.other("first")
    first.nack(first.pop()["receipt"], kind="FATAL", reason="again")
    headers = q.other("second").pop()["headers"]
    assert dict(zip(headers[::2], headers[1::2], strict=True))[b"valq-queue"] == b"first"
    assert sorted(headers[::2]) == [b"h", b"valq-attempts", b"valq-id", b"valq-queue", b"valq-reason"]


def test_redrive_into_the_dead_letter_queue_loses_nothing_that_dies_meanwhile(q):
    graves = q.other("graves").create()
    q.create(vt=1000, attempts=1)
    kill(q, 1, "kept")
    q.update(dead_letter_queue="graves")
    q.push("dying")
    q.pop()
    q.pass_time(1000)
    assert q.do("redrive", "n2", "", "ALL", "graves", "", keys=[q.key, graves.key]) == 1
    graves.push("after")
    assert sorted(m["body"] for m in graves.pop(5)) == [b"after", b"dying", b"kept0"]
    assert graves.counts() == (0, 3, 0, 0)


def test_a_refused_update_keeps_what_had_fallen_due(q):
    q.create(vt=1000, attempts=1)
    q.fill(3)
    q.ids(3)
    q.pass_time(1000)
    assert str(q.update(dead_letter_queue="orders")).startswith("ERR ")
    assert q.info()["dead_total"] == 3
    assert q.counts() == (0, 0, 0, 3)


def test_redrive_in_a_transaction_moves_all_whose_leases_are_over(q):
    q.create(attempts=1)
    for at in range(600):
        q.push("x")
        q.pop(vt=1000 + at)
    q.pass_time(5000)
    assert q.do("redrive", "n2", "", "ALL", "", "") == 600


def test_redrive_in_steps_moves_all_whose_leases_are_over(q):
    q.create(attempts=1)
    q.fill(5000)
    for _ in range(5):
        q.ids(1000)
    q.pass_time(60_000)
    total, token = 0, b""
    while total == 0 or token:
        moved, token = q.do("redrive", "e2", token, "ALL", "", "")
        total += moved
        q.pass_time(1)
    assert total == 5000


def test_redrive_that_finds_its_target_paused_once_all_is_settled_says_so(q):
    other = q.other("other").create()
    other.do("pause", "n2", "IN", "")
    q.create(attempts=1)
    q.fill(5000)
    for _ in range(5):
        q.ids(1000)
    q.pass_time(60_000)
    call = ("ALL", "other", "")
    moved, token = q.do("redrive", "e2", "", *call, keys=[q.key, other.key])
    assert (moved, token) == (0, b"settling")
    for _ in range(10):
        reply = q.fcall("redrive", "e2", token, *call, keys=[q.key, other.key])
        if isinstance(reply, Exception):
            break
        assert reply == [0, token]
    assert str(reply).startswith("PAUSED")


def test_redrive_ends_though_what_it_moved_dies_at_once_and_the_clock_is_behind(q):
    q.create(attempts=1)
    q.fill(3)
    q.nack(*q.ids(), kind="FATAL")
    q.pass_time(-60_000)
    moved, token = q.do("redrive", "e2", "", "ALL", "", "")
    while token:
        q.pass_time(5)
        q.nack(*q.ids(), kind="FATAL")
        more, token = q.do("redrive", "e2", token, "ALL", "", "")
        moved += more
    assert moved == 3


@pytest.mark.parametrize("call", [("ALL", "", ""), ("ID", "", "", 1, 2, 3)])
def test_redrive_moves_what_died_before_the_clock_was_set_back(q, call):
    q.create(attempts=1)
    q.fill(3)
    q.nack(*q.ids(), kind="FATAL")
    q.pass_time(-3_600_000)
    assert q.steps("redrive", *call)[0] == 3
    assert q.ids() == [1, 2, 3]


@pytest.mark.parametrize(("reason", "told"), [("", b"attempts used up"), ("why not", b"why not")])
def test_a_silent_nack_that_kills_says_why(q, reason, told):
    q.create(attempts=3, dead_letter_queue="dead")
    q.push("x")
    for _ in range(2):
        q.nack(q.pop()["receipt"])
    receipt = q.pop()["receipt"]
    q.update(max_delivery_attempts=1)
    assert q.nack(receipt, kind="SILENT", reason=reason) == 1
    copy = q.other("dead").show(1)
    headers = dict(zip(copy["headers"][::2], copy["headers"][1::2], strict=True))
    assert headers[b"valq-reason"] == told


def test_redrive_revives_nothing_whose_retention_is_over_meanwhile(q):
    q.create(attempts=1, retention=60_000, max_length=1000)
    for at in range(1000):
        q.push("dead", priority=9)
        q.nack(q.pop()["receipt"])
        q.push("old", ttl=50_000 + at)
        q.pass_time(1)
    q.pass_time(70_000)
    q.steps("redrive", "ALL", "", "")
    left = sum(q.counts())
    assert [q.link.ok("HLEN", f"valq:{{orders}}:{name}") for name in ("body", "meta")] == [left, left]


def test_redrive_leaves_what_dies_after_it_began(q):
    q.create(attempts=1)
    q.fill(1500)
    for _ in range(2):
        q.nack(*q.ids(750), kind="FATAL")
    moved, token = q.do("redrive", "e2", "", "ALL", "", "")
    assert moved == 300
    q.pass_time(1)
    steps = []
    while token:
        q.nack(*q.ids(1), kind="FATAL")
        moved, token = q.do("redrive", "e2", token, "ALL", "", "")
        steps.append(moved)
    assert sum(steps) == 1200
    assert q.counts() == (1500 - len(steps), 0, 0, len(steps))


def test_redrive_into_its_own_full_queue_drops_nothing(q):
    q.create(max_length=5, overflow="DROPHEAD", attempts=1)
    q.fill(5)
    q.nack(*q.ids())
    q.fill(5)
    assert str(q.fcall("redrive", "n2", "", "ALL", "", "")).startswith("FULL")
    assert (q.info()["dlq_msgs"], q.info()["dropped_total"]) == (5, 0)
    q.ids(2, flags="N")
    assert q.do("redrive", "n2", "", "ALL", "", "") == 2
    assert q.counts() == (5, 0, 0, 3)


def test_dead_letters_are_not_kept_for_as_long_as_a_lease(q):
    q.create(vt=3600_000, retention=60_000)
    q.push("x")
    q.nack(q.pop()["receipt"], kind="FATAL")
    assert 0 < q.do("due", "me", 1000, 10, keys=["valq::daemons"])[2] <= 60_000
    q.pass_time(60_000)
    assert q.counts() == (0, 0, 0, 0)


@pytest.fixture
def limited(q, functions_server):
    """A user who has no rights on the queue where the dead are to go."""
    q.create(dead_letter_queue="graves")
    q.other("graves").create()
    q.link.ok("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", "~valq:{orders}:*")
    connection = Link(functions_server.port)
    connection.ok("AUTH", "limited", "x")
    yield connection
    connection.close()


def killed(q, user, count):
    q.fill(count)
    receipts = [flat(m)["receipt"] for m in user.ok("FCALL", "valq1_pop", 1, q.key, "n2", AUTO, count, "", "")]
    assert user.ok("FCALL", "valq1_nack", 1, q.key, "n2", "FATAL", "", "boom", *receipts) == count


def test_the_sweeper_moves_all_that_wait_for_it(q, limited):
    killed(q, limited, 250)
    q.sweep()
    assert q.counts() == (0, 0, 0, 0)


def test_a_dead_letter_that_waits_for_the_sweeper_can_be_redriven(q, limited):
    killed(q, limited, 1)
    assert limited.ok("FCALL", "valq1_redrive", 1, q.key, "n2", "", "ALL", "", "") == 1
    q.sweep()
    assert q.counts() == (1, 0, 0, 0)
    q.do("delete", "n2")
    assert q.stored() == []


def test_a_queue_whose_dead_wait_for_the_sweeper_leaves_no_key_behind(q, limited):
    killed(q, limited, 1)
    q.do("delete", "n2")
    assert q.stored() == []


def test_a_dead_letter_queue_is_made_when_something_dies_and_not_before(q):
    q.create(attempts=2, dead_letter_queue="graves")
    q.push("x")
    q.nack(q.pop()["receipt"])
    assert b"valq:{graves}:queue" not in q.other("graves").stored()
    q.nack(q.pop()["receipt"])
    assert b"valq:{graves}:queue" in q.other("graves").stored()


def test_the_dead_are_not_removed_a_ms_too_soon(q):
    q.create(attempts=1, retention=60_000)
    q.push("x")
    q.nack(q.pop()["receipt"])
    q.pass_time(59_999)
    q.do("sweep", "1", 100)
    assert q.counts() == (0, 0, 0, 1)
    q.pass_time(1)
    assert q.counts() == (0, 0, 0, 0)


def test_redrive_by_ids_leaves_what_died_after_it_began(q):
    _, *ids = q.push(*["x"] * 302)
    *receipts, last = [message["receipt"] for message in q.pop(302)]
    q.nack(*receipts, kind="FATAL")
    moved, token = q.do("redrive", "e2", "", "ID", "", "", *ids)
    q.pass_time(1)
    q.nack(last, kind="FATAL")
    assert (moved, q.do("redrive", "e2", token, "ID", "", "", *ids)) == (300, [0, b""])
    assert q.counts() == (300, 0, 0, 2)


def test_a_redrive_to_what_is_no_queue_miscounts_nothing(q):
    q.create(vt=1000, attempts=1, max_bytes=1000)
    q.push("x" * 100)
    q.pop()
    q.pass_time(2000)
    q.link.ok("SET", "valq:{bad}:queue", "x")
    keys = [q.key, "valq:{bad}:queue"]
    assert str(q.fcall("redrive", "n2", "", "ALL", "bad", "", keys=keys)).startswith("WRONGTYPE ")
    assert q.info()["dead_total"] == 1
    assert int(q.link.ok("HGET", q.key, "bytes")) == 0


def test_the_right_to_send_the_dead_elsewhere_ends_with_the_queue_that_had_it(q, functions_server):
    graves = q.other("graves").create()
    q.create(dead_letter_queue="graves")
    q.link.ok("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", "~valq:{orders}:*")
    user = Link(functions_server.port)
    user.ok("AUTH", "limited", "x")
    limited = Queue(user, "orders")
    limited.do("delete", "n2")
    q.pass_time(1)
    limited.create(attempts=1)
    assert limited.update(dead_letter_queue="graves") == b"OK"
    limited.push("x")
    user.ok("FCALL", "valq1_pop", 1, q.key, "n2", AUTO, 1, "", "")
    limited.nack("1-1", kind="FATAL")
    user.close()
    q.sweep()
    assert (graves.counts(), q.counts()) == ((0, 0, 0, 0), (0, 0, 0, 1))
    assert q.update(dead_letter_queue="graves") == b"OK"  # by who may
    assert q.do("due", "me", 1000, 9, keys=["valq::daemons"])[3:] == [b"orders"]
    q.sweep()
    assert (graves.counts(), q.counts()) == ((1, 0, 0, 0), (0, 0, 0, 0))


def packed(**fields):
    """msgpack of a map of small things, as functions keep a record's fields; ``Ellipsis``: not a number."""

    def one(value):
        if value is ...:
            return b"\xcb\x7f\xf8" + bytes(6)
        if isinstance(value, int):
            return b"\xcd" + value.to_bytes(2, "big")
        if isinstance(value, str):
            return b"\xd9" + bytes([len(value)]) + value.encode()
        if isinstance(value, list):
            return bytes([0x90 + len(value)]) + b"".join(map(one, value))
        raise TypeError(value)

    return bytes([0x80 + len(fields)]) + b"".join(one(name) + one(value) for name, value in fields.items())


SOUND = {"t": 1, "n": 1, "a": 1, "s": "q", "D": 1, "w": "nack"}


@pytest.mark.parametrize("way", ["sweep", "redrive"])
@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"p": ...}, "x"), ({"p": 32}, "x"), ({"h": [["a"], "x"]}, "x"), ({"h": ["odd"]}, "x"), ({"e": 7}, "x"),
        ({"D": ...}, "x"), ({"w": ["a"]}, "x"), ({}, None),
    ],
)  # fmt: skip
def test_what_a_user_makes_up_in_his_own_keys_gets_into_no_other_queue(q, way, fields, body):
    graves = q.other("graves").create()
    q.create(dead_letter_queue="graves")
    q.push("x")
    for number, (meta, its_body) in enumerate([(SOUND, "y" * 2_000_000), (SOUND | fields, body), (SOUND, "z")], 101):
        q.link.ok("HSET", "valq:{orders}:meta", number, packed(**meta))
        if its_body is not None:
            q.link.ok("HSET", "valq:{orders}:body", number, its_body)
        for index in ("dlq", "forward") if way == "sweep" else ("dlq",):
            q.link.ok("ZADD", f"valq:{{orders}}:{index}", number, number)
    if way == "sweep":
        q.sweep()
    else:
        assert q.do("redrive", "n2", "", "ALL", "graves", "", keys=[q.key, graves.key]) == 2
    graves.push("plain")
    bodies = [message["body"] for message in graves.pop(10)]
    assert [body[:1] for body in bodies] == [b"y", b"z", b"p"]
    assert graves.counts() == (0, 3, 0, 0)
    assert q.link.ok("EXISTS", "valq:{orders}:forward") == 0


def test_nobodys_rights_are_lent_to_who_names_a_dead_letter_queue_that_is_not_his(q, functions_server):
    graves = q.other("graves").create()
    q.link.ok("ACL", "SETUSER", "limited", "reset", "on", "nopass", "+@all", "~valq:{orders}:*")
    user = Link(functions_server.port)
    user.ok("AUTH", "limited", "x")
    Queue(user, "orders").create(attempts=1, vt=1000, dead_letter_queue="graves")
    user.close()
    q.push("x")
    q.pop()
    q.pass_time(1000)
    q.info()  # by who may do anything
    q.sweep()
    assert (graves.counts(), q.counts()) == ((0, 0, 0, 0), (0, 0, 0, 1))


def test_a_redrive_whose_first_ids_name_nothing_still_says_that_there_is_no_room(q):
    q.create(max_length=5, attempts=1)
    q.push("dead")
    q.nack(q.pop()["receipt"], kind="FATAL")
    for _ in range(5):
        q.push("x")
    ids = [*range(1001, 1301), 1]
    assert str(q.fcall("redrive", "n2", "", "ID", "", "", *ids)).startswith("FULL ")
    moved, token = q.do("redrive", "e2", "", "ID", "", "", *ids)
    assert moved == 0
    assert str(q.fcall("redrive", "e2", token, "ID", "", "", *ids)).startswith("FULL ")
    q.pop()
    q.ack("2")
    assert q.steps("redrive", "ID", "", "", *ids) == (1, 2)
