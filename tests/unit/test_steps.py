"""Commands in several calls tell what was done before."""

from types import SimpleNamespace

import pytest
from hiredis import ReplyError

from valqd.commands.grammar import parse
from valqd.errors import BackendDown
from valqd.io.steps import run_steps
from valqd.protocol.framing import MAX_BULK_BYTES


class Lane:
    """Answers so many calls, and is down then."""

    def __init__(self, *replies):
        self.up, self.why_down, self.coalescer, self._replies = True, BackendDown(), self, list(replies)

    def add(self, who, call):
        call.deliver(self._replies.pop(0))
        self.up = bool(self._replies)

    def wake(self):
        pass


@pytest.mark.parametrize(
    ("words", "first"), [("INFO q", None), ("UPDATE q MAXBYTES 5", None), ("PURGE q", [1, b"token"])]
)
async def test_who_finds_its_lane_down_at_its_second_step_is_told_that_it_may_have_been_applied(words, first):
    answers = []
    worker = SimpleNamespace(auto_create=b"")
    session = SimpleNamespace(lane=Lane(first), resp=2, worker=worker, finish=answers.append)
    await run_steps(session, parse([b"VALQ", *words.encode().split()], 2, MAX_BULK_BYTES))
    assert answers[0].startswith(b"-NOBACKEND")
    assert b"may have been applied" in answers[0]


async def test_who_finds_its_lane_down_at_its_first_step_is_told_that_nothing_was_sent():
    answers = []
    lane = Lane()
    lane.up = False
    session = SimpleNamespace(lane=lane, resp=2, worker=SimpleNamespace(auto_create=b""), finish=answers.append)
    await run_steps(session, parse([b"VALQ", b"PURGE", b"q"], 2, MAX_BULK_BYTES))
    assert b"was not sent" in answers[0]


@pytest.mark.parametrize("command", ["ACK", "NACK", "DEL"])
@pytest.mark.parametrize(
    ("refusal", "answer"), [("READONLY you can't", b"-READONLY you can't\r\n"), ("NOQUEUE no such", b":1000\r\n")]
)
async def test_a_refusal_of_a_later_step_is_told_but_where_nothing_is_left(command, refusal, answer):
    answers = []
    worker = SimpleNamespace(auto_create=b"")
    session = SimpleNamespace(lane=Lane(1000, ReplyError(refusal)), resp=2, worker=worker, finish=answers.append)
    ids = [b"%d-1" % number if command != "DEL" else b"%d" % number for number in range(1, 1501)]
    await run_steps(session, parse([b"VALQ", command.encode(), b"q", *ids], 2, MAX_BULK_BYTES))
    assert answers == [answer]


async def test_ids_that_are_done_are_not_sent_again():
    asked = []

    class Notes(Lane):
        def add(self, who, call):
            asked.append(call.request.count(b"\r\n$"))
            super().add(who, call)

    answers = []
    ids = [b"%d" % number for number in range(1, 2001)]
    steps = [[1, b"99:500:1"] for _ in range(1499)] + [[1, b"99:500:500"], [1, b""]]
    worker = SimpleNamespace(auto_create=b"")
    session = SimpleNamespace(lane=Notes(*steps, None), resp=2, worker=worker, finish=answers.append)
    await run_steps(session, parse([b"VALQ.REDRIVE", b"q", b"ID", b"2000", *ids, b"TO", b"r"], 2, MAX_BULK_BYTES))
    assert answers == [b":1501\r\n"]
    assert max(asked) < 1020
    assert asked[-1] < 20


async def test_a_reply_of_another_shape_ends_the_hold_with_an_error_and_is_told_in_the_log(caplog):
    answers = []
    worker = SimpleNamespace(auto_create=b"")
    session = SimpleNamespace(lane=Lane(b"no pair"), resp=2, worker=worker, finish=answers.append)
    await run_steps(session, parse([b"VALQ", b"PURGE", b"q"], 2, MAX_BULK_BYTES))
    assert answers[0].startswith(b"-ERR internal error")
    assert b"may have been applied" in answers[0]
    assert caplog.records[0].exc_info
