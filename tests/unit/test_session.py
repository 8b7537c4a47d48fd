"""A session on a host without sockets: whose turn it is, what it keeps of its client, what it tells its host."""

from types import SimpleNamespace

import pytest

from tests.servers import request
from valqd.errors import BackendDown
from valqd.protocol.calm import LOOK_EVERY
from valqd.protocol.coalescer import Coalescer
from valqd.protocol.fastpath import MAX_BYTES_AT_ONCE
from valqd.protocol.framing import MAX_BULK_BYTES
from valqd.protocol.handshake import Hello
from valqd.protocol.host import Identity, WorkerState
from valqd.protocol.private_calls import ANY_QUEUE
from valqd.protocol.session import _MAX_FRAMES, _MAX_PENDING, Session


class Host:
    """Notes what a session asks of it."""

    def __init__(self):
        self.written, self.sent, self.soon, self.released, self.paused_ms, self.runs = [], [], [], [], [], []
        self.closed = self.closing = self.has_failed = False
        self.relay_is_ready = self.private_stands = True
        self.coalescer = Coalescer()
        self.write = self.write_now = self.written.append
        self.send_private = self.sent.append
        self.clients_paused = self.paused_ms.append
        self.call_soon = self.soon.append
        self.block = self.run_steps = self.runs.append

    def enter_lane(self, identity):
        lane = SimpleNamespace(coalescer=self.coalescer, up=True, relays=True, names={})
        lane.wake, lane.flush_planned = lambda: None, False
        is_ready = lambda: self.relay_is_ready  # noqa: E731
        relay = SimpleNamespace(coalescer=Coalescer(), up=True, is_ready=is_ready)
        relay.wake, relay.flush_planned = lambda: None, False
        lane.relay_lanes = {2: relay}
        return lane

    def is_closing(self):
        return self.closing

    def close(self, *, gently):
        self.closed = True

    def backend_run(self):
        return "run"

    def open_private(self, greeting):
        pass

    def close_private(self):
        return self.private_stands

    def release(self, queue, data):
        self.released.append((queue, data))
        return True

    def private_greeted(self):
        pass

    def kill_clients(self, is_meant):
        return 0

    def session_resumed(self):
        pass

    def failed(self, error):
        self.has_failed = True


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def session(host):
    return Session(host, WorkerState(b"", MAX_BULK_BYTES, Identity()), 1)


def converse(session, *pairs):
    """Commands over the private lane, with the reply to each."""
    for command, reply in pairs:
        session.receive(request(*command.split()))
        session.private.received(reply)


def test_many_frames_that_come_at_once_are_taken_in_turns(host, session):
    session.receive(b"VALQ.NOPE\r\n" * (2 * _MAX_FRAMES + 1))
    for turn in (1, 2):
        assert len(host.written) == turn * _MAX_FRAMES
        assert session.held
        host.soon.pop()()
    assert len(host.written) == 2 * _MAX_FRAMES + 1
    assert not host.soon
    assert not session.held


def test_a_mistake_in_what_waits_for_an_answer_is_not_that_of_others_who_are_answered(host, session, monkeypatch):
    session.receive(request("VALQ.POP", "q"))
    session.wait_for_shared()
    session.receive(b"what waits")
    other = Host()
    other.coalescer = host.coalescer
    Session(other, session.worker, 2).receive(request("VALQ.POP", "q"))
    monkeypatch.setattr(session, "_take_frames", lambda: 1 / 0)
    host.coalescer.take()
    host.coalescer.deliver([b"one", b"another"])
    assert (host.written, other.written) == ([b"one"], [b"another"])
    assert (host.has_failed, other.has_failed) == (True, False)


def test_a_mistake_in_what_ends_a_hold_is_told_to_the_host(host, session):
    session.hold()
    session.go_on(lambda: 1 / 0)
    assert host.has_failed


def test_a_mistake_in_what_a_client_that_reads_again_had_sent_is_told_to_the_host(host, session, monkeypatch):
    session.set_unread(True)
    session.receive(b"what waits")
    monkeypatch.setattr(session, "_take_frames", lambda: 1 / 0)
    session.set_unread(False)
    assert host.has_failed


