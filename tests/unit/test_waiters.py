"""What ends a wait, and what is said of who waits."""

import asyncio
from types import SimpleNamespace

import pytest
from hiredis import HiredisError

from valqd.commands.grammar import parse
from valqd.errors import ControlLost
from valqd.io.waiters import Waiters
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.framing import MAX_BULK_BYTES
from valqd.protocol.host import Identity, WorkerState


def control():
    """A control connection that is down."""

    async def calls(*_):
        raise ControlLost

    return SimpleNamespace(connected=[], up=False, clustered=False, calls=calls)


@pytest.fixture
async def waiting():
    """One client that waits for ten messages, at a lane that is down; and the answers it gets."""
    state = WorkerState(b"", MAX_BULK_BYTES, Identity())
    waiters = Waiters(control(), state, b"d", lambda *_: None)
    lane = SimpleNamespace(identity=Identity(), up=False, coalescer=Coalescer(), wake=lambda: None)
    answers = []
    session = SimpleNamespace(lane=lane, resp=2, gone=False, finish=answers.append)
    client = SimpleNamespace(session=session, has_hung_up=False, drop_if_left=lambda: False)
    client.waiter = waiters.block(
        client, parse([b"VALQ.POP", b"q", b"COUNT", b"10", b"BLOCK", b"0"], 2, MAX_BULK_BYTES)
    )
    yield waiters, client.waiter, answers
    waiters.registration.close()


async def test_how_many_messages_a_waiter_takes_is_registered(waiting):
    waiters, waiter, _ = waiting
    assert waiters._line((0, b"q")) == (1, [(waiter.since, 10)])


