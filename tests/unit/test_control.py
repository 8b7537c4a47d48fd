"""The daemon's own connection knows in which database it is, and tells of a backend that is silent."""

import asyncio
from types import SimpleNamespace

import pytest
from hiredis import ReplyError

from valqd.io import control as control_module
from valqd.io.backend import Backend
from valqd.io.control import Control


class Answers:
    """A connection that notes what is sent, and answers with these."""

    def __init__(self, *replies):
        self.sent, self._replies = [], list(replies)

    def send(self, requests):
        self.sent += requests
        futures = [asyncio.get_running_loop().create_future() for _ in requests]
        for future in futures:
            future.set_result(self._replies.pop(0))
        return futures


async def test_after_a_refused_select_the_next_call_selects_again():
    control = Control(Backend("h", 1))
    busy = ReplyError("BUSY a script")
    control.up, control._connection = True, Answers(busy, b"OK", b"PONG", b"PONG")
    assert await control.calls([[b"PING"], [b"PING"]], 5) == [busy, busy]
    for _ in range(2):
        assert await control.calls([[b"PING"]], 5) == [b"PONG"]
    assert control._connection.sent == [[b"SELECT", b"5"], [b"SELECT", b"5"], [b"PING"], [b"PING"]]


async def test_the_log_tells_of_a_backend_that_does_not_answer_and_when_it_does(monkeypatch, caplog):
    monkeypatch.setattr(control_module, "_SILENT_S", 0.01)
    control = Control(Backend("h", 1))
    answers = Answers(b"PONG")
    control.up, control._connection = True, answers
    assert await control.call([b"PING"]) == b"PONG"
    await asyncio.sleep(0.02)
    assert not caplog.messages
    silent = asyncio.get_running_loop().create_future()
    answers.send = lambda requests: [silent]
    asyncio.get_running_loop().call_later(0.05, silent.set_result, b"PONG")
    assert await control.call([b"PING"]) == b"PONG"
    await asyncio.sleep(0.05)  # who has answered is not watched any more
    what = "backend valkey://h:1 does not answer"
    assert caplog.messages == [f"{what}: for 0.01 s", f"{what}: this is over"]


@pytest.mark.parametrize(
    ("answer", "is_given_up"),
    [(b"+PONG\r\n", True), (b"-NOAUTH Authentication required.\r\n", True), (b"-BUSY a\r\n", False)],
)
async def test_a_silent_connection_is_given_up_if_its_backend_answers_others(monkeypatch, answer, is_given_up):
    monkeypatch.setattr(control_module, "_SILENT_S", 0.01)
    monkeypatch.setattr(control_module, "_OVERTAKEN_S", 0.01)

    asked = []

    async def ping(backend):
        asked.append(backend)
        return answer

    monkeypatch.setattr(Backend, "ping", ping)
    silent = asyncio.get_running_loop().create_future()

    def abort():
        silent.set_exception(control_module.ControlLost())

    control = Control(Backend("h", 1))
    control.up = True
    control._connection = SimpleNamespace(send=lambda requests: [silent], transport=SimpleNamespace(abort=abort))
    asking = asyncio.ensure_future(control.call([b"PING"]))
    await asyncio.wait([asking], timeout=5 if is_given_up else 0.1)
    assert silent.done() == asking.done() == is_given_up
    assert len(asked) <= 10  # once in _SILENT_S
    if is_given_up:
        assert isinstance(asking.exception(), control_module.ControlLost)
    else:
        silent.set_result(b"PONG")
        assert await asking == b"PONG"


async def test_who_has_lost_its_connection_is_not_up_and_asks_a_backend_that_refuses_it_once_a_second(monkeypatch):
    monkeypatch.setattr(control_module, "_RETRY_S", 0.001)
    opened = []

    async def refuse():
        opened.append(control.up)
        raise control_module.StartError("no")

    control = Control(Backend("h", 1))
    control.up, control._connection, control._open = True, SimpleNamespace(ended=asyncio.Event()), refuse
    staying = asyncio.ensure_future(control._stay_connected())
    control._connection.ended.set()
    await asyncio.sleep(0.1)
    assert opened == [False]
    staying.cancel()


async def test_nothing_is_sent_before_its_database_is_selected_and_each_call_is_made_in_its_own():
    control = Control(Backend("h", 1))
    selected, sent = [0], []

    class Databases:
        """Refuses database 7; answers in the next turn."""

        def send(self, requests):
            futures = [asyncio.get_running_loop().create_future() for _ in requests]
            for request, future in zip(requests, futures, strict=True):
                reply = b"OK"
                if request == [b"SELECT", b"7"]:
                    reply = ReplyError("NOPERM no")
                elif request[0] == b"SELECT":
                    selected.append(int(request[1]))
                else:
                    sent.append((request[0], selected[-1]))
                asyncio.get_running_loop().call_soon(future.set_result, reply)
            return futures

    control.up, control._connection = True, Databases()
    calls = [(b"one", 1), (b"seven", 7), (b"two", 2), (b"seven again", 7), (b"one again", 1), (b"none", 0)]
    replies = await asyncio.gather(*(control.calls([[name]], db) for name, db in calls))
    assert sent == [(name, db) for name, db in calls if db != 7]
    assert [isinstance(reply, ReplyError) for (reply,) in replies] == [db == 7 for _, db in calls]


async def test_nothing_is_asked_over_a_connection_that_is_not_greeted_though_it_waited_for_another():
    selecting = asyncio.get_running_loop().create_future()
    control = Control(Backend("h", 1))
    control.up, control._connection = True, SimpleNamespace(send=lambda _: [selecting])
    asking = [asyncio.ensure_future(control.calls([[b"PING"]], db)) for db in (5, 0)]
    await asyncio.sleep(0.01)
    control.up, control._connection = False, Answers(b"OK", b"PONG")
    selecting.set_exception(control_module.ControlLost())
    answers = await asyncio.gather(*asking, control.calls([[b"PING"]]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [control_module.ControlLost] * 3
    assert control._connection.sent == []


async def test_after_a_call_that_was_cancelled_while_it_selected_the_next_selects_again():
    control = Control(Backend("h", 1))
    answers = Answers(b"OK", b"PONG")
    control.up, control._connection = True, SimpleNamespace(send=lambda _: [asyncio.get_running_loop().create_future()])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(control.calls([[b"PING"]], 5), 0.01)
    control._connection = answers
    assert await control.calls([[b"PING"]]) == [b"PONG"]
    assert answers.sent == [[b"SELECT", b"0"], [b"PING"]]


async def test_a_refused_select_is_no_trouble_to_calls_in_the_database_from_before():
    control = Control(Backend("h", 1))
    noperm = ReplyError("NOPERM no")
    control.up, control._connection = True, Answers(noperm, b"PONG")
    assert await control.calls([[b"PING"]], 5) == [noperm]
    assert await control.calls([[b"PING"]]) == [b"PONG"]
    assert control._connection.sent == [[b"SELECT", b"5"], [b"PING"]]