def test_nothing_is_written_to_a_client_that_was_closed(host, session):
    session.receive(request("SUBSCRIBE", "c"))
    session.private.received(request("subscribe", "c", 1))
    written = list(host.written)
    session.close(gently=True)
    session.private.received(request("message", "c", "x"))
    assert host.written == written


@pytest.mark.parametrize("command", [("VALQ.POP", "q"), ("GET", "k")], ids=["shared lane", "relay lane"])
def test_who_does_not_read_gets_no_more_though_a_wait_ends(host, session, command):
    session.receive(request("VALQ.POP", "q"))
    host.coalescer.take()
    host.coalescer.deliver([])
    session.receive(request("VALQ.POP", "q", "BLOCK", 0))
    session.receive(request(*command) * 3)
    session.set_unread(True)
    session.finish(b"$-1\r\n")
    assert session.pending == 0
    session.set_unread(False)
    assert session.pending == 1  # the three, as one deal


@pytest.mark.parametrize(
    "talk",
    [
        [("WATCH k", b"+OK\r\n")],
        [("CLIENT TRACKING ON", b"+OK\r\n")],
        [("MULTI", b"+OK\r\n")],
        [("MULTI", b"+OK\r\n"), ("CLIENT TRACKING ON", b"+QUEUED\r\n"), ("EXEC", b"*1\r\n+OK\r\n")],
        [("CLIENT REPLY OFF", b"+OK\r\n"), ("WATCH k", b""), ("CLIENT REPLY ON", b"+OK\r\n")],
    ],
)
def test_a_client_whose_state_is_lost_with_the_backend_is_closed(host, session, talk):
    converse(session, *talk)
    session.private.lost(BackendDown(under_way=True), sent=True)
    assert host.closed


@pytest.mark.parametrize(
    ("talk", "closed"),
    [
        ([("MULTI", b"+OK\r\n"), ("EXEC", b"*0\r\n")], False),
        ([("MULTI", b"+OK\r\n"), ("DISCARD", b"+OK\r\n")], False),
        ([("UNWATCH", b"+OK\r\n")], False),
        ([("UNWATCH", b"-NOPERM no\r\n")], True),
        ([("UNWATCH", b"+OK\r\n"), ("WATCH k", b"+OK\r\n")], True),
        ([("EXEC", b"-ERR EXEC without MULTI\r\n")], True),
    ],
)
def test_a_client_that_watches_no_more_is_not_closed_with_the_backend(host, session, talk, closed):
    converse(session, ("WATCH k", b"+OK\r\n"), *talk)
    session.private.lost(BackendDown(under_way=True), sent=True)
    assert host.closed == closed


def test_a_hello_that_fails_behind_its_auth_leaves_nobody_as_another_user(host, session):
    host.prove = lambda identity, request, done: done(None)
    session.receive(request("HELLO", "2", "AUTH", "u", "pw") + request("SET", "k", "v"))
    assert b"HELLO" in b"".join(host.coalescer.take())
    host.coalescer.fail_sent(b"-NOBACKEND gone\r\n")
    assert b"".join(host.written) == b"-NOBACKEND gone\r\n"
    assert host.closed
    assert host.coalescer.idle


@pytest.mark.parametrize("words", ["LIST", "KILL ID 9", "UNBLOCK 9", "GETREDIR", "TRACKINGINFO"])
def test_a_client_that_only_asked_goes_on_without_the_backend(host, session, words):
    converse(session, (f"CLIENT {words}", b":0\r\n"))
    session.private.lost(BackendDown(under_way=True), sent=True)
    assert not host.closed


def test_an_exec_that_was_not_run_changes_nothing(host, session):
    converse(
        session, ("WATCH k", b"+OK\r\n"), ("MULTI", b"+OK\r\n"), ("SELECT 3", b"+QUEUED\r\n"), ("EXEC", b"*-1\r\n")
    )
    assert b"".join(host.written).endswith(b"+QUEUED\r\n*-1\r\n")
    assert session.identity.db == 0


