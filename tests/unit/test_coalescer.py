"""Calls are bounded, and what was kept back while the library was missing is dealt out once, in order."""

import pytest
from hiredis import HiredisError

from tests.servers import request
from valqd.protocol import coalescer as coalescer_module
from valqd.protocol.calls import MAX_CALL_BYTES, MAX_ITEMS, MAX_POP_REPLY_BYTES, error_line, without_place
from valqd.protocol.coalescer import REPLACED, Coalescer, Routes
from valqd.protocol.encoding import bulk
from valqd.protocol.lone_calls import Listener, LoneCall
from valqd.protocol.relay import RelayCall

MISSING = HiredisError("ERR Function not found")
GONE = b"-NOBACKEND gone\r\n"


@pytest.fixture
def coalescer():
    return Coalescer()


@pytest.fixture
def push():
    return Routes(b"").get("push_many", b"q", (b"",))


def sent_units(coalescer):
    coalescer.take()
    return [call.units for call in coalescer.sent]


def test_a_call_holds_less_than_the_bound_and_one_deal(coalescer, push):
    client = Listener()
    for pushes in (MAX_ITEMS - 1, MAX_ITEMS, 1):
        coalescer.join(client, push, bulk(b"m") * pushes, pushes, pushes, None)
    assert sent_units(coalescer) == [2 * MAX_ITEMS - 1, 1]


