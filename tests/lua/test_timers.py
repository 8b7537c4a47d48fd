"""due: which queues need a sweep now, and that timers which were met leave nothing."""


def test_who_asks_for_few_of_many_that_are_due_is_to_ask_again_at_once(q):
    for number in range(5):
        q.other(f"q{number}").push("x", delay=100)
    q.pass_time(100)
    told = [q.do("due", "me", 1000, 3, keys=["valq::daemons"])[2:] for _ in range(3)]
    assert [(next_ms, len(names)) for next_ms, *names in told] == [(0, 3), (-1, 2), (-1, 0)]


def test_queues_of_one_second_are_all_named_when_one_of_them_was_named_before(q):
    for number in range(4):
        q.other(f"q{number}").push("x", delay=100 * (number + 1))
    for _ in range(4):
        q.pass_time(100)
        assert len(q.do("due", "me", 1000, 9, keys=["valq::daemons"])[3:]) == 1


def test_a_dedup_key_is_forgotten_though_something_else_fell_due_before(q):
    q.push("a", dedup="k", dedup_window=60_000)
    q.push("b", delay=1000)
    q.pass_time(1000)
    assert q.do("due", "me", 1000, 9, keys=["valq::daemons"])[3:] == [b"orders"]
    q.sweep()
    q.pass_time(59_000)
    assert q.do("due", "me", 1000, 9, keys=["valq::daemons"])[3:] == [b"orders"]
    q.sweep()
    assert b"valq:{orders}:dedup" not in q.stored()


def test_a_retention_that_was_shortened_is_met(q):
    q.push("x")
    q.nack(q.pop()["receipt"], kind="FATAL")
    q.pass_time(30_000)
    q.do("due", "me", 1000, 9, keys=["valq::daemons"])
    q.sweep()
    q.update(retention_period=60_000)
    q.pass_time(30_000)
    assert q.do("due", "me", 1000, 9, keys=["valq::daemons"])[3:] == [b"orders"]
    q.sweep()
    assert b"valq:{orders}:meta" not in q.stored()


def test_seconds_whose_timers_were_met_are_forgotten(q):
    def used():
        return int(q.link.ok("INFO", "memory").partition(b"used_memory_vm_functions:")[2].split()[0])

    def pass_seconds(count):
        for _ in range(count):
            q.pass_time(1000)
            q.push("x", delay=500)
            q.pass_time(500)
            q.do("due", "me", 1000, 9, keys=["valq::daemons"])
            q.do("purge", "n2", "", "all")

    pass_seconds(300)
    before = used()
    pass_seconds(3000)
    assert used() - before < 100_000


def test_a_clock_that_is_set_back_does_not_keep_memory_from_coming_back(q):
    q.create(vt=3_600_000)
    q.do("due", "me", 1000, 9, keys=["valq::daemons"])
    q.pass_time(-600_000)
    q.push("x")
    q.ack(q.pop()["receipt"])
    assert q.do("due", "me", 1000, 9, keys=["valq::daemons"])[3:] == [b"orders"]


def test_a_ttl_holds_though_the_clock_was_set_back_when_it_was_over(q):
    q.create(vt=60_000)
    q.push("x", ttl=1000)
    q.pop()
    q.pass_time(1500)
    q.sweep()
    q.pass_time(-1000)
    q.nack("1-1")
    assert q.counts() == (1, 0, 0, 0)
    q.pass_time(600)
    q.sweep()
    assert q.counts() == (0, 0, 0, 0)
    assert q.info()["expired_total"] == 1