def test_who_has_waited_in_valkey_is_owed_answers_again(host, session):
    session.receive(request("BLPOP", "none", "0"))
    assert session.private.may_block
    session.private.received(b"*-1\r\n")
    assert not session.private.may_block


@pytest.mark.parametrize("name", ["BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP"])
def test_who_waits_in_valkey_may_take_something(session, name):
    session.receive(request(name, "a", "b", "0"))
    assert session.private.may_block


@pytest.mark.parametrize(("words", "waits"), [("XREAD STREAMS s 0", False), ("XREAD BLOCK 0 STREAMS s 0", True)])
def test_only_an_xread_that_blocks_waits(session, words, waits):
    session.receive(request(*words.split()))
    assert session.private.may_block is waits


def test_an_xread_that_blocks_waits_though_the_last_one_did_not(host, session):
    converse(session, *[("XREAD STREAMS s 0", b"*-1\r\n")] * 2)
    session.receive(request("XREAD", "BLOCK", "0", "STREAMS", "s", "0"))
    assert session.private.may_block


def test_commands_that_are_not_recognised_are_taken_in_shares(host, session):
    session.receive(request("VALQ.EXTEND", "q", "1-1", "5") * (2 * _MAX_PENDING))
    while host.soon:
        host.soon.pop()()
    assert session.pending == _MAX_PENDING


def test_what_was_popped_for_who_cannot_be_written_to_is_given_back(host, session):
    session.receive(request("VALQ.POP", "q"))
    host.coalescer.take()
    host.closing = True
    host.coalescer.deliver([b"*0\r\n"])
    assert host.released == [(b"q", b"*0\r\n")]


def test_a_name_that_valkey_would_refuse_is_left_to_it():
    assert Hello.of([b"HELLO", b"3", b"SETNAME", b"a"]).is_plain
    for name in (b"a b", b"a\n", b"\x7f", b"\xe4"):
        assert not Hello.of([b"HELLO", b"3", b"SETNAME", name]).is_plain


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_name_that_is_given_in_hello_is_the_lanes_unless_its_client_is_gone_by_then(host, session, is_gone):
    names = []
    session.lane.take_name = lambda *named: names.append(named)
    session.receive(request("HELLO", "3", "SETNAME", "joe"))
    host.coalescer.take()
    if is_gone:
        session.end()
    host.coalescer.deliver([b"proto", 2])
    assert names == ([] if is_gone else [(session, b"joe")])


@pytest.mark.parametrize("lacks", [None, "relay_is_ready", "private_stands"])
def test_a_private_lane_is_left_for_one_that_stands_while_it_stands_itself(host, session, lacks):
    converse(session, ("LRANGE none 0 -1", b"*0\r\n"))
    if lacks is not None:
        setattr(host, lacks, False)
    for _ in range(3 * LOOK_EVERY):
        session.receive(request("GET", "k"))
        if session.private.replies is not None:
            session.private.received(b"$-1\r\n")
    assert (session.private.replies is None) == (lacks is None)


def test_nothing_of_a_client_that_was_reset_is_replayed(host, session):
    session.client_name = b"joe"
    session.receive(request("LRANGE", "none", "0", "-1"))
    session.private.received(b"+OK\r\n*0\r\n")
    converse(session, ("RESET", b"+RESET\r\n"))
    assert session.client_name == b""


def test_what_was_sent_beyond_a_transaction_that_was_lost_is_not_run(host, session):
    converse(session, ("MULTI", b"+OK\r\n"))
    session.set_unread(True)
    session.receive(request("SET", "b", "2") + request("EXEC"))
    sent = len(host.sent)
    session.private.lost(BackendDown(under_way=True), sent=True)
    session.set_unread(False)  # as a transport says while it closes
    assert host.closed
    assert len(host.sent) == sent
    assert host.coalescer.idle