def test_a_call_holds_fewer_bytes_than_the_bound_and_one_deal(coalescer, push):
    client = Listener()
    half = bulk(b"m" * (MAX_CALL_BYTES // 2))
    for _ in range(4):
        coalescer.join(client, push, half, 1, 1, None)
    assert sent_units(coalescer) == [2, 2]


def recovering(coalescer, push, answers):
    """A push found no library; a request of another client after it was answered."""
    coalescer.join(Listener(answers.append), push, bulk(b"m"), 1, 1, None)
    coalescer.add(Listener(answers.append), LoneCall(request("GET", "a"), lambda reply: reply))
    coalescer.take()
    coalescer.deliver(MISSING)
    coalescer.deliver(b"+first\r\n")
    assert coalescer.must_resend
    assert answers == []


def ended(coalescer):
    return not (coalescer.recovering or coalescer.sent or coalescer.backlog_bytes)


def test_what_is_repeated_is_answered_in_its_turn(coalescer, push):
    answers = []
    recovering(coalescer, push, answers)
    assert b"valq1_push_many" in b"".join(coalescer.resend())
    assert answers == []
    coalescer.deliver(7)
    assert answers == [b"$1\r\n7\r\n", b"+first\r\n"]
    assert ended(coalescer)


def test_a_library_that_stays_away_is_given_up(coalescer, push):
    answers = []
    recovering(coalescer, push, answers)
    for _ in range(3):
        coalescer.resend()
        coalescer.deliver(MISSING)
    assert answers == [b"-%b\r\n" % REPLACED.encode(), b"+first\r\n"]
    assert ended(coalescer)


def test_a_library_that_cannot_be_loaded_fails_what_found_none(coalescer, push):
    answers = []
    recovering(coalescer, push, answers)
    coalescer.give_up(b"-ERR no library\r\n")
    assert answers == [b"-ERR no library\r\n", b"+first\r\n"]
    assert ended(coalescer)


@pytest.mark.parametrize("resent", [False, True])
def test_a_lost_connection_fails_what_is_not_answered_once(coalescer, push, resent):
    answers = []
    recovering(coalescer, push, answers)
    if resent:
        coalescer.resend()
    coalescer.fail_sent(GONE)
    assert answers == [GONE, b"+first\r\n"]
    assert ended(coalescer)


def test_what_was_not_answered_before_recovery_fails_after_what_was_kept(coalescer, push):
    answers = []
    coalescer.join(Listener(answers.append), push, bulk(b"m"), 1, 1, None)
    coalescer.add(Listener(answers.append), LoneCall(request("GET", "a"), error_line))
    coalescer.take()
    coalescer.deliver(MISSING)
    coalescer.join(Listener(answers.append), push, bulk(b"m"), 1, 1, None)
    coalescer.fail_sent(GONE)
    assert answers == [GONE, GONE]
    assert not coalescer.idle
    assert coalescer.backlog_bytes == len(bulk(b"m"))


def test_routes_of_long_arguments_are_not_kept():
    routes = Routes(b"")

    def route(reason):
        return routes.get("nack_many", b"q", (b"FAIL", b"", reason))

    assert route(b"timeout") is route(b"timeout")
    assert route(b"x" * 4096) is not route(b"x" * 4096)


def test_routes_are_bounded(monkeypatch):
    monkeypatch.setattr(coalescer_module, "MAX_ROUTES", 10)
    routes = Routes(b"")
    first = routes.get("push_many", b"q", (b"",))
    for number in range(9):
        routes.get("push_many", b"%d" % number, (b"",))
    assert routes.get("push_many", b"q", (b"",)) is first
    routes.get("push_many", b"one more", (b"",))
    assert routes.get("push_many", b"q", (b"",)) is not first


def test_pops_of_large_bodies_are_merged_less_and_of_small_ones_more_again(coalescer):
    route = Routes(b"").get("pop_many", b"q", (b"",))

    def popped(body_bytes):
        """As many clients pop as a call takes; how many that is."""
        for _ in range(MAX_ITEMS):
            coalescer.join(Listener(), route, b"", 1, 1, b"")
        coalescer.take()
        units = [call.units for call in coalescer.sent]
        while coalescer.sent:
            coalescer.deliver([b"x" * body_bytes] * coalescer.sent[0].units)
        return units[0]

    assert popped(100_000) == MAX_ITEMS
    assert popped(100_000) == MAX_POP_REPLY_BYTES // 100_000
    popped(10)
    assert popped(10) == MAX_ITEMS


@pytest.mark.parametrize("place", ["script: on @user_function:12.", "script: valq1_pop, on @user_function:12."])
def test_only_an_error_loses_the_place_in_a_function(place):
    assert error_line(HiredisError(f"ERR bad {place}")) == b"-ERR bad\r\n"
    assert (
        error_line(HiredisError(f"ERR bad {place} said a client")) == b"-ERR bad %b said a client\r\n" % place.encode()
    )
    body = bulk(b"bad " + place.encode())
    assert without_place(body) == body


def test_each_relayed_request_is_told_that_the_connection_is_lost(coalescer):
    answers = []
    coalescer.add(Listener(answers.append), RelayCall(request("GET", "a") * 2, 2))
    coalescer.take()
    coalescer.fail_sent(GONE)
    assert answers == [GONE * 2]


def test_what_was_not_sent_is_refused_and_counts_no_more(coalescer, push):
    answers = []
    coalescer.join(Listener(answers.append), push, bulk(b"m"), 1, 1, None)
    coalescer.fail_unsent(GONE)
    assert answers == [GONE]
    assert coalescer.idle
    assert ended(coalescer)


def test_a_call_is_repeated_though_its_client_has_the_answer_to_what_is_no_function(coalescer, push):
    answers = []
    client = Listener(answers.append)
    coalescer.join(client, push, bulk(b"m"), 1, 1, None)
    coalescer.add(client, LoneCall(request("PING"), lambda reply: reply))
    coalescer.take()
    coalescer.deliver(MISSING)
    coalescer.deliver(b"+PONG\r\n")
    coalescer.resend()
    coalescer.deliver(7)
    assert answers == [b"$1\r\n7\r\n", b"+PONG\r\n"]


def test_nothing_is_repeated_when_all_was_overtaken(coalescer, push):
    answers = []
    client = Listener(answers.append)
    for body in (b"m", b"n"):
        coalescer.join(client, push, bulk(body), 1, 1, None)
        coalescer.take()
    coalescer.deliver(MISSING)
    coalescer.deliver(7)  # another daemon has loaded the library
    assert coalescer.resend() == []
    assert answers[0].startswith(b"-NOBACKEND the queue functions were being replaced: the command was not applied")
    assert answers[1:] == [b"$1\r\n7\r\n"]
    assert ended(coalescer)


def test_pops_of_large_bodies_that_come_in_pieces_are_merged_less(coalescer):
    route = Routes(b"").get("pop_many", b"q", (b"",))
    for units in (MAX_ITEMS, MAX_POP_REPLY_BYTES // 100_000):
        for _ in range(MAX_ITEMS):
            coalescer.join(Listener(), route, b"", 1, 1, b"")
        coalescer.take()
        assert coalescer.sent[0].units == units
        while coalescer.sent:
            coalescer.deliver([[b"x", b"x" * 99_999]] * coalescer.sent[0].units)


@pytest.mark.parametrize("gone", [False, True])
def test_a_large_message_for_who_has_left_goes_back(coalescer, gone):
    given, back = [], []
    client = Listener(given.append)
    client.gone = gone
    client.answer_fragments = lambda fragments: given.append(b"".join(fragments))
    client.undelivered = lambda route, data: back.append(data) or True
    coalescer.join(client, Routes(b"").get("pop_many", b"q", (b"",)), b"", 1, 1, b"$-1\r\n")
    coalescer.take()
    coalescer.deliver([[b"large ", b"message"]])
    assert (given, back) == (([b"$-1\r\n"], [b"large message"]) if gone else ([b"large message"], []))


def test_pops_that_ask_for_more_than_there_is_do_not_raise_the_bound(coalescer):
    route = Routes(b"").get("pop_many", b"q", (b"",))
    coalescer.join(Listener(), route, b"", 1000, 1, b"*0\r\n")
    coalescer.take()
    coalescer.deliver([b"x" * (MAX_POP_REPLY_BYTES + 1)])
    assert route.max_items <= MAX_ITEMS
