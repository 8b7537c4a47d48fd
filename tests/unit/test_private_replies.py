"""Replies of a private lane: counted, watched and swallowed at the right places, whatever the chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valqd.protocol.private_replies import PrivateReplies
from valqd.protocol.replies import ReplyScanner, split_elements


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


scalars = st.one_of(
    st.sampled_from([b"+OK\r\n", b"-ERR no\r\n", b":12\r\n", b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n"]),
    st.binary(max_size=30).map(bulk),
    st.binary(max_size=30).map(lambda value: b"=%d\r\ntxt:%b\r\n" % (len(value) + 4, value)),
)
replies = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"*%d\r\n%b" % (len(items), b"".join(items))),
        st.lists(inner, max_size=4).map(lambda items: b"~%d\r\n%b" % (len(items), b"".join(items))),
        st.lists(st.tuples(inner, inner), max_size=3).map(
            lambda pairs: b"%%%d\r\n%b" % (len(pairs), b"".join(key + value for key, value in pairs))
        ),
    ),
    max_leaves=8,
)
pushes = st.lists(scalars, min_size=1, max_size=3).map(lambda items: b">%d\r\n%b" % (len(items), b"".join(items)))
attributes = st.tuples(scalars, scalars).map(lambda pair: b"|1\r\n%b%b" % pair)


def chunked(stream: bytes, data) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]


@given(st.lists(st.one_of(replies, st.tuples(attributes, replies).map(b"".join), pushes), max_size=8), st.data())
def test_the_scanner_finds_the_end_of_every_reply(stream, data):
    ends = []
    at = 0
    scanner = ReplyScanner()
    for chunk in chunked(b"".join(stream), data):
        ends += [(at + end.offset, end.is_push) for end in scanner.feed(chunk)]
        at += len(chunk)
    expected = []
    at = 0
    for reply in stream:
        at += len(reply)
        expected.append((at, reply[:1] == b">"))
    assert ends == expected
    assert scanner.at_boundary


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("plain"), replies),
            st.tuples(st.just("plain"), st.tuples(attributes, replies).map(b"".join)),
            st.tuples(st.just("watched"), replies),
            st.tuples(st.just("swallowed"), replies),
            st.tuples(st.just("push"), pushes),
        ),
        max_size=12,
    ),
    st.data(),
)
def test_watched_and_swallowed_replies_are_cut_out_exactly(script, data):
    private = PrivateReplies()
    seen = []

    def watch(raw):
        seen.append(raw)
        return b"<" + raw + b">"

    expected_out = []
    expected_seen = []
    pending = [item for item in script if item[0] != "push"]
    for kind, _ in pending:
        if kind == "plain":
            private.expect(1)
        else:
            private.expect_special(watch if kind == "watched" else lambda raw: b"")
    for kind, raw in script:
        if kind in ("plain", "push"):
            expected_out.append(raw)
        elif kind == "watched":
            expected_seen.append(raw)
            expected_out.append(b"<" + raw + b">")
    got = b"".join(private.feed(chunk) for chunk in chunked(b"".join(raw for _, raw in script), data))
    assert private.outstanding == 0
    assert got == b"".join(expected_out)
    assert seen == expected_seen


def test_an_attribute_is_no_reply():
    private = PrivateReplies()
    private.expect(3)
    assert private.feed(b"|1\r\n+a\r\n+b\r\n+1\r\n") == b"|1\r\n+a\r\n+b\r\n+1\r\n"
    assert private.outstanding == 2


def test_a_repeated_call_gets_its_old_place_in_the_output():
    private = PrivateReplies()
    gaps = []

    def missing(raw):
        gaps.append(private.leave_gap())
        return gaps[0]

    private.expect(1)
    private.expect_special(missing)
    private.expect(2)
    assert private.feed(b"+1\r\n-ERR Function not found\r\n+3\r\n") == b"+1\r\n"
    assert private.outstanding == 2
    private.expect_again(*gaps, lambda raw: raw)
    assert private.feed(b"+4\r\n") == b""
    assert private.feed(b"$1\r\n") == b""
    assert private.feed(b"2\r\n") == b"$1\r\n2\r\n+3\r\n+4\r\n"
    assert private.outstanding == 0


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_counting_starts_again_after_the_marker(step):
    private = PrivateReplies()
    private.stop_counting()
    private.await_marker(ends=b"-ERR mark", goes_on=b"-ERR not yet")
    stream = b">3\r\n+subscribe\r\n+c\r\n:1\r\n-ERR marx\r\n-ERR mark it\r\n"
    out = b"".join(private.feed(stream[at : at + step]) for at in range(0, len(stream), step))
    assert out == stream.removesuffix(b"-ERR mark it\r\n")
    assert not private.uncounted
    private.expect(1)
    assert private.feed(b"+OK\r\n") == b"+OK\r\n"
    assert private.outstanding == 0


def test_elements_of_a_reply():
    assert split_elements(b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n") == [b"$1\r\na\r\n", b"*1\r\n:1\r\n"]


def test_what_the_daemon_asked_itself_is_not_owed_and_no_less_is_when_it_is_answered():
    private = PrivateReplies()
    private.expect_own(lambda raw: b"")
    private.expect(1)
    assert (private.outstanding, private.owed) == (2, 1)
    assert private.feed(b"+OK\r\n") == b""
    assert (private.outstanding, private.owed) == (1, 1)


def test_what_comes_before_a_mark_is_the_clients_and_the_mark_is_not_owed():
    private = PrivateReplies()
    private.expect_until(b"-ERR mark")
    assert private.feed(b"-NOPERM\r\n") == b"-NOPERM\r\n"
    assert (private.outstanding, private.owed) == (1, 0)
    assert private.feed(b"-ERR mark\r\n") == b""
    private.expect(1)
    assert private.owed == 1


def test_a_message_that_is_cut_where_it_looks_like_a_mark_is_none():
    mark = b"-ERR Syntax error in HELLO option 'valqd-mark-7-1'"
    private = PrivateReplies()
    private.stop_counting()
    private.await_marker(ends=mark, goes_on=b"-ERR Can't execute 'hello': only ")
    message = b"*3\r\n" + bulk(b"message") + bulk(b"a") + bulk(b"x" * 100 + mark + b"\r\n" + mark)
    cut = message.index(mark)
    assert private.feed(message[:cut]) + private.feed(message[cut:]) == message
    assert private.feed(mark + b"\r\n") == b""
    assert not private.uncounted


def test_a_line_that_is_cut_is_no_end():
    scanner = ReplyScanner()
    assert scanner.feed(b"+O") == []
    assert not scanner.at_boundary


@given(st.lists(st.one_of(pushes, replies), max_size=12), st.data())
def test_how_much_of_what_was_passed_on_is_whole_is_known(stream, data):
    counted = PrivateReplies()
    counted.expect(sum(reply[:1] != b">" for reply in stream))
    ends, at = [0], 0
    for reply in stream:
        at += len(reply)
        ends.append(at)
    passed_on = b""
    for chunk in chunked(b"".join(stream), data):
        passed_on += counted.feed(chunk)
        assert counted.whole_bytes(len(passed_on)) == max(end for end in ends if end <= len(passed_on))
    assert passed_on == b"".join(stream)
