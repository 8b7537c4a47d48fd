"""Commands in several calls tell what was done before."""

from types import SimpleNamespace

import pytest

from valqd.commands.grammar import parse
from valqd.errors import BackendDown
from valqd.io.steps import run_steps
from valqd.protocol.framing import MAX_BULK_BYTES


class Lane:
    """Answers one call, and is down then."""

    def __init__(self, reply):
        self.up, self.why_down, self.coalescer, self._reply = True, BackendDown(), self, reply

    def add(self, who, call):
        self.up = False
        call.deliver(self._reply)

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