def test_a_pop_that_is_known_waits_behind_a_full_share(session):
    push, pop = request("VALQ.PUSH", "q", "x" * 1000), request("VALQ.POP", "q", "COUNT", "2")
    for known in (push, pop):
        session.receive(known)
    session.receive(push * (MAX_BYTES_AT_ONCE // len(push) + 1) + pop)
    assert session.held
    assert session.framer.buffered_bytes == len(pop)


@pytest.mark.parametrize("words", ["VALQ.INFO q", "VALQ.POP q BLOCK 0", "VALQ.MPOP 2 q r BLOCK 0"])
def test_what_takes_several_calls_begins_when_all_before_it_is_answered(host, session, words):
    session.receive(request("VALQ.POP", "q") + request(*words.split()))
    assert not host.runs
    host.coalescer.take()
    host.coalescer.deliver([b"*-1\r\n"])
    assert len(host.runs) == 1


def test_a_reply_in_pieces_for_a_client_whose_connection_has_ended_is_dropped(host, session):
    session.receive(request("VALQ.PEEK", "q"))
    host.coalescer.take()
    session.end()
    host.coalescer.deliver([b"*1\r\n$1\r\n", b"x", b"\r\n"])
    assert host.written == []


@pytest.mark.parametrize(("command", "released"), [("VALQ.MPOP 1 q COUNT 5", [(b"", b"message")]), ("VALQ.PEEK q", [])])
def test_what_an_mpop_took_goes_back_when_its_client_has_left_and_nothing_else_does(host, session, command, released):
    session.receive(request(*command.split()))
    host.coalescer.take()
    host.closing = True
    host.coalescer.deliver(b"message")
    assert host.released == released


def test_what_was_kept_behind_a_large_frame_is_not_sent_on_another_lane(host, session):
    large = request("SET", "k", "x" * 100_000)
    session.receive(large[:50_000])
    session.private.send_own(b"kept")  # a call to be repeated
    assert b"kept" not in host.sent
    session.private.lost(BackendDown(under_way=True), sent=True)
    for part in (large[50_000:], large[:50_000], large[50_000:]):
        session.receive(part)
    assert b"kept" not in host.sent
    assert b"".join(host.sent).endswith(large)


def test_what_was_popped_in_a_database_that_is_not_known_is_not_given_back_in_another(host, session):
    converse(session, ("CLIENT REPLY OFF", b"+OK\r\n"), ("SELECT 3", b""), ("CLIENT REPLY ON", b"+OK\r\n"))
    session.receive(request("VALQ.POP", "q"))
    assert session.private.outstanding == 1  # the POP's
    host.closing = True
    session.private.received(b"*2\r\n$7\r\nreceipt\r\n$3\r\n1-1\r\n")
    assert session.private.outstanding == 0
    assert host.released == []


def test_a_pop_that_was_repeated_and_answered_is_on_its_way_no_more(host, session):
    loads = []
    host.load_library = loads.append
    session.receive(request("LRANGE", "none", "0", "-1") + request("VALQ.POP", "q"))
    session.private.received(b"*0\r\n-ERR Function not found\r\n")
    loads.pop()(None)
    assert session.private.message_may_come
    session.private.received(b"$-1\r\n")
    assert host.written[-1] == b"$-1\r\n"
    assert not session.private.message_may_come


def test_a_wait_whose_functions_are_gone_again_and_again_is_not_applied_and_changes_nothing_else(host, session):
    host.load_library = lambda done: done(None)
    session.last_queue = b"q"
    session.receive(request("WAIT", "0", "0"))
    for _ in range(4):
        assert not host.written
        session.private.received(b"-ERR Function not found\r\n")
    (answer,) = host.written
    assert answer.startswith(b"-NOBACKEND ")
    assert session.last_queue == b"q"  # the next WAIT covers it
    assert not session._needs_private


@pytest.mark.parametrize(("code", "relays"), [(b"BUSY", True), (b"READONLY", True), (b"NOPERM", False)])
def test_a_wait_that_was_refused_for_a_while_costs_nobody_the_relay_lane(session, code, relays):
    session.last_queue = ANY_QUEUE
    session.receive(request("WAIT", "0", "0"))
    session.private.received(b"-%b no\r\n" % code)
    assert session._needs_private == (not relays)


def test_blocking_commands_without_replies_are_not_waited_for(host, session):
    session.receive(request("CLIENT", "REPLY", "OFF") + request("BLPOP", "k", "0") * 1100)
    session.private.received(b"+OK\r\n")  # it may
    while host.soon:
        host.soon.pop()()
    assert b"".join(host.sent).count(b"BLPOP") == 1100


def test_a_multi_inside_multi_that_an_earlier_valkey_refuses_alone_is_no_element_of_execs_reply(session):
    converse(
        session,
        ("MULTI", b"+OK\r\n"),
        ("MULTI", b"-ERR MULTI calls can not be nested\r\n"),
        ("SELECT 1", b"+QUEUED\r\n"),
        ("EXEC", b"*1\r\n+OK\r\n"),
    )
    assert session.identity.db == 1


def test_a_wait_behind_a_lane_that_was_lost_covers_what_was_written_on_it(session):
    session.receive(request("LRANGE", "none", "0", "-1"))
    session.private.received(b"*0\r\n")
    session.private.lost(BackendDown(), sent=True)
    assert session.last_queue == ANY_QUEUE


def test_who_quits_is_closed_even_if_the_lane_is_lost_before_valkey_does(host, session):
    converse(session, ("OBJECT ENCODING k", b"$-1\r\n"), ("QUIT", b"+OK\r\n"))
    assert host.closed
    assert host.written[-1] == b"+OK\r\n"


@pytest.mark.parametrize("command", ["VALQ.SCAN q 0 MATCH *x", "VALQ.PEEK q COUNT 1000", "VALQ.POP q COUNT 2000"])
def test_of_what_takes_long_one_is_under_way_at_a_time(host, session, command):
    session.receive(request(*command.split()) * 3)
    assert session.pending == 1
    for _ in range(3):
        session.lane.coalescer.take()
        session.lane.coalescer.deliver(b"*0\r\n" if "POP" not in command else [])
    assert session.pending == 0
    assert len(host.written) == 3


def test_what_a_lane_that_was_lost_owed_is_not_waited_for(session):
    session.receive(request("BLPOP", "k", "0") + request("VALQ.POP", "q"))
    private = session.private
    assert private.calls.are_due
    private.lost(BackendDown(under_way=True), sent=True)
    assert [private.calls.are_due, private.may_block, private.pops_due] == [False, False, 0]


def test_a_wait_whose_functions_could_not_be_loaded_leaves_it_to_the_next(host, session):
    loads = []
    host.load_library = loads.append
    session.receive(request("VALQ.PUSH", "q", "x"))
    host.coalescer.take()
    host.coalescer.deliver(1)
    session.receive(request("WAIT", "0", "0"))
    session.private.received(b"-ERR Function not found\r\n")
    loads.pop()(b"-OOM no\r\n")
    assert host.written[-1] == b"-OOM no\r\n"
    assert session.last_queue == b"q"


def test_so_many_commands_that_may_wait_are_under_way_at_most(host, session):
    session.receive(request("BLPOP", "k", "0") * 2000)
    while host.soon:
        host.soon.pop()()
    assert b"".join(host.sent).count(b"BLPOP") < 1100
    assert session.held


@pytest.mark.parametrize(("size", "stays"), [(60_000, True), (70_000, False)])
def test_who_got_a_large_value_asks_for_the_next_by_a_lane_of_its_own(session, size, stays):
    relay = session.lane.relay_lanes[2].coalescer
    session.receive(request("GET", "k"))
    relay.take()
    relay.deliver(b"$%d\r\n%b\r\n" % (size, b"v" * size))
    session.receive(request("GET", "k"))
    assert (session.private.replies is None) == stays


@pytest.mark.parametrize(("there", "here", "told"), [(3, 2, 3), (1, 2, 2)])
def test_who_is_killed_here_is_not_counted_on_top_of_the_connections_that_valkey_killed(
    host, session, there, here, told
):
    host.kill_clients = lambda is_meant: here
    converse(session, ("CLIENT KILL TYPE normal", b":%d\r\n" % there))
    assert host.written == [b":%d\r\n" % told]
