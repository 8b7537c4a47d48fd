"""The framer cuts where Valkey cuts, whatever the chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valqd.commands.table import is_ours
from valqd.protocol import framing
from valqd.protocol.framing import STREAM_THRESHOLD_BYTES, Frame, Kind, RequestFramer
from valqd.protocol.inline import split_inline

MAX_BODY = 1 << 20


def frames_of(chunks, max_body=MAX_BODY):
    framer = RequestFramer(is_ours, max_body)
    found = []
    for chunk in filter(None, chunks):
        framer.feed(chunk)
        while (frame := framer.next()) is not None:
            found.append(frame)
    return found, framer


def multibulk(*args):
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


CASES = [
    (b"PING\r\n", [[b"PING"]]),
    (b"PING\n", [[b"PING"]]),
    (b"\r\n\r\nPING\r\n", [[b"PING"]]),
    (b"*0\r\n*-1\r\n*-9223372036854775808\r\nPING\r\n", [[b"PING"]]),
    (b"SET k \"a\\x41\\n\" 'b c'\r\n", [[b"SET", b"k", b"aA\n", b"b c"]]),
    (multibulk(b"VALQ.PUSH", b"q", b"\r\n\0$3\r\n"), [[b"VALQ.PUSH", b"q", b"\r\n\0$3\r\n"]]),
    (multibulk(b"VALQ.PUSH", b"q", b""), [[b"VALQ.PUSH", b"q", b""]]),
    (multibulk(b"GET", b"k") + multibulk(b"VALQ.POP", b"q"), [[b"GET", b"k"], [b"VALQ.POP", b"q"]]),
]


@pytest.mark.parametrize(("stream", "argvs"), CASES)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
def test_any_chunking_gives_the_same_frames(stream, argvs, step):
    found, framer = frames_of([stream[at : at + step] for at in range(0, len(stream), step)])
    assert [frame.argv for frame in found] == argvs
    assert all(frame.kind is Kind.COMMAND for frame in found)
    assert framer.empty


@pytest.mark.parametrize(
    "stream",
    [
        b"*x\r\n",
        b"*2147483648\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$x\r\n",
        b"*01\r\n$4\r\nPING\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b'SET "unbalanced\r\n',
        b"*1\r\n$4\r\nPINGxxPING\r\n",
        b"*1\r\n$536870913\r\n",
        b"*-0\r\n",
        b"PING \0\r\n",
        b"x" * (64 * 1024 + 2),
        b"x" * (64 * 1024 + 1) + b"\r\n",
        b"*" + b"1" * (64 * 1024 + 2),
        b"*" + b"9" * 5000 + b"\r\n",
    ],
    ids=lambda stream: repr(stream[:30]),
)
def test_a_protocol_error_hands_over_all_bytes_from_there_on(stream):
    after = b"*1\r\n$4\r\nPING\r\n"
    found, framer = frames_of([multibulk(b"GET", b"k"), stream, after])
    assert found[0].argv == [b"GET", b"k"]
    assert {frame.kind for frame in found[1:]} == {Kind.BROKEN}
    assert b"".join(frame.raw for frame in found[1:]) == stream + after
    assert not framer.empty


ODD = [
    b"*0\r\n", b"*-1\r\n", b":5\r\n", b"*1\r\n:5\r\n", b"*1\r\n*1\r\n$1\r\na\r\n", b"$1\r\na\r\n", b"*1\r\n$-1\r\n",
    b"*1\r\n_\r\n", b"#t\r\n", b"*1\r\n#t\r\n", b"%1\r\n$1\r\na\r\n$1\r\nb\r\n", b"+PING\r\n", b"-ERR no\r\n",
    b"*1\r\n+PING\r\n", b"*1\r\n,1.5\r\n", b"*1\r\n$04\r\nPING\r\n", b"*2\r\n$4\r\nPING\r\n", b"PING\r\n", b"\r\n",
    b"*1\r\n$0\r\n\r\n", b"*1\r\n$4\r\nPING\r",
]  # fmt: skip
requests = st.lists(st.binary(max_size=5) | st.sampled_from([b"VALQ.POP", b"\r\n"]), min_size=1, max_size=3)


@given(st.lists(requests.map(lambda argv: multibulk(*argv)) | st.sampled_from(ODD), min_size=1, max_size=5))
def test_what_is_cut_at_once_is_what_is_cut_byte_by_byte(parts):
    stream = b"".join(parts)

    def told(chunks):
        found, framer = frames_of(chunks)
        broken = b"".join(frame.raw for frame in found if frame.kind is Kind.BROKEN)
        return [frame for frame in found if frame.kind is not Kind.BROKEN], broken, framer.empty

    assert told([stream]) == told([stream[at : at + 1] for at in range(len(stream))])


def test_what_waits_can_be_seen_and_taken_unless_it_was_cut():
    framer = RequestFramer(is_ours, MAX_BODY)
    first, rest = multibulk(b"VALQ.POP", b"q"), multibulk(b"GET", b"k") + multibulk(b"VALQ.SHOW", b"q", b"1")
    framer.feed(first + rest)
    assert framer.next() == Frame(Kind.COMMAND, b"", [b"VALQ.POP", b"q"])
    framer.feed(b"PI")
    assert framer.buffered_bytes == len(rest) + 2
    assert framer.peek() == b""
    assert [framer.next().argv for _ in range(2)] == [[b"GET", b"k"], [b"VALQ.SHOW", b"q", b"1"]]
    assert framer.peek() == b"PI"
    assert not framer.empty
    framer.take(2)
    assert framer.empty
    assert framer.buffered_bytes == 0
    framer.feed(b"PING\r\n")
    assert framer.next() == Frame(Kind.COMMAND, b"PING\r\n", [b"PING"])
    assert framer.next() is None


@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=5), max_size=6), st.data())
def test_raw_bytes_of_all_frames_are_the_bytes_received(commands, data):
    stream = b"".join(multibulk(*command) for command in commands)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found, framer = frames_of(chunks)
    assert [frame.raw for frame in found] == [
        b"" if is_ours(command[0]) else multibulk(*command) for command in commands
    ]
    assert [frame.argv for frame in found] == commands
    assert framer.empty


@pytest.mark.parametrize("step", [1000, 4096, 65536, 1 << 22])
@pytest.mark.parametrize("sizes", [[200_000], [100, 100_000, 10], [STREAM_THRESHOLD_BYTES] * 3])
def test_a_large_foreign_frame_passes_in_pieces_that_join_to_it(step, sizes):
    stream = multibulk(b"MSET", *(b"x" * size for size in sizes))
    tail = multibulk(b"PING")
    whole = stream + tail
    found, framer = frames_of([whole[at : at + step] for at in range(0, len(whole), step)])
    assert b"".join(frame.raw for frame in found) == whole
    assert found[-1] == Frame(Kind.COMMAND, tail, [b"PING"])
    starts = [frame for frame in found[:-1] if frame.argv]
    assert len(starts) == 1
    assert starts[0].argv[0] == b"MSET"
    assert framer.empty


def test_a_large_foreign_frame_is_never_held():
    framer = RequestFramer(is_ours, MAX_BODY)
    framer.feed(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n")
    held = 0
    for _ in range(100):
        framer.feed(b"x" * 65536)
        while framer.next() is not None:
            pass
        held = max(held, framer.buffered_bytes)
    assert held < 2 * 65536


@pytest.mark.parametrize("step", [100, 70_000, 1 << 22])
def test_an_oversized_body_of_ours_is_skipped_and_reported(step):
    stream = multibulk(b"VALQ.PUSH", b"q", b"x" * 2_000_000) + multibulk(b"VALQ.POP", b"q")
    found, framer = frames_of([stream[at : at + step] for at in range(0, len(stream), step)], max_body=100_000)
    assert [frame.kind for frame in found] == [Kind.OVERSIZED, Kind.COMMAND]
    assert found[0].argv[:2] == [b"VALQ.PUSH", b"q"]
    assert found[1].argv == [b"VALQ.POP", b"q"]
    assert framer.empty


def test_an_announced_2_gb_body_of_ours_is_a_protocol_error_and_allocates_nothing():
    found, framer = frames_of([b"*3\r\n$9\r\nVALQ.PUSH\r\n$1\r\nq\r\n$2147483648\r\n", b"abc"])
    assert {frame.kind for frame in found} == {Kind.BROKEN}
    assert framer.buffered_bytes < 100


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        (b"a  b\tc", [b"a", b"b", b"c"]),
        (b'"a b"', [b"a b"]),
        (b'"\\"\\\\\\r"', [b'"\\\r']),
        (b"'it\\'s'", [b"it's"]),
        (b'"a"b', [b"ab"]),
        (b"a'b c'\"d\"", [b"ab cd"]),
        (b'"a\\"', [b"a\\"]),
        (b"'a\\'", [b"a\\"]),
        (b'"\\x41', None),
        (b'"\\x4"', [b"x4"]),
        (b"'a", None),
        (b'"a\\', None),
        (b"\x0b\x0ca\x0bb\x0cc \x0bd", [b"a\x0bb\x0cc", b"d"]),
        (b"", []),
    ],
)
def test_inline_arguments_are_split_as_valkey_splits_them(line, argv):
    assert split_inline(line) == argv


def test_the_arguments_of_a_command_that_comes_in_drops_are_not_copied_again_with_each():
    head = b"*%d\r\n" % 2003 + multibulk(b"VALQ.MPUSH", b"q", b"2000")[4:]
    body = b"$1000\r\n%b\r\n" % (b"x" * 1000)
    framer = RequestFramer(is_ours, 4 * MAX_BODY)
    framer.feed(head)
    most = 0
    for _ in range(1999):
        framer.feed(body)
        assert framer.next() is None
        most = max(most, framer.buffered_bytes)
    assert most < 80 * 1024
    framer.feed(body)
    frame = framer.next()
    assert frame is not None
    assert frame.argv == [b"VALQ.MPUSH", b"q", b"2000"] + [b"x" * 1000] * 2000
    assert framer.next() is None
    assert framer.empty


def test_a_violation_behind_arguments_that_were_let_go_is_still_one():
    framer = RequestFramer(is_ours, 4 * MAX_BODY)
    framer.feed(b"*9999\r\n" + multibulk(b"VALQ.MPUSH", b"q", b"2000")[4:])
    for _ in range(100):
        framer.feed(b"$1000\r\n%b\r\n" % (b"x" * 1000))
        assert framer.next() is None
    framer.feed(b"?1\r\n")
    assert framer.next() == Frame(Kind.BROKEN, b"*1\r\n!\r\n", [])


def test_no_argument_behind_those_that_were_let_go_passes_for_a_command():
    framer = RequestFramer(is_ours, 4 * MAX_BODY)
    framer.feed(multibulk(b"VALQ.MPUSH", b"q", b"2", b"x" * 100_000, b"")[: -len("$0\r\n\r\n")])
    assert framer.next() is None
    framer.feed(b"$17\r\n*1\r\n$8\r\nFLUSHALL\r\n\r\n")
    assert framer.next() == Frame(Kind.BROKEN, b"*1\r\n!\r\n", [])


def test_nothing_of_a_request_that_is_skipped_passes_for_a_command():
    framer = RequestFramer(is_ours, 1024)
    framer.feed(b"*4\r\n$9\r\nVALQ.PUSH\r\n$1\r\nq\r\n$200022\r\n" + b"x" * 200_000)
    assert framer.next() is None
    framer.feed(b"\r\nDEL precious\r\nSET a\r\n!oops\r\n")
    frames = [framer.next()]
    assert {frame.kind for frame in frames} == {Kind.BROKEN}
    assert b"".join(frame.raw for frame in frames) == b"*1\r\n!\r\n"


def test_a_request_of_too_many_arguments_is_skipped(monkeypatch):
    monkeypatch.setattr(framing, "MAX_ARGUMENTS", 100)
    framer = RequestFramer(is_ours, MAX_BODY)
    argument = b"x" * 1000  # so large a request is not cut at once
    framer.feed(
        multibulk(b"VALQ.PUSH", *[argument] * 99) + multibulk(b"VALQ.PUSH", *[argument] * 100) + multibulk(b"PING")
    )
    frames = [framer.next() for _ in range(3)]
    assert [frame.kind for frame in frames] == [Kind.COMMAND, Kind.OVERSIZED, Kind.COMMAND]
    assert frames[2].argv == [b"PING"]


def test_all_escapes_are_known():
    assert split_inline(rb'"\n\r\t\b\a\x0f\q"') == [b"\n\r\t\b\a\x0fq"]


@pytest.mark.parametrize(
    ("count", "size", "kind"),
    [(10, 1, Kind.COMMAND), (11, 1, Kind.BROKEN), (2, 16384, Kind.COMMAND), (2, 16385, Kind.BROKEN)],
)
def test_who_has_not_authenticated_may_send_little(count, size, kind):
    framer = RequestFramer(is_ours, MAX_BODY)
    framer.unauthenticated = True
    framer.feed(multibulk(b"GET", *[b"x" * size] * (count - 1)))
    assert framer.next().kind is kind


def test_what_comes_in_drops_is_counted_whole_and_for_each_command_anew():
    head = b"*2003\r\n" + multibulk(b"VALQ.MPUSH", b"q", b"2000")[4:]
    body = b"$1000\r\n%b\r\n" % (b"x" * 1000)
    for most, kind in ((3 << 20, Kind.COMMAND), (1 << 20, Kind.OVERSIZED)):
        found, _ = frames_of([head, *[body] * 2000] * 2, max_body=most)
        assert [frame.kind for frame in found] == [kind] * 2


def test_of_much_that_waits_the_beginning_is_seen():
    framer = RequestFramer(is_ours, MAX_BODY)
    stream = multibulk(b"VALQ.PUSH", b"q", b"x" * 1000) * 1000
    framer.feed(stream)
    seen = b""
    while part := framer.peek():
        assert len(part) <= 128 * 1024
        framer.take(min(len(part), 100_000))
        seen += part[:100_000]
    assert seen == stream
    assert framer.empty


def test_what_waits_is_not_seen_from_within_a_frame():
    framer = RequestFramer(is_ours, MAX_BODY)
    framer.feed(b"*2\r\n$3\r\nGET\r\n")
    assert framer.next() is None
    assert framer.peek() == b""
    framer.feed(b"$1\r\nk\r\n")
    assert framer.next().argv == [b"GET", b"k"]


@pytest.mark.parametrize("empty", [b"\n", b"\r\n", b"*0\r\n", b"\n\r\n*0\r\n"])
def test_empty_lines_are_passed_over_however_many_and_wherever_they_are_cut(empty):
    stream = empty * 2000 + multibulk(b"GET", b"k") + empty * 2000 + b"PING\r\n"
    for step in (1, 3, 1000, len(stream)):
        frames, _ = frames_of([stream[at : at + step] for at in range(0, len(stream), step)])
        assert [frame.argv for frame in frames] == [[b"GET", b"k"], [b"PING"]]


def test_a_large_body_does_not_stay_while_what_follows_it_waits():
    framer = RequestFramer(is_ours, MAX_BODY)
    framer.feed(multibulk(b"VALQ.PUSH", b"q", b"x" * MAX_BODY) + multibulk(b"VALQ.POP", b"q"))
    assert framer.next().argv[0] == b"VALQ.PUSH"
    assert len(framer._buf) < 100
    assert framer.next().argv == [b"VALQ.POP", b"q"]


def test_what_was_looked_at_in_vain_is_not_looked_at_again_before_most_of_it_is_gone():
    framer = RequestFramer(is_ours, MAX_BODY)
    framer.feed(multibulk(b"GET", b"k") * 100 + b"PING\r\n")
    looked = 0
    while framer.buffered_bytes:
        if data := framer.peek():
            looked += len(data)
            framer.peeked_in_vain()
        assert framer.next()
    assert looked < 3 * 2300  # each byte a few times, not a hundred
    framer.feed(multibulk(b"GET", b"k"))
    assert framer.peek() == multibulk(b"GET", b"k")