@pytest.mark.parametrize(
    "code", ["NOBACKEND", "LOADING", "BUSY", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF"]
)
async def test_an_error_that_passes_ends_no_wait(waiting, code):
    _, waiter, answers = waiting
    waiter.answer(f"-{code} for now\r\n".encode())
    assert (answers, waiter.parked) == ([], True)


async def test_a_refusal_ends_the_wait(waiting):
    _, waiter, answers = waiting
    waiter.answer(b"-NOPERM no\r\n")
    assert (answers, waiter.parked) == ([b"-NOPERM no\r\n"], False)


NOTHING = b"$-1\r\n"


class Client:
    """Whoever waits for one message, at a lane that is up."""

    looks = 0  # at whether any of them has hung up

    def __init__(self, lane, name, answers):
        self.name = name
        self.session = SimpleNamespace(
            lane=lane, resp=2, gone=False, finish=lambda data: answers.append((self.name, data))
        )

    @property
    def has_hung_up(self):
        Client.looks += 1
        return False

    def drop_if_left(self):
        return False


class Line:
    """Clients that come one after another; each one's first POP is a call of its own."""

    def __init__(self):
        state = WorkerState(b"", MAX_BULK_BYTES, Identity())
        self.waiters = Waiters(control(), state, b"d", lambda *_: None)
        self.lane = SimpleNamespace(identity=Identity(), up=True, coalescer=Coalescer(), wake=lambda: None)
        self.answers = []

    def comes(self, name, *command, resp=2):
        client = Client(self.lane, name, self.answers)
        client.session.resp = resp
        words = command or ("VALQ.POP", "q", "BLOCK", "0")
        client.waiter = self.waiters.block(client, parse([word.encode() for word in words], resp, MAX_BULK_BYTES))
        self.lane.coalescer.take()
        return client

    def backend_answers(self, *runs):
        self.lane.coalescer.deliver(list(runs))

    @property
    def names(self):
        return [waiter._client.name for waiter in self.waiters._parked[0, b"q"]]


@pytest.fixture
async def line():
    line = Line()
    yield line
    line.waiters.registration.close()


async def test_who_comes_while_one_before_it_is_being_asked_for_stands_behind_that(line):
    line.comes("first")
    line.comes("second")
    line.backend_answers()
    line.comes("third")
    line.backend_answers()
    line.backend_answers()
    assert line.names == ["first", "second", "third"]
    line.comes("fourth")  # nobody is being asked for any more: it need not ask
    assert line.names == ["first", "second", "third", "fourth"]
    assert not line.lane.coalescer.sent


async def test_a_message_for_who_came_last_goes_to_the_first_in_line_and_few_are_looked_at(line):
    names = [str(number) for number in range(3000)]
    for name in [*names, "last"]:
        line.comes(name)
    for _ in names:
        line.backend_answers()
    Client.looks = 0
    line.backend_answers(b"message")
    assert line.answers == [("0", b"message")]
    assert line.names == [*names[1:], "last"]
    assert Client.looks < 10


async def test_how_long_they_would_wait_does_not_change_whose_a_message_is(line):
    line.comes("first", "VALQ.POP", "q", "BLOCK", "0")
    line.comes("last", "VALQ.POP", "q", "BLOCK", "20")
    line.backend_answers()
    line.backend_answers(b"message")
    assert (line.answers, line.names) == ([("first", b"message")], ["last"])
    await asyncio.sleep(0.05)
    assert line.answers[1:] == [("last", NOTHING)]


async def test_what_is_under_way_for_a_place_in_line_is_for_who_moves_up_to_it(line):
    for name in ("first", "second", "third", "last"):
        line.comes(name)
    for _ in range(3):
        line.backend_answers()
    line.waiters.wake((0, b"q"))  # asks for those three
    line.lane.coalescer.take()
    line.backend_answers(b"a")
    assert line.answers == [("first", b"a")]
    assert line.names == ["second", "third", "last"]
    line.backend_answers(b"b", b"c", NOTHING)
    assert line.answers[1:] == [("second", b"b"), ("third", b"c")]
    assert line.names == ["last"]


async def test_who_has_waited_and_asks_again_keeps_nobody_from_waiting(line):
    line.comes("first")
    line.backend_answers()
    line.waiters.wake((0, b"q"))
    line.lane.coalescer.take()
    line.backend_answers()
    line.comes("second")
    assert line.names == ["first", "second"]
    assert not line.lane.coalescer.sent


async def test_a_refusal_is_for_who_asked(line):
    line.comes("first")
    line.comes("second")
    line.backend_answers()
    line.backend_answers(b"-NOPERM no\r\n")
    assert (line.answers, line.names) == ([("second", b"-NOPERM no\r\n")], ["first"])


async def test_a_message_goes_to_nobody_in_line_who_has_left(line):
    first = line.comes("first")
    line.comes("second")
    line.backend_answers()
    first.session.gone = True
    line.backend_answers(b"message")
    assert line.answers == [("second", b"message")]


@pytest.mark.parametrize(
    ("command", "resp"),
    [("VALQ.POP q COUNT 5 BLOCK 0", 2), ("VALQ.POP q BLOCK 0", 3), ("VALQ.POP q NOACK BLOCK 0", 2)],
)
async def test_a_message_goes_to_nobody_who_wants_another_reply(line, command, resp):
    line.comes("first")
    line.comes("second", *command.split(), resp=resp)
    line.backend_answers()
    line.backend_answers(b"message")
    assert (line.answers, line.names) == ([("second", b"message")], ["first"])


async def test_who_takes_the_place_of_one_whose_time_is_over_goes_on_waiting(line):
    first = line.comes("first")
    line.comes("last")
    line.backend_answers()
    line.waiters.wake((0, b"q"))
    line.lane.coalescer.take()
    first.waiter.stop()
    line.backend_answers(b"a")
    line.backend_answers()
    assert (line.answers, line.names) == ([("first", b"a")], ["last"])


async def test_only_who_waits_for_the_same_queues_asks_for_those_behind_it(line):
    line.comes("first", "VALQ.MPOP", "2", "q", "r", "BLOCK", "0")
    line.backend_answers(NOTHING)
    assert not line.comes("other").waiter.has_asked
    assert line.comes("same", "VALQ.MPOP", "2", "q", "r", "BLOCK", "0").waiter.has_asked


async def test_a_message_of_an_mpop_goes_to_nobody_of_another_protocol_version(line):
    words = ("VALQ.MPOP", "1", "q", "COUNT", "5", "BLOCK", "0")
    line.comes("first", *words, resp=2)
    line.comes("second", *words, resp=3)
    line.backend_answers(b"*0\r\n")
    line.backend_answers(b"message")
    assert line.answers == [("second", b"message")]


async def test_a_message_of_an_mpop_goes_back_when_its_client_has_left(line):
    released = []
    line.waiters.release = lambda lane, queue, data: released.append(data) or True
    line.comes("first", "VALQ.MPOP", "2", "q", "r", "BLOCK", "0").session.gone = True
    line.backend_answers(b"message")
    assert (released, line.answers) == ([b"message"], [])


async def test_who_goes_to_the_end_of_the_line_has_waited_as_long_as_it_has(line):
    first, last = line.comes("first"), line.comes("last")
    since = last.waiter.since
    assert first.waiter.since < since
    line.backend_answers()
    line.backend_answers(b"message")
    assert line.waiters._line((0, b"q")) == (1, [(since, 1)])


async def test_what_valkey_was_not_told_is_not_taken_back(waiting):
    """The control connection may be down for long."""
    waiters, waiter, _ = waiting
    await asyncio.sleep(0.01)
    waiter.client_gone()
    assert not waiters.registration._to_disarm


@pytest.mark.parametrize(("reply", "still"), [(b"OK", set()), (HiredisError("BUSY"), {(0, b"q")})])
async def test_what_valkey_does_not_take_back_now_it_is_asked_to_later(waiting, reply, still):
    waiters, waiter, _ = waiting
    registration = waiters.registration
    await asyncio.sleep(0.01)
    registration._known.add((0, b"q"))
    registration._control.calls = lambda *_: asyncio.sleep(0, [reply])
    waiter.client_gone()
    await asyncio.sleep(0.01)
    assert registration._to_disarm == registration._known == still


async def test_who_was_asked_for_one_queue_when_another_was_woken_is_asked_again(line):
    line.comes("first", "VALQ.MPOP", "2", "q", "r", "BLOCK", "0")
    line.backend_answers(NOTHING)
    for queue in (b"r", b"q"):  # q's message came when the call that r's wake had sent was run already
        line.waiters.wake((0, queue))
    line.lane.coalescer.take()
    line.backend_answers(NOTHING)
    line.lane.coalescer.take()
    line.backend_answers(b"message")
    assert line.answers == [("first", b"message")]


async def test_nothing_is_asked_for_who_has_left_unread(line):
    line.comes("first").drop_if_left = lambda: True
    line.backend_answers()
    line.waiters.wake((0, b"q"))
    assert line.lane.coalescer.idle


async def test_who_came_first_and_is_asked_for_another_queue_is_not_overtaken(line):
    line.comes("first", "VALQ.MPOP", "2", "q", "r", "BLOCK", "0")
    line.backend_answers(NOTHING)
    line.comes("last", "VALQ.POP", "q", "BLOCK", "0")
    line.waiters.wake((0, b"r"))
    line.lane.coalescer.take()
    line.waiters.wake((0, b"q"))
    line.lane.coalescer.take()
    line.backend_answers(NOTHING)  # for what r was woken for
    line.lane.coalescer.take()
    line.backend_answers(b"message")
    assert line.answers == [("first", b"message")]


async def test_who_stands_behind_one_that_has_not_asked_is_asked_when_its_time_is_over(line):
    line.comes("first")
    line.backend_answers()
    other = SimpleNamespace(identity=Identity(b"u"), up=True, coalescer=Coalescer(), wake=lambda: None)
    own, line.lane = line.lane, other
    for name in ("stranger", "its like"):
        line.comes(name)
    line.lane = own
    waiters = list(line.waiters._parked[0, b"q"])
    waiters[0].client_gone()
    line.lane = other
    last = line.comes("last", "VALQ.POP", "q", "BLOCK", "5000")
    assert not last.waiter.has_asked


async def test_who_comes_while_the_daemon_stops_gets_nothing_and_does_not_wait(line):
    line.waiters.stop_all()
    line.comes("late")
    line.backend_answers()
    await asyncio.sleep(0)
    assert line.answers == [("late", NOTHING)]


async def test_a_wake_for_a_queue_that_nobody_waits_for_is_passed_on(waiting):
    registration = waiting[0].registration
    registration._known.add((0, b"left"))
    registration._invalidated([b"valq:{left}:wake:d/0"])
    assert registration._to_disarm == {(0, b"left")}


async def test_a_refusal_is_forgotten_when_nobody_waits_any_more_and_tried_again_with_all_others(waiting):
    waiters, waiter, _ = waiting
    registration = waiters.registration
    registration._denied.add((0, b"q"))
    registration.arm_all()
    assert not registration._denied
    registration._refused.add((0, b"q"))
    registration._denied.add((0, b"q"))
    waiter.client_gone()
    assert not (registration._refused | registration._denied)


@pytest.mark.parametrize(("refusal", "ends"), [("LOADING for now", False), ("NOPERM no", True)])
async def test_who_is_asked_whether_it_may_wait_goes_on_though_the_backend_is_not_well(line, refusal, ends):
    line.comes("first")
    line.backend_answers()
    line.lane = SimpleNamespace(identity=Identity(b"u"), up=True, coalescer=Coalescer(), wake=lambda: None)
    line.comes("stranger")
    line.lane.coalescer.deliver(HiredisError(refusal))
    assert line.answers == [("stranger", f"-{refusal}\r\n".encode())] * ends


async def test_who_is_woken_anew_while_nothing_came_asks_for_no_more_clients_than_before(line):
    for number in range(40):
        line.comes(str(number))
    for _ in range(40):
        line.backend_answers()

    def asked():
        line.lane.coalescer.take()
        return [len(call.deals) for call in line.lane.coalescer.sent]

    line.waiters.wake((0, b"q"))
    for answers, then in (([NOTHING] * 4, [4]), ([b"m", *[NOTHING] * 3], [4]), ([b"m"] * 4, [16])):
        assert asked() == [4]
        line.waiters.wake((0, b"q"))
        line.backend_answers(*answers)
        assert asked() == then
