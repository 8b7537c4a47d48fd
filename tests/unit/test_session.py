"""A session takes a client's frames in turns, so that one client's many do not hold up the others."""

from types import SimpleNamespace

from valqd.commands.values import Limits
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.host import Identity, WorkerState
from valqd.protocol.session import _MAX_FRAMES, Session


class Host:
    def __init__(self):
        self.written = []
        self.soon = []
        self.write = self.written.append
        self.call_soon = self.soon.append

    def lane(self, identity):
        return SimpleNamespace(coalescer=Coalescer(), up=True, relays=True, wake=lambda: None)

    def session_resumed(self):
        pass


def test_many_frames_that_come_at_once_are_taken_in_turns():
    host = Host()
    session = Session(host, WorkerState(b"", Limits(), Identity()), 1)
    session.receive(b"VALQ.NOPE\r\n" * (2 * _MAX_FRAMES + 1))
    for turn in (1, 2):
        assert len(host.written) == turn * _MAX_FRAMES
        assert session.held
        host.soon.pop()()
    assert len(host.written) == 2 * _MAX_FRAMES + 1
    assert not host.soon
    assert not session.held
